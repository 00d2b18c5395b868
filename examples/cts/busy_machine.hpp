#pragma once
// How this program shares the processors with others. OpenMP's own choice is a thread for each, which spin for a while
// when they wait for each other. That costs a busy machine whole slices of its processors' time: there all threads were
// several times slower than one.

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "core_tokensets/core/parallel.hpp"

namespace cts_command {

/// Starts this program again with sleeping threads unless something was said about that; OpenMP reads it when a program
/// is loaded, so it cannot be changed later. Goes on as it is where that is not possible.
inline void let_threads_sleep([[maybe_unused]] char** argv) {
#ifdef _OPENMP
  for (const char* said : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}) {
    if (::getenv(said) != nullptr) return;
  }
  std::string program(4096, '\0');  // by its path, so that it keeps its name
  const auto length = ::readlink("/proc/self/exe", program.data(), program.size() - 1);
  if (length <= 0 || ::setenv("OMP_WAIT_POLICY", "passive", 1) != 0) return;
  program.resize(static_cast<std::size_t>(length));
  ::execv(program.c_str(), argv);
#endif
}

/// How many of `wanted` processors this program really gets, found by trying: so many threads are busy for a quarter of
/// a second, and the processors' time that they got over the time that passed is the answer. That counts what other
/// programs take and what a container is allowed (which is reckoned by tenths of a second), neither of which the number
/// of processors tells.
inline double processors_to_be_had(int wanted) {
  using clock = std::chrono::steady_clock;
  const auto used = [] {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double before = used();
  const auto start = clock::now();
  {
    std::vector<std::jthread> busy;
    for (int i = 0; i < wanted; ++i) {
      busy.emplace_back([start] {
        while (clock::now() - start < std::chrono::milliseconds(250)) {
        }
      });
    }
  }
  return (used() - before) / std::chrono::duration<double>(clock::now() - start).count();
}

/// The threads for that many processors, of at most `all`.
inline int threads_for_processors(double processors, int all) {
  return std::clamp(static_cast<int>(std::lround(processors)), 1, all);
}

/// The threads for work that takes long: as many as were asked for, and for 0 as many as there are processors to be had
/// now, unless OMP_NUM_THREADS says it. Threads wait for each other at the end of every loop, so one too many makes all
/// of them slower than one alone is. Fewer than there are processors are told unless that is to be `quiet`.
inline int threads_for(int asked, bool quiet) {
  static const int all = core_tokensets::default_threads();  // before a run has changed it
  if (asked != 0) return asked;  // a number that makes no sense is told where options are checked
  if (all == 1 || ::getenv("OMP_NUM_THREADS") != nullptr) return all;
  const double had = processors_to_be_had(all);
  const int threads = threads_for_processors(had, all);
  if (!quiet && threads < all)
    std::fprintf(stderr, "%d of %d threads, since %.1f processors were to be had; --threads %d takes all\n", threads,
                 all, had, all);
  return threads;
}

}  // namespace cts_command
