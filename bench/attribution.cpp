// Images a second of every attribution method beside the plain passes, one JSON line each, and the ratios that are
// aimed at: rollout <= 1.1 forward passes, GradLRP <= 4 training steps, exact AtMan >= 3 times faster than one forward
// pass a token run one by one, first-order AtMan <= 2 backward passes.
//   bench_attribution [case,case...] [rounds] [threads]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "core_tokensets/attribution/any_attribution.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/eigen.hpp"

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

namespace {

struct bench_case {
  const char* name;
  cts::vit_config config;
  int batch;
  int perturbed;  ///< images of the methods that run the model once a token
};

const bench_case cases[] = {
    {"c32", {.grid = {32, 32, 3, 4}, .dim = 192, .depth = 6, .heads = 3, .classes = 10}, 32, 2},
    {"t64", {.grid = {64, 64, 3, 8}, .dim = 192, .depth = 6, .heads = 3, .classes = 100}, 32, 2},
    {"ti16", {.grid = {224, 224, 3, 16}, .dim = 192, .depth = 12, .heads = 3, .classes = 1000}, 4, 1},
};

cts::token_batch noise(const cts::vit_config& c, int samples) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.grid.patch_dim();
  for (int s = 0; s < samples; ++s) {
    for (cts::index k = 0; k < c.grid.tokens(); ++k) {
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(random.below(c.classes)));
  }
  return batch;
}

/// Jobs that are run side by side: every round runs each of them once, and the median over the rounds counts, so that
/// ratios hold even where other programs come and go.
class bench {
 public:
  bench(const char* name, int threads) : name_(name), threads_(threads) {}

  void add(const std::string& work, int images, std::function<void()> work_once) {
    jobs_.push_back({work, images, std::move(work_once), {}});
  }

  /// One round to warm up, then `rounds` of them.
  void run(int rounds) {
    for (int i = 0; i <= rounds; ++i) {
      for (auto& j : jobs_) {
        const auto start = std::chrono::steady_clock::now();
        j.run();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (i > 0) j.seconds.push_back(seconds / j.images);
      }
    }
    for (const auto& j : jobs_) {
      std::printf(
          "{\"case\": \"%s\", \"work\": \"%s\", \"threads\": %d, \"rounds\": %d, \"images_per_s\": %.3f, "
          "\"ms_per_image\": %.3f, \"fastest_ms\": %.3f}\n",
          name_, j.work.c_str(), threads_, rounds, 1 / median(j), median(j) * 1e3,
          *std::min_element(j.seconds.begin(), j.seconds.end()) * 1e3);
    }
  }
  void ratio(const char* what, double value, const char* target) const {
    std::printf("{\"case\": \"%s\", \"ratio\": \"%s\", \"value\": %.3f, \"target\": \"%s\"}\n", name_, what, value,
                target);
    std::fflush(stdout);
  }
  /// Median seconds an image.
  double of(const std::string& work) const {
    return median(*std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& j) { return j.work == work; }));
  }

 private:
  struct job {
    std::string work;
    int images;
    std::function<void()> run;
    std::vector<double> seconds;
  };
  static double median(const job& j) {
    auto sorted = j.seconds;
    std::sort(sorted.begin(), sorted.end());
    return (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2;
  }

  const char* name_;
  int threads_;
  std::vector<job> jobs_;
};

/// Plain passes: inference, forward with what gradients need, backward (with gradients of the parameters), and a whole
/// training step. `state` is what they share and outlives the jobs.
struct plain_state {
  cts::vit_tape<backend> tape, kept, inference;
  cts::tensor<backend> gradients, dtokens;
  cts::loss_tape<backend> loss;
  cts::optimiser_state<backend> optimiser;
};

