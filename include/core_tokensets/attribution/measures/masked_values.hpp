#pragma once
// What a model says about samples of which patches are missing, for the measures that take patches away.

#include <concepts>

#include "core_tokensets/attribution/measures/ranking.hpp"
#include "core_tokensets/attribution/passes/variations.hpp"

namespace core_tokensets {

/// A sample with some of its patches kept.
struct masked_sample {
  std::size_t sample = 0;
  std::vector<std::uint8_t> keep;  ///< [n_s]
};

/// What one of them came out as: the number that is explained, the probability of the explained class, and whether that
/// class is still the largest.
struct masked_value {
  double value = 0, probability = 0;
  bool right = false;
};

namespace detail {

template <class T>
masked_value read_value(const settled_target& t, std::size_t s, std::span<const T> logits) {
  settled_target log_probability = t;
  log_probability.what = explained_score::log_probability;
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  return {t.value(s, logits), std::exp(log_probability.value(s, logits)), best == t.classes[s]};
}

}  // namespace detail

/// Values of masked samples, run together; the engine holds the batch.
template <tensor_backend B>
std::vector<masked_value> masked_values(variation_engine<B>& engine, const settled_target& t, missing_tokens missing,
                                        std::span<const masked_sample> masked) {
  using T = typename B::scalar;
  std::vector<masked_value> values;
  values.reserve(masked.size());
  engine.run(
      static_cast<index>(masked.size()), false,
      [&](index v, variation& out) {
        const masked_sample& m = masked[static_cast<std::size_t>(v)];
        engine.without(static_cast<index>(m.sample), m.keep, missing, out);
      },
      [&](index v, std::span<const T> logits) {
        values.push_back(detail::read_value(t, masked[static_cast<std::size_t>(v)].sample, logits));
      });
  return values;
}

/// `Error` unless there is one number for each patch.
inline void check_relevance(std::span<const double> relevance, const token_batch& batch) {
  require(static_cast<index>(relevance.size()) == batch.tokens(), "measure: ", relevance.size(), " numbers for ",
          batch.tokens(), " patches");
}

/// Samples that measures can take patches away from: `whole` has the values of the whole samples `[S]`, `offsets()`
/// says whose patches are where in the relevance `[P]`, `values` runs masked samples.
template <class M>
concept measured = requires(M& m, const M& constant, std::size_t s, std::span<const double> relevance,
                            missing_tokens missing, std::span<const masked_sample> masked) {
  { constant.samples() } -> std::same_as<std::size_t>;
  { constant.patches(s) } -> std::same_as<std::size_t>;
  { constant.offsets() } -> std::convertible_to<std::span<const index>>;
  { constant.whole[s] } -> std::convertible_to<const masked_value&>;
  constant.check(relevance);
  { m.values(missing, masked) } -> std::same_as<std::vector<masked_value>>;
};

/// A batch made ready for measures: its engine, what is explained in each sample, and the values of the whole samples.
template <tensor_backend B>
struct measured_batch {
  variation_engine<B> engine;
  const token_batch& batch;
  settled_target explained;
  std::vector<masked_value> whole;

  measured_batch(B& b, const vit<B>& model, const token_batch& from, const target& t)
      : engine(b, model, from), batch(from) {
    std::vector<double> logits;
    explained = settle_unchanged(engine, from, t, logits);
    const auto k = static_cast<std::size_t>(model.config().classes);
    for (std::size_t s = 0; s < explained.classes.size(); ++s) {
      whole.push_back(detail::read_value(explained, s, std::span<const double>(logits).subspan(s * k, k)));
    }
  }
  std::size_t samples() const { return explained.classes.size(); }
  std::span<const index> offsets() const { return batch.offsets; }
  std::vector<masked_value> values(missing_tokens missing, std::span<const masked_sample> masked) {
    return masked_values(engine, explained, missing, masked);
  }
  std::size_t patches(std::size_t s) const { return static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]); }
  void check(std::span<const double> relevance) const { check_relevance(relevance, batch); }
};

}  // namespace core_tokensets
