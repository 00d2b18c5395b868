// Compiled for any x86-64, as packages and programs without flags are: loops that take wider instructions where the
// processor has them compute what they should.

#include <cmath>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"

namespace structure_plain_x86_tests {

namespace cts = core_tokensets;

TEST_CASE("a loop that runs widely runs once", "[plain_x86]") {
  int times = 0;
  cts::run_widely([&times] { ++times; });
  CHECK(times == 1);
}

TEST_CASE("long functions in wider instructions are those of the definition", "[plain_x86]") {
  cts::random_stream random(1);
  std::vector<float> x(203), y(203);
  for (float& value : x) value = static_cast<float>(4 * random.normal());
  cts::host::map(1, cts::fn::apply_gelu{}, cts::view<float>(y.data(), 1, 203),
                 cts::view<const float>(x.data(), 1, 203));
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(double(y[i]) - cts::fn::gelu(double(x[i]))) < 4e-6);

  std::vector<float> row = x;
  cts::eigen_detail::softmax_row<float>(row.data(), 203, 1.0f, nullptr);
  double sum = 0;
  for (const float value : x) sum += std::exp(double(value));
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(double(row[i]) - std::exp(double(x[i])) / sum) < 1e-6);

  cts::eigen_backend<float> b(1);
  const std::vector<float> one(203, 1.0f), zero(203, 0.0f);
  float mean = 0, rstd = 0;
  b.layer_norm({x.data(), 1, 203}, {one.data(), 1, 203}, {zero.data(), 1, 203}, {y.data(), 1, 203}, {&mean, 1, 1},
               {&rstd, 1, 1}, 1e-6f);
  double middle = 0, spread = 0;
  for (const float value : x) middle += double(value) / 203;
  for (const float value : x) spread += (double(value) - middle) * (double(value) - middle) / 203;
  for (std::size_t i = 0; i < x.size(); ++i)
    CHECK(std::abs(double(y[i]) - (double(x[i]) - middle) / std::sqrt(spread + 1e-6)) < 1e-5);
}

}  // namespace structure_plain_x86_tests
