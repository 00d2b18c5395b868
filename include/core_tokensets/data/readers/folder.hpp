#pragma once
// Pictures from folders: DIR/train and DIR/test (or DIR/val), in each one folder a class, in it JPEG, PNG, GIF and BMP
// files. What else lies there is counted, not lost.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/readers/decode_files.hpp"
#include "core_tokensets/data/readers/folder_listing.hpp"
#include "core_tokensets/io/atomic_file.hpp"

namespace core_tokensets {

namespace detail {

inline constexpr const char* damaged_advice = " (the option skip_damaged, --skip-damaged, goes on without)";

/// `Error` where a class has no picture left.
inline void check_classes(const std::filesystem::path& where, const dataset& data) {
  for (const index k : classes_without_pictures(data)) {
    fail(portable_name(where / data.class_names[static_cast<std::size_t>(k)]),
         ": none of the pictures in this class can be read");
  }
}

/// `load_class_folders`; what is wrong with files is told in `problems`, and without `skip_damaged` there are no pixels
/// then.
inline dataset read_class_folders(const std::filesystem::path& where, const folder_options& options,
                                  std::vector<std::string> classes, file_problems& problems) {
  namespace fs = std::filesystem;
  const bool all_needed = classes.empty();
  require(with_file_errors([&] { return fs::is_directory(where); }), where.string(), ": no such folder of classes");
  require(options.size >= 0 && (options.channels == 1 || options.channels == 3), "load_folder: size ", options.size,
          " with ", options.channels, " channels, expected a size of at least 0 and 1 or 3 channels");
  if (all_needed) classes = with_file_errors([&] { return class_folders(where); });
  require(!classes.empty(), where.string(), ": expected one folder a class, found none");
  auto [files, found] = with_file_errors([&] { return list_pictures(where, classes, all_needed); });
  require(!files.empty(), where.string(), ": no jpg, jpeg, png, gif or bmp files in its class folders");

  dataset data;
  data.channels = options.channels;
  data.class_names = std::move(classes);
  const auto all = files;
  problems = decode_or_recall(where, files, {}, options, data);
  for (const auto& file : files) {
    data.labels.push_back(file.label);
    data.names.push_back(file.name);
    data.source_bytes.push_back(file.bytes);
  }
  for (std::size_t i = 0; i < problems.size(); ++i) {
    if (!problems[i].empty()) found.damaged.push_back(portable_name(where / all[i].name));
  }
  if (!found.damaged.empty()) found.left_out["damaged"] = static_cast<index>(found.damaged.size());
  found.read = data.n();
  data.reading = std::move(found);
  if (!options.skip_damaged) return data;
  require(data.n() > 0, where.string(), ": none of its pictures can be read");
  if (all_needed) check_classes(where, data);
  return data;
}

}  // namespace detail

/// The pictures of `where`, one folder a class; classes are numbered as in `classes` (sorted; some may be without
/// pictures), or by name if that is empty. `reading` says what was left out. `Error`: no such folder, no pictures, an
/// unknown class, damaged files (all are named, unless `skip_damaged`), different sizes.
inline dataset load_class_folders(const std::filesystem::path& where, const folder_options& options = {},
                                  std::vector<std::string> classes = {}) {
  detail::file_problems problems;
  dataset data = detail::read_class_folders(where, options, std::move(classes), problems);
  if (!options.skip_damaged) detail::refuse_problems(problems, detail::damaged_advice);
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
  detail::file_problems problems, of_test;
  split.train = detail::read_class_folders(dir / "train", options, {}, problems);
  split.test = detail::read_class_folders(test, options, split.train.class_names, of_test);
  problems.insert(problems.end(), of_test.begin(), of_test.end());
  if (!options.skip_damaged) detail::refuse_problems(problems, detail::damaged_advice);
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
