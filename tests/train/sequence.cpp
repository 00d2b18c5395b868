// The sequential loop: its metrics by hand, its budgets, and a resumed run that ends in the same bits.

#include "core_tokensets/train/sequence.hpp"

#include "core_tokensets/data/scenes.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

cts::task_stream small_stream() {
  return cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 12, .test_per_class = 4, .image = 16, .seed = 1}), {.tasks = 2});
}

struct outcome {
  cts::sequence_result result;
  std::vector<float> parameters;
  std::vector<std::uint8_t> patches;
  cts::index memory_bytes;
};

outcome run(const cts::task_stream& stream, const cts::sequence_options& options, int threads = 2) {
  backend b(threads);
  cts::vit<backend> model(b, {.image = {16, 16, 3}, .patch = 4, .dim = 16, .depth = 2, .heads = 2, .classes = 2});
  cts::sequence_runner<backend> runner(b, model, stream, options, "test");
  auto result = runner.run();
  return {result, model.parameters().to_host(b), runner.memory().arrays().patches, runner.memory().bytes_on_disk()};
}

cts::sequence_options quick(cts::memory_kind kind) {
  cts::sequence_options o;
  o.memory = kind;
  o.recipe.keep = 0.25;
  o.budget = cts::fraction(0.25);
  o.price = cts::picture_price::raw;
  o.fit.epochs = 1;
  o.fit.batch = 8;
  o.fit.token_drop = 0.5;
  return o;
}

}  // namespace

TEST_CASE("metrics of an accuracy matrix are those computed by hand", "[metrics]") {
  const auto m = cts::measure({{0.8}, {0.9, 0.6}, {0.5, 0.4, 0.7}});
  CHECK(m.average_accuracy == Approx(1.6 / 3));
  CHECK(m.average_incremental_accuracy == Approx((0.8 + 0.75 + 1.6 / 3) / 3));
  CHECK(m.forgetting == Approx(((0.9 - 0.5) + (0.6 - 0.4)) / 2));
  CHECK(m.backward_transfer == Approx(((0.5 - 0.8) + (0.4 - 0.6)) / 2));
  CHECK_THROWS_AS(cts::measure({}), cts::Error);
  CHECK_THROWS_AS(cts::measure({{0.8}, {0.9}}), cts::Error);
}

TEST_CASE("every memory runs through the same loop and keeps its budget", "[sequence]") {
  const auto stream = small_stream();
  for (int kind = 0; kind < 7; ++kind) {
    INFO(cts::memory_kind_names[kind]);
    const auto got = run(stream, quick(static_cast<cts::memory_kind>(kind)));
    REQUIRE(got.result.accuracy.size() == 2);
    CHECK(got.result.accuracy[1].size() == 2);
    const bool stores = kind >= 1 && kind <= 4;
    CHECK((got.result.memory_samples > 0) == stores);
    CHECK(got.result.memory_bytes <= got.result.budget_bytes);
    if (stores) CHECK(got.result.memory_bytes == got.memory_bytes);
    if (kind >= 2 && kind <= 4) CHECK(got.result.memory_tokens == 4 * got.result.memory_samples);  // a quarter of 16
    if (kind == 1) CHECK(got.result.memory_tokens == 16 * got.result.memory_samples);
  }
}

TEST_CASE("new pictures lose what the memory would leave out, or random tokens", "[sequence]") {
  const auto stream = small_stream();
  cts::fit_options o;
  o.token_drop = 0.75, o.token_drop_often = 0.5;
  cts::new_pictures pictures;
  const std::vector<cts::index> part{0, 1, 2};
  int thin = 0;
  for (cts::index step = 0; step < 40; ++step) {
    const cts::epoch_position at{.epoch = 0, .step = step};
    std::size_t ranked = 0;
    o.token_relevance = [&](const cts::token_batch& whole) {
      ranked = whole.positions.size();
      std::vector<double> relevance(whole.positions.begin(), whole.positions.end());
      return relevance;
    };
    const auto batch = pictures.take(stream.data.train, part, 4, o, at);
    const bool lost = cts::new_pictures::thins(o, at);
    thin += lost ? 1 : 0;
    CHECK(ranked == (lost ? 48u : 0u));
    REQUIRE(batch.tokens() == (lost ? 12 : 48));
    if (lost)
      CHECK(std::vector(batch.positions.begin(), batch.positions.begin() + 4) ==
            std::vector<std::int32_t>{12, 13, 14, 15});
    o.token_relevance = {};
    CHECK(pictures.take(stream.data.train, part, 4, o, at).tokens() == batch.tokens());  // the same steps
  }
  CHECK(thin > 10);
  CHECK(thin < 30);

  // The rule is for memories of relevant tokens only, and makes a difference there.
  using cts::memory_kind;
  for (const auto kind : {memory_kind::coreset, memory_kind::random_tokens, memory_kind::core_tokens}) {
    auto with = quick(kind), without = quick(kind);
    with.token_drop = cts::token_drop_rule::memory;
    CHECK((run(stream, with).parameters == run(stream, without).parameters) == (kind != memory_kind::core_tokens));
  }
}

