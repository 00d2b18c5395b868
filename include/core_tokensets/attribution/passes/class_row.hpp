#pragma once
// Products over blocks of matrices I + C, of which only the class token's row is used: the row is carried from the last
// block to the first, v <- v + v C, instead of multiplying matrices of N x N.

#include "core_tokensets/attribution/workspace.hpp"

namespace core_tokensets {

namespace detail {
/// out = max(out x, 0)
struct positive_product {
  template <class T>
  constexpr void operator()(T& out, const T& x) const {
    const T p = out * x;
    out = p > T(0) ? p : T(0);
  }
};
/// out = max(out, 0)
struct keep_positive {
  template <class T>
  constexpr void operator()(T& out) const {
    out = out > T(0) ? out : T(0);
  }
};

inline void check_start_layer(const char* method, index start, index depth) {
  require(start >= 0 && start < depth, method, ": start layer ", start, " of a model with ", depth, " blocks");
}
}  // namespace detail

/// Numbers of tokens `[T]` without those of class tokens and registers: `[P]`.
template <tensor_backend B, class T>
std::vector<double> patch_entries(const std::vector<T>& of_tokens, const embedding_plan<B>& plan) {
  std::vector<double> of_patches;
  for (index s = 0; s < plan.rows().count(); ++s) {
    of_patches.insert(of_patches.end(), of_tokens.begin() + plan.rows().begin(s) + 1,
                      of_tokens.begin() + plan.rows().begin(s + 1) - plan.registers);
  }
  return of_patches;
}

/// One such row for each sample of a ragged batch. A token of weight w has w times the relevance that each of w equal
/// tokens would have.
template <tensor_backend B>
class class_row_product {
 public:
  using T = typename B::scalar;

  /// Starts as the class token's unit vector; `plan` outlives this object.
  class_row_product(B& b, const embedding_plan<B>& plan) : plan_(plan), rows_(b, plan.tokens(), 1) {
    const T one = 1;
    tensor<B> ones;
    ones.assign(b, 1, 1, &one);
    b.fill(*rows_, T(0));
    b.scatter_add_rows(*rows_, view<const T>(ones.data(), plan.class_rows.size(), 1, 0), plan.class_rows.data());
  }

  /// v <- factor v
  void scale(B& b, double factor) { b.map(fn::scale<T>{T(factor)}, *rows_); }

  /// v <- v + v mean_h M for matrices M `[H, nq, nk]` of each sample, laid out as `layout` says. The first nq entries
  /// of v meet the rows of M: a last block that was computed for class tokens only has one. `sums`: so many factors of
  /// M are sums over the tokens that a query stands for (gradients and relevance are, attention is not), and are
  /// divided by its weight to be those of one of them.
  void add_product(B& b, const attention_rows& layout, index heads, const T* matrices, index sums) {
    const bool weighted = sums > 0 && !plan_.key_weights.empty();
    scratch<B> memory(b, weighted ? plan_.tokens() : 0, 1);
    if (weighted) {
      b.map(fn::copy{}, *memory, *std::as_const(rows_));
      for (index i = 0; i < sums; ++i) b.map(fn::divide{}, *memory, *plan_.key_weights);
    }
    const T* of_queries = weighted ? memory.data() : rows_.data();
    ops::for_each_sample(b, layout.count(), [&](index s) {
      const index nq = layout.queries().length(s), nk = layout.keys().length(s);
      scratch<B> by_head(b, heads, nk);
      const view<T> v(rows_.data() + layout.keys().begin(s), 1, nk),
          products(by_head.data(), 1, heads, 1, nk, 0, nk, nk);
      b.gemm(view<const T>(of_queries + layout.keys().begin(s), 1, nq), layout.matrices(matrices, s, heads), products,
             {.alpha = 1.0 / static_cast<double>(heads)});
      b.col_reduce(fn::plus{}, fn::value{}, T(1), v, view<const T>(*by_head));
    });
  }

  /// The entries of the patches `[P]`.
  std::vector<double> patches(B& b) const { return patch_entries(rows_.to_host(b), plan_); }

 private:
  const embedding_plan<B>& plan_;
  tensor<B> rows_;
};

/// mean_h M[h, 0, 1:] of each sample `[P]`: the class token's row of matrices laid out as `layout` says.
template <tensor_backend B, class T = typename B::scalar>
std::vector<double> mean_class_row(B& b, const embedding_plan<B>& plan, const attention_rows& layout, index heads,
                                   const T* matrices) {
  tensor<B> rows(b, plan.tokens(), 1);
  ops::for_each_sample(b, layout.count(), [&](index s) {
    const index nk = layout.keys().length(s);
    const auto m = layout.matrices(matrices, s, heads);
    b.col_reduce(fn::plus{}, fn::value{}, T(0), view<T>(rows.data() + layout.keys().begin(s), 1, nk),
                 view<const T>(m.data, heads, nk, m.s1));
  });
  b.map(fn::scale<T>{T(1) / static_cast<T>(heads)}, *rows);
  return patch_entries(rows.to_host(b), plan);
}

}  // namespace core_tokensets
