// Data sets that arrive one after another, with classes that come back.

#include "core_tokensets/data/arriving.hpp"

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace data_arriving_tests {

namespace cts = core_tokensets;

/// Pictures of 1 x 1 whose grey says the place in `classes` and the part.
cts::dataset pictures(const std::vector<std::string>& classes, int part, cts::index each) {
  cts::dataset d;
  d.height = d.width = d.channels = 1;
  d.class_names = classes;
  for (std::size_t k = 0; k < classes.size(); ++k) {
    for (cts::index i = 0; i < each; ++i) {
      d.labels.push_back(static_cast<std::int32_t>(k));
      d.pixels.push_back(static_cast<std::uint8_t>(100 * part + static_cast<int>(k)));
      d.source_bytes.push_back(7);
    }
  }
  return d;
}
cts::named_split part(const std::string& name, const std::vector<std::string>& classes, int number) {
  return {name, {pictures(classes, number, 3), pictures(classes, number, 1)}};
}

TEST_CASE("classes of data sets that arrive are the same where they have the same name", "[tasks]") {
  const auto stream = cts::arriving(
      {part("photos", {"cat", "dog"}, 0), part("sketches", {"dog", "cat"}, 1), part("more", {"owl", "dog"}, 2)});
  REQUIRE(stream.size() == 3);
  CHECK(stream.data().train.class_names == std::vector<std::string>{"cat", "dog", "owl"});
  CHECK(stream.data().test.class_names == stream.data().train.class_names);
  stream.data().train.check();
  stream.data().test.check();
  CHECK(stream[1].name == "sketches");
  CHECK(stream[1].of == 3);
  CHECK(stream[1].classes == std::vector<std::int32_t>{0, 1});
  CHECK(stream[2].classes == std::vector<std::int32_t>{1, 2});
  CHECK(cts::seen_classes(stream[1]) == 2);
  const auto& train = stream.data().train;
  CHECK(train.n() == 18);
  CHECK(train.total_source_bytes() == 18 * 7);
  for (const auto& task : stream) {
    CHECK(task.train_indices.size() == 6);
    CHECK(task.test_indices.size() == 2);
    for (const auto i : task.train_indices) CHECK(train.view_of(i).pixels[0] / 100 == task.number);
  }
  // The first picture of the sketches is a dog, which was the second class of the photos.
  CHECK(train.label(stream[1].train_indices.front()) == 1);
  CHECK(train.label(stream[2].train_indices.front()) == 2);
  CHECK(stream.data().test.label(stream[1].test_indices.back()) == 0);
}

TEST_CASE("what only some of the data sets know is not known of all", "[tasks]") {
  auto sized = part("a", {"cat"}, 0), plain = part("b", {"cat"}, 1);
  plain.data.train.source_bytes.clear();
  CHECK(cts::arriving({sized, plain}).data().train.source_bytes.empty());
  CHECK(cts::arriving({plain, sized}).data().train.source_bytes.empty());
  CHECK(cts::arriving({sized, plain}).data().test.source_bytes.size() == 2);
  CHECK_NOTHROW(cts::arriving({plain, sized, part("c", {"cat"}, 2)}).data().train.check());
}

TEST_CASE("data sets that cannot be one stream are refused by name", "[tasks]") {
  const auto says = [](const std::vector<cts::named_split>& parts) {
    return support::message_of([&] { cts::arriving(parts); });
  };
  CHECK(support::has(says({}), "no data sets"));
  CHECK(support::has(says({part("a", {"cat"}, 0), part("a", {"dog"}, 0)}), "'a': two data sets have this name"));
  auto wide = part("wide", {"cat"}, 0);
  for (auto* d : {&wide.data.train, &wide.data.test}) d->width = 2, d->pixels.resize(2 * d->pixels.size());
  CHECK(support::has(says({part("a", {"cat"}, 0), wide}), "'wide'"));
  CHECK(support::has(says({part("a", {"cat"}, 0), wide}), "1 x 2 x 1 after pictures of 1 x 1 x 1"));
  CHECK(support::has(says({part("a", {"cat", "cat"}, 0)}), "two classes are named 'cat'"));
  auto other = part("a", {"cat"}, 0);
  other.data.test.class_names = {"dog"};
  CHECK(support::has(says({other}), "other classes"));
  auto empty = part("empty", {"cat"}, 0);
  empty.data.test = pictures({"cat"}, 0, 0);
  CHECK(support::has(says({empty}), "3 pictures to learn from and 0 to measure on"));
  auto missing = part("m", {"cat", "dog"}, 0);
  for (auto& label : missing.data.train.labels) label = 0;
  CHECK(support::has(says({missing}), "'dog' has no pictures to learn from"));
}

}  // namespace data_arriving_tests
