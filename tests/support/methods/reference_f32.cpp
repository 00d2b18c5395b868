// Attribution methods by name on the reference backend in float.

#include "core_tokensets/tensor/reference.hpp"
#include "support/methods/definition.hpp"

template core_tokensets::any_attribution<core_tokensets::reference_backend<float>> support::method_named(
    std::string_view);
