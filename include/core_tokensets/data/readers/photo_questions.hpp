#pragma once
// Questions and captions made from labelled photos with boxes, such as Tiny-ImageNet: what is this, where is it, how
// large is it, is there a ...?

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/readers/photo_text.hpp"
#include "core_tokensets/data/scenes/scene_facts.hpp"
#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

inline constexpr std::array<std::string_view, 4> photo_question_kinds{"name", "place", "size", "existence"};

namespace detail {

/// "a goldfish", "an ox", "sunglasses"; an adjective may stand before the name.
inline std::string some(const std::string& name, const std::string& adjective = {}) {
  const std::string words = adjective.empty() ? name : adjective + " " + name;
  if (is_plural(name)) return words;
  if (words.starts_with("eu") || words.starts_with("uni")) return "a " + words;  // spoken with a y
  return words.front() == 'u' ? "an " + words : with_article(words);
}

/// The names of all classes as `photo_name` gives them. `Error`: a class without a name.
inline std::vector<std::string> photo_names(const dataset& data) {
  std::vector<std::string> names;
  for (const auto& name : data.class_names) {
    names.push_back(photo_name(name));
    require(!names.back().empty(), "photo text: class '", name, "' has no name");
  }
  return names;
}

/// Leaves out samples of a group, chosen at random, until no answer is more frequent than the second one was.
inline void balance_answers(std::vector<visual_text_sample>& samples, std::int32_t group, random_stream& random) {
  std::map<std::string, std::vector<std::size_t>> by_answer;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (samples[i].group == group) by_answer[samples[i].answers[0]].push_back(i);
  }
  std::vector<std::size_t> counts;
  for (const auto& [answer, members] : by_answer) counts.push_back(members.size());
  if (counts.size() < 2) return;
  std::nth_element(counts.begin(), counts.begin() + 1, counts.end(), std::greater<>());
  std::vector<bool> dropped(samples.size(), false);
  for (auto& [answer, members] : by_answer) {
    random.shuffle(std::span(members));
    for (std::size_t k = counts[1]; k < members.size(); ++k) dropped[members[k]] = true;
  }
  std::size_t i = 0;
  std::erase_if(samples, [&](const visual_text_sample&) { return dropped[i++]; });
}

/// One question of each kind that the picture allows, in random order.
inline std::vector<visual_text_sample> ask_about_photo(const dataset& data, index i,
                                                       const std::vector<std::string>& names, random_stream& random) {
  static constexpr std::array<std::string_view, 4> name_patterns{"what is this?", "what does the picture show?",
                                                                 "what can you see?", "what is in the picture?"};
  static constexpr std::array<std::string_view, 3> place_patterns{
      "where #2 the #1?", "in which part of the picture #2 the #1?", "in what part #2 the #1?"};
  static constexpr std::array<std::string_view, 3> size_patterns{"how large #2 the #1?", "how big #2 the #1?",
                                                                 "what size #2 the #1?"};
  static constexpr std::array<std::string_view, 4> existence_patterns{"does the picture show #1?", "can you see #1?",
                                                                      "do you see #1?", "is this a picture of #1?"};
  const auto label = [&](index k) { return static_cast<std::size_t>(data.labels[static_cast<std::size_t>(k)]); };
  const std::string &name = names[label(i)], verb = is_plural(name) ? "are" : "is";
  const auto facts = look_at_box(data, i);
  std::vector<visual_text_sample> asked;
  for (const auto kind : random.permutation(4)) {
    std::string prompt, answer;
    if (kind == 0) {
      prompt = one_of(name_patterns, random), answer = name;
    } else if (kind == 1 && facts.place) {
      prompt = fill_in(one_of(place_patterns, random), name, verb), answer = photo_places[*facts.place];
    } else if (kind == 2 && facts.size) {
      prompt = fill_in(one_of(size_patterns, random), name, verb), answer = photo_sizes[*facts.size];
    } else if (kind == 3) {
      // What is not there is what another picture shows, so that no name tells the answer.
      std::size_t other = label(i);
      const bool yes = random.below(2) == 0;
      for (int attempt = 0; !yes && names[other] == name && attempt < 20; ++attempt)
        other = label(random.below(data.n()));
      if (yes != (names[other] == name)) continue;
      prompt = fill_in(one_of(existence_patterns, random), some(names[other])), answer = yes ? "yes" : "no";
    }
    if (!prompt.empty()) asked.push_back({i, prompt, {answer}, static_cast<std::int32_t>(kind)});
  }
  return asked;
}

}  // namespace detail

