#pragma once
// The default backend: matrix products in pieces that depend on the shapes only, OpenMP over the pieces, and fused
// versions of the operations that benchmarks justify. Results are the same to the bit for any number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_tokensets/tensor/backend.hpp"
#include "core_tokensets/tensor/host_buffer.hpp"
#include "core_tokensets/tensor/host_kernels.hpp"
#include "core_tokensets/tensor/packed_product.hpp"
#include "core_tokensets/tensor/sequences.hpp"
#include "core_tokensets/tensor/tensor.hpp"
#include "core_tokensets/tensor/workspace.hpp"

namespace core_tokensets {

namespace eigen_detail {

/// Softmax of one row of n numbers, scaled by `scale` before the exponential and multiplied by `weights` behind it
/// unless they are null.
template <class T>
void softmax_row(T* x, index n, T scale, const T* weights) {
  run_widely([=] {
    const T top = host::fold<T>(n, fn::maximum{}, [x](index c) { return x[c]; });
    simd_for(0, n, [=](index c) { x[c] = fn::exp((x[c] - top) * scale); });
    if (weights != nullptr) simd_for(0, n, [=](index c) { x[c] *= weights[c]; });
    const T factor = T(1) / host::fold<T>(n, fn::plus{}, [x](index c) { return x[c]; });
    simd_for(0, n, [=](index c) { x[c] *= factor; });
  });
}

}  // namespace eigen_detail

/// Tensors in host memory. `Product` computes what one thread multiplies: `packed_product`, the plain `eigen_product`,
/// a BLAS (`tensor/cblas_product.hpp`) or one of your own. A copy has a workspace of its own; one value serves one
/// caller at a time.
template <std::floating_point T, thread_product<T> Product = packed_product>
class eigen_backend {
 public:
  using scalar = T;
  static constexpr bool weighs_keys = true;

  /// `threads`: how many may work at once, 0 for OpenMP's default.
  explicit eigen_backend(int threads = 0) : threads_(threads > 0 ? threads : default_threads()) {
    for (int i = 0; i < threads_; ++i) workspaces_.push_back(std::make_unique<block_stack<>>());
  }
  eigen_backend(const eigen_backend& other) : eigen_backend(other.threads_) {}
  eigen_backend& operator=(eigen_backend other) noexcept {
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
    parallel_for(threads_, n, body);
  }

