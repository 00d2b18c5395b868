#pragma once
// The table of all methods by name. What is known by name here is known to the command, to messages and to the
// documentation; a method of one's own is a type (attribution/method.hpp) and needs no entry.

#include <optional>

#include "core_tokensets/attribution/atman.hpp"
#include "core_tokensets/attribution/atman_first_order.hpp"
#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/authors_atman.hpp"
#include "core_tokensets/attribution/averaged.hpp"
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
#include "core_tokensets/core/choices.hpp"

namespace core_tokensets {

/// The methods that work on their own.
using plain_attribution_methods = choices<random_relevance, last_attention, rollout, grad_cam, gradient_x_input,
                                          integrated_gradients, lrp_attribution, partial_lrp, lrp_rollout, grad_lrp,
                                          generic_attention, atman, atman_first_order, occlusion, authors_atman>;

/// Those around another one.
using attribution_wrappers = choices<averaged<>, smooth_grad<>>;

/// All of them.
using attribution_methods = decltype(joined(plain_attribution_methods{}, attribution_wrappers{}));

/// What several methods have among their options, to be set from outside where it is not 0.
struct attribution_settings {
  index start_layer = 0;
  std::uint64_t seed = 0;

  template <class M>
  void apply(M& method) const {
    if constexpr (requires { method.start_layer; })
      method.start_layer = start_layer != 0 ? start_layer : method.start_layer;
    if constexpr (requires { method.seed; }) method.seed = seed != 0 ? seed : method.seed;
  }
};

/// The grammar of methods by name: "name:option=value:..." is `plain(text)`; "wrapper(text):option=value:..." is
/// `around(text, settings)` with `settings` one of the wrappers, of which the options count and not the method.
template <class Plain, class Around>
auto read_attribution(std::string_view text, const Plain& plain, const Around& around) {
  const std::string name(text.substr(0, text.find_first_of(":(")));
  const auto wraps = [&]<class... W>(choices<W...>) { return ((name == W::name) || ...); };
  if (!wraps(attribution_wrappers{})) return plain(text);
  std::string_view options = text.substr(name.size());
  std::string inner;
  if (options.starts_with('(')) {
    const auto end = options.rfind(')');
    require(end != options.npos, "attribution: '", text, "' lacks a closing bracket");
    inner = options.substr(1, end - 1);
    options.remove_prefix(end + 1);
    require(options.empty() || options.front() == ':', "attribution: '", text, "': behind the bracket '", options,
            "', expected nothing or :option=value");
  }
  std::optional<decltype(plain(text))> made;
  choose_by_name(attribution_wrappers{}, name + std::string(options), "attribution", [&](const auto& settings) {
    made = around(inner.empty() ? text_of(settings.method) : inner, settings);
  });
  return *std::move(made);
}

/// The text of a method with all of its options, from a text that names one and some of them. Instantiates no method.
/// `Error`: an unknown name or option (lists the choices), a value that does not fit. `plain` are the methods that may
/// stand alone and in brackets.
template <class Plain = plain_attribution_methods>
std::string attribution_text(std::string_view text, const attribution_settings& settings = {}, Plain plain = {}) {
  const auto written = [&](auto among, std::string_view one, const attribution_settings& s) {
    std::string all;
    choose_by_name(among, one, "attribution", [&](auto& method) {
      s.apply(method);
      all = text_of(method);
    });
    return all;
  };
  return read_attribution(
      text, [&](std::string_view one) { return written(joined(plain, attribution_wrappers{}), one, settings); },
      [&](std::string_view inner, auto wrapper) {
        settings.apply(wrapper);
        return wrapper.name + ("(" + written(plain, inner, {}) + ")") + detail::written_options(wrapper);
      });
}

/// `Error` unless the text names a method and its options; see `attribution_text`.
inline void check_attribution_name(std::string_view text) { attribution_text(text); }

}  // namespace core_tokensets
