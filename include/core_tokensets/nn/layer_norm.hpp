#pragma once
// y = (x - mean) / sqrt(var + eps) * gamma + beta, over the channels of each token.

#include "core_tokensets/nn/parameters.hpp"
#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

struct layer_norm {
  slot gamma, beta;
  double eps = 1e-6;
};

/// What the backward pass needs of the forward pass; the result `y` `[T, C]` is kept with it.
template <tensor_backend B>
struct layer_norm_tape {
  tensor<B> y, mean, rstd;
};

/// `Error`: an eps outside of 0 .. 1.
inline layer_norm add_layer_norm(parameter_layout& layout, const std::string& name, index dim, double eps) {
  require_within("layer norm: eps", eps, 0, 1);
  return {layout.add(name + ".weight", {dim}, false), layout.add(name + ".bias", {dim}, false), eps};
}

/// x to y, both `[T, C]`, with mean and 1 / deviation `[T, 1]` of every row.
template <tensor_backend B, class T = typename B::scalar>
void normalise(B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x, view<T> mean, view<T> rstd,
               view<T> y) {
  ops::layer_norm<B, T>(b, x, p[l.gamma], p[l.beta], y, mean, rstd, T(l.eps));
}

/// Writes `tape.y`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x, layer_norm_tape<B>& tape) {
  tape.y.resize(b, x.rows, x.cols);
  tape.mean.resize(b, x.rows, 1);
  tape.rstd.resize(b, x.rows, 1);
  normalise<B, T>(b, l, p, x, *tape.mean, *tape.rstd, *tape.y);
}

/// dx (=), and the gradients of gamma and beta (+=) where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const layer_norm& l, parameter_view<const T> p, parameter_view<T> grads, const_view<T> x,
              const layer_norm_tape<B>& tape, const_view<T> dy, view<T> dx) {
  ops::layer_norm_backward<B, T>(b, x, p[l.gamma], *tape.mean, *tape.rstd, dy, dx, grads[l.gamma], grads[l.beta]);
}

}  // namespace core_tokensets
