// Weighted tokens through training: a strategy stores them, replays them, and shows new pictures as it would keep them.

#include "bright.hpp"
#include "core_tokensets/memory/token_rules.hpp"
#include "core_tokensets/train/learner.hpp"
#include "support.hpp"

namespace train_token_weights_tests {

namespace {

using namespace support;
using surely = cts::core_tokenset<last_samples, brightness, cts::surely_tokens>;

/// The tokens of the four brightest patches of eight, and others with weight (16 - 4) / 4.
const surely recipe{.keep = 0.5, .rule = {.sure = 0.5}};

}  // namespace

TEST_CASE("a memory of weighted tokens is a sample of each picture", "[train][weights]") {
  backend b;
  auto model = small_model(b);
  const auto stream = small_stream();
  auto memory = empty_memory(recipe, {.grid = model.config().grid});
  CHECK(memory.format().weighting() == cts::token_weighting::drawn);
  const auto done = consolidate(b, recipe, model, stream[0], memory, cts::fraction(1.0), 3);
  REQUIRE(memory.samples() > 3);
  const auto plain = [&] {
    auto same = recipe;
    same.rule.weighted = false;
    auto m = empty_memory(same, {.grid = model.config().grid});
    consolidate(b, same, model, stream[0], m, cts::fraction(1.0), 3);
    return m;
  }();
  CHECK(plain.format().weighting() == cts::token_weighting::none);
  for (cts::index s = 0; s < memory.samples(); ++s) {
    const auto sample = memory.sample(s);
    const auto sure =
        brightest(stream[0].data->train.view_of(done.samples[static_cast<std::size_t>(s)]), model.config().grid, 4);
    for (std::size_t t = 0; t < 8; ++t) {
      const bool bright = std::find(sure.begin(), sure.end(), sample.positions[t]) != sure.end();
      CHECK(sample.token_weights[t] == (bright ? 1.0f : 3.0f));
    }
    CHECK(std::ranges::equal(sample.positions, plain.sample(s).positions));
  }
  cts::continual_learner learn(b, small_model(b), quick_learner(), recipe);
  learn.learn(stream[0]);
  learn.learn(stream[1]);
  CHECK(learn.memory().samples() > 0);
}

TEST_CASE("new pictures are shown with the weights that the memory would give them", "[train][weights]") {
  backend b;
  const auto model = small_model(b);
  const auto data = small_data();
  const auto whole = make_batch(data.train, std::vector<cts::index>{0, 5, 9}, {.patch = 4});
  for (const auto how : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    cts::token_batch out;
    remembered(b, recipe, model, whole, nullptr, how, out);
    const bool drop = how == cts::missing_tokens::drop;
    REQUIRE(out.tokens() == (drop ? 24 : 48));
    REQUIRE(out.token_weights.size() == (drop ? 24u : 48u));
    CHECK_NOTHROW(out.check());
    CHECK(std::count(out.token_weights.begin(), out.token_weights.end(), 3.0f) == 12);
    for (cts::index s = 0; s < 3; ++s) {
      const auto sure = brightest(data.train.view_of(std::vector<cts::index>{0, 5, 9}[static_cast<std::size_t>(s)]),
                                  model.config().grid, 4);
      for (auto t = out.offsets[static_cast<std::size_t>(s)]; t < out.offsets[static_cast<std::size_t>(s) + 1]; ++t) {
        const auto i = static_cast<std::size_t>(t);
        if (std::find(sure.begin(), sure.end(), out.positions[i]) != sure.end()) CHECK(out.token_weights[i] == 1);
      }
    }
  }
  auto unweighted = recipe;
  unweighted.rule.weighted = false;
  cts::token_batch out;
  remembered(b, unweighted, model, whole, nullptr, cts::missing_tokens::drop, out);
  CHECK(out.token_weights.empty());
}

}  // namespace train_token_weights_tests
