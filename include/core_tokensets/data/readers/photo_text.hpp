#pragma once
// What can be said of a labelled photo with a box around its object: its name, its place and its size, as words.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/dataset.hpp"

namespace core_tokensets {

inline constexpr std::array<std::string_view, 5> photo_places{"left", "right", "top", "bottom", "middle"};
inline constexpr std::array<std::string_view, 3> photo_sizes{"small", "medium", "large"};

struct photo_text_options {
  index per_image = 4;  ///< at most so many questions, or so many captions, a picture
  bool balance = true;  ///< leave out questions of place and size so that no answer is more frequent than the second
  std::uint64_t seed = 0;
};

/// The name that people use: what comes before the first comma, in lower case. "European fire salamander, Salamandra
/// salamandra" is "european fire salamander".
inline std::string photo_name(std::string_view class_name) {
  std::string name(class_name.substr(0, class_name.find(',')));
  while (!name.empty() && name.back() == ' ') name.pop_back();
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return name;
}

namespace detail {

/// "binoculars", "swimming trunks": an s at the end that is none of "brass", "cactus", "iris".
inline bool is_plural(std::string_view name) {
  return name.ends_with("s") && !name.ends_with("ss") && !name.ends_with("us") && !name.ends_with("is");
}

/// Place and size of the object of picture `i` by the bounding box of its mask; no value where there is no box, or
/// several, or where the box lies between two answers.
struct photo_facts {
  std::optional<std::size_t> place, size;  ///< in `photo_places` and `photo_sizes`
};

inline photo_facts look_at_box(const dataset& data, index i) {
  photo_facts facts;
  const auto mask = data.mask_of(i);
  if (std::any_of(mask.begin(), mask.end(), [](std::uint8_t object) { return object > 1; })) return facts;
  index top = data.height, left = data.width, bottom = 0, right = 0;
  for (index y = 0; y < data.height && !mask.empty(); ++y) {
    for (index x = 0; x < data.width; ++x) {
      if (mask[static_cast<std::size_t>(y * data.width + x)] == 0) continue;
      top = std::min(top, y), left = std::min(left, x), bottom = y + 1, right = std::max(right, x + 1);
    }
  }
  if (bottom == 0) return facts;
  const auto height = static_cast<double>(data.height), width = static_cast<double>(data.width);
  const double across = static_cast<double>(left + right) / 2 / width - 0.5;
  const double down = static_cast<double>(top + bottom) / 2 / height - 0.5;
  const double off = std::max(std::abs(across), std::abs(down));
  if (off <= 0.08) {
    facts.place = 4;
  } else if (off >= 0.12 && std::abs(std::abs(across) - std::abs(down)) >= 0.04) {
    facts.place = std::abs(across) > std::abs(down) ? (across < 0 ? 0u : 1u) : (down < 0 ? 2u : 3u);
  }
  const double share = static_cast<double>((bottom - top) * (right - left)) / (height * width);
  if (share <= 0.20) facts.size = 0;
  if (share >= 0.27 && share <= 0.48) facts.size = 1;
  if (share >= 0.58) facts.size = 2;
  return facts;
}

}  // namespace detail
}  // namespace core_tokensets