  void gemm(const_view<T> a, const_view<T> b, view<T> c, gemm_options o = {}) {
    host::check_gemm<T>(a, b, c, o.transpose_a, o.transpose_b);
    if (c.empty()) return;
    const index row_tiles = tiles(c.rows), col_tiles = c.rows >= c.cols ? 1 : tiles(c.cols);
    const index per_matrix = row_tiles * col_tiles;
    parallel(c.n0 * c.n1 * per_matrix, [&](index piece) {
      const index batch = piece / per_matrix, tile = piece % per_matrix;
      const index i = batch / c.n1, j = batch % c.n1;
      const auto [r0, r1] = cut(c.rows, row_tiles, tile / col_tiles);
      const auto [c0, c1] = cut(c.cols, col_tiles, tile % col_tiles);
      const auto am = a.matrix(a.n0 == 1 ? 0 : i, a.n1 == 1 ? 0 : j),
                 bm = b.matrix(b.n0 == 1 ? 0 : i, b.n1 == 1 ? 0 : j);
      const view<T> out = c.matrix(i, j).slice_rows(r0, r1 - r0).slice_cols(c0, c1 - c0);
      if (T(o.beta) != T(0) && T(o.beta) != T(1)) host::map(1, fn::scale<T>{T(o.beta)}, out);
      multiply(o.transpose_a, o.transpose_b, T(o.alpha),
               o.transpose_a ? am.slice_cols(r0, r1 - r0) : am.slice_rows(r0, r1 - r0),
               o.transpose_b ? bm.slice_rows(c0, c1 - c0) : bm.slice_cols(c0, c1 - c0),
               T(o.beta) == T(0) ? view<const T>() : view<const T>(out), out);
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

  // ---- overrides ------------------------------------------------------------------------------------------------

  void softmax(view<T> x, const_view<T> weights) {
    const index rows = x.n0 * x.n1 * x.rows;
    parallel_chunks(threads_, rows, host::grain_elements / (x.cols + 1) + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) {
        const index r = n % x.rows, batch = n / x.rows;
        eigen_detail::softmax_row(host::row_begin(x, batch / x.n1, batch % x.n1, r), x.cols, T(1), weights.data);
      }
    });
  }

  void layer_norm(const_view<T> x, const_view<T> gamma, const_view<T> beta, view<T> y, view<T> mean, view<T> rstd,
                  T eps) {
    parallel_chunks(threads_, x.rows, row_grain, [&](index begin, index end) {
      run_widely([=] {
        for (index r = begin; r < end; ++r) {
          const T *in = x.row(r), *g = gamma.data, *o = beta.data;
          const T n = static_cast<T>(x.cols);
          const T m = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return in[c]; }) / n;
          const T var = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return (in[c] - m) * (in[c] - m); }) / n;
          const T s = T(1) / std::sqrt(var + eps);
          T* out = y.row(r);
          simd_for(0, x.cols, [=](index c) { out[c] = (in[c] - m) * s * g[c] + o[c]; });
          mean(r, 0) = m;
          rstd(r, 0) = s;
        }
      });
    });
  }

  void layer_norm_backward(const_view<T> x, const_view<T> gamma, const_view<T> mean, const_view<T> rstd,
                           const_view<T> dy, view<T> dx) {
    parallel_chunks(threads_, x.rows, row_grain, [&](index begin, index end) {
      run_widely([=] {
        for (index r = begin; r < end; ++r) {
          const T *px = x.row(r), *pg = gamma.data, *pd = dy.row(r);
          const T m = mean(r, 0), s = rstd(r, 0), n = static_cast<T>(x.cols);
          const T s1 = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return pd[c] * pg[c]; }) / n;
          const T s2 = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return pd[c] * pg[c] * (px[c] - m); }) * s / n;
          T* out = dx.row(r);
          simd_for(0, x.cols, [=](index c) { out[c] = s * (pd[c] * pg[c] - (s1 + (px[c] - m) * s * s2)); });
        }
      });
    });
  }

  void linear(const_view<T> x, const_view<T> weight, const_view<T> bias, const_view<T> residual, view<T> y) {
    row_tiles_of(y.rows, [&](index r, index n) {
      const auto out = y.slice_rows(r, n);
      view<const T> start = bias;
      if (!residual.empty()) start = residual.slice_rows(r, n);
      if (!residual.empty() && !bias.empty()) {
        host::map(1, fn::sum{}, out, start, bias);
        start = out;
      }
      multiply(false, true, T(1), x.slice_rows(r, n), weight, start, out);
    });
  }

  void linear_gelu(const_view<T> x, const_view<T> weight, const_view<T> bias, view<T> pre, view<T> y) {
    row_tiles_of(y.rows, [&](index r, index n) {
      const auto out = pre.slice_rows(r, n);
      multiply(false, true, T(1), x.slice_rows(r, n), weight, bias, out);
      host::map(1, fn::apply_gelu{}, y.slice_rows(r, n), view<const T>(out));
    });
  }

  void linear_gelu_backward_input(const_view<T> dy, const_view<T> weight, const_view<T> pre, view<T> dpre) {
    row_tiles_of(dy.rows, [&](index r, index n) {
      const auto out = dpre.slice_rows(r, n);
      multiply(false, false, T(1), dy.slice_rows(r, n), weight, {}, out);
      host::map(1, fn::multiply_gelu_derivative{}, out, pre.slice_rows(r, n));
    });
  }

  void cross_entropy(const_view<T> logits, const cross_entropy_operands<T>& o, view<T> dlogits, view<T> losses) {
    parallel_chunks(threads_, logits.rows, row_grain, [&](index begin, index end) {
      for (index s = begin; s < end; ++s) {
        losses(s, 0) = host::cross_entropy_row(
            logits.row(s), logits.cols, o.targets[s], o.first_class ? o.first_class[s] : 0,
            (o.weights ? o.weights[s] : T(1)) / static_cast<T>(logits.rows), o.label_smoothing, dlogits.row(s));
      }
    });
  }

  void attention(const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale, view<T> out,
                 T* probabilities) {
    parallel(rows.count() * q.n1, [&](index piece) {
      const index s = piece / q.n1, h = piece % q.n1, nq = rows.queries().length(s), nk = rows.keys().length(s);
      if (nq == 0) return;
      const scratch<eigen_backend> memory(*this, probabilities ? 0 : nq, nk);
      const view<T> a = probabilities ? rows.matrices(probabilities, s, q.n1).matrix(0, h) : *memory;
      const auto of_query = [&](auto x) { return x.matrix(0, h).slice_rows(rows.queries().begin(s), nq); };
      const auto of_key = [&](auto x) { return x.matrix(0, h).slice_rows(rows.keys().begin(s), nk); };
      multiply(false, true, T(1), of_query(q), of_key(k), {}, a);
      const T* weights = rows.key_weights<T>(s, nk).data;
      for (index r = 0; r < nq; ++r) {
        const index seen = rows.visible(s, r);
        eigen_detail::softmax_row(a.row(r), seen, scale, weights);
        std::fill(a.row(r) + seen, a.row(r) + nk, T(0));
      }
      multiply(false, false, T(1), a, of_key(v), {}, of_query(out));
    });
  }

  void attention_backward(const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                          const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                          T* dprobabilities) {
    parallel(rows.count() * q.n1, [&](index piece) {
      const index s = piece / q.n1, h = piece % q.n1, nq = rows.queries().length(s), nk = rows.keys().length(s);
      const scratch<eigen_backend> memory(*this, nq, nk);
      const auto of_query = [&](auto x) { return x.matrix(0, h).slice_rows(rows.queries().begin(s), nq); };
      const auto of_key = [&](auto x) { return x.matrix(0, h).slice_rows(rows.keys().begin(s), nk); };
      const view<const T> a = rows.matrices(probabilities, s, q.n1).matrix(0, h);
      const view<T> ds = *memory;
      multiply(true, false, T(1), a, of_query(dout), {}, of_key(dv));
      multiply(false, true, T(1), of_query(dout), of_key(v), {}, ds);
      if (dprobabilities)
        host::map(1, fn::copy{}, rows.matrices(dprobabilities, s, q.n1).matrix(0, h), view<const T>(ds));
      for (index r = 0; r < nq; ++r) {
        const T* pa = a.row(r);
        T* pd = ds.row(r);
        const T inner = host::fold<T>(nk, fn::plus{}, [&](index c) { return pa[c] * pd[c]; });
        simd_for(0, nk, [=](index c) { pd[c] = pa[c] * (pd[c] - inner) * scale; });
      }
      multiply(false, false, T(1), ds, of_key(k), {}, of_query(dq));
      multiply(true, false, T(1), ds, of_query(q), {}, of_key(dk));
    });
  }

 private:
  static constexpr index row_tile = 256, row_grain = 64;

  /// An even number of pieces of at most `row_tile` rows, so that they divide well among threads; small extents stay
  /// whole.
  static index tiles(index extent) { return extent < 64 ? 1 : 2 * ((extent + 2 * row_tile - 1) / (2 * row_tile)); }
  /// Piece `i` of `pieces` equal ones, cut at multiples of 16 where possible.
  static std::pair<index, index> cut(index extent, index pieces, index i) {
    const index step = ((extent + pieces - 1) / pieces + 15) / 16 * 16;
    return {std::min(extent, i * step), std::min(extent, (i + 1) * step)};
  }
  void multiply(bool ta, bool tb, T alpha, const view<const T>& a, const view<const T>& b, const view<const T>& start,
                const view<T>& c) {
    Product::multiply(workspace(), ta, tb, alpha, a, b, start, c);
  }
  template <class Body>
  void row_tiles_of(index rows, const Body& body) {
    const index pieces = tiles(rows);
    parallel(pieces, [&](index i) {
      const auto [begin, end] = cut(rows, pieces, i);
      if (end > begin) body(begin, end - begin);
    });
  }

  int threads_;
  std::vector<std::unique_ptr<block_stack<>>> workspaces_;
};

}  // namespace core_tokensets
