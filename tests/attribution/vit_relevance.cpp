// LRP through whole models, by every preset, against the reference: relevance of attention, tokens and pixels, and the
// methods that are made of them.

#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/attribution/lrp_rollout.hpp"
#include "core_tokensets/attribution/partial_lrp.hpp"
#include "support.hpp"

namespace attribution_vit_relevance_tests {

namespace {

using namespace attribution_tests;
using cts::index;
using cts::relevance_level;
namespace lrp = cts::lrp;

/// Relevance of pixels `[P, patch_dim]` as pictures `[B, H, W]`, summed over channels.
template <class T>
std::vector<double> to_pictures(const std::vector<T>& patches, const cts::vit_config& c) {
  const index area = c.grid.height * c.grid.width, p = c.grid.patch,
              samples = index(patches.size()) / (area * c.grid.channels);
  std::vector<double> out(std::size_t(samples * area), 0.0);
  std::size_t at = 0;
  for (index s = 0; s < samples; ++s)
    for (index k = 0; k < c.grid.tokens(); ++k)
      for (index e = 0; e < c.grid.patch_dim(); ++e) {
        const index y = k / c.grid.cols() * p + e % (p * p) / p, x = k % c.grid.cols() * p + e % p;
        out[std::size_t(s * area + y * c.grid.width + x)] += double(patches[at++]);
      }
  return out;
}

/// Chefer's pass, read at its start and at every block; everything kept or the last block for class tokens only.
template <class B>
void check_blocks(B& b, const golden::vit_case<B>& c, const cts::tensor_file& want, const std::string& name,
                  const cts::target& target, double limit) {
  cts::attribution_workspace<B> ws;
  cts::explain_forward(b, c.model, c.batch, target, ws);
  check_close(want, "lrp.rel_in." + name + "." + std::to_string(c.model.config().depth - 1),
              (cts::relevance_walk<B>(lrp::chefer(), b, c.model, ws), ws.relevance.to_host(b)), limit);
  std::vector<std::vector<double>> tokens;
  cts::propagate(cts::lrp::chefer(), b, c.model, ws, [&](index i) {
    check_close(want, "lrp.attn_cam." + name + "." + std::to_string(i), ws.attention_relevance.to_host(b), limit);
    check_close(want, i == 0 ? "lrp.rel_tokens." + name : "lrp.rel_in." + name + "." + std::to_string(i - 1),
                ws.relevance.to_host(b), limit);
    const auto host = ws.relevance.to_host(b);
    tokens.emplace_back(host.begin(), host.end());
  });
  cts::explain_forward(b, c.model, c.batch, target, ws, cts::kept::gradients);
  std::size_t at = 0;
  cts::propagate(lrp::chefer(), b, c.model, ws,
                 [&](index) { CHECK(golden::distance(ws.relevance.to_host(b), tokens[at++]) <= limit); });
}

template <class B>
void check_chefer(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attribution");
  cts::attribution_workspace<B> ws;
  const double limit = tolerance<T>(kind::relevance);
  const auto check = [&](const std::string& name, const auto& method, const cts::target& t, double l) {
    check_close(want, name, attribute(method, b, c.model, c.batch, t, ws), l);
  };
  for (const auto& [name, t] : golden_targets()) {
    check_blocks(b, c, want, name, t, limit);
    for (index start = 0; start < 2; ++start) {
      const std::string s = "_s" + std::to_string(start) + "." + name;
      check("transformer_attribution" + s, cts::grad_lrp{.start_layer = start}, t, limit);
      check("lrp_rollout" + s, cts::lrp_rollout{.start_layer = start}, t, limit);
    }
    const double loose = tolerance<T>(kind::unstable);
    const auto original = lrp::preset::chefer_original;
    check("orig.grad_s0." + name, cts::grad_lrp{.rules = original}, t, loose);
    check("orig.rollout_s0." + name, cts::lrp_rollout{.rules = original}, t, loose);
    const index second = c.model.config().depth - 2;  // block 1, counted from the last one
    for (const bool gradient : {false, true}) {
      const std::string suffix = (gradient ? "_grad." : ".") + name;
      check("last_layer" + suffix, cts::partial_lrp{0, gradient, lrp::preset::chefer}, t, limit);
      check("second_layer" + suffix, cts::partial_lrp{second, gradient, lrp::preset::chefer}, t, limit);
      check("orig.last_layer" + suffix, cts::partial_lrp{0, gradient, original}, t, loose);
      check("orig.second_layer" + suffix, cts::partial_lrp{second, gradient, original}, t, loose);
    }
    for (const auto preset : {lrp::preset::chefer, original}) {
      cts::tensor<B> pixels;
      cts::lrp_relevance({lrp::make(preset), relevance_level::pixels}, b, c.model, c.batch, t, ws, pixels);
      check_close(want, (preset == original ? "orig.full." : "full.") + name,
                  to_pictures(pixels.to_host(b), c.model.config()), preset == original ? loose : limit);
    }
  }
}

template <class B>
void check_attn_lrp(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attnlrp");
  const auto& config = c.model.config();
  cts::attribution_workspace<B> ws;
  const std::vector<std::pair<std::string, lrp::composite>> modes{
      {"explicit", lrp::attn_lrp_explicit()}, {"efficient", lrp::attn_lrp()}, {"cp", lrp::cp_lrp()}};
  for (const auto& [mode, composite] : modes) {
    const double limit = tolerance<T>(mode == "explicit" ? kind::explicit_rules : kind::plain);
    for (const auto& [name, t] : golden_targets()) {
      cts::tensor<B> pixels;
      cts::lrp_relevance({composite, relevance_level::pixels}, b, c.model, c.batch, t, ws, pixels);
      check_close(want, mode + ".pixels." + name, to_pictures(pixels.to_host(b), config), limit);
      const auto full = ws.relevance.to_host(b);
      if (name == "argmax") check_close(want, mode + ".tokens_full.argmax", full, limit);
      std::vector<double> tokens;
      for (std::size_t i = 0; i < full.size(); i += std::size_t(config.dim)) {
        tokens.push_back(std::accumulate(full.begin() + index(i), full.begin() + index(i) + config.dim, 0.0));
      }
      check_close(want, mode + ".tokens." + name, tokens, limit);
    }
  }
}

}  // namespace

TEST_CASE("Chefer's rules through whole models give the reference's numbers", "[lrp][golden]") {
  on_every_case([](auto& b, const auto& c) { check_chefer(b, c); });
}

TEST_CASE("AttnLRP and CP-LRP through whole models give the reference's numbers", "[lrp][golden]") {
  on_every_case([](auto& b, const auto& c) { check_attn_lrp(b, c); });
}

}  // namespace attribution_vit_relevance_tests
