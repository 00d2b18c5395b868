#pragma once
// What the machine of a benchmark can do at most, so that numbers from any processor can be read: multiplications and
// additions a second, bytes a second, and with which vector instructions.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/tensor/packed_product.hpp"

namespace bench {

/// The least seconds that `job` took, of so many times: what the machine can do when nothing disturbs it.
template <class Job>
double least_seconds(int times, const Job& job) {
  double least = 1e30;
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    job();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return least;
}

namespace detail {

inline constexpr int sums = 12;  // more than a processor needs to have both its units busy

/// `n` rounds of x = x y + z in 12 registers of `Vector`; returns something that depends on all of them.
#define CTS_BENCH_ROUNDS(Vector)                                          \
  Vector x[sums], y, z;                                                   \
  for (int i = 0; i < sums; ++i) x[i] = Vector{} + static_cast<float>(i); \
  y = Vector{} + factor, z = Vector{} + 0.5f;                             \
  for (; n > 0; --n) {                                                    \
    for (int i = 0; i < sums; ++i) x[i] = x[i] * y + z;                   \
  }                                                                       \
  for (int i = 1; i < sums; ++i) x[0] += x[i];                            \
  return x[0][0];

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx512f"), gnu::noinline]] inline float rounds_avx512(long n, float factor) {
  CTS_BENCH_ROUNDS(core_tokensets::packed::sixteen)
}
[[gnu::target("avx2,fma"), gnu::noinline]] inline float rounds_avx2(long n, float factor) {
  CTS_BENCH_ROUNDS(core_tokensets::packed::eight)
}
#endif
[[gnu::noinline]] inline float rounds_plain(long n, float factor) {
  using four [[gnu::vector_size(16)]] = float;
  CTS_BENCH_ROUNDS(four)
}
#undef CTS_BENCH_ROUNDS

}  // namespace detail

struct machine {
  std::string instructions;  ///< the widest that there are
  double gflops = 0;         ///< multiplications and additions of float a second, 10^9, on all threads
  double gbytes = 0;         ///< bytes that are read and written by a copy of much memory a second, 10^9
};

/// Measures that on so many threads.
inline machine measure_machine(int threads) {
  machine found{.instructions = "of 128 bits"};
  float (*rounds)(long, float) = &detail::rounds_plain;
  int width = 4;
#if defined(__x86_64__) && defined(__GNUC__)
  if (core_tokensets::packed::avx512::here()) {
    found.instructions = "AVX-512", rounds = &detail::rounds_avx512, width = 16;
  } else if (core_tokensets::packed::avx2::here()) {
    found.instructions = "AVX2", rounds = &detail::rounds_avx2, width = 8;
  }
#endif
  constexpr long n = 2'000'000;
  std::vector<float> kept(static_cast<std::size_t>(threads));
  const double computing = least_seconds(7, [&] {
    core_tokensets::parallel_for(threads, threads,
                                 [&](std::ptrdiff_t i) { kept[static_cast<std::size_t>(i)] = rounds(n, 0.25f); });
  });
  found.gflops = 2.0 * n * detail::sums * width * threads / computing / 1e9;

  constexpr std::size_t bytes = std::size_t{64} << 20;  // of each thread, more than caches hold
  std::vector<std::vector<char>> from(static_cast<std::size_t>(threads), std::vector<char>(bytes, 1)), to = from;
  const double copying = least_seconds(7, [&] {
    core_tokensets::parallel_for(threads, threads, [&](std::ptrdiff_t i) {
      const auto at = static_cast<std::size_t>(i);
      std::memcpy(to[at].data(), from[at].data(), bytes);
    });
  });
  found.gbytes = 2.0 * static_cast<double>(bytes) * threads / copying / 1e9;
  return found;
}

inline void print(const machine& m, int threads) {
  std::printf("{\"machine\": \"%s\", \"threads\": %d, \"gflops\": %.0f, \"gbytes_per_s\": %.1f}\n",
              m.instructions.c_str(), threads, m.gflops, m.gbytes);
  std::fflush(stdout);
}

}  // namespace bench
