#pragma once
// One exception type for everything that a caller can get wrong, and the two helpers that throw it.

#include <cmath>
#include <concepts>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace core_tokensets {

/// Bad input at an edge of the library (file, argument, shape, budget): says what, where and what was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

// One function for each kind of part and not one for each list of parts: messages are built in so many places that
// their templates would be a good share of what a program compiles.
inline void append_part(std::string& message, std::string_view text) { message += text; }
inline void append_part(std::string& message, char c) { message += c; }
inline void append_part(std::string& message, long long n) { message += std::to_string(n); }
inline void append_part(std::string& message, unsigned long long n) { message += std::to_string(n); }
/// With six digits, as a stream prints it.
inline void append_part(std::string& message, double x) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%g", x);
  message += digits;
}

/// A part of a message: text, a number, or what has a function `to_text`.
template <class T>
void append_any(std::string& message, const T& part) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    append_part(message, std::string_view(part));
  } else if constexpr (std::is_same_v<T, char>) {
    append_part(message, part);
  } else if constexpr (std::is_floating_point_v<T>) {
    append_part(message, static_cast<double>(part));
  } else if constexpr (std::is_unsigned_v<T>) {
    append_part(message, static_cast<unsigned long long>(part));
  } else if constexpr (std::is_integral_v<T>) {
    append_part(message, static_cast<long long>(part));
  } else {
    append_part(message, std::string_view(to_text(part)));
  }
}

}  // namespace detail

/// Throws `Error` with all parts written one after the other.
template <class... Parts>
[[noreturn]] [[gnu::cold]] [[gnu::noinline]] void fail(const Parts&... parts) {
  std::string message;
  (detail::append_any(message, parts), ...);
  throw Error(message);
}

/// Throws `Error` with the parts as its message unless `ok`.
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(parts...);
}

/// `Error` unless `value`, which `what` names, lies in low .. high. NaN does not; neither does infinity without `high`.
inline void require_within(const char* what, double value, double low,
                           double high = std::numeric_limits<double>::max()) {
  if (value >= low && value <= high) return;
  if (high < std::numeric_limits<double>::max()) fail(what, " ", value, ", expected ", low, " to ", high);
  if (low > std::numeric_limits<double>::lowest()) fail(what, " ", value, ", expected a number from ", low, " on");
  fail(what, " ", value, ", expected a finite number");
}
inline void require_finite(const char* what, double value) {
  require_within(what, value, std::numeric_limits<double>::lowest());
}

}  // namespace core_tokensets
