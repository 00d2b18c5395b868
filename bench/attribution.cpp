// Images a second of every attribution method beside the plain passes, one JSON line each, and the ratios that are
// aimed at: rollout <= 1.1 forward passes, GradLRP <= 4 training steps, exact AtMan >= 3 times faster than one forward
// pass a token run one by one, first-order AtMan <= 2 backward passes.
//   bench_attribution [case,case...] [repeats] [threads]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core_tokensets/attribution/methods.hpp"
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
    {"c32", {.image = {32, 32, 3}, .patch = 4, .dim = 192, .depth = 6, .heads = 3, .classes = 10}, 32, 2},
    {"t64", {.image = {64, 64, 3}, .patch = 8, .dim = 192, .depth = 6, .heads = 3, .classes = 100}, 32, 2},
    {"ti16", {.image = {224, 224, 3}, .patch = 16, .dim = 192, .depth = 12, .heads = 3, .classes = 1000}, 4, 1},
};

cts::token_batch noise(const cts::vit_config& c, int samples) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.patch_dim();
  for (int s = 0; s < samples; ++s) {
    for (cts::index k = 0; k < c.patches(); ++k) {
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (cts::index i = 0; i < batch.patch_dim; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
    }
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(random.below(c.classes)));
  }
  return batch;
}

/// Jobs that are run several times; the fastest run counts, which other programs on the machine disturb least.
class bench {
 public:
  bench(const char* name, int repeats, int threads) : name_(name), repeats_(repeats), threads_(threads) {}

  template <class Job>
  double measure(const std::string& work, int images, const Job& job) {
    std::vector<double> seconds;
    for (int i = 0; i < repeats_ + 1; ++i) {
      const auto start = std::chrono::steady_clock::now();
      job();
      if (i > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    const double each = *std::min_element(seconds.begin(), seconds.end()) / images;
    std::printf(
        "{\"case\": \"%s\", \"work\": \"%s\", \"threads\": %d, \"images_per_s\": %.3f, \"ms_per_image\": %.3f}\n",
        name_, work.c_str(), threads_, 1 / each, each * 1e3);
    std::fflush(stdout);
    return seconds_[work] = each;
  }
  void ratio(const char* what, double value, const char* target) const {
    std::printf("{\"case\": \"%s\", \"ratio\": \"%s\", \"value\": %.3f, \"target\": \"%s\"}\n", name_, what, value,
                target);
  }
  double of(const std::string& work) const { return seconds_.at(work); }

 private:
  const char* name_;
  int repeats_, threads_;
  std::map<std::string, double> seconds_;
};

/// Plain passes: inference, forward with what gradients need, backward (to the tokens), and a whole training step.
void plain_passes(bench& out, backend& b, cts::vit<backend>& model, const cts::token_batch& batch, int images) {
  cts::vit_tape<backend> tape, inference;
  inference.keep = cts::kept::logits;
  cts::tensor<backend> gradients(b, 1, model.parameters().size()), dtokens;
  cts::loss_tape<backend> loss;
  cts::optimiser_state<backend> state;
  state.reset(b, model.layout().parameters);
  out.measure("forward", images, [&] { cts::forward(b, model, batch, inference); });
  out.measure("train", images, [&] {
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, loss);
    b.fill(*gradients, 0.0f);
    cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
    cts::step(b, cts::adamw{.learning_rate = 1e-5}, state, model.parameters(), gradients);
  });
  out.measure("forward_kept", images, [&] { cts::forward(b, model, batch, tape); });
  out.measure("backward", images, [&] { cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens); });
}

void run(const bench_case& c, int repeats, int threads) {
  backend b(threads);
  bench out(c.name, repeats, b.threads());
  cts::vit<backend> model(b, c.config);
  const auto whole = noise(c.config, c.batch), few = noise(c.config, c.perturbed);
  plain_passes(out, b, model, whole, c.batch);
  cts::attribution_workspace<backend> ws;
  const auto method = [&](const std::string& text, const cts::token_batch& batch, int images) {
    const auto m = cts::parse_attribution(text);
    return out.measure(text, images, [&] { cts::attribute(m, b, model, batch, cts::target::label(), ws); });
  };
  for (const char* text :
       {"attention", "rollout", "grad_cam", "gradient_x_input", "generic_attention", "atman_first_order", "grad_lrp",
        "lrp_rollout", "partial_lrp", "lrp", "lrp:rules=chefer", "lrp:rules=cp_lrp", "lrp:rules=attn_lrp_gamma"}) {
    method(text, whole, c.batch);
  }
  for (const char* text : {"integrated_gradients", "smooth_grad", "atman", "atman:neighbours=patch", "occlusion",
                           "occlusion:missing=zero", "authors_atman"}) {
    method(text, few, c.perturbed);
  }
  // What exact AtMan replaces: one forward pass for each token, one after the other.
  cts::vit_tape<backend> tape;
  tape.keep = cts::kept::logits;
  const auto one = noise(c.config, 1);
  out.measure("one_by_one", 1, [&] {
    for (cts::index i = 0; i < c.config.patches(); ++i) cts::forward(b, model, one, tape);
  });
  // What the reference does for each token: the same, but all tokens of the last block.
  cts::vit_tape<backend> everything;
  everything.keep = cts::kept::everything;
  out.measure("one_by_one_whole", 1, [&] {
    for (cts::index i = 0; i < c.config.patches(); ++i) cts::forward(b, model, one, everything);
  });
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
  const int repeats = std::max(1, argc > 2 ? std::atoi(argv[2]) : 5), threads = argc > 3 ? std::atoi(argv[3]) : 0;
  for (std::string name; std::getline(names, name, ',');) {
    const auto found =
        std::find_if(std::begin(cases), std::end(cases), [&](const bench_case& c) { return name == c.name; });
    if (found == std::end(cases)) {
      std::fprintf(stderr, "bench_attribution: no case is named '%s'; there are c32, t64, ti16\n", name.c_str());
      return 2;
    }
    run(*found, repeats, threads);
  }
}
