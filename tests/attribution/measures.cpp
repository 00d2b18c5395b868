// Measures of attribution: by hand where a hand can, against plain forward passes, and on a model that has learned.

#include "core_tokensets/attribution/measures/judge.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "support.hpp"
#include "support/methods.hpp"

namespace attribution_measures_tests {

namespace {

using namespace attribution_tests;
using cts::index;
using B = cts::eigen_backend<double>;

const cts::vit_config small{.grid = {10, 8, 3, 2}, .dim = 12, .depth = 3, .heads = 3, .classes = 5, .mlp_ratio = 2};

/// Pictures of 4 x 4 patches of noise, one of which has one of four quarters bright: the class.
cts::token_batch bright_quarters(cts::random_stream& random, int samples, std::vector<index>& where) {
  cts::token_batch batch;
  batch.patch_dim = 4;
  where.clear();
  for (int s = 0; s < samples; ++s) {
    batch.targets.push_back(std::int32_t(random.below(4)));
    where.push_back(random.below(16));
    for (int k = 0; k < 16; ++k) {
      batch.positions.push_back(k);
      for (int pixel = 0; pixel < 4; ++pixel)
        batch.patches.push_back(
            float(0.3 * random.normal() + (k == where.back() && pixel == batch.targets.back() ? 3 : 0)));
    }
    batch.offsets.push_back(index(batch.positions.size()));
  }
  return batch;
}

/// A model that has learned them, pictures it has not seen, and where their bright patches are.
struct learned {
  B b{};
  cts::vit<B> model{b, {.grid = {8, 8, 1, 2}, .dim = 24, .depth = 2, .heads = 4, .classes = 4, .mlp_ratio = 2}};
  cts::token_batch batch;
  std::vector<index> where;

  learned() {
    cts::random_stream random(1);
    cts::optimiser_state<B> state;
    state.reset(b, model.layout().parameters);
    cts::vit_tape<B> tape;
    cts::tensor<B> gradients(b, 1, model.parameters().size()), dtokens;
    cts::loss_tape<B> loss;
    for (int step = 0; step < 250; ++step) {
      const auto train = bright_quarters(random, 32, where);
      cts::forward(b, model, train, tape);
      cts::cross_entropy(b, *tape.logits, train.targets, loss);
      b.fill(*gradients, 0.0);
      cts::backward(b, model, tape, *loss.dlogits, gradients.data(), dtokens);
      cts::step(b, cts::adamw{.learning_rate = 3e-3}, state, model.parameters(), gradients);
    }
    batch = bright_quarters(random, 16, where);
  }
  std::vector<double> explain(const std::string& method, const cts::target& t = {}) {
    cts::attribution_workspace<B> ws;
    return attribute(support::method_named<B>(method), b, model, batch, t, ws);
  }
};

double mean(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0) / double(v.size()); }

}  // namespace

TEST_CASE("orders, ranks and correlations by hand", "[measure]") {
  const std::vector<double> v{2, 5, 2, 1};
  CHECK(cts::falling_order(v) == std::vector<std::size_t>{1, 0, 2, 3});
  CHECK(cts::ranks(v) == std::vector<double>{1.5, 3, 1.5, 0});
  CHECK(cts::pearson(std::vector<double>{1, 2, 3}, std::vector<double>{2, 4, 6}) == Approx(1));
  CHECK(cts::pearson(std::vector<double>{1, 2, 3}, std::vector<double>{1, 1, 1}) == 0);
  CHECK(cts::pearson(std::vector<double>{1, 2, 4}, std::vector<double>{1, 3, 2}) == Approx(0.327326835));
  CHECK(cts::spearman(std::vector<double>{1, 2, 3, 4}, std::vector<double>{1, 8, 27, 64}) == Approx(1));
  CHECK(cts::spearman(std::vector<double>{1, 2, 3}, std::vector<double>{9, 4, 1}) == Approx(-1));
  CHECK_THROWS_AS(cts::pearson(v, std::vector<double>{1}), cts::Error);
}

