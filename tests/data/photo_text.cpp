// Questions and captions of labelled photos: place and size agree with the boxes, names with the labels, and no answer
// goes without looking.

#include <algorithm>
#include <map>
#include <set>

#include "core_tokensets/data/readers/boxes.hpp"
#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/photo_questions.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_photo_text_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

/// Pictures of 50 x 50 with a box each.
cts::dataset boxed(const std::vector<cts::pixel_box>& boxes, const std::vector<std::string>& classes) {
  cts::dataset data;
  data.height = data.width = 50, data.channels = 1;
  data.class_names = classes;
  for (std::size_t i = 0; i < boxes.size(); ++i) data.labels.push_back(static_cast<std::int32_t>(i % classes.size()));
  data.pixels.assign(boxes.size() * 2500, 0);
  data.masks.assign(boxes.size() * 2500, 0);
  for (std::size_t i = 0; i < boxes.size(); ++i) cts::mark_box(boxes[i], 50, 50, 50, 50, data.masks.data() + i * 2500);
  return data;
}

/// Boxes of any place and size, more of them in the middle.
cts::dataset many(cts::index n) {
  cts::random_stream random(8);
  std::vector<cts::pixel_box> boxes;
  for (cts::index i = 0; i < n; ++i) {
    const bool middle = random.uniform() < 0.5;
    const cts::index h = 4 + random.below(45), w = 4 + random.below(45);
    const cts::index y = middle ? (50 - h) / 2 : random.below(51 - h), x = middle ? (50 - w) / 2 : random.below(51 - w);
    boxes.push_back({x, y, x + w - 1, y + h - 1});
  }
  return boxed(boxes, {"ox", "Labrador retriever", "sunglasses, dark glasses, shades", "umbrella", "Egyptian cat"});
}

std::string place_of(const cts::pixel_box& box) {
  const auto facts = cts::detail::look_at_box(boxed({box}, {"ox"}), 0);
  return facts.place ? std::string(cts::photo_places[*facts.place]) : "?";
}

std::string size_of(const cts::pixel_box& box) {
  const auto facts = cts::detail::look_at_box(boxed({box}, {"ox"}), 0);
  return facts.size ? std::string(cts::photo_sizes[*facts.size]) : "?";
}

}  // namespace

TEST_CASE("photo text: names, articles and plurals", "[text]") {
  CHECK(cts::photo_name("European fire salamander, Salamandra salamandra") == "european fire salamander");
  CHECK(cts::photo_name("ox") == "ox");
  CHECK(cts::detail::some("goldfish") == "a goldfish");
  CHECK(cts::detail::some("umbrella") == "an umbrella");
  CHECK(cts::detail::some("european fire salamander") == "a european fire salamander");
  CHECK(cts::detail::some("umbrella", "small") == "a small umbrella");
  CHECK(cts::detail::some("sunglasses") == "sunglasses");
  CHECK(cts::detail::some("swimming trunks", "large") == "large swimming trunks");
  CHECK(cts::detail::some("brass") == "a brass");
}

TEST_CASE("photo text: places by the centre of the box, sizes by its share, nothing in between", "[text]") {
  CHECK(place_of({20, 20, 29, 29}) == "middle");
  CHECK(place_of({0, 20, 9, 29}) == "left");
  CHECK(place_of({40, 20, 49, 29}) == "right");
  CHECK(place_of({20, 0, 29, 9}) == "top");
  CHECK(place_of({20, 40, 29, 49}) == "bottom");
  CHECK(place_of({0, 0, 9, 9}) == "?");      // top left
  CHECK(place_of({15, 20, 24, 29}) == "?");  // a tenth of the width from the middle
  CHECK(place_of({14, 20, 23, 29}) == "left");
  CHECK(size_of({0, 0, 49, 9}) == "small");    // 20 %
  CHECK(size_of({0, 0, 49, 11}) == "?");       // 24 %
  CHECK(size_of({0, 0, 49, 19}) == "medium");  // 40 %
  CHECK(size_of({0, 0, 49, 25}) == "?");       // 52 %
  CHECK(size_of({0, 0, 49, 29}) == "large");   // 60 %
  auto without = boxed({{0, 0, 9, 9}}, {"ox"});
  without.masks.clear();
  CHECK(!cts::detail::look_at_box(without, 0).place);
  without.masks.assign(2500, 0);
  CHECK(!cts::detail::look_at_box(without, 0).size);
}

