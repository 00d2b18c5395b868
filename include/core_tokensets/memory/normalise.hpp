#pragma once
// Pixels of the memory to numbers for the model and back.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/memory/format.hpp"

namespace core_tokensets {

/// A table `[channels, 256]` of (x / 255 - mean) / stddev for every pixel value.
inline std::vector<float> normalisation_table(const token_memory_format& format) {
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(format.channels) * 256);
  for (std::size_t c = 0; c < static_cast<std::size_t>(format.channels); ++c) {
    const float mean = format.mean.empty() ? 0.0f : format.mean[c];
    const float stddev = format.stddev.empty() ? 1.0f : format.stddev[c];
    for (int x = 0; x < 256; ++x) table.push_back((static_cast<float>(x) / 255.0f - mean) / stddev);
  }
  return table;
}

/// Normalised patches `[n, patch_dim]` back to pixels: exact for what came from pixels, else rounded and clamped to
/// 0..255. This is how a batch that a model has seen enters the memory. NaN becomes 0.
inline std::vector<std::uint8_t> to_pixels(const token_memory_format& format, std::span<const float> patches) {
  const auto dim = static_cast<std::size_t>(format.patch_dim());
  const auto area = static_cast<std::size_t>(format.patch * format.patch);
  require(patches.size() % dim == 0, "to_pixels: ", patches.size(), " numbers, expected a multiple of ", dim);
  std::vector<std::uint8_t> pixels(patches.size());
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const std::size_t c = i % dim / area;
    const float mean = format.mean.empty() ? 0.0f : format.mean[c];
    const float stddev = format.stddev.empty() ? 1.0f : format.stddev[c];
    const float x = (patches[i] * stddev + mean) * 255.0f;
    pixels[i] = static_cast<std::uint8_t>(x >= 0.0f ? std::lround(std::min(x, 255.0f)) : 0);
  }
  return pixels;
}

}  // namespace core_tokensets
