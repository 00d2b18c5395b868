#pragma once
// A backend for programs that live with xtensor: matrix products by the BLAS behind xtensor-blas, exponentials by xsimd
// where it is there, and xtensor arrays in and out without a copy. Results are the same to the bit for any number of
// threads.

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>
#if __has_include(<xtensor/containers/xadapt.hpp>)  // xtensor 0.26 and later
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/views/xstrided_view.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xstrided_view.hpp>
#endif
#include <xtensor-blas/xblas.hpp>
#ifdef XTENSOR_USE_XSIMD
#include <xsimd/xsimd.hpp>
#endif

#include "core_tokensets/tensor/backend.hpp"
#include "core_tokensets/tensor/blas_threads.hpp"
#include "core_tokensets/tensor/host_buffer.hpp"
#include "core_tokensets/tensor/host_kernels.hpp"
#include "core_tokensets/tensor/interop.hpp"
#include "core_tokensets/tensor/workspace.hpp"

namespace core_tokensets {

namespace xtensor_detail {

/// False where xtensor-blas was told to do without a BLAS; its own loops are some 60 times slower.
#if defined(HAVE_CBLAS) && !defined(XTENSOR_USE_FLENS_BLAS)
inline constexpr bool has_cblas = true;
#else
inline constexpr bool has_cblas = false;
#endif

/// c = alpha op(a) op(b) + beta c on the calling thread.
template <class T>
void product(const gemm_options& o, const view<const T>& a, const view<const T>& b, const view<T>& c) {
  using blas_index = xt::blas_index_t;
  const auto number = [](index n) { return static_cast<blas_index>(n); };
  const auto stride = [&](const auto& v) { return number(std::max({v.ld, v.cols, index{1}})); };
  const auto order = [](bool transpose) { return transpose ? cxxblas::Trans : cxxblas::NoTrans; };
  cxxblas::gemm<blas_index>(cxxblas::RowMajor, order(o.transpose_a), order(o.transpose_b), number(c.rows),
                            number(c.cols), number(o.transpose_a ? a.rows : a.cols), T(o.alpha), a.data, stride(a),
                            b.data, stride(b), T(o.beta), c.data, stride(c));
}

/// x = e^(x - top) in steps of a vector register; the rest goes through a register too, so that the result of an
/// element depends on nothing but itself.
template <class T>
void exp_minus(T* x, index n, T top) {
#ifdef XTENSOR_USE_XSIMD
  using batch = xsimd::batch<T>;
  constexpr auto width = static_cast<index>(batch::size);
  const auto step = [top](T* p) { xsimd::exp(batch::load_unaligned(p) - batch(top)).store_unaligned(p); };
  index c = 0;
  for (; c + width <= n; c += width) step(x + c);
  if (c == n) return;
  T rest[batch::size] = {};
  std::copy(x + c, x + n, rest);
  step(rest);
  std::copy_n(rest, n - c, x + c);
#else
  simd_for(0, n, [=](index c) { x[c] = fn::exp(x[c] - top); });
#endif
}

}  // namespace xtensor_detail

/// A matrix as an xtensor expression on the same memory. A strided view of an adaptor: an adaptor with strides of its
/// own would also touch what lies between the rows.
template <class T>
auto as_xtensor(const view<T>& v) {
  require(v.n0 * v.n1 == 1, "as_xtensor: a batch of ", v.n0 * v.n1, " matrices, expected one");
  std::array<std::size_t, 2> shape{static_cast<std::size_t>(v.rows), static_cast<std::size_t>(v.cols)};
  std::array<std::ptrdiff_t, 2> strides{v.rows == 1 ? 0 : v.ld, v.cols == 1 ? 0 : 1};
  const std::array<std::size_t, 1> length{static_cast<std::size_t>(v.rows == 0 ? 0 : (v.rows - 1) * v.ld + v.cols)};
  return xt::strided_view(xt::adapt(v.data, length[0], xt::no_ownership(), length), std::move(shape),
                          std::move(strides), 0, xt::layout_type::dynamic);
}

/// Tensors in host memory, computed with a BLAS and the loops that CPU backends share. A copy has a workspace of its
/// own; one value serves one caller at a time.
template <std::floating_point T>
class xtensor_backend {
  static_assert(xtensor_detail::has_cblas,
                "xtensor_backend needs a CBLAS: do not define XTENSOR_USE_FLENS_BLAS, and link one such as OpenBLAS");

 public:
  using scalar = T;

