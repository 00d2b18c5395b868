// What working together costs, on rank 0 of however many: milliseconds of a sum over ranks for numbers of floats (the
// fastest of some rounds), and of a training step. Beside the steps of one process with as many pieces these say what
// sharing them brings. With --threads each process has so many.
//   mpirun -n 2 bench_ranks --pieces 4 --threads 1

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "core_tokensets/core/mpi.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/fit.hpp"

namespace cts = core_tokensets;

namespace {

double milliseconds(std::chrono::steady_clock::time_point since) {
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

void time_sums(const cts::team& ranks) {
  for (const std::size_t n : {1u, 10'000u, 100'000u, 1'000'000u, 10'000'000u}) {
    std::vector<float> values(n, 1.0f);
    double fastest = 1e300;
    for (int round = 0; round < 20; ++round) {
      ranks.wait("getting ready");
      const auto start = std::chrono::steady_clock::now();
      ranks.all_reduce(std::span(values), "adding");
      fastest = std::min(fastest, milliseconds(start));
    }
    if (ranks.leads()) std::printf("sum of %8zu floats over %d ranks: %8.3f ms\n", n, ranks.size(), fastest);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"what working together costs"};
  cts::index pieces = 4, dim = 192, depth = 6, patch = 4, batch = 64, steps = 20;
  int threads = 1;
  app.add_option("--pieces", pieces);
  app.add_option("--dim", dim);
  app.add_option("--depth", depth);
  app.add_option("--patch", patch);
  app.add_option("--batch", batch);
  app.add_option("--steps", steps);
  app.add_option("--threads", threads);
  CLI11_PARSE(app, argc, argv);
  const cts::team ranks{cts::mpi()};
  if (!ranks.alone()) time_sums(ranks);
  cts::eigen_backend<float> b(threads);
  const auto data = cts::scenes({.classes = 4, .train_per_class = batch * steps / 4, .test_per_class = 1}).train;
  cts::vit<cts::eigen_backend<float>> model(b, {.grid = {32, 32, 3, patch}, .dim = dim, .depth = depth, .heads = 3});
  std::vector<double> times;
  auto last = std::chrono::steady_clock::now();
  cts::fit_options o{.epochs = 1, .batch = batch, .token_drop = 0, .ranks = ranks, .pieces = pieces};
  o.on_progress = [&](const cts::progress&) {
    times.push_back(milliseconds(last));
    last = std::chrono::steady_clock::now();
  };
  cts::fit(b, model, cts::sample_view<cts::dataset>(data), o);
  std::sort(times.begin(), times.end());
  if (ranks.leads())
    std::printf(
        "%td parameters, %td pictures a step, %td pieces, %d ranks, %d threads: %.1f ms a step (median; fastest "
        "%.1f)\n",
        model.parameters().size(), batch, pieces, ranks.size(), threads, times[times.size() / 2], times[0]);
}
