#pragma once
// Comparing over seeds: mean and spread, differences in pairs, and how many times the bytes a rival needs.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Mean and standard deviation (n - 1) of n values; the deviation of a single value is NaN.
struct sample_spread {
  double mean = 0, deviation = 0;
  index n = 0;
};

/// Differences of pairs, ours - theirs: mean, its standard error (NaN for one pair), and in how many pairs ours is
/// more.
struct paired_difference {
  double mean = 0, error = 0;
  index ahead = 0, n = 0;
};

/// Bytes and the accuracy that they gave, of one memory and one seed.
struct byte_accuracy {
  double bytes = 0, accuracy = 0;
};

/// What is known of a multiple: its value, or only that it is more or less than that.
enum class multiple_bound { exact, more_than, less_than };

/// A rival's bytes at which it is as accurate as ours, divided by our bytes.
struct byte_multiple {
  double k = 1;
  multiple_bound known = multiple_bound::exact;
};

/// Multiples of several seeds. All known: `k` is their geometric mean, `low` .. `high` its 95 % interval (NaN for one
/// seed). Otherwise `k` is NaN, and `low` .. `high` (from 0, up to infinity) holds the median.
struct multiple_summary {
  double k = 0, low = 0, high = 0;
  index n = 0, more = 0, less = 0;  ///< seeds, and those of which only a lower or an upper bound is known
  bool all_known() const { return more + less == 0; }
};

namespace detail {

inline void check_values(const char* what, std::span<const double> values) {
  require(!values.empty(), what, ": there are no values");
  for (std::size_t i = 0; i < values.size(); ++i)
    require(std::isfinite(values[i]), what, ": value ", i, " is ", values[i], ", expected a finite number");
}

}  // namespace detail

/// `Error`: no value, or one that is not finite.
inline sample_spread spread_of(std::span<const double> values) {
  detail::check_values("spread", values);
  const double n = static_cast<double>(values.size());
  sample_spread s{.n = static_cast<index>(values.size())};
  for (const double v : values) s.mean += v / n;
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.deviation = values.size() > 1 ? std::sqrt(squares / (n - 1)) : std::numeric_limits<double>::quiet_NaN();
  return s;
}

/// Pairs are values of the same place. `Error`: lengths that differ, no value, or one that is not finite.
inline paired_difference compare_pairs(std::span<const double> ours, std::span<const double> theirs) {
  require(ours.size() == theirs.size(), "pairs: ", ours.size(), " of ours, ", theirs.size(), " of theirs");
  detail::check_values("pairs: ours", ours);
  detail::check_values("pairs: theirs", theirs);
  std::vector<double> differences(ours.size());
  std::transform(ours.begin(), ours.end(), theirs.begin(), differences.begin(), std::minus<>());
  const sample_spread s = spread_of(differences);
  const auto ahead = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  return {s.mean, s.deviation / std::sqrt(static_cast<double>(s.n)), ahead, s.n};
}

