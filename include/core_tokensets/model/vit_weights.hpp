#pragma once
// Weights in and out as safetensors under timm's names.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/model/read_vit.hpp"
#include "core_tokensets/model/stored_type.hpp"
#include "core_tokensets/model/weight_neighbours.hpp"

namespace core_tokensets {

/// What all models have: named parameters in one array.
template <class Model, class B>
concept model_on = requires(Model& model, const Model& constant) {
  { model.parameters() } -> std::same_as<tensor<B>&>;
  { constant.layout().parameters } -> std::convertible_to<const parameter_layout&>;
};

namespace detail {

/// Copies one array into its place. `Error`: another shape, a number that is not finite.
template <class T>
void copy_parameter(const tensor_file& file, const std::string& name, const parameter& p, std::vector<T>& values) {
  const host_array& array = file.at(name);
  require(array.shape == p.shape, file.path, ": '", name, "' has shape ", shape_text(array.shape), ", expected ",
          shape_text(p.shape));
  const auto numbers = array.template as<T>();
  for (const T x : numbers) require(std::isfinite(x), file.path, ": '", name, "' holds a number that is not finite");
  std::copy(numbers.begin(), numbers.end(), values.begin() + p.where.offset);
}

}  // namespace detail

/// Copies the arrays of `file` into a model. Every parameter must be there with its shape, and nothing else.
template <tensor_backend B, model_on<B> Model>
void load_parameters(B& b, Model& model, const tensor_file& file) {
  const parameter_layout& layout = model.layout().parameters;
  std::vector<typename B::scalar> values(static_cast<std::size_t>(layout.size()));
  for (const parameter& p : layout.table()) detail::copy_parameter(file, p.name, p, values);
  detail::check_all_known(file, layout);
  model.parameters().assign(b, 1, layout.size(), values.data());
}

/// The model of weights that were read. `Error`: a parameter that is missing or has another shape, an array that is
/// none.
template <tensor_backend B>
vit<B> load_vit(B& b, const vit_weights& weights) {
  vit<B> model(b, weights.config);
  const parameter_layout& layout = model.layout().parameters;
  auto values = model.parameters().to_host(b);
  for (const parameter& p : layout.table()) {
    if (weights.has_head || !p.name.starts_with("head.")) detail::copy_parameter(weights.file, p.name, p, values);
  }
  detail::check_all_known(weights.file, layout);
  model.parameters().assign(b, 1, layout.size(), values.data());
  return model;
}

/// The model stored in a file, or in a folder as it was downloaded (`load_weights`).
template <tensor_backend B>
vit<B> load_vit(B& b, tensor_file file, const vit_hints& hints = {}) {
  return load_vit(b, read_vit(std::move(file), hints));
}
template <tensor_backend B>
vit<B> load_vit(B& b, const std::filesystem::path& path, const vit_hints& hints = {}) {
  return load_vit(b, load_weights(path), hints);
}

/// An array laid out like the parameters (they themselves, or their gradients) as named arrays; `prefix` goes before
/// each name.
template <tensor_backend B, model_on<B> Model>
void put_parameters(B& b, const Model& model, const tensor<B>& values, const std::string& prefix, tensor_file& file) {
  using T = typename B::scalar;
  const std::vector<T> host = values.to_host(b);
  for (const parameter& p : model.layout().parameters.table()) {
    const std::span<const T> part(host.data() + p.where.offset, static_cast<std::size_t>(p.where.size()));
    file.arrays[prefix + p.name] = host_array::of(part, p.shape);
  }
}

/// What shapes cannot tell, and the rest of a configuration but the classes, as the metadata `config` holds it.
inline json config_json(const vit_config& c) {
  const pixel_normalisation n = c.normalisation.for_channels(c.grid.channels);
  return {{"H", c.grid.height},
          {"W", c.grid.width},
          {"chans", c.grid.channels},
          {"patch", c.grid.patch},
          {"dim", c.dim},
          {"depth", c.depth},
          {"heads", c.heads},
          {"mlp_ratio", c.mlp_ratio},
          {"qkv_bias", c.qkv_bias},
          {"layernorm_eps", c.layer_norm_eps},
          {"mean", n.mean},
          {"std", n.stddev}};
}

/// The model as a file that timm, and `load_vit`, can open.
template <tensor_backend B>
tensor_file to_file(B& b, const vit<B>& model) {
  tensor_file file;
  put_parameters(b, model, model.parameters(), "", file);
  json config = config_json(model.config());
  config["classes"] = model.config().classes;
  if (!model.config().class_names.empty()) config["class_names"] = model.config().class_names;
  file.metadata["config"] = config.dump();
  return file;
}

/// Writes a model, all or nothing, with numbers of `type`; `load_vit` and `load_image_text` read it, and PyTorch does
/// under timm's names.
template <tensor_backend B, class Model>
void save(B& b, const Model& model, const std::filesystem::path& path,
          dtype type = dtype_of<typename B::scalar>) requires requires {
  to_file(b, model);
}
{ save_safetensors(path, stored_as(type, to_file(b, model))); }

}  // namespace core_tokensets
