// A learner: every strategy within its budget, going on after a stop to the same bits, data that arrive without a plan.

#include "core_tokensets/train/learner.hpp"

#include <fstream>

#include "core_tokensets/data/arriving.hpp"
#include "core_tokensets/train/frozen_features.hpp"
#include "core_tokensets/train/objectives/objectives.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "train/support.hpp"

namespace train_learner_tests {

namespace {

namespace cts = core_tokensets;
using support::backend;
using support::has;
using support::message_of;
using support::quick_learner;
using support::small_model;
using support::small_stream;

struct outcome {
  cts::sequence_result result;
  std::vector<float> parameters;
  std::vector<std::byte> pixels;
  cts::index file_bytes;
};

template <class Strategy>
outcome run(const cts::task_stream& stream, Strategy how, const cts::learner_options& options,
            const cts::sequence_options& where = {}, int threads = 2) {
  backend b(threads);
  cts::continual_learner learner(b, small_model(b), options, how);
  auto result = cts::run_sequence(learner, stream, where);
  CHECK(learner.sources().size() == static_cast<std::size_t>(learner.memory().samples()));
  return {result, learner.model().parameters().to_host(b), learner.memory().arrays().pixels,
          learner.memory().bytes_on_disk()};
}

/// The core tokenset of the paper: the most relevant tokens, as they are.
using papers = cts::core_tokenset<cts::grad_match, cts::grad_lrp, cts::top_tokens, cts::raw_codec>;
using random_papers = cts::core_tokenset<cts::random_selection, cts::grad_lrp, cts::top_tokens, cts::raw_codec>;

/// Whole pictures by chance, by a strategy that says or does not say how new ones would look in the memory.
template <bool Says>
struct whole_pictures {
  static constexpr const char* name = "whole";
};
template <class B, bool Says, class Model, class Task>
cts::consolidation consolidate(B& b, const whole_pictures<Says>&, const Model& model, const Task& t,
                               cts::token_memory& memory, cts::index bytes, std::uint64_t seed) {
  return cts::consolidate(b, cts::coreset<cts::random_selection>{.price = cts::picture_price::raw}, model, t, memory,
                          bytes, seed);
}
template <class B, class Model>
void remembered(B&, const whole_pictures<true>&, const Model&, const cts::token_batch& whole, const cts::text_batch*,
                cts::missing_tokens, cts::token_batch& out) {
  out = whole;
}

}  // namespace

TEST_CASE("a strategy that does not say how the memory keeps pictures keeps them whole", "[learner]") {
  const auto stream = small_stream();
  const auto options = quick_learner();  // thins every new batch where nothing is replayed on equal footing
  CHECK(run(stream, whole_pictures<false>{}, options).parameters ==
        run(stream, whole_pictures<true>{}, options).parameters);
}

TEST_CASE("every strategy runs through the same loop and keeps its budget", "[learner]") {
  const auto stream = small_stream();
  const auto options = quick_learner();
  const auto check = [&](const auto& how, cts::index tokens) {
    INFO(cts::text_of(how));
    const auto got = run(stream, how, options);
    REQUIRE(got.result.accuracy.size() == 2);
    CHECK(got.result.accuracy[1].size() == 2);
    CHECK((got.result.memory_samples > 0) == (tokens > 0));
    CHECK(got.result.memory_tokens == tokens * got.result.memory_samples);
    CHECK(got.result.memory_bytes <= got.result.budget_bytes);
    return got;
  };
  check(cts::none{}, 0);
  check(cts::joint<>{}, 0);
  const auto means = check(cts::class_means{}, 0);
  CHECK(means.result.memory_bytes == 4 * 16 * 4);  // classes, channels, bytes of a float
  const auto ridge = check(cts::ridge_head{}, 0);
  CHECK(ridge.result.memory_bytes == (17 * 18 / 2 + 4 * 17) * 4);  // pairs of channels and the constant, classes
  check(cts::core_tokens<>{.keep = 0.25}, 4);
  const auto coded = check(cts::core_tokenset<>{}, 8);
  CHECK(coded.result.memory_bytes == coded.file_bytes);
  const auto tokens = check(papers{.keep = 0.25}, 4);
  CHECK(tokens.result.memory_bytes == tokens.file_bytes);
  CHECK(tokens.result.memory_bytes > tokens.result.budget_bytes * 9 / 10);
  const auto whole = check(cts::coreset<>{.select = {}, .price = cts::picture_price::raw}, 16);
  CHECK(whole.result.memory_bytes == whole.file_bytes);
}

TEST_CASE("joint training sees all tasks, and class means keep the model as the first task left it", "[learner]") {
  const auto stream = support::coloured_stream();
  cts::learner_options o{.fit = {.epochs = 8, .batch = 8, .token_drop = 0}};
  backend b(2);
  cts::continual_learner all(b, small_model(b), o, cts::joint<>{}, cts::ace{}, cts::adamw{.learning_rate = 3e-3});
  const auto joint = cts::run_sequence(all, stream);
  CHECK(joint.accuracy[1][0] > 0.9);
  CHECK(joint.accuracy[1][1] > 0.9);
  cts::continual_learner nothing(b, small_model(b), o, cts::none{}, cts::ace{}, cts::adamw{.learning_rate = 3e-3});
  CHECK(cts::run_sequence(nothing, stream).accuracy[1][0] < 0.6);

  cts::continual_learner means(b, small_model(b), o, cts::class_means{}, cts::ace{}, cts::adamw{.learning_rate = 3e-3});
  means.learn(stream[0]);
  const auto body = means.model().parameters().to_host(b);
  means.learn(stream[1]);
  const auto after = means.model().parameters().to_host(b);
  const auto head = means.model().layout().head.weight.offset;
  CHECK(std::equal(body.begin(), body.begin() + head, after.begin()));
  CHECK(means.evaluate(stream[0].test()).accuracy > 0.7);

  // A mean by hand: the label whose mean feature is nearest.
  const auto known = cts::run_model(b, means.model(), cts::merge(stream.tasks).train());
  const cts::nearest_class_mean by_hand(known.features, known.labels, 4);
  const auto test = cts::run_model(b, means.model(), stream[1].test());
  CHECK(means.evaluate(stream[1].test()).accuracy ==
        Approx(cts::accuracy<double>(by_hand.scores(test.features), test.labels)));
  std::vector<double> mean(16);
  double count = 0;
  for (std::size_t i = 0; i < known.labels.size(); ++i) {
    if (known.labels[i] != 2) continue;
    ++count;
    for (std::size_t d = 0; d < 16; ++d) mean[d] += double(known.features[16 * i + d]);
  }
  for (std::size_t d = 0; d < 16; ++d) CHECK(by_hand.mean(2)[d] == Approx(mean[d] / count));
  CHECK_THROWS_AS(cts::nearest_class_mean({}, {}, 3), cts::Error);
  const std::vector<std::int32_t> outside{3};
  CHECK_THROWS_AS(cts::nearest_class_mean(std::vector<float>{1}, outside, 3), cts::Error);
}

TEST_CASE("a coreset at the price of its files weighs what the chosen files weigh", "[learner]") {
  auto split = support::small_data();
  for (std::size_t i = 0; i < split.train.source_bytes.size(); ++i)
    split.train.source_bytes[i] = 100 + 50 * (split.train.labels[i] < 2 ? i % 3 : 200);
  auto large = split;
  for (std::size_t i = 0; i < split.train.source_bytes.size(); ++i) split.train.source_bytes[i] = 100 + 50 * (i % 3);
  const auto stream = cts::class_incremental(split, {.tasks = 2});
  auto options = quick_learner();
  options.budget = cts::bytes(1300);
  backend b(1);
  cts::continual_learner learner(b, small_model(b), options, cts::coreset<>{});
  const auto result = cts::run_sequence(learner, stream);
  cts::index weight = 0;
  for (const auto i : learner.sources())
    weight += static_cast<cts::index>(split.train.source_bytes[static_cast<std::size_t>(i)]) + 8;
  CHECK(result.memory_bytes == weight);
  CHECK(weight <= 1300);
  CHECK(weight > 1000);

  // A task whose files are all too large for what is left adds nothing, and is no error.
  const auto first_only = run(cts::class_incremental(large, {.tasks = 2}), cts::coreset<>{}, options);
  CHECK(first_only.result.memory_samples > 0);
  CHECK(first_only.result.memory_bytes <= 650);
}

TEST_CASE("a run is the same to the bit for any number of threads, and after a stop", "[learner]") {
  const auto stream = small_stream();
  auto options = quick_learner();
  options.fit.flip = 0.5, options.fit.augment_replay = true;
  const cts::core_tokenset<> how{.keep = 0.25};
  const auto want = run(stream, how, options, {}, 1);
  CHECK(run(stream, how, options, {}, 3).parameters == want.parameters);

  // A run that is cut off in its second task leaves what was saved after the first.
  const support::scratch_folder folder;
  auto cut_off = options;
  cut_off.fit.on_progress = [](const cts::progress& p) {
    if (p.what == "task 2/2") throw std::runtime_error("cut off");
  };
  CHECK_THROWS_AS(run(stream, how, cut_off, {.out = folder.path}), std::runtime_error);
  const auto got = run(stream, how, options, {.out = folder.path, .resume = true});
  CHECK(got.parameters == want.parameters);
  CHECK(got.pixels == want.pixels);
  CHECK(got.result.accuracy == want.result.accuracy);
  CHECK(folder.entries() == 3);  // what was saved before is gone

  // Other settings and other data are told by name.
  const auto told = [&](const auto& strategy, const cts::learner_options& o, const cts::task_stream& data) {
    return message_of([&] { run(data, strategy, o, {.out = folder.path, .resume = true}); });
  };
  auto other = options;
  other.fit.epochs = 2;
  CHECK(has(told(how, other, stream), "fit.epochs was \"1\", now it is \"2\""));
  CHECK(has(told(cts::core_tokenset<>{.keep = 0.5}, options, stream), "strategy was"));
  other = options;
  other.budget = cts::bytes(5000);
  CHECK(has(told(how, other, stream), "budget.amount was"));
  auto split = support::small_data();
  split.train.pixels[5] ^= 1;
  CHECK(has(told(how, options, cts::class_incremental(split, {.tasks = 2})), "other data"));
  std::ofstream(folder.path / "learner.json", std::ios::app) << " ";
  CHECK(told(how, options, stream).empty());  // a blank means nothing
  {
    std::fstream file(folder.path / "model-2.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
  }
  CHECK(has(told(how, options, stream), "altered"));
}

TEST_CASE("a saved learner goes on where it stopped, with its classes and its pictures' normalisation", "[learner]") {
  const auto stream = support::coloured_stream();
  const support::scratch_folder folder;
  backend b(2);
  auto start = small_model(b);
  start.set_normalisation({{0.4f, 0.5f, 0.6f}, {0.3f}});
  auto options = quick_learner();
  cts::continual_learner learner(b, std::move(start), options);
  learner.learn(stream[0]);
  learner.save(folder.path);
  auto again = cts::load_learner(b, folder.path);
  CHECK(again.model().config().class_names == std::vector<std::string>{"red", "green"});
  CHECK(again.model().config().normalisation.mean == std::vector<float>{0.4f, 0.5f, 0.6f});
  CHECK(again.options().fit.token_drop == 0.5);
  CHECK(again.tasks_learnt() == 1);
  const auto picture = stream.data().test.view_of(0);
  CHECK(again.predict(picture).all == learner.predict(picture).all);
  CHECK(again.predict(cts::resize(picture, 40, 30)).all.size() == 2);
  learner.learn(stream[1]);
  again.learn(stream[1]);
  CHECK(again.model().parameters().to_host(b) == learner.model().parameters().to_host(b));
  CHECK(again.memory().arrays().pixels == learner.memory().arrays().pixels);
  CHECK(has(message_of([&] { cts::load_learner(b, folder.path / "none"); }), "no learner was saved here"));
  CHECK(has(message_of([&] { cts::load_learner(b, folder.path, cts::none{}); }), "strategy was"));
}

TEST_CASE("data that arrive without a plan: classes by name, old ones again, room in a fixed budget", "[learner]") {
  const auto all = support::coloured(20, 4);
  const auto only = [&](std::vector<std::int32_t> wanted) {
    std::vector<cts::index> some;
    for (cts::index i = 0; i < all.n(); ++i) {
      if (std::find(wanted.begin(), wanted.end(), all.label(i)) != wanted.end()) some.push_back(i);
    }
    auto part = cts::subset(all, some);
    std::vector<std::string> names;
    for (auto& label : part.labels)
      label = static_cast<std::int32_t>(std::find(wanted.begin(), wanted.end(), label) - wanted.begin());
    for (const auto k : wanted) names.push_back(all.class_names[static_cast<std::size_t>(k)]);
    part.class_names = names;
    return part;
  };
  backend b(2);
  cts::learner_options o{.budget = cts::kibibytes(6),
                         .fit = {.epochs = 8, .batch = 8, .replay_batch = 8, .token_drop = 0}};
  cts::continual_learner learner(b, small_model(b), o, random_papers{.keep = 0.25}, cts::ace{},
                                 cts::adamw{.learning_rate = 3e-3});
  const auto first = learner.learn(only({2, 0}), "blue and red");
  CHECK(first.memory_bytes <= 6 * 1024);
  CHECK(first.memory_bytes > 5 * 1024);
  CHECK(learner.model().config().class_names == std::vector<std::string>{"blue", "red"});
  const auto second = learner.learn(only({3, 0}), "white, and red again");
  CHECK(learner.model().config().class_names == std::vector<std::string>{"blue", "red", "white"});
  CHECK(second.memory_bytes <= 6 * 1024);
  learner.learn(only({1}), "green alone");
  CHECK(learner.memory_bytes() <= 6 * 1024);
  CHECK(learner.memory_bytes() > 5 * 1024);
  std::map<std::int32_t, int> kept;
  for (const auto target : learner.memory().arrays().targets) ++kept[target];
  CHECK(kept.size() == 4);
  for (const auto& [target, count] : kept) CHECK(count >= 4);
  CHECK(learner.evaluate(all).accuracy > 0.7);  // labels of another order are told by their names
  CHECK(learner.predict(all.view_of(0)).name == "red");
  auto strange = only({1});
  strange.class_names = {"unheard of"};
  CHECK(learner.evaluate(strange).accuracy == 0);
}

TEST_CASE("the same classes in another domain: the head stays, and the memory keeps both", "[learner]") {
  const auto darker = [](cts::dataset d) {
    for (auto& x : d.pixels) x = static_cast<std::uint8_t>(255 - x);
    return d;
  };
  const auto stream =
      cts::arriving({{"bright", {support::coloured(20, 1), support::coloured(10, 2)}},
                     {"inverted", {darker(support::coloured(20, 3)), darker(support::coloured(10, 4))}}});
  backend b(2);
  const cts::learner_options o{.budget = cts::kibibytes(24),
                               .fit = {.epochs = 12, .batch = 8, .replay_batch = 8, .token_drop = 0}};
  const auto run = [&](const auto& strategy) {
    cts::continual_learner learner(b, small_model(b), o, strategy, cts::ace{}, cts::adamw{.learning_rate = 3e-3});
    const auto result = cts::run_sequence(learner, stream);
    CHECK(learner.model().config().classes == 4);
    CHECK(result.accuracy[0][0] > 0.9);
    CHECK(result.accuracy[1][1] > 0.6);  // of one in four; two domains are more to learn than one
    return std::pair(result.accuracy[1][0], learner.memory().samples());
  };
  const auto [forgotten, nothing] = run(cts::none{});
  const auto [remembered, samples] = run(cts::core_tokens<>{});
  CHECK(nothing == 0);
  CHECK(samples > 20);
  CHECK(remembered > forgotten + 0.2);
}

TEST_CASE("a class that comes back alone is learnt, though it is the last that is known", "[learner]") {
  const auto of = [](std::vector<std::int32_t> classes) { return cts::task{.classes = std::move(classes)}; };
  cts::token_memory memory(cts::patch_grid{16, 16, 3, 4});
  CHECK(cts::first_new_class(of({2, 3}), 2, memory) == 2);
  CHECK(cts::first_new_class(of({3, 2}), 2, memory) == 2);
  CHECK(cts::first_new_class(of({3, 2}), 4, memory) == 2);  // the same task again, which is not in the memory yet
  CHECK(cts::first_new_class(of({2}), 2, memory) == 2);
  CHECK(cts::first_new_class(of({2}), 3, memory) == 0);
  CHECK(cts::first_new_class(of({1}), 3, memory) == 0);
  CHECK(cts::first_new_class(of({1, 2}), 4, memory) == 0);
  CHECK(cts::first_new_class(of({0, 2}), 0, memory) == 0);
  CHECK(cts::first_new_class(of({1, 2}), 2, memory) == 1);
  const std::vector<std::uint8_t> pixels(48);
  const std::vector<std::uint16_t> places{0};
  memory.append({.patches = pixels, .positions = places, .target = 1});
  CHECK(cts::first_new_class(of({1, 2}), 2, memory) == 0);
  CHECK(cts::first_new_class(of({2, 3}), 2, memory) == 2);

  const auto white = [](cts::dataset d) {  // the last class alone, and dark
    d = cts::select_classes(d, {3, 3});
    for (auto& x : d.pixels) x = static_cast<std::uint8_t>(255 - x);
    return d;
  };
  const auto stream = cts::arriving({{"all", {support::coloured(20, 1), support::coloured(10, 2)}},
                                     {"dark", {white(support::coloured(20, 3)), white(support::coloured(10, 4))}}});
  backend b(2);
  cts::continual_learner learner(b, small_model(b), {.fit = {.epochs = 8, .batch = 8, .token_drop = 0}}, cts::none{},
                                 cts::ace{}, cts::adamw{.learning_rate = 3e-3});
  const auto result = cts::run_sequence(learner, stream);
  CHECK(result.accuracy[1][1] > 0.9);
}

TEST_CASE("a budget that holds nothing is refused before training and the least that would do is named", "[learner]") {
  const auto stream = small_stream();
  const auto refused = [&](const auto& strategy) {
    INFO(cts::text_of(strategy));
    const auto learner_with = [&](cts::index bytes) {
      auto options = quick_learner();
      options.budget = cts::bytes(bytes);
      static backend b(1);
      return cts::continual_learner(b, small_model(b), options, strategy);
    };
    auto hopeless = learner_with(100);
    backend b(1);
    const auto before = hopeless.model().parameters().to_host(b);
    const std::string said = message_of([&] { hopeless.learn(stream[0]); });
    CHECK(has(said, "budget: 100 bytes hold nothing: after task 1 of 2 the memory may cost 50 bytes"));
    CHECK(hopeless.tasks_learnt() == 0);
    CHECK(hopeless.model().parameters().to_host(b) == before);
    const cts::index least = std::stol(said.substr(said.rfind("; ") + 2));
    CHECK(has(message_of([&] { learner_with(least - 2).learn(stream[0]); }), "hold nothing"));
    CHECK(learner_with(least).learn(stream[0]).budget_bytes == least / 2);
  };
  refused(cts::core_tokenset<>{});
  refused(cts::coreset<>{});
  refused(cts::coreset<>{.price = cts::picture_price::raw});
}

TEST_CASE("a budget may be for each task or each class, in a stream and for what arrives", "[learner]") {
  const auto stream = small_stream();
  const auto memory_after = [&](cts::byte_budget budget, bool known_end) {
    auto options = quick_learner();
    options.budget = budget;
    backend b(1);
    cts::continual_learner learner(b, small_model(b), options);
    std::vector<cts::index> budgets;
    for (cts::index t = 0; t < stream.size(); ++t) {
      auto next = stream[t];
      if (!known_end) next.of = 0;
      const auto done = learner.learn(next);
      CHECK(done.memory_bytes <= done.budget_bytes);
      CHECK(done.memory_samples > 0);
      budgets.push_back(done.budget_bytes);
    }
    return budgets;
  };
  backend b(1);
  const auto model = small_model(b);
  cts::core_tokenset<> recipe;
  auto memory = empty_memory(recipe, {.grid = model.config().grid});
  CHECK(has(message_of([&] {
              cts::consolidate(b, recipe, model, stream[0], memory,
                               cts::per(cts::budget_of::every_class, cts::kibibytes(2)));
            }),
            "for each class"));
  using sizes = std::vector<cts::index>;
  CHECK(memory_after(cts::kibibytes(4), true) == sizes{2048, 4096});
  CHECK(memory_after(cts::kibibytes(4), false) == sizes{4096, 4096});
  for (const bool known_end : {true, false}) {
    CHECK(memory_after(cts::per(cts::budget_of::every_task, cts::kibibytes(3)), known_end) == sizes{3072, 6144});
    CHECK(memory_after(cts::per(cts::budget_of::every_class, cts::kibibytes(2)), known_end) == sizes{4096, 8192});
  }
}

TEST_CASE("rows of the head are imprinted when they are new, and not again when their classes come back", "[learner]") {
  const auto stream = support::coloured_stream();
  backend b(1);
  auto model = small_model(b);
  const cts::token_memory memory(model.config().grid);
  const auto head = [&] {
    const auto values = model.parameters().to_host(b);
    return std::vector(values.begin() + model.layout().head.weight.offset, values.end());
  };
  const auto nothing_moves = cts::sgd{.learning_rate = 0};
  auto o = support::quick();
  o.imprint = true;
  cts::fit(b, model, stream[0], memory, o);
  const auto old = head();
  cts::fit(b, model, stream[1], memory, o, cts::ace{}, nothing_moves);
  const auto grown = head();
  CHECK(std::equal(old.begin(), old.begin() + 32, grown.begin()));
  const cts::nearest_class_mean means(cts::run_model(b, model, stream[1].train()).features,
                                      cts::run_model(b, model, stream[1].train()).labels, 4);
  for (std::size_t d = 1; d < 16; ++d)  // in proportion
    CHECK(double(grown[32 + d]) * means.mean(2)[0] == Approx(double(grown[32]) * means.mean(2)[d]).margin(1e-5));
  cts::fit(b, model, stream[1], memory, o);
  const auto learnt = head();
  CHECK(learnt != grown);
  cts::fit(b, model, stream[1], memory, o, cts::ace{}, nothing_moves);
  CHECK(head() == learnt);

  // A learner gives a trained model a fresh head for its first task, whose rows are new as well.
  cts::continual_learner learner(b, std::move(model), {.budget = cts::kibibytes(64), .fit = o}, cts::none{}, cts::ace{},
                                 nothing_moves);
  learner.learn(stream[0]);
  const auto& m = learner.model();
  const auto seen = cts::run_model(b, m, stream[0].train());
  const cts::nearest_class_mean first(seen.features, seen.labels, 2);
  const auto values = m.parameters().to_host(b);
  const auto* row = values.data() + m.layout().head.weight.offset;
  for (std::size_t d = 1; d < 16; ++d)
    CHECK(double(row[d]) * first.mean(0)[0] == Approx(double(row[0]) * first.mean(0)[d]).margin(1e-5));
}

TEST_CASE("slower backbones, imprinted rows and aligned heads", "[learner]") {
  const auto stream = support::coloured_stream();
  backend b(1);
  auto model = small_model(b);
  const cts::token_memory memory(model.config().grid);
  auto o = support::quick();
  cts::fit(b, model, stream[0], memory, o);
  const auto before = model.parameters().to_host(b);
  const auto head = model.layout().head.weight;
  o.backbone_rate = 0;
  cts::fit(b, model, stream[0], memory, o);
  const auto after = model.parameters().to_host(b);
  CHECK(std::equal(before.begin(), before.begin() + head.offset, after.begin()));
  CHECK_FALSE(std::equal(before.begin() + head.offset, before.end(), after.begin() + head.offset));

  // Imprinted rows point at the mean feature of their class, at the length of the older rows.
  cts::prepare_head(b, model, stream[1]);
  cts::imprint_head(b, model, stream[1].train(), 2);
  const auto known = cts::run_model(b, model, stream[1].train());
  const cts::nearest_class_mean means(known.features, known.labels, 4);
  const auto values = model.parameters().to_host(b);
  const auto row = [&](cts::index k) {
    const auto first = values.begin() + model.layout().head.weight.offset + 16 * k;
    return std::vector<double>(first, first + 16);
  };
  const auto length = [](const std::vector<double>& x) {
    double sum = 0;
    for (const double v : x) sum += v * v;
    return std::sqrt(sum);
  };
  const double old = (length(row(0)) + length(row(1))) / 2;
  for (cts::index k = 2; k < 4; ++k) {
    const auto mean = means.mean(k);
    double product = 0;
    for (std::size_t d = 0; d < 16; ++d) product += mean[d] * row(k)[d];
    CHECK(product / (length(mean) * length(row(k))) == Approx(1).epsilon(1e-5));
    CHECK(length(row(k)) == Approx(old).epsilon(1e-5));
  }
  auto stretched = values;
  for (int i = 0; i < 32; ++i) stretched[static_cast<std::size_t>(model.layout().head.weight.offset + 32 + i)] *= 3;
  cts::vit<backend> longer = model.copy(b);
  longer.parameters().assign(b, 1, static_cast<cts::index>(stretched.size()), stretched.data());
  cts::align_head(b, longer, 2);
  const auto aligned = longer.parameters().to_host(b);
  for (std::size_t i = 0; i < aligned.size(); ++i) CHECK(aligned[i] == Approx(values[i]).epsilon(1e-4).margin(1e-7));
}

TEST_CASE("training aligns heads where it shall, and only the rows that are new", "[fit]") {
  const auto stream = support::coloured_stream();
  backend b(1);
  const auto start = [&] {
    auto model = small_model(b);
    cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), support::quick());
    return model;
  };
  auto plain = start(), aligned = start();
  auto o = support::quick();
  const cts::token_memory nothing(plain.config().grid);
  cts::fit(b, plain, stream[1], nothing, o);
  o.align = true;
  cts::fit(b, aligned, stream[1], nothing, o);
  CHECK(aligned.parameters().to_host(b) != plain.parameters().to_host(b));
  cts::align_head(b, plain, 2);
  CHECK(aligned.parameters().to_host(b) == plain.parameters().to_host(b));
}

