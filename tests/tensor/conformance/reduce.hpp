#pragma once
// Conformance of row_reduce and col_reduce: sums and maxima of terms of several operands, on top of what is there.

#include "tensor/conformance/map.hpp"
#include "tensor/conformance/suite.hpp"

namespace conformance {

template <class B>
void check_row_reduce(suite<B>& s, const shape& e) {
  const std::string on = describe(" on ", text(e));
  const shape row{1, 1, 1, e.cols}, column{e.n0, e.n1, e.rows, 1};
  s.check("row_reduce sum" + on, e.cols, {{column}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, e, 1);
    x.row_reduce(cts::fn::plus{}, cts::fn::value{}, out[0].mut(), p.get());
  });
  s.check("row_reduce maximum of squares" + on, 1, {{column}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, e, 1);
    x.row_reduce(cts::fn::maximum{}, cts::fn::square{}, out[0].mut(), p.get());
  });
  s.check("row_reduce sum of five operands: whole, row, whole, columns" + on, 8 * e.cols, {{column}},
          [&]<class X>(X& x, operands<X>& out) {
            const operand<X> p(x, e, 1), q(x, row, 2), r(x, e, 3), m(x, column, 4), t(x, column, 5);
            x.row_reduce(cts::fn::plus{}, cts::fn::norm_gradient_term{}, out[0].mut(), p.get(), q.get(), r.get(),
                         m.get(), t.get());
          });
}

template <class B>
void check_col_reduce(suite<B>& s, const shape& e) {
  const shape row{1, 1, 1, e.cols}, column{1, 1, e.rows, 1};
  for (const double beta : {0.0, 1.0, -0.5}) {
    const std::string on = describe(" on ", text(e), ", beta ", beta);
    const start how = beta == 0 ? start::nan : start::random;
    s.check("col_reduce sum" + on, e.rows, {{row, how}}, [&]<class X>(X& x, operands<X>& out) {
      const operand<X> p(x, e, 1);
      x.col_reduce(cts::fn::plus{}, cts::fn::value{}, typename X::scalar(beta), out[0].mut(), p.get());
    });
    s.check("col_reduce sum of four operands: whole, whole, columns" + on, 4 * e.rows, {{row, how}},
            [&]<class X>(X& x, operands<X>& out) {
              const operand<X> p(x, e, 1), q(x, e, 2), m(x, column, 3), t(x, column, 4);
              x.col_reduce(cts::fn::plus{}, cts::fn::norm_scale_term{}, typename X::scalar(beta), out[0].mut(), p.get(),
                           q.get(), m.get(), t.get());
            });
    s.check("col_reduce maximum" + on, 1, {{row, how}}, [&]<class X>(X& x, operands<X>& out) {
      const operand<X> p(x, e, 1);
      x.col_reduce(cts::fn::maximum{}, cts::fn::value{}, typename X::scalar(beta), out[0].mut(), p.get());
    });
  }
}

template <class B>
void check_reduce(suite<B>& s) {
  for (const shape& e : {shape{}, shape{1, 1, 7, 13}, shape{1, 1, 1, 67}, shape{1, 1, 131, 1}, shape{2, 3, 5, 17},
                         shape{1, 1, 300, 64}, shape{1, 1, 0, 5}, shape{1, 1, 3, 0}, shape{1, 1, 2, long_row}}) {
    check_row_reduce(s, e);
  }
  constexpr index very_long = 70 * (1 << 14) + 1;  // as long as the array of all parameters of a model
  s.check(describe("row_reduce sum of squares on [1, ", very_long, "]"), very_long, {{{1, 1, 1, 1}}},
          []<class X>(X& x, operands<X>& out) {
            const operand<X> p(x, {1, 1, 1, very_long}, 1);
            x.row_reduce(cts::fn::plus{}, cts::fn::square{}, out[0].mut(), p.get());
          });
  for (const shape& e : {shape{}, shape{1, 1, 7, 13}, shape{1, 1, 131, 1}, shape{1, 1, 300, 64}, shape{1, 1, 61, 131},
                         shape{1, 1, 0, 5}, shape{1, 1, 3, 0}}) {
    check_col_reduce(s, e);
  }
  B& b = s.backend;
  operand<B> two(b, {1, 1, 2, 3}, 1), five(b, {1, 1, 2, 5}, 2), column(b, {1, 1, 3, 1}, 3), row(b, {1, 1, 1, 4}, 4);
  using cts::fn::plus, cts::fn::times, cts::fn::value;
  CHECK_THROWS_AS(b.row_reduce(plus{}, value{}, column.mut(), two.get()), cts::Error);
  CHECK_THROWS_AS(b.row_reduce(plus{}, times{}, column.mut().slice_rows(0, 2), two.get(), five.get()), cts::Error);
  CHECK_THROWS_AS(b.col_reduce(plus{}, value{}, 0, row.mut(), two.get()), cts::Error);
}

}  // namespace conformance
