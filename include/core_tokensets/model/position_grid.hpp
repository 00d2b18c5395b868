#pragma once
// Position embeddings of one grid of patches resampled for another: bicubic and antialiased, as timm does when it loads
// weights for pictures of another size.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Rows and columns of patches.
struct grid_extent {
  index rows = 0, cols = 0;
  index patches() const { return rows * cols; }
  bool operator==(const grid_extent&) const = default;
};

/// "14 x 14"
inline std::string to_text(const grid_extent& g) { return std::to_string(g.rows) + " x " + std::to_string(g.cols); }

namespace detail {

/// The cubic convolution kernel with a = -1/2 (Keys, 1981, eq. 15).
inline double cubic_kernel(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

/// The old places `first ..` and their weights (sum 1) that make one new place along one axis.
struct cubic_weights {
  index first = 0;
  std::vector<double> weights;
};

/// Along an axis that shrinks the kernel is as much wider (antialiasing); places have their centres at half integers,
/// and weights outside of the axis go to the others.
inline std::vector<cubic_weights> cubic_axis(index from, index to) {
  const double ratio = static_cast<double>(from) / static_cast<double>(to), wide = std::max(ratio, 1.0);
  std::vector<cubic_weights> axis;
  for (index i = 0; i < to; ++i) {
    const double centre = ratio * (static_cast<double>(i) + 0.5), reach = 2 * wide;
    cubic_weights w;
    w.first = std::max<index>(static_cast<index>(centre - reach + 0.5), 0);
    const index end = std::min<index>(static_cast<index>(centre + reach + 0.5), from);
    double sum = 0;
    for (index j = w.first; j < end; ++j) {
      w.weights.push_back(cubic_kernel((static_cast<double>(j) + 0.5 - centre) / wide));
      sum += w.weights.back();
    }
    for (double& x : w.weights) x /= sum;
    axis.push_back(std::move(w));
  }
  return axis;
}

}  // namespace detail

/// Positions `[rows cols, D]` of the grid `from`, row by row, resampled for the grid `to`. The same grid: unchanged.
/// `Error`: a grid without patches, another number of positions than it has.
inline std::vector<double> resample_positions(std::span<const double> positions, const grid_extent& from,
                                              const grid_extent& to, index dim) {
  require(from.rows > 0 && from.cols > 0 && to.rows > 0 && to.cols > 0 && dim > 0 &&
              static_cast<index>(positions.size()) == from.patches() * dim,
          "resample_positions: ", positions.size(), " numbers of ", dim, " channels for a grid of ", from, " to ", to);
  if (from == to) return {positions.begin(), positions.end()};
  const auto columns = detail::cubic_axis(from.cols, to.cols), rows = detail::cubic_axis(from.rows, to.rows);
  const auto add = [dim](double weight, const double* in, double* out) {
    for (index d = 0; d < dim; ++d) out[d] += weight * in[d];
  };
  std::vector<double> wide(static_cast<std::size_t>(from.rows * to.cols * dim)),
      result(static_cast<std::size_t>(to.patches() * dim));
  for (index y = 0; y < from.rows; ++y) {
    for (index x = 0; x < to.cols; ++x) {
      const auto& column = columns[static_cast<std::size_t>(x)];
      for (std::size_t j = 0; j < column.weights.size(); ++j)
        add(column.weights[j], positions.data() + (y * from.cols + column.first + static_cast<index>(j)) * dim,
            wide.data() + (y * to.cols + x) * dim);
    }
  }
  for (index y = 0; y < to.rows; ++y) {
    const auto& row = rows[static_cast<std::size_t>(y)];
    for (std::size_t j = 0; j < row.weights.size(); ++j) {
      const double* in = wide.data() + (row.first + static_cast<index>(j)) * to.cols * dim;
      for (index x = 0; x < to.cols; ++x) add(row.weights[j], in + x * dim, result.data() + (y * to.cols + x) * dim);
    }
  }
  return result;
}

}  // namespace core_tokensets
