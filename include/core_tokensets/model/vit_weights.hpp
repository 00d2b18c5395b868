#pragma once
// Weights in and out as safetensors under timm's names; the configuration is read off the shapes where it can be.

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// What shapes cannot tell. The file's metadata `config` is used where these are empty; without either, the number of
/// heads is an error and the image is taken to be square.
struct vit_hints {
  std::optional<index> heads;
  std::optional<image_shape> image;
};

/// The configuration of the model stored in `file`. Throws with the name of what is missing or does not fit.
inline vit_config read_config(const tensor_file& file, const vit_hints& hints = {}) {
  const auto shape = [&](const std::string& name, std::size_t rank) {
    const auto& s = file.at(name).shape;
    require(s.size() == rank, file.path, ": '", name, "' has ", s.size(), " dimensions, expected ", rank);
    return s;
  };
  vit_config c;
  const auto proj = shape("patch_embed.proj.weight", 4), positions = shape("pos_embed", 3),
             head = shape("head.weight", 2);
  require(proj[2] == proj[3], file.path, ": 'patch_embed.proj.weight' has patches of ", proj[2], "x", proj[3],
          ", expected square ones");
  c.dim = proj[0];
  c.patch = proj[2];
  c.classes = head[0];
  c.mlp_ratio = static_cast<double>(shape("blocks.0.mlp.fc1.weight", 2)[0]) / static_cast<double>(c.dim);
  c.qkv_bias = file.contains("blocks.0.attn.qkv.bias");
  for (c.depth = 0; file.contains("blocks." + std::to_string(c.depth) + ".norm1.weight");) ++c.depth;

  nlohmann::json config;
  if (const auto found = file.metadata.find("config"); found != file.metadata.end()) {
    config = nlohmann::json::parse(found->second, nullptr, false);
  }
  const auto number = [&](const char* key, double fallback) {
    return config.is_object() && config.contains(key) && config[key].is_number() ? config[key].get<double>() : fallback;
  };
  const index patches = positions[1] - 1;
  const auto side = static_cast<index>(std::llround(std::sqrt(static_cast<double>(patches)))) * c.patch;
  c.image = hints.image.value_or(image_shape{static_cast<index>(number("H", double(side))),
                                             static_cast<index>(number("W", double(side))), proj[1]});
  c.image.channels = proj[1];
  c.layer_norm_eps = number("layernorm_eps", number("layer_norm_eps", 1e-6));
  const double heads = hints.heads ? double(*hints.heads) : number("heads", 0);
  require(heads >= 1, file.path, ": the number of heads does not follow from the shapes; name it (--heads)");
  c.heads = static_cast<index>(heads);
  require(c.patches() == patches, file.path, ": 'pos_embed' has places for ", patches, " patches, an image of ",
          c.image.height, "x", c.image.width, " has ", c.patches(), "; name the image size");
  check(c);
  return c;
}

/// Copies the arrays of `file` into the model. Every parameter must be there with its shape, and nothing else.
template <tensor_backend B>
void load_parameters(B& b, vit<B>& model, const tensor_file& file) {
  using T = typename B::scalar;
  const parameter_layout& layout = model.layout().parameters;
  std::vector<T> values(static_cast<std::size_t>(layout.size()), T(0));
  for (const parameter& p : layout.table()) {
    const host_array& array = file.at(p.name);
    require(array.shape == p.shape, file.path, ": '", p.name, "' has shape ", shape_text(array.shape), ", expected ",
            shape_text(p.shape));
    const auto numbers = array.template as<T>();
    for (const T x : numbers)
      require(std::isfinite(x), file.path, ": '", p.name, "' holds a number that is not finite");
    std::copy(numbers.begin(), numbers.end(), values.begin() + p.where.offset);
  }
  for (const auto& [name, array] : file.arrays) layout.at(name);
  model.parameters().assign(b, 1, layout.size(), values.data());
}

/// The model stored in a file.
template <tensor_backend B>
vit<B> load_vit(B& b, const std::filesystem::path& path, const vit_hints& hints = {}) {
  const tensor_file file = load_safetensors(path);
  vit<B> model(b, read_config(file, hints));
  load_parameters(b, model, file);
  return model;
}

/// An array laid out like the parameters (they themselves, or their gradients) as named arrays; `prefix` goes before
/// each name.
template <tensor_backend B>
void put_parameters(B& b, const vit<B>& model, const tensor<B>& values, const std::string& prefix, tensor_file& file) {
  using T = typename B::scalar;
  const std::vector<T> host = values.to_host(b);
  for (const parameter& p : model.layout().parameters.table()) {
    const std::span<const T> part(host.data() + p.where.offset, static_cast<std::size_t>(p.where.size()));
    file.arrays[prefix + p.name] = host_array::of(part, p.shape);
  }
}

/// The model as a file that timm, and `load_vit`, can open.
template <tensor_backend B>
tensor_file to_file(B& b, const vit<B>& model) {
  tensor_file file;
  put_parameters(b, model, model.parameters(), "", file);
  const vit_config& c = model.config();
  file.metadata["config"] = nlohmann::json{
      {"H", c.image.height},
      {"W", c.image.width},
      {"chans", c.image.channels},
      {"patch", c.patch},
      {"dim", c.dim},
      {"depth", c.depth},
      {"heads", c.heads},
      {"classes", c.classes},
      {"mlp_ratio", c.mlp_ratio},
      {"qkv_bias", c.qkv_bias},
      {"layernorm_eps",
       c.layer_norm_eps}}.dump();
  return file;
}

}  // namespace core_tokensets
