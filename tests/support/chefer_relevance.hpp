#pragma once
// The rules of Chefer, Gur & Wolf (CVPR 2021) operation by operation, for the tokens of one sample: thin uses of the
// rules in nn/lrp/. `lrp::chefer()` is the composite of them.

#include "core_tokensets/nn/block.hpp"
#include "core_tokensets/nn/lrp/composite.hpp"
#include "core_tokensets/nn/lrp/elementwise.hpp"
#include "core_tokensets/nn/lrp/linear.hpp"

namespace support::chefer {

namespace cts = core_tokensets;

namespace detail {
/// out = x sd(r1, x) + x sd(r2, x)
struct clone {
  template <class T>
  constexpr void operator()(T& out, const T& r1, const T& r2, const T& x) const {
    out = x * (cts::fn::safe_divide(r1, x) + cts::fn::safe_divide(r2, x));
  }
};
}  // namespace detail

/// The weight `[Out, In]` of a linear layer, as `linear_relevance` takes it.
template <cts::tensor_backend B>
struct split_weight {
  cts::view<const typename B::scalar> whole;
  split_weight(B&, cts::const_view<typename B::scalar> w) : whole(w) {}
};

/// Linear map (bias ignored): Z = W+ x+ + W- x-, S = R / Z, R_in = x+ (W+^T S) + x- (W-^T S).
template <cts::tensor_backend B, class T = typename B::scalar>
void linear_relevance(B& b, const split_weight<B>& w, cts::const_view<T> x, cts::const_view<T> r, cts::view<T> r_in) {
  cts::lrp::relevance<B, T>(cts::lrp::chefer_linear{}.plan(), b, {.weight = w.whole}, x, r, r_in);
}

/// Sum = a + other: each part takes its share of R, and the two totals are made to add up to the total of R again.
template <cts::tensor_backend B, class T = typename B::scalar>
void add_relevance(B& b, cts::const_view<T> r, cts::const_view<T> a, cts::const_view<T> sum, cts::view<T> ra,
                   cts::view<T> rb) {
  cts::lrp::sample_rows<B> one;
  one.assign(b, cts::sequences{{0, r.rows}});
  cts::lrp::relevance<B, T>(cts::lrp::chefer().residual, b, one, r, a, sum, ra, rb);
}

/// Relevance of a product of attention and values, and through the scores: from R at A v `[n, C]` to R at packed qkv
/// `[n, 3 C]` and at A (`r_attention`, `[H, n, n]`).
template <cts::tensor_backend B, class T = typename B::scalar>
void attention_relevance(B& b, cts::index heads, cts::const_view<T> qkv, cts::const_view<T> a,
                         cts::const_view<T> context, cts::const_view<T> r, cts::view<T> r_attention,
                         cts::view<T> r_qkv) {
  const cts::sequences one{{0, qkv.rows}};
  cts::lrp::relevance<B, T>(cts::lrp::chefer().attention, b, cts::attention_rows(one),
                            {.q = cts::qkv_part(qkv, 0, heads),
                             .k = cts::qkv_part(qkv, 1, heads),
                             .v = cts::qkv_part(qkv, 2, heads),
                             .out = context.split_cols(heads),
                             .a = a.data},
                            r.split_cols(heads), r_attention.data, cts::qkv_part(r_qkv, 0, heads),
                            cts::qkv_part(r_qkv, 1, heads), cts::qkv_part(r_qkv, 2, heads));
}

}  // namespace support::chefer