TEST_CASE("measures of given numbers by hand", "[measure]") {
  CHECK(cts::gini(std::vector<double>{1, 1, -1, 1}) == 0);
  CHECK(cts::gini(std::vector<double>{0, 0, 3, 0}) == Approx(0.75));
  CHECK(cts::gini(std::vector<double>{1, 3}) == Approx(0.25));
  CHECK(cts::gini(std::vector<double>{0, 0}) == 0);

  CHECK(cts::area_under(std::vector<double>{0, .5, 1}, std::vector<double>{1, .5, 0}) == Approx(.5));
  CHECK(cts::area_under(std::vector<double>{0, .25, 1}, std::vector<double>{1, 0, 0}) == Approx(.125));

  const std::vector<double> salience{3, 2, 1};
  CHECK(cts::saco_of_groups(salience, std::vector<double>{9, 5, 2}) == Approx(1));
  CHECK(cts::saco_of_groups(salience, std::vector<double>{2, 5, 9}) == Approx(-1));
  CHECK(cts::saco_of_groups(salience, std::vector<double>{5, 9, 2}) == Approx((-1 + 2 + 1) / 4.0));
  CHECK(cts::saco_of_groups(std::vector<double>{1, 1}, std::vector<double>{0, 1}) == 0);

  const cts::removal_effects twice{{2, 4, -2}, {1, 2, -1}}, none{{1, -1, 0}, {1, 1, 5}};
  CHECK(cts::faithfulness_correlation(twice) == Approx(1));
  CHECK(cts::infidelity(twice) == Approx(0).margin(1e-15));
  CHECK(cts::infidelity(twice, false) == Approx(2));  // (1 + 4 + 1) / 3
  CHECK(cts::infidelity(none) == Approx(1));
}

TEST_CASE("measures of place by hand", "[measure]") {
  // A picture of 4 x 6 pixels, patches of 2 x 2; the object covers the middle pair of columns of the upper rows.
  std::vector<std::uint8_t> mask(24, 0);
  for (int y = 0; y < 2; ++y)
    for (int x = 2; x < 5; ++x) mask[std::size_t(y * 6 + x)] = 1;
  const std::vector<std::int32_t> positions{0, 1, 2, 4};
  const auto coverage = cts::patch_coverage(mask, 4, 6, 2, positions);
  CHECK(coverage == std::vector<double>{0, 1, .5, 0});
  const auto found = cts::localisation(std::vector<double>{1, 4, -3, 3}, coverage);
  CHECK(found.pointing == 1);
  CHECK(found.mass == Approx(4.0 / 8));
  CHECK(found.rank == Approx(0.5));  // of the two most relevant, one is on the object
  CHECK(found.chance_pointing == Approx(0.5));
  CHECK(found.chance_mass == Approx(1.5 / 4));
  CHECK(cts::localisation(std::vector<double>{5, 4, 3, 3}, coverage).pointing == 0);
  // A small object: where most of it is counts.
  CHECK(cts::localisation(std::vector<double>{1, 2}, std::vector<double>{.1, .2}).pointing == 1);
  CHECK(cts::localisation(std::vector<double>{2, 1}, std::vector<double>{.1, .2}).pointing == 0);
  CHECK_THROWS_AS(cts::localisation(std::vector<double>{2, 1}, std::vector<double>{0, 0}), cts::Error);
  CHECK_THROWS_AS(cts::patch_coverage(mask, 4, 6, 2, std::vector<std::int32_t>{6}), cts::Error);
}

