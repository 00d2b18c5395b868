#pragma once
// What of a sample was coded already and lies near: the tokens from which a codec foresees the next one.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/memory/codec.hpp"

namespace core_tokensets::detail {

/// Blocks near another one that were coded before it, the nearest first.
struct near_blocks {
  struct one {
    std::size_t block;
    int weight;  ///< 64 / squared distance
  };
  std::array<one, 3> found{};
  int count = 0;
  int distance = 3;  ///< 0: two of them touch; 1: one does; 2: within two blocks; 3: farther, or none
};

/// Finds them. Every token is `tiles` x `tiles` blocks, coded row by row, one token after the other.
class block_finder {
 public:
  block_finder(const patch_context& context, int tiles) : context_(context), tiles_(tiles) {
    std::size_t end = 0;
    for (const auto p : context.positions) end = std::max(end, std::size_t{p} + 1);
    token_at_.assign(end, -1);
    for (std::size_t t = context.positions.size(); t-- > 0;) token_at_[context.positions[t]] = static_cast<int>(t);
  }

  std::size_t blocks() const { return context_.positions.size() * per_token(); }
  std::size_t per_token() const { return static_cast<std::size_t>(tiles_) * static_cast<std::size_t>(tiles_); }

  /// The token that many rows up and columns to the right of token t, if it was coded before it; -1 otherwise.
  std::ptrdiff_t token_beside(index t, index up, index right) const {
    const index cols = context_.grid.cols(), place = context_.positions[static_cast<std::size_t>(t)];
    const index y = place / cols - up, x = place % cols + right;
    if (y < 0 || x < 0 || x >= cols || static_cast<std::size_t>(y * cols + x) >= token_at_.size()) return -1;
    const int found = token_at_[static_cast<std::size_t>(y * cols + x)];
    return found < t ? found : -1;
  }

  /// What lies near block (row, col) of token t.
  near_blocks near(std::size_t t, int row, int col) const {
    const index cols = context_.grid.cols();
    const index y = context_.positions[t] / cols * tiles_ + row, x = context_.positions[t] % cols * tiles_ + col;
    const auto self = static_cast<std::ptrdiff_t>(t * per_token()) + row * tiles_ + col;
    near_blocks near;
    int touching = 0;
    for (const auto [dy, dx] : ways) {
      const std::ptrdiff_t found = block_at(y - dy, x + dx);
      if (found < 0 || found >= self) continue;
      const int square = dy * dy + dx * dx;
      touching += square == 1;
      if (near.count == 0) near.distance = square <= 4 ? 2 : 3;
      near.found[static_cast<std::size_t>(near.count++)] = {static_cast<std::size_t>(found), 64 / square};
      if (near.count == 3 || (near.count == 2 && touching == 2)) break;
    }
    if (touching > 0) near.distance = touching == 2 ? 0 : 1;
    if (near.count == 0 && self > 0) near.found[0] = {static_cast<std::size_t>(self) - 1, 1}, near.count = 1;
    return near;
  }

 private:
  struct way {
    int up, right;
  };
  /// Blocks that may have been coded before, by distance.
  static constexpr way ways[] = {{0, -1}, {1, 0}, {1, -1}, {1, 1}, {0, -2}, {2, 0}, {2, -1}, {2, 1},
                                 {1, -2}, {1, 2}, {2, -2}, {2, 2}, {0, -3}, {3, 0}, {3, -1}, {3, 1},
                                 {1, -3}, {1, 3}, {3, -2}, {3, 2}, {2, -3}, {2, 3}, {3, -3}, {3, 3}};

  /// Number of the block in that place of the picture, or -1.
  std::ptrdiff_t block_at(index y, index x) const {
    const index cols = context_.grid.cols();
    if (y < 0 || x < 0 || x >= cols * tiles_) return -1;
    const auto place = static_cast<std::size_t>(y / tiles_ * cols + x / tiles_);
    if (place >= token_at_.size() || token_at_[place] < 0) return -1;
    return token_at_[place] * static_cast<std::ptrdiff_t>(per_token()) + y % tiles_ * tiles_ + x % tiles_;
  }

  const patch_context& context_;
  int tiles_;
  std::vector<int> token_at_;
};

}  // namespace core_tokensets::detail
