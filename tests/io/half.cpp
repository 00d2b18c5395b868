#include "core_tokensets/io/half.hpp"

#include <cmath>
#include <limits>

#include "support/catch.hpp"

namespace io_half_tests {

namespace cts = core_tokensets;

namespace {
/// binary16 by its definition.
double by_definition(unsigned bits) {
  const double sign = bits & 0x8000u ? -1 : 1;
  const int exponent = static_cast<int>((bits >> 10) & 31u), fraction = static_cast<int>(bits & 1023u);
  if (exponent == 31) return fraction ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}
}  // namespace

TEST_CASE("every half is exact as a float and comes back") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto h = cts::half::from_bits(static_cast<std::uint16_t>(bits));
    const double want = by_definition(bits), got = static_cast<double>(h);
    if (std::isnan(want)) {
      wrong += !std::isnan(got) || !std::isnan(static_cast<double>(cts::half(got)));
    } else {
      wrong += got != want || std::signbit(got) != std::signbit(want) || cts::half(got).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("a number rounds to the nearest half, ties to even") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x7c00; ++bits) {  // between each finite half and the next, 65536 beyond the last
    const double low = by_definition(bits), high = bits == 0x7bff ? 65536.0 : by_definition(bits + 1);
    const double middle = (low + high) / 2;
    const unsigned even = bits & 1u ? bits + 1 : bits;
    wrong += cts::half(middle).bits != even;
    wrong += cts::half(std::nextafter(middle, 0.0)).bits != bits;
    wrong += cts::half(std::nextafter(middle, 1e9)).bits != bits + 1;
    wrong += cts::half(-std::nextafter(middle, 1e9)).bits != (0x8000u | (bits + 1));
  }
  CHECK(wrong == 0);
  CHECK(cts::half(1e300).bits == 0x7c00);
  CHECK(cts::half(1e-300).bits == 0);
  CHECK(cts::half(-0.0).bits == 0x8000);
}

TEST_CASE("a double rounds to the nearest bfloat16 in one step, ties to even") {
  int wrong = 0;
  const auto value = [](unsigned bits) {
    return static_cast<double>(cts::bfloat16::from_bits(static_cast<std::uint16_t>(bits)));
  };
  for (unsigned bits = 0; bits < 0x7f7f; ++bits) {  // between each finite one and the next
    const double middle = (value(bits) + value(bits + 1)) / 2;
    const unsigned even = bits & 1u ? bits + 1 : bits;
    wrong += cts::bfloat16::nearest(middle).bits != even;
    wrong += cts::bfloat16::nearest(-middle).bits != (0x8000u | even);
    wrong += cts::bfloat16::nearest(std::nextafter(middle, 0.0)).bits != bits;
    wrong += cts::bfloat16::nearest(std::nextafter(middle, 1e300)).bits != bits + 1;
    wrong += cts::bfloat16::nearest(-std::nextafter(middle, 1e300)).bits != (0x8000u | (bits + 1));
    wrong += cts::bfloat16::nearest(value(bits)).bits != bits;
  }
  CHECK(wrong == 0);
  CHECK(cts::bfloat16::nearest(1 + 0x1p-8 + 0x1p-40).bits == 0x3f81);  // by way of a float it would be a tie
  CHECK(cts::bfloat16::nearest(1e300).bits == 0x7f80);
}

TEST_CASE("bfloat16 is the upper half of a float, rounded to even") {
  CHECK(static_cast<float>(cts::bfloat16::from_bits(0x3f80)) == 1.0f);
  CHECK(static_cast<float>(cts::bfloat16::from_bits(0xc049)) == -3.140625f);
  CHECK(cts::bfloat16(1.0f + 0x1p-8f).bits == 0x3f80);                        // a tie, down to even
  CHECK(cts::bfloat16(1.0f + 3 * 0x1p-8f).bits == 0x3f82);                    // a tie, up to even
  CHECK(cts::bfloat16(std::nextafter(1.0f + 0x1p-8f, 2.0f)).bits == 0x3f81);  // above it
  CHECK(std::isnan(static_cast<float>(cts::bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(cts::bfloat16(std::numeric_limits<float>::infinity()).bits == 0x7f80);
}

}  // namespace io_half_tests
