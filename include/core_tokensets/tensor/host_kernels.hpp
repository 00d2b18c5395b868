#pragma once
// The loops that CPU backends share: map, reductions, gather and scatter over views, with threads over pieces that
// depend on the shapes only.

#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/functors.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets::host {

/// Elements that are worth a thread of their own.
inline constexpr index grain_elements = 1 << 14;

/// First element of row r of matrix (i, j), and the step between columns (0 where one column repeats).
template <class T>
constexpr T* row_begin(const view<T>& v, index i, index j, index r) {
  return v.data + (v.n0 == 1 ? 0 : i * v.s0) + (v.n1 == 1 ? 0 : j * v.s1) + (v.rows == 1 ? 0 : r * v.ld);
}

template <class First, class T>
void check_operand(const First& first, const view<T>& v, const char* where) {
  const auto fits = [](index extent, index wanted) { return extent == wanted || extent == 1; };
  require(fits(v.n0, first.n0) && fits(v.n1, first.n1) && fits(v.rows, first.rows) && fits(v.cols, first.cols), where,
          ": operand [", v.n0, ", ", v.n1, ", ", v.rows, ", ", v.cols, "] does not repeat to [", first.n0, ", ",
          first.n1, ", ", first.rows, ", ", first.cols, "]");
}

/// One row of map. The common case, unit steps everywhere, is a loop of its own so that it is vectorised; `simd`
/// promises that operands are either the same memory or apart.
template <class F, class... T>
void map_row(const F& f, index cols, const std::array<index, sizeof...(T)>& steps, T*... p) {
  bool dense = true;
  for (const index step : steps) dense = dense && step == 1;
  if (dense) {
#pragma omp simd
    for (index c = 0; c < cols; ++c) f(p[c]...);
  } else {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      for (index c = 0; c < cols; ++c) f(p[c * steps[I]]...);
    }
    (std::index_sequence_for<T...>{});
  }
}

/// op over c in [0, n) of term(c): 16 partial results side by side, then combined pairwise. The order depends on n
/// only, not on addresses or threads.
template <class T, class Op, class F>
T fold(index n, const Op& op, const F& term) {
  constexpr index lanes = 16;
  T partial[lanes];
  for (T& p : partial) p = Op::template identity<T>();
  index c = 0;
  for (; c + lanes <= n; c += lanes) {
#pragma omp simd
    for (index lane = 0; lane < lanes; ++lane) partial[lane] = op(partial[lane], T(term(c + lane)));
  }
  for (index lane = 0; c < n; ++c, ++lane) partial[lane] = op(partial[lane], T(term(c)));
  for (index width = lanes / 2; width > 0; width /= 2) {
    for (index lane = 0; lane < width; ++lane) partial[lane] = op(partial[lane], partial[lane + width]);
  }
  return partial[0];
}

template <class F, class First, class... Rest>
void map(int threads, const F& f, const view<First>& first, const view<Rest>&... rest) {
  (check_operand(first, rest, "map"), ...);
  if (first.empty()) return;
  const index rows = first.n0 * first.n1 * first.rows;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  parallel_chunks(threads, rows, grain_elements / first.cols + 1, [&](index begin, index end) {
    for (index n = begin; n < end; ++n) {
      const index r = n % first.rows, batch = n / first.rows;
      const index i = batch / first.n1, j = batch % first.n1;
      map_row(f, first.cols, steps, row_begin(first, i, j, r), row_begin(rest, i, j, r)...);
    }
  });
}

/// out[r] = op over c of term(in[r, c]...), in the order of `fold`.
template <class Op, class F, class T, class First, class... Rest>
void row_reduce(int threads, const Op& op, const F& term, const view<T>& out, const view<First>& first,
                const view<Rest>&... rest) {
  (check_operand(first, rest, "row_reduce"), ...);
  require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
          " rows, the operand ", first.rows);
  const index rows = first.n0 * first.n1 * first.rows;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  parallel_chunks(threads, rows, grain_elements / (first.cols + 1) + 1, [&](index begin, index end) {
    for (index n = begin; n < end; ++n) {
      const index r = n % first.rows, batch = n / first.rows;
      const index i = batch / first.n1, j = batch % first.n1;
      const auto reduce = [&](auto*... p) {
        return [&]<std::size_t... I>(std::index_sequence<I...>) {
          return fold<T>(first.cols, op, [&](index c) { return term(p[c * steps[I]]...); });
        }
        (std::index_sequence_for<First, Rest...>{});
      };
      *row_begin(out, i, j, r) = reduce(row_begin(first, i, j, r), row_begin(rest, i, j, r)...);
    }
  });
}

/// out[c] = beta out[c] op (over rows of term(in[r, c]...)), rows in order; threads share out the columns.
template <class Op, class F, class T, class First, class... Rest>
void col_reduce(int threads, const Op& op, const F& term, std::type_identity_t<T> beta, const view<T>& out,
                const view<First>& first, const view<Rest>&... rest) {
  (check_operand(first, rest, "col_reduce"), ...);
  require(out.cols == first.cols && first.n0 * first.n1 == 1, "col_reduce: the result has ", out.cols,
          " columns, the operand ", first.cols);
  constexpr index width = 64;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  parallel_chunks(threads, first.cols, width, [&](index begin, index end) {
    T partial[width];
    for (T& p : partial) p = Op::template identity<T>();
    const auto row = [&](auto*... p) {
      [&]<std::size_t... I>(std::index_sequence<I...>) {
#pragma omp simd
        for (index c = begin; c < end; ++c) partial[c - begin] = op(partial[c - begin], T(term(p[c * steps[I]]...)));
      }
      (std::index_sequence_for<First, Rest...>{});
    };
    for (index r = 0; r < first.rows; ++r) row(row_begin(first, 0, 0, r), row_begin(rest, 0, 0, r)...);
    for (index c = begin; c < end; ++c) {
      out.data[c] = beta == T(0) ? partial[c - begin] : op(beta * out.data[c], partial[c - begin]);
    }
  });
}

template <class T>
void gather_rows(int threads, const view<T>& out, const view<const T>& in, const std::int32_t* rows) {
  parallel_chunks(threads, out.rows, grain_elements / (out.cols + 1) + 1, [&](index begin, index end) {
    for (index i = begin; i < end; ++i) std::copy_n(in.row(rows[i]), out.cols, out.row(i));
  });
}

/// Threads share out the columns, so that equal row numbers are added in order.
template <class T>
void scatter_add_rows(int threads, const view<T>& out, const view<const T>& in, const std::int32_t* rows) {
  constexpr index width = 64;
  parallel_chunks(threads, out.cols, width, [&](index begin, index end) {
    for (index i = 0; i < in.rows; ++i) {
      T* to = out.row(rows[i]);
      const T* from = in.row(i);
#pragma omp simd
      for (index c = begin; c < end; ++c) to[c] += from[c];
    }
  });
}

/// Checks op(A) op(B) against C; the batches of A and B may repeat.
template <class T>
void check_gemm(const view<const T>& a, const view<const T>& b, const view<T>& c, bool transpose_a, bool transpose_b) {
  const index m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
  const index n = transpose_b ? b.rows : b.cols, k2 = transpose_b ? b.cols : b.rows;
  require(m == c.rows && n == c.cols && k == k2, "gemm: [", m, ", ", k, "] times [", k2, ", ", n, "] does not give [",
          c.rows, ", ", c.cols, "]");
}

}  // namespace core_tokensets::host
