#pragma once
// Replay: which samples of the memory come next, and the batch that a model trains on.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/data/token_batch.hpp"
#include "core_tokensets/memory/token_memory.hpp"

namespace core_tokensets {

/// Deals the numbers 0 .. samples-1 in random order, then again in another: every sample comes once a cycle, and a
/// draw costs O(1) on average. Small enough a state to be saved: the order of a cycle is a function of `cycle_start`.
class replay_sampler {
 public:
  /// Everything that the future depends on.
  struct state {
    index samples = 0;
    std::uint64_t seed = 0, stream = 0;
    std::uint64_t cycle_start = 0;  ///< position of the random stream before this cycle's shuffle
    index cursor = 0;               ///< samples dealt in this cycle
    bool operator==(const state&) const = default;
  };

  replay_sampler(index samples, std::uint64_t seed, std::uint64_t stream = 0)
      : replay_sampler(state{.samples = samples, .seed = seed, .stream = stream}) {}

  /// Goes on exactly where `position()` was taken.
  explicit replay_sampler(const state& from) : state_(from), random_(from.seed, from.stream, from.cycle_start) {
    require(from.samples > 0 && from.cursor >= 0 && from.cursor <= from.samples, "replay: ", from.cursor, " of ",
            from.samples, " samples dealt, expected at least one sample and no more dealt than there are");
    order_ = random_.permutation(from.samples);
  }

  const state& position() const { return state_; }

  /// Fills `out` with the next samples; a batch may run over the end of a cycle.
  void draw(std::span<index> out) {
    for (index& s : out) {
      if (state_.cursor == state_.samples) {
        state_.cycle_start = random_.position();
        state_.cursor = 0;
        order_ = random_.permutation(state_.samples);
      }
      s = order_[static_cast<std::size_t>(state_.cursor++)];
    }
  }
  std::vector<index> draw(index count) {
    require(count >= 0, "replay: a draw of ", count);
    std::vector<index> out(static_cast<std::size_t>(count));
    draw(std::span(out));
    return out;
  }

 private:
  state state_;
  random_stream random_;
  std::vector<index> order_;
};

/// How stored samples become a batch.
struct replay_options {
  missing_tokens missing = missing_tokens::drop;
  double flip = 0;  ///< probability that a sample is mirrored: the places of its tokens and their pixels
  std::uint64_t seed = 0, step = 0;  ///< of the mirrors
};

/// Turns stored samples into a batch, normalised as the model wants it. `drop`: the kept tokens only. `zero` and
/// `rescaled`: the whole grid, where tokens that are not kept are 0 and have scale 0, kept ones scale 1 (the authors
/// never rescale the memory). Kept tokens have the weights that the memory keeps. `out` is overwritten and its storage
/// reused.
inline void make_batch(const token_memory& memory, std::span<const index> samples,
                       const pixel_normalisation& normalisation, const replay_options& options, token_batch& out) {
  const auto& arrays = memory.arrays();
  const patch_grid& grid = memory.format().grid;
  require(options.flip >= 0 && options.flip <= 1, "replay: flip ", options.flip, ", expected a probability");
  const bool whole_grid = options.missing != missing_tokens::drop;
  const index dim = grid.patch_dim(), area = grid.patch * grid.patch;

  out.patch_dim = dim;
  out.offsets.assign(1, 0);
  out.targets.clear();
  out.weights.clear();
  for (const index s : samples) {
    require(s >= 0 && s < memory.samples(), "replay: no sample ", s, ", there are ", memory.samples());
    out.offsets.push_back(out.offsets.back() + (whole_grid ? grid.tokens() : arrays.tokens_of(s)));
    out.targets.push_back(arrays.targets[static_cast<std::size_t>(s)]);
    out.weights.push_back(arrays.weights[static_cast<std::size_t>(s)]);
  }
  const auto rows = static_cast<std::size_t>(out.tokens());
  out.patches.resize(rows * static_cast<std::size_t>(dim));
  out.positions.resize(rows);
  out.scale.resize(whole_grid ? rows : 0);
  const bool weighted = memory.format().weighting() != token_weighting::none;
  out.token_weights.assign(weighted ? rows : 0, 1.0f);

  const auto table = pixel_table(normalisation, grid.channels);
  const auto write_patch = [&](const std::uint8_t* pixels, bool mirrored, float* row) {
    for (index c = 0; c < grid.channels; ++c) {
      const float* lookup = table.data() + c * 256;
      for (index i = c * area; i < (c + 1) * area; ++i) {
        const index x = i % grid.patch;
        row[i] = lookup[pixels[mirrored ? i - x + grid.patch - 1 - x : i]];
      }
    }
  };
  const auto write_sample = [&](index i, std::vector<std::uint8_t>& pixels) {
    const index s = samples[static_cast<std::size_t>(i)];
    const auto positions = arrays.positions_of(s);
    const index begin = out.offsets[static_cast<std::size_t>(i)], end = out.offsets[static_cast<std::size_t>(i) + 1];
    random_stream random(options.seed ^ 0x6d6972726f72, options.step, static_cast<std::uint64_t>(i));
    const bool mirrored = options.flip > 0 && random.uniform() < options.flip;
    pixels.resize(positions.size() * static_cast<std::size_t>(dim));
    memory.unpack(s, pixels);
    const std::vector<float> weights = memory.token_weights(s);
    if (whole_grid) {
      std::fill(out.patches.begin() + begin * dim, out.patches.begin() + end * dim, 0.0f);
      std::fill(out.scale.begin() + begin, out.scale.begin() + end, 0);
      for (index t = begin; t < end; ++t)
        out.positions[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(t - begin);
    }
    for (index t = 0; t < static_cast<index>(positions.size()); ++t) {
      index position = positions[static_cast<std::size_t>(t)];
      if (mirrored) position += grid.cols() - 1 - 2 * (position % grid.cols());
      const index row = begin + (whole_grid ? position : t);
      write_patch(pixels.data() + t * dim, mirrored, out.patches.data() + row * dim);
      out.positions[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(position);
      if (whole_grid) out.scale[static_cast<std::size_t>(row)] = 1;
      if (weighted) out.token_weights[static_cast<std::size_t>(row)] = weights[static_cast<std::size_t>(t)];
    }
  };
  const bool small = out.patches.size() < 100'000;  // threads cost more than they bring
  parallel_chunks(small ? 1 : 0, static_cast<index>(samples.size()), 8, [&](index begin, index end) {
    std::vector<std::uint8_t> pixels;
    for (index i = begin; i < end; ++i) write_sample(i, pixels);
  });
}

inline token_batch make_batch(const token_memory& memory, std::span<const index> samples,
                              const pixel_normalisation& normalisation, const replay_options& options = {}) {
  token_batch batch;
  make_batch(memory, samples, normalisation, options, batch);
  return batch;
}

}  // namespace core_tokensets
