#pragma once
// Batches whose tokens have weights, and what the weights stand for: the same batch with its tokens repeated.

#include "support/ragged.hpp"

namespace repeated {

namespace cts = core_tokensets;

/// Gives the patches whole numbers from 1 to 4 as weights.
inline cts::token_batch weighted(cts::token_batch batch) {
  for (cts::index t = 0; t < batch.tokens(); ++t) batch.token_weights.push_back(static_cast<float>(1 + t * t % 7 % 4));
  return batch;
}

inline std::size_t count(const cts::token_batch& batch, std::size_t t) {
  return static_cast<std::size_t>(batch.token_weights[t]);
}

/// Every patch as often as its weight says, without weights.
inline cts::token_batch copies(const cts::token_batch& batch) {
  cts::token_batch out;
  out.patch_dim = batch.patch_dim;
  out.targets = batch.targets;
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    for (auto t = static_cast<std::size_t>(batch.offsets[s]); t < static_cast<std::size_t>(batch.offsets[s + 1]); ++t) {
      for (std::size_t c = 0; c < count(batch, t); ++c) {
        const auto from = batch.patches.begin() + static_cast<cts::index>(t) * batch.patch_dim;
        out.patches.insert(out.patches.end(), from, from + batch.patch_dim);
        out.positions.push_back(batch.positions[t]);
        if (!batch.scale.empty()) out.scale.push_back(batch.scale[t]);
      }
    }
    out.offsets.push_back(static_cast<cts::index>(out.positions.size()));
  }
  return out;
}

/// Rows of `width` numbers of the copies, added up for each patch of `batch`.
template <class T>
std::vector<double> sums(const cts::token_batch& batch, const std::vector<T>& of_copies, std::size_t width = 1) {
  std::vector<double> out;
  std::size_t row = 0;
  for (std::size_t t = 0; t < batch.positions.size(); ++t) {
    for (std::size_t i = 0; i < width; ++i) out.push_back(0);
    for (std::size_t c = 0; c < count(batch, t); ++c, ++row) {
      for (std::size_t i = 0; i < width; ++i) out[t * width + i] += double(of_copies[row * width + i]);
    }
  }
  return out;
}

/// The number of the first copy of each patch.
inline std::vector<double> firsts(const cts::token_batch& batch, const std::vector<double>& of_copies) {
  std::vector<double> out;
  std::size_t row = 0;
  for (std::size_t t = 0; t < batch.positions.size(); row += count(batch, t), ++t) out.push_back(of_copies[row]);
  return out;
}

/// Largest difference, relative to the largest number where that is above 1.
template <class T, class U>
double distance(const std::vector<T>& got, const std::vector<U>& want) {
  if (got.size() != want.size()) return HUGE_VAL;
  double worst = 0, size = 1;
  for (const U& x : want) size = std::max(size, std::abs(double(x)));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(double(got[i]) - double(want[i]));
    worst = std::isnan(d) ? HUGE_VAL : std::max(worst, d / size);
  }
  return worst;
}

}  // namespace repeated
