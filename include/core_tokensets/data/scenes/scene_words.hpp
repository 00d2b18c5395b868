#pragma once
// The words for what a scene shows. Captions, questions and answers are made of them, so they are few and fixed.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

enum class scene_shape : std::uint8_t {
  circle,
  square,
  triangle,
  star,
  ring,
  cross,
  diamond,
  crescent,
  heart,
  arrow,
  hexagon,
  hourglass
};
enum class scene_texture : std::uint8_t { plain, striped, checked, dotted };
enum class scene_colour : std::uint8_t { red, orange, yellow, green, blue, purple, white, black };
enum class scene_size : std::uint8_t { small, medium, large };

inline constexpr std::array<std::string_view, 12> scene_shape_names{"circle", "square", "triangle", "star",
                                                                    "ring",   "cross",  "diamond",  "crescent",
                                                                    "heart",  "arrow",  "hexagon",  "hourglass"};
inline constexpr std::array<std::string_view, 4> scene_texture_names{"plain", "striped", "checked", "dotted"};
inline constexpr std::array<std::string_view, 8> scene_colour_names{"red",  "orange", "yellow", "green",
                                                                    "blue", "purple", "white",  "black"};
inline constexpr std::array<std::string_view, 3> scene_size_names{"small", "medium", "large"};

inline constexpr std::string_view name_of(scene_shape s) { return scene_shape_names[static_cast<std::size_t>(s)]; }
inline constexpr std::string_view name_of(scene_texture t) { return scene_texture_names[static_cast<std::size_t>(t)]; }
inline constexpr std::string_view name_of(scene_colour c) { return scene_colour_names[static_cast<std::size_t>(c)]; }
inline constexpr std::string_view name_of(scene_size s) { return scene_size_names[static_cast<std::size_t>(s)]; }

/// Pixels that an object covers: rows `top .. bottom`, columns `left .. right`, the last ones not included.
struct scene_box {
  index top = 0, left = 0, bottom = 0, right = 0;
  bool operator==(const scene_box&) const = default;
};

/// One object: what it is, where its centre lies, how far it reaches (in pixels) and how it is turned (in radians).
struct scene_object {
  scene_shape shape = scene_shape::circle;
  scene_texture texture = scene_texture::plain;
  scene_colour colour = scene_colour::red;
  scene_size size = scene_size::medium;
  double row = 0, column = 0, radius = 0, angle = 0;
  scene_box box = {};
  bool operator==(const scene_object&) const = default;

  /// "a large red striped star"; plain goes without saying.
  std::string text() const {
    std::string words = "a ";
    words.append(name_of(size)).append(" ");
    words.append(name_of(colour)).append(" ");
    if (texture != scene_texture::plain) words.append(name_of(texture)).append(" ");
    return words.append(name_of(shape));
  }
};

/// A shape in a colour.
struct scene_pair {
  scene_colour colour = scene_colour::red;
  scene_shape shape = scene_shape::circle;
  bool operator==(const scene_pair&) const = default;
};

/// Everything that a scene shows; the first object is the one that the label means.
struct scene_description {
  std::vector<scene_object> objects;
  bool operator==(const scene_description&) const = default;

  /// "a large red striped star, a small blue circle and a small green ring"
  std::string text() const {
    std::string words;
    for (std::size_t i = 0; i < objects.size(); ++i) {
      if (i > 0) words += i + 1 == objects.size() ? " and " : ", ";
      words += objects[i].text();
    }
    return words;
  }
};

}  // namespace core_tokensets
