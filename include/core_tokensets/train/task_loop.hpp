#pragma once
// The loop over tasks that arrive one after another: learn, remember, judge, checkpoint. What learns (classes, answers,
// captions) is a `learner`.

#include <chrono>
#include <concepts>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/memory/budget.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/train/metrics.hpp"

namespace core_tokensets {

/// What is kept of old tasks. `core_tokens`: random samples, relevant tokens; `random_tokens`: both random; `joint`:
/// all data (upper bound); `ncm`: no training after the first task, nearest class mean on its features (no training at
/// all with given weights).
enum class memory_kind { none, coreset, core_tokens, random_tokens, core_tokenset, joint, ncm };

inline constexpr const char* memory_kind_names[] = {"none",          "coreset", "core-tokens", "random-tokens",
                                                    "core-tokenset", "joint",   "ncm"};

inline memory_kind parse_memory_kind(const std::string& name) {
  std::string all;
  for (int i = 0; i < 7; ++i) {
    if (name == memory_kind_names[i]) return static_cast<memory_kind>(i);
    all += (i ? ", " : "") + std::string(memory_kind_names[i]);
  }
  fail("memory: no kind is named '", name, "'; there are ", all);
}

/// True where a memory of that kind holds samples.
inline bool stores_samples(memory_kind kind) {
  return kind == memory_kind::coreset || kind == memory_kind::core_tokens || kind == memory_kind::random_tokens ||
         kind == memory_kind::core_tokenset;
}

/// Which samples a consolidation stored, in the order of the memory, and the seconds that its two halves took.
struct consolidation {
  std::vector<index> pictures;
  double select_seconds = 0, attribute_seconds = 0;
};

/// How good a learner is on the test data of each task so far; `others` holds further measures by name.
struct task_scores {
  std::vector<double> accuracy;
  std::map<std::string, std::vector<double>> others = {};
};

/// What the loop needs of a learner. Tasks are numbered from 0; every random choice is a function of the task.
template <class L>
concept learner = requires(L& l, const L& constant, index t, token_memory& memory, const token_memory& known,
                           const std::vector<index>& stored, const tensor_file& file) {
  { constant.tasks() } -> std::same_as<index>;
  { constant.data_bytes() } -> std::same_as<index>;             ///< what a budget that is a fraction refers to
  { constant.data_checksum() } -> std::same_as<std::uint64_t>;  ///< what a checkpoint recognises the data by
  { constant.format() } -> std::same_as<token_memory_format>;
  { constant.stores() } -> std::same_as<bool>;
  l.learn(t, known);                                                          ///< task t with replay
  { l.remember(t, index{}, stored, memory) } -> std::same_as<consolidation>;  ///< within so many bytes
  { l.judge(t) } -> std::same_as<task_scores>;
  { constant.memory_bytes(known, stored) } -> std::same_as<index>;  ///< what is kept of old tasks, 0 for nothing
  { l.save() } -> std::same_as<tensor_file>;
  l.load(file);
};

struct task_loop_options {
  byte_budget budget = fraction(0.01);  ///< for the memory after the last task
  std::filesystem::path out = {};       ///< folder of checkpoints; empty: none
  bool resume = false;                  ///< go on from the last checkpoint in `out`, to the same bits
};

struct sequence_result {
  accuracy_matrix accuracy;
  std::map<std::string, accuracy_matrix> others;  ///< further measures by name
  index memory_bytes = 0, memory_tokens = 0, memory_samples = 0, budget_bytes = 0;
  double train_seconds = 0, select_seconds = 0, attribute_seconds = 0, evaluate_seconds = 0;
};

namespace detail {

/// Checksum of a checkpoint's state, its own entry left out.
inline std::string state_checksum(nlohmann::json state) {
  state.erase("checksum");
  const std::string text = state.dump();
  return checksum_text(fnv1a(std::as_bytes(std::span(text))));
}

inline std::string file_checksum(const std::filesystem::path& path) { return checksum_text(fnv1a(read_file(path))); }

inline nlohmann::json to_json(const sequence_result& r) {
  nlohmann::json json{{"accuracy", r.accuracy},
                      {"memory_bytes", r.memory_bytes},
                      {"memory_tokens", r.memory_tokens},
                      {"memory_samples", r.memory_samples},
                      {"budget_bytes", r.budget_bytes},
                      {"seconds",
                       {{"train", r.train_seconds},
                        {"select", r.select_seconds},
                        {"attribute", r.attribute_seconds},
                        {"evaluate", r.evaluate_seconds}}}};
  if (!r.others.empty()) json["measures"] = r.others;
  return json;
}

}  // namespace detail

/// Results as JSON: the accuracy matrix, its metrics, bytes and seconds.
inline nlohmann::json to_json(const sequence_result& r) {
  auto json = detail::to_json(r);
  const continual_metrics m = measure(r.accuracy);
  json["average_accuracy"] = m.average_accuracy;
  json["average_incremental_accuracy"] = m.average_incremental_accuracy;
  json["forgetting"] = m.forgetting;
  json["backward_transfer"] = m.backward_transfer;
  return json;
}

/// Runs all tasks through a learner and fills a memory. `fingerprint` describes everything that the results depend on
/// but the data, which have their checksum; a checkpoint of other settings or data is refused.
template <learner L>
class task_loop {
 public:
  task_loop(L& l, task_loop_options options, std::string fingerprint)
      : learner_(l), o_(std::move(options)), fingerprint_(std::move(fingerprint)), memory_(l.format()) {
    require(l.tasks() > 0, "sequence: there are no tasks");
    result_.budget_bytes = o_.budget.resolve(l.data_bytes());
    if (!o_.out.empty()) data_ = checksum_text(l.data_checksum());
  }

