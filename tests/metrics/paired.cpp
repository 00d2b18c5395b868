#include "core_tokensets/metrics/paired.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"

namespace metrics_paired_tests {

namespace cts = core_tokensets;
using values = std::vector<double>;
using points = std::vector<cts::byte_accuracy>;

namespace {

const double nan = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();

void check_multiple(const cts::byte_multiple& m, double k, cts::multiple_bound known = cts::multiple_bound::exact) {
  CHECK(m.k == Approx(k));
  CHECK((m.known == known));
}

}  // namespace

TEST_CASE("mean and standard deviation are those computed by hand", "[metrics]") {
  const auto s = cts::spread_of(values{2, 4, 9});
  CHECK(s.mean == Approx(5));
  CHECK(s.deviation == Approx(std::sqrt((9 + 1 + 16) / 2.0)));
  CHECK(s.n == 3);
  const auto one = cts::spread_of(values{7});
  CHECK(one.mean == 7);
  CHECK(std::isnan(one.deviation));
  CHECK_THROWS_AS(cts::spread_of(values{}), cts::Error);
  CHECK_THROWS_AS(cts::spread_of(values{1, nan}), cts::Error);
  CHECK_THROWS_AS(cts::spread_of(values{infinite}), cts::Error);
}

TEST_CASE("pairs are compared by their differences, and a tie is not ahead", "[metrics]") {
  const auto d = cts::compare_pairs(values{0.5, 0.6, 0.7, 0.4}, values{0.4, 0.6, 0.4, 0.6});  // 0.1, 0, 0.3, -0.2
  CHECK(d.mean == Approx(0.05));
  CHECK(d.error == Approx(std::sqrt((0.0025 + 0.0025 + 0.0625 + 0.0625) / 3 / 4)));
  CHECK(d.ahead == 2);
  CHECK(d.n == 4);
  const auto one = cts::compare_pairs(values{1}, values{3});
  CHECK(one.mean == -2);
  CHECK(std::isnan(one.error));
  CHECK_THROWS_AS(cts::compare_pairs(values{1, 2}, values{1}), cts::Error);
  CHECK_THROWS_AS(cts::compare_pairs(values{}, values{}), cts::Error);
  CHECK_THROWS_AS(cts::compare_pairs(values{1}, values{nan}), cts::Error);
}

TEST_CASE("quantiles of the t distribution are those of the tables", "[metrics]") {
  CHECK(cts::t_quantile(1) == Approx(12.706).margin(0.001));
  CHECK(cts::t_quantile(2) == Approx(4.303).margin(0.001));
  CHECK(cts::t_quantile(30) == Approx(2.042).margin(0.001));
  CHECK(cts::t_quantile(31) == Approx(2.0395).margin(0.0002));
  CHECK(cts::t_quantile(60) == Approx(2.0003).margin(0.0002));
  CHECK(cts::t_quantile(100'000) == Approx(1.95998).margin(0.0001));
  CHECK_THROWS_AS(cts::t_quantile(0), cts::Error);
}

TEST_CASE("a curve is made to rise by pooling neighbours that fall", "[metrics]") {
  // 5, 3, 4 become their mean, 6 and 6 stay; the order in which they come says nothing.
  const auto curve = cts::rising_curve(points{{40, 6}, {1, 1}, {2, 5}, {10, 4}, {4, 3}, {20, 6}});
  const values accuracy{1, 4, 4, 4, 6, 6}, bytes{1, 2, 4, 10, 20, 40};
  REQUIRE(curve.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(curve[i].bytes == bytes[i]);
    CHECK(curve[i].accuracy == Approx(accuracy[i]));
  }
  // Two of the same bytes are one point, which counts as two where it is pooled: (3 + 5 + 1) / 3.
  const auto same = cts::rising_curve(points{{2, 3}, {2, 5}, {8, 1}});
  REQUIRE(same.size() == 2);
  CHECK(same[0].accuracy == Approx(3));
  CHECK(same[1].accuracy == Approx(3));
  CHECK(cts::rising_curve(points{{1, 4}, {2, 3}, {2, 1}}).front().accuracy == Approx(8.0 / 3));
  CHECK_THROWS_AS(cts::rising_curve(points{}), cts::Error);
  CHECK_THROWS_AS(cts::rising_curve(points{{0, 1}}), cts::Error);
  CHECK_THROWS_AS(cts::rising_curve(points{{1, nan}}), cts::Error);
  CHECK_THROWS_AS(cts::rising_curve(points{{infinite, 1}}), cts::Error);
}

TEST_CASE("a multiple is read off the rival's curve in log bytes", "[metrics]") {
  const points rival{{100, 0.2}, {400, 0.4}, {1600, 0.8}};
  check_multiple(cts::multiple_of({100, 0.3}, rival), 2);  // half way from 100 to 400 is 200
  check_multiple(cts::multiple_of({200, 0.6}, rival), 4);  // half way from 400 to 1600 is 800
  check_multiple(cts::multiple_of({800, 0.4}, rival), 0.5);
  check_multiple(cts::multiple_of({100, 0.2}, rival), 1);  // the ends themselves are known
  check_multiple(cts::multiple_of({100, 0.8}, rival), 16);
  check_multiple(cts::multiple_of({100, 0.81}, rival), 16, cts::multiple_bound::more_than);
  check_multiple(cts::multiple_of({50, 0.1}, rival), 2, cts::multiple_bound::less_than);
  // What is reached on a plateau is reached at its beginning.
  check_multiple(cts::multiple_of({10, 0.5}, points{{100, 0.2}, {200, 0.6}, {400, 0.4}, {800, 0.9}}), 20);
  // A lucky run does not lift what follows: pooled with it, the curve ends at 0.5.
  check_multiple(cts::multiple_of({10, 0.55}, points{{100, 0.2}, {200, 0.7}, {400, 0.3}}), 40,
                 cts::multiple_bound::more_than);
  check_multiple(cts::multiple_of({10, 0.5}, points{{100, 0.5}}), 10);
  CHECK_THROWS_AS(cts::multiple_of({0, 0.5}, rival), cts::Error);
  CHECK_THROWS_AS(cts::multiple_of({1, nan}, rival), cts::Error);
  CHECK_THROWS_AS(cts::multiple_of({1, 0.5}, points{}), cts::Error);
}

TEST_CASE("multiples of several seeds have a geometric mean with its interval", "[metrics]") {
  using multiples = std::vector<cts::byte_multiple>;
  const auto s = cts::summarise(multiples{{2}, {4}, {8}});
  CHECK(s.all_known());
  CHECK(s.n == 3);
  CHECK(s.k == Approx(4));
  const double half = 4.3027 * std::log(2.0) / std::sqrt(3.0);  // logs are log 2 apart, their deviation is log 2
  CHECK(s.low == Approx(4 * std::exp(-half)));
  CHECK(s.high == Approx(4 * std::exp(half)));
  const auto one = cts::summarise(multiples{{3}});
  CHECK(one.k == Approx(3));
  CHECK((std::isnan(one.low) && std::isnan(one.high)));
  CHECK_THROWS_AS(cts::summarise(multiples{}), cts::Error);
  CHECK_THROWS_AS(cts::summarise(multiples{{2}, {nan}}), cts::Error);
  CHECK_THROWS_AS(cts::summarise(multiples{{0}}), cts::Error);
}

TEST_CASE("of multiples that are not all known the median is bounded", "[metrics]") {
  using multiples = std::vector<cts::byte_multiple>;
  const auto more = cts::multiple_bound::more_than, less = cts::multiple_bound::less_than;
  const auto check = [](const multiples& m, double low, double high, cts::index above, cts::index below) {
    const auto s = cts::summarise(m);
    CHECK(std::isnan(s.k));
    CHECK(s.low == Approx(low));
    CHECK((s.high == high || s.high == Approx(high)));
    CHECK((s.more == above && s.less == below && !s.all_known()));
  };
  check({{2}, {3}, {8, more}}, 3, 3, 1, 0);  // the one in the middle is known
  check({{2}, {5, more}, {8, more}}, 5, infinite, 2, 0);
  check({{2}, {3, more}, {5}}, 3, 5, 1, 0);  // it may be 3, or 5 if the bound is far above
  CHECK_THROWS_AS(cts::summarise(multiples{{1}, {0, more}}), cts::Error);
  check({{1, less}, {2, less}, {9}}, 0, 2, 0, 2);
  check({{2}, {8}, {9, more}, {9, more}}, std::sqrt(72.0), infinite, 2, 0);
}

}  // namespace metrics_paired_tests
