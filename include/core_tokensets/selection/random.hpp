#pragma once
// The control that every selector must beat: samples at random.

#include <cstdint>
#include <numeric>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/selection/selection.hpp"

namespace core_tokensets {

/// k samples at random, all of weight 1; `balanced`: the same number from every class, as far as it has them.
struct random_selection {
  static constexpr const char* name = "random";
  static constexpr const char* about = "samples at random, of each class the same number";
  std::uint64_t seed = 0;
  bool balanced = true;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("seed", self.seed);
    visit("balanced", self.balanced);
  }
};

/// The same samples for the same seed, labels `[n]` of `classes` and budget, ordered by class if balanced.
inline selection_result select_from_labels(const random_selection& method, std::span<const std::int32_t> labels,
                                           index classes, index k) {
  const auto n = static_cast<index>(labels.size());
  require(k > 0 && k <= n, "selection: a budget of ", k, " samples, expected 1 to ", n);
  selection_result result;
  const auto draw = [&](std::vector<index> members, index count, std::uint64_t stream) {
    random_stream random(method.seed ^ 0x73656c656374, stream);  // a seed of its own: others count streams from 0, too
    random.shuffle(std::span(members));
    result.indices.insert(result.indices.end(), members.begin(), members.begin() + count);
  };
  if (method.balanced) {
    const auto members = members_by_class(labels, classes);
    const auto quotas = balanced_quotas(sizes_of(members), k);
    for (std::size_t c = 0; c < members.size(); ++c) draw(members[c], quotas[c], c);
  } else {
    std::vector<index> all(labels.size());
    std::iota(all.begin(), all.end(), index{0});
    draw(std::move(all), k, 0);
  }
  result.weights.assign(result.indices.size(), 1.0f);
  return result;
}

/// The same by the contract of a selector; looks at the labels of the evidence only.
inline selection_result select(const random_selection& method, const evidence& e, index k) {
  check_budget(e, k);
  return select_from_labels(method, e.labels, e.label_count(), k);
}

}  // namespace core_tokensets
