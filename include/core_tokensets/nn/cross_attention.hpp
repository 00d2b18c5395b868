#pragma once
// Text looks at the picture: y = x + proj(attention(q(norm(x)), k(image), v(image))).

#include "core_tokensets/nn/block.hpp"

namespace core_tokensets {

/// Queries come from the text, keys and values from the image tokens, which may have another number of channels.
struct cross_attention {
  index heads = 1;
  layer_norm norm;
  linear q, kv, proj;
};

/// Its activations. `a`, `log_sums` and `da` as in `block_tape`.
template <tensor_backend B>
struct cross_attention_tape {
  layer_norm_tape<B> norm;
  tensor<B> q, kv, a, log_sums, da, context;
};

inline cross_attention add_cross_attention(parameter_layout& layout, const std::string& name, index dim,
                                           index image_dim, index heads, double eps) {
  cross_attention l;
  l.heads = heads;
  l.norm = add_layer_norm(layout, name + ".norm", dim, eps);
  l.q = add_linear(layout, name + ".q", dim, dim);
  l.kv = add_linear(layout, name + ".kv", image_dim, 2 * dim);
  l.proj = add_linear(layout, name + ".proj", dim, dim);
  return l;
}

/// Part 0 (key) or 1 (value) of packed `[T, 2 C]` as `[1, H, T, C / H]`, in place.
template <class T>
view<T> kv_part(const view<T>& kv, index part, index heads) {
  const index dim = kv.cols / 2;
  return kv.slice_cols(part * dim, dim).split_cols(heads);
}

/// x `[L, C]` to y `[L, C]` with keys and values `[T, 2 C]` that are there already.
template <tensor_backend B, class T = typename B::scalar>
void forward_from_kv(B& b, const cross_attention& l, parameter_view<const T> p, const attention_rows& rows,
                     const_view<T> x, const_view<T> kv, cross_attention_tape<B>& tape, attention_kept keep, view<T> y,
                     const key_factors<T>& factors = {}) {
  const index dim = x.cols;
  forward<B, T>(b, l.norm, p, x, tape.norm);
  tape.q.resize(b, x.rows, dim);
  tape.context.resize(b, x.rows, dim);
  forward<B, T>(b, l.q, p, *tape.norm.y, {}, *tape.q);
  resize_attention(b, rows, l.heads, keep, tape);
  ops::weighted_attention<B, T>(b, rows, (*tape.q).split_cols(l.heads), kv_part(kv, 0, l.heads),
                                kv_part(kv, 1, l.heads), attention_scale<T>(dim / l.heads), factors,
                                (*tape.context).split_cols(l.heads), data_or_null(tape.a), data_or_null(tape.log_sums));
  forward<B, T>(b, l.proj, p, *tape.context, x, y);
}

/// x `[L, C]` to y `[L, C]` with image tokens `[T, E]`; `rows` says which texts look at which picture.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const cross_attention& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
             const_view<T> image, cross_attention_tape<B>& tape, attention_kept keep, view<T> y,
             const key_factors<T>& factors = {}) {
  tape.kv.resize(b, image.rows, 2 * x.cols);
  forward<B, T>(b, l.kv, p, image, {}, *tape.kv);
  forward_from_kv<B, T>(b, l, p, rows, x, *std::as_const(tape.kv), tape, keep, y, factors);
}

/// From dy `[L, C]` to dx (=) and `dimage` `[T, E]` (+=); parameter gradients are added where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const cross_attention& l, parameter_view<const T> p, parameter_view<T> grads,
              const attention_rows& rows, const_view<T> x, const_view<T> image, cross_attention_tape<B>& tape,
              bool keep_attention_gradient, const_view<T> dy, view<T> dx, view<T> dimage) {
  const index dim = x.cols;
  scratch<B> dcontext(b, x.rows, dim), dq(b, x.rows, dim), dkv(b, image.rows, 2 * dim),
      dtokens(b, image.rows, image.cols);
  backward<B, T>(b, l.proj, p, grads, *tape.context, dy, *dcontext);
  if (keep_attention_gradient) tape.da.resize(b, 1, rows.size(l.heads));
  const view<const T> kv = *std::as_const(tape.kv);
  ops::attention_backward<B, T>(b, rows, (*tape.q).split_cols(l.heads), kv_part(kv, 0, l.heads),
                                kv_part(kv, 1, l.heads), attention_scale<T>(dim / l.heads), data_or_null(tape.a),
                                (*dcontext).split_cols(l.heads), (*dq).split_cols(l.heads), kv_part(*dkv, 0, l.heads),
                                kv_part(*dkv, 1, l.heads), keep_attention_gradient ? tape.da.data() : nullptr,
                                {data_or_null(tape.log_sums), (*std::as_const(tape.context)).split_cols(l.heads)});
  backward<B, T>(b, l.kv, p, grads, image, *dkv, *dtokens);
  b.map(fn::add{}, dimage, view<const T>(*dtokens));
  backward<B, T>(b, l.q, p, grads, *tape.norm.y, *dq, *dcontext);
  backward<B, T>(b, l.norm, p, grads, x, tape.norm, *dcontext, dx);
  b.map(fn::add{}, dx, dy);
}

}  // namespace core_tokensets
