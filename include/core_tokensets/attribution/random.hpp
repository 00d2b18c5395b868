#pragma once
// The control that every comparison needs: relevance by dice.

#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// Uniform numbers, one after the other over the batch.
struct random_relevance {
  static constexpr const char* name = "random";
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("seed", self.seed);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const random_relevance& method, B&, const vit<B>&, const token_batch& batch,
                              const target&, attribution_workspace<B>&) {
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()));
  random_stream random(method.seed, 0x72656c);
  for (double& r : relevance) r = random.uniform();
  return relevance;
}

}  // namespace core_tokensets
