#pragma once
// What is done about old tasks, each way a type: nothing, whole samples, some tokens of them, all data. A
// strategy of one's own needs one function, `consolidate`, and nothing from here.

#include <concepts>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core_tokensets/attribution/answers/answer_methods.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/random.hpp"
#include "core_tokensets/memory/codecs/dct_codec.hpp"
#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/memory/rules/surely.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/random.hpp"
#include "core_tokensets/train/consolidate.hpp"
#include "core_tokensets/train/fit_options.hpp"

namespace core_tokensets {

/// A strategy: `consolidate(b, strategy, model, task, memory, bytes, seed)` puts what shall be remembered of a task
/// into the memory, whose file then has at most `bytes`. It may also have
///   `training_task(strategy, task) -> std::optional<task>`        what is trained on (nothing: no training);
///   `empty_memory(strategy, format) -> token_memory`              another format or codec;
///   `memory_price(strategy, memory) -> index`                     what the memory costs, if not the bytes of its file;
///   `least_price(strategy, task, memory) -> index`                what it costs with the least that can be kept of a
///                                                                 task: a budget below it is refused before training;
///   `class_scores(b, strategy, model, samples) -> [n, K] double`  how pictures are classified, if not by the logits;
///   `remembered(b, strategy, model, whole, texts, how, out)`      new pictures as the memory would keep them, if not
///   whole; `save_state(strategy)`, `load_state(strategy, file)`          what it knows besides the memory.
template <class S, class B, class Model, class Task>
concept strategy = std::copyable<S> &&
    requires(B& b, S& s, const Model& model, const Task& t, token_memory& memory, index bytes, std::uint64_t seed) {
  { consolidate(b, s, model, t, memory, bytes, seed) } -> std::same_as<consolidation>;
};

/// The same with a budget; a fraction is of the training data of the task's stream as they came. `Error`: a budget for
/// each task or class, which only a learner can add up.
template <tensor_backend B, class S, class Model, class Data>
consolidation consolidate(B& b, S&& how, const Model& model, const basic_task<Data>& t, token_memory& memory,
                          const byte_budget& budget, std::uint64_t seed = 0) {
  require(budget.each == budget_of::all, "consolidate: a budget for each ", detail::option_text(budget.each),
          ", expected one of the whole memory");
  return consolidate(b, how, model, t, memory, budget.resolve(bytes_of_data(t.data->train)), seed);
}

/// Keeps nothing: what forgetting looks like.
struct none {
  static constexpr const char* name = "none";
  static constexpr const char* about = "nothing is remembered";
};

template <tensor_backend B, class Model, class Data>
consolidation consolidate(B&, const none&, const Model&, const basic_task<Data>&, token_memory&, index,
                          std::uint64_t = 0) {
  return {};
}

/// The ranking of a memory's tokens unless another is given: GradLRP without its poles, so that what is kept does not
/// depend on the last digits of the weights.
template <class Attribute>
Attribute usual_attribute() {
  if constexpr (std::same_as<Attribute, grad_lrp>) {
    return {.stabiliser = 0.03};
  } else {
    return {};
  }
}

/// Samples by `select`, of which the share `keep` of the tokens is stored: those that `rule` keeps by the relevance of
/// `attribute`. Pixels are packed by `codec`. With `top_tokens` and `raw_codec` the core tokenset of the paper; the
/// defaults, relevant tokens surely and a weighted sample of the rest in a lossy codec, remember more in fewer bytes
/// (docs/results.md).
template <class Select = grad_match, class Attribute = grad_lrp, class Rule = surely_tokens, class Codec = dct_codec>
struct core_tokenset {
  static constexpr const char* name = "core-tokenset";
  static constexpr const char* about = "the most relevant tokens of the most informative samples";
  Select select = {};
  Attribute attribute = usual_attribute<Attribute>();
  double keep = 0.5;
  Rule rule = {};
  Codec codec = {};
  relevance_storage relevance = relevance_storage::none;  ///< whether the memory keeps relevance beside the tokens

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("keep", self.keep);
    visit("relevance", self.relevance);
  }
};

