// Every kernel of a training step and of all attributions, for a look at the assembly.

#include "core_tokensets/attribution/any_attribution.hpp"
#include "core_tokensets/tensor/cuda.hpp"
#include "support/steps.hpp"

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;

void all_kernels(backend& b, cts::vit<backend>& model, const cts::token_batch& batch) {
  cts::training_state<backend> state;
  steps::train(b, model, batch, state);
  cts::step(b, cts::sgd{}, state.optimiser, model.parameters(), state.gradients);
  attribute(cts::named_attribution<backend>("random"), b, model, batch);
  cts::ops::softmax<backend, float>(b, *state.gradients);
}
