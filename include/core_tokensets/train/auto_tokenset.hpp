#pragma once
// How many samples, how many of their tokens and how sharp: one choice, made anew for every task from what its samples
// are worth to the model and what they cost. The problem that the paper leaves open.

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/train/strategies.hpp"

namespace core_tokensets {

/// How a sample is stored: the share of its tokens, and their quality.
struct token_form {
  double keep = 0.5;
  int quality = 20;

  bool operator==(const token_form&) const = default;
};

/// A core tokenset that chooses the form of what it stores. Of `forms` that one is taken whose memory, filled within
/// the budget, is expected to replace the gradient of all whole pictures best: with last-layer gradients g of `probe`
/// samples, softened by `temperature` (`soften`), class by class,
///   E(form) = |mean g(stored) - mean g(whole)|^2 + tr Cov g(whole) / (samples that the budget buys in this form),
/// what is lost by storing less of each, and what is lost by storing fewer. Small budgets so buy many coarse samples,
/// large ones fewer and sharper ones. Classes only; packs by `dct_codec`.
template <class Select = grad_match, class Attribute = grad_lrp, class Rule = surely_tokens>
struct auto_tokenset {
  static constexpr const char* name = "auto-tokenset";
  static constexpr const char* about =
      "as core-tokenset; how many tokens and how sharp is chosen by their worth and price";
  Select select = {};
  Attribute attribute = usual_attribute<Attribute>();
  Rule rule = {};
  std::vector<token_form> forms = {{0.5, 5}, {0.5, 10}, {0.5, 20}, {0.5, 50}, {1, 5}, {1, 10}, {1, 20}, {1, 50}};
  double temperature = 4;
  index probe = 256;
  token_form chosen = {};  ///< for the last task

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("temperature", self.temperature);
    visit("probe", self.probe);
  }
};

/// "keep 0.5, quality 20".
inline std::string text_of(const token_form& f) {
  return "keep " + detail::option_text(f.keep) + ", quality " + std::to_string(f.quality);
}

template <class S, class A, class R>
std::string text_of(const auto_tokenset<S, A, R>& r) {
  std::string forms;
  for (const token_form& f : r.forms) forms += (forms.empty() ? "" : "; ") + text_of(f);
  return "auto-tokenset:temperature=" + detail::option_text(r.temperature) + ":probe=" + std::to_string(r.probe) +
         " select=" + text_of(r.select) + " attribute=" + text_of(r.attribute) + " rule=" + text_of(r.rule) +
         " forms=" + forms;
}

namespace detail {

/// A rule whose tokens all have one quality.
template <class Rule>
struct rule_at_quality {
  Rule rule;
  std::uint8_t quality;
  bool needs_relevance = true;

  token_weighting weighting() const { return weighting_of(rule); }
  rule_at_quality with_seed(std::uint64_t seed) const { return {seeded(rule, seed), quality, needs_relevance}; }
};
template <class Rule>
kept_tokens keep(const rule_at_quality<Rule>& r, const token_choice& c) {
  kept_tokens kept = keep(r.rule, c);
  kept.qualities.assign(1, r.quality);
  return kept;
}

/// The recipe that stores every sample in one form.
template <class S, class A, class R>
auto in_form(const auto_tokenset<S, A, R>& recipe, const token_form& form) {
  return core_tokenset<S, A, rule_at_quality<R>>{
      .select = recipe.select,
      .attribute = recipe.attribute,
      .keep = form.keep,
      .rule = {recipe.rule, static_cast<std::uint8_t>(form.quality), needs_relevance(recipe.rule)}};
}

/// Gradients of the same samples whole and stored, [2 n]: what storing them moves, and how much whole ones differ.
struct form_worth {
  double moved = 0, spread = 0;
};

/// Summed over the classes by their share. The sampling noise of `moved` is taken away.
inline form_worth worth_of(const evidence& e) {
  const index n = e.samples / 2;
  form_worth all;
  for (const auto& members : members_by_class({e.labels.data(), static_cast<std::size_t>(n)}, e.label_count())) {
    if (members.empty()) continue;
    const auto count = static_cast<double>(members.size());
    std::vector<index> stored;
    for (const index i : members) stored.push_back(n + i);
    const auto whole = gradient_mean(e, members), cut = gradient_mean(e, stored);
    double moved = 0, length = 0, squares = 0, noise = 0;
    for (std::size_t i = 0; i < whole.size(); ++i)
      moved += (cut[i] - whole[i]) * (cut[i] - whole[i]), length += whole[i] * whole[i];
    for (const index i : members) {
      squares += inner(e, i, i) / count;
      noise += (inner(e, n + i, n + i) - 2 * inner(e, i, n + i) + inner(e, i, i)) / count;
    }
    const double share = count / static_cast<double>(n), degrees = std::max(1.0, count - 1);
    all.moved += share * std::max(0.0, moved - std::max(0.0, noise - moved) / degrees);
    all.spread += share * std::max(0.0, squares - length) * count / degrees;
  }
  return all;
}

}  // namespace detail

