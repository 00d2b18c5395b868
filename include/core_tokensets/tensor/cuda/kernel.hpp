#pragma once
// What a CUDA kernel is in this library: a plain function object, run by every thread of a grid with a handle to that
// thread. Nothing here or in the kernels needs a CUDA compiler, so that the tests run the same code on the host.
//
// A thread handle `t` has `thread()`, `warp()`, `lane()` (its place in the block), `block()`, `block_y()` (place of the
// block), `shared()` (the block's memory, 16-byte aligned), `sync()` (barrier of the block), `shuffle_xor(x, mask)`,
// `ballot(bool)` (of the warp), `lowest(bits)` (place of the lowest 1), `mma(c, a, b)` and `atomic_max(p, value)`.
// Functions of the standard library that are no more than a builtin of the host's compiler (std::countr_zero) are not
// for kernels: nvcc compiles them to nonsense without a word.

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets::cuda {

inline constexpr int warp_size = 32;

/// How many blocks a kernel is run by, and the bytes of shared memory of each. Threads per block: `Kernel::threads`.
struct launch_shape {
  index blocks = 1, blocks_y = 1, shared_bytes = 0;
  bool operator==(const launch_shape&) const = default;
};

/// A function object that threads can run: copied by value to the device, with a fixed number of threads a block, and
/// a mark whether its threads wait for each other (`cooperative`: `sync`, `shuffle_xor`, `ballot` or `mma`).
template <class K>
concept kernel = std::is_trivially_copyable_v<K> && requires {
  { K::threads } -> std::convertible_to<int>;
  { K::cooperative } -> std::convertible_to<bool>;
};

/// 16 bytes that move at once.
struct alignas(16) quad {
  float x[4];
};

/// Bits of a number in brain-float format (the upper half of a float).
enum class bfloat : std::uint16_t {};

/// In which arithmetic matrices are multiplied: float32; TF32 (inputs rounded to 10 bits of mantissa); bfloat16 (inputs
/// rounded to 7). Sums, and everything that is stored, are float32.
enum class arithmetic { f32, tf32, bf16 };

/// Nearest number with so many bits of mantissa less; ties go away from zero (as cvt.rna.tf32 has it) or, for bfloat16,
/// to even. Infinite numbers and NaN stay.
constexpr float round_to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return std::bit_cast<float>((bits + 0x1000u) & ~0x1fffu);
}
constexpr float round_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

/// The same, as the 16 bits that bfloat16 matrices are made of.
constexpr bfloat to_bfloat(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(round_to_bf16(x)) >> 16;
  const bool nan = x != x;  // a NaN whose upper half reads as infinity
  return static_cast<bfloat>(nan ? 0x7fffu : bits);
}

/// The smaller one. (Kernels cannot use std::min with a constant: it wants the constant's address.)
constexpr int smaller(int a, int b) { return a < b ? a : b; }

/// Blocks of `size` that cover n.
constexpr index blocks_for(index n, index size) { return (n + size - 1) / size; }

/// True where the address is a multiple of 16 bytes.
inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace core_tokensets::cuda
