#pragma once
// What samples with text cost a memory, and how many of them a budget buys.

#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/data/visual_text.hpp"
#include "core_tokensets/train/recipe.hpp"

namespace core_tokensets {

/// The answer that a memory keeps: what most people said, or the first caption.
inline const std::string& stored_answer(const visual_text_sample& sample) {
  return sample.prompt.empty() ? sample.answers.front() : consensus(sample);
}

/// Bytes of a sample's prompt and of the one answer that a memory keeps.
inline index text_bytes(const visual_text_sample& sample) {
  return static_cast<index>(sample.prompt.size() + stored_answer(sample).size());
}

/// What the samples cost as the files that their pictures came as, and their texts. A picture with several texts is
/// paid for once.
inline index price_of_files(const visual_text& data, std::span<const index> samples) {
  std::set<index> paid;
  index total = 0;
  for (const index i : samples) {
    const auto& sample = data.samples[static_cast<std::size_t>(i)];
    if (paid.insert(sample.image).second) total += file_price(data.images, sample.image);
    total += text_bytes(sample);
  }
  return total;
}

/// The price of one sample alone, as a function: its text, and its picture's file unless a stored sample has paid that.
inline auto price_after(const visual_text& data, std::span<const index> stored) {
  std::set<index> paid;
  for (const index i : stored) paid.insert(data.samples[static_cast<std::size_t>(i)].image);
  return [&data, paid = std::move(paid)](index i) {
    const auto& sample = data.samples[static_cast<std::size_t>(i)];
    return text_bytes(sample) + (paid.contains(sample.image) ? 0 : file_price(data.images, sample.image));
  };
}

/// How many of `samples`, each of which is affordable alone, cost no more than `bytes` as files together with those
/// that are `stored`, if they are drawn at random, as far as one can expect: k of n samples miss the m about a picture
/// with probability C(n - m, k) / C(n, k).
inline index affordable_files(const visual_text& data, std::span<const index> samples, std::span<const index> stored,
                              index bytes) {
  const auto sample = [&](index i) -> const visual_text_sample& { return data.samples[static_cast<std::size_t>(i)]; };
  const auto n = static_cast<double>(samples.size());
  std::map<index, double> about;
  double text = 0;
  for (const index i : samples) about[sample(i).image] += 1, text += double(text_bytes(sample(i)));
  for (const index i : stored) about.erase(sample(i).image);  // paid for
  const auto missed = [&](double m, double k) {
    if (k > n - m) return 0.0;
    return std::exp(std::lgamma(n - m + 1) - std::lgamma(n - m - k + 1) + std::lgamma(n - k + 1) - std::lgamma(n + 1));
  };
  const auto price = [&](index k) {
    double total = text / n * double(k);
    for (const auto& [picture, m] : about)
      total += double(file_price(data.images, picture)) * (1 - missed(m, double(k)));
    return total;
  };
  const auto left = static_cast<double>(bytes - price_of_files(data, stored));
  const auto fits = [&](index k) { return price(k) <= left; };
  return std::max<index>(1, detail::most_that_fit(static_cast<index>(samples.size()), fits));
}

/// Leaves out the dearest of the chosen samples until what is `stored` and the rest cost no more than `bytes`.
inline void fit_files(const visual_text& data, std::span<const index> samples, std::span<const index> stored,
                      index bytes, selection_result& chosen) {
  const auto number = [&](index i) { return samples[static_cast<std::size_t>(i)]; };
  const auto price = price_after(data, stored);
  const auto together = [&](const std::vector<index>& some) {
    std::vector<index> all(stored.begin(), stored.end());
    for (const index i : some) all.push_back(number(i));
    return price_of_files(data, all);
  };
  fit_price(
      chosen, bytes, [&](index i) { return price(number(i)); }, together);
}

/// How many of `samples` with `tokens` tokens and a text of mean length each may join the memory before its file
/// exceeds `bytes`. `Error`: not even one fits an empty memory.
inline index affordable_texts(const visual_text& data, std::span<const index> samples, index tokens, index bytes,
                              const token_memory& memory) {
  double text = 0;
  for (const index i : samples) text += double(text_bytes(data.samples[static_cast<std::size_t>(i)]));
  text /= static_cast<double>(samples.size());
  const auto size = [&](index more) {
    const auto all = static_cast<index>(memory.arrays().text.size()) + static_cast<index>(text * double(more));
    return memory.bytes_on_disk(memory.samples() + more, memory.tokens() + more * tokens, all);
  };
  const index k =
      detail::most_that_fit(static_cast<index>(samples.size()), [&](index more) { return size(more) <= bytes; });
  require(k > 0 || !memory.empty(), "memory: a budget of ", bytes, " bytes is too small for one sample with ", tokens,
          " tokens, which takes ", size(1));
  return k;
}

}  // namespace core_tokensets
