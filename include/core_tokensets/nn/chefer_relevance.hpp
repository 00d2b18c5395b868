#pragma once
// The relevance rules of Chefer, Gur & Wolf (CVPR 2021), "transformer attribution": alpha = 1, beta = 0 for linear
// maps, a renormalised rule for sums, and halves for the two products of attention. Norms, GELU and softmax pass
// relevance on. All for the tokens of one sample; x / y below is `fn::safe_divide`.

#include <cmath>

#include "core_tokensets/nn/block.hpp"

namespace core_tokensets::chefer {

namespace detail {
/// out = x sd(r1, x) + x sd(r2, x)
struct clone {
  template <class T>
  constexpr void operator()(T& out, const T& r1, const T& r2, const T& x) const {
    out = x * (fn::safe_divide(r1, x) + fn::safe_divide(r2, x));
  }
};
/// ra = a sd(r, a + b), rb = b sd(r, a + b)
struct share {
  template <class T>
  constexpr void operator()(T& ra, T& rb, const T& r, const T& a, const T& sum) const {
    const T s = fn::safe_divide(r, sum);
    const T other = sum - a;
    ra = a * s;
    rb = other * s;
  }
};
/// Factors of the two parts of a sum from their totals and the total of the whole.
struct share_factors {
  template <class T>
  constexpr void operator()(T& fa, T& fb, const T& total) const {
    const T sa = fa < 0 ? -fa : fa, sb = fb < 0 ? -fb : fb;
    fa = fn::safe_divide(fn::safe_divide(sa, sa + sb) * total, fa);
    fb = fn::safe_divide(fn::safe_divide(sb, sa + sb) * total, fb);
  }
};
/// out = a p + b q
struct two_products {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& p, const T& b, const T& q) const {
    out = a * p + b * q;
  }
};
/// out = out x / 2
struct half_product {
  template <class T>
  constexpr void operator()(T& out, const T& x) const {
    out *= x * T(0.5);
  }
};
}  // namespace detail

/// Positive and negative part of a weight `[Out, In]`.
template <tensor_backend B>
struct split_weight {
  scratch<B> plus, minus;
  split_weight(B& b, const_view<typename B::scalar> w) : plus(b, w.rows, w.cols), minus(b, w.rows, w.cols) {
    b.map(fn::positive_part{}, *plus, w);
    b.map(fn::negative_part{}, *minus, w);
  }
};

/// Linear map (bias ignored): Z = W+ x+ + W- x-, S = R / Z, R_in = x+ (W+^T S) + x- (W-^T S).
template <tensor_backend B, class T = typename B::scalar>
void linear_relevance(B& b, const split_weight<B>& w, const_view<T> x, const_view<T> r, view<T> r_in) {
  scratch<B> plus(b, x.rows, x.cols), minus(b, x.rows, x.cols), z(b, r.rows, r.cols), p(b, x.rows, x.cols),
      q(b, x.rows, x.cols);
  b.map(fn::positive_part{}, *plus, x);
  b.map(fn::negative_part{}, *minus, x);
  b.gemm(*plus, *w.plus, *z, {.transpose_b = true});
  b.gemm(*minus, *w.minus, *z, {.transpose_b = true, .beta = 1});
  b.map(fn::divide_safely{}, *z, r, view<const T>(*z));
  b.gemm(*z, *w.plus, *p);
  b.gemm(*z, *w.minus, *q);
  b.map(detail::two_products{}, r_in, view<const T>(*plus), view<const T>(*p), view<const T>(*minus),
        view<const T>(*q));
}

/// Sum = a + other: each part takes its share of R, and the two totals are made to add up to the total of R again.
template <tensor_backend B, class T = typename B::scalar>
void add_relevance(B& b, const_view<T> r, const_view<T> a, const_view<T> sum, view<T> ra, view<T> rb) {
  scratch<B> memory(b, 3, 1);
  const view<T> total = (*memory).slice_rows(0, 1), fa = (*memory).slice_rows(1, 1), fb = (*memory).slice_rows(2, 1);
  b.map(detail::share{}, ra, rb, r, a, sum);
  b.row_reduce(fn::plus{}, fn::value{}, total, r.flat());
  b.row_reduce(fn::plus{}, fn::value{}, fa, view<const T>(ra).flat());
  b.row_reduce(fn::plus{}, fn::value{}, fb, view<const T>(rb).flat());
  b.map(detail::share_factors{}, fa, fb, view<const T>(total));
  b.map(fn::multiply{}, ra, view<const T>(fa));
  b.map(fn::multiply{}, rb, view<const T>(fb));
}

