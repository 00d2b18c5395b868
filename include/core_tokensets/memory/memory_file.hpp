#pragma once
// A memory as a safetensors file: one array for each of its arrays, the format and a checksum of every array in the
// metadata. In Python: `safetensors.numpy.load_file("memory.safetensors")["patches"]`.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/memory/codec.hpp"
#include "core_tokensets/memory/format.hpp"

namespace core_tokensets {

/// Metadata names that the file format uses itself; every name that begins with "checksum." is one of them, too.
inline bool is_reserved_metadata(std::string_view name) {
  constexpr std::array<std::string_view, 6> ours{"kind", "version", "codec", "grid", "mean", "stddev"};
  return name.starts_with("checksum.") || std::find(ours.begin(), ours.end(), name) != ours.end();
}

namespace detail {

/// "[0.5,0.25]" with the fewest digits that read back as the same floats.
inline std::string float_list(std::span<const float> values) {
  std::string text = "[";
  for (const float x : values) {
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), x).ptr;
    text.append(text.size() > 1 ? "," : "").append(digits.data(), end);
  }
  return text + "]";
}

/// Names, types and shapes of the arrays, as sorted as in the file; `coded` is the size of the packed pixels, -1 for
/// raw, `text` the bytes of all texts.
inline std::vector<array_view> memory_layout(const token_memory_format& format, index samples, index tokens,
                                             index coded = -1, index text = 0) {
  const auto patches = coded < 0 ? std::vector<index>{tokens, format.patch_dim()} : std::vector<index>{coded};
  std::vector<array_view> arrays{{"patches", dtype::u8, patches, {}},        {"positions", dtype::u16, {tokens}, {}},
                                 {"offsets", dtype::u64, {samples + 1}, {}}, {"targets", dtype::i32, {samples}, {}},
                                 {"weights", dtype::f32, {samples}, {}},     {"tasks", dtype::u16, {samples}, {}}};
  if (format.relevance != relevance_storage::none) {
    const auto type = format.relevance == relevance_storage::f16 ? dtype::f16 : dtype::f32;
    arrays.push_back({"relevance", type, {tokens}, {}});
  }
  if (format.texts) {
    arrays.push_back({"text", dtype::u8, {text}, {}});
    arrays.push_back({"text_offsets", dtype::u32, {2 * samples + 1}, {}});
  }
  sort_for_safetensors(arrays);
  return arrays;
}

/// One checksum over all names and texts but the checksums' own.
inline std::string metadata_checksum(const std::map<std::string, std::string>& metadata) {
  std::string all;
  for (const auto& [name, text] : metadata) {
    if (!name.starts_with("checksum."))
      all += std::to_string(name.size()) + ":" + name + std::to_string(text.size()) + ":" + text;
  }
  return checksum_text(fnv1a(std::as_bytes(std::span(all))));
}

/// What the file says about itself, with a checksum for every array (of its present bytes).
inline std::map<std::string, std::string> memory_metadata(const token_arrays& memory, std::string_view codec,
                                                          std::span<const array_view> arrays) {
  auto metadata = memory.metadata;
  for (const auto& entry : memory.metadata) {
    require(!is_reserved_metadata(entry.first), "token memory: the metadata name '", entry.first, "' is reserved");
  }
  const auto& f = memory.format;
  metadata["kind"] = "token_memory";
  metadata["version"] = "1";
  metadata["codec"] = codec;
  metadata["grid"] = nlohmann::json{f.image_height, f.image_width, f.channels, f.patch}.dump();
  metadata["mean"] = float_list(f.mean);
  metadata["stddev"] = float_list(f.stddev);
  for (const auto& array : arrays) metadata["checksum." + array.name] = checksum_text(fnv1a(array.bytes));
  metadata["checksum.metadata"] = metadata_checksum(metadata);
  return metadata;
}

inline patch_context context_of(const token_arrays& memory) {
  return {memory.format.channels, memory.format.patch, memory.format.grid_cols(), memory.positions, memory.offsets};
}

/// Size of the file with these arrays, which need not have bytes.
inline index memory_file_size(const token_arrays& memory, std::string_view codec, std::span<const array_view> arrays) {
  auto size = static_cast<index>(safetensors_header(arrays, memory_metadata(memory, codec, arrays)).size());
  for (const auto& array : arrays) size += checked_byte_count(array.type, array.shape).value();
  return size;
}

