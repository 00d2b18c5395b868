// cts judge: attribution methods measured on pictures that were not trained on, beside chance.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include "busy_machine.hpp"
#include "commands.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/readers/boxes.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/evaluate.hpp"
#include "data.hpp"
#include "judge.hpp"

namespace cts_command {

namespace cts = core_tokensets;

std::vector<listed_method> read_methods(const judge_arguments& a, const std::string& unless_given) {
  const auto chance = [](const std::string& text) {
    return text.substr(0, text.find(':')) == cts::random_relevance::name;
  };
  std::vector<listed_method> methods{
      {"random", method_named<judge_backend>(cts::text_of(cts::random_relevance{.seed = a.seed}))}};
  std::stringstream list(a.methods.empty() ? unless_given : a.methods);
  for (std::string text; std::getline(list, text, ',');) {
    if (!chance(text)) methods.push_back({text, method_named<judge_backend>(text)});
  }
  return methods;
}

cts::json judged_json(const judge_arguments& a, const std::vector<listed_method>& methods,
                      const std::vector<cts::judgement>& judged, std::size_t samples, double right) {
  cts::json result{
      {"weights", a.weights}, {"data", a.data},
      {"target", a.target},   {"missing", a.missing},
      {"samples", samples},   {"sanity_samples", std::min<std::ptrdiff_t>(a.sanity_samples, std::ptrdiff_t(samples))},
      {"steps", a.steps},     {"sets", a.sets},
      {"seed", a.seed},       {"explained_class_is_largest", right / static_cast<double>(samples)}};
  for (const auto& m : cts::judged_measures) {
    result["measures"][m.name] = {{"better", m.high_is_good ? "high" : "low"}, {"about", m.about}};
  }
  result["methods"] = cts::json::array();
  for (std::size_t m = 0; m < methods.size(); ++m) {
    result["methods"].push_back({{"label", methods[m].label},
                                 {"method", cts::text_of(methods[m].method)},
                                 {"measures", cts::to_json(judged[m])}});
  }
  return result;
}

namespace {

using backend = judge_backend;

/// The pictures to measure on, with masks of their objects where there are any.
cts::dataset read_pictures(const judge_arguments& a, const cts::vit_config& c) {
  const bool sized = a.data.rfind("scenes", 0) == 0 || a.data.rfind("folder", 0) == 0;
  auto data = read_test_pictures({.sets = a.data,
                                  .classes = a.classes,
                                  .image = sized ? c.grid.height : 0,
                                  .channels = c.grid.channels,
                                  .per_class = 1,
                                  .test_per_class = (a.samples + c.classes - 1) / c.classes,
                                  .scene_classes = c.classes,
                                  .seed = a.seed,
                                  .threads = a.threads,
                                  .skip_damaged = a.skip_damaged});
  if (data.reading.read > 0) std::printf("%s\n", cts::text_of(data.reading).c_str());
  cts::require(data.classes() <= c.classes, "the data have ", data.classes(), " classes, the model ", c.classes,
               "; choose some with --classes");
  cts::check_pictures(data, c);
  return data;
}

cts::json judge_classes(const judge_arguments& a, const cts::tensor_file& file) {
  const auto methods =
      read_methods(a, "attention,rollout,grad_cam,gradient_x_input,lrp,grad_lrp,generic_attention,atman_first_order");
  cts::judge_options o{.explained = cts::parse_target(a.target), .steps = a.steps, .sets = a.sets, .seed = a.seed};
  o.missing = a.missing == "zero" ? cts::missing_tokens::zero : cts::missing_tokens::drop;
  cts::set_default_threads(a.threads);
  backend b(a.threads);
  cts::vit_hints hints;
  if (a.heads > 0) hints.heads = a.heads;
  const auto weights = cts::read_vit(file, hints);
  for (const auto& note : weights.notes) std::printf("weights: %s\n", note.c_str());
  const auto model = cts::load_vit(b, weights);
  const auto& c = model.config();
  const auto data = read_pictures(a, c);
  auto order = cts::random_stream(a.seed, 0x6a75646765).permutation(data.n());
  order.resize(std::min<std::size_t>(order.size(), static_cast<std::size_t>(a.samples)));

  std::vector<cts::judgement> judged(methods.size());
  cts::attribution_workspace<backend> ws;
  double right = 0;
  for (std::size_t begin = 0; begin < order.size();) {
    const bool sanity = static_cast<std::ptrdiff_t>(begin) < a.sanity_samples;
    const auto most = sanity ? std::min(a.batch, a.sanity_samples - static_cast<std::ptrdiff_t>(begin)) : a.batch;
    const std::size_t count = std::min(order.size() - begin, static_cast<std::size_t>(most));
    const auto part = std::span(order).subspan(begin, count);
    cts::token_batch batch;
    cts::make_batch(data, part, c, batch);
    std::vector<double> coverage;
    for (const auto i : part) {
      if (data.masks.empty()) break;
      const auto grid = std::span(batch.positions).first(static_cast<std::size_t>(c.grid.tokens()));
      const auto covered = cts::patch_coverage(data.mask_of(i), data.height, data.width, c.grid.patch, grid);
      coverage.insert(coverage.end(), covered.begin(), covered.end());
    }
    cts::measured_batch<backend> measured(b, model, batch, o.explained);
    for (const auto& whole : measured.whole) right += whole.right ? 1 : 0;
    for (std::size_t m = 0; m < methods.size(); ++m) {
      cts::judge(methods[m].method, b, model, measured, coverage, sanity, o, ws, judged[m]);
      if (!a.quiet)
        std::fprintf(stderr, "\r%zu of %zu pictures, %zu of %zu methods ", begin + count, order.size(), m + 1,
                     methods.size());
    }
    begin += count;
  }
  if (!a.quiet) std::fprintf(stderr, "\n");

  auto result = judged_json(a, methods, judged, order.size(), right);
  if (data.reading.read > 0) result["pictures"] = cts::to_json(data.reading);
  return result;
}

/// Methods as columns, what was measured as rows; a star marks the best mean.
std::string table_of(const cts::json& result) {
  const auto& methods = result["methods"];
  std::ostringstream out;
  const auto put = [&](const std::string& text, std::size_t width) {
    out << std::string(width - std::min(width, text.size()), ' ') << text;
  };
  const auto width_of = [](const cts::json& m) { return std::max<std::size_t>(11, m["label"].text().size() + 2); };
  out << "measure, better     ";
  for (const auto& m : methods) put(m["label"].text(), width_of(m));
  for (const auto& measure : cts::judged_measures) {
    const auto mean_of = [&](const cts::json& m) {  // null where it was not measured, or is not finite
      const cts::json* measured = m["measures"].find(measure.name);
      return measured == nullptr ? cts::json() : (*measured)["mean"];
    };
    if (std::none_of(methods.begin(), methods.end(), [&](auto& m) { return m["measures"].contains(measure.name); }))
      continue;
    char cell[64];
    std::snprintf(cell, sizeof cell, "\n%-17s %s", measure.name, measure.high_is_good ? "up" : "dn");
    out << cell;
    double best = 0;
    bool any = false;
    for (const auto& m : methods) {
      if (mean_of(m).is_null()) continue;
      const auto mean = mean_of(m).get<double>();
      best = !any ? mean : measure.high_is_good ? std::max(best, mean) : std::min(best, mean);
      any = true;
    }
    for (const auto& m : methods) {
      if (mean_of(m).is_null()) {
        put("- ", width_of(m));
        continue;
      }
      const auto mean = mean_of(m).get<double>();
      std::snprintf(cell, sizeof cell, "%.4f%c", mean, mean == best ? '*' : ' ');
      put(cell, width_of(m));
    }
  }
  return out.str() + "\n";
}

}  // namespace

void add_judge(CLI::App& app) {
  auto a = std::make_shared<judge_arguments>();
  auto* c = app.add_subcommand("judge", "measure attribution methods; writes a table, and JSON to FILE");
  c->add_option("--weights", a->weights,
                "model as safetensors or its folder, timm's or Hugging Face's; cts info --weights says what it is")
      ->required();
  c->add_option("--heads", a->heads, "attention heads, where the file does not say");
  c->add_option("--data", a->data,
                "scenes, or folder:DIR (test/ or val/, and boxes.csv for the measures of place); for a model of "
                "answers sets as in cts sequence");
  c->add_option("--task", a->task, "what a model of answers is judged on: questions (vqa) or captions (caption)")
      ->check(CLI::IsMember({"vqa", "caption"}));
  c->add_option("--classes", a->classes, "A-B: pictures of these classes only, numbered from 0 as in training");
  c->add_option("--methods", a->methods,
                "names with their options, with commas between; random is always measured; see below");
  c->footer(methods_help());
  c->add_option(
      "--target", a->target,
      "argmax, label, class:K, loss, margin or margin:A,B; for answers argmax (what the model writes) or label");
  c->add_option("--missing", a->missing, "what a token is that was taken away: drop or zero")
      ->check(CLI::IsMember({"drop", "zero"}));
  c->add_option("--samples", a->samples, "pictures, drawn at random")->check(CLI::PositiveNumber);
  c->add_option("--sanity-samples", a->sanity_samples, "of these, for the checks that explain many times over");
  c->add_option("--batch", a->batch, "pictures at a time")->check(CLI::PositiveNumber);
  c->add_option("--steps", a->steps, "points of the deletion curves")->check(CLI::PositiveNumber);
  c->add_option("--sets", a->sets, "random sets of tokens of a picture")->check(CLI::PositiveNumber);
  add_seed(*c, a->seed);
  c->add_option("--threads", a->threads, "0: as many as there are processors free");
  c->add_flag("--skip-damaged", a->skip_damaged, "folder: go on without files that cannot be read, and count them");
  c->add_flag("--quiet", a->quiet, "no progress line");
  c->add_option("--out", a->out, "table as JSON")->required();
  c->final_callback([a] {
    cts::check_writable(a->out);
    const auto file = cts::load_weights(a->weights);
    a->threads = threads_for(a->threads, a->quiet);
    const auto result = file.metadata.contains("kind") ? judge_answers(*a, file) : judge_classes(*a, file);
    cts::write_file(a->out, std::string_view(result.dump(1)));
    std::printf("%s", table_of(result).c_str());
  });
}

}  // namespace cts_command
