#pragma once
// What a backend whose memory the host cannot see has to compute: every primitive and every overridden operation
// against the reference in double, at odd sizes, with rows further apart than they are long and NaN where nothing may
// be read.

#include <limits>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/cuda/tile.hpp"
#include "core_tokensets/tensor/ops.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"

namespace conformance {

namespace cts = core_tokensets;
using cts::index;

/// w = w^2 + 1/8
struct make_weight {
  template <class T>
  constexpr void operator()(T& w) const {
    w = w * w + T(0.125);
  }
};

/// Matrices in a backend's memory with a gap behind each row. The gap holds NaN and must keep it.
template <class B>
class operand {
 public:
  using T = typename B::scalar;
  operand(B& b, index n, index rows, index cols, std::uint64_t seed, bool known = true, index gap = 3)
      : n_(n),
        rows_(rows),
        cols_(cols),
        ld_(cols + gap),
        host_(static_cast<std::size_t>(n * rows * ld_), std::numeric_limits<T>::quiet_NaN()),
        memory_(b.template allocate<T>(n * rows * ld_)) {
    cts::random_stream random(seed);
    for (index i = 0; i < n * rows; ++i) {
      for (index j = 0; j < cols; ++j) {
        const auto x = static_cast<T>(static_cast<float>(random.normal()));
        if (known) host_[static_cast<std::size_t>(i * ld_ + j)] = x;
      }
    }
    b.upload(memory_.data(), host_.data(), static_cast<index>(host_.size()));
  }
  cts::view<T> mut() const { return {memory_.data(), 1, n_, rows_, cols_, 0, rows_ * ld_, ld_}; }
  cts::view<const T> get() const { return mut(); }
  std::vector<T> to_host(B& b) {
    b.download(host_.data(), memory_.data(), static_cast<index>(host_.size()));
    return host_;
  }
  index cols() const { return cols_; }
  index ld() const { return ld_; }

 private:
  index n_, rows_, cols_, ld_;
  std::vector<T> host_;
  cts::buffer_of<B, T> memory_;
};

template <class B>
operand(B&, index, index, index, std::uint64_t) -> operand<B>;

/// Row numbers in a backend's memory.
template <class B>
class numbers {
 public:
  numbers(B& b, const std::vector<std::int32_t>& rows)
      : memory_(b.template allocate<std::int32_t>(static_cast<index>(rows.size()))) {
    b.upload(memory_.data(), rows.data(), static_cast<index>(rows.size()));
  }
  const std::int32_t* data() const { return memory_.data(); }

 private:
  cts::buffer_of<B, std::int32_t> memory_;
};

/// The reference in double whose products see factors that were rounded as the device's are.
struct rounding_reference : cts::reference_backend<double> {
  cts::cuda::arithmetic how = cts::cuda::arithmetic::f32;

  void gemm(cts::const_view<double> a, cts::const_view<double> b, cts::view<double> c, cts::gemm_options o = {}) {
    std::vector<double> of_a, of_b;
    cts::reference_backend<double>::gemm(rounded(a, of_a), rounded(b, of_b), c, o);
  }

 private:
  cts::const_view<double> rounded(const cts::const_view<double>& v, std::vector<double>& memory) const {
    if (how == cts::cuda::arithmetic::f32) return v;
    memory.reserve(static_cast<std::size_t>(v.size()));
    for (index i = 0; i < v.n0; ++i) {
      for (index j = 0; j < v.n1; ++j) {
        for (index r = 0; r < v.rows; ++r) {
          const double* row = v.data + i * v.s0 + j * v.s1 + r * v.ld;
          for (index k = 0; k < v.cols; ++k) memory.push_back(cts::cuda::rounded(static_cast<float>(row[k]), how));
        }
      }
    }
    const index matrix = v.rows * v.cols;
    return {memory.data(), v.n0, v.n1, v.rows, v.cols, v.n1 * matrix, matrix, v.cols};
  }
};

/// Runs `body(backend, out)` with backend B and with the reference, each on operands of its own, and compares `out`.
template <class B>
struct suite {
  B& b;
  double limit;  ///< largest difference, relative where numbers are larger than 1
  cts::cuda::arithmetic rounding = cts::cuda::arithmetic::f32;

  template <class Body>
  void compare(index n, index rows, index cols, bool known, const Body& body, index gap = 3) {
    rounding_reference oracle;
    oracle.how = rounding;
    operand<B> got(b, n, rows, cols, 99, known, gap);
    operand<rounding_reference> want(oracle, n, rows, cols, 99, known, gap);
    body(b, got);
    body(oracle, want);
    const auto g = got.to_host(b);
    const auto w = want.to_host(oracle);
    double worst = 0;
    bool gaps_kept = true;
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (static_cast<index>(i) % got.ld() >= got.cols()) {
        gaps_kept = gaps_kept && std::isnan(double(g[i]));
      } else {
        const double difference = std::abs(double(g[i]) - w[i]) / std::max(1.0, std::abs(w[i]));
        worst = std::isnan(difference) ? HUGE_VAL : std::max(worst, difference);
      }
    }
    CHECK(gaps_kept);
    CHECK(worst <= limit);
  }

