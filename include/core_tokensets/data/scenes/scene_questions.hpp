#pragma once
// Built-in questions about scenes: colour, shape, texture, size, number, existence and relations, each in several
// phrasings and with one answer. A question is asked only where the picture leaves no doubt.

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
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

inline constexpr std::array<std::string_view, 7> scene_question_kinds{"colour", "shape",     "texture", "size",
                                                                      "count",  "existence", "relation"};

namespace detail {

/// A question, its answer, and the words of the objects that both are about.
struct scene_question {
  std::string prompt, answer;
  std::vector<scene_pair> about;
};

/// Asks about one scene. `others` are the scenes of the same part: what is absent here is taken from there, so that no
/// word tells by itself whether the answer is yes. Pairs of `unnamed` are not put into words.
class scene_asker {
 public:
  scene_asker(const scene_facts& facts, const std::vector<scene_description>& others,
              const std::vector<scene_pair>& unnamed, random_stream& random)
      : facts_(facts), others_(others), unnamed_(unnamed), random_(random) {}

  /// A question of kind `kind` of `scene_question_kinds`; none where the scene, or chance, allows none.
  std::optional<scene_question> ask(std::size_t kind) {
    if (facts_.count() == 0) return std::nullopt;
    if (kind <= 3) return attribute(kind);
    return kind == 4 ? number() : kind == 5 ? existence() : relation();
  }

 private:
  using question = std::optional<scene_question>;

  const scene_object& object(std::size_t i) const { return facts_.objects()[i]; }
  std::size_t any_object() { return static_cast<std::size_t>(random_.below(static_cast<index>(facts_.count()))); }
  bool coin() { return random_.below(2) == 0; }
  static scene_pair pair_of(const scene_object& o) { return {o.colour, o.shape}; }
  bool sayable(const scene_words_of& words) const {
    return !words.colour || !words.shape || !holds(unnamed_, {*words.colour, *words.shape});
  }

  question attribute(std::size_t kind) {
    static constexpr std::array<std::array<std::string_view, 4>, 4> patterns{
        {{"what colour is the #1?", "what is the colour of the #1?", "which colour does the #1 have?",
          "what colour does the #1 have?"},
         {"what shape is the #1?", "what is the #1?", "which shape does the #1 have?", "what kind of shape is the #1?"},
         {"what texture does the #1 have?", "which pattern does the #1 have?", "what pattern is on the #1?",
          "what is the texture of the #1?"},
         {"how large is the #1?", "what size is the #1?", "how big is the #1?", "what is the size of the #1?"}}};
    const std::size_t o = any_object();
    std::string answer;
    if (kind == 0) answer = name_of(object(o).colour);
    if (kind == 1) answer = name_of(object(o).shape);
    if (const auto texture = facts_.clear_texture(object(o)); kind == 2 && texture) answer = name_of(*texture);
    if (const auto size = facts_.clear_size(object(o)); kind == 3 && size) answer = name_of(*size);
    if (answer.empty()) return std::nullopt;
    const auto words = facts_.reference(o, random_, [&](const scene_words_of& w) {
      return sayable(w) && !(kind == 0 && w.colour) && !(kind == 1 && w.shape) && !(kind == 2 && w.texture) &&
             !(kind == 3 && w.size);
    });
    if (!words) return std::nullopt;
    return scene_question{fill_in(one_of(patterns[kind], random_), words->text(kind == 1 ? "thing" : "shape")),
                          answer,
                          {pair_of(object(o))}};
  }

