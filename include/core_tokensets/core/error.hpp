#pragma once
// One exception type for everything that a caller can get wrong, and the two helpers that throw it.

#include <cmath>
#include <concepts>
#include <cstdio>
#include <initializer_list>
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

/// A part of a message: text, a number, or what has a function `to_text`. One type for all of them, so that messages,
/// which are built in hundreds of places, are put together by one function and not by one for each list of types.
class message_part {
 public:
  template <class T>
  message_part(const T& part) {
    if constexpr (std::is_convertible_v<const T&, const char*>) {
      text_ = static_cast<const char*>(part);
    } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
      text_ = std::string_view(part);
    } else if constexpr (std::is_same_v<T, char>) {
      text_ = std::string_view(&part, 1);
    } else if constexpr (std::is_floating_point_v<T>) {
      number_.real = static_cast<double>(part), kind_ = kind::real;
    } else if constexpr (std::is_unsigned_v<T>) {
      number_.natural = static_cast<unsigned long long>(part), kind_ = kind::natural;
    } else if constexpr (std::is_integral_v<T>) {
      number_.integer = static_cast<long long>(part), kind_ = kind::integer;
    } else {
      number_.object = &part, kind_ = kind::object;
      write_ = [](std::string& message, const void* object) { message += to_text(*static_cast<const T*>(object)); };
    }
  }

  void append_to(std::string& message) const {
    switch (kind_) {
      case kind::text:
        message += text_;
        return;
      case kind::integer:
        message += std::to_string(number_.integer);
        return;
      case kind::natural:
        message += std::to_string(number_.natural);
        return;
      case kind::object:
        write_(message, number_.object);
        return;
      case kind::real:
        break;
    }
    char digits[32];  // six of them, as a stream prints
    std::snprintf(digits, sizeof digits, "%g", number_.real);
    message += digits;
  }

 private:
  enum class kind { text, integer, natural, real, object };
  std::string_view text_;
  union {
    long long integer;
    unsigned long long natural;
    double real;
    const void* object;
  } number_ = {0};
  void (*write_)(std::string&, const void*) = nullptr;
  kind kind_ = kind::text;
};

[[noreturn]] [[gnu::cold]] [[gnu::noinline]] inline void fail_with(std::initializer_list<message_part> parts) {
  std::string message;
  for (const message_part& part : parts) part.append_to(message);
  throw Error(message);
}

}  // namespace detail

/// Throws `Error` with all parts written one after the other: texts, numbers, and what has a function `to_text`.
template <class... Parts>
[[noreturn]] [[gnu::always_inline]] inline void fail(const Parts&... parts) {
  detail::fail_with({detail::message_part(parts)...});
}

/// Throws `Error` with the parts as its message unless `ok`.
template <class... Parts>
[[gnu::always_inline]] inline void require(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::fail_with({detail::message_part(parts)...});
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
