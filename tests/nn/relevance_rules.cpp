// Each relevance rule on a single operation, against the reference's numbers and its formula.

#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/chefer_relevance.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace nn_relevance_rules_tests {

namespace {

namespace cts = core_tokensets;
using cts::index;

/// The golden single operations: inputs as matrices of a backend, outputs to compare with.
template <class B>
struct operations {
  using T = typename B::scalar;
  B& b;
  cts::tensor_file inputs = cts::load_safetensors(golden::folder("lrp_ops") / "inputs.safetensors");
  cts::tensor_file outputs = cts::load_safetensors(golden::folder("lrp_ops") / "outputs.safetensors");

  explicit operations(B& backend) : b(backend) {}

  /// An input as a matrix of so many rows.
  cts::tensor<B> in(const std::string& name, index rows) const {
    const auto values = inputs.at(name).template as<T>();
    cts::tensor<B> m;
    m.assign(b, rows, static_cast<index>(values.size()) / rows, values.data());
    return m;
  }
  void check(const std::string& name, const std::vector<T>& got) const {
    INFO(name);
    CHECK(golden::distance(got, outputs.at(name).template as<double>()) <= tolerance<T>(kind::relevance));
  }
  cts::view<T> heads(const cts::tensor<B>& m, index n) const {
    return {m.data(), 1, m.rows() / n, n, m.cols(), 0, n * m.cols(), m.cols()};
  }
};

template <class B>
void check_linear_and_sums(B b) {
  using T = typename B::scalar;
  const operations<B> o(b);
  const auto weight = o.in("weight", 7), r = o.in("R", 6);
  for (const std::string x : {"x", "x_pos"}) {
    const auto input = o.in(x, 6);
    cts::tensor<B> r_in(b, 6, 10);
    const support::chefer::split_weight<B> split(b, *weight);
    support::chefer::linear_relevance<B, T>(b, split, *input, *r, *r_in);
    o.check("chefer.ours.linear_alpha1." + x, r_in.to_host(b));
  }
  const auto a = o.in("op.a", 5), other = o.in("op.b", 5), r_add = o.in("op.R_add", 5), r_add2 = o.in("op.R_add2", 5);
  cts::tensor<B> sum(b, 5, 8), ra(b, 5, 8), rb(b, 5, 8), cloned(b, 5, 8);
  b.map(cts::fn::sum{}, *sum, *a, *other);
  support::chefer::add_relevance<B, T>(b, *r_add, *a, *std::as_const(sum), *ra, *rb);
  o.check("op.add_ours.a", ra.to_host(b));
  o.check("op.add_ours.b", rb.to_host(b));
  b.map(support::chefer::detail::clone{}, *cloned, *r_add, *r_add2, *a);
  o.check("op.clone", cloned.to_host(b));

  const auto r_selected = o.in("op.R_sel", 1);
  cts::tensor<B> zero(b, 1, 8), all(b, 5, 8);
  b.fill(*zero, T(0));
  b.fill(*all, T(0));
  b.map(support::chefer::detail::clone{}, (*all).slice_rows(0, 1), *r_selected, *std::as_const(zero),
        (*a).slice_rows(0, 1));
  o.check("op.select0", all.to_host(b));
}

template <class B>
void check_attention(B b) {
  using T = typename B::scalar;
  const operations<B> o(b);
  constexpr index heads = 2, n = 5, each = 4, dim = heads * each;
  const auto q = o.in("op.q", heads * n), k = o.in("op.k", heads * n);
  // [H, n, dh] <-> columns of one head in [n, C]
  const auto put = [&](const cts::tensor<B>& from, cts::view<T> to) {
    b.map(cts::fn::copy{}, to.split_cols(heads), cts::view<const T>(o.heads(from, n)));
  };
  const auto take = [&](cts::view<T> from) {
    cts::tensor<B> out(b, heads * n, each);
    b.map(cts::fn::copy{}, o.heads(out, n), cts::view<const T>(from.split_cols(heads)));
    auto values = out.to_host(b);
    for (T& x : values) x *= 2;  // the goldens are before the halving
    return values;
  };
  cts::tensor<B> qkv(b, n, 3 * dim), r_qkv(b, n, 3 * dim), context(b, n, dim), r(b, n, dim),
      r_attention(b, heads * n, n);
  const auto part = [&](cts::tensor<B>& m, index i) { return (*m).slice_cols(i * dim, dim); };
  const auto run = [&](const cts::tensor<B>& a) {
    support::chefer::attention_relevance<B, T>(b, heads, *std::as_const(qkv), o.heads(a, n), *std::as_const(context),
                                               *std::as_const(r), o.heads(r_attention, n), *r_qkv);
  };
  put(q, part(qkv, 0));
  put(k, part(qkv, 1));

  // The product of attention and values.
  const auto a = o.in("op.attn", heads * n), v = o.in("op.v", heads * n);
  put(v, part(qkv, 2));
  put(o.in("op.R_av", heads * n), *r);
  b.gemm(cts::view<const T>(o.heads(a, n)), cts::view<const T>(o.heads(v, n)), (*context).split_cols(heads), {});
  run(a);
  auto got = r_attention.to_host(b);
  for (T& x : got) x *= 2;
  o.check("op.av.attn", got);
  o.check("op.av.v", take(part(r_qkv, 2)));

  // The product of queries and keys: everything before it is made the identity. With values 1, A v = 2^20 and half of
  // that as its relevance, R_A = A, and for A stands the relevance at the scores.
  b.fill(part(qkv, 2), T(1));
  b.fill(*context, T(0x1p20));
  b.fill(*r, T(0x1p19));
  run(o.in("op.R_qk", heads * n));
  CHECK(golden::distance(r_attention.to_host(b), o.inputs.at("op.R_qk").template as<double>()) <= tolerance<T>());
  o.check("op.qk.q", take(part(r_qkv, 0)));
  o.check("op.qk.k", take(part(r_qkv, 1)));
}

}  // namespace

TEST_CASE("relevance of linear maps, sums, copies and selections is the reference's", "[lrp][golden]") {
  check_linear_and_sums(cts::reference_backend<double>());
  check_linear_and_sums(cts::eigen_backend<double>());
  check_linear_and_sums(cts::eigen_backend<float>());
}

TEST_CASE("relevance of the two products of attention is the reference's", "[lrp][golden]") {
  check_attention(cts::reference_backend<double>());
  check_attention(cts::eigen_backend<double>());
  check_attention(cts::eigen_backend<float>());
}

TEST_CASE("safe division is the reference's, zeros and tiny numbers included", "[lrp][golden]") {
  const auto where = golden::folder("lrp_ops");
  const auto denominators = cts::load_safetensors(where / "inputs.safetensors").at("op.safe_divide_den").as<double>();
  const auto want = cts::load_safetensors(where / "outputs.safetensors").at("op.safe_divide_1_over").as<double>();
  REQUIRE(denominators.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO("1 / " << denominators[i]);
    CHECK(cts::fn::safe_divide(1.0, denominators[i]) == Approx(want[i]).epsilon(1e-12));
  }
}

}  // namespace nn_relevance_rules_tests
