#pragma once
// What a backend asks of a matrix product: the one of a single thread, since threads come from the pieces of the work.

#include <algorithm>

#include "core_tokensets/core/view.hpp"
#include "core_tokensets/tensor/workspace.hpp"

namespace core_tokensets {

/// What multiplies matrices: `P::multiply(memory, ta, tb, alpha, a, b, start, c)` sets c = alpha op(a) op(b) + start on
/// the calling thread, where op(x) is x or, with `ta` or `tb`, x transposed. `start` is c itself, a matrix of its
/// shape, a row for all rows, or empty: then c is not read. What it needs meanwhile lies in `memory`. On one machine
/// the bits of a result depend on nothing but the numbers and the shapes.
template <class P, class T>
concept thread_product = requires(block_stack<>& memory, bool t, T x, const view<const T>& in, const view<T>& out) {
  P::multiply(memory, t, t, x, in, in, in, out);
};

namespace host {

/// c = start, 0 where that is empty.
template <class T>
void copy_start(const view<const T>& start, const view<T>& c) {
  if (start.data == c.data && !start.empty()) return;
  for (index r = 0; r < c.rows; ++r) {
    if (start.empty()) {
      std::fill_n(c.row(r), c.cols, T(0));
    } else {
      std::copy_n(start.row(start.rows == 1 ? 0 : r), c.cols, c.row(r));
    }
  }
}

}  // namespace host

}  // namespace core_tokensets
