// What must hold for every attribution method: one sample or many, any number of threads, any backend, any target.

#include "support.hpp"
#include "support/methods.hpp"

namespace attribution_properties_tests {

namespace {

using namespace attribution_tests;
using cts::index;

const cts::vit_config small{.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 3, .classes = 5, .mlp_ratio = 2};

/// Every method as it comes, and with options that take other ways.
std::vector<std::string> all_methods() {
  auto methods = names_of(cts::attribution_methods{});
  for (const char* more : {"rollout:fusion=max:start_layer=1",
                           "rollout:fusion=min:discard=0.5",
                           "gradient_x_input:magnitude=true",
                           "integrated_gradients:start=embeddings:steps=3",
                           "lrp:rules=chefer:level=pixels",
                           "lrp:rules=chefer_original:level=embeddings",
                           "lrp:rules=epsilon:level=pixels",
                           "lrp:rules=attn_lrp_explicit:level=pixels",
                           "lrp:rules=attn_lrp_gamma:level=pixels",
                           "lrp:rules=cp_lrp",
                           "partial_lrp:block_from_last=2:gradient=true",
                           "grad_lrp:rules=attn_lrp:start_layer=1",
                           "generic_attention:start_layer=2",
                           "atman:neighbours=patch:threshold=0.2:shift=false",
                           "occlusion:missing=zero",
                           "atman_first_order:shift=false",
                           "smooth_grad(grad_lrp):samples=3",
                           "smooth_grad(atman):samples=2",
                           "averaged(atman):pairs=1",
                           "averaged(grad_lrp):pairs=0"}) {
    methods.emplace_back(more);
  }
  return methods;
}

template <class B>
std::vector<double> run(B& b, const std::string& method, const cts::vit<B>& model, const cts::token_batch& batch,
                        const cts::target& t = {}) {
  cts::attribution_workspace<B> ws;
  return attribute(support::method_named<B>(method), b, model, batch, t, ws);
}

cts::token_batch one_sample(const cts::token_batch& batch, index s) {
  return cts::copy_samples(batch, std::vector<index>{s});
}

}  // namespace

TEST_CASE("a sample has the same relevance alone and in a ragged batch", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 1, 0, 7});
  for (const auto& method : all_methods()) {
    INFO(method);
    const auto together = run(b, method, model, batch);
    REQUIRE(together.size() == 28);
    std::vector<double> apart;
    for (cts::index s = 0; s < batch.samples(); ++s) {
      const auto one = run(b, method, model, one_sample(batch, s));
      apart.insert(apart.end(), one.begin(), one.end());
    }
    for (const double r : together) CHECK(std::isfinite(r));
    CHECK(golden::distance(together, apart) <= 1e-9);
  }
}

TEST_CASE("relevance is the same to the bit for any number of threads", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B one(1), three(3);
  const auto model = ragged::lively_model(one, small);
  const auto batch = ragged::noise(small, {20, 1, 0, 7});
  for (const auto& method : all_methods()) {
    INFO(method);
    CHECK(run(three, method, model, batch) == run(one, method, model, batch));
  }
}

TEST_CASE("every method needs nothing of a backend but the ten functions", "[attribution]") {
  cts::reference_backend<double> plain;
  cts::eigen_backend<double> eigen;
  const auto reference = ragged::lively_model(plain, small);
  const auto model = ragged::lively_model(eigen, small);
  const auto batch = ragged::noise(small, {5, 0, 8});
  for (const auto& method : all_methods()) {
    INFO(method);
    CHECK(golden::distance(run(eigen, method, model, batch), run(plain, method, reference, batch)) <= 1e-8);
  }
}

TEST_CASE("a model of one block is explained like any other", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  auto config = small;
  config.depth = 1;
  const auto model = ragged::lively_model(b, config);
  const auto batch = ragged::noise(config, {4, 0});
  for (const auto& method : names_of(cts::attribution_methods{})) {
    INFO(method);
    CHECK(run(b, method, model, batch).size() == 4);
  }
}

