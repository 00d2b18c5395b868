#pragma once
// AdamW and SGD with momentum over the whole parameter array, gradient clipping, and the cosine schedule.

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core_tokensets/nn/parameters.hpp"
#include "core_tokensets/tensor/tensor.hpp"

namespace core_tokensets {

/// AdamW (Loshchilov & Hutter 2019), decay decoupled and only on matrices. Without decay it is Adam.
struct adamw {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.05;
};

/// SGD: buffer = momentum buffer + g, then p -= lr buffer, or p -= lr (g + momentum buffer) for Nesterov.
/// `weight_decay` is decoupled and only on matrices, as in AdamW; `l2` is PyTorch's coupled decay, g += l2 p on all
/// parameters.
struct sgd {
  double learning_rate = 1e-2, momentum = 0.9, weight_decay = 0, l2 = 0;
  bool nesterov = false;
};

namespace fn {

/// Operands: parameter, moments, gradient, decay mask, factor of the gradient.
template <class T>
struct adamw_update {
  T learning_rate, beta1, beta2, eps, weight_decay, correction1, correction2;
  constexpr void operator()(T& p, T& m, T& v, const T& gradient, const T& decay, const T& factor) const {
    const T g = gradient * factor;
    m = beta1 * m + (T(1) - beta1) * g;
    v = beta2 * v + (T(1) - beta2) * g * g;
    p = p * (T(1) - learning_rate * weight_decay * decay) -
        learning_rate * (m / correction1) / (std::sqrt(v / correction2) + eps);
  }
};

template <class T>
struct sgd_update {
  T learning_rate, momentum, weight_decay, l2;
  bool nesterov;
  constexpr void operator()(T& p, T& buffer, const T& gradient, const T& decay, const T& factor) const {
    const T g = gradient * factor + l2 * p;
    buffer = momentum * buffer + g;
    p = p * (T(1) - learning_rate * weight_decay * decay) - learning_rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

/// factor = min(1, limit / sqrt(sum of squares))
template <class T>
struct clip_factor {
  T limit;
  constexpr void operator()(T& factor, const T& sum) const {
    const T norm = std::sqrt(sum);
    factor = norm > limit ? limit / norm : T(1);
  }
};

}  // namespace fn

/// Moments and step count; saved in checkpoints.
template <tensor_backend B>
struct optimiser_state {
  tensor<B> first, second, decay;
  tensor<B> factor;  ///< [1, 1] what gradients are multiplied by: 1, or less where they are clipped
  index steps = 0;

  /// Zero moments for `layout`.
  void reset(B& b, const parameter_layout& layout) {
    using T = typename B::scalar;
    std::vector<T> mask(static_cast<std::size_t>(layout.size()), T(0));
    for (const parameter& p : layout.table()) {
      if (p.decay) std::fill_n(mask.begin() + p.where.offset, p.where.size(), T(1));
    }
    decay.assign(b, 1, layout.size(), mask.data());
    first.resize(b, 1, layout.size());
    second.resize(b, 1, layout.size());
    factor.resize(b, 1, 1);
    b.fill(*first, T(0));
    b.fill(*second, T(0));
    b.fill(*factor, T(1));
    steps = 0;
  }
};

/// Makes the steps until the next call scale the gradients so that these would have at most the norm `limit`. The
/// factor stays in the backend's memory, so nothing waits for it.
template <tensor_backend B>
void clip_gradients(B& b, const tensor<B>& gradients, double limit, optimiser_state<B>& state) {
  using T = typename B::scalar;
  b.row_reduce(fn::plus{}, fn::square{}, *state.factor, *gradients);
  b.map(fn::clip_factor<T>{T(limit)}, *state.factor, *std::as_const(state.factor));
}

/// One step with the learning rate multiplied by `schedule`.
template <tensor_backend B>
void step(B& b, const adamw& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1) {
  using T = typename B::scalar;
  ++state.steps;
  const double t = static_cast<double>(state.steps);
  b.map(fn::adamw_update<T>{T(o.learning_rate * schedule), T(o.beta1), T(o.beta2), T(o.eps), T(o.weight_decay),
                            T(1 - std::pow(o.beta1, t)), T(1 - std::pow(o.beta2, t))},
        *parameters, *state.first, *state.second, *gradients, *std::as_const(state.decay),
        *std::as_const(state.factor));
}

template <tensor_backend B>
void step(B& b, const sgd& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1) {
  using T = typename B::scalar;
  ++state.steps;
  b.map(fn::sgd_update<T>{T(o.learning_rate * schedule), T(o.momentum), T(o.weight_decay), T(o.l2), o.nesterov},
        *parameters, *state.first, *gradients, *std::as_const(state.decay), *std::as_const(state.factor));
}

/// Linear warm-up over `warm_up` steps, then half a cosine down to 0 at `total`. Step 0 is the first.
inline double cosine_schedule(index step, index total, index warm_up) {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  const double done = static_cast<double>(step - warm_up) / static_cast<double>(std::max<index>(1, total - warm_up));
  return 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
}

}  // namespace core_tokensets
