// The backend on a device: every operation against the reference, the golden ViTs, training with the same bits twice,
// and the sequential loop. One source, as nvcc makes code of every kernel anew for each. [short]: quick enough for
// compute-sanitizer.

#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/tensor/cuda.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "cuda/conformance.hpp"
#include "cuda/vit_cases.hpp"
#include "support/ragged.hpp"
#include "support/steps.hpp"

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

/// Runs one part of the suite in float32.
template <class Part>
void exact(const Part& part) {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  part(conformance::suite<backend>{b, 1e-4});
}

void reproduces(const char* name) {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  vit_cases::check_all(b, name);
}

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

TEST_CASE("the device multiplies in float32", "[cuda][short]") {
  exact([](auto suite) { suite.products(); });
}

TEST_CASE("the device maps, reduces and moves rows", "[cuda][short]") {
  exact([](auto suite) { suite.primitives(); });
}

TEST_CASE("the device computes softmax, layer norm and losses", "[cuda][short]") {
  exact([](auto suite) { suite.fused_rows(); });
}

TEST_CASE("the device computes attention in float32", "[cuda][short]") {
  exact([](auto suite) { suite.attention(); });
}

TEST_CASE("the device conforms in TF32 and bfloat16, as far as these go", "[cuda]") {
  if (no_device()) return;
  for (const auto& [how, limit] : {std::pair{arithmetic::tf32, 0.02}, {arithmetic::bf16, 0.15}}) {
    backend b({.arithmetic = how});
    conformance::suite<backend>{b, 1e-4, how}.products();
    conformance::suite<backend>{b, limit, how}.attention();  // rounds other steps of the softmax than the reference
  }
}

TEST_CASE("the device reproduces the golden ViT a", "[cuda][golden]") { reproduces("vit_a"); }

TEST_CASE("the device reproduces the golden ViT b", "[cuda][golden]") { reproduces("vit_b"); }

TEST_CASE("the device reproduces the golden ViT c", "[cuda][golden][short]") { reproduces("vit_c"); }

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
