#pragma once
// Pictures with text: questions with the answers that people gave, or captions, which are answers to no question.

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/dataset.hpp"

namespace core_tokensets {

/// A question about a picture and its answers, or (without a prompt) the captions of a picture.
struct visual_text_sample {
  index image = 0;                   ///< number in `visual_text::images`
  std::string prompt;                ///< the question; empty for captions
  std::vector<std::string> answers;  ///< what people answered, or the captions that people wrote
  std::int32_t group = 0;            ///< kind of question or super-category, in `visual_text::group_names`
  bool operator==(const visual_text_sample&) const = default;
};

/// Pictures and S samples about them. Where there are no classes, all labels are 0 and the one class is "picture".
struct visual_text {
  dataset images;
  std::vector<visual_text_sample> samples;  ///< [S]
  std::vector<std::string> group_names;

  index n() const { return static_cast<index>(samples.size()); }
  index groups() const { return static_cast<index>(group_names.size()); }
  const visual_text_sample& sample(index i) const { return samples[static_cast<std::size_t>(i)]; }

  /// `Error` naming `what` unless all samples name a picture and a group and have answers.
  void check(std::string_view what = "visual_text") const {
    images.check(what);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto& s = samples[i];
      require(s.image >= 0 && s.image < images.n(), what, ": sample ", i, " is about picture ", s.image, " of ",
              images.n());
      require(s.group >= 0 && s.group < groups(), what, ": sample ", i, " is of group ", s.group, " of ", groups());
      require(!s.answers.empty(), what, ": sample ", i, " has no answers");
    }
  }
};

/// Text to learn from and text to measure on, with the same groups.
using visual_text_split = data_split<visual_text>;

/// A number by which pictures and texts are told from others; hand in that of what came before.
inline std::uint64_t checksum(const visual_text& text, std::uint64_t before = fnv1a({})) {
  std::uint64_t sum = checksum(text.images, before);
  for (const auto& name : text.group_names) sum = fnv1a(name, sum);
  for (const auto& sample : text.samples) {
    const std::array numbers{sample.image, static_cast<index>(sample.group), static_cast<index>(sample.answers.size())};
    sum = fnv1a(sample.prompt, fnv1a(std::as_bytes(std::span(numbers)), sum));
    for (const auto& answer : sample.answers) sum = fnv1a(answer, sum);
  }
  return sum;
}
inline std::uint64_t checksum(const visual_text_split& d) { return checksum(d.test, checksum(d.train)); }

/// The answer that most people gave, of several the one that comes first. `Error`: no answers.
inline const std::string& consensus(const visual_text_sample& sample) {
  require(!sample.answers.empty(), "consensus: the sample has no answers");
  std::map<std::string_view, index> votes;
  for (const auto& answer : sample.answers) ++votes[answer];
  const auto fewer = [&](const auto& a, const auto& b) { return votes[a] < votes[b]; };
  return *std::max_element(sample.answers.begin(), sample.answers.end(), fewer);
}

/// The samples at `indices`, in that order; pictures that none of them uses are left out, groups keep their numbers.
/// `Error`: an index out of range.
inline visual_text subset(const visual_text& from, std::span<const index> indices) {
  visual_text to;
  to.group_names = from.group_names;
  std::vector<index> used(static_cast<std::size_t>(from.images.n()), 0);
  for (const index i : indices) {
    require(i >= 0 && i < from.n(), "subset: sample ", i, " of ", from.n());
    to.samples.push_back(from.samples[static_cast<std::size_t>(i)]);
    const index image = to.samples.back().image;
    require(image >= 0 && image < from.images.n(), "subset: sample ", i, " is about picture ", image, " of ",
            from.images.n());
    used[static_cast<std::size_t>(image)] = 1;
  }
  std::vector<index> kept;
  for (index image = 0; image < from.images.n(); ++image) {
    auto& number = used[static_cast<std::size_t>(image)];
    if (number == 0) continue;
    number = static_cast<index>(kept.size());
    kept.push_back(image);
  }
  for (auto& sample : to.samples) sample.image = used[static_cast<std::size_t>(sample.image)];
  to.images = subset(from.images, kept);
  return to;
}

/// The samples for which `keep(sample)` is true, in their order.
template <class Keep>
visual_text filter(const visual_text& from, const Keep& keep) {
  std::vector<index> kept;
  for (index i = 0; i < from.n(); ++i) {
    if (keep(from.samples[static_cast<std::size_t>(i)])) kept.push_back(i);
  }
  return subset(from, kept);
}

