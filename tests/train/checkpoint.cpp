// Training that is stopped within a task goes on to the same bytes: parameters, memory, results; files that are damaged
// or of another training are refused.

#include "core_tokensets/train/checkpoint.hpp"

#include <set>

#include "core_tokensets/train/frozen_features.hpp"
#include "core_tokensets/train/objectives/objectives.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "train/support.hpp"

namespace train_checkpoint_tests {

namespace {

namespace cts = core_tokensets;
using support::backend;
using support::has;
using support::message_of;
using support::small_model;

/// Everything random at once: augmentation, thinning, mirrored replay, batches that run over the end of an epoch.
cts::learner_options everything_random() {
  return {.budget = cts::fraction(0.3),
          .fit = {.epochs = 4,
                  .batch = 7,
                  .replay_batch = 5,
                  .token_drop = 0.5,
                  .shift = 2,
                  .flip = 0.5,
                  .augment_replay = true,
                  .checkpoint = {.seconds = 1e9}}};
}
constexpr int steps_of_a_task = 4 * 4;

/// What a run leaves behind.
struct outcome {
  std::vector<float> parameters;
  std::string memory, results;
};

template <class Learner>
outcome outcome_of(const Learner& learner, backend& b, cts::sequence_result result) {
  const support::scratch_folder folder;
  learner.memory().save(folder.path / "memory.safetensors");
  result.train_seconds = result.select_seconds = result.attribute_seconds = result.evaluate_seconds = 0;
  return {learner.model().parameters().to_host(b), cts::read_text(folder.path / "memory.safetensors"),
          cts::to_json(result).dump()};
}

/// A process of its own: a new learner that goes on in the folder, and is stopped after `steps` steps.
template <class Strategy, class Objective>
std::optional<outcome> run_for(int steps, const cts::task_stream& stream, cts::learner_options o, const Strategy& how,
                               const Objective& what, const std::filesystem::path& out, int threads) {
  backend b(threads);
  o.fit.checkpoint.stop = [&] { return --steps == 0; };
  cts::continual_learner learner(b, small_model(b), o, how, what);
  try {
    return outcome_of(learner, b, cts::run_sequence(learner, stream, {.out = out, .resume = true}));
  } catch (const cts::stopped&) {
    return {};
  }
}

/// Stops after each of `steps` steps in turn, then runs to the end.
template <class Strategy, class Objective>
outcome run_with_stops(const std::vector<int>& steps, const cts::task_stream& stream, const cts::learner_options& o,
                       const Strategy& how, const Objective& what, int threads) {
  const support::scratch_folder folder;
  for (const int s : steps) {
    CHECK_FALSE(run_for(s, stream, o, how, what, folder.path, threads));
    CHECK(std::filesystem::exists(folder.path / cts::half_learnt_file));
  }
  auto done = run_for(-1, stream, o, how, what, folder.path, threads);
  REQUIRE(done);
  CHECK_FALSE(std::filesystem::exists(folder.path / cts::half_learnt_file));
  return *done;
}

void check_same(const outcome& got, const outcome& want) {
  CHECK((got.parameters == want.parameters));
  CHECK((got.memory == want.memory));
  CHECK(got.results == want.results);
}

/// Stops at random moments, for one thread and for two.
template <class Strategy, class Objective = cts::ace>
void check_stops(const cts::task_stream& stream, const cts::learner_options& o, const Strategy& how,
                 const Objective& what = {}, int steps = 2 * steps_of_a_task) {
  const support::scratch_folder folder;
  const auto want = run_for(-1, stream, o, how, what, folder.path, 1);
  REQUIRE(want);
  cts::random_stream random(7);
  for (const int threads : {1, 2}) {
    for (int times = 0; times < 2; ++times) {
      std::vector<int> stops;
      for (int left = steps - 1; left > 1;) {
        stops.push_back(1 + static_cast<int>(random.below(std::min(left, 14))));
        left -= stops.back() + 1;  // one is asked when a task is saved
      }
      while (stops.size() > 4) stops.pop_back();
      INFO(stops[0] << " then " << (stops.size() > 1 ? stops[1] : 0) << " steps, " << threads << " threads");
      check_same(run_with_stops(stops, stream, o, how, what, threads), *want);
    }
  }
}

}  // namespace

TEST_CASE("a run that is stopped within tasks ends in the same bytes", "[checkpoint]") {
  const auto stream = support::small_stream();
  const auto o = everything_random();
  check_stops(stream, o, cts::core_tokenset<>{});
  check_stops(stream, o, cts::joint<>{});
  check_stops(stream, o, cts::class_means{}, cts::ace{}, steps_of_a_task);  // the second is not trained
}

TEST_CASE("so does one whose objective asks for the model as the task found it, or for stored logits", "[checkpoint]") {
  const auto stream = support::small_stream();
  auto o = everything_random();
  o.fit.drop_rule = cts::token_drop_rule::memory;
  o.fit.backbone_rate = 0.3, o.fit.align = true;
  check_stops(stream, o, cts::core_tokenset<>{}, cts::distilled<>{});
  check_stops(stream, o, cts::core_tokenset<>{.keep = 0.25},
              cts::dark_experience<>{.base = {}, .alpha = 0.5, .top = 2});
}

TEST_CASE("a run that is killed goes on from the last file, which is written as often as was asked", "[checkpoint]") {
  const auto stream = support::small_stream();
  auto o = everything_random();
  const support::scratch_folder whole, folder;
  const auto want = run_for(-1, stream, o, cts::core_tokenset<>{}, cts::ace{}, whole.path, 1);
  o.fit.checkpoint.seconds = 0;  // after every step
  for (const int killed_after : {3, 5, 4 * 4 + 2}) {
    auto killed = o;
    int steps = 0;
    killed.fit.on_progress = [&](const cts::progress&) {
      if (++steps > killed_after) throw std::runtime_error("killed");
    };
    CHECK_THROWS_AS(run_for(-1, stream, killed, cts::core_tokenset<>{}, cts::ace{}, folder.path, 1),
                    std::runtime_error);
    CHECK(std::filesystem::exists(folder.path / cts::half_learnt_file));
  }
  // How far it is, is said as in a run that was never interrupted.
  std::vector<std::string> told;
  o.fit.on_progress = [&](const cts::progress& p) {
    told.push_back(p.what + " " + std::to_string(p.done) + "/" + std::to_string(p.total) + " " + p.note);
    CHECK(p.seconds > 0);
  };
  const auto got = run_for(-1, stream, o, cts::core_tokenset<>{}, cts::ace{}, folder.path, 1);
  REQUIRE(got);
  check_same(*got, *want);
  std::vector<std::string> all;
  auto again = everything_random();
  again.fit.on_progress = [&](const cts::progress& p) {
    all.push_back(p.what + " " + std::to_string(p.done) + "/" + std::to_string(p.total) + " " + p.note);
  };
  const support::scratch_folder third;
  run_for(-1, stream, again, cts::core_tokenset<>{}, cts::ace{}, third.path, 1);
  REQUIRE(told.size() < all.size());
  CHECK(std::equal(told.rbegin(), told.rend(), all.rbegin()));

  // Where nothing is to be resumed the task begins anew.
  CHECK_FALSE(run_for(5, stream, everything_random(), cts::none{}, cts::ace{}, third.path / "x", 1));
  backend b(1);
  cts::continual_learner anew(b, small_model(b), everything_random(), cts::core_tokenset<>{});
  check_same(outcome_of(anew, b, cts::run_sequence(anew, stream, {.out = third.path / "x"})), *want);
}

TEST_CASE("fit by itself goes on from its file, which is its caller's to remove", "[checkpoint]") {
  const auto stream = support::small_stream();
  const support::scratch_folder folder;
  backend b(1);
  const auto fit = [&](int steps, cts::fit_options o, bool whole_data = false) {
    int asked = 0;
    o.checkpoint.stop = [&] { return ++asked == steps; };
    auto model = small_model(b);
    cts::fit_report report;
    try {
      report = whole_data ? cts::fit(b, model, stream.data().train, o)
                          : cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o);
    } catch (const cts::stopped& e) {
      CHECK(has(e.what(), "half.safetensors"));
      CHECK(asked == steps);
    }
    return std::pair(model.parameters().to_host(b), report);
  };
  auto o = everything_random().fit;
  const auto want = fit(0, o);
  CHECK(want.second.steps == 16);
  CHECK(want.second.loss > 0);
  CHECK(want.second.earlier_seconds == 0);
  o.checkpoint.file = folder.path / "made" / "half.safetensors";
  fit(6, o), fit(3, o), fit(6, o);
  const auto got = fit(0, o);
  CHECK(got.first == want.first);
  CHECK(got.second.loss == want.second.loss);
  CHECK(got.second.earlier_seconds > 0);
  CHECK(std::filesystem::exists(o.checkpoint.file));
  CHECK(folder.entries() == 1);

