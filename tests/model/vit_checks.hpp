#pragma once
// The ViT of any backend against the golden data: forward, every gradient, missing tokens, optimiser trajectories,
// attributions; and against the reference in double on batches of every shape.

#include <map>

#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/ragged.hpp"
#include "support/tolerance.hpp"

namespace vit_checks {

namespace cts = core_tokensets;

template <class B>
using scalar = typename B::scalar;

/// Forward, loss and all gradients of the mean cross-entropy.
template <class B>
struct pass {
  cts::vit_tape<B> tape;
  cts::tensor<B> gradients, dtokens;
  cts::loss_tape<B> losses;
  double loss = 0;

  void run(B& b, const cts::vit<B>& model, const cts::token_batch& batch, cts::tensor<B>* dpatches = nullptr) {
    using T = scalar<B>;
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, losses);
    loss = cts::mean_loss(b, losses);
    gradients.resize(b, 1, model.parameters().size());
    b.fill(*gradients, T(0));
    cts::view<T> dp;
    if (dpatches) {
      dpatches->resize(b, batch.tokens(), batch.patch_dim);
      dp = **dpatches;
    }
    cts::backward<B, T>(b, model, tape, *losses.dlogits, gradients.data(), dtokens, dp);
  }
};

template <class T>
void check_close(const cts::tensor_file& want, const std::string& name, const std::vector<T>& got, double limit) {
  INFO(want.path << " " << name);
  CHECK(golden::distance(got, want.at(name).as<double>()) <= limit);
}

/// Patches of pixel gradients in the order of the images [B, C, H, W].
template <class T>
std::vector<T> to_images(const std::vector<T>& patches, const cts::vit_config& c, std::ptrdiff_t samples) {
  std::vector<T> images(patches.size());
  const std::ptrdiff_t p = c.grid.patch, gw = c.grid.cols();
  std::size_t at = 0;
  for (std::ptrdiff_t s = 0; s < samples; ++s)
    for (std::ptrdiff_t k = 0; k < c.grid.tokens(); ++k)
      for (std::ptrdiff_t ch = 0; ch < c.grid.channels; ++ch)
        for (std::ptrdiff_t y = 0; y < p; ++y)
          for (std::ptrdiff_t x = 0; x < p; ++x)
            images[static_cast<std::size_t>(
                ((s * c.grid.channels + ch) * c.grid.height + k / gw * p + y) * c.grid.width + k % gw * p + x)] =
                patches[at++];
  return images;
}

template <class B>
void check_forward_backward(B& b, const golden::vit_case<B>& c, cts::kept keep) {
  using T = scalar<B>;
  const cts::tensor_file forward = c.file("forward"), backward = c.file("backward");
  pass<B> run;
  run.tape.keep = keep;
  cts::tensor<B> dpatches;
  run.run(b, c.model, c.batch, &dpatches);
  const double limit = tolerance<T>();
  check_close(forward, "logits", run.tape.logits.to_host(b), limit);
  check_close(forward, "tokens", run.tape.stream[0].to_host(b), limit);
  check_close(forward, "patch_embed", run.tape.embedding.patches.to_host(b), limit);
  for (std::size_t i = 0; i < run.tape.blocks.size() && keep == cts::kept::everything; ++i) {
    check_close(forward, "block." + std::to_string(i), run.tape.stream[i + 1].to_host(b), limit);
    check_close(forward, "attn." + std::to_string(i), run.tape.blocks[i].a.to_host(b), limit);
  }
  check_close(backward, "loss", std::vector<double>{run.loss}, limit);
  check_close(backward, "loss_per_sample", run.losses.losses.to_host(b), limit);
  check_close(backward, "grad_input", to_images(dpatches.to_host(b), c.model.config(), c.batch.samples()), limit);
  cts::tensor_file got;
  cts::put_parameters(b, c.model, run.gradients, "grad.", got);
  for (const auto& [name, array] : got.arrays) {
    const bool stored_as_float = backward.at(name).type == cts::dtype::f32;
    check_close(backward, name, array.template as<double>(), stored_as_float ? std::max(limit, 1e-7) : limit);
  }
  cts::vit_tape<B> inference;
  inference.keep = cts::kept::logits;
  cts::forward(b, c.model, c.batch, inference);
  if (keep == cts::kept::gradients) CHECK(inference.logits.to_host(b) == run.tape.logits.to_host(b));
}

