#include "core_tokensets/data/dataset.hpp"

#include <algorithm>
#include <set>

#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/data/tasks.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace dataset_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

/// Pictures of 1 x 2 x 1 whose pixels tell their number; class i % classes.
cts::dataset numbered(int n, int classes) {
  cts::dataset d;
  d.height = 1, d.width = 2, d.channels = 1;
  for (int k = 0; k < classes; ++k) d.class_names.push_back("class " + std::to_string(k));
  for (int i = 0; i < n; ++i) {
    d.pixels.push_back(static_cast<std::uint8_t>(i));
    d.pixels.push_back(static_cast<std::uint8_t>(255 - i));
    d.masks.push_back(static_cast<std::uint8_t>(i % 2));
    d.masks.push_back(1);
    d.labels.push_back(i % classes);
    d.names.push_back("picture " + std::to_string(i));
    d.source_bytes.push_back(static_cast<std::uint64_t>(100 + i));
  }
  return d;
}

}  // namespace

TEST_CASE("subset, classes and limits keep everything together", "[data]") {
  const auto d = numbered(20, 5);
  REQUIRE_NOTHROW(d.check());
  const std::vector<cts::index> which{7, 3, 3};
  const auto s = cts::subset(d, which);
  REQUIRE_NOTHROW(s.check());
  CHECK(s.pixels == std::vector<std::uint8_t>{7, 248, 3, 252, 3, 252});
  CHECK(s.labels == std::vector<std::int32_t>{2, 3, 3});
  CHECK(s.names[0] == "picture 7");
  CHECK(s.total_source_bytes() == 107 + 103 + 103);
  CHECK(s.mask_of(0)[0] == 1);
  CHECK(s.view_of(1).at(0, 1)[0] == 252);
  const std::vector<cts::index> bad{20};
  CHECK_THROWS_AS(cts::subset(d, bad), cts::Error);

  const auto c = cts::select_classes(d, cts::parse_class_range("1-3"));
  REQUIRE_NOTHROW(c.check());
  CHECK(c.n() == 12);
  CHECK(c.class_names == std::vector<std::string>{"class 1", "class 2", "class 3"});
  CHECK(c.labels[0] == 0);
  CHECK(c.pixels[0] == 1);
  CHECK_THROWS_AS(cts::select_classes(d, {3, 5}), cts::Error);
  CHECK(cts::parse_class_range("4").count() == 1);
  for (const char* text : {"", "-", "3-", "a-b", "5-2", "1-2x", "-1-3"}) {
    CHECK_THROWS_AS(cts::parse_class_range(text), cts::Error);
  }

  const auto a = cts::limit_per_class(d, 2, 1), b = cts::limit_per_class(d, 2, 1),
             other = cts::limit_per_class(d, 2, 2);
  CHECK(a.names == b.names);
  CHECK(a.names != other.names);
  CHECK(a.n() == 10);
  for (int k = 0; k < 5; ++k) CHECK(std::count(a.labels.begin(), a.labels.end(), k) == 2);
  CHECK(std::set<std::string>(a.names.begin(), a.names.end()).size() == 10);
  CHECK(cts::limit_per_class(d, 100, 3).names == d.names);
}

TEST_CASE("check finds arrays that do not fit", "[data]") {
  auto d = numbered(4, 2);
  d.labels[1] = 2;
  CHECK_THROWS_AS(d.check(), cts::Error);
  d.labels[1] = 1;
  d.pixels.pop_back();
  CHECK_THROWS_AS(d.check(), cts::Error);
}

TEST_CASE("normalisation: measured, broadcast, and back to pixels", "[data]") {
  cts::dataset d;
  d.height = 1, d.width = 2, d.channels = 2;
  d.class_names = {"a"};
  d.labels = {0, 0};
  d.pixels = {0, 9, 100, 9, 200, 9, 100, 9};  // channel 0: 0 100 200 100, channel 1: 9
  const auto measured = cts::measure_normalisation(d);
  CHECK(measured.mean[0] == Approx(100.0 / 255));
  CHECK(measured.stddev[0] == Approx(std::sqrt(5000.0) / 255));
  CHECK(measured.mean[1] == Approx(9.0 / 255));
  CHECK(measured.stddev[1] == Approx(1.0 / 255));
  CHECK(cts::measure_normalisation(d, 1) == cts::measure_normalisation(d, 3));

  const auto table = cts::pixel_table({}, 3);
  REQUIRE(table.size() == 3 * 256);
  CHECK(table[0] == Approx(-1));
  CHECK(table[2 * 256 + 255] == Approx(1));
  for (int x = 0; x < 256; ++x) CHECK(cts::to_pixel(table[static_cast<std::size_t>(256 + x)], 0.5f, 0.5f) == x);
  CHECK(cts::to_pixel(7.0f, 0.5f, 0.5f) == 255);
  CHECK(cts::to_pixel(std::nanf(""), 0.5f, 0.5f) == 0);
  CHECK_THROWS_AS(cts::pixel_table({{0.5f, 0.5f}, {0.5f}}, 3), cts::Error);
  CHECK_THROWS_AS(cts::pixel_table({{0.5f}, {0.0f}}, 3), cts::Error);
}

