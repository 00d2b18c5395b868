// Tokens with weights: what they stand for in classifiers and in image-text models, and how batches carry them.

#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "model/token_weight_checks.hpp"
#include "support/archetype.hpp"
#include "support/only_required.hpp"

namespace model_token_weights_tests {

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<double>;
using token_weight_checks::run;

/// A backend with an attention of its own that knows nothing of weights.
class without_weights : public cts::eigen_backend<double> {
 public:
  static constexpr bool weighs_keys = false;
  void attention(const cts::attention_rows& rows, cts::const_view<double> q, cts::const_view<double> k,
                 cts::const_view<double> v, double scale, cts::view<double> out, double* probabilities) {
    const cts::attention_rows plain(rows.queries(), rows.keys(), rows.causal());
    cts::eigen_backend<double>::attention(plain, q, k, v, scale, out, probabilities);
  }
};

const cts::image_text_config of_texts{.image = {.grid = {8, 8, 3, 2}, .dim = 12, .depth = 2, .heads = 2},
                                      .text = {.vocabulary = 11, .length = 12, .dim = 8, .depth = 2, .heads = 2}};

struct answering {
  backend b;
  cts::image_text_model<backend> model{b, of_texts};
  cts::token_batch images = repeated::weighted(ragged::noise(of_texts.image, {5, 9}));
  cts::text_batch texts;

  answering() {
    ragged::enliven(b, model, 0.3);
    for (const auto& [prompt, answer] : std::vector<std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>>>{
             {{5, 6}, {7}}, {{9}, {2, 2, 4}}}) {
      texts.next_picture();
      texts.append(prompt, answer, 0, 1);
    }
  }
  /// Logits and gradients of the parameters.
  std::pair<std::vector<double>, std::vector<double>> learn(const cts::token_batch& pictures) {
    cts::image_text_tape<backend> tape;
    cts::loss_tape<backend> loss;
    cts::stream_gradients<backend> streams;
    cts::forward(b, model, pictures, texts, tape);
    cts::cross_entropy(b, *std::as_const(tape.logits), tape.text.targets, loss, tape.text.weights);
    cts::tensor<backend> gradients(b, 1, model.parameters().size());
    b.fill(*gradients, 0.0);
    cts::backward<backend, double>(b, model, tape, *std::as_const(loss.dlogits), gradients.data(), streams);
    return {tape.logits.to_host(b), gradients.to_host(b)};
  }
};

}  // namespace

TEST_CASE("a token of weight w is w equal tokens", "[vit][weights]") {
  token_weight_checks::check_repeats(cts::eigen_backend<double>(), 1e-11);
  token_weight_checks::check_repeats(cts::eigen_backend<float>(), 1e-4);
  token_weight_checks::check_repeats(cts::reference_backend<double>(), 1e-11);
  token_weight_checks::check_repeats(support::archetype_backend<double>(), 1e-11);
  token_weight_checks::check_repeats(without_weights(), 1e-11);
}

TEST_CASE("a weight of 1 is no weight, to the bit", "[vit][weights]") {
  token_weight_checks::check_ones(cts::eigen_backend<double>());
  token_weight_checks::check_ones(cts::eigen_backend<float>());
  token_weight_checks::check_ones(cts::reference_backend<float>());
}

TEST_CASE("gradients with weights are those of finite differences", "[vit][weights]") {
  backend b;
  auto model = ragged::lively_model(b, token_weight_checks::config());
  auto batch = ragged::noise(token_weight_checks::config(), {5, 2});
  batch.token_weights = {0.25f, 3.5f, 1, 2, 0.7f, 40, 1};
  const auto got = run(b, model, batch).parameters;
  auto values = model.parameters().to_host(b);
  const auto loss = [&](std::size_t i, double x) {
    std::swap(values[i], x);
    model.parameters().assign(b, 1, static_cast<cts::index>(values.size()), values.data());
    std::swap(values[i], x);
    cts::vit_tape<backend> tape;
    cts::loss_tape<backend> result;
    cts::forward(b, model, batch, tape);
    cts::cross_entropy(b, *tape.logits, batch.targets, result);
    return cts::mean_loss(b, result);
  };
  for (const auto& p : model.layout().parameters.table()) {
    INFO(p.name);
    for (cts::index k = 0; k < std::min<cts::index>(6, p.where.size()); ++k) {
      const auto i = static_cast<std::size_t>(p.where.offset + k * 7919 % p.where.size());
      const double h = 1e-5, slope = (loss(i, values[i] + h) - loss(i, values[i] - h)) / (2 * h);
      CHECK(std::abs(got[i] - slope) <= 1e-8);
    }
  }
}

TEST_CASE("an image-text model sees a token of weight w as w equal tokens", "[image_text][weights]") {
  answering it;
  const cts::token_batch copies = repeated::copies(it.images);
  const auto [logits, gradients] = it.learn(it.images);
  const auto [want_logits, want_gradients] = it.learn(copies);
  CHECK(repeated::distance(logits, want_logits) <= 1e-11);
  CHECK(repeated::distance(gradients, want_gradients) <= 1e-11);
  auto plain = it.images;
  plain.token_weights.clear();
  CHECK(repeated::distance(logits, it.learn(plain).first) > 1e-2);

  cts::text_batch prompts;
  for (const std::int32_t word : {5, 9}) {
    prompts.next_picture();
    prompts.append_prompt(std::vector<std::int32_t>{word}, 0);
  }
  for (const cts::index beams : {1, 3}) {
    const cts::generation_options how{.beams = beams, .length = 6};
    const auto written = generate(it.b, it.model, it.images, prompts, 1, how),
               want = generate(it.b, it.model, copies, prompts, 1, how);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(written[i].tokens == want[i].tokens);
      CHECK(std::abs(written[i].score - want[i].score) <= 1e-10);
    }
  }
}

TEST_CASE("a token weight that is no number above 0 is an error", "[vit][weights]") {
  backend b;
  const cts::vit<backend> model(b, token_weight_checks::config());
  auto batch = ragged::noise(token_weight_checks::config(), {3});
  for (const float wrong : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF}) {
    batch.token_weights = {1, wrong, 2};
    CHECK_THROWS_AS(run(b, model, batch), cts::Error);
  }
  batch.token_weights = {1, 2};
  CHECK_THROWS_AS(run(b, model, batch), cts::Error);
  batch.token_weights = {1e-30f, 1e30f, 2};
  for (const double x : run(b, model, batch).logits) CHECK(std::isfinite(x));
}

TEST_CASE("batches carry token weights along", "[data][weights]") {
  auto batch = ragged::noise(token_weight_checks::config(), {2, 1});
  cts::token_batch more = batch;
  more.token_weights = {2, 3, 4};
  auto both = batch;
  append(both, more);
  CHECK(both.token_weights == std::vector<float>{1, 1, 1, 2, 3, 4});
  append(both, batch);
  CHECK(both.token_weights == std::vector<float>{1, 1, 1, 2, 3, 4, 1, 1, 1});
  auto plain = batch;
  append(plain, batch);
  CHECK(plain.token_weights.empty());
  cts::token_batch some;
  const std::vector<std::uint8_t> keep{0, 1, 1};
  apply_token_mask(more, keep, cts::missing_tokens::drop, some);
  CHECK(some.token_weights == std::vector<float>{3, 4});
  apply_token_mask(more, keep, cts::missing_tokens::zero, some);
  CHECK(some.token_weights == more.token_weights);
}

}  // namespace model_token_weights_tests
