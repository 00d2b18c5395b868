#pragma once
// Data sets that arrive one after another: the same classes in another domain, classes that come back, new ones.

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/data/tasks.hpp"

namespace core_tokensets {

/// A data set and what it is called.
struct named_split {
  std::string name;
  dataset_split data;
};

namespace detail {

/// The number of each class of `names` in `all`, to which new ones are added. `Error`: two of one name.
inline std::vector<std::int32_t> numbers_in(std::vector<std::string>& all, const std::vector<std::string>& names,
                                            const std::string& what) {
  std::vector<std::int32_t> numbers;
  for (std::size_t k = 0; k < names.size(); ++k) {
    require(std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(k), names[k]) ==
                names.begin() + static_cast<std::ptrdiff_t>(k),
            what, ": two classes are named '", names[k], "'");
    const auto at = std::find(all.begin(), all.end(), names[k]);
    numbers.push_back(static_cast<std::int32_t>(at - all.begin()));
    if (at == all.end()) all.push_back(names[k]);
  }
  return numbers;
}

/// Adds pictures of the same size, their classes numbered by `numbers`. What not all parts have, none has.
inline void add_pictures(dataset& to, const dataset& from, std::span<const std::int32_t> numbers, bool first,
                         const std::string& what) {
  if (first) to.height = from.height, to.width = from.width, to.channels = from.channels;
  require(to.height == from.height && to.width == from.width && to.channels == from.channels, what, ": pictures of ",
          from.height, " x ", from.width, " x ", from.channels, " after pictures of ", to.height, " x ", to.width,
          " x ", to.channels, "; expected one size");
  const auto add = [&](auto& all, const auto& more, bool all_have, bool more_have) {
    if (all_have && more_have) {
      all.insert(all.end(), more.begin(), more.end());
    } else {
      all.clear();
    }
  };
  add(to.names, from.names, first || !to.names.empty(), !from.names.empty());
  add(to.source_bytes, from.source_bytes, first || !to.source_bytes.empty(), !from.source_bytes.empty());
  add(to.masks, from.masks, first || !to.masks.empty(), !from.masks.empty());
  to.pixels.insert(to.pixels.end(), from.pixels.begin(), from.pixels.end());
  for (const std::int32_t label : from.labels) to.labels.push_back(numbers[static_cast<std::size_t>(label)]);
  to.reading += from.reading;
}

}  // namespace detail

/// A task for each part, in order. A class is the same wherever it has the same name: it may come back in a later task,
/// and where all parts have the same classes they are domains. Classes are numbered in order of appearance.
/// `Error`: no parts, two of one name, pictures of several sizes, a part without pictures to learn from or to measure
/// on, with a class without pictures to learn from, with two classes of one name or others in test than in train.
inline task_stream arriving(const std::vector<named_split>& parts) {
  require(!parts.empty(), "arriving: there are no data sets");
  auto all = std::make_shared<dataset_split>();
  task_stream stream;
  std::vector<std::string> names;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto& [name, data] = parts[p];
    const std::string what = "arriving: '" + name + "'";
    for (std::size_t q = 0; q < p; ++q) require(parts[q].name != name, what, ": two data sets have this name");
    data.train.check(what + ": train");
    data.test.check(what + ": test");
    require(data.train.n() > 0 && data.test.n() > 0, what, ": ", data.train.n(), " pictures to learn from and ",
            data.test.n(), " to measure on, expected some of both");
    require(data.train.class_names == data.test.class_names, what, ": other classes in train than in test");
    const auto numbers = detail::numbers_in(names, data.train.class_names, what);
    const index learnt = all->train.n(), measured = all->test.n();
    detail::add_pictures(all->train, data.train, numbers, p == 0, what);
    detail::add_pictures(all->test, data.test, numbers, p == 0, what);
    task next{.number = static_cast<index>(p), .of = static_cast<index>(parts.size()), .name = name, .data = all};
    for (index i = learnt; i < all->train.n(); ++i) next.train_indices.push_back(i);
    for (index i = measured; i < all->test.n(); ++i) next.test_indices.push_back(i);
    if (const auto without = classes_without_pictures(data.train); !without.empty()) {
      fail(what, ": class '", data.train.class_names[static_cast<std::size_t>(without.front())],
           "' has no pictures to learn from");
    }
    next.classes = numbers;
    std::sort(next.classes.begin(), next.classes.end());
    stream.tasks.push_back(std::move(next));
  }
  all->train.class_names = all->test.class_names = names;
  stream.split = all;
  return stream;
}

}  // namespace core_tokensets
