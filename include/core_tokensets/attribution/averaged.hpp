#pragma once
// Relevance made for choosing tokens: that of any method, averaged over ways in which the same picture could have been
// seen, so that it says where the object is and not what one pass happened to look at.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/attribution/lrp.hpp"
#include "core_tokensets/attribution/method.hpp"
#include "core_tokensets/attribution/passes/copies.hpp"
#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/patch_grid.hpp"
#include "core_tokensets/data/token_drop.hpp"

namespace core_tokensets {

/// The mean relevance of every patch over views of a sample: `pairs` times its patches cut at random into two halves of
/// which each is seen without the other, so that every patch is seen as often (0: all patches together); all of it also
/// of the mirror image if `mirror`. In each view relevance is divided by the mean of its absolute values, so that no
/// view counts more than another. The class is settled on the sample itself. It needs a model that knows pictures with
/// tokens missing, as training with `token_drop` makes it.
template <class Method = lrp_attribution>
struct averaged {
  static constexpr const char* name = "averaged";
  static constexpr const char* about = "another method, averaged over halves of the picture and its mirror image";
  Method method = {};
  index pairs = 4;
  bool mirror = true;
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("pairs", self.pairs);
    visit("mirror", self.mirror);
    visit("seed", self.seed);
  }
  /// The same around another method.
  template <class Other>
  averaged<Other> around(Other other) const {
    return {std::move(other), pairs, mirror, seed};
  }
};

/// The method inside stands in brackets behind the name.
template <class Method>
std::string text_of(const averaged<Method>& a) {
  return a.name + ("(" + text_of(a.method) + ")") + detail::written_options(a);
}

namespace detail {

/// The mirror image of every sample of a batch: patches mirrored, at mirrored positions, in the same order.
inline token_batch mirror_image(const token_batch& batch, const patch_grid& grid) {
  token_batch mirrored = batch;
  const index side = grid.patch;
  for (auto row = mirrored.patches.begin(); row != mirrored.patches.end(); row += side) std::reverse(row, row + side);
  for (std::int32_t& p : mirrored.positions) {
    const auto cols = static_cast<std::int32_t>(grid.cols());
    p += cols - 1 - 2 * (p % cols);
  }
  return mirrored;
}

/// A mask `[T]` of a random half of the patches of each sample, which depends on the seed, the number of the pair and
/// how many patches the sample has.
inline std::vector<std::uint8_t> random_half(const token_batch& batch, std::uint64_t seed, index pair) {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(batch.tokens()), 0);
  for (std::size_t s = 1; s < batch.offsets.size(); ++s) {
    const index begin = batch.offsets[s - 1], n = batch.offsets[s] - begin;
    const auto order = random_stream(seed ^ 0x68616c766573, static_cast<std::uint64_t>(pair)).permutation(n);
    for (index i = 0; i < (n + pair % 2) / 2; ++i)
      mask[static_cast<std::size_t>(begin + order[static_cast<std::size_t>(i)])] = 1;
  }
  return mask;
}

/// Calls `see(view, of, samples)` with the patches of a mask: `of` are their numbers in the batch, `samples` those that
/// have one there.
template <class See>
void see_part(const token_batch& batch, const std::vector<std::uint8_t>& mask, const See& see) {
  std::vector<index> of, samples;
  std::vector<std::uint8_t> keep;
  for (index s = 0; s < batch.samples(); ++s) {
    const index begin = batch.offsets[static_cast<std::size_t>(s)],
                end = batch.offsets[static_cast<std::size_t>(s + 1)];
    const auto of_sample =
        std::span(mask).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    if (std::find(of_sample.begin(), of_sample.end(), 1) == of_sample.end()) continue;
    samples.push_back(s);
    keep.insert(keep.end(), of_sample.begin(), of_sample.end());
    for (index i = begin; i < end; ++i) {
      if (mask[static_cast<std::size_t>(i)] != 0) of.push_back(i);
    }
  }
  if (samples.empty()) return;
  token_batch view;
  apply_token_mask(copy_samples(batch, samples), keep, missing_tokens::drop, view);
  see(view, of, samples);
}

}  // namespace detail

/// `Error`: fewer than no pairs, relevance that is not finite or not one number for each patch.
template <tensor_backend B, attribution_method<B> Method>
std::vector<double> attribute(const averaged<Method>& a, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  require(a.pairs >= 0, "averaged: ", a.pairs, " pairs, expected 0 or more");
  const auto settled = settle_batch(b, model, batch, t, ws);
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 0.0);
  const double views = static_cast<double>((a.mirror ? 2 : 1) * std::max<index>(1, a.pairs));  // that show a patch
  // Relevance in a view whose patches are numbers `of` the batch, for samples that have any there.
  const auto add = [&](const token_batch& view, const std::vector<index>& of, std::span<const index> samples) {
    const auto seen = attribute(a.method, b, model, view, repeat_target(settled, samples), ws);
    require(static_cast<index>(seen.size()) == view.tokens(), "averaged: its method gave ", seen.size(),
            " numbers for ", view.tokens(), " patches");
    for (index s = 0; s < view.samples(); ++s) {
      const index begin = view.offsets[static_cast<std::size_t>(s)],
                  end = view.offsets[static_cast<std::size_t>(s + 1)];
      double size = 0;
      for (index i = begin; i < end; ++i) size += std::abs(seen[static_cast<std::size_t>(i)]);
      require(std::isfinite(size), "averaged: relevance of sample ", samples[static_cast<std::size_t>(s)],
              " is not finite in one of its views");
      if (size == 0) continue;
      for (index i = begin; i < end; ++i)
        relevance[static_cast<std::size_t>(of[static_cast<std::size_t>(i)])] +=
            seen[static_cast<std::size_t>(i)] * static_cast<double>(end - begin) / size / views;
    }
  };
  for (const bool mirrored : {false, true}) {
    if (mirrored && !a.mirror) continue;
    const token_batch whole = mirrored ? detail::mirror_image(batch, model.config().grid) : batch;
    if (a.pairs == 0) detail::see_part(whole, std::vector<std::uint8_t>(relevance.size(), 1), add);
    for (index pair = 0; pair < a.pairs; ++pair) {
      auto mask = detail::random_half(whole, a.seed ^ (mirrored ? 0x6d6972726f72 : 0), pair);
      detail::see_part(whole, mask, add);
      for (std::uint8_t& x : mask) x = x == 0;
      detail::see_part(whole, mask, add);
    }
  }
  ws.explained = settled;
  ws.classes = settled.classes;
  return relevance;
}

}  // namespace core_tokensets
