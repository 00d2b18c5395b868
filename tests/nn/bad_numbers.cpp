// Options with numbers that are none, or that no computation makes sense with, are refused where they enter.

#include <cmath>
#include <limits>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/data/augment.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/lrp/composite.hpp"
#include "core_tokensets/nn/lrp/elementwise.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"

namespace nn_bad_numbers_tests {

namespace {

namespace cts = core_tokensets;
using B = cts::reference_backend<double>;
constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

/// `use(option)` refuses NaN and everything in `bad`, and takes everything in `good`.
template <class Use>
void check_option(const char* name, const Use& use, std::initializer_list<double> bad,
                  std::initializer_list<double> good) {
  INFO(name);
  CHECK_THROWS_AS(use(nan), cts::Error);
  for (const double x : bad) {
    INFO(x);
    CHECK_THROWS_AS(use(x), cts::Error);
  }
  for (const double x : good) {
    INFO(x);
    CHECK_NOTHROW(use(x));
  }
}

/// Two parameters and what an optimiser needs.
struct trained {
  B b;
  cts::parameter_layout layout;
  cts::tensor<B> parameters, gradients;
  cts::optimiser_state<B> state;
  trained() {
    layout.add("w", {1, 2}, true);
    parameters.resize(b, 1, layout.size());
    gradients.resize(b, 1, layout.size());
    b.fill(*parameters, 1);
    b.fill(*gradients, 1);
    state.reset(b, layout);
  }
  template <class O>
  void step(const O& o, double schedule = 1, std::vector<cts::parameter_group> groups = {}) {
    cts::step(b, o, state, parameters, gradients, schedule, groups);
  }
};

}  // namespace

TEST_CASE("NaN is no number where options are read", "[options]") {
  const auto read = [](const char* text) { return cts::detail::parse_option<double>(text, "x"); };
  for (const char* text : {"nan", "NaN", "-nan", "nan(1)"}) CHECK_THROWS_AS(read(text), cts::Error);
  CHECK(read("-2.5") == -2.5);
  CHECK(read("inf") == infinity);
}

TEST_CASE("optimisers refuse numbers that no step makes sense with", "[optimiser]") {
  trained t;
  using cts::adamw, cts::sgd;
  check_option("learning_rate", [&](double x) { t.step(adamw{.learning_rate = x}); }, {-1, infinity}, {0, 1});
  check_option("beta1", [&](double x) { t.step(adamw{.beta1 = x}); }, {-0.1, 1, 2}, {0, 0.99});
  check_option("beta2", [&](double x) { t.step(adamw{.beta2 = x}); }, {-0.1, 1, 2}, {0, 0.99});
  check_option("eps", [&](double x) { t.step(adamw{.eps = x}); }, {-1e-9, infinity}, {1e-3});
  check_option("weight_decay", [&](double x) { t.step(adamw{.weight_decay = x}); }, {-1, infinity}, {0, 1});
  check_option("learning_rate", [&](double x) { t.step(sgd{.learning_rate = x}); }, {-1, infinity}, {0, 1});
  check_option("momentum", [&](double x) { t.step(sgd{.momentum = x}); }, {-1, 1.1}, {0, 1});
  check_option("weight_decay", [&](double x) { t.step(sgd{.weight_decay = x}); }, {-1}, {0});
  check_option("l2", [&](double x) { t.step(sgd{.l2 = x}); }, {-1}, {0});
  check_option("schedule", [&](double x) { t.step(sgd{}, x); }, {-1, infinity}, {0, 1});
  check_option("rate of a group", [&](double x) { t.step(sgd{}, 1, {{0, 2, x}}); }, {-1, infinity}, {0, 2});
  CHECK_THROWS_AS(t.step(sgd{}, 1, {{1, t.layout.size(), 1.0}}), cts::Error);
  CHECK_THROWS_AS(t.step(sgd{}, 1, {{-1, 2, 1.0}}), cts::Error);
  check_option("clipping", [&](double x) { cts::clip_gradients(t.b, t.gradients, x, t.state); }, {0, -1},
               {1, infinity});
}

TEST_CASE("layers and losses refuse numbers that are none", "[nn]") {
  B b;
  cts::parameter_layout layout;
  check_option("layer norm", [&](double x) { cts::add_layer_norm(layout, "n" + std::to_string(layout.size()), 2, x); },
               {-1e-6, 2, infinity}, {0, 1e-6});
  cts::tensor<B> logits(b, 1, 3);
  b.fill(*logits, 0);
  cts::loss_tape<B> tape;
  check_option("label_smoothing",
               [&](double x) {
                 cts::cross_entropy(b, *std::as_const(logits), std::vector<std::int32_t>{1}, tape, {},
                                    {.label_smoothing = x});
               },
               {-0.1, 1.1}, {0, 0.1, 1});
}

TEST_CASE("relevance rules refuse numbers that are none", "[lrp]") {
  namespace lrp = cts::lrp;
  const auto rule = [](const auto& r) { return lrp::linear_rule(r).plan().term_count; };
  check_option("epsilon", [&](double x) { rule(lrp::epsilon{.eps = x}); }, {-1e-6, infinity}, {0, 1});
  check_option("gamma", [&](double x) { rule(lrp::gamma{.gamma = x}); }, {infinity}, {0, 1});
  check_option("alpha", [&](double x) { rule(lrp::alpha_beta{.alpha = x}); }, {infinity}, {1, 2});
  check_option("beta", [&](double x) { rule(lrp::chefer_linear{.beta = x}); }, {infinity}, {0, 1});
  check_option("low", [&](double x) { rule(lrp::z_box{.low = x}); }, {2, infinity, -infinity}, {-1, 1});
  B b;
  cts::tensor<B> x(b, 1, 2), r(b, 1, 2);
  b.fill(*x, 1);
  b.fill(*r, 1);
  check_option("eps of an activation",
               [&](double eps) { lrp::relevance<B, double>(lrp::activation_rule{eps}, b, *std::as_const(x), *r); },
               {-1, infinity}, {0, 1e-6});
  check_option("eps of a division", [](double eps) { lrp::divide<double>({.eps = eps}); }, {-1}, {0, 1e-6});
  const cts::attention_rows rows(cts::sequences{{0, 1}});
  const auto halves = [&](double left, double right) {
    const cts::view<const double> in(x.data(), 1, 2);
    const lrp::attention_operands<double> at{.q = in, .k = in, .v = in, .out = in, .a = x.data()};
    lrp::relevance<B, double>({.product = {.left = left, .right = right}}, b, rows, at, in, r.data(), *r, *r, *r);
  };
  check_option("left", [&](double y) { halves(y, 0.5); }, {infinity}, {0.5});
  check_option("right", [&](double y) { halves(0.5, y); }, {infinity}, {0.5});
}

TEST_CASE("models and data refuse numbers that are none", "[model]") {
  check_option("mlp_ratio", [](double x) { cts::check(cts::vit_config{.mlp_ratio = x}); }, {0, -1, 1e-9, 1e9, infinity},
               {0.5, 4});
  check_option("layer_norm_eps", [](double x) { cts::check(cts::vit_config{.layer_norm_eps = x}); }, {-1, 2},
               {0, 1e-6});
  check_option("mlp_ratio of texts", [](double x) { cts::check(cts::image_text_config{.text = {.mlp_ratio = x}}); },
               {0, -1, 1e-9, 1e9, infinity}, {0.5, 4});
  check_option("flip", [](double x) { cts::draw_augmentation({.flip = x}, 0, 0, 0); }, {-0.1, 1.1}, {0, 1});
  check_option("token drop", [](double x) { cts::tokens_kept(10, x); }, {-0.1, 1}, {0, 0.99});
  check_option("mean", [](double x) { cts::pixel_table({{static_cast<float>(x)}, {1}}, 3); }, {infinity}, {0});
  check_option("deviation",
               [](double x) {
                 cts::pixel_table({{0}, {static_cast<float>(x)}}, 3);
               },
               {0, -1, infinity}, {1});
  B b;
  const cts::image_text_model<B> model(b, {.image = {.grid = {4, 4, 1, 4}, .dim = 4, .depth = 1, .heads = 1},
                                           .text = {.vocabulary = 4, .length = 4, .dim = 4, .depth = 1, .heads = 1}});
  cts::token_batch picture;
  picture.patch_dim = 16;
  picture.patches.assign(16, 0.0f);
  picture.positions = {0}, picture.offsets = {0, 1};
  cts::text_batch prompts;
  prompts.next_picture();
  prompts.append_prompt({}, 1);
  check_option("length_penalty",
               [&](double x) { cts::generate(b, model, picture, prompts, 0, {.length = 2, .length_penalty = x}); },
               {infinity}, {-1, 0, 1});
}

}  // namespace nn_bad_numbers_tests