TEST_CASE("masked samples come out as plain forward passes of masked batches do", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 3, 0, 7});
  cts::measured_batch<B> m(b, model, batch, cts::target::label());
  cts::random_stream random(2);
  for (const auto missing : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    std::vector<cts::masked_sample> masked;
    for (const std::size_t s : std::vector<std::size_t>{0, 1, 3, 0}) {
      masked.push_back({s, std::vector<std::uint8_t>(m.patches(s), 1)});
      for (auto& k : masked.back().keep) k = random.uniform() < 0.6 ? 1 : 0;
      masked.back().keep[0] = 1;
    }
    const auto got = m.values(missing, masked);
    for (std::size_t i = 0; i < masked.size(); ++i) {
      const auto one = cts::copy_samples(batch, std::vector<cts::index>{cts::index(masked[i].sample)});
      cts::token_batch changed;
      cts::apply_token_mask(one, masked[i].keep, missing, changed);
      cts::vit_tape<B> tape;
      cts::forward(b, model, changed, tape);
      const auto logits = tape.logits.to_host(b);
      CHECK(got[i].value == Approx(logits[std::size_t(one.targets[0])]).epsilon(1e-10));
    }
  }
}

TEST_CASE("deletion curves start at the whole sample and end at nothing", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 3});
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(b, model, batch, {});
  const auto relevance = attribute(cts::occlusion{}, b, model, batch, {}, ws);
  const auto most = measure(cts::flipping{.steps = 20}, m, relevance);
  const auto least =
      measure(cts::flipping{.steps = 20, .order = cts::removal_order::least_relevant_first}, m, relevance);
  REQUIRE(most.probability.size() == 42);
  CHECK(most.gone[5] == Approx(0.25));
  for (std::size_t s = 0; s < 2; ++s) {
    CHECK(most.probability[s * 21] == Approx(m.whole[s].probability).epsilon(1e-12));
    CHECK(most.probability[s * 21 + 20] == Approx(least.probability[s * 21 + 20]).epsilon(1e-12));
    CHECK(most.right[s * 21] == 1);
  }
  // The first patch to go from the first sample is its most relevant one: what occlusion measured.
  const auto best = std::max_element(relevance.begin(), relevance.begin() + 20) - relevance.begin();
  cts::masked_sample without{0, std::vector<std::uint8_t>(20, 1)};
  without.keep[std::size_t(best)] = 0;
  const auto value = m.values(cts::missing_tokens::drop, std::vector{without});
  CHECK(most.probability[1] == Approx(value[0].probability).epsilon(1e-12));
  CHECK(m.whole[0].value - value[0].value == Approx(relevance[std::size_t(best)]).epsilon(1e-10));
}

TEST_CASE("everything kept is sufficient, and nothing is missing where relevance is complete", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {12, 3});
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(b, model, batch, {});
  const auto relevance =
      attribute(cts::integrated_gradients{.steps = 100, .start = cts::path_start::embeddings}, b, model, batch, {}, ws);
  for (const double error : measure(cts::completeness{}, m, relevance)) CHECK(error <= 1e-5);
  auto half = relevance;
  for (double& r : half) r /= 2;
  for (const double error : measure(cts::completeness{}, m, half)) CHECK(error == Approx(0.5).epsilon(1e-4));
  const auto all = measure(cts::sufficiency{.shares = {1.0}}, m, relevance);
  for (std::size_t s = 0; s < 2; ++s) CHECK(std::abs(all.sufficiency[s]) <= 1e-12);
}

TEST_CASE("what removes one patch at a time is predicted by occlusion", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 5});
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(b, model, batch, cts::target::loss());
  for (const auto missing : {cts::missing_tokens::drop, cts::missing_tokens::zero}) {
    const auto relevance = attribute(cts::occlusion{missing}, b, model, batch, cts::target::loss(), ws);
    auto against = relevance;
    for (double& r : against) r = -r;
    const cts::random_removal one{.sets = 25, .share = 1e-3, .missing = missing};
    for (const auto& e : measure(one, m, relevance)) {
      REQUIRE(e.drop.size() == 25);
      CHECK(golden::distance(e.drop, e.relevance) <= 1e-9);
      CHECK(cts::faithfulness_correlation(e) == Approx(1));
    }
    for (const auto& e : measure(one, m, against)) CHECK(cts::faithfulness_correlation(e) == Approx(-1));
    // The probability falls with the log-probability that occlusion watched, so groups of one patch are in order.
    for (const double best : measure(cts::saco{.groups = 20, .missing = missing}, m, relevance))
      CHECK(best == Approx(1));
    for (const double worst : measure(cts::saco{.groups = 20, .missing = missing}, m, against))
      CHECK(worst == Approx(-1));
    // A share of less than one patch is one patch: the most relevant.
    const auto top = measure(cts::sufficiency{.shares = {1e-3}, .missing = missing}, m, relevance);
    for (std::size_t s = 0; s < 2; ++s) {
      const auto r = cts::of_sample(std::span<const double>(relevance), batch.offsets, s);
      const double p = m.whole[s].probability, most = *std::max_element(r.begin(), r.end());
      CHECK(top.comprehensiveness[s] == Approx(p - p * std::exp(-most)).epsilon(1e-9));
    }
  }
}

