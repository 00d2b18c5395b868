#pragma once
// Which files of a folder of classes are pictures to read, which are pictures that nobody reads, and which are
// nobody's.

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/picture_format.hpp"
#include "core_tokensets/data/reading.hpp"

namespace core_tokensets::detail {

/// A path as messages and caches name it, the same on every system.
inline std::string portable_name(const std::filesystem::path& path) { return path.generic_string(); }

inline std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// True for hidden files and folders, and for those that systems and network drives leave beside pictures.
inline bool is_ignored_name(const std::filesystem::path& path) {
  constexpr std::array<std::string_view, 11> made_by_tools{"@eadir",
                                                           "@tmp",
                                                           "#recycle",
                                                           "@recycle",
                                                           "__macosx",
                                                           "thumbs.db",
                                                           "ehthumbs.db",
                                                           "desktop.ini",
                                                           "$recycle.bin",
                                                           "lost+found",
                                                           "system volume information"};
  const std::string name = lower_case(path.filename().string());
  return name.starts_with('.') || std::find(made_by_tools.begin(), made_by_tools.end(), name) != made_by_tools.end();
}

/// The ending of a name without its point, in lower case.
inline std::string ending_of(const std::filesystem::path& path) {
  const std::string ending = lower_case(path.extension().string());
  return ending.empty() ? ending : ending.substr(1);
}

/// True for names that end as the files that are read do.
inline bool is_picture_name(const std::filesystem::path& path) {
  constexpr std::array<std::string_view, 7> endings{"jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp"};
  return std::find(endings.begin(), endings.end(), ending_of(path)) != endings.end();
}

/// What kind of picture a file is that is not read: by its ending, or else by how it begins. Empty: no picture.
inline std::string kind_left_out(const std::filesystem::path& path) {
  static const std::map<std::string, std::string> kinds{
      {"webp", "webp"}, {"tif", "tiff"}, {"tiff", "tiff"}, {"heic", "heic"}, {"heif", "heic"}, {"avif", "avif"},
      {"jxl", "jxl"},   {"jp2", "jp2"},  {"jpf", "jp2"},   {"j2k", "jp2"},   {"svg", "svg"},   {"psd", "psd"},
      {"xcf", "xcf"},   {"ico", "ico"},  {"tga", "tga"},   {"ppm", "pnm"},   {"pgm", "pnm"},   {"pbm", "pnm"},
      {"pnm", "pnm"},   {"hdr", "hdr"},  {"exr", "exr"},   {"dng", "raw"},   {"cr2", "raw"},   {"cr3", "raw"},
      {"nef", "raw"},   {"arw", "raw"},  {"orf", "raw"},   {"rw2", "raw"},   {"raf", "raw"},   {"dcm", "dicom"}};
  constexpr std::array<std::string_view, 7> texts{"txt", "csv", "tsv", "json", "xml", "md", "html"};
  const std::string ending = ending_of(path);
  if (const auto known = kinds.find(ending); known != kinds.end()) return known->second;
  if (std::find(texts.begin(), texts.end(), ending) != texts.end()) return {};
  std::array<char, 32> begin{};
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), begin.size());
  const auto format =
      format_of({reinterpret_cast<const std::uint8_t*>(begin.data()), static_cast<std::size_t>(file.gcount())});
  return format == picture_format::none ? "" : lower_case(std::string(name_of(format))) + " of another ending";
}

/// The folders in `where` by name; hidden and tool-made ones do not count.
inline std::vector<std::string> class_folders(const std::filesystem::path& where) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(where)) {
    if (entry.is_directory() && !is_ignored_name(entry.path())) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct picture_file {
  std::string name;  ///< relative to the folder of classes
  std::int32_t label = 0;
  std::uint64_t bytes = 0;
  std::string line;  ///< what a cache remembers of it: its name, size and time
};

/// A file of the folder `where`. One that is not there (a link to nowhere) has no bytes; who reads it is told.
inline picture_file picture_file_of(const std::filesystem::path& where, std::string name, std::int32_t label) {
  std::error_code missing, timeless;
  const auto path = where / name;
  const auto bytes = std::filesystem::file_size(path, missing);
  const auto time = std::filesystem::last_write_time(path, timeless);
  picture_file file{std::move(name), label, missing ? 0 : static_cast<std::uint64_t>(bytes), {}};
  file.line = file.name + '\t' + std::to_string(file.bytes) + '\t' +
              std::to_string(timeless ? 0 : time.time_since_epoch().count()) + '\n';
  return file;
}

/// The lines of all files.
inline std::string listing_of(std::span<const picture_file> files) {
  std::string all;
  for (const picture_file& file : files) all += file.line;
  return all;
}

/// Pictures below a folder that are read, and what else was found there.
struct folder_listing {
  std::vector<picture_file> files;
  picture_reading found;
};

/// Adds the pictures below `where / of_class`, by name.
inline void list_class(const std::filesystem::path& where, const std::string& of_class, std::int32_t label,
                       folder_listing& listing) {
  namespace fs = std::filesystem;
  std::vector<fs::path> members;
  for (auto entry = fs::recursive_directory_iterator(where / of_class); entry != fs::end(entry); ++entry) {
    const fs::path& path = entry->path();
    std::error_code ignored;  // of links that lead to nowhere or in a circle: they are read, and told as damaged
    const bool folder = entry->is_directory(ignored), file = entry->is_regular_file(ignored);
    if (is_ignored_name(path)) {
      ++listing.found.ignored;
      if (folder) entry.disable_recursion_pending();
    } else if (folder) {
      if (entry->is_symlink()) ++listing.found.left_out["linked folder"];  // it may lead in a circle
    } else if (is_picture_name(path) && (file || entry->is_symlink())) {
      members.push_back(path);
    } else if (file) {
      if (const auto kind = kind_left_out(path); !kind.empty()) ++listing.found.left_out[kind];
    }
  }
  std::sort(members.begin(), members.end());
  for (const fs::path& path : members)
    listing.files.push_back(picture_file_of(where, portable_name(path.lexically_relative(where)), label));
}

/// All pictures below `where`, class by class and by name. `Error`: a folder that is none of `classes`, a link to
/// nowhere in the place of one, and, where `all_needed`, a class without a picture to read.
inline folder_listing list_pictures(const std::filesystem::path& where, const std::vector<std::string>& classes,
                                    bool all_needed) {
  folder_listing listing;
  for (const auto& entry : std::filesystem::directory_iterator(where)) {
    if (is_ignored_name(entry.path())) {
      ++listing.found.ignored;
    } else if (entry.is_symlink() && !entry.exists()) {
      fail(portable_name(entry.path()), ": a link that leads nowhere, perhaps to a drive that is not there");
    } else if (entry.is_regular_file() && (is_picture_name(entry.path()) || !kind_left_out(entry.path()).empty())) {
      ++listing.found.left_out["in no class folder"];
    }
  }
  for (const std::string& found : class_folders(where)) {
    const auto place = std::lower_bound(classes.begin(), classes.end(), found);
    require(place != classes.end() && *place == found, portable_name(where / found), ": no such class to learn from");
    const std::size_t before = listing.files.size();
    list_class(where, found, static_cast<std::int32_t>(place - classes.begin()), listing);
    if (!all_needed || listing.files.size() > before) continue;
    const std::string others = kinds_left_out(listing.found);
    fail(portable_name(where / found), ": no jpg, jpeg, png, gif or bmp files in this class",
         others.empty() ? "" : "; left out so far: " + others);
  }
  listing.found.read = static_cast<index>(listing.files.size());
  return listing;
}

}  // namespace core_tokensets::detail
