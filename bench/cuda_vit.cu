// bench/vit.cpp on a CUDA device: images a second of a ViT, training step, inference, replay of a tenth of the tokens
// and attributions, one JSON line each, and which share of the device's measured matrix rate the matrix products reach.
//   bench_cuda_vit [case,case...] [repeats] [f32|tf32|bf16] [batch, 0: the case's own] [graphs: 1 or 0]

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/cuda.hpp"

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;

namespace {

using cts::index;

struct bench_case {
  const char* name;
  cts::vit_config config;
  int batch;
};

const bench_case cases[] = {
    {"c32", {.grid = {32, 32, 3, 4}, .dim = 192, .depth = 6, .heads = 3, .classes = 10}, 64},
    {"t64", {.grid = {64, 64, 3, 8}, .dim = 192, .depth = 6, .heads = 3, .classes = 100}, 64},
    {"ti16", {.grid = {224, 224, 3, 16}, .dim = 192, .depth = 12, .heads = 3, .classes = 1000}, 8},
    {"s16", {.grid = {224, 224, 3, 16}, .dim = 384, .depth = 12, .heads = 6, .classes = 1000}, 8},
    {"b16", {.grid = {224, 224, 3, 16}, .dim = 768, .depth = 12, .heads = 12, .classes = 1000}, 4},
};

struct settings {
  int repeats = 7, batch = 0;
  cts::cuda::arithmetic arithmetic = cts::cuda::arithmetic::tf32;
  std::string dtype = "tf32";
  bool graphs = true;
};

/// A batch of noise that keeps each patch with probability `keep`.
cts::token_batch noise(const cts::vit_config& c, int samples, double keep) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.grid.patch_dim();
  for (int s = 0; s < samples; ++s) {
    for (cts::index k = 0; k < c.grid.tokens(); ++k) {
      if (random.uniform() >= keep) continue;
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(random.below(c.classes)));
  }
  return batch;
}

