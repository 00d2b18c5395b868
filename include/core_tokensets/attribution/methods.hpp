#pragma once
// All attribution methods under one type, and by name.

#include <string>
#include <variant>

#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/attribution/lrp_rollout.hpp"
#include "core_tokensets/attribution/partial_lrp.hpp"
#include "core_tokensets/attribution/random.hpp"
#include "core_tokensets/attribution/rollout.hpp"

namespace core_tokensets {

using attribution_method = std::variant<random_relevance, last_attention, rollout, grad_cam, grad_lrp, lrp_rollout,
                                        partial_lrp, lrp_attribution, generic_attention>;

/// Relevance `[P]` of every patch of the batch for what `t` says is explained in each sample.
template <tensor_backend B>
std::vector<double> attribute(const attribution_method& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return std::visit([&](const auto& m) { return attribute(m, b, model, batch, t, ws); }, method);
}

namespace detail {
template <std::size_t I = 0>
attribution_method named_method(const std::string& name, const std::string& seen = "") {
  if constexpr (I == std::variant_size_v<attribution_method>) {
    fail("attribution: no method is named '", name, "'; there are ", seen);
  } else {
    using method = std::variant_alternative_t<I, attribution_method>;
    if (name == method::name) return method{};
    return named_method<I + 1>(name, seen + (I ? ", " : "") + method::name);
  }
}
}  // namespace detail

/// The method of that name; where it has options, `start_layer` and `seed` are taken over. Unknown names list the
/// choices.
inline attribution_method parse_attribution(const std::string& name, index start_layer = 0, std::uint64_t seed = 0) {
  attribution_method method = detail::named_method(name);
  std::visit(
      [&](auto& m) {
        if constexpr (requires { m.start_layer; }) m.start_layer = start_layer;
        if constexpr (requires { m.seed; }) m.seed = seed;
      },
      method);
  return method;
}

}  // namespace core_tokensets
