#pragma once
// AtMan (Deiseroth et al., NeurIPS 2023): how much the loss rises when the attention on a token is suppressed in every
// block, exactly, for all tokens of all samples as ragged batches.

#include <cmath>

#include "core_tokensets/attribution/occlusion.hpp"

namespace core_tokensets {

/// Which tokens are suppressed together with token i: none, or those whose patch embeddings (without or with position)
/// have a cosine of at least `threshold` to its own.
enum class neighbourhood { none, patch, patchpos };

template <>
inline constexpr std::array words<neighbourhood>{"none", "patch", "patchpos"};

/// Which number is watched: the log-probability of the explained class (the loss, as in the paper), or the target
/// itself.
enum class watched { loss, target };

template <>
inline constexpr std::array words<watched>{"loss", "target"};

/// Scores of suppressed keys are multiplied by 1 - factor (`factor` is the paper's f; the reference's code calls 1 - f
/// its suppression factor), those of neighbours by 1 - factor cos. `shift` subtracts the least score of each query
/// first (the reference's main code); without it (its BLIP code, and the published code of core tokensets) a negative
/// score rises.
struct atman {
  static constexpr const char* name = "atman";
  static constexpr const char* about =
      "what the loss gains when the attention on a token is turned down in every block";
  double factor = 0.9;
  bool shift = true;
  neighbourhood neighbours = neighbourhood::none;
  double threshold = 0.6;
  watched watch = watched::loss;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("factor", self.factor);
    visit("shift", self.shift);
    visit("neighbours", self.neighbours);
    visit("threshold", self.threshold);
    visit("watch", self.watch);
  }
};

/// Cosines `[n, n]` between n rows of `dim` numbers, within -1 .. 1; 0 with a row of zeros.
template <class T>
std::vector<double> cosines(std::span<const T> rows, index n, index dim) {
  std::vector<double> norms, result(static_cast<std::size_t>(n * n));
  const auto dot = [&](index i, index j) {
    double sum = 0;
    for (index d = 0; d < dim; ++d) {
      sum += double(rows[static_cast<std::size_t>(i * dim + d)]) * double(rows[static_cast<std::size_t>(j * dim + d)]);
    }
    return sum;
  };
  for (index i = 0; i < n; ++i) norms.push_back(std::sqrt(dot(i, i)));
  for (index i = 0; i < n; ++i) {
    for (index j = 0; j <= i; ++j) {
      const double scale = norms[static_cast<std::size_t>(i)] * norms[static_cast<std::size_t>(j)];
      const double cosine = scale > 0 ? std::clamp(dot(i, j) / scale, -1.0, 1.0) : 0.0;
      result[static_cast<std::size_t>(i * n + j)] = result[static_cast<std::size_t>(j * n + i)] = cosine;
    }
  }
  return result;
}

/// Cosines between the patches of each sample, `[n_s, n_s]` one after the other; by embedding, or with the position
/// added.
template <tensor_backend B>
std::vector<std::vector<double>> patch_cosines(B& b, const variation_engine<B>& engine, const token_batch& batch,
                                               bool with_position) {
  using T = typename B::scalar;
  const view<const T> from = with_position ? engine.tokens() : engine.embeddings();
  std::vector<T> host(static_cast<std::size_t>(from.size()));
  b.download(host.data(), from.data, from.size());
  std::vector<std::vector<double>> result;
  for (index s = 0; s < batch.samples(); ++s) {
    const index begin = batch.offsets[static_cast<std::size_t>(s)],
                n = batch.offsets[static_cast<std::size_t>(s + 1)] - begin;
    const index first = with_position ? engine.plan().rows().begin(s) + 1 : begin;
    result.push_back(cosines<T>(
        std::span(host).subspan(static_cast<std::size_t>(first * from.cols), static_cast<std::size_t>(n * from.cols)),
        n, from.cols));
  }
  return result;
}

/// `Error`: numbers that are none.
inline void check(const atman& method) {
  require_finite("atman: factor", method.factor);
  require_finite("atman: threshold", method.threshold);
}

/// The factor of patch j when patch i of n is suppressed; `cosine` `[n, n]` may be empty without neighbours.
inline double suppression(const atman& method, std::span<const double> cosine, index n, index i, index j) {
  if (i == j) return 1 - method.factor;
  if (method.neighbours == neighbourhood::none) return 1;
  const double c = cosine[static_cast<std::size_t>(i * n + j)];
  return c >= method.threshold && c >= 0 && c <= 1 ? 1 - method.factor * c : 1;
}

/// Logits `[P, K]` of each sample with each of its patches suppressed.
template <tensor_backend B>
std::vector<double> suppressed_logits(const atman& method, B& b, variation_engine<B>& engine,
                                      const token_batch& batch) {
  using T = typename B::scalar;
  check(method);
  std::vector<std::vector<double>> cosine(static_cast<std::size_t>(batch.samples()));
  if (method.neighbours != neighbourhood::none) {
    cosine = patch_cosines(b, engine, batch, method.neighbours == neighbourhood::patchpos);
  }
  const auto samples = detail::sample_of_patch(batch);
  std::vector<double> logits;
  engine.run(
      batch.tokens(), method.shift,
      [&](index v, variation& out) {
        const index s = samples[static_cast<std::size_t>(v)], begin = batch.offsets[static_cast<std::size_t>(s)];
        engine.whole(s, out);
        const index n = batch.offsets[static_cast<std::size_t>(s + 1)] - begin;
        out.factors.push_back(1);
        for (index j = 0; j < n; ++j) {
          out.factors.push_back(suppression(method, cosine[static_cast<std::size_t>(s)], n, v - begin, j));
        }
        out.factors.resize(out.rows.size(), 1);
      },
      [&](index, std::span<const T> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return logits;
}

/// The target of a perturbation method that watches the loss: the log-probability of the same class (a margin stays
/// one).
inline target watched_target(target t, watched w) {
  if (w == watched::loss && t.what == explained_score::logit) t.what = explained_score::log_probability;
  return t;
}

/// Loss with the patch suppressed minus loss without: positive where a patch speaks for the class.
template <tensor_backend B>
std::vector<double> attribute(const atman& method, B& b, const vit<B>& model, const token_batch& batch, const target& t,
                              attribution_workspace<B>& ws) {
  variation_engine<B> engine(b, model, batch);
  std::vector<double> logits, relevance;
  ws.explained = settle_unchanged(engine, batch, watched_target(t, method.watch), logits);
  ws.classes = ws.explained.classes;
  const auto changed = suppressed_logits(method, b, engine, batch);
  const auto samples = detail::sample_of_patch(batch);
  const auto k = static_cast<std::size_t>(model.config().classes);
  for (std::size_t p = 0; p < samples.size(); ++p) {
    const auto s = static_cast<std::size_t>(samples[p]);
    relevance.push_back(ws.explained.value(s, std::span(logits).subspan(s * k, k)) -
                        ws.explained.value(s, std::span(changed).subspan(p * k, k)));
  }
  return relevance;
}

}  // namespace core_tokensets
