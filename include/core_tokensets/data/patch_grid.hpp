#pragma once
// How pictures are cut into patches: the one value that models, memories, batches and reports share.

#include <string>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Pictures of `height` x `width` x `channels` in square patches of side `patch`. Patch k lies in row k / cols() and
/// column k % cols() of the grid; within a patch the order is channel, row, column, as in the weight of a convolution.
struct patch_grid {
  index height = 0, width = 0, channels = 0, patch = 0;

  index rows() const { return height / patch; }
  index cols() const { return width / patch; }
  /// Patches of a whole picture.
  index tokens() const { return rows() * cols(); }
  /// Numbers of a patch.
  index patch_dim() const { return channels * patch * patch; }
  /// Numbers of a picture.
  index size() const { return height * width * channels; }
  index top(index k) const { return k / cols() * patch; }
  index left(index k) const { return k % cols() * patch; }

  /// `Error` naming `what` unless patches tile the picture and its extents are at most 65,536.
  void check(const char* what = "patch grid") const {
    constexpr index limit = 1 << 16;
    require(height > 0 && width > 0 && channels > 0 && patch > 0 && height <= limit && width <= limit &&
                channels <= limit && height % patch == 0 && width % patch == 0,
            what, ": patches of ", patch, " do not tile a picture of ", height, " x ", width, " x ", channels,
            " (extents from 1 to ", limit, ", height and width divisible by the patch)");
  }

  /// Calls `visit(y, x, c)` for the elements of a whole picture in the order of its patches.
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (index k = 0; k < tokens(); ++k) {
      for (index c = 0; c < channels; ++c) {
        for (index y = top(k); y < top(k) + patch; ++y) {
          for (index x = left(k); x < left(k) + patch; ++x) visit(y, x, c);
        }
      }
    }
  }

  bool operator==(const patch_grid&) const = default;
};

/// "64 x 64 x 3 in patches of 8": for messages.
inline std::string to_text(const patch_grid& g) {
  return std::to_string(g.height) + " x " + std::to_string(g.width) + " x " + std::to_string(g.channels) +
         " in patches of " + std::to_string(g.patch);
}

}  // namespace core_tokensets
