// Methods for answers by name on the Eigen backend in float.

#include "core_tokensets/tensor/eigen.hpp"
#include "methods/answers_definition.hpp"

template core_tokensets::any_attribution<core_tokensets::eigen_backend<float>>::answers_call
cts_command::answers_of_method<core_tokensets::eigen_backend<float>>(const std::string&);
