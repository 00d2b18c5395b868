// The scalar functions against the standard library, and the random numbers against published ones.

#include "core_tokensets/core/functors.hpp"

#include <algorithm>

#include "core_tokensets/core/random.hpp"
#include "support/catch.hpp"

namespace tensor_functors_tests {

namespace cts = core_tokensets;

TEST_CASE("scalar functions in float agree with the standard library", "[functors]") {
  double exp_error = 0, cdf_error = 0, derivative_error = 0;
  for (float x = -80; x < 80; x += 0.01f) {
    exp_error = std::max(exp_error, std::abs(double(cts::fn::exp(x)) / std::exp(double(x)) - 1));
  }
  for (float x = -5; x < 5; x += 0.001f) {
    cdf_error = std::max(cdf_error, std::abs(double(cts::fn::normal(x).cdf) / cts::fn::normal(double(x)).cdf - 1));
    derivative_error =
        std::max(derivative_error, std::abs(double(cts::fn::gelu_derivative(x)) - cts::fn::gelu_derivative(double(x))));
  }
  CHECK(exp_error < 2e-7);
  CHECK(cdf_error < 7e-7);
  CHECK(derivative_error < 4e-7);
  CHECK(cts::fn::exp(-1000.0f) == 0.0f);
  CHECK(cts::fn::exp(0.0f) == 1.0f);
  CHECK(std::isnan(cts::fn::exp(std::nanf(""))));
}

TEST_CASE("random numbers are the published ones", "[random]") {
  // Known answers of Philox4x32-10 (Salmon et al., Random123).
  CHECK(cts::philox({0, 0, 0, 0}, {0, 0}) ==
        std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(cts::philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  cts::random_stream a(1, 2), c(1, 2, 5);
  for (int i = 0; i < 5; ++i) a.bits();
  CHECK(a.bits() == c.bits());
  auto order = a.permutation(100);
  std::sort(order.begin(), order.end());
  for (int i = 0; i < 100; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

}  // namespace tensor_functors_tests
