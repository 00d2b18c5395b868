#pragma once
// Relevance over a denominator that may be close to 0: the published rules differ in how they keep it away from 0, so
// the way is data. Scalar functions of all relevance rules.

#include <sstream>
#include <string>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/functors.hpp"

namespace core_tokensets::lrp {

/// R / (z + eps sign(z)) with sign(0) = +1; not `sign_aware`: R / (z + eps) whatever the sign of z. `zero_at_zero`: 0
/// where z is 0, which is also what eps = 0 gives.
struct division {
  double eps = 1e-6;
  bool sign_aware = true, zero_at_zero = false;

  bool operator==(const division&) const = default;
};

/// The safe division of Chefer, Gur & Wolf (CVPR 2021): 1e-9 is added as it is, and x / 0 is 0.
inline constexpr division chefer_division{.eps = 1e-9, .sign_aware = false, .zero_at_zero = true};
/// The division of gradient x input forms: none at all.
inline constexpr division exact_division{.eps = 0, .sign_aware = false, .zero_at_zero = true};

inline std::string text(const division& d) {
  std::ostringstream out;
  out << (d.sign_aware ? "signed " : "added ") << d.eps << (d.zero_at_zero ? ", x/0 = 0" : "");
  return out.str();
}

/// `division` in a scalar type, as numbers that are chosen from and without branches, so that loops over it are
/// vectorised.
template <class T>
struct divide {
  T below, above;  ///< what is added to z < 0, and to z >= 0
  T instead;       ///< the denominator where the sum is 0
  T of_zero;       ///< 1, or 0 where x / 0 is 0

  explicit divide(const division& d)
      : below(T(d.sign_aware ? -d.eps : d.eps)),
        above(T(d.eps)),
        instead(d.eps == 0 ? T(1) : T(d.eps)),
        of_zero(d.zero_at_zero || d.eps == 0 ? T(0) : T(1)) {
    require_within("relevance: eps", d.eps, 0);
  }

  constexpr T operator()(T r, T z) const {
    const T moved = z + (z < T(0) ? below : above);
    const T quotient = r / (moved == T(0) ? instead : moved);
    return z == T(0) ? quotient * of_zero : quotient;
  }
};

// ---- operands of map --------------------------------------------------------------------------------------------

/// s = r / z
template <class T>
struct share {
  divide<T> over;
  constexpr void operator()(T& s, const T& r, const T& z) const { s = over(r, z); }
};
/// s = r / z where y has the sign `side` (y = 0 has none), else 0
template <class T>
struct share_of_side {
  divide<T> over;
  T side;
  constexpr void operator()(T& s, const T& r, const T& z, const T& y) const {
    const T whole = over(r, z);
    s = y * side > T(0) ? whole : T(0);
  }
};
/// out = positive max(x, 0) + negative min(x, 0)
template <class T>
struct weigh_sides {
  T positive, negative;
  constexpr T of(T x) const { return x > T(0) ? positive * x : negative * x; }
  constexpr void operator()(T& out, const T& x) const { out = of(x); }
};
/// out = x x
struct squared {
  template <class T>
  constexpr void operator()(T& out, const T& x) const {
    out = x * x;
  }
};
/// out = factor x' p, x' = positive max(x, 0) + negative min(x, 0)
template <class T>
struct term {
  T factor;
  weigh_sides<T> sides;
  constexpr void operator()(T& out, const T& p, const T& x) const { out = factor * sides.of(x) * p; }
};
/// out += factor x' p
template <class T>
struct add_term {
  T factor;
  weigh_sides<T> sides;
  constexpr void operator()(T& out, const T& p, const T& x) const { out += factor * sides.of(x) * p; }
};
/// out += a b
struct add_product {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out += a * b;
  }
};
/// out = factor out x
template <class T>
struct scale_product {
  T factor;
  constexpr void operator()(T& out, const T& x) const { out *= factor * x; }
};

}  // namespace core_tokensets::lrp
