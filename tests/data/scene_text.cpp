// Built-in questions and captions. An oracle of our own reads each text back and looks into the description of the
// scene: every answer must be the only one, every caption true.

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "core_tokensets/data/scenes/scene_captions.hpp"
#include "core_tokensets/data/scenes/scene_questions.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_scene_text_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

using words = std::vector<std::string>;

words split(const std::string& text) {
  words found;
  std::string clean;
  for (const char c : text) {
    if (c != '?' && c != ',') clean += c;
  }
  std::istringstream in(clean);
  for (std::string w; in >> w;) found.push_back(w);
  return found;
}

template <class Names>
bool among(const Names& names, const std::string& word) {
  return std::find(names.begin(), names.end(), word) != names.end();
}

bool is_adjective(const std::string& w) {
  return among(cts::scene_colour_names, w) || among(cts::scene_texture_names, w) || among(cts::scene_size_names, w);
}

std::string singular(const std::string& w) {
  if (w == "crosses") return "cross";
  if (w == "hourglasses") return "hourglass";
  return w.size() > 1 && w.back() == 's' && w != "cross" && w != "hourglass" ? w.substr(0, w.size() - 1) : w;
}

bool is_noun(const std::string& w) {
  const auto s = singular(w);
  return among(cts::scene_shape_names, s) || s == "shape" || s == "thing";
}

/// A run of adjectives and a noun, from word `begin` to word `end`.
struct noun_phrase {
  words parts;
  std::size_t begin = 0, end = 0;
  bool fits(const cts::scene_object& o) const {
    return std::all_of(parts.begin(), parts.end(), [&](const std::string& w) {
      const auto s = singular(w);
      if (among(cts::scene_shape_names, s)) return s == cts::name_of(o.shape);
      if (among(cts::scene_colour_names, w)) return w == cts::name_of(o.colour);
      if (among(cts::scene_texture_names, w)) return w == cts::name_of(o.texture);
      if (among(cts::scene_size_names, w)) return w == cts::name_of(o.size);
      return true;
    });
  }
  std::vector<const cts::scene_object*> all(const cts::scene_description& scene) const {
    std::vector<const cts::scene_object*> found;
    for (const auto& o : scene.objects) {
      if (fits(o)) found.push_back(&o);
    }
    return found;
  }
};

std::vector<noun_phrase> noun_phrases(const words& text) {
  std::vector<noun_phrase> found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    noun_phrase p;
    p.begin = i;
    while (i < text.size() && is_adjective(text[i])) p.parts.push_back(text[i++]);
    if (i >= text.size() || !is_noun(text[i])) continue;
    p.parts.push_back(text[i]);
    p.end = i + 1;
    found.push_back(p);
  }
  return found;
}

/// How far a stands from b in the direction that the text names, in parts of the side; 9 if it names none.
double shift(const words& text, const cts::scene_object& a, const cts::scene_object& b) {
  const double right = (a.column - b.column) / 64, down = (a.row - b.row) / 64;
  for (const auto& w : text) {
    if (w == "left") return -right;
    if (w == "right") return right;
    if (w == "above" || w == "over") return -down;
    if (w == "below" || w == "under") return down;
  }
  return 9;
}

std::string yes_or_no(bool b) { return b ? "yes" : "no"; }

