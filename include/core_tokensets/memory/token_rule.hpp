#pragma once
// Which tokens of a sample are kept: the rule between attribution and memory.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// What a token rule knows of one sample.
struct token_choice {
  std::span<const double> relevance;  ///< [P]; all 0 where the rule does not look at it
  index count = 1;                    ///< tokens to keep, 1 .. P
  std::uint64_t sample = 0;           ///< what random choices follow from, besides the rule's seed
};

/// A token rule: `keep(rule, choice)` returns the positions of `count` tokens, each once. A rule with `static constexpr
/// bool needs_relevance = false` spares the attribution.
template <class R>
concept token_rule = std::copyable<R> && requires(const R& rule, const token_choice& choice) {
  { keep(rule, choice) } -> std::same_as<std::vector<std::uint16_t>>;
};

/// False where a rule says that it does not look at relevance.
template <class R>
bool needs_relevance(const R& rule) {
  if constexpr (requires { rule.needs_relevance; }) return rule.needs_relevance;
  return true;
}

/// The most relevant tokens; of equal ones the earlier position.
struct top_tokens {
  static constexpr const char* name = "top";
  static constexpr const char* about = "the most relevant tokens";
};

inline std::vector<std::uint16_t> keep(const top_tokens&, const token_choice& c) {
  std::vector<index> order(c.relevance.size());
  std::iota(order.begin(), order.end(), index{0});
  const auto more = [&](index a, index b) {
    return c.relevance[static_cast<std::size_t>(a)] > c.relevance[static_cast<std::size_t>(b)];
  };
  std::stable_sort(order.begin(), order.end(), more);
  std::vector<std::uint16_t> kept;
  for (index i = 0; i < c.count; ++i) kept.push_back(static_cast<std::uint16_t>(order[static_cast<std::size_t>(i)]));
  std::sort(kept.begin(), kept.end());
  return kept;
}

/// Tokens at random, every set equally likely: the control of every other rule.
struct chance_tokens {
  static constexpr const char* name = "random";
  static constexpr const char* about = "random tokens, whatever their relevance";
  static constexpr bool needs_relevance = false;
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("seed", self.seed);
  }
};

inline std::vector<std::uint16_t> keep(const chance_tokens& rule, const token_choice& c) {
  auto order = random_stream(rule.seed ^ 0x746f6b656e73, c.sample).permutation(static_cast<index>(c.relevance.size()));
  order.resize(static_cast<std::size_t>(c.count));
  std::vector<std::uint16_t> kept(order.begin(), order.end());
  std::sort(kept.begin(), kept.end());
  return kept;
}

using token_rules = choices<top_tokens, chance_tokens>;

/// The share `keep` of a picture's P tokens, as a number: the nearest, at least 1. `Error`: not a share.
inline index tokens_of_share(double keep, index tokens) {
  require(keep > 0 && keep <= 1, "keep ", keep, ": expected a share of the tokens, more than 0 and at most 1");
  return std::clamp<index>(std::lround(keep * static_cast<double>(tokens)), 1, tokens);
}

}  // namespace core_tokensets
