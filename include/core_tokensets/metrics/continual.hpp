#pragma once
// What continual learning is judged by: the accuracy matrix and the numbers that are read off it.

#include <algorithm>
#include <vector>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets {

/// R[t][i]: accuracy on the test pictures of task i after learning task t, for i <= t, in [0, 1].
using accuracy_matrix = std::vector<std::vector<double>>;

/// Numbers of an accuracy matrix of T tasks (Lopez-Paz & Ranzato 2017; Chaudhry et al. 2018).
struct continual_metrics {
  double average_accuracy = 0;              ///< mean over i of R[T-1][i]
  double average_incremental_accuracy = 0;  ///< mean over t of the mean over i <= t of R[t][i]
  double forgetting = 0;                    ///< mean over i < T-1 of max_t<T-1 R[t][i] - R[T-1][i]
  double backward_transfer = 0;             ///< mean over i < T-1 of R[T-1][i] - R[i][i]
};

inline continual_metrics measure(const accuracy_matrix& r) {
  require(!r.empty(), "metrics: the accuracy matrix is empty");
  continual_metrics m;
  const std::size_t tasks = r.size();
  for (std::size_t t = 0; t < tasks; ++t) {
    require(r[t].size() == t + 1, "metrics: row ", t, " of the accuracy matrix has ", r[t].size(),
            " entries, expected ", t + 1);
    double sum = 0;
    for (const double a : r[t]) sum += a;
    m.average_accuracy = sum / static_cast<double>(t + 1);
    m.average_incremental_accuracy += m.average_accuracy / static_cast<double>(tasks);
  }
  for (std::size_t i = 0; i + 1 < tasks; ++i) {
    double best = 0;
    for (std::size_t t = i; t + 1 < tasks; ++t) best = std::max(best, r[t][i]);
    m.forgetting += (best - r.back()[i]) / static_cast<double>(tasks - 1);
    m.backward_transfer += (r.back()[i] - r[i][i]) / static_cast<double>(tasks - 1);
  }
  return m;
}

}  // namespace core_tokensets
