#pragma once
// What a learner asks of its model and of its strategy, where classes differ from texts and defaults stand in.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/train/fit.hpp"
#include "core_tokensets/train/strategies.hpp"

namespace core_tokensets::detail {

template <class Model>
struct model_kind;

template <tensor_backend B>
struct model_kind<vit<B>> {
  using data_type = dataset;
  static constexpr bool texts = false;
  static vit<B> load(B& b, const tensor_file& file, const vit<B>* like) {
    vit_hints hints;
    if (like != nullptr) hints.seed = like->config().seed;
    return load_vit(b, file, hints);
  }
};
template <tensor_backend B>
struct model_kind<image_text_model<B>> {
  using data_type = visual_text;
  static constexpr bool texts = true;
  static image_text_model<B> load(B& b, const tensor_file& file, const image_text_model<B>*) {
    return load_image_text(b, file);
  }
};

/// The model's number of every class of some data, by name; -1: the model does not know it. Data without names are
/// numbered as the model is, and so are those whose names begin with the model's.
inline std::vector<std::int32_t> numbers_by_name(const std::vector<std::string>& names,
                                                 const std::vector<std::string>& known) {
  std::vector<std::int32_t> numbers(names.size());
  const bool same = known.size() <= names.size() && std::equal(known.begin(), known.end(), names.begin());
  for (std::size_t k = 0; k < names.size(); ++k) {
    const auto found = std::find(known.begin(), known.end(), names[k]);
    const bool in_place = same || known.empty();
    numbers[k] = in_place               ? (known.empty() || k < known.size() ? static_cast<std::int32_t>(k) : -1)
                 : found == known.end() ? -1
                                        : static_cast<std::int32_t>(found - known.begin());
  }
  return numbers;
}

/// Some samples of a data set with other class numbers.
inline dataset renumbered(const sample_view<dataset>& samples, const std::vector<std::int32_t>& numbers,
                          const std::vector<std::string>& names) {
  dataset some = subset(*samples.data, samples.indices);
  for (auto& label : some.labels) label = numbers[static_cast<std::size_t>(label)];
  some.class_names = names;
  return some;
}

/// The task as the learner takes it: number `done`, its classes numbered as the model's are, new ones behind the old.
/// A task that is the next one of its stream stays as it is.
template <tensor_backend B>
task arrange(const task& given, index done, const vit<B>& model, bool fresh) {
  const std::vector<std::string> known = fresh ? std::vector<std::string>() : model.config().class_names;
  const dataset& data = given.data->train;
  task t = given;
  const bool follows = given.number == done && given.of > 1;
  t.number = done;
  if (!follows) t.of = 0;
  std::vector<std::string> names = known;
  std::vector<std::int32_t> numbers(data.class_names.size(), -1);
  const bool same =
      known.size() <= data.class_names.size() && std::equal(known.begin(), known.end(), data.class_names.begin());
  if (follows && same) return t;
  for (const std::int32_t k : given.classes) {
    const std::string& name = data.class_names[static_cast<std::size_t>(k)];
    auto place = std::find(names.begin(), names.end(), name);
    if (place == names.end()) place = names.insert(names.end(), name);
    numbers[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(place - names.begin());
  }
  bool in_place = names.size() == data.class_names.size();
  for (std::size_t k = 0; in_place && k < numbers.size(); ++k) in_place = numbers[k] == static_cast<std::int32_t>(k);
  if (in_place) return t;
  const sample_view<dataset> train = given.train(), test = given.test();
  auto split = std::make_shared<dataset_split>();
  split->train = renumbered(train, numbers, names);
  split->test = renumbered(test, numbers, names);
  t.data = split;
  t.train_indices = sample_view<dataset>(split->train).indices;
  t.test_indices = sample_view<dataset>(split->test).indices;
  t.classes.clear();
  for (const std::int32_t k : given.classes) t.classes.push_back(numbers[static_cast<std::size_t>(k)]);
  return t;
}
template <tensor_backend B>
text_task arrange(const text_task& given, index done, const image_text_model<B>&, bool) {
  text_task t = given;
  if (given.number != done || given.of <= 1) t.of = 0;
  t.number = done;
  return t;
}

/// A head for the task's classes alone; what the model told apart before is forgotten. Its classes have no names yet,
/// so that whoever prepares it for the task knows that its rows are new.
template <tensor_backend B>
void forget_head(B& b, vit<B>& model, const task& t) {
  model.replace_head(b, seen_classes(t));
}
template <tensor_backend B>
void forget_head(B&, image_text_model<B>&, const text_task&) {}

/// Room for the task's classes where nothing is trained.
template <tensor_backend B>
void make_head(B& b, vit<B>& model, const task& t) {
  prepare_head(b, model, t);
}
template <tensor_backend B>
void make_head(B&, image_text_model<B>&, const text_task&) {}

/// The memory that a strategy and an objective want.
template <class Strategy, class Objective>
token_memory memory_for(const Strategy& s, const Objective& o, const patch_grid& grid, bool texts) {
  token_memory_format format{.grid = grid, .texts = texts};
  if (const index top = stored_logits(o); top > 0) format.columns = logit_columns(top);
  if constexpr (requires { empty_memory(s, format); }) {
    return empty_memory(s, std::move(format));
  } else {
    return token_memory(std::move(format));
  }
}

template <class Strategy>
index price_of(const Strategy& s, const token_memory& memory) {
  if constexpr (requires { memory_price(s, memory); }) return memory_price(s, memory);
  return memory.empty() ? 0 : memory.bytes_on_disk();
}

/// New pictures as the strategy would remember them; whole where it does not say.
template <tensor_backend B, class Strategy, class Model>
void as_remembered(B& b, const Strategy& s, const Model& model, const token_batch& whole, const text_batch* texts,
                   missing_tokens how, token_batch& out) {
  if constexpr (requires { remembered(b, s, model, whole, texts, how, out); }) {
    remembered(b, s, model, whole, texts, how, out);
  } else {
    out = whole;
  }
}

/// What the memory costs with the least that can be kept of a task; 0 where the strategy does not say.
template <class Strategy, class Data>
index least_price_of(const Strategy& s, const basic_task<Data>& t, const token_memory& memory) {
  if constexpr (requires { least_price(s, t, memory); }) return least_price(s, t, memory);
  return 0;
}

template <class Strategy, class Data>
std::optional<basic_task<Data>> training_task_of(Strategy& s, const basic_task<Data>& t) {
  if constexpr (requires { training_task(s, t); }) return training_task(s, t);
  return t;
}

template <tensor_backend B, class Objective>
void remember_logits(B& b, const vit<B>& model, const Objective& o, token_memory& memory, index first,
                     missing_tokens missing) {
  if (stored_logits(o) > 0) store_logits(b, model, memory, first, missing);
}
template <tensor_backend B, class Objective>
void remember_logits(B&, const image_text_model<B>&, const Objective&, token_memory&, index, missing_tokens) {}

}  // namespace core_tokensets::detail
