#pragma once
// Relevance rules of linear layers y = x W^T + b as data. A rule is a list of terms: x' and W' are made from x and W,
// the terms of a group sum up to its denominator z, S = R / z, and R_in = sum over terms of factor x' (W'^T S). One
// executor (linear.hpp) runs all of them; a user's own rule is a struct with a name and such a plan.

#include <array>
#include <cmath>
#include <concepts>
#include <string>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/nn/lrp/division.hpp"

namespace core_tokensets::lrp {

/// positive v+ + negative v-, of the positive and negative part of an array v.
struct sides {
  double positive = 1, negative = 1;
  bool whole() const { return positive == 1 && negative == 1; }
  bool none() const { return positive == 0 && negative == 0; }
  bool operator==(const sides&) const = default;
};

inline constexpr sides both_sides{1, 1}, positive_side{1, 0}, negative_side{0, 1}, no_side{0, 0};

/// What takes the place of the input: parts of it, or the same number everywhere (1, or the lowest or highest value
/// that the input could have).
enum class input_kind { parts, ones, low, high };
/// What takes the place of the weight: parts of it, the number 1 everywhere, or its square.
enum class weight_kind { parts, ones, squared };

struct linear_term {
  input_kind input = input_kind::parts;
  sides of_input = both_sides;
  weight_kind weight = weight_kind::parts;
  sides of_weight = both_sides;
  int group = 0;
  double factor = 1;
};

/// One denominator: which part of the bias it holds (its square with `squared_bias`), and whether only outputs of one
/// sign (`output` +1 or -1) pass relevance through it.
struct linear_group {
  sides of_bias = no_side;
  bool squared_bias = false;
  int output = 0;
};

/// A rule of a linear layer, ready to run.
struct linear_plan {
  std::array<linear_term, 4> terms{};
  int term_count = 0;
  std::array<linear_group, 4> groups{};
  int group_count = 1;
  division over = {};
  bool pass = false;              ///< R_in = R; input and output must have the same width
  bool pixels = false;            ///< settled by the number of channels: see `chefer_pixels`
  double low = 0, high = 0;       ///< of `input_kind::low` and `high`
  bool bounds_of_sample = false;  ///< low and high are the least and largest input of the sample

  linear_plan& add(const linear_term& t) {
    terms[static_cast<std::size_t>(term_count++)] = t;
    return *this;
  }
};

/// `Error` naming the rule where a number of its plan is not one.
inline void check(const linear_plan& p, const std::string& name) {
  const auto finite = [&](double x) {
    require(std::isfinite(x), "relevance rule ", name, ": ", x, ", expected finite numbers");
  };
  for (int i = 0; i < p.term_count; ++i) {
    const linear_term& t = p.terms[static_cast<std::size_t>(i)];
    for (const double x : {t.of_input.positive, t.of_input.negative, t.of_weight.positive, t.of_weight.negative})
      finite(x);
    finite(t.factor);
  }
  for (const linear_group& g : p.groups) finite(g.of_bias.positive), finite(g.of_bias.negative);
  require_within("relevance: eps", p.over.eps, 0);
  finite(p.low), finite(p.high);
  require(p.low <= p.high, "relevance rule ", name, ": inputs from ", p.low, " to ", p.high);
}

// ---- rules ------------------------------------------------------------------------------------------------------

/// R_in = x (W^T (R / z)), z = W x + b with z + eps sign(z) as the denominator (Bach et al. 2015, eq. 58). The bias and
/// eps absorb relevance. LXT (Achtibat et al. 2024) adds eps without the sign.
struct epsilon {
  static constexpr const char* name = "epsilon";
  double eps = 1e-6;
  bool bias = true, sign_aware = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
    visit("sign_aware", self.sign_aware);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps, .sign_aware = sign_aware}};
    p.groups[0].of_bias = bias ? both_sides : no_side;
    return p.add({});
  }
};

/// Contributions count (1 + gamma) times where they have the sign of the output (Montavon et al. 2019, in the form for
/// inputs and outputs of any sign). Without bias the sum is kept.
struct gamma {
  static constexpr const char* name = "gamma";
  double gamma = 0.25, eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("gamma", self.gamma);
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const {
    const sides up{1 + gamma, 1}, down{1, 1 + gamma};
    linear_plan p{.group_count = 2, .over = {.eps = eps}};
    p.groups[0] = {.of_bias = bias ? up : no_side, .output = 1};
    p.groups[1] = {.of_bias = bias ? down : no_side, .output = -1};
    p.add({.of_input = positive_side, .of_weight = up, .group = 0});
    p.add({.of_input = negative_side, .of_weight = down, .group = 0});
    p.add({.of_input = positive_side, .of_weight = down, .group = 1});
    return p.add({.of_input = negative_side, .of_weight = up, .group = 1});
  }
};

