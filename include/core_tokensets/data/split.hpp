#pragma once
// Data to learn from and to measure on, views of some of their samples, and tasks: what classes and texts share.

#include <concepts>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Samples that are counted from 0: labelled pictures, or pictures with texts.
template <class D>
concept sample_set = requires(const D& data) {
  { data.n() } -> std::same_as<index>;
};

/// Samples to learn from and samples to measure on, with the same classes or groups.
template <sample_set Data>
struct data_split {
  Data train, test;
};

/// Some samples of a data set, by number. The data belong to someone else.
template <sample_set Data>
struct sample_view {
  const Data* data = nullptr;
  std::vector<index> indices;

  /// All samples.
  sample_view(const Data& all) : data(&all), indices(static_cast<std::size_t>(all.n())) {
    std::iota(indices.begin(), indices.end(), index{0});
  }
  /// The samples `some`. `Error`: a number that is none of a sample.
  sample_view(const Data& all, std::vector<index> some) : data(&all), indices(std::move(some)) {
    for (const index i : indices) require(i >= 0 && i < all.n(), "samples: number ", i, " of ", all.n());
  }

  index n() const { return static_cast<index>(indices.size()); }
  bool empty() const { return indices.empty(); }
  /// The samples `begin` .. `end` of this view.
  sample_view part(index begin, index end) const {
    sample_view some = *this;
    some.indices.assign(indices.begin() + begin, indices.begin() + end);
    return some;
  }
};

/// One task of a stream: its number, its name, what is new in it, and its samples by number. Copies share the data.
template <sample_set Data>
struct basic_task {
  index number = 0;  ///< in the order of the stream, from 0
  index of = 0;      ///< tasks that there will be; 0: nobody knows
  std::string name = {};
  std::vector<std::int32_t> classes = {};  ///< its classes as the data number them; of texts none
  std::shared_ptr<const data_split<Data>> data = {};
  std::vector<index> train_indices = {}, test_indices = {};

  sample_view<Data> train() const { return {data->train, train_indices}; }
  sample_view<Data> test() const { return {data->test, test_indices}; }
};

/// Tasks in order; a range of them.
template <sample_set Data>
struct basic_stream {
  std::shared_ptr<const data_split<Data>> split;
  std::vector<basic_task<Data>> tasks;

  index size() const { return static_cast<index>(tasks.size()); }
  const basic_task<Data>& operator[](index t) const { return tasks[static_cast<std::size_t>(t)]; }
  auto begin() const { return tasks.begin(); }
  auto end() const { return tasks.end(); }
  const data_split<Data>& data() const { return *split; }
};

/// Tasks `0 .. last` as one, for training on all of them together. `Error`: tasks of different data.
template <sample_set Data>
basic_task<Data> merge(const std::vector<basic_task<Data>>& tasks) {
  require(!tasks.empty(), "merge: there are no tasks");
  basic_task<Data> all = tasks.back();
  all.train_indices.clear(), all.test_indices.clear(), all.classes.clear();
  for (const auto& t : tasks) {
    require(t.data == all.data, "merge: the tasks '", t.name, "' and '", all.name,
            "' come from different data; training on all of them together needs data that are at hand");
    all.train_indices.insert(all.train_indices.end(), t.train_indices.begin(), t.train_indices.end());
    all.test_indices.insert(all.test_indices.end(), t.test_indices.begin(), t.test_indices.end());
    all.classes.insert(all.classes.end(), t.classes.begin(), t.classes.end());
  }
  return all;
}

}  // namespace core_tokensets
