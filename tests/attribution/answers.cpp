// Attribution of answers: gradients and perturbations by their definitions, relevance that is kept, rules on maps.

#include "core_tokensets/attribution/measures/measured_answers.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/tensor/reference.hpp"
#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/ragged.hpp"

namespace attribution_answers_tests {

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<double>;
using words = std::vector<std::int32_t>;

const cts::image_text_config config{.image = {.grid = {8, 8, 3, 4}, .dim = 12, .depth = 2, .heads = 2},
                                    .text = {.vocabulary = 11, .length = 12, .dim = 8, .depth = 2, .heads = 2}};

template <class B>
struct explained {
  B b;
  cts::image_text_model<B> model{b, config};
  cts::token_batch images = ragged::noise(config.image, {2, 4, 3});
  cts::text_batch texts;
  cts::answer_workspace<B> ws;

  explained() {
    ragged::enliven(b, model, 0.3);
    const std::vector<std::pair<words, words>> asked{{{5, 6}, {7}}, {{}, {3, 4, 5}}, {{9}, {2, 2}}};
    for (const auto& [prompt, answer] : asked) {
      texts.next_picture();
      texts.append(prompt, answer, 0, 1);
    }
  }
  cts::answer_relevance by(const std::string& method) {
    return attribute(support::method_named<B>(method), b, model, images, texts, ws);
  }
  /// Sums of the explained logits of each text.
  std::vector<double> values() {
    cts::explain_answers(b, model, images, texts, ws);
    return cts::detail::watched_values(b, ws, cts::watched::target);
  }
};

bool close(const std::vector<double>& a, const std::vector<double>& b, double margin) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= margin)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("every method for answers gives relevance to every token, the same on every backend", "[answers]") {
  explained<backend> fast;
  explained<cts::reference_backend<double>> plain;
  for (const char* method :
       {"random", "attention", "gradient_x_input", "gradient_x_input:magnitude=true", "generic_attention", "grad_lrp",
        "atman", "atman:shift=false:watch=target", "atman:neighbours=patch:threshold=0.1"}) {
    INFO(method);
    const auto a = fast.by(method), b = plain.by(method);
    CHECK(a.image.size() == 9);
    CHECK(a.text.size() == 4 + 4 + 4);
    CHECK(close(a.image, b.image, 1e-9));
    CHECK(close(a.text, b.text, 1e-9));
  }
  fast.texts.images = {0, 2, 2, 3};  // two about the first picture, none about the second
  for (const char* method : {"attention", "random"}) CHECK_THROWS_AS(fast.by(method), cts::Error);
  fast.texts.images = {0, 1, 2, 3};
  fast.texts.append(words{5}, words{6}, 0, 1);
  for (const char* method : {"attention", "random"}) CHECK_THROWS_AS(fast.by(method), cts::Error);
}

TEST_CASE("dice of an answer follow from seed, picture and text", "[answers]") {
  explained<backend> it, other_text, other_picture;
  const auto dice = it.by("random");
  CHECK(dice.image == explained<backend>().by("random").image);
  CHECK(dice.image != it.by("random:seed=1").image);
  ++other_text.texts.tokens[0];
  const auto with_text = other_text.by("random");
  CHECK(with_text.image[0] != dice.image[0]);
  CHECK(with_text.image[2] == dice.image[2]);  // the second picture and its text are the same
  other_picture.images.patches[0] += 1;
  CHECK(other_picture.by("random").image[0] != dice.image[0]);
  CHECK(other_picture.by("random").text[11] == dice.text[11]);
}

TEST_CASE("the last token of a text and those of another picture do not matter", "[answers]") {
  explained<backend> it;
  for (const char* method : {"gradient_x_input", "generic_attention", "grad_lrp", "atman"}) {
    INFO(method);
    const auto relevance = it.by(method);
    for (const std::size_t last : {3u, 7u, 11u}) CHECK(relevance.text[last] == Approx(0).margin(1e-12));
    explained<backend> other;
    for (std::size_t i = 2 * 48; i < 6 * 48; ++i) other.images.patches[i] += 1;  // the second picture
    const auto changed = other.by(method);
    CHECK(close({relevance.image.begin(), relevance.image.begin() + 2},
                {changed.image.begin(), changed.image.begin() + 2}, 1e-12));
    CHECK_FALSE(close(relevance.image, changed.image, 1e-6));
  }
}

