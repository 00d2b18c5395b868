#pragma once
// Relevance as a picture: scores of patches become a smooth map over the pixels, then colours, then an overlay.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/image.hpp"

namespace core_tokensets {

using colour = std::array<std::uint8_t, 3>;

/// Colour scales that look evenly spaced and stay readable in grey (van der Walt & Smith, SciPy 2015).
enum class colour_scale { viridis, inferno };

/// Colour of a value in [0, 1], interpolated between samples of the scale; values beyond are clamped, NaN is 0.
inline colour colour_of(double value, colour_scale scale = colour_scale::inferno) {
  static constexpr std::array<colour, 10> viridis{{{0x44, 0x01, 0x54},
                                                   {0x48, 0x28, 0x78},
                                                   {0x3E, 0x4A, 0x89},
                                                   {0x31, 0x68, 0x8E},
                                                   {0x26, 0x82, 0x8E},
                                                   {0x1F, 0x9E, 0x89},
                                                   {0x35, 0xB7, 0x79},
                                                   {0x6D, 0xCD, 0x59},
                                                   {0xB4, 0xDE, 0x2C},
                                                   {0xFD, 0xE7, 0x25}}};
  static constexpr std::array<colour, 10> inferno{{{0x00, 0x00, 0x04},
                                                   {0x1B, 0x0C, 0x41},
                                                   {0x4A, 0x0C, 0x6B},
                                                   {0x78, 0x1C, 0x6D},
                                                   {0xA5, 0x2C, 0x60},
                                                   {0xCF, 0x44, 0x46},
                                                   {0xED, 0x69, 0x25},
                                                   {0xFB, 0x9B, 0x06},
                                                   {0xF7, 0xD1, 0x3D},
                                                   {0xFC, 0xFF, 0xA4}}};
  const auto& samples = scale == colour_scale::viridis ? viridis : inferno;
  const double place = (value > 0 ? std::min(value, 1.0) : 0.0) * 9;
  const auto left = static_cast<std::size_t>(std::min(place, 8.0));
  const double share = place - static_cast<double>(left);
  colour result{};
  for (std::size_t c = 0; c < 3; ++c)
    result[c] = static_cast<std::uint8_t>(std::lround((1 - share) * samples[left][c] + share * samples[left + 1][c]));
  return result;
}

/// Black or white, whichever is easier to read on a background.
inline colour text_colour_on(const colour& background) {
  const double light = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2];
  return light > 140 ? colour{0, 0, 0} : colour{255, 255, 255};
}

/// Values moved and scaled to 0 .. 1; all 0 where they are all equal. `Error`: a value that is not finite.
inline std::vector<double> min_max(std::span<const double> values) {
  for (const double v : values) require(std::isfinite(v), "min_max: a value is not finite (", v, ")");
  std::vector<double> result(values.size(), 0.0);
  if (values.empty()) return result;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*high > *low) {
    const double from = *low, range = *high - *low;
    std::transform(values.begin(), values.end(), result.begin(), [=](double v) { return (v - from) / range; });
  }
  return result;
}

/// Scores of a grid [rows, columns] at the pixels [height, width]: bilinear, centres at half integers, edges clamped.
inline std::vector<double> upsample(std::span<const double> scores, index rows, index columns, index height,
                                    index width) {
  require(rows > 0 && columns > 0 && height > 0 && width > 0 && static_cast<index>(scores.size()) == rows * columns,
          "upsample: ", scores.size(), " scores as a grid of ", rows, " x ", columns, " to ", height, " x ", width);
  struct place {
    index low, high;
    double share;
  };
  const auto place_of = [](index i, index from, index to) {
    const double centre = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const double inside = std::clamp(centre, 0.0, static_cast<double>(from - 1));
    const auto low = static_cast<index>(inside);
    return place{low, std::min(low + 1, from - 1), inside - static_cast<double>(low)};
  };
  std::vector<place> across;
  for (index x = 0; x < width; ++x) across.push_back(place_of(x, columns, width));
  std::vector<double> result;
  result.reserve(static_cast<std::size_t>(height * width));
  for (index y = 0; y < height; ++y) {
    const auto v = place_of(y, rows, height);
    const double *top = scores.data() + v.low * columns, *bottom = scores.data() + v.high * columns;
    for (const auto& h : across) {
      const double above = (1 - h.share) * top[h.low] + h.share * top[h.high];
      const double below = (1 - h.share) * bottom[h.low] + h.share * bottom[h.high];
      result.push_back((1 - v.share) * above + v.share * below);
    }
  }
  return result;
}

/// The relevance of patches [rows, columns] as values 0 .. 1 of the pixels [height, width]: `upsample`, then `min_max`.
inline std::vector<double> heatmap(std::span<const double> scores, index rows, index columns, index height,
                                   index width) {
  return min_max(upsample(scores, rows, columns, height, width));
}

/// Values 0 .. 1 [height, width] as colours.
inline image colour_map(std::span<const double> values, index height, index width,
                        colour_scale scale = colour_scale::inferno) {
  require(height > 0 && width > 0 && static_cast<index>(values.size()) == height * width, "colour_map: ", values.size(),
          " values, expected ", height, " x ", width);
  image result(height, width, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto rgb = colour_of(values[i], scale);
    std::copy(rgb.begin(), rgb.end(), result.pixels.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return result;
}

/// How a heat map lies on its picture: its share of the colour where relevance is 0 and where it is 1.
struct overlay_options {
  double least = 0.35, most = 0.75;
  colour_scale scale = colour_scale::inferno;
};

/// The picture (grey or colour) under the relevance of its patches [rows, columns].
inline image overlay(const image_view& picture, std::span<const double> scores, index rows, index columns,
                     const overlay_options& options = {}) {
  image result = grey_to_rgb(picture);
  const auto values = heatmap(scores, rows, columns, picture.height, picture.width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto rgb = colour_of(values[i], options.scale);
    const double share = options.least + (options.most - options.least) * values[i];
    for (std::size_t c = 0; c < 3; ++c) {
      auto& pixel = result.pixels[3 * i + c];
      pixel = static_cast<std::uint8_t>(std::lround((1 - share) * pixel + share * rgb[c]));
    }
  }
  return result;
}

}  // namespace core_tokensets
