#pragma once
// All attribution methods under one type, and by name.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core_tokensets/attribution/atman.hpp"
#include "core_tokensets/attribution/atman_first_order.hpp"
#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/authors_atman.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_cam.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/gradient_x_input.hpp"
#include "core_tokensets/attribution/integrated_gradients.hpp"
#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/attribution/lrp_rollout.hpp"
#include "core_tokensets/attribution/occlusion.hpp"
#include "core_tokensets/attribution/partial_lrp.hpp"
#include "core_tokensets/attribution/random.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/attribution/smooth_grad.hpp"

namespace core_tokensets {

/// Every method that works on its own.
using plain_method = std::variant<random_relevance, last_attention, rollout, grad_cam, gradient_x_input,
                                  integrated_gradients, lrp_attribution, partial_lrp, lrp_rollout, grad_lrp,
                                  generic_attention, atman, atman_first_order, occlusion, authors_atman>;

template <tensor_backend B>
std::vector<double> attribute(const plain_method& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return std::visit([&](const auto& m) { return attribute(m, b, model, batch, t, ws); }, method);
}

/// Any method: a plain one, or SmoothGrad around a plain one.
using attribution_method =
    std::variant<random_relevance, last_attention, rollout, grad_cam, gradient_x_input, integrated_gradients,
                 lrp_attribution, partial_lrp, lrp_rollout, grad_lrp, generic_attention, atman, atman_first_order,
                 occlusion, authors_atman, smooth_grad<plain_method>>;

/// Relevance `[P]` of every patch of the batch for what `t` says is explained in each sample.
template <tensor_backend B>
std::vector<double> attribute(const attribution_method& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return std::visit([&](const auto& m) { return attribute(m, b, model, batch, t, ws); }, method);
}

namespace detail {

/// The alternative of a variant of methods with that name. `Error` listing all names.
template <class Variant, std::size_t I = 0>
Variant named_method(std::string_view name, const std::string& seen = "") {
  if constexpr (I == std::variant_size_v<Variant>) {
    fail("attribution: no method is named '", name, "'; there are ", seen);
  } else {
    using method = std::variant_alternative_t<I, Variant>;
    if (name == method::name) return method{};
    return named_method<Variant, I + 1>(name, seen + (I ? ", " : "") + method::name);
  }
}

/// "name" or "name:option=value:option=value".
template <class Variant>
Variant parse_method(std::string_view text) {
  auto colon = text.find(':');
  Variant method = named_method<Variant>(text.substr(0, colon));
  while (colon != text.npos) {
    text.remove_prefix(colon + 1);
    colon = text.find(':');
    const std::string_view option = text.substr(0, colon);
    const auto equals = option.find('=');
    require(equals != option.npos, "attribution: option '", option, "', expected name=value");
    std::visit([&](auto& m) { set_option(m, option.substr(0, equals), option.substr(equals + 1), m.name); }, method);
  }
  return method;
}

}  // namespace detail

/// The method of a text: its name, then its options, "atman:factor=0.5:neighbours=patch". SmoothGrad takes another
/// method in brackets, "smooth_grad(grad_cam):samples=8", and gradient_x_input without. `Error`: an unknown name or
/// option (lists the choices), a value that does not fit.
inline attribution_method parse_attribution(std::string_view text) {
  constexpr std::string_view wrapper = "smooth_grad(";
  if (!text.starts_with(wrapper)) {
    attribution_method method = detail::parse_method<attribution_method>(text);
    if (auto* smooth = std::get_if<smooth_grad<plain_method>>(&method)) smooth->method = gradient_x_input{};
    return method;
  }
  const auto end = text.find(')');
  require(end != text.npos, "attribution: '", text, "' lacks a closing bracket");
  auto method = detail::parse_method<attribution_method>("smooth_grad" + std::string(text.substr(end + 1)));
  std::get<smooth_grad<plain_method>>(method).method =
      detail::parse_method<plain_method>(text.substr(wrapper.size(), end - wrapper.size()));
  return method;
}

/// The same; where the method has options `start_layer` and `seed`, these are set unless they are 0.
inline attribution_method parse_attribution(std::string_view text, index start_layer, std::uint64_t seed) {
  attribution_method method = parse_attribution(text);
  std::visit(
      [&](auto& m) {
        if constexpr (requires { m.start_layer; }) m.start_layer = start_layer != 0 ? start_layer : m.start_layer;
        if constexpr (requires { m.seed; }) m.seed = seed != 0 ? seed : m.seed;
      },
      method);
  return method;
}

/// Name of a method and all of its options, in the form that `parse_attribution` reads.
template <class M>
std::string text_of(const M& method) {
  std::string text = M::name;
  if constexpr (requires { method.method; }) {
    text += "(" + std::visit([](const auto& inner) { return text_of(inner); }, method.method) + ")";
  }
  if constexpr (has_options<const M>) {
    M::options(method, [&](const char* name, const auto& value) {
      text += ":" + std::string(name) + "=" + detail::option_text(value);
    });
  }
  return text;
}
inline std::string text_of(const attribution_method& method) {
  return std::visit([](const auto& m) { return text_of(m); }, method);
}

/// The names of all methods.
inline std::vector<std::string> attribution_names() {
  return []<class... M>(std::type_identity<std::variant<M...>>) {
    return std::vector<std::string>{M::name...};
  }(std::type_identity<attribution_method>{});
}

}  // namespace core_tokensets
