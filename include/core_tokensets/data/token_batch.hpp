#pragma once
// The packed, ragged batch that the whole library works on: kept patches of many samples, one after the other.

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// Patches of S samples without padding: sample s owns rows `offsets[s] .. offsets[s+1]` of all per-patch arrays.
/// A row of `patches` is one patch in the order channel, row, column (as a convolution weight), normalised. `positions`
/// are grid indices (row-major) and pick the position embedding. A non-empty `scale` multiplies the patch
/// embeddings before positions are added (0 leaves a token out in the `zero` semantics, 1/(1-p) rescales a survivor).
/// A patch of token weight w stands for w equal ones wherever tokens look at each other: log w is added to its score as
/// a key in every attention. With weights of 1 / inclusion probability some patches are an unbiased sample of all.
struct token_batch {
  index patch_dim = 0;
  std::vector<float> patches;           ///< [T, patch_dim]
  std::vector<std::int32_t> positions;  ///< [T]
  std::vector<index> offsets{0};        ///< [S + 1]
  std::vector<double> scale;            ///< [T] or empty (all 1)
  std::vector<std::int32_t> targets;    ///< [S] class of each sample, or empty
  std::vector<float> weights;           ///< [S] weight of each sample in the loss, or empty (all 1)
  std::vector<float> token_weights;     ///< [T] for how many tokens each stands, finite and above 0, or empty (all 1)

  index samples() const { return static_cast<index>(offsets.size()) - 1; }
  index tokens() const { return offsets.back(); }

  /// `Error` naming `what` unless the offsets begin with 0 and never fall (a sample may have no token), all arrays have
  /// as many rows as they say, and token weights are finite and above 0.
  void check(const char* what = "token batch") const {
    require(!offsets.empty() && offsets.front() == 0, what, ": the offsets of a batch must begin with 0");
    for (std::size_t s = 1; s < offsets.size(); ++s) {
      require(offsets[s - 1] <= offsets[s], what, ": offsets of sample ", s - 1, " go from ", offsets[s - 1], " to ",
              offsets[s], ", expected no fall");
    }
    const auto rows = static_cast<std::size_t>(tokens()), count = static_cast<std::size_t>(samples());
    require(patch_dim > 0 && patches.size() == rows * static_cast<std::size_t>(patch_dim) && positions.size() == rows,
            what, ": the batch holds ", patches.size(), " numbers and ", positions.size(), " positions for ", rows,
            " patches of ", patch_dim);
    require(scale.empty() || scale.size() == rows, what, ": ", scale.size(), " scales for ", rows, " patches");
    require(token_weights.empty() || token_weights.size() == rows, what, ": ", token_weights.size(),
            " token weights for ", rows, " patches");
    for (std::size_t t = 0; t < token_weights.size(); ++t) {
      require(token_weights[t] > 0 && std::isfinite(token_weights[t]), what, ": patch ", t, " has the token weight ",
              token_weights[t], ", expected a finite number above 0");
    }
    require((targets.empty() || targets.size() == count) && (weights.empty() || weights.size() == count), what, ": ",
            targets.size(), " targets and ", weights.size(), " weights for ", count, " samples");
  }
};

/// Appends the samples of `more` to `batch`.
inline void append(token_batch& batch, const token_batch& more) {
  require(&batch != &more, "append: a batch to itself");
  require(batch.patch_dim == more.patch_dim, "append: patches of ", more.patch_dim,
          " numbers to a batch with patches of ", batch.patch_dim);
  if (!batch.scale.empty() || !more.scale.empty()) {
    batch.scale.resize(static_cast<std::size_t>(batch.tokens()), 1.0);
    batch.scale.insert(batch.scale.end(), more.scale.begin(), more.scale.end());
    batch.scale.resize(static_cast<std::size_t>(batch.tokens() + more.tokens()), 1.0);
  }
  if (!batch.token_weights.empty() || !more.token_weights.empty()) {
    batch.token_weights.resize(static_cast<std::size_t>(batch.tokens()), 1.0f);
    batch.token_weights.insert(batch.token_weights.end(), more.token_weights.begin(), more.token_weights.end());
    batch.token_weights.resize(static_cast<std::size_t>(batch.tokens() + more.tokens()), 1.0f);
  }
  if (!batch.weights.empty() || !more.weights.empty()) {
    batch.weights.resize(static_cast<std::size_t>(batch.samples()), 1.0f);
    batch.weights.insert(batch.weights.end(), more.weights.begin(), more.weights.end());
    batch.weights.resize(static_cast<std::size_t>(batch.samples() + more.samples()), 1.0f);
  }
  const index shift = batch.tokens();
  for (std::size_t s = 1; s < more.offsets.size(); ++s) batch.offsets.push_back(shift + more.offsets[s]);
  batch.patches.insert(batch.patches.end(), more.patches.begin(), more.patches.end());
  batch.positions.insert(batch.positions.end(), more.positions.begin(), more.positions.end());
  batch.targets.insert(batch.targets.end(), more.targets.begin(), more.targets.end());
}

/// Appends sample s of `from`, with all that `from` knows of it, to a batch that knows as much.
inline void append_sample(const token_batch& from, index s, token_batch& to) {
  const index begin = from.offsets[static_cast<std::size_t>(s)], end = from.offsets[static_cast<std::size_t>(s + 1)];
  const auto part = [](const auto& all, index first, index last, auto& out) {
    if (!all.empty()) out.insert(out.end(), all.begin() + first, all.begin() + last);
  };
  to.patch_dim = from.patch_dim;
  part(from.patches, begin * from.patch_dim, end * from.patch_dim, to.patches);
  part(from.positions, begin, end, to.positions);
  part(from.scale, begin, end, to.scale);
  part(from.token_weights, begin, end, to.token_weights);
  part(from.targets, s, s + 1, to.targets);
  part(from.weights, s, s + 1, to.weights);
  to.offsets.push_back(to.offsets.back() + end - begin);
}

/// The samples named by `samples`, in that order and as often as they are named.
inline token_batch copy_samples(const token_batch& from, std::span<const index> samples) {
  token_batch out;
  out.patch_dim = from.patch_dim;
  for (const index s : samples) append_sample(from, s, out);
  return out;
}

/// Samples [begin, end) of a batch.
inline token_batch samples_of(const token_batch& batch, index begin, index end) {
  require(0 <= begin && begin <= end && end <= batch.samples(), "samples_of: ", begin, " to ", end, " of ",
          batch.samples());
  token_batch out;
  out.patch_dim = batch.patch_dim;
  for (index s = begin; s < end; ++s) append_sample(batch, s, out);
  return out;
}

/// What happens to a left-out token: it leaves the sequence (MAE, PatchDropout), or its embedding becomes 0 and only
/// its position stays (the paper), or that with the survivors scaled by 1/(1-p) (the authors' training code).
enum class missing_tokens { drop, zero, rescaled };

template <>
inline constexpr std::array words<missing_tokens>{"drop", "zero", "rescaled"};

}  // namespace core_tokensets