/// The answer that the description gives; "?" where there is none or more than one.
std::string look(const std::string& kind, const words& q, const cts::scene_description& scene) {
  const auto phrases = noun_phrases(q);
  if (kind == "count") {
    if (phrases.size() != 1) return "?";
    return std::to_string(phrases[0].all(scene).size());
  }
  if (kind == "existence") return phrases.size() == 1 ? yes_or_no(!phrases[0].all(scene).empty()) : "?";
  if (kind == "relation") {
    if (among(words{"is", "does"}, q[0])) {
      if (phrases.size() != 2) return "?";
      const auto a = phrases[0].all(scene), b = phrases[1].all(scene);
      if (a.size() != 1 || b.size() != 1 || a == b) return "?";
      if (among(q, "larger")) return yes_or_no(a[0]->radius > b[0]->radius);
      if (among(q, "smaller")) return yes_or_no(a[0]->radius < b[0]->radius);
      const double s = shift(q, *a[0], *b[0]);
      return s > 0.14 ? "yes" : s < 0.0401 ? "no" : "?";
    }
    const auto b = phrases.back().all(scene);
    if (b.size() != 1) return "?";
    std::string answer = "?";
    for (const auto& o : scene.objects) {
      const double s = shift(q, o, *b[0]);
      if (&o == b[0] || s < 0.0401) continue;
      if (s < 0.14 || answer != "?") return "?";
      answer = among(q, "colour") ? cts::name_of(o.colour) : cts::name_of(o.shape);
    }
    return answer;
  }
  // One object is asked for a property; "what shape is the red thing" has its phrase at the end.
  const auto o = phrases.back().all(scene);
  if (o.size() != 1) return "?";
  if (kind == "colour") return std::string(cts::name_of(o[0]->colour));
  if (kind == "shape") return std::string(cts::name_of(o[0]->shape));
  if (kind == "texture") return std::string(cts::name_of(o[0]->texture));
  return std::string(cts::name_of(o[0]->size));
}

const cts::scene_text& questions() {
  static const auto text = cts::scene_questions({.scenes = {.classes = 12,
                                                            .train_per_class = 60,
                                                            .test_per_class = 30,
                                                            .image = 64,
                                                            .objects = 4,
                                                            .seed = 5,
                                                            .legible = true},
                                                 .per_image = 7,
                                                 .held_out = 12});
  return text;
}

const cts::scene_text& captions() {
  static const auto text = cts::scene_captions({.scenes = {.classes = 12,
                                                           .train_per_class = 40,
                                                           .test_per_class = 20,
                                                           .image = 64,
                                                           .objects = 4,
                                                           .seed = 6,
                                                           .legible = true},
                                                .per_image = 5,
                                                .held_out = 12});
  return text;
}

bool held_out(const cts::scene_text& text, const std::string& colour, const std::string& shape) {
  return std::any_of(text.held_out.begin(), text.held_out.end(), [&](const cts::scene_pair& pair) {
    return cts::name_of(pair.colour) == colour && cts::name_of(pair.shape) == shape;
  });
}

/// True if the words name a colour and a shape of a held-out pair in one phrase.
bool names_held_out(const cts::scene_text& text, const words& sentence) {
  for (const auto& p : noun_phrases(sentence)) {
    for (const auto& w : p.parts) {
      if (held_out(text, w, singular(p.parts.back()))) return true;
    }
  }
  return false;
}

bool shows_held_out(const cts::scene_text& text, const cts::scene_description& scene) {
  return std::any_of(scene.objects.begin(), scene.objects.end(), [&](const cts::scene_object& o) {
    return held_out(text, std::string(cts::name_of(o.colour)), std::string(cts::name_of(o.shape)));
  });
}

}  // namespace

TEST_CASE("scene questions: the description gives the same answer, and no other", "[text]") {
  const auto& text = questions();
  text.data.train.check();
  text.data.test.check();
  for (const auto* part : {&text.data.train, &text.data.test}) {
    const auto& scenes = part == &text.data.train ? text.train : text.test;
    REQUIRE(part->images.n() == static_cast<cts::index>(scenes.size()));
    for (const auto& s : part->samples) {
      REQUIRE(s.answers.size() == 1);
      const auto& scene = scenes[static_cast<std::size_t>(s.image)];
      const auto& kind = part->group_names[static_cast<std::size_t>(s.group)];
      INFO(kind << ": " << s.prompt << " - " << scene.text());
      CHECK(look(kind, split(s.prompt), scene) == s.answers[0]);
      CHECK(s.prompt.back() == '?');
    }
  }
}

