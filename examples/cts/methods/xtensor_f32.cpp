// Methods by name on the xtensor backend in float, for classes.

#include "core_tokensets/tensor/xtensor.hpp"
#include "methods/definition.hpp"

template <>
inline constexpr bool cts_command::answers<core_tokensets::xtensor_backend<float>> = false;

template core_tokensets::any_attribution<core_tokensets::xtensor_backend<float>> cts_command::method_named(
    const std::string&);
