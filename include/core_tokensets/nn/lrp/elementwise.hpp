#pragma once
// Executors of the rules for sums, copies, norms and activations, for all samples of a ragged batch at once.

#include "core_tokensets/nn/head_norm.hpp"
#include "core_tokensets/nn/layer_norm.hpp"
#include "core_tokensets/nn/lrp/layer_rules.hpp"

namespace core_tokensets::lrp {

/// Which sample each of T rows belongs to, for rules that need totals over a sample.
template <tensor_backend B>
struct sample_rows {
  row_list<B> sample_of_row;  ///< [T]
  index samples = 0;

  void assign(B& b, const sequences& rows) {
    std::vector<std::int32_t> of_row;
    for (index s = 0; s < rows.count(); ++s) {
      of_row.insert(of_row.end(), static_cast<std::size_t>(rows.length(s)), static_cast<std::int32_t>(s));
    }
    sample_of_row.assign(b, of_row);
    samples = rows.count();
  }
};

/// Totals `[S, n]` (=) over the rows and columns of each sample, of n arrays `[T, C]`.
template <tensor_backend B, class T = typename B::scalar, class... V>
void sample_totals(B& b, const sample_rows<B>& rows, view<T> totals, const V&... of) {
  scratch<B> memory(b, rows.sample_of_row.size(), sizeof...(V));
  index column = 0;
  (b.row_reduce(fn::plus{}, fn::value{}, (*memory).slice_cols(column++, 1), view<const T>(of)), ...);
  b.fill(totals, T(0));
  b.scatter_add_rows(totals, *memory, rows.sample_of_row.data());
}

/// sum = a + other `[T, C]`: R to `ra` and `rb` (=). Totals of the renormalised rule run over each sample alone.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const sum_rule& rule, B& b, const sample_rows<B>& rows, const_view<T> r, const_view<T> a,
               const_view<T> sum, view<T> ra, view<T> rb) {
  const divide<T> over(rule.over);
  b.map(share_sum<T>{over}, ra, rb, r, a, sum);
  if (!rule.renormalised) return;
  scratch<B> totals(b, rows.samples, 3), of_row(b, r.rows, 3);
  sample_totals<B, T>(b, rows, *totals, ra, rb, r);
  const auto column = [](view<T> v, index c) { return v.slice_cols(c, 1); };
  b.map(sum_factors<T>{over}, column(*totals, 0), column(*totals, 1), view<const T>(column(*totals, 2)));
  b.gather_rows(*of_row, *totals, rows.sample_of_row.data());
  b.map(fn::multiply{}, ra, view<const T>(column(*of_row, 0)));
  b.map(fn::multiply{}, rb, view<const T>(column(*of_row, 1)));
}

/// x `[T, C]` used twice with relevances r1 and r2: R (=), which may be the memory of r1.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const copy_rule& rule, B& b, const_view<T> r1, const_view<T> r2, const_view<T> x, view<T> r) {
  if (rule.how == copy_rule::way::add) {
    b.map(fn::sum{}, r, r1, r2);
  } else {
    b.map(join_by_ratio<T>{divide<T>(rule.over)}, r, r1, r2, x);
  }
}

/// The rows x that were chosen from many, with relevance r (in place); all others have none.
template <tensor_backend B, class T = typename B::scalar>
void choice_relevance(const copy_rule& rule, B& b, const_view<T> x, view<T> r) {
  if (rule.how == copy_rule::way::ratio) b.map(choose_by_ratio<T>{divide<T>(rule.over)}, r, view<const T>(r), x);
}

/// From R (in place) at the output y of a layer norm to its input x, all `[T, C]`; `rstd` `[T, 1]` as it computed it.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const norm_rule& rule, B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x,
               const_view<T> y, const_view<T> rstd, view<T> r) {
  if (rule.how == norm_rule::way::pass) return;
  scratch<B> total(b, x.rows, 1);
  b.map(norm_share<T>{divide<T>(rule.over)}, r, view<const T>(r), y, p[l.gamma], rstd);
  b.row_reduce(fn::plus{}, fn::value{}, *total, view<const T>(r));
  b.map(norm_result<T>{static_cast<T>(x.cols)}, r, view<const T>(r), x, view<const T>(*total));
}
template <tensor_backend B, class T = typename B::scalar>
void relevance(const norm_rule& rule, B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x,
               const layer_norm_tape<B>& tape, view<T> r) {
  relevance<B, T>(rule, b, l, p, x, *tape.y, *tape.rstd, r);
}

/// From R (in place) at queries or keys `[T, H D]` behind the norm of each head to R before it.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const norm_rule& rule, B& b, const std::optional<layer_norm>& l, parameter_view<const T> p,
               const head_norm_tape<B>& tape, index heads, view<T> r) {
  if (!l || rule.how == norm_rule::way::pass) return;
  core_tokensets::detail::change_heads<B>(b, r, heads, [&](view<const T> from, view<T> to) {
    b.map(fn::copy{}, to, from);
    relevance<B, T>(rule, b, *l, p, *tape.x, *tape.y, *tape.rstd, to);
  });
}

/// From R (in place) at an activation to its input x.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const activation_rule& rule, B& b, const_view<T> x, view<T> r) {
  require_within("relevance: eps of an activation", rule.eps, 0);
  if (rule.eps != 0) b.map(activation_share<T>{T(rule.eps)}, r, x);
}

}  // namespace core_tokensets::lrp
