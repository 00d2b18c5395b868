#pragma once
// One run of the sequential loop as the command line describes it; shared by cts sequence and cts demo.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands.hpp"
#include "core_tokensets/core_tokensets.hpp"

namespace cts_command {

struct sequence_arguments {
  std::string task = "classify", data = "scenes", classes, memory = "core-tokenset", select = "grad_match",
              attribute = "grad_lrp", budget = "0.01", missing = "drop", replay_loss = "ace",
              token_drop_rule = "random", coreset_price = "source", weights, backend = "eigen", out;
  std::ptrdiff_t tasks = 5, per_class = 0, image = 0, patch = 4, dim = 96, depth = 4, heads = 0, epochs = 5, batch = 64;
  std::ptrdiff_t pictures = 0, test_pictures = 300, texts_per_picture = 4, text_depth = 2, vocabulary = 1024, beams = 1;
  std::ptrdiff_t shift = 2;
  double flip = -1;  ///< unless given: 0.5 for classes, 0 for text, where a mirror would turn left into right
  double keep = 0.25, token_drop = 0.75, token_drop_often = 0.5, learning_rate = 1e-3;
  std::uint64_t seed = 0;
  int threads = 0;
  bool resume = false, quiet = false;
};

/// What `cts sequence` writes to results.json, and pictures of it.
struct sequence_outcome {
  nlohmann::json results;
  std::vector<core_tokensets::report_figure>
      figures;  ///< relevance on test pictures, then kept tokens if there are any
};

/// Throws for what would be noticed late or never, and for sizes whose products would not fit a number.
void check(const sequence_arguments& a);

/// Attention heads of a fresh model.
std::ptrdiff_t heads_of(const sequence_arguments& a);

/// What stored weights may not say of themselves.
core_tokensets::vit_hints hints_of(const sequence_arguments& a);

/// The side of the pictures in pixels; 0: as they are, which pictures with text cannot be, since sets are mixed.
std::ptrdiff_t image_of(const sequence_arguments& a);

/// Everything that results depend on, as JSON: the `config` of the results, and what a checkpoint is recognised by. The
/// sizes are those of the model, since the command line may only name its weights, of which there is a checksum.
nlohmann::json config_of(const sequence_arguments& a, const core_tokensets::vit_config& model);

/// Reads scenes, folder:DIR, cifar:DIR or idx:DIR, then takes the classes and pictures that were asked for.
core_tokensets::dataset_split read_data(const sequence_arguments& a);

core_tokensets::fit_options fit_options_of(const sequence_arguments& a);

/// The options that a sequence of classes and one of texts have in common, of which all are checked.
template <class Options>
Options common_options_of(const sequence_arguments& a) {
  using namespace core_tokensets;
  check(a);
  Options o;
  o.memory = parse_memory_kind(a.memory);
  o.recipe = {parse_selection(a.select, a.seed), parse_attribution(a.attribute, 0, a.seed), a.keep};
  o.budget = parse_budget(a.budget);
  o.price = a.coreset_price == "raw" ? picture_price::raw : picture_price::source;
  o.fit = fit_options_of(a);
  o.token_drop = a.token_drop_rule == "random" ? token_drop_rule::random : token_drop_rule::memory;
  o.out = a.out;
  o.resume = a.resume;
  return o;
}

/// Writes model, memory, report and results.json to the folder `out`, the results last.
void write_results(const std::filesystem::path& out, const core_tokensets::tensor_file& model,
                   const core_tokensets::token_memory& memory, const sequence_outcome& outcome);

/// The same as `run_sequence` for questions and captions (`a.task` is vqa or caption).
sequence_outcome run_text_sequence(const sequence_arguments& a);

/// Learns the tasks; writes results, model, memory and report to `a.out` unless it is empty.
sequence_outcome run_sequence(const sequence_arguments& a);

void print_heading();
void print_line(const std::string& name, const nlohmann::json& results);

}  // namespace cts_command
