// The CUDA backend on a device; without one every test says so and ends.

#include "core_tokensets/data/scenes.hpp"
#include "core_tokensets/tensor/cuda.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "cuda/conformance.hpp"
#include "cuda/vit_cases.hpp"
#include "support/ragged.hpp"

namespace {

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;
using cts::cuda::arithmetic;

/// CTest counts the program as skipped when it reads this.
bool no_device() {
  if (cts::cuda::device_count() > 0) return false;
  WARN("skipped: " << cts::cuda::describe());
  return true;
}

const cts::vit_config small{.image = {32, 32, 3}, .patch = 4, .dim = 96, .depth = 3, .heads = 3, .classes = 10};

/// Parameters after some steps on ragged batches of two shapes.
std::vector<float> trained(backend& b, bool graphs) {
  auto model = ragged::lively_model(b, small);
  cts::training_state<backend> state;
  state.optimiser.reset(b, model.layout().parameters);
  for (int i = 0; i < 12; ++i) {
    const auto batch = ragged::noise(small, i % 2 ? std::vector{64, 17, 64, 5} : std::vector{64, 0, 33},
                                     static_cast<std::uint64_t>(i));
    const auto step = [&] { cts::training_step(b, model, batch, {}, {}, 1.0 / (1 + i), state); };
    graphs ? b.repeat(batch.tokens(), step) : step();
  }
  return model.parameters().to_host(b);
}

}  // namespace

TEST_CASE("the device conforms in float32", "[cuda]") {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  conformance::suite<backend>{b, 1e-4}.all();
}

TEST_CASE("the device conforms in TF32 and bfloat16, as far as these go", "[cuda]") {
  if (no_device()) return;
  for (const auto& [how, limit] : {std::pair{arithmetic::tf32, 0.05}, {arithmetic::bf16, 0.4}}) {
    backend b({.arithmetic = how});
    conformance::suite<backend>{b, limit}.products();
    conformance::suite<backend>{b, limit}.attention();
  }
}

TEST_CASE("the device reproduces the golden ViTs", "[cuda][golden]") {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) vit_cases::check_all(b, name);
}

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
  cts::vit<backend> model(b, c);
  cts::sequence_options o;
  o.memory = cts::memory_kind::core_tokenset;
  o.recipe.keep = 0.25;
  o.budget = cts::fraction(0.25);
  o.price = cts::picture_price::raw;
  o.fit.epochs = 1;
  o.fit.batch = 8;
  o.fit.token_drop = 0.5;
  cts::sequence_runner<backend> runner(b, model, stream, o, "test");
  const auto result = runner.run();
  CHECK(result.accuracy.size() == 2);
  CHECK(result.memory_bytes <= result.budget_bytes);
}
