#pragma once
// Conformance of map, gather_rows and scatter_add_rows: operands that repeat, that are the same memory, and rows long
// enough to be shared out in pieces.

#include "tensor/conformance/suite.hpp"

namespace conformance {

/// Longer than the pieces that a long row is cut into.
inline constexpr index long_row = 2 * (1 << 14) + 7;

/// y = a + 2 b + 3 c + 4 d
struct weighted_sum {
  template <class T>
  constexpr void operator()(T& y, const T& a, const T& b, const T& c, const T& d) const {
    y = a + T(2) * b + T(3) * c + T(4) * d;
  }
};

/// Two outputs at once: p and q change places, scaled.
struct exchange {
  template <class T>
  constexpr void operator()(T& p, T& q, const T& factor) const {
    const T old = p;
    p = factor * q;
    q = factor * old;
  }
};

template <class B>
void check_map_shape(suite<B>& s, const shape& e) {
  const std::string on = describe(" on ", text(e));
  const shape row{1, 1, 1, e.cols}, column{e.n0, e.n1, e.rows, 1}, one{1, 1, 1, 1};
  s.check("map copy" + on, 1, {{e}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, e, 1);
    x.map(cts::fn::copy{}, out[0].mut(), p.get());
  });
  for (const auto& [name, repeated] :
       {std::pair{"row", row}, std::pair{"column", column}, std::pair{"scalar", one}, std::pair{"whole", e}}) {
    s.check(describe("map sum with a ", name, on), 1, {{e}}, [&, r = repeated]<class X>(X& x, operands<X>& out) {
      const operand<X> p(x, e, 1), q(x, r, 2);
      x.map(cts::fn::sum{}, out[0].mut(), p.get(), q.get());
    });
    s.check(describe("map sum, a ", name, " first", on), 1, {{e}}, [&, r = repeated]<class X>(X& x, operands<X>& out) {
      const operand<X> p(x, e, 1), q(x, r, 2);
      x.map(cts::fn::sum{}, out[0].mut(), q.get(), p.get());
    });
  }
  s.check("map of five operands: whole, row, column, scalar" + on, 4, {{e}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, e, 1), q(x, row, 2), r(x, column, 3), t(x, one, 4);
    x.map(weighted_sum{}, out[0].mut(), p.get(), q.get(), r.get(), t.get());
  });
  s.check("map in place" + on, 1, {{e, start::random}}, [&]<class X>(X& x, operands<X>& out) {
    x.map(cts::fn::sum{}, out[0].mut(), std::as_const(out[0]).get(), std::as_const(out[0]).get());
  });
  s.check("map with two outputs" + on, 1, {{e, start::random}, {e, start::random}},
          [&]<class X>(X& x, operands<X>& out) {
            const operand<X> factor(x, column, 1);
            x.map(exchange{}, out[0].mut(), out[1].mut(), factor.get());
          });
  s.check("map gelu and its derivative" + on, 1, {{e}, {e, start::random}}, [&]<class X>(X& x, operands<X>& out) {
    const operand<X> p(x, e, 1);
    x.map(cts::fn::apply_gelu{}, out[0].mut(), p.get());
    x.map(cts::fn::multiply_gelu_derivative{}, out[1].mut(), p.get());
  });
}

template <class B>
void check_map(suite<B>& s) {
  for (const shape& e : {shape{}, shape{1, 1, 7, 13}, shape{1, 1, 1, 67}, shape{1, 1, 131, 1}, shape{2, 3, 5, 17},
                         shape{1, 1, 300, 64}, shape{1, 1, 0, 5}, shape{1, 1, 3, 0}, shape{1, 1, 2, long_row}}) {
    check_map_shape(s, e);
  }
  B& b = s.backend;
  operand<B> two(b, {1, 1, 2, 3}, 1), out(b, {1, 1, 2, 5}, 3), twice(b, {1, 2, 2, 5}, 4);
  CHECK_THROWS_AS(b.map(cts::fn::copy{}, out.mut(), two.get()), cts::Error);
  CHECK_THROWS_AS(b.map(cts::fn::copy{}, out.mut(), std::as_const(twice).get()), cts::Error);
}

template <class B>
void check_rows(suite<B>& s) {
  const std::vector<std::int32_t> order{4, 0, 4, 2, 4, 1};
  for (const index cols : {1, 13, 64, 200}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, order.size()}) {
      const auto n = static_cast<index>(count);
      const std::string with = describe(" of ", n, " rows of ", cols);
      s.check("gather_rows" + with, 1, {{{1, 1, n, cols}}}, [&]<class X>(X& x, operands<X>& out) {
        const operand<X> p(x, {1, 1, 5, cols}, 1);
        cts::row_list<X> rows;
        rows.assign(x, std::span(order).first(count));
        x.gather_rows(out[0].mut(), p.get(), rows.data());
      });
      s.check("scatter_add_rows" + with, 4, {{{1, 1, 5, cols}, start::random}}, [&]<class X>(X& x, operands<X>& out) {
        const operand<X> p(x, {1, 1, n, cols}, 1);
        cts::row_list<X> rows;
        rows.assign(x, std::span(order).first(count));
        x.scatter_add_rows(out[0].mut(), p.get(), rows.data());
      });
      s.check("scatter_add_rows of one row" + with, 4, {{{1, 1, 5, cols}, start::random}},
              [&]<class X>(X& x, operands<X>& out) {
                const operand<X> p(x, {1, 1, 1, cols}, 1);
                cts::row_list<X> rows;
                rows.assign(x, std::span(order).first(count));
                x.scatter_add_rows(out[0].mut(), {p.get().data, n, cols, 0}, rows.data());
              });
    }
  }
  B& b = s.backend;
  operand<B> three(b, {1, 1, 1, 3}, 1), four(b, {1, 1, 1, 4}, 2);
  cts::row_list<B> first;
  first.assign(b, std::span(order).subspan(1, 1));
  CHECK_THROWS_AS(b.gather_rows(three.mut(), std::as_const(four).get(), first.data()), cts::Error);
  CHECK_THROWS_AS(b.scatter_add_rows(three.mut(), std::as_const(four).get(), first.data()), cts::Error);
}

}  // namespace conformance
