#pragma once
// A pre-norm transformer block: x += proj(attention(norm1(x))); x += fc2(gelu(fc1(norm2(x)))). Queries and keys may
// have norms of their own.

#include <cmath>

#include "core_tokensets/nn/head_norm.hpp"
#include "core_tokensets/nn/layer_norm.hpp"
#include "core_tokensets/nn/linear.hpp"
#include "core_tokensets/tensor/weighted_attention.hpp"

namespace core_tokensets {

struct block {
  index heads = 1;
  layer_norm norm1, norm2;
  linear qkv, proj, fc1, fc2;
  std::optional<layer_norm> q_norm, k_norm;
};

/// Activations of one block; `qkv` is that before the norms of queries and keys. `a` holds the attention matrices
/// (`attention_rows`) or is empty, `log_sums` what stands in for them, `da` their gradient when asked for.
template <tensor_backend B>
struct block_tape {
  layer_norm_tape<B> norm1, norm2;
  head_norm_tape<B> q_norm, k_norm;
  tensor<B> qkv, a, log_sums, da, context, middle, pre, act;
};

/// What attention leaves behind: nothing, what its backward pass needs, or the matrices themselves.
enum class attention_kept { nothing, gradients, matrices };

/// Makes room for that in the tape. Most backends go back from the matrices, others from the sums (`keeps_log_sums`).
template <tensor_backend B, class Tape>
void resize_attention(B& b, const attention_rows& rows, index heads, attention_kept keep, Tape& tape) {
  const bool matrices =
      keep == attention_kept::matrices || (keep == attention_kept::gradients && !ops::keeps_log_sums<B>);
  const bool sums = keep != attention_kept::nothing && ops::keeps_log_sums<B>;
  tape.a.resize(b, 1, matrices ? rows.size(heads) : 0);
  tape.log_sums.resize(b, heads, sums ? rows.queries().tokens() : 0);
}

/// The memory of a tensor, null where it is empty.
template <tensor_backend B>
typename B::scalar* data_or_null(const tensor<B>& x) {
  return x.empty() ? nullptr : x.data();
}

inline block add_block(parameter_layout& layout, const std::string& name, index dim, index heads, index hidden,
                       bool qkv_bias, double eps, bool qk_norm = false) {
  block l;
  l.heads = heads;
  l.norm1 = add_layer_norm(layout, name + ".norm1", dim, eps);
  l.qkv = add_linear(layout, name + ".attn.qkv", dim, 3 * dim, qkv_bias);
  if (qk_norm) {
    l.q_norm = add_layer_norm(layout, name + ".attn.q_norm", dim / heads, eps);
    l.k_norm = add_layer_norm(layout, name + ".attn.k_norm", dim / heads, eps);
  }
  l.proj = add_linear(layout, name + ".attn.proj", dim, dim);
  l.norm2 = add_layer_norm(layout, name + ".norm2", dim, eps);
  l.fc1 = add_linear(layout, name + ".mlp.fc1", dim, hidden);
  l.fc2 = add_linear(layout, name + ".mlp.fc2", hidden, dim);
  return l;
}

/// Part 0, 1, 2 (query, key, value) of packed `[T, 3 C]` as `[T, C]`, in place, and as `[1, H, T, C / H]`.
template <class T>
view<T> qkv_columns(const view<T>& qkv, index part) {
  return qkv.slice_cols(part * (qkv.cols / 3), qkv.cols / 3);
}
template <class T>
view<T> qkv_part(const view<T>& qkv, index part, index heads) {
  return qkv_columns(qkv, part).split_cols(heads);
}

/// What attention reads of `tape.qkv`: queries and keys `[1, H, T, D]`, behind their norms where they have some.
template <tensor_backend B, class T = typename B::scalar>
view<const T> queries(const block& l, const block_tape<B>& tape) {
  return behind<B, T>(l.q_norm, tape.q_norm, qkv_columns(*tape.qkv, 0), l.heads);
}
template <tensor_backend B, class T = typename B::scalar>
view<const T> keys(const block& l, const block_tape<B>& tape) {
  return behind<B, T>(l.k_norm, tape.k_norm, qkv_columns(*tape.qkv, 1), l.heads);
}

template <class T>
T attention_scale(index head_dim) {
  return T(1) / std::sqrt(static_cast<T>(head_dim));
}

/// The second half of a block, from `tape.middle` `[T, C]` to y `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void forward_mlp(B& b, const block& l, parameter_view<const T> p, block_tape<B>& tape, view<T> y) {
  const index rows = tape.middle.rows(), hidden = l.fc1.weight.rows;
  forward<B, T>(b, l.norm2, p, *tape.middle, tape.norm2);
  tape.pre.resize(b, rows, hidden);
  tape.act.resize(b, rows, hidden);
  ops::linear_gelu<B, T>(b, *tape.norm2.y, p[l.fc1.weight], p[l.fc1.bias], *tape.pre, *tape.act);
  forward<B, T>(b, l.fc2, p, *tape.act, *tape.middle, y);
}

/// From dy `[T, C]` at the end of a block to `dmiddle` (=) at its middle.
template <tensor_backend B, class T = typename B::scalar>
void backward_mlp(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const block_tape<B>& tape,
                  const_view<T> dy, view<T> dmiddle) {
  scratch<B> dpre(b, dy.rows, l.fc1.weight.rows), dnorm(b, dy.rows, dy.cols);
  ops::linear_gelu_backward_input<B, T>(b, dy, p[l.fc2.weight], *tape.pre, *dpre);
  backward<B, T>(b, l.fc2, p, grads, *tape.act, dy, {});
  backward<B, T>(b, l.fc1, p, grads, *tape.norm2.y, *dpre, *dnorm);
  backward<B, T>(b, l.norm2, p, grads, *tape.middle, tape.norm2, *dnorm, dmiddle);
  b.map(fn::add{}, dmiddle, dy);
}

