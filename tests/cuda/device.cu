// The CUDA backend on a device; without one every test says so and ends.

#include "core_tokensets/tensor/cuda.hpp"
#include "core_tokensets/train/recipe.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "cuda/conformance.hpp"
#include "cuda/vit_cases.hpp"
#include "support/ragged.hpp"

namespace {

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;
using cts::cuda::arithmetic;

/// CTest counts the program as skipped when it reads this.
bool no_device() {
  if (cts::cuda::device_count() > 0) return false;
  WARN("skipped: " << cts::cuda::describe());
  return true;
}

}  // namespace

TEST_CASE("the device conforms in float32", "[cuda]") {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  conformance::suite<backend>{b, 1e-4}.all();
}
