#pragma once
// Labelled pictures of one size, packed one after the other, and ways to take a part of them.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/data/reading.hpp"
#include "core_tokensets/data/split.hpp"
#include "core_tokensets/io/checksum.hpp"

namespace core_tokensets {

/// S pictures with a class each. `names`, `source_bytes` and `masks` may be empty.
struct dataset {
  index height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;         ///< [S, height, width, channels]
  std::vector<std::int32_t> labels;         ///< [S] in [0, classes())
  std::vector<std::string> class_names;     ///< [K]
  std::vector<std::string> names;           ///< [S] where each picture came from
  std::vector<std::uint64_t> source_bytes;  ///< [S] size of each picture as it came (JPEG, PNG, raw)
  std::vector<std::uint8_t> masks;          ///< [S, height, width]: 0 background, o + 1 where object o is seen
  picture_reading reading;                  ///< what was found where the pictures came from, parts of them included

  index n() const { return static_cast<index>(labels.size()); }
  index classes() const { return static_cast<index>(class_names.size()); }
  /// Bytes of one picture in `pixels`.
  index image_size() const { return height * width * channels; }
  image_view view_of(index i) const { return {height, width, channels, pixels.data() + i * image_size()}; }
  std::int32_t label(index i) const { return labels[static_cast<std::size_t>(i)]; }
  /// The mask of picture i, `[height, width]`; empty if there are none.
  std::span<const std::uint8_t> mask_of(index i) const {
    if (masks.empty()) return {};
    return {masks.data() + i * height * width, static_cast<std::size_t>(height * width)};
  }
  /// Sum of `source_bytes`: what the data weigh as they came.
  std::uint64_t total_source_bytes() const {
    return std::accumulate(source_bytes.begin(), source_bytes.end(), std::uint64_t{0});
  }

