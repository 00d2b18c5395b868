#pragma once
// A stream of tasks from the first to the last: a learner learns each, and is measured on all tasks so far.

#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core_tokensets/metrics/continual.hpp"
#include "core_tokensets/train/learner.hpp"

namespace core_tokensets {

struct sequence_result {
  accuracy_matrix accuracy;
  std::map<std::string, accuracy_matrix> others;   ///< further measures by name; not a number where a task has none
  std::map<std::string, accuracy_matrix> amounts;  ///< the same of those that are no shares
  index memory_bytes = 0, memory_tokens = 0, memory_samples = 0, budget_bytes = 0;
  index chosen_by_chance = 0;  ///< in all tasks: samples that the selector could not tell apart
  double train_seconds = 0, select_seconds = 0, attribute_seconds = 0, evaluate_seconds = 0;
  std::vector<std::string> forms;  ///< of each task's samples in the memory, where the strategy chose them
};

/// Where checkpoints go, and what is told.
struct sequence_options {
  std::filesystem::path out = {};  ///< folder of checkpoints, after each task and within; empty: none
  bool resume = false;             ///< go on from the last checkpoint in `out`, to the same bits
  /// Called after every task, with the results so far.
  std::function<void(const learnt_task&, const sequence_result&)> after_task = {};
};

namespace detail {

inline json to_json(const std::map<std::string, accuracy_matrix>& measures) {
  json all = json::object();
  for (const auto& [name, matrix] : measures) {
    json& rows = all[name] = json::array();
    for (const auto& row : matrix) {
      json cells = json::array();
      for (const double value : row) cells.push_back(finite_or_null(value));
      rows.push_back(std::move(cells));
    }
  }
  return all;
}

inline std::map<std::string, accuracy_matrix> measures_from_json(const json& all) {
  std::map<std::string, accuracy_matrix> measures;
  for (const auto& [name, rows] : all.items()) {
    auto& matrix = measures[name];
    for (const json& row : rows) {
      auto& cells = matrix.emplace_back();
      for (const json& cell : row) cells.push_back(cell.is_null() ? std::nan("") : cell.get<double>());
    }
  }
  return measures;
}

/// Writes what was measured of task i after task t, where tasks before have nothing of that name as well.
inline void add_measures(std::map<std::string, accuracy_matrix>& to, const std::map<std::string, double>& found,
                         index t, index i) {
  for (const auto& [name, value] : found) {
    auto& matrix = to[name];
    matrix.resize(static_cast<std::size_t>(t) + 1);
    matrix.back().resize(static_cast<std::size_t>(i), std::nan(""));
    matrix.back().push_back(value);
  }
}

}  // namespace detail

/// Results as JSON: the accuracy matrix, its metrics, bytes and seconds.
inline json to_json(const sequence_result& r) {
  json result{{"accuracy", r.accuracy},
              {"memory_bytes", r.memory_bytes},
              {"memory_tokens", r.memory_tokens},
              {"memory_samples", r.memory_samples},
              {"budget_bytes", r.budget_bytes},
              {"chosen_by_chance", r.chosen_by_chance},
              {"seconds",
               {{"train", r.train_seconds},
                {"select", r.select_seconds},
                {"attribute", r.attribute_seconds},
                {"evaluate", r.evaluate_seconds}}}};
  if (!r.others.empty()) result["measures"] = detail::to_json(r.others);
  if (!r.amounts.empty()) result["amounts"] = detail::to_json(r.amounts);
  if (!r.forms.empty()) result["forms"] = r.forms;
  if (r.accuracy.empty()) return result;
  const continual_metrics m = measure(r.accuracy);
  result["average_accuracy"] = m.average_accuracy;
  result["average_incremental_accuracy"] = m.average_incremental_accuracy;
  result["forgetting"] = m.forgetting;
  result["backward_transfer"] = m.backward_transfer;
  return result;
}

/// What `to_json` wrote, without the numbers that follow from the others.
inline sequence_result sequence_result_from_json(const json& j) {
  sequence_result r;
  r.accuracy = j.at("accuracy").get<accuracy_matrix>();
  if (j.contains("measures")) r.others = detail::measures_from_json(j.at("measures"));
  if (j.contains("amounts")) r.amounts = detail::measures_from_json(j.at("amounts"));
  r.memory_bytes = j.at("memory_bytes").get<index>(), r.memory_tokens = j.at("memory_tokens").get<index>();
  r.memory_samples = j.at("memory_samples").get<index>(), r.budget_bytes = j.at("budget_bytes").get<index>();
  r.chosen_by_chance = j.at("chosen_by_chance").get<index>();
  if (j.contains("forms")) r.forms = j.at("forms").get<std::vector<std::string>>();
  const json& seconds = j.at("seconds");
  r.train_seconds = seconds.at("train").get<double>(), r.select_seconds = seconds.at("select").get<double>();
  r.attribute_seconds = seconds.at("attribute").get<double>();
  r.evaluate_seconds = seconds.at("evaluate").get<double>();
  return r;
}

namespace detail {

/// `Error` that names what differs unless a saved run is one of the same settings, data and start.
template <class Learner>
void check_same_run(const saved_learner& saved, const Learner& learner, const json& notes) {
  saved.check_settings(learner.settings());
  const json& was = saved.state().at("notes");
  const std::string folder = saved.folder().string(), anew = "; choose another folder or start anew";
  require(was.is_object() && was.contains("data") && was.contains("start") && was.contains("about"), folder,
          ": the checkpoint is not one of a run of tasks", anew);
  std::string differ = setting_differences(was.at("about"), notes.at("about"));
  if (differ.empty()) differ = "what they are called is the same, what they hold is not";
  require(was.at("data") == notes.at("data"), folder, ": the checkpoint belongs to a run on other data: ", differ,
          anew);
  require(learner.tasks_learnt() > 0 || was.at("start") == notes.at("start"), folder,
          ": the checkpoint belongs to a run that started from another model: ", differ, anew);
}

}  // namespace detail

/// The file in a run's folder that holds how far the task is that is being learnt.
inline constexpr const char* half_learnt_file = "half-learnt.safetensors";

/// Learns all tasks of a stream; after each the learner is judged on the test data of all so far (`judge(learner,
/// task) -> evaluation`, by default `learner.evaluate(task.test())`), and saved where there is a folder; there also
/// goes how far a task is, about once a minute, unless the learner has another file for it. A checkpoint of other
/// settings or other data is refused. `stopped`: between two steps, or when a task is saved, where the learner's
/// checkpoint says so.
template <class Learner, sample_set Data, class Judge>
sequence_result run_sequence(Learner& learner, const basic_stream<Data>& stream, const sequence_options& o,
                             const Judge& judge) {
  require(stream.size() > 0, "sequence: there are no tasks");
  for (const auto& t : stream) learner.check_task(t);
  sequence_result result;
  json notes = json::object();
  if (!o.out.empty()) {
    checkpoint_options within = learner.options().fit.checkpoint;
    if (within.file.empty()) within.file = o.out / half_learnt_file;
    notes = json{{"data", checksum_text(checksum(stream))},
                 {"start", checksum_text(detail::checksum_of_model(learner.backend(), learner.model()))},
                 {"about", within.about}};
    if (!o.resume) std::filesystem::remove(within.file);
    learner.set_checkpoint(std::move(within));
  }
  if (o.resume && !o.out.empty() && saved_learner::in(o.out)) {
    const saved_learner saved(o.out);
    detail::check_same_run(saved, learner, notes);
    notes["start"] = saved.state().at("notes").at("start");
    result = sequence_result_from_json(learner.restore(o.out).at("results"));
    for (index t = 0; t < learner.tasks_learnt(); ++t) learner.recall(stream[t]);
  }
  for (index t = learner.tasks_learnt(); t < stream.size(); ++t) {
    const learnt_task learnt = learner.learn(stream[t]);
    result.train_seconds += learnt.train_seconds;
    result.select_seconds += learnt.select_seconds;
    result.attribute_seconds += learnt.attribute_seconds;
    result.chosen_by_chance += learnt.chosen_by_chance;
    if (!learnt.form.empty()) result.forms.push_back(learnt.form);
    const byte_budget& budget = learner.options().budget;
    result.memory_bytes = learnt.memory_bytes;
    result.budget_bytes =
        budget.each == budget_of::all ? budget.resolve(bytes_of_data(stream.data().train)) : learnt.budget_bytes;
    result.memory_tokens = learnt.memory_tokens, result.memory_samples = learnt.memory_samples;
    const auto start = std::chrono::steady_clock::now();
    result.accuracy.emplace_back();
    for (index i = 0; i <= t; ++i) {
      const evaluation e = judge(std::as_const(learner), stream[i]);
      result.accuracy.back().push_back(e.accuracy);
      detail::add_measures(result.others, e.others, t, i);
      detail::add_measures(result.amounts, e.amounts, t, i);
    }
    result.evaluate_seconds += detail::seconds_since(start);
    if (!o.out.empty()) {
      notes["results"] = to_json(result);
      learner.save(o.out, notes);
    }
    if (o.after_task) o.after_task(learnt, result);
    const fit_options& fit = learner.options().fit;
    const bool asked = fit.checkpoint.stop && fit.checkpoint.stop();
    if (t + 1 < stream.size() && fit.ranks.any(asked, "asking whether to stop")) throw stopped({});
  }
  return result;
}
template <class Learner, sample_set Data>
sequence_result run_sequence(Learner& learner, const basic_stream<Data>& stream, const sequence_options& o = {}) {
  return run_sequence(learner, stream, o,
                      [](const Learner& l, const basic_task<Data>& t) { return l.evaluate(t.test()); });
}

}  // namespace core_tokensets
