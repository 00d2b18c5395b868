#pragma once
// Questions or captions cut into tasks that arrive one after another: data set after data set, or group after group.

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/data/text/visual_text.hpp"

namespace core_tokensets {

/// One task of questions or captions.
using text_task = basic_task<visual_text>;
/// Tasks of questions or captions in order.
using text_stream = basic_stream<visual_text>;

/// `Error` unless the data are whole, and every task has samples of them to learn from and to measure on.
inline void check(const text_stream& stream) {
  stream.data().train.check("text_stream: train");
  stream.data().test.check("text_stream: test");
  require(!stream.tasks.empty(), "text_stream: there are no tasks");
  for (const text_task& t : stream.tasks) {
    require(!t.train_indices.empty() && !t.test_indices.empty(), "text_stream: task '", t.name, "' has ",
            t.train_indices.size(), " samples to learn from and ", t.test_indices.size(), " to measure on");
    const auto known = [&](const std::vector<index>& samples, const visual_text& data) {
      for (const index i : samples)
        require(i >= 0 && i < data.n(), "text_stream: task '", t.name, "' names sample ", i, " of ", data.n());
    };
    known(t.train_indices, stream.data().train);
    known(t.test_indices, stream.data().test);
  }
}

/// A number by which data and their tasks are told from others.
inline std::uint64_t checksum(const text_stream& stream) {
  std::uint64_t sum = checksum(stream.data());
  for (const text_task& t : stream.tasks) {
    sum = fnv1a(t.name, sum);
    for (const auto* part : {&t.train_indices, &t.test_indices}) sum = fnv1a(std::as_bytes(std::span(*part)), sum);
  }
  return sum;
}

namespace detail {

/// Groups of the same name get the same number in both parts.
inline void share_groups(visual_text_split& data) {
  data.train.check("text_stream: train");
  data.test.check("text_stream: test");
  std::vector<std::string> names = data.train.group_names;
  const auto numbers = merge_names(data.test.group_names, names);
  for (auto& sample : data.test.samples) sample.group = numbers[static_cast<std::size_t>(sample.group)];
  data.train.group_names = data.test.group_names = names;
}

}  // namespace detail

namespace detail {

/// Gives the tasks of a stream their data, and checks all of it.
inline text_stream with_data(text_stream stream, visual_text_split data) {
  stream.split = std::make_shared<const visual_text_split>(std::move(data));
  for (text_task& t : stream.tasks) t.data = stream.split;
  check(stream);
  return stream;
}

}  // namespace detail

/// Named sets as tasks, in that order. `Error`: pictures of different sizes, a set without samples.
inline text_stream sets_as_tasks(std::vector<std::pair<std::string, visual_text_split>> sets) {
  text_stream stream;
  std::vector<visual_text> train, test;
  for (auto& [name, split] : sets) {
    text_task next{.number = stream.size(), .of = static_cast<index>(sets.size()), .name = name};
    const auto number = [](std::vector<index>& out, const std::vector<visual_text>& before, index n) {
      index first = 0;
      for (const auto& set : before) first += set.n();
      out.resize(static_cast<std::size_t>(n));
      std::iota(out.begin(), out.end(), first);
    };
    number(next.train_indices, train, split.train.n());
    number(next.test_indices, test, split.test.n());
    stream.tasks.push_back(std::move(next));
    train.push_back(std::move(split.train));
    test.push_back(std::move(split.test));
  }
  require(!train.empty(), "text_stream: there are no tasks");
  visual_text_split data{join(train), join(test)};
  detail::share_groups(data);
  return detail::with_data(std::move(stream), std::move(data));
}

/// The groups of one set, in their order, dealt evenly to so many tasks; 0, or more than there are groups: a task for
/// each. `Error`: a task without samples to learn from or to measure on.
inline text_stream groups_as_tasks(visual_text_split data, index tasks = 0) {
  require(tasks >= 0, "text_stream: ", tasks, " tasks");
  detail::share_groups(data);
  text_stream stream;
  const auto& names = data.train.group_names;
  const std::size_t groups = names.size(),
                    count = tasks == 0 ? groups : std::min(static_cast<std::size_t>(tasks), groups);
  const auto task_of = [&](std::size_t group) -> text_task& { return stream.tasks[group * count / groups]; };
  stream.tasks.resize(count);
  for (std::size_t t = 0; t < count; ++t) {
    stream.tasks[t].number = static_cast<index>(t);
    stream.tasks[t].of = static_cast<index>(count);
  }
  for (std::size_t g = 0; g < groups; ++g) {
    std::string& name = task_of(g).name;
    name += (name.empty() ? "" : ", ") + names[g];
  }
  const auto deal = [&](const visual_text& from, std::vector<index> text_task::*part) {
    for (index i = 0; i < from.n(); ++i) (task_of(static_cast<std::size_t>(from.sample(i).group)).*part).push_back(i);
  };
  deal(data.train, &text_task::train_indices);
  deal(data.test, &text_task::test_indices);
  return detail::with_data(std::move(stream), std::move(data));
}

/// All texts of the samples to learn from, for training a tokenizer.
inline std::vector<std::string> corpus_of(const visual_text& data) {
  std::vector<std::string> corpus;
  for (const auto& sample : data.samples) {
    if (!sample.prompt.empty()) corpus.push_back(sample.prompt);
    corpus.insert(corpus.end(), sample.answers.begin(), sample.answers.end());
  }
  return corpus;
}

}  // namespace core_tokensets
