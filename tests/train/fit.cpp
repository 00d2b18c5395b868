// A training step on its own: how new and replayed samples share the loss.

#include "core_tokensets/train/fit.hpp"

#include <cmath>

#include "core_tokensets/train/objectives/objectives.hpp"
#include "support/catch.hpp"
#include "support/ragged.hpp"
#include "support/scratch.hpp"
#include "train/support.hpp"

namespace train_fit_tests {

namespace {

namespace cts = core_tokensets;

/// Four new and two replayed samples; the memory gave its samples the weights 1 and 3.
cts::token_batch mixed() {
  const cts::vit_config c{.grid = {8, 8, 1, 4}, .classes = 6};
  auto batch = ragged::noise(c, {4, 4, 4, 4, 1, 1});
  batch.weights = {1, 1, 1, 1, 1, 3};
  return batch;
}

}  // namespace

TEST_CASE("the loss is the mean over the new samples plus the weighted mean over the replayed ones", "[fit]") {
  auto weights = mixed().weights;
  cts::detail::balance_weights(weights, 6, 4);
  // cross_entropy divides by all six samples.
  for (std::size_t s = 0; s < 4; ++s) CHECK(weights[s] / 6 == Approx(1.0 / 4));
  CHECK(weights[4] / 6 == Approx(1.0 / 4));
  CHECK(weights[5] / 6 == Approx(3.0 / 4));
}

TEST_CASE("asymmetric loss: new samples compete among new classes, but for their share of the balanced part", "[fit]") {
  // Two replayed samples for four old classes: one new sample for two new classes keeps the balance.
  CHECK(cts::ace::open_contest(4, 2, 4, 6) == 1);
  // Without replay all of them compete among the new classes only; in the first task all classes are new.
  CHECK(cts::ace::open_contest(6, 0, 4, 6) == 0);
  CHECK(cts::ace::open_contest(6, 0, 0, 6) == 6);
  CHECK(cts::ace::open_contest(4, 100, 2, 6) == 4);
}

TEST_CASE("new pictures lose what the memory would leave out, or random tokens", "[fit]") {
  const auto data = support::small_data().train;
  const cts::vit_config c{.grid = {16, 16, 3, 4}, .classes = 4};
  cts::fit_options o{.token_drop = 0.75, .token_drop_often = 0.5};
  cts::new_pictures pictures;
  const std::vector<cts::index> part{0, 1, 2};
  int thin = 0;
  for (cts::index step = 0; step < 40; ++step) {
    const cts::epoch_position at{.epoch = 0, .step = step};
    std::size_t asked = 0;
    o.drop_rule = cts::token_drop_rule::memory;
    o.as_remembered = [&](const cts::token_batch& whole, const cts::text_batch*, cts::token_batch& out) {
      asked = whole.positions.size();
      std::vector<std::uint8_t> mask(48, 0);
      for (std::size_t t = 0; t < 48; ++t) mask[t] = t % 16 >= 12;
      cts::apply_token_mask(whole, mask, o.missing, out);
    };
    const auto batch = pictures.take(data, part, c, o, at);
    const bool lost = cts::new_pictures::thins(o, at);
    thin += lost ? 1 : 0;
    CHECK(asked == (lost ? 48u : 0u));
    REQUIRE(batch.tokens() == (lost ? 12 : 48));
    if (lost)
      CHECK(std::vector(batch.positions.begin(), batch.positions.begin() + 4) ==
            std::vector<std::int32_t>{12, 13, 14, 15});
    o.drop_rule = cts::token_drop_rule::random;
    CHECK(pictures.take(data, part, c, o, at).tokens() == batch.tokens());  // the same steps
  }
  CHECK(thin > 10);
  CHECK(thin < 30);
}

TEST_CASE("options that make no sense, data and memories that do not fit are refused before any step", "[fit]") {
  support::backend b(1);
  auto model = support::small_model(b);
  const auto stream = support::small_stream();
  const cts::token_memory memory(model.config().grid);
  const auto told = [&](const cts::fit_options& o) {
    return support::message_of([&] { cts::fit(b, model, stream[0], memory, o); });
  };
  using support::has;
  CHECK(has(told({.epochs = 0}), "epochs 0"));
  CHECK(has(told({.batch = 0}), "batch 0"));
  CHECK(has(told({.replay_batch = -1}), "replay_batch -1"));
  CHECK(has(told({.warm_up = NAN}), "warm_up nan"));
  CHECK(has(told({.clip = -1}), "clip -1"));
  CHECK(has(told({.token_drop = 1}), "token_drop 1"));
  CHECK(has(told({.token_drop_often = 1.5}), "token_drop_often 1.5"));
  CHECK(has(told({.flip = NAN}), "flip nan"));
  CHECK(has(told({.shift = -2}), "shift -2"));

  // A memory of another grid with as many numbers a patch: its places would be other places.
  cts::token_memory turned(cts::patch_grid{8, 32, 3, 4});
  turned.append({.patches = std::vector<std::uint8_t>(48), .positions = std::vector<std::uint16_t>{3}});
  CHECK(has(support::message_of([&] { cts::fit(b, model, stream[1], turned, support::quick()); }),
            "the memory holds images of 8 x 32 x 3 in patches of 4, the model sees images of 16 x 16 x 3"));
  cts::dataset larger = cts::scenes({.classes = 2, .train_per_class = 2, .test_per_class = 1, .image = 32}).train;
  CHECK(has(support::message_of([&] { cts::fit(b, model, larger, support::quick()); }), "the data have 32 x 32 x 3"));
  CHECK(has(support::message_of([&] {
              cts::fit(b, model, stream[0], memory, support::quick(), cts::dark_experience<>{});
              cts::token_memory plain(model.config().grid);
              plain.append({.patches = std::vector<std::uint8_t>(48), .positions = std::vector<std::uint16_t>{3}});
              cts::fit(b, model, stream[1], plain, support::quick(), cts::dark_experience<>{});
            }),
            "the memory does not keep"));
  auto named = support::small_model(b);
  named.set_class_names({"a", "b"});
  CHECK(has(support::message_of([&] { cts::fit(b, named, stream[0], memory, support::quick()); }),
            "class 0 of the model is 'a'"));
  CHECK_THROWS_AS(cts::run_model(b, model, stream[0].test(), 0), cts::Error);
}

}  // namespace train_fit_tests