void add_plain_passes(bench& out, backend& b, cts::vit<backend>& model, const cts::token_batch& batch, int images,
                      plain_state& s) {
  s.inference.keep = cts::kept::logits;
  s.gradients.resize(b, 1, model.parameters().size());
  s.optimiser.reset(b, model.layout().parameters);
  out.add("forward", images, [&] { cts::forward(b, model, batch, s.inference); });
  out.add("train", images, [&] {
    cts::forward(b, model, batch, s.tape);
    cts::cross_entropy(b, *s.tape.logits, batch.targets, s.loss);
    b.fill(*s.gradients, 0.0f);
    cts::backward(b, model, s.tape, *s.loss.dlogits, s.gradients.data(), s.dtokens);
    cts::step(b, cts::adamw{.learning_rate = 1e-5}, s.optimiser, model.parameters(), s.gradients);
  });
  out.add("forward_kept", images, [&] { cts::forward(b, model, batch, s.kept); });
  out.add("backward", images, [&] { cts::backward(b, model, s.kept, *s.loss.dlogits, s.gradients.data(), s.dtokens); });
}

void run(const bench_case& c, int rounds, int threads) {
  backend b(threads);
  bench out(c.name, b.threads());
  cts::vit<backend> model(b, c.config);
  const auto whole = noise(c.config, c.batch), few = noise(c.config, c.perturbed), one = noise(c.config, 1);
  plain_state plain;
  add_plain_passes(out, b, model, whole, c.batch, plain);
  cts::attribution_workspace<backend> ws;
  const auto add = [&](const char* text, const cts::token_batch& batch, int images) {
    out.add(text, images, [&, m = cts::named_attribution<backend>(text)] {
      cts::attribute(m, b, model, batch, cts::target::label(), ws);
    });
  };
  for (const char* text :
       {"attention", "rollout", "grad_cam", "gradient_x_input", "generic_attention", "atman_first_order", "grad_lrp",
        "lrp_rollout", "partial_lrp", "lrp", "lrp:rules=chefer", "lrp:rules=cp_lrp", "lrp:rules=attn_lrp_gamma"}) {
    add(text, whole, c.batch);
  }
  for (const char* text : {"integrated_gradients", "smooth_grad", "atman", "atman:neighbours=patch", "occlusion",
                           "occlusion:missing=zero", "authors_atman"}) {
    add(text, few, c.perturbed);
  }
  // What exact AtMan replaces: one forward pass for each token, one after the other. First with the last block for the
  // class token only, as this library does it, then as the reference does it, for all tokens.
  cts::vit_tape<backend> of_class, of_all;
  of_class.keep = cts::kept::logits;
  of_all.keep = cts::kept::everything;
  const auto one_by_one = [&](cts::vit_tape<backend>& tape) {
    for (cts::index i = 0; i < c.config.grid.tokens(); ++i) cts::forward(b, model, one, tape);
  };
  out.add("one_by_one", 1, [&] { one_by_one(of_class); });
  out.add("one_by_one_whole", 1, [&] { one_by_one(of_all); });
  out.run(rounds);
  out.ratio("rollout / forward", out.of("rollout") / out.of("forward"), "<= 1.1");
  out.ratio("grad_lrp / train", out.of("grad_lrp") / out.of("train"), "<= 4");
  out.ratio("one_by_one / atman", out.of("one_by_one") / out.of("atman"), ">= 3");
  out.ratio("one_by_one_whole / atman", out.of("one_by_one_whole") / out.of("atman"), ">= 3");
  out.ratio("(atman_first_order - forward_kept) / backward",
            (out.of("atman_first_order") - out.of("forward_kept")) / out.of("backward"), "<= 2");
}

}  // namespace

int main(int argc, char** argv) {
  std::stringstream names(argc > 1 ? argv[1] : "c32,ti16");
  const int rounds = std::max(1, argc > 2 ? std::atoi(argv[2]) : 5), threads = argc > 3 ? std::atoi(argv[3]) : 0;
  for (std::string name; std::getline(names, name, ',');) {
    const auto found =
        std::find_if(std::begin(cases), std::end(cases), [&](const bench_case& c) { return name == c.name; });
    if (found == std::end(cases)) {
      std::fprintf(stderr, "bench_attribution: no case is named '%s'; there are c32, t64, ti16\n", name.c_str());
      return 2;
    }
    run(*found, rounds, threads);
  }
}
