// Token rules: what each keeps and how often, and that weights make a sample of the picture unbiased.

#include "core_tokensets/memory/token_rules.hpp"

#include <map>

#include "support/catch.hpp"

namespace memory_token_rules_tests {

namespace {

namespace cts = core_tokensets;
using positions = std::vector<std::uint16_t>;

/// Calls `use(rule)` for every rule of the table, and for some with other options.
template <class Use>
void for_every_rule(const Use& use) {
  for (const char* text :
       {"top", "random", "soft", "soft:power=3", "surely", "surely:sure=0", "surely:sure=1", "surely:weighted=false",
        "proportional", "proportional:even=0.1", "window", "window:side=3", "facility", "facility:reach=0.5"}) {
    INFO(text);
    cts::choose_by_name(cts::token_rules{}, text, "rule", use);
  }
}

/// 24 tokens, 6 of which are relevant.
std::vector<double> relevance() {
  std::vector<double> r(24, 0.5);
  for (const std::size_t p : {3u, 4u, 9u, 10u, 11u, 20u}) r[p] = 2 + double(p) / 8;
  r[0] = -1, r[1] = 0;
  return r;
}

/// How often each token is kept in `draws` draws, and the mean of sum w y over the kept tokens for y = 1 + p^2.
struct estimate {
  std::vector<double> kept;
  double total = 0, of_square = 0;
};
double fact(std::size_t p) { return 1 + double(p * p) / 100; }

template <class Rule>
estimate draw(const Rule& rule, std::span<const double> r, cts::index count, std::size_t draws = 20'000) {
  estimate e{std::vector<double>(r.size(), 0)};
  for (std::size_t i = 0; i < draws; ++i) {
    const cts::kept_tokens kept = keep(rule, {r, count, i});
    double sum = 0;
    for (std::size_t k = 0; k < kept.positions.size(); ++k) {
      e.kept[kept.positions[k]] += 1.0 / double(draws);
      sum += (kept.weights.empty() ? 1.0 : double(kept.weights[k])) * fact(kept.positions[k]);
    }
    e.total += sum / double(draws), e.of_square += sum * sum / double(draws);
  }
  return e;
}

double all_facts(std::size_t tokens) {
  double sum = 0;
  for (std::size_t p = 0; p < tokens; ++p) sum += fact(p);
  return sum;
}

/// Within five standard errors of `draws` draws.
bool near(double got, double probability, double draws = 20'000) {
  return std::abs(got - probability) <= 5 * std::sqrt(probability * (1 - probability) / draws) + 1e-9;
}
bool unbiased(const estimate& e, double total, double draws = 20'000) {
  return std::abs(e.total - total) <= 5 * std::sqrt(std::max(0.0, e.of_square - e.total * e.total) / draws) + 1e-4;
}

}  // namespace

TEST_CASE("every rule keeps so many tokens, each once, by relevance, sample and seed alone", "[rules]") {
  const auto some = relevance();
  const std::vector<double> equal(24, 1.0), zero(24, 0.0), negative(24, -2.0);
  for_every_rule([&](const auto& rule) {
    for (const auto& r : {some, equal, zero, negative}) {
      for (const cts::index count : {1, 2, 7, 23, 24}) {
        const cts::kept_tokens kept = keep(rule, {r, count, 5, 6});
        REQUIRE(static_cast<cts::index>(kept.positions.size()) == count);
        for (std::size_t i = 0; i < kept.positions.size(); ++i) {
          CHECK(kept.positions[i] < 24);
          if (i > 0) CHECK(kept.positions[i - 1] < kept.positions[i]);
        }
        CHECK((kept.weights.empty() || kept.weights.size() == kept.positions.size()));
        CHECK(kept.weights.empty() == (weighting_of(rule) == cts::token_weighting::none));
        for (const float w : kept.weights) CHECK((w >= 1 && std::isfinite(w)));
        const cts::kept_tokens again = keep(rule, {r, count, 5, 6});
        CHECK(again.positions == kept.positions);
        CHECK(again.weights == kept.weights);
        if (count == 24) {
          for (const float w : kept.weights) CHECK(w == 1);
        }
      }
    }
    using rule_type = std::remove_cvref_t<decltype(rule)>;
    if constexpr (requires(rule_type & r) { r.seed; }) {
      std::map<positions, int> by_sample, by_seed;
      for (std::uint64_t i = 0; i < 20; ++i) {
        rule_type other = rule;
        other.seed = i;
        ++by_sample[cts::kept_tokens(keep(rule, {some, 5, i, 6})).positions];
        ++by_seed[cts::kept_tokens(keep(other, {some, 5, 3, 6})).positions];
      }
      bool certain = false;
      if constexpr (requires { rule.sure; }) certain = rule.sure == 1;
      CHECK((by_sample.size() > 3) == !certain);
      CHECK((by_seed.size() > 3) == !certain);
    }
  });
}

TEST_CASE("what no rule can choose from is an error", "[rules]") {
  const auto some = relevance();
  for_every_rule([&](const auto& rule) {
    for (const cts::index count : {-1, 0, 25}) CHECK_THROWS_AS(keep(rule, {some, count, 0, 6}), cts::Error);
    CHECK_THROWS_AS(keep(rule, {{}, 1, 0}), cts::Error);
    if (!needs_relevance(rule)) return;
    for (const double wrong : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      auto r = some;
      r[7] = wrong;
      CHECK_THROWS_AS(keep(rule, {r, 3, 0, 6}), cts::Error);
    }
  });
  const cts::token_choice c{some, 5, 0, 6};
  CHECK_THROWS_AS(keep(cts::surely_tokens{.sure = 1.1}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::surely_tokens{.sure = std::nan("")}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::proportional_tokens{.even = 0}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::proportional_tokens{.even = 1.5}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::soft_tokens{.power = -1}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::soft_tokens{.power = std::nan("")}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::window_tokens{.side = 0}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::facility_tokens{.reach = 0}, c), cts::Error);
  CHECK_THROWS_AS(keep(cts::facility_tokens{}, {some, 5, 0, 7}), cts::Error);
  CHECK_THROWS_AS(keep(cts::window_tokens{}, {some, 5, 0, 7}), cts::Error);  // 24 tokens in rows of 7
  CHECK_THROWS_AS(keep(cts::window_tokens{}, {some, 5, 0}), cts::Error);     // and in no square
}

TEST_CASE("the rules meet at their ends", "[rules]") {
  const auto r = relevance();
  const cts::token_choice c{r, 5, 3, 6};
  const positions top = keep(cts::top_tokens{}, c);
  CHECK(top == positions{4, 9, 10, 11, 20});
  CHECK(keep(cts::surely_tokens{.sure = 1}, c).positions == top);
  CHECK(keep(cts::soft_tokens{.power = 1000}, c) == top);
  CHECK(keep(cts::window_tokens{.side = 24}, c) == top);
  const auto even = keep(cts::surely_tokens{.sure = 0}, c), mixed = keep(cts::proportional_tokens{.even = 1}, c);
  for (const float w : even.weights) CHECK(w == 24.0f / 5);
  for (const float w : mixed.weights) CHECK(w == Approx(24.0 / 5));
  const std::vector<double> equal(24, 3.0);
  CHECK(keep(cts::top_tokens{}, {equal, 3, 0}) == positions{0, 1, 2});  // ties: the earlier position
  CHECK(keep(cts::window_tokens{}, {equal, 6, 0, 6}) == positions{0, 2, 4, 12, 14, 16});
}

TEST_CASE("tokens are kept as often as the rules say", "[rules]") {
  const auto r = relevance();
  for (const double p : draw(cts::chance_tokens{}, r, 6).kept) CHECK(near(p, 0.25));
  for (const double p : draw(cts::soft_tokens{.power = 0}, r, 6).kept) CHECK(near(p, 0.25));
  {
    const auto kept = draw(cts::surely_tokens{}, r, 8).kept;  // 4 of 8 surely
    for (std::size_t p = 0; p < 24; ++p)
      CHECK((p == 20 || (p >= 9 && p <= 11) ? kept[p] == Approx(1) : near(kept[p], 4.0 / 20)));
  }
  for (const cts::index count : {1, 3, 8, 20}) {
    const cts::proportional_tokens rule{.even = 0.25};
    const auto likely = inclusion_probabilities(rule, {r, count});
    double sum = 0;
    for (const double p : likely) {
      sum += p;
      CHECK((p > 0 && p <= 1));
    }
    CHECK(sum == Approx(double(count)));
    CHECK((count < 8 ? likely[20] > likely[9] : likely[20] == 1));
    CHECK(likely[0] == likely[1]);
    const auto kept = draw(rule, r, count).kept;
    for (std::size_t p = 0; p < 24; ++p) CHECK(near(kept[p], likely[p]));
  }
  // Two of three with relevance 1, 2, 3 and power 1: P(both i and j) = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j).
  const std::vector<double> three{1, 2, 3};
  const auto one = draw(cts::soft_tokens{}, three, 1).kept, two = draw(cts::soft_tokens{}, three, 2).kept;
  const auto square = draw(cts::soft_tokens{.power = 2}, three, 1).kept;
  const double p[3] = {1.0 / 6, 2.0 / 6, 3.0 / 6};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(near(one[i], p[i]));
    CHECK(near(square[i], three[i] * three[i] / 14));
    double both = 0;
    for (std::size_t j = 0; j < 3; ++j) both += i == j ? 0 : p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]);
    CHECK(near(two[i], both));
  }
  const std::vector<double> few{0, 0, 5, 0};  // irrelevant ones only where there are no others
  CHECK(draw(cts::soft_tokens{}, few, 1, 500).kept[2] == Approx(1));
  CHECK(near(draw(cts::soft_tokens{}, few, 2).kept[0], 1.0 / 3));
}

