// Objectives: each against its formula by hand, and its gradient against finite differences.

#include "core_tokensets/train/objectives/objectives.hpp"

#include <cmath>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace train_objectives_tests {

namespace {

namespace cts = core_tokensets;
using exact = cts::reference_backend<double>;

/// Five rows of six classes, three of them new samples of the classes 4 and 5; two replayed with stored logits.
struct rows {
  exact b;
  std::vector<double> logits, start;
  std::vector<std::int32_t> targets{4, 5, 4, 0, 3};
  std::vector<float> weights{1, 1, 1, 0.5f, 2};
  std::vector<float> stored{1.5f, -0.5f, 0.25f, 2, 0, 0};
  std::vector<std::int32_t> classes{0, 2, 3, 3, -1, -1};

  rows() {
    cts::random_stream random(5);
    for (int i = 0; i < 30; ++i) logits.push_back(random.normal());
    for (int i = 0; i < 20; ++i) start.push_back(random.normal());
  }

  /// The mean of weight times loss, and its gradient.
  template <class O>
  std::pair<double, std::vector<double>> operator()(const O& objective, const std::vector<double>& z,
                                                    bool weighted = true) {
    cts::tensor<exact> logit_tensor, start_tensor;
    logit_tensor.assign(b, 5, 6, z.data());
    start_tensor.assign(b, 5, 4, start.data());
    cts::loss_tape<exact> tape;
    cts::objective_batch<double> batch{.targets = targets,
                                       .weights = {},
                                       .fresh = 3,
                                       .first_class = 4,
                                       .start_logits = *std::as_const(start_tensor),
                                       .stored_logits = stored,
                                       .stored_classes = classes};
    if (weighted) batch.weights = weights;
    loss(objective, b, *std::as_const(logit_tensor), batch, tape);
    return {cts::mean_loss(b, tape, weighted ? weights : std::vector<float>(5, 1.0f)), tape.dlogits.to_host(b)};
  }

  template <class O>
  void check_gradient(const O& objective) {
    for (const bool weighted : {true, false}) {
      const auto [value, gradient] = (*this)(objective, logits, weighted);
      for (std::size_t i = 0; i < logits.size(); ++i) {
        auto up = logits, down = logits;
        up[i] += 1e-5, down[i] -= 1e-5;
        const double slope = ((*this)(objective, up, weighted).first - (*this)(objective, down, weighted).first) / 2e-5;
        CHECK(gradient[i] == Approx(slope).margin(1e-8));
      }
    }
  }
};

/// Probabilities of `count` logits at a temperature.
std::vector<double> softmax(const double* z, std::size_t count, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (std::size_t k = 0; k < count; ++k) sum += p.emplace_back(std::exp(z[k] / temperature));
  for (double& x : p) x /= sum;
  return p;
}

struct not_an_objective {};

}  // namespace

TEST_CASE("objectives are types with a concept", "[objective]") {
  STATIC_REQUIRE(cts::objective<cts::summed, exact>);
  STATIC_REQUIRE(cts::objective<cts::ace, exact>);
  STATIC_REQUIRE(cts::objective<cts::distilled<cts::summed>, exact>);
  STATIC_REQUIRE(cts::objective<cts::dark_experience<cts::distilled<>>, exact>);
  STATIC_REQUIRE_FALSE(cts::objective<not_an_objective, exact>);
  CHECK(cts::names_of(cts::objectives{}) == std::vector<std::string>{"ace", "sum", "distilled", "der"});
  CHECK(cts::uses_start_model(cts::distilled<>{}));
  CHECK_FALSE(cts::uses_start_model(cts::ace{}));
  CHECK(cts::stored_logits(cts::dark_experience<>{.top = 3}) == 3);
  CHECK(cts::stored_logits(cts::ace{}) == 0);
  double weight = 0;
  cts::choose_by_name(cts::objectives{}, "distilled:weight=0.25", "--objective", [&](const auto& o) {
    if constexpr (requires { o.temperature; }) weight = o.weight;
  });
  CHECK(weight == 0.25);
  CHECK(support::has(
      support::message_of([] { cts::choose_by_name(cts::objectives{}, "mse", "--objective", [](auto) {}); }),
      "none is named 'mse'; there are ace, sum, distilled, der"));
}

TEST_CASE("gradients of all objectives agree with finite differences", "[objective]") {
  rows r;
  r.check_gradient(cts::summed{.smoothing = 0.1});
  r.check_gradient(cts::ace{});
  r.check_gradient(cts::distilled<>{.base = {}, .weight = 0.7, .temperature = 2.5});
  r.check_gradient(cts::dark_experience<cts::summed>{.base = {}, .alpha = 0.3, .top = 3});
  r.check_gradient(cts::dark_experience<cts::distilled<>>{});
}

TEST_CASE("distillation adds the divergence from the start model, over the classes that it knew", "[objective]") {
  rows r;
  const auto plain = r(cts::summed{}, r.logits),
             with = r(cts::distilled<cts::summed>{.base = {}, .weight = 0.5, .temperature = 3}, r.logits);
  double want = 0;
  for (std::size_t s = 0; s < 5; ++s) {
    const auto q = softmax(r.start.data() + 4 * s, 4, 3), p = softmax(r.logits.data() + 6 * s, 4, 3);
    for (std::size_t k = 0; k < 4; ++k) want += 0.5 * 9 * double(r.weights[s]) / 5 * q[k] * std::log(q[k] / p[k]);
  }
  CHECK(with.first - plain.first == Approx(want));
  CHECK_THROWS_AS(r(cts::distilled<>{.base = {}, .weight = 1, .temperature = 0}, r.logits), cts::Error);
}

TEST_CASE("dark experience pulls replayed samples to the logits that were stored", "[objective]") {
  rows r;
  const auto plain = r(cts::ace{}, r.logits),
             with = r(cts::dark_experience<>{.base = {}, .alpha = 2, .top = 3}, r.logits);
  const auto square = [&](std::size_t s, std::size_t k, double stored) {
    return (r.logits[6 * s + k] - stored) * (r.logits[6 * s + k] - stored);
  };
  const double first = (square(3, 0, 1.5) + square(3, 2, -0.5) + square(3, 3, 0.25)) / 3, second = square(4, 3, 2);
  CHECK(with.first - plain.first == Approx(2 * (0.5 * first + 2 * second) / 5));
  for (std::size_t i = 0; i < 18; ++i) CHECK(with.second[i] == plain.second[i]);  // new samples
  CHECK(with.second[24] == plain.second[24]);                                     // class 0 of the last was not stored
}

}  // namespace train_objectives_tests
