#pragma once
// GradLRP, the "transformer attribution" of Chefer, Gur & Wolf (CVPR 2021), for any number of samples at once.

#include "core_tokensets/attribution/target.hpp"
#include "core_tokensets/nn/chefer_relevance.hpp"

namespace core_tokensets {

/// Per block C = mean_h max(0, dlogit/dA * R_A) with R_A the relevance of attention, plus identity; product over blocks
/// from `start_layer`; class-token row.
struct grad_lrp {
  static constexpr const char* name = "grad_lrp";
  index start_layer = 0;
};

/// Carries relevance 1 at the explained logit of each sample down to the tokens `[T, D]` (`ws.relevance`), after
/// `explain_forward`. `visit(i)` is called for each block from the last to the first, when `ws.relevance` is at its
/// input and `ws.attention_relevance` at its attention.
template <tensor_backend B, class Visit>
void chefer_relevance(B& b, const vit<B>& model, attribution_workspace<B>& ws, const Visit& visit) {
  using T = typename B::scalar;
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  const auto& tape = ws.tape;
  const index samples = tape.logits.rows(), k = tape.logits.cols(), dim = model.config().dim;
  std::vector<T> one_hot(static_cast<std::size_t>(samples * k), T(0));
  for (index s = 0; s < samples; ++s)
    one_hot[static_cast<std::size_t>(s * k + ws.classes[static_cast<std::size_t>(s)])] = 1;
  ws.dlogits.assign(b, samples, k, one_hot.data());
  {
    scratch<B> at_norm(b, samples, dim), zero(b, samples, dim), selected(b, samples, dim);
    const chefer::split_weight<B> head(b, p[l.head.weight]);
    chefer::linear_relevance<B, T>(b, head, *tape.norm.y, *ws.dlogits, *at_norm);
    b.fill(*zero, T(0));
    b.map(chefer::detail::clone{}, *selected, view<const T>(*at_norm), view<const T>(*zero), *tape.norm.y);
    ws.relevance.resize(b, tape.plan.tokens(), dim);
    b.fill(*ws.relevance, T(0));
    b.scatter_add_rows(*ws.relevance, *selected, tape.plan.class_rows.data());
  }
  for (std::size_t i = l.blocks.size(); i-- > 0;) {
    ws.attention_relevance.resize(b, 1, tape.blocks[i].a.size());
    chefer::block_relevance<B, T>(b, l.blocks[i], p, tape.plan.all, *tape.stream[i], *tape.stream[i + 1],
                                  tape.blocks[i], ws.attention_relevance.data(), *ws.relevance);
    visit(static_cast<index>(i));
  }
}

template <tensor_backend B>
std::vector<double> attribute(const grad_lrp& method, B& b, const vit<B>& model, const token_batch& batch,
                              std::span<const std::int32_t> targets, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const index heads = model.config().heads;
  require(method.start_layer >= 0 && method.start_layer < model.config().depth, "grad_lrp: start layer ",
          method.start_layer, " of a model with ", model.config().depth, " blocks");
  explain_forward(b, model, batch, targets, ws);
  explain_backward(b, model, ws);
  const attention_rows& layout = ws.tape.plan.all;
  std::vector<class_row<T>> rows;
  for (index s = 0; s < batch.samples(); ++s) rows.emplace_back(ws.tape.plan.rows().length(s));
  chefer_relevance(b, model, ws, [&](index i) {
    if (i < method.start_layer) return;
    const auto cam = ws.attention_relevance.to_host(b);
    const auto gradient = ws.tape.blocks[static_cast<std::size_t>(i)].da.to_host(b);
    ops::for_each_sample(b, batch.samples(), [&](index s) {
      const view<const T> c = layout.matrices(cam.data(), s, heads), g = layout.matrices(gradient.data(), s, heads);
      rows[static_cast<std::size_t>(s)].multiply(
          [&](index r, index col) {
            double sum = 0;
            for (index h = 0; h < heads; ++h) {
              sum += std::max(0.0, double(c.matrix(0, h)(r, col)) * double(g.matrix(0, h)(r, col)));
            }
            return sum / static_cast<double>(heads);
          },
          false);
    });
  });
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()));
  for (index s = 0; s < batch.samples(); ++s) {
    rows[static_cast<std::size_t>(s)].copy_patches(relevance.data() + batch.offsets[static_cast<std::size_t>(s)]);
  }
  return relevance;
}

}  // namespace core_tokensets
