// cts sequence as several processes of mpirun: the bytes of one process, an end by any of them, and what is refused.

#include <chrono>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "cli/support.hpp"

namespace cli_ranks_tests {

using namespace cli_test;

TEST_CASE("commands that are not for several processes say so once", "[cli][ranks]") {
  const sandbox box;
  ::setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  check_refused(box, {"info"}, {"started as 2 processes", "cts sequence"});
  ::setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  const auto other = run(box, {"info"});
  CHECK(other.code == 2);
  CHECK(other.err.empty());
  ::unsetenv("OMPI_COMM_WORLD_RANK");
#ifndef CTS_MPIEXEC
  check_refused(box, with("sequence", small_sequence(box / "out")), {"2 processes", "built without MPI"});
#endif
  ::unsetenv("OMPI_COMM_WORLD_SIZE");
}

TEST_CASE("pieces that cannot be are refused", "[cli][ranks]") {
  const sandbox box;
  check_refused(box, with("sequence", small_sequence(box / "out"), {{"--pieces", "6"}}), {"6 pieces", "power of two"});
  check_refused(box, with("sequence", small_sequence(box / "out"), {{"--pieces", "-1"}}), {"--pieces -1"});
}

#ifdef CTS_MPIEXEC

namespace {

/// `cts` as so many processes, on however few processors, also where there is no other user than root.
pid_t start_ranks(const sandbox& box, int ranks, const arguments& args) {
  for (const char* yes :
       {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"})
    ::setenv(yes, "1", 1);
  ::setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 1);
  arguments words{CTS_MPIEXEC, CTS_MPIEXEC_COUNT, std::to_string(ranks), CTS_PROGRAM};
  words.insert(words.end(), args.begin(), args.end());
  return launch(box, words);
}
outcome run_ranks(const sandbox& box, int ranks, const arguments& args) {
  return wait_for(box, start_ranks(box, ranks, args));
}
void run_ranks_well(const sandbox& box, int ranks, const arguments& args) {
  const auto got = run_ranks(box, ranks, args);
  INFO(ranks << " ranks: " << joined(args) << "\n" << got.err);
  REQUIRE(got.code == 0);
  CHECK(std::count(got.out.begin(), got.out.end(), '\n') == 2);  // a heading and a line, of one of them
}

/// What does not say when a run was, or how long it took.
std::vector<std::string> results_in(const std::string& folder) {
  auto results = cts::parse_json(cts::read_text(fs::path(folder) / "results.json"), folder);
  results.erase("seconds");
  return {cts::read_text(fs::path(folder) / "model.safetensors"),
          cts::read_text(fs::path(folder) / "memory.safetensors"), results.dump()};
}

/// Steps enough to be interrupted in, saved after each.
arguments long_run(const std::string& out, const std::map<std::string, std::string>& changes = {}) {
  auto all = small_sequence(out);
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"--epochs", "30"}, {"--per-class", "24"}, {"--batch", "12"}, {"--pieces", "4"}, {"--save-every", "0"}})
    all[name] = value;
  return with("sequence", all, changes);
}

std::string read_all(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The process of a rank below mpirun, once it trains.
pid_t process_of(pid_t mpirun, int rank, const std::string& out) {
  const std::string wanted = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank), other = "PMI_RANK=" + std::to_string(rank);
  for (int times = 0; times < 30'000; ++times) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (!fs::exists(fs::path(out) / "half-learnt.safetensors")) continue;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string number = entry.path().filename().string();
      if (number.find_first_not_of("0123456789") != number.npos) continue;
      const std::string environment = '\0' + read_all(entry.path() / "environ"),
                        line = read_all(entry.path() / "cmdline");
      const bool is_it = environment.find('\0' + wanted + '\0') != environment.npos ||
                         environment.find('\0' + other + '\0') != environment.npos;
      if (is_it && line.find(out) != line.npos && std::stoi(number) != mpirun) return std::stoi(number);
    }
  }
  FAIL("no process of rank " << rank);
  return 0;
}

}  // namespace