  question number() {
    static constexpr std::array<std::string_view, 4> patterns{"how many #1 are there?",
                                                              "how many #1 does the picture show?",
                                                              "how many #1 can you see?", "what is the number of #1?"};
    // All words that could be asked for by their count, in lists of one kind.
    std::map<index, std::vector<std::vector<scene_words_of>>> by_answer;
    const auto offer = [&](std::size_t list, const scene_words_of& words) {
      const auto n = facts_.count(words);
      if (!n || !sayable(words)) return;
      auto& lists = by_answer[*n];
      lists.resize(6);
      lists[list].push_back(words);
    };
    offer(0, {});
    for (index i = 0; i < scene_shapes; ++i) offer(1, {.shape = static_cast<scene_shape>(i)});
    for (index i = 0; i < scene_colours; ++i) offer(2, {.colour = static_cast<scene_colour>(i)});
    for (index i = 0; i < scene_textures; ++i) offer(3, {.texture = static_cast<scene_texture>(i)});
    for (index i = 0; i < 3; ++i) offer(4, {.size = static_cast<scene_size>(i)});
    for (const auto& o : facts_.objects()) offer(5, {.colour = o.colour, .shape = o.shape});
    auto chosen = by_answer.begin();
    std::advance(chosen, random_.below(static_cast<index>(by_answer.size())));
    auto lists = chosen->second;
    std::erase_if(lists, [](const auto& list) { return list.empty(); });
    const auto words = one_of(one_of(lists, random_), random_);
    std::vector<scene_pair> about;
    for (const auto& o : facts_.objects()) {
      if (facts_.means(words, o) == true) about.push_back(pair_of(o));
    }
    return scene_question{fill_in(one_of(patterns, random_), plural(words.text())), std::to_string(chosen->first),
                          std::move(about)};
  }

  /// The words of an object that a choice of 0 .. 4 asks for.
  scene_words_of described(const scene_object& o, index choice) const {
    if (choice == 0) return {.shape = o.shape};
    if (choice == 1) return {.colour = o.colour};
    if (choice == 2) return {.colour = o.colour, .shape = o.shape};
    if (choice == 3) return {.texture = facts_.clear_texture(o), .shape = o.shape};
    return {.size = facts_.clear_size(o), .shape = o.shape};
  }

  question existence() {
    static constexpr std::array<std::string_view, 4> patterns{"is there #1?", "does the picture show #1?",
                                                              "can you see #1?", "is #1 in the picture?"};
    const bool yes = coin();
    const index choice = random_.below(5);
    const scene_object& here = object(any_object());
    scene_words_of words;
    for (int attempt = 0; attempt < 20; ++attempt) {
      if (yes) {
        words = described(here, choice);
      } else {
        const auto& other = one_of(one_of(others_, random_).objects, random_);
        words = described(other, choice);
        // Half of the pairs have one word that is true of something here.
        if (choice >= 2 && coin()) {
          const auto mixed = described(here, choice);
          if (coin()) {
            words.shape = mixed.shape;
          } else {
            words.colour = mixed.colour, words.texture = mixed.texture, words.size = mixed.size;
          }
        }
      }
      const auto n = facts_.count(words);
      if (!n || !sayable(words) || (*n > 0) != yes) continue;
      std::vector<scene_pair> about;
      if (yes) about.push_back(pair_of(here));
      if (words.colour && words.shape) about.push_back({*words.colour, *words.shape});
      return scene_question{fill_in(one_of(patterns, random_), with_article(words.text())), yes ? "yes" : "no",
                            std::move(about)};
    }
    return std::nullopt;
  }

  question relation() {
    if (facts_.count() < 2) return std::nullopt;
    const index choice = random_.below(4);
    return choice < 2 ? is_it_there() : choice == 2 ? what_is_there() : which_is_larger();
  }

  std::optional<scene_words_of> any_reference(std::size_t o) {
    return facts_.reference(o, random_, [&](const scene_words_of& w) { return sayable(w) && w != scene_words_of{}; });
  }

