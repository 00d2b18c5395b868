#pragma once
// Weights of tokens on any backend: a token of weight w is w equal tokens, in predictions and in every gradient.

#include "core_tokensets/nn/loss.hpp"
#include "support/catch.hpp"
#include "support/repeated.hpp"

namespace token_weight_checks {

namespace cts = core_tokensets;

/// Logits, and the gradients of the mean cross-entropy at parameters and pixels.
template <class B>
struct outcome {
  std::vector<typename B::scalar> logits, parameters, pixels;
};

template <class B>
outcome<B> run(B& b, const cts::vit<B>& model, const cts::token_batch& batch, cts::kept keep = cts::kept::gradients) {
  using T = typename B::scalar;
  cts::vit_tape<B> tape;
  tape.keep = keep;
  cts::forward(b, model, batch, tape);
  if (keep < cts::kept::gradients) return {tape.logits.to_host(b), {}, {}};
  cts::loss_tape<B> loss;
  cts::cross_entropy(b, *tape.logits, batch.targets, loss);
  cts::tensor<B> gradients(b, 1, model.parameters().size()), dtokens, pixels(b, batch.tokens(), batch.patch_dim);
  b.fill(*gradients, T(0));
  cts::backward<B, T>(b, model, tape, *loss.dlogits, gradients.data(), dtokens, *pixels);
  return {tape.logits.to_host(b), gradients.to_host(b), pixels.to_host(b)};
}

inline cts::vit_config config() {
  return {.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 4, .classes = 5, .mlp_ratio = 2};
}

/// A token of weight w against the token repeated w times, whatever the tape keeps.
template <class B>
void check_repeats(B b, double limit) {
  const auto model = ragged::lively_model(b, config());
  const auto batch = repeated::weighted(ragged::noise(config(), {7, 0, 20, 1}));
  const auto want = run(b, model, repeated::copies(batch));
  const auto pixels = repeated::sums(batch, want.pixels, static_cast<std::size_t>(batch.patch_dim));
  for (const cts::kept keep : {cts::kept::gradients, cts::kept::everything}) {
    const auto got = run(b, model, batch, keep);
    CHECK(repeated::distance(got.logits, want.logits) <= limit);
    CHECK(repeated::distance(got.parameters, want.parameters) <= limit);
    CHECK(repeated::distance(got.pixels, pixels) <= limit);
  }
  for (const cts::kept keep : {cts::kept::logits, cts::kept::attention})
    CHECK(repeated::distance(run(b, model, batch, keep).logits, want.logits) <= limit);
  auto plain = batch;
  plain.token_weights.clear();
  CHECK(repeated::distance(run(b, model, plain).logits, want.logits) > 1e-2);  // weights matter here
}

/// A weight of 1 is no weight, to the bit: in a batch of ones, and beside a sample with other weights.
template <class B>
void check_ones(B b) {
  const auto model = ragged::lively_model(b, config());
  auto batch = ragged::noise(config(), {7, 0, 20, 1});
  const auto want = run(b, model, batch);
  batch.token_weights.assign(28, 1.0f);
  const auto ones = run(b, model, batch);
  CHECK(ones.logits == want.logits);
  CHECK(ones.parameters == want.parameters);
  CHECK(ones.pixels == want.pixels);
  batch.token_weights.back() = 3;  // of the last sample
  const auto mixed = run(b, model, batch);
  const auto of_others = [](const auto& all, std::size_t width, std::size_t rows) {
    return std::vector(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(width * rows));
  };
  CHECK(of_others(mixed.logits, 5, 3) == of_others(want.logits, 5, 3));
  CHECK(of_others(mixed.pixels, 12, 27) == of_others(want.pixels, 12, 27));
  CHECK(mixed.logits != want.logits);
}

}  // namespace token_weight_checks
