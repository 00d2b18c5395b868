#pragma once
// A trained image-text model on samples: the answers that it writes, how good they are, and where it looked for them.

#include <optional>
#include <string>
#include <vector>

#include "core_tokensets/attribution/answers/answers.hpp"
#include "core_tokensets/data/text/encoded_texts.hpp"
#include "core_tokensets/metrics/caption_metrics.hpp"
#include "core_tokensets/metrics/vqa_accuracy.hpp"
#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/train/evaluate.hpp"

namespace core_tokensets {

/// What the model writes for some samples, in their order, as tokens.
template <tensor_backend B>
std::vector<generated_text> write_tokens(B& b, const image_text_model<B>& model,
                                         const sample_view<visual_text>& samples, const generation_options& o = {},
                                         index batch_size = 64) {
  const visual_text& data = *samples.data;
  const samples_by_picture by_picture(data, samples.indices);
  std::vector<generated_text> of_sample(static_cast<std::size_t>(data.n()));
  token_batch images;
  detail::for_batches(by_picture.pictures(), batch_size, [&](std::span<const index> part) {
    text_batch prompts;
    std::vector<index> asked;
    for (const index picture : part) {
      prompts.next_picture();
      for (const index i : by_picture.of(picture)) {
        prompts.append_prompt(model.words().encode(data.sample(i).prompt), tokenizer::begin_token);
        asked.push_back(i);
      }
    }
    make_batch(data.images, part, model.config().image, images);
    auto written = generate(b, model, images, prompts, tokenizer::end_token, o);
    for (std::size_t q = 0; q < asked.size(); ++q)
      of_sample[static_cast<std::size_t>(asked[q])] = std::move(written[q]);
  });
  std::vector<generated_text> result;
  for (const index i : samples.indices) result.push_back(of_sample[static_cast<std::size_t>(i)]);
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
std::vector<std::string> write_answers(B& b, const image_text_model<B>& model, const sample_view<visual_text>& samples,
                                       const generation_options& o = {}, index batch_size = 64) {
  std::vector<std::string> texts;
  for (const auto& written : write_tokens(b, model, samples, o, batch_size))
    texts.push_back(text_of(model.words(), written));
  return texts;
}

/// What a model wrote about one picture, and how much each patch `[P]` mattered for it.
struct explained_answer {
  std::string text;
  std::vector<double> relevance = {};
};

/// Writes an answer to each sample (a caption where the prompt is empty) and explains it by `method`.
template <tensor_backend B, class Method>
std::vector<explained_answer> explain_answers_of(B& b, const image_text_model<B>& model,
                                                 const sample_view<visual_text>& samples, const Method& method,
                                                 const generation_options& o = {}) {
  const auto written = write_tokens(b, model, samples, o);
  std::vector<explained_answer> result;
  answer_workspace<B> workspace;
  token_batch images;
  for (std::size_t i = 0; i < samples.indices.size(); ++i) {
    const visual_text_sample& sample = samples.data->sample(samples.indices[i]);
    text_batch texts;
    texts.next_picture();
    texts.append(model.words().encode(sample.prompt), written[i].tokens, tokenizer::begin_token, tokenizer::end_token);
    make_batch(samples.data->images, std::span(&sample.image, 1), model.config().image, images);
    result.push_back({text_of(model.words(), written[i]), attribute(method, b, model, images, texts, workspace).image});
  }
  return result;
}

namespace detail {

/// One picture of any size with one question, as a data set.
inline visual_text one_question(const image_view& picture, std::string question, const patch_grid& grid) {
  visual_text data;
  data.images = one_picture(picture, grid);
  data.group_names = {"picture"};
  data.samples.push_back({0, std::move(question), {""}, 0});
  return data;
}

}  // namespace detail

/// The answer to a question about a picture of any size; no question: a caption.
template <tensor_backend B>
std::string answer(B& b, const image_text_model<B>& model, const image_view& picture, std::string question,
                   const generation_options& o = {}) {
  return write_answers(b, model, detail::one_question(picture, std::move(question), model.config().image.grid), o)
      .front();
}

/// The same, and where the model looked for it by `method`.
template <tensor_backend B, class Method>
explained_answer answer(B& b, const image_text_model<B>& model, const image_view& picture, std::string question,
                        const Method& method,
                        const generation_options& o) requires(!std::same_as<Method, generation_options>) {
  return explain_answers_of(b, model, detail::one_question(picture, std::move(question), model.config().image.grid),
                            method, o)
      .front();
}

/// A description of a picture of any size.
template <tensor_backend B>
std::string caption(B& b, const image_text_model<B>& model, const image_view& picture,
                    const generation_options& o = {.length = 40}) {
  return answer(b, model, picture, "", o);
}

/// True where the samples are captions: no sample asks anything.
inline bool are_captions(const sample_view<visual_text>& samples) {
  return std::all_of(samples.indices.begin(), samples.indices.end(),
                     [&](index i) { return samples.data->sample(i).prompt.empty(); });
}

/// Questions: VQA accuracy, with the share of exact matches. Captions: CIDEr-D over its maximum of 10, with BLEU-4 and
/// ROUGE-L; they need at least two samples, since CIDEr-D weighs words by what tells samples apart.
template <tensor_backend B>
evaluation evaluate(B& b, const image_text_model<B>& model, const sample_view<visual_text>& samples,
                    const generation_options& o = {}) {
  const bool captions = are_captions(samples);
  require(samples.n() > (captions ? 1 : 0), "evaluate: ", samples.n(), " samples, expected at least ",
          captions ? 2 : 1);
  const auto written = write_answers(b, model, samples, o);
  const auto n = static_cast<double>(samples.n());
  evaluation result;
  if (captions) {
    std::vector<std::vector<std::string>> references;
    for (const index i : samples.indices) references.push_back(samples.data->sample(i).answers);
    const caption_scores s = measure_captions(written, references);
    return {.accuracy = s.cider_d / 10, .others = {{"bleu_4", s.bleu[3]}, {"rouge_l", s.rouge_l}}};
  }
  double exact = 0;
  for (std::size_t i = 0; i < written.size(); ++i) {
    const visual_text_sample& sample = samples.data->sample(samples.indices[i]);
    result.accuracy += vqa_accuracy(written[i], sample.answers) / n;
    exact += exact_match(written[i], sample) / n;
  }
  result.others["exact_match"] = exact;
  return result;
}

}  // namespace core_tokensets
