#pragma once
// What selection knows of samples with text: last-layer gradients, one row for each token of an answer.

#include <utility>
#include <vector>

#include "core_tokensets/data/text/encoded_texts.hpp"
#include "core_tokensets/model/image_text.hpp"
#include "core_tokensets/selection/evidence.hpp"
#include "core_tokensets/train/evaluate.hpp"

namespace core_tokensets::detail {

/// Last-layer gradients of the samples' answers, averaged over their tokens; labels are the groups. The rows are filled
/// batch by batch: nothing but the evidence itself is held for all samples.
template <tensor_backend B>
evidence evidence_of(B& b, const image_text_model<B>& model, const sample_view<visual_text>& samples) {
  const visual_text& data = *samples.data;
  const encoded_texts encoded(data, model.words(), model.config().text.length);
  const samples_by_picture by_picture(data, samples.indices);
  std::vector<std::int32_t> groups;
  std::vector<index> rows{0}, place(static_cast<std::size_t>(data.n()), -1);
  for (const index i : samples.indices) {
    place[static_cast<std::size_t>(i)] = static_cast<index>(groups.size());
    groups.push_back(data.sample(i).group);
    rows.push_back(rows.back() + static_cast<index>(encoded.answer(i).size()) + 1);
  }
  const index vocabulary = model.config().text.vocabulary, dim = model.config().text.dim;
  evidence e = empty_evidence(vocabulary, dim, std::move(groups), std::move(rows));
  e.groups = data.groups();
  image_text_tape<B> tape;
  tape.keep = kept::logits;
  token_batch images;
  for_batches(by_picture.pictures(), 64, [&](std::span<const index> part) {
    text_batch texts;
    std::vector<index> asked;
    for (const index picture : part) {
      texts.next_picture();
      for (const index i : by_picture.of(picture)) {
        texts.append(encoded.prompt(i), encoded.answer(i), tokenizer::begin_token, tokenizer::end_token);
        asked.push_back(i);
      }
    }
    make_batch(data.images, part, model.config().image, images);
    forward(b, model, images, texts, tape);
    const auto logits = tape.logits.to_host(b), features = tape.text_norm.y.to_host(b);
    const std::vector<float> z(logits.begin(), logits.end()), h(features.begin(), features.end());
    for (std::size_t q = 0; q < asked.size(); ++q) {
      const sequences& of_text = tape.text.asked_of_text;
      const index first = e.first_row(place[static_cast<std::size_t>(asked[q])]),
                  begin = of_text.begin(static_cast<index>(q));
      for (index a = 0; a < of_text.length(static_cast<index>(q)); ++a) {
        const auto row = [&](const std::vector<float>& from, index width) {
          return std::span(from).subspan(static_cast<std::size_t>((begin + a) * width),
                                         static_cast<std::size_t>(width));
        };
        fill_row(e, first + a, row(z, vocabulary), row(h, dim), tape.text.targets[static_cast<std::size_t>(begin + a)]);
      }
    }
  });
  return e;
}

}  // namespace core_tokensets::detail
