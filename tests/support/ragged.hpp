#pragma once
// Small ragged batches of noise, the same for every backend.

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/model/vit.hpp"

namespace ragged {

namespace cts = core_tokensets;

/// Samples with the given numbers of patches (0 is allowed: the class token stays alone), at rising random positions.
inline cts::token_batch noise(const cts::vit_config& c, const std::vector<int>& patches, std::uint64_t seed = 7) {
  cts::random_stream random(seed);
  cts::token_batch batch;
  batch.patch_dim = c.grid.patch_dim();
  for (const int n : patches) {
    auto order = random.permutation(c.grid.tokens());
    order.resize(static_cast<std::size_t>(n));
    std::sort(order.begin(), order.end());
    for (const auto position : order) {
      batch.positions.push_back(static_cast<std::int32_t>(position));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(random.below(c.classes)));
  }
  return batch;
}

/// Moves all parameters well away from 0, so that every gradient shows.
template <class B, class Model>
void enliven(B& b, Model& model, double by = 0.2) {
  auto values = model.parameters().to_host(b);
  cts::random_stream random(3);
  for (auto& x : values) x += static_cast<typename B::scalar>(by * random.normal());
  model.parameters().assign(b, 1, model.parameters().size(), values.data());
}

template <class B>
cts::vit<B> lively_model(B& b, const cts::vit_config& c) {
  cts::vit<B> model(b, c);
  enliven(b, model);
  return model;
}

}  // namespace ragged
