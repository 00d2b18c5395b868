#pragma once
// Deletion and insertion curves (pixel flipping, Samek et al. 2017; Petsiuk et al. 2018) on tokens: patches are taken
// away in the order of relevance, all steps of all samples at a time.

#include "core_tokensets/attribution/measures/masked_values.hpp"

namespace core_tokensets {

/// `most_relevant_first` is the deletion curve (low is good). `least_relevant_first` read from its end is the insertion
/// curve, since keeping the k most relevant patches takes away all others (high is good): both have the same area.
enum class removal_order { most_relevant_first, least_relevant_first };

struct flipping {
  index steps = 10;
  removal_order order = removal_order::most_relevant_first;
  missing_tokens missing = missing_tokens::drop;
};

/// Curves of all samples over the same shares of patches that are gone.
struct flipping_curves {
  std::vector<double> gone;         ///< [steps + 1] from 0 to 1
  std::vector<double> probability;  ///< [S, steps + 1] of the explained class
  std::vector<double> right;        ///< [S, steps + 1] 1 where that class is the largest
  std::vector<double> area;         ///< [S] under the probability, by trapezoids
};

/// Area under a curve over points that rise from 0 to 1.
inline double area_under(std::span<const double> x, std::span<const double> y) {
  double area = 0;
  for (std::size_t i = 1; i < x.size(); ++i) area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2;
  return area;
}

template <measured M>
flipping_curves measure(const flipping& options, M& m, std::span<const double> relevance) {
  require(options.steps > 0, "flipping: ", options.steps, " steps");
  m.check(relevance);
  std::vector<masked_sample> masked;
  const auto points = static_cast<std::size_t>(options.steps) + 1;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    auto order = falling_order(of_sample(relevance, m.offsets(), s));
    if (options.order == removal_order::least_relevant_first) std::reverse(order.begin(), order.end());
    for (std::size_t j = 0; j < points; ++j) {
      const auto gone = static_cast<std::size_t>(
          std::lround(static_cast<double>(j * order.size()) / static_cast<double>(options.steps)));
      masked.push_back({s, std::vector<std::uint8_t>(order.size(), 1)});
      for (std::size_t i = 0; i < gone; ++i) masked.back().keep[order[i]] = 0;
    }
  }
  flipping_curves curves;
  for (std::size_t j = 0; j < points; ++j) {
    curves.gone.push_back(static_cast<double>(j) / static_cast<double>(options.steps));
  }
  for (const masked_value& v : m.values(options.missing, masked)) {
    curves.probability.push_back(v.probability);
    curves.right.push_back(v.right ? 1 : 0);
  }
  for (std::size_t s = 0; s < m.samples(); ++s) {
    curves.area.push_back(area_under(curves.gone, std::span(curves.probability).subspan(s * points, points)));
  }
  return curves;
}

}  // namespace core_tokensets
