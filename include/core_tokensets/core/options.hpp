#pragma once
// The options of a struct by name: printed, listed and set from text. A struct takes part with
//   template <class Self, class V> static void options(Self& self, const V& visit) { visit("name", self.member); ... }

#include <array>
#include <charconv>
#include <concepts>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets {

/// The words of an enumeration in the order of its values: `inline constexpr std::array words<E>{...}`.
template <class E>
inline constexpr std::array<const char*, 0> words{};

namespace detail {

struct no_visit {
  template <class T>
  void operator()(const char*, T&) const {}
};

template <class T>
std::string option_text(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return words<T>[static_cast<std::size_t>(value)];
  } else if constexpr (std::same_as<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::floating_point<T>) {  // as few digits as the same number is read back from
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general).ptr;
    return {digits, end};
  } else {
    std::ostringstream out;
    out << value;
    return out.str();
  }
}

template <class E>
std::string list_words() {
  std::string all;
  for (const char* word : words<E>) all += (all.empty() ? "" : ", ") + std::string(word);
  return all;
}

/// The value that `text` stands for; `where` opens the message of an error.
template <class T>
T parse_option(std::string_view text, const std::string& where) {
  if constexpr (std::is_enum_v<T>) {
    for (std::size_t i = 0; i < words<T>.size(); ++i) {
      if (text == words<T>[i]) return static_cast<T>(i);
    }
    fail(where, ": '", text, "', expected one of ", list_words<T>());
  } else if constexpr (std::same_as<T, bool>) {
    require(text == "true" || text == "false", where, ": '", text, "', expected true or false");
    return text == "true";
  } else if constexpr (std::same_as<T, std::string>) {
    return T(text);
  } else {
    T value{};
    const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), value);
    // A value that differs from itself is NaN.
    require(bad == std::errc() && end == text.data() + text.size() && value == value, where, ": '", text,
            "', expected a number");
    return value;
  }
}

}  // namespace detail

template <class T>
concept has_options = requires(T& t) {
  std::remove_cv_t<T>::options(t, detail::no_visit{});
};

/// "key=value,key=value" of all options; empty where there are none.
template <class T>
std::string options_text(const T& of) {
  std::string all;
  if constexpr (has_options<T>) {
    T::options(of, [&](const char* name, const auto& value) {
      all += (all.empty() ? "" : ",") + std::string(name) + "=" + detail::option_text(value);
    });
  }
  return all;
}

/// Sets one option. `Error` naming `what`: no such option (lists them), or a value that does not fit it.
template <class T>
void set_option(T& of, std::string_view key, std::string_view value, const std::string& what) {
  bool found = false;
  std::string all;
  if constexpr (has_options<T>) {
    T::options(of, [&](const char* name, auto& member) {
      all += (all.empty() ? "" : ", ") + std::string(name);
      if (key != name) return;
      found = true;
      member = detail::parse_option<std::remove_reference_t<decltype(member)>>(
          value, what + ": option '" + std::string(name) + "'");
    });
  }
  if (!found) fail(what, ": no option is named '", key, "'; ", all.empty() ? "there are none" : "there are " + all);
}

}  // namespace core_tokensets
