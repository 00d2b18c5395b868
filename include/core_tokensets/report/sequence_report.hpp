#pragma once
// What a sequence of tasks leaves to look at: one page with all numbers and figures.

#include <string>
#include <vector>

#include "core_tokensets/io/json.hpp"
#include "core_tokensets/report/page.hpp"

namespace core_tokensets {

namespace detail {

/// A matrix of the results under the names of the tasks.
inline accuracy_table task_matrix(const json& values, const json& results) {
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
inline report_page sequence_page(const json& results, const std::vector<report_figure>& figures) {
  const auto percent = [&](const char* key) { return fixed(100 * results.at(key).get<double>(), 1) + " %"; };
  const json config = results.value("config", json::object());
  const bool captions = config.value("task", std::string("classify")) == "caption";
  const std::string what = captions ? "CIDEr-D over 10" : "accuracy";
  report_page page{.title = "Tasks one after another",
                   .subtitle = "Memory: " + config.value("memory", std::string("none")),
                   .facts = {{"Average " + what, percent("average_accuracy")},
                             {"Average incremental " + what, percent("average_incremental_accuracy")},
                             {"Forgetting", percent("forgetting")},
                             {"Memory", std::to_string(results.at("memory_bytes").get<index>()) + " bytes"},
                             {"Samples", std::to_string(results.at("memory_samples").get<index>())},
                             {"Tokens", std::to_string(results.at("memory_tokens").get<index>())}}};
  page.sections.push_back({captions ? what : "Accuracy", {detail::task_matrix(results.at("accuracy"), results)}});
  const json measures = results.value("measures", json::object());
  for (const auto& [name, values] : measures.items())
    page.sections.push_back({name, {detail::task_matrix(values, results)}});
  if (!figures.empty()) page.sections.push_back({"Pictures", {figures.begin(), figures.end()}});
  page.sections.push_back({"Seconds", {table_from_json(results.at("seconds"))}});
  if (results.contains("config")) page.sections.push_back({"Settings", {table_from_json(results.at("config"))}});
  return page;
}

}  // namespace core_tokensets