namespace detail {

/// The samples of a probe and the relevance `[n, P]` of their tokens, found once for all forms.
struct probed_samples {
  std::vector<index> samples;
  std::vector<double> relevance;
};

template <tensor_backend B, class S, class A, class R>
probed_samples probe_of(B& b, const auto_tokenset<S, A, R>& recipe, const vit<B>& model,
                        const sample_view<dataset>& from, std::uint64_t seed) {
  std::vector<std::int32_t> labels;
  for (const index i : from.indices) labels.push_back(from.data->label(i));
  probed_samples probe;
  for (const index i : select_from_labels(random_selection{.seed = seed}, labels, from.data->classes(),
                                          std::min(recipe.probe, from.n()))
                           .indices)
    probe.samples.push_back(from.indices[static_cast<std::size_t>(i)]);
  const auto in_part = [](const token_form& f) { return f.keep < 1; };
  if (!needs_relevance(recipe.rule) || std::none_of(recipe.forms.begin(), recipe.forms.end(), in_part)) {
    probe.relevance.resize(probe.samples.size() * static_cast<std::size_t>(model.config().grid.tokens()));
    return probe;
  }
  attribution_workspace<B> workspace;
  token_batch images;
  for_batches(probe.samples, 32, [&](std::span<const index> part) {
    make_batch(*from.data, part, model.config(), images);
    const auto found = explain(recipe.attribute, b, model, images, text_batch{}, workspace);
    probe.relevance.insert(probe.relevance.end(), found.begin(), found.end());
  });
  return probe;
}

/// A memory of the whole probe by one recipe.
template <class Recipe>
token_memory stored_probe(const Recipe& fixed, const dataset& data, const patch_grid& grid, const probed_samples& probe,
                          std::uint64_t seed) {
  token_memory stored = empty_memory(fixed, {.grid = grid});
  const auto rule = seeded(fixed.rule, seed);
  const auto tokens = static_cast<std::size_t>(grid.tokens());
  for (std::size_t i = 0; i < probe.samples.size(); ++i) {
    const index s = probe.samples[i];
    const auto relevance = std::span(probe.relevance).subspan(i * tokens, tokens);
    const cut_tokens kept = cut(data.view_of(s), grid, relevance,
                                keep(rule, {relevance, tokens_of_share(fixed.keep, grid.tokens()),
                                            static_cast<std::uint64_t>(s), grid.cols()}));
    stored_sample sample = kept.as_sample();
    sample.target = data.label(s);
    stored.append(sample);
  }
  return stored;
}

/// Evidence of samples whole, then stored.
template <tensor_backend B>
evidence both_ways(B& b, const vit<B>& model, const model_outputs& whole, const token_memory& stored) {
  std::vector<index> all(static_cast<std::size_t>(stored.samples()));
  std::iota(all.begin(), all.end(), index{0});
  const model_outputs cut = run_batches(b, model, all, [&](std::span<const index> part, token_batch& out) {
    make_batch(stored, part, model.config().normalisation, {}, out);
  });
  model_outputs both = whole;
  both.logits.insert(both.logits.end(), cut.logits.begin(), cut.logits.end());
  both.features.insert(both.features.end(), cut.features.begin(), cut.features.end());
  both.labels.insert(both.labels.end(), cut.labels.begin(), cut.labels.end());
  return make_evidence(both.logits, both.features, both.labels, model.config().classes);
}

}  // namespace detail