/// Relevance of a product of attention and values, and through the scores: from R at A v `[n, C]` to R at packed qkv
/// `[n, 3 C]` and at A (`attention_relevance`, `[H, n, n]`). S = R / (A v), R_A = A (S v^T) / 2, R_v = v (A^T S) / 2;
/// then with Z = q k^T (no scale) S = R_A / Z, R_q = q (S k) / 2, R_k = k (S^T q) / 2.
template <tensor_backend B, class T = typename B::scalar>
void attention_relevance(B& b, index heads, const_view<T> qkv, const_view<T> a, const_view<T> context, const_view<T> r,
                         view<T> r_attention, view<T> r_qkv) {
  const index n = qkv.rows;
  scratch<B> s(b, n, context.cols), memory(b, heads * n, n);
  const view<T> z((*memory).data, 1, heads, n, n, 0, n * n, n);
  const auto q = qkv_part(qkv, 0, heads), k = qkv_part(qkv, 1, heads), v = qkv_part(qkv, 2, heads);
  const auto rq = qkv_part(r_qkv, 0, heads), rk = qkv_part(r_qkv, 1, heads), rv = qkv_part(r_qkv, 2, heads);
  b.map(fn::divide_safely{}, *s, r, context);
  const view<const T> sh = (*s).split_cols(heads);
  b.gemm(sh, v, r_attention, {.transpose_b = true});
  b.map(detail::half_product{}, r_attention, a);
  b.gemm(a, sh, rv, {.transpose_a = true});
  b.map(detail::half_product{}, rv, v);
  b.gemm(q, k, z, {.transpose_b = true});
  b.map(fn::divide_safely{}, z, view<const T>(r_attention), view<const T>(z));
  b.gemm(z, k, rq);
  b.map(detail::half_product{}, rq, q);
  b.gemm(z, q, rk, {.transpose_a = true});
  b.map(detail::half_product{}, rk, k);
}

/// From relevance at the output of a block to relevance at its input, in place in `r` `[T, C]`; each sample on its own.
/// `x` and `y` `[T, C]` are the block's input and output, `r_attention` receives R_A as `rows` says.
template <tensor_backend B, class T = typename B::scalar>
void block_relevance(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
                     const_view<T> y, const block_tape<B>& tape, T* r_attention, view<T> r) {
  const split_weight<B> w_qkv(b, p[l.qkv.weight]), w_proj(b, p[l.proj.weight]), w_fc1(b, p[l.fc1.weight]),
      w_fc2(b, p[l.fc2.weight]);
  const index dim = x.cols, hidden = l.fc1.weight.rows;
  ops::for_each_sample(b, rows.count(), [&](index s) {
    const index begin = rows.queries().begin(s), n = rows.queries().length(s);
    const auto part = [&](const_view<T> whole) { return whole.slice_rows(begin, n); };
    const view<T> rs = r.slice_rows(begin, n);
    const view<const T> middle = part(*tape.middle);
    scratch<B> r1(b, n, dim), r2(b, n, dim), wide(b, n, hidden), packed(b, n, 3 * dim);

    add_relevance<B, T>(b, rs, middle, part(y), *r1, *r2);
    linear_relevance<B, T>(b, w_fc2, part(*tape.act), *r2, *wide);
    linear_relevance<B, T>(b, w_fc1, part(*tape.norm2.y), *wide, *r2);
    b.map(detail::clone{}, rs, view<const T>(*r1), view<const T>(*r2), middle);

    add_relevance<B, T>(b, rs, part(x), middle, *r1, *r2);
    linear_relevance<B, T>(b, w_proj, part(*tape.context), *r2, rs);
    attention_relevance<B, T>(b, l.heads, part(*tape.qkv),
                              rows.matrices(static_cast<const T*>(tape.a.data()), s, l.heads), part(*tape.context), rs,
                              rows.matrices(r_attention, s, l.heads), *packed);
    linear_relevance<B, T>(b, w_qkv, part(*tape.norm1.y), *packed, *r2);
    b.map(detail::clone{}, rs, view<const T>(*r1), view<const T>(*r2), part(x));
  });
}

}  // namespace core_tokensets::chefer