/// The 97.5 % quantile of Student's t distribution: mean +- t * error is a 95 % interval. `Error`: no degree of
/// freedom.
inline double t_quantile(index degrees) {
  require(degrees >= 1, "t distribution: ", degrees, " degrees of freedom, expected at least 1");
  constexpr std::array<double, 30> table{12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060,
                                         2.2622,  2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
                                         2.1098,  2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
                                         2.0595,  2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (degrees <= 30) return table[static_cast<std::size_t>(degrees - 1)];
  // Powers of 1/n around the normal distribution (Abramowitz & Stegun 26.7.5); four digits are right from 30 on.
  const double z = 1.959964, n = static_cast<double>(degrees);
  return z + (z * z * z + z) / (4 * n) + (5 * std::pow(z, 5) + 16 * std::pow(z, 3) + 3 * z) / (96 * n * n);
}

/// The rising curve that is nearest to the points in least squares (pool adjacent violators): sorted by bytes, points
/// of the same bytes made one. A running maximum would keep every lucky run and lift all larger budgets to it, so that
/// the rival looked better the more budgets were tried; here luck and bad luck of neighbours cancel.
/// `Error`: no point, bytes that are not more than 0, or what is not finite.
inline std::vector<byte_accuracy> rising_curve(std::span<const byte_accuracy> points) {
  require(!points.empty(), "curve: there are no points");
  std::vector<byte_accuracy> sorted(points.begin(), points.end());
  for (const auto& p : sorted)
    require(std::isfinite(p.bytes) && p.bytes > 0 && std::isfinite(p.accuracy), "curve: ", p.bytes, " bytes with ",
            p.accuracy, ", expected more than 0 bytes and finite numbers");
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  struct pool {
    std::vector<double> bytes;
    double sum, count;
    double mean() const { return sum / count; }
  };
  std::vector<pool> sums;
  for (const auto& p : sorted) {
    if (!sums.empty() && sums.back().bytes.back() == p.bytes) {
      sums.back().sum += p.accuracy, sums.back().count += 1;
    } else {
      sums.push_back({{p.bytes}, p.accuracy, 1});
    }
  }
  std::vector<pool> pooled;
  for (auto& next : sums) {
    pooled.push_back(std::move(next));
    while (pooled.size() > 1 && pooled[pooled.size() - 2].mean() > pooled.back().mean()) {
      pool& into = pooled[pooled.size() - 2];
      into.bytes.insert(into.bytes.end(), pooled.back().bytes.begin(), pooled.back().bytes.end());
      into.sum += pooled.back().sum, into.count += pooled.back().count;
      pooled.pop_back();
    }
  }
  std::vector<byte_accuracy> curve;
  for (const auto& b : pooled) {
    for (const double bytes : b.bytes) curve.push_back({bytes, b.mean()});
  }
  return curve;
}

/// k for one seed: the fewest bytes at which the rival's rising curve, linear in log(bytes) between its points, reaches
/// our accuracy, divided by our bytes. Beyond the ends of the curve only a bound is known. `Error` as `rising_curve`.
inline byte_multiple multiple_of(const byte_accuracy& ours, std::span<const byte_accuracy> rival) {
  require(std::isfinite(ours.bytes) && ours.bytes > 0 && std::isfinite(ours.accuracy), "multiple: ours has ",
          ours.bytes, " bytes with ", ours.accuracy, ", expected more than 0 bytes and finite numbers");
  const auto curve = rising_curve(rival);
  const byte_accuracy &first = curve.front(), &last = curve.back();
  if (ours.accuracy < first.accuracy) return {first.bytes / ours.bytes, multiple_bound::less_than};
  if (ours.accuracy > last.accuracy) return {last.bytes / ours.bytes, multiple_bound::more_than};
  const auto at = std::find_if(curve.begin(), curve.end(), [&](const auto& p) { return p.accuracy >= ours.accuracy; });
  if (at->accuracy == ours.accuracy) return {at->bytes / ours.bytes};
  const byte_accuracy& below = *(at - 1);
  const double share = (ours.accuracy - below.accuracy) / (at->accuracy - below.accuracy);
  return {below.bytes * std::pow(at->bytes / below.bytes, share) / ours.bytes};
}

namespace detail {

/// The median; of an even number the geometric mean of the two in the middle.
inline double geometric_median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : std::sqrt(values[half - 1]) * std::sqrt(values[half]);
}

}  // namespace detail

/// k over seeds. `Error`: no value, or one that is not finite and more than 0.
inline multiple_summary summarise(std::span<const byte_multiple> multiples) {
  require(!multiples.empty(), "multiples: there are no values");
  multiple_summary s{.n = static_cast<index>(multiples.size())};
  std::vector<double> logs, least, most;
  for (const auto& m : multiples) {
    require(std::isfinite(m.k) && m.k > 0, "multiples: ", m.k, ", expected a finite number of more than 0");
    s.more += m.known == multiple_bound::more_than, s.less += m.known == multiple_bound::less_than;
    logs.push_back(std::log(m.k));
    least.push_back(m.known == multiple_bound::less_than ? 0 : m.k);
    most.push_back(m.known == multiple_bound::more_than ? std::numeric_limits<double>::infinity() : m.k);
  }
  if (!s.all_known()) {
    s.k = std::numeric_limits<double>::quiet_NaN();
    s.low = detail::geometric_median(std::move(least)), s.high = detail::geometric_median(std::move(most));
    return s;
  }
  const sample_spread spread = spread_of(logs);
  const double half = s.n > 1 ? t_quantile(s.n - 1) * spread.deviation / std::sqrt(static_cast<double>(s.n))
                              : std::numeric_limits<double>::quiet_NaN();
  s.k = std::exp(spread.mean), s.low = std::exp(spread.mean - half), s.high = std::exp(spread.mean + half);
  return s;
}

}  // namespace core_tokensets
