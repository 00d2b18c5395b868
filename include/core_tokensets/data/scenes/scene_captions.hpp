#pragma once
// Built-in captions of scenes: several a picture, which list, count or relate what it shows, in varying words and
// order. Every one of them is true, and names the object that the label of the scene means.

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/scenes/scene_facts.hpp"
#include "core_tokensets/data/scenes/scene_text.hpp"
#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

/// Super-categories of shapes, four shapes each.
inline constexpr std::array<std::string_view, 3> scene_shape_groups{"round", "pointed", "cornered"};

/// The super-category of a shape, in `scene_shape_groups`.
constexpr std::int32_t group_of(scene_shape shape) {
  switch (shape) {
    case scene_shape::circle:
    case scene_shape::ring:
    case scene_shape::crescent:
    case scene_shape::heart:
      return 0;
    case scene_shape::triangle:
    case scene_shape::star:
    case scene_shape::diamond:
    case scene_shape::arrow:
      return 1;
    case scene_shape::square:
    case scene_shape::cross:
    case scene_shape::hexagon:
    case scene_shape::hourglass:
      return 2;
  }
  return 0;
}

namespace detail {

constexpr std::array<std::string_view, 9> number_words{"no",   "one", "two",   "three", "four",
                                                       "five", "six", "seven", "eight"};

/// Writes about one scene.
class scene_writer {
 public:
  scene_writer(const scene_facts& facts, random_stream& random) : facts_(facts), random_(random) {}

  std::string caption() {
    const index choice = facts_.count() == 1 ? random_.below(2) : random_.below(6);
    if (choice == 0) return frame(named(0));
    if (choice < 3) return frame(list(everything()));
    return choice == 3 ? counted() : related();
  }

 private:
  const scene_object& object(std::size_t i) const { return facts_.objects()[i]; }

  std::vector<std::size_t> everything() {
    std::vector<std::size_t> all;
    for (const auto i : random_.permutation(static_cast<index>(facts_.count()))) {
      all.push_back(static_cast<std::size_t>(i));
    }
    return all;
  }

  /// "a large red star", with as many of its clear properties as chance has it.
  std::string named(std::size_t i) {
    scene_words_of words{.shape = object(i).shape};
    if (random_.uniform() < 0.4) words.size = facts_.clear_size(object(i));
    if (random_.uniform() < 0.85) words.colour = object(i).colour;
    if (random_.uniform() < 0.6) words.texture = facts_.clear_texture(object(i));
    if (words.texture == scene_texture::plain) words.texture.reset();
    return with_article(words.text());
  }

  /// "a red star, two blue circles and a ring": objects of the same shape and colour are counted.
  std::string list(const std::vector<std::size_t>& which) {
    std::vector<std::string> parts;
    std::vector<bool> told(facts_.count(), false);
    for (const std::size_t i : which) {
      if (told[i]) continue;
      std::size_t same = 0;
      for (const std::size_t j : which) {
        if (object(j).shape != object(i).shape || object(j).colour != object(i).colour) continue;
        told[j] = true;
        ++same;
      }
      const scene_words_of pair{.colour = object(i).colour, .shape = object(i).shape};
      parts.push_back(same == 1 ? named(i) : std::string(number_words[same]) + " " + plural(pair.text()));
    }
    std::string words;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      words += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
    }
    return words;
  }

  /// What is said, with or without words around it.
  std::string frame(const std::string& what) {
    static constexpr std::array<std::string_view, 6> frames{
        "#1",        "a picture of #1",          "the picture shows #1", "#1 on a blurred background",
        "we see #1", "this is a picture with #1"};
    return fill_in(one_of(frames, random_), what);
  }

  /// "three shapes, among them a red star"
  std::string counted() {
    static constexpr std::array<std::string_view, 3> patterns{"#1 shapes, among them #2",
                                                              "there are #1 shapes, one is #2", "#2 and #1"};
    const auto& pattern = one_of(patterns, random_);
    const bool more = pattern == patterns[2];
    const std::size_t n = facts_.count() - (more ? 1 : 0);
    return fill_in(pattern, std::string(number_words[n]) + (more ? n == 1 ? " more shape" : " more shapes" : ""),
                   named(0));
  }

  /// "a red star left of a blue circle"; a list where nothing stands clearly anywhere.
  std::string related() {
    static constexpr std::array<std::array<std::string_view, 3>, 4> places{
        {{"#1 left of #2", "#1 to the left of #2", "#2 with #1 on its left"},
         {"#1 right of #2", "#1 to the right of #2", "#2 with #1 on its right"},
         {"#1 above #2", "#1 over #2", "#2 with #1 above it"},
         {"#1 below #2", "#1 under #2", "#2 with #1 below it"}}};
    std::vector<std::pair<std::size_t, std::array<std::size_t, 2>>> candidates;
    for (std::size_t other = 1; other < facts_.count(); ++other) {
      for (std::size_t r = 0; r < 4; ++r) {
        const auto where = static_cast<scene_relation>(r);
        if (facts_.stands(object(0), where, object(other)) == true) candidates.push_back({r, {0, other}});
        if (facts_.stands(object(other), where, object(0)) == true) candidates.push_back({r, {other, 0}});
      }
    }
    if (candidates.empty()) return frame(list(everything()));
    const auto& [r, pair] = one_of(candidates, random_);
    const auto first = named(pair[0]);
    const auto words = fill_in(one_of(places[r], random_), first, named(pair[1]));
    return random_.below(2) == 0 ? words : fill_in("there is #1", words);
  }

  const scene_facts& facts_;
  random_stream& random_;
};

/// Fills `text.samples` with one sample a picture; returns the samples about a pair of `held_out`.
inline std::vector<index> describe_scenes(visual_text& text, const std::vector<scene_description>& scenes,
                                          const scene_text_options& options, const std::vector<scene_pair>& held_out,
                                          bool train) {
  text.group_names.assign(scene_shape_groups.begin(), scene_shape_groups.end());
  std::vector<index> composed;
  for (std::size_t i = 0; i < scenes.size(); ++i) {
    random_stream random(options.scenes.seed ^ 0x63617074696f6e73u, i + (train ? 0 : std::uint64_t{1} << 40));
    const scene_facts facts(scenes[i], options.scenes);
    if (facts.count() == 0) continue;
    scene_writer writer(facts, random);
    visual_text_sample sample{static_cast<index>(i), "", {}, group_of(scenes[i].objects[0].shape)};
    std::set<std::string> written;
    for (int attempt = 0; attempt < 20 * options.per_image; ++attempt) {
      auto caption = writer.caption();
      if (!written.insert(caption).second) continue;
      sample.answers.push_back(std::move(caption));
      if (static_cast<index>(sample.answers.size()) == options.per_image) break;
    }
    const auto& main = scenes[i].objects[0];
    if (holds(held_out, {main.colour, main.shape})) composed.push_back(text.n());
    text.samples.push_back(std::move(sample));
  }
  return composed;
}

}  // namespace detail

/// Scenes with `per_image` different captions each, and what the scenes show; the groups are the super-categories of
/// the main object, the one that each caption names; `composed` are the samples whose main object is of a held-out
/// pair. The same options give the same text. `Error`: see `scene_questions`.
inline scene_text scene_captions(const scene_text_options& options = {.per_image = 5}) {
  scene_text result = detail::scenes_for_text(options);
  detail::describe_scenes(result.data.train, result.train, options, result.held_out, true);
  result.composed = detail::describe_scenes(result.data.test, result.test, options, result.held_out, false);
  return result;
}

}  // namespace core_tokensets
