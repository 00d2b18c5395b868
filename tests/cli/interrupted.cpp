// cts sequence that is told to end, whose folder somebody else has, and what it tells while it works.

#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include "cli/support.hpp"

namespace cli_interrupted_tests {

using namespace cli_test;

namespace {

using options = std::map<std::string, std::string>;

/// One task of steps that take long enough to be interrupted in.
arguments long_run(const std::string& out, const options& changes = {}) {
  auto all = small_sequence(out);
  for (const auto& [name, value] : options{{"--memory", "joint"},
                                           {"--tasks", "1"},
                                           {"--per-class", "100"},
                                           {"--dim", "64"},
                                           {"--depth", "4"},
                                           {"--batch", "200"},
                                           {"--epochs", "10"}})
    all[name] = value;
  return with("sequence", all, changes);
}

std::string told_by(pid_t process, const char* file) {
  std::ifstream in("/proc/" + std::to_string(process) + "/" + file);
  return {std::istreambuf_iterator<char>(in), {}};
}

void wait_until(const std::function<bool()>& holds) {
  for (int times = 0; !holds() && times < 60'000; ++times) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  REQUIRE(holds());
}

/// Waits until a process notes SIGINT, which it does while it trains.
void wait_for_training(pid_t process) {
  wait_until([&] {
    const std::string status = told_by(process, "status");
    const auto at = status.find("SigCgt:");
    return at != status.npos && (std::stoull(status.substr(at + 8, 16), nullptr, 16) >> (SIGINT - 1) & 1) != 0;
  });
}

std::string told_so_far(const sandbox& box) { return cts::read_text(box.printed.string() + ".err"); }

}  // namespace

TEST_CASE("a signal ends a run after the step and tells the command that goes on", "[cli][interrupted]") {
  const sandbox box;
  run_well(box, long_run(box / "whole"));
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string out = box / ("it's " + std::to_string(signal));  // a name that a shell must have quoted
    const pid_t child = start(box, long_run(out));
    wait_for_training(child);
    ::kill(child, signal);
    const auto ended = wait_for(box, child);
    CHECK(ended.code == -signal);  // a shell that runs several things ends, too
    const auto at = ended.err.find("half-learnt.safetensors holds how far it came; go on with\n");
    REQUIRE(at != ended.err.npos);
    const std::string command = ended.err.substr(ended.err.find('\n', at) + 1);
    CHECK(command.find(" --resume\n") != command.npos);
    REQUIRE(std::system((command.substr(0, command.size() - 1) + " >/dev/null").c_str()) == 0);
    CHECK(cts::read_text(fs::path(out) / "model.safetensors") == cts::read_text(box / "whole/model.safetensors"));
  }
}

TEST_CASE("the second signal ends a run at once", "[cli][interrupted]") {
  const sandbox box;
  auto slow = long_run(box / "out");
  slow.insert(slow.end(), {"--per-class=1000", "--batch=4000", "--image=32"});
  const pid_t second = start(box, slow);
  wait_for_training(second);
  ::kill(second, SIGINT);
  wait_until([&] { return told_so_far(box).find("again: at once") != std::string::npos; });
  ::kill(second, SIGINT);
  const auto ended = wait_for(box, second);
  CHECK(ended.code == -SIGINT);
  CHECK(ended.err.find("go on with") == ended.err.npos);
}

TEST_CASE("two runs cannot share a folder, and the one that has it is named", "[cli][interrupted]") {
  const sandbox box;
  const pid_t child = start(box, long_run(box / "out"));
  wait_for_training(child);
  for (const char* how : {"--resume", "--overwrite"}) {
    const auto refused = run(box, long_run(box / "out", {{how, ""}}));
    CHECK(refused.code == 2);
    CHECK(refused.err.find((box / "out") + ": process " + std::to_string(child) + " (") != std::string::npos);
    CHECK(refused.err.find("writes into this folder; wait until it ends") != std::string::npos);
  }
  ::kill(child, SIGKILL);
  CHECK(wait_for(box, child).code == -SIGKILL);  // it was there all the time
  run_well(box, long_run(box / "out", {{"--resume", ""}}));
}

TEST_CASE("progress into a file is plain lines; the threads of a run sleep while they wait", "[cli][interrupted]") {
  const sandbox box;
  auto words = long_run(box / "out");
  std::erase(words, "--quiet");
  ::unsetenv("OMP_WAIT_POLICY");
  const pid_t child = start(box, words);
  wait_for_training(child);
  CHECK(told_by(child, "environ").find("OMP_WAIT_POLICY=passive") != std::string::npos);
  CHECK(told_by(child, "comm") == "cts\n");
  const auto ended = wait_for(box, child);
  CHECK(ended.code == 0);
  CHECK(ended.err.find_first_of("\r\033") == ended.err.npos);
  CHECK(ended.err.find("20/20  0:00 left  loss ") != ended.err.npos);
  CHECK(ended.err.find("learnt: accuracy ") != ended.err.npos);
  CHECK(run_well(box, long_run(box / "quiet")).err.empty());
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
}

TEST_CASE("seeds are whole numbers of 64 bits", "[cli][interrupted]") {
  const sandbox box;
  for (const char* seed : {"-1", "1.5", "99999999999999999999", "0x10", "one"})
    check_refused(box, with("sequence", small_sequence(box / "out"), {{"--seed", seed}}),
                  {"--seed", "expected a whole number from 0 to 18446744073709551615"});
}

}  // namespace cli_interrupted_tests
