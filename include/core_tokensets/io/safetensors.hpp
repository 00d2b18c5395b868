#pragma once
// Safetensors files: a JSON header with names, types, shapes and places, then the arrays' bytes. Everything that a file
// says is checked before it is believed. Format: https://huggingface.co/docs/safetensors (version of 2023).

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/host_array.hpp"
#include "core_tokensets/io/parse_json.hpp"

namespace core_tokensets {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so is this library");

/// Headers longer than this are refused, as in the reference implementation.
inline constexpr index safetensors_header_limit = 100'000'000;

namespace detail {

/// Levenshtein distance.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace detail

/// The arrays and the metadata of one file.
struct tensor_file {
  std::map<std::string, host_array> arrays;
  std::map<std::string, std::string> metadata;
  std::string path;  ///< where it was read from, for messages

  bool contains(const std::string& name) const { return arrays.contains(name); }

  /// The array `name`; `Error` with the file and the three nearest names where there is none.
  const host_array& at(const std::string& name) const {
    if (const auto found = arrays.find(name); found != arrays.end()) return found->second;
    std::vector<std::pair<std::size_t, std::string>> near;
    for (const auto& entry : arrays) near.emplace_back(detail::edit_distance(name, entry.first), entry.first);
    std::sort(near.begin(), near.end());
    std::string names;
    for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i) names += " '" + near[i].second + "'";
    fail(path.empty() ? "tensors" : path, ": no array '", name, "'; ",
         names.empty() ? "there are none at all" : "nearest of " + std::to_string(arrays.size()) + ":" + names);
  }
};

/// An array that is about to be written; its bytes belong to someone else.
struct array_view {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index> shape;
  std::span<const std::byte> bytes;
};

/// The first bytes of a file with these arrays, in this order, up to where the data begin (a multiple of 8). Looks at
/// names, types and shapes only.
inline std::string safetensors_header(std::span<const array_view> arrays,
                                      const std::map<std::string, std::string>& metadata) {
  std::string text(8, '\0');
  const auto put_text = [&](std::string_view name) {
    require(detail::is_utf8(name), "safetensors: a name or a metadata text is not UTF-8");
    detail::append_json_text(text, name);
  };
  std::vector<std::string_view> names{"__metadata__"};
  for (const auto& array : arrays) names.push_back(array.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  require(twice == names.end(), "safetensors: two arrays named '", twice == names.end() ? "" : *twice, "'");
  text += '{';
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      put_text(key);
      text += ':';
      put_text(value);
      text += ',';
    }
    text.back() = '}';
    text += ',';
  }
  index offset = 0;
  for (const auto& array : arrays) {
    const auto bytes = checked_byte_count(array.type, array.shape);
    require(bytes && *bytes <= std::numeric_limits<index>::max() - offset, "safetensors: array '", array.name,
            "': impossible shape ", shape_text(array.shape));
    put_text(array.name);
    text += ":{\"dtype\":\"";
    text += dtype_name(array.type);
    text += "\",\"shape\":[";
    for (std::size_t i = 0; i < array.shape.size(); ++i) text += (i > 0 ? "," : "") + std::to_string(array.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + *bytes) + "]},";
    offset += *bytes;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size() - 8;
  require(length <= std::uint64_t{safetensors_header_limit}, "safetensors: a header of ", length,
          " bytes, expected at most ", safetensors_header_limit);
  std::memcpy(text.data(), &length, 8);
  return text;
}

/// The order in which arrays are written: widest elements first (so that each array is aligned), then by name.
inline void sort_for_safetensors(std::vector<array_view>& arrays) {
  std::sort(arrays.begin(), arrays.end(), [](const array_view& a, const array_view& b) {
    const auto wide_a = byte_size(a.type), wide_b = byte_size(b.type);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
}

/// Writes the arrays without copying them; all or nothing.
inline void write_safetensors(const std::filesystem::path& path, std::vector<array_view> arrays,
                              const std::map<std::string, std::string>& metadata) {
  sort_for_safetensors(arrays);
  const std::string header = safetensors_header(arrays, metadata);
  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header))};
  for (const auto& array : arrays) {
    require(checked_byte_count(array.type, array.shape) == static_cast<index>(array.bytes.size()), path.string(),
            ": array '", array.name, "' of shape ", shape_text(array.shape), " and type ", dtype_name(array.type),
            " has ", array.bytes.size(), " bytes");
    pieces.push_back(array.bytes);
  }
  write_file(path, std::span<const std::span<const std::byte>>(pieces));
}

