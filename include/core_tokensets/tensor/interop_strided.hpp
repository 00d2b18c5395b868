#pragma once
// An array of extents and strides, as most libraries describe theirs, as a view.

#include <span>
#include <sstream>
#include <string>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

namespace interop_detail {
inline std::string list_text(std::span<const index> numbers) {
  std::ostringstream out;
  for (std::size_t i = 0; i < numbers.size(); ++i) out << (i ? ", " : "") << numbers[i];
  return "[" + out.str() + "]";
}
}  // namespace interop_detail

/// Up to four dimensions `[n0, n1, rows, cols]`, the last ones first: one dimension is a row, none a single number.
/// `strides` count elements. Columns must lie side by side and nothing may run backwards or overlap, except that a
/// batch dimension may repeat (stride 0); `Error` names `what`, extents and strides.
template <class T>
view<T> strided_view(T* data, std::span<const index> shape, std::span<const index> strides, const char* what) {
  require(shape.size() <= 4 && strides.size() == shape.size(), what, ": ", shape.size(), " extents and ",
          strides.size(), " strides, expected at most 4");
  index n[4] = {1, 1, 1, 1}, s[4] = {0, 0, 0, 0}, size = 1;
  const std::size_t skipped = 4 - shape.size();
  for (std::size_t i = 0; i < shape.size(); ++i) {
    n[skipped + i] = shape[i];
    s[skipped + i] = strides[i];
    size *= shape[i];
  }
  const auto all = [&] {
    return interop_detail::list_text(shape) + " with strides " + interop_detail::list_text(strides);
  };
  for (int i = 0; i < 4; ++i) {
    require(n[i] >= 0, what, ": an array ", all(), " has a negative extent");
    require(n[i] <= 1 || size == 0 || s[i] >= 0, what, ": an array ", all(), " runs backwards");
  }
  require(size == 0 || data != nullptr, what, ": an array ", all(), " at a null pointer");
  require(n[3] <= 1 || size == 0 || s[3] == 1, what, ": an array ", all(),
          "; columns must lie side by side (row-major, stride 1)");
  require(n[2] <= 1 || size == 0 || s[2] >= n[3], what, ": an array ", all(), " has rows that overlap");
  return {data, n[0], n[1], n[2], n[3], n[0] <= 1 ? 0 : s[0], n[1] <= 1 ? 0 : s[1], n[2] <= 1 ? n[3] : s[2]};
}

}  // namespace core_tokensets
