// Teaches a small Vision Transformer to find a bright square among noise, then asks GradLRP where it looked.

#include <cstdio>

#include "core_tokensets/core_tokensets.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

constexpr int side = 4;      // patches along an edge
constexpr int samples = 64;  // pictures in a batch

/// Pictures of 4x4 patches of 2x2 pixels: noise, and one patch whose upper (class 0) or lower (class 1) half is bright.
cts::token_batch pictures(cts::random_stream& random, std::vector<std::ptrdiff_t>& where) {
  cts::token_batch batch;
  batch.patch_dim = 4;
  where.clear();
  for (int s = 0; s < samples; ++s) {
    const auto target = static_cast<int>(random.below(2));
    where.push_back(random.below(side * side));
    for (int k = 0; k < side * side; ++k) {
      batch.positions.push_back(k);
      for (int pixel = 0; pixel < 4; ++pixel) {
        const bool bright = k == where.back() && pixel / 2 == target;
        batch.patches.push_back(static_cast<float>(0.3 * random.normal()) + (bright ? 2.0f : 0.0f));
      }
    }
    batch.offsets.push_back(static_cast<std::ptrdiff_t>(batch.positions.size()));
    batch.targets.push_back(target);
  }
  return batch;
}

}  // namespace

int main() {
  backend b;
  cts::vit<backend> model(b, {.grid = {8, 8, 1, 2}, .dim = 32, .depth = 2, .heads = 4, .classes = 2});
  cts::optimiser_state<backend> state;
  state.reset(b, model.layout().parameters);
  cts::vit_tape<backend> tape;
  cts::tensor<backend> gradients(b, 1, model.parameters().size()), dtokens;
  cts::loss_tape<backend> loss;
  cts::random_stream random(1);
  std::vector<std::ptrdiff_t> where;

  for (int step = 0; step < 300; ++step) {
    const auto batch = pictures(random, where);
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, loss);
    b.fill(*gradients, 0.0f);
    cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
    cts::step(b, cts::adamw{.learning_rate = 2e-3}, state, model.parameters(), gradients);
  }

  const auto batch = pictures(random, where);
  cts::attribution_workspace<backend> workspace;
  const auto relevance = cts::attribute(cts::grad_lrp{}, b, model, batch, batch.targets, workspace);
  const auto logits = workspace.tape.logits.to_host(b);
  int right = 0, found = 0;
  for (std::size_t s = 0; s < samples; ++s) {
    right += (logits[2 * s + 1] > logits[2 * s]) == (batch.targets[s] == 1);
    const auto first = relevance.begin() + static_cast<std::ptrdiff_t>(s) * side * side;
    found += std::max_element(first, first + side * side) - first == where[s];
  }
  std::printf("class right:       %s\n", right >= 60 ? "at least 60 of 64" : "too rarely");
  std::printf("patch found by it: %s\n", found >= 56 ? "at least 56 of 64" : "too rarely");
}
