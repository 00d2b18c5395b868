#pragma once
// The last block where only the class tokens are read from: keys and values come from all tokens, everything else is
// computed for one row a sample. The same numbers as `block.hpp` gives for those rows, at about a sixth of the cost.

#include "core_tokensets/nn/block.hpp"

namespace core_tokensets {

/// Activations of such a block; `block.qkv` holds keys and values only, `[T, 2 C]`.
template <tensor_backend B>
struct class_block_tape {
  block_tape<B> block;
  tensor<B> x, norm, q;  ///< [S, C] input, first norm and queries of the class tokens
};

namespace detail {
/// Query (first) or key and value (second) rows of the weight or entries of the bias of a qkv layer.
template <class T>
std::pair<view<T>, view<T>> cut_qkv(const view<T>& of_all, bool weight, index dim) {
  if (of_all.empty()) return {};
  return weight ? std::pair{of_all.slice_rows(0, dim), of_all.slice_rows(dim, 2 * dim)}
                : std::pair{of_all.slice_cols(0, dim), of_all.slice_cols(dim, 2 * dim)};
}
}  // namespace detail

/// What attention reads: queries of the class tokens and keys of all tokens, behind their norms where they have some.
template <tensor_backend B, class T = typename B::scalar>
view<const T> queries(const block& l, const class_block_tape<B>& tape) {
  return behind<B, T>(l.q_norm, tape.block.q_norm, *tape.q, l.heads);
}
template <tensor_backend B, class T = typename B::scalar>
view<const T> keys(const block& l, const class_block_tape<B>& tape) {
  const view<const T> kv = *tape.block.qkv;
  return behind<B, T>(l.k_norm, tape.block.k_norm, kv.slice_cols(0, kv.cols / 2), l.heads);
}

/// x `[T, C]` to y `[S, C]`; `class_rows` `[S]` are the rows of the class tokens, the only queries of `rows`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const row_list<B>& class_rows,
             const_view<T> x, class_block_tape<B>& tape, attention_kept keep, view<T> y,
             const key_factors<T>& factors = {}) {
  const index dim = x.cols, samples = class_rows.size();
  block_tape<B>& t = tape.block;
  const auto [weight_q, weight_kv] = detail::cut_qkv(p[l.qkv.weight], true, dim);
  const auto [bias_q, bias_kv] = detail::cut_qkv(p[l.qkv.bias], false, dim);
  forward<B, T>(b, l.norm1, p, x, t.norm1);
  t.qkv.resize(b, x.rows, 2 * dim);
  ops::linear<B, T>(b, *t.norm1.y, weight_kv, bias_kv, {}, *t.qkv);
  for (tensor<B>* rows_of_class : {&tape.x, &tape.norm, &tape.q, &t.context, &t.middle})
    rows_of_class->resize(b, samples, dim);
  b.gather_rows(*tape.x, x, class_rows.data());
  b.gather_rows(*tape.norm, *t.norm1.y, class_rows.data());
  ops::linear<B, T>(b, *tape.norm, weight_q, bias_q, {}, *tape.q);
  resize_attention(b, rows, l.heads, keep, t);
  forward<B, T>(b, l.q_norm, p, *std::as_const(tape.q), l.heads, t.q_norm);
  forward<B, T>(b, l.k_norm, p, (*std::as_const(t.qkv)).slice_cols(0, dim), l.heads, t.k_norm);
  ops::weighted_attention<B, T>(b, rows, queries(l, tape), keys(l, tape),
                                (*t.qkv).slice_cols(dim, dim).split_cols(l.heads), attention_scale<T>(dim / l.heads),
                                factors, (*t.context).split_cols(l.heads), data_or_null(t.a), data_or_null(t.log_sums));
  forward<B, T>(b, l.proj, p, *t.context, *tape.x, *t.middle);
  forward_mlp<B, T>(b, l, p, t, y);
}

/// From dy `[S, C]` to dx `[T, C]` (=). Parameter gradients are added where `grads` is given; `keep_attention_gradient`
/// leaves d loss / d attention of the class tokens in `tape.block.da`.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const attention_rows& rows,
              const row_list<B>& class_rows, const_view<T> x, class_block_tape<B>& tape, const_view<T> dy, view<T> dx,
              bool keep_attention_gradient = false) {
  const index dim = x.cols, samples = class_rows.size();
  block_tape<B>& t = tape.block;
  scratch<B> dmiddle(b, samples, dim), drow(b, samples, dim), dq(b, samples, dim), dkv(b, x.rows, 2 * dim),
      dnorm(b, x.rows, dim);
  backward_mlp<B, T>(b, l, p, grads, t, dy, *dmiddle);
  backward<B, T>(b, l.proj, p, grads, *t.context, *dmiddle, *drow);
  if (keep_attention_gradient) t.da.resize(b, 1, rows.size(l.heads));
  ops::attention_backward<B, T>(
      b, rows, queries(l, tape), keys(l, tape), (*t.qkv).slice_cols(dim, dim).split_cols(l.heads),
      attention_scale<T>(dim / l.heads), data_or_null(t.a), (*drow).split_cols(l.heads), (*dq).split_cols(l.heads),
      (*dkv).slice_cols(0, dim).split_cols(l.heads), (*dkv).slice_cols(dim, dim).split_cols(l.heads),
      keep_attention_gradient ? t.da.data() : nullptr,
      {data_or_null(t.log_sums), (*std::as_const(t.context)).split_cols(l.heads)});
  backward<B, T>(b, l.q_norm, p, grads, t.q_norm, l.heads, *dq);
  backward<B, T>(b, l.k_norm, p, grads, t.k_norm, l.heads, (*dkv).slice_cols(0, dim));
  const auto [weight_q, weight_kv] = detail::cut_qkv(p[l.qkv.weight], true, dim);
  if (grads) {
    const auto [dweight_q, dweight_kv] = detail::cut_qkv(grads[l.qkv.weight], true, dim);
    const auto [dbias_q, dbias_kv] = detail::cut_qkv(grads[l.qkv.bias], false, dim);
    ops::linear_backward_weight<B, T>(b, *tape.norm, *dq, dweight_q, dbias_q);
    ops::linear_backward_weight<B, T>(b, *t.norm1.y, *dkv, dweight_kv, dbias_kv);
  }
  ops::linear_backward_input<B, T>(b, *dkv, weight_kv, *dnorm);
  ops::linear_backward_input<B, T>(b, *dq, weight_q, *drow);
  b.scatter_add_rows(*dnorm, *drow, class_rows.data());
  backward<B, T>(b, l.norm1, p, grads, x, t.norm1, *dnorm, dx);
  b.scatter_add_rows(dx, *dmiddle, class_rows.data());
}

}  // namespace core_tokensets
