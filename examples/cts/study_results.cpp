// What follows from the runs of a study: means, differences in pairs of the same seed, multiples of bytes.

#include <cmath>
#include <functional>

#include "core_tokensets/metrics/paired.hpp"
#include "study.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

/// The runs of a study with their outcomes, looked up by what they are.
struct study_lookup {
  const study_plan& plan;
  const std::vector<study_run>& runs;
  const std::vector<study_outcome>& outcomes;

  /// The index of a run; one of a memory that does not depend on the budget stands for every budget.
  std::size_t find(const std::string& data, const std::string& memory, const std::string& budget,
                   std::uint64_t seed) const {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const study_run& r = runs[i];
      if (r.data == data && r.memory == memory && r.seed == seed && (r.budget == budget || r.budget.empty())) return i;
    }
    cts::fail("no run is ", data, ", ", budget, ", ", memory, ", seed ", seed);
  }
  const study_outcome& outcome(const std::string& data, const std::string& memory, const std::string& budget,
                               std::uint64_t seed) const {
    return outcomes[find(data, memory, budget, seed)];
  }
};

/// Mean, standard deviation and number; null where there is nothing.
cts::json spread_json(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  const auto s = cts::spread_of(values);
  return {{"mean", s.mean}, {"deviation", cts::finite_or_null(s.deviation)}, {"n", s.n}};
}

/// One memory at one budget: every seed, and the means of those that are done.
cts::json row_json(const study_lookup& study, const std::string& data, const std::string& memory,
                   const std::string& budget) {
  cts::json row{{"memory", memory}, {"budget", budget.empty() ? cts::json() : cts::json(budget)}};
  cts::json seeds = cts::json::array();
  std::map<std::string, std::vector<double>> values;
  double bytes = 0;
  for (const auto seed : study.plan.seeds) {
    const std::size_t i = study.find(data, memory, budget, seed);
    const study_outcome& o = study.outcomes[i];
    cts::json one{{"seed", seed}, {"command", study.runs[i].command()}};
    if (o.results) {
      for (const auto& [name, key] :
           {std::pair("accuracy", "average_accuracy"), std::pair("forgetting", "forgetting"),
            std::pair("memory_bytes", "memory_bytes"), std::pair("memory_samples", "memory_samples"),
            std::pair("memory_tokens", "memory_tokens")}) {
        one[name] = o.results->at(key);
        values[name].push_back(o.results->at(key).get<double>());
      }
      one["seconds"] = o.seconds();
      bytes = o.results->at("budget_bytes").get<double>();
    } else if (o.is_done()) {
      one["not_possible"] = o.not_possible;
    } else {
      one["missing"] = true;
    }
    seeds.push_back(std::move(one));
  }
  row["budget_bytes"] = bytes > 0 && !budget.empty() ? cts::json(bytes) : cts::json();
  for (const char* name : {"accuracy", "forgetting", "memory_bytes", "memory_samples"})
    row[name] = spread_json(values[name]);
  row["seeds"] = std::move(seeds);
  return row;
}

/// Ours minus a memory at one budget, by seeds that both have. Null where there is none.
cts::json difference_json(const study_lookup& study, const std::string& data, const std::string& memory,
                          const std::string& budget) {
  std::vector<double> ours, theirs;
  for (const auto seed : study.plan.seeds) {
    const auto& a = study.outcome(data, study.plan.ours, budget, seed);
    const auto& b = study.outcome(data, memory, budget, seed);
    if (!a.results || !b.results) continue;
    ours.push_back(a.accuracy()), theirs.push_back(b.accuracy());
  }
  if (ours.empty()) return nullptr;
  const auto d = cts::compare_pairs(ours, theirs);
  return {{"memory", memory}, {"budget", budget}, {"mean", d.mean}, {"error", cts::finite_or_null(d.error)},
          {"ahead", d.ahead}, {"n", d.n}};
}