  /// `Error` naming `what` unless all arrays have the same number of pictures and labels name classes.
  void check(std::string_view what = "dataset") const {
    const auto s = labels.size();
    require(pixels.size() == s * static_cast<std::size_t>(image_size()), what, ": ", pixels.size(),
            " bytes of pixels, expected ", s, " x ", height, " x ", width, " x ", channels);
    require((names.empty() || names.size() == s) && (source_bytes.empty() || source_bytes.size() == s), what, ": ",
            names.size(), " names and ", source_bytes.size(), " sizes for ", s, " pictures");
    require(masks.empty() || masks.size() == s * static_cast<std::size_t>(height * width), what, ": ", masks.size(),
            " bytes of masks, expected ", s, " x ", height, " x ", width);
    for (const std::int32_t label : labels) {
      require(label >= 0 && label < classes(), what, ": label ", label, " but only ", classes(), " classes");
    }
  }
};

/// Pictures to learn from and pictures to measure on, with the same classes.
using dataset_split = data_split<dataset>;

/// A number by which pictures, labels and sizes are told from others; hand in that of what came before.
inline std::uint64_t checksum(const dataset& d, std::uint64_t before = fnv1a({})) {
  const std::array shape{d.height, d.width, d.channels, d.n()};
  std::uint64_t sum = fnv1a(std::as_bytes(std::span(shape)), before);
  sum = fnv1a(std::as_bytes(std::span(d.pixels)), sum);
  sum = fnv1a(std::as_bytes(std::span(d.labels)), sum);
  sum = fnv1a(std::as_bytes(std::span(d.source_bytes)), sum);
  for (const auto& name : d.class_names) sum = fnv1a(name, sum);
  return sum;
}
inline std::uint64_t checksum(const dataset_split& d) { return checksum(d.test, checksum(d.train)); }

/// The pictures at `indices`, in that order; classes keep their numbers. `Error`: an index out of range.
inline dataset subset(const dataset& from, std::span<const index> indices) {
  dataset to;
  to.height = from.height, to.width = from.width, to.channels = from.channels;
  to.class_names = from.class_names;
  to.reading = from.reading;
  const index size = from.image_size(), area = from.height * from.width;
  to.pixels.reserve(indices.size() * static_cast<std::size_t>(size));
  for (const index i : indices) {
    require(i >= 0 && i < from.n(), "subset: picture ", i, " of ", from.n());
    const auto at = static_cast<std::size_t>(i);
    to.pixels.insert(to.pixels.end(), from.pixels.data() + i * size, from.pixels.data() + (i + 1) * size);
    to.labels.push_back(from.labels[at]);
    if (!from.names.empty()) to.names.push_back(from.names[at]);
    if (!from.source_bytes.empty()) to.source_bytes.push_back(from.source_bytes[at]);
    if (!from.masks.empty()) {
      to.masks.insert(to.masks.end(), from.masks.data() + i * area, from.masks.data() + (i + 1) * area);
    }
  }
  return to;
}

/// The numbers of the classes that have no picture.
inline std::vector<index> classes_without_pictures(const dataset& data) {
  std::vector<bool> seen(static_cast<std::size_t>(data.classes()), false);
  for (const std::int32_t label : data.labels) seen[static_cast<std::size_t>(label)] = true;
  std::vector<index> without;
  for (index k = 0; k < data.classes(); ++k) {
    if (!seen[static_cast<std::size_t>(k)]) without.push_back(k);
  }
  return without;
}

/// Classes `first` to `last`, both included.
struct class_range {
  index first = 0, last = 0;
  index count() const { return last - first + 1; }
};

/// "A-B" or "A". `Error`: anything else.
inline class_range parse_class_range(std::string_view text) {
  class_range range;
  const char *const begin = text.data(), *const end = begin + text.size();
  auto [after, bad] = std::from_chars(begin, end, range.first);
  range.last = range.first;
  if (bad == std::errc() && after != end && *after == '-') {
    const auto second = std::from_chars(after + 1, end, range.last);
    after = second.ptr, bad = second.ec;
  }
  require(bad == std::errc() && after == end && range.first >= 0 && range.last >= range.first, "classes '", text,
          "': expected A-B with 0 <= A <= B");
  return range;
}

/// The pictures of the classes in `range`, renumbered from 0. `Error`: the range leaves the classes.
inline dataset select_classes(const dataset& from, class_range range) {
  require(range.first >= 0 && range.first <= range.last && range.last < from.classes(), "select_classes: ", range.first,
          "-", range.last, ", expected a range within 0-", from.classes() - 1);
  std::vector<index> kept;
  for (index i = 0; i < from.n(); ++i) {
    const index label = from.labels[static_cast<std::size_t>(i)];
    if (label >= range.first && label <= range.last) kept.push_back(i);
  }
  dataset to = subset(from, kept);
  for (auto& label : to.labels) label -= static_cast<std::int32_t>(range.first);
  to.class_names.assign(from.class_names.begin() + range.first, from.class_names.begin() + range.last + 1);
  return to;
}

inline dataset_split select_classes(const dataset_split& from, class_range range) {
  return {select_classes(from.train, range), select_classes(from.test, range)};
}

/// At most `limit` pictures of each class, chosen at random by `seed`, in their old order.
inline dataset limit_per_class(const dataset& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_per_class: ", limit, ", expected at least 1");
  std::vector<index> kept;
  std::vector<index> members;
  for (index k = 0; k < from.classes(); ++k) {
    members.clear();
    for (index i = 0; i < from.n(); ++i) {
      if (from.labels[static_cast<std::size_t>(i)] == k) members.push_back(i);
    }
    if (static_cast<index>(members.size()) > limit) {
      random_stream(seed ^ 0x6c696d6974, static_cast<std::uint64_t>(k)).shuffle(std::span(members));
      members.resize(static_cast<std::size_t>(limit));
    }
    kept.insert(kept.end(), members.begin(), members.end());
  }
  std::sort(kept.begin(), kept.end());
  return subset(from, kept);
}

}  // namespace core_tokensets
