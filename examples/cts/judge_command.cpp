// cts judge: attribution methods measured on pictures that were not trained on, beside chance.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include "commands.hpp"
#include "core_tokensets/data/boxes.hpp"
#include "core_tokensets/data/folder.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/scenes.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "judge.hpp"

namespace cts_command {

namespace cts = core_tokensets;

std::vector<listed_method> read_methods(const judge_arguments& a, const std::string& unless_given) {
  std::vector<listed_method> methods{{"random", cts::random_relevance{.seed = a.seed}}};
  std::stringstream list(a.methods.empty() ? unless_given : a.methods);
  for (std::string text; std::getline(list, text, ',');) {
    auto method = cts::parse_attribution(text);
    if (std::holds_alternative<cts::random_relevance>(method)) continue;
    methods.push_back({text, std::move(method)});
  }
  return methods;
}

nlohmann::json judged_json(const judge_arguments& a, const std::vector<listed_method>& methods,
                           const std::vector<cts::judgement>& judged, std::size_t samples, double right) {
  nlohmann::json result{
      {"weights", a.weights}, {"data", a.data},
      {"target", a.target},   {"missing", a.missing},
      {"samples", samples},   {"sanity_samples", std::min<std::ptrdiff_t>(a.sanity_samples, std::ptrdiff_t(samples))},
      {"steps", a.steps},     {"sets", a.sets},
      {"seed", a.seed},       {"explained_class_is_largest", right / static_cast<double>(samples)}};
  for (const auto& m : cts::judged_measures) {
    result["measures"][m.name] = {{"better", m.high_is_good ? "high" : "low"}, {"about", m.about}};
  }
  result["methods"] = nlohmann::json::array();
  for (std::size_t m = 0; m < methods.size(); ++m) {
    result["methods"].push_back({{"label", methods[m].label},
                                 {"method", cts::text_of(methods[m].method)},
                                 {"measures", cts::to_json(judged[m])}});
  }
  return result;
}

namespace {

using backend = cts::eigen_backend<float>;

/// The pictures to measure on, with masks of their objects where there are any: built-in scenes, or DIR/test or DIR/val
/// with DIR/boxes.csv.
cts::dataset read_pictures(const judge_arguments& a, const cts::vit_config& c) {
  const auto colon = a.data.find(':');
  const std::string kind = a.data.substr(0, colon), where = colon == std::string::npos ? "" : a.data.substr(colon + 1);
  cts::dataset data;
  if (kind == "scenes" && where.empty()) {
    const auto per_class = (a.samples + c.classes - 1) / c.classes;
    data = cts::scenes({.classes = c.classes,
                        .train_per_class = 1,
                        .test_per_class = per_class,
                        .image = c.image.height,
                        .seed = a.seed,
                        .threads = a.threads})
               .test;
  } else if (kind == "folder" && !where.empty()) {
    const std::filesystem::path dir(where);
    const std::string part = cts::test_part(dir);
    data = cts::load_class_folders(dir / part,
                                   {.size = c.image.height, .channels = c.image.channels, .threads = a.threads});
    cts::add_box_masks(data, dir, part, true);
  } else {
    cts::fail("--data '", a.data, "': expected scenes or folder:DIR");
  }
  if (!a.classes.empty()) data = cts::select_classes(data, cts::parse_class_range(a.classes));
  cts::require(data.classes() <= c.classes, "the data have ", data.classes(), " classes, the model ", c.classes,
               "; choose some with --classes");
  cts::check_pictures(data, c);
  return data;
}

nlohmann::json judge_classes(const judge_arguments& a, const cts::tensor_file& file) {
  const auto methods =
      read_methods(a, "attention,rollout,grad_cam,gradient_x_input,lrp,grad_lrp,generic_attention,atman_first_order");
  cts::judge_options o{.explained = cts::parse_target(a.target), .steps = a.steps, .sets = a.sets, .seed = a.seed};
  o.missing = a.missing == "zero" ? cts::missing_tokens::zero : cts::missing_tokens::drop;
  cts::set_default_threads(a.threads);
  backend b(a.threads);
  cts::vit_hints hints;
  if (a.heads > 0) hints.heads = a.heads;
  const auto model = cts::load_vit(b, file, hints);
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
    cts::make_batch(data, part, {.patch = c.patch, .threads = a.threads}, batch);
    std::vector<double> coverage;
    for (const auto i : part) {
      if (data.masks.empty()) break;
      const auto grid = std::span(batch.positions).first(static_cast<std::size_t>(c.patches()));
      const auto covered = cts::patch_coverage(data.mask_of(i), data.height, data.width, c.patch, grid);
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

  return judged_json(a, methods, judged, order.size(), right);
}

/// Methods as columns, what was measured as rows; a star marks the best mean.
std::string table_of(const nlohmann::json& result) {
  const auto& methods = result["methods"];
  std::ostringstream out;
  const auto put = [&](const std::string& text, std::size_t width) {
    out << std::string(width - std::min(width, text.size()), ' ') << text;
  };
  const auto width_of = [](const nlohmann::json& m) {
    return std::max<std::size_t>(11, m["label"].get_ref<const std::string&>().size() + 2);
  };
  out << "measure, better     ";
  for (const auto& m : methods) put(m["label"], width_of(m));
  for (const auto& measure : cts::judged_measures) {
    if (std::none_of(methods.begin(), methods.end(), [&](auto& m) { return m["measures"].contains(measure.name); }))
      continue;
    char cell[64];
    std::snprintf(cell, sizeof cell, "\n%-17s %s", measure.name, measure.high_is_good ? "up" : "dn");
    out << cell;
    double best = 0;
    bool any = false;
    for (const auto& m : methods) {
      if (!m["measures"].contains(measure.name)) continue;
      const double mean = m["measures"][measure.name]["mean"];
      best = !any ? mean : measure.high_is_good ? std::max(best, mean) : std::min(best, mean);
      any = true;
    }
    for (const auto& m : methods) {
      if (!m["measures"].contains(measure.name)) {
        put("- ", width_of(m));
        continue;
      }
      const double mean = m["measures"][measure.name]["mean"];
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
  c->add_option("--weights", a->weights, "model as safetensors under timm's names")->required();
  c->add_option("--heads", a->heads, "attention heads, where the file does not say");
  c->add_option("--data", a->data,
                "scenes, or folder:DIR (test/ or val/, and boxes.csv for the measures of place); for a model of "
                "answers sets as in cts sequence");
  c->add_option("--task", a->task, "what a model of answers is judged on: questions (vqa) or captions (caption)")
      ->check(CLI::IsMember({"vqa", "caption"}));
  c->add_option("--classes", a->classes, "A-B: pictures of these classes only, numbered from 0 as in training");
  c->add_option("--methods", a->methods, "names with their options, with commas between; random is always measured");
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
  c->add_option("--seed", a->seed, "of all random choices");
  c->add_option("--threads", a->threads, "0: as many as there are");
  c->add_flag("--quiet", a->quiet, "no progress line");
  c->add_option("--out", a->out, "table as JSON")->required();
  c->final_callback([a] {
    cts::check_writable(a->out);
    const auto file = cts::load_safetensors(a->weights);
    const auto result = file.metadata.contains("kind") ? judge_answers(*a, file) : judge_classes(*a, file);
    cts::write_file(a->out, std::string_view(text_of(result, 1)));
    std::printf("%s", table_of(result).c_str());
  });
}

}  // namespace cts_command
