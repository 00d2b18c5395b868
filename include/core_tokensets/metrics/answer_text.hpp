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

/// The small letter of a capital one, of the Latin, Greek and Cyrillic alphabets; any other character as it is.
constexpr char32_t small_letter(char32_t c) {
  const auto within = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
  if (within('A', 'Z') || (within(0xC0, 0xDE) && c != 0xD7)) return c + 32;
  if (c == 0x178) return 0xFF;
  if (c == 0x130 || c == 0x138 || c == 0x149) return c;  // no pair begins here
  if (within(0x139, 0x148) || within(0x179, 0x17E)) return c % 2 == 1 ? c + 1 : c;
  if (within(0x100, 0x176)) return c % 2 == 0 ? c + 1 : c;
  if (within(0x391, 0x3AB) && c != 0x3A2) return c + 32;
  if (c == 0x386) return 0x3AC;
  if (within(0x388, 0x38A)) return c + 37;
  if (c == 0x38C) return 0x3CC;
  if (within(0x38E, 0x38F)) return c + 63;
  if (within(0x400, 0x40F)) return c + 80;
  if (within(0x410, 0x42F)) return c + 32;
  return c;
}

/// The text with small letters; all capitals that are changed take one or two bytes of UTF-8, as their small ones do.
inline std::string in_small_letters(std::string text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    if (byte(i) < 0x80) {
      text[i] = static_cast<char>(small_letter(byte(i)));
    } else if ((byte(i) & 0xE0) == 0xC0 && i + 1 < text.size() && (byte(i + 1) & 0xC0) == 0x80) {
      const char32_t c = small_letter(static_cast<char32_t>((byte(i) & 0x1F) << 6 | (byte(i + 1) & 0x3F)));
      text[i] = static_cast<char>(0xC0 | c >> 6), text[i + 1] = static_cast<char>(0x80 | (c & 0x3F));
      ++i;
    }
  }
  return text;
}

/// Lower case, number words up to ten as digits ("none" is 0), articles left out, contractions with their apostrophes,
/// one blank between words.
inline std::string plain_words(std::string text) {
  static constexpr std::array<std::string_view, 11> numbers{"zero", "one",   "two",   "three", "four", "five",
                                                            "six",  "seven", "eight", "nine",  "ten"};
  std::istringstream words(in_small_letters(std::move(text)));
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

/// Whether two answers are the same, normalised. What says nothing then ("", "the") is only what it is to the letter.
inline bool same_answer(std::string_view answer, std::string_view other) {
  const std::string given = normalise_answer(answer);
  if (given.empty()) return detail::trimmed(answer) == detail::trimmed(other);
  return given == normalise_answer(other);
}

}  // namespace core_tokensets
