// Attribution methods by name on the archetype in float.

#include "support/archetype.hpp"
#include "support/methods/definition.hpp"

template core_tokensets::any_attribution<support::archetype_backend<float>> support::method_named(std::string_view);
