#pragma once
// The built-in pictures: shapes of any colour, size, place and turn on cluttered backgrounds. Nothing but the shape
// (and the texture, where there are more classes than shapes) tells the class. The exact masks of all objects come with
// them, so attributions can be measured. The same seed gives the same pictures on any number of threads.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/scenes/scene_render.hpp"
#include "core_tokensets/data/scenes/scene_words.hpp"

namespace core_tokensets {

struct scene_options {
  index classes = 10;  ///< up to 12: shapes with any texture; up to 48: pairs of shape and texture
  index train_per_class = 500, test_per_class = 100;
  index image = 32;    ///< height and width
  index objects = 1;   ///< at most so many in a picture; with more than one their number varies and they are smaller
  double scale = 1;    ///< of the objects: at 1 one fills 14 % of the picture on average, at 0.5 4 %
  double typical = 0;  ///< how often the object that the label means wears the colour and texture of its class
  std::uint64_t seed = 0;
  int threads = 0;
  std::vector<scene_pair> without = {};  ///< shapes never wear these colours; not together with `typical`
  bool legible = false;                  ///< objects that are too small to show a texture are plain
};

/// Pictures together with what they show.
struct described_scenes {
  dataset_split data;
  std::vector<scene_description> train, test;
};

namespace detail {

constexpr index scene_shapes = static_cast<index>(scene_shape_names.size());
/// Three colours and four textures make a pair of its own for each of the twelve shapes, so that neither colour nor
/// texture alone tells the class.
constexpr std::array<scene_colour, 3> typical_colours{scene_colour::orange, scene_colour::green, scene_colour::blue};
constexpr index scene_colours = static_cast<index>(scene_colour_names.size());
constexpr index scene_textures = static_cast<index>(scene_texture_names.size());

template <class Word>
Word random_word(index count, random_stream& random) {
  return static_cast<Word>(random.below(count));
}

/// From where to where small, medium and large objects reach, in parts of the side; between them lies nothing.
constexpr std::array<std::array<double, 2>, 3> scene_reach{{{0.20, 0.24}, {0.26, 0.31}, {0.34, 0.40}}};
/// How much smaller all objects are where there may be several.
constexpr double scene_scale(index objects) { return objects > 2 ? 0.55 : objects > 1 ? 0.68 : 1.0; }

/// An object of random size, place and turn, free of those before it; false where none fits.
inline bool place_object(const scene_options& options, const scene_description& before, scene_object& object,
                         random_stream& random) {
  const double smaller = scene_scale(options.objects) * options.scale;
  const auto side = static_cast<double>(options.image);
  for (int attempt = 0; attempt < 40; ++attempt) {
    object.size = random_word<scene_size>(3, random);
    const auto& range = scene_reach[static_cast<std::size_t>(object.size)];
    object.radius = random.uniform(range[0], range[1]) * side * smaller;
    object.row = random.uniform(object.radius, side - object.radius);
    object.column = random.uniform(object.radius, side - object.radius);
    object.angle = random.uniform(0, 2 * std::numbers::pi);
    const bool free = std::all_of(before.objects.begin(), before.objects.end(), [&](const scene_object& other) {
      return std::hypot(other.row - object.row, other.column - object.column) > other.radius + object.radius;
    });
    if (free) return true;
  }
  return false;
}

/// Paints scene number `stream` of class `label` into `pixels` `[side, side, 3]` and `mask` `[side, side]`.
inline scene_description make_scene(const scene_options& options, index label, std::uint64_t stream,
                                    std::uint8_t* pixels, std::uint8_t* mask) {
  random_stream random(options.seed ^ 0x7363656e65733031u, stream);
  scene_canvas canvas(options.image);
  paint_background(canvas, random);
  const scene_rgb behind = canvas.mean();
  std::fill_n(mask, options.image * options.image, std::uint8_t{0});
  scene_description scene;
  const index count = options.objects > 1 ? 1 + random.below(options.objects) : 1;
  for (index o = 0; o < count; ++o) {
    scene_object object;
    object.shape =
        o == 0 ? static_cast<scene_shape>(label % scene_shapes) : random_word<scene_shape>(scene_shapes, random);
    object.texture = random_word<scene_texture>(scene_textures, random);
    if (o == 0 && options.classes > scene_shapes) object.texture = static_cast<scene_texture>(label / scene_shapes);
    const auto allowed = [&](scene_colour colour, double contrast) {
      return distance(rgb_of(colour), behind) >= contrast &&
             std::find(options.without.begin(), options.without.end(), scene_pair{colour, object.shape}) ==
                 options.without.end();
    };
    double contrast = 0.45;
    if (!options.without.empty()) {  // where no other colour is left, one that is harder to see
      index left = 0;
      for (index c = 0; c < scene_colours; ++c) left += allowed(static_cast<scene_colour>(c), contrast) ? 1 : 0;
      if (left == 0) contrast = 0;
    }
    do {
      object.colour = random_word<scene_colour>(scene_colours, random);
    } while (!allowed(object.colour, contrast));
    if (o == 0 && options.typical > 0 && random.uniform() < options.typical) {
      object.colour = typical_colours[static_cast<std::size_t>(label) % typical_colours.size()];
      if (options.classes <= scene_shapes) object.texture = static_cast<scene_texture>(label % scene_textures);
    }
    if (!place_object(options, scene, object, random)) break;
    if (options.legible && !shows_texture(object.shape, object.radius, options.image)) {
      object.texture = scene_texture::plain;
    }
    object.box = paint_object(canvas, object, static_cast<std::uint8_t>(o + 1), mask, random);
    scene.objects.push_back(object);
  }
  for (const scene_rgb& colour : canvas.pixels) {
    for (const double c : colour) {
      const double noisy = c + 0.015 * random.uniform(-1, 1);
      *pixels++ = static_cast<std::uint8_t>(std::lround(std::clamp(noisy, 0.0, 1.0) * 255));
    }
  }
  return scene;
}

/// Pictures number i of class i % classes.
inline std::pair<dataset, std::vector<scene_description>> make_scenes(const scene_options& options, index per_class,
                                                                      const std::string& part,
                                                                      std::uint64_t first_stream) {
  dataset data;
  data.height = data.width = options.image, data.channels = 3;
  const index n = per_class * options.classes, area = options.image * options.image;
  for (index k = 0; k < options.classes; ++k) {
    std::string name(name_of(static_cast<scene_shape>(k % scene_shapes)));
    if (options.classes > scene_shapes) {
      name = std::string(name_of(static_cast<scene_texture>(k / scene_shapes))) + " " + name;
    }
    data.class_names.push_back(name);
  }
  for (index i = 0; i < n; ++i) {
    data.labels.push_back(static_cast<std::int32_t>(i % options.classes));
    data.names.push_back(part + "/" + std::to_string(i));
  }
  data.pixels.resize(static_cast<std::size_t>(n * area * 3));
  data.masks.resize(static_cast<std::size_t>(n * area));
  data.source_bytes.assign(data.labels.size(), static_cast<std::uint64_t>(area * 3));
  std::vector<scene_description> described(data.labels.size());
  parallel_chunks(options.threads, n, 16, [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      described[static_cast<std::size_t>(i)] =
          make_scene(options, i % options.classes, first_stream + static_cast<std::uint64_t>(i),
                     data.pixels.data() + i * area * 3, data.masks.data() + i * area);
    }
  });
  return {std::move(data), std::move(described)};
}

}  // namespace detail