/// alpha times the shares among positive contributions minus beta times those among negative ones (Bach et al. 2015,
/// eq. 60). alpha - beta = 1 keeps the sum where both kinds exist.
struct alpha_beta {
  static constexpr const char* name = "alpha_beta";
  double alpha = 2, beta = 1;
  bool bias = true;
  division over = {};
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
    visit("bias", self.bias);
    visit("eps", self.over.eps);
  }

  linear_plan plan() const {
    linear_plan p{.group_count = beta == 0 ? 1 : 2, .over = over};
    p.groups[0].of_bias = bias ? positive_side : no_side;
    p.groups[1].of_bias = bias ? negative_side : no_side;
    p.add({.of_input = positive_side, .of_weight = positive_side, .group = 0, .factor = alpha});
    p.add({.of_input = negative_side, .of_weight = negative_side, .group = 0, .factor = alpha});
    if (beta == 0) return p;
    p.add({.of_input = positive_side, .of_weight = negative_side, .group = 1, .factor = -beta});
    return p.add({.of_input = negative_side, .of_weight = positive_side, .group = 1, .factor = -beta});
  }
};

/// alpha_beta with alpha = 1, beta = 0: only positive contributions count (Montavon et al. 2017).
struct z_plus {
  static constexpr const char* name = "z_plus";
  double eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const { return alpha_beta{.alpha = 1, .beta = 0, .bias = bias, .over = {.eps = eps}}.plan(); }
};

/// Every input gets the same share (Lapuschkin et al. 2019). Keeps the sum; knows neither x, W nor b.
struct flat {
  static constexpr const char* name = "flat";
  double eps = 1e-6;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps}};
    return p.add({.input = input_kind::ones, .weight = weight_kind::ones});
  }
};

/// Shares by squared weights, whatever the input (Montavon et al. 2017, for unbounded inputs).
struct w_square {
  static constexpr const char* name = "w_square";
  double eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps}};
    if (bias) p.groups[0] = {.of_bias = both_sides, .squared_bias = true};
    return p.add({.input = input_kind::ones, .weight = weight_kind::squared});
  }
};

/// For inputs between `low` and `high`, as pixels are: z = W x - W+ low - W- high, without bias (Montavon et al. 2017,
/// z^B). `of_sample` takes the least and largest input of each sample instead.
struct z_box {
  static constexpr const char* name = "z_box";
  double low = -1, high = 1;
  bool of_sample = false;
  division over = {};
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("low", self.low);
    visit("high", self.high);
    visit("of_sample", self.of_sample);
    visit("eps", self.over.eps);
  }

  linear_plan plan() const {
    linear_plan p{.over = over, .low = low, .high = high, .bounds_of_sample = of_sample};
    p.add({});
    p.add({.input = input_kind::low, .of_weight = {-1, 0}});
    return p.add({.input = input_kind::high, .of_weight = {0, -1}});
  }
};

/// Relevance passes as it is; only for layers as wide as their input.
struct identity {
  static constexpr const char* name = "identity";
  linear_plan plan() const { return {.pass = true}; }
};

/// The linear rule of Chefer, Gur & Wolf (CVPR 2021): alpha_beta without bias and with their division.
struct chefer_linear {
  static constexpr const char* name = "chefer_linear";
  double alpha = 1, beta = 0;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
  }

  linear_plan plan() const {
    return alpha_beta{.alpha = alpha, .beta = beta, .bias = false, .over = chefer_division}.plan();
  }
};

/// The rule of their repository before its correction ("orig"): each product has a denominator of its own, so inputs of
/// both signs pass the relevance on twice. Not conserving.
struct chefer_original_linear {
  static constexpr const char* name = "chefer_original_linear";
  double alpha = 1, beta = 0;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
  }

  linear_plan plan() const {
    linear_plan p{.group_count = 2, .over = chefer_division};
    p.add({.of_input = positive_side, .of_weight = positive_side, .group = 0, .factor = alpha});
    p.add({.of_input = negative_side, .of_weight = negative_side, .group = 1, .factor = alpha});
    if (beta == 0) return p;
    p.group_count = 4;
    p.add({.of_input = positive_side, .of_weight = negative_side, .group = 2, .factor = -beta});
    return p.add({.of_input = negative_side, .of_weight = positive_side, .group = 3, .factor = -beta});
  }
};

/// Their rule of the patch embedding: z_box between the least and largest pixel of the picture where it has 3 channels,
/// else `chefer_original_linear`.
struct chefer_pixels {
  static constexpr const char* name = "chefer_pixels";
  linear_plan plan() const { return {.pixels = true}; }
  static linear_plan plan_for(index channels) {
    if (channels != 3) return chefer_original_linear{}.plan();
    return z_box{.of_sample = true, .over = {.eps = 1e-9, .sign_aware = false}}.plan();
  }
};

/// What the executor needs of a rule.
template <class R>
concept linear_rule_type = requires(const R& r) {
  { R::name } -> std::convertible_to<std::string>;
  { r.plan() } -> std::convertible_to<linear_plan>;
};

/// Any rule of linear layers, by value. `Error`: see `check`.
class linear_rule {
 public:
  template <linear_rule_type R>
  linear_rule(const R& rule) : name_(R::name), options_(options_text(rule)), plan_(rule.plan()) {
    check(plan_, name_);
  }

  const std::string& name() const { return name_; }
  /// Name and options, "gamma(gamma=0.25,eps=1e-06,bias=true)".
  std::string text() const { return options_.empty() ? name_ : name_ + "(" + options_ + ")"; }
  const linear_plan& plan() const { return plan_; }
  /// The rule for pictures of so many channels (see `chefer_pixels`).
  linear_plan plan_for(index channels) const { return plan_.pixels ? chefer_pixels::plan_for(channels) : plan_; }

 private:
  std::string name_, options_;
  linear_plan plan_;
};

}  // namespace core_tokensets::lrp
