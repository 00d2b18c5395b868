#pragma once
// What cts sequence does on a backend for classes.

#include <filesystem>
#include <optional>

#include "core_tokensets/core_tokensets.hpp"
#include "sequence.hpp"

namespace cts_command {

namespace cts = core_tokensets;

/// Kept tokens and relevance as PNG files in memory, for the report and as files of their own.
template <class B>
std::vector<cts::report_figure> draw(B& b, const cts::vit<B>& model, const cts::task_stream& stream,
                                     const cts::sequence_runner<B>& runner, const std::string& method) {
  std::vector<cts::report_figure> figures;
  const cts::dataset& test = stream.data.test;
  std::vector<cts::index> shown;
  const cts::index count = std::min<cts::index>(12, stream.classes());
  for (cts::index k = 0; k < count; ++k) {
    const auto found = std::find(test.labels.begin(), test.labels.end(), k * stream.classes() / count);
    if (found != test.labels.end()) shown.push_back(found - test.labels.begin());
  }
  figures.push_back({cts::encode_png(cts::relevance_sheet(b, model, test, shown, {"rollout", method}, {})),
                     "Test pictures and how much each patch mattered for their class."});
  if (!runner.memory().empty()) {
    figures.push_back({cts::encode_png(cts::kept_tokens_sheet(runner.memory(), stream.data.train, runner.pictures())),
                       "Pictures of the memory, and the tokens that it keeps of them."});
  }
  return figures;
}

inline cts::sequence_options options_for_classes(const sequence_arguments& a) {
  auto o = common_options_of<cts::sequence_options>(a);
  o.frozen_start = !a.weights.empty();
  return o;
}

/// Learns the tasks; writes results, model, memory and report to `a.out` unless it is empty.
struct sequence_work {
  const sequence_arguments& a;
  sequence_outcome& outcome;

  template <class B>
  void operator()(B& b) const {
    const auto options = options_for_classes(a);  // bad names are told before any work is done
    std::optional<cts::output_folder> folder;
    if (!a.out.empty()) folder.emplace(a.out);
    const auto split = read_data(a);
    const auto stream = cts::class_incremental(split, {.tasks = a.tasks});
    const cts::dataset& train = stream.data.train;
    auto model = a.weights.empty() ? cts::vit<B>(b, {.image = {train.height, train.width, train.channels},
                                                     .patch = a.patch,
                                                     .dim = a.dim,
                                                     .depth = a.depth,
                                                     .heads = heads_of(a),
                                                     .classes = stream.seen_classes(0),
                                                     .seed = a.seed})
                                   : cts::load_vit(b, a.weights, hints_of(a));
    const auto config = config_of(a, model.config());
    cts::sequence_runner<B> runner(b, model, stream, options, text_of(config));
    outcome = {cts::to_json(runner.run()), {}};
    outcome.results["config"] = config;
    outcome.results["class_names"] = train.class_names;
    outcome.figures = draw(b, model, stream, runner, a.attribute);
    if (!a.out.empty()) write_results(a.out, cts::to_file(b, model), runner.memory(), outcome);
  }
};

}  // namespace cts_command
