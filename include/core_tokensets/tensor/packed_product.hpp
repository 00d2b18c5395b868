#pragma once
// The product of matrices of float on processors with AVX2 or AVX-512, which is found out when the program runs:
// factors are packed into panels that the innermost loop reads one number behind the other (Goto and van de Geijn,
// Anatomy of high-performance matrix multiplication, 2008).

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core_tokensets/tensor/eigen_product.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

namespace core_tokensets::packed {

// Loops over registers are none once they are unrolled, also where a program is not optimised for the sake of
// debugging.
#if defined(__clang__)
#define CTS_TILE_FOR(features) [[gnu::target(features)]]
#else
#define CTS_TILE_FOR(features) [[gnu::target(features), gnu::optimize("O3")]]
#endif

/// So many numbers in one register.
using four [[gnu::vector_size(16)]] = float;
using eight [[gnu::vector_size(32)]] = float;
using sixteen [[gnu::vector_size(64)]] = float;

/// Products that are added up before the result is touched. The same for both kinds of processors, and so is the order:
/// their results are the same bits.
inline constexpr index depth = 256;

/// A kind of processors: how many numbers of the result are held in registers.
struct avx2 {
  static constexpr index rows = 6, cols = 16, width = 8;
  static bool here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
};
struct avx512 {
  static constexpr index rows = 8, cols = 32, width = 16;
  static bool here() { return __builtin_cpu_supports("avx512f"); }
};

/// Where the rows of a tile lie in the left factor: element (r, k) at `data[r * row + k * step]`.
struct rows_of {
  const float* data;
  index row, step;
};
/// What a tile starts from: element (r, j) at `data[r * row + j]`, 0 everywhere where there are no data.
struct start_of {
  const float* data = nullptr;
  index row = 0;

