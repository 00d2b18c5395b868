#pragma once
// A trained image-text model on samples: the answers that it writes, and what selection needs to know of each sample.

#include "core_tokensets/data/encoded_texts.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/selection/evidence.hpp"

namespace core_tokensets {

namespace detail {

/// Calls `body(part)` for pieces of the pictures.
template <class Body>
void for_pictures(std::span<const index> pictures, index batch_size, const Body& body) {
  for (std::size_t begin = 0; begin < pictures.size(); begin += static_cast<std::size_t>(batch_size)) {
    body(pictures.subspan(begin, std::min(static_cast<std::size_t>(batch_size), pictures.size() - begin)));
  }
}

}  // namespace detail

/// What the model writes for the samples `indices` of `data`, in their order, as tokens.
template <tensor_backend B>
std::vector<generated_text> write_tokens(B& b, const image_text_model<B>& model, const tokenizer& words,
                                         const visual_text& data, std::span<const index> indices,
                                         const pixel_normalisation& normalisation, const generation_options& o = {},
                                         index batch_size = 64) {
  const samples_by_picture by_picture(data, indices);
  std::vector<generated_text> of_sample(static_cast<std::size_t>(data.n()));
  detail::for_pictures(by_picture.pictures(), batch_size, [&](std::span<const index> part) {
    text_batch prompts;
    std::vector<index> asked;
    for (const index picture : part) {
      prompts.next_picture();
      for (const index i : by_picture.of(picture)) {
        prompts.append_prompt(words.encode(data.samples[static_cast<std::size_t>(i)].prompt), tokenizer::begin_token);
        asked.push_back(i);
      }
    }
    const auto images =
        make_batch(data.images, part, {.patch = model.config().image.patch, .normalisation = normalisation});
    auto written = generate(b, model, images, prompts, tokenizer::end_token, o);
    for (std::size_t q = 0; q < asked.size(); ++q)
      of_sample[static_cast<std::size_t>(asked[q])] = std::move(written[q]);
  });
  std::vector<generated_text> result;
  for (const index i : indices) result.push_back(of_sample[static_cast<std::size_t>(i)]);
  return result;
}

/// Tokens as text, without blanks in front.
inline std::string text_of(const tokenizer& words, const generated_text& written) {
  std::string text = words.decode(written.tokens);
  text.erase(0, text.find_first_not_of(' '));
  return text;
}

/// The same as text.
template <tensor_backend B>
std::vector<std::string> write_answers(B& b, const image_text_model<B>& model, const tokenizer& words,
                                       const visual_text& data, std::span<const index> indices,
                                       const pixel_normalisation& normalisation, const generation_options& o = {},
                                       index batch_size = 64) {
  std::vector<std::string> texts;
  for (const auto& written : write_tokens(b, model, words, data, indices, normalisation, o, batch_size))
    texts.push_back(text_of(words, written));
  return texts;
}

/// Last-layer gradients of the samples `indices`, averaged over the positions of each answer; labels are the groups.
template <tensor_backend B>
evidence answer_evidence(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                         std::span<const index> indices, const pixel_normalisation& normalisation,
                         index batch_size = 64) {
  const encoded_texts encoded(data, words, model.config().text.length);
  const samples_by_picture by_picture(data, indices);
  const index classes = model.config().text.vocabulary;
  require(data.groups() <= classes, "selection: ", data.groups(), " groups, more than the ", classes, " tokens");
  std::vector<std::vector<float>> logits(static_cast<std::size_t>(data.n())), features(logits.size());
  std::vector<std::vector<std::int32_t>> targets(logits.size());
  image_text_tape<B> tape;
  tape.keep = kept::logits;
  detail::for_pictures(by_picture.pictures(), batch_size, [&](std::span<const index> part) {
    text_batch texts;
    std::vector<index> asked;
    for (const index picture : part) {
      texts.next_picture();
      for (const index i : by_picture.of(picture)) {
        texts.append(encoded.prompt(i), encoded.answer(i), tokenizer::begin_token, tokenizer::end_token);
        asked.push_back(i);
      }
    }
    const auto images =
        make_batch(data.images, part, {.patch = model.config().image.patch, .normalisation = normalisation});
    forward(b, model, images, texts, tape);
    const auto z = tape.logits.to_host(b), h = tape.text_norm.y.to_host(b);
    const index dim = tape.text_norm.y.cols();
    for (std::size_t q = 0; q < asked.size(); ++q) {
      const auto s = static_cast<std::size_t>(asked[q]);
      for (index a = tape.text.asked_of_text.begin(static_cast<index>(q));
           a < tape.text.asked_of_text.begin(static_cast<index>(q) + 1); ++a) {
        const auto row = [&](const auto& from, index width) { return from.begin() + a * width; };
        logits[s].insert(logits[s].end(), row(z, tape.logits.cols()), row(z, tape.logits.cols()) + tape.logits.cols());
        features[s].insert(features[s].end(), row(h, dim), row(h, dim) + dim);
        targets[s].push_back(tape.text.targets[static_cast<std::size_t>(a)]);
      }
    }
  });
  std::vector<float> all_logits, all_features;
  std::vector<std::int32_t> all_targets, groups;
  std::vector<index> rows{0};
  for (const index i : indices) {
    const auto s = static_cast<std::size_t>(i);
    all_logits.insert(all_logits.end(), logits[s].begin(), logits[s].end());
    all_features.insert(all_features.end(), features[s].begin(), features[s].end());
    all_targets.insert(all_targets.end(), targets[s].begin(), targets[s].end());
    groups.push_back(data.samples[s].group);
    rows.push_back(static_cast<index>(all_targets.size()));
  }
  return make_evidence(all_logits, all_features, all_targets, classes, std::move(rows), groups);
}

}  // namespace core_tokensets
