// Every gradient against finite differences in double, on ragged batches; and what must not change results.

#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/ragged.hpp"

namespace nn_gradients_tests {

namespace {

namespace cts = core_tokensets;

const cts::vit_config small{.grid = {6, 4, 2, 2}, .dim = 6, .depth = 2, .heads = 2, .classes = 3, .mlp_ratio = 1.5};

template <class B>
struct step_result {
  double loss;
  std::vector<typename B::scalar> logits, gradients, dpatches;
};

template <class B>
step_result<B> run(B& b, const cts::vit<B>& model, const cts::token_batch& batch) {
  using T = typename B::scalar;
  cts::vit_tape<B> tape;
  cts::forward(b, model, batch, tape);
  auto logits = tape.logits.to_host(b);
  cts::loss_tape<B> loss;
  cts::cross_entropy(b, *tape.logits, batch.targets, loss, batch.weights);
  cts::tensor<B> dtokens, gradients(b, 1, model.parameters().size()), dpatches(b, batch.tokens(), batch.patch_dim);
  b.fill(*gradients, T(0));
  cts::backward<B, T>(b, model, tape, *loss.dlogits, gradients.data(), dtokens, *dpatches);
  return {cts::mean_loss(b, loss, batch.weights), std::move(logits), gradients.to_host(b), dpatches.to_host(b)};
}

}  // namespace

TEST_CASE("every parameter's gradient agrees with finite differences on a ragged batch", "[gradient]") {
  using B = cts::eigen_backend<double>;
  B b;
  auto model = ragged::lively_model(b, small);
  auto batch = ragged::noise(small, {6, 1, 0, 3});
  batch.weights = {1.0f, 0.5f, 2.0f, 0.25f};
  batch.scale.assign(static_cast<std::size_t>(batch.tokens()), 1.0);
  batch.scale[2] = 0;
  batch.scale[4] = 1.75;
  const auto at = run(b, model, batch);
  const auto values = model.parameters().to_host(b);
  constexpr double h = 1e-5;
  for (const auto& p : model.layout().parameters.table()) {
    double error = 0, norm = 0;
    for (cts::index i = p.where.offset; i < p.where.offset + p.where.size(); ++i) {
      auto moved = values;
      const auto loss_at = [&](double x) {
        moved[static_cast<std::size_t>(i)] = x;
        model.parameters().assign(b, 1, model.parameters().size(), moved.data());
        return run(b, model, batch).loss;
      };
      const double x = values[static_cast<std::size_t>(i)];
      const double numeric = (loss_at(x + h) - loss_at(x - h)) / (2 * h);
      error += std::pow(numeric - at.gradients[static_cast<std::size_t>(i)], 2);
      norm += std::pow(numeric, 2);
    }
    INFO(p.name);
    // A key's bias moves all scores of a query alike, so the softmax takes it out: that part is 0 on both sides.
    CHECK(std::sqrt(error) <= 1e-8 * std::max(1.0, std::sqrt(norm)));
    CHECK(norm > 0);
  }
}

TEST_CASE("the gradient at the patches agrees with finite differences", "[gradient]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {4, 2});
  const auto at = run(b, model, batch);
  for (std::size_t i = 0; i < batch.patches.size(); i += 3) {
    auto moved = batch;
    const float up = batch.patches[i] + 0x1p-10f, down = batch.patches[i] - 0x1p-10f;
    moved.patches[i] = up;
    const double above = run(b, model, moved).loss;
    moved.patches[i] = down;
    const double below = run(b, model, moved).loss;
    CHECK((above - below) / (double(up) - double(down)) == Approx(at.dpatches[i]).margin(1e-6));
  }
}

TEST_CASE("the loss with smoothing, weights and competing classes agrees with finite differences", "[gradient]") {
  using B = cts::eigen_backend<double>;
  B b;
  std::vector<double> logits{0.3, -1.2, 0.8, 2.0, 0.1, -0.4, 1.0, 0.0};
  const std::vector<std::int32_t> targets{2, 3}, first{0, 2};
  const std::vector<float> weights{0.5f, 2.0f};
  const cts::cross_entropy_options options{.label_smoothing = 0.1, .first_class = first};
  cts::loss_tape<B> tape;
  const auto loss_of = [&](std::vector<double> x) {
    cts::cross_entropy(b, cts::view<double>(x.data(), 2, 4), targets, tape, weights, options);
    return cts::mean_loss(b, tape, weights);
  };
  loss_of(logits);
  const auto dlogits = tape.dlogits.to_host(b);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    auto up = logits, down = logits;
    up[i] += 1e-6;
    down[i] -= 1e-6;
    CHECK((loss_of(up) - loss_of(down)) / 2e-6 == Approx(dlogits[i]).margin(1e-9));
  }
  CHECK(dlogits[4] == 0);  // classes that do not compete are left alone
  CHECK(dlogits[5] == 0);

  // The default, which sees device memory only through the ten functions, computes the same.
  cts::reference_backend<double> plain;
  cts::loss_tape<cts::reference_backend<double>> other;
  cts::cross_entropy(plain, cts::view<double>(logits.data(), 2, 4), targets, other, weights, options);
  CHECK(other.dlogits.to_host(plain) == dlogits);

