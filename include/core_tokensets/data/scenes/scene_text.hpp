#pragma once
// What built-in questions and built-in captions share: the scenes that they are about, and pairs of a colour and a
// shape that only the test shows, so that one can measure whether a model puts together what it knows.

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

struct scene_text_options {
  scene_options scenes{
      .classes = 12, .train_per_class = 200, .test_per_class = 50, .image = 64, .objects = 4, .legible = true};
  index per_image = 6;  ///< at most so many questions, or so many captions, a picture
  index held_out = 0;   ///< pairs of a colour and a shape that training never shows or names, 0 to 36
};

/// Pictures with text and what they show.
struct scene_text {
  visual_text_split data;
  std::vector<scene_description> train, test;  ///< of each picture
  std::vector<scene_pair> held_out;
  std::vector<index> composed;  ///< samples of the test whose text is about an object of a held-out pair
};

namespace detail {

/// `count` different pairs: each shape and each colour loses as few as possible.
inline std::vector<scene_pair> held_out_pairs(index count, std::uint64_t seed) {
  require(count >= 0 && count <= 3 * scene_shapes, "scenes: ", count, " pairs held out, expected 0 to ",
          3 * scene_shapes);
  random_stream random(seed ^ 0x68656c646f757473u);
  const auto shapes = random.permutation(scene_shapes), colours = random.permutation(scene_colours);
  std::vector<scene_pair> pairs;
  for (index k = 0; k < count; ++k) {
    // Down a shape the colours go on by 5, and 5 and 8 have no common divisor: no pair comes twice.
    const index shape = k % scene_shapes, colour = (k + k / scene_shapes) % scene_colours;
    pairs.push_back({static_cast<scene_colour>(colours[static_cast<std::size_t>(colour)]),
                     static_cast<scene_shape>(shapes[static_cast<std::size_t>(shape)])});
  }
  return pairs;
}

inline bool holds(const std::vector<scene_pair>& pairs, const scene_pair& pair) {
  return std::find(pairs.begin(), pairs.end(), pair) != pairs.end();
}

/// The scenes of both parts; those to learn from show none of the pairs that are held out.
inline scene_text scenes_for_text(const scene_text_options& options) {
  require(options.per_image > 0, "scenes: ", options.per_image, " texts a picture, expected at least 1");
  scene_text result;
  result.held_out = held_out_pairs(options.held_out, options.scenes.seed);
  scene_options train = options.scenes, test = options.scenes;
  train.test_per_class = 0;
  train.without.insert(train.without.end(), result.held_out.begin(), result.held_out.end());
  auto known = scenes_with_descriptions(train);
  result.data.train.images = std::move(known.data.train);
  result.train = std::move(known.train);
  // The part to measure on is made of streams of its own, so its pictures do not depend on what is held out.
  std::tie(result.data.test.images, result.test) =
      make_scenes(test, test.test_per_class, "test", std::uint64_t{1} << 40);
  return result;
}

}  // namespace detail
}  // namespace core_tokensets
