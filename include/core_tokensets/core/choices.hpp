#pragma once
// Types that a text chooses between, as "name" or "name:option=value:option=value". A list of types is the one table of
// a choice: parsing, printing, help and error messages come from it. A type takes part with a `name`, one line `about`
// it, and `options` where it has any (core/options.hpp).

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_tokensets/core/options.hpp"

namespace core_tokensets {

/// The types of a choice, the default first.
template <class... T>
struct choices {};

template <class T>
concept choice = requires {
  { T::name } -> std::convertible_to<std::string_view>;
  { T::about } -> std::convertible_to<std::string_view>;
};

/// Lists one after the other.
template <class... A>
choices<A...> joined(choices<A...> all) {
  return all;
}
template <class... A, class... B, class... More>
auto joined(choices<A...>, choices<B...>, More... more) {
  return joined(choices<A..., B...>{}, more...);
}

namespace detail {

/// ":option=value" for each option of a value.
template <class T>
std::string written_options(const T& value) {
  std::string text;
  if constexpr (has_options<const T>) {
    T::options(value, [&](const char* name, const auto& option) {
      text += ":" + std::string(name) + "=" + option_text(option);
    });
  }
  return text;
}

}  // namespace detail

/// Name of a value and all of its options, in the form that `choose_by_name` reads.
template <class T>
requires requires { T::name; }
std::string text_of(const T& value) { return std::string(std::string_view(T::name)) + detail::written_options(value); }

/// The names of a choice.
template <class... T>
std::vector<std::string> names_of(choices<T...>) {
  return {std::string(std::string_view(T::name))...};
}

/// "random, grad_match": for messages.
inline std::string join_names(const std::vector<std::string>& names) {
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

/// One line for each: the name with its options and their defaults, and what it is about. For help and tables.
template <class... T>
std::vector<std::pair<std::string, std::string>> table_of(choices<T...>) {
  return {{text_of(T{}), std::string(std::string_view(T::about))}...};
}

namespace detail {

/// Sets the options "a=1:b=2" of a value that `what` names in messages.
template <class T>
void set_options(T& value, std::string_view text, const std::string& what) {
  while (!text.empty()) {
    const auto colon = text.find(':');
    const std::string_view option = text.substr(0, colon);
    const auto equals = option.find('=');
    require(equals != option.npos, what, ": option '", option, "', expected name=value");
    set_option(value, option.substr(0, equals), option.substr(equals + 1), what);
    text.remove_prefix(colon == text.npos ? text.size() : colon + 1);
  }
}

}  // namespace detail

/// Calls `use(value)` with the value that `text` describes; `what` is the kind of choice, for messages. `Error`: an
/// unknown name or option (lists the choices), a value that does not fit.
template <class Use, class... T>
void choose_by_name(choices<T...> all, std::string_view text, const std::string& what, const Use& use) {
  const auto colon = text.find(':');
  const std::string_view name = text.substr(0, colon), options = colon == text.npos ? "" : text.substr(colon + 1);
  bool found = false;
  const auto attempt = [&]<class U>(std::type_identity<U>) {
    if (found || name != std::string_view(U::name)) return;
    found = true;
    U value{};
    detail::set_options(value, options, what + " '" + std::string(name) + "'");
    use(value);
  };
  (attempt(std::type_identity<T>{}), ...);
  if (!found) fail(what, ": none is named '", name, "'; there are ", join_names(names_of(all)));
}

}  // namespace core_tokensets