/// The first half of a block from `tape.qkv` `[T, 3 C]` on: middle = x + proj(attention), `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void attend_from_qkv(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
                     block_tape<B>& tape, attention_kept keep, view<T> middle, const key_factors<T>& factors = {}) {
  const index dim = x.cols;
  tape.context.resize(b, x.rows, dim);
  resize_attention(b, rows, l.heads, keep, tape);
  const view<const T> qkv = *tape.qkv;
  forward<B, T>(b, l.q_norm, p, qkv_columns(qkv, 0), l.heads, tape.q_norm);
  forward<B, T>(b, l.k_norm, p, qkv_columns(qkv, 1), l.heads, tape.k_norm);
  ops::weighted_attention<B, T>(b, rows, queries(l, tape), keys(l, tape), qkv_part(qkv, 2, l.heads),
                                attention_scale<T>(dim / l.heads), factors, (*tape.context).split_cols(l.heads),
                                data_or_null(tape.a), data_or_null(tape.log_sums));
  forward<B, T>(b, l.proj, p, *tape.context, x, middle);
}

/// The first half of a block, x to middle, both `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void attend(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
            block_tape<B>& tape, attention_kept keep, view<T> middle, const key_factors<T>& factors = {}) {
  forward<B, T>(b, l.norm1, p, x, tape.norm1);
  tape.qkv.resize(b, x.rows, 3 * x.cols);
  forward<B, T>(b, l.qkv, p, *tape.norm1.y, {}, *tape.qkv);
  attend_from_qkv<B, T>(b, l, p, rows, x, tape, keep, middle, factors);
}

/// From x and `tape.qkv` `[T, 3 C]` to y `[T, C]`; see `forward`.
template <tensor_backend B, class T = typename B::scalar>
void forward_from_qkv(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
                      block_tape<B>& tape, attention_kept keep, view<T> y, const key_factors<T>& factors = {}) {
  tape.middle.resize(b, x.rows, x.cols);
  attend_from_qkv<B, T>(b, l, p, rows, x, tape, keep, *tape.middle, factors);
  forward_mlp<B, T>(b, l, p, tape, y);
}

/// x `[T, C]` to y `[T, C]`. `factors` multiply the scores of keys, for perturbations only: the backward pass knows
/// nothing of them.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
             block_tape<B>& tape, attention_kept keep, view<T> y, const key_factors<T>& factors = {}) {
  tape.middle.resize(b, x.rows, x.cols);
  attend<B, T>(b, l, p, rows, x, tape, keep, *tape.middle, factors);
  forward_mlp<B, T>(b, l, p, tape, y);
}

/// From `dmiddle` `[T, C]` at the middle of a block to dx (=) at its input. `keep_attention_gradient` leaves d loss / d
/// attention in `tape.da`.
template <tensor_backend B, class T = typename B::scalar>
void backward_attend(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads,
                     const attention_rows& rows, const_view<T> x, block_tape<B>& tape, bool keep_attention_gradient,
                     const_view<T> dmiddle, view<T> dx) {
  const index dim = x.cols;
  scratch<B> dcontext(b, x.rows, dim), dqkv(b, x.rows, 3 * dim);
  backward<B, T>(b, l.proj, p, grads, *tape.context, dmiddle, *dcontext);
  if (keep_attention_gradient) tape.da.resize(b, 1, rows.size(l.heads));
  const view<const T> qkv = *tape.qkv;
  ops::attention_backward<B, T>(
      b, rows, queries(l, tape), keys(l, tape), qkv_part(qkv, 2, l.heads), attention_scale<T>(dim / l.heads),
      data_or_null(tape.a), (*dcontext).split_cols(l.heads), qkv_part(*dqkv, 0, l.heads), qkv_part(*dqkv, 1, l.heads),
      qkv_part(*dqkv, 2, l.heads), keep_attention_gradient ? tape.da.data() : nullptr,
      {data_or_null(tape.log_sums), (*std::as_const(tape.context)).split_cols(l.heads)});
  backward<B, T>(b, l.q_norm, p, grads, tape.q_norm, l.heads, qkv_columns(*dqkv, 0));
  backward<B, T>(b, l.k_norm, p, grads, tape.k_norm, l.heads, qkv_columns(*dqkv, 1));
  backward<B, T>(b, l.qkv, p, grads, *tape.norm1.y, *dqkv, *dcontext);
  backward<B, T>(b, l.norm1, p, grads, x, tape.norm1, *dcontext, dx);
  b.map(fn::add{}, dx, dmiddle);
}

/// `dx` holds d loss / d y on entry and d loss / d x on return. Parameter gradients are added where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const attention_rows& rows,
              const_view<T> x, block_tape<B>& tape, bool keep_attention_gradient, view<T> dx) {
  scratch<B> dmiddle(b, x.rows, x.cols);
  backward_mlp<B, T>(b, l, p, grads, tape, dx, *dmiddle);
  backward_attend<B, T>(b, l, p, grads, rows, x, tape, keep_attention_gradient, *dmiddle, dx);
}

}  // namespace core_tokensets
