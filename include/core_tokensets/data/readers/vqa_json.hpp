#pragma once
// Visual question answering in the JSON files of VQA v2 (Goyal et al. 2017): questions, annotations with ten answers
// each, and a folder of pictures named by their ids.

#include <algorithm>
#include <cstdint>
#include <filesystem>
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

struct vqa_json_options {
  std::string pattern = "COCO_train2014_{:012}.jpg";  ///< file name of a picture: {} its id, {:0N} in N digits
  index limit = 0;                                    ///< at most so many pictures, the first asked about; 0: all
  folder_options pictures{.size = 64};
};

namespace detail {

/// `pattern` with its one pair of braces replaced by `id`. `Error`: no or another pair of braces.
inline std::string name_of_picture(std::string_view pattern, std::int64_t id) {
  const auto open = pattern.find('{'), close = pattern.find('}');
  require(open != pattern.npos && close != pattern.npos && open < close, "vqa: pattern '", pattern,
          "', expected {} or {:0N} where the id goes");
  const auto format = pattern.substr(open + 1, close - open - 1);
  std::string digits = std::to_string(id);
  if (!format.empty()) {
    const bool valid = format.size() >= 3 && format.size() <= 4 && format.substr(0, 2) == ":0" &&
                       format.find_first_not_of("0123456789", 2) == format.npos;
    require(valid, "vqa: pattern '", pattern, "', expected {} or {:0N} where the id goes");
    const auto width = static_cast<std::size_t>(std::stoi(std::string(format.substr(2))));
    if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
  }
  return std::string(pattern.substr(0, open)) + digits + std::string(pattern.substr(close + 1));
}

/// Numbers pictures by their ids in the order in which they come.
class picture_numbers {
 public:
  /// The number of picture `id`; -1 if it is new and there are `limit` already (0: no limit).
  index number(std::int64_t id, index limit = 0) {
    if (const auto found = numbers_.find(id); found != numbers_.end()) return found->second;
    if (limit > 0 && static_cast<index>(ids_.size()) >= limit) return -1;
    numbers_.emplace(id, static_cast<index>(ids_.size()));
    ids_.push_back(id);
    return static_cast<index>(ids_.size()) - 1;
  }
  const std::vector<std::int64_t>& ids() const { return ids_; }

 private:
  std::unordered_map<std::int64_t, index> numbers_;
  std::vector<std::int64_t> ids_;
};

}  // namespace detail

/// Questions {"questions": [{"question_id", "image_id", "question"}]} with annotations {"annotations": [{"question_id",
/// "image_id", "answer_type", "answers": [{"answer"}]}]}, other members are ignored, as are annotations of questions
/// that are not asked; the groups are the types of answers. `Error` naming file and id: wrong types, an id twice, a
/// question without annotation, an annotation of another picture or without answers, a missing picture.
inline visual_text load_vqa_json(const std::filesystem::path& questions, const std::filesystem::path& annotations,
                                 const std::filesystem::path& pictures, const vqa_json_options& options = {}) {
  require(options.limit >= 0, "vqa: a limit of ", options.limit, " pictures");
  visual_text text;
  detail::picture_numbers numbers;
  std::unordered_map<std::int64_t, std::size_t> places;  // of the questions among our samples
  std::vector<std::int64_t> ids;
  detail::for_each_json_record(questions, {"questions"}, [&](std::string_view, const detail::json_record& r) {
    const auto id = r.get<std::int64_t>("question_id");
    const index image = numbers.number(r.get<std::int64_t>("image_id"), options.limit);
    auto question = r.get<std::string>("question");
    if (image < 0) return;
    require(places.emplace(id, text.samples.size()).second, r.where, ": question ", id, " came before");
    ids.push_back(id);
    text.samples.push_back({image, std::move(question), {}, 0});
  });
  require(!text.samples.empty(), questions.string(), ": no questions");
  detail::for_each_json_record(annotations, {"annotations"}, [&](std::string_view, const detail::json_record& r) {
    const auto id = r.get<std::int64_t>("question_id");
    const auto place = places.find(id);
    if (place == places.end()) return;
    auto& sample = text.samples[place->second];
    const std::string where = r.where + " (question " + std::to_string(id) + ")";
    require(sample.answers.empty(), where, ": annotated before");
    const auto image = r.get<std::int64_t>("image_id"), asked = numbers.ids()[static_cast<std::size_t>(sample.image)];
    require(image == asked, where, ": is about image ", image, ", the question about image ", asked);
    sample.group = detail::merge_names({r.get<std::string>("answer_type")}, text.group_names)[0];
    const auto answers = r.get<json>("answers");
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const detail::json_record answer{answers[i], where + ", answers[" + std::to_string(i) + "]"};
      sample.answers.push_back(answer.get<std::string>("answer"));
    }
    require(!sample.answers.empty(), where, ": no answers");
  });
  for (std::size_t i = 0; i < ids.size(); ++i) {
    require(!text.samples[i].answers.empty(), annotations.string(), ": question ", ids[i], " of ", questions.string(),
            " has no annotation");
  }
  // Groups in the order of their names, whatever the order of the annotations.
  auto types = text.group_names;
  std::sort(types.begin(), types.end());
  const auto sorted = detail::merge_names(text.group_names, types);
  for (auto& sample : text.samples) sample.group = sorted[static_cast<std::size_t>(sample.group)];
  text.group_names = std::move(types);
  std::vector<listed_picture> list;
  for (const auto id : numbers.ids()) {
    list.push_back({detail::name_of_picture(options.pattern, id), "image " + std::to_string(id)});
  }
  text.images = load_pictures(pictures, list, options.pictures);
  return text;
}

}  // namespace core_tokensets
