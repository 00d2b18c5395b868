#pragma once
// y = x W^T + b.

#include "core_tokensets/nn/parameters.hpp"
#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

/// Weight `[Out, In]` and bias `[1, Out]` (may be empty).
struct linear {
  slot weight, bias;
};

inline linear add_linear(parameter_layout& layout, const std::string& name, index in, index out, bool bias = true) {
  linear l;
  l.weight = layout.add(name + ".weight", {out, in}, true);
  if (bias) l.bias = layout.add(name + ".bias", {out}, false);
  return l;
}

/// y = x W^T + b + residual (which may be empty).
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const linear& l, parameter_view<const T> p, const_view<T> x, const_view<T> residual, view<T> y) {
  ops::linear<B, T>(b, x, p[l.weight], p[l.bias], residual, y);
}

/// dW += dy^T x, db += sum of dy, dx = dy W. No gradients without `grads`, no dx when it is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const linear& l, parameter_view<const T> p, parameter_view<T> grads, const_view<T> x,
              const_view<T> dy, view<T> dx) {
  if (grads) ops::linear_backward_weight<B, T>(b, x, dy, grads[l.weight], grads[l.bias]);
  if (!dx.empty()) ops::linear_backward_input<B, T>(b, dy, p[l.weight], dx);
}

}  // namespace core_tokensets
