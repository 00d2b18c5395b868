#pragma once
// The data sets of questions and captions that the command line names.

#include <string>

#include "core_tokensets/data/text_tasks.hpp"

namespace cts_command {

/// What to read: `sets` as in --data, names with commas between; `captions` instead of questions.
struct text_data_request {
  std::string sets = "scenes";
  bool captions = false;
  std::ptrdiff_t image = 64;                       ///< side of the pictures
  std::ptrdiff_t pictures = 0, test_pictures = 0;  ///< of each set, 0: all
  std::uint64_t seed = 0;
  int threads = 0;
};

/// Several sets are a task each; the groups of a single one are its tasks (`tasks` of them, or each group one if 0).
core_tokensets::text_stream read_text_tasks(const text_data_request& request, std::ptrdiff_t tasks);

}  // namespace cts_command
