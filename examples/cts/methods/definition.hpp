#pragma once
// For the files beside this one, which instantiate it: methods for classes in one, those for answers in another.

#include "methods.hpp"

namespace cts_command {

/// How the method of a text works on answers; empty where it does not.
template <class B>
typename cts::any_attribution<B>::answers_call answers_of_method(const std::string& text);

/// Whether models on that backend answer questions in this program.
template <class B>
inline constexpr bool answers = std::is_same_v<typename B::scalar, float>;

}  // namespace cts_command

template <class B>
cts_command::cts::any_attribution<B> cts_command::method_named(const std::string& text) {
  cts::check_attribution_name(text);
  return cts::named_attribution<B>(text, [](const std::string& plain) {
    std::optional<cts::any_attribution<B>> made;
    cts::choose_by_name(cts::plain_attribution_methods{}, plain, "attribution", [&](const auto& method) {
      made = cts::any_attribution<B>::for_classes(method);
      if constexpr (answers<B>) made = made->with_answers(answers_of_method<B>(plain));
    });
    return *made;
  });
}
