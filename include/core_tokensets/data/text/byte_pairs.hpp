#pragma once
// Byte-pair encoding (Gage 1994; Sennrich, Haddow & Birch 2016): the two neighbours that occur together most often
// become one token, again and again. The merges are learnt on counted words and applied in the order of their learning.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core_tokensets/data/text/text_words.hpp"

namespace core_tokensets::detail {

/// Tokens 0 and 1 begin and end a text, the 256 bytes follow, then whatever a tokenizer has learnt.
constexpr std::int32_t first_byte_token = 2, first_learnt_token = 258;

/// Two neighbours that become the token `first_learnt_token` + the number of the merge.
using token_pair = std::pair<std::int32_t, std::int32_t>;

constexpr std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

inline void append_bytes_as_tokens(std::string_view bytes, std::vector<std::int32_t>& tokens) {
  for (const char c : bytes) tokens.push_back(first_byte_token + static_cast<unsigned char>(c));
}

/// Counts of all neighbours in a set of words, kept up to date while words change.
class pair_counts {
 public:
  /// Word number `word`, spelled `tokens`, occurs `times` more often; `times` may be negative.
  void add(const std::vector<std::int32_t>& tokens, std::int64_t times, std::size_t word) {
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      auto& seen = entries_[pair_key(tokens[i], tokens[i + 1])];
      seen.count += times;
      if (times < 0) continue;
      if (seen.words.empty() || seen.words.back() != word) seen.words.push_back(word);
      touched_.emplace_back(tokens[i], tokens[i + 1]);
    }
  }

  /// The pair with the highest count of at least 2, of several the one with the smallest token numbers, and the words
  /// that may hold it; (-1, -1) if there is none.
  std::pair<token_pair, std::vector<std::size_t>> take_best() {
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const auto& [left, right] : touched_) {
      heap_.emplace(entries_.at(pair_key(left, right)).count, -left, -right);
    }
    touched_.clear();
    while (!heap_.empty()) {
      const auto [count, left, right] = heap_.top();
      heap_.pop();
      const auto found = entries_.find(pair_key(-left, -right));
      if (found == entries_.end()) continue;
      if (found->second.count != count) {  // the count fell after it was put there
        if (found->second.count > 1 && found->second.count < count) heap_.emplace(found->second.count, left, right);
        continue;
      }
      if (count < 2) continue;
      auto words = std::move(found->second.words);
      entries_.erase(found);
      return {{-left, -right}, std::move(words)};
    }
    return {{-1, -1}, {}};
  }

 private:
  struct entry {
    std::int64_t count = 0;
    std::vector<std::size_t> words;
  };
  std::unordered_map<std::uint64_t, entry> entries_;
  std::vector<token_pair> touched_;
  std::priority_queue<std::tuple<std::int64_t, std::int32_t, std::int32_t>> heap_;
};

/// Replaces the neighbours `pair` by `merged`, from left to right; false if there are none.
inline bool merge_in(std::vector<std::int32_t>& tokens, token_pair pair, std::int32_t merged) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < tokens.size(); ++kept) {
    const bool found = tokens[i] == pair.first && i + 1 < tokens.size() && tokens[i + 1] == pair.second;
    tokens[kept] = found ? merged : tokens[i];
    i += found ? 2 : 1;
  }
  const bool changed = kept < tokens.size();
  tokens.resize(kept);
  return changed;
}

/// At most `limit` merges, the most frequent pair first (ties: the smallest token numbers). Pairs that occur once only
/// are not merged.
inline std::vector<token_pair> learn_merges(std::span<const counted_word> words, std::size_t limit) {
  std::vector<std::vector<std::int32_t>> spelled(words.size());
  pair_counts counts;
  for (std::size_t w = 0; w < words.size(); ++w) {
    append_bytes_as_tokens(words[w].first, spelled[w]);
    counts.add(spelled[w], words[w].second, w);
  }
  std::vector<token_pair> merges;
  while (merges.size() < limit) {
    const auto [pair, where] = counts.take_best();
    if (pair.first < 0) break;
    const auto merged = first_learnt_token + static_cast<std::int32_t>(merges.size());
    merges.push_back(pair);
    for (const std::size_t w : where) {
      const auto before = spelled[w];
      if (!merge_in(spelled[w], pair, merged)) continue;
      counts.add(before, -words[w].second, w);
      counts.add(spelled[w], words[w].second, w);
    }
  }
  return merges;
}

/// Merges the tokens of one word, the earliest merge first and from left to right: O(n log n) for a word of any length.
/// `ranks`: the number of each merge by `pair_key`.
inline void apply_merges(const std::unordered_map<std::uint64_t, std::int32_t>& ranks,
                         std::vector<std::int32_t>& tokens) {
  const std::size_t n = tokens.size();
  using candidate = std::tuple<std::int32_t, std::size_t, std::size_t>;  // rank, left place, right place
  std::priority_queue<candidate, std::vector<candidate>, std::greater<>> candidates;
  std::vector<std::size_t> before(n), after(n);
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left >= n || right >= n) return;
    const auto found = ranks.find(pair_key(tokens[left], tokens[right]));
    if (found != ranks.end()) candidates.emplace(found->second, left, right);
  };
  for (std::size_t i = 0; i < n; ++i) before[i] = i - 1, after[i] = i + 1;  // before the first one: beyond n
  for (std::size_t i = 0; i + 1 < n; ++i) consider(i, i + 1);
  while (!candidates.empty()) {
    const auto [rank, left, right] = candidates.top();
    candidates.pop();
    if (tokens[left] < 0 || tokens[right] < 0 || after[left] != right) continue;  // a neighbour is gone
    const auto found = ranks.find(pair_key(tokens[left], tokens[right]));
    if (found == ranks.end() || found->second != rank) continue;  // a neighbour has grown
    tokens[left] = first_learnt_token + rank;
    tokens[right] = -1;
    after[left] = after[right];
    if (after[right] < n) before[after[right]] = left;
    consider(before[left], left);
    consider(left, after[left]);
  }
  std::erase(tokens, -1);
}

}  // namespace core_tokensets::detail
