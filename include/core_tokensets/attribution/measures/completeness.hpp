#pragma once
// Completeness (Sundararajan et al. 2017): does relevance add up to what the model gains from the patches? And how few
// patches hold it: the Gini coefficient.

#include "core_tokensets/attribution/measures/masked_values.hpp"

namespace core_tokensets {

struct completeness {
  missing_tokens missing = missing_tokens::zero;
};

/// `[S]` |sum of relevance - (f(x) - f(x without its patches))| / |f(x) - f(x without its patches)|, f what is
/// explained.
template <measured M>
std::vector<double> measure(const completeness& options, M& m, std::span<const double> relevance) {
  m.check(relevance);
  std::vector<masked_sample> masked;
  for (std::size_t s = 0; s < m.samples(); ++s) masked.push_back({s, std::vector<std::uint8_t>(m.patches(s), 0)});
  const auto values = m.values(options.missing, masked);
  std::vector<double> result;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(relevance, m.offsets(), s);
    const double gained = m.whole[s].value - values[s].value;
    const double error = std::abs(std::accumulate(r.begin(), r.end(), 0.0) - gained);
    result.push_back(gained != 0 ? error / std::abs(gained) : error);
  }
  return result;
}

/// Gini coefficient of |relevance|: 0 where all patches have the same, (n - 1) / n where one has all.
inline double gini(std::span<const double> relevance) {
  std::vector<double> sizes;
  for (const double r : relevance) sizes.push_back(std::abs(r));
  std::sort(sizes.begin(), sizes.end());
  const auto n = static_cast<double>(sizes.size());
  double weighted = 0, total = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    weighted += (2 * static_cast<double>(i) + 1 - n) * sizes[i];
    total += sizes[i];
  }
  return total > 0 ? weighted / (n * total) : 0;
}

}  // namespace core_tokensets
