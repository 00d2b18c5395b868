#pragma once
// How a task enters the memory: which samples, which of their tokens, within how many bytes. Classes and texts share
// all of it but what a sample is, how it is explained and what selection knows of it.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/attribution/answers/answers.hpp"
#include "core_tokensets/attribution/workspace.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/data/text/encoded_texts.hpp"
#include "core_tokensets/data/text/text_tasks.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/memory/budget.hpp"
#include "core_tokensets/memory/price.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/memory/token_rule.hpp"
#include "core_tokensets/selection/selection.hpp"
#include "core_tokensets/train/answer_evidence.hpp"
#include "core_tokensets/train/evaluate.hpp"

namespace core_tokensets {

/// Which samples of the task's training data were stored, in the order of the memory, how many of those that were
/// chosen the selector took by chance because it could not tell them apart, and the seconds that choosing and
/// explaining took.
struct consolidation {
  std::vector<index> samples = {};
  index by_chance = 0;
  double select_seconds = 0, attribute_seconds = 0;
  std::string form = {};  ///< how they were stored, where the strategy chose that
};

namespace detail {

/// What a sample is: its picture, its number in `targets`, its text, and its group for balanced selection.
inline const dataset& pictures_of(const dataset& d) { return d; }
inline const dataset& pictures_of(const visual_text& d) { return d.images; }
inline index picture_of(const dataset&, index i) { return i; }
inline index picture_of(const visual_text& d, index i) { return d.sample(i).image; }
inline std::int32_t target_of(const dataset& d, index i) { return d.label(i); }
inline std::int32_t target_of(const visual_text& d, index i) { return d.sample(i).group; }
inline index groups_of(const dataset& d) { return d.classes(); }
inline index groups_of(const visual_text& d) { return d.groups(); }
/// Prompt and the one answer that a memory keeps: what most people said, or the first caption.
inline std::pair<std::string_view, std::string_view> texts_of(const dataset&, index) { return {}; }
inline std::pair<std::string_view, std::string_view> texts_of(const visual_text& d, index i) {
  const visual_text_sample& s = d.sample(i);
  return {s.prompt, s.prompt.empty() ? s.answers.front() : consensus(s)};
}

/// Last-layer gradients of pictures.
template <tensor_backend B>
evidence evidence_of(B& b, const vit<B>& model, const sample_view<dataset>& samples) {
  const model_outputs got = run_model(b, model, samples);
  return make_evidence(got.logits, got.features, got.labels, model.config().classes);
}

/// Some samples as the model reads them with their stored answers, one text a picture.
template <tensor_backend B>
void read_samples(const vit<B>& model, const dataset& data, std::span<const index> part, token_batch& images,
                  text_batch&) {
  make_batch(data, part, model.config(), images);
}
template <tensor_backend B>
void read_samples(const image_text_model<B>& model, const visual_text& data, std::span<const index> part,
                  token_batch& images, text_batch& texts) {
  std::vector<index> pictures;
  texts.clear();
  for (const index i : part) {
    const auto [prompt, answer] = texts_of(data, i);
    pictures.push_back(data.sample(i).image);
    texts.next_picture();
    texts.append(model.words().encode(prompt), model.words().encode(answer), tokenizer::begin_token,
                 tokenizer::end_token);
  }
  make_batch(data.images, pictures, model.config().image, images);
}

/// Relevance `[P]` of the image tokens for the label, or for the answer.
template <tensor_backend B, class Method>
std::vector<double> explain(const Method& method, B& b, const vit<B>& model, const token_batch& images,
                            const text_batch&, attribution_workspace<B>& ws) {
  return attribute(method, b, model, images, target::label(), ws);
}
template <tensor_backend B, class Method>
std::vector<double> explain(const Method& method, B& b, const image_text_model<B>& model, const token_batch& images,
                            const text_batch& texts, answer_workspace<B>& ws) {
  return attribute(method, b, model, images, texts, ws).image;
}

template <class Model>
struct workspace_for;
template <tensor_backend B>
struct workspace_for<vit<B>> {
  using type = attribution_workspace<B>;
};
template <tensor_backend B>
struct workspace_for<image_text_model<B>> {
  using type = answer_workspace<B>;
};

/// A part of a recipe with `seed` added to its own, where it has one.
template <class Part>
Part seeded(Part part, std::uint64_t seed) {
  if constexpr (requires { part.with_seed(seed); }) {
    return part.with_seed(seed);
  } else {
    if constexpr (requires { part.seed += seed; }) part.seed += seed;
    return part;
  }
}

inline void check_memory(const token_memory& memory, const vit_config& c) {
  require(memory.format().grid == c.grid, "consolidate: the memory holds images of ", memory.format().grid,
          ", the model sees images of ", c.grid);
}

/// The tokens that `rule` keeps of a sample, as the memory stores them.
struct cut_tokens {
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance, token_weights;
  std::vector<std::uint8_t> qualities;

