// The ViT against the reference: forward, every gradient, missing tokens, optimiser trajectories.

#include <map>

#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace {

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
  const std::ptrdiff_t p = c.patch, gw = c.grid_width();
  std::size_t at = 0;
  for (std::ptrdiff_t s = 0; s < samples; ++s)
    for (std::ptrdiff_t k = 0; k < c.patches(); ++k)
      for (std::ptrdiff_t ch = 0; ch < c.image.channels; ++ch)
        for (std::ptrdiff_t y = 0; y < p; ++y)
          for (std::ptrdiff_t x = 0; x < p; ++x)
            images[static_cast<std::size_t>(
                ((s * c.image.channels + ch) * c.image.height + k / gw * p + y) * c.image.width + k % gw * p + x)] =
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
  check_close(forward, "patch_embed", run.tape.embeddings.to_host(b), limit);
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
cts::token_batch with_mask(const cts::token_batch& whole, const std::vector<int>& mask, const std::string& how,
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
}

}  // namespace

TEST_CASE("the reference backend reproduces the golden ViT", "[vit][golden]") {
  check_all(cts::reference_backend<double>(), "vit_c");
}

TEST_CASE("the Eigen backend reproduces the golden ViTs in double", "[vit][golden]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) check_all(cts::eigen_backend<double>(), name);
}

TEST_CASE("the Eigen backend reproduces the golden ViTs in float", "[vit][golden]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) check_all(cts::eigen_backend<float>(), name);
}
