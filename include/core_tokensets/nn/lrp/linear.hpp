#pragma once
// One executor for all relevance rules of linear layers (linear_rule.hpp).

#include <array>
#include <span>

#include "core_tokensets/nn/linear.hpp"
#include "core_tokensets/nn/lrp/linear_rule.hpp"

namespace core_tokensets::lrp {

/// What a rule may read of a linear layer: weight `[Out, In]`, bias `[1, Out]` (may be empty), and its output `[T,
/// Out]` where the caller has it (else it is computed where a rule needs it).
template <class T>
struct linear_operands {
  view<const T> weight, bias = {}, output = {};
  view<const T> low = {}, high = {};  ///< [T, 1] bounds of each row's input; empty: those of the rule
};

namespace detail {

/// A plan at work on one layer; the weights that its terms need are made once.
template <tensor_backend B>
class linear_pass {
 public:
  using T = typename B::scalar;

  linear_pass(B& b, const linear_plan& plan, const linear_operands<T>& layer, view<const T> x)
      : b_(b),
        plan_(plan),
        layer_(layer),
        x_(x),
        weight_memory_(b, count_made(plan) * layer.weight.rows, layer.weight.cols),
        input_memory_(b, x.rows, x.cols),
        product_(b, x.rows, x.cols) {
    index made = 0;
    for (int i = 0; i < plan.term_count; ++i) {
      if (!needs_memory(term_at(i))) {
        weights_[at(i)] = layer.weight;
      } else {
        weights_[at(i)] =
            make_weight(term_at(i), (*weight_memory_).slice_rows(made++ * layer.weight.rows, layer.weight.rows));
      }
    }
  }

  /// z = sum of x' W'^T over the terms of group g, plus its part of the bias.
  void denominator(int g, view<T> z) {
    bool first = true;
    for (int i = 0; i < plan_.term_count; ++i) {
      const linear_term& t = term_at(i);
      if (t.group != g) continue;
      if (t.input == input_kind::parts) {
        b_.gemm(input_part(t.of_input), weights_[at(i)], z, {.transpose_b = true, .beta = first ? 0.0 : 1.0});
      } else {
        if (first) b_.fill(z, T(0));
        scratch<B> sums(b_, z.cols, 1), number(b_, 1, 1);
        b_.row_reduce(fn::plus{}, fn::value{}, *sums, weights_[at(i)]);
        b_.map(add_product{}, z, view<const T>(sums.data(), 1, z.cols), constant(t, *number));
      }
      first = false;
    }
    const linear_group& group = plan_.groups[at(g)];
    if (group.of_bias.none() || layer_.bias.empty()) return;
    scratch<B> bias(b_, 1, z.cols);
    if (group.squared_bias) {
      b_.map(squared{}, *bias, layer_.bias);
    } else {
      b_.map(sides_of(group.of_bias), *bias, layer_.bias);
    }
    b_.map(fn::add{}, z, view<const T>(*bias));
  }

