#pragma once
// Text to token numbers and back, learnt from a corpus. Every byte is a token, so that any text, valid UTF-8 or not,
// can be spelled and comes back as it was; what occurs often is a token of its own.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/text/byte_pairs.hpp"
#include "core_tokensets/data/text/text_words.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// What is learnt: pairs of neighbours inside words, or the most frequent whole words (all others are spelled by
/// bytes).
enum class tokenizer_kind { pairs, words };

struct tokenizer_options {
  index vocabulary = 1024;  ///< at most so many tokens; at least 258
  tokenizer_kind kind = tokenizer_kind::pairs;
};

/// A fixed vocabulary: 0 and 1 begin and end a text, 2 .. 257 are the bytes, from 258 on what was learnt. Words are
/// those of `for_each_word`; no token reaches beyond one.
class tokenizer {
 public:
  static constexpr std::int32_t begin_token = 0, end_token = 1;

  /// The 256 bytes, nothing learnt.
  explicit tokenizer(tokenizer_kind kind = tokenizer_kind::pairs) : kind_(kind) {
    texts_.resize(2);
    for (int byte = 0; byte < 256; ++byte) texts_.emplace_back(1, static_cast<char>(byte));
  }

  /// Learns from `corpus`, the same for the same texts in any order. What occurs once only is not learnt, so that the
  /// vocabulary may stay smaller than asked for. `Error`: a vocabulary without room for the bytes.
  static tokenizer train(std::span<const std::string> corpus, const tokenizer_options& options = {}) {
    require(options.vocabulary >= detail::first_learnt_token &&
                options.vocabulary <= std::numeric_limits<std::int32_t>::max(),
            "tokenizer: a vocabulary of ", options.vocabulary, ", expected at least ", detail::first_learnt_token,
            " (begin, end and 256 bytes)");
    tokenizer t(options.kind);
    auto words = count_words(corpus);
    const auto room = static_cast<std::size_t>(options.vocabulary - detail::first_learnt_token);
    if (options.kind == tokenizer_kind::pairs) {
      for (const auto& merge : detail::learn_merges(words, room)) t.add_merge(merge);
      return t;
    }
    std::stable_sort(words.begin(), words.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    for (const auto& [word, count] : words) {
      if (count < 2 || t.words_.size() >= room) break;
      if (word.size() > 1) t.add_word(word);
    }
    return t;
  }

  /// The tokens of `text`, without begin and end.
  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens, spelled;
    for_each_word(text, [&](std::string_view word) {
      if (const auto whole = words_.find(word); whole != words_.end()) {
        tokens.push_back(whole->second);
        return;
      }
      spelled.clear();
      detail::append_bytes_as_tokens(word, spelled);
      if (!ranks_.empty()) detail::apply_merges(ranks_, spelled);
      tokens.insert(tokens.end(), spelled.begin(), spelled.end());
    });
    return tokens;
  }

  /// The bytes that the tokens stand for; begin and end stand for none. `Error`: a number outside of the vocabulary.
  std::string decode(std::span<const std::int32_t> tokens) const {
    std::string text;
    for (const std::int32_t token : tokens) {
      require(token >= 0 && token < size(), "tokenizer: token ", token, ", expected 0 to ", size() - 1);
      text += texts_[static_cast<std::size_t>(token)];
    }
    return text;
  }

  /// Number of tokens, begin, end and bytes included.
  index size() const { return static_cast<index>(texts_.size()); }
  tokenizer_kind kind() const { return kind_; }

  bool operator==(const tokenizer&) const = default;

 private:
  void add_merge(detail::token_pair pair) {
    ranks_.emplace(detail::pair_key(pair.first, pair.second), static_cast<std::int32_t>(merges_.size()));
    merges_.push_back(pair);
    texts_.push_back(texts_[static_cast<std::size_t>(pair.first)] + texts_[static_cast<std::size_t>(pair.second)]);
  }
  void add_word(const std::string& word) {
    words_.emplace(word, static_cast<std::int32_t>(texts_.size()));
    texts_.push_back(word);
  }
  std::string checksum() const {
    std::uint64_t sum = fnv1a({});
    for (const auto& text : texts_) {
      sum = fnv1a(std::as_bytes(std::span(text)), sum);
      sum = fnv1a(std::as_bytes(std::span("\n", 1)), sum);
    }
    return checksum_text(sum);
  }

  tokenizer_kind kind_;
  std::vector<std::string> texts_;                         ///< [size] the bytes of each token
  std::vector<detail::token_pair> merges_;                 ///< in the order of their learning
  std::unordered_map<std::uint64_t, std::int32_t> ranks_;  ///< number of each merge
  std::map<std::string, std::int32_t, std::less<>> words_;

