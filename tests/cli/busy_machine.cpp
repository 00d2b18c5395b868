// How many threads a long command takes where it does not get all processors.

#include "../../examples/cts/busy_machine.hpp"

#include <sched.h>

#include "support/catch.hpp"

namespace cli_busy_machine_tests {

TEST_CASE("the processors that a program gets are counted, not those that there are", "[cli][busy]") {
  cpu_set_t before, one;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  CPU_ZERO(&one);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_SET(first, &one);
  // Four threads on one processor share it, as those of other programs do.
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  const double had = cts_command::processors_to_be_had(4);
  const double alone = cts_command::processors_to_be_had(1);
  REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(had > 0);
  CHECK(had < 1.2);
  CHECK(alone < 1.2);
}

TEST_CASE("threads are as many as processors that are to be had, and at least one", "[cli][busy]") {
  using cts_command::threads_for_processors;
  CHECK(threads_for_processors(0.1, 8) == 1);
  CHECK(threads_for_processors(1.4, 2) == 1);
  CHECK(threads_for_processors(1.6, 2) == 2);
  CHECK(threads_for_processors(5.8, 8) == 6);
  CHECK(threads_for_processors(9.9, 8) == 8);
}

TEST_CASE("what was said about threads counts, and a run does not change it for the next", "[cli][busy]") {
  const char* const said = ::getenv("OMP_NUM_THREADS");
  const std::string was = said != nullptr ? said : "";
  ::setenv("OMP_NUM_THREADS", "1", 1);
  const int all = cts_command::threads_for(0, true);
  CHECK(cts_command::threads_for(3, true) == 3);
  CHECK(cts_command::threads_for(-1, true) == -1);  // not for it to judge
  core_tokensets::set_default_threads(all + 2);     // as a run does
  CHECK(cts_command::threads_for(0, true) == all);
  core_tokensets::set_default_threads(all);
  said != nullptr ? ::setenv("OMP_NUM_THREADS", was.c_str(), 1) : ::unsetenv("OMP_NUM_THREADS");
}

}  // namespace cli_busy_machine_tests
