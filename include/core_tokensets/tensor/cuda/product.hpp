#pragma once
// A matrix product as the device's library is asked for it: row-major matrices, one batch dimension.

#include <algorithm>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/tensor/cuda/kernel.hpp"

namespace core_tokensets::cuda {

/// One side of a product: float or, where `product::narrow`, bfloat. `ld` and `stride` in elements.
struct factor {
  const void* data = nullptr;
  index ld = 0, stride = 0;
  bool transpose = false;
  bool operator==(const factor&) const = default;
};

/// c = alpha op(a) op(b) + beta addend + bias (a row; may be null), `batch` times. The addend may be c itself.
struct product {
  factor a, b;
  const float *addend = nullptr, *bias = nullptr;
  float* c = nullptr;
  index m = 0, n = 0, k = 0, batch = 1, ld_addend = 0, stride_addend = 0, ldc = 0, stride_c = 0;
  float alpha = 1, beta = 0;
  arithmetic how = arithmetic::f32;
  bool narrow = false;
  bool operator==(const product&) const = default;
};

/// A batch of matrices in device memory, of floats or bfloats.
struct matrices {
  const void* data = nullptr;
  index n0 = 1, n1 = 1, rows = 0, cols = 0, s0 = 0, s1 = 0, ld = 0;

  matrices() = default;
  template <class T>
  explicit matrices(const view<T>& v)
      : data(v.data), n0(v.n0), n1(v.n1), rows(v.rows), cols(v.cols), s0(v.s0), s1(v.s1), ld(v.ld) {
    require(rows <= 1 || ld >= cols, "gemm: rows of ", cols, " numbers that lie ", ld, " apart");
    if (n0 == 1) s0 = 0;
    if (n1 == 1) s1 = 0;
    ld = std::max({ld, cols, index{1}});
  }
};

/// Calls `multiply(product)` as often as the two batch dimensions need: once where they are one in memory, else for
/// each i in [0, n0). `p` brings everything but places, shapes and strides; `element` is the size of the factors'.
template <class Multiply>
void for_each_batch(product p, const matrices& a, const matrices& b, const matrices& c, index element,
                    const Multiply& multiply) {
  p.m = c.rows;
  p.n = c.cols;
  p.k = p.a.transpose ? a.rows : a.cols;
  p.a.ld = a.ld;
  p.b.ld = b.ld;
  p.ldc = c.ld;
  const bool in_place = p.addend == nullptr;
  const auto one_stride = [&](const matrices& x) { return x.s0 == c.n1 * x.s1; };
  const bool outer = c.n1 == 1, joined = outer || c.n0 == 1 || (one_stride(a) && one_stride(b) && one_stride(c));
  p.batch = joined ? c.n0 * c.n1 : c.n1;
  p.a.stride = outer ? a.s0 : a.s1;
  p.b.stride = outer ? b.s0 : b.s1;
  p.stride_c = outer ? c.s0 : c.s1;
  for (index i = 0; i < (joined ? 1 : c.n0); ++i) {
    p.a.data = static_cast<const char*>(a.data) + i * a.s0 * element;
    p.b.data = static_cast<const char*>(b.data) + i * b.s0 * element;
    p.c = static_cast<float*>(const_cast<void*>(c.data)) + i * c.s0;
    if (in_place) {
      p.addend = p.c;
      p.ld_addend = p.ldc;
      p.stride_addend = p.stride_c;
    }
    multiply(p);
  }
}

}  // namespace core_tokensets::cuda
