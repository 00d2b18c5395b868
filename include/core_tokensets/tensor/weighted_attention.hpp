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
/// s = factor s
struct weigh_score {
  template <class T>
  constexpr void operator()(T& s, const T& factor) const {
    s *= factor;
  }
};
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

/// Scores `[1, H, nq, nk]` times their factors `[1, nk]`, in place.
template <tensor_backend B, class T = typename B::scalar>
void weigh_scores(B& b, view<T> scores, const_view<T> factors, bool from_minimum) {
  if (!from_minimum) {
    b.map(fn::weigh_score{}, scores, factors);
    return;
  }
  scratch<B> memory(b, scores.n1 * scores.rows, 1);
  const view<T> minus_least(memory.data(), 1, scores.n1, scores.rows, 1, 0, scores.rows, 1);
  b.row_reduce(fn::maximum{}, fn::negated{}, minus_least, view<const T>(scores));
  b.map(fn::weigh_shifted_score{}, scores, factors, view<const T>(minus_least));
}

/// `attention` with factors on the scores; operands as there (`log_sums` are left only where there are no factors).
template <tensor_backend B, class T = typename B::scalar>
void weighted_attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const key_factors<T>& factors, view<T> out, T* probabilities, T* log_sums = nullptr) {
  if (!factors) {
    attention<B, T>(b, rows, q, k, v, scale, out, probabilities, log_sums);
  } else if constexpr (requires { b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities); }) {
    b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities);
  } else {
    for_each_sample(b, rows.count(), [&](index s) {
      const index nq = rows.queries().length(s), nk = rows.keys().length(s);
      const auto of_query = [&](auto x) { return x.slice_rows(rows.queries().begin(s), nq); };
      const auto of_key = [&](auto x) { return x.slice_rows(rows.keys().begin(s), nk); };
      scratch<B> memory(b, probabilities ? 0 : q.n1 * nq, nk);
      const view<T> a = probabilities ? rows.matrices(probabilities, s, q.n1)
                                      : view<T>(memory.data(), 1, q.n1, nq, nk, 0, nq * nk, nk);
      const view<const T> m(factors.factor + rows.keys().begin(s), 1, nk);
      b.gemm(of_query(q), of_key(k), a, {.transpose_b = true, .alpha = double(scale)});
      if (!rows.causal()) {
        weigh_scores<B, T>(b, a, m, factors.from_minimum);
        softmax(b, a);
      } else {
        for (index i = 0; i < nq; ++i) {
          const index seen = rows.visible(s, i);
          const view<T> row = a.slice_rows(i, 1).slice_cols(0, seen);
          b.fill(a.slice_rows(i, 1).slice_cols(seen, nk - seen), T(0));
          if (seen == 0) continue;
          weigh_scores<B, T>(b, row, m.slice_cols(0, seen), factors.from_minimum);
          softmax(b, row);
        }
      }
      b.gemm(a, of_key(v), of_query(out));
    });
  }
}

}  // namespace ops
}  // namespace core_tokensets
