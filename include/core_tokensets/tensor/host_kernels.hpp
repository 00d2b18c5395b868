#pragma once
// The loops that CPU backends share: map, reductions, gather and scatter over views, with threads over pieces that
// depend on the shapes only.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/functors.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"

#ifdef __clang__  // see simd_for; without debug information the warning is that of the function around the loop
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

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

/// The element at `p`, or the one that repeats along the row.
template <bool Repeats, class T, class U>
constexpr decltype(auto) pick(T* p, const U& repeated) {
  if constexpr (Repeats) {
    return repeated;
  } else {
    return *p;
  }
}

/// `f(p[c]...)` for every column c of a row. The common cases, unit steps everywhere and all but the last operand, are
/// loops of their own so that they are vectorised; `simd` promises that operands are either the same memory or apart.
/// `f` is a copy: numbers in it would else be read again for each element, since a result might lie over them. One that
/// computes much says so by `is_long`.
template <class F, class... T>
[[gnu::flatten]] void map_row(F f, index cols, const std::array<index, sizeof...(T)>& steps, T*... p) {
  constexpr std::size_t last = sizeof...(T) - 1;
  bool dense = true;
  for (std::size_t i = 0; i < last; ++i) dense = dense && steps[i] == 1;
  if (dense && steps[last] == 1) {
    if constexpr (requires { F::is_long; }) {
      run_widely([f, cols, p...] { simd_for(0, cols, [=](index c) { f(p[c]...); }); });
    } else {
      simd_for(0, cols, [&](index c) { f(p[c]...); });
    }
    return;
  }
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    if constexpr (last > 0) {
      if (dense) {
        const auto repeated = *std::get<last>(std::tuple(p...));
        if constexpr (requires { F::is_long; }) {
          run_widely([f, cols, repeated, p...] {
            simd_for(0, cols, [=](index c) { f(pick<I == sizeof...(T) - 1>(p + c, repeated)...); });
          });
        } else {
          simd_for(0, cols, [&](index c) { f(pick<I == last>(p + c, repeated)...); });
        }
        return;
      }
    }
    for (index c = 0; c < cols; ++c) f(p[c * steps[I]]...);
  }
  (std::index_sequence_for<T...>{});
}

/// op over c in [0, n) of term(c): 16 partial results side by side, then combined pairwise. The order depends on n
/// only, not on addresses or threads.
template <class T, class Op, class F>
[[gnu::flatten]] T fold(index n, const Op& op, const F& term) {
  constexpr index lanes = 16;
  T partial[lanes];
  for (T& p : partial) p = Op::template identity<T>();
  index c = 0;
  for (; c + lanes <= n; c += lanes) {
    simd_for(0, lanes, [&](index lane) { partial[lane] = op(partial[lane], T(term(c + lane))); });
  }
  for (index lane = 0; c < n; ++c, ++lane) partial[lane] = op(partial[lane], T(term(c)));
  for (index width = lanes / 2; width > 0; width /= 2) {
    for (index lane = 0; lane < width; ++lane) partial[lane] = op(partial[lane], partial[lane + width]);
  }
  return partial[0];
}

/// How an operation walks over the rows of its first operand: `rows` of `cols` elements, cut into pieces that depend on
/// the shape only.
struct row_walk {
  index n1 = 1, rows_of_matrix = 0, rows = 0, cols = 0;

  template <class T>
  explicit row_walk(const view<T>& v) : n1(v.n1), rows_of_matrix(v.rows), rows(v.n0 * v.n1 * v.rows), cols(v.cols) {}

  /// Matrix (i, j) and row r of row n.
  struct place {
    index i, j, r;
  };
  place of(index n) const {
    const index batch = n / rows_of_matrix;
    return {batch / n1, batch % n1, n % rows_of_matrix};
  }

  /// Calls `body(n, from, cols)` for pieces of rows; few long rows are cut.
  template <class Body>
  void for_each_piece(int threads, const Body& body) const {
    for_each_piece(threads, &body, [](const void* self, index n, index from, index length) {
      (*static_cast<const Body*>(self))(n, from, length);
    });
  }

 private:
  /// The type of the body is erased: one loop over pieces, and not one for each operation.
  void for_each_piece(int threads, const void* body, void (*call)(const void*, index, index, index)) const {
    const bool cut = cols >= 2 * grain_elements;
    const index pieces = cut ? (cols + grain_elements - 1) / grain_elements : 1;
    const index together = cut ? 1 : grain_elements / cols + 1;
    parallel_chunks(threads, rows * pieces, together, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) {
        const index from = n % pieces * grain_elements;
        call(body, n / pieces, cut ? from : 0, cut ? std::min(grain_elements, cols - from) : cols);
      }
    });
  }
};

template <class F, class First, class... Rest>
void map(int threads, const F& f, const view<First>& first, const view<Rest>&... rest) {
  (check_operand(first, rest, "map"), ...);
  if (first.empty()) return;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  const row_walk walk(first);
  walk.for_each_piece(threads, [&](index n, index from, index cols) {
    const row_walk::place at = walk.of(n);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      map_row(f, cols, steps, row_begin(first, at.i, at.j, at.r) + from,
              row_begin(rest, at.i, at.j, at.r) + from * steps[I + 1]...);
    }
    (std::index_sequence_for<Rest...>{});
  });
}

