#pragma once
// Pixels of the memory to numbers for the model and back.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/memory/format.hpp"

namespace core_tokensets {

/// The format's normalisation with one value for each channel; empty means 0 and 1.
inline pixel_normalisation normalisation_of(const token_memory_format& format) {
  return pixel_normalisation{format.mean.empty() ? std::vector<float>{0.0f} : format.mean,
                             format.stddev.empty() ? std::vector<float>{1.0f} : format.stddev}
      .for_channels(format.channels);
}

/// A table `[channels, 256]` of (x / 255 - mean) / stddev for every pixel value.
inline std::vector<float> normalisation_table(const token_memory_format& format) {
  return pixel_table(normalisation_of(format), format.channels);
}

/// Normalised patches `[n, patch_dim]` back to pixels: exact for what came from pixels, else rounded and clamped to
/// 0..255. This is how a batch that a model has seen enters the memory. NaN becomes 0.
inline std::vector<std::uint8_t> to_pixels(const token_memory_format& format, std::span<const float> patches) {
  const auto dim = static_cast<std::size_t>(format.patch_dim());
  const auto area = static_cast<std::size_t>(format.patch * format.patch);
  require(patches.size() % dim == 0, "to_pixels: ", patches.size(), " numbers, expected a multiple of ", dim);
  std::vector<std::uint8_t> pixels(patches.size());
  const pixel_normalisation full = normalisation_of(format);
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const std::size_t c = i % dim / area;
    pixels[i] = to_pixel(patches[i], full.mean[c], full.stddev[c]);
  }
  return pixels;
}

}  // namespace core_tokensets