  sequence_result run() {
    index first = 0;
    if (o_.resume && !o_.out.empty() && std::filesystem::exists(o_.out / "checkpoint.json")) first = restore();
    for (index t = first; t < learner_.tasks(); ++t) {
      timed(result_.train_seconds, [&] { learner_.learn(t, memory_); });
      if (learner_.stores()) remember(t);
      judge(t);
      if (!o_.out.empty()) checkpoint(t);
    }
    return result_;
  }

  const token_memory& memory() const { return memory_; }
  /// For each sample of the memory the training sample that it came from.
  const std::vector<index>& pictures() const { return pictures_; }

 private:
  template <class Work>
  static void timed(double& seconds, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void remember(index t) {
    const index bytes = result_.budget_bytes * (t + 1) / learner_.tasks();
    const consolidation stored = learner_.remember(t, bytes, pictures_, memory_);
    pictures_.insert(pictures_.end(), stored.pictures.begin(), stored.pictures.end());
    result_.select_seconds += stored.select_seconds;
    result_.attribute_seconds += stored.attribute_seconds;
  }

  void judge(index t) {
    timed(result_.evaluate_seconds, [&] {
      task_scores row = learner_.judge(t);
      result_.accuracy.push_back(std::move(row.accuracy));
      for (auto& [name, values] : row.others) result_.others[name].push_back(std::move(values));
    });
    result_.memory_bytes = learner_.memory_bytes(memory_, pictures_);
    result_.memory_tokens = memory_.tokens();
    result_.memory_samples = memory_.samples();
  }

  /// Model and memory first, the file that names them last: whenever the program dies, a whole checkpoint is there.
  void checkpoint(index t) {
    detail::make_folders(o_.out);
    const std::string tag = std::to_string(t);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    save_safetensors(model_path, learner_.save());
    memory_.save(memory_path);
    nlohmann::json state = detail::to_json(result_);
    state["tasks_done"] = t + 1;
    state["pictures"] = pictures_;
    state["fingerprint"] = fingerprint_;
    state["data"] = data_;
    state["model"] = detail::file_checksum(model_path);
    state["memory"] = detail::file_checksum(memory_path);
    state["checksum"] = detail::state_checksum(state);
    write_file(o_.out / "checkpoint.json", std::string_view(state.dump(1)));
    if (t > 0) {
      const std::string old = std::to_string(t - 1);
      std::error_code ignored;  // they only take space
      std::filesystem::remove(o_.out / ("checkpoint-model-" + old + ".safetensors"), ignored);
      std::filesystem::remove(o_.out / ("checkpoint-memory-" + old + ".safetensors"), ignored);
    }
  }

  index restore() {
    const auto path = o_.out / "checkpoint.json";
    const auto state = parse_json(read_text(path));
    require(state.is_object() && state.contains("tasks_done") && state.contains("fingerprint"), path.string(),
            ": not a checkpoint");
    require(state.contains("checksum") && state["checksum"] == detail::state_checksum(state), path.string(),
            ": the checkpoint was altered (its checksum does not match)");
    require(state["fingerprint"] == fingerprint_, path.string(),
            ": the checkpoint belongs to a run with other settings; choose another folder or leave --resume out");
    require(state.contains("data") && state["data"] == data_, path.string(),
            ": the checkpoint belongs to a run on other data; choose another folder or leave --resume out");
    const auto done = state["tasks_done"].get<index>();
    const std::string tag = std::to_string(done - 1);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    for (const auto& [name, file_path] : {std::pair("model", model_path), std::pair("memory", memory_path)}) {
      require(state[name] == detail::file_checksum(file_path), file_path.string(),
              ": the checkpoint was altered (its checksum does not match)");
    }
    learner_.load(load_safetensors(model_path));
    memory_ = load_token_memory(memory_path);
    result_.accuracy = state["accuracy"].get<accuracy_matrix>();
    if (state.contains("measures")) result_.others = state["measures"].get<std::map<std::string, accuracy_matrix>>();
    pictures_ = state["pictures"].get<std::vector<index>>();
    const auto& seconds = state["seconds"];
    result_.train_seconds = seconds["train"];
    result_.select_seconds = seconds["select"];
    result_.attribute_seconds = seconds["attribute"];
    result_.evaluate_seconds = seconds["evaluate"];
    result_.memory_bytes = state["memory_bytes"];
    result_.memory_tokens = state["memory_tokens"];
    result_.memory_samples = state["memory_samples"];
    return done;
  }

  L& learner_;
  task_loop_options o_;
  std::string fingerprint_, data_;  ///< what a checkpoint is recognised by
  token_memory memory_;
  sequence_result result_;
  std::vector<index> pictures_;  ///< [S] training sample of each sample of the memory
};

}  // namespace core_tokensets