TEST_CASE("scene questions: each is asked once of a picture, of all kinds, in several phrasings", "[text]") {
  const auto& text = questions();
  std::map<cts::index, std::set<std::string>> asked;
  std::map<std::int32_t, std::set<std::string>> first_words;
  std::map<std::int32_t, cts::index> kinds;
  for (const auto& s : text.data.train.samples) {
    CHECK(asked[s.image].insert(s.prompt).second);
    auto q = split(s.prompt);
    std::string shape;  // the question without what it is about
    for (const auto& w : q) {
      if (!is_adjective(w) && !among(cts::scene_shape_names, singular(w)) && w != "shapes" && w != "an" && w != "a") {
        shape += w + " ";
      }
    }
    first_words[s.group].insert(shape);
    ++kinds[s.group];
  }
  REQUIRE(kinds.size() == 7);
  CHECK(text.data.train.n() > 6 * text.data.train.images.n());
  for (const auto& [kind, n] : kinds) {
    INFO(text.data.train.group_names[static_cast<std::size_t>(kind)] << " " << n);
    CHECK(n > text.data.train.n() / 20);
    CHECK(first_words[kind].size() >= 4);
  }
}

TEST_CASE("scene questions: no answer goes without looking", "[text]") {
  const auto& text = questions();
  std::map<std::string, std::map<std::string, double>> answers;
  std::map<std::string, std::map<std::string, double>> by_word;  // yes and no by each word of questions of existence
  std::map<std::string, double> yes_no;
  for (const auto& s : text.data.train.samples) {
    const auto& kind = text.data.train.group_names[static_cast<std::size_t>(s.group)];
    ++answers[kind][s.answers[0]];
    if (kind == "relation" && (s.answers[0] == "yes" || s.answers[0] == "no")) ++yes_no[s.answers[0]];
    if (kind != "existence") continue;
    for (const auto& w : split(s.prompt)) {
      if (is_adjective(w) || is_noun(w)) ++by_word[w][s.answers[0]];
    }
  }
  const auto share = [](const std::map<std::string, double>& counts) {
    double sum = 0, most = 0;
    for (const auto& [answer, n] : counts) sum += n, most = std::max(most, n);
    return most / sum;
  };
  CHECK(answers["colour"].size() == 8);
  CHECK(share(answers["colour"]) < 0.25);
  CHECK(answers["shape"].size() == 12);
  CHECK(share(answers["shape"]) < 0.16);
  CHECK(answers["texture"].size() == 4);
  CHECK(share(answers["texture"]) < 0.4);
  CHECK(answers["size"].size() == 3);
  CHECK(share(answers["size"]) < 0.6);
  CHECK(answers["count"].size() == 5);
  CHECK(share(answers["count"]) < 0.45);
  CHECK(share(answers["existence"]) < 0.55);
  CHECK(share(yes_no) < 0.56);
  for (const auto& [word, counts] : by_word) {
    double sum = 0;
    for (const auto& [answer, n] : counts) sum += n;
    INFO(word << " " << sum);
    if (sum >= 60) CHECK(share(counts) < 0.72);
  }
}

