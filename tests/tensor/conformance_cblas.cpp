// Products by a BLAS in the conformance suite.

#include "core_tokensets/tensor/cblas_product.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "tensor/conformance/all.hpp"

namespace tensor_conformance_cblas_tests {

namespace cts = core_tokensets;

TEST_CASE("eigen<float> with products by a BLAS conforms", "[backend]") {
  conformance::check_backend(cts::eigen_backend<float, cts::cblas_product>());
}
TEST_CASE("eigen<double> with products by a BLAS conforms", "[backend]") {
  conformance::check_backend(cts::eigen_backend<double, cts::cblas_product>());
}

}  // namespace tensor_conformance_cblas_tests
