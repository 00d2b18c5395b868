#pragma once
// Operations that a backend may override under the same name; each has a default written from the ten required
// functions. Calling `ops::name(backend, ...)` picks the override where there is one.

#include <vector>

#include "core_tokensets/tensor/host_kernels.hpp"
#include "core_tokensets/tensor/sequences.hpp"
#include "core_tokensets/tensor/tensor.hpp"

namespace core_tokensets::ops {

/// Calls `body(s)` for every sample, at the same time where the backend can.
template <tensor_backend B, class Body>
void for_each_sample(B& b, index samples, const Body& body) {
  if constexpr (requires { b.parallel(samples, body); }) {
    b.parallel(samples, body);
  } else {
    for (index s = 0; s < samples; ++s) body(s);
  }
}

/// Runs `body`. A backend that can capture work replays it where the key and the work come again.
template <tensor_backend B, class Body>
void repeat(B& b, index key, const Body& body) {
  if constexpr (requires { b.repeat(key, body); }) {
    b.repeat(key, body);
  } else {
    body();
  }
}

namespace detail {

/// The default of `softmax`.
template <tensor_backend B, class T = typename B::scalar>
void softmax(B& b, view<T> x, const_view<T> weights) {
  scratch<B> memory(b, x.n0 * x.n1 * x.rows, 1);
  const view<T> column(memory.data(), x.n0, x.n1, x.rows, 1, x.n1 * x.rows, x.rows, 1);
  b.row_reduce(fn::maximum{}, fn::value{}, column, view<const T>(x));
  b.map(fn::exp_minus{}, x, view<const T>(x), view<const T>(column));
  if (!weights.empty()) b.map(fn::multiply{}, x, weights);
  b.row_reduce(fn::plus{}, fn::value{}, column, view<const T>(x));
  b.map(fn::divide{}, x, view<const T>(column));
}

}  // namespace detail

/// Softmax over the columns of every row, in place. With `weights` `[1, C]` column c counts as weights[c] equal ones:
/// w e^x / sum w e^x, the same bits as without where they are 1.
template <tensor_backend B, class T = typename B::scalar>
void softmax(B& b, view<T> x, const_view<T> weights = {}) {
  if constexpr (requires { b.softmax(x, weights); }) {
    b.softmax(x, weights);
  } else if constexpr (requires { b.softmax(x); }) {
    weights.empty() ? b.softmax(x) : detail::softmax<B, T>(b, x, weights);
  } else {
    detail::softmax<B, T>(b, x, weights);
  }
}

/// y = (x - mean) / sqrt(var + eps) * gamma + beta over the columns `[T, C]`; keeps `mean` and `rstd` `[T, 1]`.
template <tensor_backend B, class T = typename B::scalar>
void layer_norm(B& b, const_view<T> x, const_view<T> gamma, const_view<T> beta, view<T> y, view<T> mean, view<T> rstd,
                T eps) {
  if constexpr (requires { b.layer_norm(x, gamma, beta, y, mean, rstd, eps); }) {
    b.layer_norm(x, gamma, beta, y, mean, rstd, eps);
  } else {
    const T n = static_cast<T>(x.cols);
    b.row_reduce(fn::plus{}, fn::value{}, mean, x);
    b.map(fn::mean_of_sum<T>{n}, mean, view<const T>(mean));
    b.row_reduce(fn::plus{}, fn::squared_difference{}, rstd, x, view<const T>(mean));
    b.map(fn::rstd_of_sum<T>{n, eps}, rstd, view<const T>(rstd));
    b.map(fn::normalise{}, y, x, view<const T>(mean), view<const T>(rstd), gamma, beta);
  }
}

/// dx (=), dgamma (+=), dbeta (+=) of layer_norm; the last two may be empty.
template <tensor_backend B, class T = typename B::scalar>
void layer_norm_backward(B& b, const_view<T> x, const_view<T> gamma, const_view<T> mean, const_view<T> rstd,
                         const_view<T> dy, view<T> dx, view<T> dgamma, view<T> dbeta) {
  if constexpr (requires { b.layer_norm_backward(x, gamma, mean, rstd, dy, dx, dgamma, dbeta); }) {
    b.layer_norm_backward(x, gamma, mean, rstd, dy, dx, dgamma, dbeta);
    return;
  }
  if (!dgamma.empty()) b.col_reduce(fn::plus{}, fn::norm_scale_term{}, T(1), dgamma, dy, x, mean, rstd);
  if (!dbeta.empty()) b.col_reduce(fn::plus{}, fn::value{}, T(1), dbeta, dy);
  if constexpr (requires { b.layer_norm_backward(x, gamma, mean, rstd, dy, dx); }) {
    b.layer_norm_backward(x, gamma, mean, rstd, dy, dx);
  } else {
    scratch<B> s1(b, x.rows, 1), s2(b, x.rows, 1);
    b.row_reduce(fn::plus{}, fn::times{}, *s1, dy, gamma);
    b.row_reduce(fn::plus{}, fn::norm_gradient_term{}, *s2, dy, gamma, x, mean, rstd);
    b.map(fn::layer_norm_gradient<T>{static_cast<T>(x.cols)}, dx, x, dy, gamma, mean, rstd, view<const T>(*s1),
          view<const T>(*s2));
  }
}

/// y = x W^T + bias + residual; `[T, In]` times `[Out, In]`. Bias `[1, Out]` and residual `[T, Out]` may be empty.
template <tensor_backend B, class T = typename B::scalar>
void linear(B& b, const_view<T> x, const_view<T> weight, const_view<T> bias, const_view<T> residual, view<T> y) {
  if constexpr (requires { b.linear(x, weight, bias, residual, y); }) {
    b.linear(x, weight, bias, residual, y);
  } else {
    if (!residual.empty() && !bias.empty()) {
      b.map(fn::sum{}, y, residual, bias);
    } else if (!residual.empty() || !bias.empty()) {
      assign(b, y, residual.empty() ? bias : residual);
    }
    const double beta = residual.empty() && bias.empty() ? 0 : 1;
    b.gemm(x, weight, y, {.transpose_b = true, .beta = beta});
  }
}

/// pre = x W^T + bias, y = gelu(pre).
template <tensor_backend B, class T = typename B::scalar>
void linear_gelu(B& b, const_view<T> x, const_view<T> weight, const_view<T> bias, view<T> pre, view<T> y) {
  if constexpr (requires { b.linear_gelu(x, weight, bias, pre, y); }) {
    b.linear_gelu(x, weight, bias, pre, y);
  } else {
    linear(b, x, weight, bias, view<const T>{}, pre);
    b.map(fn::apply_gelu{}, y, view<const T>(pre));
  }
}

/// dx = dy W.
template <tensor_backend B, class T = typename B::scalar>
void linear_backward_input(B& b, const_view<T> dy, const_view<T> weight, view<T> dx) {
  b.gemm(dy, weight, dx);
}

/// dpre = (dy W) gelu'(pre).
template <tensor_backend B, class T = typename B::scalar>
void linear_gelu_backward_input(B& b, const_view<T> dy, const_view<T> weight, const_view<T> pre, view<T> dpre) {
  if constexpr (requires { b.linear_gelu_backward_input(dy, weight, pre, dpre); }) {
    b.linear_gelu_backward_input(dy, weight, pre, dpre);
  } else {
    b.gemm(dy, weight, dpre);
    b.map(fn::multiply_gelu_derivative{}, dpre, pre);
  }
}

/// dW += dy^T x, dbias += column sums of dy (unless empty).
template <tensor_backend B, class T = typename B::scalar>
void linear_backward_weight(B& b, const_view<T> x, const_view<T> dy, view<T> dweight, view<T> dbias) {
  b.gemm(dy, x, dweight, {.transpose_a = true, .beta = 1});
  if (!dbias.empty()) b.col_reduce(fn::plus{}, fn::value{}, T(1), dbias, dy);
}

/// logits `[S, K]` to `losses` `[S, 1]` (without weights) and `dlogits` `[S, K]` (=), the gradient of the mean over the
/// samples of weight times loss: weight (p - wanted) / S among the competing classes, 0 elsewhere.
template <tensor_backend B, class T = typename B::scalar>
void cross_entropy(B& b, const_view<T> logits, const cross_entropy_operands<std::type_identity_t<T>>& operands,
                   view<T> dlogits, view<T> losses) {
  if constexpr (requires { b.cross_entropy(logits, operands, dlogits, losses); }) {
    b.cross_entropy(logits, operands, dlogits, losses);
  } else {  // on the host, row by row
    const index k = logits.cols;
    std::vector<T> row(static_cast<std::size_t>(k)), gradient(row);
    for (index s = 0; s < logits.rows; ++s) {
      std::int32_t target = 0, first = 0;
      T weight = 1, loss = 0;
      b.download(row.data(), logits.row(s), k);
      b.download(&target, operands.targets + s, 1);
      if (operands.first_class) b.download(&first, operands.first_class + s, 1);
      if (operands.weights) b.download(&weight, operands.weights + s, 1);
      loss = host::cross_entropy_row(row.data(), k, target, first, weight / static_cast<T>(logits.rows),
                                     operands.label_smoothing, gradient.data());
      b.upload(dlogits.row(s), gradient.data(), k);
      b.upload(losses.row(s), &loss, 1);
    }
  }
}

namespace detail {

/// The default of `attention`: two matrix products and a softmax a sample.
template <tensor_backend B, class T = typename B::scalar>
void attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
               view<T> out, T* probabilities) {
  for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    const auto of_query = [&](auto x) { return x.slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return x.slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, q.n1 * nq, nk);
    const view<T> a =
        probabilities ? rows.matrices(probabilities, s, q.n1) : view<T>(memory.data(), 1, q.n1, nq, nk, 0, nq * nk, nk);
    b.gemm(of_query(q), of_key(k), a, {.transpose_b = true, .alpha = double(scale)});
    if (rows.causal()) {
      b.fill(of_query(out), T(0));
      for (index i = 0; i < nq; ++i) {
        const index seen = rows.visible(s, i);
        b.fill(a.slice_rows(i, 1).slice_cols(seen, nk - seen), T(0));
        if (seen > 0) ops::softmax<B, T>(b, a.slice_rows(i, 1).slice_cols(0, seen), rows.key_weights<T>(s, seen));
      }
    } else {
      ops::softmax<B, T>(b, a, rows.key_weights<T>(s, nk));
    }
    b.gemm(a, of_key(v), of_query(out));
  });
}

