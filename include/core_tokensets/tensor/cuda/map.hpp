#pragma once
// Element by element: `map` of any function object over any number of views, rows gathered, numbers narrowed.

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "core_tokensets/tensor/cuda/kernel.hpp"

namespace core_tokensets::cuda {

/// A view as a kernel sees it: dimensions of extent 1 have stride 0, `step` is that between columns.
struct operand {
  float* data = nullptr;
  index s0 = 0, s1 = 0, ld = 0, step = 1;

  operand() = default;
  template <class T, class First>
  operand(const view<T>& v, const First& first)
      : data(const_cast<float*>(v.data)),
        s0(v.n0 == 1 ? 0 : v.s0),
        s1(v.n1 == 1 ? 0 : v.s1),
        ld(v.rows == 1 ? 0 : v.ld),
        step(v.cols == 1 && first.cols != 1 ? 0 : 1) {}

  constexpr float* row(index i, index j, index r) const { return data + i * s0 + j * s1 + r * ld; }
};

/// The row with number n of all matrices `[n0, n1, rows, cols]`, as (i, j, r).
struct row_place {
  index i, j, r;
};
struct row_shape {
  index n1 = 1, rows = 1, total = 1;  ///< total: n0 * n1 * rows
  bool batched = false;

  row_shape() = default;
  template <class T>
  explicit row_shape(const view<T>& v)
      : n1(v.n1), rows(v.rows), total(v.n0 * v.n1 * v.rows), batched(v.n0 * v.n1 != 1) {}
  constexpr row_place place(index n) const {
    if (!batched) return {0, 0, n};
    const index batch = n / rows;
    return {batch / n1, batch % n1, n % rows};
  }
};

namespace detail {

template <class F, std::size_t I, class Numbers>
struct accepts_constant;
template <class F, std::size_t I, std::size_t... N>
struct accepts_constant<F, I, std::index_sequence<N...>>
    : std::bool_constant<std::is_invocable_v<const F&, std::conditional_t<N == I, const float&, float&>...>> {};

/// True where argument I of N is written by F: the first one, and those that F does not take as constants.
template <class F, std::size_t I, std::size_t N>
inline constexpr bool writes = I == 0 || !accepts_constant<F, I, std::make_index_sequence<N>>::value;

template <int Width>
struct numbers {
  float x[Width];
};

template <int Width>
constexpr numbers<Width> load(const float* p, index step, index column) {
  numbers<Width> v{};
  if constexpr (Width == 4) {
    if (step == 1) {
      const quad q = *reinterpret_cast<const quad*>(p + column);
      for (int l = 0; l < 4; ++l) v.x[l] = q.x[l];
    } else {
      const float one = *p;
      for (int l = 0; l < 4; ++l) v.x[l] = one;
    }
  } else {
    v.x[0] = p[column * step];
  }
  return v;
}

template <int Width>
constexpr void store(float* p, index column, const numbers<Width>& v) {
  if constexpr (Width == 4) {
    *reinterpret_cast<quad*>(p + column) = quad{{v.x[0], v.x[1], v.x[2], v.x[3]}};
  } else {
    p[column] = v.x[0];
  }
}

/// n / d and n % d for numbers of the size that they have: 32-bit division is many times faster.
constexpr std::pair<index, index> divide(index n, index d, bool small) {
  if (small) {
    const auto a = static_cast<std::uint32_t>(n), b = static_cast<std::uint32_t>(d);
    return {static_cast<index>(a / b), static_cast<index>(a % b)};
  }
  return {n / d, n % d};
}

}  // namespace detail

/// f(element&...) at every place of the first operand's shape; a thread has `Width` columns. All operands are loaded
/// before any is stored, so they may be the same memory.
template <class F, int Width, std::size_t N>
struct map_kernel {
  static constexpr int threads = 256;
  static constexpr bool cooperative = false;
  F f;
  operand operands[N];
  row_shape shape;
  index groups;  ///< of `Width` columns in a row
  bool small;    ///< all places together have 31-bit numbers

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index item = t.block() * threads + t.thread();
    if (item >= shape.total * groups) return;
    index row = 0, group = item;
    if (shape.total != 1) {
      const auto [quotient, remainder] = detail::divide(item, groups, small);
      row = quotient;
      group = remainder;
    }
    apply(shape.place(row), group * Width, std::make_index_sequence<N>());
  }

 private:
  template <std::size_t... I>
  constexpr void apply(const row_place& at, index column, std::index_sequence<I...>) const {
    float* rows[N] = {operands[I].row(at.i, at.j, at.r)...};
    detail::numbers<Width> values[N] = {detail::load<Width>(rows[I], operands[I].step, column)...};
    for (int l = 0; l < Width; ++l) f(values[I].x[l]...);
    (store<I>(rows[I], column, values[I]), ...);
  }
  template <std::size_t I>
  constexpr void store(float* row, index column, const detail::numbers<Width>& v) const {
    if constexpr (detail::writes<F, I, N>) detail::store<Width>(row, column, v);
  }
};

/// x = value
struct set_value {
  float value;
  constexpr void operator()(float& x) const { x = value; }
};

/// out[i] = in[rows[i]] in groups of `Width` columns.
template <int Width>
struct gather_kernel {
  static constexpr int threads = 256;
  static constexpr bool cooperative = false;
  operand out, in;
  const std::int32_t* rows;
  index count, groups;
  bool small;

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index item = t.block() * threads + t.thread();
    if (item >= count * groups) return;
    const auto [row, group] = detail::divide(item, groups, small);
    detail::store<Width>(out.row(0, 0, row), group * Width,
                         detail::load<Width>(in.row(0, 0, rows[row]), in.step, group * Width));
  }
};

/// A batch of matrices as bfloat16, in rows of `groups` times 8 numbers without gaps, filled up with 0. A thread has
/// one such group, which it writes at once.
struct narrow_kernel {
  static constexpr int threads = 256;
  static constexpr bool cooperative = false;
  operand in;
  row_shape shape;
  index cols, groups;
  bool quads;  ///< rows start on 16 bytes
  bool small;  ///< all groups together have 31-bit numbers
  bfloat* out;

  struct alignas(16) group {
    bfloat x[8];
  };

  template <class Thread>
  constexpr void operator()(const Thread& t) const {
    const index item = t.block() * threads + t.thread();
    if (item >= shape.total * groups) return;
    const auto [row, number] = detail::divide(item, groups, small);
    const row_place at = shape.place(row);
    const float* from = in.row(at.i, at.j, at.r) + 8 * number;
    const index left = cols - 8 * number;
    group narrow{};
    if (quads && left >= 8) {
      for (int half = 0; half < 8; half += 4) {
        const quad q = *reinterpret_cast<const quad*>(from + half);
        for (int l = 0; l < 4; ++l) narrow.x[half + l] = to_bfloat(q.x[l]);
      }
    } else {
      for (int l = 0; l < 8; ++l) {
        if (l < left) narrow.x[l] = to_bfloat(from[l]);
      }
    }
    *reinterpret_cast<group*>(out + 8 * item) = narrow;
  }
};

}  // namespace core_tokensets::cuda
