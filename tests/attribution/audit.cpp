// The conservation report: what the rules claim to keep is kept, and what is not is found where it went.

#include "core_tokensets/attribution/audit.hpp"

#include "support.hpp"

namespace attribution_audit_tests {

namespace {

using namespace attribution_tests;
using cts::index;
namespace lrp = cts::lrp;

const cts::vit_config small{.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 3, .classes = 5, .mlp_ratio = 2};

/// A model without any bias, of linear layers and of norms.
template <class B>
cts::vit<B> without_biases(B& b, const cts::vit_config& config = small) {
  auto model = ragged::lively_model(b, config);
  auto values = model.parameters().to_host(b);
  for (const auto& p : model.layout().parameters.table()) {
    if (p.name.ends_with("bias")) std::fill_n(values.begin() + p.where.offset, p.where.size(), 0);
  }
  model.parameters().assign(b, 1, model.layout().parameters.size(), values.data());
  return model;
}

double absorbed(const cts::conservation_report& r) { return r.linear + r.norms + r.attention + r.sums + r.activations; }

template <class B>
void check_golden(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attribution");
  cts::attribution_workspace<B> ws;
  std::vector<double> got;
  const auto argmax = cts::audit(lrp::chefer(), b, c.model, c.batch, {}, ws),
             label = cts::audit(lrp::chefer(), b, c.model, c.batch, cts::target::label(), ws);
  for (std::size_t s = 0; s < argmax.size(); ++s) {
    for (const auto* r : {&argmax[s], &label[s]}) {
      const auto entering =
          std::find_if(r->flows.begin(), r->flows.end(), [](const auto& f) { return f.operation.ends_with(".add2"); });
      REQUIRE(entering != r->flows.end());
      got.insert(got.end(), {entering->entering, r->at_tokens, r->at_pixels});
    }
  }
  check_close(want, "conservation", got, tolerance<T>(kind::relevance));
}

}  // namespace

TEST_CASE("sums of relevance at the last block, the tokens and the pixels are the reference's", "[lrp][golden]") {
  on_every_case([](auto& b, const auto& c) { check_golden(b, c); });
}

TEST_CASE("what enters and does not arrive was absorbed by some operation", "[lrp]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 1, 0, 7});
  cts::attribution_workspace<B> ws;
  for (const auto& c : {lrp::chefer(), lrp::epsilon_everywhere(), lrp::attn_lrp(), lrp::attn_lrp_explicit(),
                        lrp::attn_lrp_gamma(), lrp::cp_lrp()}) {
    INFO(c.name);
    for (const auto& r : cts::audit(c, b, model, batch, cts::target::label(), ws)) {
      CHECK(r.flows.size() == 3 + 3 * 12 + 2);
      const double size = std::max(1.0, r.growth * std::abs(r.start));
      CHECK(std::abs(r.start - absorbed(r) - r.at_tokens) <= 1e-10 * size);
      CHECK(std::abs(r.at_tokens - r.class_token - r.positions - r.at_embeddings) <= 1e-10 * size);
      for (std::size_t i = 0; i < r.flows.size(); ++i) CHECK(std::isfinite(r.flows[i].leaving));
    }
  }
}

TEST_CASE("rules keep what they claim to keep", "[lrp]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = without_biases(b);
  const auto batch = ragged::noise(small, {20, 3});
  cts::attribution_workspace<B> ws;
  // An output to which nothing contributes positively loses its relevance: with 12 channels that happens.
  for (const auto& r : cts::audit(lrp::chefer(), b, model, batch, {}, ws)) {
    CHECK(r.start == 1);
    CHECK(std::abs(r.start - r.linear - r.at_tokens) <= 1e-5);
  }
  auto config = small;
  config.dim = 36;
  const auto wide = without_biases(b, config);
  for (const auto& r : cts::audit(lrp::chefer(), b, wide, ragged::noise(config, {20, 3}), {}, ws)) {
    CHECK(r.at_tokens == Approx(1).epsilon(1e-5));  // the constant in the divisions leaks
  }
  for (const auto& r : cts::audit(lrp::cp_lrp(), b, model, batch, {}, ws)) {
    CHECK(r.at_tokens == Approx(r.start).epsilon(1e-6));  // LXT's constant in the activation leaks
    for (const double kept : {r.linear, r.norms, r.attention, r.sums}) CHECK(std::abs(kept) <= 1e-9);
  }
  for (const auto& r : cts::audit(lrp::attn_lrp(), b, model, batch, {}, ws)) {
    CHECK(std::abs(r.attention) > 1e-3);  // the softmax is no map through the origin
    for (const double kept : {r.linear, r.norms, r.sums}) CHECK(std::abs(kept) <= 1e-9);
  }
  // With biases they absorb, and the report says so.
  const auto biased = ragged::lively_model(b, small);
  for (const auto& r : cts::audit(lrp::cp_lrp(), b, biased, batch, {}, ws)) {
    CHECK(std::abs(r.linear) > 1e-3);
    CHECK(std::abs(r.norms) > 1e-3);
    CHECK(std::abs(r.sums) <= 1e-9);
  }
}

TEST_CASE("relevance that explodes is flagged", "[lrp]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {9});
  cts::attribution_workspace<B> ws;
  const auto first = cts::audit(lrp::chefer_original(), b, model, batch, {}, ws).front();
  CHECK(first.growth > 1);
  CHECK(cts::audit(lrp::chefer_original(), b, model, batch, {}, ws, {.limit = first.growth / 2}).front().exploded);
  CHECK_FALSE(
      cts::audit(lrp::chefer_original(), b, model, batch, {}, ws, {.limit = first.growth * 2}).front().exploded);
  const auto json = cts::to_json(first);
  CHECK(json["rules"] == "chefer_original");
  CHECK(json["flows"].size() == first.flows.size());
  CHECK(json["absorbed"]["norms"] == 0);
}

TEST_CASE("a composite of one's own is an aggregate", "[lrp]") {
  using B = cts::eigen_backend<double>;
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {9, 4});
  cts::attribution_workspace<B> ws;
  lrp::composite mine = lrp::cp_lrp();
  const auto plain = attribute(cts::composite_attribution{mine}, b, model, batch, {}, ws);
  mine.fc1 = lrp::gamma{.gamma = 0.3};
  CHECK(attribute(cts::composite_attribution{mine}, b, model, batch, {}, ws) != plain);
  mine.fc1 = lrp::gamma{.gamma = 0, .eps = 0};  // gamma 0 is epsilon
  CHECK(golden::distance(attribute(cts::composite_attribution{mine}, b, model, batch, {}, ws), plain) <= 1e-9);
}

}  // namespace attribution_audit_tests
