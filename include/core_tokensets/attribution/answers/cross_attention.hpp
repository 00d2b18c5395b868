#pragma once
// Generic attention explainability (Chefer, Gur & Wolf, ICCV 2021) for models with two kinds of tokens: its rules on
// given attention maps. The maps of a layer come as C = mean over heads of max(0, gradient times attention).

#include <algorithm>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// A small matrix on the host, `[rows, cols]`.
struct token_map {
  index rows = 0, cols = 0;
  std::vector<double> values;

  static token_map zeros(index rows, index cols) {
    return {rows, cols, std::vector<double>(static_cast<std::size_t>(rows * cols), 0.0)};
  }
  static token_map identity(index n) {
    token_map m = zeros(n, n);
    for (index i = 0; i < n; ++i) m(i, i) = 1;
    return m;
  }
  double& operator()(index r, index c) { return values[static_cast<std::size_t>(r * cols + c)]; }
  double operator()(index r, index c) const { return values[static_cast<std::size_t>(r * cols + c)]; }
  token_map& operator+=(const token_map& other) {
    require(rows == other.rows && cols == other.cols, "token_map: [", rows, ", ", cols, "] plus [", other.rows, ", ",
            other.cols, "]");
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += other.values[i];
    return *this;
  }
};

/// op(a) b, op the transposition where wanted.
inline token_map multiply(const token_map& a, const token_map& b, bool transpose_a = false) {
  const index m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
  require(k == b.rows, "token_map: [", m, ", ", k, "] times [", b.rows, ", ", b.cols, "]");
  token_map out = token_map::zeros(m, b.cols);
  for (index i = 0; i < m; ++i) {
    for (index j = 0; j < k; ++j) {
      const double x = transpose_a ? a(j, i) : a(i, j);
      for (index c = 0; c < b.cols; ++c) out(i, c) += x * b(j, c);
    }
  }
  return out;
}

/// C = mean_h max(0, g a) of maps `[H, rows, cols]` (eq. 5).
inline token_map positive_mean(std::span<const double> a, std::span<const double> g, index heads, index rows,
                               index cols) {
  require(a.size() == g.size() && static_cast<index>(a.size()) == heads * rows * cols, "positive_mean: ", a.size(),
          " and ", g.size(), " numbers for [", heads, ", ", rows, ", ", cols, "]");
  token_map out = token_map::zeros(rows, cols);
  for (std::size_t i = 0; i < a.size(); ++i) {
    out.values[i % out.values.size()] += std::max(0.0, a[i] * g[i]) / static_cast<double>(heads);
  }
  return out;
}

/// What is done to the self-attention relevance in the rule of cross-attention (eq. 8 and 9): rows of R - I divided by
/// their sums, R as it is, or not used at all.
enum class self_relevance { normalised, as_it_is, unused };

/// norm(R): rows of R - I divided by their sums, plus I (eq. 8). A row without anything stays that of I.
inline token_map normalise_self(const token_map& r, self_relevance how) {
  if (how != self_relevance::normalised) return r;
  token_map out = r;
  for (index i = 0; i < r.rows; ++i) {
    double sum = -1;
    for (index j = 0; j < r.cols; ++j) sum += r(i, j);
    for (index j = 0; j < r.cols; ++j) {
      const double of_one = i == j ? 1 : 0;
      out(i, j) = (sum != 0 ? (r(i, j) - of_one) / sum : 0) + of_one;
    }
  }
  return out;
}

/// norm(R_queries)^T (C norm(R_keys)) (eq. 10), the relevance that a cross-attention brings.
inline token_map cross_relevance(const token_map& queries, const token_map& keys, const token_map& c,
                                 self_relevance how) {
  if (how == self_relevance::unused) return c;
  return multiply(normalise_self(queries, how), multiply(c, normalise_self(keys, how)), true);
}

/// Two streams, text and image, that look at themselves and at each other (LXMERT).
struct two_stream_relevance {
  token_map text_text, text_image, image_image, image_text;
  self_relevance how = self_relevance::normalised;

