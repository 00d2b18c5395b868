#include "core_tokensets/memory/budget.hpp"

#include <string>

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace memory_budget_tests {

namespace cts = core_tokensets;

TEST_CASE("budgets are read as people write them") {
  CHECK(cts::parse_budget("0.01") == cts::fraction(0.01));
  CHECK(cts::parse_budget("1%") == cts::fraction(0.01));
  CHECK(cts::parse_budget("1") == cts::fraction(1));
  CHECK(cts::parse_budget("1000B") == cts::bytes(1000));
  CHECK(cts::parse_budget("64KiB") == cts::bytes(65536));
  CHECK(cts::parse_budget("2MB") == cts::bytes(2'000'000));
  CHECK(cts::parse_budget("3 kB") == cts::bytes(3000));
  CHECK(cts::parse_budget("1.5MiB") == cts::bytes(1'572'864));
  CHECK(cts::parse_budget("1e3B") == cts::bytes(1000));
  CHECK(cts::parse_budget("2GiB") == cts::bytes(cts::index{2} << 30));
}

TEST_CASE("a budget resolves against the data") {
  CHECK(cts::fraction(0.25).resolve(1001) == 250);
  CHECK(cts::fraction(1).resolve(12345678901) == 12345678901);
  CHECK(cts::bytes(77).resolve(10) == 77);
  CHECK_THROWS_AS(cts::fraction(0.5).resolve(-1), cts::Error);
}

TEST_CASE("a budget may be for each task or class, in bytes") {
  const auto budget = cts::parse_budget("2KiB/class");
  CHECK(budget == cts::per(cts::budget_of::every_class, cts::kibibytes(2)));
  CHECK(cts::parse_budget("100B/task").each == cts::budget_of::every_task);
  CHECK(cts::parse_budget("64KiB/all") == cts::kibibytes(64));
  CHECK(support::has(support::message_of([] { cts::parse_budget("1%/class"); }), "expected bytes"));
  CHECK(support::has(support::message_of([] { cts::parse_budget("1KiB/pupil"); }), "'pupil'"));
}

TEST_CASE("nonsense is refused with its text") {
  for (const std::string text : {"",     "B",  "x",    "0",   "-0.1",  "-5MB",    "nan",   "inf",  "infB", "2",
                                 "150%", "0B", "0.5B", "5mb", "5 M B", "1e300GB", "0x10B", " 5MB", "5MB ", "1e999B"}) {
    INFO(text);
    CHECK(support::message_of([&] { cts::parse_budget(text); }).starts_with("budget '" + text + "'"));
  }
  CHECK_THROWS_AS(cts::bytes(0), cts::Error);
  CHECK_THROWS_AS(cts::fraction(0), cts::Error);
  CHECK_THROWS_AS(cts::fraction(1.01), cts::Error);
}

}  // namespace memory_budget_tests
