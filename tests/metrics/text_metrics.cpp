// What answers and captions are judged by, on cases that can be worked out by hand.

#include <algorithm>
#include <cmath>

#include "core_tokensets/metrics/caption_metrics.hpp"
#include "core_tokensets/metrics/vqa_accuracy.hpp"
#include "support/catch.hpp"

namespace metrics_text_metrics_tests {

namespace cts = core_tokensets;

namespace {

using strings = std::vector<std::string>;
using lists = std::vector<strings>;

/// `n` times "yes", and "no" up to ten answers.
strings ten(std::size_t n) {
  strings humans(n, "yes");
  humans.resize(10, "no");
  return humans;
}

const strings captions{"a red star on the left", "two blue circles and a green ring", "there is a large heart"};
const lists references{{"a red star on the left side", "a star"},
                       {"two blue circles and a ring", "circles and a green ring above"},
                       {"a large white heart", "there is a heart"}};

}  // namespace

TEST_CASE("VQA accuracy: the mean over all nines of ten answers", "[text]") {
  // k of 10 gave the answer: k/10 min(1, (k-1)/3) + (10-k)/10 min(1, k/3).
  const double expected[] = {0, 0.3, 0.6, 0.9, 1, 1};  // 1: 0.9/3; 2: 0.2/3 + 0.8 * 2/3; 3: 0.3 * 2/3 + 0.7
  for (std::size_t k = 0; k <= 5; ++k) CHECK(cts::vqa_accuracy("yes", ten(k)) == Approx(expected[k]));
  for (std::size_t k = 0; k <= 5; ++k) {
    CHECK(cts::vqa_accuracy("yes", ten(k), {.leave_one_out = false}) == Approx(std::min(1.0, double(k) / 3)));
  }
  CHECK(cts::vqa_accuracy("maybe", ten(5)) == 0);
  CHECK_THROWS_AS(cts::vqa_accuracy("yes", strings{}), cts::Error);
}

TEST_CASE("VQA accuracy: with fewer than ten answers", "[text]") {
  CHECK(cts::vqa_accuracy("red", strings{"red"}) == 1);
  CHECK(cts::vqa_accuracy("red", strings{"blue"}) == 0);
  CHECK(cts::vqa_accuracy("red", strings{"red"}, {.leave_one_out = false}) == 1);
  CHECK(cts::vqa_accuracy("red", strings{"red", "blue"}) == Approx(0.5));  // the others: blue, red
  CHECK(cts::vqa_accuracy("red", strings{"red", "red"}) == 1);
  // Three: two others needed. Left out red, red, blue: 1/2, 1/2, 2/2.
  CHECK(cts::vqa_accuracy("red", strings{"red", "red", "blue"}) == Approx(2.0 / 3));
  CHECK(cts::vqa_accuracy("red", strings{"red", "red", "blue"}, {.leave_one_out = false}) == Approx(2.0 / 3));
  CHECK(cts::vqa_accuracy("red", strings{"red", "red", "red", "red"}) == 1);
  CHECK(cts::vqa_accuracy("red", strings{"red", "red", "red", "blue"}) == Approx(0.75));  // 3 times 2/3, once 3/3
}

TEST_CASE("VQA accuracy: answers are compared without what does not matter", "[text]") {
  const std::pair<const char*, const char*> cases[] = {{"A Red  Star.", "red star"},
                                                       {"the two", "2"},
                                                       {"Ten!", "10"},
                                                       {"none", "0"},
                                                       {"eleven", "eleven"},
                                                       {"1,000", "1000"},
                                                       {"red, blue", "red blue"},
                                                       {"red,blue", "red blue"},
                                                       {"x-ray", "x ray"},
                                                       {"3.5", "3.5"},
                                                       {"u.s.a.", "usa"},
                                                       {"dont", "don't"},
                                                       {"couldnt", "couldn't"},
                                                       {"theyre", "they're"},
                                                       {"its", "its"},
                                                       {"well", "well"},
                                                       {"hell", "hell"},
                                                       {"10:30", "10:30"},
                                                       {"\"yes\"", "yes"},
                                                       {"(a) an the", ""},
                                                       {"", ""}};
  for (const auto& [from, to] : cases) CHECK(cts::normalise_answer(from) == to);
  CHECK(cts::vqa_accuracy("The red one!", strings(10, "red 1")) == 1);
  CHECK(cts::exact_match("two", {0, "", {"3", "2", "2"}, 0}) == 1);
  CHECK(cts::exact_match("3", {0, "", {"3", "2", "2"}, 0}) == 0);
}

TEST_CASE("VQA accuracy: capitals of any alphabet, and answers that say nothing", "[text]") {
  CHECK(cts::normalise_answer("CAFÉ ÀÖØÞ ŸŁŇŽ ΆΈΏΑΩΫ ЁАЯ İ×") == "café àöøþ ÿłňž άέώαωϋ ёая İ×");
  CHECK(cts::normalise_answer("café ÷ß ĸŉ ň ž ſ ς 日本 🙂") == "café ÷ß ĸŉ ň ž ſ ς 日本 🙂");
  CHECK(cts::normalise_answer("\xc3") == "\xc3");  // not UTF-8: as it is
  const std::vector<std::string> coffee(10, "café"), article(10, "the");
  CHECK(cts::vqa_accuracy("CAFÉ", coffee) == 1);
  CHECK(cts::vqa_accuracy("", article) == 0);
  CHECK(cts::vqa_accuracy("a", article) == 0);
  CHECK(cts::vqa_accuracy(" the ", article) == 1);
  CHECK(cts::vqa_accuracy("", std::vector<std::string>(10, "")) == 1);
}

TEST_CASE("VQA accuracy: the published evaluator's quirks, where asked for", "[text]") {
  const auto both = [](const char* answer, const strings& humans) {
    return std::pair(cts::vqa_accuracy(answer, humans), cts::vqa_accuracy(answer, humans, {.quirks = true}));
  };
  strings mixed(9, "Two");
  mixed.push_back("3");
  // Human answers keep their capitals and number words.
  CHECK(both("two", mixed) == std::pair(1.0, 0.0));
  // Where all agree they keep even their punctuation.
  CHECK(both("yes", strings(10, "yes!")) == std::pair(1.0, 0.0));
  // Otherwise a mark at the end becomes a blank that stays.
  strings marked(9, "yes!");
  marked.push_back("no");
  CHECK(both("yes", marked) == std::pair(1.0, 0.0));
  // A mark beside a blank vanishes everywhere, here between a and b too.
  strings joined(9, "ab c");
  joined.push_back("no");
  CHECK(both("a-b -c", joined) == std::pair(0.0, 1.0));
  // A comma between digits does the same to all marks.
  strings number(9, "1000xray");
  number.push_back("no");
  CHECK(both("1,000x-ray", number) == std::pair(0.0, 1.0));
  CHECK(both("yes", ten(2)).second == Approx(0.6));
  CHECK(both(" a dog\n", strings(10, "dog")).second == 1);
}

TEST_CASE("VQA accuracy: a set, and its groups", "[text]") {
  cts::visual_text text;
  text.group_names = {"colour", "count", "empty"};
  text.samples = {{0, "", {"red"}, 0}, {0, "", {"2"}, 1}, {0, "", {"blue"}, 0}};
  const auto scores = cts::vqa_scores(strings{"Red", "two", "green"}, text);
  CHECK(scores == std::vector<double>{1, 1, 0});
  CHECK(cts::exact_matches(strings{"Red", "two", "green"}, text) == scores);
  const auto mean = cts::mean_by_group(scores, text);
  CHECK(mean.all == Approx(2.0 / 3));
  CHECK(mean.groups == std::vector<double>{0.5, 1, 0});
  CHECK(mean.counts == std::vector<cts::index>{2, 1, 0});
  CHECK_THROWS_AS(cts::vqa_scores(strings{"red"}, text), cts::Error);
  CHECK_THROWS_AS(cts::exact_matches(strings{}, text), cts::Error);
  CHECK_THROWS_AS(cts::mean_by_group(std::vector<double>{1}, text), cts::Error);
}

TEST_CASE("captions: words in lower case, punctuation dropped", "[text]") {
  CHECK(cts::caption_words("A man's dog, 2 cats.") == strings{"a", "man's", "dog", "2", "cats"});
  CHECK(cts::caption_words("'quoted' x-ray") == strings{"quoted", "x", "ray"});
  CHECK(cts::caption_words("gr\xc3\xbcn") == strings{"gr\xc3\xbcn"});
  CHECK(cts::caption_words(" .,! ").empty());
}

TEST_CASE("BLEU: clipped counts, the brevity penalty, the closest length", "[text]") {
  // "the" occurs at most twice in one reference: 2 of 7 words are right, no pair is.
  const auto clipped =
      cts::bleu(strings{"the the the the the the the"}, lists{{"the cat is on the mat", "there is a cat on the mat"}});
  CHECK(clipped[0] == Approx(2.0 / 7));
  CHECK(clipped[1] == 0);
  // Words 3 of 3, pairs 2 of 2, triples 1 of 1, no run of four; 3 words for 6: exp(1 - 6 / 3).
  const auto brief = cts::bleu(strings{"the cat is"}, lists{{"the cat is on the mat"}});
  CHECK(brief[0] == Approx(std::exp(-1.0)));
  CHECK(brief[2] == Approx(std::exp(-1.0)));
  CHECK(brief[3] == 0);
  // Words 5 of 6, pairs 3 of 5 (the cat, on the, the mat), triples 1 of 4 (on the mat), no four; no penalty.
  const auto six = cts::bleu(strings{"the cat sat on the mat"}, lists{{"the cat is on the mat"}});
  CHECK(six[0] == Approx(5.0 / 6));
  CHECK(six[1] == Approx(std::sqrt(5.0 / 6 * 3 / 5)));
  CHECK(six[2] == Approx(std::cbrt(5.0 / 6 * 3 / 5 * 1 / 4)));
  CHECK(six[3] == 0);
  // Lengths 4 and 6 are both one off from 5: the shorter counts, and there is no penalty; 2 and 8 as well.
  CHECK(cts::bleu(strings{"a b c d e"}, lists{{"a b c d e f", "a b c d"}})[0] == Approx(1));
  CHECK(cts::bleu(strings{"a b c d e"}, lists{{"a b c d e f", "a b c"}})[0] == Approx(std::exp(1 - 6.0 / 5)));
  // A corpus: (2 + 1) of (2 + 3) words, lengths 5 for 5.
  CHECK(cts::bleu(strings{"a b", "a x y"}, lists{{"a b"}, {"a b c"}})[0] == Approx(3.0 / 5));
  CHECK(cts::bleu(strings{""}, lists{{"a b"}})[0] == 0);
}

TEST_CASE("ROUGE-L: the longest common subsequence", "[text]") {
  // "police the gunman" of 4 words, "police ... the gunman" in order: 3 of 4 and 3 of 5.
  const double p = 3.0 / 4, r = 3.0 / 5;
  CHECK(cts::rouge_l_scores(strings{"police kill the gunman"}, lists{{"police have stopped the gunman"}})[0] ==
        Approx(2.44 * p * r / (r + 1.44 * p)));
  // Order matters: of "b a" only one word is common with "a b".
  CHECK(cts::rouge_l_scores(strings{"b a"}, lists{{"a b"}})[0] == Approx(0.5));
  // The best precision is from one reference (2 of 2), the best recall from another (1 of 1).
  CHECK(cts::rouge_l_scores(strings{"a b"}, lists{{"a b c d", "a"}})[0] == Approx(1));
  CHECK(cts::rouge_l_scores(strings{""}, lists{{"a"}})[0] == 0);
}

TEST_CASE("CIDEr-D: weights by hand", "[text]") {
  // Two pictures. "a" is in the references of both: log(2/2) = 0. "red", "star", "a red", "red star", "a red star" are
  // in one: w = log 2. Caption "a star" against "a red star": words (star) against (red, star): min(w, w) w / (w
  // sqrt(2) w) = 1/sqrt(2). Pairs: "a star" is nowhere. 2 words for 3: exp(-1/72). A quarter of it times 10.
  const auto scores = cts::cider_d_scores(strings{"a star", "a ring"}, lists{{"a red star"}, {"a ring"}});
  CHECK(scores[0] == Approx(10 / std::sqrt(2.0) * std::exp(-1.0 / 72) / 4));
  // "a ring" is its reference: cosine 1 for words and pairs, none of three and four words.
  CHECK(scores[1] == Approx(10 * 2.0 / 4));
  // Repeated words are clipped: (3 w) against (w): min(3 w, w) w / (3 w w) = 1/3; lengths 3 and 1.
  const auto repeated = cts::cider_d_scores(strings{"star star star", "ring"}, lists{{"star"}, {"ring"}});
  CHECK(repeated[0] == Approx(10.0 / 3 * std::exp(-4.0 / 72) / 4));
  // Two references: the mean.
  const auto two = cts::cider_d_scores(strings{"star", "ring"}, lists{{"star", "heart"}, {"ring"}});
  CHECK(two[0] == Approx(10.0 / 2 / 4));
  CHECK_THROWS_AS(cts::cider_d_scores(strings{"a star"}, lists{{"a star"}}), cts::Error);
}

TEST_CASE("caption scores: identity is best, unrelated is 0, order of samples does not matter", "[text]") {
  lists own;
  for (const auto& c : captions) own.push_back({c});
  const auto best = cts::measure_captions(captions, own);
  for (const double b : best.bleu) CHECK(b == Approx(1));
  CHECK(best.rouge_l == Approx(1));
  CHECK(best.cider_d == Approx(10));

  const auto none = cts::measure_captions(strings{"x y z u", "v w", ""}, references);
  for (const double b : none.bleu) CHECK(b == 0);
  CHECK(none.rouge_l == 0);
  CHECK(none.cider_d == 0);

  const auto some = cts::measure_captions(captions, references);
  CHECK(some.bleu[0] == Approx(1));  // every word is in a reference, and there are 18 for 7 + 6 + 4
  CHECK((some.bleu[3] > 0 && some.bleu[3] < some.bleu[1] && some.bleu[1] < 1));
  CHECK((some.cider_d > 1 && some.cider_d < 10));
  const auto turned =
      cts::measure_captions(strings(captions.rbegin(), captions.rend()), lists(references.rbegin(), references.rend()));
  for (std::size_t n = 0; n < 4; ++n) CHECK(turned.bleu[n] == Approx(some.bleu[n]));
  CHECK(turned.rouge_l == Approx(some.rouge_l));
  CHECK(turned.cider_d == Approx(some.cider_d));
  // Capitals and full stops do not count.
  strings loud = captions;
  for (auto& c : loud) c = std::string(1, static_cast<char>(std::toupper(c[0]))) + c.substr(1) + ".";
  CHECK(cts::measure_captions(loud, references).cider_d == Approx(some.cider_d));
}

TEST_CASE("caption scores: no captions and no references are errors", "[text]") {
  CHECK_THROWS_AS(cts::bleu(strings{}, lists{}), cts::Error);
  CHECK_THROWS_AS(cts::bleu(strings{"a"}, lists{{}}), cts::Error);
  CHECK_THROWS_AS(cts::rouge_l_scores(strings{"a", "b"}, lists{{"a"}}), cts::Error);
  CHECK_THROWS_AS(cts::cider_d_scores(strings{"a", "b"}, lists{{"a"}, {}}), cts::Error);
}

}  // namespace metrics_text_metrics_tests
