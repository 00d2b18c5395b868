#pragma once
// The control that every comparison needs: relevance by dice.

#include "core_tokensets/attribution/workspace.hpp"
#include "core_tokensets/io/checksum.hpp"

namespace core_tokensets {

/// Uniform numbers that follow from the seed and from the sample itself, so that they do not repeat from batch to batch
/// and do not depend on what else is in one.
struct random_relevance {
  static constexpr const char* name = "random";
  static constexpr const char* about = "uniform numbers that follow from the seed and the sample: the control";
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("seed", self.seed);
  }
};

namespace detail {

/// A number by which the patches of sample s and their places are told from others.
inline std::uint64_t fingerprint_of(const token_batch& batch, index s) {
  const auto begin = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s)]),
             count = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s) + 1]) - begin,
             width = static_cast<std::size_t>(batch.patch_dim);
  const auto places = fnv1a(std::as_bytes(std::span(batch.positions).subspan(begin, count)));
  return fnv1a(std::as_bytes(std::span(batch.patches).subspan(begin * width, count * width)), places);
}

}  // namespace detail

template <tensor_backend B>
std::vector<double> attribute(const random_relevance& method, B&, const vit<B>& model, const token_batch& batch,
                              const target&, attribution_workspace<B>&) {
  detail::check_batch(batch, model.config());
  std::vector<double> relevance;
  for (index s = 0; s < batch.samples(); ++s) {
    random_stream random(method.seed, detail::fingerprint_of(batch, s));
    const auto end = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s) + 1]);
    while (relevance.size() < end) relevance.push_back(random.uniform());
  }
  return relevance;
}

}  // namespace core_tokensets
