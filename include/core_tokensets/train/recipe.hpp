#pragma once
// How a task enters the memory: which samples, which of their tokens, how many bytes.

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <string>
#include <variant>
#include <vector>

#include "core_tokensets/attribution/methods.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/memory/normalise.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/random.hpp"
#include "core_tokensets/train/evaluate.hpp"
#include "core_tokensets/train/task_loop.hpp"

namespace core_tokensets {

using selection_method = std::variant<random_selection, grad_match>;

/// "random" or "grad_match"; anything else is an error that lists them.
inline selection_method parse_selection(const std::string& name, std::uint64_t seed = 0) {
  if (name == "random") return random_selection{.seed = seed};
  if (name == "grad_match") return grad_match{};
  fail("selection: no method is named '", name, "'; there are random, grad_match");
}

/// Samples by `select`, ranked tokens by `attribute`, of which the share `keep` is stored. The share 1 is a coreset.
struct core_tokenset {
  selection_method select = grad_match{};
  attribution_method attribute = grad_lrp{};
  double keep = 0.1;
};

/// `Error` unless the share of tokens is one.
inline void check(const core_tokenset& recipe) {
  require(recipe.keep > 0 && recipe.keep <= 1, "core tokenset: keep ", recipe.keep,
          ", expected more than 0 and at most 1");
}

/// The seed of everything random in task t.
inline std::uint64_t seed_of_task(std::uint64_t seed, index t) { return seed * 1000 + static_cast<std::uint64_t>(t); }

/// Which tokens new pictures lose in the steps that leave some out: random ones, or those that a memory of relevant
/// tokens would leave out. With the second new and old pictures lose the same, so a model cannot tell by what is
/// missing which is old; it explains every such batch, and whether it helps depends on the method (docs/results.md).
enum class token_drop_rule { random, memory };

/// True where new pictures lose the tokens that a memory of that kind and recipe would not keep.
inline bool drops_like_memory(token_drop_rule rule, memory_kind kind, const core_tokenset& recipe) {
  return rule == token_drop_rule::memory && recipe.keep < 1 &&
         (kind == memory_kind::core_tokens || kind == memory_kind::core_tokenset);
}

/// The recipe of a kind of memory: the controls replace selection, attribution or both by chance.
inline core_tokenset recipe_of(core_tokenset r, memory_kind kind, std::uint64_t seed) {
  if (kind == memory_kind::coreset) r.keep = 1;
  if (kind == memory_kind::core_tokens || kind == memory_kind::random_tokens) r.select = random_selection{.seed = seed};
  if (kind == memory_kind::random_tokens) r.attribute = random_relevance{seed};
  if (auto* chance = std::get_if<random_selection>(&r.select)) chance->seed = seed;
  return r;
}

/// The format of a memory of that kind for a model's pictures.
inline token_memory_format memory_format(const vit_config& c, const pixel_normalisation& normalisation,
                                         memory_kind kind) {
  const auto n = normalisation.for_channels(c.image.channels);
  return {.image_height = c.image.height,
          .image_width = c.image.width,
          .channels = c.image.channels,
          .patch = c.patch,
          .mean = n.mean,
          .stddev = n.stddev,
          .relevance = kind == memory_kind::coreset ? relevance_storage::none : relevance_storage::f16};
}

/// `Error` unless a memory holds patches as the model cuts them.
inline void check_format(const token_memory_format& f, const vit_config& c) {
  require(f.image_height == c.image.height && f.image_width == c.image.width && f.channels == c.image.channels &&
              f.patch == c.patch,
          "memory: images of ", f.image_height, "x", f.image_width, "x", f.channels, " in patches of ", f.patch,
          ", the model sees ", c.image.height, "x", c.image.width, "x", c.image.channels, " in patches of ", c.patch);
}

/// What a whole picture costs in the budget: the file that it came as (JPEG, PNG), which is what a sensible user would
/// store, or its raw pixels.
enum class picture_price { source, raw };

/// Bytes of label and weight beside a stored picture file.
inline constexpr index picture_overhead = 8;

namespace detail {

/// The largest k of 0 .. available for which `fits(k)` holds, if it holds for all smaller ones.
template <class Fits>
index most_that_fit(index available, const Fits& fits) {
  index low = 0, high = available;
  while (low < high) {
    const index middle = (low + high + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace detail

/// How many of `available` samples with `tokens` each may join the memory before its file exceeds `bytes`. Throws where
/// not even one fits an empty memory.
inline index affordable_samples(const token_memory& memory, index tokens, index available, index bytes) {
  const index k = detail::most_that_fit(available, [&](index more) {
    return memory.bytes_on_disk(memory.samples() + more, memory.tokens() + more * tokens) <= bytes;
  });
  require(k > 0 || !memory.empty(), "memory: a budget of ", bytes, " bytes is too small for one sample with ", tokens,
          " tokens, which takes ", memory.bytes_on_disk(1, tokens));
  return k;
}

/// What a picture costs as a file.
inline index file_price(const dataset& data, index picture) {
  return static_cast<index>(data.source_bytes[static_cast<std::size_t>(picture)]) + picture_overhead;
}

/// The samples that cost no more than `bytes` on their own, by `price(sample)`. Where there are none: nothing if the
/// memory holds something, or else an `Error` that names the least price.
template <class Price>
std::vector<index> affordable_alone(std::span<const index> samples, index bytes, bool memory_empty,
                                    const Price& price) {
  std::vector<index> found;
  index least = std::numeric_limits<index>::max();
  for (const index i : samples) {
    least = std::min(least, price(i));
    if (price(i) <= bytes) found.push_back(i);
  }
  require(!found.empty() || !memory_empty, "memory: a budget of ", bytes,
          " bytes is too small for one picture: the smallest takes ", least);
  return found;
}

/// How many pictures of `indices` on average fit `bytes` when each costs its source file.
inline index affordable_pictures(const dataset& data, std::span<const index> indices, index bytes) {
  double total = 0;
  for (const index i : indices) total += double(file_price(data, i));
  const double mean = total / static_cast<double>(indices.size());
  return std::min(static_cast<index>(indices.size()), static_cast<index>(static_cast<double>(bytes) / mean));
}

/// Leaves out the dearest of what was chosen until the rest costs no more than `bytes`; weights have mean 1 again.
/// `alone(i)` is the price of sample i, `together(indices)` that of all of them, which may share something.
template <class Alone, class Together>
void fit_price(selection_result& chosen, index bytes, const Alone& alone, const Together& together) {
  while (!chosen.indices.empty() && together(chosen.indices) > bytes) {
    const auto dearest = std::max_element(chosen.indices.begin(), chosen.indices.end(),
                                          [&](index a, index c) { return alone(a) < alone(c); });
    chosen.weights.erase(chosen.weights.begin() + (dearest - chosen.indices.begin()));
    chosen.indices.erase(dearest);
  }
  chosen.weights = normalise_weights(std::vector<double>(chosen.weights.begin(), chosen.weights.end()));
}

/// k of the samples with these labels `[n]`; `gather()` makes the evidence, which chance does without.
template <class Gather>
selection_result choose(const selection_method& method, std::span<const std::int32_t> labels, index classes, index k,
                        const Gather& gather) {
  if (const auto* chance = std::get_if<random_selection>(&method)) return select_at_random(*chance, labels, classes, k);
  const evidence known = gather();
  return std::visit([&](const auto& m) { return select(m, known, k); }, method);
}

/// The most relevant tokens of one picture as the memory stores them.
struct kept_tokens {
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;  ///< empty where the memory keeps none
};

/// The `count` tokens of a picture with the largest of `relevance` `[P]`.
inline kept_tokens cut_tokens(const image_view& picture, std::span<const double> relevance, index count,
                              const token_memory_format& format) {
  require(static_cast<index>(relevance.size()) == format.grid_tokens() && count > 0 && count <= format.grid_tokens(),
          "memory: ", count, " of ", relevance.size(), " tokens, its pictures have ", format.grid_tokens());
  kept_tokens kept;
  kept.positions = most_relevant(relevance, count);
  const auto pixels = patchify(picture, format.patch);
  for (const std::uint16_t p : kept.positions) {
    const auto from = pixels.begin() + p * format.patch_dim();
    kept.patches.insert(kept.patches.end(), from, from + format.patch_dim());
    if (format.relevance != relevance_storage::none) kept.relevance.push_back(static_cast<float>(relevance[p]));
  }
  return kept;
}

/// Chooses `k` of the pictures `indices`, or fewer if their files may weigh no more than `file_bytes`, and appends
/// their most relevant tokens to the memory, as of task `task_number`.
template <tensor_backend B>
consolidation consolidate(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                          const core_tokenset& recipe, index k, const pixel_normalisation& normalisation,
                          std::uint16_t task_number, token_memory& memory,
                          index file_bytes = std::numeric_limits<index>::max()) {
  using clock = std::chrono::steady_clock;
  const auto seconds = [](clock::time_point from) {
    return std::chrono::duration<double>(clock::now() - from).count();
  };
  check(recipe);
  check_pictures(data, model.config());
  check_format(memory.format(), model.config());
  for (const index i : indices) require(i >= 0 && i < data.n(), "consolidate: picture ", i, " of ", data.n());
  const auto start = clock::now();
  std::vector<std::int32_t> labels;
  for (const index i : indices) labels.push_back(data.labels[static_cast<std::size_t>(i)]);
  selection_result chosen = choose(recipe.select, labels, model.config().classes, k, [&] {
    const model_outputs outputs = run_model(b, model, data, indices, normalisation);
    return make_evidence(outputs.logits, outputs.features, outputs.labels, model.config().classes);
  });
  if (file_bytes != std::numeric_limits<index>::max()) {
    const auto price = [&](index i) { return file_price(data, indices[static_cast<std::size_t>(i)]); };
    fit_price(chosen, file_bytes, price, [&](const std::vector<index>& all) {
      return std::accumulate(all.begin(), all.end(), index{0}, [&](index sum, index i) { return sum + price(i); });
    });
  }
  consolidation done;
  done.select_seconds = seconds(start);

  const auto attribution_start = clock::now();
  const index patches = model.config().patches();
  const auto count = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
  attribution_workspace<B> workspace;
  token_batch batch;
  constexpr std::size_t batch_size = 32;
  for (std::size_t begin = 0; begin < chosen.indices.size(); begin += batch_size) {
    std::vector<index> part;
    for (std::size_t i = begin; i < std::min(begin + batch_size, chosen.indices.size()); ++i) {
      part.push_back(indices[static_cast<std::size_t>(chosen.indices[i])]);
    }
    done.pictures.insert(done.pictures.end(), part.begin(), part.end());
    make_batch(data, part, {.patch = model.config().patch, .normalisation = normalisation}, batch);
    const std::vector<double> relevance = count == patches
                                              ? std::vector<double>(static_cast<std::size_t>(batch.tokens()), 0.0)
                                              : attribute(recipe.attribute, b, model, batch, batch.targets, workspace);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto of_sample =
          std::span(relevance).subspan(i * static_cast<std::size_t>(patches), static_cast<std::size_t>(patches));
      const kept_tokens kept = cut_tokens(data.view_of(part[i]), of_sample, count, memory.format());
      memory.append({.patches = kept.patches,
                     .positions = kept.positions,
                     .relevance = kept.relevance,
                     .target = data.labels[static_cast<std::size_t>(part[i])],
                     .weight = chosen.weights[begin + i],
                     .task = task_number});
    }
  }
  done.attribute_seconds = seconds(attribution_start);
  return done;
}

}  // namespace core_tokensets
