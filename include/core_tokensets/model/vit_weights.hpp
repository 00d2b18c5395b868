#pragma once
// Weights in and out as safetensors under timm's names; the configuration is read off the shapes where it can be.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>

#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/model/vit.hpp"

namespace core_tokensets {

/// What shapes cannot tell. The file's metadata `config` is used where these are empty; without either, the number of
/// heads is an error and the image is taken to be square.
struct vit_hints {
  std::optional<index> heads;
  std::optional<index> height, width;
  std::uint64_t seed = 0;  ///< of what is not in the file: rows that the head gains later
};

namespace detail {

/// The number `key` of the JSON text in the file's metadata `config`, or `fallback` where there is none. `Error`: it is
/// not from `low` to `high`.
inline double config_number(const tensor_file& file, const char* key, double fallback, double low, double high) {
  const auto found = file.metadata.find("config");
  if (found == file.metadata.end()) return fallback;
  const json config = parse_json_or_null(found->second);
  if (!config.is_object() || !config.contains(key) || !config[key].is_number()) return fallback;
  const double value = config[key].get<double>();
  require(value >= low && value <= high, file.path, ": '", key, "' in the metadata 'config' is ", value, ", expected ",
          low, " to ", high);
  return value;
}

}  // namespace detail

namespace detail {

/// The metadata `config` as JSON, an empty object where there is none.
inline json config_of(const tensor_file& file) {
  const auto found = file.metadata.find("config");
  json config = found == file.metadata.end() ? json::object() : parse_json_or_null(found->second);
  return config.is_object() ? config : json::object();
}

/// How pictures are normalised, as the metadata `config` say: lists `mean` and `std`, one number for each channel or
/// one for all, as timm has them. `Error`: lists that make no sense.
inline pixel_normalisation read_normalisation(const tensor_file& file, index channels) {
  const json config = config_of(file);
  pixel_normalisation n;
  const auto read = [&](const char* key, std::vector<float>& values) {
    const json* found = config.find(key);
    if (found == nullptr) return;
    require(found->is_array() && !found->empty(), file.path, ": '", key, "' in the metadata 'config' is no list");
    values.clear();
    for (const json& x : *found) {
      require(x.is_number(), file.path, ": '", key, "' in the metadata 'config' holds something else than numbers");
      values.push_back(static_cast<float>(x.get<double>()));
    }
  };
  read("mean", n.mean);
  read("std", n.stddev);
  try {
    return n.for_channels(channels);
  } catch (const Error& e) {
    fail(file.path, ": metadata 'config': ", e.what());
  }
}

/// The names of the classes in the metadata `config`; none where there is no list of so many texts.
inline std::vector<std::string> read_class_names(const tensor_file& file, index classes) {
  const json config = config_of(file);
  const json* found = config.find("class_names");
  std::vector<std::string> names;
  if (found == nullptr || !found->is_array() || static_cast<index>(found->size()) != classes) return names;
  for (const json& name : *found) {
    if (!name.is_string()) return {};
    names.push_back(name.get<std::string>());
  }
  return names;
}

}  // namespace detail

/// What all models have: named parameters in one array.
template <class Model, class B>
concept model_on = requires(Model& model, const Model& constant) {
  { model.parameters() } -> std::same_as<tensor<B>&>;
  { constant.layout().parameters } -> std::convertible_to<const parameter_layout&>;
};

/// The configuration of the model stored in `file`. Throws with the name of what is missing or does not fit.
inline vit_config read_config(const tensor_file& file, const vit_hints& hints = {}) {
  const auto shape = [&](const std::string& name, std::size_t rank) {
    const auto& s = file.at(name).shape;
    require(s.size() == rank && std::all_of(s.begin(), s.end(), [](index n) { return n > 0; }), file.path, ": '", name,
            "' has shape ", shape_text(s), ", expected ", rank, " dimensions that are not 0");
    return s;
  };
  constexpr double most = 1 << 20;
  const auto whole = [&](const char* key, index fallback) {
    return static_cast<index>(detail::config_number(file, key, static_cast<double>(fallback), 1, most));
  };
  vit_config c;
  c.seed = hints.seed;
  const auto proj = shape("patch_embed.proj.weight", 4), positions = shape("pos_embed", 3),
             head = shape("head.weight", 2), fc1 = shape("blocks.0.mlp.fc1.weight", 2);
  require(proj[2] == proj[3], file.path, ": 'patch_embed.proj.weight' has patches of ", proj[2], "x", proj[3],
          ", expected square ones");
  c.dim = proj[0];
  c.grid.patch = proj[2];
  c.classes = head[0];
  c.mlp_ratio = static_cast<double>(fc1[0]) / static_cast<double>(c.dim);
  c.qkv_bias = file.contains("blocks.0.attn.qkv.bias");
  const auto has_block = [&](index i) {
    const auto next = file.arrays.lower_bound("blocks." + std::to_string(i) + ".");
    return next != file.arrays.end() && next->first.starts_with("blocks." + std::to_string(i) + ".");
  };
  for (c.depth = 0; has_block(c.depth);) ++c.depth;

  const index patches = positions[1] - 1;
  const auto side = std::max<index>(1, std::llround(std::sqrt(static_cast<double>(patches)))) * c.grid.patch;
  c.grid.height = hints.height.value_or(whole("H", side));
  c.grid.width = hints.width.value_or(whole("W", side));
  c.grid.channels = proj[1];
  c.layer_norm_eps =
      detail::config_number(file, "layernorm_eps", detail::config_number(file, "layer_norm_eps", 1e-6, 0, 1), 0, 1);
  c.heads = whole("heads", 0);
  require(!hints.heads || c.heads == 0 || c.heads == *hints.heads, file.path, ": the metadata 'config' say ", c.heads,
          " heads, asked for are ", hints.heads.value_or(0));
  c.heads = hints.heads.value_or(c.heads);
  require(c.heads >= 1, file.path, ": the number of heads does not follow from the shapes; name it (--heads)");
  require(c.dim % c.heads == 0, file.path, ": ", c.dim, " channels do not divide into ", c.heads, " heads");
  require(c.grid.tokens() == patches, file.path, ": 'pos_embed' has places for ", patches, " patches, an image of ",
          c.grid.height, "x", c.grid.width, " has ", c.grid.tokens(), "; name the image size");
  c.normalisation = detail::read_normalisation(file, c.grid.channels);
  c.class_names = detail::read_class_names(file, c.classes);
  check(c);
  return c;
}

/// Copies the arrays of `file` into a model. Every parameter must be there with its shape, and nothing else.
template <tensor_backend B, model_on<B> Model>
void load_parameters(B& b, Model& model, const tensor_file& file) {
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
  for (const auto& entry : file.arrays) {
    const std::string& name = entry.first;
    const bool known =
        std::any_of(layout.table().begin(), layout.table().end(), [&](auto& p) { return p.name == name; });
    require(known, file.path, ": array '", name, "' is no parameter of the model that the others make");
  }
  model.parameters().assign(b, 1, layout.size(), values.data());
}

/// The model stored in a file.
template <tensor_backend B>
vit<B> load_vit(B& b, const tensor_file& file, const vit_hints& hints = {}) {
  vit<B> model(b, read_config(file, hints));
  load_parameters(b, model, file);
  return model;
}

template <tensor_backend B>
vit<B> load_vit(B& b, const std::filesystem::path& path, const vit_hints& hints = {}) {
  return load_vit(b, load_safetensors(path), hints);
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

/// Writes a model, all or nothing; `load_vit` and `load_image_text` read it, and PyTorch does under timm's names.
template <tensor_backend B, class Model>
void save(B& b, const Model& model, const std::filesystem::path& path) requires requires {
  to_file(b, model);
}
{ save_safetensors(path, to_file(b, model)); }

}  // namespace core_tokensets
