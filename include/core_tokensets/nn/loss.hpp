#pragma once
// Cross-entropy with weights per sample, label smoothing, and a choice of classes that compete.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

struct cross_entropy_options {
  double label_smoothing = 0;  ///< share of the target spread evenly over the competing classes
  /// [S]: sample s competes among classes `first_class[s]` .. K-1 only (asymmetric cross-entropy, ER-ACE, Caccia 2022:
  /// new samples do not push old classes down). Empty: all classes.
  std::span<const std::int32_t> first_class = {};
};

/// The mean over the batch of weight times loss, and its gradient.
template <class T>
struct cross_entropy_result {
  double loss = 0;
  std::vector<double> per_sample;  ///< [S] without weights
  std::vector<T> dlogits;          ///< [S, K]
};

/// logits `[S, K]`, targets `[S]` below K, weights `[S]` or empty. Throws where a target is out of range or the loss is
/// not finite.
template <class T>
cross_entropy_result<T> cross_entropy(std::span<const T> logits, index classes, std::span<const std::int32_t> targets,
                                      std::span<const float> weights = {}, const cross_entropy_options& options = {}) {
  const auto samples = targets.size();
  const auto k = static_cast<std::size_t>(classes);
  require(logits.size() == samples * k, "cross_entropy: ", logits.size(), " logits for ", samples, " targets of ",
          classes, " classes");
  cross_entropy_result<T> result{0, std::vector<double>(samples), std::vector<T>(samples * k, T(0))};
  std::vector<double> p(k);
  for (std::size_t s = 0; s < samples; ++s) {
    const auto first = options.first_class.empty() ? std::size_t{0} : static_cast<std::size_t>(options.first_class[s]);
    const auto target = static_cast<std::size_t>(targets[s]);
    require(targets[s] >= 0 && target < k && target >= first, "cross_entropy: target ", targets[s], " of sample ", s,
            " is not among the classes ", first, " .. ", classes - 1);
    const T* row = logits.data() + s * k;
    double top = row[first], total = 0;
    for (std::size_t c = first; c < k; ++c) top = std::max(top, double(row[c]));
    for (std::size_t c = first; c < k; ++c) total += p[c] = std::exp(double(row[c]) - top);
    const double even = options.label_smoothing / static_cast<double>(k - first);
    const double scale = (weights.empty() ? 1.0 : double(weights[s])) / static_cast<double>(samples);
    for (std::size_t c = first; c < k; ++c) {
      const double wanted = even + (c == target ? 1 - options.label_smoothing : 0.0);
      result.per_sample[s] -= wanted * (double(row[c]) - top - std::log(total));
      result.dlogits[s * k + c] = T(scale * (p[c] / total - wanted));
    }
    result.loss += scale * result.per_sample[s];
  }
  require(std::isfinite(result.loss), "cross_entropy: the loss is ", result.loss,
          "; the learning rate may be too high or the input may hold NaN");
  return result;
}

}  // namespace core_tokensets
