// Errors in parallel loops: which one is reported does not depend on threads or their timing.

#include "core_tokensets/core/parallel.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "support/catch.hpp"

namespace core_parallel_tests {

namespace {

namespace cts = core_tokensets;

/// Some work, the more the smaller i is, so that later bodies end first.
void work(std::ptrdiff_t i, std::ptrdiff_t n) {
  volatile double x = 1;
  for (std::ptrdiff_t k = 0; k < (n - i) * 20; ++k) x = x * 1.0000001;
}

template <class Loop>
std::string error_of(const Loop& loop) {
  try {
    loop();
  } catch (const cts::Error& e) {
    return e.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("of several errors in a loop the first one is reported, for any number of threads", "[parallel]") {
  constexpr std::ptrdiff_t n = 200;
  for (const std::ptrdiff_t first : {0, 1, 7, 100, 199}) {
    for (int threads = 1; threads <= 8; ++threads) {
      for (int round = 0; round < 20; ++round) {
        std::vector<char> done(n, 0);
        const auto loop = [&] {
          cts::parallel_for(threads, n, [&](std::ptrdiff_t i) {
            work(i, n);
            if (i == first || (i > first && i % 3 != 0)) cts::fail("body ", i);
            done[static_cast<std::size_t>(i)] = 1;
          });
        };
        REQUIRE(error_of(loop) == "body " + std::to_string(first));
        REQUIRE(std::count(done.begin(), done.begin() + first, 1) == first);
      }
    }
  }
}

TEST_CASE("of several errors in pieces the one of the first element is reported", "[parallel]") {
  for (int threads = 1; threads <= 8; ++threads) {
    for (int round = 0; round < 20; ++round) {
      const auto loop = [&] {
        cts::parallel_chunks(threads, 1000, 7, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
          work(begin / 5, 200);
          for (std::ptrdiff_t i = begin; i < end; ++i) {
            if (i >= 500) cts::fail("element ", i);
          }
        });
      };
      REQUIRE(error_of(loop) == "element 500");
    }
  }
}

TEST_CASE("a loop within a loop reports its first error too, and a loop without errors runs all of its bodies",
          "[parallel]") {
  for (int threads = 1; threads <= 8; ++threads) {
    const auto loop = [&] {
      cts::parallel_for(threads, 40, [&](std::ptrdiff_t i) {
        cts::parallel_for(threads, 40, [&](std::ptrdiff_t j) {
          work(j, 40);
          if (i >= 20 && j >= 10) cts::fail(i, " ", j);
        });
      });
    };
    CHECK(error_of(loop) == "20 10");
    std::vector<int> times(500, 0);
    cts::parallel_for(threads, 500, [&](std::ptrdiff_t i) { ++times[static_cast<std::size_t>(i)]; });
    CHECK(times == std::vector<int>(500, 1));
  }
}

}  // namespace core_parallel_tests
