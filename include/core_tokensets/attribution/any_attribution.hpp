#pragma once
// One method of any type behind one call a backend, for where a method is chosen while the program runs: by name, or
// from a list of several types. Whoever knows the type passes the value itself.

#include <functional>
#include <optional>

#include "core_tokensets/attribution/answers/answer_methods.hpp"
#include "core_tokensets/attribution/method.hpp"
#include "core_tokensets/attribution/methods.hpp"

namespace core_tokensets {

namespace detail {
template <class B, class... M>
auto those_for_answers(choices<M...>) {
  return joined(std::conditional_t<answers_method<M, B>, choices<M>, choices<>>{}...);
}
}  // namespace detail

/// Those of the table that work on answers, as `choices`.
template <tensor_backend B>
auto methods_for_answers() {
  return detail::those_for_answers<B>(attribution_methods{});
}

/// A method on backend B, with the text that reports show; works on answers where the method inside does.
template <tensor_backend B>
class any_attribution {
 public:
  using classes_call = std::function<std::vector<double>(B&, const vit<B>&, const token_batch&, const target&,
                                                         attribution_workspace<B>&)>;
  using answers_call = std::function<answer_relevance(B&, const image_text_model<B>&, const token_batch&,
                                                      const text_batch&, answer_workspace<B>&)>;

  /// A method with a name, or one that is called `text`.
  template <class M>
  requires(!std::same_as<M, any_attribution> && attribution_method<M, B>) any_attribution(const M& method)
      : any_attribution(method, text_of(method)) {}
  template <class M>
  requires(!std::same_as<M, any_attribution> && attribution_method<M, B>)
      any_attribution(const M& method, std::string text)
      : any_attribution(for_classes(method, std::move(text)).with_answers(answers_of(method))) {}

  /// A method that nobody will ask about answers, which spares the compiler that half of it.
  template <attribution_method<B> M>
  static any_attribution for_classes(const M& method) {
    return for_classes(method, text_of(method));
  }
  template <attribution_method<B> M>
  static any_attribution for_classes(const M& method, std::string text) {
    any_attribution made;
    made.text_ = std::move(text);
    made.classes_ = [method](B& b, const vit<B>& model, const token_batch& batch, const target& t,
                             attribution_workspace<B>& ws) { return attribute(method, b, model, batch, t, ws); };
    return made;
  }
  /// Its call for answers, empty where a method has none.
  template <class M>
  static answers_call answers_of(const M& method) {
    if constexpr (answers_method<M, B>) {
      return [method](B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                      answer_workspace<B>& ws) { return attribute(method, b, model, images, texts, ws); };
    } else {
      return {};
    }
  }
  /// The same method with a call for answers, which may come from another unit of the program.
  any_attribution with_answers(answers_call answers) const {
    any_attribution both = *this;
    both.answers_ = std::move(answers);
    both.no_answers_ = "does not work on answers";
    return both;
  }

  const std::string& text() const { return text_; }
  bool works_on_answers() const { return answers_ != nullptr; }

  /// What `attribute` does. `Error`: the method inside gave another number of numbers.
  std::vector<double> explain(B& b, const vit<B>& model, const token_batch& batch, const target& t,
                              attribution_workspace<B>& ws) const {
    std::vector<double> relevance = classes_(b, model, batch, t, ws);
    check_size(relevance, batch.tokens(), "patches");
    return relevance;
  }
  /// `Error` also where the method inside does not work on answers.
  answer_relevance explain(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                           answer_workspace<B>& ws) const {
    check_answers();
    answer_relevance relevance = answers_(b, model, images, texts, ws);
    check_size(relevance.image, images.tokens(), "patches");
    check_size(relevance.text, static_cast<index>(texts.tokens.size()), "tokens of text");
    return relevance;
  }

  /// `Error`, naming the methods that work on answers, unless this one does.
  void check_answers() const {
    require(works_on_answers(), "attribution: '", text_, "' ", no_answers_, "; ",
            join_names(names_of(methods_for_answers<B>())), " do");
  }

 private:
  any_attribution() = default;
  void check_size(const std::vector<double>& relevance, index wanted, const char* of) const {
    require(static_cast<index>(relevance.size()) == wanted, "attribution: '", text_, "' gave ", relevance.size(),
            " numbers for ", wanted, " ", of);
  }

  std::string text_;
  classes_call classes_;
  answers_call answers_;
  const char* no_answers_ = "was made for classes alone, and does not work on answers";
};

/// Templates, so that nothing is converted to `any_attribution` on the way.
template <tensor_backend B>
std::vector<double> attribute(const any_attribution<B>& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return method.explain(b, model, batch, t, ws);
}
template <tensor_backend B>
answer_relevance attribute(const any_attribution<B>& method, B& b, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  return method.explain(b, model, images, texts, ws);
}
template <tensor_backend B>
std::string text_of(const any_attribution<B>& method) {
  return method.text();
}

/// A call that makes a method of a text without brackets.
template <class Make, class B>
concept makes_methods = requires(const Make& make, const std::string& text) {
  { make(text) } -> std::convertible_to<any_attribution<B>>;
};

/// The method of a text (see `attribution_text`); `plain(text)` makes those without brackets.
template <tensor_backend B, makes_methods<B> Plain>
any_attribution<B> named_attribution(std::string_view text, const Plain& plain) {
  return read_attribution(
      text, [&](std::string_view one) -> any_attribution<B> { return plain(std::string(one)); },
      [&](const std::string& inner, const auto& wrapper) -> any_attribution<B> {
        return wrapper.around(any_attribution<B>(plain(inner)));
      });
}

/// The same from a list of methods, all of which are compiled. `Error`: see `attribution_text`.
template <tensor_backend B, class... M>
any_attribution<B> named_attribution(std::string_view text, choices<M...> methods) {
  attribution_text(text, {}, methods);  // which knows all names
  return named_attribution<B>(text, [&](const std::string& one) {
    std::optional<any_attribution<B>> made;
    choose_by_name(methods, one, "attribution", [&](const auto& method) { made.emplace(method); });
    return *std::move(made);
  });
}
template <tensor_backend B>
any_attribution<B> named_attribution(std::string_view text) {
  return named_attribution<B>(text, plain_attribution_methods{});
}

}  // namespace core_tokensets