  o.checkpoint.file = folder.path / "half.safetensors";
  const auto of_data = fit(0, everything_random().fit, true);
  fit(9, o, true);
  CHECK(fit(0, o, true).first == of_data.first);

  // A training of one's own is told from all others.
  const auto told = [&](const cts::fit_options& other, int task = 0) {
    return message_of([&] {
      auto model = small_model(b);
      cts::fit(b, model, stream[task], cts::token_memory(model.config().grid), other);
    });
  };
  o.checkpoint.about["data"] = "scenes";
  std::filesystem::remove(o.checkpoint.file);
  fit(6, o);
  auto other = o;
  other.epochs = 5, other.flip = 0.25;
  other.checkpoint.about["data"] = "other scenes";
  const auto differs = told(other);
  CHECK(has(differs, "half.safetensors: belongs to a training with other settings or data"));
  CHECK(has(differs, "fit.epochs was \"4\", now it is \"5\""));
  CHECK(has(differs, "fit.flip was \"0.5\", now it is \"0.25\""));
  CHECK(has(differs, "about.data was \"scenes\", now it is \"other scenes\""));
  CHECK(has(told(o, 1), "task was 1, now it is 2"));
  CHECK(has(message_of([&] {
              auto model = small_model(b);
              cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o, cts::summed{});
            }),
            "objective was \"ace"));
  CHECK(has(message_of([&] {
              cts::vit<backend> model(
                  b, {.grid = {16, 16, 3, 4}, .dim = 16, .depth = 2, .heads = 2, .classes = 2, .seed = 9});
              cts::fit(b, model, stream[0], cts::token_memory(model.config().grid), o);
            }),
            "start_model was"));
  o.checkpoint.seconds = -1;
  CHECK(has(told(o), "checkpoint.seconds -1"));
}

