#pragma once
// Which tokens of a sample are kept, and for how many each of them stands: the rule between attribution and memory.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/memory/token_weights.hpp"

namespace core_tokensets {

/// What a token rule knows of one sample.
struct token_choice {
  std::span<const double> relevance;  ///< [P]; all 0 where the rule does not look at it
  index count = 1;                    ///< tokens to keep, 1 .. P
  std::uint64_t sample = 0;           ///< what random choices follow from, besides the rule's seed
  index columns = 0;                  ///< of the grid that the P tokens are row by row; 0: it is a square

  index tokens() const { return static_cast<index>(relevance.size()); }
};

/// What a rule keeps: positions, for how many tokens of the picture each stands (empty: for itself), and how sharp each
/// is (empty: as the codec's options say).
struct kept_tokens {
  std::vector<std::uint16_t> positions;
  std::vector<float> weights;
  std::vector<std::uint8_t> qualities;

  kept_tokens(std::vector<std::uint16_t> kept, std::vector<float> of_kept = {}, std::vector<std::uint8_t> sharp = {})
      : positions(std::move(kept)), weights(std::move(of_kept)), qualities(std::move(sharp)) {}
};

/// A token rule: `keep(rule, choice)` returns the positions of tokens, each once, or `kept_tokens` with weights and
/// qualities; `count` of them unless its documentation says otherwise. A rule with `static constexpr bool
/// needs_relevance = false` spares the attribution; one that gives weights says by `token_weighting weighting() const`
/// how a memory keeps them.
template <class R>
concept token_rule = std::copyable<R> && requires(const R& rule, const token_choice& choice) {
  { keep(rule, choice) } -> std::convertible_to<kept_tokens>;
};

/// False where a rule says that it does not look at relevance.
template <class R>
bool needs_relevance(const R& rule) {
  if constexpr (requires { rule.needs_relevance; }) return rule.needs_relevance;
  return true;
}

/// How the weights that a rule gives are kept; it gives none unless it says so.
template <class R>
token_weighting weighting_of(const R& rule) {
  if constexpr (requires { rule.weighting(); }) return rule.weighting();
  return token_weighting::none;
}

namespace detail {

/// `Error` unless `count` of the tokens can be kept.
inline void check_count(const token_choice& c) {
  require(c.count >= 1 && c.count <= c.tokens() && c.tokens() <= 1 << 16, "token rule: keep ", c.count, " of ",
          c.tokens(), " tokens, expected 1 or more and no more than there are, of at most 65536");
}

/// The same, and that relevance is a number everywhere.
inline void check_choice(const token_choice& c) {
  check_count(c);
  for (std::size_t p = 0; p < c.relevance.size(); ++p) {
    require(std::isfinite(c.relevance[p]), "token rule: the relevance of token ", p, " is ", c.relevance[p],
            ", expected a finite number");
  }
}

/// The columns of the grid that the tokens are. `Error`, naming the rule: they are none.
inline index columns_of(const token_choice& c, const char* rule) {
  const index columns = c.columns > 0 ? c.columns : std::lround(std::sqrt(static_cast<double>(c.tokens())));
  require(c.tokens() % columns == 0 && (c.columns > 0 || columns * columns == c.tokens()), "token rule '", rule,
          "': ", c.tokens(), " tokens are no grid of ", columns, " columns");
  return columns;
}

/// All positions, the most relevant first; of equal ones the earlier.
inline std::vector<index> by_relevance(const token_choice& c) {
  std::vector<index> order(c.relevance.size());
  std::iota(order.begin(), order.end(), index{0});
  const double* r = c.relevance.data();
  std::stable_sort(order.begin(), order.end(), [r](index a, index b) { return r[a] > r[b]; });
  return order;
}

/// The first `count` positions, rising as they are stored.
inline std::vector<std::uint16_t> first_of(const std::vector<index>& positions, index count) {
  std::vector<std::uint16_t> kept(positions.begin(), positions.begin() + count);
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace detail

/// The most relevant tokens; of equal ones the earlier position.
struct top_tokens {
  static constexpr const char* name = "top";
  static constexpr const char* about = "the most relevant tokens";
};

inline std::vector<std::uint16_t> keep(const top_tokens&, const token_choice& c) {
  detail::check_choice(c);
  return detail::first_of(detail::by_relevance(c), c.count);
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
  detail::check_count(c);
  return detail::first_of(random_stream(rule.seed ^ 0x746f6b656e73, c.sample).permutation(c.tokens()), c.count);
}

/// The share `keep` of a picture's P tokens, as a number: the nearest, at least 1. `Error`: not a share.
inline index tokens_of_share(double keep, index tokens) {
  require(keep > 0 && keep <= 1, "keep ", keep, ": expected a share of the tokens, more than 0 and at most 1");
  return std::clamp<index>(std::lround(keep * static_cast<double>(tokens)), 1, tokens);
}

}  // namespace core_tokensets
