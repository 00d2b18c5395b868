#pragma once
// Where the words of a text lie, and how often each occurs in a corpus. Tokens never reach beyond a word.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace core_tokensets {

namespace detail {

/// ASCII letters and digits, and every byte of a character beyond ASCII.
constexpr bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (static_cast<unsigned char>(c) & 0x80u) != 0;
}

}  // namespace detail

/// Hands the words of `text`, in order and without a gap, to `visit(std::string_view)`. A word is a run of letters and
/// digits (bytes above 127 count as letters) with the one blank before it, or a run of other bytes: "is it red?" is
/// "is", " it", " red", "?".
template <class Visit>
void for_each_word(std::string_view text, const Visit& visit) {
  const auto word_at = [&](std::size_t i) { return i < text.size() && detail::is_word_byte(text[i]); };
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    const bool blank = text[begin] == ' ' && word_at(begin + 1);
    end = begin + 1;
    if (blank || word_at(begin)) {
      while (word_at(end)) ++end;
    } else {
      while (end < text.size() && !word_at(end) && !(text[end] == ' ' && word_at(end + 1))) ++end;
    }
    visit(text.substr(begin, end - begin));
  }
}

/// A word and how often it occurs.
using counted_word = std::pair<std::string, std::int64_t>;

/// The different words of a corpus, ordered by their bytes.
inline std::vector<counted_word> count_words(std::span<const std::string> corpus) {
  std::unordered_map<std::string, std::int64_t> counts;
  std::string key;
  for (const auto& text : corpus) {
    for_each_word(text, [&](std::string_view word) {
      key.assign(word);
      ++counts[key];
    });
  }
  std::vector<counted_word> words(counts.begin(), counts.end());
  std::sort(words.begin(), words.end());
  return words;
}

}  // namespace core_tokensets
