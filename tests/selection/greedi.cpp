// Selection in two rounds: against its definition, on any number of ranks, and what it loses.

#include "core_tokensets/selection/greedi.hpp"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <set>

#include "core_tokensets/selection/any_selector.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/thread_ranks.hpp"

namespace selection_greedi_tests {

namespace cts = core_tokensets;

static_assert(cts::selector<cts::greedi<>> && cts::selector<cts::greedi<cts::random_selection>>);

namespace {

/// n samples of K classes with random logits and features; with `rows` some have several rows.
cts::evidence random_evidence(cts::index n, cts::index classes, cts::index features, bool rows = false) {
  cts::random_stream random(5);
  std::vector<cts::index> begins;
  std::vector<std::int32_t> labels, targets;
  if (rows) begins.push_back(0);
  for (cts::index i = 0; i < n; ++i) {
    labels.push_back(static_cast<std::int32_t>(i % classes));
    const cts::index own = rows ? 1 + i % 3 : 1;
    for (cts::index r = 0; r < own; ++r) targets.push_back(static_cast<std::int32_t>((i + r) % classes));
    if (rows) begins.push_back(begins.back() + own);
  }
  std::vector<float> logits(targets.size() * static_cast<std::size_t>(classes)),
      feature(targets.size() * static_cast<std::size_t>(features));
  for (float& x : logits) x = static_cast<float>(random.normal());
  for (float& x : feature) x = static_cast<float>(random.normal());
  return cts::make_evidence(logits, feature, targets, classes, begins, labels);
}

std::vector<cts::index> sorted(std::vector<cts::index> of) {
  std::sort(of.begin(), of.end());
  return of;
}

/// How far the chosen samples with the best weights stay from the mean gradient, as a share of its length.
double loss_of(const cts::evidence& e, const std::vector<cts::index>& chosen) {
  std::vector<cts::index> all(static_cast<std::size_t>(e.samples));
  std::iota(all.begin(), all.end(), cts::index{0});
  const auto found =
      cts::match_gradient(e, chosen, cts::gradient_mean(e, all), static_cast<cts::index>(chosen.size()), 1e-9);
  return found.residual / found.target_norm;
}

/// Takes the samples with the longest gradients; knows nothing of `among`.
struct longest {};
cts::selection_result select(const longest&, const cts::evidence& e, cts::index k) {
  std::vector<cts::index> all(static_cast<std::size_t>(e.samples));
  std::iota(all.begin(), all.end(), cts::index{0});
  std::stable_sort(all.begin(), all.end(),
                   [&](cts::index a, cts::index b) { return cts::inner(e, a, a) > cts::inner(e, b, b); });
  all.resize(static_cast<std::size_t>(k));
  return {all, std::vector<float>(all.size(), 1.0f), 0};
}

}  // namespace

TEST_CASE("two rounds against their definition", "[selection][greedi]") {
  const auto e = random_evidence(60, 3, 4);
  const cts::grad_match plain{
      .lambda = 0.01, .per_class = false, .absolute_lambda = true, .temperature = 1, .weighted = true};
  std::vector<cts::index> all(60), candidates;
  std::iota(all.begin(), all.end(), cts::index{0});
  const auto mean = cts::gradient_mean(e, all);
  // Sample i is of class i % 3 and the i / 3-th of it; twenty of each are dealt on where the class before ended.
  for (cts::index s = 0; s < 4; ++s) {
    std::vector<cts::index> shard;
    for (const cts::index i : all) {
      if ((i % 3 * 20 + i / 3) % 4 == s) shard.push_back(i);
    }
    REQUIRE(shard.size() == 15);
    const auto some = cts::match_gradient(e, shard, mean, 6, 0.01);
    candidates.insert(candidates.end(), some.order.begin(), some.order.end());
  }
  const auto want = cts::match_gradient(e, sorted(candidates), mean, 6, 0.01);
  const auto got = select(cts::greedi<>{.select = plain, .shards = 4}, e, 6);
  CHECK(got.indices == want.order);
  CHECK(got.weights == cts::normalise_weights(want.weights));
}

TEST_CASE("one shard is the selector itself", "[selection][greedi]") {
  const auto e = random_evidence(60, 3, 4);
  for (const bool per_class : {true, false}) {
    const cts::grad_match plain{.per_class = per_class};
    CHECK(sorted(select(cts::greedi<>{.select = plain, .shards = 1}, e, 9).indices) ==
          sorted(select(plain, e, 9).indices));
  }
}

TEST_CASE("classes keep their shares, and a budget of all is all", "[selection][greedi]") {
  const auto e = random_evidence(61, 3, 4);
  const auto some = select(cts::greedi<>{.shards = 8}, e, 12);
  std::vector<int> of_class(3);
  for (const auto i : some.indices) ++of_class[static_cast<std::size_t>(i % 3)];
  CHECK(of_class == std::vector<int>{4, 4, 4});
  for (const cts::index shards : {1, 3, 61, 100}) {
    const auto all = select(cts::greedi<>{.shards = shards}, e, 61).indices;
    CHECK(std::set<cts::index>(all.begin(), all.end()).size() == 61);
  }
  CHECK_THROWS_AS(select(cts::greedi<>{.shards = 0}, e, 5), cts::Error);
  CHECK_THROWS_AS(select(cts::greedi<>{}, e, 62), cts::Error);
}

TEST_CASE("a selector that sees its shard only chooses by what is in it", "[selection][greedi]") {
  for (const bool rows : {false, true}) {
    const auto e = random_evidence(40, 4, 3, rows);
    CHECK(sorted(select(cts::greedi<longest>{.shards = 5}, e, 7).indices) == sorted(select(longest{}, e, 7).indices));
  }
  const auto e = random_evidence(40, 4, 3);
  const cts::greedi<cts::random_selection> chance{.shards = 5};
  const auto some = select(chance.with_seed(1), e, 7).indices;
  CHECK(std::set<cts::index>(some.begin(), some.end()).size() == 7);
  CHECK(some != select(chance.with_seed(2), e, 7).indices);
}

TEST_CASE("the choice does not depend on the number of ranks", "[selection][greedi]") {
  const auto e = random_evidence(200, 4, 6);
  const auto want = select(cts::greedi<>{.shards = 8}, e, 12);
  for (const int size : {2, 3, 4}) {
    std::mutex one;
    std::vector<cts::selection_result> found;
    support::on_ranks(size, [&](const cts::team& ranks) {
      auto got = select(cts::greedi<>{.shards = 8, .ranks = ranks}, e, 12);
      const std::lock_guard hold(one);
      found.push_back(std::move(got));
    });
    for (const auto& got : found) {
      CHECK(got.indices == want.indices);
      CHECK(got.weights == want.weights);
    }
  }
}

TEST_CASE("what two rounds lose against one is little beside what a choice at random loses", "[selection][greedi]") {
  const auto e = random_evidence(400, 4, 16);
  const cts::grad_match plain{.per_class = false, .temperature = 1, .weighted = true};
  const double one = loss_of(e, select(plain, e, 20).indices),
               two = loss_of(e, select(cts::greedi<>{.select = plain, .shards = 8}, e, 20).indices),
               chance = loss_of(e, select(cts::random_selection{}, e, 20).indices);
  CAPTURE(one, two, chance);
  CHECK(one < chance);
  CHECK(two < one + 0.25 * (chance - one));
}

TEST_CASE("it is chosen by name, with the options of what it divides", "[selection][greedi]") {
  const auto e = random_evidence(60, 3, 4);
  const auto named = cts::named_selector("greedi:shards=3:temperature=1");
  CHECK(support::has(named.text(), "greedi:shards=3:lambda=0.1"));
  CHECK(select(named, e, 9).indices == select(cts::greedi<>{.select = {.temperature = 1}, .shards = 3}, e, 9).indices);
}

}  // namespace selection_greedi_tests
