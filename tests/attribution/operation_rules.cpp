// Relevance rules of single operations that are no linear layers, against the reference and by hand.

#include "core_tokensets/nn/lrp/attention.hpp"
#include "core_tokensets/nn/lrp/composite.hpp"
#include "core_tokensets/nn/lrp/elementwise.hpp"
#include "core_tokensets/nn/lrp/linear.hpp"
#include "support.hpp"

namespace attribution_operation_rules_tests {

namespace {

using namespace attribution_tests;
using cts::index;
namespace lrp = cts::lrp;

/// Golden operations of Chefer's rule set on one backend.
template <class B>
struct operations {
  using T = typename B::scalar;
  B b{};
  cts::tensor_file in = cts::load_safetensors(golden::folder("lrp_ops") / "inputs.safetensors");
  cts::tensor_file want = cts::load_safetensors(golden::folder("lrp_ops") / "outputs.safetensors");

  cts::tensor<B> get(const std::string& name, index rows, index cols) {
    cts::tensor<B> t;
    t.assign(b, rows, cols, in.at(name).template as<T>().data());
    return t;
  }
  void check(const std::string& name, const cts::tensor<B>& got, double factor = 1) {
    auto host = got.to_host(b);
    for (T& x : host) x = T(double(x) * factor);
    check_close(want, name, host, tolerance<T>(kind::relevance));
  }

  void sums_and_copies() {
    const auto r = get("op.R_add", 5, 8), r2 = get("op.R_add2", 5, 8), a = get("op.a", 5, 8), other = get("op.b", 5, 8);
    cts::tensor<B> sum(b, 5, 8), ra(b, 5, 8), rb(b, 5, 8);
    b.map(cts::fn::sum{}, *sum, *a, *other);
    lrp::sample_rows<B> rows;
    rows.assign(b, {{0, 5}});
    for (const bool ours : {true, false}) {
      const auto rule = (ours ? lrp::chefer() : lrp::chefer_original()).residual;
      lrp::relevance<B, T>(rule, b, rows, *r, *a, *std::as_const(sum), *ra, *rb);
      check(ours ? "op.add_ours.a" : "op.add_orig.a", ra);
      check(ours ? "op.add_ours.b" : "op.add_orig.b", rb);
    }
    lrp::relevance<B, T>(lrp::chefer().copy, b, *r, *r2, *a, *ra);
    check("op.clone", ra);

    cts::tensor<B> chosen(b, 1, 8);
    b.map(cts::fn::copy{}, *chosen, *get("op.R_sel", 1, 8));
    lrp::choice_relevance<B, T>(lrp::chefer().copy, b, (*a).slice_rows(0, 1), *chosen);
    b.fill(*ra, T(0));
    b.map(cts::fn::copy{}, (*ra).slice_rows(0, 1), *std::as_const(chosen));
    check("op.select0", ra);
  }

  /// [2, 5, 4] with heads first, as the packed [5, 8] of the library and back.
  cts::view<T> heads(cts::tensor<B>& t) { return {t.data(), 1, 2, 5, 4, 0, 20, 4}; }

  void attention() {
    auto q = get("op.q", 10, 4), k = get("op.k", 10, 4), v = get("op.v", 10, 4), a = get("op.attn", 10, 5),
         r = get("op.R_av", 10, 4);
    cts::tensor<B> out(b, 10, 4), ra(b, 10, 5), rq(b, 10, 4), rk(b, 10, 4), rv(b, 10, 4);
    const cts::view<T> matrices(a.data(), 1, 2, 5, 5, 0, 25, 5);
    b.gemm(matrices, heads(v), heads(out));
    const cts::sequences one{{0, 5}};
    const auto run = [&] {
      lrp::relevance<B, T>(lrp::chefer().attention, b, cts::attention_rows(one),
                           {.q = heads(q), .k = heads(k), .v = heads(v), .out = heads(out), .a = a.data()}, heads(r),
                           ra.data(), heads(rq), heads(rk), heads(rv));
    };
    run();
    check("op.av.attn", ra, 2);  // the golden arrays are before the halving
    check("op.av.v", rv, 2);
    // For the scores alone: R at A is the golden R where A is 1 over S v^T.
    const auto wanted = get("op.R_qk", 10, 5);
    cts::tensor<B> s(b, 10, 4), products(b, 10, 5);
    b.map(lrp::share<T>{lrp::divide<T>(lrp::chefer_division)}, *s, *std::as_const(r), *std::as_const(out));
    const cts::view<T> at(products.data(), 1, 2, 5, 5, 0, 25, 5);
    b.gemm(heads(s), heads(v), at, {.transpose_b = true});
    b.map(lrp::share<T>{lrp::divide<T>(lrp::exact_division)}, *a, *wanted, *std::as_const(products));
    run();
    check("op.qk.q", rq, 4);  // halved on the way to A as well
    check("op.qk.k", rk, 4);
  }

