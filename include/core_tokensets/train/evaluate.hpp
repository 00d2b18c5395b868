#pragma once
// A trained model on pictures: logits and features in batches, accuracy, and the prediction for one picture.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/metrics/continual.hpp"
#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// Outputs of a model for n pictures: logits `[n, K]` and the normalised class tokens `[n, D]` below the head.
struct model_outputs {
  std::vector<float> logits, features;
  std::vector<std::int32_t> labels;
};

/// The pictures at `indices` of `data` as a model sees them: cut and normalised as its configuration says.
inline void make_batch(const dataset& data, std::span<const index> indices, const vit_config& c, token_batch& out) {
  check_pictures(data, c);
  make_batch(data, indices, {.patch = c.grid.patch, .normalisation = c.normalisation}, out);
}

namespace detail {

/// Calls `body(part)` for pieces of `samples`. `Error`: pieces of nothing.
template <class Body>
void for_batches(std::span<const index> samples, index batch_size, const Body& body) {
  require(batch_size > 0, "batches of ", batch_size, " samples, expected at least 1");
  for (std::size_t begin = 0; begin < samples.size(); begin += static_cast<std::size_t>(batch_size))
    body(samples.subspan(begin, std::min(static_cast<std::size_t>(batch_size), samples.size() - begin)));
}

}  // namespace detail

/// Runs the model on samples, which `fill(part, batch)` makes a batch of.
template <tensor_backend B, class Fill>
model_outputs run_batches(B& b, const vit<B>& model, std::span<const index> samples, const Fill& fill,
                          index batch_size = 128) {
  model_outputs out;
  vit_tape<B> tape;
  tape.keep = kept::logits;
  token_batch batch;
  detail::for_batches(samples, batch_size, [&](std::span<const index> part) {
    fill(part, batch);
    forward(b, model, batch, tape);
    const auto logits = tape.logits.to_host(b), features = tape.norm.y.to_host(b);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    out.features.insert(out.features.end(), features.begin(), features.end());
    out.labels.insert(out.labels.end(), batch.targets.begin(), batch.targets.end());
  });
  return out;
}

/// Runs the model on whole pictures.
template <tensor_backend B>
model_outputs run_model(B& b, const vit<B>& model, const sample_view<dataset>& samples, index batch_size = 128) {
  const auto fill = [&](std::span<const index> part, token_batch& batch) {
    make_batch(*samples.data, part, model.config(), batch);
  };
  return run_batches(b, model, samples.indices, fill, batch_size);
}

/// Share of rows `[n, K]` whose largest entry is at the label. `Error`: no labels, another number of scores.
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

/// How well a model does: a share in [0, 1], and further measures by name.
struct evaluation {
  double accuracy = 0;
  std::map<std::string, double> others = {};   ///< shares, too
  std::map<std::string, double> amounts = {};  ///< what is no share: losses, norms
};

/// The share of the pictures whose class the model predicts. `Error`: no pictures.
template <tensor_backend B>
evaluation evaluate(B& b, const vit<B>& model, const sample_view<dataset>& samples) {
  const model_outputs got = run_model(b, model, samples);
  return {.accuracy = accuracy<float>(got.logits, got.labels)};
}

/// What a classifier says of one picture.
struct prediction {
  index label = 0;
  std::string name;         ///< of the class; its number where the model knows no names
  double probability = 0;   ///< of that class
  std::vector<double> all;  ///< [K] of every class
};

/// The prediction that scores `[K]` stand for: their softmax.
template <class T>
prediction prediction_of(std::span<const T> scores, const std::vector<std::string>& names) {
  require(!scores.empty(), "predict: there are no classes");
  prediction p;
  const auto top = std::max_element(scores.begin(), scores.end());
  p.label = top - scores.begin();
  double sum = 0;
  for (const T z : scores) sum += p.all.emplace_back(std::exp(double(z) - double(*top)));
  for (double& x : p.all) x /= sum;
  p.probability = p.all[static_cast<std::size_t>(p.label)];
  p.name = names.empty() ? std::to_string(p.label) : names[static_cast<std::size_t>(p.label)];
  return p;
}

/// A picture of any size in the size and with the channels that a model sees.
inline image fit_picture(const image_view& picture, const patch_grid& grid) {
  image found(picture);
  if (picture.channels != grid.channels && grid.channels == 3) found = grey_to_rgb(picture);
  require(found.channels == grid.channels, "a picture of ", picture.channels, " channels, the model sees ",
          grid.channels);
  return resize(found, grid.height, grid.width);
}

/// One picture as a data set, in the size that a model sees.
inline dataset one_picture(const image_view& picture, const patch_grid& grid) {
  dataset data;
  data.height = grid.height, data.width = grid.width, data.channels = grid.channels;
  data.pixels = fit_picture(picture, grid).pixels;
  data.labels = {0};
  data.class_names = {"picture"};
  return data;
}

/// What the model says of a picture of any size.
template <tensor_backend B>
prediction predict(B& b, const vit<B>& model, const image_view& picture) {
  const dataset data = one_picture(picture, model.config().grid);
  return prediction_of<float>(run_model(b, model, data).logits, model.config().class_names);
}

}  // namespace core_tokensets
