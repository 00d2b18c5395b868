#pragma once
// Classifiers of features without training: they keep sums over samples, which come in any order and any parts.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/selection/cholesky.hpp"

namespace core_tokensets {

namespace detail {

/// D of the features `[n, D]` of n labels. `Error`: there is none, or another than `before` (0: any), a feature that is
/// not finite, fewer classes than `had`, a label that is no class.
inline index checked_dim(const char* what, std::span<const float> features, std::span<const std::int32_t> labels,
                         index before, index classes, index had) {
  require(!labels.empty() && features.size() % labels.size() == 0, what, ": ", features.size(), " feature values for ",
          labels.size(), " samples");
  const auto dim = static_cast<index>(features.size() / labels.size());
  require(dim > 0 && (before == 0 || dim == before), what, ": features of ", dim, " numbers, expected ", before);
  for (std::size_t i = 0; i < features.size(); ++i) {
    require(std::isfinite(features[i]), what, ": feature ", i % static_cast<std::size_t>(dim), " of sample ",
            i / static_cast<std::size_t>(dim), " is ", features[i], ", expected a finite number");
  }
  require(classes >= had, what, ": ", classes, " classes, there were ", had);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    require(labels[i] >= 0 && labels[i] < classes, what, ": label ", labels[i], " of sample ", i, ", expected 0 to ",
            classes - 1);
  }
  return dim;
}

}  // namespace detail

/// Class means of features `[n, D]`, and the negative squared distances of other features to them: a classifier without
/// training (nearest class mean; Mensink et al. 2013). `Error`: sizes that disagree, a label that is no class.
class nearest_class_mean {
 public:
  static constexpr const char* name = "ncm";
  static constexpr const char* about = "no training after the first task: nearest class mean on its features";

  nearest_class_mean() = default;
  nearest_class_mean(std::span<const float> features, std::span<const std::int32_t> labels, index classes) {
    add(features, labels, classes);
  }

  /// Adds samples; classes may have become more.
  void add(std::span<const float> features, std::span<const std::int32_t> labels, index classes) {
    const index dim = dim_ =
        detail::checked_dim("nearest class mean", features, labels, dim_, classes, this->classes());
    counts_.resize(static_cast<std::size_t>(classes), 0.0);
    sums_.resize(static_cast<std::size_t>(classes * dim), 0.0);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      counts_[static_cast<std::size_t>(labels[i])] += 1;
      for (index d = 0; d < dim; ++d)
        sums_[static_cast<std::size_t>(labels[i] * dim + d)] +=
            double(features[i * static_cast<std::size_t>(dim) + static_cast<std::size_t>(d)]);
    }
  }

  index classes() const { return static_cast<index>(counts_.size()); }
  index dim() const { return dim_; }
  /// Samples of class k.
  double count(index k) const { return counts_[static_cast<std::size_t>(k)]; }
  /// The mean `[D]` of class k, 0 without samples.
  std::vector<double> mean(index k) const {
    std::vector<double> m(sums_.begin() + k * dim_, sums_.begin() + (k + 1) * dim_);
    for (double& x : m) x /= std::max(1.0, count(k));
    return m;
  }

  /// `[n, K]` for features `[n, D]`.
  std::vector<double> scores(std::span<const float> features) const {
    require(dim_ > 0 && features.size() % static_cast<std::size_t>(dim_) == 0, "nearest class mean: ", features.size(),
            " feature values, expected a multiple of ", dim_);
    std::vector<std::vector<double>> means;
    for (index k = 0; k < classes(); ++k) means.push_back(mean(k));
    std::vector<double> result;
    for (std::size_t i = 0; i < features.size(); i += static_cast<std::size_t>(dim_)) {
      for (const auto& m : means) {
        double distance = 0;
        for (std::size_t d = 0; d < m.size(); ++d) {
          const double difference = double(features[i + d]) - m[d];
          distance += difference * difference;
        }
        result.push_back(-distance);
      }
    }
    return result;
  }

  /// Bytes of the means, a float each.
  index bytes() const { return classes() * dim() * static_cast<index>(sizeof(float)); }

  /// Adds sums `[K, D]` and counts `[K]` to a file.
  void save(tensor_file& file) const {
    file.arrays["sums"] = host_array::of(sums_, {classes(), dim_});
    file.arrays["counts"] = host_array::of(counts_, {classes()});
  }
  /// What `save` wrote. `Error`: arrays that are missing or do not fit.
  static nearest_class_mean load(const tensor_file& file) {
    nearest_class_mean m;
    const host_array& sums = file.at("sums");
    m.counts_ = file.at("counts").as<double>();
    m.sums_ = sums.as<double>();
    require(sums.shape.size() == 2 && sums.shape[0] == m.classes(), file.path, ": 'sums' has shape ",
            shape_text(sums.shape), " for ", m.classes(), " classes");
    m.dim_ = sums.shape[1];
    return m;
  }

 private:
  index dim_ = 0;
  std::vector<double> counts_, sums_;  ///< [K], [K, D]
};

/// Least squares from features `[n, D]` and a constant to classes (1 for its own, 0 for the others), with a penalty on
/// the weights but not on the constant (Hoerl & Kennard 1970). It keeps the sums from which this is solved: what order
/// samples came in, and in how many parts, makes no difference, so nothing is forgotten (Zhuang et al., NeurIPS 2022).
/// `penalty` is in parts of the variance of a feature, summed over samples and averaged over features.
/// `Error`: sizes that disagree, a label that is no class, a feature that is not finite, a penalty that is not above 0.
class ridge_regression {
 public:
  static constexpr const char* name = "ridge";
  static constexpr const char* about = "no training after the first task: ridge regression on its features";

