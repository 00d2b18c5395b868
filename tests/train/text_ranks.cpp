// Questions taught on several ranks: the bits of one.

#include <mutex>

#include "core_tokensets/data/scenes/scene_questions.hpp"
#include "core_tokensets/train/objectives/objectives.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/thread_ranks.hpp"
#include "train/support.hpp"

namespace train_text_ranks_tests {

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

/// Two tasks on so many ranks; all of them must end with the same parameters.
std::vector<float> learn(int size, cts::index pieces) {
  const auto text = cts::scene_questions(
      {.scenes = {.classes = 4, .train_per_class = 6, .test_per_class = 1, .image = 16, .objects = 2}, .per_image = 3});
  const auto stream = cts::groups_as_tasks(text.data, 2);
  std::mutex one;
  std::vector<std::vector<float>> found;
  support::on_ranks(size, [&](const cts::team& ranks) {
    backend b(1);
    auto words = cts::tokenizer::train(cts::corpus_of(stream.data().train), {.vocabulary = 300});
    const auto vocabulary = words.size();
    cts::image_text_model<backend> model(
        b,
        {.image = {.grid = {16, 16, 3, 8}, .dim = 16, .depth = 1, .heads = 2},
         .text = {.vocabulary = vocabulary, .length = 60, .dim = 16, .depth = 1, .heads = 2}},
        std::move(words));
    cts::continual_learner learner(
        b, std::move(model),
        {.budget = cts::bytes(4000),
         .fit = {.epochs = 2, .batch = 7, .replay_batch = 5, .texts_per_picture = 2, .ranks = ranks, .pieces = pieces}},
        cts::core_tokenset<>{}, cts::distilled<>{});
    for (const auto& t : stream) learner.learn(t);
    if (learner.memory().samples() <= 5) throw std::runtime_error("too few samples to replay");
    const std::lock_guard hold(one);
    found.push_back(learner.model().parameters().to_host(b));
  });
  for (const auto& other : found) CHECK((other == found.front()));
  return found.front();
}

}  // namespace

TEST_CASE("2 and 4 ranks teach questions to the bits of one", "[ranks]") {
  const auto want = learn(1, 4);
  CHECK((learn(2, 4) == want));
  CHECK((learn(4, 4) == want));
  CHECK_FALSE((learn(1, 1) == want));
}

}  // namespace train_text_ranks_tests
