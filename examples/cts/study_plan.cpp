// The plan of a study: a strict JSON file, and the command lines that it stands for.

#include <algorithm>
#include <set>

#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/memory/budget.hpp"
#include "study.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

using plan_words = std::vector<std::string>;

/// An object of the plan that has some keys and no others; `where` begins the messages.
struct plan_object {
  const cts::json& value;
  std::string where;

  plan_object(const cts::json& v, std::string name, const plan_words& keys) : value(v), where(std::move(name)) {
    cts::require(v.is_object(), where, " is a JSON ", v.type_name(), ", expected an object");
    std::string all;
    for (const auto& key : keys) all += (all.empty() ? "" : ", ") + key;
    for (const auto& member : v.items())
      cts::require(std::find(keys.begin(), keys.end(), member.first) != keys.end(), where, " has an unknown key '",
                   member.first, "'; there are ", all);
  }

  const cts::json& at(const char* key) const {
    cts::require(value.contains(key), where, ": '", key, "' is missing");
    return value.at(key);
  }
  std::string text(const char* key) const {
    const cts::json& v = at(key);
    cts::require(v.is_string(), where, ": '", key, "' is a JSON ", v.type_name(), ", expected a string");
    return v.text();
  }
  std::string text_or_none(const char* key) const { return value.contains(key) ? text(key) : ""; }
  bool flag(const char* key) const {
    if (!value.contains(key)) return false;
    cts::require(at(key).is_boolean(), where, ": '", key, "' is a JSON ", at(key).type_name(),
                 ", expected true or false");
    return at(key).get<bool>();
  }
  const std::vector<cts::json>& list(const char* key) const {
    const cts::json& v = at(key);
    cts::require(v.is_array() && !v.empty(), where, ": '", key, "' is ",
                 v.is_array() ? "empty" : std::string("a JSON ") + v.type_name(), ", expected an array of some");
    return v.list();
  }
  plan_words texts(const char* key) const {
    plan_words all;
    for (const auto& v : list(key)) {
      cts::require(v.is_string(), where, ": '", key, "' holds a JSON ", v.type_name(), ", expected strings");
      cts::require(std::find(all.begin(), all.end(), v.text()) == all.end(), where, ": '", key, "' names '", v.text(),
                   "' twice");
      all.push_back(v.text());
    }
    return all;
  }
};

/// Words of a text as a shell would cut it: at spaces, but not within double quotes.
plan_words words_in(const std::string& text, const std::string& where) {
  plan_words words;
  bool quoted = false, open = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\t' || c == '\n';
    if (space && !quoted) {
      open = false;
      continue;
    }
    if (!open) words.emplace_back(), open = true;
    if (c == '"') {
      quoted = !quoted;
    } else {
      words.back() += c;
    }
  }
  cts::require(!quoted, where, ": a quote without its end in '", text, "'");
  return words;
}

/// Fills `${NAME}` in the arguments of a plan and knows which settings were used.
struct placeholders {
  const std::map<std::string, std::string>& settings;
  std::set<std::string> used = {};

  std::string filled(const std::string& word, const std::string& where) {
    std::string all;
    for (std::size_t at = 0; at < word.size();) {
      const auto begin = word.find("${", at);
      all += word.substr(at, begin - at);
      if (begin == std::string::npos) break;
      const auto end = word.find('}', begin);
      cts::require(end != std::string::npos, where, ": '", word, "' has a '${' without '}'");
      const std::string name = word.substr(begin + 2, end - begin - 2);
      const auto found = settings.find(name);
      cts::require(found != settings.end(), where, ": '", word, "' needs a value: --set ", name, "=VALUE");
      used.insert(name);
      all += found->second;
      at = end + 1;
    }
    return all;
  }
  /// A value stays one word whatever is in it.
  plan_words words(const std::string& text, const std::string& where) {
    plan_words all = words_in(text, where);
    for (auto& word : all) word = filled(word, where);
    return all;
  }
};

/// A name as part of a path on any system.
std::string folder_name(const std::string& name, const std::string& where) {
  std::string folder;
  for (const char c : name) {
    const char low = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const bool plain = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') || low == '.' || low == '_';
    if (plain) {
      folder += low;
    } else if (c == '%') {  // 0.5% and 0.5 are two budgets
      folder += "percent";
    } else if (!folder.empty() && folder.back() != '-') {
      folder += '-';
    }
  }
  while (!folder.empty() && folder.back() == '-') folder.pop_back();
  cts::require(!folder.empty() && folder.front() != '.', where, ": the name '", name, "' makes no name of a folder");
  return folder;
}

std::vector<study_part> parts_in(const plan_object& plan, const char* key, const plan_words& keys,
                                 placeholders& values) {
  std::vector<study_part> parts;
  for (const auto& row : plan.list(key)) {
    const plan_object part(row, plan.where + ": " + key + "[" + std::to_string(parts.size()) + "]", keys);
    study_part p{.name = part.text("name"), .folder = {}, .words = {}, .any_budget = part.flag("any_budget")};
    p.folder = folder_name(p.name, part.where);
    p.words = values.words(part.text_or_none("arguments"), part.where + " ('" + p.name + "')");
    for (const auto& other : parts) {
      cts::require(other.name != p.name, part.where, ": the name '", p.name, "' is there twice");
      cts::require(other.folder != p.folder, part.where, ": '", p.name, "' and '", other.name,
                   "' would have the same folder ", p.folder);
    }
    parts.push_back(std::move(p));
  }
  return parts;
}

