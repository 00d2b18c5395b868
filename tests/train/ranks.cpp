// Training on several ranks: any number of them that shares the pieces of a step gives the same bits, also when it is
// interrupted and goes on with another number; what differs between ranks, and a rank that ends, is an error on all.

#include <mutex>

#include "core_tokensets/train/objectives/objectives.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "support/thread_ranks.hpp"
#include "train/support.hpp"

namespace train_ranks_tests {

namespace {

namespace cts = core_tokensets;
using support::message_of;
using support::on_ranks;

/// Augmentation, thinning, mirrored replay, a last batch of an epoch that is smaller than the number of pieces, and
/// pieces that are not equal.
cts::learner_options everything(cts::index pieces) {
  return {.budget = cts::fraction(0.3),
          .fit = {.epochs = 2,
                  .batch = 7,
                  .replay_batch = 6,
                  .token_drop = 0.5,
                  .shift = 2,
                  .flip = 0.5,
                  .augment_replay = true,
                  .checkpoint = {.seconds = 1e9},
                  .pieces = pieces}};
}

/// What a run leaves: parameters, memory, results.
template <class T>
struct outcome {
  std::vector<T> parameters;
  std::string memory, results;
  bool operator==(const outcome&) const = default;
};

/// Both tasks on so many ranks, stopped by rank `size - 1` after `steps` steps (-1: never), in a folder of all of them.
/// What the ranks leave must be the same; nothing where the run was stopped.
template <class T, class Objective = cts::ace, class Select = cts::grad_match>
std::optional<outcome<T>> run(int size, cts::learner_options o, const std::filesystem::path& out, int steps = -1,
                              const Objective& what = {}, const Select& select = {}) {
  using backend = cts::eigen_backend<T>;
  const auto stream = support::small_stream();
  std::mutex one;
  std::vector<outcome<T>> found;
  on_ranks(size, [&](const cts::team& ranks) {
    backend b(1);
    auto mine = o;
    mine.fit.ranks = ranks;
    int left = ranks.rank() == size - 1 ? steps : -1;
    mine.fit.checkpoint.stop = [&left] { return --left == 0; };
    cts::core_tokenset<Select> how{.select = select};
    if constexpr (requires { how.select.ranks; }) how.select.ranks = ranks;
    cts::continual_learner learner(b, support::small_model(b), mine, how, what);
    try {
      auto result = cts::run_sequence(learner, stream, {.out = out, .resume = true});
      result.train_seconds = result.select_seconds = result.attribute_seconds = result.evaluate_seconds = 0;
      const support::scratch_folder folder;
      learner.memory().save(folder.path / "memory.safetensors");
      const std::lock_guard hold(one);
      found.push_back({learner.model().parameters().to_host(b), cts::read_text(folder.path / "memory.safetensors"),
                       cts::to_json(result).dump()});
    } catch (const cts::stopped&) {
    }
  });
  if (found.empty()) return {};
  CHECK(static_cast<int>(found.size()) == size);
  for (const auto& other : found) CHECK((other == found.front()));
  return found.front();
}

bool has_all(const std::string& text, const std::vector<std::string>& parts) {
  return std::all_of(parts.begin(), parts.end(), [&](const std::string& part) { return support::has(text, part); });
}

template <class T, class Objective = cts::ace>
std::optional<outcome<T>> run_alone(int size, const cts::learner_options& o, const Objective& what = {}) {
  const support::scratch_folder folder;
  return run<T>(size, o, folder.path, -1, what);
}

}  // namespace

TEMPLATE_TEST_CASE("1, 2 and 4 ranks give the same bits", "[ranks]", double, float) {
  const auto o = everything(4);
  const auto want = run_alone<TestType>(1, o);
  REQUIRE(want);
  CHECK((run_alone<TestType>(2, o) == want));
  CHECK((run_alone<TestType>(4, o) == want));
  CHECK_FALSE((run_alone<TestType>(1, everything(2)) == want));  // pieces are batches of their own
}

TEST_CASE("so they do with stored logits, the model as the task found it, and tokens lost as in the memory",
          "[ranks]") {
  auto o = everything(4);
  o.fit.drop_rule = cts::token_drop_rule::memory, o.fit.align = true, o.fit.backbone_rate = 0.3;
  const cts::dark_experience<cts::distilled<>> what{.base = {}, .alpha = 0.5, .top = 2};
  const auto want = run_alone<float>(1, o, what);
  REQUIRE(want);
  CHECK((run_alone<float>(4, o, what) == want));
}

TEST_CASE("a run that is stopped goes on with another number of ranks to the same bits", "[ranks]") {
  const auto o = everything(4);
  const auto want = run_alone<double>(1, o);
  const support::scratch_folder folder;
  CHECK_FALSE(run<double>(4, o, folder.path, 5));  // rank 3 is asked to stop
  CHECK(std::filesystem::exists(folder.path / cts::half_learnt_file));
  CHECK_FALSE(run<double>(1, o, folder.path, 3));
  CHECK_FALSE(run<double>(2, o, folder.path, 2 * 4 - 5));
  auto other = o;
  other.fit.pieces = 2;
  CHECK(has_all(message_of([&] { (void)run<double>(1, other, folder.path); }), {"pieces", "4", "2"}));
  CHECK((run<double>(2, o, folder.path) == want));
  CHECK_FALSE(std::filesystem::exists(folder.path / cts::half_learnt_file));
}

TEST_CASE("as many pieces as ranks unless it is said", "[ranks]") {
  CHECK((run_alone<double>(2, everything(0)) == run_alone<double>(1, everything(2))));
  CHECK((run_alone<float>(1, everything(0)) == run_alone<float>(1, everything(1))));
}

TEST_CASE("pieces that ranks cannot share are refused", "[ranks]") {
  CHECK(has_all(message_of([] { check(cts::fit_options{.pieces = 6}); }), {"6 pieces", "power of two"}));
  CHECK(has_all(message_of([] { check(cts::fit_options{.pieces = -2}); }), {"-2 pieces"}));
  const auto told = [](int size, cts::index pieces) {
    const support::thread_ranks first(0, size);
    return message_of([&] { check(cts::fit_options{.ranks = first, .pieces = pieces}); });
  };
  CHECK(has_all(told(2, 1), {"2 ranks", "1 pieces"}));
  CHECK(has_all(told(3, 0), {"3 pieces", "as many ranks"}));
  CHECK(told(4, 8).empty());
}

TEST_CASE("a step in pieces has the mean of their gradients and losses", "[ranks]") {
  // Four samples of one piece each, without anything random: the step of the whole batch but for rounding.
  cts::eigen_backend<double> b(1);
  const auto data = support::small_data().train;
  const auto last_loss = [&](cts::index pieces) {
    cts::vit<cts::eigen_backend<double>> model(b, {.grid = {16, 16, 3, 4}, .dim = 16, .depth = 2, .heads = 2});
    std::vector<cts::index> some{0, 13, 26, 39};
    const auto report = cts::fit(b, model, cts::sample_view<cts::dataset>(data, some),
                                 {.epochs = 3, .batch = 4, .token_drop = 0, .shift = 0, .flip = 0, .pieces = pieces});
    return report.loss;
  };
  const double whole = last_loss(1);
  CHECK(last_loss(2) == Approx(whole).epsilon(1e-10));
  CHECK(last_loss(4) == Approx(whole).epsilon(1e-10));
}

TEST_CASE("new and replayed samples count as much in pieces as in one batch", "[ranks]") {
  // One new sample in a step and six replayed ones that weigh the same: a piece without a new one, one with it.
  cts::eigen_backend<double> b(1);
  const auto stream = support::small_stream();
  const auto start = support::small_model(b);
  cts::token_memory memory({.grid = start.config().grid});
  const cts::core_tokenset<cts::random_selection, cts::grad_lrp, cts::chance_tokens, cts::raw_codec> whole{.keep = 1};
  (void)cts::consolidate(b, whole, start, stream[0], memory, cts::index{1} << 20);
  REQUIRE(memory.samples() >= 6);
  const auto parameters_of = [&](cts::index pieces) {
    auto model = start.copy(b);
    cts::fit_options o{.epochs = 1, .batch = 1, .replay_batch = 6, .imprint = false, .token_drop = 0, .shift = 0};
    o.flip = 0, o.pieces = pieces, o.clip = 0;
    cts::fit(b, model, stream[1], memory, o, cts::summed{}, cts::sgd{.learning_rate = 0.01});
    return model.parameters().to_host(b);
  };
  const auto want = parameters_of(1), got = parameters_of(2);
  REQUIRE(got.size() == want.size());
  const auto before = start.parameters().to_host(b);
  double worst = 0, moved = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(got[i] - want[i])), moved = std::max(moved, std::abs(want[i] - before[i]));
  }
  CHECK(worst < 1e-6 * moved);  // weights of samples are float
}

