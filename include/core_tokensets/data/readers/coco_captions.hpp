#pragma once
// Captions in the JSON files of COCO (Chen et al. 2015): pictures, about five captions each, and, from the instances of
// the same pictures, the super-category that each mostly shows.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/json_records.hpp"
#include "core_tokensets/data/readers/picture_list.hpp"
#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

struct coco_captions_options {
  std::filesystem::path instances = {};  ///< the file of instances; empty: all pictures are of the group "picture"
  index limit = 0;                       ///< at most so many pictures, the first in the file; 0: all
  folder_options pictures{.size = 64};
};

namespace detail {

/// What a file of instances says: the super-category of each picture's most frequent category (of several the one with
/// the smallest id), and all super-categories in the order of their categories.
inline std::unordered_map<std::int64_t, std::int32_t> coco_groups(const std::filesystem::path& instances,
                                                                  std::vector<std::string>& names) {
  std::unordered_map<std::int64_t, std::map<std::int64_t, index>> counts;
  std::map<std::int64_t, std::string> categories;
  for_each_json_record(instances, {"annotations", "categories"}, [&](std::string_view list, const json_record& r) {
    if (list == "categories") {
      const auto id = r.get<std::int64_t>("id");
      require(categories.emplace(id, r.get<std::string>("supercategory")).second, r.where, ": category ", id,
              " came before");
    } else {
      ++counts[r.get<std::int64_t>("image_id")][r.get<std::int64_t>("category_id")];
    }
  });
  std::map<std::int64_t, std::int32_t> numbers;
  for (const auto& [id, super] : categories) numbers[id] = merge_names({super}, names)[0];
  std::unordered_map<std::int64_t, std::int32_t> groups;
  for (const auto& [image, found] : counts) {
    index most = 0;
    for (const auto& [category, count] : found) {
      const auto number = numbers.find(category);
      require(number != numbers.end(), instances.string(), ": image ", image, " shows category ", category,
              ", which is not listed");
      if (count <= most) continue;
      most = count;
      groups[image] = number->second;
    }
  }
  return groups;
}

}  // namespace detail

/// One sample a picture, its captions as answers, in the order of {"images": [{"id", "file_name"}], "annotations":
/// [{"image_id", "caption"}]}; pictures without a caption are left out. With instances {"annotations": [{"image_id",
/// "category_id"}], "categories": [{"id", "supercategory"}]} the groups are super-categories, and "none" where a
/// picture has no instances. `Error` naming file and id: wrong types, an id twice, a caption or instance of something
/// that is not listed, a missing picture.
inline visual_text load_coco_captions(const std::filesystem::path& captions, const std::filesystem::path& pictures,
                                      const coco_captions_options& options = {}) {
  require(options.limit >= 0, "coco: a limit of ", options.limit, " pictures");
  std::vector<std::pair<std::int64_t, std::string>> listed;  // ids and files
  std::unordered_map<std::int64_t, std::vector<std::string>> texts;
  detail::for_each_json_record(captions, {"images", "annotations"},
                               [&](std::string_view list, const detail::json_record& r) {
                                 if (list == "images") {
                                   listed.emplace_back(r.get<std::int64_t>("id"), r.get<std::string>("file_name"));
                                 } else {
                                   texts[r.get<std::int64_t>("image_id")].push_back(r.get<std::string>("caption"));
                                 }
                               });
  visual_text text;
  std::unordered_map<std::int64_t, std::int32_t> groups;
  if (options.instances.empty()) {
    text.group_names = {"picture"};
  } else {
    groups = detail::coco_groups(options.instances, text.group_names);
  }
  std::unordered_map<std::int64_t, bool> known;
  std::vector<listed_picture> list;
  for (const auto& [id, file] : listed) {
    require(known.emplace(id, true).second, captions.string(), ": image ", id, " is listed twice");
    const auto written = texts.find(id);
    if (written == texts.end() || (options.limit > 0 && static_cast<index>(list.size()) >= options.limit)) continue;
    visual_text_sample sample{static_cast<index>(list.size()), "", std::move(written->second), 0};
    if (!options.instances.empty()) {
      const auto group = groups.find(id);
      sample.group = group != groups.end() ? group->second : detail::merge_names({"none"}, text.group_names)[0];
    }
    text.samples.push_back(std::move(sample));
    list.push_back({file, "image " + std::to_string(id)});
  }
  for (const auto& [id, written] : texts) {
    require(known.contains(id), captions.string(), ": a caption is about image ", id, ", which is not listed");
  }
  require(!list.empty(), captions.string(), ": no pictures with captions");
  text.images = load_pictures(pictures, list, options.pictures);
  return text;
}

}  // namespace core_tokensets