/// out[r] = op over c of term(in[r, c]...), in the order of `fold`; a long row is folded in pieces first.
template <class Op, class F, class T, class First, class... Rest>
void row_reduce(int threads, const Op& op, const F& term, const view<T>& out, const view<First>& first,
                const view<Rest>&... rest) {
  (check_operand(first, rest, "row_reduce"), ...);
  require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
          " rows, the operand ", first.rows);
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  const auto piece_of_row = [&](index n, index from, index cols) {
    const index r = n % first.rows, batch = n / first.rows;
    const index i = batch / first.n1, j = batch % first.n1;
    const auto reduce = [&](auto*... p) {
      return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return fold<T>(cols, op, [&](index c) { return term(p[(from + c) * steps[I]]...); });
      }
      (std::index_sequence_for<First, Rest...>{});
    };
    return reduce(row_begin(first, i, j, r), row_begin(rest, i, j, r)...);
  };
  const auto result = [&](index n) -> T& {
    const index batch = n / first.rows;
    return *row_begin(out, batch / first.n1, batch % first.n1, n % first.rows);
  };
  const index rows = first.n0 * first.n1 * first.rows;
  constexpr index most_pieces = 64;
  if (first.cols >= 2 * grain_elements) {
    const index length = std::max(grain_elements, (first.cols + most_pieces - 1) / most_pieces);
    const index pieces = (first.cols + length - 1) / length;
    for (index n = 0; n < rows; ++n) {
      std::array<T, most_pieces> partial{};
      parallel_for(threads, pieces, [&](index piece) {
        const index from = piece * length;
        partial[static_cast<std::size_t>(piece)] = piece_of_row(n, from, std::min(length, first.cols - from));
      });
      result(n) = fold<T>(pieces, op, [&](index i) { return partial[static_cast<std::size_t>(i)]; });
    }
  } else {
    parallel_chunks(threads, rows, grain_elements / (first.cols + 1) + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) result(n) = piece_of_row(n, 0, first.cols);
    });
  }
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
  const bool dense = std::all_of(steps.begin(), steps.end(), [](index s) { return s == 1; });
  parallel_chunks(threads, first.cols, width, [&](index begin, index end) {
    T partial[width];
    for (T& p : partial) p = Op::template identity<T>();
    const auto row = [&](auto*... p) {
      if (dense) {
        simd_for(begin, end, [&](index c) { partial[c - begin] = op(partial[c - begin], T(term(p[c]...))); });
        return;
      }
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        simd_for(begin, end,
                 [&](index c) { partial[c - begin] = op(partial[c - begin], T(term(p[c * steps[I]]...))); });
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
  require(out.cols == in.cols, "gather_rows: rows of ", in.cols, " numbers into rows of ", out.cols);
  parallel_chunks(threads, out.rows, grain_elements / (out.cols + 1) + 1, [&](index begin, index end) {
    for (index i = begin; i < end; ++i) std::copy_n(in.row(rows[i]), out.cols, out.row(i));
  });
}

/// Threads share out the columns, so that equal row numbers are added in order.
template <class T>
void scatter_add_rows(int threads, const view<T>& out, const view<const T>& in, const std::int32_t* rows) {
  require(out.cols == in.cols, "scatter_add_rows: rows of ", in.cols, " numbers onto rows of ", out.cols);
  constexpr index width = 64;
  parallel_chunks(threads, out.cols, width, [&](index begin, index end) {
    for (index i = 0; i < in.rows; ++i) {
      T* to = out.row(rows[i]);
      const T* from = in.row(i);
      simd_for(begin, end, [=](index c) { to[c] += from[c]; });
    }
  });
}

/// One row of `ops::cross_entropy`: the loss, and `scale` times its gradient, in double inside.
template <class T>
T cross_entropy_row(const T* logits, index k, index target, index first, T scale, T smoothing, T* gradient) {
  double top = double(logits[first]), total = 0, loss = 0;
  for (index c = first; c < k; ++c) top = std::max(top, double(logits[c]));
  for (index c = first; c < k; ++c) total += std::exp(double(logits[c]) - top);
  const double even = double(smoothing) / static_cast<double>(k - first), log_total = std::log(total);
  std::fill(gradient, gradient + first, T(0));
  for (index c = first; c < k; ++c) {
    const double wanted = even + (c == target ? 1 - double(smoothing) : 0.0),
                 log_p = double(logits[c]) - top - log_total;
    loss -= wanted * log_p;
    gradient[c] = T(double(scale) * (std::exp(log_p) - wanted));
  }
  return T(loss);
}

/// Checks op(A) op(B) against C; the batches of A and B may repeat.
template <class T>
void check_gemm(const view<const T>& a, const view<const T>& b, const view<T>& c, bool transpose_a, bool transpose_b) {
  const index m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
  const index n = transpose_b ? b.rows : b.cols, k2 = transpose_b ? b.cols : b.rows;
  require(m == c.rows && n == c.cols && k == k2, "gemm: [", m, ", ", k, "] times [", k2, ", ", n, "] does not give [",
          c.rows, ", ", c.cols, "]");
  for (const view<const T>& in : {a, b}) {
    const bool one = in.n0 * in.n1 == 1;
    require(one || (in.n0 == c.n0 && in.n1 == c.n1), "gemm: a batch of [", in.n0, ", ", in.n1,
            "] matrices for one of [", c.n0, ", ", c.n1, "]");
    require(in.rows <= 1 || in.ld >= in.cols, "gemm: rows of ", in.cols, " numbers, ", in.ld, " apart");
  }
}

}  // namespace core_tokensets::host

#ifdef __clang__
#pragma clang diagnostic pop
#endif