TEST_CASE("with its weights a sample of the tokens stands for the picture", "[rules]") {
  const auto r = relevance();
  const double all = all_facts(24);
  for (const double sure : {0.0, 0.25, 0.5, 0.9}) CHECK(unbiased(draw(cts::surely_tokens{.sure = sure}, r, 8), all));
  for (const double even : {0.05, 0.5, 1.0}) {
    for (const cts::index count : {1, 8}) {
      INFO(even << " " << count);
      CHECK(unbiased(draw(cts::proportional_tokens{.even = even}, r, count, 100'000), all, 100'000));
    }
  }
  CHECK_FALSE(unbiased(draw(cts::surely_tokens{.weighted = false}, r, 8), all));
  CHECK_FALSE(unbiased(draw(cts::soft_tokens{}, r, 8), all));
  // Relevance that knows the facts makes the estimate sharper.
  std::vector<double> known;
  for (std::size_t p = 0; p < 24; ++p) known.push_back(fact(p));
  const auto variance = [](const estimate& e) { return e.of_square - e.total * e.total; };
  const auto blind = draw(cts::surely_tokens{.sure = 0}, known, 8), seen = draw(cts::proportional_tokens{}, known, 8);
  CHECK(variance(seen) < 0.5 * variance(blind));
}

TEST_CASE("probabilities stay within bounds for any relevance", "[rules]") {
  const std::vector<std::vector<double>> odd{
      {1e300, 1e300, 1e300, 1e-300}, {1e-300, 2e-300, 0, 0}, {1, 0, 0, 0}, {-5, -6, -7, -8}, {1e308, 1, 1, -1e308}};
  for (const auto& r : odd) {
    for (const cts::index count : {1, 2, 3, 4}) {
      for (const double even : {1e-12, 0.3, 1.0}) {
        const auto likely = cts::inclusion_probabilities({.even = even}, {r, count});
        double sum = 0;
        for (const double p : likely) {
          sum += p;
          CHECK((p >= 0 && p <= 1));
        }
        CHECK(sum == Approx(double(count)));
        const auto kept = keep(cts::proportional_tokens{.even = even}, {r, count, 1});
        CHECK(static_cast<cts::index>(kept.positions.size()) == count);
        for (const float w : kept.weights) CHECK((w >= 1 && std::isfinite(w)));
      }
    }
  }
}

TEST_CASE("a foveated sample is the whole picture, sharp where it is relevant", "[rules]") {
  const auto r = relevance();
  const cts::foveated_tokens rule{.coarse = 3, .sharp = 40};
  const auto kept = keep(rule, {r, 5, 0, 6});
  REQUIRE(kept.positions.size() == 24);
  CHECK(kept.weights.empty());
  for (std::size_t p = 0; p < 24; ++p) {
    CHECK(kept.positions[p] == p);
    CHECK(kept.qualities[p] == (p == 4 || (p >= 9 && p <= 11) || p == 20 ? 40 : 3));
  }
  CHECK(keep(rule, {r, 24, 0, 6}).qualities == std::vector<std::uint8_t>(24, 40));
  CHECK_THROWS_AS(keep(cts::foveated_tokens{.coarse = 0}, {r, 5, 0, 6}), cts::Error);
  CHECK_THROWS_AS(keep(cts::foveated_tokens{.sharp = 101}, {r, 5, 0, 6}), cts::Error);
  CHECK_THROWS_AS(keep(rule, {r, 25, 0, 6}), cts::Error);
}

TEST_CASE("a facility is placed where it covers most relevance that is not covered yet", "[rules]") {
  // Three relevant neighbours at the left, a less relevant one at the right of a row.
  const std::vector<double> row{0.9, 1, 0.9, 0, 0, 0, 0, 0.5};
  CHECK(keep(cts::facility_tokens{}, {row, 2, 0, 8}) == positions{1, 7});
  CHECK(keep(cts::top_tokens{}, {row, 2, 0, 8}) == positions{0, 1});
  CHECK(keep(cts::facility_tokens{.reach = 0.01}, {row, 3, 0, 8}) == keep(cts::top_tokens{}, {row, 3, 0, 8}));
  CHECK(keep(cts::facility_tokens{}, {row, 8, 0, 8}) == positions{0, 1, 2, 3, 4, 5, 6, 7});
  // Greedy is at least 1 - 1/e of the best pair, found by trying all.
  cts::random_stream random(5);
  std::vector<double> r;
  for (int i = 0; i < 24; ++i) r.push_back(random.normal());
  const auto worth = [&](std::size_t a, std::size_t b) {
    double sum = 0;
    for (std::size_t i = 0; i < 24; ++i) {
      const auto near = [&](std::size_t j) {
        const double dy = double(i / 6) - double(j / 6), dx = double(i % 6) - double(j % 6);
        return std::exp(-(dy * dy + dx * dx) / 2);
      };
      sum += std::max(0.0, r[i]) * std::max(near(a), near(b));
    }
    return sum;
  };
  double best = 0;
  for (std::size_t a = 0; a < 24; ++a) {
    for (std::size_t b = a + 1; b < 24; ++b) best = std::max(best, worth(a, b));
  }
  const auto pair = keep(cts::facility_tokens{}, {r, 2, 0, 6});
  CHECK(worth(pair[0], pair[1]) >= (1 - std::exp(-1)) * best);
  CHECK(worth(pair[0], pair[1]) > worth(0, 23));
  // The first is the best alone.
  const auto first = keep(cts::facility_tokens{}, {r, 1, 0, 6})[0];
  for (std::size_t a = 0; a < 24; ++a) CHECK(worth(first, first) >= worth(a, a));
}

TEST_CASE("windows take turns", "[rules]") {
  std::vector<double> r(24, 0.0);  // 4 rows of 6
  r[0] = 9, r[1] = 8, r[6] = 7, r[7] = 6, r[2] = 5, r[23] = 4;
  // One of each of the six windows of 2 x 2, then the second of the window of tokens 0, 1, 6, 7.
  CHECK(keep(cts::window_tokens{}, {r, 7, 0, 6}) == positions{0, 1, 2, 4, 12, 14, 23});
  CHECK(keep(cts::window_tokens{}, {r, 2, 0, 6}) == positions{0, 2});
  const auto uneven = keep(cts::window_tokens{.side = 4}, {r, 2, 0, 6});  // 4 x 4 and 4 x 2
  CHECK(uneven == positions{0, 23});
}

}  // namespace memory_token_rules_tests