/// Random samples, of each the most relevant tokens.
template <class Attribute = grad_lrp>
using core_tokens = core_tokenset<random_selection, Attribute>;
/// Random tokens of random samples: the control. The attribution is not asked.
using random_tokens = core_tokenset<random_selection, grad_lrp, chance_tokens>;

/// Name, keep, and the parts with their options.
template <class S, class A, class R, class C>
std::string text_of(const core_tokenset<S, A, R, C>& r) {
  return "core-tokenset:keep=" + detail::option_text(r.keep) + ":relevance=" + detail::option_text(r.relevance) +
         " select=" + text_of(r.select) + " attribute=" + text_of(r.attribute) + " rule=" + text_of(r.rule) +
         " codec=" + any_codec(r.codec).text();
}

template <class S, class A, class R, class C>
token_memory empty_memory(const core_tokenset<S, A, R, C>& r, token_memory_format format) {
  const index tokens = format.grid.tokens(), count = tokens_of_share(r.keep, tokens);
  const std::vector<double> nothing(static_cast<std::size_t>(tokens), 0.0);
  (void)keep(r.rule, {nothing, count, 0, format.grid.cols()});  // bad options are told before anything is trained
  format.relevance = r.relevance;
  format.add_weighting(weighting_of(r.rule), count);
  return token_memory(std::move(format), any_codec(r.codec));
}

template <tensor_backend B, class S, class A, class R, class C, class Model, class Data>
consolidation consolidate(B& b, const core_tokenset<S, A, R, C>& recipe, const Model& model, const basic_task<Data>& t,
                          token_memory& memory, index bytes, std::uint64_t seed = 0) {
  const auto start = std::chrono::steady_clock::now();
  const sample_view<Data> samples = t.train();
  check_pictures(detail::pictures_of(*samples.data), image_config(model));
  detail::check_memory(memory, image_config(model));
  const index count = tokens_of_share(recipe.keep, memory.format().grid.tokens());
  const index k = samples.empty() ? 0 : detail::affordable_samples(memory, recipe.rule, samples, count, bytes);
  if (k == 0) return {};
  const std::uint64_t of_task = seed_of_task(seed, t.number);
  const selection_result chosen = detail::choose_from(b, detail::seeded(recipe.select, of_task), model, samples, k);
  consolidation done{.by_chance = chosen.by_chance, .select_seconds = detail::seconds_since(start)};
  const auto explaining = std::chrono::steady_clock::now();
  done.samples = detail::store(b, detail::seeded(recipe.attribute, seed), detail::seeded(recipe.rule, of_task), model,
                               *samples.data, chosen, count, static_cast<std::uint32_t>(t.number), bytes, memory);
  done.attribute_seconds = detail::seconds_since(explaining);
  return done;
}

/// The size of the memory's file with one sample, the largest of some.
template <class S, class A, class R, class C, class Data>
index least_price(const core_tokenset<S, A, R, C>& recipe, const basic_task<Data>& t, const token_memory& memory) {
  const index count = tokens_of_share(recipe.keep, memory.format().grid.tokens());
  return detail::prices_of_samples(memory, recipe.rule, t.train(), count).with_one;
}

