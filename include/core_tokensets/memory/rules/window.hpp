#pragma once
// The most relevant tokens of each part of the picture, so that no part is forgotten.

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// The grid is cut into windows of `side` x `side` tokens (smaller ones at the right and lower edges). First comes the
/// most relevant token of every window, then the second of every window, and so on; where the count ends within a
/// round, the more relevant ones are kept. Ties: the earlier position.
struct window_tokens {
  static constexpr const char* name = "window";
  static constexpr const char* about = "the most relevant tokens of each window of the grid in turn";
  index side = 2;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("side", self.side);
  }
};

inline std::vector<std::uint16_t> keep(const window_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  const index columns = detail::columns_of(c, window_tokens::name);
  require(rule.side > 0, "token rule 'window': side ", rule.side, ", expected 1 or more");
  const index across = (columns + rule.side - 1) / rule.side;
  std::vector<index> order = detail::by_relevance(c), taken(order.size(), 0), round(order.size());
  for (const index p : order) {
    const index window = p / columns / rule.side * across + p % columns / rule.side;
    round.data()[p] = taken.data()[window]++;
  }
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return round.data()[a] < round.data()[b]; });
  return detail::first_of(order, c.count);
}

}  // namespace core_tokensets
