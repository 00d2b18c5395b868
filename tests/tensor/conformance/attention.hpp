#pragma once
// Conformance of attention over ragged samples: self, cross, causal, class tokens only; with and without what a
// backward pass or an attribution keeps.

#include "core_tokensets/tensor/ops.hpp"
#include "tensor/conformance/suite.hpp"

namespace conformance {

struct attention_case {
  const char* name;
  cts::sequences queries, keys;
  bool causal = false;
};

inline std::string text(const cts::sequences& s) {
  std::string out = "[";
  for (index i = 0; i < s.count(); ++i) out += (i ? ", " : "") + std::to_string(s.length(i));
  return out + "]";
}

/// w = w^2 + 1/8
struct make_weight {
  template <class T>
  constexpr void operator()(T& w) const {
    w = w * w + T(0.125);
  }
};

/// With `weighted` the keys have weights.
template <class B>
void check_attention_case(suite<B>& s, const attention_case& c, index heads, index dim, bool weighted = false) {
  const shape of_queries{1, 1, c.queries.tokens(), heads * dim}, packed{1, 1, c.keys.tokens(), 2 * heads * dim},
      matrices{1, 1, 1, cts::attention_rows(c.queries, c.keys).size(heads)}, of_keys{1, 1, 1, c.keys.tokens()};
  const auto key = [=](auto v) { return v.slice_cols(0, heads * dim).split_cols(heads); };
  const auto value = [=](auto v) { return v.slice_cols(heads * dim, heads * dim).split_cols(heads); };
  const std::string what = describe(c.name, " attention, queries ", text(c.queries), ", keys ", text(c.keys),
                                    ", heads ", heads, ", head dim ", dim, weighted ? ", weights" : "");
  const index terms = 4 * (dim + 40);
  const auto rows_of = [&]<class X>(X& x, operand<X>& w) {
    cts::attention_rows rows(c.queries, c.keys, c.causal);
    if (weighted) {
      x.map(make_weight{}, w.mut());
      rows.weigh_keys(w.get().data);
    }
    return rows;
  };
  for (const bool keep : {false, true}) {
    s.check_fused(describe(what, ", probabilities ", keep), terms, {{of_queries}, {matrices, start::random}},
                  [&]<class X>(X& x, operands<X>& out) {
                    using T = typename X::scalar;
                    const operand<X> q(x, of_queries, 1), kv(x, packed, 2);
                    operand<X> w(x, of_keys, 6);
                    const cts::attention_rows rows = rows_of(x, w);
                    cts::ops::attention<X, T>(x, rows, q.get().split_cols(heads), key(kv.get()), value(kv.get()),
                                              T(0.5), out[0].mut().split_cols(heads),
                                              keep ? out[1].mut().data : nullptr);
                  });
    s.check_fused(describe(what, ", backward, dprobabilities ", keep), 4 * terms,
                  {{of_queries}, {packed}, {matrices, start::random}}, [&]<class X>(X& x, operands<X>& out) {
                    using T = typename X::scalar;
                    const operand<X> q(x, of_queries, 1), kv(x, packed, 2), dy(x, of_queries, 3);
                    operand<X> y(x, of_queries, 4), a(x, matrices, 5), w(x, of_keys, 6);
                    const cts::attention_rows rows = rows_of(x, w);
                    cts::ops::attention<X, T>(x, rows, q.get().split_cols(heads), key(kv.get()), value(kv.get()),
                                              T(0.5), y.mut().split_cols(heads), a.mut().data);
                    cts::ops::attention_backward<X, T>(
                        x, rows, q.get().split_cols(heads), key(kv.get()), value(kv.get()), T(0.5), a.mut().data,
                        dy.get().split_cols(heads), out[0].mut().split_cols(heads), key(out[1].mut()),
                        value(out[1].mut()), keep ? out[2].mut().data : nullptr);
                  });
  }
}

template <class B>
void check_attention(suite<B>& s) {
  const cts::sequences ragged{{0, 1, 1, 38, 43, 44}};  // one token, none, primes
  const cts::sequences none, empty{{0, 0, 0}};
  const attention_case cases[] = {
      {"self", ragged, ragged},
      {"class-only", {{0, 1, 2, 3, 4}}, {{0, 37, 38, 51, 57}}},
      {"cross", {{0, 2, 2, 5, 12}}, {{0, 7, 10, 33, 34}}},
      {"keyless", {{0, 2, 5}}, {{0, 0, 4}}},
      {"causal", ragged, ragged, true},
      {"causal with more keys", {{0, 3, 4, 11}}, {{0, 9, 10, 47}}, true},
      {"causal with more queries", {{0, 7, 9}}, {{0, 3, 3}}, true},
      {"no sample's", none, none},
      {"empty samples'", empty, empty},
  };
  for (const attention_case& c : cases) {
    check_attention_case(s, c, 3, 4);
    check_attention_case(s, c, 1, 7);
    check_attention_case(s, c, 2, 5, true);
  }
  check_attention_case(s, {"self", {{0, 67, 198}}, {{0, 67, 198}}}, 2, 32);
}

}  // namespace conformance
