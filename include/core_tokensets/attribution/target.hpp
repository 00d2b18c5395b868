#pragma once
// What is explained: a logit, the log-probability of a class, or the margin between two classes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/data/token_batch.hpp"

namespace core_tokensets {

/// The number that relevance is shares of. `log_probability` is minus the cross-entropy, so that relevance is positive
/// where a token lowers the loss; `margin` is the logit minus that of another class.
enum class explained_score { logit, log_probability, margin };
/// Whose class: the one of the largest logit, the label of the batch, or one that is given.
enum class explained_class { largest, label, given };

template <>
inline constexpr std::array words<explained_score>{"logit", "loss", "margin"};

/// A target for every sample of a batch. Given classes are one for all samples or one for each; without a class
/// `against`, a margin is to the largest other logit. A list of classes alone is a target too: those logits, or if it
/// is empty the largest.
struct target {
  explained_score what = explained_score::logit;
  explained_class whose = explained_class::largest;
  std::vector<std::int32_t> classes = {}, against = {};

  target() = default;
  target(explained_score o, explained_class c = explained_class::largest, std::vector<std::int32_t> given = {},
         std::vector<std::int32_t> others = {})
      : what(o), whose(c), classes(std::move(given)), against(std::move(others)) {}
  target(std::span<const std::int32_t> given)
      : whose(given.empty() ? explained_class::largest : explained_class::given), classes(given.begin(), given.end()) {}
  target(const std::vector<std::int32_t>& given) : target(std::span(given)) {}

  static target label(explained_score o = explained_score::logit) { return {o, explained_class::label}; }
  static target of_class(std::int32_t c, explained_score o = explained_score::logit) {
    return {o, explained_class::given, {c}};
  }
  static target loss() { return label(explained_score::log_probability); }
  static target margin(std::int32_t c, std::int32_t other) {
    return {explained_score::margin, explained_class::given, {c}, {other}};
  }
};

/// "argmax", "label", "class:3", "loss" (of the label), "margin" (of the label to the largest other), "margin:3,5".
/// `Error`: anything else.
inline target parse_target(std::string_view text) {
  const auto colon = text.find(':');
  const std::string_view word = text.substr(0, colon), rest = colon == text.npos ? "" : text.substr(colon + 1);
  const auto number = [](std::string_view digits) {
    return detail::parse_option<std::int32_t>(digits, "target: class");
  };
  if (word == "class" && !rest.empty()) return target::of_class(number(rest));
  if (word == "margin" && !rest.empty()) {
    const auto comma = rest.find(',');
    require(comma != rest.npos, "target '", text, "': expected margin:A,B");
    return target::margin(number(rest.substr(0, comma)), number(rest.substr(comma + 1)));
  }
  require(rest.empty(), "target '", text, "': expected argmax, label, class:K, loss, margin or margin:A,B");
  if (word == "argmax") return {};
  if (word == "label") return target::label();
  if (word == "loss") return target::loss();
  if (word == "margin") return target::label(explained_score::margin);
  fail("target '", text, "': expected argmax, label, class:K, loss, margin or margin:A,B");
}

/// A target with its classes settled for the S samples of a batch.
struct settled_target {
  explained_score what = explained_score::logit;
  std::vector<std::int32_t> classes, others;  ///< [S]; others only for margins

  /// The explained number of sample s for its logits.
  double value(std::size_t s, std::span<const double> logits) const { return value_of(s, logits); }
  double value(std::size_t s, std::span<const float> logits) const { return value_of(s, logits); }
  /// Its gradient with respect to the logits (=).
  template <class T>
  void gradient(std::size_t s, std::span<const T> logits, std::span<T> out) const {
    std::fill(out.begin(), out.end(), T(0));
    if (what == explained_score::log_probability) {
      const double total = log_total(logits);
      for (std::size_t k = 0; k < out.size(); ++k) out[k] = T(-std::exp(double(logits[k]) - total));
    }
    out[static_cast<std::size_t>(classes[s])] += T(1);
    if (what == explained_score::margin) out[static_cast<std::size_t>(others[s])] -= T(1);
  }

 private:
  template <class T>
  double value_of(std::size_t s, std::span<const T> logits) const {
    const double z = double(logits[static_cast<std::size_t>(classes[s])]);
    if (what == explained_score::logit) return z;
    if (what == explained_score::margin) return z - double(logits[static_cast<std::size_t>(others[s])]);
    return z - log_total(logits);
  }
  template <class T>
  static double log_total(std::span<const T> logits) {
    const double top = double(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (const T z : logits) total += std::exp(double(z) - top);
    return top + std::log(total);
  }
};

/// Settles `t` for a batch with these logits `[S, K]`. `Error`: labels that are missing, another number of classes, a
/// class that the model does not have, a margin of a class to itself.
template <class T>
settled_target settle(const target& t, const token_batch& batch, std::span<const T> logits) {
  const auto samples = static_cast<std::size_t>(batch.samples());
  const std::size_t k = samples == 0 ? 0 : logits.size() / samples;
  const auto listed = [&](const std::vector<std::int32_t>& list, std::size_t s) {
    require(list.size() == 1 || list.size() == samples, "attribution: ", list.size(), " targets for ", samples,
            " samples");
    return list[list.size() == 1 ? 0 : s];
  };
  settled_target settled{t.what, {}, {}};
  for (std::size_t s = 0; s < samples; ++s) {
    const auto row = logits.subspan(s * k, k);
    const auto largest = [&](std::int32_t except) {
      std::size_t best = except == 0 ? 1 : 0;
      for (std::size_t c = 0; c < k; ++c) {
        if (static_cast<std::int32_t>(c) != except && row[c] > row[best]) best = c;
      }
      return static_cast<std::int32_t>(best);
    };
    const std::int32_t c = t.whose == explained_class::largest ? largest(-1)
                           : t.whose == explained_class::label ? listed(batch.targets, s)
                                                               : listed(t.classes, s);
    require(c >= 0 && static_cast<std::size_t>(c) < k, "attribution: class ", c, " of ", k, " classes");
    settled.classes.push_back(c);
    if (t.what != explained_score::margin) continue;
    require(k > 1, "attribution: a margin needs two classes, the model has ", k);
    const std::int32_t other = t.against.empty() ? largest(c) : listed(t.against, s);
    require(other >= 0 && static_cast<std::size_t>(other) < k && other != c, "attribution: margin of class ", c, " to ",
            other, " of ", k, " classes");
    settled.others.push_back(other);
  }
  return settled;
}

}  // namespace core_tokensets
