// Norms that only some models have, before the first block and of queries and keys: one network whatever its tape
// keeps, gradients against finite differences, and relevance by the rule of norms restated.

#include "core_tokensets/attribution/any_attribution.hpp"
#include "core_tokensets/attribution/audit.hpp"
#include "core_tokensets/model/image_text.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "model/gradient_checks.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

namespace model_more_norms_tests {

namespace cts = core_tokensets;
using cts::index;
using backend = cts::eigen_backend<double>;
using numbers = std::vector<double>;

namespace {

constexpr index dim = 12, heads = 3;

cts::token_batch noise() { return gradient_checks::noise(true); }

cts::vit<backend> lively(backend& b) {
  return gradient_checks::lively(b, {.grid = {4, 6, 1, 2},
                                     .dim = dim,
                                     .depth = 2,
                                     .heads = heads,
                                     .classes = 3,
                                     .registers = 1,
                                     .mlp_ratio = 1,
                                     .qk_norm = true,
                                     .norm_pre = true});
}

/// Everything that a pass of relevance leaves at each of its stages, one stage of every block behind the other.
struct recorder {
  backend* b;
  std::map<cts::lrp::stage, std::vector<numbers>>* found;

  template <class Rows>
  void operator()(cts::lrp::stage where, const Rows&, const cts::view<const double>& r) const {
    cts::tensor<backend> copy(*b, r.rows, r.cols);
    b->map(cts::fn::copy{}, *copy, r);
    (*found)[where].push_back(copy.to_host(*b));
  }
};

/// R at the input of a layer norm of n numbers by the rule that takes the deviation as constant:
/// R_i = x_i (u_i - mean u), u = R / (y + eps) gamma / deviation.
numbers through_norm(const cts::lrp::norm_rule& rule, const double* x, const double* y, double rstd,
                     const double* gamma, const double* r, std::size_t n) {
  numbers u, out;
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double stabilised = y[i] + rule.over.eps;
    total += u.emplace_back(stabilised == 0 ? 0 : r[i] / stabilised * gamma[i] * rstd);
  }
  for (std::size_t i = 0; i < n; ++i) out.push_back(x[i] * (u[i] - total / double(n)));
  return out;
}

/// Row by row of `[rows, n]`, all of them through the same norm.
numbers rows_through_norm(const cts::lrp::norm_rule& rule, const numbers& x, const numbers& y, const numbers& rstd,
                          const double* gamma, const numbers& r, std::size_t n) {
  numbers out;
  for (std::size_t row = 0; row * n < r.size(); ++row) {
    const auto one = through_norm(rule, &x[row * n], &y[row * n], rstd[row], gamma, &r[row * n], n);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

void check_same(const numbers& got, const numbers& want) {
  REQUIRE(got.size() == want.size());
  double largest = 0;
  for (const double x : want) largest = std::max(largest, std::abs(x));
  CHECK(largest > 0);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - want[i]) <= 1e-12 * largest);
}

}  // namespace

TEST_CASE("more norms: the network is the same whatever its tape keeps", "[vit][norms]") {
  backend b;
  const auto model = lively(b);
  const auto batch = noise();
  cts::vit_tape<backend> all;
  all.keep = cts::kept::everything;
  cts::forward(b, model, batch, all);
  const auto want = all.logits.to_host(b);
  for (const auto keep : {cts::kept::logits, cts::kept::attention, cts::kept::gradients}) {
    cts::vit_tape<backend> tape;
    tape.keep = keep;
    cts::forward(b, model, batch, tape);
    check_same(tape.logits.to_host(b), want);
  }
}

TEST_CASE("more norms: gradients are those of finite differences", "[vit][norms][gradient]") {
  backend b;
  const auto model = lively(b);
  const auto of_norm = [](const std::string& name) {
    return name.find("_norm") != std::string::npos || name.find("norm_pre") != std::string::npos;
  };
  for (const auto keep : {cts::kept::gradients, cts::kept::everything}) {
    for (const auto& [name, size] : gradient_checks::check(b, model, noise(), keep, of_norm)) {
      INFO(name);  // the same in all keys moves no attention
      if (of_norm(name) && name.find("k_norm.bias") == std::string::npos) CHECK(size > 1e-5);
    }
  }
}

