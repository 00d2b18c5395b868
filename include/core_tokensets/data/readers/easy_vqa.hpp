#pragma once
// easy-VQA (Zhou 2019): one coloured shape a picture, simple questions with one answer each. The layout of its
// repository: DIR/{train,test}/images/N.png and DIR/{train,test}/questions.json as [[question, answer, N], ...].

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/picture_list.hpp"
#include "core_tokensets/data/text/visual_text.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/parse_json.hpp"

namespace core_tokensets {

namespace detail {

/// 0 shape, 1 colour, 2 yes/no; -1 for anything else.
inline std::int32_t easy_vqa_group(std::string_view answer) {
  constexpr std::array<std::string_view, 3> shapes{"circle", "rectangle", "triangle"};
  constexpr std::array<std::string_view, 8> colours{"red", "green", "blue", "yellow", "gray", "black", "teal", "brown"};
  if (std::find(shapes.begin(), shapes.end(), answer) != shapes.end()) return 0;
  if (std::find(colours.begin(), colours.end(), answer) != colours.end()) return 1;
  return answer == "yes" || answer == "no" ? 2 : -1;
}

inline visual_text load_easy_vqa_part(const std::filesystem::path& folder, const folder_options& options) {
  const auto file = folder / "questions.json";
  const json questions = parse_json(read_text(file), file.string());
  require(questions.is_array() && !questions.empty(), file.string(), ": expected a JSON list of questions");
  visual_text text;
  text.group_names = {"shape", "colour", "yes/no"};
  std::map<index, index> numbers;  // of the pictures in the files, and then of ours
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const json& item = questions[i];
    require(item.is_array() && item.size() == 3 && item[0].is_string() && item[1].is_string() &&
                item[2].holds<index>() && item[2].get<index>() >= 0,
            file.string(), ": question ", i, " is ", item.dump(),
            ", expected [question, answer, number of the picture]");
    const auto answer = item[1].get<std::string>();
    const auto group = easy_vqa_group(answer);
    require(group >= 0, file.string(), ": question ", i, " has the answer '", answer,
            "', which is neither a shape nor a colour nor yes or no");
    text.samples.push_back({item[2].get<index>(), item[0].get<std::string>(), {answer}, group});
    numbers[text.samples.back().image];
  }
  std::vector<listed_picture> list;
  for (auto& [number, place] : numbers) {
    place = static_cast<index>(list.size());
    list.push_back({std::to_string(number) + ".png", "picture " + std::to_string(number) + " of " + file.string()});
  }
  for (auto& sample : text.samples) sample.image = numbers.at(sample.image);
  text.images = load_pictures(folder / "images", list, options);
  return text;
}

}  // namespace detail

/// Both parts; the groups are the kinds of answers: shape, colour, yes/no. Pictures that no question is about are not
/// read. `Error` naming file and question: wrong JSON, an answer that easy-VQA does not have, a missing picture.
inline visual_text_split load_easy_vqa(const std::filesystem::path& folder, const folder_options& options = {}) {
  visual_text_split split{detail::load_easy_vqa_part(folder / "train", options),
                          detail::load_easy_vqa_part(folder / "test", options)};
  const dataset &train = split.train.images, &test = split.test.images;
  require(train.height == test.height && train.width == test.width, folder.string(), ": train has ", train.height,
          " x ", train.width, " pixels, test ", test.height, " x ", test.width, ": choose a size to resize to");
  return split;
}

}  // namespace core_tokensets
