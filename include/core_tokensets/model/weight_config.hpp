#pragma once
// The metadata `config` of a file of weights: what shapes cannot tell, and who said it.

#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/io/safetensors.hpp"

namespace core_tokensets::detail {

/// The metadata `config` as JSON, an empty object where there is none.
inline json config_of(const tensor_file& file) {
  const auto found = file.metadata.find("config");
  json config = found == file.metadata.end() ? json::object() : parse_json_or_null(found->second);
  return config.is_object() ? config : json::object();
}

/// The metadata under which `load_weights` notes what it took of files beside the weights.
inline constexpr const char* beside_key = "config_beside";

/// What `load_weights` noted; null where nothing was beside the weights.
inline json beside_of(const tensor_file& file) {
  const auto found = file.metadata.find(beside_key);
  return found == file.metadata.end() ? json() : parse_json_or_null(found->second);
}

/// The file beside the weights that says `key`, and what it calls it; empty where the weights say it themselves.
struct config_origin {
  std::string file, key;
};
inline config_origin origin_of(const tensor_file& file, std::string_view key) {
  const json beside = beside_of(file), *keys = beside.find("keys");
  const json* found = keys == nullptr ? nullptr : keys->find(key);
  const bool whole = found != nullptr && found->is_array() && found->size() == 2 && found->at(0).is_string() &&
                     found->at(1).is_string();
  return whole ? config_origin{found->at(0).text(), found->at(1).text()} : config_origin{};
}

/// "'heads' in the metadata 'config'", or "'num_attention_heads' in config.json".
inline std::string told_by(const tensor_file& file, std::string_view key) {
  const config_origin origin = origin_of(file, key);
  return origin.file.empty() ? "'" + std::string(key) + "' in the metadata 'config'"
                             : "'" + origin.key + "' in " + origin.file;
}

/// The number `key` of the metadata `config`, or `fallback` where there is none. `Error`: it is not from `low` to
/// `high`.
inline double config_number(const tensor_file& file, const char* key, double fallback, double low, double high) {
  const json config = config_of(file);
  const json* found = config.find(key);
  if (found == nullptr || !found->is_number()) return fallback;
  const double value = found->get<double>();
  require(value >= low && value <= high, file.path, ": ", told_by(file, key), " is ", value, ", expected ", low, " to ",
          high);
  return value;
}

/// Whether the file says how pictures are normalised.
inline bool says_normalisation(const tensor_file& file) {
  const json config = config_of(file);
  return config.contains("mean") && config.contains("std");
}

/// How pictures are normalised, as the metadata `config` say: lists `mean` and `std`, one number for each channel or
/// one for all, as timm has them. `Error`: lists that make no sense.
inline pixel_normalisation read_normalisation(const tensor_file& file, index channels) {
  const json config = config_of(file);
  pixel_normalisation n;
  const auto read = [&](const char* key, std::vector<float>& values) {
    const json* found = config.find(key);
    if (found == nullptr) return;
    require(found->is_array() && !found->empty(), file.path, ": ", told_by(file, key), " is no list");
    values.clear();
    for (const json& x : *found) {
      require(x.is_number(), file.path, ": ", told_by(file, key), " holds something else than numbers");
      values.push_back(static_cast<float>(x.get<double>()));
    }
  };
  read("mean", n.mean);
  read("std", n.stddev);
  try {
    return n.for_channels(channels);
  } catch (const Error& e) {
    const bool own = origin_of(file, "mean").file.empty();
    fail(file.path, ": ", own ? "metadata 'config'" : told_by(file, "mean"), ": ", e.what());
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

}  // namespace core_tokensets::detail
