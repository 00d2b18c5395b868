#pragma once
// The specification: a backend of plain loops on one thread, without any dependency. Slow, short, and the oracle
// that the others are tested against.

#include <algorithm>
#include <cstdint>

#include "core_tokensets/tensor/backend.hpp"
#include "core_tokensets/tensor/host_buffer.hpp"
#include "core_tokensets/tensor/host_kernels.hpp"

namespace core_tokensets {

/// Only the ten required functions; every other operation takes its default from ops.hpp.
template <std::floating_point T>
struct reference_backend {
  using scalar = T;

  template <class U>
  host_buffer<U> allocate(index n) {
    return host_buffer<U>(n);
  }
  template <class U>
  void upload(U* device, const U* from, index n) {
    std::copy_n(from, n, device);
  }
  template <class U>
  void download(U* to, const U* device, index n) {
    std::copy_n(device, n, to);
  }
  void fill(view<T> out, T value) {
    map([value](T& x) { x = value; }, out);
  }

  void gemm(const_view<T> a, const_view<T> b, view<T> c, gemm_options o = {}) {
    host::check_gemm<T>(a, b, c, o.transpose_a, o.transpose_b);
    const index k_extent = o.transpose_a ? a.rows : a.cols;
    for (index i = 0; i < c.n0; ++i) {
      for (index j = 0; j < c.n1; ++j) {
        const auto am = a.matrix(a.n0 == 1 ? 0 : i, a.n1 == 1 ? 0 : j),
                   bm = b.matrix(b.n0 == 1 ? 0 : i, b.n1 == 1 ? 0 : j);
        const auto cm = c.matrix(i, j);
        for (index row = 0; row < c.rows; ++row) {
          for (index col = 0; col < c.cols; ++col) {
            T sum = 0;
            for (index k = 0; k < k_extent; ++k) {
              sum += (o.transpose_a ? am(k, row) : am(row, k)) * (o.transpose_b ? bm(col, k) : bm(k, col));
            }
            cm(row, col) = T(o.alpha) * sum + (o.beta == 0 ? T(0) : T(o.beta) * cm(row, col));
          }
        }
      }
    }
  }

  template <class F, class First, class... Rest>
  void map(const F& f, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "map"), ...);
    for_each_row(first, [&](index i, index j, index r) {
      for (index c = 0; c < first.cols; ++c) f(at(first, i, j, r, c), at(rest, i, j, r, c)...);
    });
  }
  template <class Op, class F, class First, class... Rest>
  void row_reduce(const Op& op, const F& term, view<T> out, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "row_reduce"), ...);
    require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
            " rows, the operand ", first.rows);
    for_each_row(first, [&](index i, index j, index r) {
      T result = Op::template identity<T>();
      for (index c = 0; c < first.cols; ++c) {
        result = op(result, T(term(at(first, i, j, r, c), at(rest, i, j, r, c)...)));
      }
      at(out, i, j, r, 0) = result;
    });
  }
  template <class Op, class F, class First, class... Rest>
  void col_reduce(const Op& op, const F& term, T beta, view<T> out, const view<First>& first,
                  const view<Rest>&... rest) {
    (host::check_operand(first, rest, "col_reduce"), ...);
    require(out.cols == first.cols && first.n0 * first.n1 == 1, "col_reduce: the result has ", out.cols,
            " columns, the operand ", first.cols);
    for (index c = 0; c < first.cols; ++c) {
      T result = Op::template identity<T>();
      for (index r = 0; r < first.rows; ++r)
        result = op(result, T(term(at(first, 0, 0, r, c), at(rest, 0, 0, r, c)...)));
      out.data[c] = beta == T(0) ? result : op(beta * out.data[c], result);
    }
  }

  void gather_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    require(out.cols == in.cols, "gather_rows: rows of ", in.cols, " numbers into rows of ", out.cols);
    for (index i = 0; i < out.rows; ++i) {
      for (index c = 0; c < out.cols; ++c) out(i, c) = in(rows[i], c);
    }
  }
  void scatter_add_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    require(out.cols == in.cols, "scatter_add_rows: rows of ", in.cols, " numbers onto rows of ", out.cols);
    for (index i = 0; i < in.rows; ++i) {
      for (index c = 0; c < in.cols; ++c) out(rows[i], c) += in(i, c);
    }
  }

 private:
  /// The element of `v` at a place, or the one that repeats there.
  template <class U>
  static U& at(const view<U>& v, index i, index j, index r, index c) {
    return v.data[(v.n0 == 1 ? 0 : i * v.s0) + (v.n1 == 1 ? 0 : j * v.s1) + (v.rows == 1 ? 0 : r * v.ld) +
                  (v.cols == 1 ? 0 : c)];
  }
  template <class U, class Body>
  static void for_each_row(const view<U>& v, const Body& body) {
    for (index i = 0; i < v.n0; ++i) {
      for (index j = 0; j < v.n1; ++j) {
        for (index r = 0; r < v.rows; ++r) body(i, j, r);
      }
    }
  }
};

}  // namespace core_tokensets
