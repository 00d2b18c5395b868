// The sentence that the library exists for: the memory keeps exactly the most relevant tokens of the chosen samples,
// with their pixels, labels and weights, and training replays them. Every claim is computed here a second time, by
// hand.

#include <cmath>
#include <numeric>
#include <set>

#include "core_tokensets/tensor/reference.hpp"
#include "core_tokensets/train/fit.hpp"
#include "support/catch.hpp"
#include "train/bright.hpp"
#include "train/support.hpp"

namespace train_claims_tests {

namespace {

namespace cts = core_tokensets;
using exact = cts::reference_backend<double>;
using support::bright_tokens;
using support::brightness;
using support::check_sample;
using support::last_samples;
using support::small_model;
using support::small_stream;

/// -log softmax(logits)[target] over the classes from `first` on.
double cross_entropy(std::span<const double> logits, std::size_t target, std::size_t first) {
  double top = -1e300, sum = 0;
  for (std::size_t k = first; k < logits.size(); ++k) top = std::max(top, logits[k]);
  for (std::size_t k = first; k < logits.size(); ++k) sum += std::exp(logits[k] - top);
  return top + std::log(sum) - logits[target];
}

}  // namespace

TEST_CASE("the memory keeps the most relevant tokens of the chosen samples, with pixels, labels and weights",
          "[claim]") {
  const auto stream = small_stream();
  exact b;
  auto model = small_model(b);
  model.grow_head(b, 4);
  cts::token_memory memory(model.config().grid);
  const bright_tokens recipe{.select = {}, .attribute = {}, .keep = 0.25};
  for (const cts::task& t : stream) {
    const cts::index before = memory.samples();
    const auto done = cts::consolidate(b, recipe, model, t, memory, 2000 * (t.number + 1));
    REQUIRE(done.samples.size() >= 5);
    REQUIRE(memory.samples() - before == static_cast<cts::index>(done.samples.size()));
    for (std::size_t i = 0; i < done.samples.size(); ++i) {
      const cts::index source = t.train_indices[t.train_indices.size() - 1 - i];
      CHECK(done.samples[i] == source);
      check_sample(memory, before + static_cast<cts::index>(i), stream.data().train.view_of(source), 4);
      const auto sample = memory.sample(before + static_cast<cts::index>(i));
      CHECK(sample.target == stream.data().train.label(source));
      CHECK(sample.weight == 0.5f + 0.25f * static_cast<float>(i));
      CHECK(sample.task == static_cast<std::uint32_t>(t.number));
    }
    // As many as fit, to the byte: one more sample of that size would be too many.
    CHECK(memory.bytes_on_disk() <= 2000 * (t.number + 1));
    CHECK(memory.bytes_with(memory.sample(0)) > 2000 * (t.number + 1));
  }
  const auto kept = cts::core_tokenset<last_samples, brightness>{
      .select = {}, .attribute = {}, .keep = 0.25, .relevance = cts::relevance_storage::f32};
  auto with = cts::empty_memory(kept, {.grid = model.config().grid});
  cts::consolidate(b, kept, model, stream[0], with, 2000);
  CHECK(std::is_sorted(with.sample(0).positions.begin(), with.sample(0).positions.end()));
  const auto sample = with.sample(0);
  double most = -1e30;
  for (const float r : sample.relevance) most = std::max(most, double(r));
  const auto all =
      cts::patchify(stream.data().train.view_of(stream[0].train_indices.back()), 4, cts::pixel_normalisation{});
  double brightest_patch = -1e30;
  for (std::size_t k = 0; k < 16; ++k)
    brightest_patch = std::max(brightest_patch, std::accumulate(all.begin() + static_cast<long>(48 * k),
                                                                all.begin() + static_cast<long>(48 * (k + 1)), 0.0));
  CHECK(most == Approx(brightest_patch));
}

TEST_CASE("random tokens are random, another task draws others, and the attribution is not asked", "[claim]") {
  const auto stream = small_stream();
  exact b;
  const auto model = small_model(b);
  const auto cut = [&](std::uint64_t seed, const cts::task& t) {
    cts::token_memory memory(model.config().grid);
    cts::consolidate(b, cts::random_tokens{.keep = 0.25}, model, t, memory, 3000, seed);
    return memory.arrays();
  };
  const auto a = cut(0, stream[0]);
  CHECK(a.positions == cut(0, stream[0]).positions);
  CHECK(a.positions != cut(1, stream[0]).positions);
  std::vector<int> counts(16);
  for (const auto p : a.positions) ++counts[p];
  CHECK(*std::min_element(counts.begin(), counts.end()) > 0);  // every place comes up
  CHECK(std::set<std::int32_t>(a.targets.begin(), a.targets.end()).size() == 2);
}

TEST_CASE("one step with replay is the formula: new samples' mean plus the memory's weighted mean", "[claim]") {
  const auto stream = small_stream();
  exact b;
  auto model = small_model(b);
  model.grow_head(b, 4, stream.data().train.class_names);
  model.set_normalisation({{0.25f, 0.5f, 0.75f}, {0.5f, 0.25f, 1.0f}});
  cts::token_memory memory(model.config().grid);
  cts::consolidate(b, bright_tokens{.select = {}, .attribute = {}, .keep = 0.5}, model, stream[0], memory, 9000);
  const cts::index fresh = static_cast<cts::index>(stream[1].train_indices.size()), stored = memory.samples();
  REQUIRE(stored > 6);
  const auto start = model.parameters().to_host(b);

  // The loss by hand, in double, from the logits of a model with any parameters.
  const auto loss_at = [&](const std::vector<double>& parameters, bool asymmetric) {
    model.parameters().assign(b, 1, static_cast<cts::index>(parameters.size()), parameters.data());
    cts::vit_tape<exact> tape;
    tape.keep = cts::kept::logits;
    std::vector<cts::index> order = stream[1].train_indices;
    cts::random_stream(cts::seed_of_task(0, 1), 1000).shuffle(std::span(order));
    forward(b, model,
            make_batch(stream.data().train, order, {.patch = 4, .normalisation = model.config().normalisation}), tape);
    const auto new_logits = tape.logits.to_host(b);
    // Two classes are new and two are old: as many new samples compete with all classes as samples are replayed.
    const cts::index open = asymmetric ? std::min(fresh, stored) : fresh;
    double total = 0;
    for (cts::index s = 0; s < fresh; ++s) {
      const auto row = std::span<const double>(new_logits).subspan(static_cast<std::size_t>(4 * s), 4);
      total += cross_entropy(row, static_cast<std::size_t>(stream.data().train.label(order[std::size_t(s)])),
                             s < open ? 0 : 2) /
               static_cast<double>(fresh);
    }
    double weights = 0, replayed = 0;
    for (cts::index s = 0; s < stored; ++s) {
      const auto sample = memory.sample(s);
      cts::token_batch one;
      one.patch_dim = 48;
      one.offsets.push_back(sample.tokens());
      for (std::size_t t = 0; t < sample.positions.size(); ++t) {
        one.positions.push_back(sample.positions[t]);
        for (std::size_t i = 0; i < 48; ++i) {
          const std::size_t c = i / 16;
          const auto& n = model.config().normalisation;
          one.patches.push_back((static_cast<float>(sample.patches[48 * t + i]) / 255.0f - n.mean[c]) / n.stddev[c]);
        }
      }
      forward(b, model, one, tape);
      replayed +=
          double(sample.weight) * cross_entropy(tape.logits.to_host(b), static_cast<std::size_t>(sample.target), 0);
      weights += double(sample.weight);
    }
    return total + replayed / weights;
  };

  constexpr double rate = 1e-3;
  const auto gradient_of = [&](const auto& objective, const cts::token_memory& from) {
    model.parameters().assign(b, 1, static_cast<cts::index>(start.size()), start.data());
    cts::fit(b, model, stream[1], from,
             {.epochs = 1,
              .batch = 1000,
              .replay_batch = 1000,
              .warm_up = 0,
              .clip = 0,
              .token_drop = 0,
              .shift = 0,
              .flip = 0},
             objective, cts::sgd{.learning_rate = rate, .momentum = 0});
    auto moved = model.parameters().to_host(b);
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] = (start[i] - moved[i]) / rate;
    return moved;
  };
  const auto check_against = [&](const std::vector<double>& gradient, bool asymmetric) {
    for (std::uint64_t direction = 0; direction < 4; ++direction) {
      cts::random_stream random(direction);
      auto up = start, down = start;
      double along = 0;
      constexpr double h = 1e-6;
      for (std::size_t i = 0; i < start.size(); ++i) {
        const double v = random.normal();
        up[i] += h * v, down[i] -= h * v;
        along += v * gradient[i];
      }
      CHECK((loss_at(up, asymmetric) - loss_at(down, asymmetric)) / (2 * h) == Approx(along).epsilon(1e-5));
    }
  };
  check_against(gradient_of(cts::summed{}, memory), false);
  check_against(gradient_of(cts::ace{}, memory), true);
  CHECK(gradient_of(cts::summed{}, memory) != gradient_of(cts::summed{}, cts::token_memory(model.config().grid)));
}

