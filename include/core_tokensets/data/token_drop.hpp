#pragma once
// Tokens left out of a batch, at random or by a mask, under one of the three meanings of a missing token.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/token_batch.hpp"

namespace core_tokensets {

/// Tokens that stay of `tokens` when the share `rate` in [0, 1) is dropped: the nearest whole number, at least 1.
inline index tokens_kept(index tokens, double rate) {
  require(rate >= 0 && rate < 1, "token drop: rate ", rate, ", expected 0 <= rate < 1");
  return std::min(tokens, std::max<index>(1, std::lround((1 - rate) * static_cast<double>(tokens))));
}

/// Leaves out the tokens whose `keep` `[T]` is 0: `drop` removes their rows; `zero` keeps them with scale 0; `rescaled`
/// also multiplies the scale of the others by `rescale` `[S]`, or by tokens / kept if that is empty. Order and token
/// weights are kept.
/// `Error`: another number of tokens, a sample without any, `out` is the batch itself.
inline void apply_token_mask(const token_batch& whole, std::span<const std::uint8_t> keep, missing_tokens how,
                             token_batch& out, std::span<const double> rescale = {}) {
  require(&whole != &out, "token drop: the result must be another batch");
  require(static_cast<index>(keep.size()) == whole.tokens(), "token drop: mask of ", keep.size(), " for ",
          whole.tokens(), " tokens");
  require(rescale.empty() || static_cast<index>(rescale.size()) == whole.samples(), "token drop: ", rescale.size(),
          " factors for ", whole.samples(), " samples");
  const index dim = whole.patch_dim;
  out.patch_dim = dim;
  out.targets = whole.targets;
  out.weights = whole.weights;
  out.offsets.assign(1, 0);
  out.scale.clear();
  out.token_weights.clear();
  if (how != missing_tokens::drop) out.token_weights = whole.token_weights;
  if (how == missing_tokens::drop) {
    out.patches.clear(), out.positions.clear();
    out.patches.reserve(whole.patches.size());
  } else {
    out.patches = whole.patches, out.positions = whole.positions;
  }
  for (index s = 0; s < whole.samples(); ++s) {
    const index begin = whole.offsets.data()[s], end = whole.offsets.data()[s + 1];
    const auto kept = std::count_if(keep.begin() + begin, keep.begin() + end, [](std::uint8_t k) { return k != 0; });
    require(kept > 0, "token drop: no token of sample ", s, " is left");
    const double given = rescale.empty() ? static_cast<double>(end - begin) / static_cast<double>(kept)
                                         : rescale[static_cast<std::size_t>(s)];
    const double factor = how == missing_tokens::rescaled ? given : 1.0;
    for (index t = begin; t < end; ++t) {
      const bool stays = keep.data()[t] != 0;
      const double old = whole.scale.empty() ? 1.0 : whole.scale.data()[t];
      if (how != missing_tokens::drop) {
        out.scale.push_back(stays ? old * factor : 0.0);
      } else if (stays) {
        const float* row = whole.patches.data() + t * dim;
        out.patches.insert(out.patches.end(), row, row + dim);
        out.positions.push_back(whole.positions.data()[t]);
        if (!whole.scale.empty()) out.scale.push_back(old);
        if (!whole.token_weights.empty()) out.token_weights.push_back(whole.token_weights.data()[t]);
      }
    }
    out.offsets.push_back(how == missing_tokens::drop ? static_cast<index>(out.positions.size()) : end);
  }
}

/// A mask `[T]` that keeps `counts[s]` tokens of sample s, every subset equally likely. `Error`: a count outside of
/// 1 .. tokens of its sample.
inline std::vector<std::uint8_t> random_token_mask(const token_batch& whole, std::span<const index> counts,
                                                   random_stream& random) {
  require(static_cast<index>(counts.size()) == whole.samples(), "token drop: ", counts.size(), " counts for ",
          whole.samples(), " samples");
  std::vector<std::uint8_t> keep(static_cast<std::size_t>(whole.tokens()), 0);
  std::vector<index> order;
  for (index s = 0; s < whole.samples(); ++s) {
    const index begin = whole.offsets.data()[s], tokens = whole.offsets.data()[s + 1] - begin, kept = counts.data()[s];
    require(kept >= 1 && kept <= tokens, "token drop: keep ", kept, " of the ", tokens, " tokens of sample ", s);
    order.resize(static_cast<std::size_t>(tokens));
    std::iota(order.begin(), order.end(), index{0});
    for (index i = 0; i < kept; ++i) {
      std::swap(order.data()[i], order.data()[i + random.below(tokens - i)]);
      keep.data()[begin + order.data()[i]] = 1;
    }
  }
  return keep;
}

/// Positions of the `count` largest values, rising; equal ones: the earlier first. `Error`: more than there are.
inline std::vector<index> most_relevant(std::span<const double> relevance, index count) {
  require(count >= 0 && count <= static_cast<index>(relevance.size()), "token drop: keep ", count, " of ",
          relevance.size(), " tokens");
  std::vector<index> order(relevance.size());
  std::iota(order.begin(), order.end(), index{0});
  const double* value = relevance.data();
  std::stable_sort(order.begin(), order.end(), [value](index a, index c) { return value[a] > value[c]; });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

/// A mask `[T]` that keeps the `counts[s]` most relevant tokens of sample s. `Error`: a count outside of 1 .. tokens of
/// its sample, not one number of `relevance` for each token.
inline std::vector<std::uint8_t> relevant_token_mask(const token_batch& whole, std::span<const index> counts,
                                                     std::span<const double> relevance) {
  require(
      static_cast<index>(counts.size()) == whole.samples() && static_cast<index>(relevance.size()) == whole.tokens(),
      "token drop: ", counts.size(), " counts and ", relevance.size(), " numbers for ", whole.samples(), " samples of ",
      whole.tokens(), " tokens");
  std::vector<std::uint8_t> keep(relevance.size(), 0);
  for (std::size_t s = 0; s < counts.size(); ++s) {
    const index begin = whole.offsets[s], tokens = whole.offsets[s + 1] - begin;
    require(counts[s] >= 1 && counts[s] <= tokens, "token drop: keep ", counts[s], " of the ", tokens,
            " tokens of sample ", s);
    const auto of_sample = relevance.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(tokens));
    for (const index p : most_relevant(of_sample, counts[s])) keep.data()[begin + p] = 1;
  }
  return keep;
}

/// Leaves out the share `rates[s]` of the tokens of sample s, a random subset of exactly that size; survivors are
/// rescaled by 1 / (1 - rate) in the `rescaled` meaning (Paul et al. 2024, training on new data).
inline void drop_tokens(const token_batch& whole, std::span<const double> rates, random_stream& random,
                        missing_tokens how, token_batch& out) {
  require(static_cast<index>(rates.size()) == whole.samples(), "token drop: ", rates.size(), " rates for ",
          whole.samples(), " samples");
  std::vector<index> counts;
  std::vector<double> rescale;
  for (index s = 0; s < whole.samples(); ++s) {
    const double rate = rates.data()[s];
    counts.push_back(tokens_kept(whole.offsets.data()[s + 1] - whole.offsets.data()[s], rate));
    rescale.push_back(1.0 / (1.0 - rate));
  }
  apply_token_mask(whole, random_token_mask(whole, counts, random), how, out, rescale);
}

/// The same with one rate for all samples.
inline void drop_tokens(const token_batch& whole, double rate, random_stream& random, missing_tokens how,
                        token_batch& out) {
  drop_tokens(whole, std::vector<double>(static_cast<std::size_t>(whole.samples()), rate), random, how, out);
}

/// Leaves out the share `rate` of each sample's tokens, the least relevant ones.
inline void drop_irrelevant_tokens(const token_batch& whole, double rate, std::span<const double> relevance,
                                   missing_tokens how, token_batch& out) {
  std::vector<index> counts;
  for (index s = 0; s < whole.samples(); ++s)
    counts.push_back(tokens_kept(whole.offsets.data()[s + 1] - whole.offsets.data()[s], rate));
  apply_token_mask(whole, relevant_token_mask(whole, counts, relevance), how, out,
                   std::vector<double>(counts.size(), 1.0 / (1.0 - rate)));
}

}  // namespace core_tokensets