TEST_CASE("scene questions: held-out pairs are new in the test", "[text]") {
  const auto& text = questions();
  CHECK(text.held_out.size() == 12);
  for (std::size_t i = 0; i < 12; ++i) {
    for (std::size_t j = 0; j < i; ++j) CHECK_FALSE(text.held_out[i] == text.held_out[j]);
  }
  for (const auto& scene : text.train) CHECK_FALSE(shows_held_out(text, scene));
  for (const auto& s : text.data.train.samples) CHECK_FALSE(names_held_out(text, split(s.prompt)));
  const auto shown =
      std::count_if(text.test.begin(), text.test.end(), [&](const auto& scene) { return shows_held_out(text, scene); });
  CHECK(shown > 50);
  CHECK(text.composed.size() > 100);
  CHECK(text.composed.size() < text.data.test.samples.size() / 2);
  for (const auto i : text.composed) {
    const auto& s = text.data.test.samples[static_cast<std::size_t>(i)];
    CHECK(
        (shows_held_out(text, text.test[static_cast<std::size_t>(s.image)]) || names_held_out(text, split(s.prompt))));
  }
  for (std::size_t i = 0; i < text.data.test.samples.size(); ++i) {
    if (names_held_out(text, split(text.data.test.samples[i].prompt))) {
      CHECK(std::binary_search(text.composed.begin(), text.composed.end(), static_cast<cts::index>(i)));
    }
  }
  // Every colour and every shape is still learnt.
  std::set<cts::scene_colour> colours;
  std::set<cts::scene_shape> shapes;
  for (const auto& scene : text.train) {
    for (const auto& o : scene.objects) colours.insert(o.colour), shapes.insert(o.shape);
  }
  CHECK(colours.size() == 8);
  CHECK(shapes.size() == 12);
  for (const cts::index n : {1, 8, 36}) {
    const auto pairs = cts::detail::held_out_pairs(n, 3);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) CHECK_FALSE(pairs[i] == pairs[j]);
      CHECK(std::count_if(pairs.begin(), pairs.end(), [&](const auto& p) { return p.shape == pairs[i].shape; }) <= 3);
    }
  }
  CHECK_THROWS_AS(cts::detail::held_out_pairs(37, 0), cts::Error);
}

TEST_CASE("scene text: legible objects are large enough for their texture, others are as before", "[text]") {
  cts::scene_options o{.classes = 12, .train_per_class = 20, .test_per_class = 0, .image = 64, .objects = 4, .seed = 4};
  const auto any = cts::scenes_with_descriptions(o).train;
  o.legible = true;
  const auto legible = cts::scenes_with_descriptions(o).train;
  int textured = 0, changed = 0;
  for (std::size_t i = 0; i < any.size(); ++i) {
    REQUIRE(any[i].objects.size() == legible[i].objects.size());
    for (std::size_t k = 0; k < any[i].objects.size(); ++k) {
      const auto &before = any[i].objects[k], &after = legible[i].objects[k];
      if (k == 0)
        CHECK((before.shape == after.shape && before.colour == after.colour && before.radius == after.radius));
      if (after.texture != cts::scene_texture::plain) {
        ++textured;
        CHECK(after.radius >= 0.13 * 64);
      }
      changed += before.texture != after.texture ? 1 : 0;
    }
  }
  CHECK(textured > 50);
  CHECK(changed > 50);
}

TEST_CASE("scene text: repeatable, different for each seed, errors", "[text]") {
  const auto make = [](std::uint64_t seed, int threads) {
    return cts::scene_questions({.scenes = {.classes = 12,
                                            .train_per_class = 4,
                                            .test_per_class = 2,
                                            .image = 64,
                                            .objects = 3,
                                            .seed = seed,
                                            .threads = threads,
                                            .legible = true}});
  };
  const auto one = make(1, 1), again = make(1, 3), two = make(2, 1);
  CHECK(one.data.train.samples == again.data.train.samples);
  CHECK(one.data.train.images.pixels == again.data.train.images.pixels);
  CHECK(one.data.test.samples == again.data.test.samples);
  CHECK_FALSE(one.data.train.samples == two.data.train.samples);
  CHECK_FALSE(one.data.train.samples == one.data.test.samples);
  CHECK_THROWS_AS(cts::scene_questions({.per_image = 0}), cts::Error);
  CHECK_THROWS_AS(cts::scene_questions({.held_out = 37}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.typical = 0.5, .without = {{}}}), cts::Error);
  CHECK_THROWS_AS(cts::scenes({.classes = 48, .legible = true}), cts::Error);
  std::vector<cts::scene_pair> all;
  for (int c = 0; c < 8; ++c) all.push_back({static_cast<cts::scene_colour>(c), cts::scene_shape::star});
  CHECK(has(message_of([&] { cts::scenes({.without = all}); }), "star"));
}

