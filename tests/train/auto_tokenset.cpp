// The form of what is stored is chosen by its worth and its price.

#include "core_tokensets/train/auto_tokenset.hpp"

#include <set>

#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "train/support.hpp"

namespace train_auto_tokenset_tests {

namespace cts = core_tokensets;
using support::backend;
using support::has;
using support::message_of;

namespace {

/// Gradients of n samples of one class, whole and stored: delta is (1) and features are given, so that a gradient is
/// (1, feature).
cts::evidence gradients(const std::vector<float>& whole, const std::vector<float>& stored) {
  cts::evidence e{.samples = static_cast<cts::index>(whole.size() + stored.size()),
                  .classes = 1,
                  .features = 1,
                  .delta = {},
                  .feature = whole,
                  .labels = {},
                  .target = {}};
  e.feature.insert(e.feature.end(), stored.begin(), stored.end());
  e.delta.assign(e.feature.size(), 1.0);
  e.labels.assign(e.feature.size(), 0);
  return e;
}

/// Of enough pictures that what a form loses is told from noise.
cts::task_stream larger_stream() {
  return cts::class_incremental(
      cts::scenes({.classes = 4, .train_per_class = 60, .test_per_class = 4, .image = 16, .seed = 1}), {.tasks = 2});
}

struct trained {
  backend b{1};
  cts::task_stream stream = larger_stream();
  cts::vit<backend> model = support::small_model(b);

  trained() { cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), support::quick()); }
};

const std::vector<cts::token_form> few{{0.25, 5}, {0.5, 20}, {1, 5}, {1, 95}};

}  // namespace

TEST_CASE("what storing moves and how much samples differ, by hand", "[auto]") {
  const auto same = cts::detail::worth_of(gradients({1, 3}, {1, 3}));
  CHECK(same.moved == 0);
  CHECK(same.spread == Approx(2));                                             // variance of 1 and 3 with n - 1
  CHECK(cts::detail::worth_of(gradients({1, 3}, {4, 6})).moved == Approx(9));  // moved alike: no noise
  // Differences 2 and 6: mean 4, variance 8, so 16 - 8 / 2.
  CHECK(cts::detail::worth_of(gradients({1, 3}, {3, 9})).moved == Approx(12));
  CHECK(cts::detail::worth_of(gradients({1, 3}, {2, 2})).moved == 0);
}

TEST_CASE("small budgets buy cheap forms and large ones exact ones", "[auto]") {
  trained t;
  cts::auto_tokenset<> recipe{.forms = few, .probe = 120};
  const auto memory = empty_memory(recipe, {.grid = t.model.config().grid});
  const auto error = [&](cts::index bytes) {
    return expected_errors(t.b, recipe, t.model, t.stream[0], memory, memory.bytes_on_disk() + bytes);
  };
  const auto small = error(60), large = error(100'000);
  REQUIRE(small.size() == 4);
  CHECK(std::isinf(small[3]));  // not one sharp whole picture
  CHECK(large[3] < large[0]);
  CHECK(large[3] < large[2]);
  CHECK(std::min_element(large.begin(), large.end()) - large.begin() == 3);
  for (std::size_t f = 0; f < 4; ++f) CHECK(large[f] <= small[f]);
  CHECK(large[0] < small[0]);  // more samples, less chance
  const auto again = error(60);
  CHECK(again == small);
}

TEST_CASE("a memory of chosen forms keeps its budget, says its forms and goes on after a restart", "[auto]") {
  const auto stream = larger_stream();
  const support::scratch_folder folder;
  const auto run = [&](cts::index kib, bool stop) {
    backend b(1);
    cts::auto_tokenset<> recipe{.forms = few, .probe = 120};
    cts::continual_learner learner(b, support::small_model(b), {.budget = cts::kibibytes(kib), .fit = support::quick()},
                                   recipe);
    std::vector<std::string> forms;
    for (const auto& t : stream) {
      const auto done = learner.learn(t);
      CHECK(done.memory_bytes <= done.budget_bytes);
      CHECK(done.memory_samples > 0);
      forms.push_back(done.form);
      if (stop && t.number == 0) {
        learner.save(folder.path);
        auto later = cts::load_learner(b, folder.path, recipe);
        CHECK(later.how().chosen == learner.how().chosen);
        const auto rest = later.learn(stream[1]);
        forms.push_back(rest.form);
        CHECK(rest.memory_bytes <= rest.budget_bytes);
      }
    }
    return forms;
  };
  const auto through = run(6, false), stopped = run(6, true);
  CHECK(stopped == std::vector<std::string>{through[0], through[1], through[1]});
  CHECK(has(through[0], "keep "));
  CHECK(run(100, false)[0] == "keep 1, quality 95");
}

TEST_CASE("samples of several forms share a memory with weights", "[auto]") {
  trained t;
  cts::auto_tokenset<> recipe{.forms = {{0.5, 20}}, .probe = 8};
  auto memory = empty_memory(recipe, {.grid = t.model.config().grid});
  (void)consolidate(t.b, recipe, t.model, t.stream[0], memory, memory.bytes_on_disk() + 400);
  const auto halves = memory.samples();
  recipe.forms = {{1, 5}};
  (void)consolidate(t.b, recipe, t.model, t.stream[0], memory, memory.bytes_on_disk() + 400);
  REQUIRE(memory.samples() > halves);
  std::set<float> of_half, of_whole;
  for (const float w : memory.token_weights(0)) of_half.insert(w);
  for (const float w : memory.token_weights(halves)) of_whole.insert(w);
  CHECK(of_half == std::set<float>{1, 3});
  CHECK(of_whole == std::set<float>{1});
  const support::scratch_folder folder;
  memory.save(folder.path / "memory");
  CHECK(cts::load_token_memory(folder.path / "memory").token_weights(0) == memory.token_weights(0));
  CHECK(memory.qualities(0) == std::vector<std::uint8_t>(8, 20));
  CHECK(memory.qualities(halves) == std::vector<std::uint8_t>(16, 5));
}

TEST_CASE("forms that make no sense and budgets that hold none are told", "[auto]") {
  trained t;
  const auto grid = t.model.config().grid;
  CHECK(has(message_of([&] { empty_memory(cts::auto_tokenset<>{.forms = {{0.5, 0}}}, {.grid = grid}); }), "quality 0"));
  CHECK(has(message_of([&] { empty_memory(cts::auto_tokenset<>{.forms = {{1.5, 20}}}, {.grid = grid}); }), "keep 1.5"));
  auto options = support::quick_learner();
  options.budget = cts::bytes(90);
  cts::continual_learner learner(t.b, support::small_model(t.b), options, cts::auto_tokenset<>{});
  CHECK(has(message_of([&] { learner.learn(t.stream[0]); }), "hold nothing"));
}

}  // namespace train_auto_tokenset_tests
