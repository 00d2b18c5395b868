#pragma once
// GradMatch (Killamsetty et al., ICML 2021): the samples whose weighted gradients replace the gradient of all of them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/selection/matching_pursuit.hpp"
#include "core_tokensets/selection/selection.hpp"

namespace core_tokensets {

/// Matching pursuit on the evidence, with predictions softened by `temperature` (`soften`) and samples that all count
/// the same unless `weighted`: just after a task the gradients of its hardest samples are all that is left to match,
/// and few large weights make a memory worse than samples at random (docs/results.md). The paper's: temperature 1,
/// weighted. `lambda` is relative to the mean squared length of the gradients unless `absolute_lambda` (as DeepCore and
/// CORDS have it). `per_class`: each class alone, its share of the budget in proportion to its size, its own mean as
/// the target; otherwise all at once against `evidence.target` or the mean.
struct grad_match {
  static constexpr const char* name = "grad_match";
  static constexpr const char* about =
      "samples whose weighted gradients replace the gradient of all of them (GradMatch)";
  double lambda = 0.1;
  bool per_class = true;
  pursuit variant = pursuit::nonnegative;
  bool absolute_lambda = false;
  double temperature = 4;
  bool weighted = false;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("lambda", self.lambda);
    visit("per_class", self.per_class);
    visit("variant", self.variant);
    visit("absolute_lambda", self.absolute_lambda);
    visit("temperature", self.temperature);
    visit("weighted", self.weighted);
  }
};

namespace detail {

/// As many of `members`, without those `chosen`, as are missing to `budget`: the same for the same members.
inline std::vector<index> by_chance(std::span<const index> members, std::span<const index> chosen, index budget) {
  std::vector<index> rest;
  if (static_cast<index>(chosen.size()) >= budget) return rest;
  for (const index i : members) {
    if (std::find(chosen.begin(), chosen.end(), i) == chosen.end()) rest.push_back(i);
  }
  random_stream random(0x66696c6c, static_cast<std::uint64_t>(members.front()));
  random.shuffle(std::span(rest));
  rest.resize(std::min(rest.size(), static_cast<std::size_t>(budget) - chosen.size()));
  return rest;
}

/// k of the samples `among` (empty: of all) whose weighted gradients come near the mean of all.
inline selection_result match_among(const grad_match& method, evidence e, index k, std::span<const index> among) {
  check_budget(e, k);
  require(!method.per_class || e.target.empty(),
          "grad_match: a target gradient with per_class, expected one of the two");
  require(method.temperature == 1 || e.target.empty(), "grad_match: a target gradient with a temperature of ",
          method.temperature, ", expected 1");
  if (method.temperature != 1) soften(e, method.temperature);
  double lambda = method.lambda;
  if (!method.absolute_lambda) {
    double trace = 0;
    for (index i = 0; i < e.samples; ++i) trace += inner(e, i, i);
    lambda *= trace / static_cast<double>(e.samples);
  }
  selection_result result;
  std::vector<double> weights;
  // The target is a mean, so that weights come near a sum of 1; `mass` says how many samples it stands for.
  const auto pursue = [&](std::span<const index> members, std::span<const double> target, double mass, index budget) {
    if (budget == 0) return;
    const auto found = match_gradient(e, members, target, budget, lambda, method.variant);
    result.indices.insert(result.indices.end(), found.order.begin(), found.order.end());
    for (const double w : found.weights) weights.push_back(w * mass);
    if (method.weighted && !found.order.empty()) return;
    const std::vector<index> others = detail::by_chance(members, found.order, budget);
    result.indices.insert(result.indices.end(), others.begin(), others.end());
    weights.insert(weights.end(), others.size(), mass / static_cast<double>(budget));
    result.by_chance += static_cast<index>(others.size());
  };
  std::vector<index> all(static_cast<std::size_t>(e.samples));
  std::iota(all.begin(), all.end(), index{0});
  if (among.empty()) among = all;
  if (method.per_class) {
    const auto members = members_by_class(e);
    std::vector<std::vector<index>> candidates(members.size());
    for (const index i : among)
      candidates[static_cast<std::size_t>(e.labels[static_cast<std::size_t>(i)])].push_back(i);
    const auto quotas = proportional_quotas(core_tokensets::sizes_of(candidates), k);
    for (std::size_t c = 0; c < members.size(); ++c) {
      if (!candidates[c].empty())
        pursue(candidates[c], gradient_mean(e, members[c]), static_cast<double>(members[c].size()), quotas[c]);
    }
  } else {
    pursue(among, e.target.empty() ? gradient_mean(e, all) : e.target, 1.0, k);
  }
  if (!method.weighted) weights.assign(weights.size(), 1.0);
  result.weights = normalise_weights(weights);
  return result;
}

}  // namespace detail

/// k samples, class by class, at least one of each where k suffices. Where matching more would not help (all are
/// fitted, all the same) the rest is filled by chance, and `by_chance` says how many; `weighted`, there are fewer
/// instead, unless there would be none. See `pursuit` for weights of 0. `Error`: a budget outside 1 to n, evidence that
/// is not sound, a target with `per_class` or a temperature.
inline selection_result select(const grad_match& method, evidence e, index k) {
  return detail::match_among(method, std::move(e), k, {});
}

/// The same with k of the samples `among` only, rising; what they shall match is the gradient of all.
inline selection_result select_among(const grad_match& method, evidence e, index k, std::span<const index> among) {
  require(k > 0 && k <= static_cast<index>(among.size()), "selection: a budget of ", k, " samples, expected 1 to ",
          among.size());
  return detail::match_among(method, std::move(e), k, among);
}

}  // namespace core_tokensets
