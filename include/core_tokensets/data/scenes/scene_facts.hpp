#pragma once
// What can be said of a scene so that nobody who sees it would disagree. Everything has three answers: yes, no, and
// unclear (no value); text is made only of what is clear.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/scenes/scene_words.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"

namespace core_tokensets {

enum class scene_relation : std::uint8_t { left, right, above, below };

inline constexpr std::array<std::string_view, 4> scene_relation_names{"left of", "right of", "above", "below"};
inline constexpr std::string_view name_of(scene_relation r) {
  return scene_relation_names[static_cast<std::size_t>(r)];
}

namespace detail {

/// The words by which an object is meant; what has no value may be anything.
struct scene_words_of {
  std::optional<scene_size> size = {};
  std::optional<scene_colour> colour = {};
  std::optional<scene_texture> texture = {};
  std::optional<scene_shape> shape = {};
  bool operator==(const scene_words_of&) const = default;

  /// "large red striped star"; `noun` stands in for a shape that is not named.
  std::string text(std::string_view noun = "shape") const {
    std::string words;
    if (size) words.append(name_of(*size)).append(" ");
    if (colour) words.append(name_of(*colour)).append(" ");
    if (texture) words.append(name_of(*texture)).append(" ");
    return words.append(shape ? name_of(*shape) : noun);
  }
};

inline std::string plural(const std::string& noun) { return noun + (noun.ends_with("s") ? "es" : "s"); }

/// "an orange arrow"
inline std::string with_article(const std::string& words) {
  const bool vowel = std::string_view("aeio").find(words.front()) != std::string_view::npos;
  return (vowel || words.starts_with("hour") ? "an " : "a ") + words;
}

/// A scene and the measures by which it is judged.
class scene_facts {
 public:
  scene_facts(const scene_description& scene, const scene_options& options)
      : scene_(&scene),
        side_(static_cast<double>(options.image)),
        scale_(scene_scale(options.objects)),
        image_(options.image) {}

  const std::vector<scene_object>& objects() const { return scene_->objects; }
  std::size_t count() const { return scene_->objects.size(); }

  /// The size of an object that is not close to the next size: its reach lies in the inner part of its range.
  std::optional<scene_size> clear_size(const scene_object& o) const {
    const auto& range = scene_reach[static_cast<std::size_t>(o.size)];
    const double reach = o.radius / (side_ * scale_), third = (range[1] - range[0]) / 3;
    const bool close = (o.size != scene_size::large && reach > range[1] - third) ||
                       (o.size != scene_size::small && reach < range[0] + third);
    return close ? std::nullopt : std::optional(o.size);
  }

  /// The texture of an object that is wide enough for it (`shows_texture`).
  std::optional<scene_texture> clear_texture(const scene_object& o) const {
    return shows_texture(o.shape, o.radius, image_) ? std::optional(o.texture) : std::nullopt;
  }

  /// Whether the words mean the object.
  std::optional<bool> means(const scene_words_of& words, const scene_object& o) const {
    if ((words.shape && *words.shape != o.shape) || (words.colour && *words.colour != o.colour)) return false;
    const auto size = clear_size(o);
    const auto texture = clear_texture(o);
    if ((words.size && size && *words.size != *size) || (words.texture && texture && *words.texture != *texture)) {
      return false;
    }
    if ((words.size && !size) || (words.texture && !texture)) return std::nullopt;
    return true;
  }

  /// How many objects the words mean; no value if that is unclear of any object.
  std::optional<index> count(const scene_words_of& words) const {
    index n = 0;
    for (const auto& o : objects()) {
      const auto meant = means(words, o);
      if (!meant) return std::nullopt;
      n += *meant ? 1 : 0;
    }
    return n;
  }

  /// Whether object a stands left of (right of, above, below) object b: its centre is a seventh of the side further; it
  /// does not where it is less than a twenty-fifth.
  std::optional<bool> stands(const scene_object& a, scene_relation where, const scene_object& b) const {
    const double right = (a.column - b.column) / side_, down = (a.row - b.row) / side_;
    const double shift = where == scene_relation::left    ? -right
                         : where == scene_relation::right ? right
                         : where == scene_relation::above ? -down
                                                          : down;
    if (shift >= 1.0 / 7) return true;
    if (shift <= 1.0 / 25) return false;
    return std::nullopt;
  }

  /// The only object that stands there, if all others clearly do not.
  std::optional<std::size_t> only_one(scene_relation where, std::size_t b) const {
    std::optional<std::size_t> found;
    for (std::size_t a = 0; a < count(); ++a) {
      if (a == b) continue;
      const auto there = stands(objects()[a], where, objects()[b]);
      if (!there || (*there && found)) return std::nullopt;
      if (*there) found = a;
    }
    return found;
  }

  /// Words that mean object `o` and no other, chosen at random among combinations that `allowed` accepts.
  template <class Allowed>
  std::optional<scene_words_of> reference(std::size_t o, random_stream& random, const Allowed& allowed) const {
    const auto& object = objects()[o];
    std::vector<scene_words_of> found;
    for (unsigned choice = 0; choice < 16; ++choice) {
      scene_words_of words;
      if ((choice & 1u) != 0) words.shape = object.shape;
      if ((choice & 2u) != 0) words.colour = object.colour;
      if ((choice & 4u) != 0) words.texture = clear_texture(object);
      if ((choice & 8u) != 0) words.size = clear_size(object);
      if (std::find(found.begin(), found.end(), words) != found.end()) continue;
      if (allowed(words) && count(words) == index{1}) found.push_back(words);
    }
    if (found.empty()) return std::nullopt;
    return found[static_cast<std::size_t>(random.below(static_cast<index>(found.size())))];
  }

 private:
  const scene_description* scene_;
  double side_, scale_;
  index image_;
};

/// One of several things, all equally likely.
template <class T, std::size_t N>
const T& one_of(const std::array<T, N>& items, random_stream& random) {
  return items[static_cast<std::size_t>(random.below(static_cast<index>(N)))];
}
template <class T>
const T& one_of(const std::vector<T>& items, random_stream& random) {
  return items[static_cast<std::size_t>(random.below(static_cast<index>(items.size())))];
}

/// `pattern` with its "#1" and "#2" replaced.
inline std::string fill_in(std::string_view pattern, const std::string& first, const std::string& second = {}) {
  std::string text;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '#') {
      text += pattern[++i] == '1' ? first : second;
    } else {
      text += pattern[i];
    }
  }
  return text;
}

}  // namespace detail
}  // namespace core_tokensets
