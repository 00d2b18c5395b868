#pragma once
// What a backend sees of an array: a pointer, two batch dimensions, rows and columns. Nothing is owned.

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace core_tokensets {

using index = std::ptrdiff_t;

#ifdef __CUDACC__
// nvcc hands a type on in the words in which it met it first, and for spans deduced from a container or a pointer these
// are words of the standard library's own that g++ 13 and later refuse. So it meets them here.
static_assert(sizeof(std::span<const index>) + sizeof(std::span<index>) + sizeof(std::span<const std::size_t>) +
                  sizeof(std::span<std::size_t>) + sizeof(std::span<const std::int32_t>) +
                  sizeof(std::span<std::int32_t>) + sizeof(std::span<const float>) + sizeof(std::span<float>) +
                  sizeof(std::span<const double>) + sizeof(std::span<double>) + sizeof(std::span<const char>) +
                  sizeof(std::span<const std::uint8_t>) + sizeof(std::span<std::uint8_t>) >
              0);
#endif

/// `[n0, n1, rows, cols]` with strides `s0, s1, ld` in elements and unit stride between columns. A stride of 0
/// repeats (broadcasts) along its dimension, and `map` repeats an operand of one column along the columns.
/// Places are checked by `assert` only, so a program that is built with NDEBUG pays nothing for it.
template <class T>
struct view {
  T* data = nullptr;
  index n0 = 1, n1 = 1, rows = 0, cols = 0;
  index s0 = 0, s1 = 0, ld = 0;

  constexpr view() = default;
  /// A matrix `[rows, cols]`; `stride` is the distance of two rows, `cols` unless given.
  constexpr view(T* p, index r, index c, index stride = -1) : data(p), rows(r), cols(c), ld(stride < 0 ? c : stride) {}
  constexpr view(T* p, index batch0, index batch1, index r, index c, index stride0, index stride1, index stride)
      : data(p), n0(batch0), n1(batch1), rows(r), cols(c), s0(stride0), s1(stride1), ld(stride) {}

  /// A mutable view converts to a read-only one.
  constexpr operator view<const T>() const requires(!std::is_const_v<T>) {
    return {data, n0, n1, rows, cols, s0, s1, ld};
  }

  constexpr bool empty() const { return data == nullptr || n0 * n1 * rows * cols == 0; }
  constexpr index size() const { return n0 * n1 * rows * cols; }
  constexpr T* row(index r) const {
    assert(0 <= r && r < rows);
    return data + r * ld;
  }
  constexpr T& operator()(index r, index c) const {
    assert(0 <= r && r < rows && 0 <= c && c < cols);
    return data[r * ld + c];
  }

  /// Rows [begin, begin + count) of every matrix of the batch.
  constexpr view slice_rows(index begin, index count) const {
    assert(0 <= begin && 0 <= count && begin + count <= rows);
    return {data + begin * ld, n0, n1, count, cols, s0, s1, ld};
  }
  /// Columns [begin, begin + count) of every matrix of the batch.
  constexpr view slice_cols(index begin, index count) const {
    assert(0 <= begin && 0 <= count && begin + count <= cols);
    return {data + begin, n0, n1, rows, count, s0, s1, ld};
  }
  /// Matrix (i, j) of the batch.
  constexpr view matrix(index i, index j) const {
    assert(0 <= i && i < n0 && 0 <= j && j < n1);
    return {data + i * s0 + j * s1, rows, cols, ld};
  }
  /// The columns cut into `parts` equal batches: `[rows, H * D]` seen as `[H, rows, D]`, without a copy.
  constexpr view split_cols(index parts) const {
    assert(parts > 0 && cols % parts == 0 && n1 == 1);
    return {data, n0, parts, rows, cols / parts, s0, cols / parts, ld};
  }
  /// The same numbers as one row; only for a matrix without gaps between its rows.
  constexpr view flat() const { return {data, 1, rows * cols, rows * cols}; }
};

/// Read-only alias that stops template argument deduction, so that a `view<T>` argument converts.
template <class T>
using const_view = std::type_identity_t<view<const T>>;

}  // namespace core_tokensets