  const auto with_targets = [&](std::vector<std::int32_t> t, const cts::cross_entropy_options& o = {}) {
    cts::cross_entropy(b, cts::view<double>(logits.data(), 2, 4), t, tape, {}, o);
    return cts::mean_loss(b, tape);
  };
  CHECK_THROWS_AS(with_targets({4, 0}), cts::Error);
  CHECK_THROWS_AS(with_targets({0, 1}, options), cts::Error);
  CHECK_THROWS_AS(with_targets({0}), cts::Error);
  logits[0] = std::nan("");
  CHECK_THROWS_AS(with_targets({2, 3}), cts::Error);
}

TEST_CASE("results are the same to the bit for any number of threads", "[threads]") {
  using B = cts::eigen_backend<float>;
  const cts::vit_config c{.grid = {32, 32, 3, 4}, .dim = 96, .depth = 2, .heads = 3};
  const auto batch = [&] { return ragged::noise(c, {64, 17, 1, 40, 64, 5, 64}); }();
  B one(1);
  const auto model = ragged::lively_model(one, c);
  const auto want = run(one, model, batch);
  for (const int threads : {2, 3, 8}) {
    B many(threads);
    const auto got = run(many, model, batch);
    CHECK(got.logits == want.logits);
    CHECK(got.gradients == want.gradients);
  }
}

TEST_CASE("a sample's logits do not depend on the samples beside it", "[ragged]") {
  using B = cts::reference_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 0, 3});
  const auto together = run(b, model, batch);
  for (std::size_t s = 0; s < 3; ++s) {
    cts::token_batch alone;
    alone.patch_dim = batch.patch_dim;
    alone.positions.assign(batch.positions.begin() + batch.offsets[s], batch.positions.begin() + batch.offsets[s + 1]);
    alone.patches.assign(batch.patches.begin() + batch.offsets[s] * batch.patch_dim,
                         batch.patches.begin() + batch.offsets[s + 1] * batch.patch_dim);
    alone.offsets.push_back(static_cast<cts::index>(alone.positions.size()));
    alone.targets = {batch.targets[s]};
    const auto got = run(b, model, alone);
    for (std::size_t k = 0; k < 3; ++k) CHECK(got.logits[k] == Approx(together.logits[3 * s + k]).epsilon(1e-12));
  }
}

TEST_CASE("a grown head keeps its old rows, and what does not fit is an error", "[vit]") {
  using B = cts::eigen_backend<float>;
  B b;
  auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 2});
  const auto before = run(b, model, batch).logits;
  model.grow_head(b, 5);
  cts::vit_tape<B> tape;
  cts::forward(b, model, batch, tape);
  const auto after = tape.logits.to_host(b);
  for (std::size_t s = 0; s < 2; ++s)
    for (std::size_t k = 0; k < 3; ++k) CHECK(after[5 * s + k] == Approx(before[3 * s + k]).epsilon(1e-5));
  CHECK_THROWS_AS(model.grow_head(b, 2), cts::Error);

  auto wrong = batch;
  wrong.positions[0] = 6;
  CHECK_THROWS_AS(cts::forward(b, model, wrong, tape), cts::Error);
  wrong = batch;
  wrong.patch_dim = 3;
  CHECK_THROWS_AS(cts::forward(b, model, wrong, tape), cts::Error);
  CHECK_THROWS_AS(cts::vit<B>(b, {.grid = {7, 8, 3, 2}}), cts::Error);
  CHECK_THROWS_AS(cts::vit<B>(b, {.dim = 10, .heads = 3}), cts::Error);
}

TEST_CASE("clipping scales to the limit and the cosine schedule runs from warm-up to 0", "[optimiser]") {
  using B = cts::eigen_backend<double>;
  B b;
  const std::vector<double> gradient{3, 4};
  const auto moved = [&](double limit) {
    cts::parameter_layout layout;
    layout.add("w", {2}, false);
    cts::tensor<B> p(b, 1, layout.size()), g(b, 1, layout.size());
    b.fill(*p, 0);
    b.fill(*g, 0);
    b.upload(g.data(), gradient.data(), 2);
    cts::optimiser_state<B> state;
    state.reset(b, layout);
    cts::clip_gradients(b, g, limit, state);
    cts::step(b, cts::sgd{.learning_rate = 1}, state, p, g);
    return p.to_host(b);
  };
  CHECK(moved(10)[0] == Approx(-3));
  CHECK(moved(1)[0] == Approx(-0.6));
  CHECK(moved(1)[1] == Approx(-0.8));
  CHECK(cts::cosine_schedule(0, 100, 10) == Approx(0.1));
  CHECK(cts::cosine_schedule(10, 100, 10) == Approx(1.0));
  CHECK(cts::cosine_schedule(55, 100, 10) == Approx(0.5));
  CHECK(cts::cosine_schedule(100, 100, 10) == Approx(0.0).margin(1e-12));
}

}  // namespace nn_gradients_tests