TEST_CASE("a file that is damaged or something else is refused and stays as it is", "[checkpoint]") {
  const auto stream = support::small_stream();
  const support::scratch_folder folder;
  auto o = everything_random();
  CHECK_FALSE(run_for(5, stream, o, cts::none{}, cts::ace{}, folder.path, 1));
  const auto file = folder.path / cts::half_learnt_file;
  const std::string good = cts::read_text(file);
  const auto told = [&](const std::string& content) {
    cts::write_file(file, std::string_view(content));
    const auto said = message_of([&] { run_for(-1, stream, o, cts::none{}, cts::ace{}, folder.path, 1); });
    CHECK(has(said, cts::half_learnt_file));
    CHECK(cts::read_text(file) == content);
    return said;
  };
  for (const double part : {0.1, 0.3, 0.5, 0.7, 0.9, 0.999}) {
    auto flipped = good;
    auto& byte = flipped[static_cast<std::size_t>(part * static_cast<double>(good.size()))];
    byte = static_cast<char>(byte ^ 1);
    INFO("flipped at " << part);
    CHECK_FALSE(told(flipped).empty());
    CHECK_FALSE(told(good.substr(0, static_cast<std::size_t>(part * static_cast<double>(good.size())))).empty());
  }
  auto last = good;
  last.back() = static_cast<char>(last.back() ^ 1);
  CHECK(has(told(last), "altered (its checksum does not match); remove it to begin the task anew"));
  CHECK(has(told(""), "should hold an interrupted training; remove it"));
  backend b(1);
  cts::save(b, small_model(b), (folder.path / "model.safetensors").string());
  CHECK(has(told(cts::read_text(folder.path / "model.safetensors")), "not an interrupted training"));
  cts::write_file(file, std::string_view(good));
  CHECK(run_for(-1, stream, o, cts::none{}, cts::ace{}, folder.path, 1));
}

TEST_CASE("a learner removes the file when the task is saved, and not the one of the next task", "[checkpoint]") {
  const auto stream = support::small_stream();
  const support::scratch_folder folder;
  const auto file = folder.path / "half.safetensors";
  backend b(1);
  auto o = everything_random();
  o.fit.checkpoint.file = file, o.fit.checkpoint.seconds = 0;
  cts::continual_learner learner(b, small_model(b), o);
  learner.learn(stream[0]);
  CHECK(std::filesystem::exists(file));  // until it is safe
  learner.save(folder.path / "learner");
  CHECK_FALSE(std::filesystem::exists(file));
  auto second = o;
  int steps = 0;
  second.fit.checkpoint.stop = [&] { return ++steps == 5; };
  cts::continual_learner stopped_learner(b, small_model(b), second);
  stopped_learner.restore(folder.path / "learner");
  CHECK_THROWS_AS(stopped_learner.learn(stream[1]), cts::stopped);
  cts::continual_learner again(b, small_model(b), o);
  again.restore(folder.path / "learner");
  again.save(folder.path / "copy");
  CHECK(std::filesystem::exists(file));
  again.learn(stream[1]);
  learner.learn(stream[1]);  // has the next task's file and learnt task 1 itself
  CHECK(again.model().parameters().to_host(b) == learner.model().parameters().to_host(b));
}

}  // namespace train_checkpoint_tests