/// Median of the seconds that `job` takes until the device is done, of `repeats` runs or as many as a second holds,
/// three at least, after runs that do not count: three, as the first allocates and the next two find the work the same
/// and make its graph, and a fifth of a second, for the clocks.
template <class Job>
double seconds_of(backend& b, int repeats, const Job& job) {
  using clock = std::chrono::steady_clock;
  const auto since = [](clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); };
  std::vector<double> seconds;
  const auto first = clock::now();
  double counted = 0;
  for (int warm_ups = 0; static_cast<int>(seconds.size()) < (counted > 1 ? std::min(repeats, 3) : repeats);) {
    b.synchronise();
    const bool warm = warm_ups >= 3 && since(first) >= 0.2;
    const auto start = clock::now();
    job();
    b.synchronise();
    warm ? seconds.push_back(since(start)) : void(++warm_ups);
    if (warm) counted += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

/// Operations a second of a large product, 20 of them in a row.
double matrix_rate(backend& b) {
  constexpr cts::index n = 8192;
  cts::tensor<backend> x(b, n, n), w(b, n, n), y(b, n, n);
  std::vector<float> numbers(static_cast<std::size_t>(n * n));
  cts::random_stream random(1);
  for (float& v : numbers) v = static_cast<float>(random.uniform(-1, 1));
  x.assign(b, n, n, numbers.data());
  w.assign(b, n, n, numbers.data());
  const double seconds = seconds_of(b, 5, [&] {
    for (int i = 0; i < 20; ++i) b.gemm(*x, *w, *y, {.transpose_b = true});
  });
  return 20 * 2.0 * double(n) * double(n) * double(n) / seconds;
}

/// Multiplications and additions in the matrix products of a forward pass over whole pictures, attention included, as
/// if all blocks were computed for all tokens.
double forward_operations(const cts::vit_config& c, int samples) {
  const double n = double(c.grid.tokens() + 1), d = double(c.dim), h = double(c.hidden());
  const double block = 2 * n * d * (4 * d + 2 * h) + 4 * n * n * d;
  return samples * (double(c.depth) * block + 2 * double(c.grid.tokens()) * double(c.grid.patch_dim()) * d);
}

void print(const bench_case& c, const char* work, const settings& s, int images, double seconds, double share,
           bool graphs) {
  std::printf(
      "{\"case\": \"%s\", \"work\": \"%s\", \"device\": \"cuda\", \"dtype\": \"%s\", \"batch\": %d, \"graphs\": %s, "
      "\"images_per_s\": %.2f, \"median_ms\": %.3f",
      c.name, work, s.dtype.c_str(), images, graphs ? "true" : "false", images / seconds, seconds * 1e3);
  if (share > 0) std::printf(", \"share_of_matrix_rate\": %.3f", share);
  std::printf("}\n");
  std::fflush(stdout);
}

void run(const bench_case& c, backend& b, const settings& s, double rate) {
  const int batch = s.batch > 0 ? s.batch : c.batch;
  cts::vit<backend> model(b, c.config);
  cts::vit_tape<backend> tape, inference;
  inference.keep = cts::kept::logits;
  cts::tensor<backend> gradients(b, 1, model.parameters().size()), dtokens;
  cts::loss_tape<backend> loss;
  cts::optimiser_state<backend> state;
  state.reset(b, model.layout().parameters);
  const auto repeated = [&](cts::index key, const auto& body) { s.graphs ? b.repeat(key, body) : body(); };
  const auto train = [&](const cts::token_batch& images) {
    repeated(images.tokens(), [&] {
      cts::forward(b, model, images, tape);
      cts::cross_entropy(b, *tape.logits, images.targets, loss);
      b.fill(*gradients, 0.0f);
      cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
      cts::step(b, cts::adamw{.learning_rate = 1e-4, .weight_decay = 0.01}, state, model.parameters(), gradients);
    });
  };
  const auto whole = noise(c.config, batch, 1), tenth = noise(c.config, batch, 0.1);
  const double operations = forward_operations(c.config, batch);
  double seconds = seconds_of(b, s.repeats, [&] { train(whole); });
  print(c, "train", s, batch, seconds, 3 * operations / seconds / rate, s.graphs);
  seconds = seconds_of(b, s.repeats, [&] { repeated(-1, [&] { cts::forward(b, model, whole, inference); }); });
  print(c, "forward", s, batch, seconds, operations / seconds / rate, s.graphs);
  print(c, "replay", s, batch, seconds_of(b, s.repeats, [&] { train(tenth); }), 0, s.graphs);
  cts::attribution_workspace<backend> workspace;
  const auto explain = [&](const auto& method, const char* name) {
    const double t =
        seconds_of(b, s.repeats, [&] { cts::attribute(method, b, model, whole, whole.targets, workspace); });
    print(c, name, s, batch, t, 0, false);
  };
  explain(cts::rollout{}, "rollout");
  explain(cts::grad_lrp{}, "grad_lrp");
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
  settings s;
  s.repeats = std::atoi(argument(2, "7").c_str());
  s.dtype = argument(3, "tf32");
  s.batch = std::atoi(argument(4, "0").c_str());
  s.graphs = argument(5, "1") == "1";
  s.arithmetic = s.dtype == "f32"    ? cts::cuda::arithmetic::f32
                 : s.dtype == "bf16" ? cts::cuda::arithmetic::bf16
                                     : cts::cuda::arithmetic::tf32;
  if (cts::cuda::device_count() == 0) {
    std::fprintf(stderr, "bench_cuda_vit: %s\n", cts::cuda::describe().c_str());
    return 2;
  }
  backend b({.arithmetic = s.arithmetic});
  const double rate = matrix_rate(b);
  std::printf("{\"device\": \"%s\", \"dtype\": \"%s\", \"matrix_tflops\": %.1f}\n", cts::cuda::describe().c_str(),
              s.dtype.c_str(), rate / 1e12);
  std::stringstream names(argument(1, "c32,t64,ti16,s16,b16"));
  for (std::string name; std::getline(names, name, ',');) {
    bool found = false;
    for (const bench_case& c : cases) {
      if (name != c.name) continue;
      found = true;
      run(c, b, s, rate);
    }
    if (!found) {
      std::fprintf(stderr, "bench_cuda_vit: no case is named '%s'; there are c32, t64, ti16, s16, b16\n", name.c_str());
      return 2;
    }
  }
}