  start_of(const view<const float>& v, index r, index j)
      : data(v.empty() ? nullptr : v.row(v.rows == 1 ? 0 : r) + j), row(v.rows == 1 ? 0 : v.ld) {}
  start_of(const float* edge, index ld) : data(edge), row(ld) {}
};

/// c = alpha a b + start `[rows, cols]` for a `[rows, n]` and a panel b `[n, cols]`, of which the first
/// `Registers` of each row count.
template <int Registers>
CTS_TILE_FOR("avx2,fma")
inline void tile(avx2, index n, const rows_of& a, const float* b, float alpha, const start_of& start, float* c,
                 index ld) {
  eight sum[avx2::rows][Registers], factor[Registers];
  for (index r = 0; r < avx2::rows; ++r) {
    for (int j = 0; j < Registers; ++j) sum[r][j] = eight{};
  }
  const float* column = a.data;
  for (const index row = a.row, step = a.step; n > 0; --n, column += step, b += avx2::cols) {
    for (int j = 0; j < Registers; ++j) std::memcpy(&factor[j], b + 8 * j, sizeof(eight));
    for (index r = 0; r < avx2::rows; ++r) {
      for (int j = 0; j < Registers; ++j) sum[r][j] += column[r * row] * factor[j];
    }
  }
  for (index r = 0; r < avx2::rows; ++r) {
    for (int j = 0; j < Registers; ++j) sum[r][j] *= alpha;
  }
  for (index r = 0; start.data != nullptr && r < avx2::rows; ++r) {
    for (int j = 0; j < Registers; ++j) {
      eight before;
      std::memcpy(&before, start.data + r * start.row + 8 * j, sizeof before);
      sum[r][j] += before;
    }
  }
  for (index r = 0; r < avx2::rows; ++r) {
    for (int j = 0; j < Registers; ++j) std::memcpy(c + r * ld + 8 * j, &sum[r][j], sizeof(eight));
  }
}

/// The same in wider registers. Code for one kind of processors cannot be shared with another.
template <int Registers>
CTS_TILE_FOR("avx512f")
inline void tile(avx512, index n, const rows_of& a, const float* b, float alpha, const start_of& start, float* c,
                 index ld) {
  sixteen sum[avx512::rows][Registers], factor[Registers];
  for (index r = 0; r < avx512::rows; ++r) {
    for (int j = 0; j < Registers; ++j) sum[r][j] = sixteen{};
  }
  const float* column = a.data;
  for (const index row = a.row, step = a.step; n > 0; --n, column += step, b += avx512::cols) {
    for (int j = 0; j < Registers; ++j) std::memcpy(&factor[j], b + 16 * j, sizeof(sixteen));
    for (index r = 0; r < avx512::rows; ++r) {
      for (int j = 0; j < Registers; ++j) sum[r][j] += column[r * row] * factor[j];
    }
  }
  for (index r = 0; r < avx512::rows; ++r) {
    for (int j = 0; j < Registers; ++j) sum[r][j] *= alpha;
  }
  for (index r = 0; start.data != nullptr && r < avx512::rows; ++r) {
    for (int j = 0; j < Registers; ++j) {
      sixteen before;
      std::memcpy(&before, start.data + r * start.row + 16 * j, sizeof before);
      sum[r][j] += before;
    }
  }
  for (index r = 0; r < avx512::rows; ++r) {
    for (int j = 0; j < Registers; ++j) std::memcpy(c + r * ld + 16 * j, &sum[r][j], sizeof(sixteen));
  }
}

#undef CTS_TILE_FOR

/// Four rows of four numbers, turned.
inline void transpose(const float* from, index ld, float* to, index to_ld) {
  four row[4];
  for (index r = 0; r < 4; ++r) std::memcpy(&row[r], from + r * ld, sizeof row[r]);
  const four low = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
  const four high = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const four low2 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
  const four high2 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  const four turned[] = {__builtin_shufflevector(low, low2, 0, 1, 4, 5), __builtin_shufflevector(low, low2, 2, 3, 6, 7),
                         __builtin_shufflevector(high, high2, 0, 1, 4, 5),
                         __builtin_shufflevector(high, high2, 2, 3, 6, 7)};
  for (index r = 0; r < 4; ++r) std::memcpy(to + r * to_ld, &turned[r], sizeof turned[r]);
}

/// A panel `[n, Rows]` of a factor whose element (r, k) lies at `data[r * row + k * col]`, one of both strides being 1;
/// rows from `have` on are 0.
template <index Rows>
void pack(const float* data, index row, index col, index have, index n, float* panel) {
  if (have < Rows) {
    std::fill_n(panel, Rows * n, 0.0f);
    for (index r = 0; r < have; ++r) {
      for (index k = 0; k < n; ++k) panel[k * Rows + r] = data[r * row + k * col];
    }
  } else if (row == 1) {
    for (index k = 0; k < n; ++k) std::memcpy(panel + k * Rows, data + k * col, Rows * sizeof(float));
  } else {
    index k = 0;
    if constexpr (Rows % 4 == 0) {
      for (; k + 4 <= n; k += 4) {
        for (index r = 0; r < Rows; r += 4) transpose(data + r * row + k, row, panel + k * Rows + r, Rows);
      }
    }
    for (; k < n; ++k) {
      for (index r = 0; r < Rows; ++r) panel[k * Rows + r] = data[r * row + k];
    }
  }
}

/// Rows r .. end of a factor as panels, for the products k .. k + n; of a factor that lies `turned`, columns.
template <index Rows>
void pack_all(const view<const float>& factor, bool turned, index r, index end, index k, index n, float* panels) {
  for (; r < end; r += Rows, panels += Rows * n) {
    const float* from = turned ? factor.row(k) + r : factor.row(r) + k;
    pack<Rows>(from, turned ? 1 : factor.ld, turned ? factor.ld : 1, std::min(Rows, end - r), n, panels);
  }
}

/// The same as `tile` for a corner c of a tile at the edge of the result, by a whole one in `edge`.
template <class Processor>
void edge_tile(index n, const rows_of& a, const float* b, float alpha, start_of start, const view<float>& c,
               float* edge) {
  constexpr index ld = Processor::cols;
  if (start.data != nullptr) {
    for (index r = 0; r < c.rows; ++r) std::copy_n(start.data + r * start.row, c.cols, edge + r * ld);
    start = {edge, ld};
  }
  if (c.cols <= Processor::width) {
    tile<1>(Processor{}, n, a, b, alpha, start, edge, ld);
  } else {
    tile<2>(Processor{}, n, a, b, alpha, start, edge, ld);
  }
  for (index r = 0; r < c.rows; ++r) std::copy_n(edge + r * ld, c.cols, c.row(r));
}

/// Whether tiles are worth their padding, asked of tiles of one size so that both kinds of processors do the same.
/// Smaller products are faster with Eigen.
inline bool fills_tiles(index rows, index cols) {
  const auto whole = [](index n, index of) { return (n + of - 1) / of * of; };
  return 5 * rows * cols >= 3 * whole(rows, 8) * whole(cols, 16);
}

/// Columns of the result that are computed at a time, so that a thread's panels of the right factor are 4 MB at most.
inline constexpr index most_columns = 4096;

/// c = alpha op(a) op(b) + start as `thread_product` has it, for at most `most_columns` columns; panels lie in `memory`
/// meanwhile. Of a left factor that is not turned only what is left at the end is packed: its rows are read where they
/// are.
template <class Processor>
void product(block_stack<>& memory, bool ta, bool tb, float alpha, const view<const float>& a,
             const view<const float>& b, const view<const float>& start, const view<float>& c) {
  constexpr index rows = Processor::rows, cols = Processor::cols;
  constexpr index block = 32 * rows;  // rows of a that stay in the second cache while panels of b pass by
  if (c.rows == 0 || c.cols == 0) return;
  const index all = ta ? a.rows : a.cols, deep = std::min(all, depth), panels = (c.cols + cols - 1) / cols;
  if (all == 0) host::copy_start(start, c);
  float* const edge = memory.take<float>(rows * cols + panels * cols * deep + (ta ? block : rows) * deep);
  float *const of_b = edge + rows * cols, *const of_a = of_b + panels * cols * deep;
  std::fill_n(edge, rows * cols, 0.0f);
  for (index k = 0; k < all; k += depth) {
    const index n = std::min(depth, all - k);
    const view<const float> so_far = k == 0 ? start : view<const float>(c);
    pack_all<cols>(b, !tb, 0, c.cols, k, n, of_b);
    for (index first = 0; first < c.rows; first += block) {
      const index end = std::min(c.rows, first + block), packed_from = ta ? first : end - (end - first) % rows;
      pack_all<rows>(a, ta, packed_from, end, k, n, of_a);
      for (index j = 0; j < c.cols; j += cols) {
        for (index r = first; r < end; r += rows) {
          const rows_of left =
              r < packed_from ? rows_of{a.row(r) + k, a.ld, 1} : rows_of{of_a + (r - packed_from) * n, 1, rows};
          const start_of from(so_far, r, j);
          const index high = std::min(rows, end - r), wide = std::min(cols, c.cols - j);
          if (high == rows && wide == cols) {
            tile<2>(Processor{}, n, left, of_b + j * n, alpha, from, c.row(r) + j, c.ld);
          } else {
            edge_tile<Processor>(n, left, of_b + j * n, alpha, from, c.slice_rows(r, high).slice_cols(j, wide), edge);
          }
        }
      }
    }
  }
  memory.release();
}

/// The same for any number of columns.
template <class Processor>
void wide_product(block_stack<>& memory, bool ta, bool tb, float alpha, const view<const float>& a,
                  const view<const float>& b, const view<const float>& start, const view<float>& c) {
  for (index j = 0; j < c.cols; j += most_columns) {
    const index n = std::min(most_columns, c.cols - j);
    product<Processor>(memory, ta, tb, alpha, a, tb ? b.slice_rows(j, n) : b.slice_cols(j, n),
                       start.empty() ? start : start.slice_cols(j, n), c.slice_cols(j, n));
  }
}

}  // namespace core_tokensets::packed

#endif

namespace core_tokensets {

/// The product that is fastest where the program runs: of float on processors with AVX2 or AVX-512 the one of this
/// file, whatever the program was compiled for, otherwise Eigen's. Processor and shapes decide, nothing else.
struct packed_product {
  template <class T>
  [[gnu::noinline]] static void multiply(block_stack<>& memory, bool ta, bool tb, T alpha, const view<const T>& a,
                                         const view<const T>& b, const view<const T>& start, const view<T>& c) {
#if defined(__x86_64__) && defined(__GNUC__)
    if constexpr (std::is_same_v<T, float>) {
      const bool wide = packed::avx512::here();
      if (packed::fills_tiles(c.rows, c.cols) && (wide || packed::avx2::here())) {
        (wide ? &packed::wide_product<packed::avx512> : &packed::wide_product<packed::avx2>)(memory, ta, tb, alpha, a,
                                                                                             b, start, c);
        return;
      }
    }
#endif
    eigen_product::multiply<T>(memory, ta, tb, alpha, a, b, start, c);
  }
};

}  // namespace core_tokensets
