// Images a second of a ViT: training step, inference, and replay of a tenth of the tokens; one JSON line each. The
// cases and the protocol are those of the PyTorch script beside which it is run (docs/benchmarks.md).
//   bench_vit [case,case...] [repeats] [threads]

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "core_tokensets/core_tokensets.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

struct bench_case {
  const char* name;
  cts::vit_config config;
  int batch;
};

const bench_case cases[] = {
    {"c32", {.image = {32, 32, 3}, .patch = 4, .dim = 192, .depth = 6, .heads = 3, .classes = 10}, 64},
    {"t64", {.image = {64, 64, 3}, .patch = 8, .dim = 192, .depth = 6, .heads = 3, .classes = 100}, 64},
    {"ti16", {.image = {224, 224, 3}, .patch = 16, .dim = 192, .depth = 12, .heads = 3, .classes = 1000}, 8},
    {"s16", {.image = {224, 224, 3}, .patch = 16, .dim = 384, .depth = 12, .heads = 6, .classes = 1000}, 8},
    {"b16", {.image = {224, 224, 3}, .patch = 16, .dim = 768, .depth = 12, .heads = 12, .classes = 1000}, 4},
};

/// A batch of noise that keeps each patch with probability `keep`.
cts::token_batch noise(const cts::vit_config& c, int samples, double keep) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.patch_dim();
  for (int s = 0; s < samples; ++s) {
    for (cts::index k = 0; k < c.patches(); ++k) {
      if (random.uniform() >= keep) continue;
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(random.below(c.classes)));
  }
  return batch;
}

template <class Job>
void measure(const bench_case& c, const char* work, int repeats, int threads, const Job& job) {
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 2; ++i) {
    const auto start = std::chrono::steady_clock::now();
    job();
    if (i >= 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  std::printf("{\"case\": \"%s\", \"work\": \"%s\", \"threads\": %d, \"images_per_s\": %.2f, \"median_ms\": %.2f}\n",
              c.name, work, threads, c.batch / median, median * 1e3);
  std::fflush(stdout);
}

void run(const bench_case& c, int repeats, int threads) {
  backend b(threads);
  cts::vit<backend> model(b, c.config);
  cts::vit_tape<backend> tape, inference;
  inference.keep = cts::kept::logits;
  cts::tensor<backend> gradients(b, 1, model.parameters().size()), dtokens;
  cts::loss_tape<backend> loss;
  cts::optimiser_state<backend> state;
  state.reset(b, model.layout().parameters);
  const auto train = [&](const cts::token_batch& batch) {
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, loss);
    b.fill(*gradients, 0.0f);
    cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
    cts::step(b, cts::adamw{.learning_rate = 1e-4, .weight_decay = 0.01}, state, model.parameters(), gradients);
  };
  const auto whole = noise(c.config, c.batch, 1), tenth = noise(c.config, c.batch, 0.1);
  measure(c, "train", repeats, b.threads(), [&] { train(whole); });
  measure(c, "forward", repeats, b.threads(), [&] { cts::forward(b, model, whole, inference); });
  measure(c, "replay", repeats, b.threads(), [&] { train(tenth); });
  cts::attribution_workspace<backend> workspace;
  measure(c, "rollout", repeats, b.threads(),
          [&] { cts::attribute(cts::rollout{}, b, model, whole, whole.targets, workspace); });
  measure(c, "grad_lrp", repeats, b.threads(),
          [&] { cts::attribute(cts::grad_lrp{}, b, model, whole, whole.targets, workspace); });
}

}  // namespace

int main(int argc, char** argv) {
  std::stringstream names(argc > 1 ? argv[1] : "c32,ti16");
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 7, threads = argc > 3 ? std::atoi(argv[3]) : 0;
  for (std::string name; std::getline(names, name, ',');) {
    bool found = false;
    for (const bench_case& c : cases) {
      if (name != c.name) continue;
      found = true;
      run(c, repeats, threads);
    }
    if (!found) {
      std::fprintf(stderr, "bench_vit: no case is named '%s'; there are c32, t64, ti16, s16, b16\n", name.c_str());
      return 2;
    }
  }
}
