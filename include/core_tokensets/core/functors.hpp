#pragma once
// Scalar functions of the whole library as function objects: shared by every backend, by the tests and by kernels.
// The float versions are free of branches and calls, so that loops over them become vector instructions; they are
// always inlined, since one call left in such a loop makes it several times slower, and compilers with much to inline
// do leave one.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

namespace core_tokensets::fn {

/// e^x. Float: range reduction by a rounding constant, degree-6 polynomial, relative error below 2e-7; results below
/// the smallest normal number are 0. Other types: the standard library.
template <class T>
[[gnu::always_inline]] constexpr T exp(T x) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
    float y = x > -87.3f ? x : (x <= -87.3f ? -87.3f : x);
    y = y > 88.7f ? 88.7f : y;
    const float shifted = y * 1.44269504f + rounder;
    const float n = shifted - rounder;
    const float r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.381459638e-3f;
    p = p * r + 8.368717090e-3f;
    p = p * r + 4.166838809e-2f;
    p = p * r + 1.666652062e-1f;
    p = p * r + 4.999999344e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t exponent = (std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(rounder) + 126)
                                  << 23;
    const float result = p * std::bit_cast<float>(exponent) * 2.0f;
    return x < -87.3f ? 0.0f : result;
  } else {
    return std::exp(x);
  }
}

/// Standard normal distribution and density at the same point.
template <class T>
struct normal_pair {
  T cdf, pdf;
};

/// Phi(x) = (1 + erf(x / sqrt 2)) / 2 and its derivative. Float: the tail is exp(-x^2/2) times a polynomial in
/// 1 / (1 + 0.3 |x|), relative error below 7e-7 for |x| < 5 and 4e-6 far out (x^2 / 2 is rounded), where 1 + erf would
/// cancel. Other types: std::erfc.
template <class T>
[[gnu::always_inline]] constexpr normal_pair<T> normal(T x) {
  if constexpr (std::is_same_v<T, float>) {
    const float magnitude = x < 0.0f ? -x : x;
    const float t = 1.0f / (1.0f + 0.3f * magnitude);
    float p = 3.827699482e-2f;
    p = p * t - 1.686739584e-1f;
    p = p * t + 2.276438049e-1f;
    p = p * t - 7.534447920e-2f;
    p = p * t + 1.417329918e-1f;
    p = p * t + 9.502546913e-2f;
    p = p * t + 1.218327736e-1f;
    p = p * t + 1.194999876e-1f;
    p = p * t + 6.444519976e-6f;
    const float bell = fn::exp(-0.5f * x * x);
    const float tail = bell * p;
    return {x < 0.0f ? tail : 1.0f - tail, bell * 0.398942280f};
  } else {
    return {T(0.5) * std::erfc(-x * T(std::numbers::sqrt2 / 2)),
            std::exp(T(-0.5) * x * x) * T(std::numbers::inv_sqrtpi / std::numbers::sqrt2)};
  }
}

/// GELU in its exact form, x Phi(x) (Hendrycks & Gimpel 2016).
template <class T>
[[gnu::always_inline]] constexpr T gelu(T x) {
  return x * normal(x).cdf;
}

/// d gelu / dx = Phi(x) + x phi(x).
template <class T>
[[gnu::always_inline]] constexpr T gelu_derivative(T x) {
  const auto n = normal(x);
  return n.cdf + x * n.pdf;
}

/// Chefer's safe division: 0 where b is 0, else a / (b + 1e-9). The constant is added as it is, not sign-aware.
template <class T>
[[gnu::always_inline]] constexpr T safe_divide(T a, T b) {
  const T shifted = b + T(1e-9);
  return b == T(0) ? T(0) : a / (shifted == T(0) ? T(1e-9) : shifted);
}

// ---- operands of map: outputs come first, every operand is a reference to one element ----------------------------

