// The image-text model: gradients, packing, decoding with caches, files.

#include "core_tokensets/model/generate.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/only_required.hpp"
#include "support/ragged.hpp"

namespace model_image_text_tests {

namespace {

namespace cts = core_tokensets;
using words = std::vector<std::int32_t>;

constexpr std::int32_t begin_token = 0, end_token = 1;

cts::image_text_config small_config(bool tied = true) {
  return {.image = {.grid = {8, 8, 3, 4}, .dim = 12, .depth = 2, .heads = 2},
          .text = {.vocabulary = 11, .length = 12, .dim = 8, .depth = 2, .heads = 2, .tied = tied}};
}

struct question {
  words prompt, answer;
};
/// Two questions about the first picture, a caption of the second, a question about the third.
const std::vector<std::vector<question>> about{
    {{{5, 6}, {7}}, {{3}, {4, 9, 2}}}, {{{}, {8, 8, 10}}}, {{{4, 3, 2}, {6, 5}}}};

cts::text_batch texts(const std::vector<std::vector<question>>& of_pictures, bool with_answers = true) {
  cts::text_batch batch;
  for (const auto& of_picture : of_pictures) {
    batch.next_picture();
    for (const auto& q : of_picture) {
      with_answers ? batch.append(q.prompt, q.answer, begin_token, end_token)
                   : batch.append_prompt(q.prompt, begin_token);
    }
  }
  return batch;
}

template <class B>
struct lively {
  B b;
  cts::image_text_model<B> model;
  cts::token_batch images;

  explicit lively(const cts::image_text_config& c, double by = 0.2) : lively(c, by, B()) {}
  lively(const cts::image_text_config& c, double by, B backend) : b(backend), model(b, c) {
    ragged::enliven(b, model, by);
    images = ragged::noise(c.image, {2, 4, 3});
  }
  double loss(const cts::text_batch& batch, cts::image_text_tape<B>& tape, cts::loss_tape<B>& result) {
    cts::forward(b, model, images, batch, tape);
    cts::cross_entropy(b, *std::as_const(tape.logits), tape.text.targets, result, tape.text.weights);
    return cts::mean_loss(b, result, tape.text.weights);
  }
};

template <class B>
void check_gradients(const cts::image_text_config& config) {
  lively<B> it(config);
  auto batch = texts(about);
  batch.weights = {1, 0.5f, 2, 1.5f};
  cts::image_text_tape<B> tape;
  cts::loss_tape<B> loss;
  it.loss(batch, tape, loss);
  cts::tensor<B> gradients(it.b, 1, it.model.parameters().size());
  cts::stream_gradients<B> streams;
  it.b.fill(*gradients, 0.0);
  cts::backward(it.b, it.model, tape, *std::as_const(loss.dlogits), gradients.data(), streams);
  const auto got = gradients.to_host(it.b);
  auto values = it.model.parameters().to_host(it.b);
  const auto moved = [&](std::size_t i, double x) {
    values[i] = x;
    it.model.parameters().assign(it.b, 1, static_cast<cts::index>(values.size()), values.data());
    return it.loss(batch, tape, loss);
  };
  for (const auto& p : it.model.layout().parameters.table()) {
    INFO(p.name);
    double error = 0, norm = 0;
    for (cts::index k = 0; k < p.where.size(); k += std::max<cts::index>(1, p.where.size() / 6)) {
      const auto i = static_cast<std::size_t>(p.where.offset + k);
      const double x = values[i], numeric = (moved(i, x + 1e-5) - moved(i, x - 1e-5)) / 2e-5;
      moved(i, x);
      error += (numeric - got[i]) * (numeric - got[i]);
      norm += numeric * numeric;
    }
    CHECK(std::sqrt(error) <= 1e-7 * std::sqrt(norm) + 1e-9);
  }
}

/// Sum of the log-probabilities of an answer and `end` behind it (`cut`: without `end`), read in one pass.
template <class B>
double forced_score(lively<B>& it, cts::index picture, const words& prompt, const words& answer, bool cut) {
  std::vector<std::vector<question>> one(3);
  one[static_cast<std::size_t>(picture)] = {{prompt, answer}};
  cts::image_text_tape<B> tape;
  cts::forward(it.b, it.model, it.images, texts(one), tape);
  auto logits = tape.logits.to_host(it.b);
  const auto v = static_cast<std::size_t>(it.model.config().text.vocabulary);
  double score = 0;
  for (std::size_t a = 0; a + (cut ? 1 : 0) < tape.text.targets.size(); ++a) {
    const auto row = std::span(logits).subspan(a * v, v);
    cts::detail::log_softmax(row);
    score += row[static_cast<std::size_t>(tape.text.targets[a])];
  }
  return score;
}

}  // namespace

TEST_CASE("gradients of the image-text model agree with finite differences", "[image_text][gradient]") {
  check_gradients<cts::eigen_backend<double>>(small_config(true));
  check_gradients<cts::eigen_backend<double>>(small_config(false));
  check_gradients<cts::reference_backend<double>>(small_config(true));
}

TEST_CASE("texts packed together give what each gives alone", "[image_text]") {
  lively<cts::eigen_backend<double>> it(small_config());
  cts::image_text_tape<cts::eigen_backend<double>> tape, alone;
  cts::forward(it.b, it.model, it.images, texts(about), tape);
  const auto together = tape.logits.to_host(it.b);
  std::vector<double> apart;
  for (std::size_t s = 0; s < about.size(); ++s) {
    for (const auto& q : about[s]) {
      std::vector<std::vector<question>> one(about.size());
      one[s] = {q};
      cts::forward(it.b, it.model, it.images, texts(one), alone);
      const auto logits = alone.logits.to_host(it.b);
      apart.insert(apart.end(), logits.begin(), logits.end());
    }
  }
  REQUIRE(apart.size() == together.size());
  for (std::size_t i = 0; i < apart.size(); ++i) CHECK(apart[i] == Approx(together[i]).margin(1e-12));
}

TEST_CASE("a token's logits do not depend on the tokens behind it, and do on those before", "[image_text]") {
  lively<cts::eigen_backend<double>> it(small_config());
  const auto first_logits = [&](const words& prompt, const words& answer) {
    cts::image_text_tape<cts::eigen_backend<double>> tape;
    cts::forward(it.b, it.model, it.images, texts({{{prompt, answer}}, {}, {}}), tape);
    auto logits = tape.logits.to_host(it.b);
    logits.resize(11);
    return logits;
  };
  CHECK(first_logits({5}, {7, 8, 9}) == first_logits({5}, {3, 2, 4}));
  CHECK(first_logits({5}, {7}) != first_logits({6}, {7}));
}

TEST_CASE("every backend gives the same logits", "[image_text]") {
  lively<cts::eigen_backend<double>> fast(small_config());
  lively<cts::reference_backend<double>> plain(small_config());
  cts::reference_backend<double> inner;
  lively<support::only_required<cts::reference_backend<double>>> least(small_config(), 0.2,
                                                                       support::only_required(inner));
  const auto logits = [&](auto& it) {
    cts::image_text_tape<std::remove_reference_t<decltype(it.b)>> tape;
    cts::forward(it.b, it.model, it.images, texts(about), tape);
    return tape.logits.to_host(it.b);
  };
  const auto a = logits(fast), b = logits(plain), c = logits(least);
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i] == Approx(b[i]).margin(1e-12));
    CHECK(a[i] == Approx(c[i]).margin(1e-12));
  }
}