  two_stream_relevance(index text, index image, self_relevance h = self_relevance::normalised)
      : text_text(token_map::identity(text)),
        text_image(token_map::zeros(text, image)),
        image_image(token_map::identity(image)),
        image_text(token_map::zeros(image, text)),
        how(h) {}

  /// Self-attention among text tokens (eq. 6 and 7), and among image tokens.
  void text_self(const token_map& c) { update(c, text_text, text_image); }
  void image_self(const token_map& c) { update(c, image_image, image_text); }
  /// Both directions of a cross-attention layer, from the relevance before it; the last layer has only one that is
  /// read.
  void cross(const token_map& text_to_image, const token_map& image_to_text) {
    const token_map ti = cross_relevance(text_text, image_image, text_to_image, how),
                    tt = multiply(text_to_image, image_text),
                    it = cross_relevance(image_image, text_text, image_to_text, how),
                    ii = multiply(image_to_text, text_image);
    text_image += ti, text_text += tt, image_text += it, image_image += ii;
  }
  void last_cross(const token_map& text_to_image) {
    const token_map ti = cross_relevance(text_text, image_image, text_to_image, how),
                    tt = multiply(text_to_image, image_text);
    text_image += ti, text_text += tt;
  }

 private:
  static void update(const token_map& c, token_map& self, token_map& other) {
    const token_map add_self = multiply(c, self), add_other = multiply(c, other);
    self += add_self, other += add_other;
  }
};

/// An encoder and a decoder whose queries look at themselves and at the encoder's tokens (DETR, captioning).
struct encoder_decoder_relevance {
  token_map image_image, query_query, query_image;
  self_relevance how = self_relevance::normalised;

  encoder_decoder_relevance(index image, index queries, self_relevance h = self_relevance::normalised)
      : image_image(token_map::identity(image)),
        query_query(token_map::identity(queries)),
        query_image(token_map::zeros(queries, image)),
        how(h) {}

  void encoder_self(const token_map& c) { image_image += multiply(c, image_image); }
  void decoder_self(const token_map& c) {
    const token_map qq = multiply(c, query_query), qi = multiply(c, query_image);
    query_query += qq, query_image += qi;
  }
  void cross(const token_map& c) { query_image += cross_relevance(query_query, image_image, c, how); }
};

/// Product over layers, first to last, of maps plus identity with rows divided by their sums (attention rollout).
inline token_map rollout_of(std::span<const token_map> layers) {
  require(!layers.empty(), "rollout_of: no layers");
  token_map joint = token_map::identity(layers[0].rows);
  for (const token_map& layer : layers) {
    token_map m = layer;
    for (index i = 0; i < m.rows; ++i) {
      m(i, i) += 1;
      double sum = 0;
      for (index j = 0; j < m.cols; ++j) sum += m(i, j);
      for (index j = 0; j < m.cols; ++j) m(i, j) /= sum;
    }
    joint = multiply(m, joint);
  }
  return joint;
}

/// max(0, mean_h(a_h mean(g_h))) of maps `[H, rows, cols]`: Grad-CAM on one attention layer.
inline token_map attention_grad_cam(std::span<const double> a, std::span<const double> g, index heads, index rows,
                                    index cols) {
  const auto size = static_cast<std::size_t>(rows * cols);
  require(a.size() == g.size() && a.size() == size * static_cast<std::size_t>(heads), "attention_grad_cam: ", a.size(),
          " and ", g.size(), " numbers for [", heads, ", ", rows, ", ", cols, "]");
  token_map out = token_map::zeros(rows, cols);
  for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h) {
    double weight = 0;
    for (std::size_t i = 0; i < size; ++i) weight += g[h * size + i] / static_cast<double>(size);
    for (std::size_t i = 0; i < size; ++i) out.values[i] += weight * a[h * size + i] / static_cast<double>(heads);
  }
  for (double& x : out.values) x = std::max(x, 0.0);
  return out;
}

}  // namespace core_tokensets
