#pragma once
// Partial LRP: relevance of the attention of one block, without going further (Voita et al., ACL 2019).

#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// Class-token row of mean_h max(0, R_A) in one block; `block` counts from the last one (0). With `gradient`,
/// mean_h max(0, G R_A). Chefer's repository reports it with the rules `chefer_original`.
struct partial_lrp {
  static constexpr const char* name = "partial_lrp";
  static constexpr const char* about = "relevance of the attention of one block";
  index block_from_last = 0;
  bool gradient = false;
  lrp::preset rules = lrp::preset::chefer_original;
  double stabiliser = 0;  ///< of `lrp::stabilised`

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("block_from_last", self.block_from_last);
    visit("gradient", self.gradient);
    visit("rules", self.rules);
    visit("stabiliser", self.stabiliser);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const partial_lrp& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  const index depth = model.config().depth, stop = depth - 1 - method.block_from_last;
  detail::check_start_layer(partial_lrp::name, stop, depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const lrp::composite rules = lrp::make(method.rules, method.stabiliser);
  relevance_walk<B> relevance(rules, b, model, ws);
  for (index i = depth; i-- > stop;) relevance.step(i);
  require_finite(partial_lrp::name, rules, b, model, ws);
  if (method.gradient) {
    gradient_walk<B> gradients(b, model, ws);
    for (index i = depth; i-- > stop;) gradients.step(i);
    b.map(detail::positive_product{}, *ws.attention_relevance, *std::as_const(ws.attention_gradient));
  } else {
    b.map(detail::keep_positive{}, *ws.attention_relevance);
  }
  return finite_relevance(partial_lrp::name, batch,
                          mean_class_row(b, ws.tape.plan, attention_layout(ws.tape, stop, model), model.config().heads,
                                         std::as_const(ws.attention_relevance).data()));
}

}  // namespace core_tokensets
