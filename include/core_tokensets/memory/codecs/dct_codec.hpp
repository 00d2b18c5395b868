#pragma once
// The lossy codec of tokens: each token is transformed, quantised and coded by itself but for the mean of its pixels,
// which its nearest kept neighbours foretell. Everything is whole numbers, so bytes and pixels are the same everywhere.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/memory/codec.hpp"
#include "core_tokensets/memory/codecs/dct_model.hpp"
#include "core_tokensets/memory/codecs/dct_tables.hpp"
#include "core_tokensets/memory/codecs/neighbours.hpp"

namespace core_tokensets {

namespace detail {

/// One place of a patch that is transformed as a whole: a patch of up to 16 pixels a side, or a part of a larger one.
struct patch_tile {
  int row, col, top, left, height, width;
};

/// Both directions of the lossy codec over one sample; `Coder` reads or writes bits (see range_coder.hpp).
template <class Coder>
class dct_sample {
 public:
  dct_sample(Coder& coder, const patch_context& context, int quality, dct_model& model)
      : coder_(coder),
        grid_(context.grid),
        tiles_(static_cast<int>((grid_.patch + longest_block - 1) / longest_block)),
        side_(static_cast<int>((grid_.patch + tiles_ - 1) / tiles_)),
        finder_(context, tiles_),
        quality_(quality),
        model_(model),
        states_(finder_.blocks() * static_cast<std::size_t>(grid_.channels)) {}

  /// The qualities of the tokens: one for all, or one each. Returns those that hold.
  std::vector<std::uint8_t> code_qualities(std::span<const std::uint8_t> asked) {
    std::vector<std::uint8_t> qualities(finder_.blocks() / finder_.per_token(), static_cast<std::uint8_t>(quality_));
    const bool other = std::any_of(asked.begin(), asked.end(), [&](int q) { return q != quality_; });
    adaptive_bit rare{65000, 4}, same{45000, 4};
    if (!coder_.code(rare, other)) return qualities;
    std::array<adaptive_bit, 128> tree;
    int before = quality_;
    for (std::size_t t = 0; t < qualities.size(); ++t) {
      const int want = asked.empty() ? before : asked[asked.size() == 1 ? 0 : t];
      if (coder_.code(same, want != before)) {
        std::size_t node = 1;
        for (int bit = 6; bit >= 0; --bit)
          node = node << 1 | static_cast<std::size_t>(coder_.code(tree[node], (want >> bit & 1) != 0));
        before = static_cast<int>(node) - 128;
        require(before >= 1 && before <= 100, "dct codec: a quality of ", before, ", expected 1 to 100");
      }
      qualities[t] = static_cast<std::uint8_t>(before);
    }
    return qualities;
  }

  /// Calls `use(tile)` for the tiles of a patch in order.
  template <class Use>
  void for_each_tile(const Use& use) const {
    const int patch = static_cast<int>(grid_.patch);
    for (int row = 0; row < tiles_; ++row) {
      for (int col = 0; col < tiles_; ++col) {
        const int top = row * side_, left = col * side_;
        use(patch_tile{row, col, top, left, std::min(side_, patch - top), std::min(side_, patch - left)});
      }
    }
  }

  const std::array<quantiser, 2>& quantisers_of(int quality, const patch_tile& tile) {
    return quantisers_.at(quality, tile.height, tile.width);
  }
  bool in_colour() const { return grid_.channels == 3; }

  /// What is near the next block, for all of its planes.
  void enter(std::size_t token, const patch_tile& tile) {
    near_ = finder_.near(token, tile.row, tile.col);
    block_ = token * finder_.per_token() + static_cast<std::size_t>(tile.row * tiles_ + tile.col);
  }

