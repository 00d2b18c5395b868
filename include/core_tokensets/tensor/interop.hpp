#pragma once
// The arrays of other libraries as views, and views as theirs: the same memory, never a copy. Raw pointers, also into
// device memory, need no help: `view<T>(pointer, rows, cols, row_stride)`.

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <span>
#include <type_traits>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/tensor/interop_dlpack.hpp"

namespace core_tokensets {

/// Numbers that lie one after the other, as one row.
template <class T>
view<T> as_view(std::span<T> numbers) {
  const auto n = static_cast<index>(numbers.size());
  return {numbers.data(), 1, n, n};
}

namespace interop_detail {
template <class M>
using bare = std::remove_cvref_t<M>;

template <class M>
concept eigen_array = std::is_base_of_v<Eigen::DenseBase<bare<M>>, bare<M>> && requires(M& m) {
  m.data();
};

/// A temporary that owns its numbers would leave a view of nothing.
template <class M>
concept outlives_call = std::is_lvalue_reference_v<M> || !std::is_base_of_v<Eigen::PlainObjectBase<bare<M>>, bare<M>>;

template <class E>
concept strided_array = !std::is_base_of_v<Eigen::EigenBase<E>, E> && requires(E & e) {
  e.data();
  e.data_offset();
  e.dimension();
  e.shape();
  e.strides();
};
}  // namespace interop_detail

/// An Eigen matrix, map or block, or a vector of either direction. Its rows must be contiguous: what is column-major
/// throws, unless it has one column only.
template <class M>
requires interop_detail::eigen_array<M> && interop_detail::outlives_call<M>
auto as_view(M&& m) {
  using T = std::remove_pointer_t<decltype(m.data())>;
  const index rows = m.rows(), cols = m.cols();
  require(cols <= 1 || rows == 0 || m.colStride() == 1, "as_view: an Eigen matrix [", rows, ", ", cols,
          "] whose columns lie ", m.colStride(), " apart; rows must be contiguous (Eigen::RowMajor)");
  return view<T>(m.data(), rows, cols, rows <= 1 ? cols : m.rowStride());
}

/// An array with xtensor's interface: `xt::xarray`, `xt::xtensor`, an adaptor, or a view of one, of up to four
/// dimensions `[n0, n1, rows, cols]`, with contiguous rows. It must have a name, so that it outlives the view.
template <class E>
requires interop_detail::strided_array<E>
auto as_view(E& e) {
  std::array<index, 4> shape{}, strides{};
  const auto dimensions = static_cast<std::size_t>(e.dimension());
  require(dimensions <= 4, "as_view: an array of ", dimensions, " dimensions, expected at most 4");
  std::copy(e.shape().begin(), e.shape().end(), shape.begin());
  std::copy(e.strides().begin(), e.strides().end(), strides.begin());
  return strided_view(e.data() + e.data_offset(), std::span<const index>(shape).first(dimensions),
                      std::span<const index>(strides).first(dimensions), "as_view");
}

/// A matrix as an Eigen map of the same memory.
template <class T>
auto as_eigen(const view<T>& v) {
  require(v.n0 * v.n1 == 1, "as_eigen: a batch of ", v.n0 * v.n1, " matrices, expected one");
  using matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using same_access = std::conditional_t<std::is_const_v<T>, const matrix, matrix>;
  return Eigen::Map<same_access, 0, Eigen::OuterStride<>>(v.data, v.rows, v.cols, Eigen::OuterStride<>(v.ld));
}

}  // namespace core_tokensets
