// Every operation of the CUDA backend on a device against the reference. [short]: quick enough for compute-sanitizer.

#include "cuda/conformance.hpp"
#include "cuda/device.hpp"

namespace {

using namespace cuda_device;

/// Runs one part of the suite in float32.
template <class Part>
void exact(const Part& part) {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  part(conformance::suite<backend>{b, 1e-4});
}

}  // namespace

TEST_CASE("the device multiplies in float32", "[cuda][short]") {
  exact([](auto suite) { suite.products(); });
}

TEST_CASE("the device maps, reduces and moves rows", "[cuda][short]") {
  exact([](auto suite) { suite.primitives(); });
}

TEST_CASE("the device computes softmax, layer norm and losses", "[cuda][short]") {
  exact([](auto suite) { suite.fused_rows(); });
}

TEST_CASE("the device computes attention in float32", "[cuda][short]") {
  exact([](auto suite) { suite.attention(); });
}

TEST_CASE("the device conforms in TF32 and bfloat16, as far as these go", "[cuda]") {
  if (no_device()) return;
  for (const auto& [how, limit] : {std::pair{arithmetic::tf32, 0.02}, {arithmetic::bf16, 0.15}}) {
    backend b({.arithmetic = how});
    conformance::suite<backend>{b, 1e-4, how}.products();
    conformance::suite<backend>{b, limit, how}.attention();  // rounds other steps of the softmax than the reference
  }
}
