#pragma once
// Salience-guided faithfulness coefficient (Wu et al., CVPR 2024, "SaCo"): do groups of patches with more relevance
// matter more, by as much as they are more relevant?

#include "core_tokensets/attribution/measures/masked_values.hpp"

namespace core_tokensets {

struct saco {
  index groups = 10;
  missing_tokens missing = missing_tokens::zero;
};

/// From the salience and the effect of groups in falling order of salience: pairs count with the difference of their
/// saliences, positive where the more salient group has at least the effect of the other; -1 .. 1.
inline double saco_of_groups(std::span<const double> salience, std::span<const double> effect) {
  double sum = 0, total = 0;
  for (std::size_t i = 0; i + 1 < salience.size(); ++i) {
    for (std::size_t j = i + 1; j < salience.size(); ++j) {
      const double weight = salience[i] - salience[j];
      sum += effect[i] >= effect[j] ? weight : -weight;
      total += std::abs(weight);
    }
  }
  return total > 0 ? sum / total : 0;
}

/// `[S]`; patches in falling order of relevance are cut into groups of equal size, and each group is taken away alone.
template <measured M>
std::vector<double> measure(const saco& options, M& m, std::span<const double> relevance) {
  require(options.groups > 1, "saco: ", options.groups, " groups");
  m.check(relevance);
  std::vector<masked_sample> masked;
  std::vector<std::vector<double>> salience(m.samples()), effect(m.samples());
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(relevance, m.offsets(), s);
    const auto order = falling_order(r);
    const std::size_t n = order.size(), groups = std::min(n, static_cast<std::size_t>(options.groups));
    for (std::size_t g = 0; g < groups; ++g) {
      masked.push_back({s, std::vector<std::uint8_t>(n, 1)});
      salience[s].push_back(0);
      for (std::size_t i = g * n / groups; i < (g + 1) * n / groups; ++i) {
        masked.back().keep[order[i]] = 0;
        salience[s].back() += r[order[i]];
      }
    }
  }
  const auto values = m.values(options.missing, masked);
  for (std::size_t i = 0; i < masked.size(); ++i) {
    effect[masked[i].sample].push_back(m.whole[masked[i].sample].probability - values[i].probability);
  }
  std::vector<double> result;
  for (std::size_t s = 0; s < m.samples(); ++s) result.push_back(saco_of_groups(salience[s], effect[s]));
  return result;
}

}  // namespace core_tokensets
