// Sums in a fixed order, and a team of one.

#include "core_tokensets/core/communicator.hpp"

#include "support/catch.hpp"
#include "support/thread_ranks.hpp"

namespace core_communicator_tests {

namespace {

namespace cts = core_tokensets;

static_assert(cts::communicator<cts::self>);
static_assert(cts::communicator<support::thread_ranks>);

}  // namespace

TEST_CASE("values are added up in pairs of neighbours, then pairs of pairs", "[communicator]") {
  // 2^53 + 1 is not a number of 53 bits, so the order shows.
  const double big = 9007199254740992.0;
  double a[] = {big}, b[] = {1}, c[] = {1}, d[] = {-big}, e[] = {3};
  double* const parts[] = {a, b, c, d, e};
  cts::add_in_tree<double>(parts, 1);
  CHECK(a[0] == 4);  // ((0 + 1) + (2 + 3)) + 4; one after the other it were 3
}

TEST_CASE("a team of one does nothing", "[communicator]") {
  const cts::team alone;
  CHECK((alone.rank() == 0 && alone.size() == 1 && alone.alone() && alone.leads()));
  double x = 5;
  alone.all_reduce(std::span(&x, 1), "testing");
  alone.wait("testing");
  alone.leave("no reason");
  CHECK(x == 5);
  CHECK(alone.any(true, "testing"));
  CHECK_FALSE(alone.any(false, "testing"));
  CHECK(alone.all_gather(std::as_bytes(std::span(&x, 1)), "testing").size() == 1);
  CHECK_THROWS_AS(alone.broadcast({}, 1, "testing"), cts::Error);
}

TEST_CASE("ranks share what one of them has", "[communicator]") {
  std::vector<int> right(4);
  support::on_ranks(4, [&](const cts::team& ranks) {
    double sum = 1 << ranks.rank();
    ranks.all_reduce(std::span(&sum, 1), "testing");
    int from_two = ranks.rank();
    ranks.broadcast(std::as_writable_bytes(std::span(&from_two, 1)), 2, "testing");
    right[static_cast<std::size_t>(ranks.rank())] =
        sum == 15 && from_two == 2 && ranks.any(ranks.rank() == 3, "testing") && !ranks.any(false, "testing");
  });
  CHECK(right == std::vector<int>(4, 1));
}

}  // namespace core_communicator_tests
