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

TEST_CASE("on equal footing the first new samples look as the memory's do, and all others stay whole", "[fit]") {
  const auto data = support::small_data().train;
  const cts::vit_config c{.grid = {16, 16, 3, 4}, .classes = 4};
  cts::fit_options o{.token_drop = 0.75, .token_drop_often = 1};
  const std::vector<cts::index> part{3, 1, 2, 0};
  cts::new_pictures pictures;
  const auto untouched = cts::new_pictures().take(data, part, c, {.token_drop = 0}, {.epoch = 2, .step = 5});
  o.as_remembered = [&](const cts::token_batch& some, const cts::text_batch*, cts::token_batch& out) {
    CHECK(some.samples() == 3);
    CHECK(some.targets == std::vector<std::int32_t>(untouched.targets.begin(), untouched.targets.begin() + 3));
    std::vector<std::uint8_t> mask(48, 0);
    for (std::size_t t = 0; t < 48; ++t) mask[t] = t % 16 == 7;
    cts::apply_token_mask(some, mask, o.missing, out);
  };
  const auto batch = pictures.take(data, part, c, o, {.epoch = 2, .step = 5}, nullptr, 3);
  CHECK_NOTHROW(batch.check());
  CHECK(batch.targets == untouched.targets);
  CHECK(batch.offsets == std::vector<cts::index>{0, 1, 2, 3, 19});
  CHECK(std::equal(batch.patches.end() - 16 * 48, batch.patches.end(), untouched.patches.end() - 16 * 48));
  CHECK(std::equal(batch.patches.begin(), batch.patches.begin() + 48, untouched.patches.begin() + 7 * 48));
}

TEST_CASE("equal footing is for the samples for which old classes compete", "[fit]") {
  const cts::ace fair{.equal_footing = true};
  CHECK(cts::on_equal_footing(fair, 4, 2, 4, 6) == 1);
  CHECK(cts::on_equal_footing(fair, 8, 8, 2, 4) == 8);
  CHECK(cts::on_equal_footing(fair, 8, 0, 2, 4) == 0);
  CHECK(cts::on_equal_footing(fair, 8, 8, 0, 4) == 0);  // nobody knows what is old
  CHECK(cts::on_equal_footing(cts::ace{.equal_footing = false}, 8, 8, 2, 4) == 0);
  CHECK(cts::on_equal_footing(cts::distilled<>{.base = fair}, 4, 2, 4, 6) == 1);
  CHECK(cts::on_equal_footing(cts::dark_experience<>{.base = fair}, 4, 2, 4, 6) == 1);
  CHECK(cts::on_equal_footing(cts::summed{}, 8, 8, 2, 4) == 0);

  // In training: in each step of the second task, and never in the first.
  support::backend b(1);
  auto model = support::small_model(b);
  const auto stream = support::small_stream();
  cts::token_memory memory(model.config().grid);
  auto o = support::quick();
  o.token_drop = 0;
  std::vector<cts::index> asked;
  o.as_remembered = [&](const cts::token_batch& some, const cts::text_batch*, cts::token_batch& out) {
    asked.push_back(some.samples());
    out = some;
  };
  cts::fit(b, model, stream[0], memory, o, fair);
  CHECK(asked.empty());
  (void)cts::consolidate(b, cts::random_tokens{}, model, stream[0], memory, cts::bytes(4000));
  REQUIRE(memory.samples() > 3);
  o.batch = 5, o.replay_batch = 3;
  cts::fit(b, model, stream[1], memory, o, fair);
  REQUIRE(!asked.empty());
  CHECK(asked.front() == 3);  // two old and two new classes: as many as are replayed
  asked.clear();
  cts::fit(b, model, stream[1], memory, o, cts::ace{.equal_footing = false});
  CHECK(asked.empty());
}

/// Pixels of which only the upper four bits are kept.
struct coarse_codec {
  static constexpr const char* name = "coarse";
  std::vector<std::uint8_t> encode(const cts::patch_context&, std::span<const std::uint8_t> pixels) const {
    std::vector<std::uint8_t> bytes;
    for (const auto p : pixels) bytes.push_back(p / 16);
    return bytes;
  }
  void decode(const cts::patch_context&, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) pixels[i] = std::uint8_t(bytes[i] * 16 + 8);
  }
};

TEST_CASE("new samples as remembered are what the memory gives back of them", "[fit]") {
  support::backend b(1);
  auto model = support::small_model(b);
  const auto stream = support::small_stream();
  using recipe = cts::core_tokenset<cts::random_selection, cts::gradient_x_input, cts::top_tokens, coarse_codec>;
  const recipe how{.keep = 0.25};
  auto memory = cts::empty_memory(how, {.grid = model.config().grid});
  const auto task = stream[0];
  const auto stored = cts::consolidate(b, how, model, task, memory, cts::bytes(100'000));
  REQUIRE(memory.samples() > 2);
  const auto& normalisation = model.config().normalisation;
  for (const auto missing : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    std::vector<cts::index> all(static_cast<std::size_t>(memory.samples()));
    std::iota(all.begin(), all.end(), cts::index{0});
    const auto replayed = cts::make_batch(memory, all, normalisation, {.missing = missing});
    const auto whole = cts::make_batch(task.data->train, stored.samples, {.patch = 4, .normalisation = normalisation});
    cts::token_batch got;
    cts::remembered(b, how, model, whole, nullptr, missing, got);
    CHECK_NOTHROW(got.check());
    CHECK(got.positions == replayed.positions);
    CHECK(got.offsets == replayed.offsets);
    CHECK(got.patches == replayed.patches);
    CHECK(got.scale == replayed.scale);
    CHECK(got.targets == whole.targets);
  }
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
