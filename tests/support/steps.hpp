#pragma once
// Training steps of the shortest kind: all samples of a batch are new.

#include "core_tokensets/train/fit.hpp"
#include "core_tokensets/train/objectives/cross_entropy.hpp"

namespace steps {

namespace cts = core_tokensets;

/// One step of AdamW on summed cross-entropy.
template <class B>
void train(B& b, cts::vit<B>& model, const cts::token_batch& batch, cts::training_state<B>& state, double schedule = 1,
           double smoothing = 0) {
  const cts::objective_batch<typename B::scalar> facts{
      .targets = batch.targets, .weights = batch.weights, .fresh = batch.samples()};
  cts::training_step(b, model, batch, facts, cts::summed{.smoothing = smoothing}, cts::adamw{}, {.schedule = schedule},
                     state);
}

}  // namespace steps
