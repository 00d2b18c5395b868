#pragma once
// What a training step minimises: a type that reads logits and what the batch carries, and writes their gradient.

#include <concepts>
#include <cstdint>
#include <span>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/nn/loss.hpp"

namespace core_tokensets {

/// What an objective may read besides the logits `[R, K]`: rows of new samples come first, those of replayed ones
/// behind. For classes a row is a sample; for texts it is a token that is asked for.
template <class T>
struct objective_batch {
  std::span<const std::int32_t> targets;  ///< [R]
  std::span<const float> weights;         ///< [R]; the loss is the mean over the rows of weight times loss
  index fresh = 0;                        ///< rows of new samples
  index first_class = 0;                  ///< classes from here on are new in this task; 0: all are, or nobody knows
  view<const T> start_logits = {};        ///< [R, K'] of the model as the task found it, K' <= K; empty: not asked for
  /// Logits that the memory kept of each replayed sample, and their classes (-1: none there) `[R - fresh, width]`.
  std::span<const float> stored_logits = {};
  std::span<const std::int32_t> stored_classes = {};
};

/// An objective: `loss(o, b, logits, batch, tape)` writes `tape.losses` `[R, 1]` (without weights) and `tape.dlogits`
/// `[R, K]` (=), the gradient of the mean over the rows of weight times loss. It may say more of itself:
///   a member `bool uses_start_model`                 asks for `start_logits`;
///   `index stored_logits() const`                    how many logits a memory shall keep of each sample (0: none);
///   `index on_equal_footing(index fresh, index replayed, index first_class, index classes) const`
///       how many of the new samples, the first of a batch, shall look as the memory's do (0: none).
template <class O, class B>
concept objective = std::copyable<O> && tensor_backend<B> &&
    requires(const O& o, B& b, view<const typename B::scalar> logits, const objective_batch<typename B::scalar>& batch,
             loss_tape<B>& tape) {
  { loss(o, b, logits, batch, tape) } -> std::same_as<void>;
};

template <class O>
bool uses_start_model(const O& o) {
  if constexpr (requires { o.uses_start_model; }) return o.uses_start_model;
  return false;
}

template <class O>
index stored_logits(const O& o) {
  if constexpr (requires { o.stored_logits(); }) return o.stored_logits();
  return 0;
}

template <class O>
index on_equal_footing(const O& o, index fresh, index replayed, index first_class, index classes) {
  if constexpr (requires { o.on_equal_footing(fresh, replayed, first_class, classes); })
    return o.on_equal_footing(fresh, replayed, first_class, classes);
  return 0;
}

}  // namespace core_tokensets
