// The tokenizer: any bytes come back, the merges are those that can be found by hand, JSON keeps all of it.

#include "core_tokensets/data/text/tokenizer.hpp"

#include <nlohmann/json.hpp>
#include <set>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_tokenizer_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

using tokens = std::vector<std::int32_t>;

const std::vector<std::string> questions{"what colour is the star?", "what shape is red?", "is there a red star?",
                                         "is the red star above the blue ring?", "how many stars are there?"};

/// The token of a byte.
constexpr std::int32_t byte(char c) { return 2 + static_cast<unsigned char>(c); }

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  cts::for_each_word(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

/// Byte-pair encoding as its definition says it: count all pairs anew for each merge.
std::vector<tokens> slow_pairs(const std::vector<std::string>& corpus, std::size_t merges) {
  std::vector<tokens> words;
  for (const auto& text : corpus) {
    for (const auto& word : words_of(text)) {
      words.emplace_back();
      for (const char c : word) words.back().push_back(byte(c));
    }
  }
  for (std::size_t m = 0; m < merges; ++m) {
    std::map<std::pair<std::int32_t, std::int32_t>, int> counts;
    for (const auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    std::pair<std::int32_t, std::int32_t> best;
    int most = 1;
    for (const auto& [pair, count] : counts) {
      if (count > most) best = pair, most = count;
    }
    if (most < 2) break;
    for (auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != best.first || word[i + 1] != best.second) continue;
        word[i] = 258 + static_cast<std::int32_t>(m);
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  return words;
}

}  // namespace

TEST_CASE("words: runs of letters and digits with the blank before them, runs of others", "[tokenizer]") {
  using list = std::vector<std::string>;
  CHECK(words_of("is it red?") == list{"is", " it", " red", "?"});
  CHECK(words_of("  a, 2b\n") == list{" ", " a", ",", " 2b", "\n"});
  CHECK(words_of("caf\xc3\xa9 -- x") == list{"caf\xc3\xa9", " --", " x"});
  CHECK(words_of("a ") == list{"a", " "});
  CHECK(words_of("").empty());
}

TEST_CASE("tokenizer: any bytes come back as they were", "[tokenizer]") {
  cts::random_stream random(3);
  for (const auto kind : {cts::tokenizer_kind::pairs, cts::tokenizer_kind::words}) {
    const auto t = cts::tokenizer::train(questions, {.vocabulary = 300, .kind = kind});
    CHECK(t.size() > 258);
    std::vector<std::string> texts = questions;
    texts.insert(texts.end(), {"", " ", std::string(3, '\0'), "\xff\xfe red star \x80",
                               "gr\xc3\xbc\xc3\x9f dich \xe2\x98\x85", "red red  red\tred\n", std::string(1000, 'a')});
    for (int i = 0; i < 200; ++i) {
      std::string noise(static_cast<std::size_t>(random.below(40)), ' ');
      for (char& c : noise)
        c = random.uniform() < 0.3 ? " redstar?"[random.below(9)] : static_cast<char>(random.below(256));
      texts.push_back(noise);
    }
    for (const auto& text : texts) {
      const auto encoded = t.encode(text);
      CHECK(t.decode(encoded) == text);
      CHECK(encoded.size() <= text.size());
      for (const auto token : encoded) CHECK((token >= 2 && token < t.size()));
    }
    CHECK(t.encode("").empty());
    CHECK(t.encode(" red star").size() < 9);
  }
}

TEST_CASE("tokenizer: merges on a corpus that can be worked out by hand", "[tokenizer]") {
  // Words: aab 3 times, ab once, cab twice. Pairs: ab 3 + 1 + 2 = 6, aa 3, ca 2. After ab = 258: a(ab) 3, c(ab) 2.
  // After a(ab) = 259: c(ab) = 260. Nothing else is a pair.
  const std::vector<std::string> corpus{"aab\naab\naab", "ab", "cab\ncab"};
  const auto t = cts::tokenizer::train(corpus);
  CHECK(cts::to_json(t)["merges"].dump() == "[[99,100],[99,258],[101,258]]");
  CHECK(t.size() == 261);
  CHECK(t.encode("aab") == tokens{259});
  CHECK(t.encode("cabaab") == tokens{260, 259});
  CHECK(t.encode("aaab") == tokens{byte('a'), 259});
  CHECK(t.encode("ba") == tokens{byte('b'), byte('a')});
  // No pair across words: b and the line feed are neighbours three times.
  CHECK(t.decode(tokens{0, 259, 260, 1}) == "aabcab");
  // Ties: of bc and ab, twice each, the one with the smaller bytes comes first.
  const auto tie = cts::tokenizer::train(std::vector<std::string>{"bc\nbc", "ab\nab"}, {.vocabulary = 259});
  CHECK(cts::to_json(tie)["merges"].dump() == "[[99,100]]");
  // aaa: the left pair is merged.
  const auto left = cts::tokenizer::train(std::vector<std::string>{"aaa", "aaa"}, {.vocabulary = 259});
  CHECK(left.encode("aaa") == tokens{258, byte('a')});
  CHECK(left.encode("aaaa") == tokens{258, 258});
}

TEST_CASE("tokenizer: the fast merges are those of the definition", "[tokenizer]") {
  cts::random_stream random(11);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> corpus(12);
    for (auto& text : corpus) {
      for (cts::index n = random.below(30); n > 0; --n) text += "aabbc -"[random.below(7)];
    }
    const auto t = cts::tokenizer::train(corpus, {.vocabulary = 258 + 15});
    tokens fast, slow;
    for (const auto& text : corpus) {
      const auto encoded = t.encode(text);
      fast.insert(fast.end(), encoded.begin(), encoded.end());
    }
    for (const auto& word : slow_pairs(corpus, 15)) slow.insert(slow.end(), word.begin(), word.end());
    CHECK(fast == slow);
  }
}

TEST_CASE("tokenizer: words are the most frequent ones, ties by their bytes", "[tokenizer]") {
  const std::vector<std::string> corpus{"red ring", "red star", "a red star", "blue ring", "blue b"};
  // " ring" 2, " star" 2, "blue" 2, "red" 2, " red" once only.
  const auto t = cts::tokenizer::train(corpus, {.vocabulary = 261, .kind = cts::tokenizer_kind::words});
  CHECK(t.size() == 261);
  CHECK(t.encode("blue star") == tokens{260, 259});
  CHECK(t.encode("red ring") == tokens{byte('r'), byte('e'), byte('d'), 258});
  CHECK(cts::tokenizer::train(corpus, {.vocabulary = 1000, .kind = cts::tokenizer_kind::words}).size() == 262);
}

TEST_CASE("tokenizer: the order of the texts does not matter, other texts do", "[tokenizer]") {
  const std::vector<std::string> backwards(questions.rbegin(), questions.rend());
  for (const auto kind : {cts::tokenizer_kind::pairs, cts::tokenizer_kind::words}) {
    const auto t = cts::tokenizer::train(questions, {.vocabulary = 290, .kind = kind});
    CHECK(t == cts::tokenizer::train(backwards, {.vocabulary = 290, .kind = kind}));
    CHECK_FALSE(t == cts::tokenizer::train(std::vector<std::string>{"abab abab"}, {.vocabulary = 290, .kind = kind}));
  }
}

TEST_CASE("tokenizer: through JSON and back", "[tokenizer]") {
  const std::vector<std::string> odd{"\xff\xfe\x80 \xff\xfe\x80 \xff\xfe\x80", "\"quoted\" \"quoted\"",
                                     "red red red red"};
  for (const auto kind : {cts::tokenizer_kind::pairs, cts::tokenizer_kind::words}) {
    const auto t = cts::tokenizer::train(odd, {.kind = kind});
    const std::string text = cts::to_json(t).dump();
    for (const char c : text) CHECK((c >= ' ' && c <= '~'));
    const auto again = cts::tokenizer_from_json(cts::parse_json(text));
    CHECK(again == t);
    CHECK(again.kind() == kind);
    CHECK(again.encode(odd[0]) == t.encode(odd[0]));
  }
  CHECK(cts::tokenizer_from_json(cts::to_json(cts::tokenizer())) == cts::tokenizer());
}

TEST_CASE("tokenizer: altered JSON is refused with the reason", "[tokenizer]") {
  const auto good = cts::to_json(cts::tokenizer::train(questions, {.vocabulary = 270}));
  const auto refused = [](const cts::json& good_one, const char* pointer, const cts::json& value) {
    auto changed = nlohmann::json::parse(good_one.dump());
    changed[nlohmann::json::json_pointer(pointer)] = nlohmann::json::parse(value.dump());
    const cts::json bad = cts::parse_json(changed.dump());
    return message_of([&] { cts::tokenizer_from_json(bad); });
  };
  CHECK(message_of([&] { cts::tokenizer_from_json(good); }).empty());
  CHECK(has(message_of([] { cts::tokenizer_from_json(cts::json::array()); }), "no object"));
  CHECK(has(refused(good, "/kind", "letters"), "letters"));
  CHECK(has(refused(good, "/kind", 3), "kind"));
  CHECK(has(refused(good, "/kind", "words"), "'words' is missing"));
  CHECK(has(refused(good, "/merges", "x"), "no list"));
  CHECK(has(refused(good, "/merges/3", {5}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {5, "a"}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {5, 261}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {1, 5}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {5, -7}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {5, 1e300}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", {5, 4294967301}), "merge 3"));
  CHECK(has(refused(good, "/merges/3", good["merges"][2]), "came before"));
  CHECK(has(refused(good, "/merges/3", {5, 9}), "checksum"));
  CHECK(has(refused(good, "/size", 271), "size"));
  CHECK(has(refused(good, "/checksum", "0"), "checksum"));
  for (const char* name : {"kind", "merges", "size", "checksum"}) {
    auto bad = good;
    bad.erase(name);
    CHECK(has(message_of([&] { cts::tokenizer_from_json(bad); }), name));
  }
  auto doubling = good;  // forty merges that ask for a terabyte
  doubling["merges"] = {{2, 2}};
  for (int token = 258; token < 298; ++token) doubling["merges"].push_back({token, token});
  CHECK(has(message_of([&] { cts::tokenizer_from_json(doubling); }), "bytes"));
  const auto words =
      cts::to_json(cts::tokenizer::train(questions, {.vocabulary = 262, .kind = cts::tokenizer_kind::words}));
  CHECK(has(refused(words, "/words/1", "6x"), "word 1"));
  CHECK(has(refused(words, "/words/1", "616"), "word 1"));
  CHECK(has(refused(words, "/words/1", "61"), "word 1"));
  CHECK(has(refused(words, "/words/1", "612061"), "word 1"));  // "a a" is two words
  CHECK(has(refused(words, "/words/1", words["words"][0]), "came before"));
  CHECK(has(refused(words, "/words/1", "6161"), "checksum"));
}

TEST_CASE("tokenizer: vocabularies and tokens out of range", "[tokenizer]") {
  CHECK(has(message_of([] { cts::tokenizer::train(questions, {.vocabulary = 257}); }), "257"));
  CHECK(cts::tokenizer::train(questions, {.vocabulary = 258}) == cts::tokenizer());
  CHECK(cts::tokenizer::train({}).size() == 258);
  const cts::tokenizer t;
  CHECK(has(message_of([&] { t.decode(tokens{258}); }), "258"));
  CHECK(has(message_of([&] { t.decode(tokens{-1}); }), "-1"));
}

}  // namespace data_tokenizer_tests
