#pragma once
// Picture files as the pixels of a data set: decoded in parallel or recalled from a cache. Files that cannot be read
// are all found before any of them is told.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/progress.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/readers/cache.hpp"
#include "core_tokensets/data/readers/folder_listing.hpp"

namespace core_tokensets {

struct folder_options {
  index size = 0;      ///< height and width to resize to; 0: as they are, all must be of one size
  index channels = 3;  ///< 3 or 1; others are converted
  /// Where decoded pictures are kept for the next time (`default_cache_folder()`); empty: nowhere.
  std::filesystem::path cache_folder = {};
  int threads = 0;
  progress_callback on_progress = {};
  bool skip_damaged = false;  ///< folders of classes: go on without files that cannot be read, and count them
};

namespace detail {

/// One picture file at the asked size and channels.
inline image read_for_dataset(const std::filesystem::path& path, const folder_options& options) {
  const image found = read_image(path, options.channels);
  return options.size > 0 ? resize(found, options.size, options.size) : found;
}

/// What is wrong with each file, by its place; empty: nothing.
using file_problems = std::vector<std::string>;

inline index count_problems(const file_problems& problems) {
  return std::count_if(problems.begin(), problems.end(), [](const std::string& p) { return !p.empty(); });
}

/// `Error` with the first 20 problems, and how many more there are, unless there are none. `advice` follows.
inline void refuse_problems(const file_problems& problems, const std::string& advice) {
  constexpr index most = 20;
  const index count = count_problems(problems);
  if (count == 0) return;
  std::string told;
  index n = 0;
  for (const std::string& problem : problems) {
    if (!problem.empty() && n++ < most) told += (told.empty() ? "" : "; ") + problem;
  }
  if (count > 1) told = std::to_string(count) + " pictures cannot be read: " + told;
  if (count > most) told += "; and " + std::to_string(count - most) + " more";
  fail(told, advice);
}

/// The size of all pictures: the one that is asked for, or that of the first file that can be read.
inline void find_size(const std::filesystem::path& where, const std::vector<picture_file>& files,
                      const folder_options& options, dataset& data) {
  data.height = data.width = options.size;
  for (std::size_t i = 0; i < files.size() && data.height == 0; ++i) {
    try {
      const image first = read_for_dataset(where / files[i].name, options);
      data.height = first.height, data.width = first.width;
    } catch (const Error&) {
      continue;  // told with all others
    }
  }
}

/// Decodes all files into `data.pixels`, and says what is wrong with those that cannot be read. `Error`: all can, but
/// have different sizes.
inline file_problems decode_all(const std::filesystem::path& where, const std::vector<picture_file>& files,
                                const folder_options& options, dataset& data) {
  find_size(where, files, options, data);
  const auto n = static_cast<index>(files.size());
  data.pixels.resize(static_cast<std::size_t>(n * data.image_size()));
  file_problems problems(files.size()), other_sizes(files.size());
  constexpr index grain = 64, round = 64 * grain;
  progress_meter meter(options.on_progress, "decode " + portable_name(where), (n + round - 1) / round);
  for (index start = 0; start < n; start += round) {
    const index count = std::min(round, n - start);
    parallel_chunks(options.threads, count, grain, [&](index begin, index end) {
      for (index i = start + begin; i < start + end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const auto path = where / files[at].name;
        try {
          const image picture = read_for_dataset(path, options);
          if (picture.height == data.height && picture.width == data.width) {
            std::copy(picture.pixels.begin(), picture.pixels.end(), data.pixels.data() + i * data.image_size());
          } else {
            other_sizes[at] = portable_name(path) + ": " + std::to_string(picture.height) + " x " +
                              std::to_string(picture.width) + " pixels";
          }
        } catch (const Error& error) {
          problems[at] = error.what();
        }
      }
    });
    meter.step();
  }
  const auto odd = std::find_if(other_sizes.begin(), other_sizes.end(), [](const auto& o) { return !o.empty(); });
  const bool refused = count_problems(problems) > 0 && !options.skip_damaged;
  require(refused || odd == other_sizes.end(), odd == other_sizes.end() ? "" : *odd, ", others have ", data.height,
          " x ", data.width, ": choose a size to resize to");
  return problems;
}

/// Takes files with a problem out of the list, and their pixels out of the data.
inline void leave_out(const file_problems& problems, std::vector<picture_file>& files, dataset& data) {
  const auto size = static_cast<std::size_t>(data.image_size());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!problems[i].empty()) continue;
    if (kept != i && !data.pixels.empty())
      std::copy_n(data.pixels.data() + i * size, size, data.pixels.data() + kept * size);
    if (kept != i) files[kept] = std::move(files[i]);
    ++kept;
  }
  files.resize(kept);
  if (!data.pixels.empty()) data.pixels.resize(kept * size);
}

