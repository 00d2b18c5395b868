#pragma once
// Eigen's matrix product on one thread.

#include <Eigen/Core>
#include <algorithm>

#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/tensor/host_kernels.hpp"
#include "core_tokensets/tensor/thread_product.hpp"

namespace core_tokensets {

namespace eigen_detail {

/// How Eigen blocks a product, with the memory for packed factors from a stack that is reused; left to itself it takes
/// them from malloc wherever they are larger than 128 KiB.
template <class T>
class packing : public Eigen::internal::gemm_blocking_space<Eigen::RowMajor, T, T, Eigen::Dynamic, Eigen::Dynamic,
                                                            Eigen::Dynamic, 1, false> {
 public:
  packing(block_stack<>& stack, index rows, index cols, index depth)
      : packing::gemm_blocking_space(rows, cols, depth, 1, true), stack_(stack) {
    constexpr index line = 64 / sizeof(T);
    const index of_a = (this->kc() * this->mc() + line - 1) / line * line, of_b = this->kc() * this->nc();
    this->m_blockA = stack.template take<T>(of_a + of_b);
    this->m_blockB = this->m_blockA + of_a;
  }
  ~packing() {
    this->m_blockA = this->m_blockB = nullptr;  // not Eigen's to free
    stack_.release();
  }
  packing(const packing&) = delete;
  packing& operator=(const packing&) = delete;

 private:
  block_stack<>& stack_;
};

/// Where the numbers of op(M) lie: element (r, c) at `data[r * row + c * col]`.
template <class T>
struct factor {
  const T* data;
  index row, col;

  factor(const view<const T>& v, bool transpose) : data(v.data), row(transpose ? 1 : v.ld), col(transpose ? v.ld : 1) {}
};

/// c += alpha a b `[rows, cols]`, without packing: for vectors and matrices of a few numbers.
template <class T>
void add_small_product(index rows, index cols, index depth, T alpha, const factor<T>& a, const factor<T>& b,
                       const view<T>& c) {
  const bool dots = a.col == 1 && b.row == 1;
  for (index r = 0; r < rows; ++r) {
    const T* from = a.data + r * a.row;
    T* to = c.row(r);
    for (index j = 0; dots && j < cols; ++j) {
      const T* column = b.data + j * b.col;
      to[j] += alpha * host::fold<T>(depth, fn::plus{}, [=](index k) { return from[k] * column[k]; });
    }
    for (index k = 0; !dots && k < depth; ++k) {
      const T times = alpha * from[k * a.col];
      const T* row = b.data + k * b.row;
      if (b.col == 1) {
        simd_for(0, cols, [=](index j) { to[j] += times * row[j]; });
      } else {
        for (index j = 0; j < cols; ++j) to[j] += times * row[j * b.col];
      }
    }
  }
}

/// c += alpha op(a) op(b), both orders known: Eigen's product called directly, on the calling thread only and with
/// memory of ours. Its expressions would compile ten times as much for the same loop.
template <bool TransposeA, bool TransposeB, class T>
void add_large_product(block_stack<>& memory, index depth, T alpha, const view<const T>& a, const view<const T>& b,
                       const view<T>& c) {
  constexpr auto order = [](bool transpose) { return transpose ? Eigen::ColMajor : Eigen::RowMajor; };
  packing<T> blocking(memory, c.rows, c.cols, depth);
  Eigen::internal::general_matrix_matrix_product<index, T, order(TransposeA), false, T, order(TransposeB), false,
                                                 Eigen::RowMajor, 1>::run(c.rows, c.cols, depth, a.data, a.ld, b.data,
                                                                          b.ld, c.data, 1, c.ld, alpha, blocking);
}

}  // namespace eigen_detail

/// Eigen's product, in the vector instructions that the program is compiled for.
struct eigen_product {
  /// Not inlined: one instance of each product a program.
  template <class T>
  [[gnu::noinline]] static void multiply(block_stack<>& memory, bool ta, bool tb, T alpha, const view<const T>& a,
                                         const view<const T>& b, const view<const T>& start, const view<T>& c) {
    if (c.rows == 0 || c.cols == 0) return;
    const index depth = ta ? a.rows : a.cols;
    host::copy_start(start, c);
    if (depth == 0) return;
    if (c.rows == 1 || c.cols == 1 || c.rows + c.cols + depth < EIGEN_GEMM_TO_COEFFBASED_THRESHOLD) {
      eigen_detail::add_small_product<T>(c.rows, c.cols, depth, alpha, {a, ta}, {b, tb}, c);
    } else if (ta && tb) {
      eigen_detail::add_large_product<true, true>(memory, depth, alpha, a, b, c);
    } else if (ta) {
      eigen_detail::add_large_product<true, false>(memory, depth, alpha, a, b, c);
    } else if (tb) {
      eigen_detail::add_large_product<false, true>(memory, depth, alpha, a, b, c);
    } else {
      eigen_detail::add_large_product<false, false>(memory, depth, alpha, a, b, c);
    }
  }
};

}  // namespace core_tokensets
