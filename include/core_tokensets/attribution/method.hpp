#pragma once
// What a method is: any type with an overload of `attribute`. A type of one's own needs nothing else of us.

#include <concepts>

#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// A type M whose values explain a Vision Transformer on backend B: `attribute(m, b, model, batch, target, workspace)`,
/// found beside M, gives relevance `[P]`, one number for each patch of the batch. Nothing is normalised. What the
/// numbers of a sample are does not depend on the others in the batch.
template <class M, class B>
concept attribution_method = tensor_backend<B> &&
    requires(const M& m, B& b, const vit<B>& model, const token_batch& batch, const target& t,
             attribution_workspace<B>& ws) {
  { attribute(m, b, model, batch, t, ws) } -> std::same_as<std::vector<double>>;
};

/// The same with a workspace of its own, for one batch.
template <tensor_backend B, attribution_method<B> M>
std::vector<double> attribute(const M& m, B& b, const vit<B>& model, const token_batch& batch, const target& t = {}) {
  attribution_workspace<B> ws;
  return attribute(m, b, model, batch, t, ws);
}

}  // namespace core_tokensets
