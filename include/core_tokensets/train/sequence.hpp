#pragma once
// Classes that arrive task after task: what the sequential loop learns, remembers and judges for image classification.

#include <limits>
#include <optional>
#include <string>

#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/train/fit.hpp"
#include "core_tokensets/train/recipe.hpp"
#include "core_tokensets/train/task_loop.hpp"

namespace core_tokensets {

struct sequence_options {
  memory_kind memory = memory_kind::core_tokenset;
  core_tokenset recipe = {};
  byte_budget budget = fraction(0.01);  ///< of the training data as they came, for the memory after the last task
  picture_price price = picture_price::source;
  fit_options fit = {};
  token_drop_rule token_drop = token_drop_rule::random;
  bool frozen_start = false;       ///< the model comes with trained weights (for `ncm`)
  std::filesystem::path out = {};  ///< folder of checkpoints; empty: none
  bool resume = false;             ///< go on from the last checkpoint in `out`, to the same bits
};

/// A Vision Transformer that learns the classes of a stream of tasks.
template <tensor_backend B>
class class_learner {
 public:
  class_learner(B& b, vit<B>& model, const task_stream& stream, sequence_options options)
      : b_(b), model_(model), stream_(stream), o_(std::move(options)) {
    check(o_.recipe);
    check_pictures(stream.data.train, model.config());
    check_pictures(stream.data.test, model.config());
    if (stream.data.train.source_bytes.empty()) o_.price = picture_price::raw;
  }

  index tasks() const { return stream_.size(); }
  bool stores() const { return stores_samples(o_.memory); }
  index data_bytes() const {
    const dataset& train = stream_.data.train;
    if (train.source_bytes.empty()) return static_cast<index>(train.pixels.size());
    return static_cast<index>(train.total_source_bytes()) + picture_overhead * train.n();
  }

  std::uint64_t data_checksum() const { return checksum(stream_); }

  token_memory_format format() const { return memory_format(model_.config(), o_.fit.normalisation, o_.memory); }

  void learn(index t, const token_memory& memory) {
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
    f.seed = seed_of_task(o_.fit.seed, t);
    if (drops_like_memory(o_.token_drop, o_.memory, o_.recipe)) {
      f.token_relevance = [&](const token_batch& whole) {
        return attribute(o_.recipe.attribute, b_, model_, whole, whole.targets, explained_);
      };
    }
    fit(b_, model_, stream_.data.train, pictures, &memory, first_class, f,
        "task " + std::to_string(t + 1) + "/" + std::to_string(stream_.size()));
  }

  consolidation remember(index t, index bytes, const std::vector<index>& stored, token_memory& memory) {
    const task& now = stream_[t];
    const core_tokenset recipe = recipe_of(o_.recipe, o_.memory, seed_of_task(o_.fit.seed, t));
    const index patches = model_.config().patches();
    const dataset& train = stream_.data.train;
    index k = 0, file_bytes = std::numeric_limits<index>::max();
    std::vector<index> pictures = now.train;
    if (as_files()) {
      file_bytes = bytes - price_of_files(stored);
      pictures = affordable_alone(now.train, file_bytes, memory.empty(), [&](index i) { return file_price(train, i); });
      k = pictures.empty() ? 0 : affordable_pictures(train, pictures, file_bytes);
    } else {
      const index tokens = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
      k = affordable_samples(memory, tokens, static_cast<index>(now.train.size()), bytes);
    }
    if (k == 0) return {};
    return consolidate(b_, model_, train, pictures, recipe, k, o_.fit.normalisation, static_cast<std::uint16_t>(t),
                       memory, file_bytes);
  }

  task_scores judge(index t) {
    std::optional<nearest_class_mean> means;
    if (o_.memory == memory_kind::ncm) {
      std::vector<index> seen;
      for (index i = 0; i <= t; ++i) seen.insert(seen.end(), stream_[i].train.begin(), stream_[i].train.end());
      const auto known = run_model(b_, model_, stream_.data.train, seen, o_.fit.normalisation);
      means.emplace(known.features, known.labels, stream_.seen_classes(t));
    }
    task_scores row;
    for (index i = 0; i <= t; ++i) {
      const auto got = run_model(b_, model_, stream_.data.test, stream_[i].test, o_.fit.normalisation);
      row.accuracy.push_back(means ? accuracy<double>(means->scores(got.features), got.labels)
                                   : accuracy<float>(got.logits, got.labels));
    }
    return row;
  }

  index memory_bytes(const token_memory& memory, const std::vector<index>& stored) const {
    if (o_.memory == memory_kind::ncm)  // the means, in single precision
      return model_.config().classes * model_.config().dim * static_cast<index>(sizeof(float));
    return memory.empty() ? 0 : as_files() ? price_of_files(stored) : memory.bytes_on_disk();
  }

  tensor_file save() { return to_file(b_, model_); }
  void load(const tensor_file& file) {
    model_.replace_head(b_, read_config(file).classes);
    load_parameters(b_, model_, file);
  }

 private:
  /// True where the memory is priced as the files that its pictures came as.
  bool as_files() const { return o_.memory == memory_kind::coreset && o_.price == picture_price::source; }
  index price_of_files(const std::vector<index>& stored) const {
    index total = 0;
    for (const index i : stored) total += file_price(stream_.data.train, i);
    return total;
  }

  B& b_;
  vit<B>& model_;
  const task_stream& stream_;
  sequence_options o_;
  attribution_workspace<B> explained_;
};

/// Runs the whole sequence on `model` and fills `memory`. `fingerprint` describes everything that the results depend
/// on; a checkpoint with another one is refused.
template <tensor_backend B>
class sequence_runner {
 public:
  sequence_runner(B& b, vit<B>& model, const task_stream& stream, const sequence_options& options,
                  std::string fingerprint)
      : learner_(b, model, stream, options),
        loop_(learner_, {.budget = options.budget, .out = options.out, .resume = options.resume},
              std::move(fingerprint)) {}
  sequence_runner(const sequence_runner&) = delete;
  sequence_runner& operator=(const sequence_runner&) = delete;

  sequence_result run() { return loop_.run(); }
  const token_memory& memory() const { return loop_.memory(); }
  /// For each sample of the memory the training picture that it came from.
  const std::vector<index>& pictures() const { return loop_.pictures(); }

 private:
  class_learner<B> learner_;
  task_loop<class_learner<B>> loop_;
};

}  // namespace core_tokensets
