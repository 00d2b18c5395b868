#pragma once
// Conformance of gemm: every transposition, factors, batches that repeat, odd and empty extents.

#include "tensor/conformance/suite.hpp"

namespace conformance {

struct gemm_case {
  index n0 = 1, n1 = 1, m = 1, n = 1, k = 1;
  cts::gemm_options options = {};
  bool one_a = false, one_b = false;  ///< the same matrix for the whole batch
};

template <class B>
void check_gemm_case(suite<B>& s, const gemm_case& g) {
  const auto& o = g.options;
  const std::string what = describe("gemm batch [", g.n0, ", ", g.n1, "], m ", g.m, ", n ", g.n, ", k ", g.k,
                                    ", transpose_a ", o.transpose_a, ", transpose_b ", o.transpose_b, ", alpha ",
                                    o.alpha, ", beta ", o.beta, ", one a ", g.one_a, ", one b ", g.one_b);
  s.check(what, g.k, {{{g.n0, g.n1, g.m, g.n}, o.beta == 0 ? start::nan : start::random}},
          [&]<class X>(X& x, operands<X>& out) {
            const index a0 = g.one_a ? 1 : g.n0, a1 = g.one_a ? 1 : g.n1, b0 = g.one_b ? 1 : g.n0,
                        b1 = g.one_b ? 1 : g.n1;
            const operand<X> p(x, {a0, a1, o.transpose_a ? g.k : g.m, o.transpose_a ? g.m : g.k}, 1),
                q(x, {b0, b1, o.transpose_b ? g.n : g.k, o.transpose_b ? g.k : g.n}, 2);
            x.gemm(p.get(), q.get(), out[0].mut(), o);
          });
}

template <class B>
void check_gemm(suite<B>& s) {
  for (const index m : {1, 7, 67, 300}) {
    for (const index k : {1, 5, 131}) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) {
          for (const double beta : {0.0, 1.0, -0.5}) {
            check_gemm_case(
                s, {.n1 = 2, .m = m, .n = m == 67 ? 97 : 13, .k = k, .options = {ta, tb, beta == 1 ? 1 : 0.75, beta}});
          }
        }
      }
    }
  }
  for (const bool tb : {false, true}) {
    check_gemm_case(s, {.m = 5, .n = 601, .k = 64, .options = {.transpose_b = tb}});  // wide
    check_gemm_case(s, {.m = 601, .n = 1, .k = 37, .options = {.transpose_b = tb}});  // a column
    check_gemm_case(s, {.m = 1100, .n = 48, .k = 192, .options = {.transpose_a = tb, .transpose_b = !tb}});
    check_gemm_case(s, {.n0 = 2, .n1 = 3, .m = 17, .n = 11, .k = 8, .options = {.transpose_b = tb}});
    check_gemm_case(s, {.n0 = 2, .n1 = 3, .m = 17, .n = 11, .k = 8, .options = {.transpose_b = tb}, .one_a = true});
    check_gemm_case(s, {.n0 = 3, .n1 = 2, .m = 17, .n = 11, .k = 8, .options = {.transpose_b = tb}, .one_b = true});
  }
  for (const double beta : {0.0, 0.5}) {  // empty sums, and nothing to write
    check_gemm_case(s, {.n1 = 2, .m = 7, .n = 5, .k = 0, .options = {.beta = beta}});
    check_gemm_case(s, {.n1 = 2, .m = 7, .n = 5, .k = 0, .options = {.transpose_a = true, .beta = beta}});
    check_gemm_case(s, {.m = 0, .n = 5, .k = 3, .options = {.beta = beta}});
    check_gemm_case(s, {.m = 4, .n = 0, .k = 3, .options = {.beta = beta}});
    check_gemm_case(s, {.n1 = 0, .m = 4, .n = 5, .k = 3, .options = {.beta = beta}});
  }
  // Heads side by side in the rows of one matrix, as attention has them.
  s.check("gemm on 3 heads of packed columns", 8, {{{1, 1, 19, 24}}}, []<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, {1, 3, 19, 8}, 1), q(x, {1, 1, 8, 24}, 2);
    x.gemm(p.get(), q.get().split_cols(3), out[0].mut().split_cols(3), {});
  });
  B& b = s.backend;
  operand<B> two(b, {1, 1, 2, 3}, 1), other(b, {1, 1, 4, 5}, 2), out(b, {1, 1, 2, 5}, 3);
  CHECK_THROWS_AS(b.gemm(two.get(), other.get(), out.mut(), {}), cts::Error);
  CHECK_THROWS_AS(b.gemm(two.get(), other.get(), out.mut(), {.transpose_a = true, .transpose_b = true}), cts::Error);
  operand<B> left(b, {1, 2, 2, 4}, 4), three(b, {1, 3, 2, 5}, 5);  // batches of 2 and of 3
  CHECK_THROWS_AS(b.gemm(left.get(), other.get(), three.mut(), {}), cts::Error);
  CHECK_THROWS_AS(b.gemm({left.get().data, 2, 4, 0}, other.get(), out.mut(), {}), cts::Error);
}

}  // namespace conformance
