#pragma once
// A study: memories compared over budgets and seeds, where each run is a command line of cts sequence.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core_tokensets/io/json.hpp"
#include "core_tokensets/report/page.hpp"
#include "core_tokensets/report/table.hpp"
#include "sequence.hpp"

namespace cts_command {

/// A data set or a memory of a plan: what it adds to the command line.
struct study_part {
  std::string name, folder;  ///< folder: the name as part of a path
  std::vector<std::string> words;
  bool any_budget = false;  ///< the memory does not depend on the budget
};

/// What a plan file says, with its placeholders filled.
struct study_plan {
  std::string title, about, ours;
  std::vector<std::string> words;  ///< of all runs
  std::vector<study_part> data, memories;
  std::vector<std::string> budgets;
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> rivals;  ///< memories of which multiples are computed
};

/// Reads a plan and fills `${NAME}` from `settings`. `Error` that names the file and the row: an unknown key, another
/// type, a name twice, a placeholder without a setting, a setting without a placeholder.
study_plan read_plan(const std::filesystem::path& file, const std::map<std::string, std::string>& settings);

/// One run. `budget` is empty where the memory does not depend on it.
struct study_run {
  std::string data, memory, budget;
  std::uint64_t seed = 0;
  std::vector<std::string> words;  ///< the command line behind `cts sequence`, without --out
  sequence_arguments arguments;    ///< the same, parsed
  bool stale = false;              ///< its folder holds a run of another command line, which gives way

  /// "scenes, 16KiB, core tokenset, seed 0".
  std::string title() const;
  /// The whole command line, for a shell.
  std::string command() const;
};

/// All runs of a plan, parsed and checked, those of the first seed first. `Error` that names the run: a command line
/// that `cts sequence` would refuse, options that the study sets itself.
std::vector<study_run> runs_of(const study_plan& plan, const std::filesystem::path& out);

/// What a run left: nothing yet, results, or why its budget holds nothing.
struct study_outcome {
  std::optional<core_tokensets::json> results;
  std::string not_possible;

  bool is_done() const { return results || !not_possible.empty(); }
  double accuracy() const { return results->at("average_accuracy").get<double>(); }
  double bytes() const { return results->at("memory_bytes").get<double>(); }
  double seconds() const;  ///< of all work; 0 where it was not possible
};

/// Looks what is in the folder of a run. `Error` unless `overwrite`: files of another command line.
study_outcome outcome_on_disk(study_run& run, bool overwrite);
/// Runs, or goes on where it was interrupted. `Error` that names the command line: anything but a budget that holds
/// nothing.
study_outcome execute(const study_run& run);
/// Leaves of a run that is done its results and a page without pictures.
void remove_large_files(const study_run& run);

/// Everything about the study: runs with their results, and what follows from them.
core_tokensets::json study_json(const study_plan& plan, const std::vector<study_run>& runs,
                                const std::vector<study_outcome>& outcomes);
/// Tables of one data set of a study: accuracies, differences, multiples (no rows: none asked for).
struct study_tables {
  core_tokensets::report_table accuracy, differences, multiples;
};
study_tables tables_of(const core_tokensets::json& study, const core_tokensets::json& data);
core_tokensets::report_page study_page(const core_tokensets::json& study);

}  // namespace cts_command
