// Methods that read attention and its gradient, against the reference.

#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "support.hpp"

namespace attribution_vit_methods_tests {

namespace {

using namespace attribution_tests;
using cts::index;

/// Gradients at the attention of every block, with everything kept and without.
template <class B>
void check_gradients(B& b, const golden::vit_case<B>& c, const std::string& name, const cts::target& t) {
  using T = typename B::scalar;
  const auto want = c.file("backward");
  cts::attribution_workspace<B> ws;
  cts::explain_forward(b, c.model, c.batch, t, ws);
  cts::gradient_walk<B> walk(b, c.model, ws);
  std::vector<T> whole;
  for (index i = c.model.config().depth; i-- > 0;) {
    walk.step(i);
    check_close(want, "attn_grad_" + name + "." + std::to_string(i), ws.attention_gradient.to_host(b), tolerance<T>());
  }
  const auto at_tokens = ws.dtokens.to_host(b);
  cts::explain_forward(b, c.model, c.batch, t, ws, cts::kept::gradients);
  cts::gradient_walk<B> short_walk(b, c.model, ws);
  for (index i = c.model.config().depth; i-- > 0;) short_walk.step(i);
  CHECK(golden::distance(ws.dtokens.to_host(b), at_tokens) <= tolerance<T>());
}

template <class B>
void check_methods(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attribution");
  const double limit = tolerance<T>();
  cts::attribution_workspace<B> ws;
  const auto run = [&](const auto& method, const cts::target& t) {
    return attribute(method, b, c.model, c.batch, t, ws);
  };
  for (index start = 0; start < 2; ++start) {
    const std::string name = "rollout_s" + std::to_string(start);
    check_close(want, name, run(cts::rollout{.start_layer = start}, {}), limit);
    // The same through the general way on the host; a share below one entry discards nothing.
    check_close(want, name, run(cts::rollout{.start_layer = start, .discard = 1e-9}, {}), limit);
  }
  check_close(want, "raw_last", run(cts::last_attention{}, {}), limit);
  const auto patches = std::size_t(c.model.config().grid.tokens());
  for (const auto& [name, t] : golden_targets()) {
    check_gradients(b, c, name, t);
    const auto cam = run(cts::grad_cam{}, t);
    check_close(want, "gradcam." + name, cam, limit);
    std::vector<double> scaled;
    for (std::size_t s = 0; s < cam.size(); s += patches) {
      const auto part = cts::min_max(std::span(cam).subspan(s, patches));
      scaled.insert(scaled.end(), part.begin(), part.end());
    }
    check_close(want, "gradcam_minmax." + name, scaled, limit);
    check_close(want, "generic." + name, run(cts::generic_attention{}, t), limit);
  }
}

}  // namespace

TEST_CASE("attention methods give the reference's numbers", "[attribution][golden]") {
  on_every_case([](auto& b, const auto& c) { check_methods(b, c); });
}

}  // namespace attribution_vit_methods_tests
