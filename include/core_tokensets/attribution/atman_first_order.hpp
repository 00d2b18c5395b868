#pragma once
// AtMan to first order: the slope of the loss in the factor of every key at once, from one backward pass.

#include "core_tokensets/attribution/atman.hpp"
#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// factor times d log-probability / d m_i at m = 1, where m_i multiplies the scores of key i in every block: the sum
/// over blocks, heads and queries of dL/dS[q, i] (S[q, i] - min S[q, :]), or without `shift` of dL/dS[q, i] S[q, i].
struct atman_first_order {
  static constexpr const char* name = "atman_first_order";
  static constexpr const char* about = "atman to first order, from one backward pass";
  double factor = 0.9;
  bool shift = true;
  watched watch = watched::loss;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("factor", self.factor);
    visit("shift", self.shift);
    visit("watch", self.watch);
  }
};

namespace detail {
/// z = z + minus_least
struct shift_score {
  template <class T>
  constexpr void operator()(T& z, const T& minus_least) const {
    z += minus_least;
  }
};

/// slopes `[T, 1]` += those of one block, from its attention a, the gradient da (overwritten) and queries and keys.
template <tensor_backend B, class T = typename B::scalar>
void add_key_slopes(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, T scale, bool shift, const T* a,
                    T* da, T* slopes) {
  const index heads = q.n1;
  ops::for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    scratch<B> memory(b, heads * nq, nk), column_memory(b, heads * nq, 1);
    const view<T> z(memory.data(), 1, heads, nq, nk, 0, nq * nk, nk),
        ds = rows.matrices(da, s, heads), column(column_memory.data(), 1, heads, nq, 1, 0, nq, 1);
    const view<const T> as = rows.matrices(a, s, heads);
    b.row_reduce(fn::plus{}, fn::times{}, column, as, view<const T>(ds));
    b.map(fn::softmax_gradient{}, ds, as, view<const T>(ds), view<const T>(column));
    b.gemm(q.slice_rows(rows.queries().begin(s), nq), k.slice_rows(rows.keys().begin(s), nk), z,
           {.transpose_b = true, .alpha = double(scale)});
    if (shift) {
      b.row_reduce(fn::maximum{}, fn::negated{}, column, view<const T>(z));
      b.map(shift_score{}, z, view<const T>(column));
    }
    b.col_reduce(fn::plus{}, fn::times{}, T(1), view<T>(slopes + rows.keys().begin(s), 1, nk),
                 view<const T>(ds.data, heads * nq, nk), view<const T>(z.data, heads * nq, nk));
  });
}
}  // namespace detail

template <tensor_backend B>
std::vector<double> attribute(const atman_first_order& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  require_finite("atman_first_order: factor", method.factor);
  explain_forward(b, model, batch, watched_target(t, method.watch), ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  const auto& tape = ws.tape;
  const index heads = model.config().heads, dim = model.config().dim;
  const T scale = attention_scale<T>(dim / heads);
  tensor<B> slopes(b, tape.plan.tokens(), 1);
  b.fill(*slopes, T(0));
  for (index i = model.config().depth; i-- > 0;) {
    gradients.step(i);
    const block& l = model.layout().blocks[static_cast<std::size_t>(i)];
    const bool last = is_class_block(tape, i, model);
    const block_tape<B>& own = tape_of_block(tape, i, model);
    const view<const T> q = last ? queries(l, tape.last) : queries(l, own),
                        k = last ? keys(l, tape.last) : keys(l, own);
    detail::add_key_slopes<B, T>(b, attention_layout(tape, i, model), q, k, scale, method.shift,
                                 tape_of_block(tape, i, model).a.data(), ws.attention_gradient.data(), slopes.data());
  }
  auto relevance = patch_entries(slopes.to_host(b), tape.plan);
  for (double& r : relevance) r *= method.factor;
  return relevance;
}

}  // namespace core_tokensets
