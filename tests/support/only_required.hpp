#pragma once
// A backend seen through the ten required functions only: whatever it overrides is hidden, so that the defaults of
// ops.hpp run on it.

#include "core_tokensets/tensor/backend.hpp"

namespace support {

namespace cts = core_tokensets;

/// Refers to a backend; its memory is that backend's memory.
template <cts::tensor_backend B>
class only_required {
 public:
  using scalar = typename B::scalar;
  using T = scalar;

  explicit only_required(B& b) : b_(&b) {}

  template <class U>
  auto allocate(cts::index n) {
    return b_->template allocate<U>(n);
  }
  template <class U>
  void upload(U* device, const U* host, cts::index n) {
    b_->upload(device, host, n);
  }
  template <class U>
  void download(U* host, const U* device, cts::index n) {
    b_->download(host, device, n);
  }
  void fill(cts::view<T> out, T value) { b_->fill(out, value); }
  void gemm(cts::const_view<T> a, cts::const_view<T> b, cts::view<T> c, cts::gemm_options o = {}) {
    b_->gemm(a, b, c, o);
  }
  template <class F, class... V>
  void map(const F& f, const V&... operands) {
    b_->map(f, operands...);
  }
  template <class Op, class F, class... V>
  void row_reduce(const Op& op, const F& term, cts::view<T> out, const V&... in) {
    b_->row_reduce(op, term, out, in...);
  }
  template <class Op, class F, class... V>
  void col_reduce(const Op& op, const F& term, T beta, cts::view<T> out, const V&... in) {
    b_->col_reduce(op, term, beta, out, in...);
  }
  void gather_rows(cts::view<T> out, cts::const_view<T> in, const std::int32_t* rows) {
    b_->gather_rows(out, in, rows);
  }
  void scatter_add_rows(cts::view<T> out, cts::const_view<T> in, const std::int32_t* rows) {
    b_->scatter_add_rows(out, in, rows);
  }

 private:
  B* b_;
};

}  // namespace support
