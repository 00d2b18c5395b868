#pragma once
// For the files beside this one, which instantiate it.

#include "support/methods.hpp"

template <class B>
core_tokensets::any_attribution<B> support::method_named(std::string_view text) {
  return core_tokensets::named_attribution<B>(text);
}
