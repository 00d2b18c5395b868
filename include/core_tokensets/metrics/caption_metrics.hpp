#pragma once
// How good captions are against captions that people wrote: BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D
// (Vedantam et al. 2015), as the evaluation of COCO captions defines them, all on the words of `caption_words`.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// The words of a caption in lower case: runs of letters, digits and bytes beyond ASCII; an apostrophe between two of
/// these belongs to the word; everything else separates words and is dropped.
inline std::vector<std::string> caption_words(std::string_view caption) {
  std::vector<std::string> words;
  const auto lettered = [&](std::size_t i) {
    if (i >= caption.size()) return false;
    const char c = caption[i];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (static_cast<unsigned char>(c) & 0x80u) != 0;
  };
  bool inside = false;
  for (std::size_t i = 0; i < caption.size(); ++i) {
    const bool joins = caption[i] == '\'' && inside && lettered(i + 1);
    if (!lettered(i) && !joins) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    const char c = caption[i];
    words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return words;
}

namespace detail {

constexpr std::size_t longest_ngram = 4;

/// How often each run of 1 .. 4 words occurs, by the length of the run.
using ngram_counts = std::array<std::map<std::vector<std::string>, double>, longest_ngram>;

inline ngram_counts count_ngrams(const std::vector<std::string>& words) {
  ngram_counts counts;
  for (std::size_t n = 1; n <= longest_ngram; ++n) {
    for (std::size_t i = 0; i + n <= words.size(); ++i) {
      const auto first = words.begin() + static_cast<std::ptrdiff_t>(i);
      counts[n - 1][{first, first + static_cast<std::ptrdiff_t>(n)}] += 1;
    }
  }
  return counts;
}

/// A caption with the captions that it is compared with, as words.
struct caption_case {
  std::vector<std::string> words;
  std::vector<std::vector<std::string>> references;
};

/// `Error`: no captions, another number of lists of references, a list without references.
inline std::vector<caption_case> caption_cases(std::span<const std::string> captions,
                                               std::span<const std::vector<std::string>> references) {
  require(!captions.empty() && captions.size() == references.size(), "captions: ", captions.size(), " captions with ",
          references.size(), " lists of references, expected the same number of both and at least one");
  std::vector<caption_case> cases;
  for (std::size_t i = 0; i < captions.size(); ++i) {
    require(!references[i].empty(), "captions: caption ", i, " has no references");
    cases.push_back({caption_words(captions[i]), {}});
    for (const auto& r : references[i]) cases.back().references.push_back(caption_words(r));
  }
  return cases;
}

/// Length of the longest common subsequence.
inline index common_subsequence(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<index> row(b.size() + 1, 0);
  for (const auto& word : a) {
    index diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const index above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

inline double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace detail

/// BLEU-1 .. BLEU-4 of a corpus in [0, 1]: brevity penalty times the geometric mean of the precisions of runs of 1 .. n
/// words, counts clipped to the largest in any one reference; the length of reference is the closest one (of two the
/// shorter). No smoothing: 0 where no run of a length is right. `Error`: a caption without references.
inline std::array<double, 4> bleu(std::span<const std::string> captions,
                                  std::span<const std::vector<std::string>> references) {
  std::array<double, 4> right{}, all{};
  double length = 0, closest = 0;
  for (const auto& c : detail::caption_cases(captions, references)) {
    const auto written = static_cast<double>(c.words.size());
    length += written;
    double best = -1;
    detail::ngram_counts most;
    for (const auto& r : c.references) {
      const auto l = static_cast<double>(r.size());
      const double off = std::abs(l - written), least = std::abs(best - written);
      if (best < 0 || off < least || (off == least && l < best)) best = l;
      const auto counts = detail::count_ngrams(r);
      for (std::size_t n = 0; n < 4; ++n) {
        for (const auto& [ngram, count] : counts[n]) most[n][ngram] = std::max(most[n][ngram], count);
      }
    }
    closest += best;
    const auto counts = detail::count_ngrams(c.words);
    for (std::size_t n = 0; n < 4; ++n) {
      for (const auto& [ngram, count] : counts[n]) {
        all[n] += count;
        if (const auto found = most[n].find(ngram); found != most[n].end()) right[n] += std::min(count, found->second);
      }
    }
  }
  std::array<double, 4> scores{};
  const double brevity = length > 0 ? std::exp(std::min(0.0, 1 - closest / length)) : 0;
  double logarithms = 0;
  for (std::size_t n = 0; n < 4 && right[n] > 0; ++n) {
    logarithms += std::log(right[n] / all[n]);
    scores[n] = brevity * std::exp(logarithms / static_cast<double>(n + 1));
  }
  return scores;
}

/// ROUGE-L of each caption in [0, 1], [S]: with P and R the best precision and recall of the longest common subsequence
/// over the references, (1 + b^2) P R / (R + b^2 P), b = 1.2. `Error`: a caption without references.
inline std::vector<double> rouge_l_scores(std::span<const std::string> captions,
                                          std::span<const std::vector<std::string>> references) {
  constexpr double b2 = 1.2 * 1.2;
  std::vector<double> scores;
  for (const auto& c : detail::caption_cases(captions, references)) {
    double precision = 0, recall = 0;
    for (const auto& r : c.references) {
      const auto common = static_cast<double>(detail::common_subsequence(c.words, r));
      if (common == 0) continue;
      precision = std::max(precision, common / static_cast<double>(c.words.size()));
      recall = std::max(recall, common / static_cast<double>(r.size()));
    }
    scores.push_back(precision > 0 ? (1 + b2) * precision * recall / (recall + b2 * precision) : 0);
  }
  return scores;
}

/// CIDEr-D of each caption in [0, 10], [S]: 10 times the mean over runs of 1 .. 4 words and over references of the
/// cosine of tf-idf vectors, the caption's entries clipped to the reference's, times exp(-(difference of lengths)^2 /
/// 72). The inverse document frequency is log(S / captions whose references hold the run). A caption of fewer than 4
/// words cannot reach 10. `Error`: fewer than two captions (all weights would be 0), a caption without references.
inline std::vector<double> cider_d_scores(std::span<const std::string> captions,
                                          std::span<const std::vector<std::string>> references) {
  constexpr double sigma = 6;
  const auto cases = detail::caption_cases(captions, references);
  require(cases.size() > 1, "cider_d: one caption, expected at least two, or no word tells one picture from another");
  std::map<std::vector<std::string>, double> documents;
  std::vector<std::vector<detail::ngram_counts>> vectors(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    std::set<std::vector<std::string>> seen;
    for (const auto& r : cases[i].references) {
      vectors[i].push_back(detail::count_ngrams(r));
      for (const auto& counts : vectors[i].back()) {
        for (const auto& [ngram, count] : counts) seen.insert(ngram);
      }
    }
    for (const auto& ngram : seen) documents[ngram] += 1;
  }
  const auto weigh = [&](detail::ngram_counts& counts) {
    std::array<double, 4> norms{};
    for (std::size_t n = 0; n < 4; ++n) {
      for (auto& [ngram, value] : counts[n]) {
        const auto found = documents.find(ngram);
        value *= std::log(static_cast<double>(cases.size()) / (found == documents.end() ? 1.0 : found->second));
        norms[n] += value * value;
      }
      norms[n] = std::sqrt(norms[n]);
    }
    return norms;
  };
  std::vector<double> scores;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    auto own = detail::count_ngrams(cases[i].words);
    const auto own_norms = weigh(own);
    double sum = 0;
    for (std::size_t k = 0; k < vectors[i].size(); ++k) {
      auto& other = vectors[i][k];
      const auto norms = weigh(other);
      const double off =
          static_cast<double>(cases[i].words.size()) - static_cast<double>(cases[i].references[k].size());
      const double penalty = std::exp(-off * off / (2 * sigma * sigma));
      for (std::size_t n = 0; n < 4; ++n) {
        double product = 0;
        for (const auto& [ngram, value] : own[n]) {
          if (const auto found = other[n].find(ngram); found != other[n].end()) {
            product += std::min(value, found->second) * found->second;
          }
        }
        if (product > 0) sum += penalty * product / (own_norms[n] * norms[n]);
      }
    }
    scores.push_back(10 * sum / 4 / static_cast<double>(vectors[i].size()));
  }
  return scores;
}

/// Everything at once, over all captions.
struct caption_scores {
  std::array<double, 4> bleu{};  ///< BLEU-1 .. BLEU-4
  double rouge_l = 0, cider_d = 0;
};

/// `captions` [S] against `references` [S]. `Error`: see `bleu` and `cider_d_scores`.
inline caption_scores measure_captions(std::span<const std::string> captions,
                                       std::span<const std::vector<std::string>> references) {
  return {bleu(captions, references), detail::mean_of(rouge_l_scores(captions, references)),
          detail::mean_of(cider_d_scores(captions, references))};
}

}  // namespace core_tokensets
