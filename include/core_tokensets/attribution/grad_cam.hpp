#pragma once
// Grad-CAM on tokens: heads of the last block weighted by the mean gradient of the class-token row (Chefer 2021,
// baselines).

#include "core_tokensets/attribution/target.hpp"

namespace core_tokensets {

struct grad_cam {
  static constexpr const char* name = "grad_cam";
};

/// w_h = mean_j G[h, 0, j], relevance = max(0, mean_h(w_h A[h, 0, :])) over patches j.
template <tensor_backend B>
std::vector<double> attribute(const grad_cam&, B& b, const vit<B>& model, const token_batch& batch,
                              std::span<const std::int32_t> targets, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, targets, ws);
  explain_backward(b, model, ws);
  const index heads = model.config().heads;
  const attention_rows& layout = ws.tape.plan.all;
  const auto a = ws.tape.blocks.back().a.to_host(b), g = ws.tape.blocks.back().da.to_host(b);
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 0.0);
  for (index s = 0; s < batch.samples(); ++s) {
    const view<const T> as = layout.matrices(a.data(), s, model.config().heads),
                        gs = layout.matrices(g.data(), s, heads);
    double* out = relevance.data() + batch.offsets[static_cast<std::size_t>(s)];
    const index patches = as.cols - 1;
    for (index h = 0; h < heads; ++h) {
      double weight = 0;
      for (index c = 1; c <= patches; ++c) weight += double(gs.matrix(0, h)(0, c)) / static_cast<double>(patches);
      for (index c = 1; c <= patches; ++c)
        out[c - 1] += weight * double(as.matrix(0, h)(0, c)) / static_cast<double>(heads);
    }
    for (index c = 0; c < patches; ++c) out[c] = std::max(out[c], 0.0);
  }
  return relevance;
}

}  // namespace core_tokensets
