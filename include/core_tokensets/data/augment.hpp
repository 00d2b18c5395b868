#pragma once
// Random shifts and mirror images of training pictures. Each draw depends on (seed, epoch, sample) only, so it is the
// same in any order and on any number of threads.

#include <algorithm>
#include <cstdint>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/image.hpp"

namespace core_tokensets {

/// What a shifted picture shows beyond its border: the pixels at the border again, or black.
enum class padding { edge, zero };

struct augmentation {
  index shift = 0;  ///< pad by so many pixels on each side and crop at random ("pad and crop")
  double flip = 0;  ///< probability of the mirror image
  padding border = padding::edge;
};

/// One draw: pixel (y, x) of the result is (y + dy, x + dx) of the picture, mirrored if `flip`.
struct augmentation_draw {
  index dy = 0, dx = 0;
  bool flip = false;
  padding border = padding::edge;

  /// Offset of the source pixel in `[height, width]`, or -1 for black.
  index source(index y, index x, index height, index width) const {
    y += dy;
    x = (flip ? width - 1 - x : x) + dx;
    const bool outside = y < 0 || y >= height || x < 0 || x >= width;
    if (outside && border == padding::zero) return -1;
    return std::clamp<index>(y, 0, height - 1) * width + std::clamp<index>(x, 0, width - 1);
  }
};

/// The draw for one sample in one epoch. `Error`: a negative shift, a probability outside of 0 .. 1.
inline augmentation_draw draw_augmentation(const augmentation& options, std::uint64_t seed, std::uint64_t epoch,
                                           index sample) {
  require(options.shift >= 0 && options.flip >= 0 && options.flip <= 1, "augmentation: shift ", options.shift,
          ", flip ", options.flip, ": expected a shift of at least 0 and a probability");
  random_stream random(seed ^ 0x6175676d656e7421u, (epoch << 40) + static_cast<std::uint64_t>(sample));
  augmentation_draw draw;
  draw.border = options.border;
  draw.dy = random.below(2 * options.shift + 1) - options.shift;
  draw.dx = random.below(2 * options.shift + 1) - options.shift;
  draw.flip = random.uniform() < options.flip;
  return draw;
}

/// Writes the augmented picture to `to` `[height, width, channels]`, which must not be the picture itself.
inline void augment_into(const image_view& from, const augmentation_draw& draw, std::uint8_t* to) {
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x, to += from.channels) {
      const index source = draw.source(y, x, from.height, from.width);
      if (source < 0) {
        std::fill_n(to, from.channels, std::uint8_t{0});
      } else {
        std::copy_n(from.pixels + source * from.channels, from.channels, to);
      }
    }
  }
}

/// The same as normalised numbers; `table` comes from `pixel_table`.
inline void augment_into(const image_view& from, const augmentation_draw& draw, const float* table, float* to) {
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x) {
      const index source = draw.source(y, x, from.height, from.width);
      for (index c = 0; c < from.channels; ++c) {
        *to++ = table[c * 256 + (source < 0 ? 0 : from.pixels[source * from.channels + c])];
      }
    }
  }
}

inline image augment(const image_view& from, const augmentation_draw& draw) {
  image to(from.height, from.width, from.channels);
  augment_into(from, draw, to.pixels.data());
  return to;
}

}  // namespace core_tokensets