  question is_it_there() {
    static constexpr std::array<std::string_view, 2> patterns{"is the #1 #2?", "does the #1 stand #2?"};
    const bool yes = coin();
    std::vector<std::array<std::size_t, 3>> candidates;
    for (std::size_t a = 0; a < facts_.count(); ++a) {
      for (std::size_t b = 0; b < facts_.count(); ++b) {
        for (std::size_t r = 0; r < 4 && a != b; ++r) {
          if (facts_.stands(object(a), static_cast<scene_relation>(r), object(b)) == yes)
            candidates.push_back({a, r, b});
        }
      }
    }
    if (candidates.empty()) return std::nullopt;
    const auto [a, r, b] = one_of(candidates, random_);
    const auto first = any_reference(a), second = any_reference(b);
    if (!first || !second) return std::nullopt;
    const std::string place = std::string(name_of(static_cast<scene_relation>(r))) + " the " + second->text();
    return scene_question{fill_in(one_of(patterns, random_), first->text(), place),
                          yes ? "yes" : "no",
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  question what_is_there() {
    static constexpr std::array<std::string_view, 2> shape{"what is #1 the #2?", "which shape is #1 the #2?"};
    static constexpr std::array<std::string_view, 2> colour{"what colour is the shape #1 the #2?",
                                                            "which colour has the shape #1 the #2?"};
    std::vector<std::array<std::size_t, 3>> candidates;
    for (std::size_t b = 0; b < facts_.count(); ++b) {
      for (std::size_t r = 0; r < 4; ++r) {
        if (const auto a = facts_.only_one(static_cast<scene_relation>(r), b)) candidates.push_back({*a, r, b});
      }
    }
    if (candidates.empty()) return std::nullopt;
    const auto [a, r, b] = one_of(candidates, random_);
    const auto words = any_reference(b);
    if (!words) return std::nullopt;
    const bool by_shape = coin();
    const std::string where(name_of(static_cast<scene_relation>(r)));
    return scene_question{fill_in(one_of(by_shape ? shape : colour, random_), where, words->text()),
                          std::string(by_shape ? name_of(object(a).shape) : name_of(object(a).colour)),
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  question which_is_larger() {
    const std::size_t a = any_object(), b = any_object();
    const auto first = any_reference(a), second = any_reference(b);
    // One is larger if it is so by a third; sizes must not be among the words.
    const double ratio = object(a).radius / object(b).radius;
    if (a == b || !first || !second || first->size || second->size || (ratio < 4.0 / 3 && ratio > 3.0 / 4)) {
      return std::nullopt;
    }
    const bool asks_larger = coin(), yes = (ratio > 1) == asks_larger;
    return scene_question{fill_in(asks_larger ? "is the #1 larger than the #2?" : "is the #1 smaller than the #2?",
                                  first->text(), second->text()),
                          yes ? "yes" : "no",
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  const scene_facts& facts_;
  const std::vector<scene_description>& others_;
  const std::vector<scene_pair>& unnamed_;
  random_stream& random_;
};

/// Fills `text.samples`; returns which of them are about a pair of `held_out`.
inline std::vector<index> ask_about_scenes(visual_text& text, const std::vector<scene_description>& scenes,
                                           const scene_text_options& options, const std::vector<scene_pair>& held_out,
                                           bool train) {
  text.group_names.assign(scene_question_kinds.begin(), scene_question_kinds.end());
  const std::vector<scene_pair> unnamed = train ? held_out : std::vector<scene_pair>{};
  std::vector<index> composed;
  for (std::size_t i = 0; i < scenes.size(); ++i) {
    random_stream random(options.scenes.seed ^ 0x7175657374696f6eu, i + (train ? 0 : std::uint64_t{1} << 40));
    const scene_facts facts(scenes[i], options.scenes);
    scene_asker asker(facts, scenes, unnamed, random);
    std::set<std::string> asked;
    // Rounds over all kinds in a new order each, until there are enough or nothing new comes up.
    for (int round = 0; round < 8 && static_cast<index>(asked.size()) < options.per_image; ++round) {
      for (const auto kind : random.permutation(static_cast<index>(scene_question_kinds.size()))) {
        auto question = asker.ask(static_cast<std::size_t>(kind));
        if (!question || !asked.insert(question->prompt).second) continue;
        if (std::any_of(question->about.begin(), question->about.end(),
                        [&](const scene_pair& pair) { return holds(held_out, pair); })) {
          composed.push_back(text.n());
        }
        text.samples.push_back({static_cast<index>(i),
                                std::move(question->prompt),
                                {std::move(question->answer)},
                                static_cast<std::int32_t>(kind)});
        if (static_cast<index>(asked.size()) == options.per_image) break;
      }
    }
  }
  return composed;
}

}  // namespace detail

/// Questions about scenes with one answer each, and what the scenes show; the groups are `scene_question_kinds`. The
/// same options give the same text. `Error`: see `scenes_with_descriptions`; no questions asked for; more than 36 pairs
/// held out.
inline scene_text scene_questions(const scene_text_options& options = {}) {
  scene_text result = detail::scenes_for_text(options);
  detail::ask_about_scenes(result.data.train, result.train, options, result.held_out, true);
  result.composed = detail::ask_about_scenes(result.data.test, result.test, options, result.held_out, false);
  return result;
}

}  // namespace core_tokensets
