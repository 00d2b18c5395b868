#pragma once
// A sample of the tokens in which each is as likely as it is relevant, with weights that make up for that.

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// Keeps token i with probability pi_i = min(1, c q_i), q a mixture of relevance (below 0: 0) over its sum and of equal
/// parts, `even` being the share of the latter, and c such that the pi add up to `count`; by one systematic pass over
/// the tokens in random order, so that exactly `count` are kept (Madow 1949; Sarndal, Swensson & Wretman 1992, 3.6).
/// `weighted`: the weight is 1 / pi_i, at most about P / (even count). even = 1, or no relevance at all: `random` with
/// the weight P / count.
struct proportional_tokens {
  static constexpr const char* name = "proportional";
  static constexpr const char* about = "tokens drawn as often as they are relevant, with weights that make up for it";
  double even = 0.5;
  bool weighted = true;
  std::uint64_t seed = 0;

  token_weighting weighting() const { return weighted ? token_weighting::each : token_weighting::none; }
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("even", self.even);
    visit("weighted", self.weighted);
    visit("seed", self.seed);
  }
};

/// The probabilities `[P]` with which this rule keeps each token; their sum is `count`.
inline std::vector<double> inclusion_probabilities(const proportional_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  require(rule.even > 0 && rule.even <= 1, "token rule 'proportional': even ", rule.even,
          ", expected more than 0 (every token must have a chance) and at most 1");
  double largest = 0, total = 0;
  for (const double r : c.relevance) largest = std::max(largest, r);
  std::vector<double> q;  // relative to the largest first, so that sums are finite
  for (const double r : c.relevance) total += q.emplace_back(largest > 0 && r > 0 ? r / largest : 0.0);
  const double even = total > 0 ? rule.even : 1;
  for (double& x : q) x = (total > 0 ? (1 - even) * x / total : 0) + even / static_cast<double>(c.tokens());
  // The most likely ones are certain until c q of the rest is nowhere above 1.
  std::vector<index> order(q.size());
  std::iota(order.begin(), order.end(), index{0});
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return q.data()[a] > q.data()[b]; });
  std::vector<double> rest(q.size() + 1, 0.0);  // of those from here on, the least first so that none is lost
  for (std::size_t k = q.size(); k-- > 0;) rest[k] = rest[k + 1] + q.data()[order[k]];
  std::size_t certain = 0;
  const auto left = [&] { return static_cast<double>(c.count) - static_cast<double>(certain); };
  while (left() > 0 && q.data()[order[certain]] * left() >= rest[certain]) q.data()[order[certain++]] = 1;
  for (std::size_t k = certain; k < q.size(); ++k) {
    double& x = q.data()[order[k]];
    x = left() > 0 ? std::min(1.0, x * left() / rest[certain]) : 0.0;
  }
  return q;
}

inline kept_tokens keep(const proportional_tokens& rule, const token_choice& c) {
  const std::vector<double> likely = inclusion_probabilities(rule, c);
  random_stream random(rule.seed ^ 0x70726f706f7274, c.sample);
  const auto order = random.permutation(c.tokens());
  // Token i lies on the line [0, count) behind those before it, pi_i long; every whole number, moved by one random
  // amount, picks what it falls on. Certain ones are picked before.
  std::vector<std::uint8_t> picked(likely.size(), 0);
  index left = c.count;
  const auto pick = [&](index p) {
    if (left > 0 && picked.data()[p] == 0) picked.data()[p] = 1, --left;
  };
  for (const index p : order) {
    if (likely.data()[p] >= 1) pick(p);
  }
  double at = random.uniform();
  for (const index p : order) {
    if (likely.data()[p] >= 1) continue;
    at += likely.data()[p];
    if (at >= 1) at -= 1, pick(p);
  }
  for (const index p : order) pick(p);  // the last one may be missed by rounding
  std::vector<std::uint16_t> positions;
  std::vector<float> weights;
  for (std::size_t p = 0; p < picked.size(); ++p) {
    if (picked[p] == 0) continue;
    positions.push_back(static_cast<std::uint16_t>(p));
    weights.push_back(static_cast<float>(1 / likely[p]));
  }
  return {std::move(positions), rule.weighted ? std::move(weights) : std::vector<float>()};
}

}  // namespace core_tokensets