TEST_CASE("a coreset at the price of its files weighs what the chosen files weigh", "[sequence]") {
  auto stream = small_stream();
  for (std::size_t i = 0; i < stream.data.train.source_bytes.size(); ++i)
    stream.data.train.source_bytes[i] = 100 + 50 * (i % 3);
  auto options = quick(cts::memory_kind::coreset);
  options.price = cts::picture_price::source;
  options.budget = cts::bytes(1300);
  backend b(1);
  cts::vit<backend> model(b, {.image = {16, 16, 3}, .patch = 4, .dim = 16, .depth = 2, .heads = 2, .classes = 2});
  cts::sequence_runner<backend> runner(b, model, stream, options, "files");
  const auto result = runner.run();
  cts::index weight = 0;
  for (const auto i : runner.pictures()) weight += cts::file_price(stream.data.train, i);
  CHECK(result.memory_bytes == weight);
  CHECK(weight <= 1300);
  CHECK(weight > 1000);
  CHECK(static_cast<cts::index>(runner.pictures().size()) == runner.memory().samples());

  // A task whose files are all too large for what is left adds nothing, and is no error.
  for (const auto i : stream[1].train) stream.data.train.source_bytes[static_cast<std::size_t>(i)] = 5000;
  const auto first_only = run(stream, options);
  CHECK(first_only.result.memory_samples > 0);
  CHECK(first_only.result.memory_bytes <= 650);
}

TEST_CASE("a run is the same to the bit for any number of threads, and after a resume", "[sequence]") {
  const auto stream = small_stream();
  auto options = quick(cts::memory_kind::core_tokenset);
  const auto want = run(stream, options, 1);
  CHECK(run(stream, options, 3).parameters == want.parameters);

  // A run that is cut off in its second task leaves the checkpoint of the first.
  const support::scratch_folder folder;
  options.out = folder.path;
  options.fit.on_progress = [](const cts::progress& p) {
    if (p.what == "task 2/2") throw std::runtime_error("cut off");
  };
  CHECK_THROWS_AS(run(stream, options), std::runtime_error);
  options.fit.on_progress = {};
  options.resume = true;
  const auto got = run(stream, options);
  CHECK(got.parameters == want.parameters);
  CHECK(got.patches == want.patches);
  CHECK(got.result.accuracy == want.result.accuracy);

  backend b;
  cts::vit<backend> model(b, {.image = {16, 16, 3}, .patch = 4, .dim = 16, .depth = 2, .heads = 2, .classes = 2});
  cts::sequence_runner<backend> other(b, model, stream, options, "another run");
  CHECK_THROWS_AS(other.run(), cts::Error);
}

TEST_CASE("class means count as memory", "[sequence]") {
  const auto got = run(small_stream(), quick(cts::memory_kind::ncm));
  CHECK(got.result.memory_bytes == 4 * 16 * 4);  // classes, channels, bytes of a float
  CHECK(got.result.memory_samples == 0);
  CHECK(run(small_stream(), quick(cts::memory_kind::none)).result.memory_bytes == 0);
}

TEST_CASE("a memory of another model's patches is refused", "[sequence]") {
  const auto stream = small_stream();
  backend b;
  cts::vit<backend> model(b, {.image = {16, 16, 3}, .patch = 4, .dim = 16, .depth = 1, .heads = 2, .classes = 4});
  cts::token_memory memory({.image_height = 16, .image_width = 16, .channels = 3, .patch = 8});
  const auto told = [&](std::vector<cts::index> indices) {
    return support::message_of(
        [&] { cts::consolidate(b, model, stream.data.train, indices, cts::core_tokenset{}, 1, {}, 0, memory); });
  };
  CHECK(support::has(told({0}), "in patches of 8, the model sees"));
  memory = cts::token_memory({.image_height = 16, .image_width = 16, .channels = 3, .patch = 4});
  CHECK(support::has(told({stream.data.train.n()}), "consolidate: picture"));
  CHECK(told({0}).empty());
}

TEST_CASE("a budget that holds no token and unknown names are errors", "[sequence]") {
  auto options = quick(cts::memory_kind::core_tokenset);
  options.budget = cts::bytes(100);
  CHECK_THROWS_AS(run(small_stream(), options), cts::Error);
  CHECK_THROWS_AS(cts::parse_memory_kind("everything"), cts::Error);
  CHECK_THROWS_AS(cts::parse_selection("best"), cts::Error);
  CHECK_THROWS_AS(cts::parse_attribution("best"), cts::Error);
}