/// The batch with some tokens missing, from a mask U8 [B, P].
inline cts::token_batch with_mask(const cts::token_batch& whole, const std::vector<int>& mask, const std::string& how,
                                  double p) {
  cts::token_batch out;
  out.patch_dim = whole.patch_dim;
  out.targets = whole.targets;
  for (std::ptrdiff_t s = 0; s < whole.samples(); ++s) {
    for (auto i = whole.offsets[static_cast<std::size_t>(s)]; i < whole.offsets[static_cast<std::size_t>(s) + 1]; ++i) {
      const bool kept = mask[static_cast<std::size_t>(i)] != 0;
      if (how == "drop" && !kept) continue;
      const auto from = whole.patches.begin() + i * whole.patch_dim;
      out.patches.insert(out.patches.end(), from, from + whole.patch_dim);
      out.positions.push_back(whole.positions[static_cast<std::size_t>(i)]);
      if (how != "drop") out.scale.push_back(!kept ? 0.0 : how == "zero" ? 1.0 : 1.0 / (1.0 - p));
    }
    out.offsets.push_back(static_cast<std::ptrdiff_t>(out.positions.size()));
  }
  return out;
}

template <class B>
void check_dropping(B& b, const golden::vit_case<B>& c) {
  using T = scalar<B>;
  const cts::tensor_file want = c.file("dropout");
  for (const auto& [tag, rate] : std::map<std::string, double>{{"p25", .25}, {"p50", .5}, {"p90", .9}}) {
    const std::vector<std::int32_t> mask = want.at("mask." + tag).template as<std::int32_t>();
    for (const std::string how : {"zero", "rescaled", "drop"}) {
      pass<B> run;
      run.run(b, c.model, with_mask(c.batch, mask, how, rate));
      const double limit = tolerance<T>();
      const std::string name = "." + how + "." + tag;
      check_close(want, "logits" + name, run.tape.logits.to_host(b), limit);
      check_close(want, "loss" + name, std::vector<double>{run.loss}, limit);
      if (tag != "p50") continue;
      cts::tensor_file got;
      cts::put_parameters(b, c.model, run.gradients, "grad.", got);
      for (const std::string parameter : {"grad.head.weight", "grad.pos_embed", "grad.patch_embed.proj.bias"}) {
        check_close(want, parameter + name, got.at(parameter).template as<double>(), limit);
      }
    }
  }
}

template <class B, class Optimiser>
void check_trajectory(B& b, const std::filesystem::path& where, const std::string& name, const Optimiser& optimiser) {
  using T = scalar<B>;
  auto c = golden::load_case(b, where);
  const cts::tensor_file want = c.file("train");
  pass<B> run;
  cts::optimiser_state<B> state;
  state.reset(b, c.model.layout().parameters);
  std::vector<double> losses;
  for (int i = 0; i <= 20; ++i) {
    run.run(b, c.model, c.batch);
    losses.push_back(run.loss);
    if (i < 20) cts::step(b, optimiser, state, c.model.parameters(), run.gradients);
  }
  check_close(want, name + ".loss", losses, tolerance<T>());
  cts::tensor_file got;
  cts::put_parameters(b, c.model, c.model.parameters(), name + ".final.", got);
  for (const auto& [parameter, array] : got.arrays) {
    if (!want.contains(parameter)) continue;
    const bool key_bias = name.starts_with("adam") && parameter.ends_with("qkv.bias");
    const double stored = want.at(parameter).type == cts::dtype::f32 ? 1e-7 : 0;
    check_close(want, parameter, array.template as<double>(),
                std::max(stored, tolerance<T>(key_bias ? kind::key_bias : kind::plain)));
  }
}

