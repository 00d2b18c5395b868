#pragma once
// A training step in pieces: each is a batch of its own, their gradients are added up in an order that does not depend
// on how many ranks share them.

#include <cstdint>
#include <exception>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/tensor/tensor.hpp"
#include "core_tokensets/train/fit_options.hpp"

namespace core_tokensets::detail {

/// The samples of a step that are in one of its pieces, which are as even as they can be.
inline std::span<const index> piece_of(std::span<const index> samples, index piece, index pieces) {
  const auto n = static_cast<index>(samples.size()), begin = n * piece / pieces, end = n * (piece + 1) / pieces;
  return samples.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

/// The seed of what is random in a piece of a step; the first one's is the step's own.
inline std::uint64_t seed_of_piece(std::uint64_t seed, index piece) {
  return seed ^ (static_cast<std::uint64_t>(piece) * 0x9e3779b97f4a7c15u);
}

/// Adds up the gradients of the pieces of a step in pairs of neighbours, then pairs of pairs: those of this rank as
/// they come, then those of the ranks. A rank has consecutive pieces and their number is a power of two, so the order
/// is the same for any number of ranks.
template <tensor_backend B>
class piece_sum {
 public:
  using T = typename B::scalar;

  explicit piece_sum(const fit_options& o) : ranks_(o.ranks), pieces_(o.pieces) {}

  /// True where a step is one batch.
  bool whole() const { return pieces_ == 1; }
  index pieces() const { return pieces_; }
  /// The pieces of this rank.
  index first() const { return pieces_ / ranks_.size() * ranks_.rank(); }
  index last() const { return pieces_ / ranks_.size() * (ranks_.rank() + 1); }
  /// The loss of the step: the mean over all of its samples.
  double loss() const { return loss_; }

  /// Adds the next piece of this rank: its gradient, which is used up, and its loss. What is in `gradient` after the
  /// last one is the sum.
  void add(B& b, tensor<B>& gradient, double loss) {
    loss_ = loss;
    std::size_t level = 0;
    for (index before = added_; before % 2 == 1; before /= 2, ++level) {
      b.map(fn::add{}, *gradient, *std::as_const(levels_[level].gradient));
      loss_ += levels_[level].loss;
    }
    if (++added_ == last() - first()) return;
    if (level == levels_.size()) levels_.emplace_back();
    std::swap(levels_[level].gradient, gradient);
    levels_[level].loss = loss_;
  }

  /// The sum over the ranks, when all pieces of this one are in `gradient`.
  void finish(B& b, tensor<B>& gradient) {
    added_ = 0;
    if (ranks_.alone()) return;
    static_assert(std::same_as<T, float> || std::same_as<T, double>);
    on_host_.resize(static_cast<std::size_t>(gradient.size()));
    b.download(on_host_.data(), gradient.data(), gradient.size());
    ranks_.all_reduce(std::span(on_host_), "adding up gradients");
    b.upload(gradient.data(), on_host_.data(), gradient.size());
    ranks_.all_reduce(std::span(&loss_, 1), "adding up losses");
  }

 private:
  struct partial {
    tensor<B> gradient;
    double loss = 0;
  };
  team ranks_;
  index pieces_, added_ = 0;
  double loss_ = 0;
  std::vector<partial> levels_;  ///< level i: the sum of 2^i pieces that wait for as many more
  std::vector<T> on_host_;
};

/// `Error` on all ranks unless the numbers of a model are the same on all of them, as they are where all ranks compute
/// with the same program on the same kind of machine.
template <tensor_backend B>
void check_same_model(B& b, const team& ranks, const tensor<B>& parameters) {
  if (ranks.alone()) return;
  const auto numbers = parameters.to_host(b);
  const std::uint64_t own = fnv1a(std::as_bytes(std::span(numbers)));
  const auto all = ranks.all_gather(std::as_bytes(std::span(&own, 1)), "comparing models");
  for (std::size_t r = 1; r < all.size(); ++r) {
    require(all[r] == all[0], "fit: the models of ranks 0 and ", r, " came apart; all ranks must run the same program ",
            "with the same backend on the same kind of processor");
  }
}

/// Calls `body()`; where it throws, the other ranks are told. `stopped` comes to all of them anyway.
template <class Body>
auto or_leave(const team& ranks, const Body& body) {
  try {
    return body();
  } catch (const stopped&) {
    throw;
  } catch (const std::exception& e) {
    ranks.leave(e.what());
    throw;
  }
}

}  // namespace core_tokensets::detail
