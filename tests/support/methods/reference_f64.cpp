// Attribution methods by name on the reference backend in double.

#include "core_tokensets/tensor/reference.hpp"
#include "support/methods/definition.hpp"

template core_tokensets::any_attribution<core_tokensets::reference_backend<double>> support::method_named(
    std::string_view);