  void products() {
    for (const index m : {1, 7, 67, 130}) {
      for (const index k : {1, 5, 131}) {
        const index n = m == 67 ? 97 : 12;
        INFO("m " << m << ", k " << k << ", n " << n);
        for (const bool ta : {false, true}) {
          for (const bool tb : {false, true}) {
            for (const double beta : {0.0, 1.0, -0.5}) {
              compare(2, m, n, beta != 0, [&]<class X>(X& x, operand<X>& out) {
                const operand p(x, 2, ta ? k : m, ta ? m : k, 1), q(x, 2, tb ? n : k, tb ? k : n, 2);
                x.gemm(p.get(), q.get(), out.mut(),
                       {.transpose_a = ta, .transpose_b = tb, .alpha = 0.75, .beta = beta});
              });
            }
          }
        }
        for (const bool bias : {false, true}) {
          for (const bool residual : {false, true}) {
            compare(1, m, n, false, [&]<class X>(X& x, operand<X>& out) {
              using T = typename X::scalar;
              const operand p(x, 1, m, k, 1), w(x, 1, n, k, 2), o(x, 1, 1, n, 3), r(x, 1, m, n, 4);
              cts::ops::linear<X, T>(x, p.get(), w.get(), bias ? o.get() : cts::view<const T>{},
                                     residual ? r.get() : cts::view<const T>{}, out.mut());
            });
          }
        }
        compare(1, m, n, false, [&]<class X>(X& x, operand<X>& out) {
          using T = typename X::scalar;
          const operand p(x, 1, m, k, 1), w(x, 1, n, k, 2), bias(x, 1, 1, n, 3);
          const operand<X> pre(x, 1, m, n, 5);
          cts::ops::linear_gelu<X, T>(x, p.get(), w.get(), bias.get(), pre.mut(), out.mut());
          cts::ops::linear_gelu_backward_input<X, T>(x, p.get(), operand(x, 1, k, n, 6).get(), pre.get(), out.mut());
        });
      }
    }
    batches();
  }

  /// Two batch dimensions: heads of packed rows, a matrix that repeats, batches that do not join.
  void batches() {
    compare(6, 5, 4, true, [&]<class X>(X& x, operand<X>& out) {
      using T = typename X::scalar;
      const operand p(x, 1, 10, 21, 1), q(x, 1, 7, 4, 2);
      const cts::view<const T> a(p.get().data, 2, 3, 5, 7, 5 * p.ld(), 7, p.ld());
      const cts::view<T> c(out.mut().data, 2, 3, 5, 4, 3 * 5 * out.ld(), 5 * out.ld(), out.ld());
      x.gemm(a, q.get(), c, {.beta = 0.5});
    });
    compare(1, 6, 5, true, [&]<class X>(X& x, operand<X>& out) {
      const operand none(x, 1, 6, 0, 1), too(x, 1, 0, 5, 2);
      x.gemm(none.get(), too.get(), out.mut(), {.beta = 0.5});
    });
    operand<B> two(b, 1, 2, 3, 1), other(b, 1, 4, 5, 2), out(b, 1, 2, 5, 3);
    CHECK_THROWS_AS(b.gemm(two.get(), other.get(), out.mut(), {}), cts::Error);
    CHECK_THROWS_AS(b.map(cts::fn::copy{}, out.mut(), two.get()), cts::Error);
  }

  void primitives() {
    for (const index m : {1, 7, 67, 300}) {
      for (const index n : {1, 16, 37}) {
        for (const index gap : {3, 4, 0}) {
          INFO("rows " << m << ", columns " << n << ", gap " << gap);
          compare(
              3, m, n, false,
              [&]<class X>(X& x, operand<X>& out) {
                const operand<X> p(x, 3, m, n, 1, true, gap), row(x, 1, 1, n, 2, true, gap), column(x, 3, m, 1, 3);
                x.map(cts::fn::sum{}, out.mut(), p.get(), row.get());
                x.map(cts::fn::multiply{}, out.mut(), column.get());
              },
              gap);
          compare(1, m, 1, false, [&]<class X>(X& x, operand<X>& out) {
            const operand p(x, 1, m, n, 1), row(x, 1, 1, n, 2), column(x, 1, m, 1, 3);
            x.row_reduce(cts::fn::plus{}, cts::fn::norm_gradient_term{}, out.mut(), p.get(), row.get(), p.get(),
                         column.get(), column.get());
          });
        }
        compare(1, 1, n, true, [&]<class X>(X& x, operand<X>& out) {
          using T = typename X::scalar;
          const operand p(x, 1, m, n, 1), column(x, 1, m, 1, 3);
          x.col_reduce(cts::fn::plus{}, cts::fn::times{}, T(0.5), out.mut(), p.get(), column.get());
        });
        compare(1, 1, n, false, [&]<class X>(X& x, operand<X>& out) {
          using T = typename X::scalar;
          x.col_reduce(cts::fn::maximum{}, cts::fn::value{}, T(0), out.mut(), operand(x, 1, m, n, 1).get());
        });
        rows_by_number(m, n);
      }
    }
    compare(2, 3, 1, false, [&]<class X>(X& x, operand<X>& out) {  // long rows, in pieces
      x.row_reduce(cts::fn::plus{}, cts::fn::square{}, out.mut(), operand(x, 2, 3, 40000, 1).get());
    });
    compare(2, 3, 5, true, [&]<class X>(X& x, operand<X>& out) { x.fill(out.mut(), 2.5); });
  }

