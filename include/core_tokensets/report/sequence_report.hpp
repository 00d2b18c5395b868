#pragma once
// What a sequence of tasks leaves to look at: kept tokens beside their pictures, relevance on test pictures, and one
// page with both and all numbers.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/attribution/methods.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/report/page.hpp"

namespace core_tokensets {

namespace detail {

/// `count` numbers spread evenly over 0 .. n-1.
inline std::vector<index> spread(index n, index count) {
  std::vector<index> chosen;
  for (index i = 0; i < std::min(n, count); ++i) chosen.push_back(i * n / std::min(n, count));
  return chosen;
}

/// So many times larger that a side has about 96 pixels.
inline index zoom_for(const dataset& data) { return std::max<index>(1, 96 / std::max(data.height, data.width)); }

inline std::string class_name(const dataset& data, index label) {
  return data.class_names.empty() ? std::to_string(label) : data.class_names[static_cast<std::size_t>(label)];
}

}  // namespace detail

/// Up to `count` samples of a memory, spread over it: each picture and, beside it, what the memory kept of it.
/// `pictures` `[S]` says which picture of `data` each sample came from. Captions are the classes, or what the memory
/// keeps of texts. `Error`: an empty memory.
inline image kept_tokens_sheet(const token_memory& memory, const dataset& data, std::span<const index> pictures,
                               index count = 20) {
  require(!memory.empty(), "kept_tokens_sheet: the memory is empty");
  require(static_cast<index>(pictures.size()) == memory.samples(), "kept_tokens_sheet: ", pictures.size(),
          " pictures for ", memory.samples(), " samples");
  const bool texts = memory.format().texts;
  std::vector<sheet_cell> cells;
  for (const index s : detail::spread(memory.samples(), count)) {
    const auto sample = memory.sample(s);
    const image_view picture = data.view_of(pictures[static_cast<std::size_t>(s)]);
    const std::vector<std::int32_t> positions(sample.positions.begin(), sample.positions.end());
    std::string of_picture = std::string(sample.prompt);
    std::string of_kept = std::to_string(positions.size()) + " of " + std::to_string(memory.format().grid_tokens());
    if (texts) of_kept = std::string(sample.answer) + " (" + of_kept + ")";
    if (!texts) of_picture = detail::class_name(data, sample.target);
    cells.push_back({grey_to_rgb(picture), std::move(of_picture)});
    cells.push_back({kept_patches(picture, memory.format().patch, positions), std::move(of_kept)});
  }
  // Texts need room.
  return contact_sheet(cells, {.columns = texts ? 6 : 8,
                               .zoom = detail::zoom_for(data) * (texts ? 3 : 1),
                               .title = "Pictures and what is kept of them"});
}

/// The pictures `indices` of `data` and, beside each, how much every patch mattered for its class by each method.
template <tensor_backend B>
image relevance_sheet(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                      const std::vector<std::string>& methods, const pixel_normalisation& normalisation) {
  const vit_config& c = model.config();
  const token_batch batch = make_batch(data, indices, {.patch = c.patch, .normalisation = normalisation});
  attribution_workspace<B> workspace;
  std::vector<std::vector<double>> relevance;
  for (const auto& method : methods)
    relevance.push_back(attribute(parse_attribution(method), b, model, batch, batch.targets, workspace));
  std::vector<sheet_cell> cells;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const image_view picture = data.view_of(indices[i]);
    cells.push_back({grey_to_rgb(picture), detail::class_name(data, batch.targets[i])});
    const auto patches = static_cast<std::size_t>(c.patches());
    for (std::size_t m = 0; m < methods.size(); ++m) {
      cells.push_back(
          {overlay(picture, std::span(relevance[m]).subspan(i * patches, patches), c.grid_height(), c.grid_width()),
           methods[m]});
    }
  }
  const auto columns = static_cast<index>(1 + methods.size());
  return contact_sheet(cells, {.columns = columns * std::max<index>(1, 8 / columns),
                               .zoom = detail::zoom_for(data),
                               .title = "How much each patch mattered for the class"});
}

namespace detail {

/// A matrix of the results under the names of the tasks.
inline accuracy_table task_matrix(const nlohmann::json& values, const nlohmann::json& results) {
  accuracy_table matrix = matrix_from_json(values);
  if (results.contains("task_names")) {
    matrix.column_names = results["task_names"].get<std::vector<std::string>>();
    matrix.row_names = matrix.column_names;
    for (auto& name : matrix.row_names) name = "after " + name;
  }
  return matrix;
}

}  // namespace detail

/// The page of one sequence from its results as JSON (`to_json`), with figures where there are any.
inline report_page sequence_page(const nlohmann::json& results, const std::vector<report_figure>& figures) {
  const auto percent = [&](const char* key) { return fixed(100 * results.at(key).get<double>(), 1) + " %"; };
  const bool captions = results.value("/config/task"_json_pointer, std::string("classify")) == "caption";
  const std::string what = captions ? "CIDEr-D over 10" : "accuracy";
  report_page page{.title = "Tasks one after another",
                   .subtitle = "Memory: " + results.value("/config/memory"_json_pointer, std::string("none")),
                   .facts = {{"Average " + what, percent("average_accuracy")},
                             {"Average incremental " + what, percent("average_incremental_accuracy")},
                             {"Forgetting", percent("forgetting")},
                             {"Memory", std::to_string(results.at("memory_bytes").get<index>()) + " bytes"},
                             {"Samples", std::to_string(results.at("memory_samples").get<index>())},
                             {"Tokens", std::to_string(results.at("memory_tokens").get<index>())}}};
  page.sections.push_back({captions ? what : "Accuracy", {detail::task_matrix(results.at("accuracy"), results)}});
  const nlohmann::json measures = results.value("measures", nlohmann::json::object());
  for (const auto& [name, values] : measures.items())
    page.sections.push_back({name, {detail::task_matrix(values, results)}});
  if (!figures.empty()) page.sections.push_back({"Pictures", {figures.begin(), figures.end()}});
  page.sections.push_back({"Seconds", {table_from_json(results.at("seconds"))}});
  if (results.contains("config")) page.sections.push_back({"Settings", {table_from_json(results.at("config"))}});
  return page;
}

}  // namespace core_tokensets
