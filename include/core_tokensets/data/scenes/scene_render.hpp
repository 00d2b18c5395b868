#pragma once
// Paints a scene: a background of soft noise with blobs and lines that mean nothing, then the objects, each pixel the
// mean of sixteen points.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/scenes/scene_shapes.hpp"
#include "core_tokensets/data/scenes/scene_words.hpp"

namespace core_tokensets::detail {

/// A square picture of colours in 0 .. 1 while it is painted.
struct scene_canvas {
  index side = 0;
  std::vector<scene_rgb> pixels;

  explicit scene_canvas(index n) : side(n), pixels(static_cast<std::size_t>(n * n)) {}
  scene_rgb& at(index y, index x) { return pixels.data()[y * side + x]; }
  scene_rgb mean() const {
    scene_rgb sum{};
    for (const auto& p : pixels) {
      for (std::size_t c = 0; c < 3; ++c) sum[c] += p[c];
    }
    for (double& s : sum) s /= static_cast<double>(pixels.size());
    return sum;
  }
};

inline void blend(scene_rgb& under, const scene_rgb& over, double share) {
  for (std::size_t c = 0; c < 3; ++c) under[c] += share * (over[c] - under[c]);
}

/// Adds one octave of value noise: random values on a lattice of `cells` x `cells`, smoothly joined.
inline void add_octave(scene_canvas& canvas, index cells, double strength, double colourful, random_stream& random) {
  const index lattice = cells + 2;
  std::vector<scene_rgb> values(static_cast<std::size_t>(lattice * lattice));
  for (auto& v : values) {
    const double grey = random.uniform(-1, 1);
    for (double& c : v) c = strength * ((1 - colourful) * grey + colourful * random.uniform(-1, 1));
  }
  const double shift_y = random.uniform(), shift_x = random.uniform();
  const double step = static_cast<double>(cells) / static_cast<double>(canvas.side);
  const auto smooth = [](double t) { return t * t * (3 - 2 * t); };
  for (index y = 0; y < canvas.side; ++y) {
    const double v = (static_cast<double>(y) + 0.5) * step + shift_y;
    const auto row = static_cast<index>(v);
    const double b = smooth(v - static_cast<double>(row));
    for (index x = 0; x < canvas.side; ++x) {
      const double u = (static_cast<double>(x) + 0.5) * step + shift_x;
      const auto column = static_cast<index>(u);
      const double a = smooth(u - static_cast<double>(column));
      const scene_rgb* top = values.data() + row * lattice + column;
      scene_rgb& pixel = canvas.at(y, x);
      for (std::size_t c = 0; c < 3; ++c) {
        pixel[c] +=
            (1 - b) * ((1 - a) * top[0][c] + a * top[1][c]) + b * ((1 - a) * top[lattice][c] + a * top[lattice + 1][c]);
      }
    }
  }
}

/// A muted colour of earth, plants, sky or stone.
inline scene_rgb muted_colour(random_stream& random) {
  const double light = random.uniform(0.22, 0.78);
  scene_rgb colour{};
  for (double& c : colour) c = light + random.uniform(-0.16, 0.16);
  return colour;
}

/// Soft ellipses and lines in muted colours, some of them as bright as an object.
inline void add_distractors(scene_canvas& canvas, random_stream& random) {
  const auto side = static_cast<double>(canvas.side);
  for (index i = 1 + random.below(3); i > 0; --i) {  // blobs
    const scene_rgb colour = muted_colour(random);
    const double row = random.uniform(0, side), column = random.uniform(0, side), turn = random.uniform(0, 3.2);
    const double a = random.uniform(0.08, 0.24) * side, b = random.uniform(0.06, 0.14) * side;
    const double strength = random.uniform(0.4, 0.9), cosine = std::cos(turn), sine = std::sin(turn);
    for (index y = 0; y < canvas.side; ++y) {
      for (index x = 0; x < canvas.side; ++x) {
        const double dy = static_cast<double>(y) + 0.5 - row, dx = static_cast<double>(x) + 0.5 - column;
        const double d = std::hypot((cosine * dx + sine * dy) / a, (cosine * dy - sine * dx) / b);
        if (d < 1) blend(canvas.at(y, x), colour, strength * std::min(1.0, 3 * (1 - d)));
      }
    }
  }
  for (index i = 1 + random.below(4); i > 0; --i) {  // lines
    const scene_rgb colour =
        random.uniform() < 0.3 ? rgb_of(static_cast<scene_colour>(random.below(8))) : muted_colour(random);
    const double turn = random.uniform(0, 2 * std::numbers::pi), cosine = std::cos(turn), sine = std::sin(turn);
    const double row = random.uniform(0, side), column = random.uniform(0, side);
    const double length = random.uniform(0.1, 0.5) * side, width = random.uniform(0.012, 0.035) * side;
    const double strength = random.uniform(0.4, 0.9);
    for (index y = 0; y < canvas.side; ++y) {
      for (index x = 0; x < canvas.side; ++x) {
        const double dy = static_cast<double>(y) + 0.5 - row, dx = static_cast<double>(x) + 0.5 - column;
        const double along = std::abs(cosine * dx + sine * dy), across = std::abs(cosine * dy - sine * dx);
        const double cover =
            std::clamp(width + 0.5 - across, 0.0, 1.0) * std::clamp(length / 2 + 0.5 - along, 0.0, 1.0);
        if (cover > 0) blend(canvas.at(y, x), colour, strength * cover);
      }
    }
  }
}

inline void paint_background(scene_canvas& canvas, random_stream& random) {
  const scene_rgb top = muted_colour(random), bottom = muted_colour(random);
  const double turn = random.uniform(0, 2 * std::numbers::pi), cosine = std::cos(turn), sine = std::sin(turn);
  for (index y = 0; y < canvas.side; ++y) {
    for (index x = 0; x < canvas.side; ++x) {
      const double v = (static_cast<double>(y) + 0.5) / static_cast<double>(canvas.side) - 0.5;
      const double u = (static_cast<double>(x) + 0.5) / static_cast<double>(canvas.side) - 0.5;
      canvas.at(y, x) = top;
      blend(canvas.at(y, x), bottom, std::clamp(0.5 + u * cosine + v * sine, 0.0, 1.0));
    }
  }
  add_octave(canvas, 2, 0.16, 0.5, random);
  add_octave(canvas, 5, 0.11, 0.4, random);
  add_octave(canvas, 11, 0.07, 0.3, random);
  add_distractors(canvas, random);
}

/// Pixels from one stripe, dot or square of a texture to the next of its colour.
inline double texture_period(index side) { return std::max(3.6, 0.13 * static_cast<double>(side)); }

/// True if an object is wide enough to show a texture without losing its shape: it reaches one period far, or one and a
/// half where the shape is thin or lives by its tips.
inline bool shows_texture(scene_shape shape, double radius, index side) {
  const bool bulky = shape == scene_shape::circle || shape == scene_shape::square || shape == scene_shape::triangle ||
                     shape == scene_shape::heart || shape == scene_shape::hexagon;
  return radius >= (bulky ? 1.0 : 1.5) * texture_period(side);
}

/// Paints the object and returns its box; `mask` `[side, side]` becomes `number` where at least half of a pixel is
/// covered. The second colour of a texture is a darker or lighter shade of the first.
inline scene_box paint_object(scene_canvas& canvas, const scene_object& object, std::uint8_t number, std::uint8_t* mask,
                              random_stream& random) {
  scene_rgb first = rgb_of(object.colour);
  for (double& c : first) c = std::clamp(c + random.uniform(-0.06, 0.06), 0.0, 1.0);
  scene_rgb second = first;
  const double light = 0.3 * first[0] + 0.6 * first[1] + 0.1 * first[2];
  const bool darker = light > 0.7 || (light > 0.2 && random.uniform() < 0.5);
  blend(second, darker ? scene_rgb{0, 0, 0} : scene_rgb{1, 1, 1}, 0.62);
  const double period = texture_period(canvas.side), offset = random.uniform(0, period);
  const double cosine = std::cos(object.angle), sine = std::sin(object.angle);
  const auto low = [&](double centre) { return std::max<index>(0, static_cast<index>(centre - object.radius) - 1); };
  const auto high = [&](double centre) {
    return std::min<index>(canvas.side, static_cast<index>(centre + object.radius) + 2);
  };
  scene_box box{canvas.side, canvas.side, 0, 0};
  for (index y = low(object.row); y < high(object.row); ++y) {
    for (index x = low(object.column); x < high(object.column); ++x) {
      int covered = 0;
      scene_rgb sum{};
      for (int k = 0; k < 16; ++k) {
        const double dy = static_cast<double>(y) + (k / 4 + 0.5) / 4 - object.row;
        const double dx = static_cast<double>(x) + (k % 4 + 0.5) / 4 - object.column;
        const double u = cosine * dx + sine * dy, v = cosine * dy - sine * dx;
        if (!covers(object.shape, {u / object.radius, v / object.radius})) continue;
        ++covered;
        const scene_rgb& colour = second_colour(object.texture, u + offset, v + offset, period) ? second : first;
        for (std::size_t c = 0; c < 3; ++c) sum[c] += colour[c];
      }
      if (covered == 0) continue;
      for (double& c : sum) c /= covered;
      blend(canvas.at(y, x), sum, covered / 16.0);
      if (covered < 8) continue;
      mask[y * canvas.side + x] = number;
      box = {std::min(box.top, y), std::min(box.left, x), std::max(box.bottom, y + 1), std::max(box.right, x + 1)};
    }
  }
  return box;
}

}  // namespace core_tokensets::detail
