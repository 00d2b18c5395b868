#pragma once
// A Cholesky factor that grows and shrinks by one row at a time, in O(p^2) instead of O(p^3) for a new one.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "core_tokensets/core/view.hpp"
#include "core_tokensets/selection/evidence.hpp"

namespace core_tokensets {

/// The lower factor L of a symmetric positive definite matrix A = L L^T whose rows and columns come and go.
class growing_cholesky {
 public:
  index size() const { return static_cast<index>(rows_.size()); }

  /// Adds a last row and column of A: `row` [size + 1], its last entry the diagonal. False, with nothing changed, where
  /// A would no longer be positive definite to working precision.
  bool append(std::span<const double> row) {
    const auto p = rows_.size();
    std::vector<double> l(row.begin(), row.end());
    for (std::size_t i = 0; i < p; ++i) {
      const auto& other = rows_[i];
      l[i] = (l[i] - detail::dot<double>(l.data(), other.data(), static_cast<index>(i))) / other[i];
    }
    const double pivot = row[p] - detail::dot<double>(l.data(), l.data(), static_cast<index>(p));
    if (!(pivot > 1e-12 * row[p])) return false;
    l[p] = std::sqrt(pivot);
    rows_.push_back(std::move(l));
    return true;
  }

  /// Takes row and column i of A away: rotations push what is left of row i into the diagonal below it.
  void remove(index i) {
    rows_.erase(rows_.begin() + i);
    const auto p = rows_.size();
    for (auto k = static_cast<std::size_t>(i); k < p; ++k) {
      auto& pivot = rows_[k];
      const double r = std::hypot(pivot[k], pivot[k + 1]), c = pivot[k] / r, s = pivot[k + 1] / r;
      for (auto m = k; m < p; ++m) {
        const double a = rows_[m][k], b = rows_[m][k + 1];
        rows_[m][k] = c * a + s * b;
        rows_[m][k + 1] = c * b - s * a;
      }
      pivot.resize(k + 1);
    }
  }

  /// x with A x = b.
  std::vector<double> solve(std::span<const double> b) const {
    std::vector<double> x(b.begin(), b.end());
    for (std::size_t i = 0; i < rows_.size(); ++i)
      x[i] = (x[i] - detail::dot<double>(rows_[i].data(), x.data(), static_cast<index>(i))) / rows_[i][i];
    for (std::size_t i = rows_.size(); i-- > 0;) {
      x[i] /= rows_[i][i];
      for (std::size_t j = 0; j < i; ++j) x[j] -= rows_[i][j] * x[i];
    }
    return x;
  }

 private:
  std::vector<std::vector<double>> rows_;
};

}  // namespace core_tokensets