/// out = in
struct copy {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in;
  }
};
/// out += in
struct add {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out += in;
  }
};
/// out = a + b
struct sum {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = a + b;
  }
};
/// out *= in
struct multiply {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out *= in;
  }
};
/// out = a * b
struct product {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = a * b;
  }
};
/// out *= factor
template <class T>
struct scale {
  T factor;
  constexpr void operator()(T& out) const { out *= factor; }
};
/// out = gelu(in)
struct apply_gelu {
  static constexpr bool is_long = true;  // of a loop: worth wider instructions than the program is compiled for
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = gelu(in);
  }
};
/// dx *= gelu'(x)
struct multiply_gelu_derivative {
  static constexpr bool is_long = true;
  template <class T>
  constexpr void operator()(T& dx, const T& x) const {
    dx *= gelu_derivative(x);
  }
};
/// out = max(in, 0)
struct positive_part {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in > T(0) ? in : T(0);
  }
};
/// out = min(in, 0)
struct negative_part {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in < T(0) ? in : T(0);
  }
};
/// out = exp(in - shift)
struct exp_minus {
  template <class T>
  constexpr void operator()(T& out, const T& in, const T& shift) const {
    out = fn::exp(in - shift);
  }
};
/// out /= divisor
struct divide {
  template <class T>
  constexpr void operator()(T& out, const T& divisor) const {
    out /= divisor;
  }
};
/// out = safe_divide(a, b)
struct divide_safely {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = safe_divide(a, b);
  }
};
/// Gradient of softmax: ds = a (da - inner) with inner = sum(a da).
struct softmax_gradient {
  template <class T>
  constexpr void operator()(T& ds, const T& a, const T& da, const T& inner) const {
    ds = a * (da - inner);
  }
};
/// y = (x - mean) rstd gamma + beta
struct normalise {
  template <class T>
  constexpr void operator()(T& y, const T& x, const T& mean, const T& rstd, const T& gamma, const T& beta) const {
    y = (x - mean) * rstd * gamma + beta;
  }
};
/// out = sum / n
template <class T>
struct mean_of_sum {
  T n;
  constexpr void operator()(T& out, const T& total) const { out = total / n; }
};
/// out = 1 / sqrt(total / n + eps)
template <class T>
struct rstd_of_sum {
  T n, eps;
  constexpr void operator()(T& out, const T& total) const { out = T(1) / std::sqrt(total / n + eps); }
};
/// dx = rstd (g - (s1 + xhat s2) / n) with g = dy gamma, xhat = (x - mean) rstd, s1 = sum g, s2 = sum g xhat.
template <class T>
struct layer_norm_gradient {
  T n;
  constexpr void operator()(T& dx, const T& x, const T& dy, const T& gamma, const T& mean, const T& rstd, const T& s1,
                            const T& s2) const {
    dx = rstd * (dy * gamma - (s1 + (x - mean) * rstd * s2) / n);
  }
};

// ---- operands of the reductions: inputs to the term that is summed or maximised ----------------------------------

struct value {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x;
  }
};
struct square {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x * x;
  }
};
struct times {
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return a * b;
  }
};
struct squared_difference {
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return (a - b) * (a - b);
  }
};
/// dy gamma xhat
struct norm_gradient_term {
  template <class T>
  constexpr T operator()(const T& dy, const T& gamma, const T& x, const T& mean, const T& rstd) const {
    return dy * gamma * (x - mean) * rstd;
  }
};
/// dy xhat
struct norm_scale_term {
  template <class T>
  constexpr T operator()(const T& dy, const T& x, const T& mean, const T& rstd) const {
    return dy * (x - mean) * rstd;
  }
};

// ---- reductions --------------------------------------------------------------------------------------------------

struct plus {
  template <class T>
  static constexpr T identity() {
    return T(0);
  }
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a + b;
  }
};
struct maximum {
  template <class T>
  static constexpr T identity() {
    return T(-3.0e38);
  }
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

}  // namespace core_tokensets::fn
