#pragma once
// A selector and an attribution of one's own whose outcome is known without a model: the last samples, the brightest
// patches. And what a memory must hold then, computed from the pictures alone.

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "core_tokensets/train/strategies.hpp"
#include "support/catch.hpp"

namespace support {

namespace cts = core_tokensets;

/// Chooses the last k samples, each with a weight of its own.
struct last_samples {
  static constexpr const char* name = "last";
};
inline cts::selection_result select(const last_samples&, const cts::evidence& e, cts::index k) {
  cts::selection_result chosen;
  for (cts::index i = 0; i < k; ++i) {
    chosen.indices.push_back(e.samples - 1 - i);
    chosen.weights.push_back(0.5f + 0.25f * static_cast<float>(i));
  }
  return chosen;
}

/// How bright each patch is, and for answers also how long the text: no two patches of a scene are alike.
struct brightness {
  static constexpr const char* name = "brightness";
};
inline std::vector<double> brightness_of(const cts::token_batch& batch) {
  std::vector<double> relevance;
  for (cts::index t = 0; t < batch.tokens(); ++t) {
    const auto row = batch.patches.begin() + t * batch.patch_dim;
    relevance.push_back(std::accumulate(row, row + batch.patch_dim, 0.0));
  }
  return relevance;
}
template <class B>
std::vector<double> attribute(const brightness&, B&, const cts::vit<B>&, const cts::token_batch& batch,
                              const cts::target&, cts::attribution_workspace<B>&) {
  return brightness_of(batch);
}
template <class B>
cts::answer_relevance attribute(const brightness&, B&, const cts::image_text_model<B>&, const cts::token_batch& images,
                                const cts::text_batch& texts, cts::answer_workspace<B>&) {
  return {brightness_of(images), std::vector<double>(texts.tokens.size(), 0.0)};
}

using bright_tokens = cts::core_tokenset<last_samples, brightness, cts::top_tokens, cts::raw_codec>;

/// The brightest `count` patches of a picture, computed from its pixels.
inline std::vector<std::uint16_t> brightest(const cts::image_view& picture, const cts::patch_grid& grid,
                                            std::size_t count) {
  std::vector<std::pair<long, std::uint16_t>> order;
  for (cts::index k = 0; k < grid.tokens(); ++k) {
    long sum = 0;
    for (cts::index y = grid.top(k); y < grid.top(k) + grid.patch; ++y) {
      for (cts::index x = grid.left(k); x < grid.left(k) + grid.patch; ++x) {
        for (cts::index c = 0; c < grid.channels; ++c) sum += picture.at(y, x)[c];
      }
    }
    order.emplace_back(-sum, static_cast<std::uint16_t>(k));
  }
  std::sort(order.begin(), order.end());
  std::vector<std::uint16_t> kept;
  for (std::size_t i = 0; i < count; ++i) kept.push_back(order[i].second);
  std::sort(kept.begin(), kept.end());
  return kept;
}

/// Checks sample s of a memory against the picture that it must have come from.
inline void check_sample(const cts::token_memory& memory, cts::index s, const cts::image_view& picture,
                         std::size_t count) {
  const cts::patch_grid& grid = memory.format().grid;
  const auto sample = memory.sample(s);
  const auto want = brightest(picture, grid, count);
  CHECK(std::vector(sample.positions.begin(), sample.positions.end()) == want);
  std::size_t at = 0;
  bool same = true;
  for (const cts::index k : want) {
    for (cts::index c = 0; c < grid.channels; ++c) {
      for (cts::index y = grid.top(k); y < grid.top(k) + grid.patch; ++y) {
        for (cts::index x = grid.left(k); x < grid.left(k) + grid.patch; ++x)
          same = same && sample.patches[at++] == picture.at(y, x)[c];
      }
    }
  }
  CHECK(same);
}

}  // namespace support
