#pragma once
// Questions and captions to look at: pictures, what the model wrote, and where it looked.

#include <string>
#include <vector>

#include "core_tokensets/attribution/answer_methods.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/train/answering.hpp"

namespace core_tokensets {

/// What a model wrote about one picture, and how much each patch `[P]` mattered for it.
struct explained_answer {
  std::string text;
  std::vector<double> relevance;
};

/// Writes an answer to each of the samples `indices` (a caption where the prompt is empty) and explains it.
template <tensor_backend B>
std::vector<explained_answer> explain_written(B& b, const image_text_model<B>& model, const tokenizer& words,
                                              const visual_text& data, std::span<const index> indices,
                                              const attribution_method& method,
                                              const pixel_normalisation& normalisation,
                                              const generation_options& o = {}) {
  const auto written = write_tokens(b, model, words, data, indices, normalisation, o);
  std::vector<explained_answer> result;
  answer_workspace<B> workspace;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const visual_text_sample& sample = data.samples[static_cast<std::size_t>(indices[i])];
    text_batch texts;
    texts.next_picture();
    texts.append(words.encode(sample.prompt), written[i].tokens, tokenizer::begin_token, tokenizer::end_token);
    const auto images = make_batch(data.images, std::vector<index>{sample.image},
                                   {.patch = model.config().image.patch, .normalisation = normalisation});
    result.push_back({text_of(words, written[i]), attribute_answers(method, b, model, images, texts, workspace).image});
  }
  return result;
}

/// The samples `indices`: each picture with its question, and beside it the answer over where the model looked.
template <tensor_backend B>
image answer_sheet(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                   std::span<const index> indices, const attribution_method& method,
                   const pixel_normalisation& normalisation, const generation_options& o = {}) {
  const vit_config& c = model.config().image;
  const auto answers = explain_written(b, model, words, data, indices, method, normalisation, o);
  std::vector<sheet_cell> cells;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const visual_text_sample& sample = data.samples[static_cast<std::size_t>(indices[i])];
    const image_view picture = data.images.view_of(sample.image);
    cells.push_back({grey_to_rgb(picture), sample.prompt.empty() ? sample.answers.front() : sample.prompt});
    cells.push_back({overlay(picture, answers[i].relevance, c.grid_height(), c.grid_width()), answers[i].text});
  }
  return contact_sheet(cells, {.columns = 4,
                               .zoom = std::max<index>(1, 256 / std::max(c.image.height, c.image.width)),
                               .title = "What was asked, what the model wrote, and where it looked"});
}

}  // namespace core_tokensets