TEST_CASE("targets settle on the classes that they name", "[attribution]") {
  cts::token_batch batch;
  batch.offsets = {0, 0, 0};
  batch.targets = {2, 0};
  const std::vector<double> logits{1, 3, 2, 0, -1, -2};
  const auto settled = [&](const cts::target& t) { return cts::settle<double>(t, batch, logits); };
  CHECK(settled({}).classes == std::vector<std::int32_t>{1, 0});
  CHECK(settled(cts::parse_target("argmax")).classes == std::vector<std::int32_t>{1, 0});
  CHECK(settled(cts::parse_target("label")).classes == batch.targets);
  CHECK(settled(cts::parse_target("class:2")).classes == std::vector<std::int32_t>{2, 2});
  CHECK(settled(std::vector<std::int32_t>{0, 1}).classes == std::vector<std::int32_t>{0, 1});
  const auto margin = settled(cts::parse_target("margin"));
  CHECK(margin.classes == batch.targets);
  CHECK(margin.others == std::vector<std::int32_t>{1, 1});
  CHECK(settled(cts::parse_target("margin:0,2")).others == std::vector<std::int32_t>{2, 2});

  const auto row = std::span<const double>(logits).first(3);
  CHECK(settled({}).value(0, row) == 3);
  CHECK(margin.value(0, row) == -1);
  const auto loss = settled(cts::parse_target("loss"));
  CHECK(loss.value(0, row) == Approx(2 - std::log(std::exp(1) + std::exp(3) + std::exp(2))));
  std::vector<double> gradient(3);
  loss.gradient<double>(0, row, gradient);
  const double h = 1e-6;
  for (std::size_t k = 0; k < 3; ++k) {
    auto up = logits, down = logits;
    up[k] += h, down[k] -= h;
    CHECK(gradient[k] == Approx((loss.value(0, std::span<const double>(up).first(3)) -
                                 loss.value(0, std::span<const double>(down).first(3))) /
                                (2 * h)));
  }
  for (const char* wrong : {"best", "class", "class:", "class:x", "margin:3", "label:2"}) {
    CHECK_THROWS_AS(cts::parse_target(wrong), cts::Error);
  }
  CHECK_THROWS_AS(settled(cts::target::of_class(3)), cts::Error);
  CHECK_THROWS_AS(settled(cts::target::margin(1, 1)), cts::Error);
  CHECK_THROWS_AS(settled(std::vector<std::int32_t>{0, 1, 2}), cts::Error);
  batch.targets.clear();
  CHECK_THROWS_AS(settled(cts::target::label()), cts::Error);
}

TEST_CASE("every gradient method follows its target", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 9});
  // A margin is the difference of two logits, and so is its gradient times input.
  const std::string method = "gradient_x_input";
  const auto margin = run(b, method, model, batch, cts::target::margin(1, 4)),
             first = run(b, method, model, batch, cts::target::of_class(1)),
             second = run(b, method, model, batch, cts::target::of_class(4));
  std::vector<double> difference;
  for (std::size_t i = 0; i < first.size(); ++i) difference.push_back(first[i] - second[i]);
  CHECK(golden::distance(margin, difference) <= 1e-12);
  for (const char* sensitive : {"grad_cam", "grad_lrp", "generic_attention", "lrp", "partial_lrp", "lrp_rollout",
                                "integrated_gradients", "atman", "atman_first_order", "occlusion", "smooth_grad"}) {
    INFO(sensitive);
    CHECK(run(b, sensitive, model, batch, cts::target::of_class(1)) !=
          run(b, sensitive, model, batch, cts::target::of_class(4)));
  }
  for (const char* blind : {"attention", "rollout"}) {
    CHECK(run(b, blind, model, batch, cts::target::of_class(1)) ==
          run(b, blind, model, batch, cts::target::of_class(4)));
  }
}

