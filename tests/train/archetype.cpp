// The whole sequential loop (training steps, evidence, selection, attribution, replay, evaluation, checkpoints) on a
// backend whose memory only the ten required functions can reach.

#include "support/archetype.hpp"

#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/train/objectives/distilled.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace train_archetype_tests {

namespace {

namespace cts = core_tokensets;

template <class B>
std::pair<std::vector<float>, std::vector<std::byte>> learn(B b, const cts::task_stream& stream,
                                                            const std::filesystem::path& out) {
  const cts::learner_options options{
      .budget = cts::fraction(0.25),
      .fit = {.epochs = 1, .batch = 8, .imprint = true, .align = true, .token_drop = 0.5}};
  cts::continual_learner learner(
      b, cts::vit<B>(b, {.grid = {16, 16, 3, 4}, .dim = 12, .depth = 2, .heads = 2, .classes = 2}), options,
      cts::core_tokenset<>{}, cts::distilled<>{.base = {.smoothing = 0.1}});
  cts::run_sequence(learner, stream, {.out = out});
  return {learner.model().parameters().to_host(b), learner.memory().arrays().pixels};
}

}  // namespace

TEST_CASE("the archetype learns a sequence of tasks as the reference does", "[sequence][archetype]") {
  const auto stream = cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 8, .test_per_class = 2, .image = 16, .seed = 1}), {.tasks = 2});
  const support::scratch_folder folder;
  const auto got = learn(support::archetype_backend<float>(), stream, folder.path);
  const auto want = learn(cts::reference_backend<float>(), stream, {});
  CHECK(got.first == want.first);
  CHECK(got.second == want.second);
  CHECK_FALSE(got.second.empty());
}

}  // namespace train_archetype_tests
