#pragma once
// Pictures from folders: DIR/train and DIR/test (or DIR/val), in each one folder a class, in it JPEG and PNG files.

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/progress.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/readers/cache.hpp"

namespace core_tokensets {

struct folder_options {
  index size = 0;      ///< height and width to resize to; 0: as they are, all must be of one size
  index channels = 3;  ///< 3 or 1; others are converted
  /// Where decoded pictures are kept for the next time (`default_cache_folder()`); empty: nowhere.
  std::filesystem::path cache_folder = {};
  int threads = 0;
  progress_callback on_progress = {};
};

namespace detail {

/// A path as messages and caches name it, the same on every system.
inline std::string portable_name(const std::filesystem::path& path) { return path.generic_string(); }

inline bool is_picture_name(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return (ending == ".jpg" || ending == ".jpeg" || ending == ".png") && path.filename().string().front() != '.';
}

/// The folders in `where` by name; hidden ones do not count.
inline std::vector<std::string> class_folders(const std::filesystem::path& where) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(where)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name.front() != '.') names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct picture_file {
  std::string name;  ///< relative to the folder of classes
  std::int32_t label = 0;
  std::uint64_t bytes = 0;
};

/// What a cache remembers of a file: its name, size and time.
inline std::string listing_line(const std::filesystem::path& path, const picture_file& file) {
  return file.name + '\t' + std::to_string(file.bytes) + '\t' +
         std::to_string(std::filesystem::last_write_time(path).time_since_epoch().count()) + '\n';
}

/// All pictures below `where`, class by class and by name, and a text with their names, sizes and times.
inline std::pair<std::vector<picture_file>, std::string> list_pictures(const std::filesystem::path& where,
                                                                       const std::vector<std::string>& classes) {
  namespace fs = std::filesystem;
  std::vector<picture_file> files;
  std::string listing;
  for (const std::string& found : class_folders(where)) {
    const auto place = std::lower_bound(classes.begin(), classes.end(), found);
    require(place != classes.end() && *place == found, portable_name(where / found), ": no such class to learn from");
    std::vector<fs::path> members;
    for (const auto& entry : fs::recursive_directory_iterator(where / found)) {
      if (entry.is_regular_file() && is_picture_name(entry.path())) members.push_back(entry.path());
    }
    require(!members.empty(), portable_name(where / found), ": no jpg, jpeg or png files in this class");
    std::sort(members.begin(), members.end());
    for (const fs::path& path : members) {
      files.push_back({portable_name(path.lexically_relative(where)),
                       static_cast<std::int32_t>(place - classes.begin()),
                       static_cast<std::uint64_t>(fs::file_size(path))});
      listing += listing_line(path, files.back());
    }
  }
  return {std::move(files), std::move(listing)};
}

/// One picture file at the asked size and channels.
inline image read_for_dataset(const std::filesystem::path& path, const folder_options& options) {
  const image found = read_image(path, options.channels);
  return options.size > 0 ? resize(found, options.size, options.size) : found;
}

/// Decodes all files into `data.pixels`.
inline void decode_all(const std::filesystem::path& where, const std::vector<picture_file>& files,
                       const folder_options& options, dataset& data) {
  const image first = read_for_dataset(where / files.front().name, options);
  data.height = first.height, data.width = first.width;
  const auto n = static_cast<index>(files.size());
  data.pixels.resize(static_cast<std::size_t>(n * data.image_size()));
  constexpr index grain = 64, round = 64 * grain;
  progress_meter meter(options.on_progress, "decode " + portable_name(where), (n + round - 1) / round);
  for (index start = 0; start < n; start += round) {
    const index count = std::min(round, n - start);
    parallel_chunks(options.threads, count, grain, [&](index begin, index end) {
      for (index i = start + begin; i < start + end; ++i) {
        const auto path = where / files[static_cast<std::size_t>(i)].name;
        const image picture = read_for_dataset(path, options);
        require(picture.height == data.height && picture.width == data.width, portable_name(path), ": ", picture.height,
                " x ", picture.width, " pixels, others have ", data.height, " x ", data.width,
                ": choose a size to resize to");
        std::copy(picture.pixels.begin(), picture.pixels.end(), data.pixels.data() + i * data.image_size());
      }
    });
    meter.step();
  }
}

/// Fills `data.pixels` from the cache if it was made from exactly these files, otherwise decodes them and stores that.
/// `choice` tells different choices of files from one folder apart.
inline void decode_or_recall(const std::filesystem::path& where, const std::vector<picture_file>& files,
                             const std::string& listing, const std::string& choice, const folder_options& options,
                             dataset& data) {
  namespace fs = std::filesystem;
  const fs::path& cache = options.cache_folder;
  const std::string key = portable_name(fs::weakly_canonical(where)) + "\tsize " + std::to_string(options.size) +
                          "\tchannels " + std::to_string(options.channels) + choice;
  if (auto stored = load_decoded(cache, key, key + '\n' + listing, options.threads); stored && stored->n == data.n()) {
    data.height = stored->height, data.width = stored->width, data.channels = stored->channels;
    data.pixels = std::move(stored->pixels);
  } else {
    decode_all(where, files, options, data);
    store_decoded(cache, key, key + '\n' + listing, data.n(), data.height, data.width, data.channels, data.pixels,
                  options.threads);
  }
}

}  // namespace detail

