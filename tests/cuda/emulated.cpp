// The CUDA backend's own kernels on an emulated device.

#include "cuda/conformance.hpp"
#include "support/cuda_emulation.hpp"

namespace {

namespace cts = core_tokensets;
using backend = cuda_emulation::backend;

}  // namespace

TEST_CASE("the CUDA kernels conform", "[cuda]") {
  backend b({.arithmetic = cts::cuda::arithmetic::f32});
  conformance::suite<backend>{b, 1e-4}.all();
}
