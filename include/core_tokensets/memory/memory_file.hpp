#pragma once
// A memory as a safetensors file: which tokens each sample keeps as a row of bits, everything else in the narrowest
// type that holds it, and a checksum of every array. In Python:
//   f = safetensors.numpy.load_file("memory.safetensors")
//   sample, position = numpy.nonzero(numpy.unpackbits(f["kept"], axis=1, bitorder="little"))  # of each row of
//   f["patches"]

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/half.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/memory/codec.hpp"
#include "core_tokensets/memory/format.hpp"

namespace core_tokensets {

/// Metadata names that the file format uses itself; every name that begins with "checksum." is one of them, too.
inline bool is_reserved_metadata(std::string_view name) {
  constexpr std::array<std::string_view, 4> ours{"kind", "version", "codec", "grid"};
  return name.starts_with("checksum.") || std::find(ours.begin(), ours.end(), name) != ours.end();
}

/// What the size of a memory's file depends on: how much there is, and the largest numbers, by which types are chosen.
struct memory_counts {
  index samples = 0, tokens = 0, pixel_bytes = 0, text_bytes = 0;
  std::int64_t least_target = 0, most_target = 0;
  std::uint64_t most_task = 0, most_pixel_bytes = 0, most_text = 0;  ///< of one sample