TEST_CASE("every method explains every kind of target", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 0, 9});
  for (const auto& method : all_methods()) {
    for (const char* t : {"argmax", "label", "class:3", "loss", "margin", "margin:1,4"}) {
      INFO(method << " of " << t);
      const auto relevance = run(b, method, model, batch, cts::parse_target(t));
      CHECK(relevance.size() == 15);
      CHECK(std::all_of(relevance.begin(), relevance.end(), [](double r) { return std::isfinite(r); }));
    }
  }
  // What is linear in the gradient at the logits is the same sum of the classes' relevance as the target's slope.
  cts::attribution_workspace<B> ws;
  cts::explain_forward(b, model, batch, cts::target::loss(), ws);
  const auto slope = ws.dlogits.to_host(b);
  for (const char* linear : {"gradient_x_input", "atman_first_order:watch=target"}) {
    INFO(linear);
    std::vector<double> sum(15, 0.0);
    for (std::int32_t k = 0; k < 5; ++k) {
      const auto of_class = run(b, linear, model, batch, cts::target::of_class(k));
      for (std::size_t p = 0; p < 15; ++p) sum[p] += slope[(p < 6 ? 0 : 2) * 5 + std::size_t(k)] * of_class[p];
    }
    CHECK(golden::distance(run(b, linear, model, batch, cts::target::loss()), sum) <= 1e-10);
  }
  // LRP starts at gradient times logit, so that a margin is the difference of two classes here too.
  const auto margin = run(b, "lrp:rules=cp_lrp", model, batch, cts::target::margin(1, 4)),
             first = run(b, "lrp:rules=cp_lrp", model, batch, cts::target::of_class(1)),
             second = run(b, "lrp:rules=cp_lrp", model, batch, cts::target::of_class(4));
  for (std::size_t p = 0; p < 15; ++p) CHECK(margin[p] == Approx(first[p] - second[p]).margin(1e-10));
}

TEST_CASE("methods refuse what they cannot do", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {3});
  for (const char* wrong :
       {"rollout:start_layer=3", "rollout:discard=1", "grad_lrp:start_layer=-1", "partial_lrp:block_from_last=3",
        "occlusion:missing=rescaled", "integrated_gradients:steps=0", "smooth_grad:samples=0",
        "lrp:rules=chefer_original:limit=1e-3"}) {
    INFO(wrong);
    CHECK_THROWS_AS(run(b, wrong, model, batch), cts::Error);
  }
}

TEST_CASE("relevance that grows beyond all numbers is an error and no map", "[attribution]") {
  using B = cts::reference_backend<float>;
  B b;
  auto config = small;
  config.depth = 60;
  const auto model = ragged::lively_model(b, config);
  const auto batch = ragged::noise(config, {5, 3});
  for (const char* method : {"grad_lrp", "lrp_rollout", "partial_lrp:block_from_last=59", "lrp"}) {
    INFO(method);
    CHECK_THROWS_AS(run(b, method + std::string(":rules=chefer_original"), model, batch), cts::Error);
    CHECK_NOTHROW(run(b, method + std::string(":rules=chefer"), model, batch));
  }
}

TEST_CASE("gradients of patches, by their definition", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 9});
  cts::attribution_workspace<B> ws;
  cts::explain_forward(b, model, batch, {}, ws, cts::kept::gradients);
  cts::tensor<B> gradient;
  cts::patch_gradient(b, model, ws, gradient);
  const auto g = gradient.to_host(b);
  std::vector<double> products, sizes;
  const auto width = std::size_t(batch.patch_dim);
  for (std::size_t p = 0; p < 15; ++p) {
    double product = 0, square = 0;
    for (std::size_t i = p * width; i < (p + 1) * width; ++i)
      product += g[i] * double(batch.patches[i]), square += g[i] * g[i];
    products.push_back(product), sizes.push_back(std::sqrt(square));
  }
  CHECK(golden::distance(run(b, "gradient_x_input", model, batch), products) <= 1e-12);
  CHECK(golden::distance(run(b, "gradient_x_input:magnitude=true", model, batch), sizes) <= 1e-12);
}

TEST_CASE("smoothed relevance is a mean over noise of the size that is asked for", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 9});
  CHECK(golden::distance(run(b, "smooth_grad(grad_lrp):sigma=0:samples=3", model, batch),
                         run(b, "grad_lrp", model, batch)) <= 1e-12);
  CHECK(run(b, "smooth_grad:seed=1", model, batch) != run(b, "smooth_grad:seed=2", model, batch));
  cts::token_batch copies;
  copies.patch_dim = 1000;
  copies.patches.assign(4000, 0.0f);
  copies.patches[1000] = -1, copies.patches[1001] = 3;  // a range of 4, of which 0.25 is the deviation
  auto noisy = copies;
  cts::detail::add_noise(noisy, 1, 3, 0.25, 5, 0);
  double square = 0;
  for (std::size_t i = 0; i < 4000; ++i) {
    const double moved = double(noisy.patches[i]) - double(copies.patches[i]);
    if (i < 1000 || i >= 3000) CHECK(moved == 0);
    square += moved * moved / 2000;
  }
  CHECK(std::sqrt(square) == Approx(1).epsilon(0.05));
}

