// The whole sequential loop (training steps, evidence, selection, attribution, replay, evaluation, checkpoints) on a
// backend whose memory only the ten required functions can reach.

#include "support/archetype.hpp"

#include "core_tokensets/data/scenes.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace {

namespace cts = core_tokensets;

template <class B>
std::pair<std::vector<float>, std::vector<std::uint8_t>> learn(B b, const cts::task_stream& stream,
                                                               const cts::sequence_options& options) {
  cts::vit<B> model(b, {.image = {16, 16, 3}, .patch = 4, .dim = 12, .depth = 2, .heads = 2, .classes = 2});
  cts::sequence_runner<B> runner(b, model, stream, options, "test");
  runner.run();
  return {model.parameters().to_host(b), runner.memory().arrays().patches};
}

}  // namespace

TEST_CASE("the archetype learns a sequence of tasks as the reference does", "[sequence][archetype]") {
  const auto stream = cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 8, .test_per_class = 2, .image = 16, .seed = 1}), {.tasks = 2});
  cts::sequence_options options;
  options.recipe.keep = 0.25;
  options.budget = cts::fraction(0.25);
  options.price = cts::picture_price::raw;
  options.fit.epochs = 1;
  options.fit.batch = 8;
  options.fit.token_drop = 0.5;
  options.fit.label_smoothing = 0.1;
  const support::scratch_folder folder;
  options.out = folder.path;
  const auto got = learn(support::archetype_backend<float>(), stream, options);
  options.out.clear();
  const auto want = learn(cts::reference_backend<float>(), stream, options);
  CHECK(got.first == want.first);
  CHECK(got.second == want.second);
  CHECK_FALSE(got.second.empty());
}
