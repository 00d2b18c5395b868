#pragma once
// Tokens drawn by relevance: the more relevant, the likelier.

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// Draws one token after the other, each of the rest with a probability in proportion to relevance^power, by the
/// largest of power log r + Gumbel noise (Efraimidis & Spirakis 2006; Kool, van Hoof & Welling, ICML 2019). Power 0 is
/// `random`; the larger, the nearer to `top`. Relevance below 0 counts as 0, and such tokens come last, in random
/// order.
struct soft_tokens {
  static constexpr const char* name = "soft";
  static constexpr const char* about = "tokens drawn one after the other by a power of their relevance";
  double power = 1;
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("power", self.power);
    visit("seed", self.seed);
  }
};

inline std::vector<std::uint16_t> keep(const soft_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  require_within("token rule 'soft': power", rule.power, 0, 1000);
  random_stream random(rule.seed ^ 0x736f6674, c.sample);
  std::vector<std::pair<bool, double>> keys;  // whether it is relevant at all, then its key
  for (const double r : c.relevance) {
    const double noise = -std::log(-std::log(random.uniform()));
    const bool counts = r > 0 || rule.power == 0;
    keys.emplace_back(counts, noise + (r > 0 ? rule.power * std::log(r) : 0.0));
  }
  std::vector<index> order(keys.size());
  std::iota(order.begin(), order.end(), index{0});
  const auto* key = keys.data();
  std::stable_sort(order.begin(), order.end(), [key](index a, index b) { return key[a] > key[b]; });
  return detail::first_of(order, c.count);
}

}  // namespace core_tokensets
