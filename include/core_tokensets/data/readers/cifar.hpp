#pragma once
// CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009): records of labels and 3 x 32 x 32 bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/io/atomic_file.hpp"

namespace core_tokensets {

namespace detail {

/// Adds the records of a file: `label_bytes` labels, of which number `used` counts, then red, green and blue planes.
inline void append_cifar(const std::filesystem::path& path, index label_bytes, index used, index classes,
                         dataset& data) {
  constexpr index area = 32 * 32, size = 3 * area;
  const auto bytes = read_file(path);
  const index record = label_bytes + size, n = static_cast<index>(bytes.size()) / record;
  require(n > 0 && n * record == static_cast<index>(bytes.size()), path.string(), ": ", bytes.size(),
          " bytes, expected a multiple of ", record, " (", label_bytes, " label bytes and 32 x 32 x 3 pixels)");
  const std::string file = path.filename().string();
  data.pixels.reserve(data.pixels.size() + static_cast<std::size_t>(n * size));
  for (index i = 0; i < n; ++i) {
    const std::byte* p = bytes.data() + i * record;
    const auto label = std::to_integer<std::int32_t>(p[used]);
    require(label < classes, path.string(), ": record ", i, " has label ", label, ", expected less than ", classes);
    data.labels.push_back(label);
    data.names.push_back(file + ":" + std::to_string(i));
    p += label_bytes;
    for (index k = 0; k < area; ++k) {
      for (index c = 0; c < 3; ++c) data.pixels.push_back(std::to_integer<std::uint8_t>(p[c * area + k]));
    }
  }
  data.source_bytes.resize(data.labels.size(), static_cast<std::uint64_t>(size));
}

/// The lines of a text file that are not empty.
inline std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  std::ifstream text(path);
  for (std::string line; std::getline(text, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

/// Class names from a file if it has as many lines as there are classes, else numbers.
inline std::vector<std::string> class_names_or_numbers(const std::filesystem::path& path, index classes) {
  auto names = read_lines(path);
  if (static_cast<index>(names.size()) == classes) return names;
  names.clear();
  for (index k = 0; k < classes; ++k) names.push_back(std::to_string(k));
  return names;
}

inline dataset empty_cifar(std::vector<std::string> names) {
  dataset data;
  data.height = data.width = 32, data.channels = 3;
  data.class_names = std::move(names);
  return data;
}

}  // namespace detail

/// CIFAR-10 from the folder with data_batch_1.bin, data_batch_2.bin, ... and test_batch.bin. `Error`: a number left
/// out, another name that begins like them, a file of a wrong size.
inline dataset_split load_cifar10(const std::filesystem::path& dir) {
  namespace fs = std::filesystem;
  require(with_file_errors([&] { return fs::is_directory(dir); }), dir.string(), ": no such folder");
  const index found = with_file_errors([&] {
    return std::count_if(fs::directory_iterator(dir), fs::directory_iterator(), [](const fs::directory_entry& entry) {
      const std::string name = entry.path().filename().string();
      return name.starts_with("data_batch_") && name.ends_with(".bin");
    });
  });
  require(found > 0, dir.string(), ": expected data_batch_1.bin and so on in it");
  const auto batch = [&](index i) { return dir / ("data_batch_" + std::to_string(i) + ".bin"); };
  for (index i = 1; i <= found; ++i) {
    require(fs::is_regular_file(batch(i)), dir.string(), ": ", found, " files data_batch_*.bin, but no data_batch_", i,
            ".bin");
  }
  const auto names = detail::class_names_or_numbers(dir / "batches.meta.txt", 10);
  dataset_split split{detail::empty_cifar(names), detail::empty_cifar(names)};
  for (index i = 1; i <= found; ++i) detail::append_cifar(batch(i), 1, 0, 10, split.train);
  detail::append_cifar(dir / "test_batch.bin", 1, 0, 10, split.test);
  return split;
}

/// CIFAR-100 from the folder with train.bin and test.bin: its 100 classes, or with `coarse` the 20 groups of them.
inline dataset_split load_cifar100(const std::filesystem::path& dir, bool coarse = false) {
  require(std::filesystem::is_directory(dir), dir.string(), ": no such folder");
  const index classes = coarse ? 20 : 100;
  const auto names =
      detail::class_names_or_numbers(dir / (coarse ? "coarse_label_names.txt" : "fine_label_names.txt"), classes);
  dataset_split split{detail::empty_cifar(names), detail::empty_cifar(names)};
  detail::append_cifar(dir / "train.bin", 2, coarse ? 0 : 1, classes, split.train);
  detail::append_cifar(dir / "test.bin", 2, coarse ? 0 : 1, classes, split.test);
  return split;
}

}  // namespace core_tokensets