/// Questions about photos; the groups are `photo_question_kinds`. Place and size need masks (`add_box_masks`), and are
/// left out where the box lies between two answers; "no" means that the label is another one. `Error`: no pictures, no
/// questions asked for, a class without a name.
inline visual_text photo_questions(const dataset& data, const photo_text_options& options = {}) {
  data.check("photo_questions");
  require(data.n() > 0 && options.per_image > 0, "photo_questions: ", data.n(), " pictures, ", options.per_image,
          " questions each, expected at least 1");
  const auto names = detail::photo_names(data);
  visual_text text;
  text.images = data;
  text.group_names.assign(photo_question_kinds.begin(), photo_question_kinds.end());
  for (index i = 0; i < data.n(); ++i) {
    random_stream random(options.seed ^ 0x70686f746f7175u, static_cast<std::uint64_t>(i));
    auto asked = detail::ask_about_photo(data, i, names, random);
    if (static_cast<index>(asked.size()) > options.per_image) {
      asked.resize(static_cast<std::size_t>(options.per_image));
    }
    text.samples.insert(text.samples.end(), asked.begin(), asked.end());
  }
  random_stream random(options.seed ^ 0x70686f746f6261u);
  if (options.balance) {
    for (const std::int32_t group : {1, 2}) detail::balance_answers(text.samples, group, random);
  }
  return text;
}

inline visual_text_split photo_questions(const dataset_split& data, const photo_text_options& options = {}) {
  return {photo_questions(data.train, options), photo_questions(data.test, options)};
}

/// One sample a photo with at most `per_image` different captions: its name, and its size and place where the box tells
/// them; the groups are the classes. `Error`: see `photo_questions`.
inline visual_text photo_captions(const dataset& data, const photo_text_options& options = {}) {
  static constexpr std::array<std::string_view, 6> patterns{
      "#1#2",       "a picture of #1#2", "a photo of #1#2", "the picture shows #1#2", "this is a picture of #1#2",
      "we see #1#2"};
  static constexpr std::array<std::string_view, 5> places{"on the left of the picture", "on the right of the picture",
                                                          "at the top of the picture", "at the bottom of the picture",
                                                          "in the middle of the picture"};
  data.check("photo_captions");
  require(data.n() > 0 && options.per_image > 0, "photo_captions: ", data.n(), " pictures, ", options.per_image,
          " captions each, expected at least 1");
  visual_text text;
  text.images = data;
  text.group_names = detail::photo_names(data);
  for (index i = 0; i < data.n(); ++i) {
    random_stream random(options.seed ^ 0x70686f746f6361u, static_cast<std::uint64_t>(i));
    const auto group = data.labels[static_cast<std::size_t>(i)];
    const auto& name = text.group_names[static_cast<std::size_t>(group)];
    const auto facts = detail::look_at_box(data, i);
    visual_text_sample sample{i, "", {}, group};
    std::set<std::string> written;
    for (index attempt = 0;
         attempt < 20 * options.per_image && sample.answers.size() < static_cast<std::size_t>(options.per_image);
         ++attempt) {
      std::string size, place;
      if (facts.size && random.uniform() < 0.5) size = photo_sizes[*facts.size];
      if (facts.place && random.uniform() < 0.5) place = places[*facts.place];
      std::string caption;
      if (!place.empty() && random.uniform() < 0.3) {
        caption = place + " " + (detail::is_plural(name) ? "are " : "is ") + detail::some(name, size);
      } else {
        caption = detail::fill_in(detail::one_of(patterns, random), detail::some(name, size),
                                  place.empty() ? "" : " " + place);
      }
      if (written.insert(caption).second) sample.answers.push_back(std::move(caption));
    }
    text.samples.push_back(std::move(sample));
  }
  return text;
}

inline visual_text_split photo_captions(const dataset_split& data, const photo_text_options& options = {}) {
  return {photo_captions(data.train, options), photo_captions(data.test, options)};
}

}  // namespace core_tokensets
