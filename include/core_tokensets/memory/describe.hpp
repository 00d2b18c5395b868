#pragma once
// What a person wants to know about a memory: what is in it, and whether its file is whole.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/json.hpp"
#include "core_tokensets/memory/token_memory.hpp"

namespace core_tokensets {

/// Numbers of a memory: samples, tokens, bytes, where they go, counts by class and task, format and metadata.
inline json describe(const token_memory& memory) {
  const auto& arrays = memory.arrays();
  const auto& f = memory.format();
  std::map<std::string, index> tokens_per_task, samples_per_task, samples_per_class;
  index fewest = 0, most = 0, whole = 0;
  for (index s = 0; s < memory.samples(); ++s) {
    const index n = arrays.tokens_of(s);
    const std::string number = std::to_string(arrays.tasks[static_cast<std::size_t>(s)]);
    fewest = s == 0 ? n : std::min(fewest, n);
    most = std::max(most, n);
    whole += n == f.grid.tokens();
    ++samples_per_class[std::to_string(arrays.targets[static_cast<std::size_t>(s)])];
    ++samples_per_task[number];
    tokens_per_task[number] += n;
  }
  json bytes_per_array = json::object();
  index data_bytes = 0;
  for (const auto& array : memory.layout()) {
    const index size = checked_byte_count(array.type, array.shape).value();
    bytes_per_array[array.name] = size;
    data_bytes += size;
  }
  const index total = memory.bytes_on_disk();
  bytes_per_array["header"] = total - data_bytes;
  const auto per = [](index a, index b) { return b == 0 ? 0.0 : static_cast<double>(a) / static_cast<double>(b); };
  return {{"samples", memory.samples()},
          {"tokens", memory.tokens()},
          {"bytes", total},
          {"bytes_per_array", bytes_per_array},
          {"bytes_of_raw_images", memory.samples() * f.grid.size()},
          {"tokens_per_sample", {{"mean", per(memory.tokens(), memory.samples())}, {"fewest", fewest}, {"most", most}}},
          {"kept_fraction", per(memory.tokens(), memory.samples() * f.grid.tokens())},
          {"whole_images", whole},
          {"samples_per_class", samples_per_class},
          {"samples_per_task", samples_per_task},
          {"tokens_per_task", tokens_per_task},
          {"image", {f.grid.height, f.grid.width, f.grid.channels}},
          {"patch", f.grid.patch},
          {"codec", memory.codec().text()},
          {"relevance", detail::option_text(f.relevance)},
          {"metadata", memory.metadata()}};
}

/// Everything that is wrong with a memory's file, one line each, naming the array; empty means whole. Never throws for
/// what the file holds.
template <patch_codec... Codecs>
std::vector<std::string> verify_token_memory(const std::filesystem::path& path, const Codecs&... codecs) {
  try {
    auto problems = detail::memory_file_problems(load_safetensors(path));
    if (problems.empty()) (void)load_token_memory(path, codecs...);
    return problems;
  } catch (const Error& e) {
    return {e.what()};
  } catch (const std::bad_alloc&) {
    return {path.string() + ": describes more than fits in memory"};
  }
}

}  // namespace core_tokensets