/// The metadata text `name` as a JSON list.
inline std::vector<nlohmann::json> memory_list(const tensor_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  require(found != file.metadata.end(), file.path, ": metadata '", name, "' is missing");
  const auto list = parse_json(found->second, 1);
  require(list.is_array(), file.path, ": metadata '", name, "' makes no sense: ", found->second.substr(0, 100));
  return {list.begin(), list.end()};
}

inline std::string memory_text(const tensor_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  return found == file.metadata.end() ? std::string() : found->second;
}

/// What is wrong with the arrays of a file, one line each: missing, of another type, altered, unexpected.
inline std::vector<std::string> memory_file_problems(const tensor_file& file) {
  std::vector<std::string> problems;
  if (memory_text(file, "kind") != "token_memory" || memory_text(file, "version") != "1") {
    problems.push_back(file.path + ": not a token memory of version 1");
    return problems;
  }
  if (memory_text(file, "checksum.metadata") != metadata_checksum(file.metadata))
    problems.push_back(file.path + ": the metadata was altered (its checksum does not match)");
  std::set<std::string> known;
  for (const auto& array : memory_layout({.relevance = relevance_storage::f32, .texts = true}, 0, 0)) {
    known.insert(array.name);
    const auto found = file.arrays.find(array.name);
    const bool relevance = array.name == "relevance", optional = relevance || array.name.starts_with("text");
    if (found == file.arrays.end()) {
      if (!optional || file.metadata.contains("checksum." + array.name))
        problems.push_back(file.path + ": array '" + array.name + "' is missing");
      continue;
    }
    if (found->second.type != array.type && !(relevance && found->second.type == dtype::f16)) {
      problems.push_back(file.path + ": array '" + array.name + "' has type " +
                         std::string(dtype_name(found->second.type)) + ", expected " +
                         std::string(dtype_name(array.type)));
    }
    if (memory_text(file, "checksum." + array.name) != checksum_text(fnv1a(found->second.bytes)))
      problems.push_back(file.path + ": array '" + array.name + "' was altered (its checksum does not match)");
  }
  for (const auto& entry : file.arrays) {
    if (!known.contains(entry.first)) problems.push_back(file.path + ": unexpected array '" + entry.first + "'");
  }
  return problems;
}

inline token_memory_format memory_format(const tensor_file& file) {
  token_memory_format format{.relevance = relevance_storage::none};
  const auto grid = memory_list(file, "grid");
  require(grid.size() == 4, file.path, ": metadata 'grid': expected height, width, channels and patch");
  const std::string what = file.path + ": metadata 'grid'";
  format.image_height = header_number(grid[0], what);
  format.image_width = header_number(grid[1], what);
  format.channels = header_number(grid[2], what);
  format.patch = header_number(grid[3], what);
  for (auto* values : {&format.mean, &format.stddev}) {
    const std::string name = values == &format.mean ? "mean" : "stddev";
    for (const auto& value : memory_list(file, name)) {
      require(value.is_number(), file.path, ": metadata '", name, "': expected numbers");
      values->push_back(value.get<float>());
    }
  }
  if (file.contains("relevance")) {
    format.relevance = file.at("relevance").type == dtype::f16 ? relevance_storage::f16 : relevance_storage::f32;
  }
  format.texts = file.contains("text_offsets");
  format.check();
  return format;
}

}  // namespace detail

/// Size in bytes of the file that `save_token_arrays` would write with raw pixels, if the memory had this many samples,
/// tokens and bytes of text: exact, and without the data, so that a budget can be divided before anything is chosen.
inline index token_file_size(const token_arrays& memory, index samples, index tokens, index text = 0) {
  return detail::memory_file_size(memory, raw_codec::name(),
                                  detail::memory_layout(memory.format, samples, tokens, -1, text));
}

/// Size in bytes of the file with pixels packed by `codec`.
template <patch_codec Codec>
index token_file_size(const token_arrays& memory, const Codec& codec) {
  const auto text = static_cast<index>(memory.text.size());
  if constexpr (std::is_same_v<Codec, raw_codec>)
    return token_file_size(memory, memory.samples(), memory.tokens(), text);
  const auto coded = static_cast<index>(codec.encode(detail::context_of(memory), memory.patches).size());
  const auto layout = detail::memory_layout(memory.format, memory.samples(), memory.tokens(), coded, text);
  return detail::memory_file_size(memory, Codec::name(), layout);
}

