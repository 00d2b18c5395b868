#include "core_tokensets/metrics/continual.hpp"

#include "support/catch.hpp"

namespace metrics_continual_tests {

namespace cts = core_tokensets;

TEST_CASE("metrics of an accuracy matrix are those computed by hand", "[metrics]") {
  const auto m = cts::measure({{0.8}, {0.9, 0.6}, {0.5, 0.4, 0.7}});
  CHECK(m.average_accuracy == Approx(1.6 / 3));
  CHECK(m.average_incremental_accuracy == Approx((0.8 + 0.75 + 1.6 / 3) / 3));
  CHECK(m.forgetting == Approx(((0.9 - 0.5) + (0.6 - 0.4)) / 2));
  CHECK(m.backward_transfer == Approx(((0.5 - 0.8) + (0.4 - 0.6)) / 2));
  CHECK_THROWS_AS(cts::measure({}), cts::Error);
  CHECK_THROWS_AS(cts::measure({{0.8}, {0.9}}), cts::Error);
}

}  // namespace metrics_continual_tests
