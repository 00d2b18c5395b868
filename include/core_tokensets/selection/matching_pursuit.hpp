#pragma once
// Orthogonal matching pursuit on last-layer gradients: few samples whose weighted gradients sum up to a given one.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/selection/cholesky.hpp"
#include "core_tokensets/selection/evidence.hpp"
#include "core_tokensets/selection/gram.hpp"
#include "core_tokensets/selection/nnls.hpp"

namespace core_tokensets {

/// How weights are kept from being negative. With A the gradients as columns, b the target and M = A_S^T A_S + lambda
/// I:
/// - `nonnegative`: |A x - b|^2 + lambda |x|^2 is minimal over x >= 0 at every step, and all chosen weights are
/// positive
///   (`lawson_hanson`, stopped at the budget). Fewer samples than the budget only where more would not help.
/// - `deepcore`: weights of any sign while choosing; at the end x >= 0 that minimises |M x - A_S^T b|, many of them 0.
///   What DeepCore's GradMatch does.
/// - `cords`: after each step the most negative weight leaves until none is; ends when the residual is small or a
/// chosen
///   sample would be chosen again, so often early. What CORDS' OrthogonalMP_REG and _Parallel do.
/// - `cords_nnls`: |M x - A_S^T b| minimal over x >= 0 at every step, as CORDS' NNLS variant. Slow beyond a few hundred
///   samples (a cube in the number of samples a step); kept for comparison.
enum class pursuit { nonnegative, deepcore, cords, cords_nnls };

template <>
inline constexpr std::array words<pursuit>{"nonnegative", "deepcore", "cords", "cords_nnls"};

/// Samples in the order of their choice, their weights, and the error |A w - b|.
struct pursuit_result {
  std::vector<index> order;
  std::vector<double> weights;
  double residual = 0, target_norm = 0;
};

namespace detail {

/// |A w - b| by gradients: exact where differences of squares would cancel.
inline double residual_norm(const evidence& e, std::span<const index> order, std::span<const double> weights,
                            std::span<const double> target) {
  std::vector<double> rest(target.begin(), target.end());
  for (std::size_t k = 0; k < order.size(); ++k) {
    e.for_each_row(order[k], [&](const double* delta, const float* h, double share) {
      for (index c = 0; c < e.classes; ++c) {
        const double factor = weights[k] * share * delta[c];
        rest[static_cast<std::size_t>(c)] -= factor;
        double* row = rest.data() + e.classes + c * e.features;
        for (index f = 0; f < e.features; ++f) row[f] -= factor * static_cast<double>(h[f]);
      }
    });
  }
  return std::sqrt(dot<double>(rest.data(), rest.data(), static_cast<index>(rest.size())));
}

/// G + lambda I of the chosen atoms, [p, p].
inline std::vector<double> regularised_gram(const factored_gram& gram, std::span<const index> chosen, double lambda) {
  const auto p = chosen.size();
  std::vector<double> m(p * p);
  parallel_for(0, static_cast<index>(p), [&](index row) {
    const auto i = static_cast<std::size_t>(row);
    for (std::size_t j = 0; j <= i; ++j) m[i * p + j] = gram.entry(chosen[i], chosen[j]) + (i == j ? lambda : 0);
  });
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < i; ++j) m[j * p + i] = m[i * p + j];
  }
  return m;
}

