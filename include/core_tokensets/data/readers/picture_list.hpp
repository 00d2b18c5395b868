#pragma once
// Pictures that a list names, where no folder tells their class: questions and captions say what they show.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/readers/decode_files.hpp"
#include "core_tokensets/io/checksum.hpp"

namespace core_tokensets {

/// A picture file, relative to its folder, and how messages name it ("image 42").
struct listed_picture {
  std::string file, what;
};

/// The pictures of `folder` in the order of `list`, all of the one class "picture"; resized, converted and cached as
/// the options say. `Error`: an empty list, a file that is missing (it and its id are named), damaged files (all
/// are named), different sizes.
inline dataset load_pictures(const std::filesystem::path& folder, std::span<const listed_picture> list,
                             const folder_options& options = {}) {
  require(!list.empty(), folder.string(), ": no pictures are asked for");
  require(options.size >= 0 && (options.channels == 1 || options.channels == 3), "load_pictures: size ", options.size,
          " with ", options.channels, " channels, expected a size of at least 0 and 1 or 3 channels");
  dataset data;
  data.channels = options.channels;
  data.class_names = {"picture"};
  data.labels.assign(list.size(), 0);
  require(!options.skip_damaged,
          "load_pictures: texts are about all pictures of a list; skip_damaged is for folders of classes");
  std::vector<detail::picture_file> files;
  std::uint64_t chosen = fnv1a({});
  for (const auto& [file, what] : list) {
    const auto path = folder / file;
    std::error_code missing;
    require(std::filesystem::is_regular_file(path, missing), path.string(), ": no such picture (", what, ")");
    files.push_back(detail::picture_file_of(folder, file, 0));
    const std::string line = file + '\n';
    chosen = fnv1a(std::as_bytes(std::span(line)), chosen);
    data.names.push_back(file);
    data.source_bytes.push_back(files.back().bytes);
  }
  const auto problems = detail::decode_or_recall(folder, files, "\tlist " + checksum_text(chosen), options, data);
  detail::refuse_problems(problems, "");
  data.reading.read = data.n();
  return data;
}

}  // namespace core_tokensets