TEST_CASE("larger sets take several patches away, the same ones for every batch", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {20, 5});
  cts::measured_batch<B> m(b, model, batch, {});
  const auto effects = measure(cts::random_removal{.sets = 10, .share = 0.2}, m, std::vector<double>(25, 1.0));
  for (std::size_t s = 0; s < 2; ++s) {
    for (const double patches : effects[s].relevance) CHECK(patches == (s == 0 ? 4 : 1));
  }
}

TEST_CASE("layers are drawn anew from the head down, or one at a time", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {4});
  const std::vector<double> relevance{1, 2, 3, 4};
  const auto trained = model.parameters().to_host(b);
  const auto& table = model.layout().parameters.table();
  for (const auto how : {cts::randomised::cascading, cts::randomised::independent}) {
    std::vector<std::size_t> changed;
    const auto watch = [&](const cts::vit<B>& other) {
      const auto values = other.parameters().to_host(b);
      changed.push_back(0);
      for (const auto& p : table) {
        const auto from = p.where.offset, to = from + p.where.size();
        if (std::equal(values.begin() + from, values.begin() + to, trained.begin() + from)) continue;
        ++changed.back();
        const std::vector<double> before(trained.begin() + from, trained.begin() + to),
            after(values.begin() + from, values.begin() + to);
        double deviation = 0;
        for (const double v : before) deviation += (v - mean(before)) * (v - mean(before)) / double(before.size());
        CHECK(std::abs(mean(after) - mean(before)) <= 5 * std::sqrt(deviation / double(before.size())));
      }
      return std::vector<double>{4, 3, 2, 1};
    };
    const auto result = measure(cts::parameter_randomisation{how}, b, model, watch, batch, relevance);
    // Head and last norm, three blocks of six pairs, and the embedding of four parameters.
    CHECK(changed == (how == cts::randomised::cascading ? std::vector<std::size_t>{4, 16, 28, 40, 44}
                                                        : std::vector<std::size_t>{4, 12, 12, 12, 4}));
    CHECK(result.mean() == Approx(-1));
  }
}