  void rows_by_number(index m, index n) {
    const std::vector<std::int32_t> order{4, 0, 4, 2, 4};
    compare(1, 5, n, false, [&]<class X>(X& x, operand<X>& out) {
      x.gather_rows(out.mut(), operand(x, 1, 5, n, 1).get(), numbers<X>(x, order).data());
    });
    compare(1, 5, n, true, [&]<class X>(X& x, operand<X>& out) {
      x.scatter_add_rows(out.mut(), operand(x, 1, 5, n, 1).get(), numbers<X>(x, order).data());
    });
    std::vector<std::int32_t> many;
    cts::random_stream random(5);
    for (index i = 0; i < m; ++i) many.push_back(static_cast<std::int32_t>(random.below(9)));
    compare(1, 9, n, true, [&]<class X>(X& x, operand<X>& out) {
      x.scatter_add_rows(out.mut(), operand(x, 1, m, n, 1).get(), numbers<X>(x, many).data());
    });
  }

  void fused_rows() {
    for (const index m : {1, 7, 67, 300}) {
      for (const index n : {1, 16, 37, 196}) {
        for (const index gap : {3, 4}) {
          INFO("rows " << m << ", columns " << n << ", gap " << gap);
          compare(
              2, m, n, true,
              [&]<class X>(X& x, operand<X>& out) { cts::ops::softmax<X, typename X::scalar>(x, out.mut()); }, gap);
          compare(
              1, m + 2, n, false,
              [&]<class X>(X& x, operand<X>& out) {
                using T = typename X::scalar;
                const operand<X> p(x, 1, m, n, 1, true, gap), dy(x, 1, m, n, 4, true, gap),
                    gamma(x, 1, 1, n, 2, true, gap), beta(x, 1, 1, n, 3, true, gap), y(x, 1, m, n, 5, false, gap),
                    mean(x, 1, m, 1, 6, false), rstd(x, 1, m, 1, 7, false);
                cts::ops::layer_norm<X, T>(x, p.get(), gamma.get(), beta.get(), y.mut(), mean.mut(), rstd.mut(),
                                           T(0.01));
                const auto dgamma = out.mut().slice_rows(m, 1), dbeta = out.mut().slice_rows(m + 1, 1);
                x.fill(out.mut(), T(0.5));
                cts::ops::layer_norm_backward<X, T>(x, p.get(), gamma.get(), mean.get(), rstd.get(), dy.get(),
                                                    out.mut().slice_rows(0, m), dgamma, dbeta);
                x.map(cts::fn::add{}, out.mut().slice_rows(0, m), y.get());
              },
              gap);
        }
      }
    }
    losses();
  }

  void losses() {
    for (const index classes : {3, 200}) {
      for (const bool all : {false, true}) {
        compare(1, 5, classes + 1, false, [&]<class X>(X& x, operand<X>& out) {
          using T = typename X::scalar;
          const numbers<X> targets(x, {2, 2, 1, 2, 1}), first(x, {0, 1, 1, 2, 0});
          const operand<X> weights(x, 1, 1, 5, 2, true, 0);
          const operand logits(x, 1, 5, classes, 1);
          cts::ops::cross_entropy<X, T>(x, logits.get(),
                                        {.targets = targets.data(),
                                         .first_class = all ? nullptr : first.data(),
                                         .weights = all ? nullptr : weights.get().data,
                                         .label_smoothing = T(0.125)},
                                        out.mut().slice_cols(0, classes), out.mut().slice_cols(classes, 1));
        });
      }
    }
  }