plan_words budgets_in(const plan_object& plan) {
  plan_words budgets = plan.texts("budgets");
  for (std::size_t i = 0; i < budgets.size(); ++i) {
    try {
      for (std::size_t k = 0; k < i; ++k)
        cts::require(cts::parse_budget(budgets[k]) != cts::parse_budget(budgets[i]), "'", budgets[k], "' and '",
                     budgets[i], "' are the same budget");
      cts::parse_budget(budgets[i]);
    } catch (const cts::Error& error) {
      cts::fail(plan.where, ": budgets[", i, "]: ", error.what());
    }
  }
  return budgets;
}

std::vector<std::uint64_t> seeds_in(const plan_object& plan) {
  std::vector<std::uint64_t> seeds;
  for (const auto& v : plan.list("seeds")) {
    cts::require(v.holds<std::int64_t>() && v.get<std::int64_t>() >= 0, plan.where, ": seeds[", seeds.size(), "] is ",
                 v.dump(), ", expected a whole number from 0 on");
    const auto seed = v.get<std::uint64_t>();
    cts::require(std::find(seeds.begin(), seeds.end(), seed) == seeds.end(), plan.where, ": seed ", seed,
                 " is there twice");
    seeds.push_back(seed);
  }
  return seeds;
}

/// A word as a shell reads it.
std::string shell_word(const std::string& word) {
  constexpr const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// Parses and checks the command line of a run by the parser of `cts sequence`.
void parse_run(study_run& run, const std::string& out) {
  CLI::App app;
  app.set_help_flag();
  add_sequence_options(app, run.arguments);
  plan_words reversed = run.words;
  reversed.insert(reversed.end(), {"--out", out});
  std::reverse(reversed.begin(), reversed.end());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    cts::fail(error.what());
  }
  // The study says these; once from the study itself is what there must be.
  for (const char* own : {"--out", "--seed", "--budget"})
    cts::require(app.count(own) <= 1 || (own == std::string("--budget") && run.budget.empty()), own,
                 " is set by the study; leave it out of the arguments");
  cts::require(app.count("--resume") == 0, "--resume is set by the study; leave it out of the arguments");
  run.arguments.resume = true;
  check_run(run.arguments);
}

}  // namespace

study_plan read_plan(const std::filesystem::path& file, const std::map<std::string, std::string>& settings) {
  const cts::json json = cts::parse_json(cts::read_text(file), file.string());
  const plan_object object(
      json, file.string(),
      {"title", "about", "arguments", "data", "budgets", "memories", "seeds", "ours", "multiples_of"});
  placeholders values{settings};
  study_plan plan{.title = object.text("title"),
                  .about = object.text_or_none("about"),
                  .ours = object.text("ours"),
                  .words = values.words(object.text_or_none("arguments"), object.where + ": 'arguments'"),
                  .data = parts_in(object, "data", {"name", "arguments"}, values),
                  .memories = parts_in(object, "memories", {"name", "arguments", "any_budget"}, values),
                  .budgets = budgets_in(object),
                  .seeds = seeds_in(object),
                  .rivals = {}};
  if (json.contains("multiples_of")) plan.rivals = object.texts("multiples_of");
  const auto check = [&](const char* key, const std::string& name) {
    const auto& m = plan.memories;
    const auto found = std::find_if(m.begin(), m.end(), [&](const auto& memory) { return memory.name == name; });
    cts::require(found != m.end(), object.where, ": '", key, "' names '", name, "', which is none of the memories");
    cts::require(!found->any_budget, object.where, ": '", key, "' names '", name,
                 "', which does not depend on the budget");
  };
  check("ours", plan.ours);
  for (const auto& rival : plan.rivals) {
    check("multiples_of", rival);
    cts::require(rival != plan.ours, object.where, ": 'multiples_of' names '", rival, "', which is 'ours' itself");
  }
  for (const auto& [name, value] : settings)
    cts::require(values.used.count(name) == 1, "--set ", name, "=", value, ": ", object.where, " has no ${", name, "}");
  return plan;
}

std::string study_run::title() const {
  return data + ", " + (budget.empty() ? "" : budget + ", ") + memory + ", seed " + std::to_string(seed);
}

std::string study_run::command() const {
  std::string line = "cts sequence";
  for (const auto& word : words) line += " " + shell_word(word);
  return line + " --out " + shell_word(arguments.out);
}

std::vector<study_run> runs_of(const study_plan& plan, const std::filesystem::path& out) {
  std::vector<study_run> runs;
  const auto add = [&](const study_part& data, const study_part& memory, const std::string& budget,
                       std::uint64_t seed) {
    study_run run{
        .data = data.name, .memory = memory.name, .budget = budget, .seed = seed, .words = plan.words, .arguments = {}};
    run.words.insert(run.words.end(), data.words.begin(), data.words.end());
    run.words.insert(run.words.end(), memory.words.begin(), memory.words.end());
    if (!budget.empty()) run.words.insert(run.words.end(), {"--budget", budget});
    run.words.insert(run.words.end(), {"--seed", std::to_string(seed)});
    try {
      const std::string size = budget.empty() ? "any" : folder_name(budget, "budget");
      parse_run(run, (out / "runs" / data.folder / size / memory.folder / std::to_string(seed)).string());
    } catch (const cts::Error& error) {
      cts::fail("the run ", run.title(), ": ", error.what());
    }
    runs.push_back(std::move(run));
  };
  for (const auto seed : plan.seeds) {
    for (const auto& data : plan.data) {
      for (const auto& budget : plan.budgets) {
        for (const auto& memory : plan.memories) {
          if (!memory.any_budget) add(data, memory, budget, seed);
        }
      }
      for (const auto& memory : plan.memories) {
        if (memory.any_budget) add(data, memory, "", seed);
      }
    }
  }
  return runs;
}

}  // namespace cts_command
