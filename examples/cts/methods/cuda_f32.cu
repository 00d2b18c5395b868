// Methods by name on a CUDA device, for classes.

#include "core_tokensets/tensor/cuda.hpp"
#include "methods/definition.hpp"

template core_tokensets::any_attribution<core_tokensets::cuda_backend<float>> cts_command::method_named(
    const std::string&);
