// The reference and the Eigen backend against the golden ViTs.

#include "core_tokensets/tensor/eigen.hpp"
#include "model/vit_checks.hpp"

namespace model_vit_golden_tests {

namespace cts = core_tokensets;

TEST_CASE("the reference backend reproduces the golden ViT", "[vit][golden]") {
  vit_checks::check_all(cts::reference_backend<double>(), "vit_c");
}

TEST_CASE("the Eigen backend reproduces the golden ViTs in double", "[vit][golden]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) vit_checks::check_all(cts::eigen_backend<double>(), name);
}

TEST_CASE("the Eigen backend reproduces the golden ViTs in float", "[vit][golden]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) vit_checks::check_all(cts::eigen_backend<float>(), name);
}

TEST_CASE("the Eigen backend agrees with the reference on batches of every shape", "[vit][ragged]") {
  vit_checks::check_agreement(cts::eigen_backend<double>());
  vit_checks::check_agreement(cts::eigen_backend<float>());
}

}  // namespace model_vit_golden_tests
