#include "core_tokensets/selection/selection.hpp"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <numeric>
#include <set>
#include <string>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/random.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace selection_tests {

namespace cts = core_tokensets;

static_assert(cts::selector<cts::grad_match> && cts::selector<cts::random_selection>);
static_assert(!cts::selector<int>);
using support::message_of;

namespace {

/// The factors of sample i where every sample has one row.
const double* delta_of(const core_tokensets::evidence& e, core_tokensets::index i) {
  return e.delta.data() + i * e.classes;
}
const float* feature_of(const core_tokensets::evidence& e, core_tokensets::index i) {
  return e.feature.data() + i * e.features;
}

/// n samples of K classes (labels 0, 1, .., 0, 1, ..) with random logits and features.
cts::evidence random_evidence(cts::index n, cts::index classes, cts::index features, std::uint64_t seed = 1) {
  cts::random_stream random(seed);
  std::vector<float> logits(static_cast<std::size_t>(n * classes)), feature(static_cast<std::size_t>(n * features));
  for (float& x : logits) x = static_cast<float>(random.normal());
  for (float& x : feature) x = static_cast<float>(random.normal());
  std::vector<std::int32_t> labels;
  for (cts::index i = 0; i < n; ++i) labels.push_back(static_cast<std::int32_t>(i % classes));
  return cts::make_evidence(logits, feature, labels, classes);
}

/// The whole gradient of a sample, from its definition.
std::vector<double> gradient(const cts::evidence& e, cts::index i) {
  std::vector<double> g;
  for (cts::index c = 0; c < e.classes; ++c) g.push_back(delta_of(e, i)[c]);
  for (cts::index c = 0; c < e.classes; ++c) {
    for (cts::index f = 0; f < e.features; ++f) g.push_back(delta_of(e, i)[c] * double(feature_of(e, i)[f]));
  }
  return g;
}

std::vector<cts::index> all_of(const cts::evidence& e) {
  std::vector<cts::index> all(static_cast<std::size_t>(e.samples));
  std::iota(all.begin(), all.end(), cts::index{0});
  return all;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double distance(const std::vector<double>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace

TEST_CASE("evidence keeps gradients factored: inner products and sums equal those of whole gradients") {
  const auto e = random_evidence(23, 4, 37);
  cts::check(e);
  CHECK(e.gradient_size() == 4 * 38);
  for (cts::index i = 0; i < e.samples; ++i) {
    const auto d = delta_of(e, i);
    CHECK(std::accumulate(d, d + 4, 0.0) == Approx(0).margin(1e-12));  // softmax - onehot
    CHECK(d[e.labels[static_cast<std::size_t>(i)]] < 0);
    for (cts::index j = 0; j < e.samples; ++j)
      CHECK(cts::inner(e, i, j) == Approx(dot(gradient(e, i), gradient(e, j))).epsilon(1e-12).margin(1e-12));
  }
  const std::vector<cts::index> rows{3, 1, 22}, columns{0, 3};
  const auto block = cts::gram_block(e, rows, columns);
  REQUIRE(block.size() == 6);
  CHECK(block[1] == cts::inner(e, 3, 3));
  CHECK(block[4] == cts::inner(e, 22, 0));

  std::vector<double> sum(static_cast<std::size_t>(e.gradient_size()), 0.0);
  for (const cts::index i : rows) {
    const auto g = gradient(e, i);
    for (std::size_t v = 0; v < g.size(); ++v) sum[v] += g[v];
  }
  CHECK(distance(cts::gradient_sum(e, rows), sum) < 1e-14);
  CHECK(cts::gradient_mean(e, rows)[5] == Approx(sum[5] / 3));
  const auto inner = cts::inner_with(e, columns, sum);
  REQUIRE(inner.size() == 2);
  CHECK(inner[1] == Approx(dot(gradient(e, 3), sum)).epsilon(1e-12));
}

TEST_CASE("evidence and budgets that are wrong are refused with what was expected") {
  auto e = random_evidence(6, 2, 3);
  CHECK(message_of([&] { select(cts::random_selection{}, e, 7); }).find("expected 1 to 6") != std::string::npos);
  CHECK(message_of([&] { select(cts::grad_match{}, e, 0); }).find("expected 1 to 6") != std::string::npos);
  CHECK_THROWS_AS(select(cts::grad_match{}, e, -1), cts::Error);
  CHECK_THROWS_AS(select(cts::grad_match{}, cts::evidence{}, 1), cts::Error);
  CHECK_THROWS_AS(select(cts::grad_match{.lambda = -1}, e, 1), cts::Error);
  auto broken = e;
  broken.feature[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(message_of([&] { cts::check(broken); }).find("feature of sample 2") != std::string::npos);
  broken = e;
  broken.delta[11] = std::numeric_limits<double>::infinity();
  CHECK(message_of([&] { cts::check(broken); }).find("delta of sample 5") != std::string::npos);
  broken = e;
  broken.labels[3] = 2;
  CHECK(message_of([&] { cts::check(broken); }).find("label 2 of sample 3") != std::string::npos);
  broken = e;
  broken.delta.pop_back();
  CHECK_THROWS_AS(cts::check(broken), cts::Error);
  broken = e;
  broken.target = {1.0};
  CHECK_THROWS_AS(cts::check(broken), cts::Error);
  e.target.assign(static_cast<std::size_t>(e.gradient_size()), 0.1);
  CHECK_THROWS_AS(select(cts::grad_match{}, e, 2), cts::Error);  // a target and per_class
  const std::vector<float> two(2), one(1);
  const std::vector<std::int32_t> label{2};
  CHECK_THROWS_AS(cts::make_evidence(two, one, label, 2), cts::Error);
  CHECK_THROWS_AS(cts::make_evidence(one, one, label, 3), cts::Error);
}

TEST_CASE("quotas sum to the budget, follow sizes or are equal, and never exceed what there is") {
  using list = std::vector<cts::index>;
  CHECK(cts::proportional_quotas(list{50, 30, 20}, 10) == list{5, 3, 2});
  CHECK(cts::proportional_quotas(list{1, 1, 1}, 2) == list{1, 1, 0});
  CHECK(cts::proportional_quotas(list{7, 0, 5}, 12) == list{7, 0, 5});
  CHECK(cts::proportional_quotas(list{97, 2, 1}, 10) == list{8, 1, 1});
  CHECK(cts::proportional_quotas(list{97, 0, 2, 1}, 2) == list{2, 0, 0, 0});
  CHECK(cts::balanced_quotas(list{50, 30, 20}, 10) == list{4, 3, 3});
  CHECK(cts::balanced_quotas(list{50, 1, 20}, 11) == list{5, 1, 5});
  CHECK(cts::balanced_quotas(list{0, 2, 3}, 5) == list{0, 2, 3});
  CHECK_THROWS_AS(cts::balanced_quotas(list{1, 2}, 4), cts::Error);
  CHECK_THROWS_AS(cts::proportional_quotas(list{1, 2}, -1), cts::Error);
  cts::random_stream random(5);
  for (int trial = 0; trial < 200; ++trial) {
    list counts;
    for (cts::index c = 0; c <= random.below(9); ++c) counts.push_back(random.below(40));
    const cts::index total = std::accumulate(counts.begin(), counts.end(), cts::index{0}), k = random.below(total + 1);
    for (const auto& quotas : {cts::proportional_quotas(counts, k), cts::balanced_quotas(counts, k)}) {
      CHECK(std::accumulate(quotas.begin(), quotas.end(), cts::index{0}) == k);
      for (std::size_t c = 0; c < counts.size(); ++c) CHECK((quotas[c] >= 0 && quotas[c] <= counts[c]));
    }
    const auto equal = cts::balanced_quotas(counts, k);
    for (std::size_t a = 0; a < counts.size(); ++a) {
      for (std::size_t b = 0; b < counts.size(); ++b) CHECK((equal[a] == counts[a] || equal[a] >= equal[b] - 1));
    }
  }
}

TEST_CASE("weights are scaled to mean 1") {
  CHECK(cts::normalise_weights(std::vector<double>{1, 3}) == std::vector<float>{0.5f, 1.5f});
  CHECK(cts::normalise_weights(std::vector<double>{0, 0}) == std::vector<float>{1, 1});
  CHECK(cts::normalise_weights({}).empty());
  CHECK_THROWS_AS(cts::normalise_weights(std::vector<double>{1, -1}), cts::Error);
}

TEST_CASE("random selection is balanced, without repeats, and a function of its seed") {
  const auto e = random_evidence(100, 4, 2);
  const auto first = select(cts::random_selection{.seed = 3}, e, 20);
  CHECK(first.indices == select(cts::random_selection{.seed = 3}, e, 20).indices);
  CHECK(first.indices != select(cts::random_selection{.seed = 4}, e, 20).indices);
  CHECK(std::set(first.indices.begin(), first.indices.end()).size() == 20);
  std::vector<int> per_class(4);
  for (const cts::index i : first.indices) ++per_class[static_cast<std::size_t>(e.labels[static_cast<std::size_t>(i)])];
  CHECK(per_class == std::vector<int>{5, 5, 5, 5});
  const auto free = select(cts::random_selection{.seed = 3, .balanced = false}, e, 100);
  CHECK(std::set(free.indices.begin(), free.indices.end()).size() == 100);
  CHECK(free.weights == std::vector<float>(100, 1.0f));
}

TEST_CASE("a growing Cholesky factor solves what is left after rows come and go") {
  const auto e = random_evidence(12, 3, 6);
  std::vector<cts::index> in;
  cts::growing_cholesky factor;
  const auto add = [&](cts::index i) {
    std::vector<double> row;
    for (const cts::index j : in) row.push_back(cts::inner(e, i, j));
    row.push_back(cts::inner(e, i, i) + 0.5);
    in.push_back(i);
    return factor.append(row);
  };
  for (cts::index i = 0; i < 9; ++i) REQUIRE(add(i));
  for (const cts::index gone : {8, 0, 3, 4}) {
    factor.remove(gone);
    in.erase(in.begin() + gone);
  }
  REQUIRE(add(11));
  REQUIRE(factor.size() == static_cast<cts::index>(in.size()));
  const std::vector<double> b{1, -2, 3, 0.5, 1, 2};
  const auto x = factor.solve(b);
  for (std::size_t i = 0; i < in.size(); ++i) {
    double sum = 0.5 * x[i];
    for (std::size_t j = 0; j < in.size(); ++j) sum += cts::inner(e, in[i], in[j]) * x[j];
    CHECK(sum == Approx(b[i]).margin(1e-10));
  }
  cts::growing_cholesky singular;
  CHECK(singular.append(std::vector<double>{4}));
  CHECK_FALSE(singular.append(std::vector<double>{2, 1}));
  CHECK(singular.size() == 1);
  CHECK(singular.append(std::vector<double>{2, 2}));
}

TEST_CASE("non-negative least squares meets its optimality conditions") {
  cts::random_stream random(9);
  for (int trial = 0; trial < 30; ++trial) {
    const cts::index p = 1 + random.below(15);
    const auto size = static_cast<std::size_t>(p);
    std::vector<double> m(size * size), a(size);
    for (std::size_t i = 0; i < size; ++i) {
      a[i] = random.normal();
      for (std::size_t j = 0; j <= i; ++j) m[i * size + j] = m[j * size + i] = random.normal();
    }
    const auto x = cts::nnls_symmetric(m, a);
    std::vector<double> rest = a;  // a - M x
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = 0; j < size; ++j) rest[i] -= m[i * size + j] * x[j];
    }
    for (std::size_t j = 0; j < size; ++j) {
      double slope = 0;
      for (std::size_t i = 0; i < size; ++i) slope += m[i * size + j] * rest[i];
      CHECK(x[j] >= 0);
      CHECK(slope <= 1e-7);
      if (x[j] > 0) CHECK(std::abs(slope) <= 1e-7);
    }
  }
  CHECK_THROWS_AS(cts::nnls_symmetric(std::vector<double>{1, 2}, std::vector<double>{1, 2}), cts::Error);
}

TEST_CASE("pursuit finds the samples and the weights that a target was made of") {
  const auto e = random_evidence(60, 3, 30);
  const std::vector<cts::index> parts{41, 7, 22};
  const std::vector<double> amounts{2.0, 1.0, 0.5};
  std::vector<double> target(static_cast<std::size_t>(e.gradient_size()), 0.0);
  for (std::size_t k = 0; k < 3; ++k) {
    const auto g = gradient(e, parts[k]);
    for (std::size_t v = 0; v < g.size(); ++v) target[v] += amounts[k] * g[v];
  }
  const auto found = cts::match_gradient(e, all_of(e), target, 20, 0.0);
  CHECK(found.residual < 1e-6 * found.target_norm);
  for (std::size_t k = 0; k < found.order.size(); ++k) {
    const auto at = std::find(parts.begin(), parts.end(), found.order[k]);
    CHECK(found.weights[k] == Approx(at == parts.end() ? 0.0 : amounts[std::size_t(at - parts.begin())]).margin(1e-5));
  }
  // Six orthogonal gradients, a target made of three: CORDS and the exact pursuit end there, DeepCore does not.
  cts::evidence six{.samples = 6,
                    .classes = 6,
                    .features = 1,
                    .delta = std::vector<double>(36, 0.0),
                    .feature = std::vector<float>(6, 0.0f),
                    .labels = std::vector<std::int32_t>(6, 0),
                    .target = {}};
  for (std::size_t i = 0; i < 6; ++i) six.delta[7 * i] = 1;
  const std::vector<double> sum{0, 2, 0, 0.5, 1, 0, 0, 0, 0, 0, 0, 0};
  for (const auto variant : {cts::pursuit::cords, cts::pursuit::nonnegative}) {
    const auto three = cts::match_gradient(six, all_of(six), sum, 6, 0.0, variant);
    CHECK(three.order == std::vector<cts::index>{1, 4, 3});
    CHECK(three.weights == std::vector<double>{2, 1, 0.5});
    CHECK(three.residual == 0);
  }
  CHECK(cts::match_gradient(six, all_of(six), sum, 6, 0.0, cts::pursuit::deepcore).order.size() == 6);
  CHECK_THROWS_AS(cts::match_gradient(e, parts, target, 4, 0.0), cts::Error);
}

TEST_CASE("grad_match keeps the budget, has positive weights of mean 1 and beats random samples") {
  const auto e = random_evidence(300, 5, 24);
  for (const bool per_class : {true, false}) {
    const auto chosen = select(cts::grad_match{.per_class = per_class, .temperature = 1, .weighted = true}, e, 40);
    CHECK(chosen.indices.size() == 40);
    CHECK(std::set(chosen.indices.begin(), chosen.indices.end()).size() == 40);
    CHECK(std::accumulate(chosen.weights.begin(), chosen.weights.end(), 0.0) == Approx(40).epsilon(1e-5));
    CHECK(*std::min_element(chosen.weights.begin(), chosen.weights.end()) > 0);
    const auto mean = cts::gradient_mean(e, all_of(e));
    const auto cosine = [&](const cts::selection_result& r) {
      std::vector<double> sum(mean.size(), 0.0);
      for (std::size_t k = 0; k < r.indices.size(); ++k) {
        const auto g = gradient(e, r.indices[k]);
        for (std::size_t v = 0; v < g.size(); ++v) sum[v] += double(r.weights[k]) * g[v];
      }
      return dot(sum, mean) / std::sqrt(dot(sum, sum) * dot(mean, mean));
    };
    const double ours = cosine(chosen);
    CHECK(ours > 0.8);
    for (std::uint64_t seed = 0; seed < 5; ++seed)
      CHECK(ours > 0.15 + cosine(select(cts::random_selection{.seed = seed}, e, 40)));
  }
  auto copies = e;  // the same sample again and again: no second one is of use
  for (cts::index i = 0; i < copies.samples; ++i) {
    std::copy_n(delta_of(e, 0), 5, copies.delta.begin() + i * 5);
    std::copy_n(feature_of(e, 0), 24, copies.feature.begin() + i * 24);
    copies.labels[static_cast<std::size_t>(i)] = 0;
  }
  for (const auto variant : {cts::pursuit::nonnegative, cts::pursuit::deepcore, cts::pursuit::cords})
    CHECK(select(cts::grad_match{.lambda = 0, .variant = variant, .temperature = 1, .weighted = true}, copies, 10)
              .indices == std::vector<cts::index>{0});
}

TEST_CASE("Softened evidence is that of logits divided by the temperature, for samples and for rows of answers") {
  const std::vector<float> logits{1, -2, 0.5f, 40, 0, 3, -1, 2, 2}, features{1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> wanted{1, 0, 2};
  std::vector<float> cooler;
  for (const float z : logits) cooler.push_back(z / 4);
  const auto want = cts::make_evidence(cooler, features, wanted, 3);
  auto e = cts::make_evidence(logits, features, wanted, 3);
  auto answers = cts::make_evidence(logits, features, wanted, 3, {0, 2, 3}, std::vector<std::int32_t>{0, 0});
  cts::soften(e, 4);
  cts::soften(answers, 4);
  for (std::size_t i = 0; i < want.delta.size(); ++i) {
    CHECK(e.delta[i] == Approx(want.delta[i]).margin(1e-12));
    CHECK(answers.delta[i] == Approx(want.delta[i]).margin(1e-12));
  }
  cts::soften(e, std::numeric_limits<double>::infinity());
  CHECK(e.delta[0] == Approx(1.0 / 3));
  CHECK(e.delta[1] == Approx(1.0 / 3 - 1));
  CHECK_THROWS_AS(cts::soften(e, 0), cts::Error);
  answers.wanted.clear();
  CHECK_THROWS_AS(cts::soften(answers, 4), cts::Error);
}

TEST_CASE("grad_match by default sees more than the one sample that is not fitted yet, and counts all the same") {
  // One class of 40 samples with different features; the model is sure of all but number 7.
  std::vector<float> logits, features;
  for (int i = 0; i < 40; ++i) {
    logits.insert(logits.end(), {i == 7 ? -1.0f : 60.0f, 0.0f});
    features.insert(features.end(), {std::cos(0.1f * float(i)), std::sin(0.1f * float(i)), 1.0f});
  }
  const std::vector<std::int32_t> labels(40, 0);
  const auto e = cts::make_evidence(logits, features, labels, 2);
  const auto papers = select(cts::grad_match{.temperature = 1, .weighted = true}, e, 3);
  CHECK(papers.indices == std::vector<cts::index>{7});  // the gradients of all others are nothing
  CHECK(papers.by_chance == 0);
  const auto cold = select(cts::grad_match{.temperature = 1}, e, 3);
  CHECK(cold.by_chance == 2);
  const auto ours = select(cts::grad_match{.temperature = std::numeric_limits<double>::infinity()}, e, 3);
  CHECK(ours.indices.size() == 3);
  CHECK(ours.by_chance < 2);
  CHECK(ours.weights == std::vector<float>(ours.indices.size(), 1.0f));
  auto fitted = e;  // no gradient is left at all
  std::fill(fitted.delta.begin(), fitted.delta.end(), 0.0);
  for (const bool weighted : {false, true}) {
    const auto chance = select(cts::grad_match{.temperature = 1, .weighted = weighted}, fitted, 5);
    CHECK(std::set(chance.indices.begin(), chance.indices.end()).size() == 5);
    CHECK(chance.by_chance == 5);
    CHECK(chance.weights == std::vector<float>(5, 1.0f));
  }
  auto with_target = e;
  with_target.target = cts::gradient_mean(e, all_of(e));
  CHECK_THROWS_AS(select(cts::grad_match{.per_class = false}, with_target, 3), cts::Error);
}

TEST_CASE("grad_match gives the same bits for any number of threads") {
#ifdef _OPENMP
  const auto e = random_evidence(3000, 4, 20);
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = select(cts::grad_match{.per_class = false}, e, 50);
  omp_set_num_threads(3);
  const auto three = select(cts::grad_match{.per_class = false}, e, 50);
  omp_set_num_threads(before);
  CHECK(one.indices == three.indices);
  CHECK(one.weights == three.weights);
#endif
}

namespace {

std::filesystem::path golden_folder(const std::string& name) {
#ifdef CTS_TEST_DIR
  const auto here = std::filesystem::path(CTS_TEST_DIR) / "goldens" / "coreset" / name;
  if (std::filesystem::exists(here)) return here;
#endif
  const char* shared = std::getenv("CTS_SHARED");
  const auto there = std::filesystem::path(shared ? shared : "../shared") / "goldens" / "coreset" / name;
  return std::filesystem::exists(there) ? there : std::filesystem::path{};
}

/// Evidence of features with a linear head, in double precision.
cts::evidence golden_evidence(const cts::tensor_file& in, const std::string& suffix) {
  const auto x = in.at("features" + suffix), w = in.at("head.weight");
  const auto weight = w.as<double>(), bias = in.at("head.bias").as<double>();
  cts::evidence e{.samples = x.shape[0],
                  .classes = w.shape[0],
                  .features = x.shape[1],
                  .delta = {},
                  .feature = x.as<float>(),
                  .labels = in.at("labels" + suffix).as<std::int32_t>(),
                  .target = {}};
  for (cts::index i = 0; i < e.samples; ++i) {
    std::vector<double> row = bias;
    for (cts::index c = 0; c < e.classes; ++c) {
      for (cts::index f = 0; f < e.features; ++f)
        row[std::size_t(c)] += weight[std::size_t(c * e.features + f)] * double(feature_of(e, i)[f]);
    }
    double sum = 0;
    for (double& z : row) sum += z = std::exp(z);
    for (double& z : row) z /= sum;
    row[std::size_t(e.labels[std::size_t(i)])] -= 1;
    e.delta.insert(e.delta.end(), row.begin(), row.end());
  }
  return e;
}

void compare(const cts::tensor_file& out, const std::string& name, cts::index samples,
             const std::vector<cts::index>& order, const std::vector<double>& weights) {
  INFO(name);
  CHECK(order == out.at(name + ".order").as<std::ptrdiff_t>());
  std::vector<double> spread(std::size_t(samples), 0.0);
  for (std::size_t i = 0; i < order.size(); ++i) spread[std::size_t(order[i])] = weights[i];
  CHECK(distance(spread, out.at(name + ".weights").as<double>()) < 1e-9);
}

}  // namespace

TEST_CASE("matching pursuit agrees with DeepCore and CORDS") {
  for (const std::string name : {"core_a", "core_b"}) {
    const auto folder = golden_folder(name);
    if (folder.empty()) {
      WARN("golden case coreset/" << name << " is missing (set CTS_SHARED): skipped");
      continue;
    }
    INFO(name);
    const auto in = cts::load_safetensors(folder / "inputs.safetensors");
    const auto out = cts::load_safetensors(folder / "outputs.safetensors");
    const auto e = golden_evidence(in, ""), validation = golden_evidence(in, "_val");
    const auto all = all_of(e);
    const cts::index k = name == "core_a" ? 20 : 50;
    CHECK(distance(cts::gradient_mean(e, all), out.at("grad_mean").as<double>()) < 1e-9);
    std::vector<double> norms;
    for (const cts::index i : all) norms.push_back(std::sqrt(cts::inner(e, i, i)));
    CHECK(distance(norms, out.at("grad_norm").as<double>()) < 1e-9);

    const auto run = [&](const std::string& key, const std::vector<double>& target, double lambda, cts::pursuit v) {
      const auto got = cts::match_gradient(e, all, target, k, lambda, v);
      compare(out, key, e.samples, got.order, got.weights);
      CHECK(distance({got.residual, got.target_norm}, out.at(key + ".resid").as<double>()) < 1e-9);
    };
    const auto mean = cts::gradient_mean(e, all), sum = cts::gradient_sum(e, all);
    const auto other = cts::gradient_mean(validation, all_of(validation));
    for (const std::string lambda : {"0.5", "1.0"}) {
      run("omp.deepcore.lam" + lambda + ".train", mean, std::stod(lambda), cts::pursuit::deepcore);
      run("omp.deepcore.lam" + lambda + ".val", other, std::stod(lambda), cts::pursuit::deepcore);
    }
    for (const std::string lambda : {"0.0", "0.5"}) {
      run("omp.cords.numpy.lam" + lambda, sum, std::stod(lambda), cts::pursuit::cords);
      run("omp.cords.Parallel.lam" + lambda, sum, std::stod(lambda), cts::pursuit::cords);
      run("omp.cords.NNLS_Parallel.lam" + lambda, sum, std::stod(lambda), cts::pursuit::cords_nnls);
    }
    const auto per_class = [&](const std::string& key, double lambda, cts::pursuit v, bool mean_target, auto budget) {
      std::vector<cts::index> order;
      std::vector<double> weights;
      for (const auto& members : cts::members_by_class(e)) {
        const auto target = mean_target ? cts::gradient_mean(e, members) : cts::gradient_sum(e, members);
        const double share = double(members.size()) * double(k) / double(e.samples);
        const auto got = cts::match_gradient(e, members, target, static_cast<cts::index>(budget(share)), lambda, v);
        order.insert(order.end(), got.order.begin(), got.order.end());
        weights.insert(weights.end(), got.weights.begin(), got.weights.end());
      }
      compare(out, key, e.samples, order, weights);
    };
    per_class("omp.deepcore.perclass.lam1.0", 1.0, cts::pursuit::deepcore, true, [](double x) { return std::rint(x); });
    per_class("omp.cords.perclass.Parallel.lam0.5", 0.5, cts::pursuit::cords, false,
              [](double x) { return std::ceil(x); });
  }
}

}  // namespace selection_tests
