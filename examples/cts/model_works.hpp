#pragma once
// What cts predict, backward and attribute do on a backend.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iomanip>
#include <sstream>
#include <string>

#include "commands.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "methods.hpp"

namespace cts_command {

namespace cts = core_tokensets;

/// The numbers of an array; whatever is wrong with them is told with the file and the name.
template <class T>
std::vector<T> read_numbers(const cts::tensor_file& file, const std::string& name) {
  const cts::host_array& array = file.at(name);
  try {
    return array.as<T>();
  } catch (const cts::Error& error) {
    cts::fail(file.path, ": '", name, "': ", error.what());
  }
}

/// 'images' [B, C, H, W] as the model sees them: bytes are normalised as its file says, other numbers are taken for
/// normalised already. `told` says which, because nothing in a file of numbers does.
inline std::vector<float> read_pixels(const cts::tensor_file& file, const cts::vit_weights& weights,
                                      std::vector<std::string>& told_lines) {
  const cts::vit_config& c = weights.config;
  auto images = read_numbers<float>(file, "images");
  cts::require(std::all_of(images.begin(), images.end(), [](float x) { return std::isfinite(x); }), file.path,
               ": 'images' holds a number that is not finite");
  std::ostringstream told;
  told << std::setprecision(4);
  if (file.at("images").type != cts::dtype::u8) {
    const auto [least, most] = std::minmax_element(images.begin(), images.end());
    told << "images: numbers from " << *least << " to " << *most
         << ", taken as normalised already (bytes 0-255 are of type U8)";
    told_lines.push_back(told.str());
    return images;
  }
  const auto table = cts::pixel_table(c.normalisation, c.grid.channels);
  const auto area = static_cast<std::size_t>(c.grid.height * c.grid.width);
  for (std::size_t i = 0; i < images.size(); ++i) {
    const std::size_t channel = i / area % static_cast<std::size_t>(c.grid.channels);
    images[i] = table[channel * 256 + static_cast<std::size_t>(images[i])];
  }
  const auto n = c.normalisation.for_channels(c.grid.channels);
  told << (weights.has_normalisation ? "images: bytes, normalised as the model says:"
                                     : "images: bytes, normalised as most are, since the model does not say how:");
  for (std::size_t k = 0; k < n.mean.size(); ++k) told << " (x / 255 - " << n.mean[k] << ") / " << n.stddev[k];
  told_lines.push_back(told.str());
  return images;
}

/// A stored model, and the pictures of a file as a batch for it.
template <class B>
struct model_and_batch {
  cts::vit<B> model;
  cts::token_batch batch;
  std::vector<std::string> told;  ///< what was done to weights and pictures, for people

  /// Once the result is there: a command that is refused prints nothing.
  void tell() const {
    for (const std::string& line : told) std::printf("%s\n", line.c_str());
  }
};

/// The labels [B] of a file.
inline std::vector<std::int32_t> read_labels(const cts::tensor_file& file, cts::index samples, cts::index classes) {
  auto labels = read_numbers<std::int32_t>(file, "labels");
  cts::require(static_cast<cts::index>(labels.size()) == samples, file.path, ": 'labels' has ", labels.size(),
               " labels for ", samples, " images");
  for (const auto label : labels) {
    cts::require(label >= 0 && label < classes, file.path, ": 'labels' holds ", label, ", the model has classes 0 to ",
                 classes - 1);
  }
  return labels;
}

/// The model of --weights, for pictures of the size that 'images' [B, C, H, W] of --inputs have, and these.
template <class B>
model_and_batch<B> read_model_and_batch(B& b, const model_options& o, bool need_labels) {
  auto survey = cts::survey_vit(cts::load_weights(o.weights));
  const cts::tensor_file file = cts::load_safetensors(o.inputs);
  const auto& shape = file.at("images").shape;
  cts::require(shape.size() == 4 && shape[0] > 0 && shape[1] == survey.channels && shape[2] > 0 && shape[3] > 0 &&
                   shape[2] % survey.patch == 0 && shape[3] % survey.patch == 0,
               o.inputs, ": 'images' has shape ", cts::shape_text(shape), ", the model expects [B, ", survey.channels,
               ", H, W], H and W multiples of ", survey.patch);
  cts::vit_hints hints{.height = shape[2], .width = shape[3]};
  if (o.heads != 0) hints.heads = o.heads;
  const auto weights = cts::read_vit(std::move(survey), hints);
  model_and_batch<B> result{cts::load_vit(b, weights), {}, {}};
  for (const auto& note : weights.notes) result.told.push_back("weights: " + note);
  const cts::vit_config& c = result.model.config();
  result.batch = cts::patchify(read_pixels(file, weights, result.told), c.grid);
  if (need_labels) result.batch.targets = read_labels(file, shape[0], c.classes);
  return result;
}

/// cts predict
struct predict_work {
  const model_options& o;

