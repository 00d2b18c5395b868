#pragma once
// The sequential loop: task after task, with one of the memories, checkpointed at the end of each task.

#include <chrono>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/memory/budget.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/train/fit.hpp"
#include "core_tokensets/train/metrics.hpp"
#include "core_tokensets/train/recipe.hpp"

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

struct sequence_options {
  memory_kind memory = memory_kind::core_tokenset;
  core_tokenset recipe = {};
  byte_budget budget = fraction(0.01);  ///< of the training data as they came, for the memory after the last task
  picture_price price = picture_price::source;
  fit_options fit = {};
  bool frozen_start = false;       ///< the model comes with trained weights (for `ncm`)
  std::filesystem::path out = {};  ///< folder of checkpoints; empty: none
  bool resume = false;             ///< go on from the last checkpoint in `out`, to the same bits
};

struct sequence_result {
  accuracy_matrix accuracy;
  index memory_bytes = 0, memory_tokens = 0, memory_samples = 0, budget_bytes = 0;
  double train_seconds = 0, select_seconds = 0, attribute_seconds = 0, evaluate_seconds = 0;
};

namespace detail {

inline bool stores_samples(memory_kind kind) {
  return kind == memory_kind::coreset || kind == memory_kind::core_tokens || kind == memory_kind::random_tokens ||
         kind == memory_kind::core_tokenset;
}

/// The recipe of a memory: the controls replace selection, attribution or both by chance.
inline core_tokenset recipe_of(const sequence_options& o, std::uint64_t task) {
  core_tokenset r = o.recipe;
  const std::uint64_t seed = o.fit.seed * 1000 + task;
  if (o.memory == memory_kind::coreset) r.keep = 1;
  if (o.memory == memory_kind::core_tokens || o.memory == memory_kind::random_tokens)
    r.select = random_selection{.seed = seed};
  if (o.memory == memory_kind::random_tokens) r.attribute = random_relevance{seed};
  if (auto* chance = std::get_if<random_selection>(&r.select)) chance->seed = seed;
  return r;
}

/// Checksum of a checkpoint's state, its own entry left out.
inline std::string state_checksum(nlohmann::json state) {
  state.erase("checksum");
  const std::string text = state.dump();
  return checksum_text(fnv1a(std::as_bytes(std::span(text))));
}

inline std::string file_checksum(const std::filesystem::path& path) { return checksum_text(fnv1a(read_file(path))); }

inline nlohmann::json to_json(const sequence_result& r) {
  return {{"accuracy", r.accuracy},
          {"memory_bytes", r.memory_bytes},
          {"memory_tokens", r.memory_tokens},
          {"memory_samples", r.memory_samples},
          {"budget_bytes", r.budget_bytes},
          {"seconds",
           {{"train", r.train_seconds},
            {"select", r.select_seconds},
            {"attribute", r.attribute_seconds},
            {"evaluate", r.evaluate_seconds}}}};
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

/// Runs the whole sequence on `model` and fills `memory`. `fingerprint` describes everything that the results depend
/// on; a checkpoint with another one is refused.
template <tensor_backend B>
class sequence_runner {
 public:
  sequence_runner(B& b, vit<B>& model, const task_stream& stream, sequence_options options, std::string fingerprint)
      : b_(b),
        model_(model),
        stream_(stream),
        o_(std::move(options)),
        fingerprint_(std::move(fingerprint)),
        memory_(format()) {
    require(stream.size() > 0, "sequence: there are no tasks");
    const dataset& train = stream.data.train;
    double total = static_cast<double>(train.pixels.size());
    if (!train.source_bytes.empty()) {
      total =
          static_cast<double>(train.total_source_bytes()) + double(picture_overhead) * static_cast<double>(train.n());
    } else {
      o_.price = picture_price::raw;
    }
    result_.budget_bytes = o_.budget.resolve(static_cast<index>(total));
  }

  sequence_result run() {
    index first = 0;
    if (o_.resume && !o_.out.empty() && std::filesystem::exists(o_.out / "checkpoint.json")) first = restore();
    for (index t = first; t < stream_.size(); ++t) {
      learn(t);
      if (detail::stores_samples(o_.memory)) remember(t);
      judge(t);
      if (!o_.out.empty()) checkpoint(t);
    }
    return result_;
  }

  const token_memory& memory() const { return memory_; }
  /// For each sample of the memory the training picture that it came from.
  const std::vector<index>& pictures() const { return pictures_; }

 private:
  using clock = std::chrono::steady_clock;
  static double since(clock::time_point start) { return std::chrono::duration<double>(clock::now() - start).count(); }

  token_memory_format format() const {
    const vit_config& c = model_.config();
    const auto n = o_.fit.normalisation.for_channels(c.image.channels);
    return {.image_height = c.image.height,
            .image_width = c.image.width,
            .channels = c.image.channels,
            .patch = c.patch,
            .mean = n.mean,
            .stddev = n.stddev,
            .relevance = o_.memory == memory_kind::coreset ? relevance_storage::none : relevance_storage::f16};
  }

  void learn(index t) {
    const auto start = clock::now();
    const task& now = stream_[t];
    const index classes = stream_.seen_classes(t);
    if (t == 0) {
      if (model_.config().classes != classes || o_.frozen_start) model_.replace_head(b_, classes);
    } else {
      model_.grow_head(b_, classes);
    }
    if (o_.memory == memory_kind::ncm && (t > 0 || o_.frozen_start)) return;
    std::vector<index> pictures = now.train;
    std::int32_t first_class = now.classes.front();
    if (o_.memory == memory_kind::joint) {
      for (index i = 0; i < t; ++i) pictures.insert(pictures.end(), stream_[i].train.begin(), stream_[i].train.end());
      first_class = 0;
    }
    fit_options f = o_.fit;
    f.seed = o_.fit.seed * 1000 + static_cast<std::uint64_t>(t);
    fit(b_, model_, stream_.data.train, pictures, &memory_, first_class, f,
        "task " + std::to_string(t + 1) + "/" + std::to_string(stream_.size()));
    result_.train_seconds += since(start);
  }

  void remember(index t) {
    const task& now = stream_[t];
    const core_tokenset recipe = detail::recipe_of(o_, static_cast<std::uint64_t>(t));
    const index patches = model_.config().patches();
    const index bytes = result_.budget_bytes * (t + 1) / stream_.size();
    const dataset& train = stream_.data.train;
    index k = 0, file_bytes = std::numeric_limits<index>::max();
    if (as_files()) {
      file_bytes = bytes - price_of_files();
      k = affordable_pictures(train, now.train, file_bytes);
    } else {
      const index tokens = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
      k = affordable_samples(memory_, tokens, static_cast<index>(now.train.size()), bytes);
    }
    if (k == 0) return;
    const auto stored = consolidate(b_, model_, train, now.train, recipe, k, o_.fit.normalisation,
                                    static_cast<std::uint16_t>(t), memory_, file_bytes);
    pictures_.insert(pictures_.end(), stored.pictures.begin(), stored.pictures.end());
    result_.select_seconds += stored.select_seconds;
    result_.attribute_seconds += stored.attribute_seconds;
  }

  /// True where the memory is priced as the files that its pictures came as.
  bool as_files() const { return o_.memory == memory_kind::coreset && o_.price == picture_price::source; }
  index price_of_files() const {
    index total = 0;
    for (const index i : pictures_) total += file_price(stream_.data.train, i);
    return total;
  }

  void judge(index t) {
    const auto start = clock::now();
    std::optional<nearest_class_mean> means;
    if (o_.memory == memory_kind::ncm) {
      std::vector<index> seen;
      for (index i = 0; i <= t; ++i) seen.insert(seen.end(), stream_[i].train.begin(), stream_[i].train.end());
      const auto known = run_model(b_, model_, stream_.data.train, seen, o_.fit.normalisation);
      means.emplace(known.features, known.labels, stream_.seen_classes(t));
    }
    std::vector<double> row;
    for (index i = 0; i <= t; ++i) {
      const auto got = run_model(b_, model_, stream_.data.test, stream_[i].test, o_.fit.normalisation);
      row.push_back(means ? accuracy<double>(means->scores(got.features), got.labels)
                          : accuracy<float>(got.logits, got.labels));
    }
    result_.accuracy.push_back(std::move(row));
    result_.memory_bytes = memory_.empty() ? 0 : as_files() ? price_of_files() : memory_.bytes_on_disk();
    result_.memory_tokens = memory_.tokens();
    result_.memory_samples = memory_.samples();
    result_.evaluate_seconds += since(start);
  }

  /// Model and memory first, the file that names them last: whenever the program dies, a whole checkpoint is there.
  void checkpoint(index t) {
    std::filesystem::create_directories(o_.out);
    const std::string tag = std::to_string(t);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    save_safetensors(model_path, to_file(b_, model_));
    memory_.save(memory_path);
    nlohmann::json state = detail::to_json(result_);
    state["tasks_done"] = t + 1;
    state["pictures"] = pictures_;
    state["fingerprint"] = fingerprint_;
    state["model"] = detail::file_checksum(model_path);
    state["memory"] = detail::file_checksum(memory_path);
    state["checksum"] = detail::state_checksum(state);
    write_file(o_.out / "checkpoint.json", std::string_view(state.dump(1)));
    if (t > 0) {
      const std::string old = std::to_string(t - 1);
      std::filesystem::remove(o_.out / ("checkpoint-model-" + old + ".safetensors"));
      std::filesystem::remove(o_.out / ("checkpoint-memory-" + old + ".safetensors"));
    }
  }

  index restore() {
    const auto path = o_.out / "checkpoint.json";
    const auto state = nlohmann::json::parse(read_text(path), nullptr, false);
    require(state.is_object() && state.contains("tasks_done") && state.contains("fingerprint"), path.string(),
            ": not a checkpoint");
    require(state.contains("checksum") && state["checksum"] == detail::state_checksum(state), path.string(),
            ": the checkpoint was altered (its checksum does not match)");
    require(state["fingerprint"] == fingerprint_, path.string(),
            ": the checkpoint belongs to a run with other settings; choose another folder or leave --resume out");
    const auto done = state["tasks_done"].get<index>();
    const std::string tag = std::to_string(done - 1);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    for (const auto& [name, file_path] : {std::pair("model", model_path), std::pair("memory", memory_path)}) {
      require(state[name] == detail::file_checksum(file_path), file_path.string(),
              ": the checkpoint was altered (its checksum does not match)");
    }
    const tensor_file file = load_safetensors(model_path);
    model_.replace_head(b_, read_config(file).classes);
    load_parameters(b_, model_, file);
    memory_ = load_token_memory(memory_path);
    result_.accuracy = state["accuracy"].get<accuracy_matrix>();
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

  B& b_;
  vit<B>& model_;
  const task_stream& stream_;
  sequence_options o_;
  std::string fingerprint_;
  token_memory memory_;
  sequence_result result_;
  std::vector<index> pictures_;  ///< [S] training picture of each sample of the memory
};

}  // namespace core_tokensets
