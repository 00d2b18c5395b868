// Relevance rules of linear layers: against the reference's numbers, against a second implementation written from the
// papers, and what they conserve.

#include <functional>
#include <map>

#include "core_tokensets/nn/lrp/composite.hpp"
#include "core_tokensets/nn/lrp/linear.hpp"
#include "support.hpp"

namespace attribution_linear_rules_tests {

namespace {

using namespace attribution_tests;
using cts::index;
namespace lrp = cts::lrp;

/// A linear layer of double numbers on the host.
struct layer {
  index rows, in, out;
  std::vector<double> x, w, b, r;

  double z(index t, index o) const {
    double sum = b.empty() ? 0 : b[std::size_t(o)];
    for (index i = 0; i < in; ++i) sum += w[std::size_t(o * in + i)] * x[std::size_t(t * in + i)];
    return sum;
  }
};

layer golden_layer(const std::string& x, bool bias) {
  const auto file = cts::load_safetensors(golden::folder("lrp_ops") / "inputs.safetensors");
  return {6,
          10,
          7,
          file.at(x).as<double>(),
          file.at("weight").as<double>(),
          bias ? file.at("bias").as<double>() : std::vector<double>{},
          file.at("R").as<double>()};
}

template <class B>
std::vector<double> run(const lrp::linear_rule& rule, const layer& l, bool with_output = false) {
  using T = typename B::scalar;
  B b;
  const auto make = [&](const std::vector<double>& v, index rows, index cols) {
    const std::vector<T> host(v.begin(), v.end());
    cts::tensor<B> t;
    t.assign(b, rows, cols, host.data());
    return t;
  };
  const auto x = make(l.x, l.rows, l.in), w = make(l.w, l.out, l.in), r = make(l.r, l.rows, l.out),
             bias = make(l.b, l.b.empty() ? 0 : 1, l.out);
  cts::tensor<B> y(b, l.rows, l.out), r_in(b, l.rows, l.in);
  cts::ops::linear<B, T>(b, *x, *w, *bias, {}, *y);
  b.fill(*r_in, std::numeric_limits<T>::quiet_NaN());
  lrp::relevance<B, T>(rule.plan(), b,
                       {.weight = *w, .bias = *bias, .output = with_output ? *std::as_const(y) : cts::view<const T>{}},
                       *x, *r, *r_in);
  const auto host = r_in.to_host(b);
  return {host.begin(), host.end()};
}

/// The rules as the golden files name them; whether the bias takes part is a second argument.
std::map<std::string, std::function<lrp::linear_rule(bool)>> zennit_rules() {
  return {{"epsilon_1e-06", [](bool bias) { return lrp::epsilon{.eps = 1e-6, .bias = bias}; }},
          {"epsilon_0.01", [](bool bias) { return lrp::epsilon{.eps = .01, .bias = bias}; }},
          {"epsilon_0.25", [](bool bias) { return lrp::epsilon{.eps = .25, .bias = bias}; }},
          {"zplus", [](bool bias) { return lrp::z_plus{.bias = bias}; }},
          {"alphabeta_1_0", [](bool bias) { return lrp::alpha_beta{.alpha = 1, .beta = 0, .bias = bias}; }},
          {"alphabeta_2_1", [](bool bias) { return lrp::alpha_beta{.alpha = 2, .beta = 1, .bias = bias}; }},
          {"gamma_0.1", [](bool bias) { return lrp::gamma{.gamma = .1, .bias = bias}; }},
          {"gamma_0.25", [](bool bias) { return lrp::gamma{.gamma = .25, .bias = bias}; }},
          {"flat", [](bool) { return lrp::flat{}; }},
          {"wsquare", [](bool bias) { return lrp::w_square{.bias = bias}; }},
          {"zbox_-3_3", [](bool) { return lrp::z_box{.low = -3, .high = 3}; }}};
}

template <class B>
void check_zennit() {
  using T = typename B::scalar;
  const auto want = cts::load_safetensors(golden::folder("lrp_ops") / "outputs.safetensors");
  for (const std::string x : {"x", "x_pos"}) {  // what the rules start from
    const layer l = golden_layer(x, true);
    std::vector<double> y;
    for (index t = 0; t < l.rows; ++t)
      for (index o = 0; o < l.out; ++o) y.push_back(l.z(t, o));
    check_close(want, "forward." + x, y, 1e-9);
  }
  std::size_t compared = 0;
  for (const auto& [name, make] : zennit_rules()) {
    for (const bool bias : {true, false}) {
      for (const std::string x : {"x", "x_pos"}) {
        const std::string array = "zennit." + name + (bias ? ".bias." : ".nobias.") + x;
        for (const bool with_output : {false, true}) {
          check_close(want, array, run<B>(make(bias), golden_layer(x, true), with_output),
                      tolerance<T>(kind::relevance));
        }
        ++compared;
      }
    }
  }
  CHECK(compared == 44);
}

template <class B>
void check_chefer() {
  using T = typename B::scalar;
  const auto want = cts::load_safetensors(golden::folder("lrp_ops") / "outputs.safetensors");
  for (const double alpha : {1.0, 2.0}) {
    for (const std::string x : {"x", "x_pos"}) {
      const std::string name = ".linear_alpha" + std::to_string(int(alpha)) + "." + x;
      const auto l = golden_layer(x, true);
      check_close(want, "chefer.ours" + name, run<B>(lrp::chefer_linear{alpha, alpha - 1}, l),
                  tolerance<T>(kind::relevance));
      check_close(want, "chefer.orig" + name, run<B>(lrp::chefer_original_linear{alpha, alpha - 1}, l),
                  tolerance<T>(kind::relevance));
    }
  }
}

double stab(double z, double eps) { return z + (z < 0 ? -eps : eps); }

/// Rules written down once more from the papers, sample by sample and number by number.
std::vector<double> naive(const layer& l, const std::function<double(index t, index o, index i)>& share) {
  std::vector<double> r_in(std::size_t(l.rows * l.in), 0.0);
  for (index t = 0; t < l.rows; ++t)
    for (index o = 0; o < l.out; ++o)
      for (index i = 0; i < l.in; ++i)
        r_in[std::size_t(t * l.in + i)] += share(t, o, i) * l.r[std::size_t(t * l.out + o)];
  return r_in;
}

layer noise_layer(index rows, index in, index out) {
  cts::random_stream random(11);
  layer l{rows, in, out, {}, {}, {}, {}};
  const auto fill = [&](std::vector<double>& v, index n) {
    for (index i = 0; i < n; ++i) v.push_back(random.normal());
  };
  fill(l.x, rows * in), fill(l.w, out * in), fill(l.b, out), fill(l.r, rows * out);
  return l;
}

/// A user's own rule: relevance by the size of the weights alone.
struct by_weight {
  static constexpr const char* name = "by_weight";
  lrp::linear_plan plan() const {
    lrp::linear_plan p;
    return p.add({.input = lrp::input_kind::ones, .weight = lrp::weight_kind::squared});
  }
};

double total(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

}  // namespace

TEST_CASE("the rules of linear layers are zennit's", "[lrp][golden]") {
  check_zennit<cts::reference_backend<double>>();
  check_zennit<cts::eigen_backend<double>>();
  check_zennit<cts::eigen_backend<float>>();
}

TEST_CASE("the linear rules of both versions of Chefer's repository are theirs", "[lrp][golden]") {
  check_chefer<cts::reference_backend<double>>();
  check_chefer<cts::eigen_backend<double>>();
  check_chefer<cts::eigen_backend<float>>();
}

TEST_CASE("a naive second implementation of the rules agrees", "[lrp]") {
  using B = cts::eigen_backend<double>;
  using cts::index;
  const layer l = noise_layer(5, 9, 4);
  const auto zij = [&](index t, index o, index i) {
    return l.x[std::size_t(t * l.in + i)] * l.w[std::size_t(o * l.in + i)];
  };
  const auto close = [](const std::vector<double>& got, const std::vector<double>& want) {
    CHECK(golden::distance(got, want) <= 1e-12);
  };
  close(run<B>(lrp::epsilon{.eps = .1}, l),
        naive(l, [&](index t, index o, index i) { return zij(t, o, i) / stab(l.z(t, o), .1); }));
  const auto sided = [&](index t, index o, int sign) {
    double sum = std::max(0.0, sign * l.b[std::size_t(o)]) * sign;
    for (index i = 0; i < l.in; ++i) sum += std::max(0.0, sign * zij(t, o, i)) * sign;
    return sum;
  };
  close(run<B>(lrp::alpha_beta{.alpha = 3, .beta = 2}, l), naive(l, [&](index t, index o, index i) {
          const double z = zij(t, o, i);
          return z > 0 ? 3 * z / stab(sided(t, o, 1), 1e-6) : -2 * z / stab(sided(t, o, -1), 1e-6);
        }));
  close(run<B>(lrp::gamma{.gamma = .5}, l), naive(l, [&](index t, index o, index i) {
          const double y = l.z(t, o), sign = y < 0 ? -1 : 1;
          const double z = zij(t, o, i) * (zij(t, o, i) * sign > 0 ? 1.5 : 1.0);
          return z / stab(y + .5 * sided(t, o, y < 0 ? -1 : 1), 1e-6);
        }));
  close(run<B>(lrp::flat{}, l), naive(l, [&](index, index, index) { return 1 / (double(l.in) + 1e-6); }));
}

TEST_CASE("rules without bias keep the sum of relevance", "[lrp]") {
  using B = cts::eigen_backend<double>;
  const layer l = noise_layer(5, 40, 4);
  for (const lrp::linear_rule& rule : std::vector<lrp::linear_rule>{
           lrp::epsilon{.eps = 1e-12, .bias = false}, lrp::gamma{.eps = 1e-12, .bias = false}, lrp::flat{.eps = 1e-12},
           lrp::w_square{.eps = 1e-12, .bias = false}, lrp::alpha_beta{.bias = false, .over = {.eps = 1e-12}},
           lrp::z_plus{.eps = 1e-12, .bias = false}, lrp::z_box{.low = -5, .high = 5, .over = {.eps = 1e-12}},
           lrp::chefer_linear{}}) {
    INFO(rule.text());
    CHECK(total(run<B>(rule, l)) == Approx(total(l.r)).epsilon(1e-6));
  }
  CHECK(total(run<B>(lrp::chefer_original_linear{}, l)) == Approx(2 * total(l.r)).epsilon(1e-6));
  CHECK(std::abs(total(run<B>(lrp::epsilon{}, l)) - total(l.r)) > 1e-3);  // the bias took its share
}

TEST_CASE("rules are values with names, and wrong uses are errors", "[lrp]") {
  CHECK(lrp::linear_rule(lrp::gamma{.gamma = .5}).text() == "gamma(gamma=0.5,eps=1e-06,bias=true)");
  CHECK(lrp::linear_rule(lrp::identity{}).text() == "identity");
  using B = cts::eigen_backend<double>;
  layer square = noise_layer(3, 4, 4);
  CHECK(run<B>(lrp::identity{}, square) == square.r);
  CHECK_THROWS_AS(run<B>(lrp::identity{}, noise_layer(3, 4, 5)), cts::Error);
  CHECK_THROWS_AS(run<B>(lrp::chefer_pixels{}, square), cts::Error);
  CHECK(run<B>(by_weight{}, square) == run<B>(lrp::w_square{.bias = false}, square));
}

}  // namespace attribution_linear_rules_tests
