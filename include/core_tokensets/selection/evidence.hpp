#pragma once
// What a selector knows of the samples: the two factors of each sample's last-layer gradient, and its class. The
// gradient itself, K (d + 1) numbers a sample, is never formed.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Last-layer gradients of n samples, factored: the gradient of the cross-entropy of sample i with respect to the
/// head's bias is delta_i = softmax - onehot, with respect to its weight the outer product delta_i h_i^T, h_i being the
/// class-token feature before the head. So <g_i, g_j> = (delta_i . delta_j) (h_i . h_j + 1).
///
/// A sample may have several outputs (the tokens of an answer): then its gradient is the mean over its rows of `delta`
/// and `feature`, R in all.
struct evidence {
  index samples = 0, classes = 0, features = 0;
  std::vector<double> delta;         ///< [R, K]
  std::vector<float> feature;        ///< [R, d]
  std::vector<std::int32_t> labels;  ///< [n] class of each sample, or group, by which budgets are divided
  std::vector<index> rows = {};      ///< [n + 1] sample i has the rows rows[i] .. rows[i + 1]; empty: one each
  /// A gradient `[K] + [K, d]` (bias, then weight) that the chosen samples shall sum up to, as of a validation set;
  /// empty: the mean over the samples themselves.
  std::vector<double> target;
  index groups = 0;  ///< what labels number, where that is not the classes (kinds of questions); 0: the classes
  std::vector<std::int32_t> wanted = {};  ///< [R] the class that each row should have; empty: the label of its sample

  index label_count() const { return groups > 0 ? groups : classes; }
  index first_row(index i) const { return rows.empty() ? i : rows[static_cast<std::size_t>(i)]; }
  index all_rows() const { return rows.empty() ? samples : rows.back(); }
  /// Calls `visit(delta [K], feature [d], share)` for the rows of sample i; shares add up to 1.
  template <class Visit>
  void for_each_row(index i, const Visit& visit) const {
    const index begin = first_row(i), end = first_row(i + 1);
    for (index r = begin; r < end; ++r)
      visit(delta.data() + r * classes, feature.data() + r * features, 1.0 / static_cast<double>(end - begin));
  }
  /// Length of a gradient: K (d + 1).
  index gradient_size() const { return classes * (features + 1); }
};

namespace detail {

/// One row of evidence: softmax of the logits `[K]` minus the wanted class, to `delta` `[K]`.
inline void write_delta(std::span<const float> logits, index wanted, double* delta) {
  const double top = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (std::size_t c = 0; c < logits.size(); ++c) sum += delta[c] = std::exp(static_cast<double>(logits[c]) - top);
  for (std::size_t c = 0; c < logits.size(); ++c) delta[c] /= sum;
  delta[wanted] -= 1;
}

}  // namespace detail

/// Room for the evidence of samples with these labels and rows (empty: one each), to be filled row by row, so that the
/// outputs of a large model need not be held beside it.
inline evidence empty_evidence(index classes, index features, std::vector<std::int32_t> labels,
                               std::vector<index> rows = {}) {
  evidence e{.samples = static_cast<index>(labels.size()),
             .classes = classes,
             .features = features,
             .delta = {},
             .feature = {},
             .labels = std::move(labels),
             .rows = std::move(rows),
             .target = {}};
  require(e.samples > 0 && classes > 0 && features > 0, "evidence: ", e.samples, " samples of ", classes, " classes, ",
          features, " features, expected at least one of each");
  e.delta.resize(static_cast<std::size_t>(e.all_rows() * classes));
  e.feature.resize(static_cast<std::size_t>(e.all_rows() * features));
  e.wanted.resize(static_cast<std::size_t>(e.all_rows()));
  return e;
}

