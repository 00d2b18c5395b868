#pragma once
// Layer-wise relevance propagation from what is explained to tokens or pixels, by the rules of any composite.

#include <cmath>

#include "core_tokensets/attribution/passes/class_row.hpp"
#include "core_tokensets/attribution/passes/walk.hpp"

namespace core_tokensets {

/// Where relevance is read: at the tokens (patch and position together), at the patch embeddings (the share of
/// positions left out), or at the pixels; summed up for each patch.
enum class relevance_level { tokens, embeddings, pixels };

template <>
inline constexpr std::array words<relevance_level>{"tokens", "embeddings", "pixels"};

/// LRP by the rules of `composite`. `limit`: relevance may grow to so many times its size at the start (sums of
/// absolute values over a sample, at the input of any block); more is an `Error`, since the rules then do not fit the
/// model.
struct lrp_attribution {
  static constexpr const char* name = "lrp";
  static constexpr const char* about = "layer-wise relevance propagation by the rules of a preset";
  lrp::preset rules = lrp::preset::attn_lrp;
  relevance_level level = relevance_level::tokens;
  double limit = 1e12;
  double stabiliser = 0;  ///< of `lrp::stabilised`

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("rules", self.rules);
    visit("level", self.level);
    visit("limit", self.limit);
    visit("stabiliser", self.stabiliser);
  }
};

/// The same for a composite of one's own.
struct composite_attribution {
  static constexpr const char* name = "lrp";
  lrp::composite rules = lrp::attn_lrp();
  relevance_level level = relevance_level::tokens;
  double limit = 1e12;
};

namespace detail {

/// Least and largest number of each sample's patches, at each of its rows `[P]`.
inline std::pair<std::vector<double>, std::vector<double>> pixel_bounds(const token_batch& batch) {
  std::pair<std::vector<double>, std::vector<double>> bounds;
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    const auto begin = batch.patches.begin() + batch.offsets[s] * batch.patch_dim,
               end = batch.patches.begin() + batch.offsets[s + 1] * batch.patch_dim;
    const auto count = static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]);
    if (count == 0) continue;
    const auto [low, high] = std::minmax_element(begin, end);
    bounds.first.insert(bounds.first.end(), count, double(*low));
    bounds.second.insert(bounds.second.end(), count, double(*high));
  }
  return bounds;
}

template <tensor_backend B, class T = typename B::scalar>
void upload_column(B& b, const std::vector<double>& values, tensor<B>& column) {
  const std::vector<T> host(values.begin(), values.end());
  column.assign(b, static_cast<index>(host.size()), 1, host.data());
}

}  // namespace detail

/// From relevance at the tokens (`ws.relevance`) to the patch embeddings `[P, D]` (=): the share of position embeddings
/// and everything of class token and registers is left out.
template <tensor_backend B, class Observer = lrp::no_observer, class T = typename B::scalar>
void embedding_relevance(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws, view<T> out,
                         const Observer& observe = {}) {
  const auto& plan = ws.tape.plan;
  const index tokens = plan.tokens(), dim = model.config().dim;
  scratch<B> parts(b, tokens, dim), at_part(b, tokens, dim), at_position(b, tokens, dim);
  b.fill(*parts, T(0));
  b.scatter_add_rows(*parts, *std::as_const(ws.tape.embedding.patches), plan.patch_rows.data());
  const view<const T> cls = model.view_parameters()[model.layout().embedding.class_token];
  b.scatter_add_rows(*parts, view<const T>(cls.data, plan.class_rows.size(), cls.cols, 0), plan.class_rows.data());
  add_registers<B, T>(b, model.layout().embedding, model.view_parameters(), plan, *parts);
  lrp::relevance<B, T>(c.positions, b, ws.all_rows, *std::as_const(ws.relevance), *parts,
                       *ws.tape.embedding.sums_of(ws.tape.stream[0]), *at_part, *at_position);
  observe(lrp::stage::embedding_share, ws.all_rows, view<const T>(*at_part));
  observe(lrp::stage::positions_share, ws.all_rows, view<const T>(*at_position));
  b.gather_rows(out, *at_part, plan.patch_rows.data());
}

/// From relevance at the patch embeddings `[P, D]` to the pixels `[P, patch_dim]` (=).
template <tensor_backend B, class T = typename B::scalar>
void pixel_relevance(const lrp::composite& c, B& b, const vit<B>& model, const token_batch& batch,
                     attribution_workspace<B>& ws, const_view<T> r, view<T> out) {
  const auto [low, high] = detail::pixel_bounds(batch);
  tensor<B> lows, highs;
  detail::upload_column(b, low, lows);
  detail::upload_column(b, high, highs);
  const auto plan = c.patch_embed.plan_for(model.config().grid.channels);
  const auto p = model.view_parameters();
  const linear& l = model.layout().embedding.proj;
  lrp::linear_operands<T> layer{.weight = p[l.weight], .bias = p[l.bias]};
  if (plan.bounds_of_sample) layer.low = *std::as_const(lows), layer.high = *std::as_const(highs);
  lrp::relevance<B, T>(plan, b, layer, *std::as_const(ws.tape.patches), r, out);
}

/// Runs the pass down to the tokens and returns relevance `[P, D]` or `[P, patch_dim]` of every patch at `level`.
template <tensor_backend B>
void lrp_relevance(const composite_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                   const target& t, attribution_workspace<B>& ws, tensor<B>& out) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, t, ws, kept::gradients);
  std::vector<double> start;
  const auto guard = [&](lrp::stage s, const auto& rows, const auto& r) {
    if (s == lrp::stage::choice) start = detail::sample_magnitudes<B, T>(b, rows, r);
  };
  relevance_walk<B, decltype(guard)> walk(method.rules, b, model, ws, guard);
  for (index i = model.config().depth; i-- > 0;) {
    walk.step(i);
    const auto now = detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.relevance));
    for (std::size_t s = 0; s < now.size(); ++s) {
      require(now[s] <= method.limit * start[s] || now[s] == 0, "lrp: relevance by the rules '", method.rules.name,
              "' grew from ", start[s], " to ", now[s], " at block ", i, " of sample ", s, "; the limit is ",
              method.limit, " times");
    }
  }
  const auto& plan = ws.tape.plan;
  out.resize(b, batch.tokens(), model.config().dim);
  if (method.level == relevance_level::tokens) {
    b.gather_rows(*out, *std::as_const(ws.relevance), plan.patch_rows.data());
    return;
  }
  embedding_relevance(method.rules, b, model, ws, *out);
  if (method.level == relevance_level::embeddings) return;
  tensor<B> pixels(b, batch.tokens(), batch.patch_dim);
  pixel_relevance<B, T>(method.rules, b, model, batch, ws, *std::as_const(out), *pixels);
  out = std::move(pixels);
}

template <tensor_backend B>
std::vector<double> attribute(const composite_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  tensor<B> relevance, sums(b, batch.tokens(), 1);
  lrp_relevance(method, b, model, batch, t, ws, relevance);
  b.row_reduce(fn::plus{}, fn::value{}, *sums, *std::as_const(relevance));
  const auto host = sums.to_host(b);
  return finite_relevance(composite_attribution::name, batch, {host.begin(), host.end()});
}

template <tensor_backend B>
std::vector<double> attribute(const lrp_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  const lrp::composite rules = lrp::make(method.rules, method.stabiliser);
  return attribute(composite_attribution{rules, method.level, method.limit}, b, model, batch, t, ws);
}

}  // namespace core_tokensets
