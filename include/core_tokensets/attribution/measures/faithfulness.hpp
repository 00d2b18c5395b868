#pragma once
// Does relevance add up as the model does? Random sets of patches are taken away, and the sum of their relevance
// compared with what the explained number loses: faithfulness correlation (Bhatt, Weller & Moura, IJCAI 2020) and
// infidelity (Yeh et al., NeurIPS 2019, with removal as the perturbation).

#include "core_tokensets/attribution/measures/masked_values.hpp"
#include "core_tokensets/core/random.hpp"

namespace core_tokensets {

/// Random sets of patches: `sets` of them, each with the share `share` of a sample's patches (at least one).
struct random_removal {
  index sets = 50;
  double share = 0.2;
  missing_tokens missing = missing_tokens::drop;
  std::uint64_t seed = 0;
};

/// Of each set of one sample: the sum of relevance in it, and the drop of the explained number without it.
struct removal_effects {
  std::vector<double> relevance, drop;
};

/// The sets depend on the seed and the number of patches, not on the batch.
template <measured M>
std::vector<removal_effects> measure(const random_removal& options, M& m, std::span<const double> relevance) {
  require(options.sets > 0 && options.share > 0 && options.share <= 1, "random removal: ", options.sets,
          " sets of the share ", options.share);
  m.check(relevance);
  std::vector<masked_sample> masked;
  std::vector<removal_effects> effects(m.samples());
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const std::size_t n = m.patches(s);
    const auto r = of_sample(relevance, m.offsets(), s);
    const auto size =
        std::min(n, std::max<std::size_t>(1, static_cast<std::size_t>(std::lround(options.share * double(n)))));
    for (index set = 0; n > 0 && set < options.sets; ++set) {
      const auto order =
          random_stream(options.seed, static_cast<std::uint64_t>(set)).permutation(static_cast<index>(n));
      masked.push_back({s, std::vector<std::uint8_t>(n, 1)});
      double sum = 0;
      for (std::size_t i = 0; i < size; ++i) {
        masked.back().keep[static_cast<std::size_t>(order[i])] = 0;
        sum += r[static_cast<std::size_t>(order[i])];
      }
      effects[s].relevance.push_back(sum);
    }
  }
  const auto values = m.values(options.missing, masked);
  for (std::size_t i = 0; i < masked.size(); ++i) {
    effects[masked[i].sample].drop.push_back(m.whole[masked[i].sample].value - values[i].value);
  }
  return effects;
}

/// Pearson's correlation of the two; 1 is best.
inline double faithfulness_correlation(const removal_effects& e) { return pearson(e.relevance, e.drop); }

/// Mean of (beta relevance - drop)^2. Scaled: beta is the best factor and the mean is divided by that of drop^2, so the
/// result lies between 0 (best) and 1 and does not depend on the unit of relevance; else beta is 1.
inline double infidelity(const removal_effects& e, bool scaled = true) {
  double rr = 0, rd = 0, dd = 0;
  for (std::size_t i = 0; i < e.drop.size(); ++i) {
    rr += e.relevance[i] * e.relevance[i], rd += e.relevance[i] * e.drop[i], dd += e.drop[i] * e.drop[i];
  }
  if (!scaled) return e.drop.empty() ? 0 : (rr - 2 * rd + dd) / static_cast<double>(e.drop.size());
  return dd > 0 ? 1 - (rr > 0 ? rd * rd / (rr * dd) : 0) : 0;
}

}  // namespace core_tokensets