  friend json to_json(const tokenizer&);
  friend tokenizer tokenizer_from_json(const json&);
};

namespace detail {

inline std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    hex += "0123456789abcdef"[static_cast<unsigned char>(c) & 15u];
  }
  return hex;
}

/// The bytes that pairs of lower-case hexadecimal digits stand for; empty for anything else.
inline std::string from_hex(std::string_view hex) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string bytes;
  if (hex.size() % 2 != 0 || hex.find_first_not_of(digits) != hex.npos) return bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(digits.find(hex[i]) << 4 | digits.find(hex[i + 1]));
  }
  return bytes;
}

}  // namespace detail

/// {"kind": "pairs", "merges": [[left, right], ...]} or {"kind": "words", "words": [bytes in hexadecimal, ...]}, with
/// "size" and a "checksum" of all tokens. Plain ASCII.
inline json to_json(const tokenizer& t) {
  json stored{{"size", t.size()}, {"checksum", t.checksum()}};
  if (t.kind() == tokenizer_kind::pairs) {
    stored["kind"] = "pairs";
    stored["merges"] = t.merges_;
  } else {
    stored["kind"] = "words";
    stored["words"] = json::array();
    for (std::size_t i = detail::first_learnt_token; i < t.texts_.size(); ++i) {
      stored["words"].push_back(detail::to_hex(t.texts_[i]));
    }
  }
  return stored;
}

/// The tokenizer that `to_json` wrote. `Error` naming what is wrong: a field that is missing or of another type, a
/// merge of tokens that do not exist yet, a word that no text holds, anything twice, another size or checksum.
inline tokenizer tokenizer_from_json(const json& stored) {
  require(stored.is_object(), "tokenizer: the JSON value is no object");
  const auto field = [&](const char* name) -> const json& {
    const json* found = stored.find(name);
    require(found != nullptr, "tokenizer: '", name, "' is missing");
    return *found;
  };
  const auto& kind = field("kind");
  require(kind == "pairs" || kind == "words", "tokenizer: 'kind' is ", kind.dump(),
          ", expected \"pairs\" or \"words\"");
  tokenizer t(kind == "pairs" ? tokenizer_kind::pairs : tokenizer_kind::words);
  const char* name = kind == "pairs" ? "merges" : "words";
  const auto& learnt = field(name);
  require(learnt.is_array(), "tokenizer: '", name, "' is no list");
  // Each merge may double a token: a short file could ask for more memory than there is.
  constexpr std::size_t most = std::size_t{1} << 26;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < learnt.size(); ++i) {
    const auto& item = learnt[i];
    if (t.kind() == tokenizer_kind::pairs) {
      const auto valid = [&](const json& token) {
        return token.holds<std::int32_t>() && token.get<std::int32_t>() >= detail::first_byte_token &&
               token.get<std::int32_t>() < t.size();
      };
      require(item.is_array() && item.size() == 2 && valid(item[0]) && valid(item[1]), "tokenizer: merge ", i, " is ",
              item.dump(), ", expected two tokens from ", detail::first_byte_token, " to ", t.size() - 1);
      const auto pair = item.get<detail::token_pair>();
      require(!t.ranks_.contains(detail::pair_key(pair.first, pair.second)), "tokenizer: merge ", i, " is ",
              item.dump(), ", which came before");
      bytes += t.texts_[static_cast<std::size_t>(pair.first)].size();
      bytes += t.texts_[static_cast<std::size_t>(pair.second)].size();
      require(bytes <= most, "tokenizer: with merge ", i, " the tokens have more than ", most, " bytes");
      t.add_merge(pair);
    } else {
      const std::string word = item.is_string() ? detail::from_hex(item.text()) : "";
      index pieces = 0;
      for_each_word(word, [&](std::string_view) { ++pieces; });
      require(word.size() > 1 && pieces == 1, "tokenizer: word ", i, " is ", item.dump(),
              ", expected one word of at least two bytes in hexadecimal digits");
      require(!t.words_.contains(word), "tokenizer: word ", i, " is ", item.dump(), ", which came before");
      t.add_word(word);
    }
  }
  require(field("size") == t.size(), "tokenizer: 'size' is ", field("size").dump(), ", but there are ", t.size(),
          " tokens");
  require(field("checksum") == t.checksum(), "tokenizer: 'checksum' is ", field("checksum").dump(),
          ", the tokens have ", t.checksum());
  return t;
}

}  // namespace core_tokensets
