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

/// One task: its classes, numbered in order of appearance over the whole stream, and its pictures by index.
struct task {
  std::string name;
  std::vector<std::int32_t> classes;
  std::vector<index> train, test;  ///< indices into the stream's train and test pictures
};

/// Tasks in order and the pictures that they index. The classes seen up to task t are 0 .. seen_classes(t) - 1.
struct task_stream {
  dataset_split data;
  std::vector<task> tasks;

  index size() const { return static_cast<index>(tasks.size()); }
  const task& operator[](index t) const { return tasks[static_cast<std::size_t>(t)]; }
  auto begin() const { return tasks.begin(); }
  auto end() const { return tasks.end(); }
  index classes() const { return data.train.classes(); }
  index seen_classes(index t) const { return (*this)[t].classes.back() + 1; }
  /// Test pictures of the tasks 0 .. t.
  std::vector<index> seen_test(index t) const {
    std::vector<index> all;
    for (index i = 0; i <= t; ++i) all.insert(all.end(), (*this)[i].test.begin(), (*this)[i].test.end());
    return all;
  }
};

/// A number by which data and their tasks are told from others.
inline std::uint64_t checksum(const task_stream& stream) {
  std::uint64_t sum = checksum(stream.data);
  for (const task& t : stream.tasks) {
    sum = fnv1a(std::as_bytes(std::span(t.classes)), fnv1a(t.name, sum));
    for (const auto* part : {&t.train, &t.test}) sum = fnv1a(std::as_bytes(std::span(*part)), sum);
  }
  return sum;
}

struct class_incremental_options {
  index tasks = 5;
  bool shuffle = false;    ///< deal the classes out in a random order
  std::uint64_t seed = 0;  ///< of that order
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

/// Cuts the classes into tasks of equal size, in their order or shuffled, and renumbers them in order of appearance.
/// `Error`: classes that do not divide into tasks, a class without pictures to learn from, a task without any to
/// measure on.
inline task_stream class_incremental(dataset_split split, const class_incremental_options& options = {}) {
  const index classes = split.train.classes();
  require(classes == split.test.classes(), "class_incremental: ", classes, " classes in train, ", split.test.classes(),
          " in test");
  require(options.tasks > 0 && options.tasks <= classes && classes % options.tasks == 0, "class_incremental: ", classes,
          " classes do not divide into ", options.tasks, " tasks");
  split.train.check("class_incremental: train");
  split.test.check("class_incremental: test");
  if (options.shuffle) {
    const auto order = random_stream(options.seed).permutation(classes);
    std::vector<std::int32_t> number(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      number[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    }
    renumber_classes(split.train, number);
    renumber_classes(split.test, number);
  }
  task_stream stream{std::move(split), {}};
  const index each = classes / options.tasks;
  for (index t = 0; t < options.tasks; ++t) {
    task next;
    next.name = "task " + std::to_string(t + 1);
    for (index k = t * each; k < (t + 1) * each; ++k) next.classes.push_back(static_cast<std::int32_t>(k));
    stream.tasks.push_back(std::move(next));
  }
  std::vector<index> counts(static_cast<std::size_t>(classes), 0);
  for (index i = 0; i < stream.data.train.n(); ++i) {
    const auto label = static_cast<std::size_t>(stream.data.train.labels[static_cast<std::size_t>(i)]);
    stream.tasks[label / static_cast<std::size_t>(each)].train.push_back(i);
    ++counts[label];
  }
  for (index i = 0; i < stream.data.test.n(); ++i) {
    const auto label = static_cast<std::size_t>(stream.data.test.labels[static_cast<std::size_t>(i)]);
    stream.tasks[label / static_cast<std::size_t>(each)].test.push_back(i);
  }
  for (std::size_t k = 0; k < counts.size(); ++k) {
    require(counts[k] > 0, "class_incremental: class '", stream.data.train.class_names[k], "' has no train pictures");
  }
  for (const task& t : stream.tasks) {
    require(!t.test.empty(), "class_incremental: no test pictures for ", t.name, ", whose classes begin with '",
            stream.data.test.class_names[static_cast<std::size_t>(t.classes.front())], "'");
  }
  return stream;
}

}  // namespace core_tokensets