TEST_CASE("random logit asks for another class, max-sensitivity for the same one under bounded noise", "[measure]") {
  const auto batch = ragged::noise(small, {20, 3});
  cts::settled_target explained;
  explained.what = cts::explained_score::logit;
  explained.classes = {2, 4};
  const std::vector<double> relevance(23, 1.0);
  int asked = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto watch = [&](const cts::token_batch&, const cts::target& t) {
      REQUIRE(t.classes.size() == 2);
      for (std::size_t s = 0; s < 2; ++s) {
        CHECK(t.classes[s] != explained.classes[s]);
        CHECK(t.classes[s] >= 0);
        CHECK(t.classes[s] < 5);
      }
      asked |= 1 << t.classes[0];
      return relevance;
    };
    measure(cts::random_logit{seed}, watch, batch, explained, 5, relevance);
  }
  CHECK(asked == 0b11011);  // every class but the explained one

  // A method whose relevance is the first number of each patch: its change is the noise itself.
  const auto first_number = [&](const cts::token_batch& of) {
    std::vector<double> r;
    for (cts::index p = 0; p < of.tokens(); ++p) r.push_back(double(of.patches[std::size_t(p * of.patch_dim)]));
    return r;
  };
  const auto own = first_number(batch);
  const auto watch = [&](const cts::token_batch& of, const cts::target& t) {
    for (std::size_t s = 0; s + 1 < of.offsets.size(); ++s) {
      CHECK(t.classes[s] == explained.classes[of.offsets[s + 1] - of.offsets[s] == 20 ? 0 : 1]);
    }
    return first_number(of);
  };
  const double radius = 0.05;
  const auto moved = measure(cts::max_sensitivity{.radius = radius, .samples = 50}, watch, batch, explained, own);
  for (std::size_t s = 0; s < 2; ++s) {
    const auto r = cts::of_sample(std::span<const double>(own), batch.offsets, s);
    const auto from = batch.patches.begin() + batch.offsets[s] * batch.patch_dim,
               to = batch.patches.begin() + batch.offsets[s + 1] * batch.patch_dim;
    const auto [low, high] = std::minmax_element(from, to);
    double size = 0;
    for (const double v : r) size += v * v;
    const double most = radius * (double(*high) - double(*low)) * std::sqrt(double(r.size()) / size);
    CHECK(moved[s] <= most);
    CHECK(moved[s] > 0.5 * most);  // the largest of 50 draws, each about 0.58 of that
  }
}

TEST_CASE("stability tells which of the kept tokens stay when the weights hardly move", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {8, 0, 3});
  const std::vector<double> relevance{8, 7, 6, 5, 4, 3, 2, 1, 0, -4, 0}, after{8, 1, 7, 5, 4, 3, 2, 1, 0, -1, -2};
  const auto trained = model.parameters().to_host(b);
  double most = 0;
  const auto watch = [&](const cts::vit<B>& other) {
    const auto values = other.parameters().to_host(b);
    for (std::size_t i = 0; i < values.size(); ++i) {
      most = std::max(most, std::abs(values[i] - trained[i]) / std::max(std::abs(trained[i]), 1e-30));
    }
    return after;
  };
  const auto result = measure(cts::weight_stability{.size = 1e-4}, b, model, watch, batch, relevance);
  CHECK(most > 2e-4);  // of many normal numbers
  CHECK(most < 6e-4);
  CHECK(result.stay == std::vector<double>{0.5, 1});  // of 8 tokens two, of 3 one; none of none
  CHECK(result.change == std::vector<double>{6.0 / 8, 3.0 / 4});
  most = 0;
  measure(cts::weight_stability{.size = 0}, b, model, watch, batch, relevance);
  CHECK(most == 0);
  for (const double wrong : {-1.0, std::nan("")}) {
    CHECK_THROWS_AS(measure(cts::weight_stability{.size = wrong}, b, model, watch, batch, relevance), cts::Error);
    CHECK_THROWS_AS(measure(cts::weight_stability{.kept = wrong}, b, model, watch, batch, relevance), cts::Error);
  }
}

TEST_CASE("a stabiliser takes the poles from the rules and leaves them else as they are", "[measure]") {
  learned l;
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(l.b, l.model, l.batch, {});
  const cts::target same_class(m.explained.classes);
  const auto largest = [&](const std::string& method) {
    const auto explain = [&](const cts::vit<B>& model) {
      return attribute(support::method_named<B>(method), l.b, model, l.batch, same_class, ws);
    };
    const auto result = measure(cts::weight_stability{}, l.b, l.model, explain, l.batch, l.explain(method));
    return *std::max_element(result.change.begin(), result.change.end());
  };
  for (const std::string method : {"grad_lrp", "lrp_rollout", "lrp:rules=chefer"}) {
    INFO(method);
    CHECK(largest(method + ":stabiliser=0.03") < 0.01);
    CHECK(largest(method + ":stabiliser=0.03") < largest(method) / 2);
    CHECK(l.explain(method + ":stabiliser=0") == l.explain(method));
    const auto close = l.explain(method + ":stabiliser=1e-7"), plain = l.explain(method);
    for (std::size_t s = 0; s < 16; ++s) {
      CHECK(cts::spearman(cts::of_sample(std::span<const double>(close), l.batch.offsets, s),
                          cts::of_sample(std::span<const double>(plain), l.batch.offsets, s)) > 0.9);
    }
    CHECK_THROWS_AS(l.explain(method + ":stabiliser=-1"), cts::Error);
  }
}

