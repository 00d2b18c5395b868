// The LRP pass behind GradLRP, stage by stage, and its rules on single operations, against the reference.

#include <map>
#include <numeric>

#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/chefer_relevance.hpp"
#include "support/golden.hpp"
#include "support/tolerance.hpp"

namespace model_relevance_stages_tests {

namespace {

namespace cts = core_tokensets;
using cts::index;

template <class T>
void check_close(const cts::tensor_file& want, const std::string& name, const std::vector<T>& got, double limit) {
  INFO(want.path << " " << name);
  CHECK(golden::distance(got, want.at(name).as<double>()) <= limit);
}

/// Sample s of a batch of whole images.
cts::token_batch one_sample(const cts::token_batch& batch, index s) {
  cts::token_batch one;
  one.patch_dim = batch.patch_dim;
  const index begin = batch.offsets[std::size_t(s)], end = batch.offsets[std::size_t(s) + 1];
  one.patches.assign(batch.patches.begin() + begin * batch.patch_dim, batch.patches.begin() + end * batch.patch_dim);
  one.positions.assign(batch.positions.begin() + begin, batch.positions.begin() + end);
  one.offsets.push_back(end - begin);
  one.targets = {batch.targets[std::size_t(s)]};
  return one;
}

/// A matrix on the host times 2, which undoes the halving of the two products of attention without rounding.
template <class T>
std::vector<T> doubled(std::vector<T> values) {
  for (T& x : values) x *= 2;
  return values;
}

/// Part 0, 1, 2 (q, k, v) of packed `[n, 3 C]` in the order [H, n, C / H].
template <class T>
std::vector<T> heads_first(const std::vector<T>& packed, index n, index heads, index part) {
  const index dim = static_cast<index>(packed.size()) / n / 3, each = dim / heads;
  std::vector<T> out;
  for (index h = 0; h < heads; ++h)
    for (index t = 0; t < n; ++t)
      for (index d = 0; d < each; ++d)
        out.push_back(packed[static_cast<std::size_t>(t * 3 * dim + part * dim + h * each + d)]);
  return out;
}

/// Relevance that leaves each operation of the last block and of the head, computed rule by rule for one sample.
template <class B>
struct stages {
  using T = typename B::scalar;
  std::map<std::string, std::vector<T>> left;
  B& b;

  explicit stages(B& backend) : b(backend) {}
  const cts::tensor<B>& leave(const char* name, const cts::tensor<B>& r) {
    left[name] = r.to_host(b);
    return r;
  }

  /// For class `classes[0]` of the one sample, or for its largest logit.
  void run(const cts::vit<B>& model, const cts::token_batch& sample, std::span<const std::int32_t> classes) {
    cts::attribution_workspace<B> ws;
    cts::explain_forward(b, model, sample, classes, ws);
    const auto& l = model.layout();
    const auto p = model.view_parameters();
    const auto& block = l.blocks.back();
    const auto& tape = ws.tape.blocks.back();
    const auto &x = ws.tape.stream[ws.tape.stream.size() - 2], &y = ws.tape.stream.back();
    const index n = x.rows(), dim = x.cols(), hidden = block.fc1.weight.rows, heads = block.heads;
    const auto rule = [&](const cts::slot& weight) { return support::chefer::split_weight<B>(b, p[weight]); };
    const auto through = [&](const cts::slot& weight, const cts::tensor<B>& in, const cts::tensor<B>& r) {
      cts::tensor<B> out(b, in.rows(), in.cols());
      support::chefer::linear_relevance<B, T>(b, rule(weight), *in, *r, *out);
      return out;
    };
    const auto clone = [&](const cts::tensor<B>& r1, const cts::tensor<B>& r2, const cts::tensor<B>& in) {
      cts::tensor<B> out(b, in.rows(), in.cols());
      b.map(support::chefer::detail::clone{}, *out, *r1, *r2, *in);
      return out;
    };
    cts::tensor<B> one_hot(b, 1, model.config().classes), pool(b, n, dim), zero(b, 1, dim), r1(b, n, dim),
        r2(b, n, dim), wide(b, n, hidden), packed(b, n, 3 * dim), attention(b, heads * n, n);
    b.fill(*one_hot, T(0));
    b.fill((*one_hot).slice_cols(ws.classes[0], 1), T(1));
    b.fill(*zero, T(0));
    b.fill(*pool, T(0));
    const auto head = through(l.head.weight, ws.tape.norm.y, one_hot);
    leave("head", head);
    const auto selected = clone(head, zero, ws.tape.norm.y);
    b.map(cts::fn::copy{}, (*pool).slice_rows(0, 1), *selected);
    leave("pool", pool);

    support::chefer::add_relevance<B, T>(b, *std::as_const(pool), *tape.middle, *y, *r1, *r2);
    leave("add2.0", r1);
    leave("add2.1", r2);
    const auto fc2 = through(block.fc2.weight, tape.act, r2);
    leave("gelu", leave("fc2", fc2));
    const auto fc1 = through(block.fc1.weight, tape.norm2.y, fc2);
    leave("norm2", leave("fc1", fc1));
    const auto clone2 = clone(r1, fc1, tape.middle);
    leave("clone2", clone2);

    support::chefer::add_relevance<B, T>(b, *clone2, *x, *tape.middle, *r1, *r2);
    leave("add1.0", r1);
    leave("add1.1", r2);
    const auto proj = through(block.proj.weight, tape.context, r2);
    leave("proj", proj);
    const auto matrices = [&](T* data) { return cts::view<T>(data, 1, heads, n, n, 0, n * n, n); };
    support::chefer::attention_relevance<B, T>(b, heads, *tape.qkv, matrices(tape.a.data()), *tape.context, *proj,
                                               matrices(attention.data()), *packed);
    left["attn_v.0"] = doubled(attention.to_host(b));
    left["attn_v.1"] = doubled(heads_first(packed.to_host(b), n, heads, 2));
    leave("softmax", attention);
    left["qk.0"] = doubled(heads_first(packed.to_host(b), n, heads, 0));
    left["qk.1"] = doubled(heads_first(packed.to_host(b), n, heads, 1));
    const auto qkv = through(block.qkv.weight, tape.norm1.y, packed);
    leave("norm1", leave("qkv", qkv));
    leave("clone1", clone(r1, qkv, x));
    at_input(model, ws, r1, r2);
  }

