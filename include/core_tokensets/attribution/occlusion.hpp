#pragma once
// Occlusion (Zeiler & Fergus 2014) on tokens: what the model loses when one token is missing.

#include "core_tokensets/attribution/passes/variations.hpp"

namespace core_tokensets {

/// What is explained in the whole sample minus the same without the patch, for each patch on its own.
struct occlusion {
  static constexpr const char* name = "occlusion";
  static constexpr const char* about = "what is lost when a token is missing";
  missing_tokens missing = missing_tokens::drop;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("missing", self.missing);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const occlusion& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  variation_engine<B> engine(b, model, batch);
  std::vector<double> logits, relevance;
  ws.explained = settle_unchanged(engine, batch, t, logits);
  ws.classes = ws.explained.classes;
  const std::size_t k = logits.size() / std::max<std::size_t>(1, ws.classes.size());
  const auto samples = detail::sample_of_patch(batch);
  std::vector<std::uint8_t> keep;
  engine.run(
      batch.tokens(), false,
      [&](index v, variation& out) {
        const auto s = static_cast<std::size_t>(samples[static_cast<std::size_t>(v)]);
        keep.assign(static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]), 1);
        keep[static_cast<std::size_t>(v - batch.offsets[s])] = 0;
        engine.without(static_cast<index>(s), keep, method.missing, out);
      },
      [&](index v, std::span<const T> changed) {
        const auto s = static_cast<std::size_t>(samples[static_cast<std::size_t>(v)]);
        relevance.push_back(ws.explained.value(s, std::span(logits).subspan(s * k, k)) -
                            ws.explained.value(s, changed));
      });
  return relevance;
}

}  // namespace core_tokensets
