#pragma once
// When two short answers are the same: the normalisation of the VQA evaluation (Antol et al. 2015).

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace core_tokensets {

namespace detail {

/// The marks that the evaluation takes out; an apostrophe, a colon and a period are not among them.
constexpr std::string_view answer_marks = ";/[]\"{}()=+\\_-><@`,?!";

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Contractions without their apostrophes, and with them; none that is a word of its own ("its", "were", "well").
inline const std::map<std::string, std::string, std::less<>>& contractions() {
  static const auto table = [] {
    std::map<std::string, std::string, std::less<>> t;
    for (const char* verb : {"ai",    "are",  "ca",   "could", "did", "does",   "do",  "had",  "has", "have", "is",
                             "might", "must", "need", "ought", "sha", "should", "was", "were", "wo",  "would"}) {
      t[std::string(verb) + "nt"] = std::string(verb) + "n't";
    }
    for (const char* verb : {"could", "might", "must", "should", "would"})
      t[std::string(verb) + "ve"] = std::string(verb) + "'ve";
    for (const char* word : {"he", "how", "it", "there", "they", "that", "what", "where", "who", "why", "you",
                             "someone", "somebody", "something"}) {
      const std::string w = word;
      t[w + "d"] = w + "'d";
      if (w != "he") t[w + "ll"] = w + "'ll";
      if (w != "it") t[w + "s"] = w + "'s";
    }
    for (const char* word : {"i", "they", "we", "what", "where", "who", "you"})
      t[std::string(word) + "ve"] = std::string(word) + "'ve";
    for (const char* word : {"there", "they", "what", "why", "you"})
      t[std::string(word) + "re"] = std::string(word) + "'re";
    t.insert({{"im", "i'm"},
              {"maam", "ma'am"},
              {"oclock", "o'clock"},
              {"yall", "y'all"},
              {"twas", "'twas"},
              {"shes", "she's"},
              {"whens", "when's"}});
    return t;
  }();
  return table;
}

/// Lower case, number words up to ten as digits ("none" is 0), articles left out, contractions with their apostrophes,
/// one blank between words.
inline std::string plain_words(std::string text) {
  static constexpr std::array<std::string_view, 11> numbers{"zero", "one",   "two",   "three", "four", "five",
                                                            "six",  "seven", "eight", "nine",  "ten"};
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::istringstream words(text);
  std::string result;
  for (std::string word; words >> word;) {
    if (word == "none") word = "zero";
    const auto number = std::find(numbers.begin(), numbers.end(), word);
    if (number != numbers.end()) word = std::to_string(number - numbers.begin());
    if (word == "a" || word == "an" || word == "the") continue;
    if (const auto found = contractions().find(word); found != contractions().end()) word = found->second;
    result += (result.empty() ? "" : " ") + word;
  }
  return result;
}

/// Without the periods that no digit follows.
inline std::string without_periods(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '.' || (i + 1 < text.size() && is_digit(text[i + 1]))) result += text[i];
  }
  return result;
}

/// Punctuation as the published evaluator treats it: a mark vanishes everywhere if it stands beside a blank anywhere,
/// or if a comma stands between digits anywhere; otherwise it becomes a blank everywhere.
inline std::string published_punctuation(const std::string& text) {
  bool thousands = false;
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    thousands = thousands || (text[i] == ',' && is_digit(text[i - 1]) && is_digit(text[i + 1]));
  }
  std::string result = text;
  for (const char mark : answer_marks) {
    const bool beside_blank = text.find({mark, ' '}) != text.npos || text.find({' ', mark}) != text.npos;
    if (thousands || beside_blank) {
      std::erase(result, mark);
    } else {
      std::replace(result.begin(), result.end(), mark, ' ');
    }
  }
  return without_periods(result);
}

/// Tabs and line feeds as blanks, none at the ends.
inline std::string trimmed(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c == '\n' || c == '\t' ? ' ' : c;
  const auto first = result.find_first_not_of(' '), last = result.find_last_not_of(' ');
  return first == result.npos ? std::string() : result.substr(first, last - first + 1);
}

}  // namespace detail

/// The answer in lower case, without punctuation (a mark separates words, but for a comma between digits; a period
/// stays before a digit), articles and blanks too many; number words up to ten are digits, contractions have
/// apostrophes.
inline std::string normalise_answer(std::string_view answer) {
  std::string text;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    const char c = answer[i];
    const bool between =
        i > 0 && i + 1 < answer.size() && detail::is_digit(answer[i - 1]) && detail::is_digit(answer[i + 1]);
    if (c == ',' && between) continue;
    text += detail::answer_marks.find(c) == detail::answer_marks.npos ? c : ' ';
  }
  return detail::plain_words(detail::without_periods(text));
}

}  // namespace core_tokensets
