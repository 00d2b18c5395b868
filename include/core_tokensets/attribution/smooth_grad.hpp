#pragma once
// SmoothGrad (Smilkov et al. 2017) around any method: the mean of its relevance over noisy copies of the input.

#include "core_tokensets/attribution/gradient_x_input.hpp"
#include "core_tokensets/attribution/method.hpp"
#include "core_tokensets/attribution/passes/copies.hpp"
#include "core_tokensets/core/choices.hpp"

namespace core_tokensets {

/// `sigma` is the deviation of the noise as a share of the range of a sample's numbers; `samples` copies are averaged.
/// The class is settled on the input without noise.
template <class Method = gradient_x_input>
struct smooth_grad {
  static constexpr const char* name = "smooth_grad";
  static constexpr const char* about = "another method, averaged over noisy copies of the input";
  Method method = {};
  index samples = 16;
  double sigma = 0.1;
  std::uint64_t seed = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("samples", self.samples);
    visit("sigma", self.sigma);
    visit("seed", self.seed);
  }
  /// The same around another method.
  template <class Other>
  smooth_grad<Other> around(Other other) const {
    return {std::move(other), samples, sigma, seed};
  }
};

/// The method inside stands in brackets behind the name.
template <class Method>
std::string text_of(const smooth_grad<Method>& smooth) {
  return smooth.name + ("(" + text_of(smooth.method) + ")") + detail::written_options(smooth);
}

namespace detail {

/// Adds noise to rows begin .. end of the patches; `number` picks the stream, which depends on nothing else.
inline void add_noise(token_batch& copies, index begin, index end, double sigma, std::uint64_t seed, index number) {
  const auto first = copies.patches.begin() + begin * copies.patch_dim,
             last = copies.patches.begin() + end * copies.patch_dim;
  if (first == last) return;
  const auto [low, high] = std::minmax_element(first, last);
  const double deviation = sigma * (double(*high) - double(*low));
  random_stream random(seed, 0x6e6f697365 + static_cast<std::uint64_t>(number));
  for (auto x = first; x != last; ++x) *x = static_cast<float>(double(*x) + deviation * random.normal());
}

}  // namespace detail

template <tensor_backend B, attribution_method<B> Method>
std::vector<double> attribute(const smooth_grad<Method>& smooth, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  require(smooth.samples > 0 && smooth.sigma >= 0 && std::isfinite(smooth.sigma), "smooth_grad: ", smooth.samples,
          " samples with deviation ", smooth.sigma, ", expected at least 1 and 0");
  const auto settled = settle_batch(b, model, batch, t, ws);
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 0.0);
  for_each_part(batch, smooth.samples, 4096, [&](std::span<const index> samples, std::span<const index> number) {
    token_batch copies = copy_samples(batch, samples);
    for (std::size_t c = 0; c < samples.size(); ++c) {
      detail::add_noise(copies, copies.offsets[c], copies.offsets[c + 1], smooth.sigma, smooth.seed, number[c]);
    }
    const auto noisy = attribute(smooth.method, b, model, copies, repeat_target(settled, samples), ws);
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const index first = batch.offsets[static_cast<std::size_t>(samples[c])];
      for (index p = copies.offsets[c]; p < copies.offsets[c + 1]; ++p) {
        relevance[static_cast<std::size_t>(first + p - copies.offsets[c])] +=
            noisy[static_cast<std::size_t>(p)] / static_cast<double>(smooth.samples);
      }
    }
  });
  ws.explained = settled;
  ws.classes = settled.classes;
  return relevance;
}

}  // namespace core_tokensets
