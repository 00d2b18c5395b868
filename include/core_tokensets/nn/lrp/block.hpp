#pragma once
// Relevance through a transformer block with the rules of a composite: for all tokens, and for a last block of which
// only the class tokens are read.

#include "core_tokensets/nn/class_block.hpp"
#include "core_tokensets/nn/lrp/composite.hpp"
#include "core_tokensets/nn/lrp/elementwise.hpp"
#include "core_tokensets/nn/lrp/linear.hpp"

namespace core_tokensets::lrp {

/// Operations in the order in which relevance passes them; a sum is left on two ways.
enum class stage {
  head,
  norm,
  choice,
  add2_residual,
  add2_branch,
  fc2,
  activation,
  fc1,
  norm2,
  copy2,
  add1_residual,
  add1_branch,
  proj,
  attention,
  qk_norm,
  qkv,
  norm1,
  copy1,
  norm_pre,
  positions_share,
  embedding_share,
  patch_embed
};

/// Sees the relevance `[n, C]` that leaves an operation, and the sample of each of the n rows.
struct no_observer {
  template <class Rows, class V>
  void operator()(stage, const Rows&, const V&) const {}
};

/// The second half of a block, in place: from R at its output y `[n, C]` to R at its middle.
template <tensor_backend B, class Observer, class T = typename B::scalar>
void mlp_relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const sample_rows<B>& rows,
                   const_view<T> y, const block_tape<B>& tape, view<T> r, const Observer& observe) {
  const index n = r.rows, dim = r.cols;
  scratch<B> residual(b, n, dim), branch(b, n, dim), hidden(b, n, l.fc1.weight.rows);
  const auto seen = [&](stage s, view<T> at) { observe(s, rows, view<const T>(at)); };
  relevance<B, T>(c.residual, b, rows, r, *tape.middle, y, *residual, *branch);
  seen(stage::add2_residual, *residual);
  seen(stage::add2_branch, *branch);
  relevance<B, T>(c.fc2, b, l.fc2, p, *tape.act, {}, *branch, *hidden);
  seen(stage::fc2, *hidden);
  relevance<B, T>(c.activation, b, *tape.pre, *hidden);
  seen(stage::activation, *hidden);
  relevance<B, T>(c.fc1, b, l.fc1, p, *tape.norm2.y, *tape.pre, *hidden, *branch);
  seen(stage::fc1, *branch);
  relevance<B, T>(c.norm, b, l.norm2, p, *tape.middle, tape.norm2, *branch);
  seen(stage::norm2, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, *tape.middle, r);
  seen(stage::copy2, r);
}

/// The first half of a block, in place: from R at its `middle` `[n, C]` to R at its input x. `r_attention` receives the
/// relevance of the attention probabilities as `attention` says.
template <tensor_backend B, class Observer, class T = typename B::scalar>
void attend_relevance(const composite& c, B& b, const block& l, parameter_view<const T> p,
                      const attention_rows& attention, const sample_rows<B>& rows, const_view<T> x,
                      const_view<T> middle, const block_tape<B>& tape, T* r_attention, view<T> r,
                      const Observer& observe) {
  const index n = x.rows, dim = x.cols, heads = l.heads;
  const auto seen = [&](stage s, view<T> at) { observe(s, rows, view<const T>(at)); };
  scratch<B> residual(b, n, dim), branch(b, n, dim), packed(b, n, 3 * dim);
  relevance<B, T>(c.residual, b, rows, r, x, middle, *residual, *branch);
  seen(stage::add1_residual, *residual);
  seen(stage::add1_branch, *branch);
  relevance<B, T>(c.proj, b, l.proj, p, *tape.context, {}, *branch, r);
  seen(stage::proj, r);
  const view<const T> qkv = *tape.qkv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = queries(l, tape),
                   .k = keys(l, tape),
                   .v = qkv_part(qkv, 2, heads),
                   .out = (*tape.context).split_cols(heads),
                   .a = tape.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r.split_cols(heads), r_attention, qkv_part(*packed, 0, heads), qkv_part(*packed, 1, heads),
                  qkv_part(*packed, 2, heads));
  seen(stage::attention, *packed);
  if (l.q_norm) {
    relevance<B, T>(c.norm, b, l.q_norm, p, tape.q_norm, heads, qkv_columns(*packed, 0));
    relevance<B, T>(c.norm, b, l.k_norm, p, tape.k_norm, heads, qkv_columns(*packed, 1));
    seen(stage::qk_norm, *packed);
  }
  relevance<B, T>(c.qkv, b, l.qkv, p, *tape.norm1.y, *tape.qkv, *packed, *branch);
  seen(stage::qkv, *branch);
  relevance<B, T>(c.norm, b, l.norm1, p, x, tape.norm1, *branch);
  seen(stage::norm1, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, x, r);
  seen(stage::copy1, r);
}

