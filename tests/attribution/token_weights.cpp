// The relevance of a token with weight w is that of w equal tokens together.

#include "core_tokensets/attribution/measures/measured_answers.hpp"
#include "support.hpp"
#include "support/methods.hpp"
#include "support/repeated.hpp"

namespace attribution_token_weights_tests {

namespace {

using namespace attribution_tests;
using backend = cts::eigen_backend<double>;

const cts::vit_config small{.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 3, .classes = 5, .mlp_ratio = 2};

template <class B>
std::vector<double> run(B& b, const std::string& method, const cts::vit<B>& model, const cts::token_batch& batch) {
  cts::attribution_workspace<B> ws;
  return attribute(support::method_named<B>(method), b, model, batch, {}, ws);
}

/// Methods whose relevance of w equal tokens adds up to that of one with weight w.
const std::vector<std::string> additive{"attention",
                                        "rollout",
                                        "rollout:start_layer=1",
                                        "rollout:fusion=max",
                                        "rollout:fusion=min",
                                        "grad_cam",
                                        "gradient_x_input",
                                        "gradient_x_input:magnitude=true",
                                        "integrated_gradients:steps=5",
                                        "integrated_gradients:start=embeddings:steps=3",
                                        "lrp",
                                        "lrp:rules=chefer",
                                        "lrp:rules=chefer:level=pixels",
                                        "lrp:rules=chefer_original:level=embeddings",
                                        "lrp:rules=epsilon:level=pixels",
                                        "lrp:rules=attn_lrp_explicit",
                                        "lrp:rules=attn_lrp_gamma:level=embeddings",
                                        "lrp:rules=cp_lrp",
                                        "partial_lrp",
                                        "partial_lrp:block_from_last=2:gradient=true",
                                        "lrp_rollout",
                                        "lrp_rollout:rules=attn_lrp",
                                        "grad_lrp",
                                        "grad_lrp:rules=attn_lrp:start_layer=1",
                                        "generic_attention",
                                        "generic_attention:start_layer=1",
                                        "atman_first_order",
                                        "atman_first_order:shift=false",
                                        "smooth_grad(grad_lrp):samples=1:sigma=0"};
/// Methods that suppress equal tokens together, so that each copy has the relevance of all.
const std::vector<std::string> together{
    "atman:neighbours=patch:threshold=0.999999", "atman:neighbours=patch:threshold=0.2",
    "atman:neighbours=patch:threshold=0.999999:shift=false:watch=target", "authors_atman"};

}  // namespace

TEST_CASE("the relevance of a token of weight w is that of w equal tokens", "[attribution][weights]") {
  backend b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = repeated::weighted(ragged::noise(small, {7, 0, 20, 1}));
  const auto copies = repeated::copies(batch);
  auto plain = batch;
  plain.token_weights.clear();
  for (const auto& method : additive) {
    INFO(method);
    const auto got = run(b, method, model, batch), want = repeated::sums(batch, run(b, method, model, copies));
    CHECK(golden::distance(got, want) <= 1e-8);
    CHECK(golden::distance(got, run(b, method, model, plain)) > 1e-3);  // weights matter
  }
  for (const auto& method : together) {
    INFO(method);
    const auto got = run(b, method, model, batch), want = repeated::firsts(batch, run(b, method, model, copies));
    CHECK(golden::distance(got, want) <= 1e-8);
  }
}

TEST_CASE("taking a token of weight w away takes w equal tokens away", "[attribution][weights]") {
  backend b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = repeated::weighted(ragged::noise(small, {6, 3}));
  const auto copies = repeated::copies(batch);
  cts::variation_engine<backend> of_copies(b, model, copies);
  std::vector<double> whole;
  cts::attribution_workspace<backend> ws;
  const auto settled = cts::settle_unchanged(of_copies, copies, {}, whole);
  for (const auto how : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    std::vector<cts::masked_sample> masked;
    std::size_t row = 0;
    for (std::size_t t = 0; t < batch.positions.size(); row += repeated::count(batch, t), ++t) {
      const std::size_t s = t < 6 ? 0 : 1, begin = static_cast<std::size_t>(copies.offsets[s]);
      masked.push_back({s, std::vector<std::uint8_t>(static_cast<std::size_t>(copies.offsets[s + 1]) - begin, 1)});
      for (std::size_t c = 0; c < repeated::count(batch, t); ++c) masked.back().keep[row - begin + c] = 0;
    }
    std::vector<double> want;
    for (std::size_t i = 0; const auto& v : cts::masked_values(of_copies, settled, how, masked)) {
      const std::size_t s = masked[i++].sample;
      want.push_back(settled.value(s, std::span<const double>(whole).subspan(5 * s, 5)) - v.value);
    }
    const auto got = attribute(cts::occlusion{how}, b, model, batch, cts::target{}, ws);
    CHECK(golden::distance(got, want) <= 1e-9);
  }
  // Without neighbours AtMan suppresses all that the weight stands for: as in the copies with equal ones for
  // neighbours.
  const auto want = repeated::firsts(batch, run(b, "atman:neighbours=patch:threshold=0.999999", model, copies));
  CHECK(golden::distance(run(b, "atman", model, batch), want) <= 1e-8);
}

TEST_CASE("with weights a sample has the same relevance alone, on other backends, and with ones",
          "[attribution][weights]") {
  backend b;
  cts::reference_backend<double> plain;
  const auto model = ragged::lively_model(b, small);
  const auto reference = ragged::lively_model(plain, small);
  auto batch = repeated::weighted(ragged::noise(small, {6, 0, 5}));
  auto unweighted = batch;
  unweighted.token_weights.clear();
  auto ones = batch;
  ones.token_weights.assign(11, 1.0f);
  std::vector<std::string> methods = additive;
  methods.insert(methods.end(), together.begin(), together.end());
  methods.insert(methods.end(), {"occlusion:missing=zero", "occlusion", "smooth_grad(atman):samples=2", "random"});
  for (const auto& method : methods) {
    INFO(method);
    const auto all = run(b, method, model, batch);
    std::vector<double> apart;
    for (cts::index s = 0; s < 3; ++s) {
      const auto one = run(b, method, model, cts::copy_samples(batch, std::vector<cts::index>{s}));
      apart.insert(apart.end(), one.begin(), one.end());
    }
    CHECK(golden::distance(all, apart) <= 1e-9);
    CHECK(golden::distance(run(plain, method, reference, batch), all) <= 1e-8);
    CHECK(run(b, method, model, ones) == run(b, method, model, unweighted));
  }
}

TEST_CASE("the relevance of a token of weight w for an answer is that of w equal tokens", "[answers][weights]") {
  const cts::image_text_config config{.image = {.grid = {8, 8, 3, 2}, .dim = 12, .depth = 2, .heads = 2},
                                      .text = {.vocabulary = 11, .length = 12, .dim = 8, .depth = 2, .heads = 2}};
  backend b;
  cts::image_text_model<backend> model(b, config);
  ragged::enliven(b, model, 0.3);
  const auto images = repeated::weighted(ragged::noise(config.image, {2, 9, 3}));
  const auto copies = repeated::copies(images);
  cts::text_batch texts;
  for (const auto& [prompt, answer] : std::vector<std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>>>{
           {{5, 6}, {7}}, {{}, {3, 4, 5}}, {{9}, {2, 2}}}) {
    texts.next_picture();
    texts.append(prompt, answer, 0, 1);
  }
  cts::answer_workspace<backend> ws;
  const auto by = [&](const std::string& method, const cts::token_batch& pictures) {
    return attribute(support::method_named<backend>(method), b, model, pictures, texts, ws);
  };
  for (const char* method : {"attention", "gradient_x_input", "gradient_x_input:magnitude=true", "generic_attention",
                             "generic_attention:start_layer=1", "grad_lrp", "grad_lrp:rules=attn_lrp"}) {
    INFO(method);
    const auto got = by(method, images), want = by(method, copies);
    CHECK(golden::distance(got.image, repeated::sums(images, want.image)) <= 1e-8);
    CHECK(golden::distance(got.text, want.text) <= 1e-8);
  }
  for (const char* method : {"atman:neighbours=patch:threshold=0.999999", "atman:neighbours=patch:threshold=0.1"}) {
    INFO(method);
    const auto got = by(method, images), want = by(method, copies);
    CHECK(golden::distance(got.image, repeated::firsts(images, want.image)) <= 1e-8);
    CHECK(golden::distance(got.text, want.text) <= 1e-8);
  }
  cts::measured_answers<backend> measured(b, model, images, texts), of_copies(b, model, copies, texts);
  for (std::size_t s = 0; s < 3; ++s) CHECK(measured.whole[s].value == Approx(of_copies.whole[s].value).epsilon(1e-10));
}

}  // namespace attribution_token_weights_tests