TEST_CASE("the table holds what the measures say, each under its own name", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {9, 4});
  cts::attribution_workspace<B> ws;
  cts::measured_batch<B> m(b, model, batch, {});
  const cts::any_attribution<B> method = support::method_named<B>("generic_attention");
  const auto r = attribute(method, b, model, batch, {}, ws);
  using cts::missing_tokens;
  using cts::removal_order;
  for (const auto missing : {missing_tokens::drop, missing_tokens::zero}) {
    cts::judgement table;
    cts::judge(method, b, model, m, {}, true, {.missing = missing, .steps = 4, .sets = 5, .seed = 3}, ws, table);
    const auto same = [&](const char* measure, const std::vector<double>& want) {
      INFO(measure);
      CHECK(golden::distance(table[measure], want) <= 1e-12);
    };
    const auto area = [&](removal_order order, missing_tokens how) {
      return measure(cts::flipping{4, order, how}, m, r).area;
    };
    same("deletion", area(removal_order::most_relevant_first, missing_tokens::drop));
    same("insertion", area(removal_order::least_relevant_first, missing_tokens::drop));
    same("deletion_zero", area(removal_order::most_relevant_first, missing_tokens::zero));
    same("insertion_zero", area(removal_order::least_relevant_first, missing_tokens::zero));
    std::vector<double> correlation, error;
    for (const auto& e : measure(cts::random_removal{.sets = 5, .missing = missing, .seed = 3}, m, r)) {
      correlation.push_back(cts::faithfulness_correlation(e)), error.push_back(cts::infidelity(e));
    }
    same("faithfulness", correlation);
    same("infidelity", error);
    const auto enough = measure(cts::sufficiency{.missing = missing}, m, r);
    same("sufficiency", enough.sufficiency);
    same("comprehensiveness", enough.comprehensiveness);
    same("saco", measure(cts::saco{.missing = missing}, m, r));
    same("completeness", measure(cts::completeness{missing}, m, r));
    const auto explain = [&](const cts::token_batch& of, const cts::target& t) {
      return attribute(method, b, model, of, t, ws);
    };
    same("max_sensitivity", measure(cts::max_sensitivity{.seed = 3}, explain, batch, m.explained, r));
    const auto other = [&](const cts::vit<B>& changed) {
      return attribute(method, b, changed, batch, cts::target(m.explained.classes), ws);
    };
    const auto stable = measure(cts::weight_stability{.seed = 3}, b, model, other, batch, r);
    same("stability", stable.stay);
    same("weight_change", stable.change);
    same("random_logit", measure(cts::random_logit{3}, explain, batch, m.explained, 5, r));
    CHECK(table.count("pointing") == 0);
  }
}