TEST_CASE("more norms: relevance passes them by the rule of norms", "[norms][lrp]") {
  backend b;
  const auto model = lively(b);
  const auto batch = noise();
  const auto rules = cts::lrp::attn_lrp_explicit();
  REQUIRE(rules.norm.how == cts::lrp::norm_rule::way::detached);
  cts::attribution_workspace<backend> ws;
  explain_forward(b, model, batch, cts::target::label(), ws, cts::kept::gradients);
  std::map<cts::lrp::stage, std::vector<numbers>> found;
  propagate(
      rules, b, model, ws, [](index) {}, recorder{&b, &found});
  const auto all = model.parameters().to_host(b);
  const auto gamma = [&](const std::string& name) {
    return &all[std::size_t(model.layout().parameters.at(name).where.offset)];
  };

  const auto& first = ws.tape.embedding;
  check_same(found[cts::lrp::stage::norm_pre].at(0),
             rows_through_norm(rules.norm, first.sums.to_host(b), ws.tape.stream[0].to_host(b), first.rstd.to_host(b),
                               gamma("norm_pre.weight"), found[cts::lrp::stage::copy1].back(), dim));
  CHECK(ws.relevance.to_host(b) == found[cts::lrp::stage::norm_pre].at(0));

  // The first block's queries and keys; what the last block left came before it, in records of class tokens and of all.
  const auto& before = found[cts::lrp::stage::attention];
  const auto& after = found[cts::lrp::stage::qk_norm];
  REQUIRE(before.size() == 3);
  REQUIRE(after.size() == 3);
  const auto columns = [](const numbers& of, std::size_t begin, std::size_t width) {
    numbers some;
    for (std::size_t row = 0; row * width < of.size(); ++row)
      some.insert(some.end(), &of[row * width + begin], &of[row * width + begin] + dim);
    return some;
  };
  const auto check_norm = [&](const numbers& got, const numbers& r, const cts::head_norm_tape<backend>& tape,
                              const std::string& name) {
    check_same(got, rows_through_norm(rules.norm, tape.x.to_host(b), tape.y.to_host(b), tape.rstd.to_host(b),
                                      gamma(name), r, dim / heads));
  };
  const auto &last = ws.tape.last.block, &block = ws.tape.blocks[0];
  check_norm(after[0], before[0], last.q_norm, "blocks.1.attn.q_norm.weight");
  check_norm(columns(after[1], 0, 2 * dim), columns(before[1], 0, 2 * dim), last.k_norm, "blocks.1.attn.k_norm.weight");
  CHECK(columns(after[1], dim, 2 * dim) == columns(before[1], dim, 2 * dim));
  check_norm(columns(after[2], 0, 3 * dim), columns(before[2], 0, 3 * dim), block.q_norm,
             "blocks.0.attn.q_norm.weight");
  check_norm(columns(after[2], dim, 3 * dim), columns(before[2], dim, 3 * dim), block.k_norm,
             "blocks.0.attn.k_norm.weight");
  CHECK(columns(after[2], 2 * dim, 3 * dim) == columns(before[2], 2 * dim, 3 * dim));
}

TEST_CASE("more norms: an audit has no gap where relevance passes them", "[norms][lrp]") {
  backend b;
  const auto model = lively(b);
  cts::attribution_workspace<backend> ws;
  for (const auto& report : cts::audit(cts::lrp::epsilon_everywhere(), b, model, noise(), cts::target::label(), ws)) {
    double absorbed = report.linear + report.norms + report.attention + report.sums + report.activations;
    CHECK(std::abs(report.start - absorbed - report.at_tokens) < 1e-9 * std::max(1.0, std::abs(report.start)));
    std::size_t passed = 0;
    for (const auto& flow : report.flows)
      passed += flow.operation == "blocks.0.qk_norm" || flow.operation == "norm_pre";
    CHECK(passed == 2);
  }
}

TEST_CASE("more norms: perturbations see the network that predicts", "[norms][attribution]") {
  backend b;
  const auto model = lively(b);
  const auto batch = noise();
  cts::vit_tape<backend> tape;
  cts::forward(b, model, batch, tape);
  cts::variation_engine<backend> engine(b, model, batch);
  numbers logits;
  settle_unchanged(engine, batch, cts::target::label(), logits);
  check_same(logits, tape.logits.to_host(b));

  // A patch of zeros instead of one that is left out: what is computed for it follows from its position alone.
  std::vector<std::uint8_t> keep{1, 1, 0, 1, 1};
  numbers changed;
  engine.run(
      1, false, [&](index, cts::variation& v) { engine.without(0, keep, cts::missing_tokens::zero, v); },
      [&](index, std::span<const double> row) { changed.assign(row.begin(), row.end()); });
  auto zeroed = batch;
  zeroed.scale = {1, 1, 0, 1, 1, 1, 1};
  cts::forward(b, model, zeroed, tape);
  auto want = tape.logits.to_host(b);
  want.resize(3);
  check_same(changed, want);
}

TEST_CASE("more norms: models are stored as timm would, and an encoder of texts has none before its blocks",
          "[norms][io]") {
  backend b;
  const auto model = lively(b);
  const auto file = cts::to_file(b, model);
  CHECK(file.at("norm_pre.weight").shape == std::vector<index>{dim});
  CHECK(file.at("blocks.1.attn.q_norm.bias").shape == std::vector<index>{dim / heads});
  const auto weights = cts::read_vit(file);
  CHECK(weights.notes.empty());
  CHECK(weights.config.norm_pre);
  CHECK(weights.config.qk_norm);
  CHECK(cts::to_file(b, cts::load_vit(b, weights)).arrays == file.arrays);
  cts::image_text_config texts;
  texts.image.norm_pre = true;
  CHECK_THROWS_WITH(check(texts), Catch::Contains("norm_pre"));
}

}  // namespace model_more_norms_tests
