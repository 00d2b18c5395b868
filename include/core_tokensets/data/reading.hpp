#pragma once
// What a reader of picture files found beside the pictures that it read, as a line of text and as JSON.

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// Counts of files. `read` 0: the pictures did not come from files of their own.
struct picture_reading {
  index read = 0;                         ///< pictures that were read
  std::map<std::string, index> left_out;  ///< pictures that were not, by kind: "webp", "damaged", "in no class folder"
  index ignored = 0;                      ///< hidden and tool-made files and folders, which are nobody's pictures
  std::vector<std::string> damaged;       ///< the files behind "damaged"

  index total_left_out() const {
    index total = 0;
    for (const auto& [kind, count] : left_out) total += count;
    return total;
  }
  picture_reading& operator+=(const picture_reading& other) {
    read += other.read, ignored += other.ignored;
    for (const auto& [kind, count] : other.left_out) left_out[kind] += count;
    damaged.insert(damaged.end(), other.damaged.begin(), other.damaged.end());
    return *this;
  }
  bool operator==(const picture_reading&) const = default;
};

/// "webp 2, tiff 1", the most frequent kind first.
inline std::string kinds_left_out(const picture_reading& found) {
  std::vector<std::pair<std::string, index>> kinds(found.left_out.begin(), found.left_out.end());
  std::stable_sort(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string all;
  for (const auto& [kind, count] : kinds) all += (all.empty() ? "" : ", ") + kind + " " + std::to_string(count);
  return all;
}

/// "read 57 pictures, left out 3 (webp 2, tiff 1), ignored 1 hidden or tool-made"; what is 0 is not said.
inline std::string text_of(const picture_reading& found) {
  std::string text = "read " + std::to_string(found.read) + (found.read == 1 ? " picture" : " pictures");
  if (const index n = found.total_left_out(); n > 0)
    text += ", left out " + std::to_string(n) + " (" + kinds_left_out(found) + ")";
  if (found.ignored > 0) text += ", ignored " + std::to_string(found.ignored) + " hidden or tool-made";
  return text;
}

inline json to_json(const picture_reading& found) {
  return json{
      {"read", found.read}, {"left_out", found.left_out}, {"ignored", found.ignored}, {"damaged", found.damaged}};
}

/// What `to_json` wrote.
inline picture_reading picture_reading_from_json(const json& j) {
  return {.read = j.at("read").get<index>(),
          .left_out = j.at("left_out").get<std::map<std::string, index>>(),
          .ignored = j.at("ignored").get<index>(),
          .damaged = j.at("damaged").get<std::vector<std::string>>()};
}

}  // namespace core_tokensets
