// Every kernel of a training step and of all attributions, for a look at the assembly.

#include "core_tokensets/attribution/methods.hpp"
#include "core_tokensets/tensor/cuda.hpp"
#include "core_tokensets/train/fit.hpp"

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;

void all_kernels(backend& b, cts::vit<backend>& model, const cts::token_batch& batch) {
  cts::training_state<backend> state;
  cts::training_step(b, model, batch, {}, {}, 1.0, state);
  cts::step(b, cts::sgd{}, state.optimiser, model.parameters(), state.gradients);
  cts::attribution_workspace<backend> workspace;
  cts::attribute(cts::attribution_method{}, b, model, batch, {}, workspace);
  cts::ops::softmax<backend, float>(b, *state.gradients);
}
