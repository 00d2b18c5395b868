// GradMatch on many samples, one JSON line each: seconds, the most memory that the program had, and what the evidence
// and the Gram columns of the chosen samples must take of it. Class by class, and all classes at once, which keeps a
// column of all samples for each that is chosen.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "machine.hpp"

namespace cts = core_tokensets;

namespace {

/// Samples of a model that knows its classes a little: features around a mean of each class, logits towards it.
cts::evidence noise(cts::index samples, cts::index classes, cts::index features) {
  std::vector<float> means(static_cast<std::size_t>(classes * features));
  cts::random_stream of_means(1);
  for (float& x : means) x = static_cast<float>(of_means.normal());
  std::vector<std::int32_t> labels;
  for (cts::index i = 0; i < samples; ++i) labels.push_back(static_cast<std::int32_t>(i % classes));
  auto e = cts::empty_evidence(classes, features, labels);
  std::vector<float> logits(static_cast<std::size_t>(classes)), feature(static_cast<std::size_t>(features));
  for (cts::index i = 0; i < samples; ++i) {
    cts::random_stream random(2, static_cast<std::uint64_t>(i));
    const cts::index k = i % classes;
    for (cts::index f = 0; f < features; ++f)
      feature[static_cast<std::size_t>(f)] =
          means[static_cast<std::size_t>(k * features + f)] + static_cast<float>(random.normal());
    for (cts::index c = 0; c < classes; ++c)
      logits[static_cast<std::size_t>(c)] = static_cast<float>(random.normal() + (c == k ? 3 : 0));
    cts::fill_row(e, i, logits, feature, k);
  }
  return e;
}

double peak_mib() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_maxrss) / 1024;
}

}  // namespace

int main(int argc, char** argv) {
  cts::index samples = 100'000, classes = 100, features = 192, chosen = 1000;
  CLI::App app{"seconds and memory of GradMatch"};
  app.add_option("--samples", samples)->check(CLI::PositiveNumber);
  app.add_option("--classes", classes)->check(CLI::PositiveNumber);
  app.add_option("--features", features)->check(CLI::PositiveNumber);
  app.add_option("--chosen", chosen)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  const auto e = noise(samples, classes, features);
  const auto mib = [](cts::index numbers, cts::index bytes) {
    return static_cast<double>(numbers * bytes) / (1024 * 1024);
  };
  const double evidence = mib(samples * classes, 8) + mib(samples * features, 4);
  for (const bool per_class : {true, false}) {
    cts::selection_result found;
    const double seconds = bench::least_seconds(1, [&] {
      found = select(cts::grad_match{.per_class = per_class, .temperature = 1, .weighted = true}, e, chosen);
    });
    const double columns = mib(per_class ? samples / classes * (chosen / classes) : samples * chosen, 4);
    std::printf(
        "{\"samples\": %td, \"classes\": %td, \"features\": %td, \"per_class\": %s, \"chosen\": %zu, "
        "\"seconds\": %.2f, \"evidence_mib\": %.0f, \"columns_mib\": %.0f, \"peak_mib\": %.0f}\n",
        samples, classes, features, per_class ? "true" : "false", found.indices.size(), seconds, evidence, columns,
        peak_mib());
    std::fflush(stdout);
  }
}
