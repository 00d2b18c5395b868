#pragma once
// The contract of a backend: ten functions. Everything else in the library is written from these; a backend may also
// bring its own version of the operations in ops.hpp, which are found by name.

#include <concepts>
#include <cstdint>
#include <span>

#include "core_tokensets/core/functors.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// C = alpha op(A) op(B) + beta C for every matrix of the batch; C is not read when beta is 0.
struct gemm_options {
  bool transpose_a = false, transpose_b = false;
  double alpha = 1, beta = 0;
};

/// What `cross_entropy` takes besides logits `[S, K]`, in the backend's memory.
template <class T>
struct cross_entropy_operands {
  const std::int32_t* targets = nullptr;      ///< [S]
  const std::int32_t* first_class = nullptr;  ///< [S] sample s competes among first_class[s] .. K-1; null: all
  const T* weights = nullptr;                 ///< [S]; null: 1
  T label_smoothing = 0;                      ///< share of the target spread evenly over the competing classes
};

/// What attention left in the forward pass of a backend that computes the probabilities again on the way back
/// (`ops::keeps_log_sums`); null where the probabilities were kept instead.
template <class T>
struct attention_result {
  const T* log_sums = nullptr;  ///< [H, Tq] log sum exp(scale q k^T)
  view<const T> out;            ///< [1, H, Tq, dh]
};

/// What a tensor backend must offer (docs/backends.md). `Buffer<U>` owns memory of the device and frees itself;
/// pointers into it are never followed outside of the backend. Views may be empty, and n may be 0. Operands are the
/// same memory or apart. Shapes that do not fit throw `Error`. Function objects are trivially copyable.
///
/// Memory:  `allocate<U>(n)`, `upload(device, host, n)`, `download(host, device, n)`, `fill(view, value)`.
/// Compute: `gemm(a, b, c, options)`: rows at least as far apart as they are long; a batch of A or B may be one matrix;
///          `map(f, operands...)`: f(element&...) at every place of the first operand's shape, where the others repeat
///          along dimensions of extent 1;
///          `row_reduce(op, term, out [rows, 1], in...)` and `col_reduce(op, term, beta, out [1, cols], in...)`: out =
///          op over term(in...), the latter on top of beta * out; both in a fixed order;
///          `gather_rows(out, in, rows)`: out[i] = in[rows[i]]; `scatter_add_rows(out, in, rows)`: out[rows[i]] +=
///          in[i], equal numbers in order.
template <class B>
concept tensor_backend = requires(B& b, typename B::scalar* p, const typename B::scalar* host, std::int32_t* q,
                                  const std::int32_t* rows, view<typename B::scalar> out,
                                  view<const typename B::scalar> in, typename B::scalar value, index n) {
  requires std::floating_point<typename B::scalar>;
  requires std::default_initializable<decltype(b.template allocate<typename B::scalar>(n))>;
  requires std::movable<decltype(b.template allocate<typename B::scalar>(n))>;
  { b.template allocate<typename B::scalar>(n).data() } -> std::same_as<typename B::scalar*>;
  { b.template allocate<std::int32_t>(n).data() } -> std::same_as<std::int32_t*>;
  b.upload(p, host, n);
  b.upload(q, rows, n);
  b.download(p, host, n);
  b.download(q, rows, n);
  b.fill(out, value);
  b.gemm(in, in, out, gemm_options{});
  b.map(fn::sum{}, out, in, in);
  b.row_reduce(fn::plus{}, fn::value{}, out, in);
  b.col_reduce(fn::plus{}, fn::value{}, value, out, in);
  b.gather_rows(out, in, rows);
  b.scatter_add_rows(out, in, rows);
};

/// Owner of device memory that a backend hands out.
template <class B, class U>
using buffer_of = decltype(std::declval<B&>().template allocate<U>(index{}));

}  // namespace core_tokensets
