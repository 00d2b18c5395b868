#pragma once
// The two 16-bit floating-point formats as storage types: numbers are converted on the way in and out, never computed.

#include <bit>
#include <cstdint>
#include <limits>

namespace core_tokensets {

/// IEEE 754 binary16 (1 sign, 5 exponent, 10 fraction bits): largest 65504, smallest 2^-24.
struct half {
  std::uint16_t bits = 0;

  constexpr half() = default;
  /// The nearest half, ties to even; beyond 65504 + half a step infinity; NaN stays NaN.
  explicit constexpr half(double x) : bits(round(x)) {}
  static constexpr half from_bits(std::uint16_t b) {
    half h;
    h.bits = b;
    return h;
  }

  /// Exact.
  explicit constexpr operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
      return sign ? -magnitude : magnitude;
    }
    const std::uint32_t wide = exponent == 31 ? 255u : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
  }
  explicit constexpr operator double() const { return static_cast<double>(static_cast<float>(*this)); }

  friend constexpr bool operator==(half a, half b) { return static_cast<float>(a) == static_cast<float>(b); }

 private:
  static constexpr std::uint16_t round(double x) {
    const auto all = std::bit_cast<std::uint64_t>(x);
    const auto sign = static_cast<std::uint32_t>(all >> 48) & 0x8000u;
    const std::uint64_t magnitude = all & 0x7fffffffffffffffu;
    std::uint64_t rest = 0;
    if (magnitude > std::bit_cast<std::uint64_t>(std::numeric_limits<double>::infinity())) {
      rest = 0x7e00;
    } else if (magnitude >= std::bit_cast<std::uint64_t>(65520.0)) {
      rest = 0x7c00;
    } else if (magnitude >= std::bit_cast<std::uint64_t>(0x1p-14)) {
      const std::uint64_t rebased = magnitude - (std::uint64_t{1023 - 15} << 52);
      rest = (rebased + ((std::uint64_t{1} << 41) - 1) + ((rebased >> 42) & 1)) >> 42;
    } else {  // steps of 2^-24, which are also the steps of double at 2^28
      rest = std::bit_cast<std::uint64_t>(std::bit_cast<double>(magnitude) + 0x1p28) -
             std::bit_cast<std::uint64_t>(0x1p28);
    }
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(rest));
  }
};

/// bfloat16: the upper half of a float (8 exponent, 7 fraction bits).
struct bfloat16 {
  std::uint16_t bits = 0;

  constexpr bfloat16() = default;
  /// The nearest bfloat16, ties to even; NaN stays NaN.
  explicit constexpr bfloat16(float x) {
    const auto all = std::bit_cast<std::uint32_t>(x);
    const bool nan = (all & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? (all >> 16) | 0x40u : (all + 0x7fffu + ((all >> 16) & 1u)) >> 16);
  }
  /// The nearest to a double, ties to even: rounded once, since a float in between that is rounded to odd keeps what
  /// decides (Boldo & Melquiond 2008).
  static constexpr bfloat16 nearest(double x) {
    float near = static_cast<float>(x);
    auto bits = std::bit_cast<std::uint32_t>(near);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u, above = static_cast<double>(near) > x;
    if (finite && static_cast<double>(near) != x && (bits & 1u) == 0) {
      // The neighbour on the other side of x is odd.
      bits = above == (x > 0) ? bits - 1 : bits + 1;
      near = std::bit_cast<float>(bits);
    }
    return bfloat16(near);
  }
  static constexpr bfloat16 from_bits(std::uint16_t b) {
    bfloat16 h;
    h.bits = b;
    return h;
  }

  /// Exact.
  explicit constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
  explicit constexpr operator double() const { return static_cast<double>(static_cast<float>(*this)); }

  friend constexpr bool operator==(bfloat16 a, bfloat16 b) { return static_cast<float>(a) == static_cast<float>(b); }
};

}  // namespace core_tokensets
