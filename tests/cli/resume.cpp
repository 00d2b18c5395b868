// cts sequence that is killed at any moment and resumed ends in the same bits; checkpoints that do not fit are refused.

#include <poll.h>
#include <sys/inotify.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cli/support.hpp"
#include "core_tokensets/core/random.hpp"

namespace cli_resume_tests {

using namespace cli_test;

namespace {

using options = std::map<std::string, std::string>;

/// Three tasks of two classes.
arguments three_tasks(const fs::path& out, const options& changes = {}, bool resume = false) {
  auto all = small_sequence(out.string());
  all["--classes"] = "0-5";
  all["--tasks"] = "3";
  all["--per-class"] = "12";
  all["--epochs"] = "2";
  if (resume) all["--resume"] = "";
  return with("sequence", all, changes);
}

/// What a run leaves: its files, without the times in the results and of the report the pictures only.
struct run_files {
  std::string model, memory;
  nlohmann::json results;
  std::vector<std::string> pictures;

  explicit run_files(const fs::path& out)
      : model(cts::read_text(out / "model.safetensors")),
        memory(cts::read_text(out / "memory.safetensors")),
        results(nlohmann::json::parse(cts::read_text(out / "results.json"))) {
    CHECK(results.erase("seconds") == 1);
    const std::string report = cts::read_text(out / "report.html"), before = "data:image/png;base64,";
    for (auto at = report.find(before); at != std::string::npos; at = report.find(before, at + 1))
      pictures.push_back(report.substr(at, report.find('"', at) - at));
    CHECK(pictures.size() >= 1);
  }
};

void check_same(const run_files& got, const run_files& want) {
  CHECK(got.model == want.model);
  CHECK(got.memory == want.memory);
  CHECK(got.results == want.results);
  CHECK((got.pictures == want.pictures));  // too long to print
}

/// Tells when files are made in a folder.
class folder_watch {
 public:
  explicit folder_watch(const fs::path& folder) : descriptor_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    REQUIRE(descriptor_ >= 0);
    REQUIRE(::inotify_add_watch(descriptor_, folder.c_str(), IN_CREATE) >= 0);
  }
  folder_watch(const folder_watch&) = delete;
  folder_watch& operator=(const folder_watch&) = delete;
  ~folder_watch() { ::close(descriptor_); }

  /// Files made since the last call, after waiting for a moment for one.
  int made() const {
    pollfd ready{descriptor_, POLLIN, 0};
    ::poll(&ready, 1, 20);
    alignas(inotify_event) char buffer[4096];
    int count = 0;
    for (ssize_t n; (n = ::read(descriptor_, buffer, sizeof buffer)) > 0;) {
      for (ssize_t at = 0; at < n; ++count) {
        at += static_cast<ssize_t>(sizeof(inotify_event) + reinterpret_cast<const inotify_event*>(buffer + at)->len);
      }
    }
    return count;
  }

 private:
  int descriptor_;
};

bool has_ended(pid_t child) {
  siginfo_t ended{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT) == 0);
  return ended.si_pid != 0;
}

/// How many files a whole run makes in the folder.
int files_made(const sandbox& box, const fs::path& out, const arguments& args) {
  fs::create_directories(out);
  const folder_watch watch(out);
  const pid_t child = start(box, args);
  int made = 0;
  while (!has_ended(child)) made += watch.made();
  made += watch.made();
  REQUIRE(wait_for(box, child).code == 0);
  return made;
}

/// Starts a run and kills it in the moment in which it makes its file number `nth` (from 1) in the folder; false if the
/// run ended before the signal came.
bool kill_at_file(const sandbox& box, const fs::path& out, const arguments& args, int nth) {
  fs::create_directories(out);
  const folder_watch watch(out);
  const pid_t child = start(box, args);
  for (int made = 0; made < nth;) {
    made += watch.made();
    if (has_ended(child)) break;
  }
  ::kill(child, SIGKILL);
  return wait_for(box, child).code == -SIGKILL;
}

}  // namespace

TEST_CASE("a run that is killed whenever it writes a file resumes to the same bits", "[cli][resume]") {
  const sandbox box;
  const fs::path whole = box.path / "whole";
  // One to try the folder, four for what is saved after each task, then those that stay.
  const int files = files_made(box, whole, three_tasks(whole)), expected = 1 + 3 * 4 + 3;
  CHECK(files >= expected);
  const run_files want(whole);
  int killed = 0;
  for (int nth = 1; nth <= files; ++nth) {
    INFO("killed at file " << nth);
    const fs::path out = box.path / std::to_string(nth);
    killed += kill_at_file(box, out, three_tasks(out), nth) ? 1 : 0;
    run_well(box, three_tasks(out, {}, true));
    check_same(run_files(out), want);
  }
  CHECK(killed >= files / 2);
}

