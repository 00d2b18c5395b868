#pragma once
// How far a result may be from its golden value, by what was computed and in which precision (goldens/README.md), and
// from the same operation in double, by how many terms were added up.

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

/// `conserved`: a sum of relevance that should be 1; `unstable`: rules that divide by what may be close to 0;
/// `outputs`: what a small model computes forwards.
enum class kind { plain, explicit_rules, relevance, unstable, key_bias, conserved, outputs };

template <class T>
constexpr double tolerance(kind k = kind::plain) {
  if constexpr (std::is_same_v<T, double>) {
    return k == kind::conserved ? 4e-8 : k == kind::outputs ? 1e-10 : 1e-9;
  } else {
    return k == kind::outputs                             ? 1e-5
           : k == kind::plain                             ? 1e-4
           : k == kind::explicit_rules                    ? 1e-3
           : k == kind::relevance || k == kind::conserved ? 1e-2
                                                          : 5e-2;
  }
}

/// The relative error of one multiplication or addition in a backend: that of its scalar. To be specialised for a
/// backend that computes with fewer digits than it stores.
template <class B>
struct precision {
  static constexpr double unit = double(std::numeric_limits<typename B::scalar>::epsilon());
};

/// Largest difference, to results of size 1 or relative to larger ones, that rounding explains where `terms` numbers of
/// about size 1 were added up.
template <class B>
double rounding(std::ptrdiff_t terms = 1) {
  return 16 * precision<B>::unit * std::sqrt(static_cast<double>(terms) + 1);
}
