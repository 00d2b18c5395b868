// cts demo: every kind of memory on the built-in pictures, at the same bytes, with pictures of what was kept.

#include <cstdio>
#include <memory>

#include "sequence.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

cts::report_page page_of(const cts::json& runs, const std::vector<cts::report_figure>& figures) {
  cts::report_page page{.title = "Memories compared",
                        .subtitle =
                            "Ten classes of built-in pictures in five tasks of two; every memory has the same "
                            "bytes: whole pictures as raw pixels (coreset) or in the codec of the tokens "
                            "(coded-coreset), random tokens, relevant tokens of random or of chosen pictures. One "
                            "seed: differences of a few percent are noise."};
  cts::bar_chart chart{.bars = {}, .caption = "Accuracy over all ten classes after the last task", .unit = "%"};
  cts::report_table table{{"memory", "accuracy", "incremental", "forgetting", "bytes", "samples", "tokens"}};
  for (const auto& run : runs) {
    const auto name = run.at("config").at("memory").get<std::string>();
    const auto percent = [&](const char* key) { return 100 * run.at(key).get<double>(); };
    chart.bars.push_back({name, percent("average_accuracy"), 0, name == "core-tokenset"});
    std::vector<std::string> row{name};
    for (const char* key : {"average_accuracy", "average_incremental_accuracy", "forgetting"})
      row.push_back(cts::fixed(percent(key), 1) + " %");
    for (const char* key : {"memory_bytes", "memory_samples", "memory_tokens"})
      row.push_back(std::to_string(run.at(key).get<std::ptrdiff_t>()));
    table.rows.push_back(std::move(row));
  }
  page.sections.push_back({"Results", {std::move(chart), std::move(table)}});
  page.sections.push_back({"What was kept", {figures.begin(), figures.end()}});
  return page;
}

void demo(sequence_arguments a) {
  const std::filesystem::path out = a.out;
  const cts::output_folder folder(out);
  cts::require(!std::filesystem::exists(out / "results.json") || std::filesystem::exists(out / "heat-maps.png"), a.out,
               ": holds a run that is not of cts demo; choose another --out");
  a.out.clear();
  std::printf(
      "Ten classes of built-in pictures in five tasks of two, one after the other; every memory has %s of the\n"
      "bytes of the raw pictures. Chance is 10 %%.\n\n",
      a.budget.c_str());
  print_heading();
  cts::json runs = cts::json::array();
  std::vector<cts::report_figure> figures;
  for (const char* memory :
       {"none", "coreset", "coded-coreset", "random-tokens", "core-tokens", "core-tokenset", "joint"}) {
    a.memory = memory;
    auto outcome = run_sequence(a);
    print_line(memory, outcome.results);
    runs.push_back(std::move(outcome.results));
    if (a.memory == "core-tokenset") figures = std::move(outcome.figures);
  }
  cts::write_file(out / "heat-maps.png", figures.at(0).png);
  cts::write_file(out / "kept-tokens.png", figures.at(1).png);
  cts::write_file(out / "results.json", std::string_view(runs.dump(1)));
  cts::write_report(out / "report.html", page_of(runs, figures));
  std::printf("\n%s: report.html, results.json, kept-tokens.png, heat-maps.png\n", out.c_str());
}

}  // namespace

void add_demo(CLI::App& app) {
  auto a = std::make_shared<sequence_arguments>();
  a->budget = "0.005";
  a->patch = 8;
  a->coreset_price = "raw";
  a->dim = 64;
  a->depth = 3;
  a->heads = 2;
  a->fit.epochs = 10;
  a->optimiser = "adamw:learning_rate=0.002";
  a->out = "cts-demo";
  auto* c = app.add_subcommand("demo", "all memories on built-in pictures, in a few minutes");
  c->add_option("--out", a->out, "folder of the report and the pictures");
  add_seed(*c, a->fit.seed);
  c->add_option("--threads", a->threads, "0: as many as there are processors free");
  c->add_flag("--quiet", a->quiet, "no progress line");
  c->final_callback([a] { demo(*a); });
}

}  // namespace cts_command