/// The default of `attention_backward`.
template <tensor_backend B, class T = typename B::scalar>
void attention_backward(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                        T* dprobabilities) {
  for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s), h = q.n1;
    const auto of_query = [&](auto x) { return x.slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return x.slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, h * nq, nk), memory2(b, h * nq, nk), memory3(b, h * nq, 1);
    const view<const T> a = rows.matrices(probabilities, s, q.n1);
    const view<T> da =
        dprobabilities ? rows.matrices(dprobabilities, s, q.n1) : view<T>(memory.data(), 1, h, nq, nk, 0, nq * nk, nk);
    const view<T> ds(memory2.data(), 1, h, nq, nk, 0, nq * nk, nk), inner(memory3.data(), 1, h, nq, 1, 0, nq, 1);
    b.gemm(a, of_query(dout), of_key(dv), {.transpose_a = true});
    b.gemm(of_query(dout), of_key(v), da, {.transpose_b = true});
    b.row_reduce(fn::plus{}, fn::times{}, inner, a, view<const T>(da));
    b.map(fn::softmax_gradient{}, ds, a, view<const T>(da), view<const T>(inner));
    b.gemm(ds, of_key(k), of_query(dq), {.alpha = double(scale)});
    b.gemm(ds, of_query(q), of_key(dk), {.transpose_a = true, .alpha = double(scale)});
  });
}

}  // namespace detail