TEST_CASE("greedy decoding with caches takes the most probable token every time", "[image_text][generate]") {
  lively<cts::eigen_backend<double>> it(small_config(), 0.7);
  const auto written = cts::generate(it.b, it.model, it.images, texts(about, false), end_token, {.length = 5});
  REQUIRE(written.size() == 4);
  std::size_t q = 0;
  for (std::size_t s = 0; s < about.size(); ++s) {
    for (const auto& asked : about[s]) {
      const words& answer = written[q].tokens;
      const bool cut = answer.size() == 5;
      const double whole = forced_score(it, static_cast<cts::index>(s), asked.prompt, answer, cut);
      CHECK(written[q].score == Approx(whole / static_cast<double>(answer.size() + (cut ? 0 : 1))));
      for (std::size_t n = 0; n < answer.size(); ++n) {  // no other token in its place is more probable
        words best(answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(n) + 1);
        const double taken = forced_score(it, static_cast<cts::index>(s), asked.prompt, best, true);
        for (std::int32_t other = 0; other < 11; ++other) {
          best.back() = other;
          CHECK(forced_score(it, static_cast<cts::index>(s), asked.prompt, best, true) <= taken + 1e-12);
        }
      }
      ++q;
    }
  }
}

TEST_CASE("a long prompt beside it does not shorten an answer", "[image_text][generate]") {
  lively<cts::eigen_backend<double>> it(small_config(), 0.7);
  const std::vector<std::vector<question>> alone{{{{5, 6}, {}}}, {}, {}},
      beside{{{{5, 6}, {}}}, {{words(10, 5), {}}}, {}};
  const auto one = cts::generate(it.b, it.model, it.images, texts(alone, false), end_token, {.length = 6});
  const auto two = cts::generate(it.b, it.model, it.images, texts(beside, false), end_token, {.length = 6});
  REQUIRE(one[0].tokens.size() > 1);
  CHECK(two[0].tokens == one[0].tokens);
  CHECK(two[1].tokens.size() <= 1);
}

