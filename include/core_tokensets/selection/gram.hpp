#pragma once
// Inner products of atoms as pursuits and least squares need them: from a matrix, or from factored gradients.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/selection/evidence.hpp"

namespace core_tokensets {

/// A Gram matrix G [n, n] that is there already.
struct dense_gram {
  std::span<const double> values;
  index n = 0;

  /// Relative accuracy of `subtract`.
  static constexpr double noise = 1e-13;
  index size() const { return n; }
  double entry(index i, index j) const { return values[static_cast<std::size_t>(i * n + j)]; }
  /// c -= G[:, chosen] x
  void subtract(std::span<const index> chosen, std::span<const double> x, std::span<double> c) {
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      const double* row = values.data() + chosen[k] * n;
      for (index i = 0; i < n; ++i) c[static_cast<std::size_t>(i)] -= x[k] * row[i];
    }
  }
};

/// The Gram matrix of the last-layer gradients of some samples. Entries are computed in double precision when asked
/// for; whole columns, of chosen atoms only, once and kept in float: [chosen, members] numbers.
class factored_gram {
 public:
  static constexpr double noise = 1e-7;

  factored_gram(const evidence& e, std::span<const index> members)
      : evidence_(e), members_(members), slot_(members.size(), -1) {}

  index size() const { return static_cast<index>(members_.size()); }
  double entry(index i, index j) const {
    return inner(evidence_, members_[static_cast<std::size_t>(i)], members_[static_cast<std::size_t>(j)]);
  }

  /// c -= G[:, chosen] x, in pieces of members that stay in cache.
  void subtract(std::span<const index> chosen, std::span<const double> x, std::span<double> c) {
    std::vector<const float*> columns;
    for (const index j : chosen) columns.push_back(column(j));
    parallel_chunks(0, size(), 512, [&](index begin, index end) {
      double* out = c.data();
      std::size_t k = 0;
      for (; k + 4 <= columns.size(); k += 4) {
        const float *a0 = columns[k], *a1 = columns[k + 1], *a2 = columns[k + 2], *a3 = columns[k + 3];
        const double x0 = x[k], x1 = x[k + 1], x2 = x[k + 2], x3 = x[k + 3];
        for (index i = begin; i < end; ++i) {
          out[i] -= (x0 * static_cast<double>(a0[i]) + x1 * static_cast<double>(a1[i])) +
                    (x2 * static_cast<double>(a2[i]) + x3 * static_cast<double>(a3[i]));
        }
      }
      for (; k < columns.size(); ++k) {
        const float* a = columns[k];
        for (index i = begin; i < end; ++i) out[i] -= x[k] * static_cast<double>(a[i]);
      }
    });
  }

 private:
  const float* column(index j) {
    auto& slot = slot_[static_cast<std::size_t>(j)];
    if (slot < 0) {
      slot = static_cast<index>(columns_.size());
      std::vector<float> values(members_.size());
      const index atom = members_[static_cast<std::size_t>(j)];
      parallel_chunks(0, size(), 256, [&](index begin, index end) {
        for (index m = begin; m < end; ++m) {
          const index i = members_[static_cast<std::size_t>(m)];
          double total = 0;
          evidence_.for_each_row(i, [&](const double* delta, const float* h, double share) {
            evidence_.for_each_row(atom, [&](const double* atom_delta, const float* atom_h, double atom_share) {
              const double d = detail::dot<double>(delta, atom_delta, evidence_.classes);
              const float f = detail::dot<float>(h, atom_h, evidence_.features);
              total += share * atom_share * d * (static_cast<double>(f) + 1);
            });
          });
          values[static_cast<std::size_t>(m)] = static_cast<float>(total);
        }
      });
      columns_.push_back(std::move(values));
    }
    return columns_[static_cast<std::size_t>(slot)].data();
  }

  const evidence& evidence_;
  std::span<const index> members_;
  std::vector<index> slot_;
  std::vector<std::vector<float>> columns_;
};

}  // namespace core_tokensets
