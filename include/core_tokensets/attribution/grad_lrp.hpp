#pragma once
// GradLRP, the "transformer attribution" of Chefer, Gur & Wolf (CVPR 2021), for any number of samples at once.

#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// Per block C = mean_h max(0, dlogit/dA * R_A) with R_A the relevance of attention by the rules of a composite, plus
/// identity; product over blocks from `start_layer`; class-token row.
struct grad_lrp {
  static constexpr const char* name = "grad_lrp";
  static constexpr const char* about = "relevance of attention times its gradient, carried through all blocks";
  index start_layer = 0;
  lrp::preset rules = lrp::preset::chefer;
  double stabiliser = 0;  ///< of `lrp::stabilised`

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
    visit("rules", self.rules);
    visit("stabiliser", self.stabiliser);
  }
};

/// Gradient and relevance go down the blocks together, so that the matrices of one block only are held.
template <tensor_backend B>
std::vector<double> attribute(const grad_lrp& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(grad_lrp::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  const lrp::composite rules = lrp::make(method.rules, method.stabiliser);
  relevance_walk<B> relevance(rules, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    gradients.step(i);
    relevance.step(i);
    b.map(detail::positive_product{}, *ws.attention_gradient, *std::as_const(ws.attention_relevance));
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_gradient.data(), 2);
  }
  require_finite(grad_lrp::name, rules, b, model, ws);
  require_finite_gradients(grad_lrp::name, b, model, ws);
  return finite_relevance(grad_lrp::name, batch, rows.patches(b));
}

}  // namespace core_tokensets