  /// A sample of these tokens for the memory, valid as long as this; target, text and the rest are still to be said.
  stored_sample as_sample() const {
    return {.patches = patches,
            .positions = positions,
            .relevance = relevance,
            .token_weights = token_weights,
            .qualities = qualities};
  }
};

inline cut_tokens cut(const image_view& picture, const patch_grid& grid, std::span<const double> relevance,
                      kept_tokens tokens) {
  cut_tokens kept{.patches = {},
                  .positions = std::move(tokens.positions),
                  .relevance = {},
                  .token_weights = std::move(tokens.weights),
                  .qualities = std::move(tokens.qualities)};
  const auto pixels = patchify(picture, grid.patch);
  for (const std::uint16_t p : kept.positions) {
    require(p < grid.tokens(), "consolidate: the token rule keeps position ", p, " of ", grid.tokens());
    const auto from = pixels.begin() + p * grid.patch_dim();
    kept.patches.insert(kept.patches.end(), from, from + grid.patch_dim());
    kept.relevance.push_back(static_cast<float>(relevance[p]));
  }
  return kept;
}

/// What samples of a view cost with the tokens that a rule keeps, as the codec packs them, judged by up to 32 of them
/// as if relevance were random: the size of the file with the largest one, and what one adds to it on average.
struct sample_prices {
  index with_one = 0;
  double mean = 1;
};

template <class Rule, class Data>
sample_prices prices_of_samples(const token_memory& memory, const Rule& rule, const sample_view<Data>& samples,
                                index count) {
  const patch_grid& grid = memory.format().grid;
  const index tried = std::min<index>(32, samples.n()), now = memory.bytes_on_disk();
  std::vector<double> relevance(static_cast<std::size_t>(grid.tokens()), 0.0);
  sample_prices found;
  double total = 0;
  for (index i = 0; i < tried; ++i) {
    const index s = samples.indices[static_cast<std::size_t>(i * samples.n() / tried)];
    const dataset& pictures = pictures_of(*samples.data);
    random_stream random(0x7072696365, static_cast<std::uint64_t>(i));
    for (double& r : relevance) r = random.uniform();
    const cut_tokens kept = cut(pictures.view_of(picture_of(*samples.data, s)), grid, relevance,
                                keep(rule, {relevance, count, static_cast<std::uint64_t>(i), grid.cols()}));
    const auto [prompt, answer] = texts_of(*samples.data, s);
    stored_sample sample = kept.as_sample();
    sample.target = target_of(*samples.data, s), sample.prompt = prompt, sample.answer = answer;
    const index with = memory.bytes_with(sample);
    found.with_one = std::max(found.with_one, with);
    total += static_cast<double>(with - now);
  }
  if (tried > 0) found.mean = std::max(1.0, total / static_cast<double>(tried));
  return found;
}

/// How many samples with the tokens that a rule keeps the rest of the budget holds. `Error`: not even one, although the
/// memory is empty.
template <class Rule, class Data>
index affordable_samples(const token_memory& memory, const Rule& rule, const sample_view<Data>& samples, index count,
                         index bytes) {
  const sample_prices prices = prices_of_samples(memory, rule, samples, count);
  const index left = std::max<index>(0, bytes - memory.bytes_on_disk());
  const auto k = static_cast<index>(static_cast<double>(left) / prices.mean);
  require_room(k > 0 || !memory.empty(), "memory: a budget of ", bytes, " bytes is too small for one sample with ",
               count, " tokens, which takes ", prices.with_one);
  return std::min(k, samples.n());
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// k samples of a view by a selector, as numbers of the data.
template <tensor_backend B, class Model, class Data, class Select>
selection_result choose_from(B& b, const Select& selector, const Model& model, const sample_view<Data>& samples,
                             index k) {
  std::vector<std::int32_t> labels;
  for (const index i : samples.indices) labels.push_back(target_of(*samples.data, i));
  selection_result chosen = choose_samples(selector, labels, groups_of(*samples.data), k,
                                           [&]() -> evidence { return evidence_of(b, model, samples); });
  require(chosen.indices.size() == chosen.weights.size(), "consolidate: the selector chose ", chosen.indices.size(),
          " samples with ", chosen.weights.size(), " weights");
  for (index& i : chosen.indices) {
    require(i >= 0 && i < samples.n(), "consolidate: the selector chose sample ", i, " of ", samples.n());
    i = samples.indices[static_cast<std::size_t>(i)];
  }
  return chosen;
}

/// Appends the chosen samples of `data`: of each the `count` tokens that `rule` keeps, as long as the file stays within
/// `bytes`. Returns those that were stored.
template <tensor_backend B, class Model, class Data, class Method, class Rule>
std::vector<index> store(B& b, const Method& method, const Rule& rule, const Model& model, const Data& data,
                         const selection_result& chosen, index count, std::uint32_t task_number, index bytes,
                         token_memory& memory) {
  const patch_grid& grid = image_config(model).grid;
  const bool explained =
      needs_relevance(rule) && (count < grid.tokens() || memory.format().relevance != relevance_storage::none);
  typename workspace_for<Model>::type workspace;
  token_batch images;
  text_batch texts;
  std::vector<index> stored;
  constexpr std::size_t batch_size = 32;
  for (std::size_t begin = 0; begin < chosen.indices.size(); begin += batch_size) {
    const auto part = std::span(chosen.indices).subspan(begin, std::min(batch_size, chosen.indices.size() - begin));
    std::vector<double> relevance(part.size() * static_cast<std::size_t>(grid.tokens()), 0.0);
    if (explained) {
      read_samples(model, data, part, images, texts);
      relevance = explain(method, b, model, images, texts, workspace);
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto of_sample = std::span<const double>(relevance).subspan(i * static_cast<std::size_t>(grid.tokens()),
                                                                        static_cast<std::size_t>(grid.tokens()));
      const cut_tokens kept = cut(pictures_of(data).view_of(picture_of(data, part[i])), grid, of_sample,
                                  keep(rule, {of_sample, count, static_cast<std::uint64_t>(part[i]), grid.cols()}));
      const auto [prompt, answer] = texts_of(data, part[i]);
      stored_sample sample = kept.as_sample();
      sample.target = target_of(data, part[i]), sample.prompt = prompt, sample.answer = answer;
      sample.weight = chosen.weights[begin + i], sample.task = task_number;
      if (memory.append_within(sample, bytes)) stored.push_back(part[i]);
    }
  }
  return stored;
}

}  // namespace detail

/// What the training data of a task weigh as they came: the files of their pictures with 8 bytes of label and weight
/// each (raw pixels where there are no files), and all texts.
inline index bytes_of_data(const dataset& d) {
  if (d.source_bytes.empty()) return static_cast<index>(d.pixels.size());
  return static_cast<index>(d.total_source_bytes()) + picture_overhead * d.n();
}
inline index bytes_of_data(const visual_text& d) {
  index total = bytes_of_data(d.images);
  for (const auto& sample : d.samples) {
    total += static_cast<index>(sample.prompt.size());
    for (const auto& answer : sample.answers) total += static_cast<index>(answer.size());
  }
  return total;
}

}  // namespace core_tokensets
