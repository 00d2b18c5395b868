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

TEST_CASE("what was said about threads counts", "[cli][busy]") {
  CHECK(cts_command::threads_for(3, true) == 3);
  const char* const said = ::getenv("OMP_NUM_THREADS");
  const std::string was = said != nullptr ? said : "";
  ::setenv("OMP_NUM_THREADS", "2", 1);
  CHECK(cts_command::threads_for(0, true) == 0);
  said != nullptr ? ::setenv("OMP_NUM_THREADS", was.c_str(), 1) : ::unsetenv("OMP_NUM_THREADS");
}

}  // namespace cli_busy_machine_tests
