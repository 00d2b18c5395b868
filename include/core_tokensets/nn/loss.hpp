#pragma once
// Cross-entropy with weights per sample, label smoothing, and a choice of classes that compete.

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/tensor/ops.hpp"

namespace core_tokensets {

struct cross_entropy_options {
  double label_smoothing = 0;  ///< share of the target spread evenly over the competing classes
  /// [S]: sample s competes among classes `first_class[s]` .. K-1 only (asymmetric cross-entropy, ER-ACE, Caccia 2022:
  /// new samples do not push old classes down). Empty: all classes.
  std::span<const std::int32_t> first_class = {};
};

/// The loss of one batch; its memory is reused from batch to batch.
template <tensor_backend B>
struct loss_tape {
  tensor<B> losses;   ///< [S, 1] of each sample, without its weight
  tensor<B> dlogits;  ///< [S, K] gradient of the mean over the batch of weight times loss
  row_list<B> targets, first_class;
  tensor<B> weights;                        ///< [S, 1] or empty
  std::vector<typename B::scalar> on_host;  ///< weights, then losses, on their way
  std::vector<std::int32_t> competing;      ///< [S] for objectives that choose which classes compete
  tensor<B> stored;                         ///< for objectives that bring numbers of their own
};

/// logits `[S, K]`, targets `[S]` below K, weights `[S]` or empty, to `tape.losses` and `tape.dlogits`. Throws where a
/// target is not among the competing classes, or the smoothing no share.
template <tensor_backend B, class T = typename B::scalar>
void cross_entropy(B& b, const_view<T> logits, std::span<const std::int32_t> targets, loss_tape<B>& tape,
                   std::span<const float> weights = {}, const cross_entropy_options& options = {}) {
  const index samples = logits.rows, classes = logits.cols;
  require_within("cross_entropy: label_smoothing", options.label_smoothing, 0, 1);
  const auto fits = [&](std::size_t n) { return static_cast<index>(n) == samples; };
  require(fits(targets.size()) && (weights.empty() || fits(weights.size())) &&
              (options.first_class.empty() || fits(options.first_class.size())),
          "cross_entropy: ", samples, " rows of logits, ", targets.size(), " targets, ", weights.size(), " weights, ",
          options.first_class.size(), " first classes");
  for (std::size_t s = 0; s < targets.size(); ++s) {
    const std::int32_t first = options.first_class.empty() ? 0 : options.first_class[s];
    require(first >= 0 && targets[s] >= first && targets[s] < classes, "cross_entropy: target ", targets[s],
            " of sample ", s, " is not among the classes ", first, " .. ", classes - 1);
  }
  tape.targets.assign(b, targets);
  tape.first_class.assign(b, options.first_class);
  tape.on_host.assign(weights.begin(), weights.end());
  tape.weights.assign(b, static_cast<index>(weights.size()), 1, tape.on_host.data());
  tape.losses.resize(b, samples, 1);
  tape.dlogits.resize(b, samples, classes);
  ops::cross_entropy<B, T>(b, logits,
                           {.targets = tape.targets.data(),
                            .first_class = options.first_class.empty() ? nullptr : tape.first_class.data(),
                            .weights = weights.empty() ? nullptr : tape.weights.data(),
                            .label_smoothing = T(options.label_smoothing)},
                           *tape.dlogits, *tape.losses);
}

/// The mean over the batch of weight times loss; waits for the backend. Throws where it is not finite.
template <tensor_backend B>
double mean_loss(B& b, loss_tape<B>& tape, std::span<const float> weights = {}) {
  const index samples = tape.losses.rows();
  tape.on_host.resize(static_cast<std::size_t>(samples));
  b.download(tape.on_host.data(), tape.losses.data(), samples);
  double sum = 0;
  for (std::size_t s = 0; s < tape.on_host.size(); ++s) {
    sum += double(tape.on_host[s]) * (weights.empty() ? 1.0 : double(weights[s]));
  }
  const double mean = sum / static_cast<double>(samples);
  require(std::isfinite(mean), "cross_entropy: the loss is ", mean,
          "; the learning rate may be too high or the input may hold NaN");
  return mean;
}

}  // namespace core_tokensets