  /// Codes plane `plane` of the block that was entered. `last`: see `code_details`.
  void code_plane(index plane, plane_kind kind, const quantiser& q, int last, levels& level) {
    const auto p = static_cast<std::size_t>(plane), planes = static_cast<std::size_t>(grid_.channels);
    const auto state = [&](std::size_t block) -> block_state& { return states_[block * planes + p]; };
    int sum = 0, weights = 0, details = 0;
    for (int i = 0; i < near_.count; ++i) {
      const auto [block, weight] = near_.found[static_cast<std::size_t>(i)];
      sum += weight * state(block).mean;
      details += weight * state(block).details;
      weights += weight;
    }
    const std::int64_t expected_mean = weights == 0 ? 0 : sum / weights;
    const int step = q.scan[0].step << sample_bits;
    const std::int64_t unit = std::int64_t{cosines.of[static_cast<std::size_t>(q.height)][0]} *
                              cosines.of[static_cast<std::size_t>(q.width)][0];  // 1 / sqrt(height width)
    const int expected = static_cast<int>(
        rounded((expected_mean * q.height * q.width * unit) >> (2 * cosine_bits + mean_bits - sample_bits), step));
    level[0] = code_mean(coder_, model_, kind, q, near_.distance, expected, level[0]);
    block_state& now = state(block_);
    const int near_details = weights == 0 ? none_near : count_class((details + weights / 2) / weights);
    const int likely = details_expected(plane, kind, near_details, {states_.data() + block_ * planes, p});
    const int found = code_details(coder_, model_, kind, q, likely, last, level);
    now.details = static_cast<std::uint8_t>(std::min(found, 255));
    const std::int64_t mean =
        std::clamp(level[0] * std::int64_t{step}, std::int64_t{-largest_number}, std::int64_t{largest_number});
    now.mean = static_cast<std::int16_t>(
        std::clamp<std::int64_t>((mean * unit) >> (2 * cosine_bits + sample_bits - mean_bits), -16384, 16384));
  }

 private:
  struct block_state {
    std::int16_t mean = 0;  ///< of its pixels, with `mean_bits` of fraction
    std::uint8_t details = 0;
  };
  static constexpr int mean_bits = 6, none_near = 7;

  /// How many coefficients one expects (0 .. 7): as many as near by, or what the planes `before` of the block tell.
  static int details_expected(index plane, plane_kind kind, int near, std::span<const block_state> before) {
    if (plane == 0) return near;
    const int last = count_class(before.back().details);
    if (kind == plane_kind::luma) return last;
    const bool some = plane == 1 ? near > 0 && near != none_near : last != 0;
    return count_class(before.front().details) / 2 * 2 + (some ? 1 : 0);
  }
  static std::int64_t rounded(std::int64_t x, int step) {
    return x < 0 ? -((-x + step / 2) / step) : (x + step / 2) / step;
  }

  Coder& coder_;
  const patch_grid& grid_;
  int tiles_, side_;
  block_finder finder_;
  int quality_;
  dct_model& model_;
  std::vector<block_state> states_;
  quantisers quantisers_;
  near_blocks near_;
  std::size_t block_ = 0;
};

/// Pixels `[height, width]` of three channels `size` apart to luma and colour (JFIF), and back.
inline void to_luma(const std::uint8_t* red, index size, index stride, const patch_tile& tile,
                    std::array<block_values, 3>& out) {
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      const std::uint8_t* p = red + (tile.top + y) * stride + tile.left + x;
      const int r = p[0], g = p[size], b = p[2 * size];
      const auto i = static_cast<std::size_t>(y * tile.width + x);
      constexpr int half = 1 << 12;
      out[0][i] = ((19595 * r + 38470 * g + 7471 * b + half) >> 13) - 1024;
      out[1][i] = (-11058 * r - 21710 * g + 32768 * b + half) >> 13;
      out[2][i] = (32768 * r - 27439 * g - 5329 * b + half) >> 13;
    }
  }
}
inline std::uint8_t to_pixel(std::int32_t x) { return static_cast<std::uint8_t>(std::clamp(x, 0, 255)); }
inline void from_luma(const std::array<block_values, 3>& in, const patch_tile& tile, std::uint8_t* red, index size,
                      index stride) {
  constexpr std::int32_t most = 1 << 14;
  for (int y = 0; y < tile.height; ++y) {
    for (int x = 0; x < tile.width; ++x) {
      std::uint8_t* p = red + (tile.top + y) * stride + tile.left + x;
      const auto i = static_cast<std::size_t>(y * tile.width + x);
      const std::int32_t luma = (std::clamp(in[0][i], -most, most) + 1024) * 4096 + (1 << 14);
      const std::int32_t blue = std::clamp(in[1][i], -most, most), redness = std::clamp(in[2][i], -most, most);
      p[0] = to_pixel((luma + 5743 * redness) >> 15);
      p[size] = to_pixel((luma - 1410 * blue - 2925 * redness) >> 15);
      p[2 * size] = to_pixel((luma + 7258 * blue) >> 15);
    }
  }
}

}  // namespace detail

