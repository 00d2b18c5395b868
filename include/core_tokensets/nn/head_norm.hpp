#pragma once
// A norm of each head's queries or keys over its channels, which keeps scores small in large models (Dehghani et al.,
// ICML 2023, "Scaling Vision Transformers to 22 Billion Parameters", section 2). Most models have none.

#include <optional>

#include "core_tokensets/nn/layer_norm.hpp"

namespace core_tokensets {

/// Queries or keys `[T, H D]` before and behind such a norm, as `[T H, D]` of one head a row; empty without a norm.
template <tensor_backend B>
struct head_norm_tape {
  tensor<B> x, y, mean, rstd;

  /// y as `[T, H D]`.
  view<const typename B::scalar> rows(index heads) const {
    return {y.data(), y.rows() / heads, y.cols() * heads, y.cols() * heads};
  }
};

/// x `[T, H D]`, the columns of a wider matrix, through the norm if there is one.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const std::optional<layer_norm>& l, parameter_view<const T> p, const_view<T> x, index heads,
             head_norm_tape<B>& tape) {
  if (!l) return;
  const index rows = x.rows * heads, dim = x.cols / heads;
  tape.x.resize(b, rows, dim), tape.y.resize(b, rows, dim);
  tape.mean.resize(b, rows, 1), tape.rstd.resize(b, rows, 1);
  b.map(fn::copy{}, view<T>(tape.x.data(), x.rows, x.cols, x.cols), x);
  normalise<B, T>(b, *l, p, *std::as_const(tape.x), *tape.mean, *tape.rstd, *tape.y);
}

/// What attention reads: x `[T, H D]` behind its norm, or as it is.
template <tensor_backend B, class T = typename B::scalar>
view<const T> behind(const std::optional<layer_norm>& l, const head_norm_tape<B>& tape, view<const T> x, index heads) {
  return (l ? tape.rows(heads) : x).split_cols(heads);
}

namespace detail {

/// Calls `change(from, to)` on the rows of one head each of `at` `[T, H D]`; `to` takes their place.
template <tensor_backend B, class Change, class T = typename B::scalar>
void change_heads(B& b, view<T> at, index heads, const Change& change) {
  const index rows = at.rows * heads, dim = at.cols / heads;
  scratch<B> from(b, rows, dim), to(b, rows, dim);
  b.map(fn::copy{}, view<T>(from.data(), at.rows, at.cols, at.cols), view<const T>(at));
  change(view<const T>(*from), *to);
  b.map(fn::copy{}, at, view<const T>(to.data(), at.rows, at.cols, at.cols));
}

}  // namespace detail

/// From d loss / d what attention read, in place, to d loss / d x. Parameter gradients are added where `grads` is
/// given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const std::optional<layer_norm>& l, parameter_view<const T> p, parameter_view<T> grads,
              const head_norm_tape<B>& tape, index heads, view<T> dx) {
  if (!l) return;
  detail::change_heads<B>(b, dx, heads, [&](view<const T> dy, view<T> d) {
    ops::layer_norm_backward<B, T>(b, *tape.x, p[l->gamma], *tape.mean, *tape.rstd, dy, d, grads[l->gamma],
                                   grads[l->beta]);
  });
}

}  // namespace core_tokensets