/// New pictures as the memory would give them back: the tokens that it would keep, through its codec.
template <tensor_backend B, class S, class A, class R, class C, class Model>
void remembered(B& b, const core_tokenset<S, A, R, C>& recipe, const Model& model, const token_batch& whole,
                const text_batch* texts, missing_tokens how, token_batch& out) {
  const vit_config& c = image_config(model);
  const index grid = c.grid.tokens(), count = tokens_of_share(recipe.keep, grid);
  typename detail::workspace_for<Model>::type workspace;
  const std::vector<double> relevance =
      needs_relevance(recipe.rule) && count < grid
          ? detail::explain(recipe.attribute, b, model, whole, texts != nullptr ? *texts : text_batch{}, workspace)
          : std::vector<double>(static_cast<std::size_t>(whole.tokens()), 0.0);
  core_tokenset<S, A, R, C> without_relevance = recipe;
  without_relevance.relevance = relevance_storage::none;
  token_memory form = empty_memory(without_relevance, {.grid = c.grid});
  std::vector<index> all;
  for (index s = 0; s < whole.samples(); ++s) {
    const index begin = whole.offsets[static_cast<std::size_t>(s)];
    const auto of_sample =
        std::span(relevance).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(grid));
    const kept_tokens kept = keep(recipe.rule, {of_sample, count, detail::fingerprint_of(whole, s), c.grid.cols()});
    form.append({.patches = pixels_of(whole, begin, kept.positions, c.normalisation, c.grid),
                 .positions = kept.positions,
                 .token_weights = kept.weights,
                 .qualities = kept.qualities});
    all.push_back(s);
  }
  make_batch(form, all, c.normalisation, {.missing = how}, out);
  out.targets = whole.targets, out.weights = whole.weights;
}

/// Whole samples by `select`. With `price` source a picture costs the file that it came as (its pixels where it came
/// without), which is what a sensible user would store; files that the rest of the budget cannot hold are passed over.
template <class Select = grad_match>
struct coreset {
  static constexpr const char* name = "coreset";
  static constexpr const char* about = "whole pictures of the most informative samples";
  Select select = {};
  picture_price price = picture_price::source;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("price", self.price);
  }
};

template <class S>
std::string text_of(const coreset<S>& c) {
  return "coreset:price=" + detail::option_text(c.price) + " select=" + text_of(c.select);
}

namespace detail {

/// The column in which a memory of whole pictures keeps what each one's file weighs; 0 where another sample paid for
/// the same picture.
inline const memory_column file_bytes_column{"file_bytes", dtype::u32, 1, false};

inline std::uint32_t file_bytes(const token_memory& memory, index s) {
  std::uint32_t bytes = 0;
  std::memcpy(&bytes, memory.column("file_bytes", s).data(), sizeof bytes);
  return bytes;
}

inline std::uint64_t picture_number(std::span<const std::uint8_t> patches) { return fnv1a(std::as_bytes(patches)); }

/// Bytes of the file that a picture came as; of its pixels where there was none.
inline index weight_of(const dataset& pictures, index p) {
  return pictures.source_bytes.empty() ? pictures.image_size()
                                       : static_cast<index>(pictures.source_bytes[static_cast<std::size_t>(p)]);
}

/// Prices of the samples of a view as files, those of the pictures that the memory holds being paid.
template <class Data>
file_prices prices_of(const token_memory& memory, const sample_view<Data>& samples) {
  const dataset& pictures = pictures_of(*samples.data);
  std::map<index, std::uint64_t> numbers;
  std::map<index, file_sample> all;
  for (const index i : samples.indices) {
    const index p = picture_of(*samples.data, i);
    const auto [place, fresh] = numbers.try_emplace(p, 0);
    if (fresh) place->second = picture_number(patchify(pictures.view_of(p), memory.format().grid.patch));
    const auto [prompt, answer] = texts_of(*samples.data, i);
    all[i] = {.picture = place->second,
              .file = picture_overhead + weight_of(pictures, p),
              .text = static_cast<index>(prompt.size() + answer.size())};
  }
  std::set<std::uint64_t> paid;
  for (index s = 0; s < memory.samples(); ++s) paid.insert(picture_number(memory.sample(s).patches));
  return {std::move(all), std::move(paid)};
}

}  // namespace detail

template <class S>
token_memory empty_memory(const coreset<S>& c, token_memory_format format) {
  if (c.price == picture_price::source) format.columns.push_back(detail::file_bytes_column);
  return token_memory(std::move(format));
}