TEST_CASE("a stop between two tasks ends all ranks there", "[ranks]") {
  const auto stream = support::small_stream();
  for (const int asked : {0, 1}) {
    const support::scratch_folder folder;
    int ended[2] = {};
    on_ranks(2, [&](const cts::team& ranks) {
      cts::eigen_backend<float> b(1);
      auto o = everything(2);
      o.fit.ranks = ranks;
      bool stop = false;
      o.fit.checkpoint.stop = [&stop] { return stop; };
      cts::continual_learner learner(b, support::small_model(b), o);
      const auto after = [&](const cts::learnt_task&, const cts::sequence_result&) { stop = ranks.rank() == asked; };
      try {
        (void)cts::run_sequence(learner, stream, {.out = folder.path, .after_task = after});
      } catch (const cts::stopped&) {
        ended[ranks.rank()] = static_cast<int>(learner.tasks_learnt());
      }
    });
    CHECK(ended[0] == 1);
    CHECK(ended[1] == 1);
  }
}

TEST_CASE("ranks that do not see the same interrupted training, or make other calls, are told", "[ranks]") {
  const auto stream = support::small_stream();
  const support::scratch_folder folder;
  const auto learn = [&](const cts::team& ranks, const std::string& file, int steps) {
    cts::eigen_backend<float> b(1);
    auto model = support::small_model(b);
    auto o = support::quick();
    o.ranks = ranks, o.pieces = 2, o.checkpoint.file = folder.path / file;
    o.checkpoint.stop = [&steps] { return --steps == 0; };
    cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o);
  };
  CHECK_THROWS_AS(learn({}, "here", 2), cts::stopped);
  const auto told = [&](const auto& body) { return message_of([&] { on_ranks(2, body); }); };
  CHECK(has_all(told([&](const cts::team& r) { learn(r, r.rank() == 0 ? "here" : "elsewhere", -1); }),
                {"ranks 0 and 1 do not go on from the same interrupted training"}));
  CHECK(has_all(told([](const cts::team& r) { r.rank() == 0 ? r.wait("saving") : (void)r.any(false, "asking"); }),
                {"rank 1 is asking: all ranks must make the same calls", "noticed while saving"}));
}

