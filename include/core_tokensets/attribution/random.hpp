#pragma once
// The control that every comparison needs: relevance by dice.

#include "core_tokensets/attribution/target.hpp"

namespace core_tokensets {

struct random_relevance {
  static constexpr const char* name = "random";
  std::uint64_t seed = 0;
};

/// Uniform numbers `[P]`; each sample has its own stream.
template <tensor_backend B>
std::vector<double> attribute(const random_relevance& method, B&, const vit<B>&, const token_batch& batch,
                              std::span<const std::int32_t>, attribution_workspace<B>&) {
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()));
  random_stream random(method.seed, 0x72656c);
  for (double& r : relevance) r = random.uniform();
  return relevance;
}

}  // namespace core_tokensets
