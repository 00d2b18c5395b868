#pragma once
// Pictures cut into patches and put together again. Patch k = row of the grid * columns of the grid + column; within a
// patch the order is channel, row, column, as in the weight of a convolution.

#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/data/augment.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/data/patch_grid.hpp"
#include "core_tokensets/data/token_batch.hpp"

namespace core_tokensets {

/// Patches `[P, C p p]` of a picture as bytes.
inline std::vector<std::uint8_t> patchify(const image_view& from, index patch) {
  const patch_grid grid{from.height, from.width, from.channels, patch};
  grid.check();
  std::vector<std::uint8_t> patches;
  patches.reserve(static_cast<std::size_t>(from.size()));
  grid.for_each([&](index y, index x, index c) { patches.push_back(from.at(y, x)[c]); });
  return patches;
}

/// Normalised patches `[P, C p p]` of a picture.
inline std::vector<float> patchify(const image_view& from, index patch, const pixel_normalisation& normalisation) {
  const patch_grid grid{from.height, from.width, from.channels, patch};
  grid.check();
  const auto table = pixel_table(normalisation, from.channels);
  std::vector<float> patches;
  patches.reserve(static_cast<std::size_t>(from.size()));
  grid.for_each([&](index y, index x, index c) { patches.push_back(table.data()[c * 256 + from.at(y, x)[c]]); });
  return patches;
}

/// The pixels `[positions, patch_dim]` of some tokens of the sample whose first token is `begin`, which has the whole
/// grid: what normalising them gave back exactly.
inline std::vector<std::uint8_t> pixels_of(const token_batch& batch, index begin,
                                           std::span<const std::uint16_t> positions,
                                           const pixel_normalisation& normalisation, const patch_grid& grid) {
  const auto full = normalisation.for_channels(grid.channels);
  const index area = grid.patch * grid.patch, dim = grid.patch_dim();
  std::vector<std::uint8_t> pixels;
  pixels.reserve(positions.size() * static_cast<std::size_t>(dim));
  for (const std::uint16_t p : positions) {
    const float* row = batch.patches.data() + (begin + p) * dim;
    for (index i = 0; i < dim; ++i) {
      const auto c = static_cast<std::size_t>(i / area);
      pixels.push_back(to_pixel(row[i], full.mean[c], full.stddev[c]));
    }
  }
  return pixels;
}

/// The picture from some of its patches, `positions` saying which; pixels of missing patches are `missing`. `Error`:
/// sizes that do not fit, a position outside of the grid.
inline image unpatchify(std::span<const std::uint8_t> patches, std::span<const std::int32_t> positions,
                        const patch_grid& grid, std::uint8_t missing = 0) {
  grid.check();
  require(patches.size() == positions.size() * static_cast<std::size_t>(grid.patch_dim()),
          "unpatchify: ", patches.size(), " bytes for ", positions.size(), " patches of ", grid.patch_dim());
  image to(grid.height, grid.width, grid.channels, missing);
  const std::uint8_t* p = patches.data();
  for (const index k : positions) {
    require(k >= 0 && k < grid.tokens(), "unpatchify: position ", k, " of ", grid.tokens());
    for (index c = 0; c < grid.channels; ++c) {
      for (index y = grid.top(k); y < grid.top(k) + grid.patch; ++y) {
        for (index x = grid.left(k); x < grid.left(k) + grid.patch; ++x) to.at(y, x)[c] = *p++;
      }
    }
  }
  return to;
}

/// The picture from all of its patches in order.
inline image unpatchify(std::span<const std::uint8_t> patches, const patch_grid& grid) {
  grid.check();
  std::vector<std::int32_t> all;
  for (index k = 0; k < grid.tokens(); ++k) all.push_back(static_cast<std::int32_t>(k));
  return unpatchify(patches, all, grid);
}

/// The picture of sample s of a batch; pixels of missing patches are `missing`.
inline image unpatchify(const token_batch& batch, index s, const patch_grid& grid,
                        const pixel_normalisation& normalisation, std::uint8_t missing = 0) {
  require(s >= 0 && s < batch.samples() && batch.patch_dim == grid.patch_dim(), "unpatchify: sample ", s, " of ",
          batch.samples(), ", patches of ", batch.patch_dim, ", expected ", grid.patch_dim());
  const auto full = normalisation.for_channels(grid.channels);
  const index begin = batch.offsets.data()[s], count = batch.offsets.data()[s + 1] - begin;
  const float* from = batch.patches.data() + begin * batch.patch_dim;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count * batch.patch_dim));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t c =
        i % static_cast<std::size_t>(grid.patch_dim()) / static_cast<std::size_t>(grid.patch * grid.patch);
    bytes[i] = to_pixel(from[i], full.mean[c], full.stddev[c]);
  }
  return unpatchify(
      bytes, std::span(batch.positions).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)), grid,
      missing);
}