TEST_CASE("gradient x input is the slope of the explained logits along the embeddings", "[answers]") {
  explained<backend> it;
  const auto relevance = it.by("gradient_x_input");
  // Scaling the embedding of patch p by 1 + h changes the logits by h times its relevance.
  constexpr double h = 1e-6;
  for (std::size_t p = 0; p < relevance.image.size(); ++p) {
    const auto at = [&](double scale) {
      it.images.scale.assign(relevance.image.size(), 1.0);
      it.images.scale[p] = scale;
      const auto values = it.values();
      return values[0] + values[1] + values[2];
    };
    CHECK((at(1 + h) - at(1 - h)) / (2 * h) == Approx(relevance.image[p]).margin(1e-6));
  }
}

TEST_CASE("AtMan of answers is the fall of what is watched when one key is weighed down", "[answers]") {
  explained<backend> it;
  const auto relevance = it.by("atman:shift=false:watch=target:factor=0.4");
  const auto whole = it.values();
  // The second picture's third patch: token 3 of its five, of all tokens number 3 + 3.
  std::vector<double> of_image(12, 1.0), of_text(12, 1.0);
  const auto weighed = [&] {
    cts::tensor<backend> image, text;
    image.assign(it.b, 1, 12, of_image.data());
    text.assign(it.b, 1, 12, of_text.data());
    cts::answer_workspace<backend> ws;
    ws.tape.keep = cts::kept::logits;
    cts::encode(it.b, it.model, it.images, ws.tape, {image.data(), false});
    cts::decode(it.b, it.model, it.texts, ws.tape, {.text = {text.data(), false}, .image = {image.data(), false}});
    cts::settle_answers(ws.tape.text, ws.explained);
    return cts::detail::watched_values(it.b, ws, cts::watched::target);
  };
  of_image[6] = 0.6;
  CHECK(relevance.image[4] == Approx(whole[1] - weighed()[1]));
  of_image[6] = 1;
  of_text[9] = 0.6;  // the second token of the third text
  CHECK(relevance.text[9] == Approx(whole[2] - weighed()[2]));
}

TEST_CASE("relevance rules keep the sum on the way to both streams", "[answers][lrp]") {
  explained<backend> it;
  // Without biases (and with residuals shared out) AttnLRP and the epsilon rule keep the explained logits.
  auto values = it.model.parameters().to_host(it.b);
  for (const auto& p : it.model.layout().parameters.table()) {
    if (p.name.ends_with("bias")) std::fill_n(values.begin() + p.where.offset, p.where.size(), 0.0);
  }
  it.model.parameters().assign(it.b, 1, static_cast<cts::index>(values.size()), values.data());
  const auto explained_logits = it.values();
  const double total = explained_logits[0] + explained_logits[1] + explained_logits[2];
  const auto arrived = [&](cts::lrp::preset preset) {
    cts::explain_answers(it.b, it.model, it.images, it.texts, it.ws);
    cts::answer_lrp<backend> r;
    cts::propagate(cts::lrp::make(preset), it.b, it.model, it.ws, r);
    double sum = 0;
    for (const double x : r.text.to_host(it.b)) sum += x;
    for (const double x : r.image.to_host(it.b)) sum += x;
    return sum;
  };
  CHECK(arrived(cts::lrp::preset::epsilon) == Approx(total).epsilon(1e-3));
  CHECK(arrived(cts::lrp::preset::cp_lrp) == Approx(total).epsilon(1e-6));
  // Chefer's rules keep the number of explained logits, but for what numerators of 0 lose.
  CHECK(arrived(cts::lrp::preset::chefer) == Approx(6).epsilon(0.05));
}

TEST_CASE("generic attention of an answer follows the rules on maps", "[answers]") {
  explained<backend> it;
  const auto relevance = it.by("generic_attention");
  const auto& t = it.ws.tape;
  const cts::index s = 2;  // a picture of 3 patches and a text of 4 tokens
  cts::encoder_decoder_relevance rules(4, 4);
  const auto map = [&](const cts::attention_rows& rows, const cts::tensor<backend>& a, const cts::tensor<backend>& g) {
    return cts::detail::positive_map(it.b, rows, 2, a, g, s);
  };
  for (const auto& block : t.blocks) rules.encoder_self(map(t.plan.all, block.a, block.da));
  for (const auto& block : t.decoder) {
    rules.decoder_self(map(t.text.rows.self, block.self.a, block.self.da));
    rules.cross(map(t.text.rows.cross, block.cross.a, block.cross.da));
  }
  for (cts::index p = 0; p < 3; ++p) {  // rows 1 and 2 ask for the two tokens of the answer
    CHECK(relevance.image[static_cast<std::size_t>(6 + p)] ==
          Approx((rules.query_image(1, p + 1) + rules.query_image(2, p + 1)) / 2));
  }
}

