#pragma once
// The pixels of tokens without loss: each is foreseen from those around it, in its token and in tokens that touch it,
// and what is left is coded by how restless the surroundings are.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "core_tokensets/memory/codecs/neighbours.hpp"
#include "core_tokensets/memory/codecs/range_coder.hpp"

namespace core_tokensets::detail {

/// All adaptive bits of the lossless codec.
struct lossless_model {
  static constexpr std::size_t planes = 3, activities = 9, errors = 4, lengths = 9;
  static constexpr std::size_t contexts = planes * activities * errors;
  static constexpr std::size_t next_at = contexts * lengths, count = 2 * next_at;

  std::array<adaptive_bit, count> bits;
};

/// Both directions of the lossless codec over one sample; `Coder` reads or writes bits (see range_coder.hpp).
template <class Coder>
class lossless_sample {
 public:
  lossless_sample(Coder& coder, const patch_context& context, lossless_model& model)
      : coder_(coder),
        context_(context),
        patch_(context.grid.patch),
        finder_(context, 1),
        model_(model),
        window_(static_cast<std::size_t>((patch_ + 1) * stride())),
        errors_(static_cast<std::size_t>(patch_ * patch_)) {}

  /// Codes the tokens one after the other: `values [n, C, p, p]` are written, or filled.
  void code(std::span<std::uint8_t> values) {
    for (index t = 0; t < context_.tokens(); ++t) {
      std::fill(errors_.begin(), errors_.end(), std::uint8_t{0});
      for (index c = 0; c < context_.grid.channels; ++c) code_plane(values, t, c);
    }
  }

 private:
  /// A row of the window: a margin to the left, the pixels, one to the right.
  index stride() const { return patch_ + 2; }
  std::uint8_t* at(index y, index x) { return window_.data() + (y + 1) * stride() + x + 1; }

  /// The margins: what touching tokens hold there, or what is nearest.
  void open_window(std::span<const std::uint8_t> values, index t, index c) {
    const index area = patch_ * patch_, dim = context_.grid.patch_dim();
    const auto plane = [&](index token) { return values.data() + token * dim + c * area; };
    const auto left = finder_.token_beside(t, 0, -1), above = finder_.token_beside(t, 1, 0);
    const auto corner = finder_.token_beside(t, 1, -1), right = finder_.token_beside(t, 1, 1);
    left_ = left >= 0, above_ = above >= 0;
    int unknown =
        c > 0 && context_.grid.channels != 3 ? values[static_cast<std::size_t>(t * dim + (c - 1) * area)] : 128;
    const auto near = finder_.near(static_cast<std::size_t>(t), 0, 0);
    if (near.count > 0) unknown = plane(static_cast<index>(near.found[0].block))[area - 1];
    std::fill(window_.begin(), window_.end(), static_cast<std::uint8_t>(unknown));
    const index last = patch_ - 1;
    for (index i = 0; i < patch_; ++i) {
      if (left_) *at(i, -1) = plane(left)[i * patch_ + last];
      if (above_) *at(-1, i) = plane(above)[last * patch_ + i];
    }
    if (!left_ && above_) *at(0, -1) = *at(-1, 0);
    if (left_ && !above_) std::fill_n(at(-1, -1), stride(), *at(0, -1));
    if (above_) *at(-1, -1) = corner >= 0 ? plane(corner)[area - 1] : *at(-1, 0);
    if (above_) *at(-1, patch_) = right >= 0 ? plane(right)[last * patch_] : *at(-1, last);
  }

  void code_plane(std::span<std::uint8_t> values, index t, index c) {
    open_window(values, t, c);
    std::uint8_t* here = values.data() + t * context_.grid.patch_dim() + c * patch_ * patch_;
    const auto kind = static_cast<std::size_t>(std::min<index>(c, 2));
    for (index y = 0; y < patch_; ++y) {
      if (!left_ && y > 0) *at(y, -1) = *at(y - 1, 0);
      if (y > 0) *at(y - 1, patch_) = *at(y - 1, patch_ - 1);
      for (index x = 0; x < patch_; ++x) {
        const std::uint8_t* p = at(y, x);
        const std::uint8_t* up = p - stride();
        const int west = p[-1], north = up[0], corner = up[-1], east = up[1];
        // The median of west, north and the plane through all three (LOCO-I, Weinberger et al., 2000).
        const int low = std::min(west, north), high = std::max(west, north);
        const int expected = std::clamp(west + north - corner, low, high);
        const int restless = std::abs(west - corner) + std::abs(north - corner) + std::abs(north - east);
        std::uint8_t& error = errors_[static_cast<std::size_t>(y * patch_ + x)];
        const std::size_t before = c == 0 ? 0 : error == 0 ? 1 : error < 4 ? 2 : 3;
        const std::size_t context =
            (kind * lossless_model::activities + activity(restless)) * lossless_model::errors + before;
        const int off = static_cast<std::int8_t>(static_cast<std::uint8_t>(here[y * patch_ + x] - expected));
        const auto some = [&](std::size_t from) {
          return std::span(model_.bits).subspan(from + context * lossless_model::lengths, lossless_model::lengths);
        };
        const int size = code_number(coder_, std::abs(off), some(0), some(lossless_model::next_at), 8);
        const int found = size != 0 && coder_.code(off < 0) ? -size : size;
        here[y * patch_ + x] = static_cast<std::uint8_t>(expected + found);
        *at(y, x) = here[y * patch_ + x];
        error = static_cast<std::uint8_t>(std::min(size, 255));
      }
    }
  }

  static std::size_t activity(int restless) {
    return std::min<std::size_t>(std::bit_width(static_cast<unsigned>(restless)), lossless_model::activities - 1);
  }

  Coder& coder_;
  const patch_context& context_;
  index patch_;
  block_finder finder_;
  lossless_model& model_;
  std::vector<std::uint8_t> window_, errors_;
  bool left_ = false, above_ = false;
};

}  // namespace core_tokensets::detail
