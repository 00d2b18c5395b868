#pragma once
// Small models of lively numbers, and all of their gradients against finite differences.

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core_tokensets/model/vit.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "support/catch.hpp"

namespace gradient_checks {

namespace cts = core_tokensets;

/// Two samples of 5 and 2 patches of 4 numbers, of a grid of 2 x 3; the weights of some are not 1.
inline cts::token_batch noise(bool weighted) {
  cts::token_batch batch;
  batch.patch_dim = 4;
  batch.offsets = {0, 5, 7};
  batch.positions = {0, 1, 3, 4, 5, 2, 4};
  batch.targets = {1, 0};
  cts::random_stream random(3, 9);
  for (int i = 0; i < 7 * 4; ++i) batch.patches.push_back(static_cast<float>(random.normal()));
  if (weighted) batch.token_weights = {1, 3, 1, 2, 1, 1.5, 1};
  return batch;
}

/// A model of random numbers, none of them small.
template <class B>
cts::vit<B> lively(B& b, const cts::vit_config& c) {
  cts::vit<B> model(b, c);
  std::vector<double> values(static_cast<std::size_t>(model.parameters().size()));
  cts::random_stream random(11, 4);
  for (double& x : values) x = 0.4 * random.normal();
  model.parameters().assign(b, 1, model.parameters().size(), values.data());
  return model;
}

template <class B>
double loss_of(B& b, const cts::vit<B>& model, const cts::token_batch& batch) {
  cts::vit_tape<B> tape;
  cts::forward(b, model, batch, tape);
  cts::loss_tape<B> loss;
  cts::cross_entropy(b, *tape.logits, batch.targets, loss);
  return cts::mean_loss(b, loss);
}

/// Compares every number of the parameters that `all(name)` names, and some of the others; returns the sum of the
/// absolute gradients that were compared, by parameter.
template <class B, class All>
std::map<std::string, double> check(B& b, const cts::vit<B>& model, const cts::token_batch& batch, cts::kept keep,
                                    const All& all) {
  cts::vit_tape<B> tape;
  tape.keep = keep;
  cts::forward(b, model, batch, tape);
  cts::loss_tape<B> loss;
  cts::cross_entropy(b, *tape.logits, batch.targets, loss);
  cts::tensor<B> gradients(b, 1, model.parameters().size()), dtokens;
  b.fill(*gradients, 0.0);
  cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
  const auto got = gradients.to_host(b), values = model.parameters().to_host(b);
  std::map<std::string, double> sizes;
  for (const cts::parameter& p : model.layout().parameters.table()) {
    INFO(p.name);
    for (cts::index i = 0; i < p.where.size(); i += all(p.name) ? 1 : 7) {
      const auto at = static_cast<std::size_t>(p.where.offset + i);
      double sides[2];
      for (const int side : {0, 1}) {
        auto moved = values;
        moved[at] += side == 0 ? 1e-5 : -1e-5;
        auto changed = model.copy(b);
        changed.parameters().assign(b, 1, model.parameters().size(), moved.data());
        sides[side] = loss_of(b, changed, batch);
      }
      CHECK(std::abs(got[at] - (sides[0] - sides[1]) / 2e-5) < 1e-8);
      sizes[p.name] += std::abs(got[at]);
    }
  }
  return sizes;
}

}  // namespace gradient_checks