TEST_CASE("photo questions: answers agree with labels and boxes, in even shares", "[text]") {
  const auto data = many(2000);
  const auto text = cts::photo_questions(data, {.seed = 3});
  text.check();
  std::map<std::string, std::map<std::string, int>> answers;
  std::map<std::string, std::map<std::string, int>> by_name;
  std::map<std::string, std::set<std::string>> prompts;
  for (const auto& s : text.samples) {
    INFO(s.prompt);
    const auto& name =
        cts::photo_name(data.class_names[static_cast<std::size_t>(data.labels[static_cast<std::size_t>(s.image)])]);
    const auto& kind = text.group_names[static_cast<std::size_t>(s.group)];
    const auto facts = cts::detail::look_at_box(data, s.image);
    REQUIRE(s.answers.size() == 1);
    ++answers[kind][s.answers[0]];
    prompts[kind].insert(s.prompt);
    if (kind == "name") CHECK(s.answers[0] == name);
    if (kind == "place") CHECK((facts.place && s.answers[0] == cts::photo_places[*facts.place]));
    if (kind == "size") CHECK((facts.size && s.answers[0] == cts::photo_sizes[*facts.size]));
    if (kind == "place" || kind == "size") {
      CHECK(has(s.prompt, (name == "sunglasses" ? "are the " : "is the ") + name));
    }
    if (kind == "existence") {
      CHECK(has(s.prompt, name) == (s.answers[0] == "yes"));
      for (const char* n : {"an ox", "a labrador retriever", " sunglasses", "an umbrella", "an egyptian cat"}) {
        if (has(s.prompt, n)) ++by_name[n][s.answers[0]];
      }
    }
  }
  const auto largest = [](const std::map<std::string, int>& counts) {
    int sum = 0, most = 0;
    for (const auto& [answer, n] : counts) sum += n, most = std::max(most, n);
    return static_cast<double>(most) / sum;
  };
  CHECK(answers["name"].size() == 5);
  CHECK(answers["place"].size() == 5);
  CHECK(largest(answers["place"]) < 0.3);
  CHECK(answers["size"].size() == 3);
  CHECK(largest(answers["size"]) < 0.5);
  CHECK(largest(answers["existence"]) < 0.55);
  CHECK(by_name.size() == 5);
  for (const auto& [name, counts] : by_name) CHECK(largest(counts) < 0.58);
  CHECK(prompts["name"].size() == 4);
  CHECK(prompts["existence"].size() == 20);

  const auto all = cts::photo_questions(data, {.balance = false, .seed = 3});
  CHECK(all.n() > text.n());
  CHECK(cts::photo_questions(data, {.seed = 3}).samples == text.samples);
  CHECK_FALSE(cts::photo_questions(data, {.seed = 4}).samples == text.samples);
  CHECK(cts::photo_questions(data, {.per_image = 1, .balance = false}).n() == 2000);
  CHECK_THROWS_AS(cts::photo_questions(data, {.per_image = 0}), cts::Error);
  CHECK_THROWS_AS(cts::photo_questions(cts::dataset()), cts::Error);
  auto nameless = data;
  nameless.class_names[1] = ", nothing";
  CHECK(has(message_of([&] { cts::photo_questions(nameless); }), "nothing"));
}

TEST_CASE("photo questions: one class only is never absent", "[text]") {
  const auto text = cts::photo_questions(boxed({{0, 0, 9, 9}, {0, 0, 9, 9}, {0, 0, 9, 9}, {0, 0, 9, 9}}, {"ox"}));
  text.check();
  for (const auto& s : text.samples) CHECK(s.answers[0] != "no");
}

TEST_CASE("photo captions: say what the box shows, in several ways", "[text]") {
  const auto data = many(300);
  const auto text = cts::photo_captions(data, {.per_image = 5});
  text.check();
  REQUIRE(text.n() == 300);
  CHECK(text.group_names[2] == "sunglasses");
  int placed = 0, sized = 0;
  for (const auto& s : text.samples) {
    CHECK(s.group == data.labels[static_cast<std::size_t>(s.image)]);
    CHECK(s.answers.size() == 5);
    CHECK(std::set<std::string>(s.answers.begin(), s.answers.end()).size() == 5);
    const auto facts = cts::detail::look_at_box(data, s.image);
    for (const auto& caption : s.answers) {
      INFO(caption);
      CHECK(has(caption, text.group_names[static_cast<std::size_t>(s.group)]));
      for (std::size_t p = 0; p < 5; ++p) {
        if (!has(caption, " the " + std::string(cts::photo_places[p]) + " ")) continue;
        CHECK(facts.place == p);
        ++placed;
      }
      for (std::size_t z = 0; z < 3; ++z) {
        if (!has(caption, std::string(cts::photo_sizes[z]) + " ")) continue;
        CHECK(facts.size == z);
        ++sized;
      }
    }
  }
  CHECK(placed > 200);
  CHECK(sized > 200);
  CHECK_THROWS_AS(cts::photo_captions(data, {.per_image = 0}), cts::Error);
}

}  // namespace data_photo_text_tests