TEST_CASE("an answer that has begun is gone on with", "[image_text][generate]") {
  lively<cts::eigen_backend<double>> it(small_config(), 0.7);
  const std::vector<std::vector<question>> begun{{{{5, 6}, {7, 8}}}, {}, {}};
  cts::text_batch as_prompt = texts(begun, true);
  std::fill(as_prompt.targets.begin(), as_prompt.targets.end(), -1);
  const auto want = cts::generate(it.b, it.model, it.images, as_prompt, end_token, {.length = 4});
  const auto got = cts::generate(it.b, it.model, it.images, texts(begun, true), end_token, {.length = 4});
  REQUIRE(got.size() == 1);
  CHECK(got[0].tokens == want[0].tokens);
  CHECK(got[0].score == Approx(want[0].score));
}

TEST_CASE("a beam as wide as the vocabulary finds the best text of two tokens", "[image_text][generate]") {
  lively<cts::eigen_backend<double>> it(small_config(), 0.7);
  const cts::text_batch prompt = texts({{{{5, 6}, {}}}, {}, {}}, false);
  const auto found =
      cts::generate(it.b, it.model, it.images, prompt, end_token, {.beams = 10, .length = 2, .length_penalty = 0})
          .front();
  double best = -1e9;
  words text;
  const auto offer = [&](const words& candidate, bool cut) {
    const double score = forced_score(it, 0, {5, 6}, candidate, cut);
    if (score > best) best = score, text = candidate;
  };
  offer({}, false);
  for (std::int32_t a = 0; a < 11; ++a) {
    if (a == end_token) continue;
    offer({a}, false);
    for (std::int32_t b = 0; b < 11; ++b) {
      if (b != end_token) offer({a, b}, true);
    }
  }
  CHECK(found.tokens == text);
  CHECK(found.score == Approx(best));
}

TEST_CASE("image-text models come back from their files", "[image_text][io]") {
  for (const bool tied : {true, false}) {
    lively<cts::eigen_backend<float>> it(small_config(tied));
    const auto file = cts::to_file(it.b, it.model);
    const auto again = cts::load_image_text(it.b, file);
    const auto written_again = cts::to_file(it.b, again);
    for (const auto& [name, array] : file.arrays) CHECK((written_again.at(name).bytes == array.bytes));
    CHECK(written_again.arrays.size() == file.arrays.size());
    CHECK(again.config().text.tied == tied);
    auto broken = file;
    broken.metadata["kind"] = "vit";
    CHECK_THROWS_AS(cts::load_image_text(it.b, broken), cts::Error);
    broken = file;
    broken.metadata["config"] = "{}";
    CHECK_THROWS_AS(cts::load_image_text(it.b, broken), cts::Error);
  }
}

TEST_CASE("the encoder may start from a Vision Transformer", "[image_text][io]") {
  using backend = cts::eigen_backend<double>;
  backend b;
  const auto config = small_config();
  const auto vit = ragged::lively_model(b, config.image);
  cts::image_text_model<backend> model(b, config);
  cts::load_encoder(b, model, cts::read_vit(cts::to_file(b, vit)));
  const auto images = ragged::noise(config.image, {2, 4, 3});
  cts::image_text_tape<backend> tape;
  cts::encode(b, model, images, tape);
  cts::vit_tape<backend> plain;
  plain.keep = cts::kept::everything;
  cts::forward(b, vit, images, plain);
  CHECK((tape.stream.back().to_host(b) == plain.stream.back().to_host(b)));
  auto other = config.image;
  other.dim = 16;
  CHECK_THROWS_AS(cts::load_encoder(b, model, cts::read_vit(cts::to_file(b, ragged::lively_model(b, other)))),
                  cts::Error);
}

TEST_CASE("texts that do not fit the model are refused", "[image_text]") {
  lively<cts::eigen_backend<double>> it(small_config());
  cts::image_text_tape<cts::eigen_backend<double>> tape;
  const auto refused = [&](const cts::text_batch& batch) {
    CHECK_THROWS_AS(cts::forward(it.b, it.model, it.images, batch, tape), cts::Error);
  };
  refused(texts({{{{5}, {7}}}}));                   // texts about one picture of three
  refused(texts({{{{11}, {7}}}, {}, {}}));          // no such token
  refused(texts({{{{5}, {11}}}, {}, {}}));          // no such target
  refused(texts({{{words(12, 5), {7}}}, {}, {}}));  // too long
  CHECK_THROWS_AS(cts::text_batch{}.append({}, {}, begin_token, end_token), cts::Error);
  CHECK_THROWS_AS(cts::generate(it.b, it.model, it.images, texts({{{words(11, 5), {}}}, {}, {}}, false), end_token),
                  cts::Error);
}

}  // namespace model_image_text_tests
