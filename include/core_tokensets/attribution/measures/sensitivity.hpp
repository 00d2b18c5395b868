#pragma once
// Max-sensitivity (Yeh et al., NeurIPS 2019): how much relevance moves when the input hardly does.

#include "core_tokensets/attribution/measures/ranking.hpp"
#include "core_tokensets/attribution/passes/copies.hpp"

namespace core_tokensets {

/// Uniform noise of at most `radius` times the range of a sample's numbers; the largest change over `samples` draws.
struct max_sensitivity {
  double radius = 0.05;
  index samples = 4;
  std::uint64_t seed = 0;
};

/// `[S]` max over draws of |phi(x + noise) - phi(x)| / |phi(x)| (Euclidean norms), for the class of the input without
/// noise. `explain(batch, target)` gives the relevance of every patch; `relevance` is that of the batch.
template <class Explain>
std::vector<double> measure(const max_sensitivity& options, const Explain& explain, const token_batch& batch,
                            const settled_target& explained, std::span<const double> relevance) {
  require(options.samples > 0 && options.radius >= 0 && std::isfinite(options.radius),
          "max_sensitivity: ", options.samples, " draws within ", options.radius);
  std::vector<double> result(static_cast<std::size_t>(batch.samples()), 0.0);
  for_each_part(batch, options.samples, 4096, [&](std::span<const index> samples, std::span<const index> number) {
    token_batch copies = copy_samples(batch, samples);
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const auto first = copies.patches.begin() + copies.offsets[c] * copies.patch_dim,
                 last = copies.patches.begin() + copies.offsets[c + 1] * copies.patch_dim;
      if (first == last) continue;
      const auto [low, high] = std::minmax_element(first, last);
      const double most = options.radius * (double(*high) - double(*low));
      random_stream random(options.seed, 0x73656e73 + static_cast<std::uint64_t>(number[c]));
      for (auto x = first; x != last; ++x) *x = static_cast<float>(double(*x) + random.uniform(-most, most));
    }
    const std::vector<double> moved = explain(copies, repeat_target(explained, samples));
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const auto s = static_cast<std::size_t>(samples[c]);
      const auto before = of_sample(relevance, batch.offsets, s),
                 after = of_sample(std::span<const double>(moved), copies.offsets, c);
      double change = 0, size = 0;
      for (std::size_t i = 0; i < before.size(); ++i) {
        change += (after[i] - before[i]) * (after[i] - before[i]), size += before[i] * before[i];
      }
      result[s] = std::max(result[s], size > 0 ? std::sqrt(change / size) : std::sqrt(change));
    }
  });
  return result;
}

}  // namespace core_tokensets
