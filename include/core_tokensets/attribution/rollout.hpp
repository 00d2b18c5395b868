#pragma once
// Attention rollout (Abnar & Zuidema, ACL 2020), with the fusions of heads and the discarding of low attention that its
// users added (jacobgil/vit-explain).

#include <numeric>

#include "core_tokensets/attribution/passes/class_row.hpp"

namespace core_tokensets {

/// How the attention of several heads becomes one matrix.
enum class head_fusion { mean, max, min };

template <>
inline constexpr std::array words<head_fusion>{"mean", "max", "min"};

/// Product over blocks, from `start_layer`, of fused attention plus identity, rows divided by their sums; class-token
/// row. `discard` sets that share of the smallest entries of each fused matrix to 0 first, but never that of the class
/// token with itself. Does not depend on the target.
struct rollout {
  static constexpr const char* name = "rollout";
  static constexpr const char* about = "attention of all blocks multiplied, residual streams included";
  index start_layer = 0;
  head_fusion fusion = head_fusion::mean;
  double discard = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
    visit("fusion", self.fusion);
    visit("discard", self.discard);
  }
};

namespace detail {

/// One matrix `[nq, nk]` from those of all heads, its smallest entries discarded.
template <class T>
std::vector<double> fused_attention(const rollout& method, const view<const T>& a) {
  std::vector<double> fused;
  for (index r = 0; r < a.rows; ++r) {
    for (index c = 0; c < a.cols; ++c) {
      double value = double(a.matrix(0, 0)(r, c));
      for (index h = 1; h < a.n1; ++h) {
        const double next = double(a.matrix(0, h)(r, c));
        value = method.fusion == head_fusion::mean  ? value + next
                : method.fusion == head_fusion::max ? std::max(value, next)
                                                    : std::min(value, next);
      }
      fused.push_back(method.fusion == head_fusion::mean ? value / static_cast<double>(a.n1) : value);
    }
  }
  std::vector<std::size_t> order(fused.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return fused[i] < fused[j]; });
  order.resize(static_cast<std::size_t>(method.discard * static_cast<double>(fused.size())));
  for (const std::size_t i : order) fused[i] = i == 0 ? fused[i] : 0;
  return fused;
}

/// row <- row D (F + I), D dividing the rows of F + I by their sums; F `[nq, nk]` meets the first nq entries.
inline void carry_normalised(const std::vector<double>& fused, index nq, std::vector<double>& row) {
  const std::size_t n = row.size();
  std::vector<double> next(n, 0.0);
  for (std::size_t r = 0; r < static_cast<std::size_t>(nq); ++r) {
    if (row[r] == 0) continue;
    const double* f = fused.data() + r * n;
    const double factor = row[r] / (1.0 + std::accumulate(f, f + n, 0.0));
    next[r] += factor;
    for (std::size_t c = 0; c < n; ++c) next[c] += factor * f[c];
  }
  row.swap(next);
}

/// On the host, for fusions that are not linear in the heads.
template <tensor_backend B>
std::vector<double> general_rollout(const rollout& method, B& b, const vit<B>& model, attribution_workspace<B>& ws) {
  const auto& plan = ws.tape.plan;
  std::vector<std::vector<double>> rows;
  for (index s = 0; s < plan.rows().count(); ++s) {
    rows.emplace_back(static_cast<std::size_t>(plan.rows().length(s)), 0.0);
    rows.back()[0] = 1;
  }
  for (index i = model.config().depth; i-- > method.start_layer;) {
    const auto& layout = attention_layout(ws.tape, i, model);
    const auto a = tape_of_block(ws.tape, i, model).a.to_host(b);
    ops::for_each_sample(b, layout.count(), [&](index s) {
      carry_normalised(fused_attention(method, layout.matrices(a.data(), s, model.config().heads)),
                       layout.queries().length(s), rows[static_cast<std::size_t>(s)]);
    });
  }
  std::vector<double> relevance;
  for (const auto& row : rows) relevance.insert(relevance.end(), row.begin() + 1, row.end() - plan.registers);
  return relevance;
}

}  // namespace detail

/// `Error`: a start layer that the model does not have, a discarded share outside of [0, 1).
template <tensor_backend B>
std::vector<double> attribute(const rollout& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(rollout::name, method.start_layer, model.config().depth);
  require(method.discard >= 0 && method.discard < 1, "rollout: discard ", method.discard,
          ", expected 0 <= discard < 1");
  explain_forward(b, model, batch, t, ws, kept::attention);
  if (method.fusion != head_fusion::mean || method.discard > 0) return detail::general_rollout(method, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    rows.scale(b, 0.5);  // rows of attention plus identity sum to 2
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads,
                     tape_of_block(ws.tape, i, model).a.data(), 0);
  }
  return rows.patches(b);
}

}  // namespace core_tokensets