/// Writes a memory, all or nothing.
template <patch_codec Codec = raw_codec>
void save_token_arrays(const std::filesystem::path& path, const token_arrays& memory, const Codec& codec = {}) {
  memory.check("token memory");
  constexpr bool raw = std::is_same_v<Codec, raw_codec>;
  std::vector<std::uint8_t> coded;
  if constexpr (!raw) coded = codec.encode(detail::context_of(memory), memory.patches);
  std::vector<half> relevance;
  if (memory.format.relevance == relevance_storage::f16) {
    for (const float r : memory.relevance) relevance.emplace_back(static_cast<double>(r));
  }

  auto arrays =
      detail::memory_layout(memory.format, memory.samples(), memory.tokens(),
                            raw ? -1 : static_cast<index>(coded.size()), static_cast<index>(memory.text.size()));
  const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
  const std::map<std::string, std::span<const std::byte>> data{
      {"patches", raw ? bytes(memory.patches) : bytes(coded)},
      {"positions", bytes(memory.positions)},
      {"offsets", bytes(memory.offsets)},
      {"targets", bytes(memory.targets)},
      {"weights", bytes(memory.weights)},
      {"tasks", bytes(memory.tasks)},
      {"text", bytes(memory.text)},
      {"text_offsets", bytes(memory.text_offsets)},
      {"relevance", relevance.empty() ? bytes(memory.relevance) : bytes(relevance)}};
  for (auto& array : arrays) array.bytes = data.at(array.name);
  const auto metadata = detail::memory_metadata(memory, Codec::name(), arrays);
  write_safetensors(path, std::move(arrays), metadata);
}

/// Reads a memory; pixels are unpacked by that of the codecs (raw is always there) which the file names. `Error` names
/// the array that is missing, altered or does not fit the others.
template <patch_codec... Codecs>
token_arrays load_token_arrays(const std::filesystem::path& path, const Codecs&... codecs) {
  const tensor_file file = load_safetensors(path);
  const auto problems = detail::memory_file_problems(file);
  if (!problems.empty()) fail(problems.front());

  token_arrays memory;
  memory.format = detail::memory_format(file);
  memory.positions = file.at("positions").as<std::uint16_t>();
  memory.offsets = file.at("offsets").as<std::uint64_t>();
  memory.targets = file.at("targets").as<std::int32_t>();
  memory.weights = file.at("weights").as<float>();
  memory.tasks = file.at("tasks").as<std::uint16_t>();
  if (file.contains("relevance")) memory.relevance = file.at("relevance").as<float>();
  if (memory.format.texts) {
    require(file.contains("text"), file.path, ": array 'text' is missing");
    memory.text = file.at("text").as<std::uint8_t>();
    memory.text_offsets = file.at("text_offsets").as<std::uint32_t>();
  }
  for (const auto& [name, text] : file.metadata) {
    if (!is_reserved_metadata(name)) memory.metadata.emplace(name, text);
  }

  const auto pixels = checked_byte_count(dtype::u8, std::vector<index>{memory.tokens(), memory.format.patch_dim()});
  require(pixels.has_value(), file.path, ": array 'positions' has too many tokens for patches of ",
          memory.format.patch_dim(), " bytes");
  const auto coded = file.at("patches").as<std::uint8_t>();
  const std::string codec_name = detail::memory_text(file, "codec");
  require(codec_name != raw_codec::name() || static_cast<index>(coded.size()) == *pixels, file.path,
          ": array 'patches' has ", coded.size(), " bytes, expected ", *pixels);
  const bool known = codec_name == raw_codec::name() || ((codec_name == Codecs::name()) || ...);
  require(known, file.path, ": array 'patches' is packed by the codec '", codec_name, "', which was not given");
  memory.patches.resize(static_cast<std::size_t>(*pixels));
  memory.check(file.path);  // before a codec sees positions and offsets
  bool found = false;
  const auto try_codec = [&](const auto& codec) {
    if (found || std::decay_t<decltype(codec)>::name() != codec_name) return;
    found = true;
    codec.decode(detail::context_of(memory), coded, memory.patches);
  };
  try_codec(raw_codec{});
  (try_codec(codecs), ...);
  return memory;
}

}  // namespace core_tokensets