TEST_CASE("scene captions: all of them are true and name the main object", "[text]") {
  const auto& text = captions();
  text.data.train.check();
  text.data.test.check();
  const words numbers{"no", "one", "two", "three", "four"};
  int related = 0, counted = 0;
  for (const auto* part : {&text.data.train, &text.data.test}) {
    const auto& scenes = part == &text.data.train ? text.train : text.test;
    for (const auto& s : part->samples) {
      const auto& scene = scenes[static_cast<std::size_t>(s.image)];
      CHECK(s.prompt.empty());
      CHECK(s.answers.size() == 5);
      CHECK(std::set<std::string>(s.answers.begin(), s.answers.end()).size() == 5);
      CHECK(s.group == cts::group_of(scene.objects[0].shape));
      for (const auto& caption : s.answers) {
        INFO(caption << " - " << scene.text());
        const auto sentence = split(caption);
        const auto phrases = noun_phrases(sentence);
        REQUIRE(!phrases.empty());
        bool main = false;
        std::vector<std::vector<const cts::scene_object*>> meant;
        for (const auto& p : phrases) {
          REQUIRE(p.begin > 0);
          const auto& before = sentence[p.begin - 1];
          const auto found = p.all(scene);
          main = main || p.fits(scene.objects[0]);
          if (before == "a" || before == "an") {
            CHECK(!found.empty());
            CHECK((before == "an") == (among(words{"orange", "arrow", "hourglass"}, sentence[p.begin])));
            meant.push_back(found);
            continue;
          }
          const bool more = before == "more";
          const auto& word = more ? sentence[p.begin - 2] : before;
          const auto number = std::find(numbers.begin(), numbers.end(), word) - numbers.begin();
          CHECK(number < 5);
          CHECK(number + (more ? 1 : 0) == static_cast<std::ptrdiff_t>(found.size()));
          ++counted;
        }
        CHECK(main);
        // Each phrase must have an object of its own: at least as many objects as phrases fit any of them.
        std::set<const cts::scene_object*> any;
        for (const auto& m : meant) any.insert(m.begin(), m.end());
        CHECK(any.size() >= meant.size());
        if (shift(sentence, scene.objects[0], scene.objects[0]) > 1) continue;
        ++related;
        REQUIRE(meant.size() == 2);
        const bool turned = among(sentence, "with");  // "b with a above it"
        const auto &as = meant[turned ? 1 : 0], &bs = meant[turned ? 0 : 1];
        bool holds = false;
        for (const auto* a : as) {
          for (const auto* b : bs) holds = holds || shift(sentence, *a, *b) > 0.14;
        }
        CHECK(holds);
      }
    }
  }
  CHECK(related > 300);
  CHECK(counted > 300);
}

TEST_CASE("scene captions: vary in words and order; groups are even; held-out pairs are new in the test", "[text]") {
  const auto& text = captions();
  std::set<std::string> starts, all;
  std::map<std::int32_t, int> groups;
  cts::index n = 0;
  for (const auto& s : text.data.train.samples) {
    ++groups[s.group];
    for (const auto& caption : s.answers) {
      const auto sentence = split(caption);
      starts.insert(sentence[0] + " " + sentence[1]);
      all.insert(caption);
      ++n;
      CHECK_FALSE(names_held_out(text, sentence));
    }
  }
  CHECK(starts.size() > 20);
  CHECK(static_cast<double>(all.size()) > 0.75 * static_cast<double>(n));
  CHECK(groups == std::map<std::int32_t, int>{{0, 160}, {1, 160}, {2, 160}});
  for (const auto& scene : text.train) CHECK_FALSE(shows_held_out(text, scene));
  CHECK(text.composed.size() > 10);
  for (const auto i : text.composed) {
    const auto& s = text.data.test.samples[static_cast<std::size_t>(i)];
    const auto& main = text.test[static_cast<std::size_t>(s.image)].objects[0];
    CHECK(held_out(text, std::string(cts::name_of(main.colour)), std::string(cts::name_of(main.shape))));
  }
}

}  // namespace data_scene_text_tests
