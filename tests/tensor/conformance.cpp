// One suite for all backends: every primitive and every overridden operation against the reference in double, at odd
// sizes, with rows further apart than they are long and NaN where nothing may be read.

#include <limits>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/ops.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"

namespace {

namespace cts = core_tokensets;
using cts::index;

/// Largest difference to the reference that rounding explains for sums of about a hundred terms of size 1.
template <class T>
constexpr double rounding = std::is_same_v<T, double> ? 1e-12 : 1e-4;

/// A matrix on the host with a gap behind each row; the gap holds NaN and must keep it.
template <class T>
struct padded {
  index n, rows, cols, ld;
  std::vector<T> data;

  padded(index count, index r, index c, std::uint64_t seed)
      : n(count),
        rows(r),
        cols(c),
        ld(c + 3),
        data(static_cast<std::size_t>(n * rows * ld), std::numeric_limits<T>::quiet_NaN()) {
    cts::random_stream random(seed);
    for (index i = 0; i < n * rows; ++i)
      for (index j = 0; j < cols; ++j)
        data[static_cast<std::size_t>(i * ld + j)] = static_cast<T>(static_cast<float>(random.normal()));
  }
  void forget() {
    for (index i = 0; i < n * rows; ++i)
      for (index j = 0; j < cols; ++j) data[static_cast<std::size_t>(i * ld + j)] = std::numeric_limits<T>::quiet_NaN();
  }
  cts::view<T> mut() { return {data.data(), 1, n, rows, cols, 0, rows * ld, ld}; }
  cts::view<const T> get() const { return {data.data(), 1, n, rows, cols, 0, rows * ld, ld}; }
};

template <class T>
void check_same(const padded<T>& got, const padded<double>& want) {
  double worst = 0;
  bool gaps_kept = true;
  for (index i = 0; i < got.n * got.rows; ++i) {
    for (index j = 0; j < got.ld; ++j) {
      const double g = double(got.data[static_cast<std::size_t>(i * got.ld + j)]);
      if (j >= got.cols) {
        gaps_kept = gaps_kept && std::isnan(g);
      } else {
        const double w = want.data[static_cast<std::size_t>(i * got.ld + j)];
        const double difference = std::abs(g - w) / std::max(1.0, std::abs(w));
        worst = std::isnan(difference) ? HUGE_VAL : std::max(worst, difference);
      }
    }
  }
  CHECK(gaps_kept);
  CHECK(worst <= rounding<T>);
}

/// Runs `body` with backend B and with the reference, each on its own operands, and compares `out`.
template <class B, class Body>
void compare(B& b, index n, index rows, index cols, bool keep_output, const Body& body) {
  using T = typename B::scalar;
  cts::reference_backend<double> oracle;
  padded<T> got(n, rows, cols, 99);
  padded<double> want(n, rows, cols, 99);
  if (!keep_output) {
    got.forget();
    want.forget();
  }
  body(b, got);
  body(oracle, want);
  check_same(got, want);
}

template <class B>
void check_backend(B b) {
  using cts::view;
  for (const index m : {1, 7, 67, 300}) {
    for (const index k : {1, 5, 131}) {
      const index n = m == 67 ? 97 : 13;
      INFO("m " << m << ", k " << k << ", n " << n);
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) {
          for (const double beta : {0.0, 1.0, -0.5}) {
            compare(b, 2, m, n, beta != 0, [&]<class X, class T>(X& x, padded<T>& out) {
              const padded<T> p(2, ta ? k : m, ta ? m : k, 1), q(2, tb ? n : k, tb ? k : n, 2);
              x.gemm(p.get(), q.get(), out.mut(), {.transpose_a = ta, .transpose_b = tb, .alpha = 0.75, .beta = beta});
            });
          }
        }
      }
      compare(b, 1, m, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, k, 1), w(1, n, k, 2), bias(1, 1, n, 3), residual(1, m, n, 4);
        cts::ops::linear<X, T>(x, p.get(), w.get(), bias.get(), residual.get(), out.mut());
      });
      compare(b, 1, m, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, k, 1), w(1, n, k, 2), bias(1, 1, n, 3);
        padded<T> pre(1, m, n, 5);
        cts::ops::linear_gelu<X, T>(x, p.get(), w.get(), bias.get(), pre.mut(), out.mut());
      });
      compare(b, 1, m, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, k, 1), w(1, k, n, 2), pre(1, m, n, 3);
        cts::ops::linear_gelu_backward_input<X, T>(x, p.get(), w.get(), pre.get(), out.mut());
      });
    }
    for (const index n : {1, 16, 37}) {
      INFO("rows " << m << ", columns " << n);
      compare(b, 2, m, n, true, [&]<class X, class T>(X& x, padded<T>& out) { cts::ops::softmax<X, T>(x, out.mut()); });
      compare(b, 1, m, 1, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, n, 1), row(1, 1, n, 2), column(1, m, 1, 3);
        x.row_reduce(cts::fn::plus{}, cts::fn::norm_gradient_term{}, out.mut(), p.get(), row.get(), p.get(),
                     column.get(), column.get());
      });
      compare(b, 1, 1, n, true, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, n, 1), column(1, m, 1, 3);
        x.col_reduce(cts::fn::plus{}, cts::fn::times{}, T(1), out.mut(), p.get(), column.get());
      });
      compare(b, 1, 1, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, n, 1);
        x.col_reduce(cts::fn::maximum{}, cts::fn::value{}, T(0), out.mut(), p.get());
      });
      compare(b, 3, m, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(3, m, n, 1), row(1, 1, n, 2);
        x.map(cts::fn::sum{}, out.mut(), p.get(), row.get());
      });
      const std::vector<std::int32_t> order{4, 0, 4, 2};
      compare(b, 1, 4, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, 5, n, 1);
        x.gather_rows(out.mut(), p.get(), order.data());
      });
      compare(b, 1, 5, n, true, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, 4, n, 1);
        x.scatter_add_rows(out.mut(), p.get(), order.data());
      });
      compare(b, 1, m, n, false, [&]<class X, class T>(X& x, padded<T>& out) {
        const padded<T> p(1, m, n, 1), gamma(1, 1, n, 2), beta(1, 1, n, 3), dy(1, m, n, 4);
        padded<T> y(1, m, n, 5), mean(1, m, 1, 6), rstd(1, m, 1, 7);
        cts::ops::layer_norm<X, T>(x, p.get(), gamma.get(), beta.get(), y.mut(), mean.mut(), rstd.mut(), T(0.01));
        cts::ops::layer_norm_backward<X, T>(x, p.get(), gamma.get(), mean.get(), rstd.get(), dy.get(), out.mut(), {},
                                            {});
        x.map(cts::fn::add{}, out.mut(), y.get());
      });
    }
  }
  const cts::sequences rows{{0, 1, 1, 38, 43, 44}};  // one token, none, primes
  compare(b, 1, rows.tokens(), 12, false, [&]<class X, class T>(X& x, padded<T>& out) {
    const padded<T> qkv(1, rows.tokens(), 36, 1), dout(1, rows.tokens(), 12, 2);
    padded<T> dqkv(1, rows.tokens(), 36, 3);
    const auto part = [](auto v, index i) { return v.slice_cols(12 * i, 12).split_cols(3); };
    std::vector<T> a(static_cast<std::size_t>(cts::attention_rows(rows).size(3)));
    cts::ops::attention<X, T>(x, rows, part(qkv.get(), 0), part(qkv.get(), 1), part(qkv.get(), 2), T(0.5),
                              part(out.mut(), 0), a.data());
    cts::ops::attention_backward<X, T>(x, rows, part(qkv.get(), 0), part(qkv.get(), 1), part(qkv.get(), 2), T(0.5),
                                       a.data(), part(dout.get(), 0), part(dqkv.mut(), 0), part(dqkv.mut(), 1),
                                       part(dqkv.mut(), 2), nullptr);
    for (index i = 0; i < 3; ++i) x.map(cts::fn::add{}, out.mut(), dqkv.get().slice_cols(12 * i, 12));
  });
  padded<typename B::scalar> two(1, 2, 3, 1), other(1, 4, 5, 2), out(1, 2, 5, 3);
  CHECK_THROWS_AS(b.gemm(two.get(), other.get(), out.mut(), {}), cts::Error);
  CHECK_THROWS_AS(b.map(cts::fn::copy{}, out.mut(), two.get()), cts::Error);
}

}  // namespace

