#pragma once
// Attention whose scores are multiplied key by key, as AtMan does to suppress tokens. A backend may bring its own
// `weighted_attention`; the default is written from the ten required functions.

#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

/// A factor for each key `[Tk]`, the same for all queries and heads: the scaled score s(q, k) becomes factor[k] s(q,
/// k), or with `from_minimum` factor[k] (s(q, k) - min over k of s(q, k)). Without factors nothing changes.
template <class T>
struct key_factors {
  const T* factor = nullptr;
  bool from_minimum = false;
  explicit operator bool() const { return factor != nullptr; }
};

namespace fn {
/// s = factor (s - least)
struct weigh_shifted_score {
  template <class T>
  constexpr void operator()(T& s, const T& factor, const T& minus_least) const {
    s = factor * (s + minus_least);
  }
};
/// -x, for reductions
struct negated {
  template <class T>
  constexpr T operator()(const T& x) const {
    return -x;
  }
};
}  // namespace fn

namespace ops {

namespace detail {
struct any_body {
  void operator()(index) const {}
};
}  // namespace detail

/// Calls `body(s, first, count)` for heads first .. first + count - 1 of sample s: one head a call where the backend
/// runs calls at the same time, all heads of a sample in one elsewhere.
template <tensor_backend B, class Body>
void for_each_head(B& b, index samples, index heads, const Body& body) {
  if constexpr (requires { b.parallel(samples, detail::any_body{}); }) {
    b.parallel(samples * heads, [&](index i) { body(i / heads, i % heads, index{1}); });
  } else {
    for (index s = 0; s < samples; ++s) body(s, index{0}, heads);
  }
}

/// Heads first .. first + count - 1 of `[1, H, ...]`.
template <class T>
view<T> some_heads(view<T> v, index first, index count) {
  v.data += first * v.s1;
  v.n1 = count;
  return v;
}

/// `weighted_attention` with scores from their least one: s = factor (s - min).
template <tensor_backend B, class T = typename B::scalar>
void shifted_attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                       const T* factor, view<T> out, T* probabilities) {
  for_each_head(b, rows.count(), q.n1, [&](index s, index first, index count) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    const auto of_query = [&](auto x) { return some_heads(x, first, count).slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return some_heads(x, first, count).slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, probabilities ? 0 : count * nq, nk), column(b, count * nq, 1);
    const view<T> a = probabilities ? some_heads(rows.matrices(probabilities, s, q.n1), first, count)
                                    : view<T>(memory.data(), 1, count, nq, nk, 0, nq * nk, nk);
    const view<T> minus_least(column.data(), 1, count, nq, 1, 0, nq, 1);
    const view<const T> m(factor + rows.keys().begin(s), 1, nk);
    const auto weigh = [&](view<T> scores, view<T> least, view<const T> factors) {
      b.row_reduce(fn::maximum{}, fn::negated{}, least, view<const T>(scores));
      b.map(fn::weigh_shifted_score{}, scores, factors, view<const T>(least));
      softmax<B, T>(b, scores, rows.key_weights<T>(s, scores.cols));
    };
    b.gemm(of_query(q), of_key(k), a, {.transpose_b = true, .alpha = double(scale)});
    if (!rows.causal()) {
      weigh(a, minus_least, m);
    } else {
      for (index i = 0; i < nq; ++i) {
        const index seen = rows.visible(s, i);
        b.fill(a.slice_rows(i, 1).slice_cols(seen, nk - seen), T(0));
        if (seen > 0)
          weigh(a.slice_rows(i, 1).slice_cols(0, seen), minus_least.slice_rows(i, 1), m.slice_cols(0, seen));
      }
    }
    b.gemm(a, of_key(v), of_query(out));
  });
}

/// `attention` with factors on the scores; operands as there. Plain factors are those of the keys themselves, so that
/// the backend's own attention does the work. Weights of keys (`attention_rows`) come on top of factors.
template <tensor_backend B, class T = typename B::scalar>
void weighted_attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const key_factors<T>& factors, view<T> out, T* probabilities, T* log_sums = nullptr) {
  if (!factors) {
    attention<B, T>(b, rows, q, k, v, scale, out, probabilities, log_sums);
    return;
  }
  if constexpr (requires { b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities); }) {
    if (weighs_keys<B> || !rows.has_key_weights()) {
      b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities);
      return;
    }
  }
  if (factors.from_minimum) {
    shifted_attention<B, T>(b, rows, q, k, v, scale, factors.factor, out, probabilities);
  } else {
    scratch<B> memory(b, k.rows, k.n1 * k.cols);
    const view<T> weighted = (*memory).split_cols(k.n1);
    b.map(fn::product{}, weighted, k, view<const T>(factors.factor, k.rows, 1));
    attention<B, T>(b, rows, q, weighted, v, scale, out, probabilities);
  }
}

}  // namespace ops
}  // namespace core_tokensets
