#pragma once
// For the files beside this one that instantiate it.

#include "methods/definition.hpp"

template <class B>
typename cts_command::cts::any_attribution<B>::answers_call cts_command::answers_of_method(const std::string& text) {
  typename cts::any_attribution<B>::answers_call call;
  cts::choose_by_name(cts::attribution_methods{}, text, "attribution",
                      [&](const auto& method) { call = cts::any_attribution<B>::answers_of(method); });
  return call;
}
