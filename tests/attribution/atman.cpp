// AtMan against the reference, and what must hold for it and its approximations.

#include "core_tokensets/attribution/atman.hpp"

#include <nlohmann/json.hpp>

#include "core_tokensets/attribution/atman_first_order.hpp"
#include "core_tokensets/attribution/authors_atman.hpp"
#include "support.hpp"

namespace attribution_atman_tests {

namespace {

using namespace attribution_tests;
using cts::index;
using cts::neighbourhood;

/// The thresholds of the golden case, which its metadata hold.
double threshold_of(const cts::tensor_file& file, const std::string& kind) {
  return nlohmann::json::parse(file.metadata.at("config"))["kappa"][kind].get<double>();
}

template <class B>
void check_atman(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("atman");
  const double limit = tolerance<T>();
  const index n = c.model.config().grid.tokens();
  cts::attribution_workspace<B> ws;
  cts::variation_engine<B> engine(b, c.model, c.batch);
  std::vector<double> logits, losses;
  const auto unchanged = cts::settle_unchanged(engine, c.batch, cts::target::loss(), logits);
  for (std::size_t s = 0; s < unchanged.classes.size(); ++s) {
    const auto classes = std::size_t(c.model.config().classes);
    losses.push_back(-unchanged.value(s, std::span<const double>(logits).subspan(s * classes, classes)));
  }
  check_close(want, "loss", losses, limit);
  for (const bool with_position : {false, true}) {
    std::vector<double> all;
    for (const auto& of_sample : cts::patch_cosines(b, engine, c.batch, with_position))
      all.insert(all.end(), of_sample.begin(), of_sample.end());
    check_close(want, with_position ? "sim.patchpos" : "sim.patch", all, limit);
  }
  for (const bool shift : {false, true}) {
    for (const auto near : {neighbourhood::none, neighbourhood::patch, neighbourhood::patchpos}) {
      for (const double f : {0.9, 0.4}) {
        const std::string kind = cts::words<neighbourhood>[std::size_t(near)];
        const std::string tail = std::string(shift ? "shift" : "noshift") + ".nb_" + kind + (f > .5 ? ".f90" : ".f40");
        cts::atman method{.factor = f, .shift = shift, .neighbours = near};
        if (near != neighbourhood::none) method.threshold = threshold_of(want, kind);
        check_close(want, "logits." + tail, cts::suppressed_logits(method, b, engine, c.batch), limit);
        check_close(want, "delta." + tail, attribute(method, b, c.model, c.batch, cts::target::label(), ws), limit);
        if (near == neighbourhood::none || shift) continue;
        const auto cosine = cts::patch_cosines(b, engine, c.batch, near == neighbourhood::patchpos);
        std::vector<double> factors;
        for (const auto& of_sample : cosine)
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) factors.push_back(cts::suppression(method, of_sample, n, i, j));
        check_close(want, "mult.nb_" + kind + (f > .5 ? ".f90" : ".f40"), factors, limit);
      }
    }
  }
}

template <class B>
void check_authors(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("atman");
  cts::attribution_workspace<B> ws;
  const cts::authors_atman method{.threshold = threshold_of(want, "patch")};
  const auto patches = std::size_t(c.model.config().grid.tokens());
  std::vector<double> visited, count, losses, scores;
  for (const auto& walk : cts::walk_patches(method, b, c.model, c.batch, cts::target::label(), ws)) {
    count.push_back(double(walk.visited.size()));
    visited.insert(visited.end(), walk.visited.begin(), walk.visited.end());
    visited.insert(visited.end(), patches - walk.visited.size(), -1);
    losses.insert(losses.end(), walk.losses.begin(), walk.losses.end());
    losses.insert(losses.end(), patches - walk.losses.size(), 0);
    scores.insert(scores.end(), walk.scores.begin(), walk.scores.end());
  }
  check_close(want, "tokenset_loop.count", count, 0);
  check_close(want, "tokenset_loop.visited", visited, 0);
  check_close(want, "tokenset_loop.loss", losses, tolerance<T>());
  check_close(want, "tokenset_loop.score", scores, tolerance<T>());
  CHECK(attribute(method, b, c.model, c.batch, cts::target::label(), ws) == scores);
}

}  // namespace

TEST_CASE("AtMan gives the reference's numbers", "[attribution][golden]") {
  on_every_case([](auto& b, const auto& c) {
    check_atman(b, c);
    check_authors(b, c);
  });
}

TEST_CASE("first-order AtMan is the limit of AtMan for small factors", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  for (const cts::index depth : {1, 3}) {
    const cts::vit_config config{
        .grid = {8, 8, 1, 2}, .dim = 12, .depth = depth, .heads = 3, .classes = 4, .mlp_ratio = 2};
    const auto model = ragged::lively_model(b, config);
    const auto batch = ragged::noise(config, {5, 1, 0, 16});
    cts::attribution_workspace<B> ws;
    for (const bool shift : {false, true}) {
      for (const auto& t : {cts::target{}, cts::target::loss(), cts::target::margin(1, 3)}) {
        const double f = 1e-6;
        auto exact = attribute(cts::atman{.factor = f, .shift = shift}, b, model, batch, t, ws);
        const auto slope = attribute(cts::atman_first_order{.factor = f, .shift = shift}, b, model, batch, t, ws);
        REQUIRE(slope.size() == 22);
        CHECK(golden::distance(slope, exact) <= 1e-4);
      }
    }
  }
}

TEST_CASE("suppressing nothing changes nothing, and AtMan watches what it is told to", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const cts::vit_config config{.grid = {8, 8, 1, 2}, .dim = 12, .depth = 2, .heads = 3, .classes = 4};
  const auto model = ragged::lively_model(b, config);
  const auto batch = ragged::noise(config, {5, 9});
  cts::attribution_workspace<B> ws;
  for (const double r : attribute(cts::atman{.factor = 0}, b, model, batch, {}, ws)) CHECK(std::abs(r) <= 1e-13);
  // A target that is watched itself: the drop of its logit.
  const auto loss = attribute(cts::atman{}, b, model, batch, {}, ws);
  const auto logit = attribute(cts::atman{.watch = cts::watched::target}, b, model, batch, {}, ws);
  CHECK(loss != logit);
  CHECK(attribute(cts::atman{}, b, model, batch, cts::target::loss(), ws) ==
        attribute(cts::atman{}, b, model, batch, cts::target(batch.targets), ws));
}

}  // namespace attribution_atman_tests