  /// `threads`: how many may work at once, 0 for OpenMP's default.
  explicit xtensor_backend(int threads = 0) : threads_(threads > 0 ? threads : default_threads()) {
    for (int i = 0; i < threads_; ++i) workspaces_.push_back(std::make_unique<block_stack<>>());
  }
  xtensor_backend(const xtensor_backend& other) : xtensor_backend(other.threads_) {}
  xtensor_backend(xtensor_backend&&) noexcept = default;
  xtensor_backend& operator=(xtensor_backend other) noexcept {
    std::swap(threads_, other.threads_);
    std::swap(workspaces_, other.workspaces_);
    return *this;
  }

  int threads() const { return threads_; }
  block_stack<>& workspace() {
    const auto i = static_cast<std::size_t>(in_parallel() ? thread_index() : 0);
    return *workspaces_[std::min(i, workspaces_.size() - 1)];
  }

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

  /// `body(i)` for i in [0, n) on the backend's threads; inside, operations run serially.
  template <class Body>
  void parallel(index n, const Body& body) {
    parallel_for(threads_, n, [&](index i) {
      [[maybe_unused]] const blas_detail::one_openmp_thread guard;
      body(i);
    });
  }

  void gemm(const_view<T> a, const_view<T> b, view<T> c, gemm_options o = {}) {
    host::check_gemm<T>(a, b, c, o.transpose_a, o.transpose_b);
    if (c.empty()) return;
    for (const index n : {a.rows, a.cols, b.rows, b.cols, a.ld, b.ld, c.ld}) {
      require(n <= std::numeric_limits<xt::blas_index_t>::max(), "gemm: BLAS does not count up to ", n);
    }
    blas_detail::use_one_thread();
    const index row_pieces = pieces(c.rows), col_pieces = c.rows >= c.cols ? 1 : pieces(c.cols);
    const index per_matrix = row_pieces * col_pieces;
    parallel(c.n0 * c.n1 * per_matrix, [&](index piece) {
      const index batch = piece / per_matrix, tile = piece % per_matrix;
      const index i = batch / c.n1, j = batch % c.n1;
      const index r = tile / col_pieces * piece_length, rows = std::min(piece_length, c.rows - r);
      const index k = col_pieces == 1 ? 0 : tile % col_pieces * piece_length;
      const index cols = col_pieces == 1 ? c.cols : std::min(piece_length, c.cols - k);
      const auto am = a.n0 * a.n1 == 1 ? a.matrix(0, 0) : a.matrix(i, j);
      const auto bm = b.n0 * b.n1 == 1 ? b.matrix(0, 0) : b.matrix(i, j);
      xtensor_detail::product<T>(o, o.transpose_a ? am.slice_cols(r, rows) : am.slice_rows(r, rows),
                                 o.transpose_b ? bm.slice_rows(k, cols) : bm.slice_cols(k, cols),
                                 c.matrix(i, j).slice_rows(r, rows).slice_cols(k, cols));
    });
  }

  template <class F, class... V>
  void map(const F& f, const V&... operands) {
    host::map(threads_, f, operands...);
  }
  template <class Op, class F, class... V>
  void row_reduce(const Op& op, const F& term, view<T> out, const V&... in) {
    host::row_reduce(threads_, op, term, out, in...);
  }
  template <class Op, class F, class... V>
  void col_reduce(const Op& op, const F& term, T beta, view<T> out, const V&... in) {
    host::col_reduce(threads_, op, term, beta, out, in...);
  }
  void gather_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    host::gather_rows<T>(threads_, out, in, rows);
  }
  void scatter_add_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    host::scatter_add_rows<T>(threads_, out, in, rows);
  }

  // ---- the one override: attention spends its time here ----------------------------------------------------------

  void softmax(view<T> x, const_view<T> weights) {
    const index rows = x.n0 * x.n1 * x.rows;
    parallel_chunks(threads_, rows, host::grain_elements / (x.cols + 1) + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) {
        const index batch = n / x.rows;
        T* p = host::row_begin(x, batch / x.n1, batch % x.n1, n % x.rows);
        xtensor_detail::exp_minus(p, x.cols, host::fold<T>(x.cols, fn::maximum{}, [p](index c) { return p[c]; }));
        if (const T* w = weights.data; w != nullptr) simd_for(0, x.cols, [=](index c) { p[c] *= w[c]; });
        const T factor = T(1) / host::fold<T>(x.cols, fn::plus{}, [p](index c) { return p[c]; });
        simd_for(0, x.cols, [=](index c) { p[c] *= factor; });
      }
    });
  }

 private:
  static constexpr index piece_length = 256;  // rows or columns of a product that one call computes
  static index pieces(index extent) { return (extent + piece_length - 1) / piece_length; }

  int threads_;
  std::vector<std::unique_ptr<block_stack<>>> workspaces_;
};

}  // namespace core_tokensets
