#pragma once
// Counter-based random numbers: the i-th draw of a stream is a pure function of (seed, stream, i), so it is
// the same on every machine and backend, in any order and on any number of threads.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace core_tokensets {

/// Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words from a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = multiplier0 * counter[0], product1 = multiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// A position in an endless sequence of random numbers; copy it to replay, store `position()` to resume.
class random_stream {
 public:
  explicit constexpr random_stream(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t position = 0)
      : seed_(seed), stream_(stream), position_(position) {}

  /// 64 random bits.
  constexpr std::uint64_t bits() {
    const auto words =
        philox({low(position_), high(position_), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
    ++position_;
    return (static_cast<std::uint64_t>(words[1]) << 32) | words[0];
  }

  /// Uniform in [0, 1).
  constexpr double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  constexpr double uniform(double from, double to) { return from + (to - from) * uniform(); }

  /// Uniform integer in [0, n), n > 0 (Lemire's multiply-shift; its bias is below n / 2^64).
  constexpr std::ptrdiff_t below(std::ptrdiff_t n) {
    const std::uint64_t x = bits(), m = static_cast<std::uint64_t>(n);
    const std::uint64_t x0 = low(x), x1 = high(x), m0 = low(m), m1 = high(m);
    const std::uint64_t middle = x1 * m0 + ((x0 * m0) >> 32);
    const std::uint64_t cross = x0 * m1 + low(middle);
    return static_cast<std::ptrdiff_t>(x1 * m1 + (middle >> 32) + (cross >> 32));
  }

  /// Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  /// Fisher-Yates shuffle.
  template <class T>
  constexpr void shuffle(std::span<T> items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<std::size_t>(below(static_cast<std::ptrdiff_t>(i)))]);
    }
  }

  /// 0 .. n-1 in random order.
  std::vector<std::ptrdiff_t> permutation(std::ptrdiff_t n) {
    std::vector<std::ptrdiff_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), std::ptrdiff_t{0});
    shuffle<std::ptrdiff_t>(order);
    return order;
  }

  constexpr std::uint64_t position() const { return position_; }

 private:
  static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

  std::uint64_t seed_, stream_, position_;
};

}  // namespace core_tokensets
