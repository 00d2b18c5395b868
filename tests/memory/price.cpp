#include "core_tokensets/memory/price.hpp"

#include "support/catch.hpp"

namespace memory_price_tests {

namespace cts = core_tokensets;

TEST_CASE("prices of files, worked out by hand", "[price]") {
  // Two samples with ten bytes of text about each of two pictures of 100 and 200 bytes.
  const std::map<cts::index, cts::file_sample> samples{
      {0, {7, 100, 10}}, {1, {7, 100, 10}}, {2, {8, 200, 10}}, {3, {8, 200, 10}}};
  const cts::file_prices prices(samples, {});
  const std::vector<cts::index> all{0, 1, 2, 3}, first{0};
  CHECK(prices.together(all) == 100 + 200 + 40);
  CHECK(prices.together(first) == 110);
  CHECK(prices.least() == 110);
  // Two of four miss a picture with probability 1/6: (1 - 1/6) 300 + 20 = 270; one misses it with 1/2: 160.
  CHECK(prices.affordable(all, 340) == 4);
  CHECK(prices.affordable(all, 339) == 3);
  CHECK(prices.affordable(all, 330) == 3);
  CHECK(prices.affordable(all, 271) == 2);
  CHECK(prices.affordable(all, 269) == 1);
  CHECK(prices.affordable(all, 110) == 1);  // that it is affordable alone was seen to before
  CHECK(prices.affordable_alone(209) == std::vector<cts::index>{0, 1});
  CHECK(prices.affordable_alone(210) == all);
  CHECK(prices.affordable_alone(109).empty());
  CHECK(prices.files_of(all) == std::vector<std::uint32_t>{100, 0, 200, 0});

  // The first picture is paid for: what is about it comes for its text.
  const cts::file_prices paid(samples, {7});
  CHECK(paid.affordable_alone(10) == std::vector<cts::index>{0, 1});
  CHECK(paid.affordable(std::vector<cts::index>{1, 2}, 220) == 2);
  CHECK(paid.affordable(std::vector<cts::index>{1, 2}, 219) == 1);
  CHECK(paid.files_of(all) == std::vector<std::uint32_t>{0, 0, 200, 0});

  std::vector<cts::index> chosen{3, 1, 0};
  std::vector<float> weights{0.5f, 1, 1};
  prices.fit(chosen, weights, 330);
  CHECK(chosen.size() == 3);
  prices.fit(chosen, weights, 329);
  CHECK(chosen == std::vector<cts::index>{1, 0});
  CHECK(weights == std::vector<float>{1, 1});
  prices.fit(chosen, weights, 100);
  CHECK(chosen.empty());
  chosen = {1, 3, 2}, weights = {3, 1, 1};  // the one about the stored picture stays
  paid.fit(chosen, weights, 219);
  CHECK(chosen == std::vector<cts::index>{1});
  CHECK(weights == std::vector<float>{3});
}

}  // namespace memory_price_tests