TEST_CASE("a run that is killed again and again resumes to the same bits", "[cli][resume]") {
  const sandbox box;
  for (const options& memory : {options{{"--memory", "core-tokenset"}}, options{{"--memory", "coreset"}},
                                options{{"--memory", "coded-coreset"}, {"--codec", "lossless"}},
                                options{{"--memory", "joint"}, {"--token-drop", "0"}}}) {
    const fs::path whole = box.path / "whole", out = box.path / "out";
    run_well(box, three_tasks(whole, memory));
    // Every run comes as far as its next checkpoint and a little into the next task.
    for (int times = 0; times < 3; ++times) {
      kill_at_file(box, out, three_tasks(out, memory, true), 1 + 4 + 1);
      INFO("after " << times + 1 << " kills");
      CHECK(fs::exists(out / "learner.json"));
    }
    run_well(box, three_tasks(out, memory, true));
    check_same(run_files(out), run_files(whole));
    fs::remove_all(whole);
    fs::remove_all(out);
  }
}

TEST_CASE("a run that is killed in the middle of a task resumes to the same bits", "[cli][resume]") {
  const sandbox box;
  const fs::path whole = box.path / "whole";
  const auto begin = std::chrono::steady_clock::now();
  run_well(box, three_tasks(whole));
  const auto time = std::chrono::steady_clock::now() - begin;
  for (const int percent : {20, 45, 60, 85}) {
    INFO("killed after " << percent << " %");
    const fs::path out = box.path / std::to_string(percent);
    const pid_t child = start(box, three_tasks(out));
    std::this_thread::sleep_for(time * percent / 100);
    ::kill(child, SIGKILL);
    wait_for(box, child);
    run_well(box, three_tasks(out, {}, true));
    check_same(run_files(out), run_files(whole));
  }
}

TEST_CASE("resume starts afresh where there is nothing, and does no work where all is done", "[cli][resume]") {
  const sandbox box;
  const fs::path whole = box.path / "whole", fresh = box.path / "fresh";
  run_well(box, three_tasks(whole));
  run_well(box, three_tasks(fresh, {}, true));
  check_same(run_files(fresh), run_files(whole));

  // The times are those of the run that did the work.
  const auto before = box.listing();
  const auto printed = run_well(box, three_tasks(whole, {}, true)).out;
  CHECK(printed.find("core-tokenset") != std::string::npos);
  CHECK(box.listing() == before);
}

TEST_CASE("a run that is there is neither overwritten nor gone on with unless that was asked for", "[cli][resume]") {
  const sandbox box;
  const fs::path out = box.path / "out", fresh = box.path / "fresh";
  kill_at_file(box, out, three_tasks(out), 1 + 4 + 1);
  REQUIRE(fs::exists(out / "learner.json"));
  check_refused(box, three_tasks(out), {out.string(), "has not ended (learner.json)", "--resume", "--overwrite"});
  run_well(box, three_tasks(out, {}, true));
  check_refused(box, three_tasks(out), {out.string(), "there is a finished run", "--overwrite"});
  check_refused(box, three_tasks(out, {{"--overwrite", ""}}, true), {"choose one"});
  // What cannot be done at all leaves the old run as it is.
  check_refused(box, three_tasks(out, {{"--overwrite", ""}, {"--data", "folder:" + (box.path / "no").string()}}),
                {"no"});
  const options other{{"--seed", "5"}, {"--memory", "none"}};
  auto anew = other;
  anew["--overwrite"] = "";
  run_well(box, three_tasks(out, anew));
  run_well(box, three_tasks(fresh, other));
  check_same(run_files(out), run_files(fresh));
  for (const auto& entry : fs::directory_iterator(out)) CHECK(fs::exists(fresh / entry.path().filename()));
}