TEST_CASE("measures tell a method that looks from dice, and know which methods are blind", "[measure]") {
  learned l;
  cts::measured_batch<B> m(l.b, l.model, l.batch, {});
  double right = 0;
  for (std::size_t s = 0; s < 16; ++s) right += m.explained.classes[s] == l.batch.targets[s] ? 1 : 0;
  REQUIRE(right >= 14);
  const auto deletion = [&](const std::vector<double>& r) {
    return mean(measure(cts::flipping{.steps = 16}, m, r).area);
  };
  const auto chance = l.explain("random");
  for (const char* method : {"grad_lrp", "occlusion", "atman", "gradient_x_input", "lrp", "generic_attention"}) {
    INFO(method);
    const auto r = l.explain(method);
    CHECK(deletion(r) < deletion(chance));
    CHECK(mean(measure(cts::sufficiency{}, m, r).sufficiency) <
          mean(measure(cts::sufficiency{}, m, chance).sufficiency));
    double hits = 0;
    for (std::size_t s = 0; s < 16; ++s) {
      std::vector<double> coverage(16, 0.0);
      coverage[std::size_t(l.where[s])] = 1;
      hits += cts::localisation(cts::of_sample(std::span<const double>(r), l.batch.offsets, s), coverage).pointing;
    }
    CHECK(hits >= 12);
  }

  cts::attribution_workspace<B> ws;
  const auto explainer = [&](const std::string& method) {
    return [&, method](const cts::token_batch& batch, const cts::target& t) {
      return attribute(support::method_named<B>(method), l.b, l.model, batch, t, ws);
    };
  };
  for (const char* blind : {"rollout", "attention", "random"}) {
    for (const double same : measure(cts::random_logit{}, explainer(blind), l.batch, m.explained, 4, l.explain(blind)))
      CHECK(same == Approx(1));
  }
  for (const char* seeing : {"gradient_x_input", "lrp"}) {
    CHECK(mean(measure(cts::random_logit{}, explainer(seeing), l.batch, m.explained, 4, l.explain(seeing))) < 0.5);
  }
  const cts::target same_class(m.explained.classes);
  for (const auto how : {cts::randomised::cascading, cts::randomised::independent}) {
    for (const char* method : {"gradient_x_input", "grad_lrp", "random"}) {
      const auto other = [&](const cts::vit<B>& model) {
        return attribute(support::method_named<B>(method), l.b, model, l.batch, same_class, ws);
      };
      const auto result = measure(cts::parameter_randomisation{how}, l.b, l.model, other, l.batch, l.explain(method));
      REQUIRE(result.layers == std::vector<std::string>{"head", "blocks.1", "blocks.0", "patch_embed"});
      if (std::string(method) == "random") {
        CHECK(result.mean() == Approx(1));
      } else if (how == cts::randomised::cascading) {
        INFO(method);
        CHECK(mean(result.similarity.back()) < 0.3);  // nothing of the trained model is left
      }
    }
  }
  const auto still = measure(cts::max_sensitivity{.radius = 0}, explainer("grad_lrp"), l.batch, m.explained,
                             explainer("grad_lrp")(l.batch, same_class));
  for (const double moved : still) CHECK(moved <= 1e-9);
  CHECK(mean(measure(cts::max_sensitivity{}, explainer("gradient_x_input"), l.batch, m.explained,
                     explainer("gradient_x_input")(l.batch, same_class))) > 0);
}

TEST_CASE("a sample is judged the same alone and among others", "[measure]") {
  B b;
  const auto model = ragged::lively_model(b, small);
  const auto batch = ragged::noise(small, {9, 4});
  const std::vector<double> coverage{0, 0, 1, 1, 0, 0, 0, 0, 0, .5, 0, 0, 0};
  cts::attribution_workspace<B> ws;
  const auto method = support::method_named<B>("grad_lrp");
  const cts::judge_options options{.steps = 4, .sets = 5};
  cts::measured_batch<B> both(b, model, batch, {});
  cts::judgement together, apart;
  cts::judge(method, b, model, both, coverage, true, options, ws, together);
  for (const cts::index s : {0, 1}) {
    const auto one = cts::copy_samples(batch, std::vector<cts::index>{s});
    cts::measured_batch<B> single(b, model, one, {});
    cts::judge(method, b, model, single,
               cts::of_sample(std::span<const double>(coverage), batch.offsets, std::size_t(s)), true, options, ws,
               apart);
  }
  for (const auto& measure : cts::judged_measures) {
    INFO(measure.name);
    REQUIRE(together[measure.name].size() == 2);
    CHECK(golden::distance(apart[measure.name], together[measure.name]) <= 1e-6);
  }
  const auto json = cts::to_json(together);
  CHECK(json["deletion"]["n"] == 2);
  CHECK(json["deletion"]["mean"].get<double>() == Approx(mean(together["deletion"])));
}

}  // namespace attribution_measures_tests
