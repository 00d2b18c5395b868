#pragma once
// A memory for people and for other tools: one PNG a sample, and all its numbers as JSON.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/io/atomic_folder.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/memory/describe.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/report/kept_tokens.hpp"

namespace core_tokensets {

struct memory_export_options {
  std::vector<std::string> class_names = {};  ///< of the targets 0, 1, ..; a target beyond them has no name
  index side = 128;                           ///< small pictures are enlarged, by a whole number, up to this side
  std::string source = {};                    ///< where the memory came from, for `samples.json`
};

namespace detail {

/// "sample-007.png": as many digits as the last of `count` samples has.
inline std::string sample_file_name(index s, index count) {
  const auto digits = std::to_string(std::max<index>(count - 1, 0)).size();
  const std::string number = std::to_string(s);
  return "sample-" + std::string(digits - number.size(), '0') + number + ".png";
}

/// Every number as it is stored (a float read back from the JSON is the same float).
inline json sample_to_json(const token_memory& memory, index s, const std::string& file,
                           const std::vector<std::string>& names) {
  const auto sample = memory.sample(s);
  const auto target = static_cast<std::size_t>(sample.target);
  json entry{{"index", s},
             {"file", file},
             {"target", sample.target},
             {"class_name", nullptr},
             {"weight", sample.weight},
             {"task", sample.task},
             {"positions", std::vector<std::uint16_t>(sample.positions.begin(), sample.positions.end())},
             {"relevance", nullptr}};
  if (sample.target >= 0 && target < names.size()) entry["class_name"] = names[target];
  if (memory.format().relevance != relevance_storage::none)
    entry["relevance"] = std::vector<float>(sample.relevance.begin(), sample.relevance.end());
  if (memory.format().texts) entry["prompt"] = sample.prompt, entry["answer"] = sample.answer;
  return entry;
}

}  // namespace detail

/// Makes the folder `out` with `sample-<s>.png` for every sample, and `samples.json`: the format, the metadata, and for
/// each sample its index, file, target, class name (null if unknown), weight, task, positions (row-major in `grid`) and
/// relevance (null in a memory that keeps none), and where it keeps texts prompt and answer. All or nothing; `Error`:
/// `out` is there and not empty.
inline void export_memory(const token_memory& memory, const std::filesystem::path& out,
                          const memory_export_options& options = {}) {
  const auto& f = memory.format();
  require(options.side > 0, "memory export: pictures of side ", options.side, ", expected more than 0");
  const index zoom = std::max<index>(1, options.side / std::max(f.grid.height, f.grid.width));
  const json about{{"source", options.source},
                   {"image", {f.grid.height, f.grid.width, f.grid.channels}},
                   {"patch", f.grid.patch},
                   {"grid", {f.grid.rows(), f.grid.cols()}},
                   {"zoom", zoom},
                   {"codec", memory.codec().text()},
                   {"relevance", describe(memory)["relevance"]},
                   {"metadata", memory.metadata()}};
  write_folder(out, [&](const std::filesystem::path& folder) {
    std::string text = about.dump(1);
    text.replace(text.size() - 2, 2, ",\n \"samples\": [");  // in place of "\n}"; then one line a sample
    for (index s = 0; s < memory.samples(); ++s) {
      const std::string file = detail::sample_file_name(s, memory.samples());
      write_png(folder / file, enlarge(picture_of(memory, s), zoom));
      text += (s > 0 ? ",\n  " : "\n  ") + detail::sample_to_json(memory, s, file, options.class_names).dump();
    }
    write_file(folder / "samples.json", std::string_view(text + "\n ]\n}\n"));
  });
}

}  // namespace core_tokensets
