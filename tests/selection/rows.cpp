// Samples with several outputs: their gradient is the mean over their rows.

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/random.hpp"
#include "support/catch.hpp"

namespace selection_rows_tests {

namespace {

namespace cts = core_tokensets;

/// Five samples with 1, 3, 2, 2 and 4 rows of 4 classes and 3 features.
cts::evidence ragged_evidence() {
  const std::vector<cts::index> rows{0, 1, 4, 6, 8, 12};
  cts::random_stream random(5);
  std::vector<float> logits, features;
  std::vector<std::int32_t> targets;
  for (int r = 0; r < 12; ++r) {
    for (int k = 0; k < 4; ++k) logits.push_back(static_cast<float>(random.normal()));
    for (int f = 0; f < 3; ++f) features.push_back(static_cast<float>(random.normal()));
    targets.push_back(static_cast<std::int32_t>(random.below(4)));
  }
  return cts::make_evidence(logits, features, targets, 4, rows, std::vector<std::int32_t>{0, 1, 0, 1, 1});
}

/// The gradient of sample i, written out: bias, then weight.
std::vector<double> gradient(const cts::evidence& e, cts::index i) {
  std::vector<double> g(static_cast<std::size_t>(e.gradient_size()), 0.0);
  e.for_each_row(i, [&](const double* delta, const float* h, double share) {
    for (cts::index k = 0; k < e.classes; ++k) {
      g[static_cast<std::size_t>(k)] += share * delta[k];
      for (cts::index f = 0; f < e.features; ++f)
        g[static_cast<std::size_t>(e.classes + k * e.features + f)] += share * delta[k] * double(h[f]);
    }
  });
  return g;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

TEST_CASE("inner products of samples with several rows are those of their mean gradients", "[evidence]") {
  const auto e = ragged_evidence();
  cts::check(e);
  const std::vector<cts::index> all{0, 1, 2, 3, 4};
  const auto mean = cts::gradient_mean(e, all);
  const auto with_mean = cts::inner_with(e, all, mean);
  cts::factored_gram gram(e, all);
  std::vector<double> column(5, 0.0);
  gram.subtract(std::vector<cts::index>{2}, std::vector<double>{-1.0}, column);
  for (cts::index i = 0; i < 5; ++i) {
    const auto at = static_cast<std::size_t>(i);
    for (cts::index j = 0; j < 5; ++j) CHECK(cts::inner(e, i, j) == Approx(dot(gradient(e, i), gradient(e, j))));
    CHECK(with_mean[at] == Approx(dot(gradient(e, i), mean)));
    CHECK(column[at] == Approx(dot(gradient(e, i), gradient(e, 2))).margin(1e-6));
  }
}

TEST_CASE("rows of equal outputs change nothing, and rows that do not fit are refused", "[evidence]") {
  const std::vector<float> logits{1, 2, 0, 0.5f, 0, 1}, features{1, -1, 2, 0.5f};
  const auto one = cts::make_evidence(logits, features, std::vector<std::int32_t>{0, 2}, 3);
  const std::vector<float> twice_logits{1, 2, 0, 1, 2, 0, 0.5f, 0, 1}, twice_features{1, -1, 1, -1, 2, 0.5f};
  const auto two = cts::make_evidence(twice_logits, twice_features, std::vector<std::int32_t>{0, 0, 2}, 3, {0, 2, 3},
                                      std::vector<std::int32_t>{0, 2});
  for (cts::index i = 0; i < 2; ++i) {
    for (cts::index j = 0; j < 2; ++j) CHECK(cts::inner(one, i, j) == Approx(cts::inner(two, i, j)));
  }
  auto broken = two;
  broken.rows = {0, 0, 3};
  CHECK_THROWS_AS(cts::check(broken), cts::Error);
  broken.rows = {0, 3};
  CHECK_THROWS_AS(cts::check(broken), cts::Error);
  const auto chosen = cts::select(cts::grad_match{}, two, 1);
  CHECK(chosen.indices.size() == 1);
}

TEST_CASE("chance needs labels only", "[selection]") {
  const std::vector<std::int32_t> labels{0, 0, 1, 1, 1, 2};
  const auto chosen = cts::select_from_labels(cts::random_selection{.seed = 3}, labels, 3, 3);
  REQUIRE(chosen.indices.size() == 3);
  for (std::size_t c = 0; c < 3; ++c)
    CHECK(labels[static_cast<std::size_t>(chosen.indices[c])] == static_cast<std::int32_t>(c));
  CHECK_THROWS_AS(cts::select_from_labels(cts::random_selection{}, labels, 2, 3), cts::Error);
  CHECK_THROWS_AS(cts::select_from_labels(cts::random_selection{}, labels, 3, 7), cts::Error);
}

}  // namespace selection_rows_tests
