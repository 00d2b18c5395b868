#pragma once
// Least squares with weights that are not negative, by the active-set method, on inner products alone.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/selection/cholesky.hpp"
#include "core_tokensets/selection/gram.hpp"

namespace core_tokensets {

/// Atoms with a positive weight, in the order in which they came.
struct sparse_weights {
  std::vector<index> atoms;
  std::vector<double> weights;
};

namespace detail {

/// Row of G + lambda I of a new atom against the chosen ones, its diagonal last.
template <class Gram>
std::vector<double> gram_row(const Gram& gram, std::span<const index> chosen, index atom, double lambda) {
  std::vector<double> row;
  row.reserve(chosen.size() + 1);
  for (const index j : chosen) row.push_back(gram.entry(atom, j));
  row.push_back(gram.entry(atom, atom) + lambda);
  return row;
}

}  // namespace detail

/// Minimises |A x - b|^2 + lambda |x|^2 over x >= 0 with at most `limit` atoms, given G = A^T A and `correlation` = A^T
/// b. Lawson & Hanson (1974, ch. 23): the atom most correlated with the residual comes in, atoms whose weight would
/// turn negative leave, so the error falls with every step. Stopped at `limit` it is a matching pursuit; if it ends
/// with fewer atoms, that is the exact minimum. Ties: the lower atom.
template <class Gram>
sparse_weights lawson_hanson(Gram& gram, std::span<const double> correlation, double lambda, index limit) {
  require(static_cast<index>(correlation.size()) == gram.size(), "least squares: ", correlation.size(),
          " correlations for ", gram.size(), " atoms");
  sparse_weights found;
  auto& atoms = found.atoms;
  auto& x = found.weights;
  growing_cholesky factor;
  std::vector<char> out_of_play(correlation.size(), 0);
  std::vector<index> refused;
  std::vector<double> c(correlation.begin(), correlation.end()), b;
  double scale = 0;
  for (const double value : correlation) scale = std::max(scale, std::abs(value));

  const auto drop = [&](std::size_t i) {
    factor.remove(static_cast<index>(i));
    out_of_play[static_cast<std::size_t>(atoms[i])] = 0;
    const auto at = static_cast<std::ptrdiff_t>(i);
    atoms.erase(atoms.begin() + at);
    x.erase(x.begin() + at);
    b.erase(b.begin() + at);
  };

  for (index step = 0; static_cast<index>(atoms.size()) < limit && step < 10 * gram.size(); ++step) {
    index best = -1;
    for (index j = 0; j < gram.size(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      if (!out_of_play[at] && c[at] > (best < 0 ? Gram::noise * scale : c[static_cast<std::size_t>(best)])) best = j;
    }
    if (best < 0) break;
    out_of_play[static_cast<std::size_t>(best)] = 1;
    if (!factor.append(detail::gram_row(gram, atoms, best, lambda))) {
      refused.push_back(best);
      continue;
    }
    atoms.push_back(best);
    x.push_back(0);
    b.push_back(correlation[static_cast<std::size_t>(best)]);
    auto s = factor.solve(b);
    if (!(s.back() > 0)) {  // only rounding made it look useful
      drop(atoms.size() - 1);
      out_of_play[static_cast<std::size_t>(best)] = 1;
      refused.push_back(best);
      continue;
    }
    while (!s.empty() && *std::min_element(s.begin(), s.end()) <= 0) {
      double t = 1;  // how far x can go towards s and stay >= 0
      std::size_t first = 0;
      for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] <= 0 && x[i] / (x[i] - s[i]) <= t) {
          t = x[i] / (x[i] - s[i]);
          first = i;
        }
      }
      for (std::size_t i = 0; i < s.size(); ++i) x[i] += t * (s[i] - x[i]);
      x[first] = 0;
      for (std::size_t i = s.size(); i-- > 0;) {
        if (x[i] <= 0) drop(i);
      }
      s = factor.solve(b);
    }
    x = std::move(s);
    for (const index j : refused) out_of_play[static_cast<std::size_t>(j)] = 0;
    refused.clear();
    std::copy(correlation.begin(), correlation.end(), c.begin());
    gram.subtract(atoms, x, c);
  }
  return found;
}

/// x >= 0 that minimises |M x - a|, M symmetric [p, p]. `Error`: sizes that disagree.
inline std::vector<double> nnls_symmetric(std::span<const double> m, std::span<const double> a) {
  const auto p = static_cast<index>(a.size());
  require(static_cast<index>(m.size()) == p * p, "nnls: a matrix of ", m.size(), " values, expected ", p, " x ", p);
  std::vector<double> square(m.size()), correlation(a.size());
  parallel_for(0, p, [&](index i) {
    const double* row = m.data() + i * p;
    correlation[static_cast<std::size_t>(i)] = detail::dot<double>(row, a.data(), p);
    for (index j = 0; j < p; ++j)
      square[static_cast<std::size_t>(i * p + j)] = detail::dot<double>(row, m.data() + j * p, p);
  });
  dense_gram gram{square, p};
  const auto found = lawson_hanson(gram, correlation, 0.0, p);
  std::vector<double> x(a.size(), 0.0);
  for (std::size_t i = 0; i < found.atoms.size(); ++i) x[static_cast<std::size_t>(found.atoms[i])] = found.weights[i];
  return x;
}

}  // namespace core_tokensets
