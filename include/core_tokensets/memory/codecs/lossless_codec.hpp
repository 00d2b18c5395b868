#pragma once
// Pixels as they are, in fewer bytes.

#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/memory/codec.hpp"
#include "core_tokensets/memory/codecs/lossless_model.hpp"
#include "core_tokensets/memory/codecs/lossless_tables.hpp"

namespace core_tokensets {

namespace detail {

/// Red and blue as differences to green (three channels; others stay), green first, and back.
inline void to_differences(const patch_grid& grid, std::span<std::uint8_t> values) {
  if (grid.channels != 3) return;
  const auto area = static_cast<std::size_t>(grid.patch * grid.patch);
  for (std::size_t from = 0; from + 3 * area <= values.size(); from += 3 * area) {
    for (std::size_t i = from; i < from + area; ++i) {
      const int r = values[i], g = values[i + area], b = values[i + 2 * area];
      values[i] = static_cast<std::uint8_t>(g);
      values[i + area] = static_cast<std::uint8_t>(r - g + 128);
      values[i + 2 * area] = static_cast<std::uint8_t>(b - g + 128);
    }
  }
}
inline void from_differences(const patch_grid& grid, std::span<std::uint8_t> values) {
  if (grid.channels != 3) return;
  const auto area = static_cast<std::size_t>(grid.patch * grid.patch);
  for (std::size_t from = 0; from + 3 * area <= values.size(); from += 3 * area) {
    for (std::size_t i = from; i < from + area; ++i) {
      const int g = values[i], r = values[i + area] + g, b = values[i + 2 * area] + g;
      values[i] = static_cast<std::uint8_t>(r - 128);
      values[i + area] = static_cast<std::uint8_t>(g);
      values[i + 2 * area] = static_cast<std::uint8_t>(b - 128);
    }
  }
}

}  // namespace detail

/// Loses nothing: each pixel is foreseen from its neighbours and the difference coded, by the coder of `dct_codec`.
struct lossless_codec {
  static constexpr const char* name = "lossless";
  static constexpr const char* about = "exact: what neighbouring pixels do not tell, about half of the bytes of raw";

  std::vector<std::uint8_t> encode(const patch_context& context, std::span<const std::uint8_t> pixels) const {
    context.grid.check("lossless codec");
    require(static_cast<index>(pixels.size()) == context.bytes(), "lossless codec: ", pixels.size(),
            " pixel values for ", context.tokens(), " tokens of ", context.grid.patch_dim());
    std::vector<std::uint8_t> values(pixels.begin(), pixels.end());
    detail::to_differences(context.grid, values);
    detail::lossless_model model = detail::trained_lossless_model();
    detail::range_encoder coder;
    detail::lossless_sample(coder, context, model).code(values);
    return coder.finish();
  }

  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const {
    context.grid.check("lossless codec");
    require(static_cast<index>(pixels.size()) == context.bytes(), "lossless codec: room for ", pixels.size(),
            " pixel values, expected ", context.tokens(), " tokens of ", context.grid.patch_dim());
    detail::lossless_model model = detail::trained_lossless_model();
    detail::range_decoder coder(bytes, name);
    detail::lossless_sample(coder, context, model).code(pixels);
    coder.finish();
    detail::from_differences(context.grid, pixels);
  }
};

}  // namespace core_tokensets