  template <class B>
  void operator()(B& b) const {
    using T = typename B::scalar;
    const auto read = read_model_and_batch(b, o, false);
    const auto& [model, batch, told] = read;
    cts::vit_tape<B> tape;
    tape.keep = cts::kept::logits;
    cts::forward(b, model, batch, tape);
    cts::tensor_file out;
    const std::vector<cts::index> shape{batch.samples(), model.config().classes};
    out.arrays["logits"] = cts::host_array::of(tape.logits.to_host(b), shape);
    cts::ops::softmax<B, T>(b, *tape.logits);
    out.arrays["probabilities"] = cts::host_array::of(tape.logits.to_host(b), shape);
    cts::save_safetensors(o.out, out);
    read.tell();
  }
};

/// cts backward
struct backward_work {
  const model_options& o;

  template <class B>
  void operator()(B& b) const {
    using T = typename B::scalar;
    const auto read = read_model_and_batch(b, o, true);
    const auto& [model, batch, told] = read;
    cts::vit_tape<B> tape;
    cts::forward(b, model, batch, tape);
    cts::loss_tape<B> loss;
    cts::cross_entropy(b, *tape.logits, batch.targets, loss);
    cts::tensor<B> dtokens, gradients(b, 1, model.parameters().size());
    b.fill(*gradients, T(0));
    cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
    cts::tensor_file out;
    out.arrays["loss"] = cts::host_array::of(std::vector<double>{cts::mean_loss(b, loss)});
    cts::put_parameters(b, model, gradients, "grad.", out);
    cts::save_safetensors(o.out, out);
    read.tell();
  }
};

struct attribute_options : model_options {
  std::string method, target = "argmax", pictures;
  std::ptrdiff_t start_layer = 0;
  std::uint64_t seed = 0;
};

/// Writes DIR/N.png for each sample: the picture, brightened to the full range, under its relevance.
inline void draw(const std::string& dir, const cts::token_batch& batch, const std::vector<double>& relevance,
                 const cts::vit_config& c) {
  cts::require(c.grid.channels == 1 || c.grid.channels == 3, "--pictures: images of ", c.grid.channels,
               " channels, expected 1 or 3");
  const cts::patch_grid& grid = c.grid;
  const auto numbers = cts::unpatchify(batch, grid);
  const auto area = c.grid.height * c.grid.width, size = area * c.grid.channels;
  for (cts::index s = 0; s < batch.samples(); ++s) {
    const auto from = std::span(numbers).subspan(static_cast<std::size_t>(s * size), static_cast<std::size_t>(size));
    const auto scaled = cts::min_max(std::vector<double>(from.begin(), from.end()));
    cts::image picture(c.grid.height, c.grid.width, c.grid.channels);
    for (cts::index i = 0; i < size; ++i) {
      const auto at = static_cast<std::size_t>(i % area * c.grid.channels + i / area);
      picture.pixels[at] = static_cast<std::uint8_t>(std::lround(255 * scaled[static_cast<std::size_t>(i)]));
    }
    const auto scores = std::span(relevance).subspan(static_cast<std::size_t>(s * c.grid.tokens()),
                                                     static_cast<std::size_t>(c.grid.tokens()));
    cts::write_png(std::filesystem::path(dir) / (std::to_string(s) + ".png"),
                   cts::overlay(picture, scores, c.grid.rows(), c.grid.cols()));
  }
}

/// cts attribute
struct attribute_work {
  const attribute_options& o;
  std::string method;
  cts::target target;

  template <class B>
  void operator()(B& b) const {
    using T = typename B::scalar;
    const auto explainer = method_named<B>(method);
    std::optional<cts::output_folder> folder;
    if (!o.pictures.empty()) folder.emplace(o.pictures);
    const auto read = read_model_and_batch(b, o, target.whose == cts::explained_class::label);
    const auto& [model, batch, told] = read;
    cts::attribution_workspace<B> workspace;
    const auto relevance = attribute(explainer, b, model, batch, target, workspace);
    cts::tensor_file out;
    out.metadata["method"] = explainer.text();
    out.metadata["target"] = o.target;
    out.arrays["relevance"] = cts::host_array::of(std::vector<T>(relevance.begin(), relevance.end()),
                                                  {batch.samples(), model.config().grid.tokens()});
    cts::save_safetensors(o.out, out);
    if (!o.pictures.empty()) draw(o.pictures, batch, relevance, model.config());
    read.tell();
  }
};

}  // namespace cts_command