namespace detail {

/// Where an array lies in the data part of a file.
struct array_place {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index> shape;
  index begin = 0, end = 0;
};

/// What the header of a file says.
struct safetensors_layout {
  std::vector<array_place> arrays;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
};

/// JSON of an untrusted header: an object without repeated keys, not deep.
inline json parse_header_json(std::string_view text, const std::string& path) {
  require(!text.empty() && text.front() == '{', path, ": the header does not begin with '{'");
  require(text.find('\0') == std::string_view::npos, path, ": the header holds a zero byte");
  return parse_json(text, path + ": the header", 6);
}

/// A non-negative integer that fits `index`.
inline index header_number(const json& value, const std::string& what) {
  require(value.holds<index>() && value.get<index>() >= 0, what, ": expected a non-negative integer");
  return value.get<index>();
}

inline array_place parse_place(const std::string& name, const json& entry, const std::string& what) {
  require(entry.is_object() && entry.size() == 3 && entry.contains("dtype") && entry.contains("shape") &&
              entry.contains("data_offsets"),
          what, ": expected dtype, shape and data_offsets and nothing else");
  array_place place;
  place.name = name;
  const auto& type_name = entry.at("dtype");
  require(type_name.is_string(), what, ": dtype is not a string");
  const auto type = dtype_named(type_name.text());
  require(type.has_value(), what, ": unknown dtype ", type_name.text());
  place.type = *type;
  require(entry.at("shape").is_array(), what, ": shape is not a list");
  for (const auto& extent : entry.at("shape")) place.shape.push_back(header_number(extent, what + ": shape"));
  const auto& offsets = entry.at("data_offsets");
  require(offsets.is_array() && offsets.size() == 2, what, ": data_offsets are not two numbers");
  place.begin = header_number(offsets[0], what + ": data_offsets");
  place.end = header_number(offsets[1], what + ": data_offsets");
  const auto bytes = checked_byte_count(place.type, place.shape);
  require(bytes.has_value(), what, ": shape ", shape_text(place.shape), " is too large");
  require(place.begin <= place.end && place.end - place.begin == *bytes, what, ": data_offsets [", place.begin, ", ",
          place.end, "] do not fit shape ", shape_text(place.shape), " of type ", dtype_name(place.type));
  return place;
}

/// Reads and checks a header for a file with `data_bytes` bytes behind it: every byte belongs to exactly one array.
inline safetensors_layout parse_safetensors_header(std::string_view text, index data_bytes, const std::string& path) {
  const json header = parse_header_json(text, path);
  safetensors_layout layout;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      layout.arrays.push_back(parse_place(name, entry, path + ": array '" + name + "'"));
      continue;
    }
    if (entry.is_null()) continue;
    require(entry.is_object(), path, ": __metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      require(value.is_string(), path, ": metadata '", key, "' is not a string");
      layout.metadata.emplace(key, value.get<std::string>());
    }
  }
  std::sort(layout.arrays.begin(), layout.arrays.end(), [](const array_place& a, const array_place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  index offset = 0;
  for (const auto& place : layout.arrays) {
    require(place.begin == offset, path, ": array '", place.name, "' begins at byte ", place.begin,
            " of the data, expected ", offset, " (no overlaps, no holes)");
    require(place.end <= data_bytes, path, ": array '", place.name, "' ends at byte ", place.end,
            " of the data, but the file holds ", data_bytes, " (truncated?)");
    offset = place.end;
  }
  require(offset == data_bytes, path, ": ", data_bytes - offset, " bytes behind the last array");
  return layout;
}

/// What a file is that begins like this, if it is something that is often taken for a file of arrays; else null.
inline const char* kind_of_file(std::string_view begin) {
  if (begin.starts_with('<')) return "a web page, as a failed download leaves it";
  if (begin.starts_with("version https://git-lfs"))
    return "a pointer of Git LFS; 'git lfs pull' fetches the file itself";
  if (begin.starts_with("PK\3\4")) return "a zip archive, as PyTorch writes .pt and .pth; save it as safetensors there";
  if (begin.size() > 1 && begin[0] == '\x80' && begin[1] >= 2 && begin[1] <= 5)
    return "a Python pickle, as PyTorch wrote .pth; save it as safetensors there";
  return nullptr;
}

/// Reads a file of `size` bytes through `read(offset, out)`.
template <class Read>
tensor_file read_safetensors(index size, const std::string& path, const Read& read) {
  require(size >= 8, path, ": not a safetensors file: ", size, " bytes, expected at least 8");
  std::string begin(static_cast<std::size_t>(std::min<index>(size, 32)), ' ');
  read(index{0}, std::as_writable_bytes(std::span(begin)));
  std::uint64_t length = 0;
  std::memcpy(&length, begin.data(), 8);
  if (length >= static_cast<std::uint64_t>(size) || begin[8] != '{') {
    if (const char* kind = kind_of_file(begin)) fail(path, ": not a safetensors file, but ", kind);
  }
  require(length <= std::uint64_t{safetensors_header_limit}, path, ": not a safetensors file: a header of ", length,
          " bytes, expected at most ", safetensors_header_limit);
  const auto data_begin = 8 + static_cast<index>(length);
  require(data_begin <= size, path, ": the header ends at byte ", data_begin, ", but the file has ", size,
          " (truncated?)");
  std::string text(static_cast<std::size_t>(length), ' ');
  read(index{8}, std::as_writable_bytes(std::span(text)));

  auto layout = parse_safetensors_header(text, size - data_begin, path);
  tensor_file file{.arrays = {}, .metadata = std::move(layout.metadata), .path = path};
  for (auto& place : layout.arrays) {
    host_array array{place.type, std::move(place.shape),
                     std::vector<std::byte>(static_cast<std::size_t>(place.end - place.begin))};
    read(data_begin + place.begin, std::span(array.bytes));
    file.arrays.emplace(std::move(place.name), std::move(array));
  }
  return file;
}

inline std::vector<array_view> array_views(const tensor_file& file) {
  std::vector<array_view> arrays;
  for (const auto& [name, array] : file.arrays) arrays.push_back({name, array.type, array.shape, array.bytes});
  return arrays;
}

}  // namespace detail

