#pragma once
// How a memory keeps the weights of tokens (data/token_batch.hpp), in as few bytes as what made them allows: one bit a
// token where there are two kinds of tokens, one byte a token for any weights.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// `none`: every token stands for itself. `drawn`: some of the n tokens of a sample were kept surely (weight 1), the
/// others drawn evenly from the rest of its P tokens (weight (P - s) / (n - s), s being the number of sure ones): a bit
/// for each token says which, and the weights follow to the last digit: 2 bytes for 16 tokens. `each`: a byte for each
/// token, weights from 1 to 62,000 in steps of 2^(1/16), rounded by at most 2.2 %.
enum class token_weighting { none, drawn, each };

template <>
inline constexpr std::array words<token_weighting>{"none", "drawn", "each"};

/// The weight of the n - s tokens drawn evenly from the P - s that were not kept surely.
inline float drawn_weight(index grid_tokens, index kept, index sure) {
  return kept > sure ? static_cast<float>(static_cast<double>(grid_tokens - sure) / static_cast<double>(kept - sure))
                     : 1.0f;
}

namespace detail {

/// Bytes that a sample of n tokens needs for its weights.
inline index weight_bytes(token_weighting how, index n) {
  return how == token_weighting::none ? 0 : how == token_weighting::drawn ? (n + 7) / 8 : n;
}

/// Writes the weights `[n]` (empty: all 1) of some of `grid_tokens` tokens. `Error`: they are not such as `how` keeps,
/// or there is no room for them.
inline void write_weights(token_weighting how, index grid_tokens, index n, std::span<const float> weights,
                          std::span<std::uint8_t> to) {
  std::fill(to.begin(), to.end(), std::uint8_t{0});
  if (std::all_of(weights.begin(), weights.end(), [](float w) { return w == 1; })) return;  // codes of 0
  require(static_cast<index>(weights.size()) == n, "token memory: ", weights.size(), " token weights for ", n,
          " tokens");
  require(static_cast<index>(to.size()) >= weight_bytes(how, n), "token memory: ", n, " tokens with weights, there is ",
          "room for the weights of ", how == token_weighting::drawn ? 8 * to.size() : to.size());
  index sure = 0;
  for (const float w : weights) sure += w == 1;
  const float drawn = drawn_weight(grid_tokens, n, sure);
  for (std::size_t t = 0; t < weights.size(); ++t) {
    const float w = weights[t];
    if (how == token_weighting::drawn) {
      require(w == 1 || std::abs(w - drawn) <= 1e-5f * drawn, "token memory: a token weight of ", w,
              ", expected 1 or, with ", sure, " of ", n, " tokens kept surely, ", drawn);
      if (w != 1) to[t / 8] = static_cast<std::uint8_t>(to[t / 8] | 1 << t % 8);
    } else {
      const double code = std::round(16 * std::log2(static_cast<double>(w)));
      require(w > 0 && code >= 0 && code <= 255, "token memory: a token weight of ", w, ", expected 1 to ",
              std::floor(std::exp2(255.0 / 16)));
      to[t] = static_cast<std::uint8_t>(code);
    }
  }
}

/// The weights `[n]` that were written.
inline std::vector<float> read_weights(token_weighting how, index grid_tokens, index n,
                                       std::span<const std::uint8_t> from) {
  std::vector<float> weights(static_cast<std::size_t>(n), 1.0f);
  if (how == token_weighting::each) {
    for (std::size_t t = 0; t < weights.size(); ++t) weights[t] = static_cast<float>(std::exp2(from[t] / 16.0));
  } else if (how == token_weighting::drawn && weight_bytes(how, n) <= static_cast<index>(from.size())) {
    index sure = 0;
    for (std::size_t t = 0; t < weights.size(); ++t) sure += (from[t / 8] >> t % 8 & 1) == 0;
    const float drawn = drawn_weight(grid_tokens, n, sure);
    for (std::size_t t = 0; t < weights.size(); ++t) {
      if ((from[t / 8] >> t % 8 & 1) != 0) weights[t] = drawn;
    }
  }
  return weights;
}

}  // namespace detail
}  // namespace core_tokensets
