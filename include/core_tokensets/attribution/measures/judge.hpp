#pragma once
// All quality measures of an attribution method on the same samples, as one table.

#include <chrono>
#include <map>

#include "core_tokensets/attribution/measures/completeness.hpp"
#include "core_tokensets/attribution/measures/faithfulness.hpp"
#include "core_tokensets/attribution/measures/flipping.hpp"
#include "core_tokensets/attribution/measures/localisation.hpp"
#include "core_tokensets/attribution/measures/randomisation.hpp"
#include "core_tokensets/attribution/measures/saco.hpp"
#include "core_tokensets/attribution/measures/sensitivity.hpp"
#include "core_tokensets/attribution/measures/stability.hpp"
#include "core_tokensets/attribution/measures/sufficiency.hpp"
#include "core_tokensets/attribution/method.hpp"
#include "core_tokensets/io/json.hpp"

namespace core_tokensets {

/// What is measured and how finely.
struct judge_options {
  target explained = {};
  missing_tokens missing = missing_tokens::drop;
  index steps = 10, sets = 30;
  std::uint64_t seed = 0;
};

/// Name of a measure, whether more of it is better, and what it says.
struct judged_measure {
  const char* name;
  bool high_is_good;
  const char* about;
};

inline constexpr judged_measure judged_measures[] = {
    {"deletion", false, "area under the probability, most relevant tokens dropped first"},
    {"insertion", true, "area under the probability, least relevant tokens dropped first"},
    {"deletion_zero", false, "the same with tokens zeroed"},
    {"insertion_zero", true, "the same with tokens zeroed"},
    {"faithfulness", true, "correlation of relevance and drop over random sets of tokens"},
    {"infidelity", false, "squared error of relevance as a prediction of the drop, scaled to 0 .. 1"},
    {"sufficiency", false, "probability lost with the most relevant tokens alone"},
    {"comprehensiveness", true, "probability lost without the most relevant tokens"},
    {"saco", true, "do more relevant groups matter more"},
    {"completeness", false, "relative error of the sum of relevance"},
    {"gini", true, "sparseness of |relevance|"},
    {"pointing", true, "most relevant token on the object"},
    {"mass", true, "share of relevance on the object"},
    {"rank", true, "share of the k most relevant tokens on an object of k tokens"},
    {"max_sensitivity", false, "largest relative change under small noise"},
    {"stability", true, "share of the most relevant quarter that stays when every weight moves by 1e-4 of itself"},
    {"weight_change", false, "largest change of relevance then, in parts of the largest"},
    {"cascading", false, "rank correlation with relevance under random parameters, from the head down"},
    {"independent", false, "the same, one layer at a time"},
    {"random_logit", false, "rank correlation with relevance for another class"},
};

/// Numbers of one method by measure, one for each sample.
using judgement = std::map<std::string, std::vector<double>>;

namespace detail {

inline void append(judgement& into, const char* name, const std::vector<double>& values) {
  auto& all = into[name];
  all.insert(all.end(), values.begin(), values.end());
}

template <measured Samples>
void judge_removal(Samples& m, std::span<const double> relevance, const judge_options& o, judgement& into) {
  for (const auto missing : {missing_tokens::drop, missing_tokens::zero}) {
    const bool drop = missing == missing_tokens::drop;
    append(into, drop ? "deletion" : "deletion_zero",
           measure(flipping{o.steps, removal_order::most_relevant_first, missing}, m, relevance).area);
    append(into, drop ? "insertion" : "insertion_zero",
           measure(flipping{o.steps, removal_order::least_relevant_first, missing}, m, relevance).area);
  }
  for (const auto& e : measure(random_removal{.sets = o.sets, .missing = o.missing, .seed = o.seed}, m, relevance)) {
    into["faithfulness"].push_back(faithfulness_correlation(e));
    into["infidelity"].push_back(infidelity(e));
  }
  const auto enough = measure(sufficiency{.missing = o.missing}, m, relevance);
  append(into, "sufficiency", enough.sufficiency);
  append(into, "comprehensiveness", enough.comprehensiveness);
  append(into, "saco", measure(saco{.missing = o.missing}, m, relevance));
  append(into, "completeness", measure(completeness{.missing = o.missing}, m, relevance));
}

template <tensor_backend B, attribution_method<B> M>
void judge_sanity(const M& method, B& b, const vit<B>& model, measured_batch<B>& m, std::span<const double> relevance,
                  const judge_options& o, attribution_workspace<B>& ws, judgement& into) {
  std::vector<index> each(m.samples());
  std::iota(each.begin(), each.end(), index{0});
  const target same = repeat_target(m.explained, each);
  const auto explain = [&](const token_batch& batch, const target& t) {
    return attribute(method, b, model, batch, t, ws);
  };
  append(into, "max_sensitivity", measure(max_sensitivity{.seed = o.seed}, explain, m.batch, m.explained, relevance));
  const auto other_model = [&](const vit<B>& other) { return attribute(method, b, other, m.batch, same, ws); };
  const auto stable = measure(weight_stability{.seed = o.seed}, b, model, other_model, m.batch, relevance);
  append(into, "stability", stable.stay);
  append(into, "weight_change", stable.change);
  for (const auto how : {randomised::cascading, randomised::independent}) {
    const auto result = measure(parameter_randomisation{how, o.seed + 1}, b, model, other_model, m.batch, relevance);
    for (std::size_t s = 0; s < m.samples(); ++s) {
      double mean = 0;
      for (const auto& layer : result.similarity) mean += layer[s] / static_cast<double>(result.similarity.size());
      into[words<randomised>[static_cast<std::size_t>(how)]].push_back(mean);
    }
  }
  if (model.config().classes > 1) {
    append(into, "random_logit",
           measure(random_logit{o.seed}, explain, m.batch, m.explained, model.config().classes, relevance));
  }
}

}  // namespace detail

/// Judges a method on one batch. `coverage` `[P]`: how much of each patch an object covers, or empty; samples without
/// an object are left out there. `sanity`: with the checks that explain many times over.
template <tensor_backend B, attribution_method<B> M>
void judge(const M& method, B& b, const vit<B>& model, measured_batch<B>& m, std::span<const double> coverage,
           bool sanity, const judge_options& o, attribution_workspace<B>& ws, judgement& into) {
  std::vector<index> each(m.samples());
  std::iota(each.begin(), each.end(), index{0});
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> relevance = attribute(method, b, model, m.batch, repeat_target(m.explained, each), ws);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  into["seconds"].insert(into["seconds"].end(), m.samples(), seconds / static_cast<double>(m.samples()));
  detail::judge_removal(m, relevance, o, into);
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(std::span<const double>(relevance), m.batch.offsets, s);
    into["gini"].push_back(gini(r));
    if (coverage.empty()) continue;
    const auto covered = of_sample(coverage, m.batch.offsets, s);
    if (std::none_of(covered.begin(), covered.end(), [](double x) { return x > 0; })) continue;
    const auto found = localisation(r, covered);
    into["pointing"].push_back(found.pointing);
    into["mass"].push_back(found.mass);
    into["rank"].push_back(found.rank);
  }
  if (sanity) detail::judge_sanity(method, b, model, m, relevance, o, ws, into);
}

/// Mean, median, standard deviation, least and largest (null where they are not finite) and number of the samples of
/// each measure.
inline json to_json(const judgement& j) {
  json result = json::object();
  for (const auto& [name, values] : j) {
    if (values.empty()) continue;  // samples without tokens have no stability
    const auto n = static_cast<double>(values.size());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double square = 0;
    for (const double v : values) square += (v - mean) * (v - mean);
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const double median = (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2;
    result[name] = {{"mean", finite_or_null(mean)},
                    {"median", finite_or_null(median)},
                    {"sd", finite_or_null(n > 1 ? std::sqrt(square / (n - 1)) : 0.0)},
                    {"least", finite_or_null(sorted.front())},
                    {"largest", finite_or_null(sorted.back())},
                    {"n", values.size()}};
  }
  return result;
}

}  // namespace core_tokensets
