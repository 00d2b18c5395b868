#pragma once
// Relevance through attention: from A v to v and A, through the softmax to the scores q k^T, and to q and k.

#include "core_tokensets/nn/lrp/layer_rules.hpp"
#include "core_tokensets/tensor/weighted_attention.hpp"

namespace core_tokensets::lrp {

/// The rules of its three operations.
struct attention_rules {
  product_rule product = {};
  softmax_rule softmax = {};
};

/// Activations of attention: q and out `[1, H, Tq, D]`, k, v `[1, H, Tk, D]`, probabilities a as `attention_rows` says.
template <class T>
struct attention_operands {
  view<const T> q, k, v, out;
  const T* a = nullptr;
  T scale = 1;  ///< of q k^T before the softmax; passes relevance on
};

/// From R `[1, H, Tq, D]` at the output to `r_a` (layout of a) at the probabilities, and rq, rk, rv (=). The
/// denominator of the scores is q k^T without scale.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const attention_rules& rules, B& b, const attention_rows& rows,
               const attention_operands<std::type_identity_t<T>>& x, const_view<T> r, T* r_a, view<T> rq, view<T> rk,
               view<T> rv) {
  const index heads = x.q.n1;
  const product_rule& rule = rules.product;
  require_finite("relevance: share of the left factor", rule.left);
  require_finite("relevance: share of the right factor", rule.right);
  const divide<T> over(rule.over);
  ops::for_each_head(b, rows.count(), heads, [&](index sample, index first, index count) {
    const index nq = rows.queries().length(sample), nk = rows.keys().length(sample);
    const auto query = [&](auto v) {
      return ops::some_heads(v, first, count).slice_rows(rows.queries().begin(sample), nq);
    };
    const auto key = [&](auto v) { return ops::some_heads(v, first, count).slice_rows(rows.keys().begin(sample), nk); };
    const view<const T> a = ops::some_heads(rows.matrices(x.a, sample, heads), first, count);
    const view<T> ra = ops::some_heads(rows.matrices(r_a, sample, heads), first, count);
    scratch<B> at_out(b, count * nq, x.q.cols), scores(b, count * nq, nk), totals(b, count * nq, 1);
    const view<T> s(at_out.data(), 1, count, nq, x.q.cols, 0, nq * x.q.cols, x.q.cols);
    const view<T> z(scores.data(), 1, count, nq, nk, 0, nq * nk, nk), total(totals.data(), 1, count, nq, 1, 0, nq, 1);

    b.map(share<T>{over}, s, query(r), query(x.out));
    b.gemm(a, s, key(rv), {.transpose_a = true});
    b.map(scale_product<T>{T(rule.right)}, key(rv), key(x.v));
    if (rule.left == 0) {
      for (const view<T>& nothing : {ra, query(rq), key(rk)}) b.fill(nothing, T(0));
      return;
    }
    b.gemm(s, key(x.v), ra, {.transpose_b = true});
    b.map(scale_product<T>{T(rule.left)}, ra, a);
    b.gemm(query(x.q), key(x.k), z, {.transpose_b = true});
    if (rules.softmax.how == softmax_rule::way::taylor) {
      // z becomes S = R_s / z; R_s = (z scale)(R_A - A sum R_A), kept apart in `at_scores`.
      scratch<B> at_scores(b, count * nq, nk);
      const view<T> rs(at_scores.data(), 1, count, nq, nk, 0, nq * nk, nk);
      b.row_reduce(fn::plus{}, fn::value{}, total, view<const T>(ra));
      b.map(fn::copy{}, rs, view<const T>(z));
      b.map(softmax_result<T>{x.scale}, rs, view<const T>(ra), a, view<const T>(total));
      b.map(share<T>{over}, z, view<const T>(rs), view<const T>(z));
    } else {
      b.map(share<T>{over}, z, view<const T>(ra), view<const T>(z));
    }
    b.gemm(z, key(x.k), query(rq));
    b.map(scale_product<T>{T(rule.left)}, query(rq), query(x.q));
    b.gemm(z, query(x.q), key(rk), {.transpose_a = true});
    b.map(scale_product<T>{T(rule.right)}, key(rk), key(x.k));
  });
}

}  // namespace core_tokensets::lrp
