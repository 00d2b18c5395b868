// Images a second of a ViT: training step, inference, replay of a tenth of the tokens, two attributions; one JSON line
// each, the first three with their share of what the processor can multiply and add at most. With --peer, a command
// that prints such lines for the same cases (`--cases NAME --work train,forward,replay`) is run in turn with ours, and
// the last lines are the ratios of the medians, ours over the peer's. Behind training stands the most memory that the
// process had so far, and behind the peer the most that it had: run one case to compare these.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core_tokensets/core_tokensets.hpp"
#include "machine.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

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

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Multiplications and additions that a forward pass over the batch computes: all tokens in all blocks but the last, of
/// which nothing but the class token is read, so there the others have keys and values alone.
double forward_flops(const cts::vit_config& c, const cts::token_batch& batch) {
  const auto d = static_cast<double>(c.dim), wide = static_cast<double>(c.hidden());
  double flops = 0;
  for (cts::index s = 0; s < batch.samples(); ++s) {
    const double patches = static_cast<double>(batch.offsets[static_cast<std::size_t>(s) + 1] -
                                               batch.offsets[static_cast<std::size_t>(s)]),
                 n = patches + 1;
    const auto block = [&](double rows) { return rows * (2 * d * d + 2 * d * wide + 2 * n * d) + n * 2 * d * d; };
    flops += patches * static_cast<double>(batch.patch_dim) * d + static_cast<double>(c.depth - 1) * block(n) +
             block(1) + d * static_cast<double>(c.classes);
  }
  return 2 * flops;
}

/// Images a second of each work, one entry a round.
using readings = std::map<std::string, std::vector<double>>;

/// `flops`: what the work computes, and what the processor could at most in a second; 0 where nobody counted.
template <class Job>
void measure(const bench_case& c, const char* work, int repeats, int threads, const Job& job, readings& found,
             double flops = 0, double most = 1) {
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 2; ++i) {
    const auto start = std::chrono::steady_clock::now();
    job();
    if (i >= 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const double median = median_of(seconds);
  found[work].push_back(c.batch / median);
  std::printf("{\"case\": \"%s\", \"work\": \"%s\", \"threads\": %d, \"images_per_s\": %.2f, \"median_ms\": %.2f",
              c.name, work, threads, c.batch / median, median * 1e3);
  if (flops > 0) std::printf(", \"of_the_most\": %.2f", flops / median / most);
  std::printf("}\n");
  std::fflush(stdout);
}

/// The most MiB that this program, or those that it has run, had in memory.
void print_peak(const char* name, const char* whose, int who) {
  rusage used{};
  getrusage(who, &used);
  std::printf("{\"case\": \"%s\", \"work\": \"train\", \"of\": \"%s\", \"peak_mib\": %.0f}\n", name, whose,
              static_cast<double>(used.ru_maxrss) / 1024);
}

/// Runs the peer on one case and reads its lines.
void run_peer(const std::string& command, const char* name, readings& found) {
  const std::string whole = command + " --cases " + name + " --work train,forward,replay";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(whole.c_str(), "r"), pclose);
  cts::require(pipe != nullptr, "bench_vit: cannot run '", whole, "'");
  char line[4096];
  while (std::fgets(line, sizeof line, pipe.get()) != nullptr) {
    const cts::json told = cts::parse_json_or_null(line);
    if (!told.contains("images_per_s")) continue;
    found[told["work"].text()].push_back(told["images_per_s"].get<double>());
    std::fputs(line, stdout);
    std::fflush(stdout);
  }
}

void run(const bench_case& c, int repeats, int threads, bool attributions, const bench::machine& machine,
         readings& found) {
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
  const double most = 1e9 * machine.gflops, of_whole = forward_flops(c.config, whole);
  measure(
      c, "train", repeats, b.threads(), [&] { train(whole); }, found, 3 * of_whole, most);
  print_peak(c.name, "this program", RUSAGE_SELF);
  measure(
      c, "forward", repeats, b.threads(), [&] { cts::forward(b, model, whole, inference); }, found, of_whole, most);
  measure(
      c, "replay", repeats, b.threads(), [&] { train(tenth); }, found, 3 * forward_flops(c.config, tenth), most);
  if (!attributions) return;
  cts::attribution_workspace<backend> workspace;
  measure(
      c, "rollout", repeats, b.threads(),
      [&] { cts::attribute(cts::rollout{}, b, model, whole, whole.targets, workspace); }, found);
  measure(
      c, "grad_lrp", repeats, b.threads(),
      [&] { cts::attribute(cts::grad_lrp{}, b, model, whole, whole.targets, workspace); }, found);
}

void compare(const bench_case& c, const readings& ours, const readings& peer) {
  for (const auto& [work, values] : peer) {
    if (!ours.contains(work)) continue;
    const double mine = median_of(ours.at(work)), theirs = median_of(values);
    std::printf("{\"case\": \"%s\", \"work\": \"%s\", \"ours\": %.2f, \"peer\": %.2f, \"ratio\": %.3f}\n", c.name,
                work.c_str(), mine, theirs, mine / theirs);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> names{"c32", "ti16"};
  std::string peer;
  int repeats = 7, rounds = 3, threads = 0;
  CLI::App app{"images a second of Vision Transformers"};
  app.add_option("--cases", names, "c32, t64, ti16, s16, b16")->delimiter(',');
  app.add_option("--repeats", repeats, "steps that a median is taken of")->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds, "turns of ours and the peer's")->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "0: as many as there are");
  app.add_option("--peer", peer, "command to compare with");
  CLI11_PARSE(app, argc, argv);
  threads = threads > 0 ? threads : cts::default_threads();
  const bench::machine machine = bench::measure_machine(threads);
  bench::print(machine, threads);
  for (const std::string& name : names) {
    const auto c =
        std::find_if(std::begin(cases), std::end(cases), [&](const auto& known) { return name == known.name; });
    if (c == std::end(cases)) {
      std::fprintf(stderr, "bench_vit: no case is named '%s'; there are c32, t64, ti16, s16, b16\n", name.c_str());
      return 2;
    }
    readings ours, theirs;
    for (int round = 0; round < (peer.empty() ? 1 : rounds); ++round) {
      run(*c, repeats, threads, round == 0, machine, ours);
      if (!peer.empty()) run_peer(peer, c->name, theirs);
    }
    if (!peer.empty()) print_peak(c->name, "the peer", RUSAGE_CHILDREN);
    compare(*c, ours, theirs);
  }
}
