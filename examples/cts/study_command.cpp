// cts study: memories compared over budgets and seeds by a plan, which is repeated and resumed by one command.

#include <algorithm>
#include <cstdio>
#include <memory>

#include "core_tokensets/io/atomic_folder.hpp"
#include "study.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

struct study_arguments {
  std::string plan, out;
  std::vector<std::string> set;
  bool dry_run = false, overwrite = false, keep_files = false, progress = false;
};

std::map<std::string, std::string> settings_of(const std::vector<std::string>& texts) {
  std::map<std::string, std::string> settings;
  for (const auto& text : texts) {
    const auto equals = text.find('=');
    cts::require(equals != std::string::npos && equals > 0, "--set '", text, "': expected NAME=VALUE");
    cts::require(settings.emplace(text.substr(0, equals), text.substr(equals + 1)).second, "--set ",
                 text.substr(0, equals), " is there twice");
  }
  return settings;
}

/// Seconds as "42 s", "3:05 min" or "2:10 h".
std::string duration(double seconds) {
  const long all = static_cast<long>(seconds + 0.5), minutes = all / 60;
  const auto two = [](long n) { return (n < 10 ? ":0" : ":") + std::to_string(n); };
  if (all < 60) return std::to_string(all) + " s";
  return minutes < 60 ? std::to_string(minutes) + two(all % 60) + " min"
                      : std::to_string(minutes / 60) + two(minutes % 60) + " h";
}

/// Runs with what they left so far.
class running_study {
 public:
  running_study(const study_arguments& a, const study_plan& plan, std::vector<study_run> runs)
      : a_(a), plan_(plan), runs_(std::move(runs)) {
    for (auto& run : runs_) {
      run.arguments.quiet = !a_.progress, run.arguments.tells = false;
      outcomes_.push_back(outcome_on_disk(run, a_.overwrite));
    }
  }

  void run_all() {
    write();
    const auto before = std::count_if(outcomes_.begin(), outcomes_.end(), [](const auto& o) { return o.is_done(); });
    std::printf("%zu runs%s\n", runs_.size(),
                before > 0 ? (", " + std::to_string(before) + " done before").c_str() : "");
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      const bool done = outcomes_[i].is_done();
      if (!done) outcomes_[i] = execute(runs_[i]);
      if (!a_.keep_files) remove_large_files(runs_[i]);
      if (done) continue;
      tell(i);
      write();
    }
  }

  cts::json results() const { return study_json(plan_, runs_, outcomes_); }

 private:
  /// Mean time of the runs that are done and that `alike` holds for, less than 0 where there are none.
  template <class Alike>
  double mean_seconds(const Alike& alike) const {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      if (outcomes_[i].results && alike(runs_[i])) sum += outcomes_[i].seconds(), ++count;
    }
    return count > 0 ? sum / count : -1;
  }

  /// Time for what is left, by the memory where a run of it is done, otherwise by all.
  double seconds_left() const {
    double left = 0;
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      if (outcomes_[i].is_done()) continue;
      const study_run& run = runs_[i];
      double one = mean_seconds([&](const auto& r) { return r.data == run.data && r.memory == run.memory; });
      if (one < 0) one = mean_seconds([](const auto&) { return true; });
      left += std::max(one, 0.0);
    }
    return left;
  }

  void tell(std::size_t i) const {
    const study_outcome& o = outcomes_[i];
    const std::string what = o.results ? cts::fixed(100 * o.accuracy(), 1) + " %, " + duration(o.seconds())
                                       : "not possible: " + o.not_possible;
    const double left = seconds_left();
    std::printf("%zu of %zu  %s: %s%s\n", i + 1, runs_.size(), runs_[i].title().c_str(), what.c_str(),
                left > 0 ? (", about " + duration(left) + " left").c_str() : "");
    std::fflush(stdout);
  }

  /// After each run, so that an interrupted study has its page.
  void write() const {
    const cts::json study = results();
    const std::filesystem::path out = a_.out;
    cts::write_file(out / "study.json", std::string_view(study.dump(1)));
    cts::write_report(out / "study.html", study_page(study));
  }

  const study_arguments& a_;
  const study_plan& plan_;
  std::vector<study_run> runs_;
  std::vector<study_outcome> outcomes_;
};

/// A table with its columns under each other.
void print_table(const cts::report_table& table) {
  if (table.rows.empty()) return;
  std::vector<std::size_t> widths(table.header.size(), 0);
  auto lines = table.rows;
  lines.insert(lines.begin(), table.header);
  for (const auto& line : lines) {
    for (std::size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], cts::detail::text_length(line[c]));
  }
  std::printf("\n%s\n", table.caption.c_str());
  for (const auto& line : lines) {
    std::string text;
    for (std::size_t c = 0; c < line.size(); ++c)
      text += line[c] + std::string(widths[c] - cts::detail::text_length(line[c]) + 2, ' ');
    std::printf("  %s\n", text.substr(0, text.find_last_not_of(' ') + 1).c_str());
  }
}

void study(const study_arguments& a) {
  cts::require(!a.out.empty(), "--out '': expected a folder");
  const study_plan plan = read_plan(a.plan, settings_of(a.set));
  std::vector<study_run> runs = runs_of(plan, a.out);
  if (a.dry_run) {
    for (const auto& run : runs) std::printf("%s\n", run.command().c_str());
    return;
  }
  running_study all(a, plan, std::move(runs));
  const cts::output_folder folder(a.out);
  all.run_all();
  const cts::json results = all.results();
  for (const auto& data : results.at("data")) {
    const study_tables tables = tables_of(results, data);
    std::printf("\n%s\n", data.at("name").text().c_str());
    for (const auto* table : {&tables.accuracy, &tables.differences, &tables.multiples}) print_table(*table);
  }
  std::printf("\n%s: study.html, study.json\n", a.out.c_str());
}

}  // namespace

void add_study(CLI::App& app) {
  auto a = std::make_shared<study_arguments>();
  auto* c = app.add_subcommand("study", "compare memories over budgets and seeds by a plan; writes a page to DIR");
  c->add_option("plan", a->plan, "JSON file; docs/study.md describes it, examples/studies/ has some")->required();
  c->add_option("--out", a->out, "folder of the page and of all runs; goes on with what is there")->required();
  c->add_option("--set", a->set, "NAME=VALUE: what ${NAME} stands for in the plan; may be given several times")
      ->allow_extra_args(false);
  c->add_flag("--dry-run", a->dry_run, "print the command lines of all runs and do nothing");
  c->add_flag("--overwrite", a->overwrite, "run anew what was run with another command line");
  c->add_flag("--keep-files", a->keep_files, "keep model, memory and pictures of every run");
  c->add_flag("--progress", a->progress, "a progress line within each run, too");
  c->final_callback([a] { study(*a); });
}

}  // namespace cts_command