/// The pursuits of DeepCore and CORDS; atoms are numbers into the Gram matrix.
inline sparse_weights authors_pursuit(factored_gram& gram, std::span<const double> correlation, double target_square,
                                      index budget, double lambda, pursuit variant) {
  sparse_weights found;
  auto& atoms = found.atoms;
  auto& x = found.weights;
  growing_cholesky factor;
  std::vector<char> chosen(correlation.size(), 0), dependent(correlation.size(), 0);
  std::vector<double> c(correlation.begin(), correlation.end()), b;
  const auto clip = [&] {
    if (*std::min_element(x.begin(), x.end()) < 0) x = nnls_symmetric(regularised_gram(gram, atoms, lambda), b);
  };
  double error_square = target_square;
  for (index step = 0; step < budget; ++step) {
    if (variant == pursuit::cords && error_square < 1e-8 * target_square) break;
    index best = -1;
    for (index j = 0; j < gram.size(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      const bool allowed = !dependent[at] && !(variant == pursuit::deepcore && chosen[at]);
      if (allowed && (best < 0 || c[at] > c[static_cast<std::size_t>(best)])) best = j;
    }
    if (best < 0) break;
    const auto at = static_cast<std::size_t>(best);
    if (chosen[at]) break;
    if (!factor.append(gram_row(gram, atoms, best, lambda))) {
      dependent[at] = 1;  // adds no direction to those that are there
      --step;
      continue;
    }
    chosen[at] = 1;
    atoms.push_back(best);
    b.push_back(correlation[at]);
    double ridge = lambda;
    if (atoms.size() == 1) {
      const double square = gram.entry(best, best);
      x = {square > 0 ? correlation[at] / square : 0.0};
      ridge = 0;
    } else {
      x = factor.solve(b);
    }
    if (variant == pursuit::cords_nnls) clip();
    if (variant == pursuit::cords) {
      for (auto worst = std::min_element(x.begin(), x.end()); worst != x.end() && *worst < 0;
           worst = std::min_element(x.begin(), x.end())) {
        const auto i = worst - x.begin();
        factor.remove(i);
        chosen[static_cast<std::size_t>(atoms[static_cast<std::size_t>(i)])] = 0;
        atoms.erase(atoms.begin() + i);
        b.erase(b.begin() + i);
        x = factor.solve(b);
      }
      // A_S^T (b - A_S x) = ridge x, hence |b - A_S x|^2 = b.b - x.(A_S^T b) - ridge x.x
      error_square = target_square;
      for (std::size_t i = 0; i < x.size(); ++i) error_square -= x[i] * (b[i] + ridge * x[i]);
    }
    std::copy(correlation.begin(), correlation.end(), c.begin());
    gram.subtract(atoms, x, c);
  }
  if (variant == pursuit::deepcore && atoms.size() > 1) clip();
  if (variant == pursuit::deepcore && atoms.size() == 1) x = {1.0};
  return found;
}

}  // namespace detail

/// Chooses at most `budget` of `members` and weights them so that the sum of their gradients comes near `target`,
/// `[K] + [K, d]`. Weights are as large as the target asks for: a mean gives a sum near 1, a sum one near n. The
/// evidence is taken as checked. Cost: a Gram column and one pass over the kept columns a step, O(members (d + K +
/// budget)).
inline pursuit_result match_gradient(const evidence& e, std::span<const index> members, std::span<const double> target,
                                     index budget, double lambda, pursuit variant = pursuit::nonnegative) {
  require(budget > 0 && budget <= static_cast<index>(members.size()), "matching pursuit: a budget of ", budget,
          ", expected 1 to ", members.size());
  require(lambda >= 0 && std::isfinite(lambda), "matching pursuit: lambda ", lambda, ", expected 0 or more");
  factored_gram gram(e, members);
  const auto correlation = inner_with(e, members, target);
  const double square = detail::dot<double>(target.data(), target.data(), static_cast<index>(target.size()));
  auto found = variant == pursuit::nonnegative
                   ? lawson_hanson(gram, correlation, lambda, budget)
                   : detail::authors_pursuit(gram, correlation, square, budget, lambda, variant);
  for (index& atom : found.atoms) atom = members[static_cast<std::size_t>(atom)];
  const double residual = detail::residual_norm(e, found.atoms, found.weights, target);
  return {std::move(found.atoms), std::move(found.weights), residual, std::sqrt(square)};
}

}  // namespace core_tokensets
