#pragma once
// Conformance of the row operations and linear layers of ops.hpp, a backend's own version and the default.

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/ops.hpp"
#include "tensor/conformance/suite.hpp"

namespace conformance {

template <class B>
void check_norms(suite<B>& s, index rows, index cols) {
  const std::string on = describe(" [", rows, ", ", cols, "]");
  const shape all{1, 1, rows, cols}, row{1, 1, 1, cols}, column{1, 1, rows, 1};
  const shape heads{1, 3, rows, cols};
  s.check_fused("softmax [1, 3," + on + "]", cols, {{heads, start::random}},
                []<class X>(X& x, operands<X>& out) { cts::ops::softmax(x, out[0].mut()); });
  s.check_fused("layer_norm" + on, 8 * cols, {{all}, {column}, {column}}, [&]<class X>(X& x, operands<X>& out) {
    using T = typename X::scalar;
    const operand<X> p(x, all, 1), gamma(x, row, 2), beta(x, row, 3);
    cts::ops::layer_norm<X, T>(x, p.get(), gamma.get(), beta.get(), out[0].mut(), out[1].mut(), out[2].mut(), T(0.5));
  });
  for (const bool parameters : {true, false}) {
    const index terms = 64 * std::max(rows, cols);
    s.check_fused(describe("layer_norm_backward", on, ", parameters ", parameters), terms,
                  {{all}, {row, start::random}, {row, start::random}}, [&]<class X>(X& x, operands<X>& out) {
                    using T = typename X::scalar;
                    const operand<X> p(x, all, 1), gamma(x, row, 2), dy(x, all, 3);
                    operand<X> mean(x, column, 4), rstd(x, column, 5);
                    const cts::view<T> none;
                    cts::ops::layer_norm_backward<X, T>(
                        x, p.get(), gamma.get(), std::as_const(mean).get(), std::as_const(rstd).get(), dy.get(),
                        out[0].mut(), parameters ? out[1].mut() : none, parameters ? out[2].mut() : none);
                  });
  }
}

template <class B>
void check_linear(suite<B>& s, index rows, index in, index out_cols) {
  const std::string on = describe(" [", rows, ", ", in, "] to ", out_cols);
  const shape x_shape{1, 1, rows, in}, y_shape{1, 1, rows, out_cols}, w_shape{1, 1, out_cols, in},
      bias_shape{1, 1, 1, out_cols};
  for (const bool with_bias : {false, true}) {
    for (const bool with_residual : {false, true}) {
      s.check_fused(describe("linear", on, ", bias ", with_bias, ", residual ", with_residual), in, {{y_shape}},
                    [&]<class X>(X& x, operands<X>& out) {
                      using T = typename X::scalar;
                      const operand<X> p(x, x_shape, 1), w(x, w_shape, 2), bias(x, bias_shape, 3),
                          residual(x, y_shape, 4);
                      const cts::view<const T> none;
                      cts::ops::linear<X, T>(x, p.get(), w.get(), with_bias ? bias.get() : none,
                                             with_residual ? residual.get() : none, out[0].mut());
                    });
    }
    s.check_fused(describe("linear_gelu", on, ", bias ", with_bias), in, {{y_shape}, {y_shape}},
                  [&]<class X>(X& x, operands<X>& out) {
                    using T = typename X::scalar;
                    const operand<X> p(x, x_shape, 1), w(x, w_shape, 2), bias(x, bias_shape, 3);
                    const cts::view<const T> none;
                    cts::ops::linear_gelu<X, T>(x, p.get(), w.get(), with_bias ? bias.get() : none, out[0].mut(),
                                                out[1].mut());
                  });
    s.check_fused(describe("linear_backward_weight", on, ", bias ", with_bias), rows,
                  {{w_shape, start::random}, {bias_shape, start::random}}, [&]<class X>(X& x, operands<X>& out) {
                    using T = typename X::scalar;
                    const operand<X> p(x, x_shape, 1), dy(x, y_shape, 2);
                    const cts::view<T> none;
                    cts::ops::linear_backward_weight<X, T>(x, p.get(), dy.get(), out[0].mut(),
                                                           with_bias ? out[1].mut() : none);
                  });
  }
  s.check_fused("linear_backward_input" + on, out_cols, {{x_shape}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> dy(x, y_shape, 1), w(x, w_shape, 2);
    cts::ops::linear_backward_input<X, typename X::scalar>(x, dy.get(), w.get(), out[0].mut());
  });
  s.check_fused("linear_gelu_backward_input" + on, out_cols, {{x_shape}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> dy(x, y_shape, 1), w(x, w_shape, 2), pre(x, x_shape, 3);
    cts::ops::linear_gelu_backward_input<X, typename X::scalar>(x, dy.get(), w.get(), pre.get(), out[0].mut());
  });
}

template <class B>
void check_cross_entropy(suite<B>& s, index samples, index classes, bool weighted, bool competing, double smoothing) {
  const std::string what = describe("cross_entropy [", samples, ", ", classes, "], weights ", weighted,
                                    ", first_class ", competing, ", label_smoothing ", smoothing);
  std::vector<std::int32_t> first, target;
  std::vector<float> weight;
  cts::random_stream random(11);
  for (index i = 0; i < samples; ++i) {
    first.push_back(competing ? static_cast<std::int32_t>(random.below(classes)) : 0);
    target.push_back(first.back() + static_cast<std::int32_t>(random.below(classes - first.back())));
    weight.push_back(static_cast<float>(random.uniform()));
  }
  s.check_fused(what, classes, {{{1, 1, samples, classes}}, {{1, 1, samples, 1}}},
                [&]<class X>(X& x, operands<X>& out) {
                  using T = typename X::scalar;
                  const operand<X> logits(x, {1, 1, samples, classes}, 1);
                  cts::row_list<X> targets, firsts;
                  cts::tensor<X> weights;
                  const std::vector<T> host(weight.begin(), weight.end());
                  targets.assign(x, target);
                  firsts.assign(x, first);
                  weights.assign(x, samples, 1, host.data());
                  cts::ops::cross_entropy<X, T>(x, logits.get(),
                                                {.targets = targets.data(),
                                                 .first_class = competing ? firsts.data() : nullptr,
                                                 .weights = weighted ? weights.data() : nullptr,
                                                 .label_smoothing = T(smoothing)},
                                                out[0].mut(), out[1].mut());
                });
}

template <class B>
void check_fused(suite<B>& s) {
  for (const auto& [rows, cols] : {std::pair{1, 1}, {7, 16}, {67, 37}, {131, 192}, {300, 1}, {0, 5}}) {
    check_norms(s, rows, cols);
  }
  for (const auto& [rows, in, out] :
       {std::tuple{1, 1, 1}, {7, 5, 13}, {67, 131, 97}, {300, 48, 13}, {601, 64, 192}, {0, 5, 3}}) {
    check_linear(s, rows, in, out);
  }
  for (const auto& [samples, classes] : {std::pair{1, 1}, {7, 13}, {131, 67}, {0, 3}}) {
    for (const bool weighted : {false, true}) {
      check_cross_entropy(s, samples, classes, weighted, false, 0);
      check_cross_entropy(s, samples, classes, weighted, true, 0.1);
    }
  }
}

}  // namespace conformance