/// From R at the output of a block to R at its input, in place in r `[T, C]`. x and y `[T, C]` are its input and
/// output; `r_attention` receives the relevance of the attention probabilities as `attention` says.
template <tensor_backend B, class Observer = no_observer, class T = typename B::scalar>
void relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const attention_rows& attention,
               const sample_rows<B>& rows, const_view<T> x, const_view<T> y, const block_tape<B>& tape, T* r_attention,
               view<T> r, const Observer& observe = {}) {
  mlp_relevance<B, Observer, T>(c, b, l, p, rows, y, tape, r, observe);
  attend_relevance<B, Observer, T>(c, b, l, p, attention, rows, x, *tape.middle, tape, r_attention, r, observe);
}

/// The same for a block of which only the class tokens were computed: from R `[S, C]` at their outputs y to R `[T, C]`
/// (=) at the input x of all tokens. `class_samples` and `rows` name the samples of the S and of the T rows.
template <tensor_backend B, class Observer = no_observer, class T = typename B::scalar>
void relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const attention_rows& attention,
               const row_list<B>& class_rows, const sample_rows<B>& class_samples, const sample_rows<B>& rows,
               const_view<T> x, const_view<T> y, const class_block_tape<B>& tape, T* r_attention, view<T> r_class,
               view<T> r, const Observer& observe = {}) {
  const index n = x.rows, samples = r_class.rows, dim = x.cols, heads = l.heads;
  const block_tape<B>& t = tape.block;
  mlp_relevance<B, Observer, T>(c, b, l, p, class_samples, y, t, r_class, observe);
  scratch<B> residual(b, samples, dim), branch(b, samples, dim), at_q(b, samples, dim), at_kv(b, n, 2 * dim),
      at_norm(b, n, dim), all_residual(b, n, dim);
  relevance<B, T>(c.residual, b, class_samples, r_class, *tape.x, *t.middle, *residual, *branch);
  observe(stage::add1_residual, class_samples, view<const T>(*residual));
  observe(stage::add1_branch, class_samples, view<const T>(*branch));
  relevance<B, T>(c.proj, b, l.proj, p, *t.context, {}, *branch, r_class);
  observe(stage::proj, class_samples, view<const T>(r_class));
  const auto part = [&](auto kv, index i) { return kv.slice_cols(i * dim, dim).split_cols(heads); };
  const view<const T> kv = *t.qkv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = queries(l, tape),
                   .k = keys(l, tape),
                   .v = part(kv, 1),
                   .out = (*t.context).split_cols(heads),
                   .a = t.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r_class.split_cols(heads), r_attention, (*at_q).split_cols(heads), part(*at_kv, 0), part(*at_kv, 1));
  observe(stage::attention, class_samples, view<const T>(*at_q));
  observe(stage::attention, rows, view<const T>(*at_kv));
  if (l.q_norm) {
    relevance<B, T>(c.norm, b, l.q_norm, p, t.q_norm, heads, *at_q);
    relevance<B, T>(c.norm, b, l.k_norm, p, t.k_norm, heads, (*at_kv).slice_cols(0, dim));
    observe(stage::qk_norm, class_samples, view<const T>(*at_q));
    observe(stage::qk_norm, rows, view<const T>(*at_kv));
  }
  const auto [weight_q, weight_kv] = core_tokensets::detail::cut_qkv(p[l.qkv.weight], true, dim);
  const auto [bias_q, bias_kv] = core_tokensets::detail::cut_qkv(p[l.qkv.bias], false, dim);
  relevance<B, T>(c.qkv.plan(), b, {.weight = weight_kv, .bias = bias_kv, .output = kv}, *t.norm1.y, *at_kv, *at_norm);
  relevance<B, T>(c.qkv.plan(), b, {.weight = weight_q, .bias = bias_q, .output = *tape.q}, *tape.norm, *at_q, *branch);
  b.scatter_add_rows(*at_norm, *branch, class_rows.data());
  observe(stage::qkv, rows, view<const T>(*at_norm));
  relevance<B, T>(c.norm, b, l.norm1, p, x, t.norm1, *at_norm);
  observe(stage::norm1, rows, view<const T>(*at_norm));
  b.fill(*all_residual, T(0));
  b.scatter_add_rows(*all_residual, *residual, class_rows.data());
  relevance<B, T>(c.copy, b, *all_residual, *at_norm, x, r);
  observe(stage::copy1, rows, view<const T>(r));
}

}  // namespace core_tokensets::lrp