  /// Numbers `[C, 8, 12]` as 6 patches of 4 x 4, in the order channel, row, column.
  static std::vector<double> cut(const std::vector<double>& image, index channels) {
    std::vector<double> out;
    for (index k = 0; k < 6; ++k)
      for (index e = 0; e < channels * 16; ++e)
        out.push_back(image[std::size_t((e / 16 * 8 + k / 3 * 4 + e % 16 / 4) * 12 + k % 3 * 4 + e % 4)]);
    return out;
  }

  /// A convolution without overlap is a linear layer on patches.
  void patches(const std::string& name, index channels) {
    const auto image = in.at("op." + name + ".x").template as<double>();
    const auto cut_image = cut(image, channels);
    const index width = channels * 16;
    const auto w = get("op." + name + ".weight", 5, width), maps = get("op." + name + ".R", 5, 6);
    cts::tensor<B> x, low, high, r(b, 6, 5), r_in(b, 6, width);
    x.assign(b, 6, width, std::vector<T>(cut_image.begin(), cut_image.end()).data());
    const auto host = maps.to_host(b);
    std::vector<T> turned;
    for (std::size_t p = 0; p < 6; ++p)
      for (std::size_t o = 0; o < 5; ++o) turned.push_back(host[o * 6 + p]);
    r.assign(b, 6, 5, turned.data());
    const auto [least, largest] = std::minmax_element(image.begin(), image.end());
    low.assign(b, 6, 1, std::vector<T>(6, T(*least)).data());
    high.assign(b, 6, 1, std::vector<T>(6, T(*largest)).data());
    lrp::relevance<B, T>(lrp::chefer().patch_embed.plan_for(channels), b,
                         {.weight = *w, .low = *std::as_const(low), .high = *std::as_const(high)}, *std::as_const(x),
                         *std::as_const(r), *r_in);
    CHECK(golden::distance(r_in.to_host(b), cut(want.at("op." + name + ".R_in").template as<double>(), channels)) <=
          tolerance<T>(kind::relevance));
  }

  void division() {
    const auto den = in.at("op.safe_divide_den").template as<double>();
    std::vector<double> got;
    for (const double d : den) got.push_back(lrp::divide<double>(lrp::chefer_division)(1.0, d));
    check_close(want, "op.safe_divide_1_over", got, 1e-12);
  }

  void all() {
    sums_and_copies();
    attention();
    patches("conv3", 3);
    patches("conv1", 1);
    division();
  }
};

}  // namespace

TEST_CASE("Chefer's rules of single operations are the reference's", "[lrp][golden]") {
  operations<cts::reference_backend<double>>{}.all();
  operations<cts::eigen_backend<double>>{}.all();
  operations<cts::eigen_backend<float>>{}.all();
}

TEST_CASE("the ways to divide by something near 0", "[lrp]") {
  const auto divide = [](const lrp::division& d, double r, double z) { return lrp::divide<double>(d)(r, z); };
  const lrp::division sign_aware{.eps = 0.5}, added{.eps = 0.5, .sign_aware = false};
  CHECK(divide(sign_aware, 1, 1) == 1 / 1.5);
  CHECK(divide(sign_aware, 1, -1) == 1 / -1.5);
  CHECK(divide(sign_aware, 1, 0) == 2);
  CHECK(divide(added, 1, -1) == -2);
  CHECK(divide(added, 1, -0.5) == 2);  // no division by 0
  CHECK(divide(lrp::exact_division, 1, 0) == 0);
  CHECK(divide(lrp::exact_division, 1, 4) == 0.25);
  CHECK(divide(lrp::chefer_division, 3, 0) == 0);
}

TEST_CASE("totals of the renormalised sum rule run over each sample alone", "[lrp]") {
  using B = cts::eigen_backend<double>;
  B b;
  cts::random_stream random(5);
  const cts::sequences both{{0, 3, 7}};
  std::vector<double> a, sum, r;
  for (int i = 0; i < 28; ++i) {
    a.push_back(random.normal());
    sum.push_back(a.back() + random.normal());
    r.push_back(random.normal());
  }
  const auto run = [&](cts::index begin, cts::index rows, const cts::sequences& samples) {
    cts::tensor<B> ta, ts, tr, ra(b, rows, 4), rb(b, rows, 4);
    ta.assign(b, rows, 4, a.data() + begin * 4);
    ts.assign(b, rows, 4, sum.data() + begin * 4);
    tr.assign(b, rows, 4, r.data() + begin * 4);
    lrp::sample_rows<B> of_row;
    of_row.assign(b, samples);
    lrp::relevance<B, double>(lrp::chefer().residual, b, of_row, *std::as_const(tr), *std::as_const(ta),
                              *std::as_const(ts), *ra, *rb);
    auto result = ra.to_host(b);
    const auto second = rb.to_host(b);
    double total = 0;
    for (std::size_t i = 0; i < result.size(); ++i) total += result[i] + second[i];
    const auto whole = tr.to_host(b);
    CHECK(total == Approx(std::accumulate(whole.begin(), whole.end(), 0.0)).margin(1e-6));
    return result;
  };
  auto apart = run(0, 3, {{0, 3}});
  const auto second = run(3, 4, {{0, 4}});
  apart.insert(apart.end(), second.begin(), second.end());
  CHECK(run(0, 7, both) == apart);
}

}  // namespace attribution_operation_rules_tests
