#pragma once
// Matrix products of small tiles in shared memory, a warp at a time, on the tensor cores: the inside of attention.

#include <utility>

#include "core_tokensets/tensor/cuda/kernel.hpp"

namespace core_tokensets::cuda {

/// How a product of floats is made from TF32 products: from inputs that were rounded before (to TF32 or bfloat16, which
/// TF32 contains), or from three products of the upper and lower halves of each number, nearly as exact as float32.
enum class tile_product { rounded, split };

/// Distance of two rows of a tile of D columns: the reads of a warp, 8 rows by 4 columns, fall on 32 different banks.
template <int D>
inline constexpr int tile_ld = D + 4;

/// A matrix of one head as a kernel sees it: element (row, c) of head h.
struct head_operand {
  float* data = nullptr;
  index head = 0, ld = 0;

  head_operand() = default;
  template <class T>
  explicit head_operand(const view<T>& v) : data(const_cast<float*>(v.data)), head(v.n1 == 1 ? 0 : v.s1), ld(v.ld) {}
  constexpr float* row(index h, index r) const { return data + h * head + r * ld; }
};

constexpr float rounded(float x, arithmetic a) {
  return a == arithmetic::bf16 ? round_to_bf16(x) : a == arithmetic::tf32 ? round_to_tf32(x) : x;
}

/// Rows [0, rows) of the matrix at `from`, which go to a tile in shared memory at `to`.
struct tile_source {
  const float* from = nullptr;
  index ld = 0;
  int rows = 0;
  float* to = nullptr;
};

/// Fills N tiles of `Rows` by D from matrices of `width` columns, the rest of them 0. A thread asks for eight groups of
/// numbers before it puts the first down, so that it waits for the memory once and not eight times. `quads`: rows and
/// columns start on 16 bytes.
template <int Rows, int D, int Threads, class Thread, int N>
constexpr void load_tiles(const Thread& t, const tile_source (&sources)[N], int width, bool quads, arithmetic a) {
  constexpr int each = Rows * (D / 4) / Threads, at_once = smaller(each, 8 / N);
  static_assert(each * Threads == Rows * (D / 4) && each % at_once == 0);
  for (int first = 0; first < each; first += at_once) {
    quad v[N * at_once] = {};
    // A sequence and no loop: an array that is indexed by numbers known only to a loop would not stay in registers.
    const auto for_all = [&]<int... I>(std::integer_sequence<int, I...>, const auto& body) {
      const auto one = [&](int i) { return t.thread() + (first + i % at_once) * Threads; };
      (body(sources[I / at_once], one(I) / (D / 4), one(I) % (D / 4) * 4, v[I]), ...);
    };
    constexpr std::make_integer_sequence<int, N * at_once> all;
    if (quads) {
      for_all(all, [&](const tile_source& m, int r, int c, quad& q) {
        if (r < m.rows && c < width) q = *reinterpret_cast<const quad*>(m.from + r * m.ld + c);
      });
    } else {
      for_all(all, [&](const tile_source& m, int r, int c, quad& q) {
        for (int l = 0; l < 4; ++l) {
          if (r < m.rows && c + l < width) q.x[l] = m.from[r * m.ld + c + l];
        }
      });
    }
    for_all(all, [&](const tile_source& m, int r, int c, quad& q) {
      for (int l = 0; l < 4; ++l) q.x[l] = rounded(q.x[l], a);
      *reinterpret_cast<quad*>(m.to + r * tile_ld<D> + c) = q;
    });
  }
}

/// c += a b for the fragments of one 16 x 8 x 8 product.
template <tile_product P, class Thread>
constexpr void multiply_fragments(const Thread& t, float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  if constexpr (P == tile_product::rounded) {
    t.mma(c, a, b);
  } else {
    float ah[4] = {}, al[4] = {}, bh[2] = {}, bl[2] = {};
    for (int i = 0; i < 4; ++i) {
      ah[i] = round_to_tf32(a[i]);
      al[i] = round_to_tf32(a[i] - ah[i]);
    }
    for (int i = 0; i < 2; ++i) {
      bh[i] = round_to_tf32(b[i]);
      bl[i] = round_to_tf32(b[i] - bh[i]);
    }
    t.mma(c, al, bh);
    t.mma(c, ah, bl);
    t.mma(c, ah, bh);
  }
}

/// c [16, 8 N] += a b^T for 16 rows of tile a and 8 N rows of tile b. In c, lane l has rows l / 4 and l / 4 + 8
/// (elements 0, 1 and 2, 3) and columns 2 (l % 4) and the next of each group of 8, as mma.m16n8k8 has it.
template <tile_product P, int N, int D, class Thread>
constexpr void multiply_transposed(const Thread& t, const float* a, const float* b, float (&c)[N][4]) {
  const int row = t.lane() / 4, column = t.lane() % 4;
  for (int k = 0; k < D; k += 8) {
    const float* pa = a + row * tile_ld<D> + k + column;
    const float fa[4] = {pa[0], pa[8 * tile_ld<D>], pa[4], pa[8 * tile_ld<D> + 4]};
    for (int n = 0; n < N; ++n) {
      const float* pb = b + (8 * n + row) * tile_ld<D> + k + column;
      const float fb[2] = {pb[0], pb[4]};
      multiply_fragments<P>(t, c[n], fa, fb);
    }
  }
}

/// c [16, D] += w b for weights w [16, 8 N] as `multiply_transposed` leaves them and 8 N rows of tile b. A lane has
/// columns 2q, 2q + 1 of w where the product wants q, q + 4: the rows of b are taken in that order instead.
template <tile_product P, int N, int D, class Thread>
constexpr void multiply_weights(const Thread& t, const float (&w)[N][4], const float* b, float (&c)[D / 8][4]) {
  const int row = t.lane() / 4, column = t.lane() % 4;
  for (int n = 0; n < N; ++n) {
    const float fa[4] = {w[n][0], w[n][2], w[n][1], w[n][3]};
    for (int d = 0; d < D / 8; ++d) {
      const float* pb = b + (8 * n + 2 * column) * tile_ld<D> + 8 * d + row;
      const float fb[2] = {pb[0], pb[tile_ld<D>]};
      multiply_fragments<P>(t, c[d], fa, fb);
    }
  }
}

/// Writes rows [0, rows) and columns [0, width) of c [16, D] times `factor` of each of the two rows of a lane.
template <int D, class Thread>
constexpr void store_rows(const Thread& t, const float (&c)[D / 8][4], const float (&factor)[2], float* to, index ld,
                          int rows, int width) {
  const int row = t.lane() / 4, column = 2 * (t.lane() % 4);
  for (int half = 0; half < 2; ++half) {
    if (row + 8 * half >= rows) continue;
    float* p = to + (row + 8 * half) * ld;
    for (int d = 0; d < D / 8; ++d) {
      for (int e = 0; e < 2; ++e) {
        if (8 * d + column + e < width) p[8 * d + column + e] = c[d][2 * half + e] * factor[half];
      }
    }
  }
}

}  // namespace core_tokensets::cuda
