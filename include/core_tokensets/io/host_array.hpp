#pragma once
// An array of any element type in host memory: what files are read into and written from.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/dtype.hpp"

namespace core_tokensets {

/// "[2, 3]"
inline std::string shape_text(std::span<const index> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// Bytes of an array, or nothing where an extent is negative or the product is too large for `index`.
inline std::optional<index> checked_byte_count(dtype type, std::span<const index> shape) {
  index count = byte_size(type);
  bool empty = false;
  for (const index extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) {
      empty = true;
    } else {
      if (count > std::numeric_limits<index>::max() / extent) return std::nullopt;
      count *= extent;
    }
  }
  return empty ? 0 : count;
}

/// Elements of `type` in row-major order, `bytes` holds exactly the product of `shape` of them.
struct host_array {
  dtype type = dtype::f32;
  std::vector<index> shape;
  std::vector<std::byte> bytes;

  /// A copy of `values` with the shape `[values]`, or the given one, whose product must be the number of values.
  template <array_element T>
  static host_array of(std::span<const T> values, std::vector<index> shape) {
    const auto expected = checked_byte_count(dtype_of<T>, shape);
    require(expected && *expected == static_cast<index>(values.size_bytes()), "array of shape ", shape_text(shape),
            " from ", values.size(), " values: expected as many values as the shape has");
    host_array result{dtype_of<T>, std::move(shape), std::vector<std::byte>(values.size_bytes())};
    if (!values.empty()) std::memcpy(result.bytes.data(), values.data(), values.size_bytes());
    return result;
  }
  template <std::ranges::contiguous_range Range>
  static host_array of(const Range& values, std::vector<index> shape) {
    return of(std::span<const std::ranges::range_value_t<Range>>(values), std::move(shape));
  }
  template <std::ranges::contiguous_range Range>
  static host_array of(const Range& values) {
    return of(values, {static_cast<index>(std::ranges::size(values))});
  }

  /// Number of elements.
  index size() const { return static_cast<index>(bytes.size()) / byte_size(type); }

  /// The elements as `T`; floating-point types round, an integer that cannot hold a value exactly is an `Error`.
  template <array_element T>
  std::vector<T> as() const {
    if constexpr (std::is_same_v<T, bool>) {
      const std::vector<std::byte> flags = to(dtype::boolean).bytes;
      std::vector<bool> result(flags.size());
      std::transform(flags.begin(), flags.end(), result.begin(), [](std::byte b) { return b != std::byte{0}; });
      return result;
    } else {
      std::vector<T> result(static_cast<std::size_t>(size()));
      convert_elements(type, bytes.data(), size(), dtype_of<T>, reinterpret_cast<std::byte*>(result.data()));
      return result;
    }
  }

  /// The same array with another element type.
  host_array to(dtype other) const {
    host_array result{other, shape, std::vector<std::byte>(static_cast<std::size_t>(size() * byte_size(other)))};
    convert_elements(type, bytes.data(), size(), other, result.bytes.data());
    return result;
  }

  bool operator==(const host_array&) const = default;
};

}  // namespace core_tokensets
