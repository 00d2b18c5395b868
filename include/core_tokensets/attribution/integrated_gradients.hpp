#pragma once
// Integrated gradients (Sundararajan, Taly & Yan, ICML 2017), all steps of many samples as ragged batches.

#include <numbers>

#include "core_tokensets/attribution/gradient_x_input.hpp"
#include "core_tokensets/attribution/passes/copies.hpp"

namespace core_tokensets {

/// Where the straight path to the input starts: pixels of one value, or patch embeddings of 0 (a `zero` missing token).
enum class path_start { pixels, embeddings };

template <>
inline constexpr std::array words<path_start>{"pixels", "embeddings"};

/// (x - x') times the mean gradient on the path from x' to x, by Gauss-Legendre quadrature with `steps` points. The sum
/// over the patches is f(x) - f(x') but for the error of the quadrature.
struct integrated_gradients {
  static constexpr const char* name = "integrated_gradients";
  static constexpr const char* about = "mean gradient on the way from an empty picture, times the way";
  index steps = 16;
  path_start start = path_start::pixels;
  double pixel = 0;  ///< of the start, in normalised values

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("steps", self.steps);
    visit("start", self.start);
    visit("pixel", self.pixel);
  }
};

/// Points and weights of Gauss-Legendre quadrature on [0, 1], by Newton's method on the Legendre polynomial.
struct quadrature {
  std::vector<double> points, weights;
};

inline quadrature gauss_legendre(index n) {
  quadrature q;
  const auto order = static_cast<double>(n);
  for (index i = 0; i < n; ++i) {
    double x = std::cos(std::numbers::pi * (static_cast<double>(i) + 0.75) / (order + 0.5)), slope = 0;
    for (int step = 0; step < 100; ++step) {
      double value = 1, before = 0;
      for (index k = 1; k <= n; ++k) {
        const auto d = static_cast<double>(k);
        const double next = ((2 * d - 1) * x * value - (d - 1) * before) / d;
        before = value, value = next;
      }
      slope = order * (x * value - before) / (x * x - 1);
      const double move = value / slope;
      x -= move;
      if (std::abs(move) < 1e-15) break;
    }
    q.points.push_back((1 - x) / 2);
    q.weights.push_back(1 / ((1 - x * x) * slope * slope));
  }
  return q;
}

namespace detail {

/// Moves a copy to its point of the path.
inline void move_along_path(const integrated_gradients& method, double at, token_batch& copies, index begin,
                            index end) {
  if (method.start == path_start::embeddings) {
    for (index p = begin; p < end; ++p) copies.scale[static_cast<std::size_t>(p)] *= at;
    return;
  }
  for (index i = begin * copies.patch_dim; i < end * copies.patch_dim; ++i) {
    float& x = copies.patches[static_cast<std::size_t>(i)];
    x = static_cast<float>(method.pixel + at * (double(x) - method.pixel));
  }
}

}  // namespace detail

template <tensor_backend B>
std::vector<double> attribute(const integrated_gradients& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  require(method.steps > 0 && method.steps <= 1000, "integrated_gradients: ", method.steps,
          " steps, expected 1 to 1000");
  require_finite("integrated_gradients: pixel", method.pixel);
  const auto settled = settle_batch(b, model, batch, t, ws);
  const quadrature q = gauss_legendre(method.steps);
  const bool at_pixels = method.start == path_start::pixels;
  std::vector<double> relevance(static_cast<std::size_t>(batch.tokens()), 0.0);
  tensor<B> gradient;
  for_each_part(batch, method.steps, 4096, [&](std::span<const index> samples, std::span<const index> step) {
    token_batch copies = copy_samples(batch, samples);
    if (!at_pixels && copies.scale.empty()) copies.scale.assign(static_cast<std::size_t>(copies.tokens()), 1.0);
    for (std::size_t c = 0; c < samples.size(); ++c) {
      detail::move_along_path(method, q.points[static_cast<std::size_t>(step[c])], copies, copies.offsets[c],
                              copies.offsets[c + 1]);
    }
    explain_forward(b, model, copies, repeat_target(settled, samples), ws, kept::gradients);
    patch_gradient(b, model, ws, gradient);
    if (!at_pixels) {  // d f / d scale = embedding . gradient; the tape holds scale times embedding
      gradient.resize(b, copies.tokens(), model.config().dim);
      b.gather_rows(*gradient, *std::as_const(ws.dtokens), ws.tape.plan.patch_rows.data());
      b.map(fn::multiply{}, *gradient, *std::as_const(ws.tape.embedding.patches));
    }
    const auto host = gradient.to_host(b);
    const auto width = static_cast<std::size_t>(gradient.cols());
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const double at = q.points[static_cast<std::size_t>(step[c])],
                   weight = q.weights[static_cast<std::size_t>(step[c])];
      const auto first = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(samples[c])]);
      const auto begin = static_cast<std::size_t>(copies.offsets[c]),
                 end = static_cast<std::size_t>(copies.offsets[c + 1]);
      for (std::size_t p = begin; p < end; ++p) {
        double sum = 0;
        for (std::size_t d = 0; d < width; ++d) {
          const double g = double(host[p * width + d]);
          sum += at_pixels ? g * (double(batch.patches[(first + p - begin) * width + d]) - method.pixel) : g / at;
        }
        relevance[first + p - begin] += weight * sum;
      }
    }
  });
  ws.explained = settled;
  ws.classes = settled.classes;
  return finite_relevance(integrated_gradients::name, batch, std::move(relevance));
}

}  // namespace core_tokensets