  void attention() {
    const cts::sequences ragged{{0, 1, 1, 38, 109, 110}};  // one token, none, primes
    const cts::sequences others{{0, 7, 10, 10, 75, 78}}, one_each{{0, 1, 2, 3, 4, 5}}, none{{0}};
    for (const index width : {4, 5, 16, 48, 100, 130}) {
      INFO("heads of " << width);
      attention(ragged, ragged, false, width);
      attention(ragged, ragged, true, width);
      if (width > 4 && width < 100) attention(ragged, ragged, width == 5, width, true);
      if (width == 130) attention(ragged, ragged, false, width, true);
      if (width != 16) continue;
      attention(ragged, others, false, width, true);
      attention(ragged, others, false, width);
      attention(ragged, others, true, width);
      attention(one_each, ragged, false, width);
      attention(none, none, false, width);
    }
  }

  /// Rows of the result: out and dq for the queries, dk and dv for the keys.
  void attention(const cts::sequences& queries, const cts::sequences& keys, bool causal, index width,
                 bool weighted = false) {
    INFO(queries.tokens() << " queries, " << keys.tokens() << " keys, causal " << causal << ", weights " << weighted);
    const index tq = queries.tokens(), tk = keys.tokens(), heads = 3, dim = heads * width;
    for (const bool from_sums : {false, true}) {
      compare(1, 2 * tq + 2 * tk, dim, false, [&]<class X>(X& x, operand<X>& out) {
        using T = typename X::scalar;
        constexpr bool sums_kept = cts::ops::keeps_log_sums<X>;
        const operand<X> q(x, 1, tq, dim, 1, true, 4), kv(x, 1, tk, 2 * dim, 2, true, 4), dout(x, 1, tq, dim, 3);
        operand<X> weights(x, 1, 1, tk, 5);
        const cts::attention_rows rows = rows_of(x, queries, keys, causal, weighted, weights);
        const auto h = [&](auto v) { return v.split_cols(heads); };
        const auto k = h(kv.get().slice_cols(0, dim)), v = h(kv.get().slice_cols(dim, dim));
        const auto part = [&](index begin, index n) { return h(out.mut().slice_rows(begin, n)); };
        const auto a = x.template allocate<T>(rows.size(heads)), sums = x.template allocate<T>(heads * tq);
        const bool recompute = sums_kept && from_sums;
        cts::ops::attention<X, T>(x, rows, h(q.get()), k, v, T(0.5), part(0, tq), recompute ? nullptr : a.data(),
                                  recompute ? sums.data() : nullptr);
        cts::ops::attention_backward<X, T>(
            x, rows, h(q.get()), k, v, T(0.5), recompute ? nullptr : a.data(), h(dout.get()), part(tq, tq),
            part(2 * tq, tk), part(2 * tq + tk, tk), nullptr,
            recompute ? cts::attention_result<T>{sums.data(), part(0, tq)} : cts::attention_result<T>{});
      });
    }
    matrices(queries, keys, causal, width, weighted);
  }

  /// Keys with weights w^2 + 1/8 where wanted.
  template <class X>
  static cts::attention_rows rows_of(X& x, const cts::sequences& queries, const cts::sequences& keys, bool causal,
                                     bool weighted, operand<X>& weights) {
    cts::attention_rows rows(queries, keys, causal);
    if (weighted) {
      x.map(make_weight{}, weights.mut());
      rows.weigh_keys(weights.get().data);
    }
    return rows;
  }

  /// The probabilities and their gradient.
  void matrices(const cts::sequences& queries, const cts::sequences& keys, bool causal, index width, bool weighted) {
    const index tq = queries.tokens(), tk = keys.tokens(), heads = 3, dim = heads * width,
                n = cts::attention_rows(queries, keys).size(heads);
    compare(1, 2, n, false, [&]<class X>(X& x, operand<X>& out) {
      using T = typename X::scalar;
      operand<X> weights(x, 1, 1, tk, 5);
      const cts::attention_rows rows = rows_of(x, queries, keys, causal, weighted, weights);
      const operand q(x, 1, tq, dim, 1), k(x, 1, tk, dim, 2), dout(x, 1, tq, dim, 3), rest(x, 1, tq + 2 * tk, dim, 4);
      const auto h = [&](auto v) { return v.split_cols(heads); };
      T* const a = out.mut().data;
      cts::ops::attention<X, T>(x, rows, h(q.get()), h(k.get()), h(k.get()), T(0.5), h(rest.mut().slice_rows(0, tq)),
                                a);
      cts::ops::attention_backward<X, T>(x, rows, h(q.get()), h(k.get()), h(k.get()), T(0.5), a, h(dout.get()),
                                         h(rest.mut().slice_rows(0, tq)), h(rest.mut().slice_rows(tq, tk)),
                                         h(rest.mut().slice_rows(tq + tk, tk)), out.mut().row(1));
    });
  }

  void all() {
    products();
    primitives();
    fused_rows();
    attention();
  }
};

}  // namespace conformance
