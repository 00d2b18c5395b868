// Methods for answers by name on the xtensor backend in float.

#include "core_tokensets/tensor/xtensor.hpp"
#include "methods/answers_definition.hpp"

template core_tokensets::any_attribution<core_tokensets::xtensor_backend<float>>::answers_call
cts_command::answers_of_method<core_tokensets::xtensor_backend<float>>(const std::string&);
