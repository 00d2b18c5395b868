// Methods by name on the Eigen backend in float, for classes.

#include "core_tokensets/tensor/eigen.hpp"
#include "methods/definition.hpp"

template core_tokensets::any_attribution<core_tokensets::eigen_backend<float>> cts_command::method_named(
    const std::string&);
