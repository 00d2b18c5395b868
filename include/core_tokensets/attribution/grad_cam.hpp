#pragma once
// Grad-CAM on tokens: heads of the last block weighted by the mean gradient of the class-token row (Chefer 2021,
// baselines; Selvaraju et al. 2017 for convolutions).

#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// w_h = mean_j G[h, 0, j], relevance = max(0, mean_h(w_h A[h, 0, :])) over patches j (as often as their weights say),
/// in the last block.
struct grad_cam {
  static constexpr const char* name = "grad_cam";
  static constexpr const char* about = "attention of the last block, heads weighted by their gradient";
};

template <tensor_backend B>
std::vector<double> attribute(const grad_cam&, B& b, const vit<B>& model, const token_batch& batch, const target& t,
                              attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const index heads = model.config().heads, last = model.config().depth - 1;
  gradient_walk<B>(b, model, ws).step(last);
  const attention_rows& layout = attention_layout(ws.tape, last, model);
  const auto a = tape_of_block(ws.tape, last, model).a.to_host(b), g = ws.attention_gradient.to_host(b);
  std::vector<double> relevance;
  for (index s = 0; s < batch.samples(); ++s) {
    const view<const T> as = layout.matrices(a.data(), s, heads), gs = layout.matrices(g.data(), s, heads);
    const index patches = as.cols - 1 - ws.tape.plan.registers, begin = batch.offsets[static_cast<std::size_t>(s)];
    const auto counts = [&](index c) {
      return batch.token_weights.empty() ? 1.0 : double(batch.token_weights[static_cast<std::size_t>(begin + c - 1)]);
    };
    double all = 0;
    for (index c = 1; c <= patches; ++c) all += counts(c);
    std::vector<double> cam(static_cast<std::size_t>(patches), 0.0);
    for (index h = 0; h < heads; ++h) {
      double weight = 0;
      for (index c = 1; c <= patches; ++c) weight += counts(c) * double(gs.matrix(0, h)(0, c)) / all;
      for (index c = 1; c <= patches; ++c)
        cam[static_cast<std::size_t>(c - 1)] += weight * double(as.matrix(0, h)(0, c)) / static_cast<double>(heads);
    }
    for (const double c : cam) relevance.push_back(std::max(c, 0.0));
  }
  require_finite_gradients(grad_cam::name, b, model, ws);
  return finite_relevance(grad_cam::name, batch, std::move(relevance));
}

}  // namespace core_tokensets
