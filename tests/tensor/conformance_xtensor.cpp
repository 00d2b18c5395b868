// The xtensor backend in the conformance suite, and what only it promises.

#include "core_tokensets/tensor/xtensor.hpp"
#include "tensor/conformance/all.hpp"

namespace tensor_conformance_xtensor_tests {

namespace cts = core_tokensets;

TEST_CASE("xtensor<float> conforms", "[backend]") { conformance::check_backend(cts::xtensor_backend<float>()); }
TEST_CASE("xtensor<double> conforms", "[backend]") { conformance::check_backend(cts::xtensor_backend<double>()); }

TEST_CASE("products do not depend on the threads that OpenBLAS was told to use", "[xtensor]") {
  using namespace cts::blas_detail;
  if (openblas_set_num_threads == nullptr) {
    WARN("this BLAS is not OpenBLAS: " << cts::blas_description());
    return;
  }
  using B = cts::xtensor_backend<float>;
  B b(1);
  const conformance::operand<B> p(b, {1, 1, 301, 257}, 1), q(b, {1, 1, 257, 129}, 2);
  const auto with_threads = [&](int threads) {
    openblas_set_num_threads(threads);
    conformance::operand<B> out(b, {1, 1, 301, 129}, 3, conformance::start::nan);
    b.gemm(p.get(), q.get(), out.mut());
    CHECK((openblas_get_parallel() != 1 || openblas_get_num_threads() == 1));
    bool marks_kept = true;
    return out.numbers(b, marks_kept);
  };
  const auto want = with_threads(1);
  for (const int threads : {2, 3}) CHECK(with_threads(threads) == want);
}

}  // namespace tensor_conformance_xtensor_tests
