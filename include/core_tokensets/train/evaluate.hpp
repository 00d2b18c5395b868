#pragma once
// A trained model on pictures: logits and features in batches, and accuracy.

#include <algorithm>
#include <vector>

#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// Outputs of a model for n pictures: logits `[n, K]` and the normalised class tokens `[n, D]` below the head.
struct model_outputs {
  std::vector<float> logits, features;
  std::vector<std::int32_t> labels;
};

/// Runs the model on whole pictures.
template <tensor_backend B>
model_outputs run_model(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                        const pixel_normalisation& normalisation, index batch_size = 128) {
  model_outputs out;
  vit_tape<B> tape;
  tape.keep = kept::logits;
  token_batch batch;
  for (std::size_t begin = 0; begin < indices.size(); begin += static_cast<std::size_t>(batch_size)) {
    const auto part = indices.subspan(begin, std::min(static_cast<std::size_t>(batch_size), indices.size() - begin));
    make_batch(data, part, {.patch = model.config().patch, .normalisation = normalisation}, batch);
    forward(b, model, batch, tape);
    const auto logits = tape.logits.to_host(b), features = tape.norm.y.to_host(b);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    out.features.insert(out.features.end(), features.begin(), features.end());
    out.labels.insert(out.labels.end(), batch.targets.begin(), batch.targets.end());
  }
  return out;
}

/// Share of rows `[n, K]` whose largest entry is at the label.
template <class T>
double accuracy(std::span<const T> scores, std::span<const std::int32_t> labels) {
  require(!labels.empty() && scores.size() % labels.size() == 0, "accuracy: ", scores.size(), " scores for ",
          labels.size(), " labels");
  const auto classes = static_cast<std::ptrdiff_t>(scores.size() / labels.size());
  double right = 0;
  auto row = scores.begin();
  for (const std::int32_t label : labels) {
    right += std::max_element(row, row + classes) - row == label ? 1 : 0;
    row += classes;
  }
  return right / static_cast<double>(labels.size());
}

/// Class means of features `[n, D]`, and the negative squared distances of other features to them: a classifier without
/// training (nearest class mean; Mensink et al. 2013).
class nearest_class_mean {
 public:
  nearest_class_mean(std::span<const float> features, std::span<const std::int32_t> labels, index classes)
      : dim_(static_cast<index>(features.size() / labels.size())),
        means_(static_cast<std::size_t>(classes * dim_), 0.0) {
    std::vector<double> counts(static_cast<std::size_t>(classes), 0.0);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      counts[static_cast<std::size_t>(labels[i])] += 1;
      for (index d = 0; d < dim_; ++d)
        mean(labels[i])[d] += double(features[i * static_cast<std::size_t>(dim_) + static_cast<std::size_t>(d)]);
    }
    for (index c = 0; c < classes; ++c) {
      const double count = std::max(1.0, counts[static_cast<std::size_t>(c)]);
      for (index d = 0; d < dim_; ++d) mean(c)[d] /= count;
    }
  }
  /// `[n, K]` for features `[n, D]`.
  std::vector<double> scores(std::span<const float> features) const {
    std::vector<double> result;
    const index classes = static_cast<index>(means_.size()) / dim_;
    for (std::size_t i = 0; i < features.size(); i += static_cast<std::size_t>(dim_)) {
      for (index c = 0; c < classes; ++c) {
        double distance = 0;
        for (index d = 0; d < dim_; ++d) {
          const double difference =
              double(features[i + static_cast<std::size_t>(d)]) - means_[static_cast<std::size_t>(c * dim_ + d)];
          distance += difference * difference;
        }
        result.push_back(-distance);
      }
    }
    return result;
  }

 private:
  double* mean(index c) { return means_.data() + c * dim_; }
  index dim_;
  std::vector<double> means_;
};

}  // namespace core_tokensets