/// What E is for each form of a recipe, given a task and the bytes that the memory may have; infinite where not one
/// sample fits.
template <tensor_backend B, class S, class A, class R>
std::vector<double> expected_errors(B& b, const auto_tokenset<S, A, R>& recipe, const vit<B>& model, const task& t,
                                    const token_memory& memory, index bytes, std::uint64_t seed = 0) {
  require(recipe.probe >= 2 && !recipe.forms.empty(), "auto-tokenset: a probe of ", recipe.probe, " samples and ",
          recipe.forms.size(), " forms, expected at least 2 and 1");
  const sample_view<dataset> samples = t.train();
  const patch_grid& grid = memory.format().grid;
  const auto probe = detail::probe_of(b, recipe, model, samples, seed);
  const model_outputs whole = run_model(b, model, {*samples.data, probe.samples});
  const double left = static_cast<double>(bytes - memory.bytes_on_disk()), all = static_cast<double>(samples.n());
  std::vector<double> errors;
  for (const token_form& form : recipe.forms) {
    const auto fixed = detail::in_form(recipe, form);
    const index count = tokens_of_share(form.keep, grid.tokens());
    const auto price = detail::prices_of_samples(memory, fixed.rule, samples, count);
    const double bought = std::min(std::floor(left / price.mean), all);
    if (bought < 1) {
      errors.push_back(std::numeric_limits<double>::infinity());
      continue;
    }
    evidence e = detail::both_ways(b, model, whole, detail::stored_probe(fixed, *samples.data, grid, probe, seed));
    soften(e, recipe.temperature);
    const detail::form_worth worth = detail::worth_of(e);
    errors.push_back(worth.moved + worth.spread * static_cast<double>(t.classes.size()) / bought);
  }
  return errors;
}

template <class S, class A, class R>
token_memory empty_memory(const auto_tokenset<S, A, R>& r, token_memory_format format) {
  double most = 0;
  for (const token_form& f : r.forms) {
    require(f.quality >= 1 && f.quality <= 100, "auto-tokenset: quality ", f.quality, ", expected 1 to 100");
    (void)tokens_of_share(f.keep, 1);
    if (f.keep < 1) most = std::max(most, f.keep);
  }
  if (most > 0) format.add_weighting(weighting_of(r.rule), tokens_of_share(most, format.grid.tokens()));
  return token_memory(std::move(format), dct_codec{});
}

/// The file with one sample in the form that costs least.
template <class S, class A, class R>
index least_price(const auto_tokenset<S, A, R>& r, const task& t, const token_memory& memory) {
  index least = std::numeric_limits<index>::max();
  for (const token_form& f : r.forms) least = std::min(least, least_price(detail::in_form(r, f), t, memory));
  return least;
}

template <tensor_backend B, class S, class A, class R>
consolidation consolidate(B& b, auto_tokenset<S, A, R>& recipe, const vit<B>& model, const task& t,
                          token_memory& memory, index bytes, std::uint64_t seed = 0) {
  if (t.train().empty()) return {};
  const auto start = std::chrono::steady_clock::now();
  const auto errors = expected_errors(b, recipe, model, t, memory, bytes, seed_of_task(seed, t.number));
  recipe.chosen =
      recipe.forms[static_cast<std::size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin())];
  const double seconds = detail::seconds_since(start);
  consolidation done = consolidate(b, detail::in_form(recipe, recipe.chosen), model, t, memory, bytes, seed);
  done.select_seconds += seconds;
  done.form = text_of(recipe.chosen);
  return done;
}

template <tensor_backend B, class S, class A, class R>
void remembered(B& b, const auto_tokenset<S, A, R>& recipe, const vit<B>& model, const token_batch& whole,
                const text_batch* texts, missing_tokens how, token_batch& out) {
  remembered(b, detail::in_form(recipe, recipe.chosen), model, whole, texts, how, out);
}

template <class S, class A, class R>
tensor_file save_state(const auto_tokenset<S, A, R>& r) {
  tensor_file file;
  file.metadata["keep"] = detail::option_text(r.chosen.keep);
  file.metadata["quality"] = std::to_string(r.chosen.quality);
  return file;
}
template <class S, class A, class R>
void load_state(auto_tokenset<S, A, R>& r, const tensor_file& file) {
  const auto text = [&](const char* key) {
    require(file.metadata.contains(key), file.path, ": not the state of an auto-tokenset ('", key, "' is missing)");
    return file.metadata.at(key);
  };
  r.chosen.keep = detail::parse_option<double>(text("keep"), file.path + ": keep");
  r.chosen.quality = detail::parse_option<int>(text("quality"), file.path + ": quality");
}

}  // namespace core_tokensets
