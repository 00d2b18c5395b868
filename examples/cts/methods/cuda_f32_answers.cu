// Methods for answers by name on a CUDA device.

#include "core_tokensets/tensor/cuda.hpp"
#include "methods/answers_definition.hpp"

template core_tokensets::any_attribution<core_tokensets::cuda_backend<float>>::answers_call
cts_command::answers_of_method<core_tokensets::cuda_backend<float>>(const std::string&);
