#pragma once
// Generic attention explainability (Chefer, Gur & Wolf, ICCV 2021) for self-attention: attention times its gradient.

#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// R = I, then R += mean_h max(0, G A) R from the first block (or `start_layer`) to the last; class-token row.
struct generic_attention {
  static constexpr const char* name = "generic_attention";
  static constexpr const char* about = "attention times its gradient, carried through all blocks";
  index start_layer = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const generic_attention& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(generic_attention::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    gradients.step(i);
    b.map(detail::positive_product{}, *ws.attention_gradient, *std::as_const(tape_of_block(ws.tape, i, model).a));
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_gradient.data(), 1);
  }
  require_finite_gradients(generic_attention::name, b, model, ws);
  return finite_relevance(generic_attention::name, batch, rows.patches(b));
}

}  // namespace core_tokensets
