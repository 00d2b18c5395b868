#pragma once
// The most relevant tokens kept surely, and a few of the rest that stand for all of it.

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// Of `count` tokens the share `sure` are the s most relevant ones, kept with probability 1; the others are drawn from
/// the P - s that are left, every set equally likely. `weighted`: each of these has the weight 1 / inclusion
/// probability = (P - s) / (count - s), so that sums over the kept tokens are, on average over the draws, those over
/// the picture (Horvitz & Thompson 1952). sure = 0 is `random` with the weight P / count, sure = 1 is `top`.
struct surely_tokens {
  static constexpr const char* name = "surely";
  static constexpr const char* about = "the most relevant tokens surely, others drawn from the rest with its weight";
  double sure = 0.5;
  bool weighted = true;
  std::uint64_t seed = 0;

  token_weighting weighting() const { return weighted ? token_weighting::drawn : token_weighting::none; }
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("sure", self.sure);
    visit("weighted", self.weighted);
    visit("seed", self.seed);
  }
};

inline kept_tokens keep(const surely_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  require_within("token rule 'surely': sure", rule.sure, 0, 1);
  const index sure = std::lround(rule.sure * static_cast<double>(c.count));
  std::vector<index> order = detail::by_relevance(c);
  random_stream(rule.seed ^ 0x737572656c79, c.sample).shuffle(std::span(order).subspan(static_cast<std::size_t>(sure)));
  std::vector<std::pair<std::uint16_t, float>> kept;
  const float weight = drawn_weight(c.tokens(), c.count, sure);
  for (index i = 0; i < c.count; ++i)
    kept.emplace_back(static_cast<std::uint16_t>(order[static_cast<std::size_t>(i)]), i < sure ? 1.0f : weight);
  std::sort(kept.begin(), kept.end());
  std::vector<std::uint16_t> positions;
  std::vector<float> weights;
  for (const auto& [position, w] : kept) positions.push_back(position), weights.push_back(w);
  return {std::move(positions), rule.weighted ? std::move(weights) : std::vector<float>()};
}

}  // namespace core_tokensets
