#pragma once
// A composite says which rule runs where in a transformer. Presets are the published ones; a user's own is an
// aggregate:
//   lrp::composite mine{.name = "mine", .fc1 = lrp::gamma{.gamma = 0.1}, .head = lrp::epsilon{}};

#include <string>

#include "core_tokensets/nn/lrp/attention.hpp"
#include "core_tokensets/nn/lrp/layer_rules.hpp"
#include "core_tokensets/nn/lrp/linear_rule.hpp"

namespace core_tokensets::lrp {

/// Rules by kind of layer. `residual` shares out the two sums of a block, `positions` that of embedding and position.
struct composite {
  std::string name = "epsilon";
  linear_rule patch_embed = epsilon{}, qkv = epsilon{}, proj = epsilon{}, fc1 = epsilon{}, fc2 = epsilon{},
              head = epsilon{};
  norm_rule norm = {};
  activation_rule activation = {};
  attention_rules attention = {};
  sum_rule residual = {}, positions = {};
  copy_rule copy = {};
  start_value start = start_value::logit;
};

/// The same rule for the six kinds of linear layers.
inline composite with_linear(composite c, const linear_rule& rule) {
  c.patch_embed = c.qkv = c.proj = c.fc1 = c.fc2 = c.head = rule;
  return c;
}

/// Chefer, Gur & Wolf (CVPR 2021) as in their repository: alpha = 1, beta = 0 without biases, renormalised sums, halves
/// at both products of attention; norms, GELU and softmax pass relevance on. Starts at 1 and keeps the sum down to the
/// tokens; the pixels get what positions and class token leave (z^B rule for pictures of 3 channels).
inline composite chefer() {
  const sum_rule sums{.over = chefer_division, .renormalised = true};
  composite c{.name = "chefer",
              .attention = {.product = {.over = chefer_division}},
              .residual = sums,
              .positions = sums,
              .copy = {.how = copy_rule::way::ratio},
              .start = start_value::one};
  c = with_linear(c, chefer_linear{});
  c.patch_embed = chefer_pixels{};
  return c;
}

/// The rules of their repository before the correction, which its baselines "partial LRP" and "LRP" still use: separate
/// denominators in linear layers, sums without renormalisation. Not conserving: the sum can grow without bound.
inline composite chefer_original() {
  composite c = chefer();
  c = with_linear(c, chefer_original_linear{});
  c.name = "chefer_original";
  c.patch_embed = chefer_pixels{};
  c.residual.renormalised = c.positions.renormalised = false;
  return c;
}

/// The epsilon rule everywhere, with norms as AttnLRP has them and attention as a constant (CP-LRP's choice): the plain
/// baseline. Starts at the logit; biases and eps absorb.
inline composite epsilon_everywhere(double eps = 1e-6) {
  const division over{.eps = eps};
  composite c{.name = "epsilon",
              .norm = {.how = norm_rule::way::detached, .over = over},
              .attention = {.product = {.over = over, .left = 0, .right = 1}},
              .residual = {.over = over},
              .positions = {.over = over},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = eps});
}

/// AttnLRP (Achtibat et al., ICML 2024), rule by rule with the constants of LXT's explicit functions. Starts at the
/// logit; biases (of linear layers and norms) and softmax absorb, everything else keeps the sum but for eps.
inline composite attn_lrp_explicit() {
  const auto added = [](double eps) { return division{.eps = eps, .sign_aware = false}; };
  composite c{.name = "attn_lrp_explicit",
              .norm = {.how = norm_rule::way::detached, .over = added(1e-6)},
              .attention = {.product = {.over = added(0.5e-8)}, .softmax = {.how = softmax_rule::way::taylor}},
              .residual = {.over = added(1e-8)},
              .positions = {.over = added(1e-8)},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = 1e-6, .sign_aware = false});
}

/// AttnLRP in its efficient form, gradient x input of a network with constant norms, GELU replaced by its slope, and
/// gradients halved at the products of attention: the same rules without any eps but LXT's in the activation.
inline composite attn_lrp() {
  composite c{.name = "attn_lrp",
              .norm = {.how = norm_rule::way::detached, .over = exact_division},
              .activation = {.eps = 1e-10},
              .attention = {.product = {.over = exact_division}, .softmax = {.how = softmax_rule::way::taylor}},
              .residual = {.over = exact_division},
              .positions = {.over = exact_division},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = 0});
}

/// CP-LRP (Ali et al., ICML 2022): like `attn_lrp`, but attention counts as a constant, so no relevance flows through
/// queries, keys and softmax.
inline composite cp_lrp() {
  composite c = attn_lrp();
  c.name = "cp_lrp";
  c.attention.product.left = 0;
  c.attention.product.right = 1;
  return c;
}

/// AttnLRP with the gamma rule in all linear layers, which its authors recommend for Vision Transformers.
inline composite attn_lrp_gamma(double gamma_ = 0.05) {
  composite c = with_linear(attn_lrp(), gamma{.gamma = gamma_});
  c.name = "attn_lrp_gamma";
  return c;
}

/// The same rules without the poles that they have where the sum of a residual or an element of a product of attention
/// comes close to 0: these divisions become R / (z + eps sign(z)), eps in units of activations. 0: the rules as they
/// are. What eps takes is lost at products; a renormalised sum gives it back.
inline composite stabilised(composite c, double eps) {
  require_within("relevance: stabiliser", eps, 0);
  if (eps > 0) c.residual.over = c.positions.over = c.attention.product.over = {.eps = eps};
  return c;
}

/// The presets by name.
enum class preset { chefer, chefer_original, epsilon, attn_lrp, attn_lrp_explicit, attn_lrp_gamma, cp_lrp };

inline composite make(preset p) {
  switch (p) {
    case preset::chefer:
      return chefer();
    case preset::chefer_original:
      return chefer_original();
    case preset::epsilon:
      return epsilon_everywhere();
    case preset::attn_lrp:
      return attn_lrp();
    case preset::attn_lrp_explicit:
      return attn_lrp_explicit();
    case preset::attn_lrp_gamma:
      return attn_lrp_gamma();
    case preset::cp_lrp:
      return cp_lrp();
  }
  fail("lrp: no such preset");
}
inline composite make(preset p, double stabiliser) { return stabilised(make(p), stabiliser); }

}  // namespace core_tokensets::lrp

namespace core_tokensets {
template <>
inline constexpr std::array words<lrp::preset>{
    "chefer", "chefer_original", "epsilon", "attn_lrp", "attn_lrp_explicit", "attn_lrp_gamma", "cp_lrp"};
}  // namespace core_tokensets