/// Fills row r from logits `[K]`, features `[d]` and the wanted class. `Error` unless they fit.
inline void fill_row(evidence& e, index r, std::span<const float> logits, std::span<const float> feature,
                     index wanted) {
  require(r >= 0 && r < e.all_rows() && static_cast<index>(logits.size()) == e.classes &&
              static_cast<index>(feature.size()) == e.features,
          "evidence: row ", r, " of ", e.all_rows(), " with ", logits.size(), " logits and ", feature.size(),
          " features, expected ", e.classes, " and ", e.features);
  require(wanted >= 0 && wanted < e.classes, "evidence: label ", wanted, " of sample ", r, ", expected 0 to ",
          e.classes - 1);
  detail::write_delta(logits, wanted, e.delta.data() + r * e.classes);
  e.wanted[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(wanted);
  std::copy(feature.begin(), feature.end(), e.feature.begin() + r * e.features);
}

/// Evidence from the model's outputs: logits `[R, K]`, features `[R, d]` below the head and targets `[R]`. Without
/// `rows` each row is a sample and its target is its label; with them, `labels` `[n]` are the samples' groups. `Error`
/// unless the sizes agree.
inline evidence make_evidence(std::span<const float> logits, std::span<const float> feature,
                              std::span<const std::int32_t> targets, index classes, std::vector<index> rows = {},
                              std::span<const std::int32_t> labels = {}) {
  const auto all = static_cast<index>(targets.size());
  require(all > 0 && classes > 0, "evidence: ", all, " samples of ", classes,
          " classes, expected at least one of each");
  require(static_cast<index>(logits.size()) == all * classes, "evidence: ", logits.size(), " logits, expected ", all,
          " x ", classes);
  require(!feature.empty() && static_cast<index>(feature.size()) % all == 0, "evidence: ", feature.size(),
          " feature values, expected a multiple of ", all, " samples");
  if (rows.empty()) labels = targets;
  const index features = static_cast<index>(feature.size()) / all;
  evidence e = empty_evidence(classes, features, {labels.begin(), labels.end()}, std::move(rows));
  require(e.all_rows() == all, "evidence: rows end at ", e.all_rows(), ", there are ", all);
  for (index r = 0; r < all; ++r) {
    fill_row(e, r, logits.subspan(static_cast<std::size_t>(r * classes), static_cast<std::size_t>(classes)),
             feature.subspan(static_cast<std::size_t>(r * features), static_cast<std::size_t>(features)),
             targets[static_cast<std::size_t>(r)]);
  }
  return e;
}

/// `Error` that names what is wrong: no samples, sizes that disagree, labels out of range, values that are not finite.
inline void check(const evidence& e) {
  require(e.samples > 0 && e.classes > 0 && e.features > 0, "evidence: ", e.samples, " samples, ", e.classes,
          " classes, ", e.features, " features, expected at least one of each");
  const auto length = [](const char* name, std::size_t got, index want) {
    require(static_cast<index>(got) == want, "evidence: ", name, " has ", got, " values, expected ", want);
  };
  if (!e.rows.empty()) {
    length("rows", e.rows.size(), e.samples + 1);
    for (index i = 0; i < e.samples; ++i)
      require(e.first_row(i) < e.first_row(i + 1) && e.rows.front() == 0, "evidence: sample ", i, " has no rows");
  }
  length("delta", e.delta.size(), e.all_rows() * e.classes);
  length("feature", e.feature.size(), e.all_rows() * e.features);
  length("labels", e.labels.size(), e.samples);
  if (!e.target.empty()) length("target", e.target.size(), e.gradient_size());
  if (!e.wanted.empty()) length("wanted", e.wanted.size(), e.all_rows());
  const auto finite = [&e](const char* name, const auto& values, index width) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      require(std::isfinite(values[i]), "evidence: ", name, e.rows.empty() ? " of sample " : " of row ",
              static_cast<index>(i) / width, " is not finite (", values[i], ")");
    }
  };
  finite("delta", e.delta, e.classes);
  finite("feature", e.feature, e.features);
  finite("target", e.target, e.gradient_size());
  for (const std::int32_t c : e.wanted)
    require(c >= 0 && c < e.classes, "evidence: class ", c, " is wanted, expected 0 to ", e.classes - 1);
  for (index i = 0; i < e.samples; ++i) {
    const index label = e.labels[static_cast<std::size_t>(i)];
    require(label >= 0 && label < e.label_count(), "evidence: label ", label, " of sample ", i, ", expected 0 to ",
            e.label_count() - 1);
  }
}

/// The evidence of some of the samples, in that order, with the same target.
inline evidence evidence_of_some(const evidence& e, std::span<const index> samples) {
  evidence some{.samples = static_cast<index>(samples.size()),
                .classes = e.classes,
                .features = e.features,
                .delta = {},
                .feature = {},
                .labels = {},
                .target = e.target,
                .groups = e.groups};
  if (!e.rows.empty()) some.rows.push_back(0);
  for (const index i : samples) {
    require(i >= 0 && i < e.samples, "evidence: sample ", i, " of ", e.samples);
    const index begin = e.first_row(i), end = e.first_row(i + 1);
    some.labels.push_back(e.labels[static_cast<std::size_t>(i)]);
    some.delta.insert(some.delta.end(), e.delta.begin() + begin * e.classes, e.delta.begin() + end * e.classes);
    some.feature.insert(some.feature.end(), e.feature.begin() + begin * e.features,
                        e.feature.begin() + end * e.features);
    if (!e.wanted.empty()) some.wanted.insert(some.wanted.end(), e.wanted.begin() + begin, e.wanted.begin() + end);
    if (!e.rows.empty()) some.rows.push_back(some.rows.back() + end - begin);
  }
  return some;
}

