#pragma once
// A pre-norm decoder block: causal self-attention among the tokens of a text, a look at the picture, and an MLP, each
// added to what came in.

#include "core_tokensets/nn/cross_attention.hpp"

namespace core_tokensets {

/// Self-attention and MLP are those of `block`; the look at the picture stands between them.
struct decoder_block {
  block self;
  cross_attention cross;
};

/// Its activations: `attended` `[L, C]` is x behind self-attention, `self.middle` behind the look at the picture.
template <tensor_backend B>
struct decoder_block_tape {
  block_tape<B> self;
  cross_attention_tape<B> cross;
  tensor<B> attended;
};

inline decoder_block add_decoder_block(parameter_layout& layout, const std::string& name, index dim, index image_dim,
                                       index heads, index hidden, double eps) {
  decoder_block l;
  l.self = add_block(layout, name, dim, heads, hidden, true, eps);
  l.cross = add_cross_attention(layout, name + ".cross", dim, image_dim, heads, eps);
  return l;
}

/// Who looks at whom: text tokens at earlier ones of their text (`self`, causal), and at their picture (`cross`).
struct decoder_rows {
  attention_rows self, cross;
};

/// Factors on the attention scores of text tokens `[L]` and of image tokens `[T]`, for perturbations only.
template <class T>
struct decoder_factors {
  key_factors<T> text = {}, image = {};
};

/// x `[L, C]` to y `[L, C]` with image tokens `[T, E]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const decoder_block& l, parameter_view<const T> p, const decoder_rows& rows, const_view<T> x,
             const_view<T> image, decoder_block_tape<B>& tape, attention_kept keep, view<T> y,
             const decoder_factors<T>& factors = {}) {
  tape.attended.resize(b, x.rows, x.cols);
  tape.self.middle.resize(b, x.rows, x.cols);
  attend<B, T>(b, l.self, p, rows.self, x, tape.self, keep, *tape.attended, factors.text);
  forward<B, T>(b, l.cross, p, rows.cross, *std::as_const(tape.attended), image, tape.cross, keep, *tape.self.middle,
                factors.image);
  forward_mlp<B, T>(b, l.self, p, tape.self, y);
}

/// `dx` holds d loss / d y on entry and d loss / d x on return; `dimage` `[T, E]` is added to.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const decoder_block& l, parameter_view<const T> p, parameter_view<T> grads,
              const decoder_rows& rows, const_view<T> x, const_view<T> image, decoder_block_tape<B>& tape,
              bool keep_attention_gradient, view<T> dx, view<T> dimage) {
  scratch<B> dmiddle(b, x.rows, x.cols), dattended(b, x.rows, x.cols);
  backward_mlp<B, T>(b, l.self, p, grads, tape.self, dx, *dmiddle);
  backward<B, T>(b, l.cross, p, grads, rows.cross, *std::as_const(tape.attended), image, tape.cross,
                 keep_attention_gradient, *dmiddle, *dattended, dimage);
  backward_attend<B, T>(b, l.self, p, grads, rows.self, x, tape.self, keep_attention_gradient, *dattended, dx);
}

}  // namespace core_tokensets