TEST_CASE("the measures of removal work on answers as forward passes of what is left do", "[answers]") {
  explained<backend> it;
  cts::measured_answers<backend> m(it.b, it.model, it.images, it.texts);
  const auto values = it.values();
  for (std::size_t s = 0; s < 3; ++s) CHECK(m.whole[s].value == Approx(values[s]).epsilon(1e-10));
  // Relevance that is what the answers lose without one patch agrees with what the measures lose.
  std::vector<cts::masked_sample> one_gone;
  for (const std::size_t i : {0u, 1u, 2u, 3u}) {
    one_gone.push_back({1, {1, 1, 1, 1}});
    one_gone.back().keep[i] = 0;
  }
  for (const auto missing : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    const auto got = m.values(missing, one_gone);
    for (std::size_t i = 0; i < 4; ++i) {
      explained<backend> changed;
      cts::token_batch left;
      std::vector<std::uint8_t> keep(9, 1);
      keep[2 + i] = 0;
      cts::apply_token_mask(it.images, keep, missing, left);
      changed.images = left;
      CHECK(got[i].value == Approx(changed.values()[1]).epsilon(1e-10));
    }
  }
  // Nothing left but the class token is a sample too; the most relevant patches alone are tried by sufficiency.
  const auto gone = m.values(cts::missing_tokens::drop, std::vector<cts::masked_sample>{{1, {0, 0, 0, 0}}});
  std::vector<double> relevance(9, 0.0);
  relevance[2 + 2] = 1;
  const auto enough = measure(cts::sufficiency{.shares = {0.25}}, m, relevance);
  const auto only = m.values(cts::missing_tokens::drop, std::vector<cts::masked_sample>{{1, {0, 0, 1, 0}}});
  CHECK(enough.sufficiency[1] == Approx(m.whole[1].probability - only[0].probability).epsilon(1e-10));
  const auto curve = measure(cts::flipping{.steps = 4}, m, relevance);
  CHECK(curve.probability[1 * 5 + 4] == Approx(gone[0].probability).epsilon(1e-10));
  CHECK_THROWS_AS(m.check(std::vector<double>(8, 0.0)), cts::Error);
}

TEST_CASE("the probability of an answer is that of all its tokens, and right means each of them", "[answers]") {
  explained<backend> it;
  const auto answer = [&](words tokens) {
    it.texts.clear();
    for (int s = 0; s < 3; ++s) {
      it.texts.next_picture();
      it.texts.append(words{5}, tokens, 0, 1);
    }
    return cts::measured_answers<backend>(it.b, it.model, it.images, it.texts).whole[0];
  };
  double first = 0;
  int right = 0;
  for (std::int32_t w = 0; w < 11; ++w) {
    const auto one = answer({w});
    first += one.probability;
    right += one.right ? 1 : 0;
    if (!one.right) CHECK_FALSE(answer({w, 4}).right);
    double second = 0;
    for (std::int32_t x = 0; x < 11; ++x) second += answer({w, x}).probability;
    CHECK(second == Approx(one.probability).epsilon(1e-10));
  }
  CHECK(first == Approx(1).epsilon(1e-10));
  CHECK(right == 1);
}

TEST_CASE("a method for answers is judged by every measure of removal", "[answers]") {
  explained<backend> it;
  cts::measured_answers<backend> m(it.b, it.model, it.images, it.texts);
  cts::judgement judged;
  cts::judge(cts::generic_attention{}, m, {}, it.ws, judged);
  for (const char* name : {"deletion", "insertion", "deletion_zero", "insertion_zero", "faithfulness", "infidelity",
                           "sufficiency", "comprehensiveness", "saco", "completeness", "gini", "seconds"}) {
    INFO(name);
    REQUIRE(judged[name].size() == 3);
    for (const double x : judged[name]) CHECK(std::isfinite(x));
  }
}

}  // namespace attribution_answers_tests
