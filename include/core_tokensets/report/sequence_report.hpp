#pragma once
// What a sequence of tasks leaves to look at: one page with all numbers and figures.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/data/reading.hpp"
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

/// "a, b and 3 more": at most `most` of the names.
inline std::string some_names(const std::vector<std::string>& names, std::size_t most) {
  std::string all;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) all += (i == 0 ? "" : ", ") + names[i];
  return names.size() <= most ? all : all + " and " + std::to_string(names.size() - most) + " more";
}

/// The names of the classes that results of classes say nothing about.
inline std::vector<std::string> unmeasured_classes(const json& results) {
  return results.value("classes_without_test_pictures", std::vector<std::string>());
}

/// What is to be known of the pictures: which were not read, and which classes nothing is known of.
inline report_section pictures_section(const json& results) {
  report_section section{"Data"};
  if (results.contains("pictures")) {
    const auto found = picture_reading_from_json(results.at("pictures"));
    if (found.read > 0) section.blocks.push_back(report_paragraph{text_of(found) + "."});
    if (!found.damaged.empty())
      section.blocks.push_back(report_paragraph{"Damaged: " + some_names(found.damaged, 20) + "."});
  }
  if (const auto without = unmeasured_classes(results); !without.empty())
    section.blocks.push_back(report_paragraph{"No test pictures of " + some_names(without, 20) + "."});
  const json apart = results.value("classes_not_measured_in", json::object());
  for (const auto& [task, names] : apart.items()) {
    section.blocks.push_back(report_paragraph{
        "No test pictures of " + some_names(names.get<std::vector<std::string>>(), 20) + " in " + task + "."});
  }
  return section;
}

}  // namespace detail

/// " over 3 of 4 classes" where some classes have no pictures to measure on; empty where all have.
inline std::string measured_classes(const json& results) {
  const std::size_t without = detail::unmeasured_classes(results).size();
  if (without == 0 || !results.contains("class_names")) return {};  // questions and captions have no classes
  const std::size_t all = results.at("class_names").size();
  return " over " + std::to_string(all - without) + " of " + std::to_string(all) + " classes";
}

/// The page of one sequence from its results as JSON (`to_json`), with figures where there are any.
inline report_page sequence_page(const json& results, const std::vector<report_figure>& figures) {
  const auto percent = [&](const char* key) { return fixed(100 * results.at(key).get<double>(), 1) + " %"; };
  const json config = results.value("config", json::object());
  const bool captions = config.value("task", std::string("classify")) == "caption";
  const std::string what = captions ? "CIDEr-D over 10" : "accuracy";
  report_page page{.title = "Tasks one after another",
                   .subtitle = "Memory: " + config.value("memory", std::string("none")),
                   .facts = {{"Average " + what + measured_classes(results), percent("average_accuracy")},
                             {"Average incremental " + what, percent("average_incremental_accuracy")},
                             {"Forgetting", percent("forgetting")},
                             {"Memory", std::to_string(results.at("memory_bytes").get<index>()) + " bytes"},
                             {"Samples", std::to_string(results.at("memory_samples").get<index>())},
                             {"Tokens", std::to_string(results.at("memory_tokens").get<index>())}}};
  if (auto data = detail::pictures_section(results); !data.blocks.empty()) page.sections.push_back(std::move(data));
  page.sections.push_back({captions ? what : "Accuracy" + measured_classes(results),
                           {detail::task_matrix(results.at("accuracy"), results)}});
  const json measures = results.value("measures", json::object());
  for (const auto& [name, values] : measures.items())
    page.sections.push_back({name, {detail::task_matrix(values, results)}});
  const json amounts = results.value("amounts", json::object());
  for (const auto& [name, values] : amounts.items()) {
    accuracy_table matrix = detail::task_matrix(values, results);
    matrix.shares = false;
    page.sections.push_back({name, {std::move(matrix)}});
  }
  if (!figures.empty()) page.sections.push_back({"Pictures", {figures.begin(), figures.end()}});
  page.sections.push_back({"Seconds", {table_from_json(results.at("seconds"))}});
  if (results.contains("config")) page.sections.push_back({"Settings", {table_from_json(results.at("config"))}});
  return page;
}

}  // namespace core_tokensets