/// A backend whose attention takes one argument more: it can leave `log_sums` and compute the probabilities again on
/// the way back, so that training keeps none.
template <class B, class T = typename B::scalar>
concept keeps_log_sums = requires(B& b, const attention_rows& rows, view<const T> in, view<T> out, T* p) {
  b.attention(rows, in, in, in, T(1), out, p, p);
};

/// A backend whose own attention, forwards and backwards, reads the weights of keys (`attention_rows`), as it says by
/// `static constexpr bool weighs_keys = true`. Where another has one of its own, the default runs for keys with
/// weights.
template <class B>
concept weighs_keys = B::weighs_keys;

/// Softmax attention inside each sample of a ragged batch: A = softmax(scale q k^T), out = A v. q, out are
/// `[1, H, Tq, dh]`, k, v `[1, H, Tk, dh]`; `probabilities` (may be null) receives A as `attention_rows` says, and
/// `log_sums` `[H, Tq]` (may be null; see `keeps_log_sums`) log sum exp(scale q k^T). A query that sees no key gets 0.
/// `Error`: keys with weights for a backend that goes back from `log_sums` and is not `weighs_keys`.
template <tensor_backend B, class T = typename B::scalar>
void attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
               view<T> out, T* probabilities, T* log_sums = nullptr) {
  if constexpr (!weighs_keys<B>) {
    if (rows.has_key_weights()) {
      require(log_sums == nullptr, "attention: keys have weights, which the attention of this backend does not read");
      detail::attention<B, T>(b, rows, q, k, v, scale, out, probabilities);
      return;
    }
  }
  if constexpr (keeps_log_sums<B>) {
    b.attention(rows, q, k, v, scale, out, probabilities, log_sums);
  } else if constexpr (requires { b.attention(rows, q, k, v, scale, out, probabilities); }) {
    b.attention(rows, q, k, v, scale, out, probabilities);
  } else {
    detail::attention(b, rows, q, k, v, scale, out, probabilities);
  }
}

/// Gradients of `attention` from its probabilities, or from `result` where they are null: dq, dk, dv (=).
/// `dprobabilities` (may be null) receives the gradient at the softmax output.
template <tensor_backend B, class T = typename B::scalar>
void attention_backward(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                        T* dprobabilities, const attention_result<std::type_identity_t<T>>& result = {}) {
  if constexpr (keeps_log_sums<B>) {
    b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities, result);
  } else if constexpr (requires {
                         b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
                       }) {
    b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
  } else {
    detail::attention_backward(b, rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
  }
}

}  // namespace core_tokensets::ops
