#pragma once
// Gradient times input (Shrikumar et al. 2016): the control that every auditor asks for.

#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// Sum over the pixels of a patch of pixel times gradient; with `magnitude`, the Euclidean norm of the gradient instead
/// (saliency, Simonyan et al. 2014).
struct gradient_x_input {
  static constexpr const char* name = "gradient_x_input";
  static constexpr const char* about = "gradient of the pixels times the pixels";
  bool magnitude = false;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("magnitude", self.magnitude);
  }
};

/// After `explain_forward` with `kept::gradients`: gradient of what is explained at the patches `[P, patch_dim]` (=),
/// and at the tokens (`ws.dtokens`).
template <tensor_backend B>
void patch_gradient(B& b, const vit<B>& model, attribution_workspace<B>& ws, tensor<B>& out) {
  using T = typename B::scalar;
  out.resize(b, ws.tape.patches.rows(), ws.tape.patches.cols());
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.dtokens, *out);
}

template <tensor_backend B>
std::vector<double> attribute(const gradient_x_input& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::gradients);
  tensor<B> gradient, sums(b, batch.tokens(), 1);
  patch_gradient(b, model, ws, gradient);
  if (method.magnitude) {
    b.row_reduce(fn::plus{}, fn::square{}, *sums, *std::as_const(gradient));
  } else {
    b.row_reduce(fn::plus{}, fn::times{}, *sums, *std::as_const(gradient), *std::as_const(ws.tape.patches));
  }
  const auto host = sums.to_host(b);
  std::vector<double> relevance(host.begin(), host.end());
  if (method.magnitude) {
    for (double& r : relevance) r = std::sqrt(r);
  }
  require_finite_gradients(gradient_x_input::name, b, model, ws);
  return finite_relevance(gradient_x_input::name, batch, std::move(relevance));
}

}  // namespace core_tokensets