TEST_CASE("a checkpoint of other settings, or one that was altered, is refused", "[cli][resume]") {
  const sandbox box;
  const fs::path out = box.path / "out";
  kill_at_file(box, out, three_tasks(out), 1 + 4 + 4 + 1);
  const auto state = nlohmann::json::parse(cts::read_text(out / "learner.json"));
  const std::string tag = std::to_string(state["tasks"].get<int>()) + ".safetensors";
  // The setting that differs is told, with both of its values.
  const auto differs = [&](const options& other, const std::vector<std::string>& told) {
    check_refused(box, three_tasks(out, other, true), told);
  };
  differs({{"--keep", "0.25"}}, {out.string(), "other settings: strategy was", "keep=0.25", "keep=0.5"});
  differs({{"--memory", "coreset"}}, {"other settings: strategy was", "coreset"});
  differs({{"--optimiser", "adamw:learning_rate=0.002"}}, {"other settings: optimiser was", "0.002"});
  differs({{"--epochs", "3"}}, {"other settings: fit.epochs was \"2\", now it is \"3\""});
  differs({{"--epochs", "3"}, {"--dim", "32"}}, {"model.dim was 16, now it is 32", "fit.epochs was \"2\""});
  differs({{"--seed", "1"}}, {"fit.seed was \"0\", now it is \"1\""});
  differs({{"--tasks", "2"}}, {"other data", "tasks was 3, now it is 2"});
  differs({{"--per-class", "13"}}, {"other data", "per_class was 12, now it is 13"});

  const auto refuse = [&](const std::string& name, const std::string& content, const std::string& told) {
    const std::string good = cts::read_text(out / name);
    cts::write_file(out / name, std::string_view(content));
    check_refused(box, three_tasks(out, {}, true), {(out / name).string(), told});
    cts::write_file(out / name, std::string_view(good));
  };
  const auto json = [&](const char* key, const nlohmann::json& value) {
    auto changed = state;
    changed[key] = value;
    return changed.dump(1);
  };
  refuse("learner.json", json("tasks", 1), "altered");
  refuse("learner.json", json("spent", "much"), "altered");
  refuse("learner.json", json("notes", nlohmann::json{{"accuracy", 1}}), "altered");
  refuse("learner.json", "{}", "not a saved learner");
  refuse("learner.json", "", "JSON");
  refuse("learner.json", state.dump(1).substr(0, 100), "JSON");
  for (const std::string& name : {"model-" + tag, "memory-" + tag}) {
    const std::string good = cts::read_text(out / name);
    refuse(name, good.substr(0, good.size() / 2), "altered");
    auto flipped = good;
    flipped.back() = static_cast<char>(flipped.back() ^ 1);
    refuse(name, flipped, "altered");
    fs::rename(out / name, box.path / "away");
    check_refused(box, three_tasks(out, {}, true), {(out / name).string(), "cannot open"});
    fs::rename(box.path / "away", out / name);
  }
  run_well(box, three_tasks(out, {}, true));
}

TEST_CASE("a run of one task that is killed within it goes on there, to the same bits", "[cli][resume]") {
  const sandbox box;
  const fs::path whole = box.path / "whole", out = box.path / "out";
  const options joint{{"--memory", "joint"}, {"--tasks", "1"}, {"--epochs", "6"}};
  auto often = joint;
  often["--save-every"] = "0";  // after every step
  run_well(box, three_tasks(whole, joint));
  cts::random_stream random(3);
  for (int times = 0; times < 4; ++times) {
    // Every run tries the folder and then comes a few steps further.
    CHECK(kill_at_file(box, out, three_tasks(out, often, true), 3 + static_cast<int>(random.below(8))));
    CHECK(fs::exists(out / "half-learnt.safetensors"));
    CHECK_FALSE(fs::exists(out / "learner.json"));
  }
  const std::string half = cts::read_text(out / "half-learnt.safetensors");
  check_refused(box, three_tasks(out, often), {"has not ended (half-learnt.safetensors)"});
  check_refused(box, three_tasks(out, {{"--memory", "joint"}, {"--tasks", "1"}, {"--epochs", "7"}}, true),
                {"half-learnt.safetensors", "fit.epochs was \"6\", now it is \"7\"", "remove the file"});
  cts::write_file(out / "half-learnt.safetensors", std::string_view(half).substr(0, half.size() - 1));
  check_refused(box, three_tasks(out, joint, true), {"half-learnt.safetensors", "remove it to begin the task anew"});
  cts::write_file(out / "half-learnt.safetensors", std::string_view(half));
  const int steps_left = files_made(box, out, three_tasks(out, often, true));
  CHECK(steps_left < 6 * 9 + 1 + 4 + 3 - 4);  // it did not begin anew: some steps are not saved again
  check_same(run_files(out), run_files(whole));
  CHECK_FALSE(fs::exists(out / "half-learnt.safetensors"));
}

}  // namespace cli_resume_tests
