// Options of methods and measures that hold numbers that are none are refused.

#include <limits>

#include "core_tokensets/attribution/answers/answer_atman.hpp"
#include "core_tokensets/attribution/atman_first_order.hpp"
#include "core_tokensets/attribution/audit.hpp"
#include "core_tokensets/attribution/authors_atman.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/integrated_gradients.hpp"
#include "core_tokensets/attribution/lrp_rollout.hpp"
#include "core_tokensets/attribution/measures/faithfulness.hpp"
#include "core_tokensets/attribution/measures/sensitivity.hpp"
#include "core_tokensets/attribution/measures/sufficiency.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/attribution/smooth_grad.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/ragged.hpp"
#include "support/scratch.hpp"

namespace attribution_bad_numbers_tests {

namespace cts = core_tokensets;
using B = cts::reference_backend<double>;

namespace {

/// Multiplies all numbers of a parameter.
template <class Backend>
void scale_parameter(Backend& b, cts::vit<Backend>& model, const std::string& name, double factor) {
  auto values = model.parameters().to_host(b);
  for (const auto& p : model.layout().parameters.table()) {
    if (p.name != name) continue;
    for (cts::index i = 0; i < p.where.size(); ++i) {
      auto& v = values[static_cast<std::size_t>(p.where.offset + i)];
      v = static_cast<typename Backend::scalar>(double(v) * factor);
    }
  }
  model.parameters().assign(b, 1, model.layout().parameters.size(), values.data());
}

}  // namespace

TEST_CASE("relevance that is not finite is an error that names the method and where", "[attribution]") {
  using F = cts::reference_backend<float>;
  F b;
  const cts::vit_config c{.grid = {8, 8, 1, 4}, .dim = 8, .depth = 3, .heads = 2, .classes = 3};
  const auto batch = ragged::noise(c, {3, 2});
  cts::attribution_workspace<F> ws;
  auto broken = ragged::lively_model(b, c);
  scale_parameter(b, broken, "blocks.1.mlp.fc2.weight", std::numeric_limits<double>::quiet_NaN());
  auto steep = ragged::lively_model(b, c);  // logits are finite, products of gradients are not
  scale_parameter(b, steep, "head.weight", 1e37);
  const auto said = [&](const auto& method, const cts::vit<F>& model) {
    return support::message_of([&] { attribute(method, b, model, batch, cts::target{}, ws); });
  };
  const auto check = [&](const char* name, const auto& method) {
    INFO(name);
    CHECK(said(method, broken).find("logits of sample 0 are not finite") != std::string::npos);
    if (std::string(name) != "rollout") CHECK(said(method, broken).find("from block 1 on") != std::string::npos);
    const std::string overflow = said(method, steep);
    INFO(overflow);
    CHECK((overflow.empty() || overflow.find(name) == 0));
  };
  check("grad_lrp", cts::grad_lrp{});
  check("lrp_rollout", cts::lrp_rollout{});
  check("generic_attention", cts::generic_attention{});
  check("grad_cam", cts::grad_cam{});
  check("gradient_x_input", cts::gradient_x_input{});
  check("rollout", cts::rollout{});

  // Relevance of the only block is finite, and the gradients below it are not: its norm divides by next to nothing.
  auto config = c;
  config.depth = 1;
  auto flat = ragged::lively_model(b, config);
  for (const char* name : {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "cls_token"}) {
    scale_parameter(b, flat, name, 1e-20);
  }
  scale_parameter(b, flat, "blocks.0.norm1.weight", 1e4);
  scale_parameter(b, flat, "head.weight", 1e33);
  CHECK(said(cts::generic_attention{}, flat).find("generic_attention: gradients are not finite from block 0 down") ==
        0);
  CHECK(said(cts::gradient_x_input{}, flat).find("gradient_x_input: gradients are not finite") == 0);

  CHECK(said(cts::grad_lrp{}, steep).find("grad_lrp: relevance is not finite in sample 0") == 0);
  CHECK(said(cts::generic_attention{}, steep).find("generic_attention: relevance is not finite in sample 0") == 0);
}

TEST_CASE("methods and measures refuse numbers that are none", "[attribution]") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  B b;
  const cts::vit_config c{.grid = {8, 8, 1, 4}, .dim = 8, .depth = 2, .heads = 2, .classes = 3};
  const auto model = ragged::lively_model(b, c);
  const auto batch = ragged::noise(c, {3, 2});
  cts::attribution_workspace<B> ws;
  const auto refuses = [&](const char* name, const auto& method) {
    INFO(name);
    CHECK_THROWS_AS(attribute(method, b, model, batch, cts::target{}, ws), cts::Error);
  };
  refuses("factor", cts::atman{.factor = nan});
  refuses("threshold", cts::atman{.neighbours = cts::neighbourhood::patch, .threshold = nan});
  refuses("first factor", cts::atman_first_order{.factor = nan});
  refuses("authors' factor", cts::authors_atman{.factor = nan});
  refuses("authors' threshold", cts::authors_atman{.threshold = nan});
  refuses("pixel", cts::integrated_gradients{.start = cts::path_start::pixels, .pixel = nan});
  refuses("sigma", cts::smooth_grad<cts::gradient_x_input>{.sigma = nan});
  refuses("sigma", cts::smooth_grad<cts::gradient_x_input>{.sigma = HUGE_VAL});
  refuses("discard", cts::rollout{.discard = nan});
  CHECK_THROWS_AS(audit(cts::lrp::attn_lrp(), b, model, batch, cts::target{}, ws, {.limit = nan}), cts::Error);

  cts::measured_batch<B> measured(b, model, batch, {});
  const std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 1.0);
  for (const double share : {nan, 0.0, 1.5}) {
    CHECK_THROWS_AS(cts::measure(cts::random_removal{.share = share}, measured, relevance), cts::Error);
    CHECK_THROWS_AS(cts::measure(cts::sufficiency{.shares = {share}}, measured, relevance), cts::Error);
  }
  const auto explain = [&](const cts::token_batch& x, const cts::target&) {
    return std::vector<double>(static_cast<std::size_t>(x.tokens()), 1.0);
  };
  for (const double radius : {nan, HUGE_VAL, -1.0}) {
    CHECK_THROWS_AS(cts::measure(cts::max_sensitivity{.radius = radius}, explain, batch, measured.explained, relevance),
                    cts::Error);
  }
}

}  // namespace attribution_bad_numbers_tests
