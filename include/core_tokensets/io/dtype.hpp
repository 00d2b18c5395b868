#pragma once
// The element types that arrays in files have, and conversions among them that never change a number silently.

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
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

/// `value` as a `To`. Floating-point types round to nearest; an integer or bool that cannot hold the value exactly
/// (fraction, range, NaN) is an `Error`.
template <array_element To, array_element From>
constexpr To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, half> || std::is_same_v<From, bfloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, half>) {
    return half(static_cast<double>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else {
    bool fits = false;
    if constexpr (std::is_same_v<To, bool>) {
      fits = value == From(0) || value == From(1);
    } else if constexpr (std::is_same_v<From, bool>) {
      fits = true;
    } else if constexpr (std::is_floating_point_v<From>) {
      const double x = static_cast<double>(value), end = std::ldexp(1.0, std::numeric_limits<To>::digits);
      fits = x >= (std::is_signed_v<To> ? -end : 0.0) && x < end && std::trunc(x) == x;
    } else {
      fits = std::in_range<To>(value);
    }
    require(fits, "the value ", +value, " does not fit the type ", dtype_name(dtype_of<To>));
    return static_cast<To>(value);
  }
}

}  // namespace core_tokensets
