#pragma once
// Pictures of 8 bits a channel, height x width x channels, and what is done to them before they become tokens.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// A picture that someone else owns: `[height, width, channels]` without gaps.
struct image_view {
  index height = 0, width = 0, channels = 0;
  const std::uint8_t* pixels = nullptr;

  const std::uint8_t* at(index y, index x) const { return pixels + (y * width + x) * channels; }
  index size() const { return height * width * channels; }
};

/// A picture: `pixels` is `[height, width, channels]`, red before green before blue.
struct image {
  index height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels = {};

  image() = default;
  /// A picture of the given extents, all pixels `fill`.
  image(index h, index w, index c, std::uint8_t fill = 0)
      : height(h), width(w), channels(c), pixels(static_cast<std::size_t>(h * w * c), fill) {}
  explicit image(const image_view& from)
      : height(from.height),
        width(from.width),
        channels(from.channels),
        pixels(from.pixels, from.pixels + from.size()) {}

  operator image_view() const { return {height, width, channels, pixels.data()}; }
  std::uint8_t* at(index y, index x) { return pixels.data() + (y * width + x) * channels; }
  const std::uint8_t* at(index y, index x) const { return pixels.data() + (y * width + x) * channels; }
  bool operator==(const image&) const = default;
};

/// How new pixels come from old ones: the two nearest, weighted (bilinear); the mean of the area that they cover
/// (area); or area along an axis that shrinks and bilinear along one that grows (automatic).
enum class resampling { automatic, bilinear, area };

namespace detail {

/// The old pixels `first ..` and their weights (sum 1) that make one new pixel along one axis.
struct resampling_weights {
  index first = 0;
  std::vector<float> weights;
};

inline std::vector<resampling_weights> resample_axis(index from, index to, resampling how) {
  const double ratio = static_cast<double>(from) / static_cast<double>(to);
  const bool area = how == resampling::area || (how == resampling::automatic && to < from);
  std::vector<resampling_weights> axis;
  axis.reserve(static_cast<std::size_t>(to));
  for (index i = 0; i < to; ++i) {
    const double begin = static_cast<double>(i) * ratio, end = begin + ratio;
    resampling_weights w;
    if (area) {
      w.first = std::min(static_cast<index>(begin), from - 1);
      const index last = std::clamp(static_cast<index>(std::ceil(end - 1e-9)), w.first + 1, from);
      for (index j = w.first; j < last; ++j) {
        const double covered = std::min(end, static_cast<double>(j + 1)) - std::max(begin, static_cast<double>(j));
        w.weights.push_back(static_cast<float>(covered / ratio));
      }
    } else {
      const double centre = std::clamp((begin + end) / 2 - 0.5, 0.0, static_cast<double>(from - 1));
      w.first = std::min(static_cast<index>(centre), std::max<index>(from - 2, 0));
      const auto share = static_cast<float>(centre - static_cast<double>(w.first));
      w.weights = from > 1 ? std::vector<float>{1 - share, share} : std::vector<float>{1};
    }
    axis.push_back(std::move(w));
  }
  return axis;
}

}  // namespace detail

/// The picture at another size; pixel centres lie at half integers. `Error`: an extent that is not positive.
inline image resize(const image_view& from, index height, index width, resampling how = resampling::automatic) {
  require(from.height > 0 && from.width > 0 && from.channels > 0 && height > 0 && width > 0, "resize: ", from.height,
          " x ", from.width, " x ", from.channels, " to ", height, " x ", width, ": expected positive extents");
  if (from.height == height && from.width == width) return image(from);
  const index row = width * from.channels;
  std::vector<float> wide(static_cast<std::size_t>(from.height * row), 0.0f);
  const auto columns = detail::resample_axis(from.width, width, how);
  for (index y = 0; y < from.height; ++y) {
    float* out = wide.data() + y * row;
    for (const auto& column : columns) {
      const std::uint8_t* in = from.at(y, column.first);
      for (const float weight : column.weights) {
        for (index c = 0; c < from.channels; ++c) out[c] += weight * static_cast<float>(*in++);
      }
      out += from.channels;
    }
  }
  image to(height, width, from.channels);
  const auto rows = detail::resample_axis(from.height, height, how);
  std::vector<float> sums(static_cast<std::size_t>(row));
  std::uint8_t* out = to.pixels.data();
  for (const auto& line : rows) {
    std::fill(sums.begin(), sums.end(), 0.5f);
    const float* in = wide.data() + line.first * row;
    for (const float weight : line.weights) {
      for (float& sum : sums) sum += weight * *in++;
    }
    for (const float sum : sums) *out++ = static_cast<std::uint8_t>(std::clamp(sum, 0.0f, 255.0f));
  }
  return to;
}

/// Three equal channels from one; a picture of three channels as it is. `Error`: any other number of channels.
inline image grey_to_rgb(const image_view& from) {
  require(from.channels == 1 || from.channels == 3, "grey_to_rgb: ", from.channels, " channels, expected 1 or 3");
  if (from.channels == 3) return image(from);
  image to(from.height, from.width, 3);
  for (index i = 0; i < from.size(); ++i) std::fill_n(to.pixels.data() + 3 * i, 3, from.pixels[i]);
  return to;
}

/// Rows `top ..` and columns `left ..` of the picture. `Error`: the window leaves the picture.
inline image crop(const image_view& from, index top, index left, index height, index width) {
  require(top >= 0 && left >= 0 && height > 0 && width > 0 && top <= from.height - height && left <= from.width - width,
          "crop: ", height, " x ", width, " at row ", top, ", column ", left, " leaves the picture of ", from.height,
          " x ", from.width);
  image to(height, width, from.channels);
  for (index y = 0; y < height; ++y) std::copy_n(from.at(top + y, left), width * from.channels, to.at(y, 0));
  return to;
}

/// The mirror image: left becomes right.
inline image flip_horizontally(const image_view& from) {
  image to(from.height, from.width, from.channels);
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x) {
      std::copy_n(from.at(y, from.width - 1 - x), from.channels, to.at(y, x));
    }
  }
  return to;
}

}  // namespace core_tokensets
