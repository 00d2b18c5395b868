#pragma once
// What a selector is and what it returns; budgets divided among classes; weights scaled for the replay loss.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/selection/evidence.hpp"

namespace core_tokensets {

/// The samples that were chosen, each once, and what each counts in the replay loss. Every selector of the library
/// returns weights that are not negative and have mean 1, so that the loss keeps its scale whatever the budget.
struct selection_result {
  std::vector<index> indices;
  std::vector<float> weights;
  index by_chance = 0;  ///< how many of them a method took at random because it could not tell them apart
};

/// A selector: `select(method, evidence, k)` returns k samples (fewer only where its documentation says so).
template <class M>
concept selector = requires(const M& method, const evidence& e, index k) {
  { select(method, e, k) } -> std::same_as<selection_result>;
};

/// k of the samples with these labels `[n]` of `classes`, by any selector; `gather()` makes the evidence, which a
/// selector that has `select_from_labels(method, labels, classes, k)` does without.
template <class M, class Gather>
selection_result choose_samples(const M& method, std::span<const std::int32_t> labels, index classes, index k,
                                const Gather& gather) {
  if constexpr (requires { select_from_labels(method, labels, classes, k); }) {
    return select_from_labels(method, labels, classes, k);
  } else if constexpr (requires { method.choose(labels, classes, k, gather); }) {
    return method.choose(labels, classes, k, gather);
  } else {
    return select(method, gather(), k);
  }
}

/// `Error` unless the evidence is sound and 0 < k <= n.
inline void check_budget(const evidence& e, index k) {
  check(e);
  require(k > 0 && k <= e.samples, "selection: a budget of ", k, " samples, expected 1 to ", e.samples);
}

/// Weights with mean 1. All zero (nothing to scale): all 1. `Error`: a weight that is negative or not finite.
inline std::vector<float> normalise_weights(std::span<const double> weights) {
  double sum = 0;
  for (const double w : weights) {
    require(std::isfinite(w) && w >= 0, "weights: ", w, ", expected finite numbers from 0 on");
    sum += w;
  }
  std::vector<float> result(weights.size(), 1.0f);
  if (sum > 0) {
    const double scale = static_cast<double>(weights.size()) / sum;
    for (std::size_t i = 0; i < weights.size(); ++i) result[i] = static_cast<float>(weights[i] * scale);
  }
  return result;
}

/// The samples of each class, rising: K lists. `Error`: a label that is no class.
inline std::vector<std::vector<index>> members_by_class(std::span<const std::int32_t> labels, index classes) {
  std::vector<std::vector<index>> members(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    require(labels[i] >= 0 && labels[i] < classes, "selection: label ", labels[i], " of sample ", i, ", expected 0 to ",
            classes - 1);
    members[static_cast<std::size_t>(labels[i])].push_back(static_cast<index>(i));
  }
  return members;
}
inline std::vector<std::vector<index>> members_by_class(const evidence& e) {
  return members_by_class(e.labels, e.label_count());
}

/// The sizes of lists.
inline std::vector<index> sizes_of(const std::vector<std::vector<index>>& lists) {
  std::vector<index> sizes;
  for (const auto& list : lists) sizes.push_back(static_cast<index>(list.size()));
  return sizes;
}

namespace detail {

inline index check_quota(std::span<const index> counts, index k) {
  index total = 0;
  for (const index c : counts) {
    require(c >= 0, "quotas: a class of ", c, " samples");
    total += c;
  }
  require(k >= 0 && k <= total, "quotas: a budget of ", k, ", expected 0 to the ", total, " samples there are");
  return total;
}

}  // namespace detail

/// Budget k in proportion to the classes' sizes, by largest remainders (ties: the lower class); sums to k exactly.
/// Where k suffices, every class that has samples gets one: those that would get none take it from the largest quota.
inline std::vector<index> proportional_quotas(std::span<const index> counts, index k) {
  const index total = detail::check_quota(counts, k);
  std::vector<index> quotas(counts.size()), order(counts.size());
  if (total == 0) return quotas;
  std::iota(order.begin(), order.end(), index{0});
  index left = k;
  for (std::size_t c = 0; c < counts.size(); ++c) left -= quotas[c] = counts[c] * k / total;
  const auto remainder = [&](index c) { return counts[static_cast<std::size_t>(c)] * k % total; };
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return remainder(a) > remainder(b); });
  for (index i = 0; i < left; ++i) ++quotas[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
  if (k >= std::count_if(counts.begin(), counts.end(), [](index c) { return c > 0; })) {
    for (std::size_t c = 0; c < counts.size(); ++c) {
      if (counts[c] == 0 || quotas[c] > 0) continue;
      --*std::max_element(quotas.begin(), quotas.end());
      ++quotas[c];
    }
  }
  return quotas;
}

/// Budget k in equal parts; what a small class cannot fill goes to the others; sums to k exactly, and the quotas of
/// classes that are not exhausted differ by at most 1 (the lower class gets more).
inline std::vector<index> balanced_quotas(std::span<const index> counts, index k) {
  detail::check_quota(counts, k);
  std::vector<index> quotas(counts.size());
  for (index left = k; left > 0;) {
    index open = 0;
    for (std::size_t c = 0; c < counts.size(); ++c) open += quotas[c] < counts[c];
    const index share = std::max<index>(left / open, 1);
    for (std::size_t c = 0; c < counts.size() && left > 0; ++c) {
      const index more = std::min({share, counts[c] - quotas[c], left});
      quotas[c] += more;
      left -= more;
    }
  }
  return quotas;
}

}  // namespace core_tokensets
