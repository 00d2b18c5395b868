#pragma once
// Does relevance lie on the object? Pointing game (Zhang et al. 2018), relevance mass and rank accuracy (Arras et al.
// 2022) against boxes or masks.

#include "core_tokensets/attribution/measures/ranking.hpp"

namespace core_tokensets {

/// Share of the pixels of each patch that a mask `[height, width]` (not 0 on the object) covers; `positions` are the
/// grid places of the patches.
inline std::vector<double> patch_coverage(std::span<const std::uint8_t> mask, index height, index width, index patch,
                                          std::span<const std::int32_t> positions) {
  require(static_cast<index>(mask.size()) == height * width && patch > 0, "patch_coverage: mask of ", mask.size(),
          ", expected ", height, " x ", width);
  const index across = width / patch;
  std::vector<double> coverage;
  for (const index k : positions) {
    require(k >= 0 && k < across * (height / patch), "patch_coverage: position ", k);
    index covered = 0;
    for (index y = k / across * patch; y < (k / across + 1) * patch; ++y) {
      for (index x = k % across * patch; x < (k % across + 1) * patch; ++x) {
        covered += mask[static_cast<std::size_t>(y * width + x)] != 0 ? 1 : 0;
      }
    }
    coverage.push_back(static_cast<double>(covered) / static_cast<double>(patch * patch));
  }
  return coverage;
}

/// Of one sample, each with what chance would give: whether the most relevant patch is on the object, the share of
/// positive relevance on it, and the share of the k most relevant patches on it for its k patches. A patch is on the
/// object if half of it is covered, or if none is, where most of it is.
struct localisation_result {
  double pointing = 0, mass = 0, rank = 0;
  double chance_pointing = 0, chance_mass = 0;
};

inline localisation_result localisation(std::span<const double> relevance, std::span<const double> coverage) {
  require(relevance.size() == coverage.size() && !coverage.empty(), "localisation: ", relevance.size(), " numbers for ",
          coverage.size(), " patches");
  const auto n = static_cast<double>(coverage.size());
  const double enough = std::min(0.5, *std::max_element(coverage.begin(), coverage.end()));
  require(enough > 0, "localisation: the object covers no patch");
  const auto order = falling_order(relevance);
  localisation_result result;
  std::size_t on_object = 0;
  double positive = 0;
  for (std::size_t i = 0; i < coverage.size(); ++i) {
    on_object += coverage[i] >= enough ? 1 : 0;
    positive += std::max(relevance[i], 0.0);
    result.mass += std::max(relevance[i], 0.0) * coverage[i];
    result.chance_mass += coverage[i] / n;
  }
  result.pointing = coverage[order[0]] >= enough ? 1 : 0;
  result.mass = positive > 0 ? result.mass / positive : 0;
  for (std::size_t i = 0; i < on_object; ++i) {
    result.rank += (coverage[order[i]] >= enough ? 1.0 : 0.0) / static_cast<double>(on_object);
  }
  result.chance_pointing = static_cast<double>(on_object) / n;
  return result;
}

}  // namespace core_tokensets