/// Reads a whole file. `Error` with path and reason for anything that is not exactly right.
inline tensor_file load_safetensors(const std::filesystem::path& path) {
  const file_reader file(path);
  return detail::read_safetensors(file.size(), path.string(),
                                  [&](index offset, std::span<std::byte> out) { file.read(offset, out); });
}

/// The same from bytes in memory; `name` stands for the path in messages.
inline tensor_file safetensors_from_bytes(std::span<const std::byte> bytes, const std::string& name = "safetensors") {
  return detail::read_safetensors(static_cast<index>(bytes.size()), name, [&](index offset, std::span<std::byte> out) {
    std::copy_n(bytes.begin() + offset, out.size(), out.begin());
  });
}

/// Writes a whole file, all or nothing; `file.path` is not looked at.
inline void save_safetensors(const std::filesystem::path& path, const tensor_file& file) {
  write_safetensors(path, detail::array_views(file), file.metadata);
}

/// The bytes that `save_safetensors` writes.
inline std::vector<std::byte> safetensors_to_bytes(const tensor_file& file) {
  auto arrays = detail::array_views(file);
  sort_for_safetensors(arrays);
  const std::string header = safetensors_header(arrays, file.metadata);
  const auto head = std::as_bytes(std::span(header));
  std::vector<std::byte> bytes(head.begin(), head.end());
  for (const auto& array : arrays) {
    require(checked_byte_count(array.type, array.shape) == static_cast<index>(array.bytes.size()),
            "safetensors: array '", array.name, "' of shape ", shape_text(array.shape), " has ", array.bytes.size(),
            " bytes");
    bytes.insert(bytes.end(), array.bytes.begin(), array.bytes.end());
  }
  return bytes;
}

}  // namespace core_tokensets
