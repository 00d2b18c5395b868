#pragma once
// The discrete cosine transform of any block of up to 16 x 16 in whole numbers: the same coefficients and the same
// pixels on every machine and with every compiler.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace core_tokensets::detail {

/// The longest side of a block; larger patches are cut into several.
inline constexpr int longest_block = 16;
inline constexpr std::size_t block_numbers = std::size_t{longest_block} * longest_block;

/// Fraction bits of pixels and coefficients in the transform, and of its matrices.
inline constexpr int sample_bits = 3, cosine_bits = 13;

/// The square root of x, rounded down.
constexpr std::uint64_t whole_root(std::uint64_t x) {
  std::uint64_t root = 0;
  for (std::uint64_t bit = std::uint64_t{1} << 31; bit != 0; bit >>= 1) {
    if ((root | bit) * (root | bit) <= x) root |= bit;
  }
  return root;
}

/// cos(pi k / (2 n)) in 28 fraction bits, by its series in whole numbers.
constexpr std::int64_t whole_cosine(int k, int n) {
  constexpr std::int64_t one = std::int64_t{1} << 28, pi = 843314857;  // pi in 28 bits
  k %= 4 * n;
  if (k > 2 * n) k = 4 * n - k;
  if (k > n) return -whole_cosine(2 * n - k, n);
  const std::int64_t x = pi * k / (2 * n), square = (x * x) >> 28;
  std::int64_t sum = one, term = one;
  for (int i = 1; i < 12; ++i) {
    term = -((term * square) >> 28) / ((2 * i - 1) * (2 * i));
    sum += term;
  }
  return sum;
}

/// The orthonormal matrices of all lengths: [u][x], row u a wave of u / 2n periods a pixel.
struct cosine_matrices {
  std::array<std::array<std::int16_t, block_numbers>, longest_block + 1> of{};

  constexpr cosine_matrices() {
    for (int n = 1; n <= longest_block; ++n) {
      for (int u = 0; u < n; ++u) {
        const auto scale = static_cast<std::int64_t>(
            whole_root((std::uint64_t{1} << (u == 0 ? 56 : 57)) / static_cast<std::uint64_t>(n)));
        for (int x = 0; x < n; ++x) {
          constexpr int spare = 56 - cosine_bits;
          const std::int64_t product = scale * whole_cosine((2 * x + 1) * u, n);
          of[static_cast<std::size_t>(n)][static_cast<std::size_t>(u * n + x)] =
              static_cast<std::int16_t>((product + (std::int64_t{1} << (spare - 1))) >> spare);
        }
      }
    }
  }
};
inline constexpr cosine_matrices cosines;

/// One block of numbers, the first `height * width` of them in use.
using block_values = std::array<std::int32_t, block_numbers>;

constexpr std::int32_t shifted(std::int32_t x) { return (x + (1 << (cosine_bits - 1))) >> cosine_bits; }

/// Pixels `[height, width]` (within 128 of 0, with `sample_bits` of fraction) to the coefficients `[rows, cols]` of
/// their lowest frequencies.
inline void forward_cosines(const block_values& pixels, int height, int width, int rows, int cols,
                            block_values& coefficients) {
  const std::int16_t* down = cosines.of[static_cast<std::size_t>(height)].data();
  const std::int16_t* across = cosines.of[static_cast<std::size_t>(width)].data();
  block_values half;
  for (int y = 0; y < height; ++y) {
    for (int v = 0; v < cols; ++v) {
      std::int32_t sum = 0;
      for (int x = 0; x < width; ++x) sum += across[v * width + x] * pixels[static_cast<std::size_t>(y * width + x)];
      half[static_cast<std::size_t>(y * cols + v)] = shifted(sum);
    }
  }
  for (int u = 0; u < rows; ++u) {
    for (int v = 0; v < cols; ++v) {
      std::int32_t sum = 0;
      for (int y = 0; y < height; ++y) sum += down[u * height + y] * half[static_cast<std::size_t>(y * cols + v)];
      coefficients[static_cast<std::size_t>(u * cols + v)] = shifted(sum);
    }
  }
}

/// No coefficient of pixels is larger; with this bound nothing overflows on the way back, whatever a file says.
inline constexpr std::int32_t largest_number = 1 << 15;

/// The coefficients `[rows, cols]` (within `largest_number`) of the lowest frequencies, all others 0, to pixels
/// `[height, width]`. Only the first `used_rows` and `used_cols` of them may be other than 0.
inline void inverse_cosines(const block_values& coefficients, int height, int width, int cols, int used_rows,
                            int used_cols, block_values& pixels) {
  const std::int16_t* down = cosines.of[static_cast<std::size_t>(height)].data();
  const std::int16_t* across = cosines.of[static_cast<std::size_t>(width)].data();
  block_values half{};
  for (int y = 0; y < height; ++y) {
    std::int32_t* to = half.data() + y * longest_block;
    for (int u = 0; u < used_rows; ++u) {
      const std::int32_t factor = down[u * height + y];
      for (int v = 0; v < used_cols; ++v) to[v] += factor * coefficients[static_cast<std::size_t>(u * cols + v)];
    }
    for (int v = 0; v < used_cols; ++v) to[v] = std::clamp(shifted(to[v]), -largest_number, largest_number);
  }
  for (int y = 0; y < height; ++y) {
    const std::int32_t* from = half.data() + y * longest_block;
    std::int32_t sums[longest_block] = {};
    for (int v = 0; v < used_cols; ++v) {
      for (int x = 0; x < width; ++x) sums[x] += across[v * width + x] * from[v];
    }
    for (int x = 0; x < width; ++x) pixels[static_cast<std::size_t>(y * width + x)] = shifted(sums[x]);
  }
}

}  // namespace core_tokensets::detail
