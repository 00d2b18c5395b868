#pragma once
// Relevant tokens that are spread out: each one that is kept speaks for its neighbours, and nobody needs two speakers.

#include <cstdlib>

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// Facility location: one token after the other, each the one that adds most to
///   F(kept) = sum over tokens i of relevance_i (below 0: 0) times the largest of exp(-d(i, j)^2 / (2 reach^2)), j
///   kept,
/// d being the distance on the grid in tokens. The greedy choice reaches at least 1 - 1/e of the best F (Nemhauser,
/// Wolsey & Fisher 1978). A small reach is `top`. Ties: the more relevant, then the earlier position.
struct facility_tokens {
  static constexpr const char* name = "facility";
  static constexpr const char* about = "tokens that stand near all that is relevant, so that no two stand for the same";
  double reach = 1;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("reach", self.reach);
  }
};

inline std::vector<std::uint16_t> keep(const facility_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  require(rule.reach > 0 && std::isfinite(rule.reach), "token rule 'facility': reach ", rule.reach,
          ", expected a finite number above 0");
  const index columns = detail::columns_of(c, facility_tokens::name);
  const auto tokens = static_cast<std::size_t>(c.tokens());
  std::vector<double> at_distance;  // along one axis; both multiply
  for (index d = 0; d < std::max(columns, c.tokens() / columns); ++d)
    at_distance.push_back(std::exp(-static_cast<double>(d * d) / (2 * rule.reach * rule.reach)));
  const auto near = [&](index i, index j) {
    return at_distance.data()[std::abs(i / columns - j / columns)] *
           at_distance.data()[std::abs(i % columns - j % columns)];
  };
  const double largest = *std::max_element(c.relevance.begin(), c.relevance.end());
  std::vector<double> relevance, covered(tokens, 0.0);
  for (const double r : c.relevance) relevance.push_back(r > 0 ? r / largest : 0.0);
  std::vector<index> left = detail::by_relevance(c), kept;
  while (static_cast<index>(kept.size()) < c.count) {
    auto best = left.begin();
    double most = -1;
    for (auto j = left.begin(); j != left.end(); ++j) {
      double gain = 0;
      for (std::size_t i = 0; i < tokens; ++i)
        gain += relevance[i] * std::max(0.0, near(static_cast<index>(i), *j) - covered[i]);
      if (gain > most) best = j, most = gain;
    }
    for (std::size_t i = 0; i < tokens; ++i) covered[i] = std::max(covered[i], near(static_cast<index>(i), *best));
    kept.push_back(*best);
    left.erase(best);
  }
  return detail::first_of(kept, c.count);
}

}  // namespace core_tokensets
