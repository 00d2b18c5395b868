#pragma once
// Are the most relevant patches enough, and are they needed? (ERASER, DeYoung et al., ACL 2020.)

#include "core_tokensets/attribution/measures/masked_values.hpp"

namespace core_tokensets {

/// Means over the shares of patches, of the probability of the explained class.
struct sufficiency {
  std::vector<double> shares = {0.1, 0.2, 0.5};
  missing_tokens missing = missing_tokens::drop;
};

/// Probability lost when only the most relevant patches stay (`sufficiency`, low is good: what a token memory wants),
/// and when they alone are gone (`comprehensiveness`, high is good); `[S]` each.
struct sufficiency_result {
  std::vector<double> sufficiency, comprehensiveness;
};

template <measured M>
sufficiency_result measure(const sufficiency& options, M& m, std::span<const double> relevance) {
  require(!options.shares.empty(), "sufficiency: no shares");
  m.check(relevance);
  std::vector<masked_sample> masked;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto order = falling_order(of_sample(relevance, m.offsets(), s));
    for (const double share : options.shares) {
      require(share > 0 && share <= 1, "sufficiency: share ", share);
      const auto top = static_cast<std::size_t>(std::lround(share * static_cast<double>(order.size())));
      masked_sample only{s, std::vector<std::uint8_t>(order.size(), 0)},
          rest{s, std::vector<std::uint8_t>(order.size(), 1)};
      for (std::size_t i = 0; i < std::min(order.size(), std::max<std::size_t>(top, 1)); ++i) {
        only.keep[order[i]] = 1, rest.keep[order[i]] = 0;
      }
      masked.push_back(std::move(only));
      masked.push_back(std::move(rest));
    }
  }
  const auto values = m.values(options.missing, masked);
  sufficiency_result result{std::vector<double>(m.samples(), 0.0), std::vector<double>(m.samples(), 0.0)};
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const std::size_t s = masked[i].sample;
    const auto n = static_cast<double>(options.shares.size());
    result.sufficiency[s] += (m.whole[s].probability - values[i].probability) / n;
    result.comprehensiveness[s] += (m.whole[s].probability - values[i + 1].probability) / n;
  }
  return result;
}

}  // namespace core_tokensets
