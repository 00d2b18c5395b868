#pragma once
// Pictures to look at beside how much each of their patches mattered, by any attribution methods.

#include <string>
#include <vector>

#include "core_tokensets/attribution/workspace.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/kept_tokens.hpp"
#include "core_tokensets/train/evaluate.hpp"

namespace core_tokensets {

/// The samples and, beside each picture, how much every patch mattered for its class by each method, whose name is the
/// caption; below the pictures stand their classes (`class_legend`).
template <tensor_backend B, class... Methods>
image relevance_sheet(B& b, const vit<B>& model, const sample_view<dataset>& samples, const Methods&... methods) {
  const vit_config& c = model.config();
  const dataset& data = *samples.data;
  token_batch batch;
  make_batch(data, samples.indices, c, batch);
  attribution_workspace<B> workspace;
  std::vector<std::vector<double>> relevance;
  (relevance.push_back(attribute(methods, b, model, batch, target::label(), workspace)), ...);
  const std::vector<std::string> names{text_of(methods)...};
  std::vector<sheet_cell> cells;
  const auto patches = static_cast<std::size_t>(c.grid.tokens());
  for (std::size_t i = 0; i < samples.indices.size(); ++i) {
    const image_view picture = data.view_of(samples.indices[i]);
    cells.push_back({grey_to_rgb(picture), detail::class_label(data.class_names, batch.targets[i])});
    for (std::size_t m = 0; m < names.size(); ++m) {
      cells.push_back(
          {overlay(picture, std::span(relevance[m]).subspan(i * patches, patches), c.grid.rows(), c.grid.cols()),
           names[m].substr(0, names[m].find(':'))});
    }
  }
  const auto columns = static_cast<index>(1 + names.size());
  return contact_sheet(cells, {.columns = columns * std::max<index>(1, 8 / columns),
                               .zoom = detail::zoom_for(data.height, data.width),
                               .title = "How much each patch mattered for the class"});
}

}  // namespace core_tokensets
