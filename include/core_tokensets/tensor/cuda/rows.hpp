#pragma once
// Fused operations on rows: softmax, layer norm forward and backward, cross-entropy.

#include <cmath>

#include "core_tokensets/core/functors.hpp"
#include "core_tokensets/tensor/cuda/reduce.hpp"

namespace core_tokensets::cuda {

/// Softmax of every row, in place. Block: a row.
struct softmax_kernel {
  static constexpr int threads = 128;
  static constexpr bool cooperative = true;
  operand x;
  row_shape shape;
  index cols;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const row_place at = shape.place(t.block());
    float* row = x.row(at.i, at.j, at.r);
    float* memory = static_cast<float*>(t.shared());
    float top = fn::maximum::identity<float>(), sum = 0;
    for (index c = t.thread(); c < cols; c += threads) top = fn::maximum{}(top, row[c]);
    top = reduce_block<threads>(t, top, fn::maximum{}, memory);
    for (index c = t.thread(); c < cols; c += threads) sum += row[c] = fn::exp(row[c] - top);
    sum = reduce_block<threads>(t, sum, fn::plus{}, memory);
    for (index c = t.thread(); c < cols; c += threads) row[c] /= sum;
  }
};

/// What a warp does with its row of layer norm: a sum over the columns, four at a time where they lie on 16 bytes.
template <int Width, class Thread, class Body>
constexpr void for_columns(const Thread& t, index cols, const Body& body) {
  for (index c = t.lane() * Width; c < cols; c += warp_size * Width) body(c);
}

/// y = (x - mean) rstd gamma + beta. A warp has a row.
template <int Width>
struct layer_norm_kernel {
  static constexpr int threads = 256, warps = threads / warp_size;
  static constexpr bool cooperative = true;
  operand x, y, mean, rstd;
  const float *gamma, *beta;
  index rows, cols;
  float eps;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index r = t.block() * warps + t.warp();
    if (r >= rows) return;  // the whole warp
    const float *in = x.row(0, 0, r), n = static_cast<float>(cols);
    float* out = y.row(0, 0, r);
    float sum = 0, squares = 0;
    for_columns<Width>(t, cols, [&](index c) {
      const auto v = detail::load<Width>(in, 1, c);
      for (int l = 0; l < Width; ++l) sum += v.x[l];
    });
    const float m = reduce_lanes(t, sum, fn::plus{}) / n;
    for_columns<Width>(t, cols, [&](index c) {
      const auto v = detail::load<Width>(in, 1, c);
      for (int l = 0; l < Width; ++l) squares += (v.x[l] - m) * (v.x[l] - m);
    });
    const float s = 1.0f / std::sqrt(reduce_lanes(t, squares, fn::plus{}) / n + eps);
    for_columns<Width>(t, cols, [&](index c) {
      auto v = detail::load<Width>(in, 1, c);
      const auto g = detail::load<Width>(gamma, 1, c), o = detail::load<Width>(beta, 1, c);
      for (int l = 0; l < Width; ++l) v.x[l] = (v.x[l] - m) * s * g.x[l] + o.x[l];
      detail::store<Width>(out, c, v);
    });
    if (t.lane() == 0) {
      *mean.row(0, 0, r) = m;
      *rstd.row(0, 0, r) = s;
    }
  }
};

/// dx = rstd (g - (s1 + xhat s2) / n) with g = dy gamma, s1 = sum g, s2 = sum g xhat. A warp has a row; dx may be dy.
template <int Width>
struct layer_norm_backward_kernel {
  static constexpr int threads = 256, warps = threads / warp_size;
  static constexpr bool cooperative = true;
  operand x, dy, dx, mean, rstd;
  const float* gamma;
  index rows, cols;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index r = t.block() * warps + t.warp();
    if (r >= rows) return;  // the whole warp
    const float *px = x.row(0, 0, r), *pd = dy.row(0, 0, r), n = static_cast<float>(cols);
    const float m = *mean.row(0, 0, r), s = *rstd.row(0, 0, r);
    float* out = dx.row(0, 0, r);
    float s1 = 0, s2 = 0;
    for_columns<Width>(t, cols, [&](index c) {
      const auto v = detail::load<Width>(px, 1, c), d = detail::load<Width>(pd, 1, c),
                 g = detail::load<Width>(gamma, 1, c);
      for (int l = 0; l < Width; ++l) {
        s1 += d.x[l] * g.x[l];
        s2 += d.x[l] * g.x[l] * (v.x[l] - m) * s;
      }
    });
    s1 = reduce_lanes(t, s1, fn::plus{}) / n;
    s2 = reduce_lanes(t, s2, fn::plus{}) / n;
    for_columns<Width>(t, cols, [&](index c) {
      const auto v = detail::load<Width>(px, 1, c), g = detail::load<Width>(gamma, 1, c);
      auto d = detail::load<Width>(pd, 1, c);
      for (int l = 0; l < Width; ++l) d.x[l] = s * (d.x[l] * g.x[l] - (s1 + (v.x[l] - m) * s * s2));
      detail::store<Width>(out, c, d);
    });
  }
};

/// The addends of dgamma and dbeta.
struct layer_norm_weight_term {
  constexpr several<2> operator()(const float& dy, const float& x, const float& mean, const float& rstd) const {
    return {{dy * (x - mean) * rstd, dy}};
  }
};

/// `ops::cross_entropy`: a block has a sample. In double inside, as the version for the host.
struct cross_entropy_kernel {
  static constexpr int threads = 128;
  static constexpr bool cooperative = true;
  operand logits, dlogits, losses;
  const std::int32_t *targets, *first_class;
  const float* weights;
  float smoothing;
  index samples, classes;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index s = t.block(), target = targets[s], first = first_class != nullptr ? first_class[s] : 0;
    const float* row = logits.row(0, 0, s);
    float* gradient = dlogits.row(0, 0, s);
    double* memory = static_cast<double*>(t.shared());
    double top = double(row[first]), total = 0, loss = 0;
    for (index c = first + t.thread(); c < classes; c += threads) top = top < double(row[c]) ? double(row[c]) : top;
    top = reduce_block<threads>(t, top, fn::maximum{}, memory);
    for (index c = first + t.thread(); c < classes; c += threads) total += std::exp(double(row[c]) - top);
    total = reduce_block<threads>(t, total, fn::plus{}, memory);
    const double even = double(smoothing) / static_cast<double>(classes - first), log_total = std::log(total);
    const float scale = (weights != nullptr ? weights[s] : 1.0f) / static_cast<float>(samples);
    for (index c = t.thread(); c < first; c += threads) gradient[c] = 0.0f;
    for (index c = first + t.thread(); c < classes; c += threads) {
      const double wanted = even + (c == target ? 1 - double(smoothing) : 0.0),
                   log_p = double(row[c]) - top - log_total;
      loss -= wanted * log_p;
      gradient[c] = static_cast<float>(double(scale) * (std::exp(log_p) - wanted));
    }
    loss = reduce_block<threads>(t, loss, fn::plus{}, memory);
    if (t.thread() == 0) *losses.row(0, 0, s) = static_cast<float>(loss);
  }
};

}  // namespace core_tokensets::cuda
