// A model computes with xtensor's BLAS, and its tensors are xtensor expressions without a copy.

#include <cstdio>

#include "core_tokensets/core_tokensets.hpp"
#include "core_tokensets/tensor/xtensor.hpp"

namespace cts = core_tokensets;
using backend = cts::xtensor_backend<float>;

int main() {
  backend b;
  const cts::vit<backend> model(b, {.grid = {8, 8, 1, 4}, .dim = 16, .depth = 2, .heads = 2, .classes = 3});
  const cts::token_batch batch = cts::patchify(std::vector<float>(2 * 64, 0.5f), model.config().grid);
  cts::vit_tape<backend> tape;
  cts::forward(b, model, batch, tape);

  // The logits where they lie, in xtensor's words.
  auto logits = cts::as_xtensor(*tape.logits);
  logits -= 1.0f;
  cts::ops::softmax<backend, float>(b, *tape.logits);
  for (std::size_t i = 0; i < logits.shape()[0]; ++i) {
    std::printf("picture %zu: %zu probabilities, sum %.3f\n", i, logits.shape()[1],
                double(logits(i, 0) + logits(i, 1) + logits(i, 2)));
  }
  std::printf("%s\n", cts::as_view(logits).data == tape.logits.data() ? "the same memory" : "a copy");
}