/// The pictures of `where`, one folder a class; classes are numbered as in `classes` (sorted), or by name if that is
/// empty. `Error`: no such folder, no pictures, an unknown class, a damaged file, different sizes.
inline dataset load_class_folders(const std::filesystem::path& where, const folder_options& options = {},
                                  std::vector<std::string> classes = {}) {
  namespace fs = std::filesystem;
  require(with_file_errors([&] { return fs::is_directory(where); }), where.string(), ": no such folder of classes");
  require(options.size >= 0 && (options.channels == 1 || options.channels == 3), "load_folder: size ", options.size,
          " with ", options.channels, " channels, expected a size of at least 0 and 1 or 3 channels");
  if (classes.empty()) classes = with_file_errors([&] { return detail::class_folders(where); });
  require(!classes.empty(), where.string(), ": expected one folder a class, found none");
  const auto [files, listing] = with_file_errors([&] { return detail::list_pictures(where, classes); });
  require(!files.empty(), where.string(), ": no jpg, jpeg or png files in its class folders");

  dataset data;
  data.channels = options.channels;
  data.class_names = std::move(classes);
  for (const auto& file : files) {
    data.labels.push_back(file.label);
    data.names.push_back(file.name);
    data.source_bytes.push_back(file.bytes);
  }
  detail::decode_or_recall(where, files, listing, {}, options, data);
  return data;
}

/// The part of DIR to measure on: "test", or "val" if there is no test. `Error`: neither.
inline std::string test_part(const std::filesystem::path& dir) {
  for (const char* part : {"test", "val"}) {
    if (std::filesystem::is_directory(dir / part)) return part;
  }
  fail(dir.string(), ": expected the folder test (or val) in it");
}

namespace detail {

/// The names of class folders; where `dir` has a `classes.tsv` (folder, tab, description), the descriptions.
inline std::vector<std::string> described_classes(const std::filesystem::path& dir, std::vector<std::string> names) {
  std::ifstream table(dir / "classes.tsv");
  std::map<std::string, std::string> described;
  for (std::string line; std::getline(table, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto tab = line.find('\t');
    if (tab != std::string::npos) described[line.substr(0, tab)] = line.substr(tab + 1);
  }
  for (auto& name : names) {
    if (const auto found = described.find(name); found != described.end()) name = found->second;
  }
  return names;
}

inline void check_folder_of_parts(const std::filesystem::path& dir) {
  require(with_file_errors([&] { return std::filesystem::is_directory(dir); }), dir.string(), ": no such folder");
  require(std::filesystem::is_directory(dir / "train"), dir.string(),
          ": expected the folders train and test (or val) in it");
}

}  // namespace detail

/// Reads DIR/train and DIR/test, or DIR/val if there is no test. Classes are numbered by folder name; where DIR has a
/// `classes.tsv` (folder, tab, description), the descriptions become their names. `Error`: see `load_class_folders`.
inline dataset_split load_folder(const std::filesystem::path& dir, const folder_options& options = {}) {
  detail::check_folder_of_parts(dir);
  dataset_split split;
  const auto test = dir / test_part(dir);
  split.train = load_class_folders(dir / "train", options);
  split.test = load_class_folders(test, options, split.train.class_names);
  require(split.train.height == split.test.height && split.train.width == split.test.width, dir.string(),
          ": train has ", split.train.height, " x ", split.train.width, " pixels, test ", split.test.height, " x ",
          split.test.width, ": choose a size to resize to");
  split.train.class_names = split.test.class_names = detail::described_classes(dir, split.train.class_names);
  return split;
}

/// Reads the part to measure on alone; classes are numbered and named as in `load_folder`, by the folders of DIR/train.
inline dataset load_test_folder(const std::filesystem::path& dir, const folder_options& options = {}) {
  detail::check_folder_of_parts(dir);
  const auto classes = with_file_errors([&] { return detail::class_folders(dir / "train"); });
  dataset data = load_class_folders(dir / test_part(dir), options, classes);
  data.class_names = detail::described_classes(dir, classes);
  return data;
}

}  // namespace core_tokensets
