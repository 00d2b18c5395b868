#pragma once
// What the tests of training share: small streams, small models, options that make them quick and quiet.

#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/data/tasks.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/sequence.hpp"

namespace support {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

/// Four classes of built-in pictures in two tasks.
inline cts::dataset_split small_data() {
  return cts::scenes({.classes = 4, .train_per_class = 12, .test_per_class = 4, .image = 16, .seed = 1});
}
inline cts::task_stream small_stream() { return cts::class_incremental(small_data(), {.tasks = 2}); }

/// Pictures of one colour each, with some noise: a class a colour, and so easy that a few epochs teach them.
inline cts::dataset coloured(cts::index per_class, std::uint64_t seed) {
  static constexpr int colours[4][3] = {{220, 30, 30}, {30, 200, 30}, {40, 40, 220}, {240, 240, 240}};
  cts::random_stream random(seed);
  cts::dataset data;
  data.height = data.width = 16, data.channels = 3;
  data.class_names = {"red", "green", "blue", "white"};
  for (cts::index i = 0; i < 4 * per_class; ++i) {
    data.labels.push_back(static_cast<std::int32_t>(i % 4));
    for (int p = 0; p < 256; ++p) {
      for (const int c : colours[i % 4]) data.pixels.push_back(static_cast<std::uint8_t>(c - 15 + random.below(31)));
    }
  }
  return data;
}
inline cts::task_stream coloured_stream() {
  return cts::class_incremental({coloured(40, 1), coloured(10, 2)}, {.tasks = 2});
}

template <class B>
cts::vit<B> small_model(B& b) {
  return {b, {.grid = {16, 16, 3, 4}, .dim = 16, .depth = 2, .heads = 2, .classes = 2}};
}

/// One epoch of small batches, every new picture halved.
inline cts::fit_options quick() {
  return {.epochs = 1, .batch = 8, .token_drop = 0.5, .token_drop_often = 1, .shift = 0, .flip = 0};
}
inline cts::learner_options quick_learner() { return {.budget = cts::fraction(0.25), .fit = quick()}; }

}  // namespace support