TEST_CASE("reference<float> conforms", "[backend]") { check_backend(cts::reference_backend<float>()); }
TEST_CASE("eigen<float> conforms", "[backend]") { check_backend(cts::eigen_backend<float>()); }
TEST_CASE("eigen<double> conforms", "[backend]") { check_backend(cts::eigen_backend<double>(2)); }

TEST_CASE("scalar functions in float agree with the standard library", "[functors]") {
  double exp_error = 0, cdf_error = 0, derivative_error = 0;
  for (float x = -80; x < 80; x += 0.01f) {
    exp_error = std::max(exp_error, std::abs(double(cts::fn::exp(x)) / std::exp(double(x)) - 1));
  }
  for (float x = -5; x < 5; x += 0.001f) {
    cdf_error = std::max(cdf_error, std::abs(double(cts::fn::normal(x).cdf) / cts::fn::normal(double(x)).cdf - 1));
    derivative_error =
        std::max(derivative_error, std::abs(double(cts::fn::gelu_derivative(x)) - cts::fn::gelu_derivative(double(x))));
  }
  CHECK(exp_error < 2e-7);
  CHECK(cdf_error < 7e-7);
  CHECK(derivative_error < 4e-7);
  CHECK(cts::fn::exp(-1000.0f) == 0.0f);
  CHECK(cts::fn::exp(0.0f) == 1.0f);
  CHECK(std::isnan(cts::fn::exp(std::nanf(""))));
}

TEST_CASE("random numbers are the published ones", "[random]") {
  // Known answers of Philox4x32-10 (Salmon et al., Random123).
  CHECK(cts::philox({0, 0, 0, 0}, {0, 0}) ==
        std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(cts::philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  cts::random_stream a(1, 2), c(1, 2, 5);
  for (int i = 0; i < 5; ++i) a.bits();
  CHECK(a.bits() == c.bits());
  auto order = a.permutation(100);
  std::sort(order.begin(), order.end());
  for (cts::index i = 0; i < 100; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}