  explicit ridge_regression(double share = 0.01) : penalty(share) {}
  double penalty;

  /// Adds samples; classes may have become more.
  void add(std::span<const float> features, std::span<const std::int32_t> labels, index classes) {
    check_penalty();
    weights_.clear();
    dim_ = detail::checked_dim("ridge", features, labels, dim_, classes, this->classes());
    const auto d = static_cast<std::size_t>(dim_), rows = d + 1;
    products_.resize(rows * rows, 0.0);
    targets_.resize(static_cast<std::size_t>(classes) * rows, 0.0);
    std::vector<double> x(rows, 1.0);
    for (std::size_t n = 0; n < labels.size(); ++n) {
      std::copy_n(features.data() + n * d, d, x.begin());
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j <= i; ++j) products_[i * rows + j] += x[i] * x[j];
        targets_[static_cast<std::size_t>(labels[n]) * rows + i] += x[i];
      }
    }
  }

  index classes() const { return dim_ == 0 ? 0 : static_cast<index>(targets_.size()) / (dim_ + 1); }
  index dim() const { return dim_; }
  /// Bytes of the sums: a float for each pair of features and for each feature of a class.
  index bytes() const {
    const index rows = dim_ + 1;
    return dim_ == 0 ? 0 : (rows * (rows + 1) / 2 + rows * classes()) * static_cast<index>(sizeof(float));
  }

  /// The weights `[K, D + 1]`, the constant last; solved once for what was added. `Error`: nothing was.
  const std::vector<double>& weights() const {
    if (weights_.empty()) weights_ = solve();
    return weights_;
  }

  /// What the regression says `[n, K]` for features `[n, D]`: 1 for its class and 0 for others, were it exact.
  std::vector<double> outputs(std::span<const float> features) const {
    const auto d = static_cast<std::size_t>(dim_), rows = d + 1;
    require(d > 0 && features.size() % d == 0, "ridge: ", features.size(), " feature values, expected a multiple of ",
            dim_);
    const std::vector<double>& w = weights();
    std::vector<double> result;
    for (std::size_t n = 0; n < features.size(); n += d) {
      for (std::size_t k = 0; k < w.size(); k += rows) {
        double sum = w[k + d];
        for (std::size_t i = 0; i < d; ++i) sum += w[k + i] * double(features[n + i]);
        result.push_back(sum);
      }
    }
    return result;
  }

  /// Scores `[n, K]` in the same order, of which the softmax are the shares of the outputs, those below 0 next to none.
  std::vector<double> scores(std::span<const float> features) const {
    constexpr double sharpness = 20;  // of the bend at 0
    std::vector<double> result = outputs(features);
    for (double& x : result) x = std::log(x > 1 ? x : std::log1p(std::exp(sharpness * x)) / sharpness);
    return result;
  }

  /// Adds the sums and the penalty to a file.
  void save(tensor_file& file) const {
    file.metadata["penalty"] = detail::option_text(penalty);
    const index rows = dim_ == 0 ? 0 : dim_ + 1;
    file.arrays["products"] = host_array::of(products_, {rows, rows});
    file.arrays["targets"] = host_array::of(targets_, {classes(), rows});
  }
  static ridge_regression load(const tensor_file& file) {
    require(file.metadata.contains("penalty"), file.path, ": not a ridge regression ('penalty' is missing)");
    ridge_regression r;
    r.penalty = detail::parse_option<double>(file.metadata.at("penalty"), file.path + ": penalty");
    const host_array &products = file.at("products"), &targets = file.at("targets");
    const auto& shape = products.shape;
    require(shape.size() == 2 && shape[0] == shape[1] && shape[0] != 1 && targets.shape.size() == 2 &&
                targets.shape[1] == shape[0],
            file.path, ": 'products' has shape ", shape_text(shape), ", 'targets' ", shape_text(targets.shape));
    r.products_ = products.as<double>(), r.targets_ = targets.as<double>();
    r.dim_ = std::max<index>(0, shape[0] - 1);
    return r;
  }

 private:
  void check_penalty() const {
    require(penalty > 0 && std::isfinite(penalty), "ridge: penalty ", penalty, ", expected a finite number above 0");
  }
  std::vector<double> solve() const {
    require(dim_ > 0, "ridge: there are no samples");
    check_penalty();
    const auto rows = static_cast<std::size_t>(dim_ + 1);
    const double samples = products_.empty() ? 0 : products_.back();
    double variance = 0;
    for (std::size_t i = 0; i + 1 < rows; ++i) {
      const double mean = products_[(rows - 1) * rows + i] / samples;
      variance += (products_[i * rows + i] - samples * mean * mean) / static_cast<double>(dim_);
    }
    growing_cholesky factor;
    for (std::size_t i = 0; i < rows; ++i) {
      std::vector<double> row(products_.begin() + static_cast<std::ptrdiff_t>(i * rows),
                              products_.begin() + static_cast<std::ptrdiff_t>(i * rows + i + 1));
      if (i + 1 < rows) row.back() += penalty * variance;
      require(factor.append(row), "ridge: the features of ", samples, " samples cannot be told apart, expected a ",
              "larger penalty than ", penalty);
    }
    std::vector<double> found;
    for (std::size_t k = 0; k < targets_.size(); k += rows) {
      const auto w = factor.solve(std::span(targets_).subspan(k, rows));
      found.insert(found.end(), w.begin(), w.end());
    }
    return found;
  }

  index dim_ = 0;
  std::vector<double> products_, targets_;  ///< [D + 1, D + 1] of which the lower half counts, [K, D + 1]
  mutable std::vector<double> weights_;     ///< empty: to be solved
};

}  // namespace core_tokensets