/// A folder's decoded pictures between two runs. The key names folder and options, the listing the files.
struct folder_cache {
  const folder_options& options;
  std::string key;

  std::string head(const std::vector<picture_file>& files) const { return key + '\n' + listing_of(files); }

  bool recall(const std::vector<picture_file>& files, dataset& data) const {
    auto stored = load_decoded(options.cache_folder, key, head(files), options.threads);
    if (!stored || stored->n != static_cast<index>(files.size())) return false;
    data.height = stored->height, data.width = stored->width, data.channels = stored->channels;
    data.pixels = std::move(stored->pixels);
    return true;
  }
  void store(const std::vector<picture_file>& files, const dataset& data) const {
    store_decoded(options.cache_folder, key, head(files), static_cast<index>(files.size()), data.height, data.width,
                  data.channels, data.pixels, options.threads);
  }

  /// What was wrong with some of these files the last time, if it still is.
  file_problems recall_damaged(const std::filesystem::path& where, const std::vector<picture_file>& files) const {
    const auto stored = load_decoded(options.cache_folder, key + "\tdamaged", head(files), options.threads);
    if (!stored || stored->pixels.size() != files.size()) return {};
    file_problems problems(files.size());
    for (std::size_t i = 0; i < files.size(); ++i) {
      if (stored->pixels[i] == 0) continue;
      try {
        read_for_dataset(where / files[i].name, options);
        return {};  // whatever kept it from being read is over
      } catch (const Error& error) {
        problems[i] = error.what();
      }
    }
    return problems;
  }
  void store_damaged(const std::vector<picture_file>& files, const file_problems& problems) const {
    std::vector<std::uint8_t> marks;
    for (const auto& problem : problems) marks.push_back(problem.empty() ? 0 : 1);
    store_decoded(options.cache_folder, key + "\tdamaged", head(files), static_cast<index>(files.size()), 1, 1, 1,
                  marks, options.threads);
  }
};

/// Fills `data.pixels` from the cache if it was made from exactly these files, otherwise decodes them and stores that.
/// `choice` tells different choices of files from one folder apart. Returns what is wrong with each file: where there
/// is something, `skip_damaged` has taken these out of `files`, and without it there are no pixels.
inline file_problems decode_or_recall(const std::filesystem::path& where, std::vector<picture_file>& files,
                                      const std::string& choice, const folder_options& options, dataset& data) {
  const folder_cache cache{options, portable_name(std::filesystem::weakly_canonical(where)) + "\tsize " +
                                        std::to_string(options.size) + "\tchannels " +
                                        std::to_string(options.channels) + choice};
  if (cache.recall(files, data)) return {};
  if (options.skip_damaged) {
    auto known = cache.recall_damaged(where, files);
    auto rest = files;
    if (!known.empty()) leave_out(known, rest, data);
    if (!known.empty() && cache.recall(rest, data)) {
      files = std::move(rest);
      return known;
    }
  }
  auto problems = decode_all(where, files, options, data);
  const index damaged = count_problems(problems);
  if (damaged > 0 && !options.skip_damaged) return problems;
  if (damaged > 0) {
    cache.store_damaged(files, problems);
    leave_out(problems, files, data);
  }
  if (!files.empty()) cache.store(files, data);
  return problems;
}

}  // namespace detail
}  // namespace core_tokensets
