#pragma once
// Where the class token looks: raw attention of the last block, and attention rollout.

#include "core_tokensets/attribution/target.hpp"

namespace core_tokensets {

/// Class-token row of the last block's attention, mean over heads.
struct last_attention {
  static constexpr const char* name = "attention";
};

/// Product over blocks of mean-head attention plus identity, rows normalised; class-token row (Abnar & Zuidema 2020).
struct rollout {
  static constexpr const char* name = "rollout";
  index start_layer = 0;
};

namespace detail {
template <class T>
double mean_over_heads(const view<const T>& a, index r, index c) {
  double sum = 0;
  for (index h = 0; h < a.n1; ++h) sum += double(a.matrix(0, h)(r, c));
  return sum / static_cast<double>(a.n1);
}
inline void check_start_layer(index start, index depth) {
  require(start >= 0 && start < depth, "attribution: start layer ", start, " of a model with ", depth, " blocks");
}
}  // namespace detail

template <tensor_backend B>
std::vector<double> attribute(const last_attention&, B& b, const vit<B>& model, const token_batch& batch,
                              std::span<const std::int32_t> targets, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, targets, ws);
  const attention_rows& layout = ws.tape.plan.all;
  const auto a = ws.tape.blocks.back().a.to_host(b);
  std::vector<double> relevance;
  for (index s = 0; s < batch.samples(); ++s) {
    const view<const T> as = layout.matrices(a.data(), s, model.config().heads);
    for (index c = 1; c < as.cols; ++c) relevance.push_back(detail::mean_over_heads(as, 0, c));
  }
  return relevance;
}

template <tensor_backend B>
std::vector<double> attribute(const rollout& method, B& b, const vit<B>& model, const token_batch& batch,
                              std::span<const std::int32_t> targets, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  detail::check_start_layer(method.start_layer, model.config().depth);
  explain_forward(b, model, batch, targets, ws);
  const attention_rows& layout = ws.tape.plan.all;
  std::vector<std::vector<T>> maps;
  for (const auto& block : ws.tape.blocks) maps.push_back(block.a.to_host(b));
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()));
  ops::for_each_sample(b, batch.samples(), [&](index s) {
    class_row<T> row(ws.tape.plan.rows().length(s));
    for (index i = model.config().depth; i-- > method.start_layer;) {
      const view<const T> a =
          layout.matrices(static_cast<const T*>(maps[static_cast<std::size_t>(i)].data()), s, model.config().heads);
      row.multiply([&](index r, index c) { return detail::mean_over_heads(a, r, c); }, true);
    }
    row.copy_patches(relevance.data() + batch.offsets[static_cast<std::size_t>(s)]);
  });
  return relevance;
}

}  // namespace core_tokensets
