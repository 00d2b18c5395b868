#pragma once
// Relevance through a decoder block with the rules of a composite: MLP and self-attention as in an encoder block, and
// between them the look at the picture, through which relevance reaches the image tokens.

#include "core_tokensets/nn/decoder_block.hpp"
#include "core_tokensets/nn/lrp/block.hpp"

namespace core_tokensets::lrp {

/// From R (in place) at the output y of a cross-attention to its input x, both `[L, C]`, and to the image tokens
/// `r_image` `[T, E]` (+=). `r_attention` receives the relevance of the attention probabilities.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const composite& c, B& b, const cross_attention& l, parameter_view<const T> p,
               const attention_rows& attention, const sample_rows<B>& rows, const_view<T> x, const_view<T> y,
               const_view<T> image, const cross_attention_tape<B>& tape, T* r_attention, view<T> r, view<T> r_image) {
  const index n = x.rows, dim = x.cols, heads = l.heads;
  scratch<B> residual(b, n, dim), branch(b, n, dim), at_q(b, n, dim), at_kv(b, image.rows, 2 * dim),
      at_image(b, image.rows, image.cols);
  relevance<B, T>(c.residual, b, rows, r, x, y, *residual, *branch);
  relevance<B, T>(c.proj, b, l.proj, p, *tape.context, {}, *branch, r);
  const view<const T> kv = *tape.kv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = (*tape.q).split_cols(heads),
                   .k = kv_part(kv, 0, heads),
                   .v = kv_part(kv, 1, heads),
                   .out = (*tape.context).split_cols(heads),
                   .a = tape.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r.split_cols(heads), r_attention, (*at_q).split_cols(heads), kv_part(*at_kv, 0, heads),
                  kv_part(*at_kv, 1, heads));
  relevance<B, T>(c.qkv, b, l.kv, p, image, kv, *at_kv, *at_image);
  b.map(fn::add{}, r_image, view<const T>(*at_image));
  relevance<B, T>(c.qkv, b, l.q, p, *tape.norm.y, *tape.q, *at_q, *branch);
  relevance<B, T>(c.norm, b, l.norm, p, x, tape.norm, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, x, r);
}

/// Where the relevance of a decoder block's two attentions goes, in the layouts of their probabilities.
template <class T>
struct decoder_attention_relevance {
  T *self = nullptr, *cross = nullptr;
};

/// From R (in place) at the output y of a decoder block to its input x, both `[L, C]`, and to the image tokens
/// `r_image` `[T, E]` (+=). `rows` names the text of each of the L rows.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const composite& c, B& b, const decoder_block& l, parameter_view<const T> p,
               const decoder_rows& attention, const sample_rows<B>& rows, const_view<T> x, const_view<T> y,
               const_view<T> image, const decoder_block_tape<B>& tape,
               const decoder_attention_relevance<std::type_identity_t<T>>& r_attention, view<T> r, view<T> r_image) {
  const no_observer nobody;
  mlp_relevance<B, no_observer, T>(c, b, l.self, p, rows, y, tape.self, r, nobody);
  relevance<B, T>(c, b, l.cross, p, attention.cross, rows, *tape.attended, *tape.self.middle, image, tape.cross,
                  r_attention.cross, r, r_image);
  attend_relevance<B, no_observer, T>(c, b, l.self, p, attention.self, rows, x, *tape.attended, tape.self,
                                      r_attention.self, r, nobody);
}

}  // namespace core_tokensets::lrp
