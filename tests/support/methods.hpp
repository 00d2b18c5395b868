#pragma once
// Attribution methods by name for the tests. support/methods/ compiles them, each backend's once for all test programs,
// so that no test has to.

#include "core_tokensets/attribution/any_attribution.hpp"

namespace support {

/// `named_attribution` of a backend that has a file in support/methods/.
template <class B>
core_tokensets::any_attribution<B> method_named(std::string_view text);

}  // namespace support
