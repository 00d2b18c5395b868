#pragma once
// Tokens of a text become vectors: one learned row for the token plus one for its place in the text.

#include "core_tokensets/nn/parameters.hpp"
#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

struct text_embedding {
  slot tokens;     ///< [V, C]
  slot positions;  ///< [N, C]
};

inline text_embedding add_text_embedding(parameter_layout& layout, const std::string& name, index vocabulary,
                                         index length, index dim) {
  return {layout.add(name + ".token_embed.weight", {vocabulary, dim}, false),
          layout.add(name + ".pos_embed.weight", {length, dim}, false)};
}

/// Token and position numbers `[L]` to vectors `[L, C]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const text_embedding& l, parameter_view<const T> p, const row_list<B>& tokens,
             const row_list<B>& positions, view<T> out) {
  scratch<B> of_position(b, out.rows, out.cols);
  b.gather_rows(out, p[l.tokens], tokens.data());
  b.gather_rows(*of_position, p[l.positions], positions.data());
  b.map(fn::add{}, out, view<const T>(*of_position));
}

/// Parameter gradients (+=) from d loss / d vectors `[L, C]`.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const text_embedding& l, parameter_view<T> grads, const row_list<B>& tokens,
              const row_list<B>& positions, const_view<T> dout) {
  b.scatter_add_rows(grads[l.tokens], dout, tokens.data());
  b.scatter_add_rows(grads[l.positions], dout, positions.data());
}

}  // namespace core_tokensets