/// Accuracies of a memory over the bytes that it used. Nothing as long as a run is missing, for the curve would end
/// too early.
std::vector<cts::byte_accuracy> curve_of(const study_lookup& study, const std::string& data, const std::string& memory,
                                         std::uint64_t seed) {
  std::vector<cts::byte_accuracy> curve;
  for (const auto& budget : study.plan.budgets) {
    const auto& o = study.outcome(data, memory, budget, seed);
    if (!o.is_done()) return {};
    if (o.results && o.bytes() > 0) curve.push_back({o.bytes(), o.accuracy()});
  }
  return curve;
}

/// How many times our bytes a rival needs, by seeds for which that can be said. Null where there is none.
cts::json multiple_json(const study_lookup& study, const std::string& data, const std::string& rival,
                        const std::string& budget) {
  std::vector<cts::byte_multiple> multiples;
  cts::json seeds = cts::json::array();
  for (const auto seed : study.plan.seeds) {
    const auto& ours = study.outcome(data, study.plan.ours, budget, seed);
    const auto curve = curve_of(study, data, rival, seed);
    if (!ours.results || ours.bytes() <= 0 || curve.empty()) continue;
    const auto m = cts::multiple_of({ours.bytes(), ours.accuracy()}, curve);
    const char* const words[] = {"exact", "more than", "less than"};
    seeds.push_back({{"seed", seed}, {"k", m.k}, {"known", words[static_cast<std::size_t>(m.known)]}});
    multiples.push_back(m);
  }
  if (multiples.empty()) return nullptr;
  const auto s = cts::summarise(multiples);
  return {{"rival", rival},
          {"budget", budget},
          {"what", s.all_known() ? "geometric mean and its 95 % interval" : "bounds of the median"},
          {"k", cts::finite_or_null(s.k)},
          {"low", cts::finite_or_null(s.low)},
          {"high", cts::finite_or_null(s.high)},
          {"n", s.n},
          {"more", s.more},
          {"less", s.less},
          {"seeds", std::move(seeds)}};
}

cts::json data_json(const study_lookup& study, const std::string& data) {
  cts::json rows = cts::json::array(), differences = cts::json::array(), multiples = cts::json::array();
  const auto add = [](cts::json& to, cts::json row) {
    if (!row.is_null()) to.push_back(std::move(row));
  };
  for (const auto& budget : study.plan.budgets) {
    for (const auto& memory : study.plan.memories) {
      if (!memory.any_budget) rows.push_back(row_json(study, data, memory.name, budget));
      if (memory.name != study.plan.ours) add(differences, difference_json(study, data, memory.name, budget));
    }
    for (const auto& rival : study.plan.rivals) add(multiples, multiple_json(study, data, rival, budget));
  }
  for (const auto& memory : study.plan.memories) {
    if (memory.any_budget) rows.push_back(row_json(study, data, memory.name, ""));
  }
  return {{"name", data},
          {"rows", std::move(rows)},
          {"differences", std::move(differences)},
          {"multiples", std::move(multiples)}};
}

}  // namespace

cts::json study_json(const study_plan& plan, const std::vector<study_run>& runs,
                     const std::vector<study_outcome>& outcomes) {
  const study_lookup study{plan, runs, outcomes};
  std::size_t done = 0, not_possible = 0;
  for (const auto& o : outcomes) done += o.is_done(), not_possible += o.is_done() && !o.results;
  cts::json data = cts::json::array(), memories = cts::json::array();
  for (const auto& memory : plan.memories)
    memories.push_back({{"name", memory.name}, {"any_budget", memory.any_budget}});
  for (const auto& part : plan.data) data.push_back(data_json(study, part.name));
  return {{"title", plan.title},
          {"about", plan.about},
          {"ours", plan.ours},
          {"budgets", plan.budgets},
          {"seeds", plan.seeds},
          {"memories", std::move(memories)},
          {"multiples_of", plan.rivals},
          {"runs", {{"planned", runs.size()}, {"done", done}, {"not_possible", not_possible}}},
          {"data", std::move(data)}};
}

}  // namespace cts_command