template <class B>
void check_attribution(B& b, const golden::vit_case<B>& c) {
  using T = scalar<B>;
  const cts::tensor_file want = c.file("attribution");
  cts::attribution_workspace<B> ws;
  for (cts::index start = 0; start < 2; ++start) {
    check_close(want, "rollout_s" + std::to_string(start),
                attribute(cts::rollout{.start_layer = start}, b, c.model, c.batch, {}, ws), tolerance<T>());
  }
  check_close(want, "raw_last", attribute(cts::last_attention{}, b, c.model, c.batch, {}, ws), tolerance<T>());
  for (const std::string target : {"argmax", "label"}) {
    const std::span<const std::int32_t> classes =
        target == "label" ? std::span<const std::int32_t>(c.batch.targets) : std::span<const std::int32_t>();
    check_close(want, "gradcam." + target, attribute(cts::grad_cam{}, b, c.model, c.batch, classes, ws),
                tolerance<T>());
    const double limit = tolerance<T>(kind::relevance);
    for (cts::index start = 0; start < 2; ++start) {
      check_close(want, "transformer_attribution_s" + std::to_string(start) + "." + target,
                  attribute(cts::grad_lrp{start}, b, c.model, c.batch, classes, ws), limit);
    }
    cts::explain_forward(b, c.model, c.batch, classes, ws);
    cts::propagate(cts::lrp::chefer(), b, c.model, ws, [&](cts::index i) {
      const std::string layer = target + "." + std::to_string(i);
      check_close(want, "lrp.attn_cam." + layer, ws.attention_relevance.to_host(b), limit);
      const std::string entering = target + "." + std::to_string(i - 1);
      check_close(want, i == 0 ? "lrp.rel_tokens." + target : "lrp.rel_in." + entering, ws.relevance.to_host(b), limit);
    });
    // Relevance 1 goes in, and the sum over a sample's tokens is 1 again (the 1e-9 of the divisions leaks).
    const auto tokens = ws.relevance.to_host(b);
    const cts::index dim = c.model.config().dim;
    for (cts::index s = 0; s < c.batch.samples(); ++s) {
      double sum = 0;
      for (cts::index t = ws.tape.plan.rows().begin(s) * dim; t < ws.tape.plan.rows().begin(s + 1) * dim; ++t)
        sum += double(tokens[static_cast<std::size_t>(t)]);
      CHECK(std::abs(sum - 1) <= tolerance<T>(kind::conserved));
    }
  }
}

template <class B>
void check_all(B b, const std::string& name) {
  const auto where = golden::folder(name);
  if (where.empty()) {
    WARN("golden case " << name << " not found (CTS_SHARED); skipped");
    return;
  }
  const auto c = golden::load_case(b, where);
  for (const cts::kept keep : {cts::kept::everything, cts::kept::gradients}) check_forward_backward(b, c, keep);
  check_dropping(b, c);
  check_trajectory(b, where, "adamw", cts::adamw{});
  check_trajectory(b, where, "adam", cts::adamw{.learning_rate = 1e-4, .weight_decay = 0});
  check_trajectory(b, where, "sgd", cts::sgd{});
  check_trajectory(b, where, "sgd_nesterov_wd", cts::sgd{.l2 = 5e-4, .nesterov = true});
  check_attribution(b, c);
}

/// Logits, gradients and relevance of one batch, from the model `ragged::lively_model`.
template <class B>
std::vector<std::vector<double>> outcome(B& b, const cts::vit_config& c, const cts::token_batch& batch) {
  using T = scalar<B>;
  const auto model = ragged::lively_model(b, c);
  cts::vit_tape<B> tape;
  cts::loss_tape<B> losses;
  cts::tensor<B> gradients(b, 1, model.parameters().size()), dtokens;
  cts::forward(b, model, batch, tape);
  cts::cross_entropy(b, *tape.logits, batch.targets, losses);
  b.fill(*gradients, T(0));
  cts::backward(b, model, tape, *losses.dlogits, gradients.data(), dtokens);
  cts::attribution_workspace<B> ws;
  std::vector<std::vector<double>> all;
  for (const auto& numbers : {tape.logits.to_host(b), gradients.to_host(b)})
    all.emplace_back(numbers.begin(), numbers.end());
  all.push_back(attribute(cts::rollout{}, b, model, batch, batch.targets, ws));
  all.push_back(attribute(cts::grad_lrp{}, b, model, batch, batch.targets, ws));
  return all;
}

/// Batches of every shape give what they give on the reference in double.
template <class B>
void check_agreement(B b) {
  const cts::vit_config c{.grid = {32, 32, 3, 4}, .dim = 24, .depth = 2, .heads = 3, .classes = 7};
  cts::reference_backend<double> oracle;
  const std::vector<std::vector<int>> batches{{64, 17, 1, 40}, {7, 0, 13, 2, 61}, {1}, {0}, {0, 0}, {}};
  for (const auto& patches : batches) {
    std::string text = "patches a sample:";
    for (const int n : patches) text += " " + std::to_string(n);
    INFO(text);
    const auto batch = ragged::noise(c, patches);
    const auto got = outcome(b, c, batch), want = outcome(oracle, c, batch);
    for (std::size_t i = 0; i < 3; ++i) CHECK(golden::distance(got[i], want[i]) <= tolerance<scalar<B>>());
    CHECK(golden::distance(got[3], want[3]) <= tolerance<scalar<B>>(kind::relevance));
  }
}

}  // namespace vit_checks
