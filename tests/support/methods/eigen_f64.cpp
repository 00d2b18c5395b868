// Attribution methods by name on the Eigen backend in double.

#include "core_tokensets/tensor/eigen.hpp"
#include "support/methods/definition.hpp"

template core_tokensets::any_attribution<core_tokensets::eigen_backend<double>> support::method_named(std::string_view);
