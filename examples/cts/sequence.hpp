#pragma once
// One run of the sequential loop as the command line describes it; shared by cts sequence and cts demo.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/report/page.hpp"
#include "core_tokensets/train/learner.hpp"
#include "data.hpp"

namespace cts_command {

/// The kinds of memory: names, what they keep, and whether they are for texts, too.
struct memory_kind {
  const char *name, *about;
  bool texts;
};
inline constexpr memory_kind memory_kinds[] = {
    {"none", "nothing is remembered", true},
    {"coreset", "whole pictures of the samples that --select chooses, as the files that they came as", true},
    {"coded-coreset", "whole pictures of the samples that --select chooses, in --codec", true},
    {"random-tokens", "random tokens of random samples: the control", true},
    {"core-tokens", "of random samples the tokens that --rule keeps by --attribute", true},
    {"core-tokenset", "of the samples that --select chooses the tokens that --rule keeps by --attribute", true},
    {"auto-tokenset", "as core-tokenset; how many tokens and how sharp is chosen by their worth and price", false},
    {"joint", "all data of all tasks: the upper bound", true},
    {"ncm", "no training after the first task: nearest class mean on its features", false},
    {"ridge", "no training after the first task: ridge regression on its features", false}};

/// Whether a kind of memory keeps samples, so that a budget limits it.
inline bool keeps_samples(const std::string& memory) {
  return memory != "none" && memory != "joint" && memory != "ncm" && memory != "ridge";
}

/// Options whose defaults are the library's are taken from there.
struct sequence_arguments {
  core_tokensets::fit_options fit = {};
  core_tokensets::core_tokenset<> recipe = {};
  std::string task = "classify", data = "scenes", classes, order, memory = "core-tokenset", select, attribute, rule,
              codec, objective, optimiser, budget = "0.01", coreset_price = "source", weights, backend = "eigen", out;
  std::ptrdiff_t tasks = 5, first = 0, increment = 0, per_class = 0, image = 0, patch = 4, dim = 96, depth = 4,
                 heads = 0;
  std::ptrdiff_t pictures = 0, test_pictures = 300, text_depth = 2, vocabulary = 1024, beams = 1;
  int threads = 0;
  double save_every = core_tokensets::checkpoint_options{}.seconds;
  bool resume = false, overwrite = false, quiet = false, diagnose = false, skip_damaged = false;
  bool tells = true;  ///< what was read is printed; a study reads the same many times
};

/// What `cts sequence` writes to results.json, and pictures of it.
struct sequence_outcome {
  core_tokensets::json results;
  std::vector<core_tokensets::report_figure>
      figures;  ///< relevance on test pictures, then kept tokens if there are any
};

/// Adds all options of `cts sequence` to a command; where one is given several times the last counts.
void add_sequence_options(CLI::App& command, sequence_arguments& a);

/// Throws for what would be noticed late or never, and for sizes whose products would not fit a number.
void check(const sequence_arguments& a);
/// The same for all that can be told without reading the data: names of all parts, files and folders that are missing.
void check_run(const sequence_arguments& a);

task_kind task_of(const sequence_arguments& a);
/// Attention heads of a fresh model.
std::ptrdiff_t heads_of(const sequence_arguments& a);
/// What of the data is read.
data_request request_of(const sequence_arguments& a);
/// How classes become tasks.
core_tokensets::class_incremental_options task_options_of(const sequence_arguments& a);
/// The options of the learner.
core_tokensets::learner_options learner_options_of(const sequence_arguments& a);

/// Everything that was asked for, as the `config` of the results. The sizes are those of the model, since the command
/// line may only name its weights.
core_tokensets::json config_of(const sequence_arguments& a, const core_tokensets::vit_config& model);

/// Writes model, memory, report and results.json to the folder `out`, the results last.
void write_results(const std::filesystem::path& out, const core_tokensets::tensor_file& model,
                   const core_tokensets::token_memory& memory, const sequence_outcome& outcome);

/// Learns the tasks on the backend that was asked for; writes results, model, memory and report to `a.out` unless it is
/// empty.
sequence_outcome run_sequence(const sequence_arguments& a);

/// Says what was read, what was left out and which classes cannot be measured, before any work is done.
void tell_pictures(const core_tokensets::dataset& train, const core_tokensets::dataset& test);
/// The same for the results.
void add_pictures(core_tokensets::json& results, const core_tokensets::dataset& train,
                  const core_tokensets::dataset& test);
/// The classes that are measured in other tasks and not in this one, by the names of tasks: {"sketches": ["cow"]}.
core_tokensets::json not_measured_in_tasks(const core_tokensets::task_stream& stream);
void tell_not_measured(const core_tokensets::json& classes_in_tasks);

void print_heading();
void print_line(const std::string& name, const core_tokensets::json& results);

}  // namespace cts_command
