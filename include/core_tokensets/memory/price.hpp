#pragma once
// What samples cost as the files that their pictures came as, which is what a sensible user would store instead of
// pixels, and how many of them a budget buys. Knows neither models nor memories.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// What a whole picture costs in a budget: the file that it came as (JPEG, PNG), or its raw pixels.
enum class picture_price { source, raw };

template <>
inline constexpr std::array words<picture_price>{"source", "raw"};

/// Bytes of label and weight beside a stored picture file.
inline constexpr index picture_overhead = 8;

/// One sample as a file: which picture it is about (a number that is the same for the same picture), the bytes of that
/// picture's file with its label and weight, and those of its text. A picture with several texts is paid for once.
struct file_sample {
  std::uint64_t picture = 0;
  index file = 0, text = 0;
};

/// Prices of samples by their numbers, some of whose pictures are `paid` for already.
class file_prices {
 public:
  file_prices(std::map<index, file_sample> samples, std::set<std::uint64_t> paid)
      : samples_(std::move(samples)), paid_(std::move(paid)) {}

  /// Of sample i by itself.
  index alone(index i) const {
    const file_sample& s = samples_.at(i);
    return s.text + (paid_.contains(s.picture) ? 0 : s.file);
  }
  /// Of all of `some` together.
  index together(std::span<const index> some) const {
    std::set<std::uint64_t> paid = paid_;
    index total = 0;
    for (const index i : some) {
      const file_sample& s = samples_.at(i);
      total += s.text + (paid.insert(s.picture).second ? s.file : 0);
    }
    return total;
  }
  /// The samples that cost no more than `bytes` by themselves.
  std::vector<index> affordable_alone(index bytes) const {
    std::vector<index> found;
    for (const auto& [i, s] : samples_) {
      if (alone(i) <= bytes) found.push_back(i);
    }
    return found;
  }
  /// The least price of a sample.
  index least() const {
    index found = std::numeric_limits<index>::max();
    for (const auto& [i, s] : samples_) found = std::min(found, alone(i));
    return found;
  }

  /// How many of `some`, drawn at random, cost no more than `bytes`, as far as one can expect, and at least 1: k of n
  /// samples miss the m about a picture with probability C(n - m, k) / C(n, k).
  index affordable(std::span<const index> some, index bytes) const {
    const auto n = static_cast<double>(some.size());
    std::map<std::uint64_t, std::pair<double, double>> about;  // samples about a picture, price of its file
    double text = 0;
    for (const index i : some) {
      const file_sample& s = samples_.at(i);
      text += double(s.text);
      if (paid_.contains(s.picture)) continue;
      auto& [count, file] = about[s.picture];
      count += 1, file = double(s.file);
    }
    const auto missed = [&](double m, double k) {
      if (k > n - m) return 0.0;
      return std::exp(std::lgamma(n - m + 1) - std::lgamma(n - m - k + 1) + std::lgamma(n - k + 1) -
                      std::lgamma(n + 1));
    };
    const auto price = [&](index k) {
      double total = text / n * double(k);
      for (const auto& [picture, known] : about) total += known.second * (1 - missed(known.first, double(k)));
      return total;
    };
    index low = 1, high = static_cast<index>(some.size());
    while (low < high) {
      const index middle = (low + high + 1) / 2;
      if (price(middle) <= static_cast<double>(bytes)) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  /// Leaves out the dearest of the chosen samples, and their weights, until the rest costs no more than `bytes`.
  void fit(std::vector<index>& chosen, std::vector<float>& weights, index bytes) const {
    while (!chosen.empty() && together(chosen) > bytes) {
      const auto dearest =
          std::max_element(chosen.begin(), chosen.end(), [&](index a, index c) { return alone(a) < alone(c); });
      weights.erase(weights.begin() + (dearest - chosen.begin()));
      chosen.erase(dearest);
    }
  }
  /// What each of `some` adds to the price of those before it, without its text: 0 where its picture is paid.
  std::vector<std::uint32_t> files_of(std::span<const index> some) const {
    std::vector<std::uint32_t> files;
    std::set<std::uint64_t> paid = paid_;
    for (const index i : some) {
      const file_sample& s = samples_.at(i);
      files.push_back(paid.insert(s.picture).second ? static_cast<std::uint32_t>(s.file) : 0u);
    }
    return files;
  }

 private:
  std::map<index, file_sample> samples_;
  std::set<std::uint64_t> paid_;
};

}  // namespace core_tokensets