TEST_CASE("2 and 4 processes write the bytes of one", "[cli][ranks]") {
  const sandbox box;
  const auto args = [&](const std::string& name, const std::string& select) {
    return with("sequence", small_sequence(box / name), {{"--pieces", "4"}, {"--epochs", "3"}, {"--select", select}});
  };
  for (const char* select : {"grad_match", "greedi:shards=4"}) {
    run_well(box, args("one", select));
    const auto want = results_in(box / "one");
    for (const int ranks : {2, 4}) {
      const std::string name = "ranks" + std::to_string(ranks);
      run_ranks_well(box, ranks, args(name, select));
      CHECK((results_in(box / name) == want));
      fs::remove_all(box / name);
    }
    fs::remove_all(box / "one");
  }
}

TEST_CASE("a killed process ends the others within seconds, and the run goes on to the same bytes", "[cli][ranks]") {
  const sandbox box;
  run_well(box, long_run(box / "whole"));
  const std::string out = box / "out";
  // Seconds that Open MPI sleeps between SIGTERM and SIGKILL: enough to say why one ends on a busy machine.
  ::setenv("OMPI_MCA_odls_base_sigkill_timeout", "2", 1);
  const pid_t mpirun = start_ranks(box, 4, long_run(out));
  ::unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
  const pid_t victim = process_of(mpirun, 2, out);
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(::kill(victim, SIGKILL) == 0);
  const auto ended = wait_for(box, mpirun);
  INFO(ended.err);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
  CHECK(ended.code != 0);
  CHECK(ended.err.find("of 4: rank 2 is gone: its process " + std::to_string(victim) + " has ended, noticed while ") !=
        std::string::npos);
  CHECK_FALSE(fs::exists(fs::path(out) / "results.json"));
  run_ranks_well(box, 2, long_run(out, {{"--resume", ""}}));
  CHECK((results_in(out) == results_in(box / "whole")));
  CHECK_FALSE(fs::exists(fs::path(out) / "half-learnt.safetensors"));
}

TEST_CASE("a signal to any process ends all after the same step", "[cli][ranks]") {
  const sandbox box;
  run_well(box, long_run(box / "whole"));
  const std::string out = box / "out";
  const pid_t mpirun = start_ranks(box, 2, long_run(out));
  ::kill(process_of(mpirun, 1, out), SIGINT);
  const auto ended = wait_for(box, mpirun);
  INFO(ended.err);
  CHECK(ended.code != 0);
  CHECK(ended.err.find("half-learnt.safetensors holds how far it came; go on with\n") != std::string::npos);
  CHECK(ended.err.find("is gone") == std::string::npos);
  run_ranks_well(box, 4, long_run(out, {{"--resume", ""}}));
  CHECK((results_in(out) == results_in(box / "whole")));
}

TEST_CASE("what one process finds at fault ends all of them, and what differs is told", "[cli][ranks]") {
  const sandbox box;
  const auto args = with("sequence", small_sequence(box / "out"));
  run_ranks_well(box, 2, args);
  const auto before = box.listing();
  const auto refused = run_ranks(box, 2, args);
  INFO(refused.err);
  CHECK(refused.code == 2);
  CHECK(refused.err.find("there is a finished run") != std::string::npos);
  CHECK(refused.err.find("rank 1 of 2: rank 0 has ended: ") != std::string::npos);
  CHECK(box.listing() == before);
  // What can be told without working together is told once.
  const auto bad = run_ranks(box, 2, with("sequence", small_sequence(box / "other"), {{"--memory", "good"}}));
  CHECK(bad.code == 2);
  const auto at = bad.err.find("--memory 'good'");
  CHECK((at != bad.err.npos && bad.err.find("--memory 'good'", at + 1) == bad.err.npos));
  const auto three = run_ranks(box, 3, with("sequence", small_sequence(box / "other")));
  CHECK(three.code == 2);
  CHECK(three.err.find("3 pieces, expected a power of two; there are as many ranks") != std::string::npos);
}

#else

TEST_CASE("cts as several processes", "[cli][ranks]") {
  WARN("skipped: cts is built without MPI (Debian: libopenmpi-dev, openmpi-bin)");
}

#endif

}  // namespace cli_ranks_tests
