#pragma once
// Orders of patches and agreement between two lists of numbers.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Places from the largest value to the smallest; equal ones in their order.
inline std::vector<std::size_t> falling_order(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return values[i] > values[j]; });
  return order;
}

/// Ranks 0, 1, ... from the smallest value; equal ones share the mean of their ranks.
inline std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return values[i] < values[j]; });
  std::vector<double> result(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (std::size_t j = i; j < end; ++j)
      result[order[j]] = (static_cast<double>(i) + static_cast<double>(end) - 1) / 2;
    i = end;
  }
  return result;
}

/// Pearson's correlation; 0 where one of the lists is constant or shorter than two.
inline double pearson(std::span<const double> a, std::span<const double> b) {
  require(a.size() == b.size(), "pearson: ", a.size(), " and ", b.size(), " numbers");
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n,
               mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b), aa += (a[i] - mean_a) * (a[i] - mean_a),
        bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// Spearman's rank correlation.
inline double spearman(std::span<const double> a, std::span<const double> b) { return pearson(ranks(a), ranks(b)); }

/// Numbers of the patches of sample s.
template <class T>
std::span<T> of_sample(std::span<T> numbers, std::span<const index> offsets, std::size_t s) {
  return numbers.subspan(static_cast<std::size_t>(offsets[s]), static_cast<std::size_t>(offsets[s + 1] - offsets[s]));
}

}  // namespace core_tokensets
