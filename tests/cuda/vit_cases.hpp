#pragma once
// The golden ViT on a backend in float: forward, every gradient, missing tokens, AdamW, attributions.

#include <map>

#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace vit_cases {

namespace cts = core_tokensets;

template <class T>
void check_close(const cts::tensor_file& want, const std::string& name, const std::vector<T>& got, double limit) {
  INFO(want.path << " " << name);
  CHECK(golden::distance(got, want.at(name).as<double>()) <= limit);
}

/// Forward, loss and all gradients of the mean cross-entropy.
template <class B>
struct pass {
  cts::vit_tape<B> tape;
  cts::tensor<B> gradients, dtokens, dpatches;
  cts::loss_tape<B> losses;

  void run(B& b, const cts::vit<B>& model, const cts::token_batch& batch) {
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, losses, batch.weights);
    gradients.resize(b, 1, model.parameters().size());
    b.fill(*gradients, 0);
    dpatches.resize(b, batch.tokens(), batch.patch_dim);
    cts::backward<B, float>(b, model, tape, *losses.dlogits, gradients.data(), dtokens, *dpatches);
  }
};

template <class B>
void check_gradients(B& b, const golden::vit_case<B>& c, cts::kept keep, double limit) {
  const cts::tensor_file forward = c.file("forward"), backward = c.file("backward");
  pass<B> run;
  run.tape.keep = keep;
  run.run(b, c.model, c.batch);
  check_close(forward, "logits", run.tape.logits.to_host(b), limit);
  for (std::size_t i = 0; i < run.tape.blocks.size() && keep == cts::kept::everything; ++i) {
    check_close(forward, "block." + std::to_string(i), run.tape.stream[i + 1].to_host(b), limit);
    check_close(forward, "attn." + std::to_string(i), run.tape.blocks[i].a.to_host(b), limit);
  }
  check_close(backward, "loss", std::vector<double>{cts::mean_loss(b, run.losses)}, limit);
  cts::tensor_file got;
  cts::put_parameters(b, c.model, run.gradients, "grad.", got);
  for (const auto& [name, array] : got.arrays) check_close(backward, name, array.template as<double>(), limit);
  const auto& config = c.model.config();
  const auto images = backward.at("grad_input").as<float>();
  const auto patches = cts::patchify(images, config.grid);
  CHECK(golden::distance(run.dpatches.to_host(b), patches.patches) <= limit);
  cts::vit_tape<B> inference;
  inference.keep = cts::kept::logits;
  cts::forward(b, c.model, c.batch, inference);
  if (keep == cts::kept::gradients) CHECK(inference.logits.to_host(b) == run.tape.logits.to_host(b));
}

template <class B>
void check_dropping(B& b, const golden::vit_case<B>& c, double limit) {
  const cts::tensor_file want = c.file("dropout");
  const std::map<std::string, cts::missing_tokens> meanings{{"zero", cts::missing_tokens::zero},
                                                            {"rescaled", cts::missing_tokens::rescaled},
                                                            {"drop", cts::missing_tokens::drop}};
  const auto mask = want.at("mask.p50").template as<std::int32_t>();
  const std::vector<std::uint8_t> keep(mask.begin(), mask.end());
  const std::vector<double> rescale(static_cast<std::size_t>(c.batch.samples()), 2.0);
  for (const auto& [name, how] : meanings) {
    cts::token_batch batch;
    cts::apply_token_mask(c.batch, keep, how, batch, rescale);
    pass<B> run;
    run.run(b, c.model, batch);
    check_close(want, "logits." + name + ".p50", run.tape.logits.to_host(b), limit);
    cts::tensor_file got;
    cts::put_parameters(b, c.model, run.gradients, "grad.", got);
    for (const std::string parameter : {"grad.head.weight", "grad.pos_embed", "grad.patch_embed.proj.bias"}) {
      check_close(want, parameter + "." + name + ".p50", got.at(parameter).template as<double>(), limit);
    }
  }
}

/// 20 steps; `run_step(key, body)` may run each in its own way.
template <class B, class RunStep>
void check_adamw(B& b, const std::filesystem::path& where, double limit, const RunStep& run_step) {
  auto c = golden::load_case(b, where);
  const cts::tensor_file want = c.file("train");
  pass<B> run;
  cts::optimiser_state<B> state;
  state.reset(b, c.model.layout().parameters);
  std::vector<double> losses;
  for (int i = 0; i <= 20; ++i) {
    run_step([&] {
      run.run(b, c.model, c.batch);
      if (i < 20) cts::step(b, cts::adamw{}, state, c.model.parameters(), run.gradients);
    });
    losses.push_back(cts::mean_loss(b, run.losses));
  }
  check_close(want, "adamw.loss", losses, limit);
  cts::tensor_file got;
  cts::put_parameters(b, c.model, c.model.parameters(), "adamw.final.", got);
  for (const auto& [name, array] : got.arrays) {
    if (!want.contains(name)) continue;
    const bool key_bias = name.ends_with("qkv.bias");
    check_close(want, name, array.template as<double>(), key_bias ? tolerance<float>(kind::key_bias) : limit);
  }
}

template <class B>
void check_attribution(B& b, const golden::vit_case<B>& c, double limit) {
  const cts::tensor_file want = c.file("attribution");
  cts::attribution_workspace<B> ws;
  const std::span<const std::int32_t> labels(c.batch.targets);
  check_close(want, "rollout_s0", attribute(cts::rollout{}, b, c.model, c.batch, {}, ws), limit);
  check_close(want, "raw_last", attribute(cts::last_attention{}, b, c.model, c.batch, {}, ws), limit);
  check_close(want, "gradcam.label", attribute(cts::grad_cam{}, b, c.model, c.batch, labels, ws), limit);
  check_close(want, "transformer_attribution_s0.argmax", attribute(cts::grad_lrp{}, b, c.model, c.batch, {}, ws),
              tolerance<float>(kind::relevance));
}

template <class B>
void check_all(B& b, const std::string& name) {
  const auto where = golden::folder(name);
  if (where.empty()) {
    WARN("golden case " << name << " not found (CTS_SHARED); skipped");
    return;
  }
  const double limit = tolerance<float>();
  const auto c = golden::load_case(b, where);
  for (const cts::kept keep : {cts::kept::everything, cts::kept::gradients}) check_gradients(b, c, keep, limit);
  check_dropping(b, c, limit);
  check_adamw(b, where, limit, [](const auto& body) { body(); });
  check_adamw(b, where, limit, [&](const auto& body) { b.repeat(1, body); });
  check_attribution(b, c, limit);
}

}  // namespace vit_cases
