#pragma once
// How likely the bits of a block's coefficients are: the contexts of the lossy codec, and the order in which a block is
// said. First the mean, as a difference from its neighbours'; then, as the arithmetic coding of JPEG does (ITU-T T.81,
// F.1.4), "is there more?", "is it zero?" for each coefficient until there is one, its sign and its size.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "core_tokensets/memory/codecs/quantiser.hpp"
#include "core_tokensets/memory/codecs/range_coder.hpp"

namespace core_tokensets::detail {

/// The quantised coefficients of a block in the order of its scan, the first of them its mean.
using levels = std::array<std::int32_t, block_numbers>;

/// Classes of how many coefficients other than 0 a block has.
inline int count_class(int n) { return n > 16 ? 6 : n > 8 ? 5 : n > 4 ? 4 : n > 2 ? 3 : n; }

/// All adaptive bits of the lossy codec.
struct dct_model {
  static constexpr std::size_t kinds = 2, lengths = 10, detail_classes = 9, near_classes = 7, size_classes = 8;
  static constexpr std::size_t mean_contexts = kinds * 4 * quantiser::dc_likelihoods;
  static constexpr std::size_t size_contexts = kinds * likelihoods / 2 * size_classes;

  static constexpr std::size_t mean_at = 0, mean_next_at = mean_at + mean_contexts * lengths;
  static constexpr std::size_t more_at = mean_next_at + kinds * lengths;
  static constexpr std::size_t zero_at = more_at + kinds * likelihoods / 2 * 4 * detail_classes;
  static constexpr std::size_t size_at = zero_at + kinds * likelihoods * near_classes;
  static constexpr std::size_t size_next_at = size_at + size_contexts * lengths;
  static constexpr std::size_t count = size_next_at + kinds * lengths;

  std::array<adaptive_bit, count> bits;

  std::span<adaptive_bit> some(std::size_t at) { return std::span(bits).subspan(at, lengths); }
};

/// A number of a coefficient is below 2^14, so that it times any step fits 32 bits.
inline constexpr int level_bits = 13;

/// Codes the mean of a block, foreseen as `expected` steps; `distance` says how well (see `near_blocks`).
template <class Coder>
int code_mean(Coder& coder, dct_model& model, plane_kind kind, const quantiser& q, int distance, int expected,
              int mean) {
  const auto k = static_cast<std::size_t>(kind);
  const std::size_t context =
      (k * 4 + static_cast<std::size_t>(distance)) * quantiser::dc_likelihoods + static_cast<std::size_t>(q.dc_likely);
  const int size =
      code_number(coder, std::abs(mean - expected), model.some(dct_model::mean_at + context * dct_model::lengths),
                  model.some(dct_model::mean_next_at + k * dct_model::lengths), level_bits);
  return size != 0 && coder.code(mean < expected) ? expected - size : expected + size;
}

/// Codes the other coefficients and returns how many are not 0. `details` (0 .. 8) says how many one expects; `last` is
/// the place of the last one that is not 0 (only looked at when writing).
template <class Coder>
int code_details(Coder& coder, dct_model& model, plane_kind kind, const quantiser& q, int details, int last,
                 levels& level) {
  const auto k = static_cast<std::size_t>(kind);
  const int count = q.count();
  std::uint8_t seen[(quantiser::stride + 1) * quantiser::stride] = {};  // sizes up to 15, with a margin all around
  int found = 0;
  std::size_t state = 0;  // of the coefficient before: none, 1 behind zeros, 1 behind another, larger
  for (int at = 1; at < count; ++at) {
    const std::size_t likely = q.scan[static_cast<std::size_t>(at)].likely;
    const std::size_t more = ((k * likelihoods / 2 + likely / 2) * 4 + state) * dct_model::detail_classes +
                             static_cast<std::size_t>(details);
    if (!coder.code(model.bits[dct_model::more_at + more], at <= last)) break;
    const int first = at;
    for (;; ++at) {
      const auto& place = q.scan[static_cast<std::size_t>(at)];
      const std::uint8_t* p = seen + place.padded;
      constexpr int down = quantiser::stride;
      const int around = 2 * (p[-1] + p[-down]) + p[-down - 1] + p[-2] + p[-2 * down] + p[1 - down] + p[down - 1];
      const std::size_t near = around > 12  ? 6
                               : around > 7 ? 5
                               : around > 4 ? 4
                               : around > 2 ? 3
                                            : static_cast<std::size_t>(around);
      std::int32_t& here = level[static_cast<std::size_t>(at)];
      const std::size_t zero = (k * likelihoods + place.likely) * dct_model::near_classes + near;
      if (at + 1 < count && !coder.code(model.bits[dct_model::zero_at + zero], here != 0)) continue;
      const std::size_t larger = around > 32   ? 7
                                 : around > 20 ? 6
                                 : around > 12 ? 5
                                 : around > 7  ? 4
                                 : around > 4  ? 3
                                 : around > 2  ? 2
                                 : around > 0  ? 1
                                               : 0;
      const std::size_t context = (k * likelihoods / 2 + place.likely / 2u) * dct_model::size_classes + larger;
      const int size =
          1 + code_number(coder, std::abs(here) - 1, model.some(dct_model::size_at + context * dct_model::lengths),
                          model.some(dct_model::size_next_at + k * dct_model::lengths), level_bits - 1);
      here = coder.code(here < 0) ? -size : size;
      seen[place.padded] = static_cast<std::uint8_t>(std::min(size, 15));
      state = size > 1 ? 3 : at == first ? 2 : 1;
      ++found;
      break;
    }
  }
  return found;
}

}  // namespace core_tokensets::detail
