#pragma once
// Matrix products by the BLAS that a program links, for eigen_backend<T, cblas_product>.

#include <cblas.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/tensor/blas_threads.hpp"
#include "core_tokensets/tensor/thread_product.hpp"

namespace core_tokensets {

/// A `thread_product` that any library with the CBLAS interface computes and a header
/// cblas.h (OpenBLAS, BLIS), on one thread. OpenBLAS and whatever takes its threads from OpenMP are told so; another
/// library must be told by its own means. `Error`: more
/// rows or columns than BLAS counts.
struct cblas_product {
  template <class T>
  [[gnu::noinline]] static void multiply(block_stack<>&, bool ta, bool tb, T alpha, const view<const T>& a,
                                         const view<const T>& b, const view<const T>& start, const view<T>& c) {
    if (c.rows == 0 || c.cols == 0) return;
    for (const index n : {a.rows, a.cols, b.rows, b.cols, a.ld, b.ld, c.ld})
      require(n <= std::numeric_limits<int>::max(), "gemm: BLAS does not count up to ", n);
    blas_detail::use_one_thread();
    [[maybe_unused]] const blas_detail::one_openmp_thread guard;
    const auto order = [](bool transpose) { return transpose ? CblasTrans : CblasNoTrans; };
    const auto stride = [](const auto& v) { return static_cast<int>(std::max({v.ld, v.cols, index{1}})); };
    const auto rows = static_cast<int>(c.rows), cols = static_cast<int>(c.cols);
    const auto depth = static_cast<int>(ta ? a.rows : a.cols);
    if (!start.empty()) host::copy_start(start, c);
    const T beta = start.empty() ? T(0) : T(1);
    if constexpr (std::is_same_v<T, float>) {
      cblas_sgemm(CblasRowMajor, order(ta), order(tb), rows, cols, depth, alpha, a.data, stride(a), b.data, stride(b),
                  beta, c.data, stride(c));
    } else {
      cblas_dgemm(CblasRowMajor, order(ta), order(tb), rows, cols, depth, alpha, a.data, stride(a), b.data, stride(b),
                  beta, c.data, stride(c));
    }
  }
};

}  // namespace core_tokensets