  /// R_in += factor x' (S W') over the terms of group g, (=) for the first group.
  void distribute(int g, view<const T> s, view<T> r_in) {
    for (int i = 0; i < plan_.term_count; ++i) {
      const linear_term& t = term_at(i);
      if (t.group != g) continue;
      scratch<B> number(b_, 1, 1);
      b_.gemm(s, weights_[at(i)], *product_);
      const bool parts = t.input == input_kind::parts;
      const view<const T> input = parts ? x_ : constant(t, *number), p = *product_;
      const auto sides = sides_of(parts ? t.of_input : both_sides);
      if (i == 0) {
        b_.map(term<T>{T(t.factor), sides}, r_in, p, input);
      } else {
        b_.map(add_term<T>{T(t.factor), sides}, r_in, p, input);
      }
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  static bool needs_memory(const linear_term& t) { return t.weight != weight_kind::parts || !t.of_weight.whole(); }
  static index count_made(const linear_plan& plan) {
    index n = 0;
    for (int i = 0; i < plan.term_count; ++i) n += needs_memory(plan.terms[at(i)]) ? 1 : 0;
    return n;
  }
  static weigh_sides<T> sides_of(const sides& s) { return {T(s.positive), T(s.negative)}; }
  const linear_term& term_at(int i) const { return plan_.terms[at(i)]; }

  view<const T> make_weight(const linear_term& t, view<T> out) {
    if (t.weight == weight_kind::ones) {
      b_.fill(out, T(1));
    } else if (t.weight == weight_kind::squared) {
      b_.map(squared{}, out, layer_.weight);
    } else {
      b_.map(sides_of(t.of_weight), out, layer_.weight);
    }
    return out;
  }
  view<const T> input_part(const sides& s) {
    if (s.whole()) return x_;
    b_.map(sides_of(s), *input_memory_, x_);
    return *input_memory_;
  }
  /// An input that is the same number in the whole row: a column `[T, 1]`, or one number for all rows in `memory`.
  view<const T> constant(const linear_term& t, view<T> memory) {
    const bool low = t.input == input_kind::low, high = t.input == input_kind::high;
    if (low && !layer_.low.empty()) return layer_.low;
    if (high && !layer_.high.empty()) return layer_.high;
    b_.fill(memory, low ? T(plan_.low) : high ? T(plan_.high) : T(1));
    return memory;
  }

  B& b_;
  const linear_plan& plan_;
  const linear_operands<T>& layer_;
  view<const T> x_;
  scratch<B> weight_memory_, input_memory_, product_;
  std::array<view<const T>, 4> weights_;
};

/// True if the denominator of the plan is the layer's own output, so that it need not be computed again.
template <class T>
bool divides_by_output(const linear_plan& plan, const linear_operands<T>& layer) {
  const linear_term& t = plan.terms[0];
  return !layer.output.empty() && plan.term_count == 1 && t.input == input_kind::parts && t.of_input.whole() &&
         t.weight == weight_kind::parts && t.of_weight.whole() &&
         (layer.bias.empty() || plan.groups[0].of_bias.whole());
}

}  // namespace detail

/// From R `[T, Out]` at the output of a linear layer to R_in `[T, In]` (=) at its input x `[T, In]`; `r_in` and `r` are
/// different memory. `Error`: `identity` on a layer that changes the width.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const linear_plan& plan, B& b, const linear_operands<std::type_identity_t<T>>& layer, const_view<T> x,
               const_view<T> r, view<T> r_in) {
  if (plan.pass) {
    require(r.cols == r_in.cols, "lrp: identity on a linear layer from ", r_in.cols, " to ", r.cols, " channels");
    b.map(fn::copy{}, r_in, r);
    return;
  }
  require(!plan.pixels, "lrp: chefer_pixels is a rule of the patch embedding only");
  detail::linear_pass<B> pass(b, plan, layer, x);
  const bool by_side = plan.groups[0].output != 0;
  scratch<B> memory(b, r.rows, r.cols), output(b, by_side && layer.output.empty() ? r.rows : 0, r.cols);
  const view<T> s = *memory;
  view<const T> y = layer.output;
  if (by_side && y.empty()) {
    ops::linear<B, T>(b, x, layer.weight, layer.bias, {}, *output);
    y = *output;
  }
  for (int g = 0; g < plan.group_count; ++g) {
    const bool by_output = detail::divides_by_output(plan, layer);
    if (!by_output) pass.denominator(g, s);
    const view<const T> z = by_output ? layer.output : view<const T>(s);
    const int side = plan.groups[static_cast<std::size_t>(g)].output;
    if (side != 0) {
      b.map(share_of_side<T>{divide<T>(plan.over), T(side)}, s, r, z, y);
    } else {
      b.map(share<T>{divide<T>(plan.over)}, s, r, z);
    }
    pass.distribute(g, s, r_in);
  }
}

/// The same for a layer of a model; `y` is its output or empty.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const linear_rule& rule, B& b, const linear& l, parameter_view<const T> p, const_view<T> x,
               const_view<T> y, const_view<T> r, view<T> r_in) {
  relevance<B, T>(rule.plan(), b, {.weight = p[l.weight], .bias = p[l.bias], .output = y}, x, r, r_in);
}

}  // namespace core_tokensets::lrp
