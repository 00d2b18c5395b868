// What selection in two rounds loses against one: the distance from the mean gradient of all samples to that of those
// that were chosen, as a share of its length, with the best weights and with equal ones. On random evidence, and on
// that of a small Vision Transformer that has seen built-in pictures for some epochs.
//   bench_greedi --classes 10 --per-class 200 --epochs 10

#include "core_tokensets/selection/greedi.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/selection/random.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/consolidate.hpp"
#include "core_tokensets/train/fit.hpp"

namespace cts = core_tokensets;

namespace {

cts::evidence random_evidence(cts::index n, cts::index classes, cts::index features) {
  cts::random_stream random(1);
  std::vector<float> logits(static_cast<std::size_t>(n * classes)), feature(static_cast<std::size_t>(n * features));
  for (float& x : logits) x = static_cast<float>(random.normal());
  for (float& x : feature) x = static_cast<float>(random.normal());
  std::vector<std::int32_t> labels;
  for (cts::index i = 0; i < n; ++i) labels.push_back(static_cast<std::int32_t>(i % classes));
  return cts::make_evidence(logits, feature, labels, classes);
}

cts::evidence evidence_of_scenes(cts::index classes, cts::index per_class, cts::index epochs) {
  cts::eigen_backend<float> b;
  const auto data = cts::scenes({.classes = classes, .train_per_class = per_class, .test_per_class = 1}).train;
  cts::vit<cts::eigen_backend<float>> model(b, {.grid = {32, 32, 3, 8}, .dim = 64, .depth = 2, .heads = 4});
  cts::fit(b, model, cts::sample_view<cts::dataset>(data), {.epochs = epochs});
  return cts::detail::evidence_of(b, model, cts::sample_view<cts::dataset>(data));
}

struct distances {
  double best = 0, equal = 0;
};

distances distances_of(const cts::evidence& e, const std::vector<cts::index>& chosen) {
  std::vector<cts::index> all(static_cast<std::size_t>(e.samples));
  std::iota(all.begin(), all.end(), cts::index{0});
  const auto mean = cts::gradient_mean(e, all);
  const auto found = cts::match_gradient(e, chosen, mean, static_cast<cts::index>(chosen.size()), 1e-9);
  const std::vector<double> equal(chosen.size(), 1.0 / static_cast<double>(chosen.size()));
  return {found.residual / found.target_norm, cts::detail::residual_norm(e, chosen, equal, mean) / found.target_norm};
}

template <class Select>
void line(const char* of, const cts::evidence& judged, const cts::evidence& e, cts::index k, const Select& how) {
  const auto start = std::chrono::steady_clock::now();
  const auto chosen = select(how, e, k);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto d = distances_of(judged, chosen.indices);
  std::string text = text_of(how);
  text = text.substr(0, text.find(":lambda"));
  std::printf("%-22s k %4td  %-18s best weights %.4f  equal weights %.4f  %.3f s\n", of, k, text.c_str(), d.best,
              d.equal, seconds);
}

void compare(const char* of, const cts::evidence& e, const cts::grad_match& one, bool softened) {
  cts::evidence judged = e;
  if (softened) cts::soften(judged, one.temperature);
  for (const cts::index k : {20, 100}) {
    line(of, judged, e, k, one);
    for (const cts::index shards : {2, 4, 8, 16})
      line(of, judged, e, k, cts::greedi<>{.select = one, .shards = shards});
    line(of, judged, e, k, cts::random_selection{});
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"what selection in two rounds loses"};
  cts::index classes = 10, per_class = 200, epochs = 10;
  app.add_option("--classes", classes);
  app.add_option("--per-class", per_class);
  app.add_option("--epochs", epochs);
  CLI11_PARSE(app, argc, argv);
  const cts::grad_match paper{.per_class = false, .temperature = 1, .weighted = true}, usual;
  compare("random, the paper's", random_evidence(classes * per_class, classes, 64), paper, false);
  const auto e = evidence_of_scenes(classes, per_class, epochs);
  compare("scenes, the paper's", e, paper, false);
  compare("scenes, the default", e, usual, true);
}