/// The samples of the groups `groups`, which keep their numbers. `Error`: no such group.
inline visual_text select_groups(const visual_text& from, std::span<const std::int32_t> groups) {
  for (const auto g : groups) {
    require(g >= 0 && g < from.groups(), "select_groups: group ", g, " of ", from.groups());
  }
  return filter(from, [&](const visual_text_sample& s) {
    return std::find(groups.begin(), groups.end(), s.group) != groups.end();
  });
}

inline visual_text_split select_groups(const visual_text_split& from, std::span<const std::int32_t> groups) {
  return {select_groups(from.train, groups), select_groups(from.test, groups)};
}

/// At most `limit` samples, chosen at random by `seed`, in their old order.
inline visual_text limit_samples(const visual_text& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_samples: ", limit, ", expected at least 1");
  auto order = random_stream(seed).permutation(from.n());
  order.resize(static_cast<std::size_t>(std::min(limit, from.n())));
  std::sort(order.begin(), order.end());
  return subset(from, order);
}

/// All samples of at most `limit` pictures, chosen at random by `seed` among those that samples use.
inline visual_text limit_images(const visual_text& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_images: ", limit, ", expected at least 1");
  std::vector<index> pictures;
  for (const auto& sample : from.samples) pictures.push_back(sample.image);
  std::sort(pictures.begin(), pictures.end());
  pictures.erase(std::unique(pictures.begin(), pictures.end()), pictures.end());
  random_stream(seed).shuffle(std::span(pictures));
  pictures.resize(std::min(static_cast<std::size_t>(limit), pictures.size()));
  std::sort(pictures.begin(), pictures.end());
  return filter(
      from, [&](const visual_text_sample& s) { return std::binary_search(pictures.begin(), pictures.end(), s.image); });
}

namespace detail {

/// The numbers of `names` in `all`, which grows by those that it lacks.
inline std::vector<std::int32_t> merge_names(const std::vector<std::string>& names, std::vector<std::string>& all) {
  std::vector<std::int32_t> numbers;
  for (const auto& name : names) {
    auto place = std::find(all.begin(), all.end(), name);
    if (place == all.end()) place = all.insert(all.end(), name);
    numbers.push_back(static_cast<std::int32_t>(place - all.begin()));
  }
  return numbers;
}

}  // namespace detail

/// All sets one after the other. Groups and classes of the same name become one; names, sizes and masks of pictures
/// stay where all sets have them. `Error`: no sets, or pictures of different sizes.
inline visual_text join(std::span<const visual_text> sets) {
  require(!sets.empty(), "join: no sets");
  visual_text all;
  const dataset& first = sets.front().images;
  all.images.height = first.height, all.images.width = first.width, all.images.channels = first.channels;
  bool names = true, sizes = true, masks = true;
  for (std::size_t k = 0; k < sets.size(); ++k) {
    sets[k].check("join: set " + std::to_string(k));
    const dataset& d = sets[k].images;
    require(d.height == first.height && d.width == first.width && d.channels == first.channels, "join: set ", k,
            " has pictures of ", d.height, " x ", d.width, " x ", d.channels, ", the first one of ", first.height,
            " x ", first.width, " x ", first.channels);
    names = names && d.names.size() == d.labels.size();
    sizes = sizes && d.source_bytes.size() == d.labels.size();
    masks = masks && d.masks.size() == static_cast<std::size_t>(d.n() * d.height * d.width);
  }
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (const auto& set : sets) {
    const index before = all.images.n();
    all.images.reading += set.images.reading;
    const auto classes = detail::merge_names(set.images.class_names, all.images.class_names);
    const auto groups = detail::merge_names(set.group_names, all.group_names);
    for (const auto label : set.images.labels) all.images.labels.push_back(classes[static_cast<std::size_t>(label)]);
    append(all.images.pixels, set.images.pixels);
    if (names) append(all.images.names, set.images.names);
    if (sizes) append(all.images.source_bytes, set.images.source_bytes);
    if (masks) append(all.images.masks, set.images.masks);
    for (auto sample : set.samples) {
      sample.image += before;
      sample.group = groups[static_cast<std::size_t>(sample.group)];
      all.samples.push_back(std::move(sample));
    }
  }
  return all;
}

}  // namespace core_tokensets
