// The whole library in a program of one training step: prints the bits of what was learnt, which do not depend on how
// it was built or on how many threads worked.

#include <cstdio>
#include <numeric>

#include "core_tokensets/core_tokensets.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

int main() {
  const auto scenes = cts::scenes({.classes = 4, .train_per_class = 4, .test_per_class = 0, .image = 32});
  std::vector<cts::index> all(static_cast<std::size_t>(scenes.train.n()));
  std::iota(all.begin(), all.end(), cts::index{0});
  const auto batch = cts::make_batch(scenes.train, all, {.patch = 8});
  for (const int threads : {1, 3}) {
    backend b(threads);
    cts::vit<backend> model(b, {.grid = {32, 32, 3, 8}, .dim = 48, .depth = 2, .heads = 3, .classes = 4});
    cts::vit_tape<backend> tape;
    cts::loss_tape<backend> loss;
    cts::optimiser_state<backend> state;
    cts::tensor<backend> gradients(b, 1, model.parameters().size()), dtokens;
    state.reset(b, model.layout().parameters);
    for (int i = 0; i < 3; ++i) {
      cts::forward(b, model, batch, tape);
      cts::cross_entropy(b, *std::as_const(tape.logits), batch.targets, loss);
      b.fill(*gradients, 0.0f);
      cts::backward(b, model, tape, *std::as_const(loss.dlogits), gradients.data(), dtokens);
      cts::clip_gradients(b, gradients, 1.0, state);
      cts::step(b, cts::adamw{}, state, model.parameters(), gradients);
    }
    const auto parameters = model.parameters().to_host(b);
    std::printf("%016llx\n", static_cast<unsigned long long>(cts::fnv1a(std::as_bytes(std::span(parameters)))));
  }
}