TEST_CASE("a classifier learns, and with a memory it remembers", "[claim]") {
  support::backend b(2);
  const auto stream = support::coloured_stream();
  const auto learn = [&](const cts::token_memory* first) {
    auto model = small_model(b);
    const cts::fit_options o{.epochs = 6, .batch = 8, .replay_batch = 8, .token_drop = 0.5, .token_drop_often = 0.5};
    const cts::adamw by{.learning_rate = 3e-3};
    cts::token_memory memory(model.config().grid);
    cts::fit(b, model, stream[0], memory, o, cts::ace{}, by);
    const double learnt = cts::evaluate(b, model, stream[0].test()).accuracy;
    CHECK(learnt > 0.9);
    if (first == nullptr)
      cts::consolidate(b, cts::coreset<cts::random_selection>{.select = {}, .price = cts::picture_price::raw}, model,
                       stream[0], memory, cts::kibibytes(20));
    cts::fit(b, model, stream[1], memory, o, cts::ace{}, by);
    CHECK(cts::evaluate(b, model, stream[1].test()).accuracy > 0.9);
    // The share that is right, counted by hand.
    const auto out = cts::run_model(b, model, stream[0].test());
    double right = 0;
    for (std::size_t i = 0; i < out.labels.size(); ++i) {
      const auto row = out.logits.begin() + static_cast<long>(4 * i);
      right += std::max_element(row, row + 4) - row == stream.data().test.label(stream[0].test_indices[i]) ? 1 : 0;
    }
    const double kept = cts::evaluate(b, model, stream[0].test()).accuracy;
    CHECK(kept == Approx(right / static_cast<double>(out.labels.size())));
    return kept;
  };
  const cts::token_memory nothing(cts::patch_grid{16, 16, 3, 4});
  const double without = learn(&nothing), with = learn(nullptr);
  INFO(without << " " << with);
  CHECK(with > without + 0.4);
}

}  // namespace train_claims_tests
