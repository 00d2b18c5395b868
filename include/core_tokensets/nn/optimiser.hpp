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

/// SGD: buffer = momentum buffer + g, then p -= lr buffer, or p -= lr (g + momentum buffer) for Nesterov. The decay is
/// coupled: g += weight_decay p on all parameters.
struct sgd {
  double learning_rate = 1e-2, momentum = 0.9, weight_decay = 0;
  bool nesterov = false;
};

namespace fn {

template <class T>
struct adamw_update {
  T learning_rate, beta1, beta2, eps, weight_decay, correction1, correction2;
  constexpr void operator()(T& p, T& m, T& v, const T& g, const T& decay) const {
    m = beta1 * m + (T(1) - beta1) * g;
    v = beta2 * v + (T(1) - beta2) * g * g;
    p = p * (T(1) - learning_rate * weight_decay * decay) -
        learning_rate * (m / correction1) / (std::sqrt(v / correction2) + eps);
  }
};

template <class T>
struct sgd_update {
  T learning_rate, momentum, weight_decay;
  bool nesterov;
  constexpr void operator()(T& p, T& buffer, const T& gradient) const {
    const T g = gradient + weight_decay * p;
    buffer = momentum * buffer + g;
    p -= learning_rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

}  // namespace fn

/// Moments and step count; saved in checkpoints.
template <tensor_backend B>
struct optimiser_state {
  tensor<B> first, second, decay;
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
    b.fill(*first, T(0));
    b.fill(*second, T(0));
    steps = 0;
  }
};

/// One step with the learning rate multiplied by `factor` (of a schedule).
template <tensor_backend B>
void step(B& b, const adamw& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double factor = 1) {
  using T = typename B::scalar;
  ++state.steps;
  const double t = static_cast<double>(state.steps);
  b.map(fn::adamw_update<T>{T(o.learning_rate * factor), T(o.beta1), T(o.beta2), T(o.eps), T(o.weight_decay),
                            T(1 - std::pow(o.beta1, t)), T(1 - std::pow(o.beta2, t))},
        *parameters, *state.first, *state.second, *gradients, *std::as_const(state.decay));
}

template <tensor_backend B>
void step(B& b, const sgd& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double factor = 1) {
  using T = typename B::scalar;
  ++state.steps;
  b.map(fn::sgd_update<T>{T(o.learning_rate * factor), T(o.momentum), T(o.weight_decay), o.nesterov}, *parameters,
        *state.first, *gradients);
}

/// Scales the gradients down to the norm `limit` where they exceed it; returns their norm before.
template <tensor_backend B>
double clip_gradients(B& b, tensor<B>& gradients, double limit) {
  using T = typename B::scalar;
  scratch<B> total(b, 1, 1);
  b.row_reduce(fn::plus{}, fn::square{}, *total, *std::as_const(gradients));
  T sum = 0;
  b.download(&sum, (*total).data, 1);
  const double norm = std::sqrt(double(sum));
  if (norm > limit) b.map(fn::scale<T>{T(limit / norm)}, *gradients);
  return norm;
}

/// Linear warm-up over `warm_up` steps, then half a cosine down to 0 at `total`. Step 0 is the first.
inline double cosine_schedule(index step, index total, index warm_up) {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  const double done = static_cast<double>(step - warm_up) / static_cast<double>(std::max<index>(1, total - warm_up));
  return 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
}

}  // namespace core_tokensets
