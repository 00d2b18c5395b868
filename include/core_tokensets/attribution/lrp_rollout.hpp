#pragma once
// Rollout of the relevance of attention instead of attention itself (Chefer, Gur & Wolf 2021, ablation).

#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// Per block C = mean_h max(0, R_A), plus identity; product over blocks from `start_layer`; class-token row. `grad_lrp`
/// without its gradient.
struct lrp_rollout {
  static constexpr const char* name = "lrp_rollout";
  static constexpr const char* about = "relevance of attention carried through all blocks, without gradients";
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

template <tensor_backend B>
std::vector<double> attribute(const lrp_rollout& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(lrp_rollout::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const lrp::composite rules = lrp::make(method.rules, method.stabiliser);
  relevance_walk<B> relevance(rules, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    relevance.step(i);
    b.map(detail::keep_positive{}, *ws.attention_relevance);
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_relevance.data(), 1);
  }
  require_finite(lrp_rollout::name, rules, b, model, ws);
  return finite_relevance(lrp_rollout::name, batch, rows.patches(b));
}

}  // namespace core_tokensets