namespace detail {

/// Shapes a batch for `samples` whole pictures; memory is reused.
inline void shape_whole_batch(const patch_grid& grid, index samples, token_batch& out) {
  const index tokens = grid.tokens();
  out.patch_dim = grid.patch_dim();
  out.patches.resize(static_cast<std::size_t>(samples * tokens * out.patch_dim));
  out.positions.resize(static_cast<std::size_t>(samples * tokens));
  out.offsets.resize(static_cast<std::size_t>(samples + 1));
  out.scale.clear(), out.targets.clear(), out.weights.clear(), out.token_weights.clear();
  for (index s = 0; s <= samples; ++s) out.offsets.data()[s] = s * tokens;
  for (index t = 0; t < samples * tokens; ++t) out.positions.data()[t] = static_cast<std::int32_t>(t % tokens);
}

}  // namespace detail

/// Numbers `[S, C, H, W]` as a batch of whole pictures, taken as they are. `Error`: another number of them.
inline token_batch patchify(std::span<const float> images, const patch_grid& grid) {
  grid.check("patchify");
  const index samples = static_cast<index>(images.size()) / grid.size();
  require(samples * grid.size() == static_cast<index>(images.size()), "patchify: ", images.size(),
          " numbers, expected a multiple of ", grid.size());
  token_batch batch;
  detail::shape_whole_batch(grid, samples, batch);
  float* to = batch.patches.data();
  for (index s = 0; s < samples; ++s) {
    const float* from = images.data() + s * grid.size();
    grid.for_each([&](index y, index x, index c) { *to++ = from[(c * grid.height + y) * grid.width + x]; });
  }
  return batch;
}

/// A batch of whole pictures back to numbers `[B, C, H, W]`; patches may come in any order.
inline std::vector<float> unpatchify(const token_batch& batch, const patch_grid& grid) {
  grid.check();
  require(batch.patch_dim == grid.patch_dim(), "unpatchify: patches of ", batch.patch_dim, ", expected ",
          grid.patch_dim());
  const index area = grid.patch * grid.patch, size = grid.size();
  std::vector<float> images(static_cast<std::size_t>(batch.samples() * size), 0.0f);
  for (index s = 0; s < batch.samples(); ++s) {
    for (index t = batch.offsets.data()[s]; t < batch.offsets.data()[s + 1]; ++t) {
      const index k = batch.positions.data()[t];
      require(k >= 0 && k < grid.tokens(), "unpatchify: position ", k, " of ", grid.tokens());
      for (index e = 0; e < grid.patch_dim(); ++e) {
        const index y = k / grid.cols() * grid.patch + e % area / grid.patch;
        const index x = k % grid.cols() * grid.patch + e % grid.patch;
        images.data()[s * size + (e / area * grid.height + y) * grid.width + x] =
            batch.patches.data()[t * grid.patch_dim() + e];
      }
    }
  }
  return images;
}

struct batch_options {
  index patch = 8;
  pixel_normalisation normalisation = {};
  augmentation augment = {};
  std::uint64_t seed = 0, epoch = 0;  ///< of the augmentation
  int threads = 0;
};

/// The pictures at `indices`, augmented, normalised and cut, with their labels as targets. `Error`: patches that do not
/// tile the pictures, an index out of range.
inline void make_batch(const dataset& data, std::span<const index> indices, const batch_options& options,
                       token_batch& out) {
  const patch_grid grid{data.height, data.width, data.channels, options.patch};
  grid.check();
  const auto samples = static_cast<index>(indices.size());
  const auto table = pixel_table(options.normalisation, data.channels);
  detail::shape_whole_batch(grid, samples, out);
  out.targets.resize(indices.size());
  for (index s = 0; s < samples; ++s) {
    const index i = indices.data()[s];
    require(i >= 0 && i < data.n(), "make_batch: picture ", i, " of ", data.n());
    out.targets.data()[s] = data.labels.data()[i];
  }
  const bool plain = options.augment.shift == 0 && options.augment.flip == 0;
  parallel_chunks(options.threads, samples, 4, [&](index begin, index end) {
    for (index s = begin; s < end; ++s) {
      const image_view from = data.view_of(indices.data()[s]);
      float* to = out.patches.data() + s * data.image_size();
      if (plain) {
        grid.for_each([&](index y, index x, index c) { *to++ = table.data()[c * 256 + from.at(y, x)[c]]; });
      } else {
        const auto draw = draw_augmentation(options.augment, options.seed, options.epoch, indices.data()[s]);
        grid.for_each([&](index y, index x, index c) {
          const index source = draw.source(y, x, from.height, from.width);
          *to++ = table.data()[c * 256 + (source < 0 ? 0 : from.pixels[source * from.channels + c])];
        });
      }
    }
  });
}

inline token_batch make_batch(const dataset& data, std::span<const index> indices, const batch_options& options = {}) {
  token_batch out;
  make_batch(data, indices, options, out);
  return out;
}

}  // namespace core_tokensets