/// Predictions become softmax(logits / temperature), those of a model that is less sure: gradients as they will be when
/// some is forgotten, not as they are just after training, when only the hardest samples have any. Infinite: every
/// class as likely as any other, so that gradients differ by their features only. `Error`: a temperature that is not
/// positive, or rows of which it is not known what they should have been.
inline void soften(evidence& e, double temperature) {
  require(temperature > 0, "evidence: a temperature of ", temperature, ", expected more than 0");
  require(!e.wanted.empty() || (e.rows.empty() && e.groups == 0),
          "evidence: a temperature, and rows that do not say what they should have been (wanted)");
  parallel_for(0, e.all_rows(), [&](index r) {
    double* delta = e.delta.data() + r * e.classes;
    const index wanted =
        e.wanted.empty() ? e.labels[static_cast<std::size_t>(r)] : e.wanted[static_cast<std::size_t>(r)];
    delta[wanted] += 1;
    double sum = 0;
    for (index c = 0; c < e.classes; ++c) sum += delta[c] = std::pow(std::max(delta[c], 1e-300), 1 / temperature);
    for (index c = 0; c < e.classes; ++c) delta[c] /= sum;
    delta[wanted] -= 1;
  });
}

namespace detail {

/// Inner product in 16 running sums: compilers make vector instructions of it without reordering anything.
template <class Sum, class A, class B>
Sum dot(const A* a, const B* b, index n) {
  constexpr index lanes = 16;
  Sum sums[lanes] = {};
  index i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (index l = 0; l < lanes; ++l) sums[l] += static_cast<Sum>(a[i + l]) * static_cast<Sum>(b[i + l]);
  }
  Sum total = 0;
  for (; i < n; ++i) total += static_cast<Sum>(a[i]) * static_cast<Sum>(b[i]);
  for (index l = 0; l < lanes; ++l) total += sums[l];
  return total;
}

}  // namespace detail

/// <g_i, g_j> = (delta_i . delta_j) (h_i . h_j + 1), in double precision.
inline double inner(const evidence& e, index i, index j) {
  double total = 0;
  e.for_each_row(i, [&](const double* delta, const float* h, double share) {
    e.for_each_row(j, [&](const double* other_delta, const float* other_h, double other_share) {
      total += share * other_share * detail::dot<double>(delta, other_delta, e.classes) *
               (detail::dot<double>(h, other_h, e.features) + 1);
    });
  });
  return total;
}

/// Inner products of all `rows` with all `columns`, [rows, columns].
inline std::vector<double> gram_block(const evidence& e, std::span<const index> rows, std::span<const index> columns) {
  std::vector<double> block(rows.size() * columns.size());
  parallel_for(0, static_cast<index>(rows.size()), [&](index r) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      block[static_cast<std::size_t>(r) * columns.size() + c] = inner(e, rows[static_cast<std::size_t>(r)], columns[c]);
    }
  });
  return block;
}

/// Sum of the gradients of `members`, `[K] + [K, d]`. Summed in the order of `members`.
inline std::vector<double> gradient_sum(const evidence& e, std::span<const index> members) {
  std::vector<double> sum(static_cast<std::size_t>(e.gradient_size()));
  parallel_for(0, e.classes, [&](index c) {
    double* row = sum.data() + e.classes + c * e.features;
    for (const index i : members) {
      e.for_each_row(i, [&](const double* delta, const float* h, double share) {
        const double factor = share * delta[c];
        sum[static_cast<std::size_t>(c)] += factor;
        for (index f = 0; f < e.features; ++f) row[f] += factor * static_cast<double>(h[f]);
      });
    }
  });
  return sum;
}

/// Mean of the gradients of `members`, at least one.
inline std::vector<double> gradient_mean(const evidence& e, std::span<const index> members) {
  require(!members.empty(), "evidence: the mean gradient of no samples");
  auto mean = gradient_sum(e, members);
  for (double& value : mean) value /= static_cast<double>(members.size());
  return mean;
}

/// <g_i, gradient> = delta_i . (gradient's bias + gradient's weight h_i) for all `members`.
inline std::vector<double> inner_with(const evidence& e, std::span<const index> members,
                                      std::span<const double> gradient) {
  require(static_cast<index>(gradient.size()) == e.gradient_size(), "gradient of ", gradient.size(),
          " values, expected ", e.gradient_size());
  std::vector<double> result(members.size());
  parallel_chunks(0, static_cast<index>(members.size()), 64, [&](index begin, index end) {
    for (index m = begin; m < end; ++m) {
      const index i = members[static_cast<std::size_t>(m)];
      double total = 0;
      e.for_each_row(i, [&](const double* delta, const float* h, double share) {
        for (index c = 0; c < e.classes; ++c) {
          const double* weight = gradient.data() + e.classes + c * e.features;
          total +=
              share * delta[c] * (gradient[static_cast<std::size_t>(c)] + detail::dot<double>(weight, h, e.features));
        }
      });
      result[static_cast<std::size_t>(m)] = total;
    }
  });
  return result;
}

}  // namespace core_tokensets