  void add(const stored_sample& s, std::size_t packed) {
    ++samples;
    tokens += s.tokens();
    pixel_bytes += static_cast<index>(packed);
    text_bytes += static_cast<index>(s.prompt.size() + s.answer.size());
    least_target = std::min<std::int64_t>(least_target, s.target);
    most_target = std::max<std::int64_t>(most_target, s.target);
    most_task = std::max<std::uint64_t>(most_task, s.task);
    most_pixel_bytes = std::max<std::uint64_t>(most_pixel_bytes, packed);
    most_text = std::max<std::uint64_t>({most_text, s.prompt.size(), s.answer.size()});
  }
};

namespace detail {

/// The narrowest unsigned type that holds numbers up to `most`.
inline dtype narrowest(std::uint64_t most) {
  return most < 1u << 8                  ? dtype::u8
         : most < 1u << 16               ? dtype::u16
         : most < std::uint64_t{1} << 32 ? dtype::u32
                                         : dtype::u64;
}

inline std::string column_array(const memory_column& c) { return (c.per_token ? "token." : "sample.") + c.name; }

/// Bytes of a row of bits, one for each place of the grid.
inline index kept_bytes(const patch_grid& grid) { return (grid.tokens() + 7) / 8; }

/// Names, types and shapes of the arrays, as sorted as in the file.
inline std::vector<array_view> memory_layout(const token_memory_format& format, bool raw, const memory_counts& n) {
  const auto patches = raw ? std::vector<index>{n.tokens, format.grid.patch_dim()} : std::vector<index>{n.pixel_bytes};
  const dtype target =
      n.least_target < 0 || n.most_target > 65'535 ? dtype::i32 : narrowest(static_cast<std::uint64_t>(n.most_target));
  std::vector<array_view> arrays{{"patches", dtype::u8, patches, {}},
                                 {"kept", dtype::u8, {n.samples, kept_bytes(format.grid)}, {}},
                                 {"targets", target, {n.samples}, {}},
                                 {"weights", dtype::f16, {n.samples}, {}},
                                 {"tasks", narrowest(n.most_task), {n.samples}, {}}};
  if (!raw) arrays.push_back({"sizes", narrowest(n.most_pixel_bytes), {n.samples}, {}});
  if (format.relevance == relevance_storage::f16) {
    arrays.push_back({"relevance", dtype::f16, {n.tokens}, {}});
    arrays.push_back({"relevance_scale", dtype::f32, {n.samples}, {}});
  }
  if (format.relevance == relevance_storage::f32) arrays.push_back({"relevance", dtype::f32, {n.tokens}, {}});
  if (format.texts) {
    arrays.push_back({"text", dtype::u8, {n.text_bytes}, {}});
    arrays.push_back({"text_sizes", narrowest(n.most_text), {n.samples, 2}, {}});
  }
  for (const auto& c : format.columns)
    arrays.push_back({column_array(c), c.type, {c.per_token ? n.tokens : n.samples, c.width}, {}});
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
inline std::map<std::string, std::string> memory_metadata(const token_arrays& memory, const std::string& codec,
                                                          std::span<const array_view> arrays) {
  auto metadata = memory.metadata;
  for (const auto& entry : memory.metadata) {
    require(!is_reserved_metadata(entry.first), "token memory: the metadata name '", entry.first, "' is reserved");
  }
  const patch_grid& g = memory.format.grid;
  metadata["kind"] = "token_memory";
  metadata["version"] = "2";
  metadata["codec"] = codec;
  metadata["grid"] = "[" + std::to_string(g.height) + "," + std::to_string(g.width) + "," + std::to_string(g.channels) +
                     "," + std::to_string(g.patch) + "]";
  for (const auto& array : arrays) metadata["checksum." + array.name] = checksum_text(fnv1a(array.bytes));
  metadata["checksum.metadata"] = metadata_checksum(metadata);
  return metadata;
}

/// "[6,8,3,2]". `Error`: anything but four whole numbers.
inline patch_grid parse_grid(const tensor_file& file) {
  const auto found = file.metadata.find("grid");
  require(found != file.metadata.end(), file.path, ": metadata 'grid' is missing");
  const std::string& text = found->second;
  std::array<index, 4> n{};
  const char *at = text.data(), *const end = at + text.size();
  bool ok = at != end && *at++ == '[';
  for (std::size_t i = 0; ok && i < n.size(); ++i) {
    const auto [after, bad] = std::from_chars(at, end, n[i]);
    ok = bad == std::errc() && after != end && *after == (i + 1 < n.size() ? ',' : ']');
    at = after + (ok ? 1 : 0);
  }
  require(ok && at == end, file.path, ": metadata 'grid' makes no sense: ", text.substr(0, 100));
  return {n[0], n[1], n[2], n[3]};
}

inline std::string memory_text(const tensor_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  return found == file.metadata.end() ? std::string() : found->second;
}

/// The types that an array of that name may have; none: any, if the name is that of a column.
inline std::vector<dtype> memory_types(std::string_view name) {
  const std::vector<dtype> counts{dtype::u8, dtype::u16, dtype::u32, dtype::u64};
  if (name == "patches" || name == "kept" || name == "text") return {dtype::u8};
  if (name == "targets") return {dtype::u8, dtype::u16, dtype::i32};
  if (name == "tasks" || name == "sizes" || name == "text_sizes") return counts;
  if (name == "weights") return {dtype::f16};
  if (name == "relevance") return {dtype::f16, dtype::f32};
  if (name == "relevance_scale") return {dtype::f32};
  return {};
}

/// What is wrong with the arrays of a file, one line each: missing, of another type, altered, unexpected.
inline std::vector<std::string> memory_file_problems(const tensor_file& file) {
  std::vector<std::string> problems;
  if (memory_text(file, "kind") != "token_memory" || memory_text(file, "version") != "2") {
    problems.push_back(file.path + ": not a token memory of version 2");
    return problems;
  }
  if (memory_text(file, "checksum.metadata") != metadata_checksum(file.metadata))
    problems.push_back(file.path + ": the metadata was altered (its checksum does not match)");
  for (const char* name : {"patches", "kept", "targets", "weights", "tasks"}) {
    if (!file.contains(name)) problems.push_back(file.path + ": array '" + name + "' is missing");
  }
  for (const auto& entry : file.metadata) {
    const std::string name = entry.first.starts_with("checksum.") ? entry.first.substr(9) : std::string();
    const bool plain = name.empty() || name == "metadata" || file.contains(name);
    if (!plain && name != "patches" && name != "kept" && name != "targets" && name != "weights" && name != "tasks")
      problems.push_back(file.path + ": array '" + name + "' is missing");
  }
  for (const auto& [name, array] : file.arrays) {
    const auto types = memory_types(name);
    if (types.empty() && !name.starts_with("sample.") && !name.starts_with("token.")) {
      problems.push_back(file.path + ": unexpected array '" + name + "'");
      continue;
    }
    if (!types.empty() && std::find(types.begin(), types.end(), array.type) == types.end()) {
      problems.push_back(file.path + ": array '" + name + "' has type " + std::string(dtype_name(array.type)) +
                         ", expected " + std::string(dtype_name(types.front())) +
                         (types.size() > 1 ? " or wider" : ""));
    }
    if (memory_text(file, "checksum." + name) != checksum_text(fnv1a(array.bytes)))
      problems.push_back(file.path + ": array '" + name + "' was altered (its checksum does not match)");
  }
  return problems;
}

/// What is kept beside the pixels, from the arrays that are there.
inline token_memory_format read_memory_format(const tensor_file& file, index samples) {
  token_memory_format format{.grid = parse_grid(file)};
  if (file.contains("relevance")) {
    format.relevance = file.at("relevance").type == dtype::f16 ? relevance_storage::f16 : relevance_storage::f32;
  }
  format.texts = file.contains("text_sizes");
  for (const auto& [name, array] : file.arrays) {
    const bool per_token = name.starts_with("token.");
    if (!per_token && !name.starts_with("sample.")) continue;
    require(array.shape.size() == 2 && (per_token || array.shape[0] == samples), file.path, ": array '", name,
            "' has shape ", shape_text(array.shape), ", expected one row for each ", per_token ? "token" : "sample");
    format.columns.push_back({name.substr(per_token ? 6 : 7), array.type, array.shape[1], per_token});
  }
  format.check();
  return format;
}

/// The rows of bits as positions and offsets. `Error`: a sample without tokens, a bit beyond the grid.
inline void read_kept(const tensor_file& file, const patch_grid& grid, token_arrays& memory) {
  const host_array& kept = file.at("kept");
  const index row = kept_bytes(grid);
  require(kept.shape.size() == 2 && kept.shape[1] == row, file.path, ": array 'kept' has shape ",
          shape_text(kept.shape), ", expected ", row, " bytes a sample");
  for (index s = 0; s < kept.shape[0]; ++s) {
    const auto* bits = kept.bytes.data() + s * row;
    for (index p = 0; p < row * 8; ++p) {
      if ((std::to_integer<unsigned>(bits[p / 8]) >> (p % 8) & 1u) == 0) continue;
      require(p < grid.tokens(), file.path, ": array 'kept': sample ", s, " keeps position ", p, " of ", grid.tokens());
      memory.positions.push_back(static_cast<std::uint16_t>(p));
    }
    require(memory.positions.size() > memory.offsets.back(), file.path, ": array 'kept': sample ", s,
            " keeps no token");
    memory.offsets.push_back(memory.positions.size());
  }
}

/// Offsets from sizes. `Error`: more than `limit`, which the sum must be.
inline std::vector<std::uint64_t> offsets_of(const std::vector<std::uint64_t>& sizes, std::size_t limit,
                                             const std::string& what) {
  std::vector<std::uint64_t> offsets{0};
  offsets.reserve(sizes.size() + 1);
  for (const auto n : sizes) {
    require(n <= limit - offsets.back(), what, ": the sizes add up to more than the ", limit, " bytes there are");
    offsets.push_back(offsets.back() + n);
  }
  require(offsets.back() == limit, what, ": the sizes add up to ", offsets.back(), ", there are ", limit, " bytes");
  return offsets;
}

/// Sizes from offsets.
inline std::vector<std::uint64_t> sizes_of(const std::vector<std::uint64_t>& offsets) {
  std::vector<std::uint64_t> sizes;
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) sizes.push_back(offsets[i + 1] - offsets[i]);
  return sizes;
}

}  // namespace detail

/// Size in bytes of the file of a memory of that format and metadata, if it held so much: exact, and without the data.
inline index memory_file_size(const token_arrays& memory, const any_codec& codec, const memory_counts& counts) {
  const auto arrays = detail::memory_layout(memory.format, codec.raw(), counts);
  const auto metadata = detail::memory_metadata(memory, codec.text(), arrays);
  auto size = static_cast<index>(safetensors_header(arrays, metadata).size());
  for (const auto& array : arrays) size += checked_byte_count(array.type, array.shape).value();
  return size;
}

/// Writes a memory, all or nothing.
inline void save_token_arrays(const std::filesystem::path& path, const token_arrays& memory, const any_codec& codec,
                              const memory_counts& counts) {
  memory.check("token memory");
  auto arrays = detail::memory_layout(memory.format, codec.raw(), counts);
  std::map<std::string, host_array> made;
  const auto make = [&](const std::string& name, const auto& values) {
    for (const auto& array : arrays) {
      if (array.name == name) made[name] = host_array::of(values).to(array.type);
    }
  };
  const index row = detail::kept_bytes(memory.format.grid);
  std::vector<std::uint8_t> kept(static_cast<std::size_t>(memory.samples() * row), 0);
  for (index s = 0; s < memory.samples(); ++s) {
    for (const index p : memory.positions_of(s))
      kept[static_cast<std::size_t>(s * row + p / 8)] |= static_cast<std::uint8_t>(1u << (p % 8));
  }
  std::vector<half> relevance, weights;
  if (memory.format.relevance == relevance_storage::f16) {
    for (index s = 0; s < memory.samples(); ++s) {
      const double scale = static_cast<double>(memory.relevance_scale[static_cast<std::size_t>(s)]);
      for (auto t = memory.offsets[static_cast<std::size_t>(s)]; t < memory.offsets[static_cast<std::size_t>(s) + 1];
           ++t)
        relevance.emplace_back(scale > 0 ? static_cast<double>(memory.relevance[t]) / scale : 0.0);
    }
  }
  for (const float w : memory.weights) weights.emplace_back(static_cast<double>(w));
  make("targets", memory.targets);
  make("tasks", memory.tasks);
  if (!codec.raw()) make("sizes", detail::sizes_of(memory.pixel_offsets));
  if (memory.format.texts) make("text_sizes", detail::sizes_of(memory.text_offsets));
  const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
  std::map<std::string, std::span<const std::byte>> data{
      {"patches", memory.pixels},
      {"kept", bytes(kept)},
      {"weights", bytes(weights)},
      {"text", bytes(memory.text)},
      {"relevance", relevance.empty() ? bytes(memory.relevance) : bytes(relevance)},
      {"relevance_scale", bytes(memory.relevance_scale)}};
  for (const auto& [name, array] : made) data[name] = array.bytes;
  for (std::size_t c = 0; c < memory.columns.size(); ++c)
    data[detail::column_array(memory.format.columns[c])] = memory.columns[c];
  for (auto& array : arrays) array.bytes = data.at(array.name);
  const auto metadata = detail::memory_metadata(memory, codec.text(), arrays);
  write_safetensors(path, std::move(arrays), metadata);
}

namespace detail {

/// The arrays of a file whose checksums were found right, and the name of its codec; the file gives its bytes away.
inline token_arrays take_token_arrays(tensor_file& file) {
  token_arrays memory;
  memory.targets = file.at("targets").as<std::int32_t>();
  memory.format = read_memory_format(file, memory.samples());
  read_kept(file, memory.format.grid, memory);
  memory.tasks = file.at("tasks").as<std::uint32_t>();
  memory.weights = file.at("weights").as<float>();
  const auto tokens = static_cast<std::size_t>(memory.tokens());
  if (file.contains("relevance")) memory.relevance = file.at("relevance").as<float>();
  if (memory.format.relevance == relevance_storage::f16) {
    memory.relevance_scale = file.at("relevance_scale").as<float>();
    require(memory.relevance.size() == tokens && memory.relevance_scale.size() == memory.targets.size(), file.path,
            ": array 'relevance' has ", memory.relevance.size(), " elements, expected ", tokens);
    for (std::size_t s = 0; s < memory.targets.size(); ++s) {
      for (auto t = memory.offsets[s]; t < memory.offsets[s + 1] && t < tokens; ++t)
        memory.relevance[t] = static_cast<float>(static_cast<double>(memory.relevance[t]) *
                                                 static_cast<double>(memory.relevance_scale[s]));
    }
  }
  if (memory.format.texts) {
    memory.text = file.at("text").as<std::uint8_t>();
    memory.text_offsets =
        offsets_of(file.at("text_sizes").as<std::uint64_t>(), memory.text.size(), file.path + ": array 'text_sizes'");
  }
  for (const auto& column : memory.format.columns)
    memory.columns.push_back(std::move(file.arrays.at(column_array(column)).bytes));
  memory.pixels = std::move(file.arrays.at("patches").bytes);
  if (file.contains("sizes")) {
    memory.pixel_offsets =
        offsets_of(file.at("sizes").as<std::uint64_t>(), memory.pixels.size(), file.path + ": array 'sizes'");
  } else {
    const auto dim = static_cast<std::uint64_t>(memory.format.grid.patch_dim());
    require(memory.pixels.size() % dim == 0 && memory.pixels.size() / dim == tokens, file.path,
            ": array 'patches' has ", memory.pixels.size(), " bytes, expected ", tokens, " tokens of ", dim);
    memory.pixel_offsets = memory.offsets;
    for (auto& offset : memory.pixel_offsets) offset *= dim;
  }
  for (const auto& [name, text] : file.metadata) {
    if (!is_reserved_metadata(name)) memory.metadata.emplace(name, text);
  }
  memory.check(file.path);
  return memory;
}

}  // namespace detail

}  // namespace core_tokensets