/// The files of the stored pictures, each with its label and weight, and all texts; or the bytes of the memory's file.
template <class S>
index memory_price(const coreset<S>&, const token_memory& memory) {
  if (!memory.has_column("file_bytes")) return memory.bytes_on_disk();
  index total = static_cast<index>(memory.arrays().text.size());
  for (index s = 0; s < memory.samples(); ++s) total += detail::file_bytes(memory, s);
  return total;
}

/// What the memory costs with the smallest file, or in its own file with one picture.
template <class S, class Data>
index least_price(const coreset<S>& recipe, const basic_task<Data>& t, const token_memory& memory) {
  if (memory.has_column("file_bytes"))
    return memory_price(recipe, memory) + detail::prices_of(memory, t.train()).least();
  return detail::prices_of_samples(memory, chance_tokens{}, t.train(), memory.format().grid.tokens()).with_one;
}

template <tensor_backend B, class S, class Model, class Data>
consolidation consolidate(B& b, const coreset<S>& recipe, const Model& model, const basic_task<Data>& t,
                          token_memory& memory, index bytes, std::uint64_t seed = 0) {
  const sample_view<Data> samples = t.train();
  const dataset& pictures = detail::pictures_of(*samples.data);
  const core_tokenset<S, grad_lrp, chance_tokens> whole{.select = recipe.select, .attribute = {}, .keep = 1.0};
  if (!memory.has_column("file_bytes")) return consolidate(b, whole, model, t, memory, bytes, seed);
  const auto start = std::chrono::steady_clock::now();
  check_pictures(pictures, image_config(model));
  detail::check_memory(memory, image_config(model));
  const index left = bytes - memory_price(recipe, memory);
  const file_prices prices = detail::prices_of(memory, samples);
  const std::vector<index> alone = prices.affordable_alone(left);
  require_room(!alone.empty() || !memory.empty(), "memory: a budget of ", bytes,
               " bytes is too small for one picture: the smallest takes ", prices.least());
  if (alone.empty()) return {};
  selection_result chosen =
      detail::choose_from(b, detail::seeded(recipe.select, seed_of_task(seed, t.number)), model,
                          sample_view<Data>(*samples.data, alone), prices.affordable(alone, left));
  prices.fit(chosen.indices, chosen.weights, left);
  chosen.weights = normalise_weights(std::vector<double>(chosen.weights.begin(), chosen.weights.end()));
  const index first = memory.samples();
  consolidation done{.by_chance = chosen.by_chance, .select_seconds = detail::seconds_since(start)};
  done.samples =
      detail::store(b, grad_lrp{}, chance_tokens{}, model, *samples.data, chosen, memory.format().grid.tokens(),
                    static_cast<std::uint32_t>(t.number), std::numeric_limits<index>::max(), memory);
  const auto files = prices.files_of(done.samples);
  for (std::size_t i = 0; i < files.size(); ++i)
    std::memcpy(memory.column("file_bytes", first + static_cast<index>(i)).data(), &files[i], sizeof files[i]);
  return done;
}

/// Trains on the data of all tasks so far: the upper bound. It keeps the tasks, not a memory.
template <sample_set Data = dataset>
struct joint {
  static constexpr const char* name = "joint";
  static constexpr const char* about = "all data of all tasks: the upper bound";
  std::vector<basic_task<Data>> seen = {};
};

template <sample_set Data>
std::optional<basic_task<Data>> training_task(joint<Data>& s, const basic_task<Data>& t) {
  s.seen.push_back(t);
  return merge(s.seen);
}
template <tensor_backend B, class Model, class Data>
consolidation consolidate(B&, const joint<Data>&, const Model&, const basic_task<Data>&, token_memory&, index,
                          std::uint64_t = 0) {
  return {};
}

}  // namespace core_tokensets
