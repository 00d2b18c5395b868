// Training on a device: the same bits twice, and the sequential loop.

#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "cuda/device.hpp"
#include "support/ragged.hpp"
#include "support/steps.hpp"

namespace {

using namespace cuda_device;

const cts::vit_config small{.grid = {32, 32, 3, 4}, .dim = 96, .depth = 3, .heads = 3, .classes = 10};

/// Parameters after some steps on ragged batches of two shapes.
std::vector<float> trained(backend& b, bool graphs) {
  auto model = ragged::lively_model(b, small);
  cts::training_state<backend> state;
  state.optimiser.reset(b, model.layout().parameters);
  for (int i = 0; i < 12; ++i) {
    const auto batch = ragged::noise(small, i % 2 ? std::vector{64, 17, 64, 5} : std::vector{64, 0, 33},
                                     static_cast<std::uint64_t>(i));
    const auto step = [&] { steps::train(b, model, batch, state, 1.0 / (1 + i)); };
    graphs ? b.repeat(batch.tokens(), step) : step();
  }
  return model.parameters().to_host(b);
}

}  // namespace

TEST_CASE("a training run has the same bits twice, with and without graphs", "[cuda][graph]") {
  if (no_device()) return;
  for (const auto how : {arithmetic::f32, arithmetic::tf32, arithmetic::bf16}) {
    backend b({.arithmetic = how});
    const auto want = trained(b, false);
    CHECK(trained(b, false) == want);
    CHECK(trained(b, true) == want);
    CHECK(b.commands().replays() > 4);
  }
}

TEST_CASE("the sequential loop runs on the device: fit, evidence, selection, attribution, memory, replay", "[cuda]") {
  if (no_device()) return;
  backend b;
  const auto stream = cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 12, .test_per_class = 4, .image = 32, .seed = 1}), {.tasks = 2});
  cts::vit_config c = small;
  c.classes = 2;
  const cts::learner_options o{.budget = cts::fraction(0.25), .fit = {.epochs = 1, .batch = 8, .token_drop = 0.5}};
  cts::continual_learner learner(b, cts::vit<backend>(b, c), o);
  const auto result = cts::run_sequence(learner, stream);
  CHECK(result.accuracy.size() == 2);
  CHECK(result.memory_bytes <= result.budget_bytes);
}
