#pragma once
// Steps of quantisation for the coefficients of a block of any size and quality, and how likely each of them is to
// survive: what the coder knows of a coefficient before it has seen any.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core_tokensets/memory/codecs/cosines.hpp"

namespace core_tokensets::detail {

/// Planes of brightness (luma, and every plane of a picture that is not in colour), and of colour.
enum class plane_kind : std::uint8_t { luma, chroma };

/// The tables of the JPEG standard (ITU-T T.81, annex K) at quality 50: [kind][u][v].
inline constexpr std::uint8_t base_steps[2][8][8] = {{{16, 11, 10, 16, 24, 40, 51, 61},
                                                      {12, 12, 14, 19, 26, 58, 60, 55},
                                                      {14, 13, 16, 24, 40, 57, 69, 56},
                                                      {14, 17, 22, 29, 51, 87, 80, 62},
                                                      {18, 22, 37, 56, 68, 109, 103, 77},
                                                      {24, 35, 55, 64, 81, 104, 113, 92},
                                                      {49, 64, 78, 87, 103, 121, 120, 101},
                                                      {72, 92, 95, 98, 112, 100, 103, 99}},
                                                     {{17, 18, 24, 47, 99, 99, 99, 99},
                                                      {18, 21, 26, 66, 99, 99, 99, 99},
                                                      {24, 26, 56, 99, 99, 99, 99, 99},
                                                      {47, 66, 99, 99, 99, 99, 99, 99},
                                                      {99, 99, 99, 99, 99, 99, 99, 99},
                                                      {99, 99, 99, 99, 99, 99, 99, 99},
                                                      {99, 99, 99, 99, 99, 99, 99, 99},
                                                      {99, 99, 99, 99, 99, 99, 99, 99}}};

/// log2(x) for x >= 1 in eighths, the fraction linear.
constexpr int eighths_of_log2(std::uint64_t x) {
  const int whole = static_cast<int>(std::bit_width(x)) - 1;
  return 8 * whole + static_cast<int>((((x << 3) >> whole) & 7));
}

/// The step of frequency (u, v) of a block of height x width in a plane of that kind. Frequencies are those of the
/// standard's 8 x 8 block, between which the table is interpolated; the planes of colour are of half resolution there,
/// so theirs are twice as high and their coefficients twice as large here, where the block is whole.
inline int step_of(plane_kind kind, int quality, int u, int v, int height, int width) {
  const auto& base = base_steps[static_cast<std::size_t>(kind)];
  const int factor = kind == plane_kind::chroma ? 2 : 1;
  const int y = std::min(u * 8 * 16 * factor / height, 7 * 16), x = std::min(v * 8 * 16 * factor / width, 7 * 16);
  const auto at = [&](int dy, int dx) {
    return static_cast<int>(base[std::min(y / 16 + dy, 7)][std::min(x / 16 + dx, 7)]);
  };
  const int top = at(0, 0) * (16 - x % 16) + at(0, 1) * (x % 16), low = at(1, 0) * (16 - x % 16) + at(1, 1) * (x % 16);
  const int sixteenths = (top * (16 - y % 16) + low * (y % 16) + 8) / 16;
  int percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;  // as libjpeg
  // Below 50 colour coarsens less than half as fast as there: the same bytes then hold up to 1 dB more.
  if (kind == plane_kind::chroma && percent > 100) percent = 100 + (percent - 100) * 2 / 5;
  return std::max(1, (sixteenths * percent * factor + 800) / 1600);
}

/// Places of likelihood: half octaves of the expected size of a coefficient in steps.
inline constexpr int likelihoods = 20;

/// Everything about the coefficients of one block, in the order in which they are coded.
struct quantiser {
  struct place {
    std::uint8_t at;       ///< row by row among the kept ones
    std::uint8_t likely;   ///< 0 .. likelihoods - 1
    std::uint16_t padded;  ///< place in an array with a margin of two
    std::int32_t step;
  };
  int height = 0, width = 0, rows = 0, cols = 0;
  int dc_likely = 0;  ///< 0 .. dc_likelihoods - 1
  std::array<place, block_numbers> scan{};

  static constexpr int dc_likelihoods = 10, stride = longest_block + 2;
  int count() const { return rows * cols; }

  quantiser(plane_kind kind, int quality, int h, int w) : height(h), width(w), rows(h), cols(w) {
    if (kind == plane_kind::chroma) rows = (h + 1) / 2, cols = (w + 1) / 2;
    std::size_t k = 0;
    for (int s = 0; s < rows + cols - 1; ++s) {
      for (int i = 0; i <= s; ++i) {  // zigzag
        const int u = s % 2 == 0 ? s - i : i, v = s - u;
        if (u < rows && v < cols) scan[k++] = place_of(kind, quality, u, v);
      }
    }
    // The mean of a token differs from its neighbours' by some 32 levels.
    const int size = eighths_of_log2(static_cast<std::uint64_t>(h * w)) / 2 + 40;
    dc_likely =
        std::clamp((size - eighths_of_log2(static_cast<std::uint64_t>(scan[0].step))) / 8 + 1, 0, dc_likelihoods - 1);
  }

 private:
  place place_of(plane_kind kind, int quality, int u, int v) const {
    const int step = step_of(kind, quality, u, v, height, width);
    // Measured on photographs: mean sizes fall with u + v (in periods of the 8 x 8 block) as a power.
    const int frequency = std::max(1, 8 * 16 * u / height + 8 * 16 * v / width);
    const int octaves = eighths_of_log2(static_cast<std::uint64_t>(frequency)) - 32;
    const int size = kind == plane_kind::luma ? 51 - octaves * 15 / 16 : 32 - octaves * 7 / 4;
    const int likely = (size - eighths_of_log2(static_cast<std::uint64_t>(step)) + 48) / 4;
    return {static_cast<std::uint8_t>(u * cols + v), static_cast<std::uint8_t>(std::clamp(likely, 0, likelihoods - 1)),
            static_cast<std::uint16_t>((u + 2) * stride + v + 2), step};
  }
};

/// The quantisers of one sample, made when they are first asked for.
class quantisers {
 public:
  struct pair {
    int quality, height, width;
    std::array<quantiser, 2> of;
  };
  /// Both kinds; the reference stays valid.
  const std::array<quantiser, 2>& at(int quality, int height, int width) {
    if (last_ && last_->quality == quality && last_->height == height && last_->width == width) return last_->of;
    for (const auto& one : made_) {
      if (one->quality == quality && one->height == height && one->width == width) return (last_ = one.get())->of;
    }
    made_.push_back(std::make_unique<pair>(pair{
        quality,
        height,
        width,
        {quantiser(plane_kind::luma, quality, height, width), quantiser(plane_kind::chroma, quality, height, width)}}));
    return (last_ = made_.back().get())->of;
  }

 private:
  std::vector<std::unique_ptr<pair>> made_;
  const pair* last_ = nullptr;
};

}  // namespace core_tokensets::detail