/// Loses what the eye would not miss: the DCT of each token in luma and colour of half resolution (three channels; any
/// other number of channels is coded plane by plane), the quantisation of JPEG at `quality` 1 to 100, and a context
/// coder that starts from tables trained on photographs, so that 16 tokens are coded as well as a whole picture.
struct dct_codec {
  static constexpr const char* name = "dct";
  static constexpr const char* about =
      "lossy: tokens as JPEG would see them, for a fifteenth of the bytes at quality 50";

  int quality = 20;  ///< 1 .. 100, as libjpeg's

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("quality", self.quality);
  }

  std::vector<std::uint8_t> encode(const patch_context& context, std::span<const std::uint8_t> pixels) const {
    return encode(context, pixels, {});
  }
  /// The same with qualities of its own for this sample: one for all of its tokens, or one for each. `decode` finds
  /// them in the bytes. `Error`: another number of them, or one that is not in 1 .. 100.
  std::vector<std::uint8_t> encode(const patch_context& context, std::span<const std::uint8_t> pixels,
                                   std::span<const std::uint8_t> qualities) const;
  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const;
  /// The quality `[n]` of each token in packed bytes.
  std::vector<std::uint8_t> qualities(const patch_context& context, std::span<const std::uint8_t> bytes) const {
    detail::dct_model model = detail::trained_dct_model();
    detail::range_decoder coder(bytes, name);
    return detail::dct_sample<detail::range_decoder>(coder, context, quality, model).code_qualities({});
  }

  /// `Error` unless the options make sense.
  void check() const { require(quality >= 1 && quality <= 100, "dct codec: quality ", quality, ", expected 1 to 100"); }
};

namespace detail {

/// Quantises a block's coefficients; returns the last place that is not 0.
inline int quantise(const block_values& coefficients, const quantiser& q, bool round, levels& level) {
  int last = 0;
  for (int k = 0; k < q.count(); ++k) {
    const auto& place = q.scan[static_cast<std::size_t>(k)];
    const std::int32_t x = coefficients[place.at], size = x < 0 ? -x : x, step = place.step << sample_bits;
    // Small coefficients cost more than they are worth: thresholds of 0.64 and 1.58 steps.
    std::int32_t n = (size + step / 2) / step;
    if (!round && k > 0) {
      n = size * 100LL < step * 64LL
              ? 0
              : std::max<std::int32_t>(1, static_cast<std::int32_t>((size * 100LL + step * 42LL) / (step * 100LL)));
    }
    level[static_cast<std::size_t>(k)] = x < 0 ? -n : n;
    if (n != 0) last = k;
  }
  return last;
}

/// Coefficients from their numbers, up to `last`, and how many rows and columns are in use.
inline std::array<int, 2> dequantise(const levels& level, int last, const quantiser& q, block_values& coefficients) {
  std::fill_n(coefficients.begin(), q.count(), 0);
  int rows = 1, cols = 1;
  for (int k = 0; k <= last; ++k) {
    const std::int32_t n = level[static_cast<std::size_t>(k)];
    if (n == 0) continue;
    const auto& place = q.scan[static_cast<std::size_t>(k)];
    coefficients[place.at] =
        std::clamp(n * place.step, -largest_number >> sample_bits, largest_number >> sample_bits) * (1 << sample_bits);
    rows = std::max(rows, place.at / q.cols + 1), cols = std::max(cols, place.at % q.cols + 1);
  }
  return {rows, cols};
}

/// Writes a sample by any coder, so that the program that makes the tables can listen.
template <class Coder>
void encode_dct(Coder& coder, dct_model& model, const patch_context& context, int quality,
                std::span<const std::uint8_t> pixels, std::span<const std::uint8_t> asked) {
  dct_sample<Coder> sample(coder, context, quality, model);
  const auto qualities = sample.code_qualities(asked);
  const index patch = context.grid.patch, area = patch * patch;
  levels level{};
  std::array<block_values, 3> planes;
  block_values coefficients;
  for (std::size_t t = 0; t < qualities.size(); ++t) {
    const std::uint8_t* from = pixels.data() + static_cast<index>(t) * context.grid.patch_dim();
    sample.for_each_tile([&](const patch_tile& tile) {
      const auto& quantisers = sample.quantisers_of(qualities[t], tile);
      sample.enter(t, tile);
      if (sample.in_colour()) to_luma(from, area, patch, tile, planes);
      for (index c = 0; c < context.grid.channels; ++c) {
        const auto kind = sample.in_colour() && c > 0 ? plane_kind::chroma : plane_kind::luma;
        const quantiser& q = quantisers[static_cast<std::size_t>(kind)];
        block_values& plane = planes[sample.in_colour() ? static_cast<std::size_t>(c) : 0];
        if (!sample.in_colour()) {
          for (int i = 0; i < tile.height * tile.width; ++i) {
            const index y = tile.top + i / tile.width, x = tile.left + i % tile.width;
            plane[static_cast<std::size_t>(i)] = (from[c * area + y * patch + x] - 128) * (1 << sample_bits);
          }
        }
        forward_cosines(plane, tile.height, tile.width, q.rows, q.cols, coefficients);
        const int last = quantise(coefficients, q, qualities[t] > 50, level);
        sample.code_plane(c, kind, q, last, level);
      }
    });
  }
}

}  // namespace detail

