// cts predict, backward, attribute: a stored model on stored images.

#include <cmath>
#include <filesystem>
#include <memory>

#include "commands.hpp"
#include "core_tokensets/core_tokensets.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

template <class T>
using backend = cts::eigen_backend<T>;

/// Images f32 [B, C, H, W] and labels [B] of a file, as a batch for a model with this configuration.
cts::token_batch read_images(const std::string& path, const cts::vit_config& c, bool need_labels) {
  const cts::tensor_file file = cts::load_safetensors(path);
  const cts::host_array& images = file.at("images");
  cts::require(images.shape.size() == 4, path, ": 'images' has shape ", cts::shape_text(images.shape),
               ", expected [B, C, H, W]");
  cts::require(
      images.shape[1] == c.image.channels && images.shape[2] == c.image.height && images.shape[3] == c.image.width,
      path, ": 'images' has shape ", cts::shape_text(images.shape), ", the model expects [B, ", c.image.channels, ", ",
      c.image.height, ", ", c.image.width, "]");
  auto batch = cts::patchify(images.as<float>(), images.shape[0], c.image, c.patch);
  if (need_labels) {
    batch.targets = file.at("labels").as<std::int32_t>();
    cts::require(static_cast<cts::index>(batch.targets.size()) == batch.samples(), path, ": ", batch.targets.size(),
                 " labels for ", batch.samples(), " images");
  }
  return batch;
}

template <class T>
cts::vit<backend<T>> read_model(backend<T>& b, const model_options& o) {
  cts::vit_hints hints;
  if (o.heads > 0) hints.heads = o.heads;
  return cts::load_vit(b, o.weights, hints);
}

/// Runs `body(backend)` in the arithmetic that was asked for.
template <class Body>
void with_backend(const model_options& o, const Body& body) {
  if (o.dtype == "f64") {
    backend<double> b(o.threads);
    body(b);
  } else {
    backend<float> b(o.threads);
    body(b);
  }
}

void predict(const model_options& o) {
  with_backend(o, [&]<class T>(backend<T>& b) {
    const auto model = read_model(b, o);
    const auto batch = read_images(o.inputs, model.config(), false);
    cts::vit_tape<backend<T>> tape;
    tape.keep = cts::kept::logits;
    cts::forward(b, model, batch, tape);
    cts::tensor_file out;
    const std::vector<cts::index> shape{batch.samples(), model.config().classes};
    out.arrays["logits"] = cts::host_array::of(tape.logits.to_host(b), shape);
    cts::ops::softmax<backend<T>, T>(b, *tape.logits);
    out.arrays["probabilities"] = cts::host_array::of(tape.logits.to_host(b), shape);
    cts::save_safetensors(o.out, out);
  });
}

void backward(const model_options& o) {
  with_backend(o, [&]<class T>(backend<T>& b) {
    using B = backend<T>;
    const auto model = read_model(b, o);
    const auto batch = read_images(o.inputs, model.config(), true);
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
  });
}

struct attribute_options : model_options {
  std::string method, target = "argmax", pictures;
  std::ptrdiff_t start_layer = 0;
  std::uint64_t seed = 0;
};

/// Writes DIR/N.png for each sample: the picture, brightened to the full range, under its relevance.
void draw(const std::string& dir, const cts::token_batch& batch, const std::vector<double>& relevance,
          const cts::vit_config& c) {
  cts::require(c.image.channels == 1 || c.image.channels == 3, "--pictures: images of ", c.image.channels,
               " channels, expected 1 or 3");
  std::filesystem::create_directories(dir);
  const cts::patch_grid grid{c.image.height, c.image.width, c.image.channels, c.patch};
  const auto numbers = cts::unpatchify(batch, grid);
  const auto area = c.image.height * c.image.width, size = area * c.image.channels;
  for (cts::index s = 0; s < batch.samples(); ++s) {
    const auto from = std::span(numbers).subspan(static_cast<std::size_t>(s * size), static_cast<std::size_t>(size));
    const auto scaled = cts::min_max(std::vector<double>(from.begin(), from.end()));
    cts::image picture(c.image.height, c.image.width, c.image.channels);
    for (cts::index i = 0; i < size; ++i) {
      const auto at = static_cast<std::size_t>(i % area * c.image.channels + i / area);
      picture.pixels[at] = static_cast<std::uint8_t>(std::lround(255 * scaled[static_cast<std::size_t>(i)]));
    }
    const auto scores = std::span(relevance).subspan(static_cast<std::size_t>(s * c.patches()),
                                                     static_cast<std::size_t>(c.patches()));
    cts::write_png(std::filesystem::path(dir) / (std::to_string(s) + ".png"),
                   cts::overlay(picture, scores, c.grid_height(), c.grid_width()));
  }
}

void attribute(const attribute_options& o) {
  const auto method = cts::parse_attribution(o.method, o.start_layer, o.seed);
  const auto target = cts::parse_target(o.target);
  with_backend(o, [&]<class T>(backend<T>& b) {
    const auto model = read_model(b, o);
    const auto batch = read_images(o.inputs, model.config(), target.whose == cts::explained_class::label);
    cts::attribution_workspace<backend<T>> workspace;
    const auto relevance = cts::attribute(method, b, model, batch, target, workspace);
    cts::tensor_file out;
    out.metadata["method"] = cts::text_of(method);
    out.metadata["target"] = o.target;
    out.arrays["relevance"] = cts::host_array::of(std::vector<T>(relevance.begin(), relevance.end()),
                                                  {batch.samples(), model.config().patches()});
    cts::save_safetensors(o.out, out);
    if (!o.pictures.empty()) draw(o.pictures, batch, relevance, model.config());
  });
}

}  // namespace

void add_predict(CLI::App& app) {
  auto o = std::make_shared<model_options>();
  auto* command = app.add_subcommand("predict", "logits [B,K] and probabilities [B,K]");
  o->add_to(*command);
  command->final_callback([o] { predict(*o); });
}

void add_backward(CLI::App& app) {
  auto o = std::make_shared<model_options>();
  auto* command = app.add_subcommand("backward", "loss, and grad.NAME for every parameter");
  o->add_to(*command);
  command->final_callback([o] { backward(*o); });
}

void add_attribute(CLI::App& app) {
  auto o = std::make_shared<attribute_options>();
  auto* command = app.add_subcommand("attribute", "relevance [B,N] of every patch");
  o->add_to(*command);
  std::string names;
  for (const auto& name : cts::attribution_names()) names += (names.empty() ? "" : ", ") + name;
  command->add_option("--method", o->method, "NAME or NAME:OPTION=VALUE:...; names are " + names)->required();
  command->add_option("--target", o->target, "argmax, label, class:K, loss, margin or margin:A,B");
  command->add_option("--start-layer", o->start_layer, "first block, for methods that have one");
  command->add_option("--seed", o->seed, "for methods that have one");
  command->add_option("--pictures", o->pictures, "folder for the images under their relevance, N.png");
  command->final_callback([o] { attribute(*o); });
}

}  // namespace cts_command