  /// From the tokens to the sum of embeddings (class token first) and positions.
  void at_input(const cts::vit<B>& model, cts::attribution_workspace<B>& ws, cts::tensor<B>& r1, cts::tensor<B>& r2) {
    const index last = model.config().depth - 1;
    cts::propagate(cts::lrp::chefer(), b, model, ws, [&](index i) {
      if (i == last) leave("whole block", ws.relevance);
    });
    leave("tokens", ws.relevance);
    const auto p = model.view_parameters();
    const auto& plan = ws.tape.plan;
    cts::tensor<B> tokens(b, r1.rows(), r1.cols());
    b.fill(*tokens, T(0));
    b.map(cts::fn::copy{}, (*tokens).slice_rows(0, 1), p[model.layout().embedding.class_token]);
    b.scatter_add_rows(*tokens, *std::as_const(ws.tape.embedding.patches), plan.patch_rows.data());
    support::chefer::add_relevance<B, T>(b, *std::as_const(ws.relevance), *std::as_const(tokens), *ws.tape.stream[0],
                                         *r1, *r2);
    leave("add_pos.0", r1);
    leave("add_pos.1", r2);
  }
};

template <class T>
double sum_of(const std::vector<T>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// All stages of sample 0, and the sums of relevance of every sample: entering the last block, and at the tokens.
template <class B>
void check_stages(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attribution");
  const double limit = tolerance<T>(kind::relevance);
  const auto conservation = want.at("conservation").template as<double>();
  std::vector<double> sums, wanted_sums;
  for (index s = 0; s < c.batch.samples(); ++s) {
    const auto sample = one_sample(c.batch, s);
    for (const bool label : {false, true}) {
      stages<B> got(b);
      got.run(c.model, sample, label ? std::span<const std::int32_t>(sample.targets) : std::span<const std::int32_t>());
      const auto expected = conservation.begin() + (2 * s + (label ? 1 : 0)) * 3;
      wanted_sums.insert(wanted_sums.end(), expected, expected + 2);
      for (const char* place : {"pool", "tokens"}) sums.push_back(sum_of(got.left.at(place)));
      if (s > 0 || label) continue;
      std::size_t compared = 0;
      for (const auto& entry : want.arrays) {
        if (!entry.first.starts_with("stage.")) continue;
        check_close(want, entry.first, got.left.at(entry.first.substr(6)), limit);
        ++compared;
      }
      CHECK(compared == 22);
      check_close(want, "stage.clone1", got.left.at("whole block"), limit);
    }
  }
  CHECK(golden::distance(sums, wanted_sums) <= limit);
}

/// The order of the patches by their scores, and the scores as a picture.
template <class B>
void check_results(B& b, const golden::vit_case<B>& c) {
  using T = typename B::scalar;
  const auto want = c.file("attribution");
  const auto& config = c.model.config();
  cts::attribution_workspace<B> ws;
  for (const std::string target : {"argmax", "label"}) {
    const auto classes =
        target == "label" ? std::span<const std::int32_t>(c.batch.targets) : std::span<const std::int32_t>();
    const auto scores = attribute(cts::grad_lrp{}, b, c.model, c.batch, classes, ws);
    std::vector<double> order, heat;
    for (index s = 0; s < c.batch.samples(); ++s) {
      const auto patches = static_cast<std::size_t>(config.grid.tokens());
      const auto part = std::span(scores).subspan(std::size_t(s) * patches, patches);
      std::vector<std::size_t> ranks(patches);
      std::iota(ranks.begin(), ranks.end(), std::size_t{0});
      std::stable_sort(ranks.begin(), ranks.end(), [&](auto i, auto j) { return part[i] > part[j]; });
      order.insert(order.end(), ranks.begin(), ranks.end());
      const auto map =
          cts::heatmap(part, config.grid.rows(), config.grid.cols(), config.grid.height, config.grid.width);
      heat.insert(heat.end(), map.begin(), map.end());
    }
    if (std::is_same_v<T, double>) check_close(want, "order.transformer_attribution_s0." + target, order, 0);
    check_close(want, "heatmap." + target, heat, tolerance<T>(kind::relevance));
  }
}

template <class B>
void check_case(B b, const std::string& name) {
  const auto where = golden::folder(name);
  if (where.empty()) {
    WARN("golden case " << name << " not found (CTS_SHARED); skipped");
    return;
  }
  const auto c = golden::load_case(b, where);
  check_stages(b, c);
  check_results(b, c);
}

}  // namespace

TEST_CASE("every stage of the LRP pass is the reference's", "[lrp][golden]") {
  check_case(cts::reference_backend<double>(), "vit_c");
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) {
    check_case(cts::eigen_backend<double>(), name);
    check_case(cts::eigen_backend<float>(), name);
  }
}

}  // namespace model_relevance_stages_tests
