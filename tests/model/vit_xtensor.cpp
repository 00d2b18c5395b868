// The xtensor backend against the golden ViTs.

#include "core_tokensets/tensor/xtensor.hpp"
#include "model/token_weight_checks.hpp"
#include "model/vit_checks.hpp"

namespace model_vit_xtensor_tests {

namespace cts = core_tokensets;

TEST_CASE("the xtensor backend reproduces the golden ViTs in double", "[vit][golden][xtensor]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) vit_checks::check_all(cts::xtensor_backend<double>(), name);
}

TEST_CASE("the xtensor backend reproduces the golden ViTs in float", "[vit][golden][xtensor]") {
  for (const char* name : {"vit_a", "vit_b", "vit_c"}) vit_checks::check_all(cts::xtensor_backend<float>(), name);
}

TEST_CASE("the xtensor backend agrees with the reference on batches of every shape", "[vit][ragged][xtensor]") {
  vit_checks::check_agreement(cts::xtensor_backend<double>());
  vit_checks::check_agreement(cts::xtensor_backend<float>());
}

TEST_CASE("the xtensor backend sees a token of weight w as w equal tokens", "[vit][weights][xtensor]") {
  token_weight_checks::check_repeats(cts::xtensor_backend<double>(), 1e-11);
  token_weight_checks::check_ones(cts::xtensor_backend<float>());
  token_weight_checks::check_ones(cts::xtensor_backend<double>());
}

}  // namespace model_vit_xtensor_tests
