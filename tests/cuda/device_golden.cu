// The golden ViTs on a device. [short]: quick enough for compute-sanitizer.

#include "cuda/device.hpp"
#include "cuda/vit_cases.hpp"

namespace {

using namespace cuda_device;

void reproduces(const char* name) {
  if (no_device()) return;
  backend b({.arithmetic = arithmetic::f32});
  vit_cases::check_all(b, name);
}

}  // namespace

TEST_CASE("the device reproduces the golden ViT a", "[cuda][golden]") { reproduces("vit_a"); }

TEST_CASE("the device reproduces the golden ViT b", "[cuda][golden]") { reproduces("vit_b"); }

TEST_CASE("the device reproduces the golden ViT c", "[cuda][golden][short]") { reproduces("vit_c"); }
