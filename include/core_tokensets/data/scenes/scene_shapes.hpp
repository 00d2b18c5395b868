#pragma once
// The geometry of a scene's objects: which points a shape covers and which of its two colours a point has.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core_tokensets/data/scenes/scene_words.hpp"

namespace core_tokensets::detail {

/// A point in the frame of an object: x to the right, y down, the shape within the unit circle.
struct scene_point {
  double x = 0, y = 0;
};

/// True in the five-pointed star with outer radius 1: fold the plane into one tenth and test against one edge.
inline bool in_star(scene_point p) {
  constexpr double inner = 0.45, pi = std::numbers::pi, half = pi / 5;
  const double r = std::hypot(p.x, p.y);
  double a = std::fmod(std::atan2(p.x, -p.y) + 2 * pi, 2 * half);
  a = a > half ? 2 * half - a : a;
  // Edge from the tip (angle 0, radius 1) to the notch (angle half, radius inner).
  const double ex = inner * std::cos(half) - 1, ey = inner * std::sin(half);
  return ex * r * std::sin(a) > ey * (r * std::cos(a) - 1);
}

inline bool in_regular_polygon(scene_point p, int sides, double radius) {
  const double half = std::numbers::pi / sides;
  double a = std::fmod(std::atan2(p.x, -p.y) + 2 * std::numbers::pi, 2 * half);
  a -= half;
  return std::hypot(p.x, p.y) * std::cos(a) <= radius * std::cos(half);
}

/// x^2 + (5/4 y - sqrt |x|)^2 <= 1 with y up.
inline bool in_heart(scene_point p) {
  const double x = std::abs(p.x) / 0.88, y = (0.12 - p.y) / 0.88;
  const double lobe = 1.25 * y - std::sqrt(x);
  return x * x + lobe * lobe <= 1;
}

/// True where the shape covers the point.
inline bool covers(scene_shape shape, scene_point p) {
  const double x = std::abs(p.x), y = std::abs(p.y), r2 = p.x * p.x + p.y * p.y;
  switch (shape) {
    case scene_shape::circle:
      return r2 <= 0.85 * 0.85;
    case scene_shape::square:
      return x <= 0.72 && y <= 0.72;
    case scene_shape::triangle:
      return in_regular_polygon(p, 3, 1.0);
    case scene_shape::star:
      return in_star(p);
    case scene_shape::ring:
      return r2 <= 0.92 * 0.92 && r2 >= 0.5 * 0.5;
    case scene_shape::cross:
      return std::min(x, y) <= 0.27 && std::max(x, y) <= 0.92;
    case scene_shape::diamond:
      return x / 0.56 + y <= 1;
    case scene_shape::crescent:
      return r2 <= 0.92 * 0.92 && std::hypot(p.x - 0.45, p.y) >= 0.72;
    case scene_shape::heart:
      return in_heart(p);
    case scene_shape::arrow:
      return (p.y <= 0 && p.y >= -0.95 && x <= 0.8 * (p.y + 0.95)) || (p.y > 0 && p.y <= 0.9 && x <= 0.24);
    case scene_shape::hexagon:
      return in_regular_polygon(p, 6, 0.92);
    case scene_shape::hourglass:
      return y <= 0.88 && x <= 0.1 + 0.62 * y;
  }
  return false;
}

/// True where the texture shows the second colour; `x`, `y` in pixels of the object's frame, `period` in pixels.
inline bool second_colour(scene_texture texture, double x, double y, double period) {
  const auto phase = [period](double v) { return v / period - std::floor(v / period); };
  switch (texture) {
    case scene_texture::plain:
      return false;
    case scene_texture::striped:
      return phase(y) < 0.5;
    case scene_texture::checked:
      return (phase(x) < 0.5) != (phase(y) < 0.5);
    case scene_texture::dotted:
      return std::hypot(phase(x) - 0.5, phase(y) - 0.5) < 0.32;
  }
  return false;
}

/// Red, green, blue in 0 .. 1.
using scene_rgb = std::array<double, 3>;

inline scene_rgb rgb_of(scene_colour colour) {
  switch (colour) {
    case scene_colour::red:
      return {0.86, 0.12, 0.12};
    case scene_colour::orange:
      return {0.96, 0.53, 0.08};
    case scene_colour::yellow:
      return {0.96, 0.88, 0.16};
    case scene_colour::green:
      return {0.12, 0.66, 0.20};
    case scene_colour::blue:
      return {0.12, 0.28, 0.88};
    case scene_colour::purple:
      return {0.56, 0.16, 0.70};
    case scene_colour::white:
      return {0.96, 0.96, 0.96};
    case scene_colour::black:
      return {0.05, 0.05, 0.05};
  }
  return {};
}

inline double distance(const scene_rgb& a, const scene_rgb& b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

}  // namespace core_tokensets::detail
