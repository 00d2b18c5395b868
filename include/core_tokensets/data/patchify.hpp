#pragma once
// Images cut into patches.

#include <span>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/token_batch.hpp"

namespace core_tokensets {

/// Whole images `[S, C, H, W]` (already normalised) as a batch in which every patch is kept. `shape` has height, width
/// and channels; throws where they are not made of whole patches or do not match the number of pixels.
template <class Shape>
token_batch patchify(std::span<const float> images, index samples, const Shape& shape, index patch) {
  require(patch > 0 && shape.height % patch == 0 && shape.width % patch == 0, "patchify: an image of ", shape.height,
          "x", shape.width, " is not made of whole patches of ", patch, "x", patch);
  require(static_cast<index>(images.size()) == samples * shape.channels * shape.height * shape.width,
          "patchify: ", images.size(), " numbers for ", samples, " images of ", shape.channels, "x", shape.height, "x",
          shape.width);
  const index grid_width = shape.width / patch, patches = shape.height / patch * grid_width;
  token_batch batch;
  batch.patch_dim = shape.channels * patch * patch;
  batch.patches.reserve(images.size());
  for (index s = 0; s < samples; ++s) {
    for (index k = 0; k < patches; ++k) {
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (index c = 0; c < shape.channels; ++c) {
        for (index y = 0; y < patch; ++y) {
          const index row = ((s * shape.channels + c) * shape.height + k / grid_width * patch + y) * shape.width;
          const float* from = images.data() + row + k % grid_width * patch;
          batch.patches.insert(batch.patches.end(), from, from + patch);
        }
      }
    }
    batch.offsets.push_back(batch.offsets.back() + patches);
  }
  return batch;
}

}  // namespace core_tokensets
