#pragma once
// A dataset cut into tasks that arrive one after another, each with classes of its own.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/dataset.hpp"

namespace core_tokensets {

/// One task of classes. The classes of a stream are numbered in order of appearance.
using task = basic_task<dataset>;
/// Tasks of classes in order.
using task_stream = basic_stream<dataset>;

/// One more than the largest class of a task: of tasks with classes of their own, how many were seen with it.
inline index seen_classes(const task& t) {
  require(!t.classes.empty(), "task '", t.name, "': it has no classes");
  return *std::max_element(t.classes.begin(), t.classes.end()) + 1;
}

/// The names of classes 0 .. n-1 of the data of a task; none where the data have none.
inline std::vector<std::string> class_names_of(const task& t, index n) {
  const auto& names = t.data->train.class_names;
  if (static_cast<index>(names.size()) < n) return {};
  return {names.begin(), names.begin() + n};
}

/// The names of the classes that there are test pictures of, but none in this task: of one domain, not of others.
inline std::vector<std::string> classes_not_measured_in(const task& t) {
  const dataset& test = t.data->test;
  std::vector<std::string> names;
  for (const std::int32_t k : t.classes) {
    const bool here = std::any_of(t.test_indices.begin(), t.test_indices.end(),
                                  [&](index i) { return test.labels[static_cast<std::size_t>(i)] == k; });
    const bool anywhere = std::find(test.labels.begin(), test.labels.end(), k) != test.labels.end();
    if (!here && anywhere) names.push_back(test.class_names[static_cast<std::size_t>(k)]);
  }
  return names;
}

/// A whole data set as one task, to be learnt by itself: all of its classes are new.
inline task whole_task(dataset_split split, std::string name = "task") {
  split.train.check("task: train");
  split.test.check("task: test");
  task all{.of = 1, .name = std::move(name), .data = std::make_shared<const dataset_split>(std::move(split))};
  all.train_indices = sample_view<dataset>(all.data->train).indices;
  all.test_indices = sample_view<dataset>(all.data->test).indices;
  for (index k = 0; k < all.data->train.classes(); ++k) all.classes.push_back(static_cast<std::int32_t>(k));
  return all;
}
/// The same with nothing to measure on.
inline task whole_task(dataset data, std::string name = "task") {
  dataset none;
  none.height = data.height, none.width = data.width, none.channels = data.channels;
  none.class_names = data.class_names;
  return whole_task(dataset_split{std::move(data), std::move(none)}, std::move(name));
}

/// A number by which data and their tasks are told from others.
inline std::uint64_t checksum(const task_stream& stream) {
  std::uint64_t sum = checksum(stream.data());
  for (const task& t : stream.tasks) {
    sum = fnv1a(std::as_bytes(std::span(t.classes)), fnv1a(t.name, sum));
    for (const auto* part : {&t.train_indices, &t.test_indices}) sum = fnv1a(std::as_bytes(std::span(*part)), sum);
  }
  return sum;
}

/// How classes become tasks: `tasks` of equal size, or a first one of `first` classes and others of `increment`.
struct class_incremental_options {
  index tasks = 5;      ///< how many; with `increment` that follows from the classes
  index first = 0;      ///< classes of the first task; 0: as many as each of the others
  index increment = 0;  ///< classes of each other task, the last may have fewer; 0: as many as `tasks` leave
  std::vector<std::string> order = {};  ///< names of all classes as they arrive; empty: in the order of the data
  bool shuffle = false;                 ///< deal the classes out in a random order
  std::uint64_t seed = 0;               ///< of that order
};

/// Gives class k of the data the number `number[k]`; names move along.
inline void renumber_classes(dataset& data, std::span<const std::int32_t> number) {
  require(static_cast<index>(number.size()) == data.classes(), "renumber_classes: ", number.size(), " numbers for ",
          data.classes(), " classes");
  std::vector<std::string> names(data.class_names.size());
  for (std::size_t k = 0; k < number.size(); ++k) names[static_cast<std::size_t>(number[k])] = data.class_names[k];
  for (auto& label : data.labels) label = number[static_cast<std::size_t>(label)];
  data.class_names = std::move(names);
}

namespace detail {

/// How many classes each task has.
inline std::vector<index> task_sizes(index classes, const class_incremental_options& o) {
  require(o.first >= 0 && o.first <= classes && o.increment >= 0, "class_incremental: a first task of ", o.first,
          " classes and others of ", o.increment, ", of ", classes, " classes");
  std::vector<index> sizes;
  if (o.increment > 0) {
    for (index left = classes; left > 0; left -= sizes.back()) {
      sizes.push_back(std::min(left, sizes.empty() && o.first > 0 ? o.first : o.increment));
    }
    return sizes;
  }
  const index others = o.first > 0 ? o.tasks - 1 : o.tasks, left = classes - o.first;
  require(o.tasks > 0 && o.tasks <= classes && (others == 0 ? left == 0 : left % others == 0 && left >= others),
          "class_incremental: ", left, " classes do not divide into ", others, o.first > 0 ? " other" : "", " tasks",
          "; an increment of classes may leave a smaller last task");
  if (o.first > 0) sizes.push_back(o.first);
  sizes.insert(sizes.end(), static_cast<std::size_t>(others), others > 0 ? left / others : 0);
  return sizes;
}

/// The number that each class of the data gets, by the order in which classes arrive.
inline std::vector<std::int32_t> class_numbers(const dataset& data, const class_incremental_options& o) {
  const index classes = data.classes();
  std::vector<std::int32_t> number(static_cast<std::size_t>(classes), -1);
  if (o.order.empty()) {
    const auto order = random_stream(o.seed).permutation(classes);
    for (std::size_t i = 0; i < order.size(); ++i) {
      number[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    }
    return number;
  }
  require(!o.shuffle, "class_incremental: the order of the classes is given, and is to be random as well");
  for (std::size_t i = 0; i < o.order.size(); ++i) {
    const auto at = std::find(data.class_names.begin(), data.class_names.end(), o.order[i]);
    require(at != data.class_names.end(), "class_incremental: the order names '", o.order[i],
            "', which is no class of the data");
    auto& its = number[static_cast<std::size_t>(at - data.class_names.begin())];
    require(its < 0, "class_incremental: the order names '", o.order[i], "' twice");
    its = static_cast<std::int32_t>(i);
  }
  for (std::size_t k = 0; k < number.size(); ++k) {
    require(number[k] >= 0, "class_incremental: the order lacks the class '", data.class_names[k], "'");
  }
  return number;
}

}  // namespace detail

/// Cuts the classes into tasks, in their order, a given or a random one, and renumbers them in order of appearance.
/// `Error`: classes that do not divide into tasks, an order that is none of all classes, a class without pictures to
/// learn from, a task without any to measure on.
inline task_stream class_incremental(dataset_split split, const class_incremental_options& options = {}) {
  const index classes = split.train.classes();
  require(classes == split.test.classes(), "class_incremental: ", classes, " classes in train, ", split.test.classes(),
          " in test");
  const std::vector<index> sizes = detail::task_sizes(classes, options);
  split.train.check("class_incremental: train");
  split.test.check("class_incremental: test");
  if (options.shuffle || !options.order.empty()) {
    const auto number = detail::class_numbers(split.train, options);
    renumber_classes(split.train, number);
    renumber_classes(split.test, number);
  }
  task_stream stream{std::make_shared<const dataset_split>(std::move(split)), {}};
  const dataset_split& data = stream.data();
  const auto tasks = static_cast<index>(sizes.size());
  std::vector<std::size_t> task_of_class;
  for (index t = 0; t < tasks; ++t) {
    task next{.number = t, .of = tasks, .name = "task " + std::to_string(t + 1), .data = stream.split};
    for (index k = 0; k < sizes[static_cast<std::size_t>(t)]; ++k) {
      next.classes.push_back(static_cast<std::int32_t>(task_of_class.size()));
      task_of_class.push_back(static_cast<std::size_t>(t));
    }
    stream.tasks.push_back(std::move(next));
  }
  std::vector<index> counts(static_cast<std::size_t>(classes), 0);
  const auto task_of = [&](const dataset& from, index i) -> task& {
    return stream.tasks[task_of_class[static_cast<std::size_t>(from.label(i))]];
  };
  for (index i = 0; i < data.train.n(); ++i) {
    task_of(data.train, i).train_indices.push_back(i);
    ++counts[static_cast<std::size_t>(data.train.label(i))];
  }
  for (index i = 0; i < data.test.n(); ++i) task_of(data.test, i).test_indices.push_back(i);
  for (std::size_t k = 0; k < counts.size(); ++k) {
    require(counts[k] > 0, "class_incremental: class '", data.train.class_names[k], "' has no train pictures");
  }
  for (const task& t : stream.tasks) {
    require(!t.test_indices.empty(), "class_incremental: no test pictures for ", t.name, ", whose classes begin with '",
            data.test.class_names[static_cast<std::size_t>(t.classes.front())], "'");
  }
  return stream;
}

}  // namespace core_tokensets
