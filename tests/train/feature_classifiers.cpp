// Classifiers that keep sums over features: what they say, whatever order samples came in.

#include "core_tokensets/train/feature_classifiers.hpp"

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/train/frozen_features.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace train_feature_classifiers_tests {

namespace cts = core_tokensets;

struct samples {
  std::vector<float> features;
  std::vector<std::int32_t> labels;
};

samples some(std::size_t n, std::size_t dim, cts::index classes) {
  cts::random_stream random(7);
  samples s;
  for (std::size_t i = 0; i < n; ++i) {
    s.labels.push_back(static_cast<std::int32_t>(random.below(classes)));
    for (std::size_t d = 0; d < dim; ++d)
      s.features.push_back(static_cast<float>(random.normal() + (d == static_cast<std::size_t>(s.labels[i]) ? 1 : 0)));
  }
  return s;
}

TEST_CASE("ridge regression minimises the squared error and the penalty", "[frozen]") {
  constexpr std::size_t n = 50, dim = 5;
  const samples s = some(n, dim, 3);
  cts::ridge_regression ridge(0.1);
  ridge.add(s.features, s.labels, 3);
  const auto w = ridge.weights();
  REQUIRE(w.size() == 3 * (dim + 1));
  double variance = 0;  // summed over samples, mean over features
  for (std::size_t d = 0; d < dim; ++d) {
    double mean = 0;
    for (std::size_t i = 0; i < n; ++i) mean += double(s.features[i * dim + d]) / n;
    for (std::size_t i = 0; i < n; ++i) variance += std::pow(double(s.features[i * dim + d]) - mean, 2) / dim;
  }
  const auto scores = ridge.outputs(s.features);
  for (std::size_t k = 0; k < 3; ++k) {
    std::vector<double> slope(dim + 1);  // half the derivative by each weight
    for (std::size_t d = 0; d < dim; ++d) slope[d] = 0.1 * variance * w[k * (dim + 1) + d];
    for (std::size_t i = 0; i < n; ++i) {
      const double missed = scores[3 * i + k] - (static_cast<std::size_t>(s.labels[i]) == k ? 1 : 0);
      for (std::size_t d = 0; d < dim; ++d) slope[d] += missed * double(s.features[i * dim + d]);
      slope[dim] += missed;
    }
    for (const double x : slope) CHECK(std::abs(x) < 1e-9);
  }
  cts::tensor_file file;
  ridge.save(file);
  CHECK(cts::ridge_regression::load(file).outputs(s.features) == scores);
}

TEST_CASE("ridge regression forgets nothing: parts of the data in any order give what all of it gives", "[frozen]") {
  const samples s = some(60, 4, 3);
  cts::ridge_regression at_once, in_parts;
  at_once.add(s.features, s.labels, 3);
  for (std::int32_t k : {2, 0, 1}) {  // a class at a time
    samples part;
    for (std::size_t i = 0; i < 60; ++i) {
      if (s.labels[i] != k) continue;
      part.labels.push_back(k);
      part.features.insert(part.features.end(), s.features.begin() + 4 * i, s.features.begin() + 4 * i + 4);
    }
    in_parts.add(part.features, part.labels, 3);
  }
  const auto a = at_once.scores(s.features), b = in_parts.scores(s.features);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-9));
  // Scores have the order of the outputs, and shares of nearly 1 where these are.
  const auto out = at_once.outputs(s.features);
  for (std::size_t i = 0; i < out.size(); i += 3) {
    const auto largest = [&](const std::vector<double>& v) { return std::max_element(&v[i], &v[i] + 3) - &v[i]; };
    CHECK(largest(out) == largest(a));
    double total = 0;
    for (std::size_t k = i; k < i + 3; ++k) total += std::exp(a[k]);
    for (std::size_t k = i; k < i + 3; ++k) {
      if (out[k] > 0.3) CHECK(std::exp(a[k]) == Approx(out[k]).epsilon(0.01));
    }
    CHECK(total >= 0.9);
  }
  CHECK(at_once.bytes() == (5 * 6 / 2 + 3 * 5) * 4);
}

TEST_CASE("classifiers of features refuse what makes no sense", "[frozen]") {
  const auto refuses = [](const std::string& part, auto call) {
    CAPTURE(part);
    CHECK(support::message_of(call).find(part) != std::string::npos);
  };
  const std::vector<float> x{1, 2};
  const std::vector<std::int32_t> outside{3}, inside{0};
  const auto add = [](auto classifier, auto&&... sums) { return [=]() mutable { classifier.add(sums...); }; };
  refuses("label 3", add(cts::ridge_regression{}, x, outside, 3));
  refuses("label 3", add(cts::nearest_class_mean{}, x, outside, 3));
  refuses("2 feature values for 0", add(cts::ridge_regression{}, x, std::vector<std::int32_t>{}, 3));
  refuses("penalty 0", add(cts::ridge_regression(0), x, inside, 1));
  refuses("there are no samples", [] { cts::ridge_regression{}.weights(); });
  refuses("feature 1 of sample 0 is", add(cts::nearest_class_mean{}, std::vector<float>{1, NAN}, inside, 1));
  refuses("expected a multiple", [&] { cts::ridge_regression{}.scores(x); });
  cts::ridge_regression one;
  one.add(x, inside, 1);
  refuses("cannot be told apart", [&] { one.scores(x); });  // one sample has no variance
  CHECK_THROWS_AS(one.add(std::vector<float>{1, 2, 3}, inside, 1), cts::Error);
  CHECK_THROWS_AS(one.add(x, inside, 0), cts::Error);
  // What is refused changes nothing.
  const samples s = some(20, 2, 2);
  cts::ridge_regression kept;
  kept.add(s.features, s.labels, 2);
  const auto before = kept.weights();
  CHECK_THROWS_AS(kept.add(std::vector<float>{1, 2, 3, 4}, std::vector<std::int32_t>{0, 9}, 2), cts::Error);
  CHECK(kept.weights() == before);
  cts::tensor_file file;
  CHECK_THROWS_AS(cts::ridge_regression::load(file), cts::Error);
}

}  // namespace train_feature_classifiers_tests