TEST_CASE("tasks are uneven and in a given order where one wants them so", "[data]") {
  const cts::dataset_split split{numbered(40, 10), numbered(20, 10)};
  const auto sizes = [&](const cts::class_incremental_options& options) {
    std::vector<std::size_t> result;
    std::int32_t next = 0;
    for (const auto& task : cts::class_incremental(split, options)) {
      CHECK(task.of == static_cast<cts::index>(cts::class_incremental(split, options).size()));
      for (const auto k : task.classes) CHECK(k == next++);
      CHECK(task.train_indices.size() == 4 * task.classes.size());
      CHECK(task.test_indices.size() == 2 * task.classes.size());
      result.push_back(task.classes.size());
    }
    CHECK(next == 10);
    return result;
  };
  using counts = std::vector<std::size_t>;
  CHECK(sizes({.first = 5, .increment = 2}) == counts{5, 2, 2, 1});
  CHECK(sizes({.increment = 4}) == counts{4, 4, 2});
  CHECK(sizes({.increment = 100}) == counts{10});
  CHECK(sizes({.tasks = 4, .first = 4}) == counts{4, 2, 2, 2});
  CHECK(sizes({.tasks = 1, .first = 10}) == counts{10});
  const auto told = [&](const cts::class_incremental_options& options) {
    return message_of([&] { cts::class_incremental(split, options); });
  };
  CHECK(has(told({.tasks = 4, .first = 5}), "5 classes do not divide into 3 other tasks"));
  CHECK(has(told({.tasks = 1, .first = 5}), "do not divide"));
  CHECK(has(told({.tasks = 3}), "10 classes do not divide into 3 tasks"));
  CHECK(has(told({.first = 11, .increment = 1}), "first task of 11 classes"));
  CHECK(has(told({.first = -1}), "first task of -1"));
  CHECK(has(told({.increment = -2}), "-2"));

  std::vector<std::string> names = split.train.class_names;
  std::reverse(names.begin(), names.end());
  const auto turned = cts::class_incremental(split, {.first = 3, .increment = 7, .order = names});
  CHECK(turned.data().train.class_names == names);
  CHECK(turned.data().test.class_names == names);
  for (const auto i : turned[0].train_indices) CHECK(split.train.labels[static_cast<std::size_t>(i)] >= 7);
  CHECK(has(told({.order = names, .shuffle = true}), "random as well"));
  auto wrong = names;
  wrong[1] = wrong[0];
  CHECK(has(told({.order = wrong}), "twice"));
  wrong[1] = "unicorn";
  CHECK(has(told({.order = wrong}), "'unicorn', which is no class"));
  names.pop_back();
  CHECK(has(told({.order = names}), "lacks the class"));
}

TEST_CASE("class-incremental tasks: a partition in order of appearance", "[data]") {
  const cts::dataset_split split{numbered(40, 10), numbered(20, 10)};
  const auto plain = cts::class_incremental(split, {.tasks = 5});
  CHECK(plain.size() == 5);
  CHECK(plain.data().train.labels == split.train.labels);
  CHECK(plain[1].classes == std::vector<std::int32_t>{2, 3});
  CHECK(plain[1].test_indices == std::vector<cts::index>{2, 3, 12, 13});
  CHECK(cts::seen_classes(plain[1]) == 4);
  CHECK(plain[1].number == 1);
  CHECK(plain[1].of == 5);
  CHECK(plain[1].train().indices == plain[1].train_indices);
  CHECK(plain[1].test().data == &plain.data().test);
  const auto both = cts::merge(std::vector<cts::task>{plain[0], plain[1]});
  CHECK(both.test_indices.size() == 8);
  CHECK(both.classes == std::vector<std::int32_t>{0, 1, 2, 3});
  const auto other = cts::class_incremental(split, {.tasks = 5});
  CHECK(has(message_of([&] { cts::merge(std::vector<cts::task>{plain[0], other[1]}); }), "different data"));
  CHECK_THROWS_AS(cts::sample_view<cts::dataset>(split.train, {40}), cts::Error);
  CHECK(cts::sample_view<cts::dataset>(split.train).n() == 40);

  const auto shuffled = cts::class_incremental(split, {.tasks = 5, .shuffle = true, .seed = 4});
  CHECK(shuffled.data().train.labels != split.train.labels);
  std::set<cts::index> all;
  for (const auto& task : shuffled) {
    for (const auto i : task.train_indices) {
      all.insert(i);
      const auto label = shuffled.data().train.labels[static_cast<std::size_t>(i)];
      CHECK(std::count(task.classes.begin(), task.classes.end(), label) == 1);
      // The name moved with the number.
      CHECK(shuffled.data().train.class_names[static_cast<std::size_t>(label)] ==
            split.train.class_names[static_cast<std::size_t>(split.train.labels[static_cast<std::size_t>(i)])]);
    }
  }
  CHECK(all.size() == 40);
  CHECK(shuffled.data().train.class_names == shuffled.data().test.class_names);
  CHECK(cts::class_incremental(split, {.tasks = 5, .shuffle = true, .seed = 4}).data().test.labels ==
        shuffled.data().test.labels);
  CHECK(cts::class_incremental(split, {.tasks = 5, .shuffle = true, .seed = 5}).data().test.labels !=
        shuffled.data().test.labels);

  CHECK_THROWS_AS(cts::class_incremental(split, {.tasks = 3}), cts::Error);
  CHECK_THROWS_AS(cts::class_incremental(split, {.tasks = 20}), cts::Error);
  CHECK_THROWS_AS(cts::class_incremental(split, {.tasks = 0}), cts::Error);
  auto missing = split;
  std::replace(missing.train.labels.begin(), missing.train.labels.end(), 3, 4);
  CHECK(has(message_of([&] { cts::class_incremental(missing, {.tasks = 5}); }), "class 3"));
  missing = split;
  std::replace(missing.test.labels.begin(), missing.test.labels.end(), 3, 4);
  CHECK_NOTHROW(cts::class_incremental(missing, {.tasks = 5}));
  std::replace(missing.test.labels.begin(), missing.test.labels.end(), 2, 4);
  CHECK(has(message_of([&] { cts::class_incremental(missing, {.tasks = 5}); }), "no test pictures for task 2"));
}

}  // namespace dataset_tests
