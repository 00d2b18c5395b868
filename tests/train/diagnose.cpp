// What is said of a memory: whether the model knows what it stored, or only its form.

#include "core_tokensets/train/diagnose.hpp"

#include "core_tokensets/memory/rules/foveated.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

namespace train_diagnose_tests {

namespace cts = core_tokensets;
using support::backend;

namespace {

template <class Strategy>
std::vector<cts::evaluation> diagnoses(const Strategy& strategy, const cts::task_stream& stream) {
  backend b(1);
  cts::continual_learner learner(b, support::small_model(b),
                                 {.budget = cts::kibibytes(40), .fit = {.epochs = 4, .batch = 8}}, strategy);
  std::vector<cts::evaluation> found;
  for (const auto& t : stream) learner.learn(t);
  for (const auto& t : stream) found.push_back(cts::diagnose(b, std::as_const(learner), t));
  for (std::size_t t = 0; t < found.size(); ++t)
    CHECK(found[t].accuracy == learner.evaluate(stream[static_cast<cts::index>(t)].test()).accuracy);
  return found;
}

}  // namespace

TEST_CASE("pictures that are kept whole and exact are not told from others", "[diagnose]") {
  const auto whole =
      cts::core_tokenset<cts::random_selection, cts::grad_lrp, cts::top_tokens, cts::raw_codec>{.keep = 1};
  for (const auto& e : diagnoses(whole, support::coloured_stream())) {
    CHECK(e.others.at("test as remembered") == e.accuracy);
    CHECK(e.others.at("memory as stored") == e.others.at("memory whole"));
    CHECK(e.others.at("told by form") == 0.5);
  }
}

TEST_CASE("the form of a memory is told where it is another", "[diagnose]") {
  // One token of sixteen: the class token sees something else.
  const auto one = cts::core_tokenset<cts::random_selection, cts::grad_lrp, cts::top_tokens, cts::dct_codec>{
      .keep = 1.0 / 16, .codec = {.quality = 5}};
  const auto found = diagnoses(one, support::coloured_stream());
  for (const auto& e : found) CHECK(e.others.at("told by form") > 0.6);
  CHECK(found[0].others.size() == 4);
  CHECK(found[0].others.at("test as remembered") <= 1);
}

TEST_CASE("what a memory has left to teach: its loss, and the gradient of that", "[diagnose]") {
  backend b(1);
  const auto whole =
      cts::core_tokenset<cts::random_selection, cts::grad_lrp, cts::top_tokens, cts::raw_codec>{.keep = 1};
  cts::continual_learner learner(b, support::small_model(b),
                                 {.budget = cts::kibibytes(40), .fit = {.epochs = 4, .batch = 8}}, whole);
  const auto stream = support::coloured_stream();
  for (const auto& t : stream) learner.learn(t);
  const auto found = cts::diagnose(b, std::as_const(learner), stream[0]);

  std::vector<cts::index> stored;
  for (cts::index s = 0; s < learner.memory().samples(); ++s)
    if (learner.memory().arrays().tasks[static_cast<std::size_t>(s)] == 0) stored.push_back(s);
  REQUIRE(stored.size() > 3);  // so that batches are cut, of which the last has another size
  const auto parts = cts::detail::left_to_teach(b, learner.model(), learner.memory(), stored, {}, 3);
  CHECK(parts.loss == Approx(found.amounts.at("memory loss")).epsilon(1e-5));
  CHECK(parts.gradient_norm == Approx(found.amounts.at("memory gradient")).epsilon(1e-4));
  // A small step down the gradient takes as much of the loss as the norm says.
  cts::vit<backend> moved = learner.model().copy(b);
  cts::training_state<backend> state;
  state.optimiser.reset(b, moved.layout().parameters);
  cts::token_batch all;
  cts::make_batch(learner.memory(), stored, moved.config().normalisation, {}, all);
  const double norm = parts.gradient_norm, rate = 0.01 / norm;
  cts::training_step(b, moved, all, {.targets = all.targets, .weights = {}, .fresh = all.samples()}, cts::summed{},
                     cts::sgd{.learning_rate = rate, .momentum = 0, .weight_decay = 0}, {.clip = 0}, state);
  const auto after = cts::detail::left_to_teach(b, moved, learner.memory(), stored, {});
  CHECK((parts.loss - after.loss) / (rate * norm * norm) == Approx(1).epsilon(0.05));
}

TEST_CASE("measures that a task has none of leave a gap, also in a file", "[diagnose]") {
  cts::sequence_result r;
  r.accuracy = {{0.5}, {0.5, 0.25}};
  cts::detail::add_measures(r.amounts, {}, 0, 0);  // nothing of the first task was stored
  cts::detail::add_measures(r.amounts, {}, 1, 0);
  cts::detail::add_measures(r.amounts, {{"memory loss", 0.75}}, 1, 1);
  cts::detail::add_measures(r.others, {{"told by form", 0.5}}, 0, 0);
  const auto again = cts::sequence_result_from_json(cts::parse_json(cts::to_json(r).dump(), "results"));
  for (const auto& found : {r, again}) {
    const auto& loss = found.amounts.at("memory loss");
    REQUIRE(loss.size() == 2);
    CHECK(loss[0].empty());
    REQUIRE(loss[1].size() == 2);
    CHECK(std::isnan(loss[1][0]));
    CHECK(loss[1][1] == 0.75);
    CHECK(found.others.at("told by form") == cts::accuracy_matrix{{0.5}});
  }
}

TEST_CASE("without a memory only test pictures are looked at", "[diagnose]") {
  for (const auto& e : diagnoses(cts::none{}, support::coloured_stream())) {
    CHECK(e.others.size() == 2);
    CHECK(e.amounts.empty());
    CHECK(e.others.at("told by form") == 0.5);
  }
}

TEST_CASE("told by form: a discriminant of half of the pictures, asked about the other half", "[diagnose]") {
  const std::vector<float> here{0, 1, 0, 2, 0, 1, 0, 2}, there{5, 1, 5, 2, 5, 1, 5, 2};
  CHECK(cts::detail::told_by_form(here, there, 4) == 1.0);
  CHECK(cts::detail::told_by_form(here, here, 4) == 0.5);
  const std::vector<float> swapped{0, 0, 9, 0}, other{9, 0, 0, 0};  // the two pictures say the opposite
  CHECK(cts::detail::told_by_form(swapped, other, 2) == 0.0);
  // What the pictures show differs ten times as much as their form does, along another direction.
  cts::random_stream random(3);
  std::vector<float> shown, stored;
  for (int i = 0; i < 200; ++i) {
    const auto content = static_cast<float>(20 * random.uniform() - 10), form = static_cast<float>(random.uniform());
    shown.insert(shown.end(), {content, content + form});
    stored.insert(stored.end(), {content, content + form + 1.2f});
  }
  CHECK(cts::detail::told_by_form(shown, stored, 200) > 0.95);
}

}  // namespace train_diagnose_tests
