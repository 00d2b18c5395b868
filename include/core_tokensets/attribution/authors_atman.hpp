#pragma once
// The variant of AtMan in the published code of core tokensets (Paul et al. 2024), as it is once two slips are
// repaired: for audits of what that code ranks patches by.

#include "core_tokensets/attribution/atman.hpp"

namespace core_tokensets {

/// Patches are walked in order, those skipped that were a neighbour of one walked before. The loss is measured with the
/// patch and its neighbours suppressed (without shift, by 1 - factor cos), and every patch is scored by its cosine to
/// the one patch of the largest loss: the scores are similarities, no losses.
struct authors_atman {
  static constexpr const char* name = "authors_atman";
  static constexpr const char* about = "the ranking of the published code of core tokensets, for audits";
  double factor = 0.4;
  double threshold = 0.6;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("factor", self.factor);
    visit("threshold", self.threshold);
  }
};

/// What the walk measured in one sample.
struct authors_atman_walk {
  std::vector<index> visited;
  std::vector<double> losses, scores;  ///< of the visited patches; of all patches
};

template <tensor_backend B>
std::vector<authors_atman_walk> walk_patches(const authors_atman& method, B& b, const vit<B>& model,
                                             const token_batch& batch, const target& t, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const atman suppress{
      .factor = method.factor, .shift = false, .neighbours = neighbourhood::patch, .threshold = method.threshold};
  check(suppress);
  variation_engine<B> engine(b, model, batch);
  std::vector<double> logits;
  ws.explained = settle_unchanged(engine, batch, watched_target(t, watched::loss), logits);
  ws.classes = ws.explained.classes;
  const auto cosine = patch_cosines(b, engine, batch, false);
  std::vector<authors_atman_walk> walks(static_cast<std::size_t>(batch.samples()));
  std::vector<std::pair<std::size_t, index>> visits;
  for (std::size_t s = 0; s < walks.size(); ++s) {
    const index n = batch.offsets[s + 1] - batch.offsets[s];
    std::vector<bool> seen(static_cast<std::size_t>(n), false);
    for (index i = 0; i < n; ++i) {
      if (seen[static_cast<std::size_t>(i)]) continue;
      walks[s].visited.push_back(i);
      visits.emplace_back(s, i);
      for (index j = 0; j < n; ++j) {
        if (cosine[s][static_cast<std::size_t>(i * n + j)] >= method.threshold)
          seen[static_cast<std::size_t>(j)] = true;
      }
    }
  }
  engine.run(
      static_cast<index>(visits.size()), false,
      [&](index v, variation& out) {
        const auto [s, i] = visits[static_cast<std::size_t>(v)];
        engine.whole(static_cast<index>(s), out);
        const index n = batch.offsets[s + 1] - batch.offsets[s];
        out.factors.push_back(1);
        for (index j = 0; j < n; ++j) out.factors.push_back(suppression(suppress, cosine[s], n, i, j));
        out.factors.resize(out.rows.size(), 1);
      },
      [&](index v, std::span<const T> changed) {
        const std::size_t s = visits[static_cast<std::size_t>(v)].first;
        walks[s].losses.push_back(-ws.explained.value(s, changed));
      });
  for (std::size_t s = 0; s < walks.size(); ++s) {
    authors_atman_walk& walk = walks[s];
    const index n = batch.offsets[s + 1] - batch.offsets[s];
    if (n == 0) continue;
    const auto best = std::max_element(walk.losses.begin(), walk.losses.end()) - walk.losses.begin();
    for (index j = 0; j < n; ++j) {
      walk.scores.push_back(cosine[s][static_cast<std::size_t>(j * n + walk.visited[static_cast<std::size_t>(best)])]);
    }
  }
  return walks;
}

template <tensor_backend B>
std::vector<double> attribute(const authors_atman& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  std::vector<double> relevance;
  for (const auto& walk : walk_patches(method, b, model, batch, t, ws)) {
    relevance.insert(relevance.end(), walk.scores.begin(), walk.scores.end());
  }
  return relevance;
}

}  // namespace core_tokensets
