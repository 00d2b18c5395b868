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

  template <class F, class... V>
  void map(const F& f, const V&... operands) {
    host::map(1, f, operands...);
  }
  template <class Op, class F, class... V>
  void row_reduce(const Op& op, const F& term, view<T> out, const V&... in) {
    host::row_reduce(1, op, term, out, in...);
  }
  template <class Op, class F, class... V>
  void col_reduce(const Op& op, const F& term, T beta, view<T> out, const V&... in) {
    host::col_reduce(1, op, term, beta, out, in...);
  }
  void gather_rows(view<T> out, const_view<T> in, const std::int32_t* rows) { host::gather_rows<T>(1, out, in, rows); }
  void scatter_add_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    host::scatter_add_rows<T>(1, out, in, rows);
  }
};

}  // namespace core_tokensets
