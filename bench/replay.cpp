// What replay costs by how much is kept, one JSON line each: a training step by the tokens that each sample keeps, and
// the next batch of a memory of a thousand to a million samples with the step on it. The first should grow as the
// tokens do, the second not at all.

#include "core_tokensets/memory/replay.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <vector>

#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/fit.hpp"
#include "machine.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

constexpr cts::index batch = 64;

/// So many samples that keep `tokens` of the 64 tokens of a picture of 32 x 32, noise in raw pixels.
cts::token_memory noise(const cts::patch_grid& grid, cts::index samples, cts::index tokens) {
  cts::token_memory memory({.grid = grid});
  cts::random_stream random(1);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(tokens * grid.patch_dim()));
  for (auto& x : pixels) x = static_cast<std::uint8_t>(random.below(256));
  std::vector<std::uint16_t> positions(static_cast<std::size_t>(tokens));
  for (cts::index s = 0; s < samples; ++s) {
    for (cts::index t = 0; t < tokens; ++t)
      positions[static_cast<std::size_t>(t)] = static_cast<std::uint16_t>((t * grid.tokens() + s % 7) / tokens);
    memory.append({.patches = pixels, .positions = positions, .target = static_cast<std::int32_t>(s % 10)});
  }
  return memory;
}

/// A model with all that its training writes to.
struct trainee {
  backend b;
  cts::vit<backend> model;
  cts::training_state<backend> state;

  trainee(int threads, const cts::vit_config& c) : b(threads), model(b, c) {
    state.optimiser.reset(b, model.layout().parameters);
  }
  void step(const cts::token_batch& samples) {
    cts::objective_batch<float> facts;
    facts.targets = samples.targets, facts.fresh = samples.samples();
    cts::training_step(b, model, samples, facts, cts::summed{}, cts::adamw{}, {}, state);
  }
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 0, repeats = 9;
  cts::index most = 1'000'000;
  CLI::App app{"what replay costs by tokens and by samples"};
  app.add_option("--threads", threads, "0: as many as there are");
  app.add_option("--repeats", repeats, "times, of which the least counts")->check(CLI::PositiveNumber);
  app.add_option("--samples", most, "of the largest memory")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  threads = threads > 0 ? threads : cts::default_threads();

  const cts::vit_config c{.grid = {32, 32, 3, 4}, .dim = 192, .depth = 6, .heads = 3};
  trainee t(threads, c);
  cts::token_batch next;
  for (const cts::index kept : {4, 8, 16, 32, 64}) {
    const auto memory = noise(c.grid, batch, kept);
    const double seconds = bench::least_seconds(repeats, [&] {
      cts::make_batch(memory, cts::replay_sampler(batch, 1).draw(batch), c.normalisation, {}, next);
      t.step(next);
    });
    std::printf("{\"tokens\": %td, \"threads\": %d, \"ms_a_step\": %.2f, \"us_a_token\": %.2f}\n", kept, threads,
                seconds * 1e3, seconds * 1e6 / static_cast<double>(batch * (kept + 1)));
    std::fflush(stdout);
  }
  for (cts::index samples = 1000; samples <= most; samples *= 10) {
    const auto memory = noise(c.grid, samples, 4);
    cts::replay_sampler sampler(samples, 1);
    const auto draw = [&] { cts::make_batch(memory, sampler.draw(batch), c.normalisation, {}, next); };
    const double drawn = bench::least_seconds(20 * repeats, draw), stepped = bench::least_seconds(repeats, [&] {
                                                                     draw();
                                                                     t.step(next);
                                                                   });
    std::printf("{\"samples\": %td, \"threads\": %d, \"us_a_draw\": %.1f, \"ms_a_step\": %.2f}\n", samples, threads,
                drawn * 1e6, stepped * 1e3);
    std::fflush(stdout);
  }
}
