#pragma once
// The IDX format of MNIST and its relatives (LeCun, Cortes, Burges): big-endian extents, then bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/io/atomic_file.hpp"

namespace core_tokensets {

/// An array of bytes with its extents.
struct idx_array {
  std::vector<index> shape;
  std::vector<std::uint8_t> values;
};

/// Reads an IDX file of unsigned bytes. `Error`: compressed, another type, another size than its extents say.
inline idx_array read_idx(const std::filesystem::path& path) {
  const auto bytes = read_file(path);
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint64_t>(bytes[i]); };
  require(bytes.size() < 2 || at(0) != 0x1f || at(1) != 0x8b, path.string(), ": compressed, unpack it with gunzip");
  require(bytes.size() >= 4 && at(0) == 0 && at(1) == 0 && at(2) == 8 && at(3) >= 1 && at(3) <= 4, path.string(),
          ": not an IDX file of unsigned bytes with 1 to 4 dimensions");
  const auto dimensions = static_cast<std::size_t>(at(3)), start = 4 + 4 * dimensions;
  require(bytes.size() >= start, path.string(), ": ends within its header");
  const std::uint64_t payload = bytes.size() - start;
  idx_array result;
  std::uint64_t expected = 1;
  for (std::size_t d = 0; d < dimensions; ++d) {
    const std::size_t i = 4 + 4 * d;
    const std::uint64_t extent = at(i) << 24 | at(i + 1) << 16 | at(i + 2) << 8 | at(i + 3);
    require(extent > 0 && extent <= payload / expected, path.string(), ": dimension ", d, " is ", extent,
            ", which does not fit its ", payload, " bytes of data");
    expected *= extent;
    result.shape.push_back(static_cast<index>(extent));
  }
  require(payload == expected, path.string(), ": ", payload, " bytes of data, expected ", expected);
  result.values.resize(payload);
  std::transform(bytes.begin() + static_cast<index>(start), bytes.end(), result.values.begin(),
                 [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
  return result;
}

/// Pictures `[n, height, width]` or `[n, height, width, channels]` and labels `[n]` from two IDX files.
inline dataset load_idx_pair(const std::filesystem::path& images, const std::filesystem::path& labels) {
  auto pixels = read_idx(images);
  const auto classes = read_idx(labels);
  require(pixels.shape.size() >= 3, images.string(), ": ", pixels.shape.size(), " dimensions, expected 3 or 4");
  require(classes.shape.size() == 1 && classes.shape[0] == pixels.shape[0], labels.string(), ": expected ",
          pixels.shape[0], " labels in 1 dimension");
  dataset data;
  data.height = pixels.shape[1], data.width = pixels.shape[2];
  data.channels = pixels.shape.size() == 4 ? pixels.shape[3] : 1;
  data.pixels = std::move(pixels.values);
  data.labels.assign(classes.values.begin(), classes.values.end());
  const auto last = *std::max_element(data.labels.begin(), data.labels.end());
  for (std::int32_t k = 0; k <= last; ++k) data.class_names.push_back(std::to_string(k));
  const std::string file = images.filename().string();
  for (index i = 0; i < data.n(); ++i) data.names.push_back(file + ":" + std::to_string(i));
  data.source_bytes.assign(data.labels.size(), static_cast<std::uint64_t>(data.image_size()));
  return data;
}

/// MNIST and its relatives from the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k
/// (a dot in place of the second hyphen also counts).
inline dataset_split load_idx(const std::filesystem::path& dir) {
  require(std::filesystem::is_directory(dir), dir.string(), ": no such folder");
  const auto pair = [&](const std::string& part) {
    const auto either = [&](const std::string& kind, const std::string& ending) {
      const auto dotted = dir / (part + "-" + kind + "." + ending);
      return std::filesystem::exists(dotted) ? dotted : dir / (part + "-" + kind + "-" + ending);
    };
    return load_idx_pair(either("images", "idx3-ubyte"), either("labels", "idx1-ubyte"));
  };
  dataset_split split{pair("train"), pair("t10k")};
  auto& shorter = split.train.classes() < split.test.classes() ? split.train : split.test;
  const auto& longer = split.train.classes() < split.test.classes() ? split.test : split.train;
  shorter.class_names = longer.class_names;
  require(split.train.image_size() == split.test.image_size() && split.train.height == split.test.height, dir.string(),
          ": train and t10k pictures differ in size");
  return split;
}

}  // namespace core_tokensets
