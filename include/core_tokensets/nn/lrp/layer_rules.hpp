#pragma once
// Relevance rules, as data, of everything in a transformer that is no linear layer: sums, copies, norms, activations,
// the softmax and the two products of attention. Executors are in elementwise.hpp and attention.hpp.

#include <string>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/nn/lrp/division.hpp"

namespace core_tokensets::lrp {

/// z = a + b: R_a = a R / z, R_b = b R / z. `renormalised` (Chefer, Gur & Wolf 2021, eq. 9): the totals t_a, t_b over
/// the sample are then made to be |t_a| and |t_b| in proportion, and to add up to that of R.
struct sum_rule {
  division over = {};
  bool renormalised = false;
};

/// x used twice, with relevances R_1 and R_2. `add`: R = R_1 + R_2, which is the gradient's rule and keeps the sum.
/// `ratio` (Chefer's code): R = x (R_1 / x + R_2 / x), the same but where x is near 0. Also the rule for choosing the
/// class token.
struct copy_rule {
  enum class way { add, ratio } how = way::add;
  division over = chefer_division;
};

/// Layer norm. `pass`: R as it is. `detached` (AttnLRP, prop. 3.4, and Ali et al. 2022): the deviation counts as a
/// constant, u = R / y w / std, R_in = x (u - mean u); the bias absorbs. The sum is kept without bias and mean.
struct norm_rule {
  enum class way { pass, detached } how = way::pass;
  division over = {};
};

/// An activation y = f(x). eps = 0: R as it is (AttnLRP, identity rule); else R x / (x + eps), what gradient x input
/// gives when the derivative is replaced by f(x) / (x + eps).
struct activation_rule {
  double eps = 0;
};

/// A = softmax(s). `pass`: R as it is (Chefer). `taylor` (AttnLRP, prop. 3.1): R_s = s (R_A - A sum R_A) in each row.
struct softmax_rule {
  enum class way { pass, taylor } how = way::pass;
};

/// Z = A B: S = R / Z, R_A = left A (S B^T), R_B = right B (A^T S). Halves are AttnLRP's prop. 3.3 and Chefer's; (0, 1)
/// for A v is CP-LRP (Voita et al. 2019; Ali et al. 2022): attention counts as a constant.
struct product_rule {
  division over = {};
  double left = 0.5, right = 0.5;
};

/// What relevance starts as at the explained logit.
enum class start_value { one, logit };

// ---- scalar functions -------------------------------------------------------------------------------------------

/// ra = a S, rb = (sum - a) S with S = r / sum
template <class T>
struct share_sum {
  divide<T> over;
  constexpr void operator()(T& ra, T& rb, const T& r, const T& a, const T& sum) const {
    const T s = over(r, sum), other = sum - a;
    ra = a * s;
    rb = other * s;
  }
};
/// Factors of the two parts of a sum, in place of their totals ta, tb, from the total of the whole.
template <class T>
struct sum_factors {
  divide<T> over;
  constexpr void operator()(T& ta, T& tb, const T& total) const {
    const T a = ta < T(0) ? -ta : ta, b = tb < T(0) ? -tb : tb;
    ta = over(over(a, a + b) * total, ta);
    tb = over(over(b, a + b) * total, tb);
  }
};
/// out = x (r1 / x + r2 / x); out may be r1 or r2
template <class T>
struct join_by_ratio {
  divide<T> over;
  constexpr void operator()(T& out, const T& r1, const T& r2, const T& x) const {
    out = x * (over(r1, x) + over(r2, x));
  }
};
/// out = x (r / x); out may be r
template <class T>
struct choose_by_ratio {
  divide<T> over;
  constexpr void operator()(T& out, const T& r, const T& x) const { out = x * over(r, x); }
};
/// u = r / y gamma rstd
template <class T>
struct norm_share {
  divide<T> over;
  constexpr void operator()(T& u, const T& r, const T& y, const T& gamma, const T& rstd) const {
    u = over(r, y) * gamma * rstd;
  }
};
/// out = x (u - total / n)
template <class T>
struct norm_result {
  T n;
  constexpr void operator()(T& out, const T& u, const T& x, const T& total) const { out = x * (u - total / n); }
};
/// r = r x / (x + eps); 0 where that denominator is 0
template <class T>
struct activation_share {
  T eps;
  constexpr void operator()(T& r, const T& x) const {
    const T z = x + eps;
    r = z == T(0) ? T(0) : r * x / z;
  }
};
/// z = (z scale) (ra - a total)
template <class T>
struct softmax_result {
  T scale;
  constexpr void operator()(T& z, const T& ra, const T& a, const T& total) const { z *= scale * (ra - a * total); }
};

}  // namespace core_tokensets::lrp
