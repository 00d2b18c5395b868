#pragma once
// What lies beside downloaded weights: config.json, of Hugging Face or timm, and preprocessor_config.json. They are
// translated into keys of the metadata `config`, where the file's own come first, so that nobody else knows of them.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/model/weight_config.hpp"
#include "core_tokensets/model/weight_names.hpp"
#include "core_tokensets/model/weight_parts.hpp"

namespace core_tokensets {

namespace detail {

/// A file beside weights, and what of it is understood.
struct neighbour {
  std::string name;                            ///< "config.json"
  std::string path;                            ///< with its folder, for messages
  json content;                                ///< as it was read
  std::string kind = {};                       ///< "Hugging Face's vit"; empty: nothing in it is known
  json facts = json::object();                 ///< under keys of the metadata `config`
  json keys = json::object();                  ///< how the file itself calls each of these
  const char* why_not = "of another program";  ///< where nothing in it is known

  void put(const char* ours, const std::string& theirs, json value) {
    facts[ours] = std::move(value);
    keys[ours] = theirs;
  }
};

/// The value under a key; null where there is none, or where it is null.
inline const json* given(const json& object, std::string_view key) {
  const json* found = object.find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

/// `Error` unless the value under a key is as expected.
inline void expect(bool ok, const neighbour& n, std::string_view key, const char* expected) {
  require(ok, n.path, ": '", key, "' is not what it should be, expected ", expected);
}

inline bool is_size(const json& value) { return value.holds<index>() && value.get<index>() >= 1; }

inline void put_whole(neighbour& n, const json& from, const char* ours, const char* theirs) {
  const json* found = given(from, theirs);
  if (found == nullptr) return;
  expect(is_size(*found), n, theirs, "a whole number from 1 on");
  n.put(ours, theirs, *found);
}

/// A side that is a number or, where it is not a square, a list of height and width.
inline void put_sides(neighbour& n, const char* height, const char* width, const char* theirs) {
  const json* found = given(n.content, theirs);
  if (found == nullptr) return;
  const bool list = found->is_array() && found->size() == 2;
  const json &tall = list ? found->at(0) : *found, &wide = list ? found->at(1) : *found;
  expect(is_size(tall) && is_size(wide), n, theirs, "a whole number from 1 on, or two of them");
  n.put(height, theirs, tall), n.put(width, theirs, wide);
}

inline void put_text(neighbour& n, const json& from, const char* ours, const char* theirs) {
  const json* found = given(from, theirs);
  if (found == nullptr) return;
  expect(found->is_string(), n, theirs, "a text");
  n.put(ours, theirs, *found);
}

/// One number for each channel, or one for all.
inline std::vector<double> channel_numbers(const neighbour& n, const json& from, const char* theirs) {
  const json& found = from.at(theirs);
  const std::vector<json> values = found.is_array() ? found.list() : std::vector<json>{found};
  std::vector<double> numbers;
  for (const json& value : values) {
    expect(value.is_number(), n, theirs, "a list of numbers");
    numbers.push_back(value.get<double>());
  }
  expect(!numbers.empty(), n, theirs, "a list of numbers");
  return numbers;
}

/// Names of classes, unless they are those that Hugging Face's library invents where nobody gave any.
inline void put_class_names(neighbour& n, const char* theirs, const std::vector<std::string>& names) {
  bool invented = true;
  for (std::size_t k = 0; k < names.size(); ++k) invented = invented && names[k] == "LABEL_" + std::to_string(k);
  if (!invented) n.put("class_names", theirs, names);
}

/// `id2label`: names by the numbers of their classes, in any order.
inline void put_labels_by_number(neighbour& n) {
  const char* theirs = "id2label";
  const json* found = given(n.content, theirs);
  if (found == nullptr) return;
  expect(found->is_object(), n, theirs, "names of classes by their numbers");
  std::vector<std::string> names(found->size());
  std::vector<bool> named(names.size(), false);
  for (const auto& [number, name] : found->items()) {
    std::size_t k = names.size();
    const auto [end, problem] = std::from_chars(number.data(), number.data() + number.size(), k);
    const bool whole = problem == std::errc() && end == number.data() + number.size();
    expect(whole && k < names.size() && !named[k] && name.is_string(), n, theirs,
           "a name for every class from 0 on, and each once");
    names[k] = name.text(), named[k] = true;
  }
  put_class_names(n, theirs, names);
}

/// Models whose configuration means what it does here.
inline constexpr std::array<std::string_view, 6> known_model_types{
    "vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn"};

inline void read_hugging_face(neighbour& n) {
  const json& c = n.content;
  n.kind = "Hugging Face's " + c.at("model_type").text();
  put_whole(n, c, "heads", "num_attention_heads");
  put_whole(n, c, "dim", "hidden_size");
  put_whole(n, c, "depth", "num_hidden_layers");
  put_whole(n, c, "hidden", "intermediate_size");
  put_whole(n, c, "chans", "num_channels");
  put_sides(n, "H", "W", "image_size");
  put_sides(n, "patch", "patch_width", "patch_size");
  put_text(n, c, "activation", "hidden_act");
  if (const json* registers = given(c, "num_register_tokens"); registers != nullptr && *registers != json(0))
    put_whole(n, c, "registers", "num_register_tokens");
  if (const json* eps = given(c, "layer_norm_eps")) {
    expect(eps->is_number(), n, "layer_norm_eps", "a number");
    n.put("layer_norm_eps", "layer_norm_eps", *eps);
  }
  put_labels_by_number(n);
}

/// A family of timm's, by how names of its architectures begin.
struct timm_family {
  std::string_view beginning;
  index dim, heads;
};

/// Those whose heads are certain once their width is right.
inline constexpr std::array timm_families{
    timm_family{"vit_tiny_patch", 192, 3},    timm_family{"vit_small_patch", 384, 6},
    timm_family{"vit_base_patch", 768, 12},   timm_family{"vit_large_patch", 1024, 16},
    timm_family{"vit_huge_patch", 1280, 16},  timm_family{"deit_tiny_", 192, 3},
    timm_family{"deit_small_", 384, 6},       timm_family{"deit_base_", 768, 12},
    timm_family{"deit3_small_patch", 384, 6}, timm_family{"deit3_medium_patch", 512, 8},
    timm_family{"deit3_base_patch", 768, 12}, timm_family{"deit3_large_patch", 1024, 16},
    timm_family{"deit3_huge_patch", 1280, 16}};

/// What timm changes of an architecture, and what follows from its name for weights of `dim` channels.
inline void put_architecture(neighbour& n, index dim) {
  const std::string& architecture = n.content.at("architecture").text();
  const json none = json::object(), *changes = given(n.content, "model_args");
  const json& args = changes != nullptr && changes->is_object() ? *changes : none;
  for (const timm_family& family : timm_families) {
    if (architecture.starts_with(family.beginning) && dim == family.dim) n.put("heads", "architecture", family.heads);
  }
  if (architecture.find("quickgelu") != architecture.npos) n.put("activation", "architecture", "quick_gelu");
  put_whole(n, args, "heads", "num_heads");
  put_text(n, args, "activation", "act_layer");
  put_text(n, n.content, "pooling", "global_pool");
  put_text(n, args, "pooling", "global_pool");
}

inline void read_timm(neighbour& n, index dim) {
  const json& c = n.content;
  n.kind = "timm's " + c.at("architecture").text();
  put_architecture(n, dim);
  // Before version 0.9 what is in `pretrained_cfg` now stood beside the architecture.
  const json* inner = given(c, "pretrained_cfg");
  const json& trained = inner != nullptr && inner->is_object() ? *inner : c;
  // timm has weights of these under architectures with GELU, although they learnt with another function.
  const json* tag = given(trained, "tag");
  const std::string of = tag != nullptr && tag->is_string() ? tag->text() : "";
  if (c.at("architecture").text().find("_clip_") != std::string::npos &&
      (of.starts_with("openai") || of.starts_with("laion400m") || of.starts_with("dfn") || of.starts_with("metaclip")))
    n.put("activation", "tag", "quick_gelu");
  if (given(trained, "mean") != nullptr && given(trained, "std") != nullptr) {
    n.put("mean", "mean", channel_numbers(n, trained, "mean"));
    n.put("std", "std", channel_numbers(n, trained, "std"));
  }
  if (const json* size = given(trained, "input_size")) {
    const bool three = size->is_array() && size->size() == 3;
    expect(three && std::all_of(size->begin(), size->end(), is_size), n, "input_size", "channels, height and width");
    n.put("chans", "input_size", size->at(0)), n.put("H", "input_size", size->at(1));
    n.put("W", "input_size", size->at(2));
  }
  if (const json* classes = given(c, "num_classes"); classes != nullptr && *classes != json(0))
    put_whole(n, c, "classes", "num_classes");
  const json& labelled = given(c, "label_names") != nullptr ? c : trained;
  if (const json* names = given(labelled, "label_names")) {
    expect(names->is_array() && std::all_of(names->begin(), names->end(), [](auto& x) { return x.is_string(); }), n,
           "label_names", "a list of texts");
    put_class_names(n, "label_names", names->get<std::vector<std::string>>());
  }
}

/// A yes or no that is yes unless said otherwise.
inline bool is_on(const neighbour& n, const char* theirs) {
  const json* found = given(n.content, theirs);
  if (found == nullptr) return true;
  expect(found->is_boolean(), n, theirs, "true or false");
  return found->get<bool>();
}

/// Hugging Face's (byte factor - mean) / std as the (byte / 255 - mean) / std that is computed here: both are divided
/// by 255 factor, which is 1 nearly always. A step that is switched off is a factor of 1, a mean of 0 and a std of 1.
inline void read_preprocessor(neighbour& n) {
  const json& c = n.content;
  const bool normalised = is_on(n, "do_normalize"), rescaled = is_on(n, "do_rescale");
  n.kind = "Hugging Face's";
  if (normalised && (given(c, "image_mean") == nullptr || given(c, "image_std") == nullptr)) return;
  double scale = rescaled ? 1 : 255;
  if (const json* factor = given(c, "rescale_factor"); factor != nullptr && rescaled) {
    expect(factor->is_number() && factor->get<double>() > 0, n, "rescale_factor", "a number above 0");
    scale = factor->get<double>() * 255;
    if (std::abs(scale - 1) < 1e-9) scale = 1;
  }
  std::vector<double> mean{0}, stddev{1};
  if (normalised) mean = channel_numbers(n, c, "image_mean"), stddev = channel_numbers(n, c, "image_std");
  for (double& x : mean) x /= scale;
  for (double& x : stddev) x /= scale;
  for (const double x : mean)
    expect(std::isfinite(x), n, "image_mean", "numbers that are finite once they are rescaled");
  for (const double x : stddev)
    expect(std::isfinite(x), n, "image_std", "numbers that are finite once they are rescaled");
  n.put("mean", normalised ? "image_mean" : "do_normalize", mean);
  n.put("std", normalised ? "image_std" : "do_normalize", stddev);
}

/// A name that may be shown on a terminal.
inline bool is_printable(const std::string& name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// What a file beside weights of `dim` channels says. A file of another program says nothing.
inline void understand(neighbour& n, index dim) {
  const json &c = n.content, *type = given(c, "model_type"), *architecture = given(c, "architecture");
  if (n.name == "preprocessor_config.json") {
    if (c.contains("image_mean") || c.contains("do_normalize")) read_preprocessor(n);
  } else if (type != nullptr && type->is_string() &&
             std::find(known_model_types.begin(), known_model_types.end(), type->text()) != known_model_types.end()) {
    read_hugging_face(n);
  } else if (architecture != nullptr && architecture->is_string() && is_printable(architecture->text())) {
    read_timm(n, dim);
  } else if (type != nullptr) {
    n.why_not = "its model_type is not known";
  }
}

/// Whether a configuration says something already, itself or by another key that goes with it.
inline bool says(const json& config, std::string_view key) {
  using pair = std::pair<std::string_view, std::string_view>;
  constexpr std::array together{pair{"H", "W"},
                                pair{"mean", "std"},
                                pair{"layer_norm_eps", "layernorm_eps"},
                                pair{"class_names", "classes"},
                                pair{"patch", "patch_width"},
                                pair{"hidden", "mlp_ratio"}};
  for (const auto& [one, other] : together) {
    if (key == one || key == other) return config.contains(one) || config.contains(other);
  }
  return config.contains(key);
}

/// "heads, size of pictures": what was taken of a file, for people.
inline std::string taken_text(const json& taken) {
  using pair = std::pair<std::string_view, std::string_view>;
  constexpr std::array words{pair{"heads", "heads"},           pair{"H", "size of pictures"},
                             pair{"mean", "normalisation"},    pair{"layer_norm_eps", "epsilon of the norms"},
                             pair{"activation", "activation"}, pair{"class_names", "names of classes"}};
  std::string text;
  for (const auto& [key, what] : words) {
    if (taken.contains(key)) text += (text.empty() ? "" : ", ") + std::string(what);
  }
  return text.empty() ? "nothing that the weights do not say themselves" : text;
}

/// Adds what a neighbour says to a configuration that does not say it, and to `beside` what was taken.
inline void add_facts(const neighbour& n, json& config, json& beside) {
  json taken = json::object();
  for (const auto& [key, value] : n.facts.items()) {
    if (says(config, key)) continue;
    taken[key] = value;
    beside["keys"][key] = json::array({n.name, n.keys.at(key)});
  }
  config.update(taken);
  beside["files"].push_back(n.kind.empty() ? n.name + ", " + n.why_not + ": nothing taken"
                                           : n.name + ", " + n.kind + ": " + taken_text(taken));
}

/// The files beside weights that there are. `Error`: one is too long, or no JSON.
inline std::vector<neighbour> neighbours_of(const std::filesystem::path& weights) {
  constexpr index longest = 16 << 20;
  std::vector<neighbour> found;
  for (const char* name : {"config.json", "preprocessor_config.json"}) {
    const auto path = weights.parent_path() / name;
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) continue;
    const file_reader file(path);
    require(file.size() <= longest, path.string(), ": ", file.size(), " bytes, expected at most ", longest);
    std::string text(static_cast<std::size_t>(file.size()), ' ');
    file.read(0, std::as_writable_bytes(std::span(text)));
    found.push_back({.name = name, .path = path.string(), .content = parse_json(text, path.string())});
  }
  return found;
}

}  // namespace detail

/// The file of weights itself, or `model.safetensors` in a folder, as a download or `cts sequence` leaves it. `Error`:
/// a folder without it.
inline std::filesystem::path weights_file(const std::filesystem::path& file_or_folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(file_or_folder, ignored)) return file_or_folder;
  const auto file = file_or_folder / "model.safetensors";
  require(std::filesystem::exists(file, ignored), file_or_folder.string(),
          ": not a regular file, and a folder without model.safetensors");
  return file;
}

/// Reads weights, or a folder that holds them as `model.safetensors`. Under that name, under which they are published,
/// the files beside them are read too, and what they say completes the metadata `config`. `Error`: one of these is
/// damaged.
inline tensor_file load_weights(const std::filesystem::path& file_or_folder) {
  const auto path = weights_file(file_or_folder);
  tensor_file file = load_safetensors(path);
  file.metadata.erase(detail::beside_key);
  if (path.filename() != "model.safetensors" || file.metadata.contains("kind")) return file;
  json config = detail::config_of(file), beside = json::object();
  const index dim = detail::extent(file, detail::common_beginning(file) + "patch_embed.proj.weight", 0);
  for (detail::neighbour& n : detail::neighbours_of(path)) {
    detail::understand(n, dim);
    detail::add_facts(n, config, beside);
  }
  if (beside.contains("keys")) file.metadata["config"] = config.dump();
  if (!beside.empty()) file.metadata[detail::beside_key] = beside.dump();
  return file;
}

}  // namespace core_tokensets