TEST_CASE("dice follow their seed", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {6, 9});
  CHECK(run(b, "random:seed=1", model, batch) == run(b, "random:seed=1", model, batch));
  CHECK(run(b, "random:seed=1", model, batch) != run(b, "random:seed=2", model, batch));
  // Pictures of the same size have dice of their own, and so have other places of the same patches.
  auto pictures = ragged::noise(small, {6, 6});
  const auto dice = run(b, "random", model, pictures);
  CHECK(std::vector(dice.begin(), dice.begin() + 6) != std::vector(dice.begin() + 6, dice.end()));
  std::swap(pictures.positions[0], pictures.positions[1]);
  CHECK(run(b, "random", model, pictures)[2] != dice[2]);
  for (const double r : dice) CHECK((r >= 0 && r < 1));
}

TEST_CASE("integrated gradients sum up to what the path changes", "[attribution]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  auto batch = ragged::noise(small, {6, 9});
  cts::attribution_workspace<B> ws;
  for (const auto start : {cts::path_start::pixels, cts::path_start::embeddings}) {
    const auto relevance = attribute(
        cts::integrated_gradients{.steps = 100, .start = start, .pixel = start == cts::path_start::pixels ? 0.5 : 0}, b,
        model, batch, cts::target::label(), ws);
    const auto value = [&](const cts::token_batch& of, std::size_t s) {
      cts::explain_forward(b, model, of, cts::target::label(), ws);
      const auto logits = ws.tape.logits.to_host(b);
      return ws.explained.value(s, std::span<const double>(logits).subspan(s * 5, 5));
    };
    auto baseline = batch;
    if (start == cts::path_start::pixels) std::fill(baseline.patches.begin(), baseline.patches.end(), 0.5f);
    if (start == cts::path_start::embeddings) baseline.scale.assign(15, 0.0);
    for (std::size_t s = 0; s < 2; ++s) {
      const auto first = relevance.begin() + batch.offsets[s], last = relevance.begin() + batch.offsets[s + 1];
      CHECK(std::accumulate(first, last, 0.0) == Approx(value(batch, s) - value(baseline, s)).epsilon(1e-5));
    }
  }
  const auto q = cts::gauss_legendre(5);
  for (int power = 0; power < 10; ++power) {  // five points integrate polynomials up to degree 9
    double sum = 0;
    for (std::size_t i = 0; i < 5; ++i) sum += q.weights[i] * std::pow(q.points[i], power);
    CHECK(sum == Approx(1.0 / (power + 1)).epsilon(1e-13));
  }
}

TEST_CASE("rollout of fused heads and discarded attention, by hand", "[attribution]") {
  // Two heads of two tokens: means .5 .5 / .3 .7, largest .6 .6 / .4 .8.
  const std::vector<double> a{.4, .6, .2, .8, .6, .4, .4, .6};
  const cts::view<const double> matrices(a.data(), 1, 2, 2, 2, 0, 4, 2);
  const auto fused = [&](const cts::rollout& m) { return cts::detail::fused_attention(m, matrices); };
  CHECK(golden::distance(fused({}), std::vector{.5, .5, .3, .7}) <= 1e-15);
  CHECK(fused({.fusion = cts::head_fusion::max}) == std::vector{.6, .6, .4, .8});
  CHECK(fused({.fusion = cts::head_fusion::min}) == std::vector{.4, .4, .2, .6});
  CHECK(fused({.fusion = cts::head_fusion::max, .discard = .3}) == std::vector{.6, .6, 0., .8});
  CHECK(fused({.fusion = cts::head_fusion::min, .discard = .6}) ==
        std::vector{.4, .4, 0., .6});  // the first entry stays
  std::vector<double> row{1, 0};
  cts::detail::carry_normalised({.6, .6, .4, .8}, 2, row);
  CHECK(row[0] == Approx(1.6 / 2.2));
  CHECK(row[1] == Approx(.6 / 2.2));
}

}  // namespace attribution_properties_tests
