#pragma once
// Distillation from the model as the task found it (Learning without Forgetting, Li & Hoiem, ECCV 2016): it costs a
// second forward pass and no byte on disk.

#include "core_tokensets/train/objectives/cross_entropy.hpp"

namespace core_tokensets {

namespace fn {

struct scaled_copy_by {
  double factor;
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in * T(factor);
  }
};

/// d += factor weight (p - q)
struct add_weighted_difference {
  double factor;
  template <class T>
  constexpr void operator()(T& d, const T& p, const T& q, const T& weight) const {
    d += T(factor) * weight * (p - q);
  }
  template <class T>
  constexpr void operator()(T& d, const T& p, const T& q) const {
    d += T(factor) * (p - q);
  }
};

/// q log(q / p), 0 where q is
struct divergence_term {
  template <class T>
  constexpr T operator()(const T& q, const T& p) const {
    return q > T(0) ? q * (std::log(q) - std::log(p > T(1e-30) ? p : T(1e-30))) : T(0);
  }
};

struct add_scaled {
  double factor;
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out += T(factor) * in;
  }
};

}  // namespace fn

/// `base`, plus `weight` t^2 KL(softmax(z' / t) || softmax(z / t)) over the classes that the start model knew, z' being
/// its logits and t the `temperature`.
template <class Base = ace>
struct distilled {
  static constexpr const char* name = "distilled";
  static constexpr const char* about = "asymmetric cross-entropy, and distillation from the model as the task found it";
  static constexpr bool uses_start_model = true;
  Base base = {};
  double weight = 1, temperature = 2;

  index on_equal_footing(index fresh, index replayed, index first_class, index classes) const {
    return core_tokensets::on_equal_footing(base, fresh, replayed, first_class, classes);
  }

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("weight", self.weight);
    visit("temperature", self.temperature);
    if constexpr (requires { Base::options(self.base, visit); }) Base::options(self.base, visit);
  }
};

template <class Base, tensor_backend B, class T = typename B::scalar>
void loss(const distilled<Base>& o, B& b, const_view<T> logits, const objective_batch<T>& batch, loss_tape<B>& tape) {
  loss(o.base, b, logits, batch, tape);
  if (batch.start_logits.empty()) return;
  require(o.temperature > 0 && o.weight >= 0, "distilled: weight ", o.weight, ", temperature ", o.temperature,
          ", expected at least 0, and more than 0");
  const index rows = logits.rows, classes = batch.start_logits.cols;
  require(batch.start_logits.rows == rows && classes <= logits.cols, "distilled: ", batch.start_logits.rows, " x ",
          classes, " logits of the start model for ", rows, " x ", logits.cols);
  scratch<B> p(b, rows, classes), q(b, rows, classes), divergence(b, rows, 1);
  b.map(fn::scaled_copy_by{1 / o.temperature}, *p, logits.slice_cols(0, classes));
  b.map(fn::scaled_copy_by{1 / o.temperature}, *q, batch.start_logits);
  ops::softmax<B, T>(b, *p);
  ops::softmax<B, T>(b, *q);
  const view<const T> known = *p, wanted = *q;
  const fn::add_weighted_difference difference{o.weight * o.temperature / static_cast<double>(rows)};
  const view<T> d = (*tape.dlogits).slice_cols(0, classes);
  if (tape.weights.empty()) {
    b.map(difference, d, known, wanted);
  } else {
    b.map(difference, d, known, wanted, *std::as_const(tape.weights));
  }
  b.row_reduce(fn::plus{}, fn::divergence_term{}, *divergence, wanted, known);
  b.map(fn::add_scaled{o.weight * o.temperature * o.temperature}, *tape.losses, view<const T>(*divergence));
}

}  // namespace core_tokensets
