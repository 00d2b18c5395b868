#pragma once
// How far a result may be from its golden value, by what was computed and in which precision (goldens/README.md).

#include <type_traits>

enum class kind { plain, explicit_rules, relevance, unstable, key_bias };

template <class T>
constexpr double tolerance(kind k = kind::plain) {
  if constexpr (std::is_same_v<T, double>) {
    return 1e-9;
  } else {
    return k == kind::plain ? 1e-4 : k == kind::explicit_rules ? 1e-3 : k == kind::relevance ? 1e-2 : 5e-2;
  }
}