/// Pictures, masks and descriptions. `source_bytes` are raw sizes. `Error`: more classes than there are pairs of shape
/// and texture, a side outside of 16 .. 1024, no pictures, more than 8 objects, no colour left for a shape.
inline described_scenes scenes_with_descriptions(const scene_options& options = {}) {
  const index pairs = detail::scene_shapes * detail::scene_textures;
  require(options.classes >= 1 && options.classes <= pairs, "scenes: ", options.classes, " classes, expected 1 to ",
          pairs);
  require(options.image >= 16 && options.image <= 1024, "scenes: side ", options.image, ", expected 16 to 1024");
  require(options.train_per_class >= 1 && options.test_per_class >= 0 && options.objects >= 1 && options.objects <= 8,
          "scenes: ", options.train_per_class, " and ", options.test_per_class, " pictures a class, ", options.objects,
          " objects: expected at least 1 and 0, and 1 to 8");
  require(options.scale > 0.1 && options.scale <= 1, "scenes: scale ", options.scale, ", expected more than 0.1 to 1");
  require(options.typical >= 0 && options.typical <= 1, "scenes: typical ", options.typical, ", expected 0 to 1");
  require(!options.legible || options.classes <= detail::scene_shapes,
          "scenes: legible ones have no classes of textures");
  require(options.without.empty() || options.typical == 0, "scenes: typical and without exclude each other");
  for (index shape = 0; shape < detail::scene_shapes; ++shape) {
    const auto forbidden = std::count_if(options.without.begin(), options.without.end(), [&](const scene_pair& pair) {
      return pair.shape == static_cast<scene_shape>(shape);
    });
    require(forbidden < detail::scene_colours, "scenes: no colour is left for the ",
            name_of(static_cast<scene_shape>(shape)));
  }
  described_scenes result;
  std::tie(result.data.train, result.train) = detail::make_scenes(options, options.train_per_class, "train", 0);
  std::tie(result.data.test, result.test) =
      detail::make_scenes(options, options.test_per_class, "test", std::uint64_t{1} << 40);
  return result;
}

/// The same without the descriptions.
inline dataset_split scenes(const scene_options& options = {}) { return scenes_with_descriptions(options).data; }

}  // namespace core_tokensets
