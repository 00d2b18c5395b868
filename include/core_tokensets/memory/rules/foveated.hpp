#pragma once
// The whole picture, coarse where it does not matter.

#include "core_tokensets/memory/token_rule.hpp"

namespace core_tokensets {

/// All P tokens: the `count` most relevant at the quality `sharp`, the others at `coarse`, for a byte or two each.
/// Nothing is left out, so a stored picture looks like a picture; relevance decides where the bytes go.
/// Wants a codec with qualities (`dct`).
struct foveated_tokens {
  static constexpr const char* name = "foveated";
  static constexpr const char* about = "the whole picture, its most relevant tokens sharp and the others coarse";
  int coarse = 5;  ///< 1 .. 100
  int sharp = 20;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("coarse", self.coarse);
    visit("sharp", self.sharp);
  }
};

inline kept_tokens keep(const foveated_tokens& rule, const token_choice& c) {
  detail::check_choice(c);
  require_within("token rule 'foveated': coarse", rule.coarse, 1, 100);
  require_within("token rule 'foveated': sharp", rule.sharp, 1, 100);
  std::vector<std::uint16_t> all(c.relevance.size());
  std::iota(all.begin(), all.end(), std::uint16_t{0});
  std::vector<std::uint8_t> qualities(all.size(), static_cast<std::uint8_t>(rule.coarse));
  for (const std::uint16_t p : detail::first_of(detail::by_relevance(c), c.count))
    qualities[p] = static_cast<std::uint8_t>(rule.sharp);
  return {std::move(all), {}, std::move(qualities)};
}

}  // namespace core_tokensets