inline std::vector<std::uint8_t> dct_codec::encode(const patch_context& context, std::span<const std::uint8_t> pixels,
                                                   std::span<const std::uint8_t> qualities) const {
  check();
  context.grid.check("dct codec");
  require(static_cast<index>(pixels.size()) == context.bytes(), "dct codec: ", pixels.size(), " pixel values for ",
          context.tokens(), " tokens of ", context.grid.patch_dim());
  require(qualities.size() <= 1 || qualities.size() == context.positions.size(), "dct codec: ", qualities.size(),
          " qualities for ", context.tokens(), " tokens");
  for (const int q : qualities) require(q >= 1 && q <= 100, "dct codec: quality ", q, ", expected 1 to 100");
  detail::dct_model model = detail::trained_dct_model();
  detail::range_encoder coder;
  detail::encode_dct(coder, model, context, quality, pixels, qualities);
  return coder.finish();
}

inline void dct_codec::decode(const patch_context& context, std::span<const std::uint8_t> bytes,
                              std::span<std::uint8_t> pixels) const {
  check();
  context.grid.check("dct codec");
  require(static_cast<index>(pixels.size()) == context.bytes(), "dct codec: room for ", pixels.size(),
          " pixel values, expected ", context.tokens(), " tokens of ", context.grid.patch_dim());
  detail::dct_model model = detail::trained_dct_model();
  detail::range_decoder coder(bytes, name);
  detail::dct_sample<detail::range_decoder> sample(coder, context, quality, model);
  const auto qualities = sample.code_qualities({});
  const index patch = context.grid.patch, area = patch * patch;
  detail::levels level;
  std::array<detail::block_values, 3> planes;
  detail::block_values coefficients;
  for (std::size_t t = 0; t < qualities.size(); ++t) {
    std::uint8_t* to = pixels.data() + static_cast<index>(t) * context.grid.patch_dim();
    sample.for_each_tile([&](const detail::patch_tile& tile) {
      const auto& quantisers = sample.quantisers_of(qualities[t], tile);
      sample.enter(t, tile);
      for (index c = 0; c < context.grid.channels; ++c) {
        const auto kind = sample.in_colour() && c > 0 ? detail::plane_kind::chroma : detail::plane_kind::luma;
        const detail::quantiser& q = quantisers[static_cast<std::size_t>(kind)];
        detail::block_values& plane = planes[sample.in_colour() ? static_cast<std::size_t>(c) : 0];
        std::fill_n(level.begin(), q.count(), 0);
        sample.code_plane(c, kind, q, 0, level);
        const auto [rows, cols] = detail::dequantise(level, q.count() - 1, q, coefficients);
        detail::inverse_cosines(coefficients, tile.height, tile.width, q.cols, rows, cols, plane);
        if (sample.in_colour()) continue;
        for (int i = 0; i < tile.height * tile.width; ++i) {
          const index y = tile.top + i / tile.width, x = tile.left + i % tile.width;
          to[c * area + y * patch + x] =
              detail::to_pixel((plane[static_cast<std::size_t>(i)] + 1024 + 4) >> detail::sample_bits);
        }
      }
      if (sample.in_colour()) detail::from_luma(planes, tile, to, area, patch);
    });
  }
  coder.finish();
}

}  // namespace core_tokensets