TEST_CASE("stored logits and distillation run inside a learner, and cost what they cost", "[learner]") {
  const auto stream = small_stream();
  backend b(2);
  const auto learn = [&](const auto& objective) {
    cts::continual_learner learner(b, small_model(b), quick_learner(), random_papers{.keep = 0.25}, objective);
    const auto result = cts::run_sequence(learner, stream);
    CHECK(result.memory_bytes <= result.budget_bytes);
    return learner.memory();
  };
  const auto plain = learn(cts::ace{}), der = learn(cts::dark_experience<>{.base = {}, .alpha = 0.5, .top = 2});
  learn(cts::distilled<>{});
  CHECK(der.format().columns.size() == 2);
  CHECK(der.samples() < plain.samples());  // 8 bytes a sample
  cts::detail::recalled_logits stored;
  const std::vector<cts::index> first{0}, last{der.samples() - 1};
  stored.read(der, first);
  CHECK(std::set<std::int32_t>(stored.classes.begin(), stored.classes.end()) == std::set<std::int32_t>{0, 1});
  CHECK(stored.values[0] >= stored.values[1]);
  stored.read(der, last);
  CHECK(stored.classes.size() == 2);
}

TEST_CASE("distillation holds what the model said of old classes when the task came", "[learner]") {
  const auto stream = small_stream();
  backend b(2);
  const auto drift = [&](const auto& objective) {  // of the difference between the two old classes
    cts::continual_learner learner(b, small_model(b), quick_learner(), cts::none{}, objective);
    learner.learn(stream[0]);
    const auto before = cts::run_model(b, learner.model(), stream[1].train());
    learner.learn(stream[1]);
    const auto after = cts::run_model(b, learner.model(), stream[1].train());
    double sum = 0;
    for (std::size_t i = 0; i < before.labels.size(); ++i) {
      const double was = before.logits[2 * i] - before.logits[2 * i + 1];
      const double is = after.logits[4 * i] - after.logits[4 * i + 1];
      sum += std::abs(is - was);
    }
    return sum / static_cast<double>(before.labels.size());
  };
  CHECK(drift(cts::distilled<>{.weight = 30}) < 0.7 * drift(cts::ace{}));
}

}  // namespace train_learner_tests
