#pragma once
// The element types that arrays in files have, and conversions among them that never change a number silently.

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/half.hpp"

namespace core_tokensets {

/// Element type of an array; `boolean` takes one byte.
enum class dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

/// Every dtype under its name in a safetensors file.
inline constexpr std::array<std::pair<dtype, std::string_view>, 13> dtype_names{{{dtype::f64, "F64"},
                                                                                 {dtype::f32, "F32"},
                                                                                 {dtype::f16, "F16"},
                                                                                 {dtype::bf16, "BF16"},
                                                                                 {dtype::i64, "I64"},
                                                                                 {dtype::i32, "I32"},
                                                                                 {dtype::i16, "I16"},
                                                                                 {dtype::i8, "I8"},
                                                                                 {dtype::u64, "U64"},
                                                                                 {dtype::u32, "U32"},
                                                                                 {dtype::u16, "U16"},
                                                                                 {dtype::u8, "U8"},
                                                                                 {dtype::boolean, "BOOL"}}};

constexpr std::string_view dtype_name(dtype type) { return dtype_names[static_cast<std::size_t>(type)].second; }

constexpr bool is_floating(dtype type) {
  return type == dtype::f64 || type == dtype::f32 || type == dtype::f16 || type == dtype::bf16;
}

/// The dtype of that name in a safetensors file, if it is one of ours.
constexpr std::optional<dtype> dtype_named(std::string_view name) {
  for (const auto& [type, text] : dtype_names) {
    if (text == name) return type;
  }
  return std::nullopt;
}

/// Calls `f(std::type_identity<T>{})` with the C++ type of `type`.
template <class F>
constexpr decltype(auto) visit_dtype(dtype type, F&& f) {
  switch (type) {
    case dtype::f64:
      return f(std::type_identity<double>{});
    case dtype::f32:
      return f(std::type_identity<float>{});
    case dtype::f16:
      return f(std::type_identity<half>{});
    case dtype::bf16:
      return f(std::type_identity<bfloat16>{});
    case dtype::i64:
      return f(std::type_identity<std::int64_t>{});
    case dtype::i32:
      return f(std::type_identity<std::int32_t>{});
    case dtype::i16:
      return f(std::type_identity<std::int16_t>{});
    case dtype::i8:
      return f(std::type_identity<std::int8_t>{});
    case dtype::u64:
      return f(std::type_identity<std::uint64_t>{});
    case dtype::u32:
      return f(std::type_identity<std::uint32_t>{});
    case dtype::u16:
      return f(std::type_identity<std::uint16_t>{});
    case dtype::u8:
      return f(std::type_identity<std::uint8_t>{});
    case dtype::boolean:
      break;
  }
  return f(std::type_identity<bool>{});
}

/// Bytes of one element.
constexpr index byte_size(dtype type) {
  return visit_dtype(type, []<class T>(std::type_identity<T>) { return static_cast<index>(sizeof(T)); });
}

namespace detail {
template <class T>
constexpr dtype find_dtype() {
  if constexpr (std::is_same_v<T, half>) return dtype::f16;
  if constexpr (std::is_same_v<T, bfloat16>) return dtype::bf16;
  if constexpr (std::is_same_v<T, bool>) return dtype::boolean;
  if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 8 ? dtype::f64 : dtype::f32;
  constexpr bool is_signed = std::is_signed_v<T>;
  if constexpr (sizeof(T) == 8) return is_signed ? dtype::i64 : dtype::u64;
  if constexpr (sizeof(T) == 4) return is_signed ? dtype::i32 : dtype::u32;
  if constexpr (sizeof(T) == 2) return is_signed ? dtype::i16 : dtype::u16;
  return is_signed ? dtype::i8 : dtype::u8;
}
}  // namespace detail

/// A C++ type that an array can hold.
template <class T>
concept array_element = std::same_as<T, half> || std::same_as<T, bfloat16> || std::same_as<T, float> ||
    std::same_as<T, double> ||(std::integral<T> && !std::same_as<T, char>);

/// The dtype of a C++ type.
template <array_element T>
inline constexpr dtype dtype_of = detail::find_dtype<T>();

namespace detail {

/// `value` as a `To`. Floating-point types round to nearest; an integer or bool that cannot hold the value exactly
/// (fraction, range, NaN) is an `Error`. `From` is double, or an integer of 64 bits.
template <array_element To, class From>
constexpr To convert(From value) {
  if constexpr (std::is_same_v<To, half>) {
    return half(static_cast<double>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16::nearest(static_cast<double>(value));
  } else if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else {
    bool fits = false;
    if constexpr (std::is_same_v<To, bool>) {
      fits = value == From(0) || value == From(1);
    } else if constexpr (std::is_floating_point_v<From>) {
      const double end = std::ldexp(1.0, std::numeric_limits<To>::digits);
      fits = value >= (std::is_signed_v<To> ? -end : 0.0) && value < end && std::trunc(value) == value;
    } else {
      fits = std::in_range<To>(value);
    }
    require(fits, "the value ", value, " does not fit the type ", dtype_name(dtype_of<To>));
    return static_cast<To>(value);
  }
}

/// Some numbers of an array, in the one of three types that holds them exactly.
struct number_run {
  static constexpr index most = 256;
  enum class kind { real, integer, natural } kind = kind::real;
  union {
    double real[most];
    std::int64_t integer[most];
    std::uint64_t natural[most];
  };
};

template <class T, class To>
void widen(const std::byte* from, index n, To* to) {
  for (index i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<T, bool>) {
      to[i] = from[i] != std::byte{0};
    } else {
      T value;
      std::memcpy(&value, from + i * static_cast<index>(sizeof(T)), sizeof(T));
      to[i] = static_cast<To>(value);
    }
  }
}

inline void read_numbers(dtype type, const std::byte* from, index n, number_run& out) {
  visit_dtype(type, [&]<class T>(std::type_identity<T>) {
    if constexpr (std::is_same_v<T, std::uint64_t>) {
      out.kind = number_run::kind::natural;
      widen<T>(from, n, out.natural);
    } else if constexpr (std::is_integral_v<T>) {
      out.kind = number_run::kind::integer;
      widen<T>(from, n, out.integer);
    } else {
      out.kind = number_run::kind::real;
      widen<T>(from, n, out.real);
    }
  });
}

template <class T, class From>
void narrow(const From* from, index n, std::byte* to) {
  for (index i = 0; i < n; ++i) {
    const T value = convert<T>(from[i]);
    std::memcpy(to + i * static_cast<index>(sizeof(T)), &value, sizeof(T));
  }
}

inline void write_numbers(const number_run& run, index n, dtype type, std::byte* to) {
  visit_dtype(type, [&]<class T>(std::type_identity<T>) {
    if (run.kind == number_run::kind::real) {
      narrow<T>(run.real, n, to);
    } else if (run.kind == number_run::kind::integer) {
      narrow<T>(run.integer, n, to);
    } else {
      narrow<T>(run.natural, n, to);
    }
  });
}

}  // namespace detail

/// Writes `n` elements at `in` as elements of another type: floating-point types round to nearest; `Error` where an
/// integer or bool cannot hold a value exactly. In runs, through the widest type of each kind: thirteen ways in and
/// thirteen ways out, where a way for each pair would be most of what a small program compiles.
inline void convert_elements(dtype from, const std::byte* in, index n, dtype to, std::byte* out) {
  if (n == 0) return;
  if (from == to && from != dtype::boolean) {
    std::memcpy(out, in, static_cast<std::size_t>(n * byte_size(from)));
    return;
  }
  detail::number_run run;
  for (index begin = 0; begin < n; begin += detail::number_run::most) {
    const index count = std::min(detail::number_run::most, n - begin);
    detail::read_numbers(from, in + begin * byte_size(from), count, run);
    detail::write_numbers(run, count, to, out + begin * byte_size(to));
  }
}

}  // namespace core_tokensets
