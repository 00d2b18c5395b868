#pragma once
// AdamW and SGD with momentum over the whole parameter array, gradient clipping, and the cosine schedule.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <numbers>
#include <span>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/nn/parameters.hpp"
#include "core_tokensets/tensor/tensor.hpp"

namespace core_tokensets {

/// AdamW (Loshchilov & Hutter 2019), decay decoupled and only on matrices. Without decay it is Adam.
struct adamw {
  static constexpr const char* name = "adamw";
  static constexpr const char* about = "AdamW, decay on matrices only";
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.05;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("learning_rate", self.learning_rate);
    visit("beta1", self.beta1);
    visit("beta2", self.beta2);
    visit("eps", self.eps);
    visit("weight_decay", self.weight_decay);
  }
};

/// SGD: buffer = momentum buffer + g, then p -= lr buffer, or p -= lr (g + momentum buffer) for Nesterov.
/// `weight_decay` is decoupled and only on matrices, as in AdamW; `l2` is PyTorch's coupled decay, g += l2 p on all
/// parameters.
struct sgd {
  static constexpr const char* name = "sgd";
  static constexpr const char* about = "stochastic gradient descent with momentum";
  double learning_rate = 1e-2, momentum = 0.9, weight_decay = 0, l2 = 0;
  bool nesterov = false;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("learning_rate", self.learning_rate);
    visit("momentum", self.momentum);
    visit("weight_decay", self.weight_decay);
    visit("l2", self.l2);
    visit("nesterov", self.nesterov);
  }
};

/// `Error`: numbers with which no step makes sense.
inline void check(const adamw& o) {
  require_within("adamw: learning_rate", o.learning_rate, 0);
  require_within("adamw: beta1", o.beta1, 0, 1);
  require_within("adamw: beta2", o.beta2, 0, 1);
  require(o.beta1 < 1 && o.beta2 < 1, "adamw: beta1 ", o.beta1, ", beta2 ", o.beta2, ", expected less than 1");
  require_within("adamw: eps", o.eps, 0);
  require_within("adamw: weight_decay", o.weight_decay, 0);
}
inline void check(const sgd& o) {
  require_within("sgd: learning_rate", o.learning_rate, 0);
  require_within("sgd: momentum", o.momentum, 0, 1);
  require_within("sgd: weight_decay", o.weight_decay, 0);
  require_within("sgd: l2", o.l2, 0);
}

/// What `--optimiser` chooses between, the default first.
using optimisers = choices<adamw, sgd>;

/// Parameters `[begin, begin + count)` whose learning rate is multiplied by `rate`.
struct parameter_group {
  index begin = 0, count = 0;
  double rate = 1;
};

/// All parameters as groups: those whose names `slow` accepts learn at `rate` times the pace of the others. Neighbours
/// of the same pace are one group.
template <class Slow>
std::vector<parameter_group> parameter_groups(const parameter_layout& layout, double rate, const Slow& slow) {
  require_within("parameter groups: rate", rate, 0);
  std::vector<parameter_group> groups;
  const auto& table = layout.table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    const index begin = table[i].where.offset, end = i + 1 < table.size() ? table[i + 1].where.offset : layout.size();
    const double pace = slow(table[i].name) ? rate : 1.0;
    if (groups.empty() || groups.back().rate != pace) groups.push_back({begin, 0, pace});
    groups.back().count = end - groups.back().begin;
  }
  return groups;
}

namespace fn {

/// Operands: parameter, moments, gradient, decay mask, factor of the gradient.
template <class T>
struct adamw_update {
  static constexpr bool is_long = true;
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
/// factor stays in the backend's memory, so nothing waits for it. `Error`: a limit that is not positive.
template <tensor_backend B>
void clip_gradients(B& b, const tensor<B>& gradients, double limit, optimiser_state<B>& state) {
  using T = typename B::scalar;
  require(limit > 0, "clip_gradients: a norm of at most ", limit, ", expected more than 0");
  b.row_reduce(fn::plus{}, fn::square{}, *state.factor, *gradients);
  b.map(fn::clip_factor<T>{T(limit)}, *state.factor, *std::as_const(state.factor));
}

namespace detail {

/// Calls `update(group's rate, begin, count)` for each group, or for all `size` parameters as one.
template <class Update>
void for_each_group(std::span<const parameter_group> groups, index size, const Update& update) {
  if (groups.empty()) update(1.0, index{0}, size);
  for (const auto& g : groups) {
    require_within("parameter groups: rate", g.rate, 0);
    require(g.begin >= 0 && g.count >= 0 && g.begin + g.count <= size, "parameter groups: ", g.begin, " and the ",
            g.count, " behind, of ", size, " parameters");
    update(g.rate, g.begin, g.count);
  }
}

}  // namespace detail

/// One step with the learning rate multiplied by `schedule`, and by the rate of each group where there are groups.
/// `Error`: see `check`; a schedule or rate that is negative or no number, a group outside of the parameters.
template <tensor_backend B>
void step(B& b, const adamw& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1, std::span<const parameter_group> groups = {}) {
  using T = typename B::scalar;
  check(o);
  require_within("step: schedule", schedule, 0);
  ++state.steps;
  const double t = static_cast<double>(state.steps);
  detail::for_each_group(groups, parameters.size(), [&](double rate, index begin, index count) {
    b.map(fn::adamw_update<T>{T(o.learning_rate * schedule * rate), T(o.beta1), T(o.beta2), T(o.eps), T(o.weight_decay),
                              T(1 - std::pow(o.beta1, t)), T(1 - std::pow(o.beta2, t))},
          (*parameters).slice_cols(begin, count), (*state.first).slice_cols(begin, count),
          (*state.second).slice_cols(begin, count), (*gradients).slice_cols(begin, count),
          (*std::as_const(state.decay)).slice_cols(begin, count), *std::as_const(state.factor));
  });
}

template <tensor_backend B>
void step(B& b, const sgd& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1, std::span<const parameter_group> groups = {}) {
  using T = typename B::scalar;
  check(o);
  require_within("step: schedule", schedule, 0);
  ++state.steps;
  detail::for_each_group(groups, parameters.size(), [&](double rate, index begin, index count) {
    b.map(
        fn::sgd_update<T>{T(o.learning_rate * schedule * rate), T(o.momentum), T(o.weight_decay), T(o.l2), o.nesterov},
        (*parameters).slice_cols(begin, count), (*state.first).slice_cols(begin, count),
        (*gradients).slice_cols(begin, count), (*std::as_const(state.decay)).slice_cols(begin, count),
        *std::as_const(state.factor));
  });
}

/// An optimiser: `step(o, ...)` moves the parameters against the gradients.
template <class O, class B>
concept optimiser = std::copyable<O> && tensor_backend<B> &&
    requires(B& b, const O& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
             std::span<const parameter_group> groups) {
  step(b, o, state, parameters, gradients, 1.0, groups);
};

/// Linear warm-up over `warm_up` steps, then half a cosine down to 0 at `total`. Step 0 is the first.
inline double cosine_schedule(index step, index total, index warm_up) {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  const double done = static_cast<double>(step - warm_up) / static_cast<double>(std::max<index>(1, total - warm_up));
  return 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
}

}  // namespace core_tokensets