TEST_CASE("the loss that is told is the mean over the pieces of all ranks", "[ranks]") {
  const auto stream = support::small_stream();
  double want = 0;
  for (const int size : {1, 2, 4}) {
    std::vector<double> got(static_cast<std::size_t>(size));
    on_ranks(size, [&](const cts::team& ranks) {
      cts::eigen_backend<float> b(1);
      auto model = support::small_model(b);
      auto o = support::quick();
      o.ranks = ranks, o.pieces = 4;
      got[static_cast<std::size_t>(ranks.rank())] =
          cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o).loss;
    });
    if (size == 1) want = got[0];
    CHECK(got == std::vector<double>(got.size(), want));
  }
  CHECK(want > 0);
}

TEST_CASE("ranks that would learn different things are told which", "[ranks]") {
  const auto stream = support::small_stream();
  const auto learn = [&](const cts::team& ranks, std::uint64_t seed, cts::index task) {
    cts::eigen_backend<float> b(1);
    auto model = support::small_model(b);
    auto o = support::quick();
    o.ranks = ranks, o.seed = seed;
    cts::fit(b, model, stream[task], cts::token_memory(model.config().grid), o);
  };
  const auto told = [&](const auto& body) { return message_of([&] { on_ranks(2, body); }); };
  CHECK(has_all(told([&](const cts::team& r) { learn(r, r.rank() == 1 ? 7 : 0, 0); }), {"rank 1", "seed", "7"}));
  CHECK(has_all(told([&](const cts::team& r) { learn(r, 0, r.rank()); }), {"rank 1", "data"}));
}

TEST_CASE("where a rank ends by an error the others say so, and what they did", "[ranks]") {
  const auto stream = support::small_stream();
  std::string said[2];
  CHECK_THROWS(on_ranks(2, [&](const cts::team& ranks) {
    cts::eigen_backend<float> b(1);
    auto model = support::small_model(b);
    auto o = support::quick();
    o.ranks = ranks;
    int steps = 0;
    o.on_progress = [&](const cts::progress&) {
      if (ranks.rank() == 1 && ++steps == 2) throw std::runtime_error("the disk is on fire");
    };
    try {
      cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o);
    } catch (const std::exception& e) {
      said[ranks.rank()] = e.what();
      throw;
    }
  }));
  CHECK(said[1] == "the disk is on fire");
  CHECK(has_all(said[0], {"rank 0 of 2", "rank 1 has ended: the disk is on fire", "noticed while"}));
}

TEST_CASE("ranks share the batches of an evaluation", "[ranks]") {
  const auto data = support::coloured(70, 1);  // 280 pictures, 3 batches
  const auto stream = cts::class_incremental({data, data}, {.tasks = 1});
  double want = 0;
  for (const int size : {1, 2, 4, 8}) {
    std::vector<double> got(static_cast<std::size_t>(size));
    on_ranks(size, [&](const cts::team& ranks) {
      cts::eigen_backend<float> b(1);
      cts::continual_learner learner(
          b, support::small_model(b),
          {.budget = cts::fraction(0.1), .fit = {.epochs = 2, .batch = 32, .ranks = ranks, .pieces = 8}});
      learner.learn(stream[0]);
      got[static_cast<std::size_t>(ranks.rank())] = learner.evaluate(stream[0].test()).accuracy;
      if (ranks.leads()) (void)learner.predict(data.view_of(0));  // one alone may ask about one picture
    });
    if (size == 1) want = got[0];
    CHECK(got == std::vector<double>(got.size(), want));
  }
  CHECK(want > 0.3);
}

}  // namespace train_ranks_tests
