#pragma once
// The selectors of the library by name, and one selector of any type behind one call.

#include <functional>
#include <string>
#include <string_view>

#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/greedi.hpp"
#include "core_tokensets/selection/random.hpp"

namespace core_tokensets {

/// What `--select` chooses between, the default first.
using selectors = choices<grad_match, random_selection, greedi<grad_match>>;

/// One selector of any type. It gathers evidence only where the selector inside wants it.
class any_selector {
 public:
  static constexpr const char* name = "any";

  any_selector() : any_selector(grad_match{}) {}
  template <class M>
  requires(!std::same_as<M, any_selector>) explicit any_selector(M method)
      : text_(text_of(method)),
        choose_([method](std::span<const std::int32_t> labels, index classes, index k,
                         const std::function<evidence()>& gather) {
          return choose_samples(method, labels, classes, k, gather);
        }),
        seeded_([method](std::uint64_t seed) {
          M other = method;
          if constexpr (requires { method.with_seed(seed); }) other = method.with_seed(seed);
          if constexpr (requires { other.seed = seed; }) other.seed = method.seed + seed;
          return any_selector(other);
        }) {}

  /// Name and options.
  const std::string& text() const { return text_; }
  selection_result choose(std::span<const std::int32_t> labels, index classes, index k,
                          const std::function<evidence()>& gather) const {
    return choose_(labels, classes, k, gather);
  }
  /// The same selector with `seed` added to its own, where it has one.
  any_selector with_seed(std::uint64_t seed) const { return seeded_(seed); }

 private:
  std::string text_;
  std::function<selection_result(std::span<const std::int32_t>, index, index, const std::function<evidence()>&)>
      choose_;
  std::function<any_selector(std::uint64_t)> seeded_;
};

inline std::string text_of(const any_selector& s) { return s.text(); }

inline selection_result select(const any_selector& method, const evidence& e, index k) {
  return method.choose(e.labels, e.classes, k, [&] { return e; });
}

/// The selector of a text, "grad_match:lambda=0.5"; one that works on ranks gets them. `Error`: an unknown name (lists
/// them) or option.
inline any_selector named_selector(std::string_view text, const team& ranks = {}) {
  any_selector found;
  choose_by_name(selectors{}, text, "selection", [&](auto m) {
    if constexpr (requires { m.ranks = ranks; }) m.ranks = ranks;
    if constexpr (requires { check(m); }) check(m);
    found = any_selector(m);
  });
  return found;
}

}  // namespace core_tokensets
