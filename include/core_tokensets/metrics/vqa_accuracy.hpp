#pragma once
// How right an answer is where several people answered (Antol et al. 2015; Goyal et al. 2017): fully if three of them
// gave it.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/text/visual_text.hpp"
#include "core_tokensets/metrics/answer_text.hpp"

namespace core_tokensets {

struct vqa_options {
  bool leave_one_out = true;  ///< the official rule; otherwise min(1, matches / 3) over all answers at once
  /// As the published evaluator computes: its punctuation (`detail::published_punctuation`), and human answers are only
  /// freed from punctuation, and not even that where all of them are the same.
  bool quirks = false;
};

/// In [0, 1]: over all people, the mean of min(1, matches among the others / 3). With fewer than four answers there are
/// not three others, and all others there are suffice; a single answer must be met. `Error`: no human answers.
inline double vqa_accuracy(std::string_view answer, std::span<const std::string> humans,
                           const vqa_options& options = {}) {
  require(!humans.empty(), "vqa_accuracy: no human answers");
  const bool all_same = std::all_of(humans.begin(), humans.end(), [&](const auto& h) { return h == humans[0]; });
  const auto given = detail::plain_words(detail::published_punctuation(detail::trimmed(answer)));
  const auto matches = std::count_if(humans.begin(), humans.end(), [&](const std::string& human) {
    if (options.quirks) return given == (all_same ? human : detail::published_punctuation(human));
    return same_answer(answer, human);
  });
  const auto n = static_cast<double>(humans.size()), met = static_cast<double>(matches);
  if (!options.leave_one_out || humans.size() == 1) return std::min(1.0, met / std::min(3.0, n));
  const double needed = std::min(3.0, n - 1);
  // Who gave the answer is left out `met` times, and someone else n - met times.
  return (met * std::min(1.0, (met - 1) / needed) + (n - met) * std::min(1.0, met / needed)) / n;
}

/// 1 if the answer is, normalised, what most people said (`consensus`), otherwise 0.
inline double exact_match(std::string_view answer, const visual_text_sample& sample) {
  return same_answer(answer, consensus(sample)) ? 1.0 : 0.0;
}

namespace detail {

inline void check_answers(std::span<const std::string> answers, const visual_text& text, std::string_view what) {
  require(static_cast<index>(answers.size()) == text.n(), what, ": ", answers.size(), " answers for ", text.n(),
          " samples");
  require(!answers.empty(), what, ": no samples");
}

}  // namespace detail

/// The accuracy of each answer, [S]. `Error`: another number of answers than of samples, a sample without answers.
inline std::vector<double> vqa_scores(std::span<const std::string> answers, const visual_text& text,
                                      const vqa_options& options = {}) {
  detail::check_answers(answers, text, "vqa_scores");
  std::vector<double> scores;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    scores.push_back(vqa_accuracy(answers[i], text.samples[i].answers, options));
  }
  return scores;
}

/// Whether each answer is what most people said, [S]. `Error`: see `vqa_scores`.
inline std::vector<double> exact_matches(std::span<const std::string> answers, const visual_text& text) {
  detail::check_answers(answers, text, "exact_matches");
  std::vector<double> scores;
  for (std::size_t i = 0; i < answers.size(); ++i) scores.push_back(exact_match(answers[i], text.samples[i]));
  return scores;
}

/// A mean over all samples, and over those of each group; 0 for a group without samples.
struct grouped_score {
  double all = 0;
  std::vector<double> groups;  ///< [groups]
  std::vector<index> counts;   ///< [groups] samples of each
};

/// Means of `scores` [S]. `Error`: another number of scores than of samples, no samples.
inline grouped_score mean_by_group(std::span<const double> scores, const visual_text& text) {
  require(!scores.empty() && static_cast<index>(scores.size()) == text.n(), "mean_by_group: ", scores.size(),
          " scores for ", text.n(), " samples");
  grouped_score mean;
  mean.groups.assign(text.group_names.size(), 0);
  mean.counts.assign(text.group_names.size(), 0);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto group = static_cast<std::size_t>(text.samples[i].group);
    mean.all += scores[i] / static_cast<double>(scores.size());
    mean.groups.at(group) += scores[i];
    ++mean.counts[group];
  }
  for (std::size_t g = 0; g < mean.groups.size(); ++g) {
    if (mean.counts[g] > 0) mean.groups[g] /= static_cast<double>(mean.counts[g]);
  }
  return mean;
}

}  // namespace core_tokensets
