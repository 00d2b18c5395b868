#pragma once
// How far relevance may be trusted: what a change of the model in its last digits does to it. Rules that divide by what
// can come close to 0 have poles there, and a memory that keeps the most relevant tokens then keeps others.

#include "core_tokensets/attribution/measures/ranking.hpp"
#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

/// Every weight moves by `size` times a normal number times itself; the share `kept` of a sample's tokens, one at
/// least, is what a memory would keep.
struct weight_stability {
  double size = 1e-4, kept = 0.25;
  std::uint64_t seed = 0;
};

/// `[S]` each: the share of the kept tokens that stays, and the largest change of relevance in parts of the largest
/// relevance (0 where that is 0).
struct stability_result {
  std::vector<double> stay, change;
};

/// `explain(model)` gives the relevance of every patch of the batch; classes must be settled with `model`. `relevance`
/// is that of `model`.
template <tensor_backend B, class Explain>
stability_result measure(const weight_stability& options, B& b, const vit<B>& model, const Explain& explain,
                         const token_batch& batch, std::span<const double> relevance) {
  require_within("stability: size", options.size, 0);
  require_within("stability: kept", options.kept, 0, 1);
  auto values = model.parameters().to_host(b);
  random_stream random(options.seed, 0x73746162);
  using T = typename B::scalar;
  for (T& v : values) v = static_cast<T>(double(v) * (1 + options.size * random.normal()));
  vit<B> moved(b, model.config());
  moved.parameters().assign(b, 1, model.layout().parameters.size(), values.data());
  const std::vector<double> other = explain(moved);
  stability_result result;
  for (std::size_t s = 0; s < static_cast<std::size_t>(batch.samples()); ++s) {
    const auto before = of_sample(relevance, batch.offsets, s),
               after = of_sample(std::span<const double>(other), batch.offsets, s);
    if (before.empty()) continue;
    const auto count =
        std::max<std::size_t>(1, static_cast<std::size_t>(options.kept * static_cast<double>(before.size())));
    auto kept = falling_order(before), now = falling_order(after);
    kept.resize(count);
    now.resize(count);
    const auto stays = [&](std::size_t i) { return std::find(now.begin(), now.end(), i) != now.end(); };
    result.stay.push_back(static_cast<double>(std::count_if(kept.begin(), kept.end(), stays)) /
                          static_cast<double>(count));
    double change = 0, most = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      change = std::max(change, std::abs(after[i] - before[i]));
      most = std::max(most, std::abs(before[i]));
    }
    result.change.push_back(most > 0 ? change / most : 0);
  }
  return result;
}

}  // namespace core_tokensets
