#pragma once
// Questions and captions to look at: pictures, what the model wrote, and where it looked.

#include <string>
#include <vector>

#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/train/answering.hpp"

namespace core_tokensets {

/// The samples: each picture with its question, and beside it the answer over where the model looked by `method`.
template <tensor_backend B, class Method>
image answer_sheet(B& b, const image_text_model<B>& model, const sample_view<visual_text>& samples,
                   const Method& method, const generation_options& o = {}) {
  const patch_grid& grid = model.config().image.grid;
  const auto answers = explain_answers_of(b, model, samples, method, o);
  std::vector<sheet_cell> cells;
  for (std::size_t i = 0; i < samples.indices.size(); ++i) {
    const visual_text_sample& sample = samples.data->sample(samples.indices[i]);
    const image_view picture = samples.data->images.view_of(sample.image);
    cells.push_back({grey_to_rgb(picture), sample.prompt.empty() ? sample.answers.front() : sample.prompt});
    cells.push_back({overlay(picture, answers[i].relevance, grid.rows(), grid.cols()), answers[i].text});
  }
  return contact_sheet(cells, {.columns = 4,
                               .zoom = std::max<index>(1, 256 / std::max(grid.height, grid.width)),
                               .title = "What was asked, what the model wrote, and where it looked"});
}

}  // namespace core_tokensets
