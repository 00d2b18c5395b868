// The Eigen backend in the conformance suite.

#include "core_tokensets/tensor/eigen.hpp"
#include "tensor/conformance/all.hpp"

namespace tensor_conformance_eigen_tests {

TEST_CASE("eigen<float> conforms", "[backend]") { conformance::check_backend(core_tokensets::eigen_backend<float>()); }
TEST_CASE("eigen<double> conforms", "[backend]") {
  conformance::check_backend(core_tokensets::eigen_backend<double>());
}

}  // namespace tensor_conformance_eigen_tests
