#pragma once
// Made from include/ by cmake/amalgamate.cmake; do not edit. BSD-3-Clause, see LICENSE.

// ==== core_tokensets/core/error.hpp ====
// One exception type for everything that a caller can get wrong, and the two helpers that throw it.

#include <sstream>
#include <stdexcept>
#include <string>

namespace core_tokensets {

/// Bad input at an edge of the library (file, argument, shape, budget): says what, where and what was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws `Error` with all parts written one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

/// Throws `Error` with the parts as its message unless `ok`.
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) fail(parts...);
}

}  // namespace core_tokensets

// ==== core_tokensets/core/view.hpp ====
// What a backend sees of an array: a pointer, two batch dimensions, rows and columns. Nothing is owned.

#include <cstddef>
#include <type_traits>

namespace core_tokensets {

using index = std::ptrdiff_t;

/// `[n0, n1, rows, cols]` with strides `s0, s1, ld` in elements and unit stride between columns. A stride of 0
/// repeats (broadcasts) along its dimension, and `map` repeats an operand of one column along the columns.
template <class T>
struct view {
  T* data = nullptr;
  index n0 = 1, n1 = 1, rows = 0, cols = 0;
  index s0 = 0, s1 = 0, ld = 0;

  constexpr view() = default;
  /// A matrix `[rows, cols]`; `stride` is the distance of two rows, `cols` unless given.
  constexpr view(T* p, index r, index c, index stride = -1) : data(p), rows(r), cols(c), ld(stride < 0 ? c : stride) {}
  constexpr view(T* p, index batch0, index batch1, index r, index c, index stride0, index stride1, index stride)
      : data(p), n0(batch0), n1(batch1), rows(r), cols(c), s0(stride0), s1(stride1), ld(stride) {}

  /// A mutable view converts to a read-only one.
  constexpr operator view<const T>() const requires(!std::is_const_v<T>) {
    return {data, n0, n1, rows, cols, s0, s1, ld};
  }

  constexpr bool empty() const { return data == nullptr || n0 * n1 * rows * cols == 0; }
  constexpr index size() const { return n0 * n1 * rows * cols; }
  constexpr T* row(index r) const { return data + r * ld; }
  constexpr T& operator()(index r, index c) const { return data[r * ld + c]; }

  /// Rows [begin, begin + count) of every matrix of the batch.
  constexpr view slice_rows(index begin, index count) const {
    return {data + begin * ld, n0, n1, count, cols, s0, s1, ld};
  }
  /// Columns [begin, begin + count) of every matrix of the batch.
  constexpr view slice_cols(index begin, index count) const { return {data + begin, n0, n1, rows, count, s0, s1, ld}; }
  /// Matrix (i, j) of the batch.
  constexpr view matrix(index i, index j) const { return {data + i * s0 + j * s1, rows, cols, ld}; }
  /// The columns cut into `parts` equal batches: `[rows, H * D]` seen as `[H, rows, D]`, without a copy.
  constexpr view split_cols(index parts) const { return {data, n0, parts, rows, cols / parts, s0, cols / parts, ld}; }
  /// The same numbers as one row; only for a matrix without gaps between its rows.
  constexpr view flat() const { return {data, 1, rows * cols, rows * cols}; }
};

/// Read-only alias that stops template argument deduction, so that a `view<T>` argument converts.
template <class T>
using const_view = std::type_identity_t<view<const T>>;

}  // namespace core_tokensets

// ==== core_tokensets/attribution/cross_attention.hpp ====
// Generic attention explainability (Chefer, Gur & Wolf, ICCV 2021) for models with two kinds of tokens: its rules on
// given attention maps. The maps of a layer come as C = mean over heads of max(0, gradient times attention).

#include <algorithm>
#include <span>
#include <vector>


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

// ==== core_tokensets/data/text_batch.hpp ====
// Texts of a batch, packed behind one another like the patches of `token_batch`: what the text decoder reads and what
// it shall answer.

#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

/// Q texts about S pictures. Text q owns rows `offsets[q] .. offsets[q+1]` of the per-token arrays; the texts
/// `images[s]
/// .. images[s+1]` are about picture s, so that a picture with many questions is encoded once. A text is a prompt (a
/// question, or nothing), the token `begin`, and an answer; `targets` says which token shall follow, -1 inside the
/// prompt, where nothing is asked.
struct text_batch {
  std::vector<std::int32_t> tokens;   ///< [L]
  std::vector<std::int32_t> targets;  ///< [L]
  std::vector<index> offsets{0};      ///< [Q + 1]
  std::vector<index> images{0};       ///< [S + 1]
  std::vector<float> weights;         ///< [Q] weight of each text in the loss, or empty (all 1)

  index texts() const { return static_cast<index>(offsets.size()) - 1; }
  index pictures() const { return static_cast<index>(images.size()) - 1; }
  index length() const { return offsets.back(); }

  void clear() {
    tokens.clear(), targets.clear(), weights.clear();
    offsets.assign(1, 0), images.assign(1, 0);
  }
  /// Begins the texts of another picture.
  void next_picture() { images.push_back(images.back()); }
  /// Appends a text about the last picture: prompt, `begin`, answer; the answer is asked for, and `end` behind it.
  void append(std::span<const std::int32_t> prompt, std::span<const std::int32_t> answer, std::int32_t begin,
              std::int32_t end) {
    append_prompt(prompt, begin);
    targets.back() = answer.empty() ? end : answer[0];
    for (std::size_t i = 0; i < answer.size(); ++i) {
      tokens.push_back(answer[i]);
      targets.push_back(i + 1 < answer.size() ? answer[i + 1] : end);
    }
    offsets.back() = static_cast<index>(tokens.size());
  }
  /// Appends a text that ends where the answer begins.
  void append_prompt(std::span<const std::int32_t> prompt, std::int32_t begin) {
    require(pictures() > 0, "text batch: a text before the first picture");
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    tokens.push_back(begin);
    targets.resize(tokens.size(), -1);
    offsets.push_back(static_cast<index>(tokens.size()));
    ++images.back();
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/core/random.hpp ====
// Counter-based random numbers: the i-th draw of a stream is a pure function of (seed, stream, i), so it is
// the same on every machine and backend, in any order and on any number of threads.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace core_tokensets {

/// Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words from a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = multiplier0 * counter[0], product1 = multiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// A position in an endless sequence of random numbers; copy it to replay, store `position()` to resume.
class random_stream {
 public:
  explicit constexpr random_stream(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t position = 0)
      : seed_(seed), stream_(stream), position_(position) {}

  /// 64 random bits.
  constexpr std::uint64_t bits() {
    const auto words =
        philox({low(position_), high(position_), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
    ++position_;
    return (static_cast<std::uint64_t>(words[1]) << 32) | words[0];
  }

  /// Uniform in [0, 1).
  constexpr double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  constexpr double uniform(double from, double to) { return from + (to - from) * uniform(); }

  /// Uniform integer in [0, n), n > 0 (Lemire's multiply-shift; its bias is below n / 2^64).
  constexpr std::ptrdiff_t below(std::ptrdiff_t n) {
    const std::uint64_t x = bits(), m = static_cast<std::uint64_t>(n);
    const std::uint64_t x0 = low(x), x1 = high(x), m0 = low(m), m1 = high(m);
    const std::uint64_t middle = x1 * m0 + ((x0 * m0) >> 32);
    const std::uint64_t cross = x0 * m1 + low(middle);
    return static_cast<std::ptrdiff_t>(x1 * m1 + (middle >> 32) + (cross >> 32));
  }

  /// Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  /// Fisher-Yates shuffle.
  template <class T>
  constexpr void shuffle(std::span<T> items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<std::size_t>(below(static_cast<std::ptrdiff_t>(i)))]);
    }
  }

  /// 0 .. n-1 in random order.
  std::vector<std::ptrdiff_t> permutation(std::ptrdiff_t n) {
    std::vector<std::ptrdiff_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), std::ptrdiff_t{0});
    shuffle(std::span(order));
    return order;
  }

  constexpr std::uint64_t position() const { return position_; }

 private:
  static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

  std::uint64_t seed_, stream_, position_;
};

}  // namespace core_tokensets

// ==== core_tokensets/data/image.hpp ====
// Pictures of 8 bits a channel, height x width x channels, and what is done to them before they become tokens.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>


namespace core_tokensets {

/// A picture that someone else owns: `[height, width, channels]` without gaps.
struct image_view {
  index height = 0, width = 0, channels = 0;
  const std::uint8_t* pixels = nullptr;

  const std::uint8_t* at(index y, index x) const { return pixels + (y * width + x) * channels; }
  index size() const { return height * width * channels; }
};

/// A picture: `pixels` is `[height, width, channels]`, red before green before blue.
struct image {
  index height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels = {};

  image() = default;
  /// A picture of the given extents, all pixels `fill`.
  image(index h, index w, index c, std::uint8_t fill = 0)
      : height(h), width(w), channels(c), pixels(static_cast<std::size_t>(h * w * c), fill) {}
  explicit image(const image_view& from)
      : height(from.height),
        width(from.width),
        channels(from.channels),
        pixels(from.pixels, from.pixels + from.size()) {}

  operator image_view() const { return {height, width, channels, pixels.data()}; }
  std::uint8_t* at(index y, index x) { return pixels.data() + (y * width + x) * channels; }
  const std::uint8_t* at(index y, index x) const { return pixels.data() + (y * width + x) * channels; }
  bool operator==(const image&) const = default;
};

/// How new pixels come from old ones: the two nearest, weighted (bilinear); the mean of the area that they cover
/// (area); or area along an axis that shrinks and bilinear along one that grows (automatic).
enum class resampling { automatic, bilinear, area };

namespace detail {

/// The old pixels `first ..` and their weights (sum 1) that make one new pixel along one axis.
struct resampling_weights {
  index first = 0;
  std::vector<float> weights;
};

inline std::vector<resampling_weights> resample_axis(index from, index to, resampling how) {
  const double ratio = static_cast<double>(from) / static_cast<double>(to);
  const bool area = how == resampling::area || (how == resampling::automatic && to < from);
  std::vector<resampling_weights> axis;
  axis.reserve(static_cast<std::size_t>(to));
  for (index i = 0; i < to; ++i) {
    const double begin = static_cast<double>(i) * ratio, end = begin + ratio;
    resampling_weights w;
    if (area) {
      w.first = std::min(static_cast<index>(begin), from - 1);
      const index last = std::clamp(static_cast<index>(std::ceil(end - 1e-9)), w.first + 1, from);
      for (index j = w.first; j < last; ++j) {
        const double covered = std::min(end, static_cast<double>(j + 1)) - std::max(begin, static_cast<double>(j));
        w.weights.push_back(static_cast<float>(covered / ratio));
      }
    } else {
      const double centre = std::clamp((begin + end) / 2 - 0.5, 0.0, static_cast<double>(from - 1));
      w.first = std::min(static_cast<index>(centre), std::max<index>(from - 2, 0));
      const auto share = static_cast<float>(centre - static_cast<double>(w.first));
      w.weights = from > 1 ? std::vector<float>{1 - share, share} : std::vector<float>{1};
    }
    axis.push_back(std::move(w));
  }
  return axis;
}

}  // namespace detail

/// The picture at another size; pixel centres lie at half integers. `Error`: an extent that is not positive.
inline image resize(const image_view& from, index height, index width, resampling how = resampling::automatic) {
  require(from.height > 0 && from.width > 0 && from.channels > 0 && height > 0 && width > 0, "resize: ", from.height,
          " x ", from.width, " x ", from.channels, " to ", height, " x ", width, ": expected positive extents");
  if (from.height == height && from.width == width) return image(from);
  const index row = width * from.channels;
  std::vector<float> wide(static_cast<std::size_t>(from.height * row), 0.0f);
  const auto columns = detail::resample_axis(from.width, width, how);
  for (index y = 0; y < from.height; ++y) {
    float* out = wide.data() + y * row;
    for (const auto& column : columns) {
      const std::uint8_t* in = from.at(y, column.first);
      for (const float weight : column.weights) {
        for (index c = 0; c < from.channels; ++c) out[c] += weight * static_cast<float>(*in++);
      }
      out += from.channels;
    }
  }
  image to(height, width, from.channels);
  const auto rows = detail::resample_axis(from.height, height, how);
  std::vector<float> sums(static_cast<std::size_t>(row));
  std::uint8_t* out = to.pixels.data();
  for (const auto& line : rows) {
    std::fill(sums.begin(), sums.end(), 0.5f);
    const float* in = wide.data() + line.first * row;
    for (const float weight : line.weights) {
      for (float& sum : sums) sum += weight * *in++;
    }
    for (const float sum : sums) *out++ = static_cast<std::uint8_t>(std::clamp(sum, 0.0f, 255.0f));
  }
  return to;
}

/// Three equal channels from one; a picture of three channels as it is. `Error`: any other number of channels.
inline image grey_to_rgb(const image_view& from) {
  require(from.channels == 1 || from.channels == 3, "grey_to_rgb: ", from.channels, " channels, expected 1 or 3");
  if (from.channels == 3) return image(from);
  image to(from.height, from.width, 3);
  for (index i = 0; i < from.size(); ++i) std::fill_n(to.pixels.data() + 3 * i, 3, from.pixels[i]);
  return to;
}

/// Rows `top ..` and columns `left ..` of the picture. `Error`: the window leaves the picture.
inline image crop(const image_view& from, index top, index left, index height, index width) {
  require(top >= 0 && left >= 0 && height > 0 && width > 0 && top <= from.height - height && left <= from.width - width,
          "crop: ", height, " x ", width, " at row ", top, ", column ", left, " leaves the picture of ", from.height,
          " x ", from.width);
  image to(height, width, from.channels);
  for (index y = 0; y < height; ++y) std::copy_n(from.at(top + y, left), width * from.channels, to.at(y, 0));
  return to;
}

/// The mirror image: left becomes right.
inline image flip_horizontally(const image_view& from) {
  image to(from.height, from.width, from.channels);
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x) {
      std::copy_n(from.at(y, from.width - 1 - x), from.channels, to.at(y, x));
    }
  }
  return to;
}

}  // namespace core_tokensets

// ==== core_tokensets/io/checksum.hpp ====
// A 64-bit checksum that anyone can recompute: FNV-1a (Fowler, Noll, Vo). It finds accidents, not forgeries.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace core_tokensets {

/// FNV-1a of `bytes`; hand in the checksum of what came before to go on from there.
constexpr std::uint64_t fnv1a(std::span<const std::byte> bytes, std::uint64_t before = 0xcbf29ce484222325u) {
  for (const std::byte b : bytes) before = (before ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
  return before;
}

/// The same of a text and its length, so that texts one after another are told apart however they are cut.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t before) {
  for (const char c : text) before = (before ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  for (std::uint64_t length = text.size(), i = 0; i < 8; ++i, length >>= 8)
    before = (before ^ (length & 255)) * 0x100000001b3u;
  return before;
}

/// Sixteen hexadecimal digits.
inline std::string checksum_text(std::uint64_t sum) {
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; sum >>= 4) text[i] = "0123456789abcdef"[sum & 15];
  return text;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/dataset.hpp ====
// Labelled pictures of one size, packed one after the other, and ways to take a part of them.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// S pictures with a class each. `names`, `source_bytes` and `masks` may be empty.
struct dataset {
  index height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;         ///< [S, height, width, channels]
  std::vector<std::int32_t> labels;         ///< [S] in [0, classes())
  std::vector<std::string> class_names;     ///< [K]
  std::vector<std::string> names;           ///< [S] where each picture came from
  std::vector<std::uint64_t> source_bytes;  ///< [S] size of each picture as it came (JPEG, PNG, raw)
  std::vector<std::uint8_t> masks;          ///< [S, height, width]: 0 background, o + 1 where object o is seen

  index n() const { return static_cast<index>(labels.size()); }
  index classes() const { return static_cast<index>(class_names.size()); }
  /// Bytes of one picture in `pixels`.
  index image_size() const { return height * width * channels; }
  image_view view_of(index i) const { return {height, width, channels, pixels.data() + i * image_size()}; }
  /// The mask of picture i, `[height, width]`; empty if there are none.
  std::span<const std::uint8_t> mask_of(index i) const {
    if (masks.empty()) return {};
    return {masks.data() + i * height * width, static_cast<std::size_t>(height * width)};
  }
  /// Sum of `source_bytes`: what the data weigh as they came.
  std::uint64_t total_source_bytes() const {
    return std::accumulate(source_bytes.begin(), source_bytes.end(), std::uint64_t{0});
  }

  /// `Error` naming `what` unless all arrays have the same number of pictures and labels name classes.
  void check(std::string_view what = "dataset") const {
    const auto s = labels.size();
    require(pixels.size() == s * static_cast<std::size_t>(image_size()), what, ": ", pixels.size(),
            " bytes of pixels, expected ", s, " x ", height, " x ", width, " x ", channels);
    require((names.empty() || names.size() == s) && (source_bytes.empty() || source_bytes.size() == s), what, ": ",
            names.size(), " names and ", source_bytes.size(), " sizes for ", s, " pictures");
    require(masks.empty() || masks.size() == s * static_cast<std::size_t>(height * width), what, ": ", masks.size(),
            " bytes of masks, expected ", s, " x ", height, " x ", width);
    for (const std::int32_t label : labels) {
      require(label >= 0 && label < classes(), what, ": label ", label, " but only ", classes(), " classes");
    }
  }
};

/// Pictures to learn from and pictures to measure on, with the same classes.
struct dataset_split {
  dataset train, test;
};

/// A number by which pictures, labels and sizes are told from others; hand in that of what came before.
inline std::uint64_t checksum(const dataset& d, std::uint64_t before = fnv1a({})) {
  const std::array shape{d.height, d.width, d.channels, d.n()};
  std::uint64_t sum = fnv1a(std::as_bytes(std::span(shape)), before);
  sum = fnv1a(std::as_bytes(std::span(d.pixels)), sum);
  sum = fnv1a(std::as_bytes(std::span(d.labels)), sum);
  sum = fnv1a(std::as_bytes(std::span(d.source_bytes)), sum);
  for (const auto& name : d.class_names) sum = fnv1a(name, sum);
  return sum;
}
inline std::uint64_t checksum(const dataset_split& d) { return checksum(d.test, checksum(d.train)); }

/// The pictures at `indices`, in that order; classes keep their numbers. `Error`: an index out of range.
inline dataset subset(const dataset& from, std::span<const index> indices) {
  dataset to;
  to.height = from.height, to.width = from.width, to.channels = from.channels;
  to.class_names = from.class_names;
  const index size = from.image_size(), area = from.height * from.width;
  to.pixels.reserve(indices.size() * static_cast<std::size_t>(size));
  for (const index i : indices) {
    require(i >= 0 && i < from.n(), "subset: picture ", i, " of ", from.n());
    const auto at = static_cast<std::size_t>(i);
    to.pixels.insert(to.pixels.end(), from.pixels.data() + i * size, from.pixels.data() + (i + 1) * size);
    to.labels.push_back(from.labels[at]);
    if (!from.names.empty()) to.names.push_back(from.names[at]);
    if (!from.source_bytes.empty()) to.source_bytes.push_back(from.source_bytes[at]);
    if (!from.masks.empty()) {
      to.masks.insert(to.masks.end(), from.masks.data() + i * area, from.masks.data() + (i + 1) * area);
    }
  }
  return to;
}

/// Classes `first` to `last`, both included.
struct class_range {
  index first = 0, last = 0;
  index count() const { return last - first + 1; }
};

/// "A-B" or "A". `Error`: anything else.
inline class_range parse_class_range(std::string_view text) {
  class_range range;
  const char *const begin = text.data(), *const end = begin + text.size();
  auto [after, bad] = std::from_chars(begin, end, range.first);
  range.last = range.first;
  if (bad == std::errc() && after != end && *after == '-') {
    const auto second = std::from_chars(after + 1, end, range.last);
    after = second.ptr, bad = second.ec;
  }
  require(bad == std::errc() && after == end && range.first >= 0 && range.last >= range.first, "classes '", text,
          "': expected A-B with 0 <= A <= B");
  return range;
}

/// The pictures of the classes in `range`, renumbered from 0. `Error`: the range leaves the classes.
inline dataset select_classes(const dataset& from, class_range range) {
  require(range.first >= 0 && range.first <= range.last && range.last < from.classes(), "select_classes: ", range.first,
          "-", range.last, ", expected a range within 0-", from.classes() - 1);
  std::vector<index> kept;
  for (index i = 0; i < from.n(); ++i) {
    const index label = from.labels[static_cast<std::size_t>(i)];
    if (label >= range.first && label <= range.last) kept.push_back(i);
  }
  dataset to = subset(from, kept);
  for (auto& label : to.labels) label -= static_cast<std::int32_t>(range.first);
  to.class_names.assign(from.class_names.begin() + range.first, from.class_names.begin() + range.last + 1);
  return to;
}

inline dataset_split select_classes(const dataset_split& from, class_range range) {
  return {select_classes(from.train, range), select_classes(from.test, range)};
}

/// At most `limit` pictures of each class, chosen at random by `seed`, in their old order.
inline dataset limit_per_class(const dataset& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_per_class: ", limit, ", expected at least 1");
  std::vector<index> kept;
  std::vector<index> members;
  for (index k = 0; k < from.classes(); ++k) {
    members.clear();
    for (index i = 0; i < from.n(); ++i) {
      if (from.labels[static_cast<std::size_t>(i)] == k) members.push_back(i);
    }
    if (static_cast<index>(members.size()) > limit) {
      random_stream(seed ^ 0x6c696d6974, static_cast<std::uint64_t>(k)).shuffle(std::span(members));
      members.resize(static_cast<std::size_t>(limit));
    }
    kept.insert(kept.end(), members.begin(), members.end());
  }
  std::sort(kept.begin(), kept.end());
  return subset(from, kept);
}

}  // namespace core_tokensets

// ==== core_tokensets/data/token_batch.hpp ====
// The packed, ragged batch that the whole library works on: kept patches of many samples, one after the other.

#include <cstdint>
#include <vector>


namespace core_tokensets {

/// Patches of S samples without padding: sample s owns rows `offsets[s] .. offsets[s+1]` of all per-patch arrays.
/// A row of `patches` is one patch in the order channel, row, column (as a convolution weight), normalised. `positions`
/// are grid indices (row-major) and pick the position embedding. A non-empty `scale` multiplies the patch
/// embeddings before positions are added (0 leaves a token out in the `zero` semantics, 1/(1-p) rescales a survivor).
struct token_batch {
  index patch_dim = 0;
  std::vector<float> patches;           ///< [T, patch_dim]
  std::vector<std::int32_t> positions;  ///< [T]
  std::vector<index> offsets{0};        ///< [S + 1]
  std::vector<double> scale;            ///< [T] or empty (all 1)
  std::vector<std::int32_t> targets;    ///< [S] class of each sample, or empty
  std::vector<float> weights;           ///< [S] weight of each sample in the loss, or empty (all 1)

  index samples() const { return static_cast<index>(offsets.size()) - 1; }
  index tokens() const { return offsets.back(); }
};

/// Appends the samples of `more` to `batch`.
inline void append(token_batch& batch, const token_batch& more) {
  require(batch.patch_dim == more.patch_dim, "append: patches of ", more.patch_dim,
          " numbers to a batch with patches of ", batch.patch_dim);
  if (!batch.scale.empty() || !more.scale.empty()) {
    batch.scale.resize(static_cast<std::size_t>(batch.tokens()), 1.0);
    batch.scale.insert(batch.scale.end(), more.scale.begin(), more.scale.end());
    batch.scale.resize(static_cast<std::size_t>(batch.tokens() + more.tokens()), 1.0);
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

/// What happens to a left-out token: it leaves the sequence (MAE, PatchDropout), or its embedding becomes 0 and only
/// its position stays (the paper), or that with the survivors scaled by 1/(1-p) (the authors' training code).
enum class missing_tokens { drop, zero, rescaled };

}  // namespace core_tokensets

// ==== core_tokensets/nn/parameters.hpp ====
// All parameters of a model in one array, with a table of their names: zeroing is one fill, AdamW one pass, a
// checkpoint one write.

#include <numeric>
#include <string>
#include <vector>


namespace core_tokensets {

/// Place of one parameter in the array, as a matrix; empty for a parameter that the model does not have.
struct slot {
  index offset = 0, rows = 0, cols = 0;
  index size() const { return rows * cols; }
};

/// One named parameter: its shape as PyTorch has it, and whether weight decay applies.
struct parameter {
  std::string name;
  std::vector<index> shape;
  slot where;
  bool decay = false;
};

/// The table of a model's parameters and the size of the array that holds them.
class parameter_layout {
 public:
  /// Appends a parameter; as a matrix it has `shape[0]` rows (one row for a vector).
  slot add(std::string name, std::vector<index> shape, bool decay) {
    const index total = std::accumulate(shape.begin(), shape.end(), index{1}, std::multiplies<>());
    const index rows = shape.size() < 2 ? 1 : shape.front();
    const slot place{size_, rows, rows == 0 ? 0 : total / rows};
    size_ += (total + 15) / 16 * 16;  // every parameter starts on a cache line
    table_.push_back({std::move(name), std::move(shape), place, decay});
    return place;
  }
  index size() const { return size_; }
  const std::vector<parameter>& table() const { return table_; }
  const parameter& at(const std::string& name) const {
    for (const parameter& p : table_) {
      if (p.name == name) return p;
    }
    fail("model: no parameter is named '", name, "'");
  }

 private:
  std::vector<parameter> table_;
  index size_ = 0;
};

/// Looks a slot up in an array of parameters (or of their gradients). A null array gives empty views.
template <class T>
struct parameter_view {
  T* base = nullptr;

  view<T> operator[](const slot& s) const {
    return base == nullptr || s.size() == 0 ? view<T>{} : view<T>(base + s.offset, s.rows, s.cols);
  }
  constexpr operator parameter_view<const T>() const requires(!std::is_const_v<T>) { return {base}; }
  explicit operator bool() const { return base != nullptr; }
};

}  // namespace core_tokensets

// ==== core_tokensets/core/functors.hpp ====
// Scalar functions of the whole library as function objects: shared by every backend, by the tests and by kernels.
// The float versions are free of branches and calls, so that loops over them become vector instructions; they are
// always inlined, since one call left in such a loop makes it several times slower, and compilers with much to inline
// do leave one.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

namespace core_tokensets::fn {

/// e^x. Float: range reduction by a rounding constant, degree-6 polynomial, relative error below 2e-7; results below
/// the smallest normal number are 0. Other types: the standard library.
template <class T>
[[gnu::always_inline]] constexpr T exp(T x) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
    float y = x > -87.3f ? x : (x <= -87.3f ? -87.3f : x);
    y = y > 88.7f ? 88.7f : y;
    const float shifted = y * 1.44269504f + rounder;
    const float n = shifted - rounder;
    const float r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.381459638e-3f;
    p = p * r + 8.368717090e-3f;
    p = p * r + 4.166838809e-2f;
    p = p * r + 1.666652062e-1f;
    p = p * r + 4.999999344e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t exponent = (std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(rounder) + 126)
                                  << 23;
    const float result = p * std::bit_cast<float>(exponent) * 2.0f;
    return x < -87.3f ? 0.0f : result;
  } else {
    return std::exp(x);
  }
}

/// Standard normal distribution and density at the same point.
template <class T>
struct normal_pair {
  T cdf, pdf;
};

/// Phi(x) = (1 + erf(x / sqrt 2)) / 2 and its derivative. Float: the tail is exp(-x^2/2) times a polynomial in
/// 1 / (1 + 0.3 |x|), relative error below 7e-7 for |x| < 5 and 4e-6 far out (x^2 / 2 is rounded), where 1 + erf would
/// cancel. Other types: std::erfc.
template <class T>
[[gnu::always_inline]] constexpr normal_pair<T> normal(T x) {
  if constexpr (std::is_same_v<T, float>) {
    const float magnitude = x < 0.0f ? -x : x;
    const float t = 1.0f / (1.0f + 0.3f * magnitude);
    float p = 3.827699482e-2f;
    p = p * t - 1.686739584e-1f;
    p = p * t + 2.276438049e-1f;
    p = p * t - 7.534447920e-2f;
    p = p * t + 1.417329918e-1f;
    p = p * t + 9.502546913e-2f;
    p = p * t + 1.218327736e-1f;
    p = p * t + 1.194999876e-1f;
    p = p * t + 6.444519976e-6f;
    const float bell = fn::exp(-0.5f * x * x);
    const float tail = bell * p;
    return {x < 0.0f ? tail : 1.0f - tail, bell * 0.398942280f};
  } else {
    return {T(0.5) * std::erfc(-x * T(std::numbers::sqrt2 / 2)),
            std::exp(T(-0.5) * x * x) * T(std::numbers::inv_sqrtpi / std::numbers::sqrt2)};
  }
}

/// GELU in its exact form, x Phi(x) (Hendrycks & Gimpel 2016).
template <class T>
[[gnu::always_inline]] constexpr T gelu(T x) {
  return x * normal(x).cdf;
}

/// d gelu / dx = Phi(x) + x phi(x).
template <class T>
[[gnu::always_inline]] constexpr T gelu_derivative(T x) {
  const auto n = normal(x);
  return n.cdf + x * n.pdf;
}

/// Chefer's safe division: 0 where b is 0, else a / (b + 1e-9). The constant is added as it is, not sign-aware.
template <class T>
[[gnu::always_inline]] constexpr T safe_divide(T a, T b) {
  const T shifted = b + T(1e-9);
  return b == T(0) ? T(0) : a / (shifted == T(0) ? T(1e-9) : shifted);
}

// ---- operands of map: outputs come first, every operand is a reference to one element ----------------------------

/// out = in
struct copy {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in;
  }
};
/// out += in
struct add {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out += in;
  }
};
/// out = a + b
struct sum {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = a + b;
  }
};
/// out *= in
struct multiply {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out *= in;
  }
};
/// out = a * b
struct product {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = a * b;
  }
};
/// out *= factor
template <class T>
struct scale {
  T factor;
  constexpr void operator()(T& out) const { out *= factor; }
};
/// out = gelu(in)
struct apply_gelu {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = gelu(in);
  }
};
/// dx *= gelu'(x)
struct multiply_gelu_derivative {
  template <class T>
  constexpr void operator()(T& dx, const T& x) const {
    dx *= gelu_derivative(x);
  }
};
/// out = max(in, 0)
struct positive_part {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in > T(0) ? in : T(0);
  }
};
/// out = min(in, 0)
struct negative_part {
  template <class T>
  constexpr void operator()(T& out, const T& in) const {
    out = in < T(0) ? in : T(0);
  }
};
/// out = exp(in - shift)
struct exp_minus {
  template <class T>
  constexpr void operator()(T& out, const T& in, const T& shift) const {
    out = fn::exp(in - shift);
  }
};
/// out /= divisor
struct divide {
  template <class T>
  constexpr void operator()(T& out, const T& divisor) const {
    out /= divisor;
  }
};
/// out = safe_divide(a, b)
struct divide_safely {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out = safe_divide(a, b);
  }
};
/// Gradient of softmax: ds = a (da - inner) with inner = sum(a da).
struct softmax_gradient {
  template <class T>
  constexpr void operator()(T& ds, const T& a, const T& da, const T& inner) const {
    ds = a * (da - inner);
  }
};
/// y = (x - mean) rstd gamma + beta
struct normalise {
  template <class T>
  constexpr void operator()(T& y, const T& x, const T& mean, const T& rstd, const T& gamma, const T& beta) const {
    y = (x - mean) * rstd * gamma + beta;
  }
};
/// out = sum / n
template <class T>
struct mean_of_sum {
  T n;
  constexpr void operator()(T& out, const T& total) const { out = total / n; }
};
/// out = 1 / sqrt(total / n + eps)
template <class T>
struct rstd_of_sum {
  T n, eps;
  constexpr void operator()(T& out, const T& total) const { out = T(1) / std::sqrt(total / n + eps); }
};
/// dx = rstd (g - (s1 + xhat s2) / n) with g = dy gamma, xhat = (x - mean) rstd, s1 = sum g, s2 = sum g xhat.
template <class T>
struct layer_norm_gradient {
  T n;
  constexpr void operator()(T& dx, const T& x, const T& dy, const T& gamma, const T& mean, const T& rstd, const T& s1,
                            const T& s2) const {
    dx = rstd * (dy * gamma - (s1 + (x - mean) * rstd * s2) / n);
  }
};

// ---- operands of the reductions: inputs to the term that is summed or maximised ----------------------------------

struct value {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x;
  }
};
struct square {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x * x;
  }
};
struct times {
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return a * b;
  }
};
struct squared_difference {
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return (a - b) * (a - b);
  }
};
/// dy gamma xhat
struct norm_gradient_term {
  template <class T>
  constexpr T operator()(const T& dy, const T& gamma, const T& x, const T& mean, const T& rstd) const {
    return dy * gamma * (x - mean) * rstd;
  }
};
/// dy xhat
struct norm_scale_term {
  template <class T>
  constexpr T operator()(const T& dy, const T& x, const T& mean, const T& rstd) const {
    return dy * (x - mean) * rstd;
  }
};

// ---- reductions --------------------------------------------------------------------------------------------------

struct plus {
  template <class T>
  static constexpr T identity() {
    return T(0);
  }
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a + b;
  }
};
struct maximum {
  template <class T>
  static constexpr T identity() {
    return T(-3.0e38);
  }
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

}  // namespace core_tokensets::fn

// ==== core_tokensets/core/parallel.hpp ====
// Parallel loops over OpenMP where it is switched on, plain loops elsewhere. The pieces of work are fixed by the
// caller's data and never by the number of threads, so results are the same to the bit for any number of them.

#include <algorithm>
#include <cstddef>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace core_tokensets {

/// Threads that a loop may use when it is asked for 0 ("as many as there are").
inline int default_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Changes that number for this thread and the loops that it starts (0: leaves it), as OMP_NUM_THREADS does for a
/// whole program.
inline void set_default_threads([[maybe_unused]] int threads) {
#ifdef _OPENMP
  if (threads > 0) omp_set_num_threads(threads);
#endif
}

/// Number of the calling thread inside the current parallel loop, 0 outside of one.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// True inside a parallel loop that runs on more than one thread.
inline bool in_parallel() {
#ifdef _OPENMP
  return omp_in_parallel() != 0;
#else
  return false;
#endif
}

/// Calls `body(i)` for i in [0, n), at most `threads` at a time (0: default). Nested loops run serially. The first
/// exception thrown by a body is rethrown to the caller once the loop has ended.
template <class Body>
void parallel_for(int threads, std::ptrdiff_t n, const Body& body) {
  if (threads <= 0) threads = default_threads();
  if (threads == 1 || n <= 1 || in_parallel()) {
    for (std::ptrdiff_t i = 0; i < n; ++i) body(i);
    return;
  }
#ifdef _OPENMP
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical(core_tokensets_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
#else
  for (std::ptrdiff_t i = 0; i < n; ++i) body(i);
#endif
}

/// Cuts [0, n) into pieces of `grain` (the last may be shorter) and calls `body(begin, end)` for each.
template <class Body>
void parallel_chunks(int threads, std::ptrdiff_t n, std::ptrdiff_t grain, const Body& body) {
  grain = std::max<std::ptrdiff_t>(grain, 1);
  parallel_for(threads, (n + grain - 1) / grain,
               [&](std::ptrdiff_t piece) { body(piece * grain, std::min(n, (piece + 1) * grain)); });
}

}  // namespace core_tokensets

// ==== core_tokensets/tensor/host_kernels.hpp ====
// The loops that CPU backends share: map, reductions, gather and scatter over views, with threads over pieces that
// depend on the shapes only.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <utility>


namespace core_tokensets::host {

/// Elements that are worth a thread of their own.
inline constexpr index grain_elements = 1 << 14;

/// First element of row r of matrix (i, j), and the step between columns (0 where one column repeats).
template <class T>
constexpr T* row_begin(const view<T>& v, index i, index j, index r) {
  return v.data + (v.n0 == 1 ? 0 : i * v.s0) + (v.n1 == 1 ? 0 : j * v.s1) + (v.rows == 1 ? 0 : r * v.ld);
}

template <class First, class T>
void check_operand(const First& first, const view<T>& v, const char* where) {
  const auto fits = [](index extent, index wanted) { return extent == wanted || extent == 1; };
  require(fits(v.n0, first.n0) && fits(v.n1, first.n1) && fits(v.rows, first.rows) && fits(v.cols, first.cols), where,
          ": operand [", v.n0, ", ", v.n1, ", ", v.rows, ", ", v.cols, "] does not repeat to [", first.n0, ", ",
          first.n1, ", ", first.rows, ", ", first.cols, "]");
}

/// The element at `p`, or the one that repeats along the row.
template <bool Repeats, class T, class U>
constexpr decltype(auto) pick(T* p, const U& repeated) {
  if constexpr (Repeats) {
    return repeated;
  } else {
    return *p;
  }
}

/// `f(p[c]...)` for every column c of a row. The common cases, unit steps everywhere and all but the last operand, are
/// loops of their own so that they are vectorised; `simd` promises that operands are either the same memory or apart.
/// `f` is a copy: numbers in it would else be read again for each element, since a result might lie over them.
template <class F, class... T>
[[gnu::flatten]] void map_row(F f, index cols, const std::array<index, sizeof...(T)>& steps, T*... p) {
  constexpr std::size_t last = sizeof...(T) - 1;
  bool dense = true;
  for (std::size_t i = 0; i < last; ++i) dense = dense && steps[i] == 1;
  if (dense && steps[last] == 1) {
#pragma omp simd
    for (index c = 0; c < cols; ++c) f(p[c]...);
    return;
  }
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    if constexpr (last > 0) {
      if (dense) {
        const auto repeated = *std::get<last>(std::tuple(p...));
#pragma omp simd
        for (index c = 0; c < cols; ++c) f(pick<I == last>(p + c, repeated)...);
        return;
      }
    }
    for (index c = 0; c < cols; ++c) f(p[c * steps[I]]...);
  }
  (std::index_sequence_for<T...>{});
}

/// op over c in [0, n) of term(c): 16 partial results side by side, then combined pairwise. The order depends on n
/// only, not on addresses or threads.
template <class T, class Op, class F>
[[gnu::flatten]] T fold(index n, const Op& op, const F& term) {
  constexpr index lanes = 16;
  T partial[lanes];
  for (T& p : partial) p = Op::template identity<T>();
  index c = 0;
  for (; c + lanes <= n; c += lanes) {
#pragma omp simd
    for (index lane = 0; lane < lanes; ++lane) partial[lane] = op(partial[lane], T(term(c + lane)));
  }
  for (index lane = 0; c < n; ++c, ++lane) partial[lane] = op(partial[lane], T(term(c)));
  for (index width = lanes / 2; width > 0; width /= 2) {
    for (index lane = 0; lane < width; ++lane) partial[lane] = op(partial[lane], partial[lane + width]);
  }
  return partial[0];
}

template <class F, class First, class... Rest>
void map(int threads, const F& f, const view<First>& first, const view<Rest>&... rest) {
  (check_operand(first, rest, "map"), ...);
  if (first.empty()) return;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  const auto row = [&](index n, index from, index cols) {
    const index r = n % first.rows, batch = n / first.rows;
    const index i = batch / first.n1, j = batch % first.n1;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      map_row(f, cols, steps, row_begin(first, i, j, r) + from, row_begin(rest, i, j, r) + from * steps[I + 1]...);
    }
    (std::index_sequence_for<Rest...>{});
  };
  const index rows = first.n0 * first.n1 * first.rows;
  if (first.cols >= 2 * grain_elements) {  // few long rows: pieces of rows
    const index pieces = (first.cols + grain_elements - 1) / grain_elements;
    parallel_for(threads, rows * pieces, [&](index piece) {
      const index from = piece % pieces * grain_elements;
      row(piece / pieces, from, std::min(grain_elements, first.cols - from));
    });
  } else {
    parallel_chunks(threads, rows, grain_elements / first.cols + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) row(n, 0, first.cols);
    });
  }
}

/// out[r] = op over c of term(in[r, c]...), in the order of `fold`; a long row is folded in pieces first.
template <class Op, class F, class T, class First, class... Rest>
void row_reduce(int threads, const Op& op, const F& term, const view<T>& out, const view<First>& first,
                const view<Rest>&... rest) {
  (check_operand(first, rest, "row_reduce"), ...);
  require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
          " rows, the operand ", first.rows);
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  const auto piece_of_row = [&](index n, index from, index cols) {
    const index r = n % first.rows, batch = n / first.rows;
    const index i = batch / first.n1, j = batch % first.n1;
    const auto reduce = [&](auto*... p) {
      return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return fold<T>(cols, op, [&](index c) { return term(p[(from + c) * steps[I]]...); });
      }
      (std::index_sequence_for<First, Rest...>{});
    };
    return reduce(row_begin(first, i, j, r), row_begin(rest, i, j, r)...);
  };
  const auto result = [&](index n) -> T& {
    const index batch = n / first.rows;
    return *row_begin(out, batch / first.n1, batch % first.n1, n % first.rows);
  };
  const index rows = first.n0 * first.n1 * first.rows;
  constexpr index most_pieces = 64;
  if (first.cols >= 2 * grain_elements) {
    const index length = std::max(grain_elements, (first.cols + most_pieces - 1) / most_pieces);
    const index pieces = (first.cols + length - 1) / length;
    for (index n = 0; n < rows; ++n) {
      std::array<T, most_pieces> partial{};
      parallel_for(threads, pieces, [&](index piece) {
        const index from = piece * length;
        partial[static_cast<std::size_t>(piece)] = piece_of_row(n, from, std::min(length, first.cols - from));
      });
      result(n) = fold<T>(pieces, op, [&](index i) { return partial[static_cast<std::size_t>(i)]; });
    }
  } else {
    parallel_chunks(threads, rows, grain_elements / (first.cols + 1) + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) result(n) = piece_of_row(n, 0, first.cols);
    });
  }
}

/// out[c] = beta out[c] op (over rows of term(in[r, c]...)), rows in order; threads share out the columns.
template <class Op, class F, class T, class First, class... Rest>
void col_reduce(int threads, const Op& op, const F& term, std::type_identity_t<T> beta, const view<T>& out,
                const view<First>& first, const view<Rest>&... rest) {
  (check_operand(first, rest, "col_reduce"), ...);
  require(out.cols == first.cols && first.n0 * first.n1 == 1, "col_reduce: the result has ", out.cols,
          " columns, the operand ", first.cols);
  constexpr index width = 64;
  const std::array<index, 1 + sizeof...(Rest)> steps{1, (rest.cols == 1 && first.cols != 1 ? index{0} : index{1})...};
  const bool dense = std::all_of(steps.begin(), steps.end(), [](index s) { return s == 1; });
  parallel_chunks(threads, first.cols, width, [&](index begin, index end) {
    T partial[width];
    for (T& p : partial) p = Op::template identity<T>();
    const auto row = [&](auto*... p) {
      if (dense) {
#pragma omp simd
        for (index c = begin; c < end; ++c) partial[c - begin] = op(partial[c - begin], T(term(p[c]...)));
        return;
      }
      [&]<std::size_t... I>(std::index_sequence<I...>) {
#pragma omp simd
        for (index c = begin; c < end; ++c) partial[c - begin] = op(partial[c - begin], T(term(p[c * steps[I]]...)));
      }
      (std::index_sequence_for<First, Rest...>{});
    };
    for (index r = 0; r < first.rows; ++r) row(row_begin(first, 0, 0, r), row_begin(rest, 0, 0, r)...);
    for (index c = begin; c < end; ++c) {
      out.data[c] = beta == T(0) ? partial[c - begin] : op(beta * out.data[c], partial[c - begin]);
    }
  });
}

template <class T>
void gather_rows(int threads, const view<T>& out, const view<const T>& in, const std::int32_t* rows) {
  require(out.cols == in.cols, "gather_rows: rows of ", in.cols, " numbers into rows of ", out.cols);
  parallel_chunks(threads, out.rows, grain_elements / (out.cols + 1) + 1, [&](index begin, index end) {
    for (index i = begin; i < end; ++i) std::copy_n(in.row(rows[i]), out.cols, out.row(i));
  });
}

/// Threads share out the columns, so that equal row numbers are added in order.
template <class T>
void scatter_add_rows(int threads, const view<T>& out, const view<const T>& in, const std::int32_t* rows) {
  require(out.cols == in.cols, "scatter_add_rows: rows of ", in.cols, " numbers onto rows of ", out.cols);
  constexpr index width = 64;
  parallel_chunks(threads, out.cols, width, [&](index begin, index end) {
    for (index i = 0; i < in.rows; ++i) {
      T* to = out.row(rows[i]);
      const T* from = in.row(i);
#pragma omp simd
      for (index c = begin; c < end; ++c) to[c] += from[c];
    }
  });
}

/// One row of `ops::cross_entropy`: the loss, and `scale` times its gradient, in double inside.
template <class T>
T cross_entropy_row(const T* logits, index k, index target, index first, T scale, T smoothing, T* gradient) {
  double top = double(logits[first]), total = 0, loss = 0;
  for (index c = first; c < k; ++c) top = std::max(top, double(logits[c]));
  for (index c = first; c < k; ++c) total += std::exp(double(logits[c]) - top);
  const double even = double(smoothing) / static_cast<double>(k - first), log_total = std::log(total);
  std::fill(gradient, gradient + first, T(0));
  for (index c = first; c < k; ++c) {
    const double wanted = even + (c == target ? 1 - double(smoothing) : 0.0),
                 log_p = double(logits[c]) - top - log_total;
    loss -= wanted * log_p;
    gradient[c] = T(double(scale) * (std::exp(log_p) - wanted));
  }
  return T(loss);
}

/// Checks op(A) op(B) against C; the batches of A and B may repeat.
template <class T>
void check_gemm(const view<const T>& a, const view<const T>& b, const view<T>& c, bool transpose_a, bool transpose_b) {
  const index m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
  const index n = transpose_b ? b.rows : b.cols, k2 = transpose_b ? b.cols : b.rows;
  require(m == c.rows && n == c.cols && k == k2, "gemm: [", m, ", ", k, "] times [", k2, ", ", n, "] does not give [",
          c.rows, ", ", c.cols, "]");
  for (const view<const T>& in : {a, b}) {
    const bool one = in.n0 * in.n1 == 1;
    require(one || (in.n0 == c.n0 && in.n1 == c.n1), "gemm: a batch of [", in.n0, ", ", in.n1,
            "] matrices for one of [", c.n0, ", ", c.n1, "]");
    require(in.rows <= 1 || in.ld >= in.cols, "gemm: rows of ", in.cols, " numbers, ", in.ld, " apart");
  }
}

}  // namespace core_tokensets::host

// ==== core_tokensets/tensor/sequences.hpp ====
// Which rows of a packed batch belong to which sample, and which of them look at which.

#include <algorithm>
#include <vector>


namespace core_tokensets {

/// Sample s owns token rows `offsets[s] .. offsets[s+1]`.
struct sequences {
  std::vector<index> offsets{0};

  index count() const { return static_cast<index>(offsets.size()) - 1; }
  index tokens() const { return offsets.back(); }
  index begin(index s) const { return offsets[static_cast<std::size_t>(s)]; }
  index length(index s) const { return begin(s + 1) - begin(s); }
  void push_back(index tokens_of_sample) { offsets.push_back(offsets.back() + tokens_of_sample); }
};

/// Who looks at whom: the queries of sample s look at its keys. Causal: query i of nq sees the keys up to nk - nq + i,
/// so that the last query sees all of them (queries may be the end of a longer sequence whose keys are cached).
/// Attention matrices of all samples lie in one array: sample s holds `[H, nq_s, nk_s]`, samples one after the other.
class attention_rows {
 public:
  attention_rows() = default;
  /// Self-attention: every token is a query and a key.
  attention_rows(const sequences& all) { assign(all, all); }
  attention_rows(const sequences& queries, const sequences& keys, bool causal = false) {
    assign(queries, keys, causal);
  }
  /// Memory is reused.
  void assign(const sequences& queries, const sequences& keys, bool causal = false) {
    queries_.offsets = queries.offsets;
    keys_.offsets = keys.offsets;
    causal_ = causal;
    places_.assign(1, 0);
    for (index s = 0; s < queries.count(); ++s) {
      places_.push_back(places_.back() + queries.length(s) * keys.length(s));
    }
  }

  const sequences& queries() const { return queries_; }
  const sequences& keys() const { return keys_; }
  bool causal() const { return causal_; }
  index count() const { return queries_.count(); }

  /// Keys that query i of sample s sees.
  index visible(index s, index i) const {
    const index n = keys_.length(s);
    return causal_ ? std::clamp<index>(n - queries_.length(s) + i + 1, 0, n) : n;
  }
  /// Elements of the attention matrices of so many heads.
  index size(index heads) const { return places_.back() * heads; }
  /// `[H, nq, nk]` of sample s in an array `p` of `size(heads)` elements.
  template <class T>
  view<T> matrices(T* p, index s, index heads) const {
    const index nq = queries_.length(s), nk = keys_.length(s);
    return {p + places_[static_cast<std::size_t>(s)] * heads, 1, heads, nq, nk, 0, nq * nk, nk};
  }

 private:
  sequences queries_, keys_;
  bool causal_ = false;
  std::vector<index> places_{0};
};

}  // namespace core_tokensets

// ==== core_tokensets/tensor/backend.hpp ====
// The contract of a backend: ten functions. Everything else in the library is written from these; a backend may also
// bring its own version of the operations in ops.hpp, which are found by name.

#include <concepts>
#include <cstdint>
#include <span>


namespace core_tokensets {

/// C = alpha op(A) op(B) + beta C for every matrix of the batch; C is not read when beta is 0.
struct gemm_options {
  bool transpose_a = false, transpose_b = false;
  double alpha = 1, beta = 0;
};

/// What `cross_entropy` takes besides logits `[S, K]`, in the backend's memory.
template <class T>
struct cross_entropy_operands {
  const std::int32_t* targets = nullptr;      ///< [S]
  const std::int32_t* first_class = nullptr;  ///< [S] sample s competes among first_class[s] .. K-1; null: all
  const T* weights = nullptr;                 ///< [S]; null: 1
  T label_smoothing = 0;                      ///< share of the target spread evenly over the competing classes
};

/// What attention left in the forward pass of a backend that computes the probabilities again on the way back
/// (`ops::keeps_log_sums`); null where the probabilities were kept instead.
template <class T>
struct attention_result {
  const T* log_sums = nullptr;  ///< [H, Tq] log sum exp(scale q k^T)
  view<const T> out;            ///< [1, H, Tq, dh]
};

/// What a tensor backend must offer (docs/backends.md). `Buffer<U>` owns memory of the device and frees itself;
/// pointers into it are never followed outside of the backend. Views may be empty, and n may be 0. Operands are the
/// same memory or apart. Shapes that do not fit throw `Error`. Function objects are trivially copyable.
///
/// Memory:  `allocate<U>(n)`, `upload(device, host, n)`, `download(host, device, n)`, `fill(view, value)`.
/// Compute: `gemm(a, b, c, options)`: rows at least as far apart as they are long; a batch of A or B may be one matrix;
///          `map(f, operands...)`: f(element&...) at every place of the first operand's shape, where the others repeat
///          along dimensions of extent 1;
///          `row_reduce(op, term, out [rows, 1], in...)` and `col_reduce(op, term, beta, out [1, cols], in...)`: out =
///          op over term(in...), the latter on top of beta * out; both in a fixed order;
///          `gather_rows(out, in, rows)`: out[i] = in[rows[i]]; `scatter_add_rows(out, in, rows)`: out[rows[i]] +=
///          in[i], equal numbers in order.
template <class B>
concept tensor_backend = requires(B& b, typename B::scalar* p, const typename B::scalar* host, std::int32_t* q,
                                  const std::int32_t* rows, view<typename B::scalar> out,
                                  view<const typename B::scalar> in, typename B::scalar value, index n) {
  requires std::floating_point<typename B::scalar>;
  requires std::default_initializable<decltype(b.template allocate<typename B::scalar>(n))>;
  requires std::movable<decltype(b.template allocate<typename B::scalar>(n))>;
  { b.template allocate<typename B::scalar>(n).data() } -> std::same_as<typename B::scalar*>;
  { b.template allocate<std::int32_t>(n).data() } -> std::same_as<std::int32_t*>;
  b.upload(p, host, n);
  b.upload(q, rows, n);
  b.download(p, host, n);
  b.download(q, rows, n);
  b.fill(out, value);
  b.gemm(in, in, out, gemm_options{});
  b.map(fn::sum{}, out, in, in);
  b.row_reduce(fn::plus{}, fn::value{}, out, in);
  b.col_reduce(fn::plus{}, fn::value{}, value, out, in);
  b.gather_rows(out, in, rows);
  b.scatter_add_rows(out, in, rows);
};

/// Owner of device memory that a backend hands out.
template <class B, class U>
using buffer_of = decltype(std::declval<B&>().template allocate<U>(index{}));

}  // namespace core_tokensets

// ==== core_tokensets/tensor/tensor.hpp ====
// Owning arrays of a backend, and scratch memory for the inside of an operation.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// A matrix `[rows, cols]` in a backend's memory. Resizing keeps the memory while it is large enough, so that a
/// training step allocates nothing once it is warm; contents are not kept.
template <tensor_backend B>
class tensor {
 public:
  using scalar = typename B::scalar;

  tensor() = default;
  tensor(B& b, index rows, index cols) { resize(b, rows, cols); }

  void resize(B& b, index rows, index cols) {
    if (rows * cols > capacity_) {
      buffer_ = b.template allocate<scalar>(rows * cols);
      capacity_ = rows * cols;
    }
    rows_ = rows;
    cols_ = cols;
  }
  /// Takes the shape and the numbers of a host array.
  void assign(B& b, index rows, index cols, const scalar* host) {
    resize(b, rows, cols);
    b.upload(buffer_.data(), host, rows * cols);
  }
  std::vector<scalar> to_host(B& b) const {
    std::vector<scalar> host(static_cast<std::size_t>(size()));
    b.download(host.data(), buffer_.data(), size());
    return host;
  }

  index rows() const { return rows_; }
  index cols() const { return cols_; }
  index size() const { return rows_ * cols_; }
  bool empty() const { return size() == 0; }
  scalar* data() const { return buffer_.data(); }
  view<scalar> operator*() { return {buffer_.data(), rows_, cols_}; }
  view<const scalar> operator*() const { return {buffer_.data(), rows_, cols_}; }

 private:
  buffer_of<B, scalar> buffer_;
  index rows_ = 0, cols_ = 0, capacity_ = 0;
};

/// Row numbers (or classes) in a backend's memory.
template <tensor_backend B>
class row_list {
 public:
  void assign(B& b, std::span<const std::int32_t> rows) {
    const auto n = static_cast<index>(rows.size());
    if (n > capacity_) {
      buffer_ = b.template allocate<std::int32_t>(n);
      capacity_ = n;
    }
    size_ = n;
    b.upload(buffer_.data(), rows.data(), n);
  }
  index size() const { return size_; }
  const std::int32_t* data() const { return buffer_.data(); }

 private:
  buffer_of<B, std::int32_t> buffer_;
  index size_ = 0, capacity_ = 0;
};

/// Memory that lives as long as this object: from the backend's workspace where it has one (`take`, `release`), freshly
/// allocated elsewhere.
template <tensor_backend B>
class scratch {
 public:
  using scalar = typename B::scalar;
  static constexpr bool pooled = requires(B & b) { b.workspace(); };

  scratch(B& b, index rows, index cols) : backend_(b), rows_(rows), cols_(cols) {
    if constexpr (pooled) {
      data_ = b.workspace().template take<scalar>(rows * cols);
    } else {
      own_ = b.template allocate<scalar>(rows * cols);
      data_ = own_.data();
    }
  }
  ~scratch() {
    if constexpr (pooled) backend_.workspace().release();
  }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;

  scalar* data() const { return data_; }
  view<scalar> operator*() const { return {data_, rows_, cols_}; }

 private:
  B& backend_;
  buffer_of<B, scalar> own_;
  scalar* data_ = nullptr;
  index rows_, cols_;
};

/// dst = src, of any shapes that `map` can repeat.
template <tensor_backend B>
void assign(B& b, view<typename B::scalar> dst, const_view<typename B::scalar> src) {
  b.map(fn::copy{}, dst, src);
}

}  // namespace core_tokensets

// ==== core_tokensets/tensor/ops.hpp ====
// Operations that a backend may override under the same name; each has a default written from the ten required
// functions. Calling `ops::name(backend, ...)` picks the override where there is one.

#include <vector>


namespace core_tokensets::ops {

/// Calls `body(s)` for every sample, at the same time where the backend can.
template <tensor_backend B, class Body>
void for_each_sample(B& b, index samples, const Body& body) {
  if constexpr (requires { b.parallel(samples, body); }) {
    b.parallel(samples, body);
  } else {
    for (index s = 0; s < samples; ++s) body(s);
  }
}

/// Runs `body`. A backend that can capture work replays it where the key and the work come again.
template <tensor_backend B, class Body>
void repeat(B& b, index key, const Body& body) {
  if constexpr (requires { b.repeat(key, body); }) {
    b.repeat(key, body);
  } else {
    body();
  }
}

/// Softmax over the columns of every row, in place.
template <tensor_backend B, class T = typename B::scalar>
void softmax(B& b, view<T> x) {
  if constexpr (requires { b.softmax(x); }) {
    b.softmax(x);
  } else {
    scratch<B> memory(b, x.n0 * x.n1 * x.rows, 1);
    const view<T> column(memory.data(), x.n0, x.n1, x.rows, 1, x.n1 * x.rows, x.rows, 1);
    b.row_reduce(fn::maximum{}, fn::value{}, column, view<const T>(x));
    b.map(fn::exp_minus{}, x, view<const T>(x), view<const T>(column));
    b.row_reduce(fn::plus{}, fn::value{}, column, view<const T>(x));
    b.map(fn::divide{}, x, view<const T>(column));
  }
}

/// y = (x - mean) / sqrt(var + eps) * gamma + beta over the columns `[T, C]`; keeps `mean` and `rstd` `[T, 1]`.
template <tensor_backend B, class T = typename B::scalar>
void layer_norm(B& b, const_view<T> x, const_view<T> gamma, const_view<T> beta, view<T> y, view<T> mean, view<T> rstd,
                T eps) {
  if constexpr (requires { b.layer_norm(x, gamma, beta, y, mean, rstd, eps); }) {
    b.layer_norm(x, gamma, beta, y, mean, rstd, eps);
  } else {
    const T n = static_cast<T>(x.cols);
    b.row_reduce(fn::plus{}, fn::value{}, mean, x);
    b.map(fn::mean_of_sum<T>{n}, mean, view<const T>(mean));
    b.row_reduce(fn::plus{}, fn::squared_difference{}, rstd, x, view<const T>(mean));
    b.map(fn::rstd_of_sum<T>{n, eps}, rstd, view<const T>(rstd));
    b.map(fn::normalise{}, y, x, view<const T>(mean), view<const T>(rstd), gamma, beta);
  }
}

/// dx (=), dgamma (+=), dbeta (+=) of layer_norm; the last two may be empty.
template <tensor_backend B, class T = typename B::scalar>
void layer_norm_backward(B& b, const_view<T> x, const_view<T> gamma, const_view<T> mean, const_view<T> rstd,
                         const_view<T> dy, view<T> dx, view<T> dgamma, view<T> dbeta) {
  if constexpr (requires { b.layer_norm_backward(x, gamma, mean, rstd, dy, dx, dgamma, dbeta); }) {
    b.layer_norm_backward(x, gamma, mean, rstd, dy, dx, dgamma, dbeta);
    return;
  }
  if (!dgamma.empty()) b.col_reduce(fn::plus{}, fn::norm_scale_term{}, T(1), dgamma, dy, x, mean, rstd);
  if (!dbeta.empty()) b.col_reduce(fn::plus{}, fn::value{}, T(1), dbeta, dy);
  if constexpr (requires { b.layer_norm_backward(x, gamma, mean, rstd, dy, dx); }) {
    b.layer_norm_backward(x, gamma, mean, rstd, dy, dx);
  } else {
    scratch<B> s1(b, x.rows, 1), s2(b, x.rows, 1);
    b.row_reduce(fn::plus{}, fn::times{}, *s1, dy, gamma);
    b.row_reduce(fn::plus{}, fn::norm_gradient_term{}, *s2, dy, gamma, x, mean, rstd);
    b.map(fn::layer_norm_gradient<T>{static_cast<T>(x.cols)}, dx, x, dy, gamma, mean, rstd, view<const T>(*s1),
          view<const T>(*s2));
  }
}

/// y = x W^T + bias + residual; `[T, In]` times `[Out, In]`. Bias `[1, Out]` and residual `[T, Out]` may be empty.
template <tensor_backend B, class T = typename B::scalar>
void linear(B& b, const_view<T> x, const_view<T> weight, const_view<T> bias, const_view<T> residual, view<T> y) {
  if constexpr (requires { b.linear(x, weight, bias, residual, y); }) {
    b.linear(x, weight, bias, residual, y);
  } else {
    if (!residual.empty() && !bias.empty()) {
      b.map(fn::sum{}, y, residual, bias);
    } else if (!residual.empty() || !bias.empty()) {
      assign(b, y, residual.empty() ? bias : residual);
    }
    const double beta = residual.empty() && bias.empty() ? 0 : 1;
    b.gemm(x, weight, y, {.transpose_b = true, .beta = beta});
  }
}

/// pre = x W^T + bias, y = gelu(pre).
template <tensor_backend B, class T = typename B::scalar>
void linear_gelu(B& b, const_view<T> x, const_view<T> weight, const_view<T> bias, view<T> pre, view<T> y) {
  if constexpr (requires { b.linear_gelu(x, weight, bias, pre, y); }) {
    b.linear_gelu(x, weight, bias, pre, y);
  } else {
    linear(b, x, weight, bias, view<const T>{}, pre);
    b.map(fn::apply_gelu{}, y, view<const T>(pre));
  }
}

/// dx = dy W.
template <tensor_backend B, class T = typename B::scalar>
void linear_backward_input(B& b, const_view<T> dy, const_view<T> weight, view<T> dx) {
  b.gemm(dy, weight, dx);
}

/// dpre = (dy W) gelu'(pre).
template <tensor_backend B, class T = typename B::scalar>
void linear_gelu_backward_input(B& b, const_view<T> dy, const_view<T> weight, const_view<T> pre, view<T> dpre) {
  if constexpr (requires { b.linear_gelu_backward_input(dy, weight, pre, dpre); }) {
    b.linear_gelu_backward_input(dy, weight, pre, dpre);
  } else {
    b.gemm(dy, weight, dpre);
    b.map(fn::multiply_gelu_derivative{}, dpre, pre);
  }
}

/// dW += dy^T x, dbias += column sums of dy (unless empty).
template <tensor_backend B, class T = typename B::scalar>
void linear_backward_weight(B& b, const_view<T> x, const_view<T> dy, view<T> dweight, view<T> dbias) {
  b.gemm(dy, x, dweight, {.transpose_a = true, .beta = 1});
  if (!dbias.empty()) b.col_reduce(fn::plus{}, fn::value{}, T(1), dbias, dy);
}

/// logits `[S, K]` to `losses` `[S, 1]` (without weights) and `dlogits` `[S, K]` (=), the gradient of the mean over the
/// samples of weight times loss: weight (p - wanted) / S among the competing classes, 0 elsewhere.
template <tensor_backend B, class T = typename B::scalar>
void cross_entropy(B& b, const_view<T> logits, const cross_entropy_operands<std::type_identity_t<T>>& operands,
                   view<T> dlogits, view<T> losses) {
  if constexpr (requires { b.cross_entropy(logits, operands, dlogits, losses); }) {
    b.cross_entropy(logits, operands, dlogits, losses);
  } else {  // on the host, row by row
    const index k = logits.cols;
    std::vector<T> row(static_cast<std::size_t>(k)), gradient(row);
    for (index s = 0; s < logits.rows; ++s) {
      std::int32_t target = 0, first = 0;
      T weight = 1, loss = 0;
      b.download(row.data(), logits.row(s), k);
      b.download(&target, operands.targets + s, 1);
      if (operands.first_class) b.download(&first, operands.first_class + s, 1);
      if (operands.weights) b.download(&weight, operands.weights + s, 1);
      loss = host::cross_entropy_row(row.data(), k, target, first, weight / static_cast<T>(logits.rows),
                                     operands.label_smoothing, gradient.data());
      b.upload(dlogits.row(s), gradient.data(), k);
      b.upload(losses.row(s), &loss, 1);
    }
  }
}

namespace detail {

/// The default of `attention`: two matrix products and a softmax a sample.
template <tensor_backend B, class T = typename B::scalar>
void attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
               view<T> out, T* probabilities) {
  for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    const auto of_query = [&](auto x) { return x.slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return x.slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, q.n1 * nq, nk);
    const view<T> a =
        probabilities ? rows.matrices(probabilities, s, q.n1) : view<T>(memory.data(), 1, q.n1, nq, nk, 0, nq * nk, nk);
    b.gemm(of_query(q), of_key(k), a, {.transpose_b = true, .alpha = double(scale)});
    if (rows.causal()) {
      b.fill(of_query(out), T(0));
      for (index i = 0; i < nq; ++i) {
        const index seen = rows.visible(s, i);
        b.fill(a.slice_rows(i, 1).slice_cols(seen, nk - seen), T(0));
        if (seen > 0) softmax(b, a.slice_rows(i, 1).slice_cols(0, seen));
      }
    } else {
      softmax(b, a);
    }
    b.gemm(a, of_key(v), of_query(out));
  });
}

/// The default of `attention_backward`.
template <tensor_backend B, class T = typename B::scalar>
void attention_backward(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                        T* dprobabilities) {
  for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s), h = q.n1;
    const auto of_query = [&](auto x) { return x.slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return x.slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, h * nq, nk), memory2(b, h * nq, nk), memory3(b, h * nq, 1);
    const view<const T> a = rows.matrices(probabilities, s, q.n1);
    const view<T> da =
        dprobabilities ? rows.matrices(dprobabilities, s, q.n1) : view<T>(memory.data(), 1, h, nq, nk, 0, nq * nk, nk);
    const view<T> ds(memory2.data(), 1, h, nq, nk, 0, nq * nk, nk), inner(memory3.data(), 1, h, nq, 1, 0, nq, 1);
    b.gemm(a, of_query(dout), of_key(dv), {.transpose_a = true});
    b.gemm(of_query(dout), of_key(v), da, {.transpose_b = true});
    b.row_reduce(fn::plus{}, fn::times{}, inner, a, view<const T>(da));
    b.map(fn::softmax_gradient{}, ds, a, view<const T>(da), view<const T>(inner));
    b.gemm(ds, of_key(k), of_query(dq), {.alpha = double(scale)});
    b.gemm(ds, of_query(q), of_key(dk), {.transpose_a = true, .alpha = double(scale)});
  });
}

}  // namespace detail

/// A backend whose attention takes one argument more: it can leave `log_sums` and compute the probabilities again on
/// the way back, so that training keeps none.
template <class B, class T = typename B::scalar>
concept keeps_log_sums = requires(B& b, const attention_rows& rows, view<const T> in, view<T> out, T* p) {
  b.attention(rows, in, in, in, T(1), out, p, p);
};

/// Softmax attention inside each sample of a ragged batch: A = softmax(scale q k^T), out = A v. q, out are
/// `[1, H, Tq, dh]`, k, v `[1, H, Tk, dh]`; `probabilities` (may be null) receives A as `attention_rows` says, and
/// `log_sums` `[H, Tq]` (may be null; see `keeps_log_sums`) log sum exp(scale q k^T). A query that sees no key gets 0.
template <tensor_backend B, class T = typename B::scalar>
void attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
               view<T> out, T* probabilities, T* log_sums = nullptr) {
  if constexpr (keeps_log_sums<B>) {
    b.attention(rows, q, k, v, scale, out, probabilities, log_sums);
  } else if constexpr (requires { b.attention(rows, q, k, v, scale, out, probabilities); }) {
    b.attention(rows, q, k, v, scale, out, probabilities);
  } else {
    detail::attention(b, rows, q, k, v, scale, out, probabilities);
  }
}

/// Gradients of `attention` from its probabilities, or from `result` where they are null: dq, dk, dv (=).
/// `dprobabilities` (may be null) receives the gradient at the softmax output.
template <tensor_backend B, class T = typename B::scalar>
void attention_backward(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                        T* dprobabilities, const attention_result<std::type_identity_t<T>>& result = {}) {
  if constexpr (keeps_log_sums<B>) {
    b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities, result);
  } else if constexpr (requires {
                         b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
                       }) {
    b.attention_backward(rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
  } else {
    detail::attention_backward(b, rows, q, k, v, scale, probabilities, dout, dq, dk, dv, dprobabilities);
  }
}

}  // namespace core_tokensets::ops

// ==== core_tokensets/nn/layer_norm.hpp ====
// y = (x - mean) / sqrt(var + eps) * gamma + beta, over the channels of each token.


namespace core_tokensets {

struct layer_norm {
  slot gamma, beta;
  double eps = 1e-6;
};

/// What the backward pass needs of the forward pass; the result `y` `[T, C]` is kept with it.
template <tensor_backend B>
struct layer_norm_tape {
  tensor<B> y, mean, rstd;
};

inline layer_norm add_layer_norm(parameter_layout& layout, const std::string& name, index dim, double eps) {
  return {layout.add(name + ".weight", {dim}, false), layout.add(name + ".bias", {dim}, false), eps};
}

/// Writes `tape.y`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x, layer_norm_tape<B>& tape) {
  tape.y.resize(b, x.rows, x.cols);
  tape.mean.resize(b, x.rows, 1);
  tape.rstd.resize(b, x.rows, 1);
  ops::layer_norm<B, T>(b, x, p[l.gamma], p[l.beta], *tape.y, *tape.mean, *tape.rstd, T(l.eps));
}

/// dx (=), and the gradients of gamma and beta (+=) where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const layer_norm& l, parameter_view<const T> p, parameter_view<T> grads, const_view<T> x,
              const layer_norm_tape<B>& tape, const_view<T> dy, view<T> dx) {
  ops::layer_norm_backward<B, T>(b, x, p[l.gamma], *tape.mean, *tape.rstd, dy, dx, grads[l.gamma], grads[l.beta]);
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/linear.hpp ====
// y = x W^T + b.


namespace core_tokensets {

/// Weight `[Out, In]` and bias `[1, Out]` (may be empty).
struct linear {
  slot weight, bias;
};

inline linear add_linear(parameter_layout& layout, const std::string& name, index in, index out, bool bias = true) {
  linear l;
  l.weight = layout.add(name + ".weight", {out, in}, true);
  if (bias) l.bias = layout.add(name + ".bias", {out}, false);
  return l;
}

/// y = x W^T + b + residual (which may be empty).
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const linear& l, parameter_view<const T> p, const_view<T> x, const_view<T> residual, view<T> y) {
  ops::linear<B, T>(b, x, p[l.weight], p[l.bias], residual, y);
}

/// dW += dy^T x, db += sum of dy, dx = dy W. No gradients without `grads`, no dx when it is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const linear& l, parameter_view<const T> p, parameter_view<T> grads, const_view<T> x,
              const_view<T> dy, view<T> dx) {
  if (grads) ops::linear_backward_weight<B, T>(b, x, dy, grads[l.weight], grads[l.bias]);
  if (!dx.empty()) ops::linear_backward_input<B, T>(b, dy, p[l.weight], dx);
}

}  // namespace core_tokensets

// ==== core_tokensets/tensor/weighted_attention.hpp ====
// Attention whose scores are multiplied key by key, as AtMan does to suppress tokens. A backend may bring its own
// `weighted_attention`; the default is written from the ten required functions.


namespace core_tokensets {

/// A factor for each key `[Tk]`, the same for all queries and heads: the scaled score s(q, k) becomes factor[k] s(q,
/// k), or with `from_minimum` factor[k] (s(q, k) - min over k of s(q, k)). Without factors nothing changes.
template <class T>
struct key_factors {
  const T* factor = nullptr;
  bool from_minimum = false;
  explicit operator bool() const { return factor != nullptr; }
};

namespace fn {
/// s = factor (s - least)
struct weigh_shifted_score {
  template <class T>
  constexpr void operator()(T& s, const T& factor, const T& minus_least) const {
    s = factor * (s + minus_least);
  }
};
/// -x, for reductions
struct negated {
  template <class T>
  constexpr T operator()(const T& x) const {
    return -x;
  }
};
}  // namespace fn

namespace ops {

namespace detail {
struct any_body {
  void operator()(index) const {}
};
}  // namespace detail

/// Calls `body(s, first, count)` for heads first .. first + count - 1 of sample s: one head a call where the backend
/// runs calls at the same time, all heads of a sample in one elsewhere.
template <tensor_backend B, class Body>
void for_each_head(B& b, index samples, index heads, const Body& body) {
  if constexpr (requires { b.parallel(samples, detail::any_body{}); }) {
    b.parallel(samples * heads, [&](index i) { body(i / heads, i % heads, index{1}); });
  } else {
    for (index s = 0; s < samples; ++s) body(s, index{0}, heads);
  }
}

/// Heads first .. first + count - 1 of `[1, H, ...]`.
template <class T>
view<T> some_heads(view<T> v, index first, index count) {
  v.data += first * v.s1;
  v.n1 = count;
  return v;
}

/// `weighted_attention` with scores from their least one: s = factor (s - min).
template <tensor_backend B, class T = typename B::scalar>
void shifted_attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                       const T* factor, view<T> out, T* probabilities) {
  for_each_head(b, rows.count(), q.n1, [&](index s, index first, index count) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    const auto of_query = [&](auto x) { return some_heads(x, first, count).slice_rows(rows.queries().begin(s), nq); };
    const auto of_key = [&](auto x) { return some_heads(x, first, count).slice_rows(rows.keys().begin(s), nk); };
    scratch<B> memory(b, probabilities ? 0 : count * nq, nk), column(b, count * nq, 1);
    const view<T> a = probabilities ? some_heads(rows.matrices(probabilities, s, q.n1), first, count)
                                    : view<T>(memory.data(), 1, count, nq, nk, 0, nq * nk, nk);
    const view<T> minus_least(column.data(), 1, count, nq, 1, 0, nq, 1);
    const view<const T> m(factor + rows.keys().begin(s), 1, nk);
    const auto weigh = [&](view<T> scores, view<T> least, view<const T> factors) {
      b.row_reduce(fn::maximum{}, fn::negated{}, least, view<const T>(scores));
      b.map(fn::weigh_shifted_score{}, scores, factors, view<const T>(least));
      softmax(b, scores);
    };
    b.gemm(of_query(q), of_key(k), a, {.transpose_b = true, .alpha = double(scale)});
    if (!rows.causal()) {
      weigh(a, minus_least, m);
    } else {
      for (index i = 0; i < nq; ++i) {
        const index seen = rows.visible(s, i);
        b.fill(a.slice_rows(i, 1).slice_cols(seen, nk - seen), T(0));
        if (seen > 0)
          weigh(a.slice_rows(i, 1).slice_cols(0, seen), minus_least.slice_rows(i, 1), m.slice_cols(0, seen));
      }
    }
    b.gemm(a, of_key(v), of_query(out));
  });
}

/// `attention` with factors on the scores; operands as there. Plain factors are those of the keys themselves, so that
/// the backend's own attention does the work.
template <tensor_backend B, class T = typename B::scalar>
void weighted_attention(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                        const key_factors<T>& factors, view<T> out, T* probabilities, T* log_sums = nullptr) {
  if (!factors) {
    attention<B, T>(b, rows, q, k, v, scale, out, probabilities, log_sums);
  } else if constexpr (requires { b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities); }) {
    b.weighted_attention(rows, q, k, v, scale, factors, out, probabilities);
  } else if (factors.from_minimum) {
    shifted_attention<B, T>(b, rows, q, k, v, scale, factors.factor, out, probabilities);
  } else {
    scratch<B> memory(b, k.rows, k.n1 * k.cols);
    const view<T> weighted = (*memory).split_cols(k.n1);
    b.map(fn::product{}, weighted, k, view<const T>(factors.factor, k.rows, 1));
    attention<B, T>(b, rows, q, weighted, v, scale, out, probabilities);
  }
}

}  // namespace ops
}  // namespace core_tokensets

// ==== core_tokensets/nn/block.hpp ====
// A pre-norm transformer block: x += proj(attention(norm1(x))); x += fc2(gelu(fc1(norm2(x)))).

#include <cmath>


namespace core_tokensets {

struct block {
  index heads = 1;
  layer_norm norm1, norm2;
  linear qkv, proj, fc1, fc2;
};

/// Activations of one block. `a` holds the attention matrices (`attention_rows`) or is empty, `log_sums` what stands in
/// for them, `da` their gradient when asked for.
template <tensor_backend B>
struct block_tape {
  layer_norm_tape<B> norm1, norm2;
  tensor<B> qkv, a, log_sums, da, context, middle, pre, act;
};

/// What attention leaves behind: nothing, what its backward pass needs, or the matrices themselves.
enum class attention_kept { nothing, gradients, matrices };

/// Makes room for that in the tape. Most backends go back from the matrices, others from the sums (`keeps_log_sums`).
template <tensor_backend B, class Tape>
void resize_attention(B& b, const attention_rows& rows, index heads, attention_kept keep, Tape& tape) {
  const bool matrices =
      keep == attention_kept::matrices || (keep == attention_kept::gradients && !ops::keeps_log_sums<B>);
  const bool sums = keep != attention_kept::nothing && ops::keeps_log_sums<B>;
  tape.a.resize(b, 1, matrices ? rows.size(heads) : 0);
  tape.log_sums.resize(b, heads, sums ? rows.queries().tokens() : 0);
}

/// The memory of a tensor, null where it is empty.
template <tensor_backend B>
typename B::scalar* data_or_null(const tensor<B>& x) {
  return x.empty() ? nullptr : x.data();
}

inline block add_block(parameter_layout& layout, const std::string& name, index dim, index heads, index hidden,
                       bool qkv_bias, double eps) {
  block l;
  l.heads = heads;
  l.norm1 = add_layer_norm(layout, name + ".norm1", dim, eps);
  l.qkv = add_linear(layout, name + ".attn.qkv", dim, 3 * dim, qkv_bias);
  l.proj = add_linear(layout, name + ".attn.proj", dim, dim);
  l.norm2 = add_layer_norm(layout, name + ".norm2", dim, eps);
  l.fc1 = add_linear(layout, name + ".mlp.fc1", dim, hidden);
  l.fc2 = add_linear(layout, name + ".mlp.fc2", hidden, dim);
  return l;
}

/// Part 0, 1, 2 (query, key, value) of packed `[T, 3 C]` as `[1, H, T, C / H]`, in place.
template <class T>
view<T> qkv_part(const view<T>& qkv, index part, index heads) {
  const index dim = qkv.cols / 3;
  return qkv.slice_cols(part * dim, dim).split_cols(heads);
}

template <class T>
T attention_scale(index head_dim) {
  return T(1) / std::sqrt(static_cast<T>(head_dim));
}

/// The second half of a block, from `tape.middle` `[T, C]` to y `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void forward_mlp(B& b, const block& l, parameter_view<const T> p, block_tape<B>& tape, view<T> y) {
  const index rows = tape.middle.rows(), hidden = l.fc1.weight.rows;
  forward<B, T>(b, l.norm2, p, *tape.middle, tape.norm2);
  tape.pre.resize(b, rows, hidden);
  tape.act.resize(b, rows, hidden);
  ops::linear_gelu<B, T>(b, *tape.norm2.y, p[l.fc1.weight], p[l.fc1.bias], *tape.pre, *tape.act);
  forward<B, T>(b, l.fc2, p, *tape.act, *tape.middle, y);
}

/// From dy `[T, C]` at the end of a block to `dmiddle` (=) at its middle.
template <tensor_backend B, class T = typename B::scalar>
void backward_mlp(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const block_tape<B>& tape,
                  const_view<T> dy, view<T> dmiddle) {
  scratch<B> dpre(b, dy.rows, l.fc1.weight.rows), dnorm(b, dy.rows, dy.cols);
  ops::linear_gelu_backward_input<B, T>(b, dy, p[l.fc2.weight], *tape.pre, *dpre);
  backward<B, T>(b, l.fc2, p, grads, *tape.act, dy, {});
  backward<B, T>(b, l.fc1, p, grads, *tape.norm2.y, *dpre, *dnorm);
  backward<B, T>(b, l.norm2, p, grads, *tape.middle, tape.norm2, *dnorm, dmiddle);
  b.map(fn::add{}, dmiddle, dy);
}

/// The first half of a block from `tape.qkv` `[T, 3 C]` on: middle = x + proj(attention), `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void attend_from_qkv(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
                     block_tape<B>& tape, attention_kept keep, view<T> middle, const key_factors<T>& factors = {}) {
  const index dim = x.cols;
  tape.context.resize(b, x.rows, dim);
  resize_attention(b, rows, l.heads, keep, tape);
  const view<const T> qkv = *tape.qkv;
  ops::weighted_attention<B, T>(b, rows, qkv_part(qkv, 0, l.heads), qkv_part(qkv, 1, l.heads),
                                qkv_part(qkv, 2, l.heads), attention_scale<T>(dim / l.heads), factors,
                                (*tape.context).split_cols(l.heads), data_or_null(tape.a), data_or_null(tape.log_sums));
  forward<B, T>(b, l.proj, p, *tape.context, x, middle);
}

/// The first half of a block, x to middle, both `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void attend(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
            block_tape<B>& tape, attention_kept keep, view<T> middle, const key_factors<T>& factors = {}) {
  forward<B, T>(b, l.norm1, p, x, tape.norm1);
  tape.qkv.resize(b, x.rows, 3 * x.cols);
  forward<B, T>(b, l.qkv, p, *tape.norm1.y, {}, *tape.qkv);
  attend_from_qkv<B, T>(b, l, p, rows, x, tape, keep, middle, factors);
}

/// From x and `tape.qkv` `[T, 3 C]` to y `[T, C]`; see `forward`.
template <tensor_backend B, class T = typename B::scalar>
void forward_from_qkv(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
                      block_tape<B>& tape, attention_kept keep, view<T> y, const key_factors<T>& factors = {}) {
  tape.middle.resize(b, x.rows, x.cols);
  attend_from_qkv<B, T>(b, l, p, rows, x, tape, keep, *tape.middle, factors);
  forward_mlp<B, T>(b, l, p, tape, y);
}

/// x `[T, C]` to y `[T, C]`. `factors` multiply the scores of keys, for perturbations only: the backward pass knows
/// nothing of them.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
             block_tape<B>& tape, attention_kept keep, view<T> y, const key_factors<T>& factors = {}) {
  tape.middle.resize(b, x.rows, x.cols);
  attend<B, T>(b, l, p, rows, x, tape, keep, *tape.middle, factors);
  forward_mlp<B, T>(b, l, p, tape, y);
}

/// From `dmiddle` `[T, C]` at the middle of a block to dx (=) at its input. `keep_attention_gradient` leaves d loss / d
/// attention in `tape.da`.
template <tensor_backend B, class T = typename B::scalar>
void backward_attend(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads,
                     const attention_rows& rows, const_view<T> x, block_tape<B>& tape, bool keep_attention_gradient,
                     const_view<T> dmiddle, view<T> dx) {
  const index dim = x.cols;
  scratch<B> dcontext(b, x.rows, dim), dqkv(b, x.rows, 3 * dim);
  backward<B, T>(b, l.proj, p, grads, *tape.context, dmiddle, *dcontext);
  if (keep_attention_gradient) tape.da.resize(b, 1, rows.size(l.heads));
  const view<const T> qkv = *tape.qkv;
  ops::attention_backward<B, T>(b, rows, qkv_part(qkv, 0, l.heads), qkv_part(qkv, 1, l.heads),
                                qkv_part(qkv, 2, l.heads), attention_scale<T>(dim / l.heads), data_or_null(tape.a),
                                (*dcontext).split_cols(l.heads), qkv_part(*dqkv, 0, l.heads),
                                qkv_part(*dqkv, 1, l.heads), qkv_part(*dqkv, 2, l.heads),
                                keep_attention_gradient ? tape.da.data() : nullptr,
                                {data_or_null(tape.log_sums), (*std::as_const(tape.context)).split_cols(l.heads)});
  backward<B, T>(b, l.qkv, p, grads, *tape.norm1.y, *dqkv, *dcontext);
  backward<B, T>(b, l.norm1, p, grads, x, tape.norm1, *dcontext, dx);
  b.map(fn::add{}, dx, dmiddle);
}

/// `dx` holds d loss / d y on entry and d loss / d x on return. Parameter gradients are added where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const attention_rows& rows,
              const_view<T> x, block_tape<B>& tape, bool keep_attention_gradient, view<T> dx) {
  scratch<B> dmiddle(b, x.rows, x.cols);
  backward_mlp<B, T>(b, l, p, grads, tape, dx, *dmiddle);
  backward_attend<B, T>(b, l, p, grads, rows, x, tape, keep_attention_gradient, *dmiddle, dx);
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/class_block.hpp ====
// The last block where only the class tokens are read from: keys and values come from all tokens, everything else is
// computed for one row a sample. The same numbers as `block.hpp` gives for those rows, at about a sixth of the cost.


namespace core_tokensets {

/// Activations of such a block; `block.qkv` holds keys and values only, `[T, 2 C]`.
template <tensor_backend B>
struct class_block_tape {
  block_tape<B> block;
  tensor<B> x, norm, q;  ///< [S, C] input, first norm and queries of the class tokens
};

namespace detail {
/// Query (first) or key and value (second) rows of the weight or entries of the bias of a qkv layer.
template <class T>
std::pair<view<T>, view<T>> cut_qkv(const view<T>& of_all, bool weight, index dim) {
  if (of_all.empty()) return {};
  return weight ? std::pair{of_all.slice_rows(0, dim), of_all.slice_rows(dim, 2 * dim)}
                : std::pair{of_all.slice_cols(0, dim), of_all.slice_cols(dim, 2 * dim)};
}
}  // namespace detail

/// x `[T, C]` to y `[S, C]`; `class_rows` `[S]` are the rows of the class tokens, the only queries of `rows`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const block& l, parameter_view<const T> p, const attention_rows& rows, const row_list<B>& class_rows,
             const_view<T> x, class_block_tape<B>& tape, attention_kept keep, view<T> y,
             const key_factors<T>& factors = {}) {
  const index dim = x.cols, samples = class_rows.size();
  block_tape<B>& t = tape.block;
  const auto [weight_q, weight_kv] = detail::cut_qkv(p[l.qkv.weight], true, dim);
  const auto [bias_q, bias_kv] = detail::cut_qkv(p[l.qkv.bias], false, dim);
  forward<B, T>(b, l.norm1, p, x, t.norm1);
  t.qkv.resize(b, x.rows, 2 * dim);
  ops::linear<B, T>(b, *t.norm1.y, weight_kv, bias_kv, {}, *t.qkv);
  for (tensor<B>* rows_of_class : {&tape.x, &tape.norm, &tape.q, &t.context, &t.middle})
    rows_of_class->resize(b, samples, dim);
  b.gather_rows(*tape.x, x, class_rows.data());
  b.gather_rows(*tape.norm, *t.norm1.y, class_rows.data());
  ops::linear<B, T>(b, *tape.norm, weight_q, bias_q, {}, *tape.q);
  resize_attention(b, rows, l.heads, keep, t);
  ops::weighted_attention<B, T>(b, rows, (*tape.q).split_cols(l.heads), (*t.qkv).slice_cols(0, dim).split_cols(l.heads),
                                (*t.qkv).slice_cols(dim, dim).split_cols(l.heads), attention_scale<T>(dim / l.heads),
                                factors, (*t.context).split_cols(l.heads), data_or_null(t.a), data_or_null(t.log_sums));
  forward<B, T>(b, l.proj, p, *t.context, *tape.x, *t.middle);
  forward_mlp<B, T>(b, l, p, t, y);
}

/// From dy `[S, C]` to dx `[T, C]` (=). Parameter gradients are added where `grads` is given; `keep_attention_gradient`
/// leaves d loss / d attention of the class tokens in `tape.block.da`.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const block& l, parameter_view<const T> p, parameter_view<T> grads, const attention_rows& rows,
              const row_list<B>& class_rows, const_view<T> x, class_block_tape<B>& tape, const_view<T> dy, view<T> dx,
              bool keep_attention_gradient = false) {
  const index dim = x.cols, samples = class_rows.size();
  block_tape<B>& t = tape.block;
  scratch<B> dmiddle(b, samples, dim), drow(b, samples, dim), dq(b, samples, dim), dkv(b, x.rows, 2 * dim),
      dnorm(b, x.rows, dim);
  backward_mlp<B, T>(b, l, p, grads, t, dy, *dmiddle);
  backward<B, T>(b, l.proj, p, grads, *t.context, *dmiddle, *drow);
  if (keep_attention_gradient) t.da.resize(b, 1, rows.size(l.heads));
  ops::attention_backward<B, T>(
      b, rows, (*tape.q).split_cols(l.heads), (*t.qkv).slice_cols(0, dim).split_cols(l.heads),
      (*t.qkv).slice_cols(dim, dim).split_cols(l.heads), attention_scale<T>(dim / l.heads), data_or_null(t.a),
      (*drow).split_cols(l.heads), (*dq).split_cols(l.heads), (*dkv).slice_cols(0, dim).split_cols(l.heads),
      (*dkv).slice_cols(dim, dim).split_cols(l.heads), keep_attention_gradient ? t.da.data() : nullptr,
      {data_or_null(t.log_sums), (*std::as_const(t.context)).split_cols(l.heads)});
  const auto [weight_q, weight_kv] = detail::cut_qkv(p[l.qkv.weight], true, dim);
  if (grads) {
    const auto [dweight_q, dweight_kv] = detail::cut_qkv(grads[l.qkv.weight], true, dim);
    const auto [dbias_q, dbias_kv] = detail::cut_qkv(grads[l.qkv.bias], false, dim);
    ops::linear_backward_weight<B, T>(b, *tape.norm, *dq, dweight_q, dbias_q);
    ops::linear_backward_weight<B, T>(b, *t.norm1.y, *dkv, dweight_kv, dbias_kv);
  }
  ops::linear_backward_input<B, T>(b, *dkv, weight_kv, *dnorm);
  ops::linear_backward_input<B, T>(b, *dq, weight_q, *drow);
  b.scatter_add_rows(*dnorm, *drow, class_rows.data());
  backward<B, T>(b, l.norm1, p, grads, x, t.norm1, *dnorm, dx);
  b.scatter_add_rows(dx, *dmiddle, class_rows.data());
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/patch_embedding.hpp ====
// Patches become tokens: a linear map of each patch, a class token in front of each sample, and a learned position
// each.

#include <cstdint>
#include <vector>


namespace core_tokensets {

struct patch_embedding {
  linear proj;
  slot class_token, positions;
};

/// Where everything of one batch goes: patches of S samples and, behind a class token each, the tokens of the model.
/// Its memory is reused from batch to batch.
template <tensor_backend B>
struct embedding_plan {
  attention_rows all;             ///< every token looks at its sample, class token first
  attention_rows classes;         ///< only the class token does
  row_list<B> class_rows;         ///< [S] row of each class token
  row_list<B> patch_rows;         ///< [P] row of each patch's token
  row_list<B> position_of_token;  ///< [T] row of the position table: 0 for class tokens
  tensor<B> scale;                ///< [P, 1] factor of each patch embedding, or empty

  const sequences& rows() const { return all.queries(); }
  index tokens() const { return rows().tokens(); }

  /// `offsets [S+1]` and `positions [P]` of the patches, `scale [P]` or empty.
  void assign(B& b, const std::vector<index>& offsets, const std::vector<std::int32_t>& positions,
              const std::vector<double>& scales) {
    for (auto* list : {&host_.classes, &host_.patches, &host_.positions}) list->clear();
    host_.tokens.offsets.assign(1, 0);
    host_.one_each.offsets.assign(1, 0);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      host_.classes.push_back(static_cast<std::int32_t>(host_.positions.size()));
      host_.positions.push_back(0);
      for (index i = offsets[s]; i < offsets[s + 1]; ++i) {
        host_.patches.push_back(static_cast<std::int32_t>(host_.positions.size()));
        host_.positions.push_back(positions[static_cast<std::size_t>(i)] + 1);
      }
      host_.tokens.push_back(offsets[s + 1] - offsets[s] + 1);
      host_.one_each.push_back(1);
    }
    all.assign(host_.tokens, host_.tokens);
    classes.assign(host_.one_each, host_.tokens);
    class_rows.assign(b, host_.classes);
    patch_rows.assign(b, host_.patches);
    position_of_token.assign(b, host_.positions);
    host_.factors.assign(scales.begin(), scales.end());
    scale.assign(b, static_cast<index>(scales.size()), 1, host_.factors.data());
  }

 private:
  struct {
    sequences tokens, one_each;
    std::vector<std::int32_t> classes, patches, positions;
    std::vector<typename B::scalar> factors;
  } host_;
};

/// patches `[P, C p p]` to embeddings `[P, D]` (before positions) and tokens `[T, D]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const patch_embedding& l, parameter_view<const T> p, const embedding_plan<B>& plan,
             const_view<T> patches, view<T> embeddings, view<T> tokens) {
  forward<B, T>(b, l.proj, p, patches, {}, embeddings);
  if (!plan.scale.empty()) b.map(fn::multiply{}, embeddings, *plan.scale);
  b.gather_rows(tokens, p[l.positions], plan.position_of_token.data());
  b.scatter_add_rows(tokens, embeddings, plan.patch_rows.data());
  const view<const T> cls = p[l.class_token];
  b.scatter_add_rows(tokens, view<const T>(cls.data, plan.class_rows.size(), cls.cols, 0), plan.class_rows.data());
}

/// From d loss / d tokens: parameter gradients (+=), and d loss / d patches unless it is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const patch_embedding& l, parameter_view<const T> p, parameter_view<T> grads,
              const embedding_plan<B>& plan, const_view<T> patches, const_view<T> dtokens, view<T> dpatches) {
  scratch<B> dembedding(b, patches.rows, dtokens.cols);
  b.gather_rows(*dembedding, dtokens, plan.patch_rows.data());
  if (!plan.scale.empty()) b.map(fn::multiply{}, *dembedding, *plan.scale);
  backward<B, T>(b, l.proj, p, grads, patches, *dembedding, dpatches);
  if (!grads) return;
  b.scatter_add_rows(grads[l.positions], dtokens, plan.position_of_token.data());
  scratch<B> dclass(b, plan.class_rows.size(), dtokens.cols);
  b.gather_rows(*dclass, dtokens, plan.class_rows.data());
  b.col_reduce(fn::plus{}, fn::value{}, T(1), grads[l.class_token], *dclass);
}

}  // namespace core_tokensets

// ==== core_tokensets/model/vit.hpp ====
// The Vision Transformer: configuration, parameters, forward and backward over packed, ragged batches.

#include <cmath>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

struct image_shape {
  index height = 32, width = 32, channels = 3;
};

struct vit_config {
  image_shape image = {};
  index patch = 4, dim = 192, depth = 6, heads = 3, classes = 10;
  double mlp_ratio = 4;
  bool qkv_bias = true;
  double layer_norm_eps = 1e-6;
  std::uint64_t seed = 0;  ///< of the initial weights

  index grid_height() const { return image.height / patch; }
  index grid_width() const { return image.width / patch; }
  index patches() const { return grid_height() * grid_width(); }
  index patch_dim() const { return image.channels * patch * patch; }
  index hidden() const { return static_cast<index>(std::llround(mlp_ratio * static_cast<double>(dim))); }
};

/// Throws where the sizes do not fit together.
inline void check(const vit_config& c) {
  require(c.patch > 0 && c.dim > 0 && c.depth > 0 && c.heads > 0 && c.classes > 0 && c.image.channels > 0,
          "vit: patch, dim, depth, heads, classes and channels must be positive");
  require(c.image.height > 0 && c.image.width > 0 && c.image.height % c.patch == 0 && c.image.width % c.patch == 0,
          "vit: an image of ", c.image.height, "x", c.image.width, " is not made of whole patches of ", c.patch, "x",
          c.patch);
  require(c.dim % c.heads == 0, "vit: ", c.dim, " channels do not divide into ", c.heads, " heads");
}

/// `Error` unless the pictures are of the size that a model of this configuration sees.
inline void check_pictures(const dataset& data, const vit_config& c) {
  require(data.height == c.image.height && data.width == c.image.width && data.channels == c.image.channels,
          "the model sees images of ", c.image.height, "x", c.image.width, "x", c.image.channels, ", the data have ",
          data.height, "x", data.width, "x", data.channels);
}

/// The places of all parameters, under timm's names.
struct vit_layout {
  parameter_layout parameters;
  patch_embedding embedding;
  std::vector<block> blocks;
  layer_norm norm;
  linear head;
};

/// Places for the encoder of `c`, everything but the head, under timm's names behind `prefix`.
template <class Layers>
void add_encoder(Layers& l, parameter_layout& parameters, const vit_config& c, const std::string& prefix = "") {
  l.embedding.class_token = parameters.add(prefix + "cls_token", {1, 1, c.dim}, false);
  l.embedding.positions = parameters.add(prefix + "pos_embed", {1, c.patches() + 1, c.dim}, false);
  l.embedding.positions.rows = c.patches() + 1;
  l.embedding.positions.cols = c.dim;
  l.embedding.proj.weight =
      parameters.add(prefix + "patch_embed.proj.weight", {c.dim, c.image.channels, c.patch, c.patch}, true);
  l.embedding.proj.bias = parameters.add(prefix + "patch_embed.proj.bias", {c.dim}, false);
  for (index i = 0; i < c.depth; ++i) {
    l.blocks.push_back(add_block(parameters, prefix + "blocks." + std::to_string(i), c.dim, c.heads, c.hidden(),
                                 c.qkv_bias, c.layer_norm_eps));
  }
  l.norm = add_layer_norm(parameters, prefix + "norm", c.dim, c.layer_norm_eps);
}

inline vit_layout make_layout(const vit_config& c) {
  check(c);
  vit_layout l;
  add_encoder(l, l.parameters, c);
  l.head = add_linear(l.parameters, "head", c.dim, c.classes);
  return l;
}

/// Normal numbers of standard deviation 0.02 for matrices, positions and class token; 1 for norm gains; 0 for the rest.
template <class T>
std::vector<T> initial_parameters(std::uint64_t seed, const parameter_layout& layout) {
  std::vector<T> values(static_cast<std::size_t>(layout.size()), T(0));
  std::uint64_t stream = 0;
  for (const parameter& p : layout.table()) {
    random_stream random(seed, ++stream);
    const bool gain = p.name.find("norm") != std::string::npos && p.name.ends_with("weight");
    const bool bias = p.shape.size() == 1 && !gain;
    for (index i = 0; i < p.where.size(); ++i) {
      values[static_cast<std::size_t>(p.where.offset + i)] = gain ? T(1) : bias ? T(0) : T(0.02 * random.normal());
    }
  }
  return values;
}

/// A model: its configuration, the places of its parameters and the parameters themselves.
template <tensor_backend B>
class vit {
 public:
  using scalar = typename B::scalar;

  vit(B& b, const vit_config& c) : config_(c), layout_(make_layout(c)) {
    const auto values = initial_parameters<scalar>(c.seed, layout_.parameters);
    parameters_.assign(b, 1, layout_.parameters.size(), values.data());
  }

  const vit_config& config() const { return config_; }
  const vit_layout& layout() const { return layout_; }
  tensor<B>& parameters() { return parameters_; }
  const tensor<B>& parameters() const { return parameters_; }
  parameter_view<const scalar> view_parameters() const { return {parameters_.data()}; }

  /// Gives the head room for `classes`; rows of old classes are kept, new ones start at small random numbers.
  void grow_head(B& b, index classes) {
    require(classes >= config_.classes, "vit: the head has ", config_.classes, " classes and cannot shrink to ",
            classes);
    if (classes != config_.classes) rebuild(b, classes, [](const parameter&) { return true; });
  }

  /// Gives the model a fresh head of `classes`; everything below it is kept.
  void replace_head(B& b, index classes) {
    rebuild(b, classes, [](const parameter& p) { return !p.name.starts_with("head."); });
  }

 private:
  /// A fresh model of so many classes, into which the parameters that `keep` names are copied.
  template <class Keep>
  void rebuild(B& b, index classes, const Keep& keep) {
    vit_config c = config_;
    c.classes = classes;
    vit other(b, c);
    auto values = other.parameters_.to_host(b);
    const auto old = parameters_.to_host(b);
    for (const parameter& p : layout_.parameters.table()) {
      if (!keep(p)) continue;
      std::copy_n(old.begin() + p.where.offset, p.where.size(),
                  values.begin() + other.layout_.parameters.at(p.name).where.offset);
    }
    other.parameters_.assign(b, 1, other.layout_.parameters.size(), values.data());
    *this = std::move(other);
  }

  vit_config config_;
  vit_layout layout_;
  tensor<B> parameters_;
};

/// What a forward pass keeps: `logits` only; the `attention` of all blocks; what `gradients` of the parameters need; or
/// `everything`: all activations, those of the last block for all tokens too. All but the last compute the last block
/// for the class tokens only, with the same results.
enum class kept { logits, attention, gradients, everything };

/// Everything that one forward pass leaves behind, reused from step to step. The caller owns it.
template <tensor_backend B>
struct vit_tape {
  kept keep = kept::gradients;
  bool keep_matrices = false;  ///< with `gradients`: attention matrices too where the backend can do without
  embedding_plan<B> plan;
  tensor<B> patches, embeddings;
  std::vector<tensor<B>> stream;      ///< input of each block, and for `everything` the last output, each [T, D]
  std::vector<block_tape<B>> blocks;  ///< [depth], or without the last one; shared by all (`attention`: but for `a`)
  class_block_tape<B> last;           ///< the last block unless `everything` is kept
  tensor<B> class_out;                ///< [S, D] class tokens of the last output
  layer_norm_tape<B> norm;
  tensor<B> logits;  ///< [S, K]
};

namespace detail {

inline void check_batch(const token_batch& batch, const vit_config& c) {
  require(batch.patch_dim == c.patch_dim(), "vit: patches of ", batch.patch_dim, " numbers, the model expects ",
          c.patch_dim());
  require(static_cast<index>(batch.patches.size()) == batch.tokens() * batch.patch_dim &&
              static_cast<index>(batch.positions.size()) == batch.tokens(),
          "vit: the batch holds ", batch.patches.size(), " numbers and ", batch.positions.size(), " positions for ",
          batch.tokens(), " patches");
  for (const std::int32_t position : batch.positions) {
    require(position >= 0 && position < c.patches(), "vit: position ", position, " is outside of the grid of ",
            c.patches(), " patches");
  }
}

/// The patches of a batch in the backend's memory.
template <tensor_backend B>
void upload_patches(B& b, const token_batch& batch, tensor<B>& patches) {
  using T = typename B::scalar;
  if constexpr (std::is_same_v<T, float>) {
    patches.assign(b, batch.tokens(), batch.patch_dim, batch.patches.data());
  } else {
    const std::vector<T> wide(batch.patches.begin(), batch.patches.end());
    patches.assign(b, batch.tokens(), batch.patch_dim, wide.data());
  }
}

/// From tokens in `tape.stream[0]` to `tape.class_out`.
template <tensor_backend B, class T = typename B::scalar>
void forward_blocks(B& b, const vit<B>& model, vit_tape<B>& tape) {
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  const std::size_t depth = l.blocks.size();
  const bool shared = tape.keep <= kept::attention;
  const auto keep = tape.keep == kept::logits                             ? attention_kept::nothing
                    : tape.keep == kept::gradients && !tape.keep_matrices ? attention_kept::gradients
                                                                          : attention_kept::matrices;
  for (std::size_t i = 0; i < depth; ++i) {
    const auto& in = tape.stream[shared ? i % 2 : i];
    if (i + 1 == depth && tape.keep != kept::everything) {
      forward<B, T>(b, l.blocks[i], p, tape.plan.classes, tape.plan.class_rows, *in, tape.last, keep, *tape.class_out);
      return;
    }
    const bool own_attention = shared && tape.keep == kept::attention && i > 0;
    if (own_attention) std::swap(tape.blocks[0].a, tape.blocks[i].a);
    forward<B, T>(b, l.blocks[i], p, tape.plan.all, *in, tape.blocks[shared ? 0 : i], keep,
                  *tape.stream[shared ? (i + 1) % 2 : i + 1]);
    if (own_attention) std::swap(tape.blocks[0].a, tape.blocks[i].a);
  }
  b.gather_rows(*tape.class_out, *tape.stream[depth], tape.plan.class_rows.data());
}

}  // namespace detail

/// Computes `tape.logits` `[S, K]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const vit<B>& model, const token_batch& batch, vit_tape<B>& tape) {
  const vit_config& c = model.config();
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  detail::check_batch(batch, c);
  tape.plan.assign(b, batch.offsets, batch.positions, batch.scale);
  detail::upload_patches(b, batch, tape.patches);
  tape.embeddings.resize(b, batch.tokens(), c.dim);
  const auto depth = static_cast<std::size_t>(c.depth);
  tape.stream.resize(tape.keep == kept::everything ? depth + 1 : tape.keep == kept::gradients ? depth : 2);
  tape.blocks.resize(tape.keep == kept::everything ? depth : tape.keep == kept::logits ? 1 : depth - 1);
  for (auto& x : tape.stream) x.resize(b, tape.plan.tokens(), c.dim);
  tape.class_out.resize(b, batch.samples(), c.dim);
  forward<B, T>(b, l.embedding, p, tape.plan, *tape.patches, *tape.embeddings, *tape.stream[0]);
  detail::forward_blocks(b, model, tape);
  forward<B, T>(b, l.norm, p, *tape.class_out, tape.norm);
  tape.logits.resize(b, batch.samples(), c.classes);
  forward<B, T>(b, l.head, p, *tape.norm.y, {}, *tape.logits);
}

/// What a backward pass should leave behind besides the parameter gradients.
struct vit_backward_options {
  bool attention_gradients = false;  ///< in `tape.blocks[i].da`; needs a tape that kept everything
};

/// From `dlogits` `[S, K]`: adds to `gradients` (an array like the parameters; may be null), writes d loss / d tokens
/// `[T, D]` to `dtokens`, and d loss / d patches to `dpatches` unless that is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const vit<B>& model, vit_tape<B>& tape, const_view<T> dlogits, T* gradients, tensor<B>& dtokens,
              view<T> dpatches = {}, const vit_backward_options& options = {}) {
  require(tape.keep >= kept::gradients, "vit: backward needs a tape that kept what gradients need");
  require(tape.keep == kept::everything || !options.attention_gradients,
          "vit: gradients of attention need a tape that kept everything");
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  const parameter_view<T> g{gradients};
  const index samples = dlogits.rows, dim = model.config().dim;
  std::size_t blocks = l.blocks.size();
  dtokens.resize(b, tape.plan.tokens(), dim);
  scratch<B> dnorm(b, samples, dim), dclass(b, samples, dim);
  backward<B, T>(b, l.head, p, g, *tape.norm.y, dlogits, *dnorm);
  backward<B, T>(b, l.norm, p, g, *tape.class_out, tape.norm, *dnorm, *dclass);
  if (tape.keep == kept::everything) {
    b.fill(*dtokens, T(0));
    b.scatter_add_rows(*dtokens, *dclass, tape.plan.class_rows.data());
  } else {
    --blocks;
    backward<B, T>(b, l.blocks[blocks], p, g, tape.plan.classes, tape.plan.class_rows, *tape.stream[blocks], tape.last,
                   *dclass, *dtokens);
  }
  while (blocks-- > 0) {
    backward<B, T>(b, l.blocks[blocks], p, g, tape.plan.all, *tape.stream[blocks], tape.blocks[blocks],
                   options.attention_gradients, *dtokens);
  }
  if (g || !dpatches.empty()) {
    backward<B, T>(b, l.embedding, p, g, tape.plan, *tape.patches, *dtokens, dpatches);
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/cross_attention.hpp ====
// Text looks at the picture: y = x + proj(attention(q(norm(x)), k(image), v(image))).


namespace core_tokensets {

/// Queries come from the text, keys and values from the image tokens, which may have another number of channels.
struct cross_attention {
  index heads = 1;
  layer_norm norm;
  linear q, kv, proj;
};

/// Its activations. `a`, `log_sums` and `da` as in `block_tape`.
template <tensor_backend B>
struct cross_attention_tape {
  layer_norm_tape<B> norm;
  tensor<B> q, kv, a, log_sums, da, context;
};

inline cross_attention add_cross_attention(parameter_layout& layout, const std::string& name, index dim,
                                           index image_dim, index heads, double eps) {
  cross_attention l;
  l.heads = heads;
  l.norm = add_layer_norm(layout, name + ".norm", dim, eps);
  l.q = add_linear(layout, name + ".q", dim, dim);
  l.kv = add_linear(layout, name + ".kv", image_dim, 2 * dim);
  l.proj = add_linear(layout, name + ".proj", dim, dim);
  return l;
}

/// Part 0 (key) or 1 (value) of packed `[T, 2 C]` as `[1, H, T, C / H]`, in place.
template <class T>
view<T> kv_part(const view<T>& kv, index part, index heads) {
  const index dim = kv.cols / 2;
  return kv.slice_cols(part * dim, dim).split_cols(heads);
}

/// x `[L, C]` to y `[L, C]` with keys and values `[T, 2 C]` that are there already.
template <tensor_backend B, class T = typename B::scalar>
void forward_from_kv(B& b, const cross_attention& l, parameter_view<const T> p, const attention_rows& rows,
                     const_view<T> x, const_view<T> kv, cross_attention_tape<B>& tape, attention_kept keep, view<T> y,
                     const key_factors<T>& factors = {}) {
  const index dim = x.cols;
  forward<B, T>(b, l.norm, p, x, tape.norm);
  tape.q.resize(b, x.rows, dim);
  tape.context.resize(b, x.rows, dim);
  forward<B, T>(b, l.q, p, *tape.norm.y, {}, *tape.q);
  resize_attention(b, rows, l.heads, keep, tape);
  ops::weighted_attention<B, T>(b, rows, (*tape.q).split_cols(l.heads), kv_part(kv, 0, l.heads),
                                kv_part(kv, 1, l.heads), attention_scale<T>(dim / l.heads), factors,
                                (*tape.context).split_cols(l.heads), data_or_null(tape.a), data_or_null(tape.log_sums));
  forward<B, T>(b, l.proj, p, *tape.context, x, y);
}

/// x `[L, C]` to y `[L, C]` with image tokens `[T, E]`; `rows` says which texts look at which picture.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const cross_attention& l, parameter_view<const T> p, const attention_rows& rows, const_view<T> x,
             const_view<T> image, cross_attention_tape<B>& tape, attention_kept keep, view<T> y,
             const key_factors<T>& factors = {}) {
  tape.kv.resize(b, image.rows, 2 * x.cols);
  forward<B, T>(b, l.kv, p, image, {}, *tape.kv);
  forward_from_kv<B, T>(b, l, p, rows, x, *std::as_const(tape.kv), tape, keep, y, factors);
}

/// From dy `[L, C]` to dx (=) and `dimage` `[T, E]` (+=); parameter gradients are added where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const cross_attention& l, parameter_view<const T> p, parameter_view<T> grads,
              const attention_rows& rows, const_view<T> x, const_view<T> image, cross_attention_tape<B>& tape,
              bool keep_attention_gradient, const_view<T> dy, view<T> dx, view<T> dimage) {
  const index dim = x.cols;
  scratch<B> dcontext(b, x.rows, dim), dq(b, x.rows, dim), dkv(b, image.rows, 2 * dim),
      dtokens(b, image.rows, image.cols);
  backward<B, T>(b, l.proj, p, grads, *tape.context, dy, *dcontext);
  if (keep_attention_gradient) tape.da.resize(b, 1, rows.size(l.heads));
  const view<const T> kv = *std::as_const(tape.kv);
  ops::attention_backward<B, T>(b, rows, (*tape.q).split_cols(l.heads), kv_part(kv, 0, l.heads),
                                kv_part(kv, 1, l.heads), attention_scale<T>(dim / l.heads), data_or_null(tape.a),
                                (*dcontext).split_cols(l.heads), (*dq).split_cols(l.heads), kv_part(*dkv, 0, l.heads),
                                kv_part(*dkv, 1, l.heads), keep_attention_gradient ? tape.da.data() : nullptr,
                                {data_or_null(tape.log_sums), (*std::as_const(tape.context)).split_cols(l.heads)});
  backward<B, T>(b, l.kv, p, grads, image, *dkv, *dtokens);
  b.map(fn::add{}, dimage, view<const T>(*dtokens));
  backward<B, T>(b, l.q, p, grads, *tape.norm.y, *dq, *dcontext);
  backward<B, T>(b, l.norm, p, grads, x, tape.norm, *dcontext, dx);
  b.map(fn::add{}, dx, dy);
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/decoder_block.hpp ====
// A pre-norm decoder block: causal self-attention among the tokens of a text, a look at the picture, and an MLP, each
// added to what came in.


namespace core_tokensets {

/// Self-attention and MLP are those of `block`; the look at the picture stands between them.
struct decoder_block {
  block self;
  cross_attention cross;
};

/// Its activations: `attended` `[L, C]` is x behind self-attention, `self.middle` behind the look at the picture.
template <tensor_backend B>
struct decoder_block_tape {
  block_tape<B> self;
  cross_attention_tape<B> cross;
  tensor<B> attended;
};

inline decoder_block add_decoder_block(parameter_layout& layout, const std::string& name, index dim, index image_dim,
                                       index heads, index hidden, double eps) {
  decoder_block l;
  l.self = add_block(layout, name, dim, heads, hidden, true, eps);
  l.cross = add_cross_attention(layout, name + ".cross", dim, image_dim, heads, eps);
  return l;
}

/// Who looks at whom: text tokens at earlier ones of their text (`self`, causal), and at their picture (`cross`).
struct decoder_rows {
  attention_rows self, cross;
};

/// Factors on the attention scores of text tokens `[L]` and of image tokens `[T]`, for perturbations only.
template <class T>
struct decoder_factors {
  key_factors<T> text = {}, image = {};
};

/// x `[L, C]` to y `[L, C]` with image tokens `[T, E]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const decoder_block& l, parameter_view<const T> p, const decoder_rows& rows, const_view<T> x,
             const_view<T> image, decoder_block_tape<B>& tape, attention_kept keep, view<T> y,
             const decoder_factors<T>& factors = {}) {
  tape.attended.resize(b, x.rows, x.cols);
  tape.self.middle.resize(b, x.rows, x.cols);
  attend<B, T>(b, l.self, p, rows.self, x, tape.self, keep, *tape.attended, factors.text);
  forward<B, T>(b, l.cross, p, rows.cross, *std::as_const(tape.attended), image, tape.cross, keep, *tape.self.middle,
                factors.image);
  forward_mlp<B, T>(b, l.self, p, tape.self, y);
}

/// `dx` holds d loss / d y on entry and d loss / d x on return; `dimage` `[T, E]` is added to.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const decoder_block& l, parameter_view<const T> p, parameter_view<T> grads,
              const decoder_rows& rows, const_view<T> x, const_view<T> image, decoder_block_tape<B>& tape,
              bool keep_attention_gradient, view<T> dx, view<T> dimage) {
  scratch<B> dmiddle(b, x.rows, x.cols), dattended(b, x.rows, x.cols);
  backward_mlp<B, T>(b, l.self, p, grads, tape.self, dx, *dmiddle);
  backward<B, T>(b, l.cross, p, grads, rows.cross, *std::as_const(tape.attended), image, tape.cross,
                 keep_attention_gradient, *dmiddle, *dattended, dimage);
  backward_attend<B, T>(b, l.self, p, grads, rows.self, x, tape.self, keep_attention_gradient, *dattended, dx);
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/text_embedding.hpp ====
// Tokens of a text become vectors: one learned row for the token plus one for its place in the text.


namespace core_tokensets {

struct text_embedding {
  slot tokens;     ///< [V, C]
  slot positions;  ///< [N, C]
};

inline text_embedding add_text_embedding(parameter_layout& layout, const std::string& name, index vocabulary,
                                         index length, index dim) {
  return {layout.add(name + ".token_embed.weight", {vocabulary, dim}, false),
          layout.add(name + ".pos_embed.weight", {length, dim}, false)};
}

/// Token and position numbers `[L]` to vectors `[L, C]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const text_embedding& l, parameter_view<const T> p, const row_list<B>& tokens,
             const row_list<B>& positions, view<T> out) {
  scratch<B> of_position(b, out.rows, out.cols);
  b.gather_rows(out, p[l.tokens], tokens.data());
  b.gather_rows(*of_position, p[l.positions], positions.data());
  b.map(fn::add{}, out, view<const T>(*of_position));
}

/// Parameter gradients (+=) from d loss / d vectors `[L, C]`.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const text_embedding& l, parameter_view<T> grads, const row_list<B>& tokens,
              const row_list<B>& positions, const_view<T> dout) {
  b.scatter_add_rows(grads[l.tokens], dout, tokens.data());
  b.scatter_add_rows(grads[l.positions], dout, positions.data());
}

}  // namespace core_tokensets

// ==== core_tokensets/model/image_text.hpp ====
// One model for questions and captions: a Vision Transformer encodes the picture, a causal decoder writes text while it
// looks at the picture. A caption is what follows an empty prompt, an answer what follows the question.


namespace core_tokensets {

struct text_config {
  index vocabulary = 1024, length = 48;  ///< tokens that there are, and that a text has at most
  index dim = 128, depth = 2, heads = 4;
  double mlp_ratio = 4;
  bool tied = true;  ///< the output layer is the token embedding (Press & Wolf 2017), with a bias of its own

  index hidden() const { return static_cast<index>(std::llround(mlp_ratio * static_cast<double>(dim))); }
};

/// `image.classes` means nothing here: the encoder has no head.
struct image_text_config {
  vit_config image = {};
  text_config text = {};
  std::uint64_t seed = 0;  ///< of the initial weights
};

/// Throws where the sizes do not fit together.
inline void check(const image_text_config& c) {
  check(c.image);
  const text_config& t = c.text;
  require(t.vocabulary > 2 && t.length > 1 && t.dim > 0 && t.depth > 0 && t.heads > 0 && t.hidden() > 0,
          "image_text: vocabulary, length, dim, depth and heads must be positive (vocabulary 3, length 2 or more)");
  require(t.dim % t.heads == 0, "image_text: ", t.dim, " channels do not divide into ", t.heads, " heads");
}

/// The places of all parameters: the encoder's under timm's names behind "encoder.", the decoder's behind "decoder.".
struct image_text_layout {
  parameter_layout parameters;
  patch_embedding embedding;
  std::vector<block> blocks;
  layer_norm norm;
  text_embedding text;
  std::vector<decoder_block> decoder;
  layer_norm text_norm;
  linear output;
};

inline image_text_layout make_layout(const image_text_config& c) {
  check(c);
  image_text_layout l;
  const text_config& t = c.text;
  const double eps = c.image.layer_norm_eps;
  add_encoder(l, l.parameters, c.image, "encoder.");
  l.text = add_text_embedding(l.parameters, "decoder", t.vocabulary, t.length, t.dim);
  for (index i = 0; i < t.depth; ++i) {
    l.decoder.push_back(add_decoder_block(l.parameters, "decoder.blocks." + std::to_string(i), t.dim, c.image.dim,
                                          t.heads, t.hidden(), eps));
  }
  l.text_norm = add_layer_norm(l.parameters, "decoder.norm", t.dim, eps);
  if (t.tied) {
    l.output.weight = l.text.tokens;
    l.output.bias = l.parameters.add("decoder.output.bias", {t.vocabulary}, false);
  } else {
    l.output = add_linear(l.parameters, "decoder.output", t.dim, t.vocabulary);
  }
  return l;
}

/// The model: its configuration, the places of its parameters and the parameters themselves.
template <tensor_backend B>
class image_text_model {
 public:
  using scalar = typename B::scalar;

  image_text_model(B& b, const image_text_config& c) : config_(c), layout_(make_layout(c)) {
    const auto values = initial_parameters<scalar>(c.seed, layout_.parameters);
    parameters_.assign(b, 1, layout_.parameters.size(), values.data());
  }

  const image_text_config& config() const { return config_; }
  const image_text_layout& layout() const { return layout_; }
  tensor<B>& parameters() { return parameters_; }
  const tensor<B>& parameters() const { return parameters_; }
  parameter_view<const scalar> view_parameters() const { return {parameters_.data()}; }

 private:
  image_text_config config_;
  image_text_layout layout_;
  tensor<B> parameters_;
};

/// Where the texts of one batch go. Its memory is reused from batch to batch.
template <tensor_backend B>
struct text_plan {
  decoder_rows rows;
  row_list<B> tokens, positions;      ///< [L]
  row_list<B> asked;                  ///< [A] rows whose next token is asked for
  std::vector<std::int32_t> targets;  ///< [A] that token
  std::vector<float> weights;  ///< [A] make the mean over A of weight times loss the mean over texts of their mean loss
  sequences asked_of_text;     ///< which of the A belong to which text

  index length() const { return tokens.size(); }

  /// `pictures` says which image tokens belong to which picture. Throws where the batch does not fit `c`.
  void assign(B& b, const text_batch& batch, const sequences& pictures, const text_config& c) {
    check(batch, pictures, c);
    std::vector<std::int32_t> places, wanted;
    sequences texts{batch.offsets}, of_picture;
    targets.clear(), weights.clear(), asked_of_text.offsets.assign(1, 0);
    for (index s = 0; s < batch.pictures(); ++s) {
      const auto first = static_cast<std::size_t>(batch.images[static_cast<std::size_t>(s)]),
                 last = static_cast<std::size_t>(batch.images[static_cast<std::size_t>(s + 1)]);
      of_picture.push_back(batch.offsets[last] - batch.offsets[first]);
    }
    for (index q = 0; q < batch.texts(); ++q) {
      const index begin = texts.begin(q), before = static_cast<index>(wanted.size());
      for (index t = begin; t < texts.begin(q + 1); ++t) {
        places.push_back(static_cast<std::int32_t>(t - begin));
        if (batch.targets[static_cast<std::size_t>(t)] < 0) continue;
        wanted.push_back(static_cast<std::int32_t>(t));
        targets.push_back(batch.targets[static_cast<std::size_t>(t)]);
      }
      asked_of_text.push_back(static_cast<index>(wanted.size()) - before);
    }
    weigh(batch);
    rows.self.assign(texts, texts, true);
    rows.cross.assign(of_picture, pictures);
    tokens.assign(b, batch.tokens);
    positions.assign(b, places);
    asked.assign(b, wanted);
  }

 private:
  void weigh(const text_batch& batch) {
    const auto all = static_cast<float>(targets.size()), texts = static_cast<float>(batch.texts());
    for (index q = 0; q < batch.texts(); ++q) {
      const index n = asked_of_text.length(q);
      const float weight = batch.weights.empty() ? 1.0f : batch.weights[static_cast<std::size_t>(q)];
      weights.insert(weights.end(), static_cast<std::size_t>(n), weight * all / (texts * static_cast<float>(n)));
    }
  }

  static void check(const text_batch& batch, const sequences& pictures, const text_config& c) {
    require(batch.pictures() == pictures.count() && batch.images.back() == batch.texts(), "image_text: texts about ",
            batch.pictures(), " pictures, there are ", pictures.count());
    require(batch.tokens.size() == batch.targets.size() && batch.length() == static_cast<index>(batch.tokens.size()),
            "image_text: ", batch.tokens.size(), " tokens, ", batch.targets.size(), " targets, offsets end at ",
            batch.length());
    for (index q = 0; q < batch.texts(); ++q) {
      const index n = batch.offsets[static_cast<std::size_t>(q + 1)] - batch.offsets[static_cast<std::size_t>(q)];
      require(n > 0 && n <= c.length, "image_text: text ", q, " has ", n, " tokens, expected 1 to ", c.length);
    }
    for (std::size_t t = 0; t < batch.tokens.size(); ++t) {
      require(batch.tokens[t] >= 0 && batch.tokens[t] < c.vocabulary && batch.targets[t] >= -1 &&
                  batch.targets[t] < c.vocabulary,
              "image_text: token ", batch.tokens[t], " with target ", batch.targets[t], ", the vocabulary has ",
              c.vocabulary);
    }
  }
};

/// Everything that one forward pass leaves behind, reused from step to step. `keep` is `logits` or `gradients`;
/// `keep_matrices` keeps attention matrices too where the backend can do without.
template <tensor_backend B>
struct image_text_tape {
  kept keep = kept::gradients;
  bool keep_matrices = false;
  embedding_plan<B> plan;
  tensor<B> patches, embeddings;
  std::vector<tensor<B>> stream;      ///< [T, D] input of each encoder block, then the last output
  std::vector<block_tape<B>> blocks;  ///< one for all blocks where only logits are kept
  layer_norm_tape<B> norm;            ///< its y `[T, D]` are the image tokens that the decoder looks at
  text_plan<B> text;
  std::vector<tensor<B>> text_stream;  ///< [L, C] input of each decoder block, then the last output
  std::vector<decoder_block_tape<B>> decoder;
  tensor<B> asked;  ///< [A, C] last outputs of the rows that are asked
  layer_norm_tape<B> text_norm;
  tensor<B> logits;  ///< [A, V]

  bool shared() const { return keep == kept::logits; }
  attention_kept attention() const {
    return keep == kept::logits ? attention_kept::nothing
           : keep_matrices      ? attention_kept::matrices
                                : attention_kept::gradients;
  }
};

/// Pictures to image tokens, `tape.norm.y` `[T, D]`. `factors` weigh them as keys, for perturbations only.
template <tensor_backend B, class T = typename B::scalar>
void encode(B& b, const image_text_model<B>& model, const token_batch& batch, image_text_tape<B>& tape,
            const key_factors<T>& factors = {}) {
  const vit_config& c = model.config().image;
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  detail::check_batch(batch, c);
  tape.plan.assign(b, batch.offsets, batch.positions, batch.scale);
  detail::upload_patches(b, batch, tape.patches);
  tape.embeddings.resize(b, batch.tokens(), c.dim);
  const std::size_t depth = l.blocks.size();
  const bool shared = tape.shared();
  tape.stream.resize(shared ? 2 : depth + 1);
  tape.blocks.resize(shared ? 1 : depth);
  for (auto& x : tape.stream) x.resize(b, tape.plan.tokens(), c.dim);
  forward<B, T>(b, l.embedding, p, tape.plan, *tape.patches, *tape.embeddings, *tape.stream[0]);
  for (std::size_t i = 0; i < depth; ++i) {
    forward<B, T>(b, l.blocks[i], p, tape.plan.all, *std::as_const(tape.stream[shared ? i % 2 : i]),
                  tape.blocks[shared ? 0 : i], tape.attention(), *tape.stream[shared ? (i + 1) % 2 : i + 1], factors);
  }
  forward<B, T>(b, l.norm, p, *std::as_const(tape.stream[shared ? depth % 2 : depth]), tape.norm);
}

/// Texts about pictures that were encoded into the same tape, to `tape.logits` `[A, V]` of the tokens that are asked.
template <tensor_backend B, class T = typename B::scalar>
void decode(B& b, const image_text_model<B>& model, const text_batch& batch, image_text_tape<B>& tape,
            const decoder_factors<T>& factors = {}) {
  const text_config& c = model.config().text;
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  tape.text.assign(b, batch, tape.plan.rows(), c);
  const std::size_t depth = l.decoder.size();
  const bool shared = tape.shared();
  tape.text_stream.resize(shared ? 2 : depth + 1);
  tape.decoder.resize(shared ? 1 : depth);
  for (auto& x : tape.text_stream) x.resize(b, batch.length(), c.dim);
  forward<B, T>(b, l.text, p, tape.text.tokens, tape.text.positions, *tape.text_stream[0]);
  for (std::size_t i = 0; i < depth; ++i) {
    forward<B, T>(b, l.decoder[i], p, tape.text.rows, *std::as_const(tape.text_stream[shared ? i % 2 : i]),
                  *std::as_const(tape.norm.y), tape.decoder[shared ? 0 : i], tape.attention(),
                  *tape.text_stream[shared ? (i + 1) % 2 : i + 1], factors);
  }
  const index asked = tape.text.asked.size();
  tape.asked.resize(b, asked, c.dim);
  tape.logits.resize(b, asked, c.vocabulary);
  b.gather_rows(*tape.asked, *std::as_const(tape.text_stream[shared ? depth % 2 : depth]), tape.text.asked.data());
  forward<B, T>(b, l.text_norm, p, *std::as_const(tape.asked), tape.text_norm);
  forward<B, T>(b, l.output, p, *tape.text_norm.y, {}, *tape.logits);
}

template <tensor_backend B>
void forward(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
             image_text_tape<B>& tape) {
  encode(b, model, images, tape);
  decode(b, model, texts, tape);
}

/// Gradients at the inputs of the two streams: d loss / d image tokens `[T, D]` below the encoder's blocks, and d loss
/// / d text tokens `[L, C]` below the decoder's.
template <tensor_backend B>
struct stream_gradients {
  tensor<B> image, text;
};

/// From `dlogits` `[A, V]`: adds to `gradients` (an array like the parameters; may be null) and writes `streams`.
/// `keep_attention_gradients` leaves d loss / d attention in the tapes of all blocks.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const image_text_model<B>& model, image_text_tape<B>& tape, const_view<T> dlogits, T* gradients,
              stream_gradients<B>& streams, bool keep_attention_gradients = false) {
  require(tape.keep == kept::gradients, "image_text: backward needs a tape that kept what gradients need");
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  const parameter_view<T> g{gradients};
  const index asked = dlogits.rows, length = tape.text.length(), dim = model.config().text.dim;
  const view<const T> image = *std::as_const(tape.norm.y);
  scratch<B> dnorm(b, asked, dim), dasked(b, asked, dim), dimage(b, image.rows, image.cols);
  backward<B, T>(b, l.output, p, g, *tape.text_norm.y, dlogits, *dnorm);
  backward<B, T>(b, l.text_norm, p, g, *std::as_const(tape.asked), tape.text_norm, *dnorm, *dasked);
  const view<T> dtext = (streams.text.resize(b, length, dim), *streams.text);
  const view<T> dtokens = (streams.image.resize(b, image.rows, image.cols), *streams.image);
  b.fill(dtext, T(0));
  b.fill(*dimage, T(0));
  b.scatter_add_rows(dtext, *dasked, tape.text.asked.data());
  for (std::size_t i = l.decoder.size(); i-- > 0;) {
    backward<B, T>(b, l.decoder[i], p, g, tape.text.rows, *std::as_const(tape.text_stream[i]), image, tape.decoder[i],
                   keep_attention_gradients, dtext, *dimage);
  }
  if (g) backward<B, T>(b, l.text, g, tape.text.tokens, tape.text.positions, dtext);
  backward<B, T>(b, l.norm, p, g, *std::as_const(tape.stream[l.blocks.size()]), tape.norm, *dimage, dtokens);
  for (std::size_t i = l.blocks.size(); i-- > 0;) {
    backward<B, T>(b, l.blocks[i], p, g, tape.plan.all, *std::as_const(tape.stream[i]), tape.blocks[i],
                   keep_attention_gradients, dtokens);
  }
  if (g) backward<B, T>(b, l.embedding, p, g, tape.plan, *tape.patches, dtokens, {});
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/answers.hpp ====
// Which image tokens and which text tokens mattered for an answer: what is explained, and the state that the methods
// share. Batches hold one text a picture.

#include <cmath>


namespace core_tokensets {

/// Relevance of image patches `[P]` and of text tokens `[L]` (prompt, `begin` and answer).
struct answer_relevance {
  std::vector<double> image, text;
};

/// The state that methods reuse from batch to batch.
template <tensor_backend B>
struct answer_workspace {
  image_text_tape<B> tape;
  tensor<B> dlogits;                          ///< [A, V] gradient of what is explained
  stream_gradients<B> streams;                ///< its gradients at both streams
  std::vector<std::vector<index>> explained;  ///< of each text the rows of the A that are explained
};

/// What is explained of each text: the sum of the logits of its answer's tokens. The token `end` behind them says
/// little about the picture and is left out, unless the answer is empty.
template <tensor_backend B>
void settle_answers(const text_plan<B>& plan, std::vector<std::vector<index>>& explained) {
  explained.clear();
  for (index q = 0; q < plan.asked_of_text.count(); ++q) {
    const index begin = plan.asked_of_text.begin(q), all = plan.asked_of_text.length(q);
    require(all > 0, "attribution: text ", q, " asks for nothing");
    explained.emplace_back();
    for (index a = 0; a < std::max<index>(1, all - 1); ++a) explained.back().push_back(begin + a);
  }
}

/// `Error` unless there is one text about each picture.
inline void check_one_text_each(const token_batch& images, const text_batch& texts) {
  require(texts.texts() == texts.pictures() && texts.pictures() == images.samples(), "attribution: ", texts.texts(),
          " texts about ", texts.pictures(), " of ", images.samples(), " pictures, expected one each");
  for (index s = 0; s < texts.pictures(); ++s) {
    const auto at = static_cast<std::size_t>(s);
    require(texts.images[at + 1] - texts.images[at] == 1, "attribution: ", texts.images[at + 1] - texts.images[at],
            " texts about picture ", s, ", expected one each");
  }
}

/// Runs the forward pass with everything that gradients and relevance need, and settles what is explained.
template <tensor_backend B>
void explain_answers(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                     answer_workspace<B>& ws) {
  using T = typename B::scalar;
  check_one_text_each(images, texts);
  ws.tape.keep = kept::gradients;
  ws.tape.keep_matrices = true;
  forward(b, model, images, texts, ws.tape);
  settle_answers(ws.tape.text, ws.explained);
  const auto v = static_cast<std::size_t>(model.config().text.vocabulary);
  std::vector<T> gradient(ws.tape.text.targets.size() * v, T(0));
  for (const auto& rows : ws.explained) {
    for (const index a : rows) {
      const auto row = static_cast<std::size_t>(a);
      gradient[row * v + static_cast<std::size_t>(ws.tape.text.targets[row])] = T(1);
    }
  }
  ws.dlogits.assign(b, static_cast<index>(ws.tape.text.targets.size()), model.config().text.vocabulary,
                    gradient.data());
}

/// Rows of text s, counted from its first, whose outputs are explained.
template <tensor_backend B>
std::vector<index> explained_places(const answer_workspace<B>& ws, const text_batch& texts, index s) {
  std::vector<index> places;
  const auto& wanted = ws.explained[static_cast<std::size_t>(s)];
  index asked = ws.tape.text.asked_of_text.begin(s);
  for (index t = texts.offsets[static_cast<std::size_t>(s)]; t < texts.offsets[static_cast<std::size_t>(s + 1)]; ++t) {
    if (texts.targets[static_cast<std::size_t>(t)] < 0) continue;
    if (std::find(wanted.begin(), wanted.end(), asked) != wanted.end())
      places.push_back(t - texts.offsets[static_cast<std::size_t>(s)]);
    ++asked;
  }
  return places;
}

/// mean over `rows` of the rows of a map.
inline std::vector<double> mean_of_rows(const token_map& map, std::span<const index> rows) {
  std::vector<double> mean(static_cast<std::size_t>(map.cols), 0.0);
  for (const index r : rows) {
    for (index c = 0; c < map.cols; ++c) {
      mean[static_cast<std::size_t>(c)] += map(r, c) / static_cast<double>(rows.size());
    }
  }
  return mean;
}

}  // namespace core_tokensets

// ==== core_tokensets/core/options.hpp ====
// The options of a struct by name: printed, listed and set from text. A struct takes part with
//   template <class Self, class V> static void options(Self& self, const V& visit) { visit("name", self.member); ... }

#include <array>
#include <charconv>
#include <concepts>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>


namespace core_tokensets {

/// The words of an enumeration in the order of its values: `inline constexpr std::array words<E>{...}`.
template <class E>
inline constexpr std::array<const char*, 0> words{};

namespace detail {

struct no_visit {
  template <class T>
  void operator()(const char*, T&) const {}
};

template <class T>
std::string option_text(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return words<T>[static_cast<std::size_t>(value)];
  } else if constexpr (std::same_as<T, bool>) {
    return value ? "true" : "false";
  } else {
    std::ostringstream out;
    out << value;
    return out.str();
  }
}

template <class E>
std::string list_words() {
  std::string all;
  for (const char* word : words<E>) all += (all.empty() ? "" : ", ") + std::string(word);
  return all;
}

/// The value that `text` stands for; `where` opens the message of an error.
template <class T>
T parse_option(std::string_view text, const std::string& where) {
  if constexpr (std::is_enum_v<T>) {
    for (std::size_t i = 0; i < words<T>.size(); ++i) {
      if (text == words<T>[i]) return static_cast<T>(i);
    }
    fail(where, ": '", text, "', expected one of ", list_words<T>());
  } else if constexpr (std::same_as<T, bool>) {
    require(text == "true" || text == "false", where, ": '", text, "', expected true or false");
    return text == "true";
  } else if constexpr (std::same_as<T, std::string>) {
    return T(text);
  } else {
    T value{};
    const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(bad == std::errc() && end == text.data() + text.size(), where, ": '", text, "', expected a number");
    return value;
  }
}

}  // namespace detail

template <class T>
concept has_options = requires(T& t) {
  std::remove_cv_t<T>::options(t, detail::no_visit{});
};

/// "key=value,key=value" of all options; empty where there are none.
template <class T>
std::string options_text(const T& of) {
  std::string all;
  if constexpr (has_options<T>) {
    T::options(of, [&](const char* name, const auto& value) {
      all += (all.empty() ? "" : ",") + std::string(name) + "=" + detail::option_text(value);
    });
  }
  return all;
}

/// Sets one option. `Error` naming `what`: no such option (lists them), or a value that does not fit it.
template <class T>
void set_option(T& of, std::string_view key, std::string_view value, const std::string& what) {
  bool found = false;
  std::string all;
  if constexpr (has_options<T>) {
    T::options(of, [&](const char* name, auto& member) {
      all += (all.empty() ? "" : ", ") + std::string(name);
      if (key != name) return;
      found = true;
      member = detail::parse_option<std::remove_reference_t<decltype(member)>>(
          value, what + ": option '" + std::string(name) + "'");
    });
  }
  if (!found) fail(what, ": no option is named '", key, "'; ", all.empty() ? "there are none" : "there are " + all);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/target.hpp ====
// What is explained: a logit, the log-probability of a class, or the margin between two classes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// The number that relevance is shares of. `log_probability` is minus the cross-entropy, so that relevance is positive
/// where a token lowers the loss; `margin` is the logit minus that of another class.
enum class objective { logit, log_probability, margin };
/// Whose class: the one of the largest logit, the label of the batch, or one that is given.
enum class explained_class { largest, label, given };

template <>
inline constexpr std::array words<objective>{"logit", "loss", "margin"};

/// A target for every sample of a batch. Given classes are one for all samples or one for each; without a class
/// `against`, a margin is to the largest other logit. A list of classes alone is a target too: those logits, or if it
/// is empty the largest.
struct target {
  objective what = objective::logit;
  explained_class whose = explained_class::largest;
  std::vector<std::int32_t> classes = {}, against = {};

  target() = default;
  target(objective o, explained_class c = explained_class::largest, std::vector<std::int32_t> given = {},
         std::vector<std::int32_t> others = {})
      : what(o), whose(c), classes(std::move(given)), against(std::move(others)) {}
  target(std::span<const std::int32_t> given)
      : whose(given.empty() ? explained_class::largest : explained_class::given), classes(given.begin(), given.end()) {}
  target(const std::vector<std::int32_t>& given) : target(std::span(given)) {}

  static target label(objective o = objective::logit) { return {o, explained_class::label}; }
  static target of_class(std::int32_t c, objective o = objective::logit) { return {o, explained_class::given, {c}}; }
  static target loss() { return label(objective::log_probability); }
  static target margin(std::int32_t c, std::int32_t other) {
    return {objective::margin, explained_class::given, {c}, {other}};
  }
};

/// "argmax", "label", "class:3", "loss" (of the label), "margin" (of the label to the largest other), "margin:3,5".
/// `Error`: anything else.
inline target parse_target(std::string_view text) {
  const auto colon = text.find(':');
  const std::string_view word = text.substr(0, colon), rest = colon == text.npos ? "" : text.substr(colon + 1);
  const auto number = [](std::string_view digits) {
    return detail::parse_option<std::int32_t>(digits, "target: class");
  };
  if (word == "class" && !rest.empty()) return target::of_class(number(rest));
  if (word == "margin" && !rest.empty()) {
    const auto comma = rest.find(',');
    require(comma != rest.npos, "target '", text, "': expected margin:A,B");
    return target::margin(number(rest.substr(0, comma)), number(rest.substr(comma + 1)));
  }
  require(rest.empty(), "target '", text, "': expected argmax, label, class:K, loss, margin or margin:A,B");
  if (word == "argmax") return {};
  if (word == "label") return target::label();
  if (word == "loss") return target::loss();
  if (word == "margin") return target::label(objective::margin);
  fail("target '", text, "': expected argmax, label, class:K, loss, margin or margin:A,B");
}

/// A target with its classes settled for the S samples of a batch.
struct settled_target {
  objective what = objective::logit;
  std::vector<std::int32_t> classes, others;  ///< [S]; others only for margins

  /// The explained number of sample s for its logits.
  double value(std::size_t s, std::span<const double> logits) const { return value_of(s, logits); }
  double value(std::size_t s, std::span<const float> logits) const { return value_of(s, logits); }
  /// Its gradient with respect to the logits (=).
  template <class T>
  void gradient(std::size_t s, std::span<const T> logits, std::span<T> out) const {
    std::fill(out.begin(), out.end(), T(0));
    if (what == objective::log_probability) {
      const double total = log_total(logits);
      for (std::size_t k = 0; k < out.size(); ++k) out[k] = T(-std::exp(double(logits[k]) - total));
    }
    out[static_cast<std::size_t>(classes[s])] += T(1);
    if (what == objective::margin) out[static_cast<std::size_t>(others[s])] -= T(1);
  }

 private:
  template <class T>
  double value_of(std::size_t s, std::span<const T> logits) const {
    const double z = double(logits[static_cast<std::size_t>(classes[s])]);
    if (what == objective::logit) return z;
    if (what == objective::margin) return z - double(logits[static_cast<std::size_t>(others[s])]);
    return z - log_total(logits);
  }
  template <class T>
  static double log_total(std::span<const T> logits) {
    const double top = double(*std::max_element(logits.begin(), logits.end()));
    double total = 0;
    for (const T z : logits) total += std::exp(double(z) - top);
    return top + std::log(total);
  }
};

/// Settles `t` for a batch with these logits `[S, K]`. `Error`: labels that are missing, another number of classes, a
/// class that the model does not have, a margin of a class to itself.
template <class T>
settled_target settle(const target& t, const token_batch& batch, std::span<const T> logits) {
  const auto samples = static_cast<std::size_t>(batch.samples());
  const std::size_t k = samples == 0 ? 0 : logits.size() / samples;
  const auto listed = [&](const std::vector<std::int32_t>& list, std::size_t s) {
    require(list.size() == 1 || list.size() == samples, "attribution: ", list.size(), " targets for ", samples,
            " samples");
    return list[list.size() == 1 ? 0 : s];
  };
  settled_target settled{t.what, {}, {}};
  for (std::size_t s = 0; s < samples; ++s) {
    const auto row = logits.subspan(s * k, k);
    const auto largest = [&](std::int32_t except) {
      std::size_t best = except == 0 ? 1 : 0;
      for (std::size_t c = 0; c < k; ++c) {
        if (static_cast<std::int32_t>(c) != except && row[c] > row[best]) best = c;
      }
      return static_cast<std::int32_t>(best);
    };
    const std::int32_t c = t.whose == explained_class::largest ? largest(-1)
                           : t.whose == explained_class::label ? listed(batch.targets, s)
                                                               : listed(t.classes, s);
    require(c >= 0 && static_cast<std::size_t>(c) < k, "attribution: class ", c, " of ", k, " classes");
    settled.classes.push_back(c);
    if (t.what != objective::margin) continue;
    require(k > 1, "attribution: a margin needs two classes, the model has ", k);
    const std::int32_t other = t.against.empty() ? largest(c) : listed(t.against, s);
    require(other >= 0 && static_cast<std::size_t>(other) < k && other != c, "attribution: margin of class ", c, " to ",
            other, " of ", k, " classes");
    settled.others.push_back(other);
  }
  return settled;
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/lrp/division.hpp ====
// Relevance over a denominator that may be close to 0: the published rules differ in how they keep it away from 0, so
// the way is data. Scalar functions of all relevance rules.

#include <sstream>
#include <string>


namespace core_tokensets::lrp {

/// R / (z + eps sign(z)) with sign(0) = +1; not `sign_aware`: R / (z + eps) whatever the sign of z. `zero_at_zero`: 0
/// where z is 0, which is also what eps = 0 gives.
struct division {
  double eps = 1e-6;
  bool sign_aware = true, zero_at_zero = false;

  bool operator==(const division&) const = default;
};

/// The safe division of Chefer, Gur & Wolf (CVPR 2021): 1e-9 is added as it is, and x / 0 is 0.
inline constexpr division chefer_division{.eps = 1e-9, .sign_aware = false, .zero_at_zero = true};
/// The division of gradient x input forms: none at all.
inline constexpr division exact_division{.eps = 0, .sign_aware = false, .zero_at_zero = true};

inline std::string text(const division& d) {
  std::ostringstream out;
  out << (d.sign_aware ? "signed " : "added ") << d.eps << (d.zero_at_zero ? ", x/0 = 0" : "");
  return out.str();
}

/// `division` in a scalar type, as numbers that are chosen from and without branches, so that loops over it are
/// vectorised.
template <class T>
struct divide {
  T below, above;  ///< what is added to z < 0, and to z >= 0
  T instead;       ///< the denominator where the sum is 0
  T of_zero;       ///< 1, or 0 where x / 0 is 0

  explicit divide(const division& d)
      : below(T(d.sign_aware ? -d.eps : d.eps)),
        above(T(d.eps)),
        instead(d.eps == 0 ? T(1) : T(d.eps)),
        of_zero(d.zero_at_zero || d.eps == 0 ? T(0) : T(1)) {}

  constexpr T operator()(T r, T z) const {
    const T moved = z + (z < T(0) ? below : above);
    const T quotient = r / (moved == T(0) ? instead : moved);
    return z == T(0) ? quotient * of_zero : quotient;
  }
};

// ---- operands of map --------------------------------------------------------------------------------------------

/// s = r / z
template <class T>
struct share {
  divide<T> over;
  constexpr void operator()(T& s, const T& r, const T& z) const { s = over(r, z); }
};
/// s = r / z where y has the sign `side` (y = 0 has none), else 0
template <class T>
struct share_of_side {
  divide<T> over;
  T side;
  constexpr void operator()(T& s, const T& r, const T& z, const T& y) const {
    const T whole = over(r, z);
    s = y * side > T(0) ? whole : T(0);
  }
};
/// out = positive max(x, 0) + negative min(x, 0)
template <class T>
struct weigh_sides {
  T positive, negative;
  constexpr T of(T x) const { return x > T(0) ? positive * x : negative * x; }
  constexpr void operator()(T& out, const T& x) const { out = of(x); }
};
/// out = x x
struct squared {
  template <class T>
  constexpr void operator()(T& out, const T& x) const {
    out = x * x;
  }
};
/// out = factor x' p, x' = positive max(x, 0) + negative min(x, 0)
template <class T>
struct term {
  T factor;
  weigh_sides<T> sides;
  constexpr void operator()(T& out, const T& p, const T& x) const { out = factor * sides.of(x) * p; }
};
/// out += factor x' p
template <class T>
struct add_term {
  T factor;
  weigh_sides<T> sides;
  constexpr void operator()(T& out, const T& p, const T& x) const { out += factor * sides.of(x) * p; }
};
/// out += a b
struct add_product {
  template <class T>
  constexpr void operator()(T& out, const T& a, const T& b) const {
    out += a * b;
  }
};
/// out = factor out x
template <class T>
struct scale_product {
  T factor;
  constexpr void operator()(T& out, const T& x) const { out *= factor * x; }
};

}  // namespace core_tokensets::lrp

// ==== core_tokensets/nn/lrp/layer_rules.hpp ====
// Relevance rules, as data, of everything in a transformer that is no linear layer: sums, copies, norms, activations,
// the softmax and the two products of attention. Executors are in elementwise.hpp and attention.hpp.

#include <string>


namespace core_tokensets::lrp {

/// z = a + b: R_a = a R / z, R_b = b R / z. `renormalised` (Chefer, Gur & Wolf 2021, eq. 9): the totals t_a, t_b over
/// the sample are then made to be |t_a| and |t_b| in proportion, and to add up to that of R.
struct sum_rule {
  division over = {};
  bool renormalised = false;
};

/// x used twice, with relevances R_1 and R_2. `add`: R = R_1 + R_2, which is the gradient's rule and keeps the sum.
/// `ratio` (Chefer's code): R = x (R_1 / x + R_2 / x), the same but where x is near 0. Also the rule for choosing the
/// class token.
struct copy_rule {
  enum class way { add, ratio } how = way::add;
  division over = chefer_division;
};

/// Layer norm. `pass`: R as it is. `detached` (AttnLRP, prop. 3.4, and Ali et al. 2022): the deviation counts as a
/// constant, u = R / y w / std, R_in = x (u - mean u); the bias absorbs. The sum is kept without bias and mean.
struct norm_rule {
  enum class way { pass, detached } how = way::pass;
  division over = {};
};

/// An activation y = f(x). eps = 0: R as it is (AttnLRP, identity rule); else R x / (x + eps), what gradient x input
/// gives when the derivative is replaced by f(x) / (x + eps).
struct activation_rule {
  double eps = 0;
};

/// A = softmax(s). `pass`: R as it is (Chefer). `taylor` (AttnLRP, prop. 3.1): R_s = s (R_A - A sum R_A) in each row.
struct softmax_rule {
  enum class way { pass, taylor } how = way::pass;
};

/// Z = A B: S = R / Z, R_A = left A (S B^T), R_B = right B (A^T S). Halves are AttnLRP's prop. 3.3 and Chefer's; (0, 1)
/// for A v is CP-LRP (Voita et al. 2019; Ali et al. 2022): attention counts as a constant.
struct product_rule {
  division over = {};
  double left = 0.5, right = 0.5;
};

/// What relevance starts as at the explained logit.
enum class start_value { one, logit };

// ---- scalar functions -------------------------------------------------------------------------------------------

/// ra = a S, rb = (sum - a) S with S = r / sum
template <class T>
struct share_sum {
  divide<T> over;
  constexpr void operator()(T& ra, T& rb, const T& r, const T& a, const T& sum) const {
    const T s = over(r, sum), other = sum - a;
    ra = a * s;
    rb = other * s;
  }
};
/// Factors of the two parts of a sum, in place of their totals ta, tb, from the total of the whole.
template <class T>
struct sum_factors {
  divide<T> over;
  constexpr void operator()(T& ta, T& tb, const T& total) const {
    const T a = ta < T(0) ? -ta : ta, b = tb < T(0) ? -tb : tb;
    ta = over(over(a, a + b) * total, ta);
    tb = over(over(b, a + b) * total, tb);
  }
};
/// out = x (r1 / x + r2 / x); out may be r1 or r2
template <class T>
struct join_by_ratio {
  divide<T> over;
  constexpr void operator()(T& out, const T& r1, const T& r2, const T& x) const {
    out = x * (over(r1, x) + over(r2, x));
  }
};
/// out = x (r / x); out may be r
template <class T>
struct choose_by_ratio {
  divide<T> over;
  constexpr void operator()(T& out, const T& r, const T& x) const { out = x * over(r, x); }
};
/// u = r / y gamma rstd
template <class T>
struct norm_share {
  divide<T> over;
  constexpr void operator()(T& u, const T& r, const T& y, const T& gamma, const T& rstd) const {
    u = over(r, y) * gamma * rstd;
  }
};
/// out = x (u - total / n)
template <class T>
struct norm_result {
  T n;
  constexpr void operator()(T& out, const T& u, const T& x, const T& total) const { out = x * (u - total / n); }
};
/// r = r x / (x + eps); 0 where that denominator is 0
template <class T>
struct activation_share {
  T eps;
  constexpr void operator()(T& r, const T& x) const {
    const T z = x + eps;
    r = z == T(0) ? T(0) : r * x / z;
  }
};
/// z = (z scale) (ra - a total)
template <class T>
struct softmax_result {
  T scale;
  constexpr void operator()(T& z, const T& ra, const T& a, const T& total) const { z *= scale * (ra - a * total); }
};

}  // namespace core_tokensets::lrp

// ==== core_tokensets/nn/lrp/elementwise.hpp ====
// Executors of the rules for sums, copies, norms and activations, for all samples of a ragged batch at once.


namespace core_tokensets::lrp {

/// Which sample each of T rows belongs to, for rules that need totals over a sample.
template <tensor_backend B>
struct sample_rows {
  row_list<B> sample_of_row;  ///< [T]
  index samples = 0;

  void assign(B& b, const sequences& rows) {
    std::vector<std::int32_t> of_row;
    for (index s = 0; s < rows.count(); ++s) {
      of_row.insert(of_row.end(), static_cast<std::size_t>(rows.length(s)), static_cast<std::int32_t>(s));
    }
    sample_of_row.assign(b, of_row);
    samples = rows.count();
  }
};

/// Totals `[S, n]` (=) over the rows and columns of each sample, of n arrays `[T, C]`.
template <tensor_backend B, class T = typename B::scalar, class... V>
void sample_totals(B& b, const sample_rows<B>& rows, view<T> totals, const V&... of) {
  scratch<B> memory(b, rows.sample_of_row.size(), sizeof...(V));
  index column = 0;
  (b.row_reduce(fn::plus{}, fn::value{}, (*memory).slice_cols(column++, 1), view<const T>(of)), ...);
  b.fill(totals, T(0));
  b.scatter_add_rows(totals, *memory, rows.sample_of_row.data());
}

/// sum = a + other `[T, C]`: R to `ra` and `rb` (=). Totals of the renormalised rule run over each sample alone.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const sum_rule& rule, B& b, const sample_rows<B>& rows, const_view<T> r, const_view<T> a,
               const_view<T> sum, view<T> ra, view<T> rb) {
  const divide<T> over(rule.over);
  b.map(share_sum<T>{over}, ra, rb, r, a, sum);
  if (!rule.renormalised) return;
  scratch<B> totals(b, rows.samples, 3), of_row(b, r.rows, 3);
  sample_totals<B, T>(b, rows, *totals, ra, rb, r);
  const auto column = [](view<T> v, index c) { return v.slice_cols(c, 1); };
  b.map(sum_factors<T>{over}, column(*totals, 0), column(*totals, 1), view<const T>(column(*totals, 2)));
  b.gather_rows(*of_row, *totals, rows.sample_of_row.data());
  b.map(fn::multiply{}, ra, view<const T>(column(*of_row, 0)));
  b.map(fn::multiply{}, rb, view<const T>(column(*of_row, 1)));
}

/// x `[T, C]` used twice with relevances r1 and r2: R (=), which may be the memory of r1.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const copy_rule& rule, B& b, const_view<T> r1, const_view<T> r2, const_view<T> x, view<T> r) {
  if (rule.how == copy_rule::way::add) {
    b.map(fn::sum{}, r, r1, r2);
  } else {
    b.map(join_by_ratio<T>{divide<T>(rule.over)}, r, r1, r2, x);
  }
}

/// The rows x that were chosen from many, with relevance r (in place); all others have none.
template <tensor_backend B, class T = typename B::scalar>
void choice_relevance(const copy_rule& rule, B& b, const_view<T> x, view<T> r) {
  if (rule.how == copy_rule::way::ratio) b.map(choose_by_ratio<T>{divide<T>(rule.over)}, r, view<const T>(r), x);
}

/// From R (in place) at the output y of a layer norm to its input x `[T, C]`.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const norm_rule& rule, B& b, const layer_norm& l, parameter_view<const T> p, const_view<T> x,
               const layer_norm_tape<B>& tape, view<T> r) {
  if (rule.how == norm_rule::way::pass) return;
  scratch<B> total(b, x.rows, 1);
  b.map(norm_share<T>{divide<T>(rule.over)}, r, view<const T>(r), *tape.y, p[l.gamma], *tape.rstd);
  b.row_reduce(fn::plus{}, fn::value{}, *total, view<const T>(r));
  b.map(norm_result<T>{static_cast<T>(x.cols)}, r, view<const T>(r), x, view<const T>(*total));
}

/// From R (in place) at an activation to its input x.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const activation_rule& rule, B& b, const_view<T> x, view<T> r) {
  if (rule.eps != 0) b.map(activation_share<T>{T(rule.eps)}, r, x);
}

}  // namespace core_tokensets::lrp

// ==== core_tokensets/attribution/workspace.hpp ====
// The state that attribution methods reuse from batch to batch, and the forward pass that they start from.


namespace core_tokensets {

/// Activations, gradients and relevance of the explained batch. One workspace serves one backend at a time.
template <tensor_backend B>
struct attribution_workspace {
  vit_tape<B> tape;
  std::vector<std::int32_t> classes;  ///< [S] explained class of each sample
  settled_target explained;
  tensor<B> dlogits;              ///< [S, K] gradient of what is explained
  tensor<B> dtokens;              ///< [T, D] its gradient at the input of a block
  tensor<B> attention_gradient;   ///< its gradient at the attention of a block
  tensor<B> relevance;            ///< [T, D] relevance at the input of a block
  tensor<B> attention_relevance;  ///< relevance of the attention of a block
  lrp::sample_rows<B> all_rows, class_rows;
};

/// Runs the forward pass and settles what is explained. Gradients and relevance need `kept::gradients` or more; with
/// `everything` the tape holds the last block for all tokens.
template <tensor_backend B>
void explain_forward(B& b, const vit<B>& model, const token_batch& batch, const target& t, attribution_workspace<B>& ws,
                     kept keep = kept::everything) {
  using T = typename B::scalar;
  ws.tape.keep = keep;
  ws.tape.keep_matrices = true;
  forward(b, model, batch, ws.tape);
  const auto logits = ws.tape.logits.to_host(b);
  ws.explained = settle<T>(t, batch, logits);
  ws.classes = ws.explained.classes;
  const auto k = static_cast<std::size_t>(model.config().classes);
  std::vector<T> gradient(logits.size());
  for (std::size_t s = 0; s < ws.classes.size(); ++s) {
    ws.explained.template gradient<T>(s, std::span(logits).subspan(s * k, k), std::span(gradient).subspan(s * k, k));
  }
  ws.dlogits.assign(b, batch.samples(), model.config().classes, gradient.data());
  ws.all_rows.assign(b, ws.tape.plan.rows());
  ws.class_rows.assign(b, ws.tape.plan.classes.queries());
}

/// True if the last block was computed for the class tokens only.
template <tensor_backend B>
bool is_class_block(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return i + 1 == model.config().depth && tape.keep != kept::everything;
}

/// Who looks at whom in the attention of block i, which is the layout of its matrices.
template <tensor_backend B>
const attention_rows& attention_layout(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return is_class_block(tape, i, model) ? tape.plan.classes : tape.plan.all;
}

/// Activations of the attention of block i (for the last one of its class tokens, unless everything was kept).
template <tensor_backend B>
const block_tape<B>& tape_of_block(const vit_tape<B>& tape, index i, const vit<B>& model) {
  return is_class_block(tape, i, model) ? tape.last.block : tape.blocks[static_cast<std::size_t>(i)];
}

}  // namespace core_tokensets

// ==== core_tokensets/data/token_drop.hpp ====
// Tokens left out of a batch, at random or by a mask, under one of the three meanings of a missing token.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Tokens that stay of `tokens` when the share `rate` in [0, 1) is dropped: the nearest whole number, at least 1.
inline index tokens_kept(index tokens, double rate) {
  require(rate >= 0 && rate < 1, "token drop: rate ", rate, ", expected 0 <= rate < 1");
  return std::min(tokens, std::max<index>(1, std::lround((1 - rate) * static_cast<double>(tokens))));
}

/// Leaves out the tokens whose `keep` `[T]` is 0: `drop` removes their rows; `zero` keeps them with scale 0; `rescaled`
/// also multiplies the scale of the others by `rescale` `[S]`, or by tokens / kept if that is empty. Order is kept.
/// `Error`: another number of tokens, a sample without any, `out` is the batch itself.
inline void apply_token_mask(const token_batch& whole, std::span<const std::uint8_t> keep, missing_tokens how,
                             token_batch& out, std::span<const double> rescale = {}) {
  require(&whole != &out, "token drop: the result must be another batch");
  require(static_cast<index>(keep.size()) == whole.tokens(), "token drop: mask of ", keep.size(), " for ",
          whole.tokens(), " tokens");
  require(rescale.empty() || static_cast<index>(rescale.size()) == whole.samples(), "token drop: ", rescale.size(),
          " factors for ", whole.samples(), " samples");
  const index dim = whole.patch_dim;
  out.patch_dim = dim;
  out.targets = whole.targets;
  out.weights = whole.weights;
  out.offsets.assign(1, 0);
  out.scale.clear();
  if (how == missing_tokens::drop) {
    out.patches.clear(), out.positions.clear();
    out.patches.reserve(whole.patches.size());
  } else {
    out.patches = whole.patches, out.positions = whole.positions;
  }
  for (index s = 0; s < whole.samples(); ++s) {
    const index begin = whole.offsets.data()[s], end = whole.offsets.data()[s + 1];
    const auto kept = std::count_if(keep.begin() + begin, keep.begin() + end, [](std::uint8_t k) { return k != 0; });
    require(kept > 0, "token drop: no token of sample ", s, " is left");
    const double given = rescale.empty() ? static_cast<double>(end - begin) / static_cast<double>(kept)
                                         : rescale[static_cast<std::size_t>(s)];
    const double factor = how == missing_tokens::rescaled ? given : 1.0;
    for (index t = begin; t < end; ++t) {
      const bool stays = keep.data()[t] != 0;
      const double old = whole.scale.empty() ? 1.0 : whole.scale.data()[t];
      if (how != missing_tokens::drop) {
        out.scale.push_back(stays ? old * factor : 0.0);
      } else if (stays) {
        const float* row = whole.patches.data() + t * dim;
        out.patches.insert(out.patches.end(), row, row + dim);
        out.positions.push_back(whole.positions.data()[t]);
        if (!whole.scale.empty()) out.scale.push_back(old);
      }
    }
    out.offsets.push_back(how == missing_tokens::drop ? static_cast<index>(out.positions.size()) : end);
  }
}

/// A mask `[T]` that keeps `counts[s]` tokens of sample s, every subset equally likely. `Error`: a count outside of
/// 1 .. tokens of its sample.
inline std::vector<std::uint8_t> random_token_mask(const token_batch& whole, std::span<const index> counts,
                                                   random_stream& random) {
  require(static_cast<index>(counts.size()) == whole.samples(), "token drop: ", counts.size(), " counts for ",
          whole.samples(), " samples");
  std::vector<std::uint8_t> keep(static_cast<std::size_t>(whole.tokens()), 0);
  std::vector<index> order;
  for (index s = 0; s < whole.samples(); ++s) {
    const index begin = whole.offsets.data()[s], tokens = whole.offsets.data()[s + 1] - begin, kept = counts.data()[s];
    require(kept >= 1 && kept <= tokens, "token drop: keep ", kept, " of the ", tokens, " tokens of sample ", s);
    order.resize(static_cast<std::size_t>(tokens));
    std::iota(order.begin(), order.end(), index{0});
    for (index i = 0; i < kept; ++i) {
      std::swap(order.data()[i], order.data()[i + random.below(tokens - i)]);
      keep.data()[begin + order.data()[i]] = 1;
    }
  }
  return keep;
}

/// Positions of the `count` largest values, rising; equal ones: the earlier first.
inline std::vector<std::uint16_t> most_relevant(std::span<const double> relevance, index count) {
  std::vector<std::uint16_t> order(relevance.size());
  std::iota(order.begin(), order.end(), std::uint16_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto c) { return relevance[a] > relevance[c]; });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

/// A mask `[T]` that keeps the `counts[s]` most relevant tokens of sample s. `Error`: a count outside of 1 .. tokens of
/// its sample, not one number of `relevance` for each token.
inline std::vector<std::uint8_t> relevant_token_mask(const token_batch& whole, std::span<const index> counts,
                                                     std::span<const double> relevance) {
  require(
      static_cast<index>(counts.size()) == whole.samples() && static_cast<index>(relevance.size()) == whole.tokens(),
      "token drop: ", counts.size(), " counts and ", relevance.size(), " numbers for ", whole.samples(), " samples of ",
      whole.tokens(), " tokens");
  std::vector<std::uint8_t> keep(relevance.size(), 0);
  for (std::size_t s = 0; s < counts.size(); ++s) {
    const auto begin = static_cast<std::size_t>(whole.offsets[s]);
    const index tokens = whole.offsets[s + 1] - whole.offsets[s];
    require(counts[s] >= 1 && counts[s] <= tokens, "token drop: keep ", counts[s], " of the ", tokens,
            " tokens of sample ", s);
    for (const auto p : most_relevant(relevance.subspan(begin, static_cast<std::size_t>(tokens)), counts[s]))
      keep[begin + p] = 1;
  }
  return keep;
}

/// Leaves out the share `rates[s]` of the tokens of sample s, a random subset of exactly that size; survivors are
/// rescaled by 1 / (1 - rate) in the `rescaled` meaning (Paul et al. 2024, training on new data).
inline void drop_tokens(const token_batch& whole, std::span<const double> rates, random_stream& random,
                        missing_tokens how, token_batch& out) {
  require(static_cast<index>(rates.size()) == whole.samples(), "token drop: ", rates.size(), " rates for ",
          whole.samples(), " samples");
  std::vector<index> counts;
  std::vector<double> rescale;
  for (index s = 0; s < whole.samples(); ++s) {
    const double rate = rates.data()[s];
    counts.push_back(tokens_kept(whole.offsets.data()[s + 1] - whole.offsets.data()[s], rate));
    rescale.push_back(1.0 / (1.0 - rate));
  }
  apply_token_mask(whole, random_token_mask(whole, counts, random), how, out, rescale);
}

/// The same with one rate for all samples.
inline void drop_tokens(const token_batch& whole, double rate, random_stream& random, missing_tokens how,
                        token_batch& out) {
  drop_tokens(whole, std::vector<double>(static_cast<std::size_t>(whole.samples()), rate), random, how, out);
}

/// Leaves out the share `rate` of each sample's tokens, the least relevant ones.
inline void drop_irrelevant_tokens(const token_batch& whole, double rate, std::span<const double> relevance,
                                   missing_tokens how, token_batch& out) {
  std::vector<index> counts;
  for (index s = 0; s < whole.samples(); ++s)
    counts.push_back(tokens_kept(whole.offsets.data()[s + 1] - whole.offsets.data()[s], rate));
  apply_token_mask(whole, relevant_token_mask(whole, counts, relevance), how, out,
                   std::vector<double>(counts.size(), 1.0 / (1.0 - rate)));
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/variations.hpp ====
// Many changed versions of the samples of a batch (tokens dropped, zeroed or suppressed), run through a model in large
// ragged batches. What does not depend on the change is computed once: embeddings, and norm, queries, keys and values
// of the first block. The last block is computed for class tokens only.

#include <algorithm>


namespace core_tokensets {

template <>
inline constexpr std::array words<missing_tokens>{"drop", "zero", "rescaled"};

namespace detail {

/// The sample that each patch of a batch belongs to.
inline std::vector<index> sample_of_patch(const token_batch& batch) {
  std::vector<index> samples;
  for (index s = 0; s < batch.samples(); ++s) {
    samples.resize(static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s + 1)]), s);
  }
  return samples;
}

}  // namespace detail

/// One changed version: rows of the engine's table of tokens, class token first, and where wanted a factor on the
/// attention score of each as a key (all or none of the versions of a run).
struct variation {
  std::vector<std::int32_t> rows;
  std::vector<double> factors;
};

template <tensor_backend B>
class variation_engine {
 public:
  using T = typename B::scalar;
  /// Tokens that are computed at a time, unless one version has more.
  static constexpr index most_tokens = 4096;

  variation_engine(B& b, const vit<B>& model, const token_batch& batch) : b_(b), model_(model), batch_(batch) {
    core_tokensets::detail::check_batch(batch, model.config());
    const auto& l = model.layout();
    const auto p = model.view_parameters();
    const index dim = model.config().dim;
    plan_.assign(b, batch.offsets, batch.positions, batch.scale);
    core_tokensets::detail::upload_patches(b, batch, patches_);
    embeddings_.resize(b, batch.tokens(), dim);
    table_.resize(b, plan_.tokens() + batch.tokens(), dim);
    const view<T> tokens = (*table_).slice_rows(0, plan_.tokens()),
                  zeroed = (*table_).slice_rows(plan_.tokens(), batch.tokens());
    forward<B, T>(b, l.embedding, p, plan_, *std::as_const(patches_), *embeddings_, tokens);
    std::vector<std::int32_t> positions(batch.positions);
    for (auto& position : positions) ++position;
    row_list<B> of_patch;
    of_patch.assign(b, positions);
    b.gather_rows(zeroed, p[l.embedding.positions], of_patch.data());
    if (shares_first_block()) {
      block_tape<B> tape;
      table_qkv_.resize(b, table_.rows(), 3 * dim);
      forward<B, T>(b, l.blocks[0].norm1, p, *std::as_const(table_), tape.norm1);
      forward<B, T>(b, l.blocks[0].qkv, p, *tape.norm1.y, {}, *table_qkv_);
    }
  }

  const embedding_plan<B>& plan() const { return plan_; }
  /// Patch embeddings `[P, D]` before positions are added, and tokens `[T, D]`, of the unchanged batch.
  view<const T> embeddings() const { return *embeddings_; }
  view<const T> tokens() const { return (*table_).slice_rows(0, plan_.tokens()); }

  /// The whole sample s.
  void whole(index s, variation& out) const {
    out.rows.clear();
    for (index t = plan_.rows().begin(s); t < plan_.rows().begin(s + 1); ++t) {
      out.rows.push_back(static_cast<std::int32_t>(t));
    }
  }
  /// Sample s with the patches of which `keep` (of its own patches) is 0 left out. `Error`: the meaning `rescaled`.
  void without(index s, std::span<const std::uint8_t> keep, missing_tokens how, variation& out) const {
    require(how != missing_tokens::rescaled, "attribution: tokens are left out by drop or zero");
    const index begin = batch_.offsets[static_cast<std::size_t>(s)];
    whole(s, out);
    for (std::size_t i = 0; i < keep.size(); ++i) {
      if (keep[i] == 0) {
        out.rows[i + 1] = how == missing_tokens::drop
                              ? -1
                              : static_cast<std::int32_t>(plan_.tokens() + begin) + static_cast<std::int32_t>(i);
      }
    }
    std::erase(out.rows, -1);
  }

  /// Calls `describe(v, variation&)` for versions 0 .. count - 1 in order and `result(v, logits [K])` for each.
  template <class Describe, class Result>
  void run(index count, bool from_minimum, const Describe& describe, const Result& result) {
    variation next;
    for (index v = 0; v < count; ++v) {
      next.factors.clear();
      describe(v, next);
      const auto tokens = static_cast<index>(next.rows.size());
      if (rows_.count() > 0 && rows_.tokens() + tokens > most_tokens) flush(from_minimum, result);
      rows_.push_back(tokens);
      gathered_.insert(gathered_.end(), next.rows.begin(), next.rows.end());
      factors_.insert(factors_.end(), next.factors.begin(), next.factors.end());
    }
    if (rows_.count() > 0) flush(from_minimum, result);
    done_ = 0;
  }

 private:
  bool shares_first_block() const { return model_.config().depth > 1; }

  template <class Result>
  void flush(bool from_minimum, const Result& result) {
    require(factors_.empty() || factors_.size() == gathered_.size(), "attribution: ", factors_.size(), " factors for ",
            gathered_.size(), " tokens");
    forward_changed(from_minimum);
    const auto logits = logits_.to_host(b_);
    const auto k = static_cast<std::size_t>(model_.config().classes);
    for (index v = 0; v < rows_.count(); ++v) {
      result(done_ + v, std::span<const T>(logits).subspan(static_cast<std::size_t>(v) * k, k));
    }
    done_ += rows_.count();
    rows_.offsets.assign(1, 0);
    gathered_.clear();
    factors_.clear();
  }

  /// From the rows that were gathered to `logits_`.
  void forward_changed(bool from_minimum) {
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index dim = model_.config().dim, tokens = rows_.tokens(), versions = rows_.count();
    sequences one_each;
    std::vector<std::int32_t> class_rows;
    for (index v = 0; v < versions; ++v) {
      one_each.push_back(1);
      class_rows.push_back(static_cast<std::int32_t>(rows_.begin(v)));
    }
    all_.assign(rows_, rows_);
    classes_.assign(one_each, rows_);
    class_rows_.assign(b_, class_rows);
    gathered_rows_.assign(b_, gathered_);
    key_factors<T> factors;
    if (!factors_.empty()) {
      const std::vector<T> host(factors_.begin(), factors_.end());
      device_factors_.assign(b_, 1, tokens, host.data());
      factors = {device_factors_.data(), from_minimum};
    }
    for (auto& x : stream_) x.resize(b_, tokens, dim);
    b_.gather_rows(*stream_[0], *std::as_const(table_), gathered_rows_.data());
    const std::size_t last = l.blocks.size() - 1;
    for (std::size_t i = 0; i < last; ++i) {
      const view<const T> x = *std::as_const(stream_[i % 2]);
      const view<T> y = *stream_[(i + 1) % 2];
      if (i == 0) {
        tape_.qkv.resize(b_, tokens, 3 * dim);
        b_.gather_rows(*tape_.qkv, *std::as_const(table_qkv_), gathered_rows_.data());
        forward_from_qkv<B, T>(b_, l.blocks[i], p, all_, x, tape_, attention_kept::nothing, y, factors);
      } else {
        forward<B, T>(b_, l.blocks[i], p, all_, x, tape_, attention_kept::nothing, y, factors);
      }
    }
    class_out_.resize(b_, versions, dim);
    forward<B, T>(b_, l.blocks[last], p, classes_, class_rows_, *std::as_const(stream_[last % 2]), last_,
                  attention_kept::nothing, *class_out_, factors);
    forward<B, T>(b_, l.norm, p, *std::as_const(class_out_), norm_);
    logits_.resize(b_, versions, model_.config().classes);
    forward<B, T>(b_, l.head, p, *norm_.y, {}, *logits_);
  }

  B& b_;
  const vit<B>& model_;
  const token_batch& batch_;
  embedding_plan<B> plan_;
  tensor<B> patches_, embeddings_;
  tensor<B> table_;      ///< [T + P, D] tokens, then the patches' tokens with their embeddings set to 0
  tensor<B> table_qkv_;  ///< [T + P, 3 D] of the first block
  sequences rows_;
  std::vector<std::int32_t> gathered_;
  std::vector<double> factors_;
  index done_ = 0;
  attention_rows all_, classes_;
  row_list<B> class_rows_, gathered_rows_;
  tensor<B> device_factors_, stream_[2], class_out_, logits_;
  block_tape<B> tape_;
  class_block_tape<B> last_;
  layer_norm_tape<B> norm_;
};

/// Logits `[S, K]` of the unchanged samples, and what `t` explains in them.
template <tensor_backend B>
settled_target settle_unchanged(variation_engine<B>& engine, const token_batch& batch, const target& t,
                                std::vector<double>& logits) {
  using T = typename B::scalar;
  logits.clear();
  engine.run(
      batch.samples(), false, [&](index s, variation& v) { engine.whole(s, v); },
      [&](index, std::span<const T> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return settle<double>(t, batch, logits);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/occlusion.hpp ====
// Occlusion (Zeiler & Fergus 2014) on tokens: what the model loses when one token is missing.


namespace core_tokensets {

/// What is explained in the whole sample minus the same without the patch, for each patch on its own.
struct occlusion {
  static constexpr const char* name = "occlusion";
  missing_tokens missing = missing_tokens::drop;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("missing", self.missing);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const occlusion& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  variation_engine<B> engine(b, model, batch);
  std::vector<double> logits, relevance;
  ws.explained = settle_unchanged(engine, batch, t, logits);
  ws.classes = ws.explained.classes;
  const std::size_t k = logits.size() / std::max<std::size_t>(1, ws.classes.size());
  const auto samples = detail::sample_of_patch(batch);
  std::vector<std::uint8_t> keep;
  engine.run(
      batch.tokens(), false,
      [&](index v, variation& out) {
        const auto s = static_cast<std::size_t>(samples[static_cast<std::size_t>(v)]);
        keep.assign(static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]), 1);
        keep[static_cast<std::size_t>(v - batch.offsets[s])] = 0;
        engine.without(static_cast<index>(s), keep, method.missing, out);
      },
      [&](index v, std::span<const T> changed) {
        const auto s = static_cast<std::size_t>(samples[static_cast<std::size_t>(v)]);
        relevance.push_back(ws.explained.value(s, std::span(logits).subspan(s * k, k)) -
                            ws.explained.value(s, changed));
      });
  return relevance;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/atman.hpp ====
// AtMan (Deiseroth et al., NeurIPS 2023): how much the loss rises when the attention on a token is suppressed in every
// block, exactly, for all tokens of all samples as ragged batches.

#include <cmath>


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
        const index n = static_cast<index>(out.rows.size()) - 1;
        out.factors.push_back(1);
        for (index j = 0; j < n; ++j) {
          out.factors.push_back(suppression(method, cosine[static_cast<std::size_t>(s)], n, v - begin, j));
        }
      },
      [&](index, std::span<const T> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return logits;
}

/// The target of a perturbation method that watches the loss: the log-probability of the same class (a margin stays
/// one).
inline target watched_target(target t, watched w) {
  if (w == watched::loss && t.what == objective::logit) t.what = objective::log_probability;
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

// ==== core_tokensets/attribution/answer_atman.hpp ====
// AtMan for answers: one image or text token is suppressed in every attention that looks at it, and the change of the
// answer is measured (Deiseroth et al. 2023).


namespace core_tokensets {

namespace detail {

/// One changed version of text s: the factors of its image tokens (class token first) and of its text tokens.
struct answer_variation {
  index sample = 0;
  std::vector<double> image, text;
};

/// Sample s of a batch appended to another.
inline void append_sample(const token_batch& from, index s, token_batch& to) {
  const auto begin = from.offsets[static_cast<std::size_t>(s)], end = from.offsets[static_cast<std::size_t>(s + 1)];
  const auto part = [&](const auto& values, auto& out, index width) {
    if (!values.empty()) out.insert(out.end(), values.begin() + begin * width, values.begin() + end * width);
  };
  to.patch_dim = from.patch_dim;
  part(from.patches, to.patches, from.patch_dim);
  part(from.positions, to.positions, 1);
  part(from.scale, to.scale, 1);
  to.offsets.push_back(to.offsets.back() + end - begin);
}

inline void append_sample(const text_batch& from, index s, text_batch& to) {
  const auto begin = from.offsets[static_cast<std::size_t>(s)], end = from.offsets[static_cast<std::size_t>(s + 1)];
  to.next_picture();
  to.tokens.insert(to.tokens.end(), from.tokens.begin() + begin, from.tokens.begin() + end);
  to.targets.insert(to.targets.end(), from.targets.begin() + begin, from.targets.begin() + end);
  to.offsets.push_back(static_cast<index>(to.tokens.size()));
  ++to.images.back();
}

/// What `watch` names of each text: the sum over its explained rows of log-probabilities, or of logits.
template <tensor_backend B>
std::vector<double> watched_values(B& b, const answer_workspace<B>& ws, watched what) {
  const auto logits = ws.tape.logits.to_host(b);
  const auto v = static_cast<std::size_t>(ws.tape.logits.cols());
  std::vector<double> values;
  for (const auto& rows : ws.explained) {
    double sum = 0;
    for (const index a : rows) {
      const auto row = static_cast<std::size_t>(a);
      const settled_target answer{
          what == watched::target ? objective::logit : objective::log_probability, {ws.tape.text.targets[row]}, {}};
      sum += answer.value(0, std::span<const typename B::scalar>(logits.data() + row * v, v));
    }
    values.push_back(sum);
  }
  return values;
}

/// Runs changed versions in batches of at most so many tokens and returns what is watched of each.
template <tensor_backend B>
std::vector<double> run_variations(const atman& method, B& b, const image_text_model<B>& model,
                                   const token_batch& images, const text_batch& texts,
                                   std::span<const answer_variation> variations) {
  using T = typename B::scalar;
  constexpr index most_tokens = 4096;
  answer_workspace<B> ws;
  ws.tape.keep = kept::logits;
  std::vector<double> result;
  for (std::size_t next = 0; next < variations.size();) {
    token_batch many;
    text_batch many_texts;
    std::vector<T> image_host, text_host;
    while (next < variations.size() && (many.samples() == 0 || many.tokens() < most_tokens)) {
      const answer_variation& v = variations[next++];
      append_sample(images, v.sample, many);
      append_sample(texts, v.sample, many_texts);
      image_host.insert(image_host.end(), v.image.begin(), v.image.end());
      text_host.insert(text_host.end(), v.text.begin(), v.text.end());
    }
    tensor<B> of_image, of_text;
    of_image.assign(b, 1, static_cast<index>(image_host.size()), image_host.data());
    of_text.assign(b, 1, static_cast<index>(text_host.size()), text_host.data());
    const key_factors<T> image{of_image.data(), method.shift}, text{of_text.data(), method.shift};
    encode(b, model, many, ws.tape, image);
    decode(b, model, many_texts, ws.tape, {.text = text, .image = image});
    settle_answers(ws.tape.text, ws.explained);
    const auto values = watched_values(b, ws, method.watch);
    result.insert(result.end(), values.begin(), values.end());
  }
  return result;
}

}  // namespace detail

/// What is watched without the change minus with it: positive where a token speaks for the answer. Conceptual
/// neighbours are those among the image tokens.
template <tensor_backend B>
answer_relevance attribute(const atman& method, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_answers(b, model, images, texts, ws);
  const auto unchanged = detail::watched_values(b, ws, method.watch);
  const bool with_position = method.neighbours == neighbourhood::patchpos;
  const auto embedded = (with_position ? ws.tape.stream.front() : ws.tape.embeddings).to_host(b);
  const index dim = model.config().image.dim;
  std::vector<detail::answer_variation> variations;
  std::vector<std::size_t> of_image, of_text;
  for (index s = 0; s < images.samples(); ++s) {
    const index begin = images.offsets[static_cast<std::size_t>(s)],
                n = images.offsets[static_cast<std::size_t>(s + 1)] - begin;
    const index length = ws.tape.text.rows.self.queries().length(s);
    std::vector<double> cosine;
    if (method.neighbours != neighbourhood::none) {
      const index first = with_position ? ws.tape.plan.rows().begin(s) + 1 : begin;
      cosine = cosines<T>(
          std::span(embedded).subspan(static_cast<std::size_t>(first * dim), static_cast<std::size_t>(n * dim)), n,
          dim);
    }
    const detail::answer_variation none{s, std::vector<double>(static_cast<std::size_t>(n + 1), 1.0),
                                        std::vector<double>(static_cast<std::size_t>(length), 1.0)};
    for (index i = 0; i < n; ++i) {
      of_image.push_back(variations.size());
      variations.push_back(none);
      for (index j = 0; j < n; ++j)
        variations.back().image[static_cast<std::size_t>(j + 1)] = suppression(method, cosine, n, i, j);
    }
    for (index i = 0; i < length; ++i) {
      of_text.push_back(variations.size());
      variations.push_back(none);
      variations.back().text[static_cast<std::size_t>(i)] = 1 - method.factor;
    }
  }
  const auto changed = detail::run_variations(method, b, model, images, texts, variations);
  const auto falls = [&](const std::vector<std::size_t>& which) {
    std::vector<double> relevance;
    for (const std::size_t v : which)
      relevance.push_back(unchanged[static_cast<std::size_t>(variations[v].sample)] - changed[v]);
    return relevance;
  };
  return {falls(of_image), falls(of_text)};
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/class_row.hpp ====
// Products over blocks of matrices I + C, of which only the class token's row is used: the row is carried from the last
// block to the first, v <- v + v C, instead of multiplying matrices of N x N.


namespace core_tokensets {

namespace detail {
/// out = max(out x, 0)
struct positive_product {
  template <class T>
  constexpr void operator()(T& out, const T& x) const {
    const T p = out * x;
    out = p > T(0) ? p : T(0);
  }
};
/// out = max(out, 0)
struct keep_positive {
  template <class T>
  constexpr void operator()(T& out) const {
    out = out > T(0) ? out : T(0);
  }
};

inline void check_start_layer(const char* method, index start, index depth) {
  require(start >= 0 && start < depth, method, ": start layer ", start, " of a model with ", depth, " blocks");
}
}  // namespace detail

/// Numbers of tokens `[T]` without those of the class tokens: `[P]`.
template <tensor_backend B, class T>
std::vector<double> patch_entries(const std::vector<T>& of_tokens, const embedding_plan<B>& plan) {
  std::vector<double> of_patches;
  for (index s = 0; s < plan.rows().count(); ++s) {
    of_patches.insert(of_patches.end(), of_tokens.begin() + plan.rows().begin(s) + 1,
                      of_tokens.begin() + plan.rows().begin(s + 1));
  }
  return of_patches;
}

/// One such row for each sample of a ragged batch.
template <tensor_backend B>
class class_row_product {
 public:
  using T = typename B::scalar;

  /// Starts as the class token's unit vector; `plan` outlives this object.
  class_row_product(B& b, const embedding_plan<B>& plan) : plan_(plan), rows_(b, plan.tokens(), 1) {
    const T one = 1;
    tensor<B> ones;
    ones.assign(b, 1, 1, &one);
    b.fill(*rows_, T(0));
    b.scatter_add_rows(*rows_, view<const T>(ones.data(), plan.class_rows.size(), 1, 0), plan.class_rows.data());
  }

  /// v <- factor v
  void scale(B& b, double factor) { b.map(fn::scale<T>{T(factor)}, *rows_); }

  /// v <- v + v mean_h M for matrices M `[H, nq, nk]` of each sample, laid out as `layout` says. The first nq entries
  /// of v meet the rows of M: a last block that was computed for class tokens only has one.
  void add_product(B& b, const attention_rows& layout, index heads, const T* matrices) {
    ops::for_each_sample(b, layout.count(), [&](index s) {
      const index nq = layout.queries().length(s), nk = layout.keys().length(s);
      scratch<B> by_head(b, heads, nk);
      const view<T> v(rows_.data() + layout.keys().begin(s), 1, nk),
          products(by_head.data(), 1, heads, 1, nk, 0, nk, nk);
      b.gemm(v.slice_cols(0, nq), layout.matrices(matrices, s, heads), products,
             {.alpha = 1.0 / static_cast<double>(heads)});
      b.col_reduce(fn::plus{}, fn::value{}, T(1), v, view<const T>(*by_head));
    });
  }

  /// The entries of the patches `[P]`.
  std::vector<double> patches(B& b) const { return patch_entries(rows_.to_host(b), plan_); }

 private:
  const embedding_plan<B>& plan_;
  tensor<B> rows_;
};

/// mean_h M[h, 0, 1:] of each sample `[P]`: the class token's row of matrices laid out as `layout` says.
template <tensor_backend B, class T = typename B::scalar>
std::vector<double> mean_class_row(B& b, const embedding_plan<B>& plan, const attention_rows& layout, index heads,
                                   const T* matrices) {
  tensor<B> rows(b, plan.tokens(), 1);
  ops::for_each_sample(b, layout.count(), [&](index s) {
    const index nk = layout.keys().length(s);
    const auto m = layout.matrices(matrices, s, heads);
    b.col_reduce(fn::plus{}, fn::value{}, T(0), view<T>(rows.data() + layout.keys().begin(s), 1, nk),
                 view<const T>(m.data, heads, nk, m.s1));
  });
  b.map(fn::scale<T>{T(1) / static_cast<T>(heads)}, *rows);
  return patch_entries(rows.to_host(b), plan);
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/lrp/attention.hpp ====
// Relevance through attention: from A v to v and A, through the softmax to the scores q k^T, and to q and k.


namespace core_tokensets::lrp {

/// The rules of its three operations.
struct attention_rules {
  product_rule product = {};
  softmax_rule softmax = {};
};

/// Activations of attention: q and out `[1, H, Tq, D]`, k, v `[1, H, Tk, D]`, probabilities a as `attention_rows` says.
template <class T>
struct attention_operands {
  view<const T> q, k, v, out;
  const T* a = nullptr;
  T scale = 1;  ///< of q k^T before the softmax; passes relevance on
};

/// From R `[1, H, Tq, D]` at the output to `r_a` (layout of a) at the probabilities, and rq, rk, rv (=). The
/// denominator of the scores is q k^T without scale.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const attention_rules& rules, B& b, const attention_rows& rows,
               const attention_operands<std::type_identity_t<T>>& x, const_view<T> r, T* r_a, view<T> rq, view<T> rk,
               view<T> rv) {
  const index heads = x.q.n1;
  const product_rule& rule = rules.product;
  const divide<T> over(rule.over);
  ops::for_each_head(b, rows.count(), heads, [&](index sample, index first, index count) {
    const index nq = rows.queries().length(sample), nk = rows.keys().length(sample);
    const auto query = [&](auto v) {
      return ops::some_heads(v, first, count).slice_rows(rows.queries().begin(sample), nq);
    };
    const auto key = [&](auto v) { return ops::some_heads(v, first, count).slice_rows(rows.keys().begin(sample), nk); };
    const view<const T> a = ops::some_heads(rows.matrices(x.a, sample, heads), first, count);
    const view<T> ra = ops::some_heads(rows.matrices(r_a, sample, heads), first, count);
    scratch<B> at_out(b, count * nq, x.q.cols), scores(b, count * nq, nk), totals(b, count * nq, 1);
    const view<T> s(at_out.data(), 1, count, nq, x.q.cols, 0, nq * x.q.cols, x.q.cols);
    const view<T> z(scores.data(), 1, count, nq, nk, 0, nq * nk, nk), total(totals.data(), 1, count, nq, 1, 0, nq, 1);

    b.map(share<T>{over}, s, query(r), query(x.out));
    b.gemm(a, s, key(rv), {.transpose_a = true});
    b.map(scale_product<T>{T(rule.right)}, key(rv), key(x.v));
    if (rule.left == 0) {
      for (const view<T>& nothing : {ra, query(rq), key(rk)}) b.fill(nothing, T(0));
      return;
    }
    b.gemm(s, key(x.v), ra, {.transpose_b = true});
    b.map(scale_product<T>{T(rule.left)}, ra, a);
    b.gemm(query(x.q), key(x.k), z, {.transpose_b = true});
    if (rules.softmax.how == softmax_rule::way::taylor) {
      // z becomes S = R_s / z; R_s = (z scale)(R_A - A sum R_A), kept apart in `at_scores`.
      scratch<B> at_scores(b, count * nq, nk);
      const view<T> rs(at_scores.data(), 1, count, nq, nk, 0, nq * nk, nk);
      b.row_reduce(fn::plus{}, fn::value{}, total, view<const T>(ra));
      b.map(fn::copy{}, rs, view<const T>(z));
      b.map(softmax_result<T>{x.scale}, rs, view<const T>(ra), a, view<const T>(total));
      b.map(share<T>{over}, z, view<const T>(rs), view<const T>(z));
    } else {
      b.map(share<T>{over}, z, view<const T>(ra), view<const T>(z));
    }
    b.gemm(z, key(x.k), query(rq));
    b.map(scale_product<T>{T(rule.left)}, query(rq), query(x.q));
    b.gemm(z, query(x.q), key(rk), {.transpose_a = true});
    b.map(scale_product<T>{T(rule.right)}, key(rk), key(x.k));
  });
}

}  // namespace core_tokensets::lrp

// ==== core_tokensets/nn/lrp/linear_rule.hpp ====
// Relevance rules of linear layers y = x W^T + b as data. A rule is a list of terms: x' and W' are made from x and W,
// the terms of a group sum up to its denominator z, S = R / z, and R_in = sum over terms of factor x' (W'^T S). One
// executor (linear.hpp) runs all of them; a user's own rule is a struct with a name and such a plan.

#include <array>
#include <concepts>
#include <string>


namespace core_tokensets::lrp {

/// positive v+ + negative v-, of the positive and negative part of an array v.
struct sides {
  double positive = 1, negative = 1;
  bool whole() const { return positive == 1 && negative == 1; }
  bool none() const { return positive == 0 && negative == 0; }
  bool operator==(const sides&) const = default;
};

inline constexpr sides both_sides{1, 1}, positive_side{1, 0}, negative_side{0, 1}, no_side{0, 0};

/// What takes the place of the input: parts of it, or the same number everywhere (1, or the lowest or highest value
/// that the input could have).
enum class input_kind { parts, ones, low, high };
/// What takes the place of the weight: parts of it, the number 1 everywhere, or its square.
enum class weight_kind { parts, ones, squared };

struct linear_term {
  input_kind input = input_kind::parts;
  sides of_input = both_sides;
  weight_kind weight = weight_kind::parts;
  sides of_weight = both_sides;
  int group = 0;
  double factor = 1;
};

/// One denominator: which part of the bias it holds (its square with `squared_bias`), and whether only outputs of one
/// sign (`output` +1 or -1) pass relevance through it.
struct linear_group {
  sides of_bias = no_side;
  bool squared_bias = false;
  int output = 0;
};

/// A rule of a linear layer, ready to run.
struct linear_plan {
  std::array<linear_term, 4> terms{};
  int term_count = 0;
  std::array<linear_group, 4> groups{};
  int group_count = 1;
  division over = {};
  bool pass = false;              ///< R_in = R; input and output must have the same width
  bool pixels = false;            ///< settled by the number of channels: see `chefer_pixels`
  double low = 0, high = 0;       ///< of `input_kind::low` and `high`
  bool bounds_of_sample = false;  ///< low and high are the least and largest input of the sample

  linear_plan& add(const linear_term& t) {
    terms[static_cast<std::size_t>(term_count++)] = t;
    return *this;
  }
};

// ---- rules ------------------------------------------------------------------------------------------------------

/// R_in = x (W^T (R / z)), z = W x + b with z + eps sign(z) as the denominator (Bach et al. 2015, eq. 58). The bias and
/// eps absorb relevance. LXT (Achtibat et al. 2024) adds eps without the sign.
struct epsilon {
  static constexpr const char* name = "epsilon";
  double eps = 1e-6;
  bool bias = true, sign_aware = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
    visit("sign_aware", self.sign_aware);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps, .sign_aware = sign_aware}};
    p.groups[0].of_bias = bias ? both_sides : no_side;
    return p.add({});
  }
};

/// Contributions count (1 + gamma) times where they have the sign of the output (Montavon et al. 2019, in the form for
/// inputs and outputs of any sign). Without bias the sum is kept.
struct gamma {
  static constexpr const char* name = "gamma";
  double gamma = 0.25, eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("gamma", self.gamma);
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const {
    const sides up{1 + gamma, 1}, down{1, 1 + gamma};
    linear_plan p{.group_count = 2, .over = {.eps = eps}};
    p.groups[0] = {.of_bias = bias ? up : no_side, .output = 1};
    p.groups[1] = {.of_bias = bias ? down : no_side, .output = -1};
    p.add({.of_input = positive_side, .of_weight = up, .group = 0});
    p.add({.of_input = negative_side, .of_weight = down, .group = 0});
    p.add({.of_input = positive_side, .of_weight = down, .group = 1});
    return p.add({.of_input = negative_side, .of_weight = up, .group = 1});
  }
};

/// alpha times the shares among positive contributions minus beta times those among negative ones (Bach et al. 2015,
/// eq. 60). alpha - beta = 1 keeps the sum where both kinds exist.
struct alpha_beta {
  static constexpr const char* name = "alpha_beta";
  double alpha = 2, beta = 1;
  bool bias = true;
  division over = {};
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
    visit("bias", self.bias);
    visit("eps", self.over.eps);
  }

  linear_plan plan() const {
    linear_plan p{.group_count = beta == 0 ? 1 : 2, .over = over};
    p.groups[0].of_bias = bias ? positive_side : no_side;
    p.groups[1].of_bias = bias ? negative_side : no_side;
    p.add({.of_input = positive_side, .of_weight = positive_side, .group = 0, .factor = alpha});
    p.add({.of_input = negative_side, .of_weight = negative_side, .group = 0, .factor = alpha});
    if (beta == 0) return p;
    p.add({.of_input = positive_side, .of_weight = negative_side, .group = 1, .factor = -beta});
    return p.add({.of_input = negative_side, .of_weight = positive_side, .group = 1, .factor = -beta});
  }
};

/// alpha_beta with alpha = 1, beta = 0: only positive contributions count (Montavon et al. 2017).
struct z_plus {
  static constexpr const char* name = "z_plus";
  double eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const { return alpha_beta{.alpha = 1, .beta = 0, .bias = bias, .over = {.eps = eps}}.plan(); }
};

/// Every input gets the same share (Lapuschkin et al. 2019). Keeps the sum; knows neither x, W nor b.
struct flat {
  static constexpr const char* name = "flat";
  double eps = 1e-6;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps}};
    return p.add({.input = input_kind::ones, .weight = weight_kind::ones});
  }
};

/// Shares by squared weights, whatever the input (Montavon et al. 2017, for unbounded inputs).
struct w_square {
  static constexpr const char* name = "w_square";
  double eps = 1e-6;
  bool bias = true;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("eps", self.eps);
    visit("bias", self.bias);
  }

  linear_plan plan() const {
    linear_plan p{.over = {.eps = eps}};
    if (bias) p.groups[0] = {.of_bias = both_sides, .squared_bias = true};
    return p.add({.input = input_kind::ones, .weight = weight_kind::squared});
  }
};

/// For inputs between `low` and `high`, as pixels are: z = W x - W+ low - W- high, without bias (Montavon et al. 2017,
/// z^B). `of_sample` takes the least and largest input of each sample instead.
struct z_box {
  static constexpr const char* name = "z_box";
  double low = -1, high = 1;
  bool of_sample = false;
  division over = {};
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("low", self.low);
    visit("high", self.high);
    visit("of_sample", self.of_sample);
    visit("eps", self.over.eps);
  }

  linear_plan plan() const {
    linear_plan p{.over = over, .low = low, .high = high, .bounds_of_sample = of_sample};
    p.add({});
    p.add({.input = input_kind::low, .of_weight = {-1, 0}});
    return p.add({.input = input_kind::high, .of_weight = {0, -1}});
  }
};

/// Relevance passes as it is; only for layers as wide as their input.
struct identity {
  static constexpr const char* name = "identity";
  linear_plan plan() const { return {.pass = true}; }
};

/// The linear rule of Chefer, Gur & Wolf (CVPR 2021): alpha_beta without bias and with their division.
struct chefer_linear {
  static constexpr const char* name = "chefer_linear";
  double alpha = 1, beta = 0;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
  }

  linear_plan plan() const {
    return alpha_beta{.alpha = alpha, .beta = beta, .bias = false, .over = chefer_division}.plan();
  }
};

/// The rule of their repository before its correction ("orig"): each product has a denominator of its own, so inputs of
/// both signs pass the relevance on twice. Not conserving.
struct chefer_original_linear {
  static constexpr const char* name = "chefer_original_linear";
  double alpha = 1, beta = 0;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("alpha", self.alpha);
    visit("beta", self.beta);
  }

  linear_plan plan() const {
    linear_plan p{.group_count = 2, .over = chefer_division};
    p.add({.of_input = positive_side, .of_weight = positive_side, .group = 0, .factor = alpha});
    p.add({.of_input = negative_side, .of_weight = negative_side, .group = 1, .factor = alpha});
    if (beta == 0) return p;
    p.group_count = 4;
    p.add({.of_input = positive_side, .of_weight = negative_side, .group = 2, .factor = -beta});
    return p.add({.of_input = negative_side, .of_weight = positive_side, .group = 3, .factor = -beta});
  }
};

/// Their rule of the patch embedding: z_box between the least and largest pixel of the picture where it has 3 channels,
/// else `chefer_original_linear`.
struct chefer_pixels {
  static constexpr const char* name = "chefer_pixels";
  linear_plan plan() const { return {.pixels = true}; }
  static linear_plan plan_for(index channels) {
    if (channels != 3) return chefer_original_linear{}.plan();
    return z_box{.of_sample = true, .over = {.eps = 1e-9, .sign_aware = false}}.plan();
  }
};

/// What the executor needs of a rule.
template <class R>
concept linear_rule_type = requires(const R& r) {
  { R::name } -> std::convertible_to<std::string>;
  { r.plan() } -> std::convertible_to<linear_plan>;
};

/// Any rule of linear layers, by value.
class linear_rule {
 public:
  template <linear_rule_type R>
  linear_rule(const R& rule) : name_(R::name), options_(options_text(rule)), plan_(rule.plan()) {}

  const std::string& name() const { return name_; }
  /// Name and options, "gamma(gamma=0.25,eps=1e-06,bias=true)".
  std::string text() const { return options_.empty() ? name_ : name_ + "(" + options_ + ")"; }
  const linear_plan& plan() const { return plan_; }
  /// The rule for pictures of so many channels (see `chefer_pixels`).
  linear_plan plan_for(index channels) const { return plan_.pixels ? chefer_pixels::plan_for(channels) : plan_; }

 private:
  std::string name_, options_;
  linear_plan plan_;
};

}  // namespace core_tokensets::lrp

// ==== core_tokensets/nn/lrp/composite.hpp ====
// A composite says which rule runs where in a transformer. Presets are the published ones; a user's own is an
// aggregate:
//   lrp::composite mine{.name = "mine", .fc1 = lrp::gamma{.gamma = 0.1}, .head = lrp::epsilon{}};

#include <string>


namespace core_tokensets::lrp {

/// Rules by kind of layer. `residual` shares out the two sums of a block, `positions` that of embedding and position.
struct composite {
  std::string name = "epsilon";
  linear_rule patch_embed = epsilon{}, qkv = epsilon{}, proj = epsilon{}, fc1 = epsilon{}, fc2 = epsilon{},
              head = epsilon{};
  norm_rule norm = {};
  activation_rule activation = {};
  attention_rules attention = {};
  sum_rule residual = {}, positions = {};
  copy_rule copy = {};
  start_value start = start_value::logit;
};

/// The same rule for the six kinds of linear layers.
inline composite with_linear(composite c, const linear_rule& rule) {
  c.patch_embed = c.qkv = c.proj = c.fc1 = c.fc2 = c.head = rule;
  return c;
}

/// Chefer, Gur & Wolf (CVPR 2021) as in their repository: alpha = 1, beta = 0 without biases, renormalised sums, halves
/// at both products of attention; norms, GELU and softmax pass relevance on. Starts at 1 and keeps the sum down to the
/// tokens; the pixels get what positions and class token leave (z^B rule for pictures of 3 channels).
inline composite chefer() {
  const sum_rule sums{.over = chefer_division, .renormalised = true};
  composite c{.name = "chefer",
              .attention = {.product = {.over = chefer_division}},
              .residual = sums,
              .positions = sums,
              .copy = {.how = copy_rule::way::ratio},
              .start = start_value::one};
  c = with_linear(c, chefer_linear{});
  c.patch_embed = chefer_pixels{};
  return c;
}

/// The rules of their repository before the correction, which its baselines "partial LRP" and "LRP" still use: separate
/// denominators in linear layers, sums without renormalisation. Not conserving: the sum can grow without bound.
inline composite chefer_original() {
  composite c = chefer();
  c = with_linear(c, chefer_original_linear{});
  c.name = "chefer_original";
  c.patch_embed = chefer_pixels{};
  c.residual.renormalised = c.positions.renormalised = false;
  return c;
}

/// The epsilon rule everywhere, with norms as AttnLRP has them and attention as a constant (CP-LRP's choice): the plain
/// baseline. Starts at the logit; biases and eps absorb.
inline composite epsilon_everywhere(double eps = 1e-6) {
  const division over{.eps = eps};
  composite c{.name = "epsilon",
              .norm = {.how = norm_rule::way::detached, .over = over},
              .attention = {.product = {.over = over, .left = 0, .right = 1}},
              .residual = {.over = over},
              .positions = {.over = over},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = eps});
}

/// AttnLRP (Achtibat et al., ICML 2024), rule by rule with the constants of LXT's explicit functions. Starts at the
/// logit; biases (of linear layers and norms) and softmax absorb, everything else keeps the sum but for eps.
inline composite attn_lrp_explicit() {
  const auto added = [](double eps) { return division{.eps = eps, .sign_aware = false}; };
  composite c{.name = "attn_lrp_explicit",
              .norm = {.how = norm_rule::way::detached, .over = added(1e-6)},
              .attention = {.product = {.over = added(0.5e-8)}, .softmax = {.how = softmax_rule::way::taylor}},
              .residual = {.over = added(1e-8)},
              .positions = {.over = added(1e-8)},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = 1e-6, .sign_aware = false});
}

/// AttnLRP in its efficient form, gradient x input of a network with constant norms, GELU replaced by its slope, and
/// gradients halved at the products of attention: the same rules without any eps but LXT's in the activation.
inline composite attn_lrp() {
  composite c{.name = "attn_lrp",
              .norm = {.how = norm_rule::way::detached, .over = exact_division},
              .activation = {.eps = 1e-10},
              .attention = {.product = {.over = exact_division}, .softmax = {.how = softmax_rule::way::taylor}},
              .residual = {.over = exact_division},
              .positions = {.over = exact_division},
              .copy = {.how = copy_rule::way::add}};
  return with_linear(c, epsilon{.eps = 0});
}

/// CP-LRP (Ali et al., ICML 2022): like `attn_lrp`, but attention counts as a constant, so no relevance flows through
/// queries, keys and softmax.
inline composite cp_lrp() {
  composite c = attn_lrp();
  c.name = "cp_lrp";
  c.attention.product.left = 0;
  c.attention.product.right = 1;
  return c;
}

/// AttnLRP with the gamma rule in all linear layers, which its authors recommend for Vision Transformers.
inline composite attn_lrp_gamma(double gamma_ = 0.05) {
  composite c = with_linear(attn_lrp(), gamma{.gamma = gamma_});
  c.name = "attn_lrp_gamma";
  return c;
}

/// The presets by name.
enum class preset { chefer, chefer_original, epsilon, attn_lrp, attn_lrp_explicit, attn_lrp_gamma, cp_lrp };

inline composite make(preset p) {
  switch (p) {
    case preset::chefer:
      return chefer();
    case preset::chefer_original:
      return chefer_original();
    case preset::epsilon:
      return epsilon_everywhere();
    case preset::attn_lrp:
      return attn_lrp();
    case preset::attn_lrp_explicit:
      return attn_lrp_explicit();
    case preset::attn_lrp_gamma:
      return attn_lrp_gamma();
    case preset::cp_lrp:
      return cp_lrp();
  }
  fail("lrp: no such preset");
}

}  // namespace core_tokensets::lrp

namespace core_tokensets {
template <>
inline constexpr std::array words<lrp::preset>{
    "chefer", "chefer_original", "epsilon", "attn_lrp", "attn_lrp_explicit", "attn_lrp_gamma", "cp_lrp"};
}  // namespace core_tokensets

// ==== core_tokensets/nn/lrp/linear.hpp ====
// One executor for all relevance rules of linear layers (linear_rule.hpp).

#include <array>
#include <span>


namespace core_tokensets::lrp {

/// What a rule may read of a linear layer: weight `[Out, In]`, bias `[1, Out]` (may be empty), and its output `[T,
/// Out]` where the caller has it (else it is computed where a rule needs it).
template <class T>
struct linear_operands {
  view<const T> weight, bias = {}, output = {};
  view<const T> low = {}, high = {};  ///< [T, 1] bounds of each row's input; empty: those of the rule
};

namespace detail {

/// A plan at work on one layer; the weights that its terms need are made once.
template <tensor_backend B>
class linear_pass {
 public:
  using T = typename B::scalar;

  linear_pass(B& b, const linear_plan& plan, const linear_operands<T>& layer, view<const T> x)
      : b_(b),
        plan_(plan),
        layer_(layer),
        x_(x),
        weight_memory_(b, count_made(plan) * layer.weight.rows, layer.weight.cols),
        input_memory_(b, x.rows, x.cols),
        product_(b, x.rows, x.cols) {
    index made = 0;
    for (int i = 0; i < plan.term_count; ++i) {
      if (!needs_memory(term_at(i))) {
        weights_[at(i)] = layer.weight;
      } else {
        weights_[at(i)] =
            make_weight(term_at(i), (*weight_memory_).slice_rows(made++ * layer.weight.rows, layer.weight.rows));
      }
    }
  }

  /// z = sum of x' W'^T over the terms of group g, plus its part of the bias.
  void denominator(int g, view<T> z) {
    bool first = true;
    for (int i = 0; i < plan_.term_count; ++i) {
      const linear_term& t = term_at(i);
      if (t.group != g) continue;
      if (t.input == input_kind::parts) {
        b_.gemm(input_part(t.of_input), weights_[at(i)], z, {.transpose_b = true, .beta = first ? 0.0 : 1.0});
      } else {
        if (first) b_.fill(z, T(0));
        scratch<B> sums(b_, z.cols, 1), number(b_, 1, 1);
        b_.row_reduce(fn::plus{}, fn::value{}, *sums, weights_[at(i)]);
        b_.map(add_product{}, z, view<const T>(sums.data(), 1, z.cols), constant(t, *number));
      }
      first = false;
    }
    const linear_group& group = plan_.groups[at(g)];
    if (group.of_bias.none() || layer_.bias.empty()) return;
    scratch<B> bias(b_, 1, z.cols);
    if (group.squared_bias) {
      b_.map(squared{}, *bias, layer_.bias);
    } else {
      b_.map(sides_of(group.of_bias), *bias, layer_.bias);
    }
    b_.map(fn::add{}, z, view<const T>(*bias));
  }

  /// R_in += factor x' (S W') over the terms of group g, (=) for the first group.
  void distribute(int g, view<const T> s, view<T> r_in) {
    for (int i = 0; i < plan_.term_count; ++i) {
      const linear_term& t = term_at(i);
      if (t.group != g) continue;
      scratch<B> number(b_, 1, 1);
      b_.gemm(s, weights_[at(i)], *product_);
      const bool parts = t.input == input_kind::parts;
      const view<const T> input = parts ? x_ : constant(t, *number), p = *product_;
      const auto sides = sides_of(parts ? t.of_input : both_sides);
      if (i == 0) {
        b_.map(term<T>{T(t.factor), sides}, r_in, p, input);
      } else {
        b_.map(add_term<T>{T(t.factor), sides}, r_in, p, input);
      }
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  static bool needs_memory(const linear_term& t) { return t.weight != weight_kind::parts || !t.of_weight.whole(); }
  static index count_made(const linear_plan& plan) {
    index n = 0;
    for (int i = 0; i < plan.term_count; ++i) n += needs_memory(plan.terms[at(i)]) ? 1 : 0;
    return n;
  }
  static weigh_sides<T> sides_of(const sides& s) { return {T(s.positive), T(s.negative)}; }
  const linear_term& term_at(int i) const { return plan_.terms[at(i)]; }

  view<const T> make_weight(const linear_term& t, view<T> out) {
    if (t.weight == weight_kind::ones) {
      b_.fill(out, T(1));
    } else if (t.weight == weight_kind::squared) {
      b_.map(squared{}, out, layer_.weight);
    } else {
      b_.map(sides_of(t.of_weight), out, layer_.weight);
    }
    return out;
  }
  view<const T> input_part(const sides& s) {
    if (s.whole()) return x_;
    b_.map(sides_of(s), *input_memory_, x_);
    return *input_memory_;
  }
  /// An input that is the same number in the whole row: a column `[T, 1]`, or one number for all rows in `memory`.
  view<const T> constant(const linear_term& t, view<T> memory) {
    const bool low = t.input == input_kind::low, high = t.input == input_kind::high;
    if (low && !layer_.low.empty()) return layer_.low;
    if (high && !layer_.high.empty()) return layer_.high;
    b_.fill(memory, low ? T(plan_.low) : high ? T(plan_.high) : T(1));
    return memory;
  }

  B& b_;
  const linear_plan& plan_;
  const linear_operands<T>& layer_;
  view<const T> x_;
  scratch<B> weight_memory_, input_memory_, product_;
  std::array<view<const T>, 4> weights_;
};

/// True if the denominator of the plan is the layer's own output, so that it need not be computed again.
template <class T>
bool divides_by_output(const linear_plan& plan, const linear_operands<T>& layer) {
  const linear_term& t = plan.terms[0];
  return !layer.output.empty() && plan.term_count == 1 && t.input == input_kind::parts && t.of_input.whole() &&
         t.weight == weight_kind::parts && t.of_weight.whole() &&
         (layer.bias.empty() || plan.groups[0].of_bias.whole());
}

}  // namespace detail

/// From R `[T, Out]` at the output of a linear layer to R_in `[T, In]` (=) at its input x `[T, In]`; `r_in` and `r` are
/// different memory. `Error`: `identity` on a layer that changes the width.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const linear_plan& plan, B& b, const linear_operands<std::type_identity_t<T>>& layer, const_view<T> x,
               const_view<T> r, view<T> r_in) {
  if (plan.pass) {
    require(r.cols == r_in.cols, "lrp: identity on a linear layer from ", r_in.cols, " to ", r.cols, " channels");
    b.map(fn::copy{}, r_in, r);
    return;
  }
  require(!plan.pixels, "lrp: chefer_pixels is a rule of the patch embedding only");
  detail::linear_pass<B> pass(b, plan, layer, x);
  const bool by_side = plan.groups[0].output != 0;
  scratch<B> memory(b, r.rows, r.cols), output(b, by_side && layer.output.empty() ? r.rows : 0, r.cols);
  const view<T> s = *memory;
  view<const T> y = layer.output;
  if (by_side && y.empty()) {
    ops::linear<B, T>(b, x, layer.weight, layer.bias, {}, *output);
    y = *output;
  }
  for (int g = 0; g < plan.group_count; ++g) {
    const bool by_output = detail::divides_by_output(plan, layer);
    if (!by_output) pass.denominator(g, s);
    const view<const T> z = by_output ? layer.output : view<const T>(s);
    const int side = plan.groups[static_cast<std::size_t>(g)].output;
    if (side != 0) {
      b.map(share_of_side<T>{divide<T>(plan.over), T(side)}, s, r, z, y);
    } else {
      b.map(share<T>{divide<T>(plan.over)}, s, r, z);
    }
    pass.distribute(g, s, r_in);
  }
}

/// The same for a layer of a model; `y` is its output or empty.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const linear_rule& rule, B& b, const linear& l, parameter_view<const T> p, const_view<T> x,
               const_view<T> y, const_view<T> r, view<T> r_in) {
  relevance<B, T>(rule.plan(), b, {.weight = p[l.weight], .bias = p[l.bias], .output = y}, x, r, r_in);
}

}  // namespace core_tokensets::lrp

// ==== core_tokensets/nn/lrp/block.hpp ====
// Relevance through a transformer block with the rules of a composite: for all tokens, and for a last block of which
// only the class tokens are read.


namespace core_tokensets::lrp {

/// Operations in the order in which relevance passes them; a sum is left on two ways.
enum class stage {
  head,
  norm,
  choice,
  add2_residual,
  add2_branch,
  fc2,
  activation,
  fc1,
  norm2,
  copy2,
  add1_residual,
  add1_branch,
  proj,
  attention,
  qkv,
  norm1,
  copy1,
  positions_share,
  embedding_share,
  patch_embed
};

/// Sees the relevance `[n, C]` that leaves an operation, and the sample of each of the n rows.
struct no_observer {
  template <class Rows, class V>
  void operator()(stage, const Rows&, const V&) const {}
};

/// The second half of a block, in place: from R at its output y `[n, C]` to R at its middle.
template <tensor_backend B, class Observer, class T = typename B::scalar>
void mlp_relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const sample_rows<B>& rows,
                   const_view<T> y, const block_tape<B>& tape, view<T> r, const Observer& observe) {
  const index n = r.rows, dim = r.cols;
  scratch<B> residual(b, n, dim), branch(b, n, dim), hidden(b, n, l.fc1.weight.rows);
  const auto seen = [&](stage s, view<T> at) { observe(s, rows, view<const T>(at)); };
  relevance<B, T>(c.residual, b, rows, r, *tape.middle, y, *residual, *branch);
  seen(stage::add2_residual, *residual);
  seen(stage::add2_branch, *branch);
  relevance<B, T>(c.fc2, b, l.fc2, p, *tape.act, {}, *branch, *hidden);
  seen(stage::fc2, *hidden);
  relevance<B, T>(c.activation, b, *tape.pre, *hidden);
  seen(stage::activation, *hidden);
  relevance<B, T>(c.fc1, b, l.fc1, p, *tape.norm2.y, *tape.pre, *hidden, *branch);
  seen(stage::fc1, *branch);
  relevance<B, T>(c.norm, b, l.norm2, p, *tape.middle, tape.norm2, *branch);
  seen(stage::norm2, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, *tape.middle, r);
  seen(stage::copy2, r);
}

/// The first half of a block, in place: from R at its `middle` `[n, C]` to R at its input x. `r_attention` receives the
/// relevance of the attention probabilities as `attention` says.
template <tensor_backend B, class Observer, class T = typename B::scalar>
void attend_relevance(const composite& c, B& b, const block& l, parameter_view<const T> p,
                      const attention_rows& attention, const sample_rows<B>& rows, const_view<T> x,
                      const_view<T> middle, const block_tape<B>& tape, T* r_attention, view<T> r,
                      const Observer& observe) {
  const index n = x.rows, dim = x.cols, heads = l.heads;
  const auto seen = [&](stage s, view<T> at) { observe(s, rows, view<const T>(at)); };
  scratch<B> residual(b, n, dim), branch(b, n, dim), packed(b, n, 3 * dim);
  relevance<B, T>(c.residual, b, rows, r, x, middle, *residual, *branch);
  seen(stage::add1_residual, *residual);
  seen(stage::add1_branch, *branch);
  relevance<B, T>(c.proj, b, l.proj, p, *tape.context, {}, *branch, r);
  seen(stage::proj, r);
  const view<const T> qkv = *tape.qkv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = qkv_part(qkv, 0, heads),
                   .k = qkv_part(qkv, 1, heads),
                   .v = qkv_part(qkv, 2, heads),
                   .out = (*tape.context).split_cols(heads),
                   .a = tape.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r.split_cols(heads), r_attention, qkv_part(*packed, 0, heads), qkv_part(*packed, 1, heads),
                  qkv_part(*packed, 2, heads));
  seen(stage::attention, *packed);
  relevance<B, T>(c.qkv, b, l.qkv, p, *tape.norm1.y, *tape.qkv, *packed, *branch);
  seen(stage::qkv, *branch);
  relevance<B, T>(c.norm, b, l.norm1, p, x, tape.norm1, *branch);
  seen(stage::norm1, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, x, r);
  seen(stage::copy1, r);
}

/// From R at the output of a block to R at its input, in place in r `[T, C]`. x and y `[T, C]` are its input and
/// output; `r_attention` receives the relevance of the attention probabilities as `attention` says.
template <tensor_backend B, class Observer = no_observer, class T = typename B::scalar>
void relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const attention_rows& attention,
               const sample_rows<B>& rows, const_view<T> x, const_view<T> y, const block_tape<B>& tape, T* r_attention,
               view<T> r, const Observer& observe = {}) {
  mlp_relevance<B, Observer, T>(c, b, l, p, rows, y, tape, r, observe);
  attend_relevance<B, Observer, T>(c, b, l, p, attention, rows, x, *tape.middle, tape, r_attention, r, observe);
}

/// The same for a block of which only the class tokens were computed: from R `[S, C]` at their outputs y to R `[T, C]`
/// (=) at the input x of all tokens. `class_samples` and `rows` name the samples of the S and of the T rows.
template <tensor_backend B, class Observer = no_observer, class T = typename B::scalar>
void relevance(const composite& c, B& b, const block& l, parameter_view<const T> p, const attention_rows& attention,
               const row_list<B>& class_rows, const sample_rows<B>& class_samples, const sample_rows<B>& rows,
               const_view<T> x, const_view<T> y, const class_block_tape<B>& tape, T* r_attention, view<T> r_class,
               view<T> r, const Observer& observe = {}) {
  const index n = x.rows, samples = r_class.rows, dim = x.cols, heads = l.heads;
  const block_tape<B>& t = tape.block;
  mlp_relevance<B, Observer, T>(c, b, l, p, class_samples, y, t, r_class, observe);
  scratch<B> residual(b, samples, dim), branch(b, samples, dim), at_q(b, samples, dim), at_kv(b, n, 2 * dim),
      at_norm(b, n, dim), all_residual(b, n, dim);
  relevance<B, T>(c.residual, b, class_samples, r_class, *tape.x, *t.middle, *residual, *branch);
  observe(stage::add1_residual, class_samples, view<const T>(*residual));
  observe(stage::add1_branch, class_samples, view<const T>(*branch));
  relevance<B, T>(c.proj, b, l.proj, p, *t.context, {}, *branch, r_class);
  observe(stage::proj, class_samples, view<const T>(r_class));
  const auto part = [&](auto kv, index i) { return kv.slice_cols(i * dim, dim).split_cols(heads); };
  const view<const T> kv = *t.qkv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = (*tape.q).split_cols(heads),
                   .k = part(kv, 0),
                   .v = part(kv, 1),
                   .out = (*t.context).split_cols(heads),
                   .a = t.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r_class.split_cols(heads), r_attention, (*at_q).split_cols(heads), part(*at_kv, 0), part(*at_kv, 1));
  observe(stage::attention, class_samples, view<const T>(*at_q));
  observe(stage::attention, rows, view<const T>(*at_kv));
  const auto [weight_q, weight_kv] = core_tokensets::detail::cut_qkv(p[l.qkv.weight], true, dim);
  const auto [bias_q, bias_kv] = core_tokensets::detail::cut_qkv(p[l.qkv.bias], false, dim);
  relevance<B, T>(c.qkv.plan(), b, {.weight = weight_kv, .bias = bias_kv, .output = kv}, *t.norm1.y, *at_kv, *at_norm);
  relevance<B, T>(c.qkv.plan(), b, {.weight = weight_q, .bias = bias_q, .output = *tape.q}, *tape.norm, *at_q, *branch);
  b.scatter_add_rows(*at_norm, *branch, class_rows.data());
  observe(stage::qkv, rows, view<const T>(*at_norm));
  relevance<B, T>(c.norm, b, l.norm1, p, x, t.norm1, *at_norm);
  observe(stage::norm1, rows, view<const T>(*at_norm));
  b.fill(*all_residual, T(0));
  b.scatter_add_rows(*all_residual, *residual, class_rows.data());
  relevance<B, T>(c.copy, b, *all_residual, *at_norm, x, r);
  observe(stage::copy1, rows, view<const T>(r));
}

}  // namespace core_tokensets::lrp

// ==== core_tokensets/attribution/walk.hpp ====
// From the explained logit down through the blocks, one block a step: gradients of attention, and relevance. Only one
// block's matrices are held at a time.

#include <cmath>


namespace core_tokensets {

namespace detail {

/// |x|, for reductions
struct magnitude {
  template <class T>
  constexpr T operator()(const T& x) const {
    return x < T(0) ? -x : x;
  }
};

/// Sums of absolute values `[S]` over the rows of each sample.
template <tensor_backend B, class T = typename B::scalar>
std::vector<double> sample_magnitudes(B& b, const lrp::sample_rows<B>& rows, const_view<T> r) {
  scratch<B> of_row(b, r.rows, 1), of_sample(b, rows.samples, 1);
  b.row_reduce(fn::plus{}, magnitude{}, *of_row, r);
  b.fill(*of_sample, T(0));
  b.scatter_add_rows(*of_sample, *of_row, rows.sample_of_row.data());
  std::vector<T> host(static_cast<std::size_t>(rows.samples));
  b.download(host.data(), of_sample.data(), rows.samples);
  return {host.begin(), host.end()};
}

}  // namespace detail

/// Gradients of what is explained: after `step(i)`, `ws.attention_gradient` is that at the attention of block i (laid
/// out as `attention_layout`) and `ws.dtokens` that at the input of block i. Steps go from the last block down.
template <tensor_backend B>
class gradient_walk {
 public:
  using T = typename B::scalar;

  gradient_walk(B& b, const vit<B>& model, attribution_workspace<B>& ws) : b_(b), model_(model), ws_(ws) {
    const auto& l = model.layout();
    auto& tape = ws.tape;
    const index samples = ws.dlogits.rows(), dim = model.config().dim;
    dclass_.resize(b, samples, dim);
    scratch<B> dnorm(b, samples, dim);
    backward<B, T>(b, l.head, model.view_parameters(), {}, *tape.norm.y, *std::as_const(ws.dlogits), *dnorm);
    backward<B, T>(b, l.norm, model.view_parameters(), {}, *tape.class_out, tape.norm, *dnorm, *dclass_);
    ws.dtokens.resize(b, tape.plan.tokens(), dim);
    if (tape.keep != kept::everything) return;
    b.fill(*ws.dtokens, T(0));
    b.scatter_add_rows(*ws.dtokens, *std::as_const(dclass_), tape.plan.class_rows.data());
  }

  void step(index i) {
    auto& tape = ws_.tape;
    const auto at = static_cast<std::size_t>(i);
    const auto p = model_.view_parameters();
    const block& l = model_.layout().blocks[at];
    if (is_class_block(tape, i, model_)) {
      std::swap(tape.last.block.da, ws_.attention_gradient);
      backward<B, T>(b_, l, p, {}, tape.plan.classes, tape.plan.class_rows, *tape.stream[at], tape.last,
                     *std::as_const(dclass_), *ws_.dtokens, true);
      std::swap(tape.last.block.da, ws_.attention_gradient);
    } else {
      std::swap(tape.blocks[at].da, ws_.attention_gradient);
      backward<B, T>(b_, l, p, {}, tape.plan.all, *tape.stream[at], tape.blocks[at], true, *ws_.dtokens);
      std::swap(tape.blocks[at].da, ws_.attention_gradient);
    }
  }

 private:
  B& b_;
  const vit<B>& model_;
  attribution_workspace<B>& ws_;
  tensor<B> dclass_;
};

/// Relevance by the rules of a composite: after `step(i)`, `ws.relevance` `[T, D]` is at the input of block i and
/// `ws.attention_relevance` at its attention. The observer sees every operation. Relevance starts at the classes with
/// their gradient (1 for a logit), or with gradient times logit, as the composite says.
template <tensor_backend B, class Observer = lrp::no_observer>
class relevance_walk {
 public:
  using T = typename B::scalar;

  relevance_walk(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws,
                 const Observer& observe = {})
      : c_(c), b_(b), model_(model), ws_(ws), observe_(observe) {
    const auto& l = model.layout();
    const auto p = model.view_parameters();
    auto& tape = ws.tape;
    const index samples = ws.dlogits.rows(), dim = model.config().dim;
    scratch<B> start(b, samples, ws.dlogits.cols());
    b.map(fn::copy{}, *start, *std::as_const(ws.dlogits));
    if (c.start == lrp::start_value::logit) b.map(fn::multiply{}, *start, *std::as_const(tape.logits));
    r_class_.resize(b, samples, dim);
    lrp::relevance<B, T>(c.head, b, l.head, p, *tape.norm.y, *std::as_const(tape.logits), *start, *r_class_);
    seen(lrp::stage::head, ws.class_rows, *r_class_);
    lrp::choice_relevance<B, T>(c.copy, b, *tape.norm.y, *r_class_);
    seen(lrp::stage::choice, ws.class_rows, *r_class_);
    lrp::relevance<B, T>(c.norm, b, l.norm, p, *tape.class_out, tape.norm, *r_class_);
    seen(lrp::stage::norm, ws.class_rows, *r_class_);
    ws.relevance.resize(b, tape.plan.tokens(), dim);
    if (tape.keep != kept::everything) return;
    b.fill(*ws.relevance, T(0));
    b.scatter_add_rows(*ws.relevance, *std::as_const(r_class_), tape.plan.class_rows.data());
  }

  void step(index i) {
    auto& tape = ws_.tape;
    const auto at = static_cast<std::size_t>(i);
    const auto p = model_.view_parameters();
    const block& l = model_.layout().blocks[at];
    ws_.attention_relevance.resize(b_, 1, tape_of_block(tape, i, model_).a.size());
    T* r_attention = ws_.attention_relevance.data();
    if (is_class_block(tape, i, model_)) {
      lrp::relevance<B, Observer, T>(c_, b_, l, p, tape.plan.classes, tape.plan.class_rows, ws_.class_rows,
                                     ws_.all_rows, *tape.stream[at], *tape.class_out, tape.last, r_attention, *r_class_,
                                     *ws_.relevance, observe_);
    } else {
      lrp::relevance<B, Observer, T>(c_, b_, l, p, tape.plan.all, ws_.all_rows, *tape.stream[at], *output_of(at),
                                     tape.blocks[at], r_attention, *ws_.relevance, observe_);
    }
  }

 private:
  const tensor<B>& output_of(std::size_t block) const { return ws_.tape.stream[block + 1]; }
  void seen(lrp::stage s, const lrp::sample_rows<B>& rows, view<const T> r) const { observe_(s, rows, r); }

  lrp::composite c_;
  B& b_;
  const vit<B>& model_;
  attribution_workspace<B>& ws_;
  Observer observe_;
  tensor<B> r_class_;
};

/// One pass from the logit to the tokens (`ws.relevance` `[T, D]`). `visit(i)` is called behind each block, from the
/// last to the first.
template <tensor_backend B, class Visit, class Observer = lrp::no_observer>
void propagate(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws, const Visit& visit,
               const Observer& observe = {}) {
  relevance_walk<B, Observer> walk(c, b, model, ws, observe);
  for (index i = model.config().depth; i-- > 0;) {
    walk.step(i);
    visit(i);
  }
}

/// `Error` unless relevance at the tokens (`ws.relevance`) is finite in every sample: by rules that do not conserve it
/// may grow without bound, and what is clamped at 0 behind it would hide that.
template <tensor_backend B>
void require_finite(const char* method, const lrp::composite& c, B& b, const attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  const auto sizes = detail::sample_magnitudes<B, T>(b, ws.all_rows, *ws.relevance);
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    require(std::isfinite(sizes[s]), method, ": relevance by the rules '", c.name, "' is not finite in sample ", s,
            "; expected rules that fit the model");
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/atman_first_order.hpp ====
// AtMan to first order: the slope of the loss in the factor of every key at once, from one backward pass.


namespace core_tokensets {

/// factor times d log-probability / d m_i at m = 1, where m_i multiplies the scores of key i in every block: the sum
/// over blocks, heads and queries of dL/dS[q, i] (S[q, i] - min S[q, :]), or without `shift` of dL/dS[q, i] S[q, i].
struct atman_first_order {
  static constexpr const char* name = "atman_first_order";
  double factor = 0.9;
  bool shift = true;
  watched watch = watched::loss;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("factor", self.factor);
    visit("shift", self.shift);
    visit("watch", self.watch);
  }
};

namespace detail {
/// z = z + minus_least
struct shift_score {
  template <class T>
  constexpr void operator()(T& z, const T& minus_least) const {
    z += minus_least;
  }
};

/// slopes `[T, 1]` += those of one block, from its attention a, the gradient da (overwritten) and queries and keys.
template <tensor_backend B, class T = typename B::scalar>
void add_key_slopes(B& b, const attention_rows& rows, const_view<T> q, const_view<T> k, T scale, bool shift, const T* a,
                    T* da, T* slopes) {
  const index heads = q.n1;
  ops::for_each_sample(b, rows.count(), [&](index s) {
    const index nq = rows.queries().length(s), nk = rows.keys().length(s);
    scratch<B> memory(b, heads * nq, nk), column_memory(b, heads * nq, 1);
    const view<T> z(memory.data(), 1, heads, nq, nk, 0, nq * nk, nk),
        ds = rows.matrices(da, s, heads), column(column_memory.data(), 1, heads, nq, 1, 0, nq, 1);
    const view<const T> as = rows.matrices(a, s, heads);
    b.row_reduce(fn::plus{}, fn::times{}, column, as, view<const T>(ds));
    b.map(fn::softmax_gradient{}, ds, as, view<const T>(ds), view<const T>(column));
    b.gemm(q.slice_rows(rows.queries().begin(s), nq), k.slice_rows(rows.keys().begin(s), nk), z,
           {.transpose_b = true, .alpha = double(scale)});
    if (shift) {
      b.row_reduce(fn::maximum{}, fn::negated{}, column, view<const T>(z));
      b.map(shift_score{}, z, view<const T>(column));
    }
    b.col_reduce(fn::plus{}, fn::times{}, T(1), view<T>(slopes + rows.keys().begin(s), 1, nk),
                 view<const T>(ds.data, heads * nq, nk), view<const T>(z.data, heads * nq, nk));
  });
}
}  // namespace detail

template <tensor_backend B>
std::vector<double> attribute(const atman_first_order& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, watched_target(t, method.watch), ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  const auto& tape = ws.tape;
  const index heads = model.config().heads, dim = model.config().dim;
  const T scale = attention_scale<T>(dim / heads);
  tensor<B> slopes(b, tape.plan.tokens(), 1);
  b.fill(*slopes, T(0));
  for (index i = model.config().depth; i-- > 0;) {
    gradients.step(i);
    const bool last = is_class_block(tape, i, model);
    const view<const T> packed = *tape_of_block(tape, i, model).qkv;
    const view<const T> q = last ? (*tape.last.q).split_cols(heads) : qkv_part(packed, 0, heads),
                        k = last ? packed.slice_cols(0, dim).split_cols(heads) : qkv_part(packed, 1, heads);
    detail::add_key_slopes<B, T>(b, attention_layout(tape, i, model), q, k, scale, method.shift,
                                 tape_of_block(tape, i, model).a.data(), ws.attention_gradient.data(), slopes.data());
  }
  auto relevance = patch_entries(slopes.to_host(b), tape.plan);
  for (double& r : relevance) r *= method.factor;
  return relevance;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/attention.hpp ====
// Where the class token looks: the raw attention of the last block.


namespace core_tokensets {

/// Class-token row of the last block's attention, mean over heads. Does not depend on the target.
struct last_attention {
  static constexpr const char* name = "attention";
};

template <tensor_backend B>
std::vector<double> attribute(const last_attention&, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::attention);
  const index last = model.config().depth - 1;
  return mean_class_row(b, ws.tape.plan, attention_layout(ws.tape, last, model), model.config().heads,
                        std::as_const(tape_of_block(ws.tape, last, model).a).data());
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/authors_atman.hpp ====
// The variant of AtMan in the published code of core tokensets (Paul et al. 2024), as it is once two slips are
// repaired: for audits of what that code ranks patches by.


namespace core_tokensets {

/// Patches are walked in order, those skipped that were a neighbour of one walked before. The loss is measured with the
/// patch and its neighbours suppressed (without shift, by 1 - factor cos), and every patch is scored by its cosine to
/// the one patch of the largest loss: the scores are similarities, no losses.
struct authors_atman {
  static constexpr const char* name = "authors_atman";
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
        const index n = static_cast<index>(out.rows.size()) - 1;
        out.factors.push_back(1);
        for (index j = 0; j < n; ++j) out.factors.push_back(suppression(suppress, cosine[s], n, i, j));
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

// ==== core_tokensets/attribution/generic_attention.hpp ====
// Generic attention explainability (Chefer, Gur & Wolf, ICCV 2021) for self-attention: attention times its gradient.


namespace core_tokensets {

/// R = I, then R += mean_h max(0, G A) R from the first block (or `start_layer`) to the last; class-token row.
struct generic_attention {
  static constexpr const char* name = "generic_attention";
  index start_layer = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const generic_attention& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(generic_attention::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    gradients.step(i);
    b.map(detail::positive_product{}, *ws.attention_gradient, *std::as_const(tape_of_block(ws.tape, i, model).a));
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_gradient.data());
  }
  return rows.patches(b);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/grad_cam.hpp ====
// Grad-CAM on tokens: heads of the last block weighted by the mean gradient of the class-token row (Chefer 2021,
// baselines; Selvaraju et al. 2017 for convolutions).


namespace core_tokensets {

/// w_h = mean_j G[h, 0, j], relevance = max(0, mean_h(w_h A[h, 0, :])) over patches j, in the last block.
struct grad_cam {
  static constexpr const char* name = "grad_cam";
};

template <tensor_backend B>
std::vector<double> attribute(const grad_cam&, B& b, const vit<B>& model, const token_batch& batch, const target& t,
                              attribution_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const index heads = model.config().heads, last = model.config().depth - 1;
  gradient_walk<B>(b, model, ws).step(last);
  const attention_rows& layout = attention_layout(ws.tape, last, model);
  const auto a = tape_of_block(ws.tape, last, model).a.to_host(b), g = ws.attention_gradient.to_host(b);
  std::vector<double> relevance;
  for (index s = 0; s < batch.samples(); ++s) {
    const view<const T> as = layout.matrices(a.data(), s, heads), gs = layout.matrices(g.data(), s, heads);
    const index patches = as.cols - 1;
    std::vector<double> cam(static_cast<std::size_t>(patches), 0.0);
    for (index h = 0; h < heads; ++h) {
      double weight = 0;
      for (index c = 1; c <= patches; ++c) weight += double(gs.matrix(0, h)(0, c)) / static_cast<double>(patches);
      for (index c = 1; c <= patches; ++c)
        cam[static_cast<std::size_t>(c - 1)] += weight * double(as.matrix(0, h)(0, c)) / static_cast<double>(heads);
    }
    for (const double c : cam) relevance.push_back(std::max(c, 0.0));
  }
  return relevance;
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/chefer_relevance.hpp ====
// The rules of Chefer, Gur & Wolf (CVPR 2021) operation by operation, for the tokens of one sample: thin uses of the
// rules in nn/lrp/. `lrp::chefer()` is the composite of them.


namespace core_tokensets::chefer {

namespace detail {
/// out = x sd(r1, x) + x sd(r2, x)
struct clone {
  template <class T>
  constexpr void operator()(T& out, const T& r1, const T& r2, const T& x) const {
    out = x * (fn::safe_divide(r1, x) + fn::safe_divide(r2, x));
  }
};
}  // namespace detail

/// The weight `[Out, In]` of a linear layer, as `linear_relevance` takes it.
template <tensor_backend B>
struct split_weight {
  view<const typename B::scalar> whole;
  split_weight(B&, const_view<typename B::scalar> w) : whole(w) {}
};

/// Linear map (bias ignored): Z = W+ x+ + W- x-, S = R / Z, R_in = x+ (W+^T S) + x- (W-^T S).
template <tensor_backend B, class T = typename B::scalar>
void linear_relevance(B& b, const split_weight<B>& w, const_view<T> x, const_view<T> r, view<T> r_in) {
  lrp::relevance<B, T>(lrp::chefer_linear{}.plan(), b, {.weight = w.whole}, x, r, r_in);
}

/// Sum = a + other: each part takes its share of R, and the two totals are made to add up to the total of R again.
template <tensor_backend B, class T = typename B::scalar>
void add_relevance(B& b, const_view<T> r, const_view<T> a, const_view<T> sum, view<T> ra, view<T> rb) {
  lrp::sample_rows<B> one;
  one.assign(b, sequences{{0, r.rows}});
  lrp::relevance<B, T>(lrp::chefer().residual, b, one, r, a, sum, ra, rb);
}

/// Relevance of a product of attention and values, and through the scores: from R at A v `[n, C]` to R at packed qkv
/// `[n, 3 C]` and at A (`r_attention`, `[H, n, n]`).
template <tensor_backend B, class T = typename B::scalar>
void attention_relevance(B& b, index heads, const_view<T> qkv, const_view<T> a, const_view<T> context, const_view<T> r,
                         view<T> r_attention, view<T> r_qkv) {
  const sequences one{{0, qkv.rows}};
  lrp::relevance<B, T>(lrp::chefer().attention, b, attention_rows(one),
                       {.q = qkv_part(qkv, 0, heads),
                        .k = qkv_part(qkv, 1, heads),
                        .v = qkv_part(qkv, 2, heads),
                        .out = context.split_cols(heads),
                        .a = a.data},
                       r.split_cols(heads), r_attention.data, qkv_part(r_qkv, 0, heads), qkv_part(r_qkv, 1, heads),
                       qkv_part(r_qkv, 2, heads));
}

}  // namespace core_tokensets::chefer

// ==== core_tokensets/attribution/grad_lrp.hpp ====
// GradLRP, the "transformer attribution" of Chefer, Gur & Wolf (CVPR 2021), for any number of samples at once.


namespace core_tokensets {

/// Per block C = mean_h max(0, dlogit/dA * R_A) with R_A the relevance of attention by the rules of a composite, plus
/// identity; product over blocks from `start_layer`; class-token row.
struct grad_lrp {
  static constexpr const char* name = "grad_lrp";
  index start_layer = 0;
  lrp::preset rules = lrp::preset::chefer;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
    visit("rules", self.rules);
  }
};

/// `propagate` with Chefer's rules.
template <tensor_backend B, class Visit>
void chefer_relevance(B& b, const vit<B>& model, attribution_workspace<B>& ws, const Visit& visit) {
  propagate(lrp::chefer(), b, model, ws, visit);
}

/// Gradient and relevance go down the blocks together, so that the matrices of one block only are held.
template <tensor_backend B>
std::vector<double> attribute(const grad_lrp& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(grad_lrp::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  gradient_walk<B> gradients(b, model, ws);
  const lrp::composite rules = lrp::make(method.rules);
  relevance_walk<B> relevance(rules, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    gradients.step(i);
    relevance.step(i);
    b.map(detail::positive_product{}, *ws.attention_gradient, *std::as_const(ws.attention_relevance));
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_gradient.data());
  }
  require_finite(grad_lrp::name, rules, b, ws);
  return rows.patches(b);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/gradient_x_input.hpp ====
// Gradient times input (Shrikumar et al. 2016): the control that every auditor asks for.


namespace core_tokensets {

/// Sum over the pixels of a patch of pixel times gradient; with `magnitude`, the Euclidean norm of the gradient instead
/// (saliency, Simonyan et al. 2014).
struct gradient_x_input {
  static constexpr const char* name = "gradient_x_input";
  bool magnitude = false;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("magnitude", self.magnitude);
  }
};

/// After `explain_forward` with `kept::gradients`: gradient of what is explained at the patches `[P, patch_dim]` (=),
/// and at the tokens (`ws.dtokens`).
template <tensor_backend B>
void patch_gradient(B& b, const vit<B>& model, attribution_workspace<B>& ws, tensor<B>& out) {
  using T = typename B::scalar;
  out.resize(b, ws.tape.patches.rows(), ws.tape.patches.cols());
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.dtokens, *out);
}

template <tensor_backend B>
std::vector<double> attribute(const gradient_x_input& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::gradients);
  tensor<B> gradient, sums(b, batch.tokens(), 1);
  patch_gradient(b, model, ws, gradient);
  if (method.magnitude) {
    b.row_reduce(fn::plus{}, fn::square{}, *sums, *std::as_const(gradient));
  } else {
    b.row_reduce(fn::plus{}, fn::times{}, *sums, *std::as_const(gradient), *std::as_const(ws.tape.patches));
  }
  const auto host = sums.to_host(b);
  std::vector<double> relevance(host.begin(), host.end());
  if (method.magnitude) {
    for (double& r : relevance) r = std::sqrt(r);
  }
  return relevance;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/copies.hpp ====
// Several copies of the samples of a batch as one batch, for methods that change the patches themselves (noise, paths).


namespace core_tokensets {

/// The samples named by `samples`, in that order and as often as they are named.
inline token_batch copy_samples(const token_batch& from, std::span<const index> samples) {
  token_batch out;
  out.patch_dim = from.patch_dim;
  for (const index s : samples) {
    const auto at = static_cast<std::size_t>(s);
    const index begin = from.offsets[at], end = from.offsets[at + 1];
    out.patches.insert(out.patches.end(), from.patches.begin() + begin * from.patch_dim,
                       from.patches.begin() + end * from.patch_dim);
    out.positions.insert(out.positions.end(), from.positions.begin() + begin, from.positions.begin() + end);
    if (!from.scale.empty()) out.scale.insert(out.scale.end(), from.scale.begin() + begin, from.scale.begin() + end);
    if (!from.targets.empty()) out.targets.push_back(from.targets[at]);
    if (!from.weights.empty()) out.weights.push_back(from.weights[at]);
    out.offsets.push_back(static_cast<index>(out.positions.size()));
  }
  return out;
}

/// What was settled for the samples of a batch, for such copies of them.
inline target repeat_target(const settled_target& settled, std::span<const index> samples) {
  target t{settled.what, explained_class::given};
  for (const index s : samples) {
    t.classes.push_back(settled.classes[static_cast<std::size_t>(s)]);
    if (settled.what == objective::margin) t.against.push_back(settled.others[static_cast<std::size_t>(s)]);
  }
  return t;
}

/// Calls `body(copies, number)` for `count` copies of every sample, cut into parts of at most `most_tokens` tokens (or
/// one sample): `copies` are the samples of a part and `number` which of its copies each is.
template <class Body>
void for_each_part(const token_batch& batch, index count, index most_tokens, const Body& body) {
  std::vector<index> copies, number;
  index tokens = 0;
  const auto flush = [&] {
    if (!copies.empty()) body(std::span<const index>(copies), std::span<const index>(number));
    copies.clear(), number.clear(), tokens = 0;
  };
  for (index s = 0; s < batch.samples(); ++s) {
    const index n = batch.offsets[static_cast<std::size_t>(s + 1)] - batch.offsets[static_cast<std::size_t>(s)] + 1;
    for (index c = 0; c < count; ++c) {
      if (tokens + n > most_tokens) flush();
      copies.push_back(s), number.push_back(c), tokens += n;
    }
  }
  flush();
}

/// Settles `t` for the batch itself, before copies of it are changed.
template <tensor_backend B>
settled_target settle_batch(B& b, const vit<B>& model, const token_batch& batch, const target& t,
                            attribution_workspace<B>& ws) {
  explain_forward(b, model, batch, t, ws, kept::logits);
  return ws.explained;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/integrated_gradients.hpp ====
// Integrated gradients (Sundararajan, Taly & Yan, ICML 2017), all steps of many samples as ragged batches.

#include <numbers>


namespace core_tokensets {

/// Where the straight path to the input starts: pixels of one value, or patch embeddings of 0 (a `zero` missing token).
enum class path_start { pixels, embeddings };

template <>
inline constexpr std::array words<path_start>{"pixels", "embeddings"};

/// (x - x') times the mean gradient on the path from x' to x, by Gauss-Legendre quadrature with `steps` points. The sum
/// over the patches is f(x) - f(x') but for the error of the quadrature.
struct integrated_gradients {
  static constexpr const char* name = "integrated_gradients";
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
      b.map(fn::multiply{}, *gradient, *std::as_const(ws.tape.embeddings));
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
  return relevance;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/lrp.hpp ====
// Layer-wise relevance propagation from what is explained to tokens or pixels, by the rules of any composite.

#include <cmath>


namespace core_tokensets {

/// Where relevance is read: at the tokens (patch and position together), at the patch embeddings (the share of
/// positions left out), or at the pixels; summed up for each patch.
enum class relevance_level { tokens, embeddings, pixels };

template <>
inline constexpr std::array words<relevance_level>{"tokens", "embeddings", "pixels"};

/// LRP by the rules of `composite`. `limit`: relevance may grow to so many times its size at the start (sums of
/// absolute values over a sample, at the input of any block); more is an `Error`, since the rules then do not fit the
/// model.
struct lrp_attribution {
  static constexpr const char* name = "lrp";
  lrp::preset rules = lrp::preset::attn_lrp;
  relevance_level level = relevance_level::tokens;
  double limit = 1e12;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("rules", self.rules);
    visit("level", self.level);
    visit("limit", self.limit);
  }
};

/// The same for a composite of one's own.
struct composite_attribution {
  static constexpr const char* name = "lrp";
  lrp::composite rules = lrp::attn_lrp();
  relevance_level level = relevance_level::tokens;
  double limit = 1e12;
};

namespace detail {

/// Least and largest number of each sample's patches, at each of its rows `[P]`.
inline std::pair<std::vector<double>, std::vector<double>> pixel_bounds(const token_batch& batch) {
  std::pair<std::vector<double>, std::vector<double>> bounds;
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    const auto begin = batch.patches.begin() + batch.offsets[s] * batch.patch_dim,
               end = batch.patches.begin() + batch.offsets[s + 1] * batch.patch_dim;
    const auto count = static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]);
    if (count == 0) continue;
    const auto [low, high] = std::minmax_element(begin, end);
    bounds.first.insert(bounds.first.end(), count, double(*low));
    bounds.second.insert(bounds.second.end(), count, double(*high));
  }
  return bounds;
}

template <tensor_backend B, class T = typename B::scalar>
void upload_column(B& b, const std::vector<double>& values, tensor<B>& column) {
  const std::vector<T> host(values.begin(), values.end());
  column.assign(b, static_cast<index>(host.size()), 1, host.data());
}

}  // namespace detail

/// From relevance at the tokens (`ws.relevance`) to the patch embeddings `[P, D]` (=): the share of position embeddings
/// and everything of the class token is left out.
template <tensor_backend B, class Observer = lrp::no_observer, class T = typename B::scalar>
void embedding_relevance(const lrp::composite& c, B& b, const vit<B>& model, attribution_workspace<B>& ws, view<T> out,
                         const Observer& observe = {}) {
  const auto& plan = ws.tape.plan;
  const index tokens = plan.tokens(), dim = model.config().dim;
  scratch<B> parts(b, tokens, dim), at_part(b, tokens, dim), at_position(b, tokens, dim);
  b.fill(*parts, T(0));
  b.scatter_add_rows(*parts, *std::as_const(ws.tape.embeddings), plan.patch_rows.data());
  const view<const T> cls = model.view_parameters()[model.layout().embedding.class_token];
  b.scatter_add_rows(*parts, view<const T>(cls.data, plan.class_rows.size(), cls.cols, 0), plan.class_rows.data());
  lrp::relevance<B, T>(c.positions, b, ws.all_rows, *std::as_const(ws.relevance), *parts, *ws.tape.stream[0], *at_part,
                       *at_position);
  observe(lrp::stage::embedding_share, ws.all_rows, view<const T>(*at_part));
  observe(lrp::stage::positions_share, ws.all_rows, view<const T>(*at_position));
  b.gather_rows(out, *at_part, plan.patch_rows.data());
}

/// From relevance at the patch embeddings `[P, D]` to the pixels `[P, patch_dim]` (=).
template <tensor_backend B, class T = typename B::scalar>
void pixel_relevance(const lrp::composite& c, B& b, const vit<B>& model, const token_batch& batch,
                     attribution_workspace<B>& ws, const_view<T> r, view<T> out) {
  const auto [low, high] = detail::pixel_bounds(batch);
  tensor<B> lows, highs;
  detail::upload_column(b, low, lows);
  detail::upload_column(b, high, highs);
  const auto plan = c.patch_embed.plan_for(model.config().image.channels);
  const auto p = model.view_parameters();
  const linear& l = model.layout().embedding.proj;
  lrp::linear_operands<T> layer{.weight = p[l.weight], .bias = p[l.bias]};
  if (plan.bounds_of_sample) layer.low = *std::as_const(lows), layer.high = *std::as_const(highs);
  lrp::relevance<B, T>(plan, b, layer, *std::as_const(ws.tape.patches), r, out);
}

/// Runs the pass down to the tokens and returns relevance `[P, D]` or `[P, patch_dim]` of every patch at `level`.
template <tensor_backend B>
void lrp_relevance(const composite_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                   const target& t, attribution_workspace<B>& ws, tensor<B>& out) {
  using T = typename B::scalar;
  explain_forward(b, model, batch, t, ws, kept::gradients);
  std::vector<double> start;
  const auto guard = [&](lrp::stage s, const auto& rows, const auto& r) {
    if (s == lrp::stage::choice) start = detail::sample_magnitudes<B, T>(b, rows, r);
  };
  relevance_walk<B, decltype(guard)> walk(method.rules, b, model, ws, guard);
  for (index i = model.config().depth; i-- > 0;) {
    walk.step(i);
    const auto now = detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.relevance));
    for (std::size_t s = 0; s < now.size(); ++s) {
      require(now[s] <= method.limit * start[s] || now[s] == 0, "lrp: relevance by the rules '", method.rules.name,
              "' grew from ", start[s], " to ", now[s], " at block ", i, " of sample ", s, "; the limit is ",
              method.limit, " times");
    }
  }
  const auto& plan = ws.tape.plan;
  out.resize(b, batch.tokens(), model.config().dim);
  if (method.level == relevance_level::tokens) {
    b.gather_rows(*out, *std::as_const(ws.relevance), plan.patch_rows.data());
    return;
  }
  embedding_relevance(method.rules, b, model, ws, *out);
  if (method.level == relevance_level::embeddings) return;
  tensor<B> pixels(b, batch.tokens(), batch.patch_dim);
  pixel_relevance<B, T>(method.rules, b, model, batch, ws, *std::as_const(out), *pixels);
  out = std::move(pixels);
}

template <tensor_backend B>
std::vector<double> attribute(const composite_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  tensor<B> relevance, sums(b, batch.tokens(), 1);
  lrp_relevance(method, b, model, batch, t, ws, relevance);
  b.row_reduce(fn::plus{}, fn::value{}, *sums, *std::as_const(relevance));
  const auto host = sums.to_host(b);
  return {host.begin(), host.end()};
}

template <tensor_backend B>
std::vector<double> attribute(const lrp_attribution& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return attribute(composite_attribution{lrp::make(method.rules), method.level, method.limit}, b, model, batch, t, ws);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/lrp_rollout.hpp ====
// Rollout of the relevance of attention instead of attention itself (Chefer, Gur & Wolf 2021, ablation).


namespace core_tokensets {

/// Per block C = mean_h max(0, R_A), plus identity; product over blocks from `start_layer`; class-token row. `grad_lrp`
/// without its gradient.
struct lrp_rollout {
  static constexpr const char* name = "lrp_rollout";
  index start_layer = 0;
  lrp::preset rules = lrp::preset::chefer;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
    visit("rules", self.rules);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const lrp_rollout& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(lrp_rollout::name, method.start_layer, model.config().depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const lrp::composite rules = lrp::make(method.rules);
  relevance_walk<B> relevance(rules, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    relevance.step(i);
    b.map(detail::keep_positive{}, *ws.attention_relevance);
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads, ws.attention_relevance.data());
  }
  require_finite(lrp_rollout::name, rules, b, ws);
  return rows.patches(b);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/partial_lrp.hpp ====
// Partial LRP: relevance of the attention of one block, without going further (Voita et al., ACL 2019).


namespace core_tokensets {

/// Class-token row of mean_h max(0, R_A) in one block; `block` counts from the last one (0). With `gradient`,
/// mean_h max(0, G R_A). Chefer's repository reports it with the rules `chefer_original`.
struct partial_lrp {
  static constexpr const char* name = "partial_lrp";
  index block_from_last = 0;
  bool gradient = false;
  lrp::preset rules = lrp::preset::chefer_original;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("block_from_last", self.block_from_last);
    visit("gradient", self.gradient);
    visit("rules", self.rules);
  }
};

template <tensor_backend B>
std::vector<double> attribute(const partial_lrp& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  const index depth = model.config().depth, stop = depth - 1 - method.block_from_last;
  detail::check_start_layer(partial_lrp::name, stop, depth);
  explain_forward(b, model, batch, t, ws, kept::gradients);
  const lrp::composite rules = lrp::make(method.rules);
  relevance_walk<B> relevance(rules, b, model, ws);
  for (index i = depth; i-- > stop;) relevance.step(i);
  require_finite(partial_lrp::name, rules, b, ws);
  if (method.gradient) {
    gradient_walk<B> gradients(b, model, ws);
    for (index i = depth; i-- > stop;) gradients.step(i);
    b.map(detail::positive_product{}, *ws.attention_relevance, *std::as_const(ws.attention_gradient));
  } else {
    b.map(detail::keep_positive{}, *ws.attention_relevance);
  }
  return mean_class_row(b, ws.tape.plan, attention_layout(ws.tape, stop, model), model.config().heads,
                        std::as_const(ws.attention_relevance).data());
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/random.hpp ====
// The control that every comparison needs: relevance by dice.


namespace core_tokensets {

/// Uniform numbers that follow from the seed and from the sample itself, so that they do not repeat from batch to batch
/// and do not depend on what else is in one.
struct random_relevance {
  static constexpr const char* name = "random";
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

// ==== core_tokensets/attribution/rollout.hpp ====
// Attention rollout (Abnar & Zuidema, ACL 2020), with the fusions of heads and the discarding of low attention that its
// users added (jacobgil/vit-explain).

#include <numeric>


namespace core_tokensets {

/// How the attention of several heads becomes one matrix.
enum class head_fusion { mean, max, min };

template <>
inline constexpr std::array words<head_fusion>{"mean", "max", "min"};

/// Product over blocks, from `start_layer`, of fused attention plus identity, rows divided by their sums; class-token
/// row. `discard` sets that share of the smallest entries of each fused matrix to 0 first, but never that of the class
/// token with itself. Does not depend on the target.
struct rollout {
  static constexpr const char* name = "rollout";
  index start_layer = 0;
  head_fusion fusion = head_fusion::mean;
  double discard = 0;

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("start_layer", self.start_layer);
    visit("fusion", self.fusion);
    visit("discard", self.discard);
  }
};

namespace detail {

/// One matrix `[nq, nk]` from those of all heads, its smallest entries discarded.
template <class T>
std::vector<double> fused_attention(const rollout& method, const view<const T>& a) {
  std::vector<double> fused;
  for (index r = 0; r < a.rows; ++r) {
    for (index c = 0; c < a.cols; ++c) {
      double value = double(a.matrix(0, 0)(r, c));
      for (index h = 1; h < a.n1; ++h) {
        const double next = double(a.matrix(0, h)(r, c));
        value = method.fusion == head_fusion::mean  ? value + next
                : method.fusion == head_fusion::max ? std::max(value, next)
                                                    : std::min(value, next);
      }
      fused.push_back(method.fusion == head_fusion::mean ? value / static_cast<double>(a.n1) : value);
    }
  }
  std::vector<std::size_t> order(fused.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return fused[i] < fused[j]; });
  order.resize(static_cast<std::size_t>(method.discard * static_cast<double>(fused.size())));
  for (const std::size_t i : order) fused[i] = i == 0 ? fused[i] : 0;
  return fused;
}

/// row <- row D (F + I), D dividing the rows of F + I by their sums; F `[nq, nk]` meets the first nq entries.
inline void carry_normalised(const std::vector<double>& fused, index nq, std::vector<double>& row) {
  const std::size_t n = row.size();
  std::vector<double> next(n, 0.0);
  for (std::size_t r = 0; r < static_cast<std::size_t>(nq); ++r) {
    if (row[r] == 0) continue;
    const double* f = fused.data() + r * n;
    const double factor = row[r] / (1.0 + std::accumulate(f, f + n, 0.0));
    next[r] += factor;
    for (std::size_t c = 0; c < n; ++c) next[c] += factor * f[c];
  }
  row.swap(next);
}

/// On the host, for fusions that are not linear in the heads.
template <tensor_backend B>
std::vector<double> general_rollout(const rollout& method, B& b, const vit<B>& model, attribution_workspace<B>& ws) {
  const auto& plan = ws.tape.plan;
  std::vector<std::vector<double>> rows;
  for (index s = 0; s < plan.rows().count(); ++s) {
    rows.emplace_back(static_cast<std::size_t>(plan.rows().length(s)), 0.0);
    rows.back()[0] = 1;
  }
  for (index i = model.config().depth; i-- > method.start_layer;) {
    const auto& layout = attention_layout(ws.tape, i, model);
    const auto a = tape_of_block(ws.tape, i, model).a.to_host(b);
    ops::for_each_sample(b, layout.count(), [&](index s) {
      carry_normalised(fused_attention(method, layout.matrices(a.data(), s, model.config().heads)),
                       layout.queries().length(s), rows[static_cast<std::size_t>(s)]);
    });
  }
  std::vector<double> relevance;
  for (const auto& row : rows) relevance.insert(relevance.end(), row.begin() + 1, row.end());
  return relevance;
}

}  // namespace detail

/// `Error`: a start layer that the model does not have, a discarded share outside of [0, 1).
template <tensor_backend B>
std::vector<double> attribute(const rollout& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  detail::check_start_layer(rollout::name, method.start_layer, model.config().depth);
  require(method.discard >= 0 && method.discard < 1, "rollout: discard ", method.discard,
          ", expected 0 <= discard < 1");
  explain_forward(b, model, batch, t, ws, kept::attention);
  if (method.fusion != head_fusion::mean || method.discard > 0) return detail::general_rollout(method, b, model, ws);
  class_row_product<B> rows(b, ws.tape.plan);
  for (index i = model.config().depth; i-- > method.start_layer;) {
    rows.scale(b, 0.5);  // rows of attention plus identity sum to 2
    rows.add_product(b, attention_layout(ws.tape, i, model), model.config().heads,
                     tape_of_block(ws.tape, i, model).a.data());
  }
  return rows.patches(b);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/smooth_grad.hpp ====
// SmoothGrad (Smilkov et al. 2017) around any method: the mean of its relevance over noisy copies of the input.


namespace core_tokensets {

/// `sigma` is the deviation of the noise as a share of the range of a sample's numbers; `samples` copies are averaged.
/// The class is settled on the input without noise.
template <class Method = gradient_x_input>
struct smooth_grad {
  static constexpr const char* name = "smooth_grad";
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
};

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

template <class Method, tensor_backend B>
std::vector<double> attribute(const smooth_grad<Method>& smooth, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  require(smooth.samples > 0 && smooth.sigma >= 0, "smooth_grad: ", smooth.samples, " samples with deviation ",
          smooth.sigma, ", expected at least 1 and 0");
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

// ==== core_tokensets/attribution/methods.hpp ====
// All attribution methods under one type, and by name.

#include <string>
#include <string_view>
#include <variant>
#include <vector>


namespace core_tokensets {

/// Every method that works on its own.
using plain_method = std::variant<random_relevance, last_attention, rollout, grad_cam, gradient_x_input,
                                  integrated_gradients, lrp_attribution, partial_lrp, lrp_rollout, grad_lrp,
                                  generic_attention, atman, atman_first_order, occlusion, authors_atman>;

template <tensor_backend B>
std::vector<double> attribute(const plain_method& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return std::visit([&](const auto& m) { return attribute(m, b, model, batch, t, ws); }, method);
}

/// Any method: a plain one, or SmoothGrad around a plain one.
using attribution_method =
    std::variant<random_relevance, last_attention, rollout, grad_cam, gradient_x_input, integrated_gradients,
                 lrp_attribution, partial_lrp, lrp_rollout, grad_lrp, generic_attention, atman, atman_first_order,
                 occlusion, authors_atman, smooth_grad<plain_method>>;

/// Relevance `[P]` of every patch of the batch for what `t` says is explained in each sample.
template <tensor_backend B>
std::vector<double> attribute(const attribution_method& method, B& b, const vit<B>& model, const token_batch& batch,
                              const target& t, attribution_workspace<B>& ws) {
  return std::visit([&](const auto& m) { return attribute(m, b, model, batch, t, ws); }, method);
}

namespace detail {

/// The alternative of a variant of methods with that name. `Error` listing all names.
template <class Variant, std::size_t I = 0>
Variant named_method(std::string_view name, const std::string& seen = "") {
  if constexpr (I == std::variant_size_v<Variant>) {
    fail("attribution: no method is named '", name, "'; there are ", seen);
  } else {
    using method = std::variant_alternative_t<I, Variant>;
    if (name == method::name) return method{};
    return named_method<Variant, I + 1>(name, seen + (I ? ", " : "") + method::name);
  }
}

/// "name" or "name:option=value:option=value".
template <class Variant>
Variant parse_method(std::string_view text) {
  auto colon = text.find(':');
  Variant method = named_method<Variant>(text.substr(0, colon));
  while (colon != text.npos) {
    text.remove_prefix(colon + 1);
    colon = text.find(':');
    const std::string_view option = text.substr(0, colon);
    const auto equals = option.find('=');
    require(equals != option.npos, "attribution: option '", option, "', expected name=value");
    std::visit([&](auto& m) { set_option(m, option.substr(0, equals), option.substr(equals + 1), m.name); }, method);
  }
  return method;
}

}  // namespace detail

/// The method of a text: its name, then its options, "atman:factor=0.5:neighbours=patch". SmoothGrad takes another
/// method in brackets, "smooth_grad(grad_cam):samples=8", and gradient_x_input without. `Error`: an unknown name or
/// option (lists the choices), a value that does not fit.
inline attribution_method parse_attribution(std::string_view text) {
  constexpr std::string_view wrapper = "smooth_grad(";
  if (!text.starts_with(wrapper)) {
    attribution_method method = detail::parse_method<attribution_method>(text);
    if (auto* smooth = std::get_if<smooth_grad<plain_method>>(&method)) smooth->method = gradient_x_input{};
    return method;
  }
  const auto end = text.find(')');
  require(end != text.npos, "attribution: '", text, "' lacks a closing bracket");
  auto method = detail::parse_method<attribution_method>("smooth_grad" + std::string(text.substr(end + 1)));
  std::get<smooth_grad<plain_method>>(method).method =
      detail::parse_method<plain_method>(text.substr(wrapper.size(), end - wrapper.size()));
  return method;
}

/// The same; where the method has options `start_layer` and `seed`, these are set unless they are 0.
inline attribution_method parse_attribution(std::string_view text, index start_layer, std::uint64_t seed) {
  attribution_method method = parse_attribution(text);
  std::visit(
      [&](auto& m) {
        if constexpr (requires { m.start_layer; }) m.start_layer = start_layer != 0 ? start_layer : m.start_layer;
        if constexpr (requires { m.seed; }) m.seed = seed != 0 ? seed : m.seed;
      },
      method);
  return method;
}

/// Name of a method and all of its options, in the form that `parse_attribution` reads.
template <class M>
std::string text_of(const M& method) {
  std::string text = M::name;
  if constexpr (requires { method.method; }) {
    text += "(" + std::visit([](const auto& inner) { return text_of(inner); }, method.method) + ")";
  }
  if constexpr (has_options<const M>) {
    M::options(method, [&](const char* name, const auto& value) {
      text += ":" + std::string(name) + "=" + detail::option_text(value);
    });
  }
  return text;
}
inline std::string text_of(const attribution_method& method) {
  return std::visit([](const auto& m) { return text_of(m); }, method);
}

/// The names of all methods.
inline std::vector<std::string> attribution_names() {
  return []<class... M>(std::type_identity<std::variant<M...>>) {
    return std::vector<std::string>{M::name...};
  }(std::type_identity<attribution_method>{});
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/lrp/decoder_block.hpp ====
// Relevance through a decoder block with the rules of a composite: MLP and self-attention as in an encoder block, and
// between them the look at the picture, through which relevance reaches the image tokens.


namespace core_tokensets::lrp {

/// From R (in place) at the output y of a cross-attention to its input x, both `[L, C]`, and to the image tokens
/// `r_image` `[T, E]` (+=). `r_attention` receives the relevance of the attention probabilities.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const composite& c, B& b, const cross_attention& l, parameter_view<const T> p,
               const attention_rows& attention, const sample_rows<B>& rows, const_view<T> x, const_view<T> y,
               const_view<T> image, const cross_attention_tape<B>& tape, T* r_attention, view<T> r, view<T> r_image) {
  const index n = x.rows, dim = x.cols, heads = l.heads;
  scratch<B> residual(b, n, dim), branch(b, n, dim), at_q(b, n, dim), at_kv(b, image.rows, 2 * dim),
      at_image(b, image.rows, image.cols);
  relevance<B, T>(c.residual, b, rows, r, x, y, *residual, *branch);
  relevance<B, T>(c.proj, b, l.proj, p, *tape.context, {}, *branch, r);
  const view<const T> kv = *tape.kv;
  relevance<B, T>(c.attention, b, attention,
                  {.q = (*tape.q).split_cols(heads),
                   .k = kv_part(kv, 0, heads),
                   .v = kv_part(kv, 1, heads),
                   .out = (*tape.context).split_cols(heads),
                   .a = tape.a.data(),
                   .scale = attention_scale<T>(dim / heads)},
                  r.split_cols(heads), r_attention, (*at_q).split_cols(heads), kv_part(*at_kv, 0, heads),
                  kv_part(*at_kv, 1, heads));
  relevance<B, T>(c.qkv, b, l.kv, p, image, kv, *at_kv, *at_image);
  b.map(fn::add{}, r_image, view<const T>(*at_image));
  relevance<B, T>(c.qkv, b, l.q, p, *tape.norm.y, *tape.q, *at_q, *branch);
  relevance<B, T>(c.norm, b, l.norm, p, x, tape.norm, *branch);
  relevance<B, T>(c.copy, b, *residual, *branch, x, r);
}

/// Where the relevance of a decoder block's two attentions goes, in the layouts of their probabilities.
template <class T>
struct decoder_attention_relevance {
  T *self = nullptr, *cross = nullptr;
};

/// From R (in place) at the output y of a decoder block to its input x, both `[L, C]`, and to the image tokens
/// `r_image` `[T, E]` (+=). `rows` names the text of each of the L rows.
template <tensor_backend B, class T = typename B::scalar>
void relevance(const composite& c, B& b, const decoder_block& l, parameter_view<const T> p,
               const decoder_rows& attention, const sample_rows<B>& rows, const_view<T> x, const_view<T> y,
               const_view<T> image, const decoder_block_tape<B>& tape,
               const decoder_attention_relevance<std::type_identity_t<T>>& r_attention, view<T> r, view<T> r_image) {
  const no_observer nobody;
  mlp_relevance<B, no_observer, T>(c, b, l.self, p, rows, y, tape.self, r, nobody);
  relevance<B, T>(c, b, l.cross, p, attention.cross, rows, *tape.attended, *tape.self.middle, image, tape.cross,
                  r_attention.cross, r, r_image);
  attend_relevance<B, no_observer, T>(c, b, l.self, p, attention.self, rows, x, *tape.attended, tape.self,
                                      r_attention.self, r, nobody);
}

}  // namespace core_tokensets::lrp

// ==== core_tokensets/attribution/answer_methods.hpp ====
// The attribution methods for answers. Options are those of the methods for classes, as far as they have a meaning.


namespace core_tokensets {

namespace detail {

/// Matrices of one sample as doubles on the host.
template <tensor_backend B>
std::vector<double> sample_matrices(B& b, const attention_rows& rows, index heads, const tensor<B>& all, index s) {
  using T = typename B::scalar;
  const view<const T> m = rows.matrices(std::as_const(all).data(), s, heads);
  std::vector<T> host(static_cast<std::size_t>(m.n1 * m.rows * m.cols));
  b.download(host.data(), m.data, static_cast<index>(host.size()));
  return {host.begin(), host.end()};
}

/// C = mean_h max(0, g a) of sample s.
template <tensor_backend B>
token_map positive_map(B& b, const attention_rows& rows, index heads, const tensor<B>& a, const tensor<B>& g, index s) {
  return positive_mean(sample_matrices(b, rows, heads, a, s), sample_matrices(b, rows, heads, g, s), heads,
                       rows.queries().length(s), rows.keys().length(s));
}

/// From all attentions, or their relevance, to relevance of tokens: image tokens among themselves, then text among
/// itself and on the picture, block by block (Chefer, Gur & Wolf 2021, section 3.3), with C = mean_h max(0, gradient of
/// the attention times what is given); the mean over the explained rows is read. `of_encoder(i)`, `of_self(i)`,
/// `of_cross(i)` give those of block i; needs a backward pass that kept the gradients of attention.
template <tensor_backend B, class Encoder, class Self, class Cross>
answer_relevance relevance_of_maps(B& b, const image_text_model<B>& model, const text_batch& texts,
                                   const answer_workspace<B>& ws, index start_layer, const Encoder& of_encoder,
                                   const Self& of_self, const Cross& of_cross) {
  answer_relevance result;
  const auto& t = ws.tape;
  const auto& rows = t.text.rows;
  const index heads = model.config().image.heads, text_heads = model.config().text.heads;
  for (index s = 0; s < texts.texts(); ++s) {
    encoder_decoder_relevance r(t.plan.rows().length(s), rows.self.queries().length(s));
    for (auto i = static_cast<std::size_t>(start_layer); i < t.blocks.size(); ++i)
      r.encoder_self(positive_map(b, t.plan.all, heads, of_encoder(i), t.blocks[i].da, s));
    for (std::size_t i = 0; i < t.decoder.size(); ++i) {
      r.decoder_self(positive_map(b, rows.self, text_heads, of_self(i), t.decoder[i].self.da, s));
      r.cross(positive_map(b, rows.cross, text_heads, of_cross(i), t.decoder[i].cross.da, s));
    }
    const auto places = explained_places(ws, texts, s);
    const auto of_image = mean_of_rows(r.query_image, places), of_text = mean_of_rows(r.query_query, places);
    result.image.insert(result.image.end(), of_image.begin() + 1, of_image.end());  // without the class token
    result.text.insert(result.text.end(), of_text.begin(), of_text.end());
  }
  return result;
}

inline void check_start_layer(const char* method, index start, const image_text_config& c) {
  check_start_layer(method, start, c.image.depth);
}

}  // namespace detail

/// Uniform numbers that follow from the seed, the picture and the text about it.
template <tensor_backend B>
answer_relevance attribute(const random_relevance& method, B&, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>&) {
  detail::check_batch(images, model.config().image);
  check_one_text_each(images, texts);
  answer_relevance result;
  for (std::size_t s = 0; s < static_cast<std::size_t>(images.samples()); ++s) {
    const auto begin = static_cast<std::size_t>(texts.offsets[s]), end = static_cast<std::size_t>(texts.offsets[s + 1]);
    const auto read = std::as_bytes(std::span(texts.tokens).subspan(begin, end - begin));
    random_stream random(method.seed, fnv1a(read, detail::fingerprint_of(images, static_cast<index>(s))));
    while (static_cast<index>(result.image.size()) < images.offsets[s + 1]) result.image.push_back(random.uniform());
    while (result.text.size() < end) result.text.push_back(random.uniform());
  }
  return result;
}

/// The last decoder block's attention on the picture and on the text, mean over heads and explained rows.
template <tensor_backend B>
answer_relevance attribute(const last_attention&, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  explain_answers(b, model, images, texts, ws);
  const auto& last = ws.tape.decoder.back();
  const index heads = model.config().text.heads;
  answer_relevance result;
  for (index s = 0; s < texts.texts(); ++s) {
    const auto places = explained_places(ws, texts, s);
    const auto mean = [&](const attention_rows& rows, const tensor<B>& a) {
      const index nq = rows.queries().length(s), nk = rows.keys().length(s);
      token_map m = token_map::zeros(nq, nk);
      const auto values = detail::sample_matrices(b, rows, heads, a, s);
      for (std::size_t i = 0; i < values.size(); ++i)
        m.values[i % m.values.size()] += values[i] / static_cast<double>(heads);
      return mean_of_rows(m, places);
    };
    const auto of_image = mean(ws.tape.text.rows.cross, last.cross.a),
               of_text = mean(ws.tape.text.rows.self, last.self.a);
    result.image.insert(result.image.end(), of_image.begin() + 1, of_image.end());
    result.text.insert(result.text.end(), of_text.begin(), of_text.end());
  }
  return result;
}

/// Sum over channels of embedding times gradient: patch embeddings without position, and token embeddings with it.
template <tensor_backend B>
answer_relevance attribute(const gradient_x_input& method, B& b, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams);
  tensor<B> at_patches(b, images.tokens(), ws.streams.image.cols());
  b.gather_rows(*at_patches, *std::as_const(ws.streams.image), ws.tape.plan.patch_rows.data());
  const auto sums = [&](const tensor<B>& gradient, const tensor<B>& value) {
    tensor<B> sum(b, gradient.rows(), 1);
    if (method.magnitude) {
      b.row_reduce(fn::plus{}, fn::square{}, *sum, *gradient);
    } else {
      b.row_reduce(fn::plus{}, fn::times{}, *sum, *gradient, *value);
    }
    const auto host = sum.to_host(b);
    std::vector<double> relevance(host.begin(), host.end());
    if (method.magnitude) {
      for (double& r : relevance) r = std::sqrt(r);
    }
    return relevance;
  };
  return {sums(at_patches, ws.tape.embeddings), sums(ws.streams.text, ws.tape.text_stream.front())};
}

/// Attention times its gradient through self- and cross-attention (Chefer, Gur & Wolf, ICCV 2021).
template <tensor_backend B>
answer_relevance attribute(const generic_attention& method, B& b, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  detail::check_start_layer(generic_attention::name, method.start_layer, model.config());
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams, true);
  const auto& t = ws.tape;
  return detail::relevance_of_maps(
      b, model, texts, ws, method.start_layer, [&](std::size_t i) -> const tensor<B>& { return t.blocks[i].a; },
      [&](std::size_t i) -> const tensor<B>& { return t.decoder[i].self.a; },
      [&](std::size_t i) -> const tensor<B>& { return t.decoder[i].cross.a; });
}

/// Relevance of all attentions of an answer by the rules of a composite: of the encoder's blocks, of the decoder's
/// self-attentions and of its looks at the picture; and what arrives at both streams.
template <tensor_backend B>
struct answer_lrp {
  std::vector<tensor<B>> encoder, self, cross;
  tensor<B> text, image;  ///< [L, C] and [T, D]
};

/// From the explained logits down to both streams; needs `explain_answers` before.
template <tensor_backend B>
void propagate(const lrp::composite& c, B& b, const image_text_model<B>& model, answer_workspace<B>& ws,
               answer_lrp<B>& out) {
  using T = typename B::scalar;
  const auto& l = model.layout();
  const auto p = model.view_parameters();
  auto& tape = ws.tape;
  const index asked = ws.dlogits.rows(), length = tape.text.length();
  lrp::sample_rows<B> text_rows, image_rows;
  text_rows.assign(b, tape.text.rows.self.queries());
  image_rows.assign(b, tape.plan.rows());
  scratch<B> start(b, asked, ws.dlogits.cols()), at_asked(b, asked, model.config().text.dim);
  b.map(fn::copy{}, *start, *std::as_const(ws.dlogits));
  if (c.start == lrp::start_value::logit) b.map(fn::multiply{}, *start, *std::as_const(tape.logits));
  lrp::relevance<B, T>(c.head, b, l.output, p, *tape.text_norm.y, *std::as_const(tape.logits), *start, *at_asked);
  lrp::relevance<B, T>(c.norm, b, l.text_norm, p, *std::as_const(tape.asked), tape.text_norm, *at_asked);
  out.text.resize(b, length, model.config().text.dim);
  out.image.resize(b, tape.plan.tokens(), model.config().image.dim);
  b.fill(*out.text, T(0));
  b.fill(*out.image, T(0));
  b.scatter_add_rows(*out.text, *at_asked, tape.text.asked.data());
  out.self.resize(l.decoder.size()), out.cross.resize(l.decoder.size()), out.encoder.resize(l.blocks.size());
  for (std::size_t i = l.decoder.size(); i-- > 0;) {
    out.self[i].resize(b, 1, tape.decoder[i].self.a.size());
    out.cross[i].resize(b, 1, tape.decoder[i].cross.a.size());
    lrp::relevance<B, T>(c, b, l.decoder[i], p, tape.text.rows, text_rows, *std::as_const(tape.text_stream[i]),
                         *std::as_const(tape.text_stream[i + 1]), *std::as_const(tape.norm.y), tape.decoder[i],
                         {out.self[i].data(), out.cross[i].data()}, *out.text, *out.image);
  }
  lrp::relevance<B, T>(c.norm, b, l.norm, p, *std::as_const(tape.stream[l.blocks.size()]), tape.norm, *out.image);
  for (std::size_t i = l.blocks.size(); i-- > 0;) {
    out.encoder[i].resize(b, 1, tape.blocks[i].a.size());
    lrp::relevance<B, lrp::no_observer, T>(c, b, l.blocks[i], p, tape.plan.all, image_rows,
                                           *std::as_const(tape.stream[i]), *std::as_const(tape.stream[i + 1]),
                                           tape.blocks[i], out.encoder[i].data(), *out.image);
  }
}

/// GradLRP for two kinds of tokens: the relevance of attention (Chefer, Gur & Wolf, CVPR 2021) takes the place of
/// attention itself in the rules of their ICCV paper.
template <tensor_backend B>
answer_relevance attribute(const grad_lrp& method, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  detail::check_start_layer(grad_lrp::name, method.start_layer, model.config());
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams, true);
  answer_lrp<B> r;
  propagate(lrp::make(method.rules), b, model, ws, r);
  return detail::relevance_of_maps(
      b, model, texts, ws, method.start_layer, [&](std::size_t i) -> const tensor<B>& { return r.encoder[i]; },
      [&](std::size_t i) -> const tensor<B>& { return r.self[i]; },
      [&](std::size_t i) -> const tensor<B>& { return r.cross[i]; });
}

/// A method that works on answers.
template <class M, class B>
concept answers_method = requires(const M& method, B& b, const image_text_model<B>& model, const token_batch& images,
                                  const text_batch& texts, answer_workspace<B>& ws) {
  { attribute(method, b, model, images, texts, ws) } -> std::same_as<answer_relevance>;
};

/// `Error` unless the method works on answers; names those that do.
template <tensor_backend B>
void check_answers_method(const attribution_method& method) {
  const auto check = []<class M>(const M& m) {
    require(
        answers_method<M, B>, "attribution: '", m.name,
        "' does not work on answers; random, attention, gradient_x_input, generic_attention, grad_lrp and atman do");
  };
  std::visit(check, method);
}

/// Any method by its variant. `Error`: see `check_answers_method`.
template <tensor_backend B>
answer_relevance attribute_answers(const attribution_method& method, B& b, const image_text_model<B>& model,
                                   const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  check_answers_method<B>(method);
  return std::visit(
      [&]<class M>(const M& m) -> answer_relevance {
        if constexpr (answers_method<M, B>) return attribute(m, b, model, images, texts, ws);
        return {};
      },
      method);
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/audit.hpp ====
// The audit of an LRP pass: how much relevance enters and leaves every operation, and who keeps the rest.

#include <nlohmann/json.hpp>
#include <string>


namespace core_tokensets {

/// Sums of relevance over one sample before and behind one operation.
struct relevance_flow {
  std::string operation;  ///< "head", "blocks.2.fc1", ...
  double entering = 0, leaving = 0;
  double absorbed() const { return entering - leaving; }
};

/// The whole pass for one sample, from the explained number down to the pixels. What was absorbed is the sum of
/// (entering - leaving) over the operations of a kind, signs and all: `linear` is biases and stabilisers.
struct conservation_report {
  std::string rules;
  std::int32_t explained_class = 0;
  double start = 0;                                        ///< what relevance started as
  double at_tokens = 0, at_embeddings = 0, at_pixels = 0;  ///< sums over the patches and, for tokens, the class token
  double class_token = 0, positions = 0;                   ///< kept by the class token; given to positions (patches)
  double linear = 0, norms = 0, attention = 0, sums = 0, activations = 0;  ///< absorbed
  double growth = 0;      ///< largest sum of absolute relevance at the input of a block, by that at the start
  bool exploded = false;  ///< growth is beyond the limit or not finite
  std::vector<relevance_flow> flows;
};

struct audit_options {
  double limit = 1e3;  ///< of the growth
};

namespace detail {

/// Totals of each sample at every stage, in order.
template <tensor_backend B>
struct stage_totals {
  using T = typename B::scalar;
  struct record {
    lrp::stage where;
    std::vector<double> totals;
  };
  B* backend;
  std::vector<record>* records;

  void operator()(lrp::stage where, const lrp::sample_rows<B>& rows, const view<const T>& r) const {
    scratch<B> totals(*backend, rows.samples, 1);
    lrp::sample_totals<B, T>(*backend, rows, *totals, r);
    std::vector<T> host(static_cast<std::size_t>(rows.samples));
    backend->download(host.data(), totals.data(), rows.samples);
    records->push_back({where, {host.begin(), host.end()}});
  }
};

/// The flows of one sample from the records of the pass.
template <class Records>
void read_flows(const Records& records, std::size_t s, index depth, conservation_report& report) {
  using lrp::stage;
  index block = depth;
  double residual = 0, now = report.start;
  std::string prefix;
  const auto add = [&](const std::string& name, double entering, double leaving, double& absorbed) {
    report.flows.push_back({prefix + name, entering, leaving});
    absorbed += entering - leaving;
  };
  for (std::size_t i = 0; i < records.size(); ++i) {
    const double left = records[i].totals[s];
    const auto operation = [&](const std::string& name, double& absorbed) {
      add(name, now, left, absorbed);
      now = left;
    };
    const auto sum = [&](const std::string& name) {  // the residual is here, the branch in the next record
      add(name, now, left + records[i + 1].totals[s], report.sums);
      residual = left, now = records[i + 1].totals[s], ++i;
    };
    const auto join = [&](const std::string& name) {
      add(name, residual + now, left, report.sums);
      now = left;
    };
    switch (records[i].where) {
      case stage::head:
        operation("head", report.linear);
        break;
      case stage::choice:
        operation("class token", report.sums);
        break;
      case stage::norm:
        operation("norm", report.norms);
        break;
      case stage::add2_residual:
        prefix = "blocks." + std::to_string(--block) + ".";
        sum("add2");
        break;
      case stage::fc2:
        operation("fc2", report.linear);
        break;
      case stage::activation:
        operation("activation", report.activations);
        break;
      case stage::fc1:
        operation("fc1", report.linear);
        break;
      case stage::norm2:
        operation("norm2", report.norms);
        break;
      case stage::copy2:
        join("copy2");
        break;
      case stage::add1_residual:
        sum("add1");
        break;
      case stage::proj:
        operation("proj", report.linear);
        break;
      case stage::attention: {  // queries of a class block come in a record of their own
        double total = left;
        for (; i + 1 < records.size() && records[i + 1].where == stage::attention; ++i)
          total += records[i + 1].totals[s];
        add("attention", now, total, report.attention);
        now = total;
        break;
      }
      case stage::qkv:
        operation("qkv", report.linear);
        break;
      case stage::norm1:
        operation("norm1", report.norms);
        break;
      case stage::copy1:
        join("copy1");
        break;
      default:
        break;
    }
  }
}

}  // namespace detail

/// Runs the pass by the rules `c` and reports on each sample.
template <tensor_backend B>
std::vector<conservation_report> audit(const lrp::composite& c, B& b, const vit<B>& model, const token_batch& batch,
                                       const target& t, attribution_workspace<B>& ws,
                                       const audit_options& options = {}) {
  using T = typename B::scalar;
  using totals = detail::stage_totals<B>;
  explain_forward(b, model, batch, t, ws, kept::gradients);
  std::vector<typename totals::record> records;
  const totals observe{&b, &records};
  const index depth = model.config().depth;
  std::vector<std::vector<double>> magnitudes;
  relevance_walk<B, totals> walk(c, b, model, ws, observe);
  for (index i = depth; i-- > 0;) {
    walk.step(i);
    magnitudes.push_back(detail::sample_magnitudes<B, T>(b, ws.all_rows, *std::as_const(ws.relevance)));
  }
  const auto& plan = ws.tape.plan;
  tensor<B> of_rows(b, plan.tokens(), 1), at_embeddings(b, batch.tokens(), model.config().dim),
      at_pixels(b, batch.tokens(), batch.patch_dim), of_embeddings(b, batch.tokens(), 1),
      of_pixels(b, batch.tokens(), 1);
  embedding_relevance(c, b, model, ws, *at_embeddings);
  pixel_relevance<B, T>(c, b, model, batch, ws, *std::as_const(at_embeddings), *at_pixels);
  const auto row_sums = [&](const tensor<B>& of, tensor<B>& sums) {
    b.row_reduce(fn::plus{}, fn::value{}, *sums, *of);
    return sums.to_host(b);
  };
  const auto tokens = row_sums(ws.relevance, of_rows), embeddings = row_sums(at_embeddings, of_embeddings),
             pixels = row_sums(at_pixels, of_pixels);
  const auto logits = ws.tape.logits.to_host(b), seed = ws.dlogits.to_host(b);
  const auto k = static_cast<std::size_t>(model.config().classes);

  std::vector<conservation_report> reports(static_cast<std::size_t>(batch.samples()));
  for (std::size_t s = 0; s < reports.size(); ++s) {
    conservation_report& r = reports[s];
    r.rules = c.name;
    r.explained_class = ws.classes[s];
    double size = 0;
    for (std::size_t i = s * k; i < (s + 1) * k; ++i) {
      const double start = double(seed[i]) * (c.start == lrp::start_value::logit ? double(logits[i]) : 1.0);
      r.start += start, size += std::abs(start);
    }
    detail::read_flows(records, s, depth, r);
    const auto sample = static_cast<index>(s);
    r.class_token = double(tokens[static_cast<std::size_t>(plan.rows().begin(sample))]);
    for (index row = plan.rows().begin(sample); row < plan.rows().begin(sample + 1); ++row)
      r.at_tokens += double(tokens[static_cast<std::size_t>(row)]);
    for (index p = batch.offsets[s]; p < batch.offsets[s + 1]; ++p) {
      r.at_embeddings += double(embeddings[static_cast<std::size_t>(p)]);
      r.at_pixels += double(pixels[static_cast<std::size_t>(p)]);
    }
    r.positions = r.at_tokens - r.class_token - r.at_embeddings;
    r.flows.push_back({"positions", r.at_tokens - r.class_token, r.at_embeddings});
    r.flows.push_back({"patch_embed", r.at_embeddings, r.at_pixels});
    for (const auto& at_block : magnitudes) r.growth = std::max(r.growth, size > 0 ? at_block[s] / size : 0);
    r.exploded = !std::isfinite(r.growth) || r.growth > options.limit;
  }
  return reports;
}

inline nlohmann::json to_json(const conservation_report& r) {
  nlohmann::json flows = nlohmann::json::array();
  for (const auto& f : r.flows) {
    flows.push_back({{"operation", f.operation}, {"entering", f.entering}, {"leaving", f.leaving}});
  }
  return {{"rules", r.rules},
          {"class", r.explained_class},
          {"start", r.start},
          {"at_tokens", r.at_tokens},
          {"at_embeddings", r.at_embeddings},
          {"at_pixels", r.at_pixels},
          {"class_token", r.class_token},
          {"positions", r.positions},
          {"absorbed",
           {{"linear", r.linear},
            {"norms", r.norms},
            {"attention", r.attention},
            {"sums", r.sums},
            {"activations", r.activations}}},
          {"growth", r.growth},
          {"exploded", r.exploded},
          {"flows", flows}};
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/ranking.hpp ====
// Orders of patches and agreement between two lists of numbers.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>


namespace core_tokensets {

/// Places from the largest value to the smallest; equal ones in their order.
inline std::vector<std::size_t> falling_order(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return values[i] > values[j]; });
  return order;
}

/// Ranks 0, 1, ... from the smallest value; equal ones share the mean of their ranks.
inline std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return values[i] < values[j]; });
  std::vector<double> result(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (std::size_t j = i; j < end; ++j)
      result[order[j]] = (static_cast<double>(i) + static_cast<double>(end) - 1) / 2;
    i = end;
  }
  return result;
}

/// Pearson's correlation; 0 where one of the lists is constant or shorter than two.
inline double pearson(std::span<const double> a, std::span<const double> b) {
  require(a.size() == b.size(), "pearson: ", a.size(), " and ", b.size(), " numbers");
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n,
               mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b), aa += (a[i] - mean_a) * (a[i] - mean_a),
        bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// Spearman's rank correlation.
inline double spearman(std::span<const double> a, std::span<const double> b) { return pearson(ranks(a), ranks(b)); }

/// Numbers of the patches of sample s.
template <class T>
std::span<T> of_sample(std::span<T> numbers, std::span<const index> offsets, std::size_t s) {
  return numbers.subspan(static_cast<std::size_t>(offsets[s]), static_cast<std::size_t>(offsets[s + 1] - offsets[s]));
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/masked_values.hpp ====
// What a model says about samples of which patches are missing, for the measures that take patches away.

#include <concepts>


namespace core_tokensets {

/// A sample with some of its patches kept.
struct masked_sample {
  std::size_t sample = 0;
  std::vector<std::uint8_t> keep;  ///< [n_s]
};

/// What one of them came out as: the number that is explained, the probability of the explained class, and whether that
/// class is still the largest.
struct masked_value {
  double value = 0, probability = 0;
  bool right = false;
};

namespace detail {

template <class T>
masked_value read_value(const settled_target& t, std::size_t s, std::span<const T> logits) {
  settled_target log_probability = t;
  log_probability.what = objective::log_probability;
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  return {t.value(s, logits), std::exp(log_probability.value(s, logits)), best == t.classes[s]};
}

}  // namespace detail

/// Values of masked samples, run together; the engine holds the batch.
template <tensor_backend B>
std::vector<masked_value> masked_values(variation_engine<B>& engine, const settled_target& t, missing_tokens missing,
                                        std::span<const masked_sample> masked) {
  using T = typename B::scalar;
  std::vector<masked_value> values;
  values.reserve(masked.size());
  engine.run(
      static_cast<index>(masked.size()), false,
      [&](index v, variation& out) {
        const masked_sample& m = masked[static_cast<std::size_t>(v)];
        engine.without(static_cast<index>(m.sample), m.keep, missing, out);
      },
      [&](index v, std::span<const T> logits) {
        values.push_back(detail::read_value(t, masked[static_cast<std::size_t>(v)].sample, logits));
      });
  return values;
}

/// `Error` unless there is one number for each patch.
inline void check_relevance(std::span<const double> relevance, const token_batch& batch) {
  require(static_cast<index>(relevance.size()) == batch.tokens(), "measure: ", relevance.size(), " numbers for ",
          batch.tokens(), " patches");
}

/// Samples that measures can take patches away from: `whole` has the values of the whole samples `[S]`, `offsets()`
/// says whose patches are where in the relevance `[P]`, `values` runs masked samples.
template <class M>
concept measured = requires(M& m, const M& constant, std::size_t s, std::span<const double> relevance,
                            missing_tokens missing, std::span<const masked_sample> masked) {
  { constant.samples() } -> std::same_as<std::size_t>;
  { constant.patches(s) } -> std::same_as<std::size_t>;
  { constant.offsets() } -> std::convertible_to<std::span<const index>>;
  { constant.whole[s] } -> std::convertible_to<const masked_value&>;
  constant.check(relevance);
  { m.values(missing, masked) } -> std::same_as<std::vector<masked_value>>;
};

/// A batch made ready for measures: its engine, what is explained in each sample, and the values of the whole samples.
template <tensor_backend B>
struct measured_batch {
  variation_engine<B> engine;
  const token_batch& batch;
  settled_target explained;
  std::vector<masked_value> whole;

  measured_batch(B& b, const vit<B>& model, const token_batch& from, const target& t)
      : engine(b, model, from), batch(from) {
    std::vector<double> logits;
    explained = settle_unchanged(engine, from, t, logits);
    const auto k = static_cast<std::size_t>(model.config().classes);
    for (std::size_t s = 0; s < explained.classes.size(); ++s) {
      whole.push_back(detail::read_value(explained, s, std::span<const double>(logits).subspan(s * k, k)));
    }
  }
  std::size_t samples() const { return explained.classes.size(); }
  std::span<const index> offsets() const { return batch.offsets; }
  std::vector<masked_value> values(missing_tokens missing, std::span<const masked_sample> masked) {
    return masked_values(engine, explained, missing, masked);
  }
  std::size_t patches(std::size_t s) const { return static_cast<std::size_t>(batch.offsets[s + 1] - batch.offsets[s]); }
  void check(std::span<const double> relevance) const { check_relevance(relevance, batch); }
};

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/completeness.hpp ====
// Completeness (Sundararajan et al. 2017): does relevance add up to what the model gains from the patches? And how few
// patches hold it: the Gini coefficient.


namespace core_tokensets {

struct completeness {
  missing_tokens missing = missing_tokens::zero;
};

/// `[S]` |sum of relevance - (f(x) - f(x without its patches))| / |f(x) - f(x without its patches)|, f what is
/// explained.
template <measured M>
std::vector<double> measure(const completeness& options, M& m, std::span<const double> relevance) {
  m.check(relevance);
  std::vector<masked_sample> masked;
  for (std::size_t s = 0; s < m.samples(); ++s) masked.push_back({s, std::vector<std::uint8_t>(m.patches(s), 0)});
  const auto values = m.values(options.missing, masked);
  std::vector<double> result;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(relevance, m.offsets(), s);
    const double gained = m.whole[s].value - values[s].value;
    const double error = std::abs(std::accumulate(r.begin(), r.end(), 0.0) - gained);
    result.push_back(gained != 0 ? error / std::abs(gained) : error);
  }
  return result;
}

/// Gini coefficient of |relevance|: 0 where all patches have the same, (n - 1) / n where one has all.
inline double gini(std::span<const double> relevance) {
  std::vector<double> sizes;
  for (const double r : relevance) sizes.push_back(std::abs(r));
  std::sort(sizes.begin(), sizes.end());
  const auto n = static_cast<double>(sizes.size());
  double weighted = 0, total = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    weighted += (2 * static_cast<double>(i) + 1 - n) * sizes[i];
    total += sizes[i];
  }
  return total > 0 ? weighted / (n * total) : 0;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/faithfulness.hpp ====
// Does relevance add up as the model does? Random sets of patches are taken away, and the sum of their relevance
// compared with what the explained number loses: faithfulness correlation (Bhatt, Weller & Moura, IJCAI 2020) and
// infidelity (Yeh et al., NeurIPS 2019, with removal as the perturbation).


namespace core_tokensets {

/// Random sets of patches: `sets` of them, each with the share `share` of a sample's patches (at least one).
struct random_removal {
  index sets = 50;
  double share = 0.2;
  missing_tokens missing = missing_tokens::drop;
  std::uint64_t seed = 0;
};

/// Of each set of one sample: the sum of relevance in it, and the drop of the explained number without it.
struct removal_effects {
  std::vector<double> relevance, drop;
};

/// The sets depend on the seed and the number of patches, not on the batch.
template <measured M>
std::vector<removal_effects> measure(const random_removal& options, M& m, std::span<const double> relevance) {
  require(options.sets > 0 && options.share > 0 && options.share <= 1, "random removal: ", options.sets,
          " sets of the share ", options.share);
  m.check(relevance);
  std::vector<masked_sample> masked;
  std::vector<removal_effects> effects(m.samples());
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const std::size_t n = m.patches(s);
    const auto r = of_sample(relevance, m.offsets(), s);
    const auto size =
        std::min(n, std::max<std::size_t>(1, static_cast<std::size_t>(std::lround(options.share * double(n)))));
    for (index set = 0; n > 0 && set < options.sets; ++set) {
      const auto order =
          random_stream(options.seed, static_cast<std::uint64_t>(set)).permutation(static_cast<index>(n));
      masked.push_back({s, std::vector<std::uint8_t>(n, 1)});
      double sum = 0;
      for (std::size_t i = 0; i < size; ++i) {
        masked.back().keep[static_cast<std::size_t>(order[i])] = 0;
        sum += r[static_cast<std::size_t>(order[i])];
      }
      effects[s].relevance.push_back(sum);
    }
  }
  const auto values = m.values(options.missing, masked);
  for (std::size_t i = 0; i < masked.size(); ++i) {
    effects[masked[i].sample].drop.push_back(m.whole[masked[i].sample].value - values[i].value);
  }
  return effects;
}

/// Pearson's correlation of the two; 1 is best.
inline double faithfulness_correlation(const removal_effects& e) { return pearson(e.relevance, e.drop); }

/// Mean of (beta relevance - drop)^2. Scaled: beta is the best factor and the mean is divided by that of drop^2, so the
/// result lies between 0 (best) and 1 and does not depend on the unit of relevance; else beta is 1.
inline double infidelity(const removal_effects& e, bool scaled = true) {
  double rr = 0, rd = 0, dd = 0;
  for (std::size_t i = 0; i < e.drop.size(); ++i) {
    rr += e.relevance[i] * e.relevance[i], rd += e.relevance[i] * e.drop[i], dd += e.drop[i] * e.drop[i];
  }
  if (!scaled) return e.drop.empty() ? 0 : (rr - 2 * rd + dd) / static_cast<double>(e.drop.size());
  return dd > 0 ? 1 - (rr > 0 ? rd * rd / (rr * dd) : 0) : 0;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/flipping.hpp ====
// Deletion and insertion curves (pixel flipping, Samek et al. 2017; Petsiuk et al. 2018) on tokens: patches are taken
// away in the order of relevance, all steps of all samples at a time.


namespace core_tokensets {

/// `most_relevant_first` is the deletion curve (low is good). `least_relevant_first` read from its end is the insertion
/// curve, since keeping the k most relevant patches takes away all others (high is good): both have the same area.
enum class removal_order { most_relevant_first, least_relevant_first };

struct flipping {
  index steps = 10;
  removal_order order = removal_order::most_relevant_first;
  missing_tokens missing = missing_tokens::drop;
};

/// Curves of all samples over the same shares of patches that are gone.
struct flipping_curves {
  std::vector<double> gone;         ///< [steps + 1] from 0 to 1
  std::vector<double> probability;  ///< [S, steps + 1] of the explained class
  std::vector<double> right;        ///< [S, steps + 1] 1 where that class is the largest
  std::vector<double> area;         ///< [S] under the probability, by trapezoids
};

/// Area under a curve over points that rise from 0 to 1.
inline double area_under(std::span<const double> x, std::span<const double> y) {
  double area = 0;
  for (std::size_t i = 1; i < x.size(); ++i) area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2;
  return area;
}

template <measured M>
flipping_curves measure(const flipping& options, M& m, std::span<const double> relevance) {
  require(options.steps > 0, "flipping: ", options.steps, " steps");
  m.check(relevance);
  std::vector<masked_sample> masked;
  const auto points = static_cast<std::size_t>(options.steps) + 1;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    auto order = falling_order(of_sample(relevance, m.offsets(), s));
    if (options.order == removal_order::least_relevant_first) std::reverse(order.begin(), order.end());
    for (std::size_t j = 0; j < points; ++j) {
      const auto gone = static_cast<std::size_t>(
          std::lround(static_cast<double>(j * order.size()) / static_cast<double>(options.steps)));
      masked.push_back({s, std::vector<std::uint8_t>(order.size(), 1)});
      for (std::size_t i = 0; i < gone; ++i) masked.back().keep[order[i]] = 0;
    }
  }
  flipping_curves curves;
  for (std::size_t j = 0; j < points; ++j) {
    curves.gone.push_back(static_cast<double>(j) / static_cast<double>(options.steps));
  }
  for (const masked_value& v : m.values(options.missing, masked)) {
    curves.probability.push_back(v.probability);
    curves.right.push_back(v.right ? 1 : 0);
  }
  for (std::size_t s = 0; s < m.samples(); ++s) {
    curves.area.push_back(area_under(curves.gone, std::span(curves.probability).subspan(s * points, points)));
  }
  return curves;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/localisation.hpp ====
// Does relevance lie on the object? Pointing game (Zhang et al. 2018), relevance mass and rank accuracy (Arras et al.
// 2022) against boxes or masks.


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

// ==== core_tokensets/attribution/measures/randomisation.hpp ====
// Sanity checks (Adebayo et al., NeurIPS 2018; Sixt et al., ICML 2020): relevance must change when the model's
// parameters are drawn anew, and when another class is explained.


namespace core_tokensets {

/// Which layers are random at a time: all from the head down to one (`cascading`), or that one alone.
enum class randomised { cascading, independent };

template <>
inline constexpr std::array words<randomised>{"cascading", "independent"};

struct parameter_randomisation {
  randomised how = randomised::cascading;
  std::uint64_t seed = 0;
};

/// Spearman correlation of relevance with that of the trained model, `[S]` for each layer from the head down.
struct randomisation_result {
  std::vector<std::string> layers;
  std::vector<std::vector<double>> similarity;

  /// Mean over layers and samples.
  double mean() const {
    double sum = 0, count = 0;
    for (const auto& of_layer : similarity) {
      sum += std::accumulate(of_layer.begin(), of_layer.end(), 0.0), count += static_cast<double>(of_layer.size());
    }
    return count > 0 ? sum / count : 0;
  }
};

namespace detail {

/// Names of the layers from the head down, as prefixes of their parameters.
inline std::vector<std::vector<std::string>> layers_from_head(index depth) {
  std::vector<std::vector<std::string>> layers{{"head.", "norm."}};
  for (index i = depth; i-- > 0;) layers.push_back({"blocks." + std::to_string(i) + "."});
  layers.push_back({"patch_embed.", "pos_embed", "cls_token"});
  return layers;
}

/// Draws a layer's parameters from the normal distribution with the mean and deviation of each of them.
template <class T>
void randomise(const parameter_layout& layout, const std::vector<std::string>& prefixes, std::uint64_t seed,
               std::vector<T>& values) {
  std::uint64_t stream = 0;
  for (const parameter& p : layout.table()) {
    ++stream;
    if (std::none_of(prefixes.begin(), prefixes.end(), [&](const auto& x) { return p.name.starts_with(x); })) continue;
    T* at = values.data() + p.where.offset;
    const auto n = static_cast<double>(p.where.size());
    double mean = 0, square = 0;
    for (index i = 0; i < p.where.size(); ++i) mean += double(at[i]) / n, square += double(at[i]) * double(at[i]) / n;
    const double deviation = std::sqrt(std::max(square - mean * mean, 0.0));
    random_stream random(seed, 0x72616e64 + stream);
    for (index i = 0; i < p.where.size(); ++i) at[i] = static_cast<T>(mean + deviation * random.normal());
  }
}

}  // namespace detail

/// `explain(model)` gives the relevance of every patch of the batch; classes must be settled with the trained model.
/// `relevance` is that of the trained model.
template <tensor_backend B, class Explain>
randomisation_result measure(const parameter_randomisation& options, B& b, const vit<B>& model, const Explain& explain,
                             const token_batch& batch, std::span<const double> relevance) {
  const auto trained = model.parameters().to_host(b);
  auto values = trained;
  vit<B> other(b, model.config());
  randomisation_result result;
  for (const auto& layer : detail::layers_from_head(model.config().depth)) {
    if (options.how == randomised::independent) values = trained;
    detail::randomise(model.layout().parameters, layer, options.seed, values);
    other.parameters().assign(b, 1, model.layout().parameters.size(), values.data());
    const std::vector<double> changed = explain(other);
    result.layers.push_back(layer.front().substr(0, layer.front().find_last_not_of('.') + 1));
    result.similarity.emplace_back();
    for (std::size_t s = 0; s < static_cast<std::size_t>(batch.samples()); ++s) {
      result.similarity.back().push_back(spearman(of_sample(relevance, batch.offsets, s),
                                                  of_sample(std::span<const double>(changed), batch.offsets, s)));
    }
  }
  return result;
}

struct random_logit {
  std::uint64_t seed = 0;
};

/// `[S]` Spearman correlation of relevance for the explained class with that for another class, drawn at random. 1
/// means that the method does not see the class.
template <class Explain>
std::vector<double> measure(const random_logit& options, const Explain& explain, const token_batch& batch,
                            const settled_target& explained, index classes, std::span<const double> relevance) {
  require(classes > 1, "random_logit: the model has ", classes, " classes");
  target other{explained.what, explained_class::given};
  for (std::size_t s = 0; s < explained.classes.size(); ++s) {
    random_stream random(options.seed, 0x6c6f67 + static_cast<std::uint64_t>(explained.classes[s]));
    const index drawn = random.below(classes - 1);
    other.classes.push_back(static_cast<std::int32_t>(drawn < explained.classes[s] ? drawn : drawn + 1));
  }
  const std::vector<double> changed = explain(batch, other);
  std::vector<double> result;
  for (std::size_t s = 0; s < explained.classes.size(); ++s) {
    result.push_back(spearman(of_sample(relevance, batch.offsets, s),
                              of_sample(std::span<const double>(changed), batch.offsets, s)));
  }
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/saco.hpp ====
// Salience-guided faithfulness coefficient (Wu et al., CVPR 2024, "SaCo"): do groups of patches with more relevance
// matter more, by as much as they are more relevant?


namespace core_tokensets {

struct saco {
  index groups = 10;
  missing_tokens missing = missing_tokens::zero;
};

/// From the salience and the effect of groups in falling order of salience: pairs count with the difference of their
/// saliences, positive where the more salient group has at least the effect of the other; -1 .. 1.
inline double saco_of_groups(std::span<const double> salience, std::span<const double> effect) {
  double sum = 0, total = 0;
  for (std::size_t i = 0; i + 1 < salience.size(); ++i) {
    for (std::size_t j = i + 1; j < salience.size(); ++j) {
      const double weight = salience[i] - salience[j];
      sum += effect[i] >= effect[j] ? weight : -weight;
      total += std::abs(weight);
    }
  }
  return total > 0 ? sum / total : 0;
}

/// `[S]`; patches in falling order of relevance are cut into groups of equal size, and each group is taken away alone.
template <measured M>
std::vector<double> measure(const saco& options, M& m, std::span<const double> relevance) {
  require(options.groups > 1, "saco: ", options.groups, " groups");
  m.check(relevance);
  std::vector<masked_sample> masked;
  std::vector<std::vector<double>> salience(m.samples()), effect(m.samples());
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(relevance, m.offsets(), s);
    const auto order = falling_order(r);
    const std::size_t n = order.size(), groups = std::min(n, static_cast<std::size_t>(options.groups));
    for (std::size_t g = 0; g < groups; ++g) {
      masked.push_back({s, std::vector<std::uint8_t>(n, 1)});
      salience[s].push_back(0);
      for (std::size_t i = g * n / groups; i < (g + 1) * n / groups; ++i) {
        masked.back().keep[order[i]] = 0;
        salience[s].back() += r[order[i]];
      }
    }
  }
  const auto values = m.values(options.missing, masked);
  for (std::size_t i = 0; i < masked.size(); ++i) {
    effect[masked[i].sample].push_back(m.whole[masked[i].sample].probability - values[i].probability);
  }
  std::vector<double> result;
  for (std::size_t s = 0; s < m.samples(); ++s) result.push_back(saco_of_groups(salience[s], effect[s]));
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/sensitivity.hpp ====
// Max-sensitivity (Yeh et al., NeurIPS 2019): how much relevance moves when the input hardly does.


namespace core_tokensets {

/// Uniform noise of at most `radius` times the range of a sample's numbers; the largest change over `samples` draws.
struct max_sensitivity {
  double radius = 0.05;
  index samples = 4;
  std::uint64_t seed = 0;
};

/// `[S]` max over draws of |phi(x + noise) - phi(x)| / |phi(x)| (Euclidean norms), for the class of the input without
/// noise. `explain(batch, target)` gives the relevance of every patch; `relevance` is that of the batch.
template <class Explain>
std::vector<double> measure(const max_sensitivity& options, const Explain& explain, const token_batch& batch,
                            const settled_target& explained, std::span<const double> relevance) {
  require(options.samples > 0 && options.radius >= 0, "max_sensitivity: ", options.samples, " draws within ",
          options.radius);
  std::vector<double> result(static_cast<std::size_t>(batch.samples()), 0.0);
  for_each_part(batch, options.samples, 4096, [&](std::span<const index> samples, std::span<const index> number) {
    token_batch copies = copy_samples(batch, samples);
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const auto first = copies.patches.begin() + copies.offsets[c] * copies.patch_dim,
                 last = copies.patches.begin() + copies.offsets[c + 1] * copies.patch_dim;
      if (first == last) continue;
      const auto [low, high] = std::minmax_element(first, last);
      const double most = options.radius * (double(*high) - double(*low));
      random_stream random(options.seed, 0x73656e73 + static_cast<std::uint64_t>(number[c]));
      for (auto x = first; x != last; ++x) *x = static_cast<float>(double(*x) + random.uniform(-most, most));
    }
    const std::vector<double> moved = explain(copies, repeat_target(explained, samples));
    for (std::size_t c = 0; c < samples.size(); ++c) {
      const auto s = static_cast<std::size_t>(samples[c]);
      const auto before = of_sample(relevance, batch.offsets, s),
                 after = of_sample(std::span<const double>(moved), copies.offsets, c);
      double change = 0, size = 0;
      for (std::size_t i = 0; i < before.size(); ++i) {
        change += (after[i] - before[i]) * (after[i] - before[i]), size += before[i] * before[i];
      }
      result[s] = std::max(result[s], size > 0 ? std::sqrt(change / size) : std::sqrt(change));
    }
  });
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/sufficiency.hpp ====
// Are the most relevant patches enough, and are they needed? (ERASER, DeYoung et al., ACL 2020.)


namespace core_tokensets {

/// Means over the shares of patches, of the probability of the explained class.
struct sufficiency {
  std::vector<double> shares = {0.1, 0.2, 0.5};
  missing_tokens missing = missing_tokens::drop;
};

/// Probability lost when only the most relevant patches stay (`sufficiency`, low is good: what a token memory wants),
/// and when they alone are gone (`comprehensiveness`, high is good); `[S]` each.
struct sufficiency_result {
  std::vector<double> sufficiency, comprehensiveness;
};

template <measured M>
sufficiency_result measure(const sufficiency& options, M& m, std::span<const double> relevance) {
  require(!options.shares.empty(), "sufficiency: no shares");
  m.check(relevance);
  std::vector<masked_sample> masked;
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto order = falling_order(of_sample(relevance, m.offsets(), s));
    for (const double share : options.shares) {
      require(share > 0 && share <= 1, "sufficiency: share ", share);
      const auto top = static_cast<std::size_t>(std::lround(share * static_cast<double>(order.size())));
      masked_sample only{s, std::vector<std::uint8_t>(order.size(), 0)},
          rest{s, std::vector<std::uint8_t>(order.size(), 1)};
      for (std::size_t i = 0; i < std::min(order.size(), std::max<std::size_t>(top, 1)); ++i) {
        only.keep[order[i]] = 1, rest.keep[order[i]] = 0;
      }
      masked.push_back(std::move(only));
      masked.push_back(std::move(rest));
    }
  }
  const auto values = m.values(options.missing, masked);
  sufficiency_result result{std::vector<double>(m.samples(), 0.0), std::vector<double>(m.samples(), 0.0)};
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const std::size_t s = masked[i].sample;
    const auto n = static_cast<double>(options.shares.size());
    result.sufficiency[s] += (m.whole[s].probability - values[i].probability) / n;
    result.comprehensiveness[s] += (m.whole[s].probability - values[i + 1].probability) / n;
  }
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/judge.hpp ====
// All quality measures of an attribution method on the same samples, as one table.

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>


namespace core_tokensets {

/// What is measured and how finely.
struct judge_options {
  target explained = {};
  missing_tokens missing = missing_tokens::drop;
  index steps = 10, sets = 30;
  std::uint64_t seed = 0;
};

/// Name of a measure, whether more of it is better, and what it says.
struct judged_measure {
  const char* name;
  bool high_is_good;
  const char* about;
};

inline constexpr judged_measure judged_measures[] = {
    {"deletion", false, "area under the probability, most relevant tokens dropped first"},
    {"insertion", true, "area under the probability, least relevant tokens dropped first"},
    {"deletion_zero", false, "the same with tokens zeroed"},
    {"insertion_zero", true, "the same with tokens zeroed"},
    {"faithfulness", true, "correlation of relevance and drop over random sets of tokens"},
    {"infidelity", false, "squared error of relevance as a prediction of the drop, scaled to 0 .. 1"},
    {"sufficiency", false, "probability lost with the most relevant tokens alone"},
    {"comprehensiveness", true, "probability lost without the most relevant tokens"},
    {"saco", true, "do more relevant groups matter more"},
    {"completeness", false, "relative error of the sum of relevance"},
    {"gini", true, "sparseness of |relevance|"},
    {"pointing", true, "most relevant token on the object"},
    {"mass", true, "share of relevance on the object"},
    {"rank", true, "share of the k most relevant tokens on an object of k tokens"},
    {"max_sensitivity", false, "largest relative change under small noise"},
    {"cascading", false, "rank correlation with relevance under random parameters, from the head down"},
    {"independent", false, "the same, one layer at a time"},
    {"random_logit", false, "rank correlation with relevance for another class"},
};

/// Numbers of one method by measure, one for each sample.
using judgement = std::map<std::string, std::vector<double>>;

namespace detail {

inline void append(judgement& into, const char* name, const std::vector<double>& values) {
  auto& all = into[name];
  all.insert(all.end(), values.begin(), values.end());
}

template <measured M>
void judge_removal(M& m, std::span<const double> relevance, const judge_options& o, judgement& into) {
  for (const auto missing : {missing_tokens::drop, missing_tokens::zero}) {
    const bool drop = missing == missing_tokens::drop;
    append(into, drop ? "deletion" : "deletion_zero",
           measure(flipping{o.steps, removal_order::most_relevant_first, missing}, m, relevance).area);
    append(into, drop ? "insertion" : "insertion_zero",
           measure(flipping{o.steps, removal_order::least_relevant_first, missing}, m, relevance).area);
  }
  for (const auto& e : measure(random_removal{.sets = o.sets, .missing = o.missing, .seed = o.seed}, m, relevance)) {
    into["faithfulness"].push_back(faithfulness_correlation(e));
    into["infidelity"].push_back(infidelity(e));
  }
  const auto enough = measure(sufficiency{.missing = o.missing}, m, relevance);
  append(into, "sufficiency", enough.sufficiency);
  append(into, "comprehensiveness", enough.comprehensiveness);
  append(into, "saco", measure(saco{.missing = o.missing}, m, relevance));
  append(into, "completeness", measure(completeness{.missing = o.missing}, m, relevance));
}

template <tensor_backend B>
void judge_sanity(const attribution_method& method, B& b, const vit<B>& model, measured_batch<B>& m,
                  std::span<const double> relevance, const judge_options& o, attribution_workspace<B>& ws,
                  judgement& into) {
  std::vector<index> each(m.samples());
  std::iota(each.begin(), each.end(), index{0});
  const target same = repeat_target(m.explained, each);
  const auto explain = [&](const token_batch& batch, const target& t) {
    return attribute(method, b, model, batch, t, ws);
  };
  append(into, "max_sensitivity", measure(max_sensitivity{.seed = o.seed}, explain, m.batch, m.explained, relevance));
  for (const auto how : {randomised::cascading, randomised::independent}) {
    const auto other_model = [&](const vit<B>& other) { return attribute(method, b, other, m.batch, same, ws); };
    const auto result = measure(parameter_randomisation{how, o.seed + 1}, b, model, other_model, m.batch, relevance);
    for (std::size_t s = 0; s < m.samples(); ++s) {
      double mean = 0;
      for (const auto& layer : result.similarity) mean += layer[s] / static_cast<double>(result.similarity.size());
      into[words<randomised>[static_cast<std::size_t>(how)]].push_back(mean);
    }
  }
  if (model.config().classes > 1) {
    append(into, "random_logit",
           measure(random_logit{o.seed}, explain, m.batch, m.explained, model.config().classes, relevance));
  }
}

}  // namespace detail

/// Judges a method on one batch. `coverage` `[P]`: how much of each patch an object covers, or empty; samples without
/// an object are left out there. `sanity`: with the checks that explain many times over.
template <tensor_backend B>
void judge(const attribution_method& method, B& b, const vit<B>& model, measured_batch<B>& m,
           std::span<const double> coverage, bool sanity, const judge_options& o, attribution_workspace<B>& ws,
           judgement& into) {
  std::vector<index> each(m.samples());
  std::iota(each.begin(), each.end(), index{0});
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> relevance = attribute(method, b, model, m.batch, repeat_target(m.explained, each), ws);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  into["seconds"].insert(into["seconds"].end(), m.samples(), seconds / static_cast<double>(m.samples()));
  detail::judge_removal(m, relevance, o, into);
  for (std::size_t s = 0; s < m.samples(); ++s) {
    const auto r = of_sample(std::span<const double>(relevance), m.batch.offsets, s);
    into["gini"].push_back(gini(r));
    if (coverage.empty()) continue;
    const auto covered = of_sample(coverage, m.batch.offsets, s);
    if (std::none_of(covered.begin(), covered.end(), [](double x) { return x > 0; })) continue;
    const auto found = localisation(r, covered);
    into["pointing"].push_back(found.pointing);
    into["mass"].push_back(found.mass);
    into["rank"].push_back(found.rank);
  }
  if (sanity) detail::judge_sanity(method, b, model, m, relevance, o, ws, into);
}

/// Mean, median, standard deviation and number of the samples of each measure.
inline nlohmann::json to_json(const judgement& j) {
  nlohmann::json result = nlohmann::json::object();
  for (const auto& [name, values] : j) {
    const auto n = static_cast<double>(values.size());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double square = 0;
    for (const double v : values) square += (v - mean) * (v - mean);
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const double median = (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2;
    result[name] = {
        {"mean", mean}, {"median", median}, {"sd", n > 1 ? std::sqrt(square / (n - 1)) : 0.0}, {"n", values.size()}};
  }
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/attribution/measures/measured_answers.hpp ====
// Answers made ready for the measures that take patches away, and their judgement.


namespace core_tokensets {

/// A batch of pictures with one text each. The value of a text is the sum of the logits of its answer's tokens, its
/// probability that of the whole answer (without `end`); it is right where each of these tokens is the most probable.
template <tensor_backend B>
struct measured_answers {
  B& b;
  const image_text_model<B>& model;
  const token_batch& images;
  const text_batch& texts;
  std::vector<masked_value> whole;

  /// `Error`: not one text for each picture.
  measured_answers(B& backend, const image_text_model<B>& of, const token_batch& pictures, const text_batch& asked)
      : b(backend), model(of), images(pictures), texts(asked) {
    require(texts.texts() == texts.pictures(), "measure: ", texts.texts(), " texts about ", texts.pictures(),
            " pictures, expected one each");
    std::vector<masked_sample> all;
    for (std::size_t s = 0; s < samples(); ++s) all.push_back({s, std::vector<std::uint8_t>(patches(s), 1)});
    whole = values(missing_tokens::drop, all);
  }

  std::size_t samples() const { return static_cast<std::size_t>(images.samples()); }
  std::span<const index> offsets() const { return images.offsets; }
  std::size_t patches(std::size_t s) const {
    return static_cast<std::size_t>(images.offsets[s + 1] - images.offsets[s]);
  }
  void check(std::span<const double> relevance) const { check_relevance(relevance, images); }

  /// Values of masked samples, in batches of about so many image tokens.
  std::vector<masked_value> values(missing_tokens missing, std::span<const masked_sample> masked) {
    constexpr index most_tokens = 4096;
    require(missing != missing_tokens::rescaled, "measure: tokens are left out by drop or zero");
    std::vector<masked_value> result;
    for (std::size_t next = 0; next < masked.size();) {
      token_batch some;
      text_batch some_texts;
      while (next < masked.size() && (some.samples() == 0 || some.tokens() < most_tokens)) {
        const masked_sample& m = masked[next++];
        append_masked(m, missing, some);
        detail::append_sample(texts, static_cast<index>(m.sample), some_texts);
      }
      run(some, some_texts, result);
    }
    return result;
  }

 private:
  void append_masked(const masked_sample& m, missing_tokens missing, token_batch& to) const {
    const bool drop = missing == missing_tokens::drop;
    const index begin = images.offsets[m.sample], dim = images.patch_dim;
    to.patch_dim = dim;
    index kept = 0;
    for (std::size_t i = 0; i < m.keep.size(); ++i) {
      if (drop && m.keep[i] == 0) continue;
      const index row = begin + static_cast<index>(i);
      const double scale = images.scale.empty() ? 1.0 : images.scale[static_cast<std::size_t>(row)];
      to.patches.insert(to.patches.end(), images.patches.begin() + row * dim, images.patches.begin() + (row + 1) * dim);
      to.positions.push_back(images.positions[static_cast<std::size_t>(row)]);
      to.scale.push_back(m.keep[i] ? scale : 0.0);
      ++kept;
    }
    to.offsets.push_back(to.offsets.back() + kept);
  }

  void run(const token_batch& some, const text_batch& some_texts, std::vector<masked_value>& result) {
    workspace_.tape.keep = kept::logits;
    forward(b, model, some, some_texts, workspace_.tape);
    settle_answers(workspace_.tape.text, workspace_.explained);
    const auto logits = workspace_.tape.logits.to_host(b);
    const auto v = static_cast<std::size_t>(workspace_.tape.logits.cols());
    for (const auto& rows : workspace_.explained) {
      masked_value value{0, 1, true};
      for (const index a : rows) {
        const auto row = static_cast<std::size_t>(a);
        const settled_target token{objective::logit, {workspace_.tape.text.targets[row]}, {}};
        const masked_value of_token = detail::read_value(token, 0, std::span(logits).subspan(row * v, v));
        value.value += of_token.value;
        value.probability *= of_token.probability;
        value.right = value.right && of_token.right;
      }
      result.push_back(value);
    }
  }

  answer_workspace<B> workspace_;
};

/// Judges a method on answers by the measures of removal and of sparseness.
template <tensor_backend B>
void judge(const attribution_method& method, measured_answers<B>& m, const judge_options& o, answer_workspace<B>& ws,
           judgement& into) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> relevance = attribute_answers(method, m.b, m.model, m.images, m.texts, ws).image;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  into["seconds"].insert(into["seconds"].end(), m.samples(), seconds / static_cast<double>(m.samples()));
  detail::judge_removal(m, relevance, o, into);
  for (std::size_t s = 0; s < m.samples(); ++s)
    into["gini"].push_back(gini(of_sample(std::span<const double>(relevance), m.offsets(), s)));
}

}  // namespace core_tokensets

// ==== core_tokensets/core/progress.hpp ====
// Progress of long work: how far, how fast, how long it will still take.

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>

namespace core_tokensets {

/// One report of a running job: `done` of `total` steps of `what`, `seconds` since its start.
struct progress {
  std::string what;
  std::ptrdiff_t done = 0, total = 0;
  double seconds = 0;
  std::string note;

  /// Seconds that the rest will take at the pace so far.
  double seconds_left() const {
    return done > 0 ? seconds / static_cast<double>(done) * static_cast<double>(total - done) : 0.0;
  }
};

/// Receives reports; an empty one means silence. It may throw to interrupt the work.
using progress_callback = std::function<void(const progress&)>;

/// Counts the steps of one job and reports each of them to a callback.
class progress_meter {
 public:
  progress_meter(const progress_callback& callback, std::string what, std::ptrdiff_t total)
      : callback_(callback), start_(std::chrono::steady_clock::now()) {
    state_.what = std::move(what);
    state_.total = total;
  }

  void step(const std::string& note = {}) {
    ++state_.done;
    if (!callback_) return;
    state_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    state_.note = note;
    callback_(state_);
  }

 private:
  const progress_callback& callback_;
  std::chrono::steady_clock::time_point start_;
  progress state_;
};

/// A callback that keeps one line on standard error up to date, at most ten times a second.
inline progress_callback console_progress() {
  return [last = std::chrono::steady_clock::time_point{}](const progress& p) mutable {
    const auto now = std::chrono::steady_clock::now();
    const bool finished = p.done == p.total;
    if (!finished && now - last < std::chrono::milliseconds(100)) return;
    last = now;
    const int left = static_cast<int>(p.seconds_left() + 0.5);
    std::fprintf(stderr, "\r%s %td/%td  %d:%02d left  %s\033[K%s", p.what.c_str(), p.done, p.total, left / 60,
                 left % 60, p.note.c_str(), finished ? "\n" : "");
    std::fflush(stderr);
  };
}

}  // namespace core_tokensets

// ==== core_tokensets/data/augment.hpp ====
// Random shifts and mirror images of training pictures. Each draw depends on (seed, epoch, sample) only, so it is the
// same in any order and on any number of threads.

#include <algorithm>
#include <cstdint>


namespace core_tokensets {

/// What a shifted picture shows beyond its border: the pixels at the border again, or black.
enum class padding { edge, zero };

struct augmentation {
  index shift = 0;  ///< pad by so many pixels on each side and crop at random ("pad and crop")
  double flip = 0;  ///< probability of the mirror image
  padding border = padding::edge;
};

/// One draw: pixel (y, x) of the result is (y + dy, x + dx) of the picture, mirrored if `flip`.
struct augmentation_draw {
  index dy = 0, dx = 0;
  bool flip = false;
  padding border = padding::edge;

  /// Offset of the source pixel in `[height, width]`, or -1 for black.
  index source(index y, index x, index height, index width) const {
    y += dy;
    x = (flip ? width - 1 - x : x) + dx;
    const bool outside = y < 0 || y >= height || x < 0 || x >= width;
    if (outside && border == padding::zero) return -1;
    return std::clamp<index>(y, 0, height - 1) * width + std::clamp<index>(x, 0, width - 1);
  }
};

/// The draw for one sample in one epoch. `Error`: a negative shift, a probability outside of 0 .. 1.
inline augmentation_draw draw_augmentation(const augmentation& options, std::uint64_t seed, std::uint64_t epoch,
                                           index sample) {
  require(options.shift >= 0 && options.flip >= 0 && options.flip <= 1, "augmentation: shift ", options.shift,
          ", flip ", options.flip, ": expected a shift of at least 0 and a probability");
  random_stream random(seed ^ 0x6175676d656e7421u, (epoch << 40) + static_cast<std::uint64_t>(sample));
  augmentation_draw draw;
  draw.border = options.border;
  draw.dy = random.below(2 * options.shift + 1) - options.shift;
  draw.dx = random.below(2 * options.shift + 1) - options.shift;
  draw.flip = random.uniform() < options.flip;
  return draw;
}

/// Writes the augmented picture to `to` `[height, width, channels]`, which must not be the picture itself.
inline void augment_into(const image_view& from, const augmentation_draw& draw, std::uint8_t* to) {
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x, to += from.channels) {
      const index source = draw.source(y, x, from.height, from.width);
      if (source < 0) {
        std::fill_n(to, from.channels, std::uint8_t{0});
      } else {
        std::copy_n(from.pixels + source * from.channels, from.channels, to);
      }
    }
  }
}

/// The same as normalised numbers; `table` comes from `pixel_table`.
inline void augment_into(const image_view& from, const augmentation_draw& draw, const float* table, float* to) {
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x) {
      const index source = draw.source(y, x, from.height, from.width);
      for (index c = 0; c < from.channels; ++c) {
        *to++ = table[c * 256 + (source < 0 ? 0 : from.pixels[source * from.channels + c])];
      }
    }
  }
}

inline image augment(const image_view& from, const augmentation_draw& draw) {
  image to(from.height, from.width, from.channels);
  augment_into(from, draw, to.pixels.data());
  return to;
}

}  // namespace core_tokensets

// ==== core_tokensets/io/atomic_file.hpp ====
// Whole files in and out. A file is written under a temporary name in its own folder, flushed to the disk and renamed,
// so that at any moment the name holds either the old content or the new one, never a part.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>


namespace core_tokensets {

namespace detail {

/// Throws `Error` with the path, what was tried and the reason that the system gives.
[[noreturn]] inline void fail_file(const std::filesystem::path& path, std::string_view tried, int reason = errno) {
  fail(path.string(), ": cannot ", tried, ": ", std::generic_category().message(reason));
}

/// A file descriptor that closes itself, and removes `doomed` unless it was told that all went well.
struct open_file {
  int descriptor = -1;
  std::filesystem::path doomed;

  open_file(int d, std::filesystem::path remove_on_failure) : descriptor(d), doomed(std::move(remove_on_failure)) {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (descriptor >= 0) ::close(descriptor);
    if (!doomed.empty()) ::unlink(doomed.c_str());
  }
};

/// A new file with a name that no other has, in `folder`.
inline std::pair<int, std::filesystem::path> create_temporary(const std::filesystem::path& folder,
                                                              const std::filesystem::path& target) {
  for (int attempt = 0; attempt < 10000; ++attempt) {
    const auto name = folder / ("." + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
    const int descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return {descriptor, name};
    if (errno != EEXIST) fail_file(target, "create a temporary file beside it");
  }
  fail(target.string(), ": cannot create a temporary file beside it: 10000 old ones are in the way");
}

inline void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& target) {
  while (!bytes.empty()) {
    const auto written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_file(target, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

/// Where a file is written to: links are followed. `Error`: no name, or something that is no regular file.
struct write_place {
  std::filesystem::path target, folder;
  bool replaces = false;
  mode_t permissions = 0;  ///< of the file that is replaced
};

inline write_place place_of(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  write_place place;
  place.target = fs::is_symlink(path, ignored) ? fs::weakly_canonical(path, ignored) : path;
  if (place.target.empty() || !place.target.has_filename())
    fail("'", path.string(), "': cannot write: expected a file name");
  struct stat old {};
  place.replaces = ::stat(place.target.c_str(), &old) == 0;
  if (!place.replaces && errno != ENOENT) fail_file(path, "write");
  place.permissions = old.st_mode & 07777;
  require(!place.replaces || S_ISREG(old.st_mode), path.string(), ": cannot write: exists and is not a regular file");
  place.folder = place.target.has_parent_path() ? place.target.parent_path() : fs::path(".");
  return place;
}

}  // namespace detail

/// What `work()` returns; an error of the file system becomes an `Error` with the path and the reason.
template <class Work>
auto with_file_errors(const Work& work) {
  try {
    return work();
  } catch (const std::filesystem::filesystem_error& e) {
    fail(e.path1().string(), ": ", e.code().message());
  }
}

/// `Error` with the reason where `write_file` could not write there: to be told before long work, not behind it.
inline void check_writable(const std::filesystem::path& path) {
  auto [descriptor, temporary] = detail::create_temporary(detail::place_of(path).folder, path);
  const detail::open_file probe(descriptor, std::move(temporary));
}

/// Replaces the file at `path` by the pieces, one after the other; a link is followed, the old file's permissions stay.
/// On `Error` the old file is untouched and no temporary file is left.
inline void write_file(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces) {
  const detail::write_place place = detail::place_of(path);
  auto [descriptor, temporary] = detail::create_temporary(place.folder, path);
  detail::open_file file(descriptor, std::move(temporary));
  for (const auto piece : pieces) detail::write_all(file.descriptor, piece, path);
  if (place.replaces && ::fchmod(file.descriptor, place.permissions) != 0)
    detail::fail_file(path, "set its permissions");
  if (::fsync(file.descriptor) != 0) detail::fail_file(path, "flush");
  if (::close(std::exchange(file.descriptor, -1)) != 0) detail::fail_file(path, "close");
  if (::rename(file.doomed.c_str(), place.target.c_str()) != 0)
    detail::fail_file(path, "rename the temporary file to it");
  file.doomed.clear();

  // Some file systems cannot flush a folder and say EINVAL; the rename itself has happened.
  const detail::open_file parent(::open(place.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), {});
  if (parent.descriptor >= 0 && ::fsync(parent.descriptor) != 0 && errno != EINVAL)
    detail::fail_file(path, "flush its folder");
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  write_file(path, std::span<const std::span<const std::byte>>(&bytes, 1));
}

inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}

/// An open regular file of known size, read at any offset. `Error`: missing, not a regular file, shorter than asked.
class file_reader {
 public:
  explicit file_reader(const std::filesystem::path& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), {}) {
    if (file_.descriptor < 0) detail::fail_file(path_, "open");
    struct stat info {};
    if (::fstat(file_.descriptor, &info) != 0) detail::fail_file(path_, "read its size");
    require(S_ISREG(info.st_mode), path_.string(), ": cannot read: not a regular file");
    size_ = static_cast<index>(info.st_size);
  }

  index size() const { return size_; }

  /// Fills `out` with the bytes from `offset` on.
  void read(index offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const auto got = ::pread(file_.descriptor, out.data(), out.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) detail::fail_file(path_, "read");
      require(got > 0, path_.string(), ": ends at byte ", offset, ", expected ", out.size(), " more");
      out = out.subspan(static_cast<std::size_t>(got));
      offset += static_cast<index>(got);
    }
  }

 private:
  std::filesystem::path path_;
  detail::open_file file_;
  index size_ = 0;
};

/// All bytes of a file.
inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const file_reader file(path);
  std::vector<std::byte> bytes(static_cast<std::size_t>(file.size()));
  file.read(0, bytes);
  return bytes;
}

/// All bytes of a file as a string.
inline std::string read_text(const std::filesystem::path& path) {
  const file_reader file(path);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/image_io.hpp ====
// Picture files: JPEG and PNG in, PNG and JPEG out. The work is done by the stb headers, which stay inside a namespace
// of ours; what they are lenient about (cut-off or damaged files) is checked here first.

#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

// What the stb headers include, so that they include nothing inside the namespace below.
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif


// The switches of stb are set for these two includes only. A program may use stb for itself as well, but a translation
// unit that holds an implementation of stb of its own must not include this header.
#pragma push_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma push_macro("STB_IMAGE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_STATIC")
#pragma push_macro("STBI_NO_STDIO")
#pragma push_macro("STBIDEF")
#pragma push_macro("stbi__err")
#pragma push_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma push_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_WRITE_STATIC")
#pragma push_macro("STBI_WRITE_NO_STDIO")
#pragma push_macro("STBIWDEF")
#undef STBI_INCLUDE_STB_IMAGE_H
#undef STB_IMAGE_IMPLEMENTATION
#undef STB_IMAGE_STATIC
#undef STBI_NO_STDIO
#undef STBIDEF
#undef stbi__err
#undef INCLUDE_STB_IMAGE_WRITE_H
#undef STB_IMAGE_WRITE_IMPLEMENTATION
#undef STB_IMAGE_WRITE_STATIC
#undef STBI_WRITE_NO_STDIO
#undef STBIWDEF
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
namespace core_tokensets::detail::stb {
#if __has_include(<stb/stb_image.h>)
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#else
#include <stb_image.h>
#include <stb_image_write.h>
#endif
}  // namespace core_tokensets::detail::stb
#pragma GCC diagnostic pop
#pragma pop_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma pop_macro("STB_IMAGE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_STATIC")
#pragma pop_macro("STBI_NO_STDIO")
#pragma pop_macro("STBIDEF")
#undef stbi__err
#pragma pop_macro("stbi__err")
#pragma pop_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma pop_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_WRITE_STATIC")
#pragma pop_macro("STBI_WRITE_NO_STDIO")
#pragma pop_macro("STBIWDEF")

namespace core_tokensets {

namespace detail {

/// True if no Huffman table in the payload of a DHT segment has more than 256 codes: old versions of stb write beyond
/// their arrays otherwise.
inline bool huffman_tables_fit(std::span<const std::uint8_t> payload) {
  while (payload.size() >= 17) {
    std::size_t codes = 0;
    for (std::size_t i = 1; i <= 16; ++i) codes += payload[i];
    if (codes > 256 || payload.size() < 17 + codes) return false;
    payload = payload.subspan(17 + codes);
  }
  return payload.empty();
}

/// True if the markers of a JPEG file lead from its start to its end-of-image marker (newer versions of stb fill up
/// what is missing with grey).
inline bool jpeg_is_whole(std::span<const std::uint8_t> b) {
  std::size_t i = 2;
  while (i + 1 < b.size()) {
    if (b[i] != 0xFF) return false;
    const unsigned marker = b[i + 1];
    if (marker == 0xFF) {  // a fill byte
      ++i;
      continue;
    }
    i += 2;
    if (marker == 0xD9) return true;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) continue;
    if (i + 1 >= b.size()) return false;
    const auto length = static_cast<std::size_t>(b[i] << 8 | b[i + 1]);
    if (length < 2 || length > b.size() - i) return false;
    if (marker == 0xC4 && !huffman_tables_fit(b.subspan(i + 2, length - 2))) return false;
    i += length;
    if (marker != 0xDA) continue;
    // Coded data: it ends at the first marker that is neither an escaped 0xFF nor a restart.
    while (i + 1 < b.size() && (b[i] != 0xFF || b[i + 1] == 0 || (b[i + 1] >= 0xD0 && b[i + 1] <= 0xD7))) ++i;
  }
  return false;
}

/// CRC-32 as PNG uses it (ISO 3309).
constexpr std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  constexpr auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t n = 0; n < 256; ++n) {
      std::uint32_t c = n;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[n] = c;
    }
    return t;
  }();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const std::uint8_t b : bytes) crc = table[(crc ^ b) & 255u] ^ (crc >> 8);
  return ~crc;
}

/// True if all chunks of a PNG file up to IEND are there and have the right checksum.
inline bool png_is_whole(std::span<const std::uint8_t> b) {
  const auto word = [&](std::size_t i) {
    return static_cast<std::uint32_t>(b[i]) << 24 | static_cast<std::uint32_t>(b[i + 1]) << 16 |
           static_cast<std::uint32_t>(b[i + 2]) << 8 | static_cast<std::uint32_t>(b[i + 3]);
  };
  for (std::size_t i = 8; i + 12 <= b.size();) {
    const std::size_t length = word(i);
    if (length > b.size() - i - 12 || crc32(b.subspan(i + 4, length + 4)) != word(i + 8 + length)) return false;
    if (word(i + 4) == 0x49454E44u) return true;
    i += length + 12;
  }
  return false;
}

inline void append_bytes(void* context, void* data, int size) {
  const auto* first = static_cast<const std::byte*>(data);
  static_cast<std::vector<std::byte>*>(context)->insert(static_cast<std::vector<std::byte>*>(context)->end(), first,
                                                        first + size);
}

inline void check_encodable(const char* what, const image_view& from) {
  require(from.height > 0 && from.width > 0 && from.channels >= 1 && from.channels <= 4 && from.height < (1 << 24) &&
              from.width < (1 << 24) && from.size() < INT_MAX,
          what, ": ", from.height, " x ", from.width, " x ", from.channels, ": expected a picture of 1 to 4 channels");
}

}  // namespace detail

/// The picture in the bytes of a JPEG or PNG file, with 1, 3 or 4 channels, or as many as it has (0). Grey becomes
/// colour and back, alpha is left out. `Error` naming `name`: another format, cut off, damaged.
inline image decode_image(std::span<const std::byte> bytes, index channels = 0, const std::string& name = "image") {
  const std::span b(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  constexpr std::array<std::uint8_t, 8> png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  const bool is_jpeg = b.size() >= 3 && b[0] == 0xFF && b[1] == 0xD8 && b[2] == 0xFF;
  const bool is_png = b.size() >= 8 && std::memcmp(b.data(), png.data(), 8) == 0;
  require(is_jpeg || is_png, name, ": neither a JPEG nor a PNG file (", b.size(), " bytes)");
  require(b.size() < INT_MAX, name, ": ", b.size(), " bytes, expected fewer than 2 GiB");
  require(channels == 0 || channels == 1 || channels == 3 || channels == 4, name, ": asked for ", channels,
          " channels, expected 0, 1, 3 or 4");
  if (is_jpeg)
    require(detail::jpeg_is_whole(b), name, ": JPEG file is cut off or damaged: its markers do not lead to an end");
  if (is_png) require(detail::png_is_whole(b), name, ": PNG file is cut off or damaged: missing or wrong chunks");
  int width = 0, height = 0, found = 0;
  const std::unique_ptr<std::uint8_t, decltype(&std::free)> pixels(
      detail::stb::stbi_load_from_memory(b.data(), static_cast<int>(b.size()), &width, &height, &found,
                                         static_cast<int>(channels)),
      &std::free);
  if (!pixels) fail(name, ": damaged ", is_jpeg ? "JPEG" : "PNG", " file: ", detail::stb::stbi_failure_reason());
  return image(image_view{height, width, channels == 0 ? found : channels, pixels.get()});
}

/// The picture in a JPEG or PNG file; see `decode_image`.
inline image read_image(const std::filesystem::path& path, index channels = 0) {
  return decode_image(read_file(path), channels, path.string());
}

/// The bytes of a PNG file with this picture (no loss). `Error`: no pixels, more than 4 channels.
inline std::vector<std::byte> encode_png(const image_view& from) {
  detail::check_encodable("encode_png", from);
  std::vector<std::byte> bytes;
  const int ok = detail::stb::stbi_write_png_to_func(detail::append_bytes, &bytes, static_cast<int>(from.width),
                                                     static_cast<int>(from.height), static_cast<int>(from.channels),
                                                     from.pixels, static_cast<int>(from.width * from.channels));
  require(ok != 0, "encode_png: out of memory");
  return bytes;
}

/// The bytes of a baseline JPEG file with this picture, quality 1 to 100.
inline std::vector<std::byte> encode_jpeg(const image_view& from, int quality = 90) {
  detail::check_encodable("encode_jpeg", from);
  require(quality >= 1 && quality <= 100, "encode_jpeg: quality ", quality, ", expected 1 to 100");
  std::vector<std::byte> bytes;
  const int ok = detail::stb::stbi_write_jpg_to_func(detail::append_bytes, &bytes, static_cast<int>(from.width),
                                                     static_cast<int>(from.height), static_cast<int>(from.channels),
                                                     from.pixels, quality);
  require(ok != 0, "encode_jpeg: out of memory");
  return bytes;
}

/// Writes the picture as a PNG file; the name holds the old file or the whole new one, never a part.
inline void write_png(const std::filesystem::path& path, const image_view& from) { write_file(path, encode_png(from)); }

}  // namespace core_tokensets

// ==== core_tokensets/data/boxes.hpp ====
// Boxes around objects, from a table beside the pictures, as masks of a dataset.

#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// Pixels from (x0, y0) to (x1, y1), both included.
struct pixel_box {
  index x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

/// Boxes by file name, several of a file in their order, of a table with the heading "file,x0,y0,x1,y1". `Error` naming
/// the line: other columns, no whole numbers, an empty box, or one beyond the largest picture.
inline std::map<std::string, std::vector<pixel_box>> read_boxes(const std::filesystem::path& table) {
  std::ifstream file(table);
  require(bool(file), table.string(), ": the table of boxes cannot be read");
  std::map<std::string, std::vector<pixel_box>> boxes;
  std::string line;
  index number = 0;
  while (std::getline(file, line)) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (number == 1) {
      require(line == "file,x0,y0,x1,y1", table.string(), ": heading '", line, "', expected file,x0,y0,x1,y1");
      continue;
    }
    if (line.empty()) continue;
    std::string_view rest = line;
    const auto next = [&] {
      const std::string_view field = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), field.size() + 1));
      return field;
    };
    const std::string name(next());
    index values[4] = {};
    for (index& value : values) {
      const std::string_view field = next();
      const auto [end, bad] = std::from_chars(field.data(), field.data() + field.size(), value);
      require(bad == std::errc() && end == field.data() + field.size(), table.string(), ", line ", number, ": '", line,
              "', expected a name and four whole numbers");
    }
    const pixel_box box{values[0], values[1], values[2], values[3]};
    constexpr index limit = 1 << 20;
    require(rest.empty() && box.x0 >= 0 && box.y0 >= 0 && box.x1 >= box.x0 && box.y1 >= box.y0 && box.x1 < limit &&
                box.y1 < limit,
            table.string(), ", line ", number, ": '", line, "' is no box");
    boxes[name].push_back(box);
  }
  return boxes;
}

/// Writes `object` to the pixels of `mask` `[height, width]` in a box that was drawn on a picture of `from_height` x
/// `from_width`.
inline void mark_box(const pixel_box& box, index from_height, index from_width, index height, index width,
                     std::uint8_t* mask, std::uint8_t object = 1) {
  const auto first = [](index x, index from, index to) { return x * to / from; };
  const auto last = [](index x, index from, index to) { return std::min(to, ((x + 1) * to + from - 1) / from); };
  for (index y = first(box.y0, from_height, height); y < last(box.y1, from_height, height); ++y) {
    for (index x = first(box.x0, from_width, width); x < last(box.x1, from_width, width); ++x)
      mask[y * width + x] = object;
  }
}

/// Gives the pictures of DIR/part masks from DIR/boxes.csv, whose names are relative to DIR; false if there is no such
/// table. Pictures without a box get an empty mask; of several boxes each is an object, the later in front. `resized`:
/// the dataset is not of the pictures' own size. `Error`: a bad table, a box that leaves its picture.
inline bool add_box_masks(dataset& data, const std::filesystem::path& dir, const std::string& part, bool resized) {
  if (!std::filesystem::exists(dir / "boxes.csv")) return false;
  const auto boxes = read_boxes(dir / "boxes.csv");
  const index area = data.height * data.width;
  data.masks.assign(static_cast<std::size_t>(data.n() * area), 0);
  for (index i = 0; i < data.n(); ++i) {
    const std::string& name = data.names[static_cast<std::size_t>(i)];
    const auto found = boxes.find(part + "/" + name);
    if (found == boxes.end()) continue;
    index height = data.height, width = data.width;
    if (resized) {
      const image own = read_image(dir / part / name);
      height = own.height, width = own.width;
    }
    std::uint8_t object = 0;
    for (const pixel_box& box : found->second) {
      require(box.x1 < width && box.y1 < height, (dir / "boxes.csv").string(), ": a box of ", part, "/", name,
              " reaches to (", box.x1, ", ", box.y1, "), the picture has ", width, " x ", height, " pixels");
      object = static_cast<std::uint8_t>(std::min(255, object + 1));
      mark_box(box, height, width, data.height, data.width, data.masks.data() + i * area, object);
    }
  }
  return true;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/text_words.hpp ====
// Where the words of a text lie, and how often each occurs in a corpus. Tokens never reach beyond a word.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace core_tokensets {

namespace detail {

/// ASCII letters and digits, and every byte of a character beyond ASCII.
constexpr bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (static_cast<unsigned char>(c) & 0x80u) != 0;
}

}  // namespace detail

/// Hands the words of `text`, in order and without a gap, to `visit(std::string_view)`. A word is a run of letters and
/// digits (bytes above 127 count as letters) with the one blank before it, or a run of other bytes: "is it red?" is
/// "is", " it", " red", "?".
template <class Visit>
void for_each_word(std::string_view text, const Visit& visit) {
  const auto word_at = [&](std::size_t i) { return i < text.size() && detail::is_word_byte(text[i]); };
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    const bool blank = text[begin] == ' ' && word_at(begin + 1);
    end = begin + 1;
    if (blank || word_at(begin)) {
      while (word_at(end)) ++end;
    } else {
      while (end < text.size() && !word_at(end) && !(text[end] == ' ' && word_at(end + 1))) ++end;
    }
    visit(text.substr(begin, end - begin));
  }
}

/// A word and how often it occurs.
using counted_word = std::pair<std::string, std::int64_t>;

/// The different words of a corpus, ordered by their bytes.
inline std::vector<counted_word> count_words(std::span<const std::string> corpus) {
  std::unordered_map<std::string, std::int64_t> counts;
  std::string key;
  for (const auto& text : corpus) {
    for_each_word(text, [&](std::string_view word) {
      key.assign(word);
      ++counts[key];
    });
  }
  std::vector<counted_word> words(counts.begin(), counts.end());
  std::sort(words.begin(), words.end());
  return words;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/byte_pairs.hpp ====
// Byte-pair encoding (Gage 1994; Sennrich, Haddow & Birch 2016): the two neighbours that occur together most often
// become one token, again and again. The merges are learnt on counted words and applied in the order of their learning.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>


namespace core_tokensets::detail {

/// Tokens 0 and 1 begin and end a text, the 256 bytes follow, then whatever a tokenizer has learnt.
constexpr std::int32_t first_byte_token = 2, first_learnt_token = 258;

/// Two neighbours that become the token `first_learnt_token` + the number of the merge.
using token_pair = std::pair<std::int32_t, std::int32_t>;

constexpr std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

inline void append_bytes_as_tokens(std::string_view bytes, std::vector<std::int32_t>& tokens) {
  for (const char c : bytes) tokens.push_back(first_byte_token + static_cast<unsigned char>(c));
}

/// Counts of all neighbours in a set of words, kept up to date while words change.
class pair_counts {
 public:
  /// Word number `word`, spelled `tokens`, occurs `times` more often; `times` may be negative.
  void add(const std::vector<std::int32_t>& tokens, std::int64_t times, std::size_t word) {
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      auto& seen = entries_[pair_key(tokens[i], tokens[i + 1])];
      seen.count += times;
      if (times < 0) continue;
      if (seen.words.empty() || seen.words.back() != word) seen.words.push_back(word);
      touched_.emplace_back(tokens[i], tokens[i + 1]);
    }
  }

  /// The pair with the highest count of at least 2, of several the one with the smallest token numbers, and the words
  /// that may hold it; (-1, -1) if there is none.
  std::pair<token_pair, std::vector<std::size_t>> take_best() {
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const auto& [left, right] : touched_) {
      heap_.emplace(entries_.at(pair_key(left, right)).count, -left, -right);
    }
    touched_.clear();
    while (!heap_.empty()) {
      const auto [count, left, right] = heap_.top();
      heap_.pop();
      const auto found = entries_.find(pair_key(-left, -right));
      if (found == entries_.end()) continue;
      if (found->second.count != count) {  // the count fell after it was put there
        if (found->second.count > 1 && found->second.count < count) heap_.emplace(found->second.count, left, right);
        continue;
      }
      if (count < 2) continue;
      auto words = std::move(found->second.words);
      entries_.erase(found);
      return {{-left, -right}, std::move(words)};
    }
    return {{-1, -1}, {}};
  }

 private:
  struct entry {
    std::int64_t count = 0;
    std::vector<std::size_t> words;
  };
  std::unordered_map<std::uint64_t, entry> entries_;
  std::vector<token_pair> touched_;
  std::priority_queue<std::tuple<std::int64_t, std::int32_t, std::int32_t>> heap_;
};

/// Replaces the neighbours `pair` by `merged`, from left to right; false if there are none.
inline bool merge_in(std::vector<std::int32_t>& tokens, token_pair pair, std::int32_t merged) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < tokens.size(); ++kept) {
    const bool found = tokens[i] == pair.first && i + 1 < tokens.size() && tokens[i + 1] == pair.second;
    tokens[kept] = found ? merged : tokens[i];
    i += found ? 2 : 1;
  }
  const bool changed = kept < tokens.size();
  tokens.resize(kept);
  return changed;
}

/// At most `limit` merges, the most frequent pair first (ties: the smallest token numbers). Pairs that occur once only
/// are not merged.
inline std::vector<token_pair> learn_merges(std::span<const counted_word> words, std::size_t limit) {
  std::vector<std::vector<std::int32_t>> spelled(words.size());
  pair_counts counts;
  for (std::size_t w = 0; w < words.size(); ++w) {
    append_bytes_as_tokens(words[w].first, spelled[w]);
    counts.add(spelled[w], words[w].second, w);
  }
  std::vector<token_pair> merges;
  while (merges.size() < limit) {
    const auto [pair, where] = counts.take_best();
    if (pair.first < 0) break;
    const auto merged = first_learnt_token + static_cast<std::int32_t>(merges.size());
    merges.push_back(pair);
    for (const std::size_t w : where) {
      const auto before = spelled[w];
      if (!merge_in(spelled[w], pair, merged)) continue;
      counts.add(before, -words[w].second, w);
      counts.add(spelled[w], words[w].second, w);
    }
  }
  return merges;
}

/// Merges the tokens of one word, the earliest merge first and from left to right: O(n log n) for a word of any length.
/// `ranks`: the number of each merge by `pair_key`.
inline void apply_merges(const std::unordered_map<std::uint64_t, std::int32_t>& ranks,
                         std::vector<std::int32_t>& tokens) {
  const std::size_t n = tokens.size();
  using candidate = std::tuple<std::int32_t, std::size_t, std::size_t>;  // rank, left place, right place
  std::priority_queue<candidate, std::vector<candidate>, std::greater<>> candidates;
  std::vector<std::size_t> before(n), after(n);
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left >= n || right >= n) return;
    const auto found = ranks.find(pair_key(tokens[left], tokens[right]));
    if (found != ranks.end()) candidates.emplace(found->second, left, right);
  };
  for (std::size_t i = 0; i < n; ++i) before[i] = i - 1, after[i] = i + 1;  // before the first one: beyond n
  for (std::size_t i = 0; i + 1 < n; ++i) consider(i, i + 1);
  while (!candidates.empty()) {
    const auto [rank, left, right] = candidates.top();
    candidates.pop();
    if (tokens[left] < 0 || tokens[right] < 0 || after[left] != right) continue;  // a neighbour is gone
    const auto found = ranks.find(pair_key(tokens[left], tokens[right]));
    if (found == ranks.end() || found->second != rank) continue;  // a neighbour has grown
    tokens[left] = first_learnt_token + rank;
    tokens[right] = -1;
    after[left] = after[right];
    if (after[right] < n) before[after[right]] = left;
    consider(before[left], left);
    consider(left, after[left]);
  }
  std::erase(tokens, -1);
}

}  // namespace core_tokensets::detail

// ==== core_tokensets/data/cache.hpp ====
// A cache of decoded pictures: one file per folder and options, which holds the exact list of the picture files that it
// was made from. Whatever does not match (a changed file, a damaged cache) counts as absent and is made anew.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// $XDG_CACHE_HOME/core_tokensets, or ~/.cache/core_tokensets; empty (no cache) where neither is set.
inline std::filesystem::path default_cache_folder() {
  namespace fs = std::filesystem;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return fs::path(cache) / "core_tokensets";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return fs::path(home) / ".cache" / "core_tokensets";
  }
  return {};
}

/// Decoded pictures of one size: `[n, height, width, channels]`.
struct decoded_pixels {
  index n = 0, height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels = {};
};

namespace detail {

constexpr std::uint64_t cache_magic = 0x3130637064737463u;  // "ctsdpc01" in the file

/// FNV-1a over the FNV-1a sums of pieces of 1 MiB, which are computed in parallel.
inline std::uint64_t checksum_in_pieces(std::span<const std::byte> bytes, int threads) {
  constexpr index grain = index{1} << 20;
  const auto size = static_cast<index>(bytes.size());
  std::vector<std::uint64_t> sums(static_cast<std::size_t>((size + grain - 1) / grain));
  parallel_chunks(threads, size, grain, [&](index begin, index end) {
    sums[static_cast<std::size_t>(begin / grain)] =
        fnv1a(bytes.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  });
  return fnv1a(std::as_bytes(std::span<const std::uint64_t>(sums)));
}

inline std::filesystem::path cache_path(const std::filesystem::path& folder, std::string_view key) {
  return folder / ("pixels-" + checksum_text(fnv1a(std::as_bytes(std::span(key)))) + ".bin");
}

}  // namespace detail

/// The pictures stored under `key` if they were made from exactly this `listing`, otherwise nothing. Never throws.
inline std::optional<decoded_pixels> load_decoded(const std::filesystem::path& folder, std::string_view key,
                                                  std::string_view listing, int threads = 0) {
  if (folder.empty()) return std::nullopt;
  const auto path = detail::cache_path(folder, key);
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  try {
    const file_reader file(path);
    std::array<std::uint64_t, 8> header{};  // magic, n, height, width, channels, listing size, two checksums
    constexpr index header_size = sizeof header;
    if (file.size() < header_size) return std::nullopt;
    file.read(0, std::as_writable_bytes(std::span(header)));
    if (header[0] != detail::cache_magic || header[5] != listing.size()) return std::nullopt;
    std::uint64_t expected = 1;
    for (std::size_t i = 1; i <= 4; ++i) {
      if (header[i] == 0 || header[i] > static_cast<std::uint64_t>(file.size()) / expected) return std::nullopt;
      expected *= header[i];
    }
    const auto listed = static_cast<index>(listing.size());
    if (header_size + listed + static_cast<index>(expected) != file.size()) return std::nullopt;
    std::string found(listing.size(), '\0');
    file.read(header_size, std::as_writable_bytes(std::span(found)));
    if (found != listing || header[6] != fnv1a(std::as_bytes(std::span(header).first(6)))) return std::nullopt;
    decoded_pixels result{static_cast<index>(header[1]), static_cast<index>(header[2]), static_cast<index>(header[3]),
                          static_cast<index>(header[4])};
    result.pixels.resize(expected);
    const auto bytes = std::as_writable_bytes(std::span(result.pixels));
    file.read(header_size + listed, bytes);
    if (detail::checksum_in_pieces(bytes, threads) != header[7]) return std::nullopt;
    return result;
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// Stores pictures for the next time; false where that is not possible (read-only, full). Never throws.
inline bool store_decoded(const std::filesystem::path& folder, std::string_view key, std::string_view listing, index n,
                          index height, index width, index channels, std::span<const std::uint8_t> pixels,
                          int threads = 0) {
  if (folder.empty()) return false;
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return false;
  const auto word = [](auto x) { return static_cast<std::uint64_t>(x); };
  std::array<std::uint64_t, 8> header{
      detail::cache_magic, word(n), word(height), word(width), word(channels), word(listing.size()), 0, 0};
  header[6] = fnv1a(std::as_bytes(std::span(header).first(6)));
  header[7] = detail::checksum_in_pieces(std::as_bytes(pixels), threads);
  const std::array<std::span<const std::byte>, 3> pieces{std::as_bytes(std::span(header)),
                                                         std::as_bytes(std::span(listing)), std::as_bytes(pixels)};
  try {
    write_file(detail::cache_path(folder, key), std::span<const std::span<const std::byte>>(pieces));
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/data/cifar.hpp ====
// CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009): records of labels and 3 x 32 x 32 bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>


namespace core_tokensets {

namespace detail {

/// Adds the records of a file: `label_bytes` labels, of which number `used` counts, then red, green and blue planes.
inline void append_cifar(const std::filesystem::path& path, index label_bytes, index used, index classes,
                         dataset& data) {
  constexpr index area = 32 * 32, size = 3 * area;
  const auto bytes = read_file(path);
  const index record = label_bytes + size, n = static_cast<index>(bytes.size()) / record;
  require(n > 0 && n * record == static_cast<index>(bytes.size()), path.string(), ": ", bytes.size(),
          " bytes, expected a multiple of ", record, " (", label_bytes, " label bytes and 32 x 32 x 3 pixels)");
  const std::string file = path.filename().string();
  data.pixels.reserve(data.pixels.size() + static_cast<std::size_t>(n * size));
  for (index i = 0; i < n; ++i) {
    const std::byte* p = bytes.data() + i * record;
    const auto label = std::to_integer<std::int32_t>(p[used]);
    require(label < classes, path.string(), ": record ", i, " has label ", label, ", expected less than ", classes);
    data.labels.push_back(label);
    data.names.push_back(file + ":" + std::to_string(i));
    p += label_bytes;
    for (index k = 0; k < area; ++k) {
      for (index c = 0; c < 3; ++c) data.pixels.push_back(std::to_integer<std::uint8_t>(p[c * area + k]));
    }
  }
  data.source_bytes.resize(data.labels.size(), static_cast<std::uint64_t>(size));
}

/// The lines of a text file that are not empty.
inline std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  std::ifstream text(path);
  for (std::string line; std::getline(text, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

/// Class names from a file if it has as many lines as there are classes, else numbers.
inline std::vector<std::string> class_names_or_numbers(const std::filesystem::path& path, index classes) {
  auto names = read_lines(path);
  if (static_cast<index>(names.size()) == classes) return names;
  names.clear();
  for (index k = 0; k < classes; ++k) names.push_back(std::to_string(k));
  return names;
}

inline dataset empty_cifar(std::vector<std::string> names) {
  dataset data;
  data.height = data.width = 32, data.channels = 3;
  data.class_names = std::move(names);
  return data;
}

}  // namespace detail

/// CIFAR-10 from the folder with data_batch_1.bin, data_batch_2.bin, ... and test_batch.bin. `Error`: a number left
/// out, another name that begins like them, a file of a wrong size.
inline dataset_split load_cifar10(const std::filesystem::path& dir) {
  namespace fs = std::filesystem;
  require(with_file_errors([&] { return fs::is_directory(dir); }), dir.string(), ": no such folder");
  const index found = with_file_errors([&] {
    return std::count_if(fs::directory_iterator(dir), fs::directory_iterator(), [](const fs::directory_entry& entry) {
      const std::string name = entry.path().filename().string();
      return name.starts_with("data_batch_") && name.ends_with(".bin");
    });
  });
  require(found > 0, dir.string(), ": expected data_batch_1.bin and so on in it");
  const auto batch = [&](index i) { return dir / ("data_batch_" + std::to_string(i) + ".bin"); };
  for (index i = 1; i <= found; ++i) {
    require(fs::is_regular_file(batch(i)), dir.string(), ": ", found, " files data_batch_*.bin, but no data_batch_", i,
            ".bin");
  }
  const auto names = detail::class_names_or_numbers(dir / "batches.meta.txt", 10);
  dataset_split split{detail::empty_cifar(names), detail::empty_cifar(names)};
  for (index i = 1; i <= found; ++i) detail::append_cifar(batch(i), 1, 0, 10, split.train);
  detail::append_cifar(dir / "test_batch.bin", 1, 0, 10, split.test);
  return split;
}

/// CIFAR-100 from the folder with train.bin and test.bin: its 100 classes, or with `coarse` the 20 groups of them.
inline dataset_split load_cifar100(const std::filesystem::path& dir, bool coarse = false) {
  require(std::filesystem::is_directory(dir), dir.string(), ": no such folder");
  const index classes = coarse ? 20 : 100;
  const auto names =
      detail::class_names_or_numbers(dir / (coarse ? "coarse_label_names.txt" : "fine_label_names.txt"), classes);
  dataset_split split{detail::empty_cifar(names), detail::empty_cifar(names)};
  detail::append_cifar(dir / "train.bin", 2, coarse ? 0 : 1, classes, split.train);
  detail::append_cifar(dir / "test.bin", 2, coarse ? 0 : 1, classes, split.test);
  return split;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/folder.hpp ====
// Pictures from folders: DIR/train and DIR/test (or DIR/val), in each one folder a class, in it JPEG and PNG files.

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

struct folder_options {
  index size = 0;      ///< height and width to resize to; 0: as they are, all must be of one size
  index channels = 3;  ///< 3 or 1; others are converted
  bool cache = true;   ///< keep the decoded pictures for the next time
  std::filesystem::path cache_folder = default_cache_folder();
  int threads = 0;
  progress_callback on_progress = {};
};

namespace detail {

/// A path as messages and caches name it, the same on every system.
inline std::string portable_name(const std::filesystem::path& path) { return path.generic_string(); }

inline bool is_picture_name(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return (ending == ".jpg" || ending == ".jpeg" || ending == ".png") && path.filename().string().front() != '.';
}

/// The folders in `where` by name; hidden ones do not count.
inline std::vector<std::string> class_folders(const std::filesystem::path& where) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(where)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name.front() != '.') names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct picture_file {
  std::string name;  ///< relative to the folder of classes
  std::int32_t label = 0;
  std::uint64_t bytes = 0;
};

/// What a cache remembers of a file: its name, size and time.
inline std::string listing_line(const std::filesystem::path& path, const picture_file& file) {
  return file.name + '\t' + std::to_string(file.bytes) + '\t' +
         std::to_string(std::filesystem::last_write_time(path).time_since_epoch().count()) + '\n';
}

/// All pictures below `where`, class by class and by name, and a text with their names, sizes and times.
inline std::pair<std::vector<picture_file>, std::string> list_pictures(const std::filesystem::path& where,
                                                                       const std::vector<std::string>& classes) {
  namespace fs = std::filesystem;
  std::vector<picture_file> files;
  std::string listing;
  for (const std::string& found : class_folders(where)) {
    const auto place = std::lower_bound(classes.begin(), classes.end(), found);
    require(place != classes.end() && *place == found, portable_name(where / found), ": no such class to learn from");
    std::vector<fs::path> members;
    for (const auto& entry : fs::recursive_directory_iterator(where / found)) {
      if (entry.is_regular_file() && is_picture_name(entry.path())) members.push_back(entry.path());
    }
    require(!members.empty(), portable_name(where / found), ": no jpg, jpeg or png files in this class");
    std::sort(members.begin(), members.end());
    for (const fs::path& path : members) {
      files.push_back({portable_name(path.lexically_relative(where)),
                       static_cast<std::int32_t>(place - classes.begin()),
                       static_cast<std::uint64_t>(fs::file_size(path))});
      listing += listing_line(path, files.back());
    }
  }
  return {std::move(files), std::move(listing)};
}

/// One picture file at the asked size and channels.
inline image read_for_dataset(const std::filesystem::path& path, const folder_options& options) {
  const image found = read_image(path, options.channels);
  return options.size > 0 ? resize(found, options.size, options.size) : found;
}

/// Decodes all files into `data.pixels`.
inline void decode_all(const std::filesystem::path& where, const std::vector<picture_file>& files,
                       const folder_options& options, dataset& data) {
  const image first = read_for_dataset(where / files.front().name, options);
  data.height = first.height, data.width = first.width;
  const auto n = static_cast<index>(files.size());
  data.pixels.resize(static_cast<std::size_t>(n * data.image_size()));
  constexpr index grain = 64, round = 64 * grain;
  progress_meter meter(options.on_progress, "decode " + portable_name(where), (n + round - 1) / round);
  for (index start = 0; start < n; start += round) {
    const index count = std::min(round, n - start);
    parallel_chunks(options.threads, count, grain, [&](index begin, index end) {
      for (index i = start + begin; i < start + end; ++i) {
        const auto path = where / files[static_cast<std::size_t>(i)].name;
        const image picture = read_for_dataset(path, options);
        require(picture.height == data.height && picture.width == data.width, portable_name(path), ": ", picture.height,
                " x ", picture.width, " pixels, others have ", data.height, " x ", data.width,
                ": choose a size to resize to");
        std::copy(picture.pixels.begin(), picture.pixels.end(), data.pixels.data() + i * data.image_size());
      }
    });
    meter.step();
  }
}

/// Fills `data.pixels` from the cache if it was made from exactly these files, otherwise decodes them and stores that.
/// `choice` tells different choices of files from one folder apart.
inline void decode_or_recall(const std::filesystem::path& where, const std::vector<picture_file>& files,
                             const std::string& listing, const std::string& choice, const folder_options& options,
                             dataset& data) {
  namespace fs = std::filesystem;
  const fs::path cache = options.cache ? options.cache_folder : fs::path{};
  const std::string key = portable_name(fs::weakly_canonical(where)) + "\tsize " + std::to_string(options.size) +
                          "\tchannels " + std::to_string(options.channels) + choice;
  if (auto stored = load_decoded(cache, key, key + '\n' + listing, options.threads); stored && stored->n == data.n()) {
    data.height = stored->height, data.width = stored->width, data.channels = stored->channels;
    data.pixels = std::move(stored->pixels);
  } else {
    decode_all(where, files, options, data);
    store_decoded(cache, key, key + '\n' + listing, data.n(), data.height, data.width, data.channels, data.pixels,
                  options.threads);
  }
}

}  // namespace detail

/// The pictures of `where`, one folder a class; classes are numbered as in `classes` (sorted), or by name if that is
/// empty. `Error`: no such folder, no pictures, an unknown class, a damaged file, different sizes.
inline dataset load_class_folders(const std::filesystem::path& where, const folder_options& options = {},
                                  std::vector<std::string> classes = {}) {
  namespace fs = std::filesystem;
  require(with_file_errors([&] { return fs::is_directory(where); }), where.string(), ": no such folder of classes");
  require(options.size >= 0 && (options.channels == 1 || options.channels == 3), "load_folder: size ", options.size,
          " with ", options.channels, " channels, expected a size of at least 0 and 1 or 3 channels");
  if (classes.empty()) classes = with_file_errors([&] { return detail::class_folders(where); });
  require(!classes.empty(), where.string(), ": expected one folder a class, found none");
  const auto [files, listing] = with_file_errors([&] { return detail::list_pictures(where, classes); });
  require(!files.empty(), where.string(), ": no jpg, jpeg or png files in its class folders");

  dataset data;
  data.channels = options.channels;
  data.class_names = std::move(classes);
  for (const auto& file : files) {
    data.labels.push_back(file.label);
    data.names.push_back(file.name);
    data.source_bytes.push_back(file.bytes);
  }
  detail::decode_or_recall(where, files, listing, {}, options, data);
  return data;
}

/// The part of DIR to measure on: "test", or "val" if there is no test. `Error`: neither.
inline std::string test_part(const std::filesystem::path& dir) {
  for (const char* part : {"test", "val"}) {
    if (std::filesystem::is_directory(dir / part)) return part;
  }
  fail(dir.string(), ": expected the folder test (or val) in it");
}

/// Reads DIR/train and DIR/test, or DIR/val if there is no test. Classes are numbered by folder name; where DIR has a
/// `classes.tsv` (folder, tab, description), the descriptions become their names. `Error`: see `load_class_folders`.
inline dataset_split load_folder(const std::filesystem::path& dir, const folder_options& options = {}) {
  namespace fs = std::filesystem;
  require(with_file_errors([&] { return fs::is_directory(dir); }), dir.string(), ": no such folder");
  require(fs::is_directory(dir / "train"), dir.string(), ": expected the folders train and test (or val) in it");
  const fs::path test = dir / test_part(dir);
  dataset_split split;
  split.train = load_class_folders(dir / "train", options);
  split.test = load_class_folders(test, options, split.train.class_names);
  require(split.train.height == split.test.height && split.train.width == split.test.width, dir.string(),
          ": train has ", split.train.height, " x ", split.train.width, " pixels, test ", split.test.height, " x ",
          split.test.width, ": choose a size to resize to");
  if (std::ifstream table(dir / "classes.tsv"); table) {
    std::map<std::string, std::string> described;
    for (std::string line; std::getline(table, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      const auto tab = line.find('\t');
      if (tab != std::string::npos) described[line.substr(0, tab)] = line.substr(tab + 1);
    }
    for (auto& name : split.train.class_names) {
      if (const auto found = described.find(name); found != described.end()) name = found->second;
    }
    split.test.class_names = split.train.class_names;
  }
  return split;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/json_records.hpp ====
// Long JSON files of many small records, read one record at a time: the annotations of VQA and COCO do not fit in
// memory as a tree.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>


namespace core_tokensets::detail {

/// A record of a JSON file, and where it stands for messages: "FILE: annotations[3]".
struct json_record {
  const nlohmann::json& value;
  std::string where;

  /// The member `name` as T: std::string, std::int64_t or an array or object of JSON. `Error`: missing, another type.
  template <class T>
  T get(const char* name) const {
    const auto found = value.is_object() ? value.find(name) : value.end();
    require(value.is_object() && found != value.end(), where, ": '", name, "' is missing");
    if constexpr (std::is_same_v<T, std::string>) {
      require(found->is_string(), where, ": '", name, "' is ", found->type_name(), ", expected string");
    } else if constexpr (std::is_integral_v<T>) {
      require(found->is_number_integer(), where, ": '", name, "' is ", found->type_name(), ", expected whole number");
    } else {
      require(found->is_array(), where, ": '", name, "' is ", found->type_name(), ", expected array");
    }
    return found->template get<T>();
  }
};

/// Hands each record of the lists `lists` in the file's outermost object to `visit(list, json_record)`, in the order of
/// the file. `Error` naming the file: unreadable, no JSON, one of the lists missing, no list, or no list of objects.
template <class Visit>
void for_each_json_record(const std::filesystem::path& path, std::initializer_list<std::string_view> lists,
                          const Visit& visit) {
  std::ifstream file(path, std::ios::binary);
  require(bool(file), path.string(), ": cannot be read");
  std::map<std::string, index, std::less<>> records;
  std::string list;
  bool wanted = false;
  using event = nlohmann::json::parse_event_t;
  const auto step = [&](int depth, event what, nlohmann::json& parsed) {
    if (depth == 1 && what == event::key) {
      list = parsed.get<std::string>();
      wanted = std::find(lists.begin(), lists.end(), list) != lists.end();
      if (wanted) records[list];
      return true;
    }
    if (depth == 0) return true;
    if (!wanted) return false;
    if (depth == 1) {
      require(what == event::array_start || what == event::array_end, path.string(), ": '", list,
              "' is no list of records");
      return true;
    }
    if (depth != 2) return true;
    const std::string where = path.string() + ": " + list + "[" + std::to_string(records[list]) + "]";
    require(what != event::array_start && what != event::value, where, " is no record");
    if (what != event::object_end) return true;
    visit(std::string_view(list), json_record{parsed, where});
    ++records[list];
    return false;
  };
  try {
    // What is parsed is thrown away record by record.
    const auto rest = nlohmann::json::parse(file, step);
    require(rest.is_object(), path.string(), ": the JSON value is no object");
  } catch (const nlohmann::json::exception& e) {  // also of a number that no double holds
    fail(path.string(), ": no JSON: ", e.what());
  }
  for (const auto wanted_list : lists) {
    require(records.contains(wanted_list), path.string(), ": the list '", wanted_list, "' is missing");
  }
}

}  // namespace core_tokensets::detail

// ==== core_tokensets/data/picture_list.hpp ====
// Pictures that a list names, where no folder tells their class: questions and captions say what they show.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>


namespace core_tokensets {

/// A picture file, relative to its folder, and how messages name it ("image 42").
struct listed_picture {
  std::string file, what;
};

/// The pictures of `folder` in the order of `list`, all of the one class "picture"; resized, converted and cached as
/// the options say. `Error`: an empty list, a file that is missing (it and its id are named) or damaged, different
/// sizes.
inline dataset load_pictures(const std::filesystem::path& folder, std::span<const listed_picture> list,
                             const folder_options& options = {}) {
  require(!list.empty(), folder.string(), ": no pictures are asked for");
  require(options.size >= 0 && (options.channels == 1 || options.channels == 3), "load_pictures: size ", options.size,
          " with ", options.channels, " channels, expected a size of at least 0 and 1 or 3 channels");
  dataset data;
  data.channels = options.channels;
  data.class_names = {"picture"};
  data.labels.assign(list.size(), 0);
  std::vector<detail::picture_file> files;
  std::string listing;
  std::uint64_t chosen = fnv1a({});
  for (const auto& [file, what] : list) {
    const auto path = folder / file;
    std::error_code missing;
    const auto bytes = std::filesystem::file_size(path, missing);
    require(!missing, path.string(), ": no such picture (", what, ")");
    files.push_back({file, 0, static_cast<std::uint64_t>(bytes)});
    listing += detail::listing_line(path, files.back());
    const std::string line = file + '\n';
    chosen = fnv1a(std::as_bytes(std::span(line)), chosen);
    data.names.push_back(file);
    data.source_bytes.push_back(files.back().bytes);
  }
  detail::decode_or_recall(folder, files, listing, "\tlist " + checksum_text(chosen), options, data);
  return data;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/visual_text.hpp ====
// Pictures with text: questions with the answers that people gave, or captions, which are answers to no question.

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

/// A question about a picture and its answers, or (without a prompt) the captions of a picture.
struct visual_text_sample {
  index image = 0;                   ///< number in `visual_text::images`
  std::string prompt;                ///< the question; empty for captions
  std::vector<std::string> answers;  ///< what people answered, or the captions that people wrote
  std::int32_t group = 0;            ///< kind of question or super-category, in `visual_text::group_names`
  bool operator==(const visual_text_sample&) const = default;
};

/// Pictures and S samples about them. Where there are no classes, all labels are 0 and the one class is "picture".
struct visual_text {
  dataset images;
  std::vector<visual_text_sample> samples;  ///< [S]
  std::vector<std::string> group_names;

  index n() const { return static_cast<index>(samples.size()); }
  index groups() const { return static_cast<index>(group_names.size()); }

  /// `Error` naming `what` unless all samples name a picture and a group and have answers.
  void check(std::string_view what = "visual_text") const {
    images.check(what);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto& s = samples[i];
      require(s.image >= 0 && s.image < images.n(), what, ": sample ", i, " is about picture ", s.image, " of ",
              images.n());
      require(s.group >= 0 && s.group < groups(), what, ": sample ", i, " is of group ", s.group, " of ", groups());
      require(!s.answers.empty(), what, ": sample ", i, " has no answers");
    }
  }
};

/// Text to learn from and text to measure on, with the same groups.
struct visual_text_split {
  visual_text train, test;
};

/// A number by which pictures and texts are told from others; hand in that of what came before.
inline std::uint64_t checksum(const visual_text& text, std::uint64_t before = fnv1a({})) {
  std::uint64_t sum = checksum(text.images, before);
  for (const auto& name : text.group_names) sum = fnv1a(name, sum);
  for (const auto& sample : text.samples) {
    const std::array numbers{sample.image, static_cast<index>(sample.group), static_cast<index>(sample.answers.size())};
    sum = fnv1a(sample.prompt, fnv1a(std::as_bytes(std::span(numbers)), sum));
    for (const auto& answer : sample.answers) sum = fnv1a(answer, sum);
  }
  return sum;
}
inline std::uint64_t checksum(const visual_text_split& d) { return checksum(d.test, checksum(d.train)); }

/// The answer that most people gave, of several the one that comes first. `Error`: no answers.
inline const std::string& consensus(const visual_text_sample& sample) {
  require(!sample.answers.empty(), "consensus: the sample has no answers");
  std::map<std::string_view, index> votes;
  for (const auto& answer : sample.answers) ++votes[answer];
  const auto fewer = [&](const auto& a, const auto& b) { return votes[a] < votes[b]; };
  return *std::max_element(sample.answers.begin(), sample.answers.end(), fewer);
}

/// The samples at `indices`, in that order; pictures that none of them uses are left out, groups keep their numbers.
/// `Error`: an index out of range.
inline visual_text subset(const visual_text& from, std::span<const index> indices) {
  visual_text to;
  to.group_names = from.group_names;
  std::vector<index> used(static_cast<std::size_t>(from.images.n()), 0);
  for (const index i : indices) {
    require(i >= 0 && i < from.n(), "subset: sample ", i, " of ", from.n());
    to.samples.push_back(from.samples[static_cast<std::size_t>(i)]);
    const index image = to.samples.back().image;
    require(image >= 0 && image < from.images.n(), "subset: sample ", i, " is about picture ", image, " of ",
            from.images.n());
    used[static_cast<std::size_t>(image)] = 1;
  }
  std::vector<index> kept;
  for (index image = 0; image < from.images.n(); ++image) {
    auto& number = used[static_cast<std::size_t>(image)];
    if (number == 0) continue;
    number = static_cast<index>(kept.size());
    kept.push_back(image);
  }
  for (auto& sample : to.samples) sample.image = used[static_cast<std::size_t>(sample.image)];
  to.images = subset(from.images, kept);
  return to;
}

/// The samples for which `keep(sample)` is true, in their order.
template <class Keep>
visual_text filter(const visual_text& from, const Keep& keep) {
  std::vector<index> kept;
  for (index i = 0; i < from.n(); ++i) {
    if (keep(from.samples[static_cast<std::size_t>(i)])) kept.push_back(i);
  }
  return subset(from, kept);
}

/// The samples of the groups `groups`, which keep their numbers. `Error`: no such group.
inline visual_text select_groups(const visual_text& from, std::span<const std::int32_t> groups) {
  for (const auto g : groups) {
    require(g >= 0 && g < from.groups(), "select_groups: group ", g, " of ", from.groups());
  }
  return filter(from, [&](const visual_text_sample& s) {
    return std::find(groups.begin(), groups.end(), s.group) != groups.end();
  });
}

inline visual_text_split select_groups(const visual_text_split& from, std::span<const std::int32_t> groups) {
  return {select_groups(from.train, groups), select_groups(from.test, groups)};
}

/// At most `limit` samples, chosen at random by `seed`, in their old order.
inline visual_text limit_samples(const visual_text& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_samples: ", limit, ", expected at least 1");
  auto order = random_stream(seed).permutation(from.n());
  order.resize(static_cast<std::size_t>(std::min(limit, from.n())));
  std::sort(order.begin(), order.end());
  return subset(from, order);
}

/// All samples of at most `limit` pictures, chosen at random by `seed` among those that samples use.
inline visual_text limit_images(const visual_text& from, index limit, std::uint64_t seed = 0) {
  require(limit > 0, "limit_images: ", limit, ", expected at least 1");
  std::vector<index> pictures;
  for (const auto& sample : from.samples) pictures.push_back(sample.image);
  std::sort(pictures.begin(), pictures.end());
  pictures.erase(std::unique(pictures.begin(), pictures.end()), pictures.end());
  random_stream(seed).shuffle(std::span(pictures));
  pictures.resize(std::min(static_cast<std::size_t>(limit), pictures.size()));
  std::sort(pictures.begin(), pictures.end());
  return filter(
      from, [&](const visual_text_sample& s) { return std::binary_search(pictures.begin(), pictures.end(), s.image); });
}

namespace detail {

/// The numbers of `names` in `all`, which grows by those that it lacks.
inline std::vector<std::int32_t> merge_names(const std::vector<std::string>& names, std::vector<std::string>& all) {
  std::vector<std::int32_t> numbers;
  for (const auto& name : names) {
    auto place = std::find(all.begin(), all.end(), name);
    if (place == all.end()) place = all.insert(all.end(), name);
    numbers.push_back(static_cast<std::int32_t>(place - all.begin()));
  }
  return numbers;
}

}  // namespace detail

/// All sets one after the other. Groups and classes of the same name become one; names, sizes and masks of pictures
/// stay where all sets have them. `Error`: no sets, or pictures of different sizes.
inline visual_text join(std::span<const visual_text> sets) {
  require(!sets.empty(), "join: no sets");
  visual_text all;
  const dataset& first = sets.front().images;
  all.images.height = first.height, all.images.width = first.width, all.images.channels = first.channels;
  bool names = true, sizes = true, masks = true;
  for (std::size_t k = 0; k < sets.size(); ++k) {
    sets[k].check("join: set " + std::to_string(k));
    const dataset& d = sets[k].images;
    require(d.height == first.height && d.width == first.width && d.channels == first.channels, "join: set ", k,
            " has pictures of ", d.height, " x ", d.width, " x ", d.channels, ", the first one of ", first.height,
            " x ", first.width, " x ", first.channels);
    names = names && d.names.size() == d.labels.size();
    sizes = sizes && d.source_bytes.size() == d.labels.size();
    masks = masks && d.masks.size() == static_cast<std::size_t>(d.n() * d.height * d.width);
  }
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (const auto& set : sets) {
    const index before = all.images.n();
    const auto classes = detail::merge_names(set.images.class_names, all.images.class_names);
    const auto groups = detail::merge_names(set.group_names, all.group_names);
    for (const auto label : set.images.labels) all.images.labels.push_back(classes[static_cast<std::size_t>(label)]);
    append(all.images.pixels, set.images.pixels);
    if (names) append(all.images.names, set.images.names);
    if (sizes) append(all.images.source_bytes, set.images.source_bytes);
    if (masks) append(all.images.masks, set.images.masks);
    for (auto sample : set.samples) {
      sample.image += before;
      sample.group = groups[static_cast<std::size_t>(sample.group)];
      all.samples.push_back(std::move(sample));
    }
  }
  return all;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/coco_captions.hpp ====
// Captions in the JSON files of COCO (Chen et al. 2015): pictures, about five captions each, and, from the instances of
// the same pictures, the super-category that each mostly shows.

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>


namespace core_tokensets {

struct coco_captions_options {
  std::filesystem::path instances = {};  ///< the file of instances; empty: all pictures are of the group "picture"
  index limit = 0;                       ///< at most so many pictures, the first in the file; 0: all
  folder_options pictures{.size = 64};
};

namespace detail {

/// What a file of instances says: the super-category of each picture's most frequent category (of several the one with
/// the smallest id), and all super-categories in the order of their categories.
inline std::unordered_map<std::int64_t, std::int32_t> coco_groups(const std::filesystem::path& instances,
                                                                  std::vector<std::string>& names) {
  std::unordered_map<std::int64_t, std::map<std::int64_t, index>> counts;
  std::map<std::int64_t, std::string> categories;
  for_each_json_record(instances, {"annotations", "categories"}, [&](std::string_view list, const json_record& r) {
    if (list == "categories") {
      const auto id = r.get<std::int64_t>("id");
      require(categories.emplace(id, r.get<std::string>("supercategory")).second, r.where, ": category ", id,
              " came before");
    } else {
      ++counts[r.get<std::int64_t>("image_id")][r.get<std::int64_t>("category_id")];
    }
  });
  std::map<std::int64_t, std::int32_t> numbers;
  for (const auto& [id, super] : categories) numbers[id] = merge_names({super}, names)[0];
  std::unordered_map<std::int64_t, std::int32_t> groups;
  for (const auto& [image, found] : counts) {
    index most = 0;
    for (const auto& [category, count] : found) {
      const auto number = numbers.find(category);
      require(number != numbers.end(), instances.string(), ": image ", image, " shows category ", category,
              ", which is not listed");
      if (count <= most) continue;
      most = count;
      groups[image] = number->second;
    }
  }
  return groups;
}

}  // namespace detail

/// One sample a picture, its captions as answers, in the order of {"images": [{"id", "file_name"}], "annotations":
/// [{"image_id", "caption"}]}; pictures without a caption are left out. With instances {"annotations": [{"image_id",
/// "category_id"}], "categories": [{"id", "supercategory"}]} the groups are super-categories, and "none" where a
/// picture has no instances. `Error` naming file and id: wrong types, an id twice, a caption or instance of something
/// that is not listed, a missing picture.
inline visual_text load_coco_captions(const std::filesystem::path& captions, const std::filesystem::path& pictures,
                                      const coco_captions_options& options = {}) {
  require(options.limit >= 0, "coco: a limit of ", options.limit, " pictures");
  std::vector<std::pair<std::int64_t, std::string>> listed;  // ids and files
  std::unordered_map<std::int64_t, std::vector<std::string>> texts;
  detail::for_each_json_record(captions, {"images", "annotations"},
                               [&](std::string_view list, const detail::json_record& r) {
                                 if (list == "images") {
                                   listed.emplace_back(r.get<std::int64_t>("id"), r.get<std::string>("file_name"));
                                 } else {
                                   texts[r.get<std::int64_t>("image_id")].push_back(r.get<std::string>("caption"));
                                 }
                               });
  visual_text text;
  std::unordered_map<std::int64_t, std::int32_t> groups;
  if (options.instances.empty()) {
    text.group_names = {"picture"};
  } else {
    groups = detail::coco_groups(options.instances, text.group_names);
  }
  std::unordered_map<std::int64_t, bool> known;
  std::vector<listed_picture> list;
  for (const auto& [id, file] : listed) {
    require(known.emplace(id, true).second, captions.string(), ": image ", id, " is listed twice");
    const auto written = texts.find(id);
    if (written == texts.end() || (options.limit > 0 && static_cast<index>(list.size()) >= options.limit)) continue;
    visual_text_sample sample{static_cast<index>(list.size()), "", std::move(written->second), 0};
    if (!options.instances.empty()) {
      const auto group = groups.find(id);
      sample.group = group != groups.end() ? group->second : detail::merge_names({"none"}, text.group_names)[0];
    }
    text.samples.push_back(std::move(sample));
    list.push_back({file, "image " + std::to_string(id)});
  }
  for (const auto& [id, written] : texts) {
    require(known.contains(id), captions.string(), ": a caption is about image ", id, ", which is not listed");
  }
  require(!list.empty(), captions.string(), ": no pictures with captions");
  text.images = load_pictures(pictures, list, options.pictures);
  return text;
}

}  // namespace core_tokensets

// ==== core_tokensets/io/json.hpp ====
// JSON that someone else may have written.

#include <nlohmann/json.hpp>
#include <string_view>


namespace core_tokensets {

/// The JSON value of a text; discarded (`is_discarded()`) where it is none, or nested deeper than anything that is read
/// here: copying or printing such a value would overflow the stack.
inline nlohmann::json parse_json(std::string_view text, int deepest = 16) {
  const auto check = [&](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
    require(depth <= deepest, "JSON: nested too deeply");
    return true;
  };
  try {
    return nlohmann::json::parse(text, check, false);
  } catch (const Error&) {
    return nlohmann::json(nlohmann::json::value_t::discarded);
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/data/easy_vqa.hpp ====
// easy-VQA (Zhou 2019): one coloured shape a picture, simple questions with one answer each. The layout of its
// repository: DIR/{train,test}/images/N.png and DIR/{train,test}/questions.json as [[question, answer, N], ...].

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

namespace detail {

/// 0 shape, 1 colour, 2 yes/no; -1 for anything else.
inline std::int32_t easy_vqa_group(std::string_view answer) {
  constexpr std::array<std::string_view, 3> shapes{"circle", "rectangle", "triangle"};
  constexpr std::array<std::string_view, 8> colours{"red", "green", "blue", "yellow", "gray", "black", "teal", "brown"};
  if (std::find(shapes.begin(), shapes.end(), answer) != shapes.end()) return 0;
  if (std::find(colours.begin(), colours.end(), answer) != colours.end()) return 1;
  return answer == "yes" || answer == "no" ? 2 : -1;
}

inline visual_text load_easy_vqa_part(const std::filesystem::path& folder, const folder_options& options) {
  const auto file = folder / "questions.json";
  const auto json = parse_json(read_text(file));
  require(json.is_array() && !json.empty(), file.string(), ": expected a JSON list of questions");
  visual_text text;
  text.group_names = {"shape", "colour", "yes/no"};
  std::map<index, index> numbers;  // of the pictures in the files, and then of ours
  for (std::size_t i = 0; i < json.size(); ++i) {
    const auto& item = json[i];
    require(item.is_array() && item.size() == 3 && item[0].is_string() && item[1].is_string() &&
                item[2].is_number_integer() && item[2] >= 0,
            file.string(), ": question ", i, " is ", item, ", expected [question, answer, number of the picture]");
    const auto answer = item[1].get<std::string>();
    const auto group = easy_vqa_group(answer);
    require(group >= 0, file.string(), ": question ", i, " has the answer '", answer,
            "', which is neither a shape nor a colour nor yes or no");
    text.samples.push_back({item[2].get<index>(), item[0].get<std::string>(), {answer}, group});
    numbers[text.samples.back().image];
  }
  std::vector<listed_picture> list;
  for (auto& [number, place] : numbers) {
    place = static_cast<index>(list.size());
    list.push_back({std::to_string(number) + ".png", "picture " + std::to_string(number) + " of " + file.string()});
  }
  for (auto& sample : text.samples) sample.image = numbers.at(sample.image);
  text.images = load_pictures(folder / "images", list, options);
  return text;
}

}  // namespace detail

/// Both parts; the groups are the kinds of answers: shape, colour, yes/no. Pictures that no question is about are not
/// read. `Error` naming file and question: wrong JSON, an answer that easy-VQA does not have, a missing picture.
inline visual_text_split load_easy_vqa(const std::filesystem::path& folder, const folder_options& options = {}) {
  visual_text_split split{detail::load_easy_vqa_part(folder / "train", options),
                          detail::load_easy_vqa_part(folder / "test", options)};
  const dataset &train = split.train.images, &test = split.test.images;
  require(train.height == test.height && train.width == test.width, folder.string(), ": train has ", train.height,
          " x ", train.width, " pixels, test ", test.height, " x ", test.width, ": choose a size to resize to");
  return split;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/tokenizer.hpp ====
// Text to token numbers and back, learnt from a corpus. Every byte is a token, so that any text, valid UTF-8 or not,
// can be spelled and comes back as it was; what occurs often is a token of its own.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>


namespace core_tokensets {

/// What is learnt: pairs of neighbours inside words, or the most frequent whole words (all others are spelled by
/// bytes).
enum class tokenizer_kind { pairs, words };

struct tokenizer_options {
  index vocabulary = 1024;  ///< at most so many tokens; at least 258
  tokenizer_kind kind = tokenizer_kind::pairs;
};

/// A fixed vocabulary: 0 and 1 begin and end a text, 2 .. 257 are the bytes, from 258 on what was learnt. Words are
/// those of `for_each_word`; no token reaches beyond one.
class tokenizer {
 public:
  static constexpr std::int32_t begin_token = 0, end_token = 1;

  /// The 256 bytes, nothing learnt.
  explicit tokenizer(tokenizer_kind kind = tokenizer_kind::pairs) : kind_(kind) {
    texts_.resize(2);
    for (int byte = 0; byte < 256; ++byte) texts_.emplace_back(1, static_cast<char>(byte));
  }

  /// Learns from `corpus`, the same for the same texts in any order. What occurs once only is not learnt, so that the
  /// vocabulary may stay smaller than asked for. `Error`: a vocabulary without room for the bytes.
  static tokenizer train(std::span<const std::string> corpus, const tokenizer_options& options = {}) {
    require(options.vocabulary >= detail::first_learnt_token &&
                options.vocabulary <= std::numeric_limits<std::int32_t>::max(),
            "tokenizer: a vocabulary of ", options.vocabulary, ", expected at least ", detail::first_learnt_token,
            " (begin, end and 256 bytes)");
    tokenizer t(options.kind);
    auto words = count_words(corpus);
    const auto room = static_cast<std::size_t>(options.vocabulary - detail::first_learnt_token);
    if (options.kind == tokenizer_kind::pairs) {
      for (const auto& merge : detail::learn_merges(words, room)) t.add_merge(merge);
      return t;
    }
    std::stable_sort(words.begin(), words.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    for (const auto& [word, count] : words) {
      if (count < 2 || t.words_.size() >= room) break;
      if (word.size() > 1) t.add_word(word);
    }
    return t;
  }

  /// The tokens of `text`, without begin and end.
  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens, spelled;
    for_each_word(text, [&](std::string_view word) {
      if (const auto whole = words_.find(word); whole != words_.end()) {
        tokens.push_back(whole->second);
        return;
      }
      spelled.clear();
      detail::append_bytes_as_tokens(word, spelled);
      if (!ranks_.empty()) detail::apply_merges(ranks_, spelled);
      tokens.insert(tokens.end(), spelled.begin(), spelled.end());
    });
    return tokens;
  }

  /// The bytes that the tokens stand for; begin and end stand for none. `Error`: a number outside of the vocabulary.
  std::string decode(std::span<const std::int32_t> tokens) const {
    std::string text;
    for (const std::int32_t token : tokens) {
      require(token >= 0 && token < size(), "tokenizer: token ", token, ", expected 0 to ", size() - 1);
      text += texts_[static_cast<std::size_t>(token)];
    }
    return text;
  }

  /// Number of tokens, begin, end and bytes included.
  index size() const { return static_cast<index>(texts_.size()); }
  tokenizer_kind kind() const { return kind_; }

  bool operator==(const tokenizer&) const = default;

 private:
  void add_merge(detail::token_pair pair) {
    ranks_.emplace(detail::pair_key(pair.first, pair.second), static_cast<std::int32_t>(merges_.size()));
    merges_.push_back(pair);
    texts_.push_back(texts_[static_cast<std::size_t>(pair.first)] + texts_[static_cast<std::size_t>(pair.second)]);
  }
  void add_word(const std::string& word) {
    words_.emplace(word, static_cast<std::int32_t>(texts_.size()));
    texts_.push_back(word);
  }
  std::string checksum() const {
    std::uint64_t sum = fnv1a({});
    for (const auto& text : texts_) {
      sum = fnv1a(std::as_bytes(std::span(text)), sum);
      sum = fnv1a(std::as_bytes(std::span("\n", 1)), sum);
    }
    return checksum_text(sum);
  }

  tokenizer_kind kind_;
  std::vector<std::string> texts_;                         ///< [size] the bytes of each token
  std::vector<detail::token_pair> merges_;                 ///< in the order of their learning
  std::unordered_map<std::uint64_t, std::int32_t> ranks_;  ///< number of each merge
  std::map<std::string, std::int32_t, std::less<>> words_;

  friend nlohmann::json to_json(const tokenizer&);
  friend tokenizer tokenizer_from_json(const nlohmann::json&);
};

namespace detail {

inline std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    hex += "0123456789abcdef"[static_cast<unsigned char>(c) & 15u];
  }
  return hex;
}

/// The bytes that pairs of lower-case hexadecimal digits stand for; empty for anything else.
inline std::string from_hex(std::string_view hex) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string bytes;
  if (hex.size() % 2 != 0 || hex.find_first_not_of(digits) != hex.npos) return bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(digits.find(hex[i]) << 4 | digits.find(hex[i + 1]));
  }
  return bytes;
}

}  // namespace detail

/// {"kind": "pairs", "merges": [[left, right], ...]} or {"kind": "words", "words": [bytes in hexadecimal, ...]}, with
/// "size" and a "checksum" of all tokens. Plain ASCII.
inline nlohmann::json to_json(const tokenizer& t) {
  nlohmann::json json{{"size", t.size()}, {"checksum", t.checksum()}};
  if (t.kind() == tokenizer_kind::pairs) {
    json["kind"] = "pairs";
    json["merges"] = t.merges_;
  } else {
    json["kind"] = "words";
    json["words"] = nlohmann::json::array();
    for (std::size_t i = detail::first_learnt_token; i < t.texts_.size(); ++i) {
      json["words"].push_back(detail::to_hex(t.texts_[i]));
    }
  }
  return json;
}

/// The tokenizer that `to_json` wrote. `Error` naming what is wrong: a field that is missing or of another type, a
/// merge of tokens that do not exist yet, a word that no text holds, anything twice, another size or checksum.
inline tokenizer tokenizer_from_json(const nlohmann::json& json) {
  require(json.is_object(), "tokenizer: the JSON value is no object");
  const auto field = [&](const char* name) -> const nlohmann::json& {
    const auto found = json.find(name);
    require(found != json.end(), "tokenizer: '", name, "' is missing");
    return *found;
  };
  const auto& kind = field("kind");
  require(kind == "pairs" || kind == "words", "tokenizer: 'kind' is ", kind, ", expected \"pairs\" or \"words\"");
  tokenizer t(kind == "pairs" ? tokenizer_kind::pairs : tokenizer_kind::words);
  const char* name = kind == "pairs" ? "merges" : "words";
  const auto& learnt = field(name);
  require(learnt.is_array(), "tokenizer: '", name, "' is no list");
  // Each merge may double a token: a short file could ask for more memory than there is.
  constexpr std::size_t most = std::size_t{1} << 26;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < learnt.size(); ++i) {
    const auto& item = learnt[i];
    if (t.kind() == tokenizer_kind::pairs) {
      const auto valid = [&](const nlohmann::json& token) {
        return token.is_number_integer() && token >= detail::first_byte_token && token < t.size();
      };
      require(item.is_array() && item.size() == 2 && valid(item[0]) && valid(item[1]), "tokenizer: merge ", i, " is ",
              item, ", expected two tokens from ", detail::first_byte_token, " to ", t.size() - 1);
      const auto pair = item.get<detail::token_pair>();
      require(!t.ranks_.contains(detail::pair_key(pair.first, pair.second)), "tokenizer: merge ", i, " is ", item,
              ", which came before");
      bytes += t.texts_[static_cast<std::size_t>(pair.first)].size();
      bytes += t.texts_[static_cast<std::size_t>(pair.second)].size();
      require(bytes <= most, "tokenizer: with merge ", i, " the tokens have more than ", most, " bytes");
      t.add_merge(pair);
    } else {
      const std::string word = item.is_string() ? detail::from_hex(item.get_ref<const std::string&>()) : "";
      index pieces = 0;
      for_each_word(word, [&](std::string_view) { ++pieces; });
      require(word.size() > 1 && pieces == 1, "tokenizer: word ", i, " is ", item,
              ", expected one word of at least two bytes in hexadecimal digits");
      require(!t.words_.contains(word), "tokenizer: word ", i, " is ", item, ", which came before");
      t.add_word(word);
    }
  }
  require(field("size") == t.size(), "tokenizer: 'size' is ", field("size"), ", but there are ", t.size(), " tokens");
  require(field("checksum") == t.checksum(), "tokenizer: 'checksum' is ", field("checksum"), ", the tokens have ",
          t.checksum());
  return t;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/encoded_texts.hpp ====
// Samples of pictures with text as a decoder reads them: tokens, packed by picture.

#include <span>
#include <string>
#include <vector>


namespace core_tokensets {

/// The tokens of all samples of a set. Questions are taught by the answer that most people gave, captions by each of
/// their references in turn.
class encoded_texts {
 public:
  /// `Error`: data that do not fit together, a sample whose prompt and answer take more than `length` tokens of the
  /// decoder.
  encoded_texts(const visual_text& data, const tokenizer& words, index length) {
    data.check("texts");
    for (index i = 0; i < data.n(); ++i) {
      const visual_text_sample& sample = data.samples[static_cast<std::size_t>(i)];
      prompts_.push_back(words.encode(sample.prompt));
      answers_.emplace_back();
      if (sample.prompt.empty()) {
        for (const auto& caption : sample.answers) answers_.back().push_back(words.encode(caption));
      } else {
        answers_.back().push_back(words.encode(consensus(sample)));
      }
      for (const auto& answer : answers_.back()) {
        const auto all = static_cast<index>(prompts_.back().size() + answer.size()) + 1;
        require(all <= length, "texts: sample ", i, " ('", sample.prompt, "') takes ", all,
                " tokens, the decoder reads ", length);
      }
    }
  }

  const std::vector<std::int32_t>& prompt(index sample) const { return prompts_[static_cast<std::size_t>(sample)]; }
  /// The answer of a sample that is taught at turn `turn`.
  const std::vector<std::int32_t>& answer(index sample, index turn = 0) const {
    const auto& all = answers_[static_cast<std::size_t>(sample)];
    return all[static_cast<std::size_t>(turn) % all.size()];
  }

 private:
  std::vector<std::vector<std::int32_t>> prompts_;
  std::vector<std::vector<std::vector<std::int32_t>>> answers_;
};

/// Some samples of a set, by the pictures that they are about.
class samples_by_picture {
 public:
  /// `Error`: data that do not fit together, a sample that is not there.
  samples_by_picture(const visual_text& data, std::span<const index> samples)
      : of_(static_cast<std::size_t>(data.images.n())) {
    data.check("texts");
    for (const index i : samples) {
      require(i >= 0 && i < data.n(), "texts: sample ", i, " of ", data.n());
      auto& mine = of_[static_cast<std::size_t>(data.samples[static_cast<std::size_t>(i)].image)];
      if (mine.empty()) pictures_.push_back(data.samples[static_cast<std::size_t>(i)].image);
      mine.push_back(i);
    }
  }

  /// The pictures that the samples are about, each once.
  const std::vector<index>& pictures() const { return pictures_; }
  const std::vector<index>& of(index picture) const { return of_[static_cast<std::size_t>(picture)]; }
  /// At most `limit` of them, chosen at random.
  std::vector<index> some_of(index picture, index limit, random_stream& random) const {
    std::vector<index> chosen = of(picture);
    if (static_cast<index>(chosen.size()) > limit) {
      random.shuffle(std::span(chosen));
      chosen.resize(static_cast<std::size_t>(limit));
    }
    return chosen;
  }

 private:
  std::vector<std::vector<index>> of_;
  std::vector<index> pictures_;
};

}  // namespace core_tokensets

// ==== core_tokensets/data/idx.hpp ====
// The IDX format of MNIST and its relatives (LeCun, Cortes, Burges): big-endian extents, then bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>


namespace core_tokensets {

/// An array of bytes with its extents.
struct idx_array {
  std::vector<index> shape;
  std::vector<std::uint8_t> values;
};

/// Reads an IDX file of unsigned bytes. `Error`: compressed, another type, another size than its extents say.
inline idx_array read_idx(const std::filesystem::path& path) {
  const auto bytes = read_file(path);
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint64_t>(bytes[i]); };
  require(bytes.size() < 2 || at(0) != 0x1f || at(1) != 0x8b, path.string(), ": compressed, unpack it with gunzip");
  require(bytes.size() >= 4 && at(0) == 0 && at(1) == 0 && at(2) == 8 && at(3) >= 1 && at(3) <= 4, path.string(),
          ": not an IDX file of unsigned bytes with 1 to 4 dimensions");
  const auto dimensions = static_cast<std::size_t>(at(3)), start = 4 + 4 * dimensions;
  require(bytes.size() >= start, path.string(), ": ends within its header");
  const std::uint64_t payload = bytes.size() - start;
  idx_array result;
  std::uint64_t expected = 1;
  for (std::size_t d = 0; d < dimensions; ++d) {
    const std::size_t i = 4 + 4 * d;
    const std::uint64_t extent = at(i) << 24 | at(i + 1) << 16 | at(i + 2) << 8 | at(i + 3);
    require(extent > 0 && extent <= payload / expected, path.string(), ": dimension ", d, " is ", extent,
            ", which does not fit its ", payload, " bytes of data");
    expected *= extent;
    result.shape.push_back(static_cast<index>(extent));
  }
  require(payload == expected, path.string(), ": ", payload, " bytes of data, expected ", expected);
  result.values.resize(payload);
  std::transform(bytes.begin() + static_cast<index>(start), bytes.end(), result.values.begin(),
                 [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
  return result;
}

/// Pictures `[n, height, width]` or `[n, height, width, channels]` and labels `[n]` from two IDX files.
inline dataset load_idx_pair(const std::filesystem::path& images, const std::filesystem::path& labels) {
  auto pixels = read_idx(images);
  const auto classes = read_idx(labels);
  require(pixels.shape.size() >= 3, images.string(), ": ", pixels.shape.size(), " dimensions, expected 3 or 4");
  require(classes.shape.size() == 1 && classes.shape[0] == pixels.shape[0], labels.string(), ": expected ",
          pixels.shape[0], " labels in 1 dimension");
  dataset data;
  data.height = pixels.shape[1], data.width = pixels.shape[2];
  data.channels = pixels.shape.size() == 4 ? pixels.shape[3] : 1;
  data.pixels = std::move(pixels.values);
  data.labels.assign(classes.values.begin(), classes.values.end());
  const auto last = *std::max_element(data.labels.begin(), data.labels.end());
  for (std::int32_t k = 0; k <= last; ++k) data.class_names.push_back(std::to_string(k));
  const std::string file = images.filename().string();
  for (index i = 0; i < data.n(); ++i) data.names.push_back(file + ":" + std::to_string(i));
  data.source_bytes.assign(data.labels.size(), static_cast<std::uint64_t>(data.image_size()));
  return data;
}

/// MNIST and its relatives from the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k
/// (a dot in place of the second hyphen also counts).
inline dataset_split load_idx(const std::filesystem::path& dir) {
  require(std::filesystem::is_directory(dir), dir.string(), ": no such folder");
  const auto pair = [&](const std::string& part) {
    const auto either = [&](const std::string& kind, const std::string& ending) {
      const auto dotted = dir / (part + "-" + kind + "." + ending);
      return std::filesystem::exists(dotted) ? dotted : dir / (part + "-" + kind + "-" + ending);
    };
    return load_idx_pair(either("images", "idx3-ubyte"), either("labels", "idx1-ubyte"));
  };
  dataset_split split{pair("train"), pair("t10k")};
  auto& shorter = split.train.classes() < split.test.classes() ? split.train : split.test;
  const auto& longer = split.train.classes() < split.test.classes() ? split.test : split.train;
  shorter.class_names = longer.class_names;
  require(split.train.image_size() == split.test.image_size() && split.train.height == split.test.height, dir.string(),
          ": train and t10k pictures differ in size");
  return split;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/normalise.hpp ====
// Pixels to the numbers that a model sees, (x / 255 - mean) / stddev per channel, and back.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

/// Mean and standard deviation of each channel in units of full brightness; a single value serves all channels.
struct pixel_normalisation {
  std::vector<float> mean = {0.5f};    ///< [channels] or [1]
  std::vector<float> stddev = {0.5f};  ///< [channels] or [1]

  /// The same with one value for each channel. `Error`: another number of values, or one that is not usable.
  pixel_normalisation for_channels(index channels) const {
    const auto c = static_cast<std::size_t>(channels);
    require((mean.size() == 1 || mean.size() == c) && (stddev.size() == 1 || stddev.size() == c),
            "normalisation: ", mean.size(), " means and ", stddev.size(), " standard deviations for ", channels,
            " channels");
    pixel_normalisation full;
    full.mean = mean.size() == c ? mean : std::vector<float>(c, mean.front());
    full.stddev = stddev.size() == c ? stddev : std::vector<float>(c, stddev.front());
    for (std::size_t i = 0; i < c; ++i) {
      require(std::isfinite(full.mean[i]) && std::isfinite(full.stddev[i]) && full.stddev[i] > 0,
              "normalisation: mean ", full.mean[i], ", standard deviation ", full.stddev[i],
              ": expected finite ones, the second positive");
    }
    return full;
  }

  bool operator==(const pixel_normalisation&) const = default;
};

/// `[channels, 256]`: the number for every value that a pixel can have.
inline std::vector<float> pixel_table(const pixel_normalisation& normalisation, index channels) {
  const auto full = normalisation.for_channels(channels);
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(channels) * 256);
  for (std::size_t c = 0; c < static_cast<std::size_t>(channels); ++c) {
    for (int x = 0; x < 256; ++x) table.push_back((static_cast<float>(x) / 255.0f - full.mean[c]) / full.stddev[c]);
  }
  return table;
}

/// The pixel nearest to a normalised number; NaN is 0.
inline std::uint8_t to_pixel(float x, float mean, float stddev) {
  const float scaled = (x * stddev + mean) * 255.0f;
  return static_cast<std::uint8_t>(scaled > 0.0f ? std::lround(std::min(scaled, 255.0f)) : 0);
}

/// Mean and standard deviation of each channel over all pixels; a constant channel gets 1 / 255. Exact sums of
/// integers, so the result is the same for any number of threads. `Error`: no pictures.
inline pixel_normalisation measure_normalisation(const dataset& data, int threads = 0) {
  require(data.n() > 0, "measure_normalisation: no pictures");
  const index channels = data.channels, grain = 256, pieces = (data.n() + grain - 1) / grain;
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(pieces * channels * 2), 0);
  parallel_chunks(threads, data.n(), grain, [&](index begin, index end) {
    std::uint64_t* sum = sums.data() + begin / grain * channels * 2;
    const std::uint8_t* p = data.view_of(begin).pixels;
    for (index i = (end - begin) * data.height * data.width; i > 0; --i) {
      for (index c = 0; c < channels; ++c, ++p) {
        sum[2 * c] += *p;
        sum[2 * c + 1] += static_cast<std::uint64_t>(*p) * *p;
      }
    }
  });
  pixel_normalisation result{{}, {}};
  const auto count = static_cast<double>(data.n() * data.height * data.width);
  for (index c = 0; c < channels; ++c) {
    std::uint64_t first = 0, second = 0;
    for (index piece = 0; piece < pieces; ++piece) {
      first += sums[static_cast<std::size_t>((piece * channels + c) * 2)];
      second += sums[static_cast<std::size_t>((piece * channels + c) * 2 + 1)];
    }
    const double mean = static_cast<double>(first) / count;
    const double variance = static_cast<double>(second) / count - mean * mean;
    result.mean.push_back(static_cast<float>(mean / 255.0));
    result.stddev.push_back(static_cast<float>(std::max(std::sqrt(std::max(variance, 0.0)), 1.0) / 255.0));
  }
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/patchify.hpp ====
// Images cut into patches.

#include <span>


namespace core_tokensets {

/// Whole images `[S, C, H, W]` (already normalised) as a batch in which every patch is kept. `shape` has height, width
/// and channels; throws where they are not made of whole patches or do not match the number of pixels.
template <class Shape>
token_batch patchify(std::span<const float> images, index samples, const Shape& shape, index patch) {
  require(patch > 0 && shape.height % patch == 0 && shape.width % patch == 0, "patchify: an image of ", shape.height,
          "x", shape.width, " is not made of whole patches of ", patch, "x", patch);
  require(static_cast<index>(images.size()) == samples * shape.channels * shape.height * shape.width,
          "patchify: ", images.size(), " numbers for ", samples, " images of ", shape.channels, "x", shape.height, "x",
          shape.width);
  const index grid_width = shape.width / patch, patches = shape.height / patch * grid_width;
  token_batch batch;
  batch.patch_dim = shape.channels * patch * patch;
  batch.patches.reserve(images.size());
  for (index s = 0; s < samples; ++s) {
    for (index k = 0; k < patches; ++k) {
      batch.positions.push_back(static_cast<std::int32_t>(k));
      for (index c = 0; c < shape.channels; ++c) {
        for (index y = 0; y < patch; ++y) {
          const index row = ((s * shape.channels + c) * shape.height + k / grid_width * patch + y) * shape.width;
          const float* from = images.data() + row + k % grid_width * patch;
          batch.patches.insert(batch.patches.end(), from, from + patch);
        }
      }
    }
    batch.offsets.push_back(batch.offsets.back() + patches);
  }
  return batch;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/patches.hpp ====
// Pictures cut into patches and put together again. Patch k = row of the grid * columns of the grid + column; within a
// patch the order is channel, row, column, as in the weight of a convolution.

#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

/// How pictures are cut.
struct patch_grid {
  index height = 0, width = 0, channels = 0, patch = 0;

  index rows() const { return height / patch; }
  index cols() const { return width / patch; }
  index tokens() const { return rows() * cols(); }
  index patch_dim() const { return channels * patch * patch; }
  /// `Error` unless patches tile the picture.
  void check() const {
    require(height > 0 && width > 0 && channels > 0 && patch > 0 && height % patch == 0 && width % patch == 0,
            "patches of ", patch, " do not tile a picture of ", height, " x ", width, " x ", channels);
  }
  /// Calls `visit(y, x, c)` for the elements of a whole picture in the order of its patches.
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (index k = 0; k < tokens(); ++k) {
      const index top = k / cols() * patch, left = k % cols() * patch;
      for (index c = 0; c < channels; ++c) {
        for (index y = top; y < top + patch; ++y) {
          for (index x = left; x < left + patch; ++x) visit(y, x, c);
        }
      }
    }
  }
};

/// Patches `[P, C p p]` of a picture as bytes.
inline std::vector<std::uint8_t> patchify(const image_view& from, index patch) {
  const patch_grid grid{from.height, from.width, from.channels, patch};
  grid.check();
  std::vector<std::uint8_t> patches;
  patches.reserve(static_cast<std::size_t>(from.size()));
  grid.for_each([&](index y, index x, index c) { patches.push_back(from.at(y, x)[c]); });
  return patches;
}

/// Normalised patches `[P, C p p]` of a picture.
inline std::vector<float> patchify(const image_view& from, index patch, const pixel_normalisation& normalisation) {
  const patch_grid grid{from.height, from.width, from.channels, patch};
  grid.check();
  const auto table = pixel_table(normalisation, from.channels);
  std::vector<float> patches;
  patches.reserve(static_cast<std::size_t>(from.size()));
  grid.for_each([&](index y, index x, index c) { patches.push_back(table.data()[c * 256 + from.at(y, x)[c]]); });
  return patches;
}

/// The picture from some of its patches, `positions` saying which; pixels of missing patches are `missing`. `Error`:
/// sizes that do not fit, a position outside of the grid.
inline image unpatchify(std::span<const std::uint8_t> patches, std::span<const std::int32_t> positions,
                        const patch_grid& grid, std::uint8_t missing = 0) {
  grid.check();
  require(patches.size() == positions.size() * static_cast<std::size_t>(grid.patch_dim()),
          "unpatchify: ", patches.size(), " bytes for ", positions.size(), " patches of ", grid.patch_dim());
  image to(grid.height, grid.width, grid.channels, missing);
  const std::uint8_t* p = patches.data();
  for (const index k : positions) {
    require(k >= 0 && k < grid.tokens(), "unpatchify: position ", k, " of ", grid.tokens());
    const index top = k / grid.cols() * grid.patch, left = k % grid.cols() * grid.patch;
    for (index c = 0; c < grid.channels; ++c) {
      for (index y = top; y < top + grid.patch; ++y) {
        for (index x = left; x < left + grid.patch; ++x) to.at(y, x)[c] = *p++;
      }
    }
  }
  return to;
}

/// The picture from all of its patches in order.
inline image unpatchify(std::span<const std::uint8_t> patches, const patch_grid& grid) {
  grid.check();
  std::vector<std::int32_t> all;
  for (index k = 0; k < grid.tokens(); ++k) all.push_back(static_cast<std::int32_t>(k));
  return unpatchify(patches, all, grid);
}

/// The picture of sample s of a batch; pixels of missing patches are `missing`.
inline image unpatchify(const token_batch& batch, index s, const patch_grid& grid,
                        const pixel_normalisation& normalisation, std::uint8_t missing = 0) {
  require(s >= 0 && s < batch.samples() && batch.patch_dim == grid.patch_dim(), "unpatchify: sample ", s, " of ",
          batch.samples(), ", patches of ", batch.patch_dim, ", expected ", grid.patch_dim());
  const auto full = normalisation.for_channels(grid.channels);
  const index begin = batch.offsets.data()[s], count = batch.offsets.data()[s + 1] - begin;
  const float* from = batch.patches.data() + begin * batch.patch_dim;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count * batch.patch_dim));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t c =
        i % static_cast<std::size_t>(grid.patch_dim()) / static_cast<std::size_t>(grid.patch * grid.patch);
    bytes[i] = to_pixel(from[i], full.mean[c], full.stddev[c]);
  }
  return unpatchify(
      bytes, std::span(batch.positions).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)), grid,
      missing);
}

namespace detail {

/// Shapes a batch for `samples` whole pictures; memory is reused.
inline void shape_whole_batch(const patch_grid& grid, index samples, token_batch& out) {
  const index tokens = grid.tokens();
  out.patch_dim = grid.patch_dim();
  out.patches.resize(static_cast<std::size_t>(samples * tokens * out.patch_dim));
  out.positions.resize(static_cast<std::size_t>(samples * tokens));
  out.offsets.resize(static_cast<std::size_t>(samples + 1));
  out.scale.clear(), out.targets.clear(), out.weights.clear();
  for (index s = 0; s <= samples; ++s) out.offsets.data()[s] = s * tokens;
  for (index t = 0; t < samples * tokens; ++t) out.positions.data()[t] = static_cast<std::int32_t>(t % tokens);
}

}  // namespace detail

/// Numbers `[B, C, H, W]` as a batch of whole pictures, taken as they are.
inline token_batch patchify(std::span<const float> images, const patch_grid& grid) {
  grid.check();
  const index size = grid.height * grid.width * grid.channels, samples = static_cast<index>(images.size()) / size;
  require(samples * size == static_cast<index>(images.size()), "patchify: ", images.size(),
          " numbers, expected a multiple of ", size);
  return patchify(images, samples, grid, grid.patch);
}

/// A batch of whole pictures back to numbers `[B, C, H, W]`; patches may come in any order.
inline std::vector<float> unpatchify(const token_batch& batch, const patch_grid& grid) {
  grid.check();
  require(batch.patch_dim == grid.patch_dim(), "unpatchify: patches of ", batch.patch_dim, ", expected ",
          grid.patch_dim());
  const index area = grid.patch * grid.patch, size = grid.height * grid.width * grid.channels;
  std::vector<float> images(static_cast<std::size_t>(batch.samples() * size), 0.0f);
  for (index s = 0; s < batch.samples(); ++s) {
    for (index t = batch.offsets.data()[s]; t < batch.offsets.data()[s + 1]; ++t) {
      const index k = batch.positions.data()[t];
      require(k >= 0 && k < grid.tokens(), "unpatchify: position ", k, " of ", grid.tokens());
      for (index e = 0; e < grid.patch_dim(); ++e) {
        const index y = k / grid.cols() * grid.patch + e % area / grid.patch;
        const index x = k % grid.cols() * grid.patch + e % grid.patch;
        images.data()[s * size + (e / area * grid.height + y) * grid.width + x] =
            batch.patches.data()[t * grid.patch_dim() + e];
      }
    }
  }
  return images;
}

struct batch_options {
  index patch = 8;
  pixel_normalisation normalisation = {};
  augmentation augment = {};
  std::uint64_t seed = 0, epoch = 0;  ///< of the augmentation
  int threads = 0;
};

/// The pictures at `indices`, augmented, normalised and cut, with their labels as targets. `Error`: patches that do not
/// tile the pictures, an index out of range.
inline void make_batch(const dataset& data, std::span<const index> indices, const batch_options& options,
                       token_batch& out) {
  const patch_grid grid{data.height, data.width, data.channels, options.patch};
  grid.check();
  const auto samples = static_cast<index>(indices.size());
  const auto table = pixel_table(options.normalisation, data.channels);
  detail::shape_whole_batch(grid, samples, out);
  out.targets.resize(indices.size());
  for (index s = 0; s < samples; ++s) {
    const index i = indices.data()[s];
    require(i >= 0 && i < data.n(), "make_batch: picture ", i, " of ", data.n());
    out.targets.data()[s] = data.labels.data()[i];
  }
  const bool plain = options.augment.shift == 0 && options.augment.flip == 0;
  parallel_chunks(options.threads, samples, 4, [&](index begin, index end) {
    for (index s = begin; s < end; ++s) {
      const image_view from = data.view_of(indices.data()[s]);
      float* to = out.patches.data() + s * data.image_size();
      if (plain) {
        grid.for_each([&](index y, index x, index c) { *to++ = table.data()[c * 256 + from.at(y, x)[c]]; });
      } else {
        const auto draw = draw_augmentation(options.augment, options.seed, options.epoch, indices.data()[s]);
        grid.for_each([&](index y, index x, index c) {
          const index source = draw.source(y, x, from.height, from.width);
          *to++ = table.data()[c * 256 + (source < 0 ? 0 : from.pixels[source * from.channels + c])];
        });
      }
    }
  });
}

inline token_batch make_batch(const dataset& data, std::span<const index> indices, const batch_options& options = {}) {
  token_batch out;
  make_batch(data, indices, options, out);
  return out;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/photo_text.hpp ====
// What can be said of a labelled photo with a box around its object: its name, its place and its size, as words.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>


namespace core_tokensets {

inline constexpr std::array<std::string_view, 5> photo_places{"left", "right", "top", "bottom", "middle"};
inline constexpr std::array<std::string_view, 3> photo_sizes{"small", "medium", "large"};

struct photo_text_options {
  index per_image = 4;  ///< at most so many questions, or so many captions, a picture
  bool balance = true;  ///< leave out questions of place and size so that no answer is more frequent than the second
  std::uint64_t seed = 0;
};

/// The name that people use: what comes before the first comma, in lower case. "European fire salamander, Salamandra
/// salamandra" is "european fire salamander".
inline std::string photo_name(std::string_view class_name) {
  std::string name(class_name.substr(0, class_name.find(',')));
  while (!name.empty() && name.back() == ' ') name.pop_back();
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return name;
}

namespace detail {

/// "binoculars", "swimming trunks": an s at the end that is none of "brass", "cactus", "iris".
inline bool is_plural(std::string_view name) {
  return name.ends_with("s") && !name.ends_with("ss") && !name.ends_with("us") && !name.ends_with("is");
}

/// Place and size of the object of picture `i` by the bounding box of its mask; no value where there is no box, or
/// several, or where the box lies between two answers.
struct photo_facts {
  std::optional<std::size_t> place, size;  ///< in `photo_places` and `photo_sizes`
};

inline photo_facts look_at_box(const dataset& data, index i) {
  photo_facts facts;
  const auto mask = data.mask_of(i);
  if (std::any_of(mask.begin(), mask.end(), [](std::uint8_t object) { return object > 1; })) return facts;
  index top = data.height, left = data.width, bottom = 0, right = 0;
  for (index y = 0; y < data.height && !mask.empty(); ++y) {
    for (index x = 0; x < data.width; ++x) {
      if (mask[static_cast<std::size_t>(y * data.width + x)] == 0) continue;
      top = std::min(top, y), left = std::min(left, x), bottom = y + 1, right = std::max(right, x + 1);
    }
  }
  if (bottom == 0) return facts;
  const auto height = static_cast<double>(data.height), width = static_cast<double>(data.width);
  const double across = static_cast<double>(left + right) / 2 / width - 0.5;
  const double down = static_cast<double>(top + bottom) / 2 / height - 0.5;
  const double off = std::max(std::abs(across), std::abs(down));
  if (off <= 0.08) {
    facts.place = 4;
  } else if (off >= 0.12 && std::abs(std::abs(across) - std::abs(down)) >= 0.04) {
    facts.place = std::abs(across) > std::abs(down) ? (across < 0 ? 0u : 1u) : (down < 0 ? 2u : 3u);
  }
  const double share = static_cast<double>((bottom - top) * (right - left)) / (height * width);
  if (share <= 0.20) facts.size = 0;
  if (share >= 0.27 && share <= 0.48) facts.size = 1;
  if (share >= 0.58) facts.size = 2;
  return facts;
}

}  // namespace detail
}  // namespace core_tokensets

// ==== core_tokensets/data/scene_words.hpp ====
// The words for what a scene shows. Captions, questions and answers are made of them, so they are few and fixed.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

enum class scene_shape : std::uint8_t {
  circle,
  square,
  triangle,
  star,
  ring,
  cross,
  diamond,
  crescent,
  heart,
  arrow,
  hexagon,
  hourglass
};
enum class scene_texture : std::uint8_t { plain, striped, checked, dotted };
enum class scene_colour : std::uint8_t { red, orange, yellow, green, blue, purple, white, black };
enum class scene_size : std::uint8_t { small, medium, large };

inline constexpr std::array<std::string_view, 12> scene_shape_names{"circle", "square", "triangle", "star",
                                                                    "ring",   "cross",  "diamond",  "crescent",
                                                                    "heart",  "arrow",  "hexagon",  "hourglass"};
inline constexpr std::array<std::string_view, 4> scene_texture_names{"plain", "striped", "checked", "dotted"};
inline constexpr std::array<std::string_view, 8> scene_colour_names{"red",  "orange", "yellow", "green",
                                                                    "blue", "purple", "white",  "black"};
inline constexpr std::array<std::string_view, 3> scene_size_names{"small", "medium", "large"};

inline constexpr std::string_view name_of(scene_shape s) { return scene_shape_names[static_cast<std::size_t>(s)]; }
inline constexpr std::string_view name_of(scene_texture t) { return scene_texture_names[static_cast<std::size_t>(t)]; }
inline constexpr std::string_view name_of(scene_colour c) { return scene_colour_names[static_cast<std::size_t>(c)]; }
inline constexpr std::string_view name_of(scene_size s) { return scene_size_names[static_cast<std::size_t>(s)]; }

/// Pixels that an object covers: rows `top .. bottom`, columns `left .. right`, the last ones not included.
struct scene_box {
  index top = 0, left = 0, bottom = 0, right = 0;
  bool operator==(const scene_box&) const = default;
};

/// One object: what it is, where its centre lies, how far it reaches (in pixels) and how it is turned (in radians).
struct scene_object {
  scene_shape shape = scene_shape::circle;
  scene_texture texture = scene_texture::plain;
  scene_colour colour = scene_colour::red;
  scene_size size = scene_size::medium;
  double row = 0, column = 0, radius = 0, angle = 0;
  scene_box box = {};
  bool operator==(const scene_object&) const = default;

  /// "a large red striped star"; plain goes without saying.
  std::string text() const {
    std::string words = "a ";
    words.append(name_of(size)).append(" ");
    words.append(name_of(colour)).append(" ");
    if (texture != scene_texture::plain) words.append(name_of(texture)).append(" ");
    return words.append(name_of(shape));
  }
};

/// A shape in a colour.
struct scene_pair {
  scene_colour colour = scene_colour::red;
  scene_shape shape = scene_shape::circle;
  bool operator==(const scene_pair&) const = default;
};

/// Everything that a scene shows; the first object is the one that the label means.
struct scene_description {
  std::vector<scene_object> objects;
  bool operator==(const scene_description&) const = default;

  /// "a large red striped star, a small blue circle and a small green ring"
  std::string text() const {
    std::string words;
    for (std::size_t i = 0; i < objects.size(); ++i) {
      if (i > 0) words += i + 1 == objects.size() ? " and " : ", ";
      words += objects[i].text();
    }
    return words;
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/data/scene_shapes.hpp ====
// The geometry of a scene's objects: which points a shape covers and which of its two colours a point has.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>


namespace core_tokensets::detail {

/// A point in the frame of an object: x to the right, y down, the shape within the unit circle.
struct scene_point {
  double x = 0, y = 0;
};

/// True in the five-pointed star with outer radius 1: fold the plane into one tenth and test against one edge.
inline bool in_star(scene_point p) {
  constexpr double inner = 0.45, pi = std::numbers::pi, half = pi / 5;
  const double r = std::hypot(p.x, p.y);
  double a = std::fmod(std::atan2(p.x, -p.y) + 2 * pi, 2 * half);
  a = a > half ? 2 * half - a : a;
  // Edge from the tip (angle 0, radius 1) to the notch (angle half, radius inner).
  const double ex = inner * std::cos(half) - 1, ey = inner * std::sin(half);
  return ex * r * std::sin(a) > ey * (r * std::cos(a) - 1);
}

inline bool in_regular_polygon(scene_point p, int sides, double radius) {
  const double half = std::numbers::pi / sides;
  double a = std::fmod(std::atan2(p.x, -p.y) + 2 * std::numbers::pi, 2 * half);
  a -= half;
  return std::hypot(p.x, p.y) * std::cos(a) <= radius * std::cos(half);
}

/// x^2 + (5/4 y - sqrt |x|)^2 <= 1 with y up.
inline bool in_heart(scene_point p) {
  const double x = std::abs(p.x) / 0.88, y = (0.12 - p.y) / 0.88;
  const double lobe = 1.25 * y - std::sqrt(x);
  return x * x + lobe * lobe <= 1;
}

/// True where the shape covers the point.
inline bool covers(scene_shape shape, scene_point p) {
  const double x = std::abs(p.x), y = std::abs(p.y), r2 = p.x * p.x + p.y * p.y;
  switch (shape) {
    case scene_shape::circle:
      return r2 <= 0.85 * 0.85;
    case scene_shape::square:
      return x <= 0.72 && y <= 0.72;
    case scene_shape::triangle:
      return in_regular_polygon(p, 3, 1.0);
    case scene_shape::star:
      return in_star(p);
    case scene_shape::ring:
      return r2 <= 0.92 * 0.92 && r2 >= 0.5 * 0.5;
    case scene_shape::cross:
      return std::min(x, y) <= 0.27 && std::max(x, y) <= 0.92;
    case scene_shape::diamond:
      return x / 0.56 + y <= 1;
    case scene_shape::crescent:
      return r2 <= 0.92 * 0.92 && std::hypot(p.x - 0.45, p.y) >= 0.72;
    case scene_shape::heart:
      return in_heart(p);
    case scene_shape::arrow:
      return (p.y <= 0 && p.y >= -0.95 && x <= 0.8 * (p.y + 0.95)) || (p.y > 0 && p.y <= 0.9 && x <= 0.24);
    case scene_shape::hexagon:
      return in_regular_polygon(p, 6, 0.92);
    case scene_shape::hourglass:
      return y <= 0.88 && x <= 0.1 + 0.62 * y;
  }
  return false;
}

/// True where the texture shows the second colour; `x`, `y` in pixels of the object's frame, `period` in pixels.
inline bool second_colour(scene_texture texture, double x, double y, double period) {
  const auto phase = [period](double v) { return v / period - std::floor(v / period); };
  switch (texture) {
    case scene_texture::plain:
      return false;
    case scene_texture::striped:
      return phase(y) < 0.5;
    case scene_texture::checked:
      return (phase(x) < 0.5) != (phase(y) < 0.5);
    case scene_texture::dotted:
      return std::hypot(phase(x) - 0.5, phase(y) - 0.5) < 0.32;
  }
  return false;
}

/// Red, green, blue in 0 .. 1.
using scene_rgb = std::array<double, 3>;

inline scene_rgb rgb_of(scene_colour colour) {
  switch (colour) {
    case scene_colour::red:
      return {0.86, 0.12, 0.12};
    case scene_colour::orange:
      return {0.96, 0.53, 0.08};
    case scene_colour::yellow:
      return {0.96, 0.88, 0.16};
    case scene_colour::green:
      return {0.12, 0.66, 0.20};
    case scene_colour::blue:
      return {0.12, 0.28, 0.88};
    case scene_colour::purple:
      return {0.56, 0.16, 0.70};
    case scene_colour::white:
      return {0.96, 0.96, 0.96};
    case scene_colour::black:
      return {0.05, 0.05, 0.05};
  }
  return {};
}

inline double distance(const scene_rgb& a, const scene_rgb& b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

}  // namespace core_tokensets::detail

// ==== core_tokensets/data/scene_render.hpp ====
// Paints a scene: a background of soft noise with blobs and lines that mean nothing, then the objects, each pixel the
// mean of sixteen points.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>


namespace core_tokensets::detail {

/// A square picture of colours in 0 .. 1 while it is painted.
struct scene_canvas {
  index side = 0;
  std::vector<scene_rgb> pixels;

  explicit scene_canvas(index n) : side(n), pixels(static_cast<std::size_t>(n * n)) {}
  scene_rgb& at(index y, index x) { return pixels.data()[y * side + x]; }
  scene_rgb mean() const {
    scene_rgb sum{};
    for (const auto& p : pixels) {
      for (std::size_t c = 0; c < 3; ++c) sum[c] += p[c];
    }
    for (double& s : sum) s /= static_cast<double>(pixels.size());
    return sum;
  }
};

inline void blend(scene_rgb& under, const scene_rgb& over, double share) {
  for (std::size_t c = 0; c < 3; ++c) under[c] += share * (over[c] - under[c]);
}

/// Adds one octave of value noise: random values on a lattice of `cells` x `cells`, smoothly joined.
inline void add_octave(scene_canvas& canvas, index cells, double strength, double colourful, random_stream& random) {
  const index lattice = cells + 2;
  std::vector<scene_rgb> values(static_cast<std::size_t>(lattice * lattice));
  for (auto& v : values) {
    const double grey = random.uniform(-1, 1);
    for (double& c : v) c = strength * ((1 - colourful) * grey + colourful * random.uniform(-1, 1));
  }
  const double shift_y = random.uniform(), shift_x = random.uniform();
  const double step = static_cast<double>(cells) / static_cast<double>(canvas.side);
  const auto smooth = [](double t) { return t * t * (3 - 2 * t); };
  for (index y = 0; y < canvas.side; ++y) {
    const double v = (static_cast<double>(y) + 0.5) * step + shift_y;
    const auto row = static_cast<index>(v);
    const double b = smooth(v - static_cast<double>(row));
    for (index x = 0; x < canvas.side; ++x) {
      const double u = (static_cast<double>(x) + 0.5) * step + shift_x;
      const auto column = static_cast<index>(u);
      const double a = smooth(u - static_cast<double>(column));
      const scene_rgb* top = values.data() + row * lattice + column;
      scene_rgb& pixel = canvas.at(y, x);
      for (std::size_t c = 0; c < 3; ++c) {
        pixel[c] +=
            (1 - b) * ((1 - a) * top[0][c] + a * top[1][c]) + b * ((1 - a) * top[lattice][c] + a * top[lattice + 1][c]);
      }
    }
  }
}

/// A muted colour of earth, plants, sky or stone.
inline scene_rgb muted_colour(random_stream& random) {
  const double light = random.uniform(0.22, 0.78);
  scene_rgb colour{};
  for (double& c : colour) c = light + random.uniform(-0.16, 0.16);
  return colour;
}

/// Soft ellipses and lines in muted colours, some of them as bright as an object.
inline void add_distractors(scene_canvas& canvas, random_stream& random) {
  const auto side = static_cast<double>(canvas.side);
  for (index i = 1 + random.below(3); i > 0; --i) {  // blobs
    const scene_rgb colour = muted_colour(random);
    const double row = random.uniform(0, side), column = random.uniform(0, side), turn = random.uniform(0, 3.2);
    const double a = random.uniform(0.08, 0.24) * side, b = random.uniform(0.06, 0.14) * side;
    const double strength = random.uniform(0.4, 0.9), cosine = std::cos(turn), sine = std::sin(turn);
    for (index y = 0; y < canvas.side; ++y) {
      for (index x = 0; x < canvas.side; ++x) {
        const double dy = static_cast<double>(y) + 0.5 - row, dx = static_cast<double>(x) + 0.5 - column;
        const double d = std::hypot((cosine * dx + sine * dy) / a, (cosine * dy - sine * dx) / b);
        if (d < 1) blend(canvas.at(y, x), colour, strength * std::min(1.0, 3 * (1 - d)));
      }
    }
  }
  for (index i = 1 + random.below(4); i > 0; --i) {  // lines
    const scene_rgb colour =
        random.uniform() < 0.3 ? rgb_of(static_cast<scene_colour>(random.below(8))) : muted_colour(random);
    const double turn = random.uniform(0, 2 * std::numbers::pi), cosine = std::cos(turn), sine = std::sin(turn);
    const double row = random.uniform(0, side), column = random.uniform(0, side);
    const double length = random.uniform(0.1, 0.5) * side, width = random.uniform(0.012, 0.035) * side;
    const double strength = random.uniform(0.4, 0.9);
    for (index y = 0; y < canvas.side; ++y) {
      for (index x = 0; x < canvas.side; ++x) {
        const double dy = static_cast<double>(y) + 0.5 - row, dx = static_cast<double>(x) + 0.5 - column;
        const double along = std::abs(cosine * dx + sine * dy), across = std::abs(cosine * dy - sine * dx);
        const double cover =
            std::clamp(width + 0.5 - across, 0.0, 1.0) * std::clamp(length / 2 + 0.5 - along, 0.0, 1.0);
        if (cover > 0) blend(canvas.at(y, x), colour, strength * cover);
      }
    }
  }
}

inline void paint_background(scene_canvas& canvas, random_stream& random) {
  const scene_rgb top = muted_colour(random), bottom = muted_colour(random);
  const double turn = random.uniform(0, 2 * std::numbers::pi), cosine = std::cos(turn), sine = std::sin(turn);
  for (index y = 0; y < canvas.side; ++y) {
    for (index x = 0; x < canvas.side; ++x) {
      const double v = (static_cast<double>(y) + 0.5) / static_cast<double>(canvas.side) - 0.5;
      const double u = (static_cast<double>(x) + 0.5) / static_cast<double>(canvas.side) - 0.5;
      canvas.at(y, x) = top;
      blend(canvas.at(y, x), bottom, std::clamp(0.5 + u * cosine + v * sine, 0.0, 1.0));
    }
  }
  add_octave(canvas, 2, 0.16, 0.5, random);
  add_octave(canvas, 5, 0.11, 0.4, random);
  add_octave(canvas, 11, 0.07, 0.3, random);
  add_distractors(canvas, random);
}

/// Pixels from one stripe, dot or square of a texture to the next of its colour.
inline double texture_period(index side) { return std::max(3.6, 0.13 * static_cast<double>(side)); }

/// True if an object is wide enough to show a texture without losing its shape: it reaches one period far, or one and a
/// half where the shape is thin or lives by its tips.
inline bool shows_texture(scene_shape shape, double radius, index side) {
  const bool bulky = shape == scene_shape::circle || shape == scene_shape::square || shape == scene_shape::triangle ||
                     shape == scene_shape::heart || shape == scene_shape::hexagon;
  return radius >= (bulky ? 1.0 : 1.5) * texture_period(side);
}

/// Paints the object and returns its box; `mask` `[side, side]` becomes `number` where at least half of a pixel is
/// covered. The second colour of a texture is a darker or lighter shade of the first.
inline scene_box paint_object(scene_canvas& canvas, const scene_object& object, std::uint8_t number, std::uint8_t* mask,
                              random_stream& random) {
  scene_rgb first = rgb_of(object.colour);
  for (double& c : first) c = std::clamp(c + random.uniform(-0.06, 0.06), 0.0, 1.0);
  scene_rgb second = first;
  const double light = 0.3 * first[0] + 0.6 * first[1] + 0.1 * first[2];
  const bool darker = light > 0.7 || (light > 0.2 && random.uniform() < 0.5);
  blend(second, darker ? scene_rgb{0, 0, 0} : scene_rgb{1, 1, 1}, 0.62);
  const double period = texture_period(canvas.side), offset = random.uniform(0, period);
  const double cosine = std::cos(object.angle), sine = std::sin(object.angle);
  const auto low = [&](double centre) { return std::max<index>(0, static_cast<index>(centre - object.radius) - 1); };
  const auto high = [&](double centre) {
    return std::min<index>(canvas.side, static_cast<index>(centre + object.radius) + 2);
  };
  scene_box box{canvas.side, canvas.side, 0, 0};
  for (index y = low(object.row); y < high(object.row); ++y) {
    for (index x = low(object.column); x < high(object.column); ++x) {
      int covered = 0;
      scene_rgb sum{};
      for (int k = 0; k < 16; ++k) {
        const double dy = static_cast<double>(y) + (k / 4 + 0.5) / 4 - object.row;
        const double dx = static_cast<double>(x) + (k % 4 + 0.5) / 4 - object.column;
        const double u = cosine * dx + sine * dy, v = cosine * dy - sine * dx;
        if (!covers(object.shape, {u / object.radius, v / object.radius})) continue;
        ++covered;
        const scene_rgb& colour = second_colour(object.texture, u + offset, v + offset, period) ? second : first;
        for (std::size_t c = 0; c < 3; ++c) sum[c] += colour[c];
      }
      if (covered == 0) continue;
      for (double& c : sum) c /= covered;
      blend(canvas.at(y, x), sum, covered / 16.0);
      if (covered < 8) continue;
      mask[y * canvas.side + x] = number;
      box = {std::min(box.top, y), std::min(box.left, x), std::max(box.bottom, y + 1), std::max(box.right, x + 1)};
    }
  }
  return box;
}

}  // namespace core_tokensets::detail

// ==== core_tokensets/data/scenes.hpp ====
// The built-in pictures: shapes of any colour, size, place and turn on cluttered backgrounds. Nothing but the shape
// (and the texture, where there are more classes than shapes) tells the class. The exact masks of all objects come with
// them, so attributions can be measured. The same seed gives the same pictures on any number of threads.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <tuple>
#include <utility>
#include <vector>


namespace core_tokensets {

struct scene_options {
  index classes = 10;  ///< up to 12: shapes with any texture; up to 48: pairs of shape and texture
  index train_per_class = 500, test_per_class = 100;
  index image = 32;    ///< height and width
  index objects = 1;   ///< at most so many in a picture; with more than one their number varies and they are smaller
  double typical = 0;  ///< how often the object that the label means wears the colour and texture of its class
  std::uint64_t seed = 0;
  int threads = 0;
  std::vector<scene_pair> without = {};  ///< shapes never wear these colours; not together with `typical`
  bool legible = false;                  ///< objects that are too small to show a texture are plain
};

/// Pictures together with what they show.
struct described_scenes {
  dataset_split data;
  std::vector<scene_description> train, test;
};

namespace detail {

constexpr index scene_shapes = static_cast<index>(scene_shape_names.size());
/// Three colours and four textures make a pair of its own for each of the twelve shapes, so that neither colour nor
/// texture alone tells the class.
constexpr std::array<scene_colour, 3> typical_colours{scene_colour::orange, scene_colour::green, scene_colour::blue};
constexpr index scene_colours = static_cast<index>(scene_colour_names.size());
constexpr index scene_textures = static_cast<index>(scene_texture_names.size());

template <class Word>
Word random_word(index count, random_stream& random) {
  return static_cast<Word>(random.below(count));
}

/// From where to where small, medium and large objects reach, in parts of the side; between them lies nothing.
constexpr std::array<std::array<double, 2>, 3> scene_reach{{{0.20, 0.24}, {0.26, 0.31}, {0.34, 0.40}}};
/// How much smaller all objects are where there may be several.
constexpr double scene_scale(index objects) { return objects > 2 ? 0.55 : objects > 1 ? 0.68 : 1.0; }

/// An object of random size, place and turn, free of those before it; false where none fits.
inline bool place_object(const scene_options& options, const scene_description& before, scene_object& object,
                         random_stream& random) {
  const double smaller = scene_scale(options.objects);
  const auto side = static_cast<double>(options.image);
  for (int attempt = 0; attempt < 40; ++attempt) {
    object.size = random_word<scene_size>(3, random);
    const auto& range = scene_reach[static_cast<std::size_t>(object.size)];
    object.radius = random.uniform(range[0], range[1]) * side * smaller;
    object.row = random.uniform(object.radius, side - object.radius);
    object.column = random.uniform(object.radius, side - object.radius);
    object.angle = random.uniform(0, 2 * std::numbers::pi);
    const bool free = std::all_of(before.objects.begin(), before.objects.end(), [&](const scene_object& other) {
      return std::hypot(other.row - object.row, other.column - object.column) > other.radius + object.radius;
    });
    if (free) return true;
  }
  return false;
}

/// Paints scene number `stream` of class `label` into `pixels` `[side, side, 3]` and `mask` `[side, side]`.
inline scene_description make_scene(const scene_options& options, index label, std::uint64_t stream,
                                    std::uint8_t* pixels, std::uint8_t* mask) {
  random_stream random(options.seed ^ 0x7363656e65733031u, stream);
  scene_canvas canvas(options.image);
  paint_background(canvas, random);
  const scene_rgb behind = canvas.mean();
  std::fill_n(mask, options.image * options.image, std::uint8_t{0});
  scene_description scene;
  const index count = options.objects > 1 ? 1 + random.below(options.objects) : 1;
  for (index o = 0; o < count; ++o) {
    scene_object object;
    object.shape =
        o == 0 ? static_cast<scene_shape>(label % scene_shapes) : random_word<scene_shape>(scene_shapes, random);
    object.texture = random_word<scene_texture>(scene_textures, random);
    if (o == 0 && options.classes > scene_shapes) object.texture = static_cast<scene_texture>(label / scene_shapes);
    const auto allowed = [&](scene_colour colour, double contrast) {
      return distance(rgb_of(colour), behind) >= contrast &&
             std::find(options.without.begin(), options.without.end(), scene_pair{colour, object.shape}) ==
                 options.without.end();
    };
    double contrast = 0.45;
    if (!options.without.empty()) {  // where no other colour is left, one that is harder to see
      index left = 0;
      for (index c = 0; c < scene_colours; ++c) left += allowed(static_cast<scene_colour>(c), contrast) ? 1 : 0;
      if (left == 0) contrast = 0;
    }
    do {
      object.colour = random_word<scene_colour>(scene_colours, random);
    } while (!allowed(object.colour, contrast));
    if (o == 0 && options.typical > 0 && random.uniform() < options.typical) {
      object.colour = typical_colours[static_cast<std::size_t>(label) % typical_colours.size()];
      if (options.classes <= scene_shapes) object.texture = static_cast<scene_texture>(label % scene_textures);
    }
    if (!place_object(options, scene, object, random)) break;
    if (options.legible && !shows_texture(object.shape, object.radius, options.image)) {
      object.texture = scene_texture::plain;
    }
    object.box = paint_object(canvas, object, static_cast<std::uint8_t>(o + 1), mask, random);
    scene.objects.push_back(object);
  }
  for (const scene_rgb& colour : canvas.pixels) {
    for (const double c : colour) {
      const double noisy = c + 0.015 * random.uniform(-1, 1);
      *pixels++ = static_cast<std::uint8_t>(std::lround(std::clamp(noisy, 0.0, 1.0) * 255));
    }
  }
  return scene;
}

/// Pictures number i of class i % classes.
inline std::pair<dataset, std::vector<scene_description>> make_scenes(const scene_options& options, index per_class,
                                                                      const std::string& part,
                                                                      std::uint64_t first_stream) {
  dataset data;
  data.height = data.width = options.image, data.channels = 3;
  const index n = per_class * options.classes, area = options.image * options.image;
  for (index k = 0; k < options.classes; ++k) {
    std::string name(name_of(static_cast<scene_shape>(k % scene_shapes)));
    if (options.classes > scene_shapes) {
      name = std::string(name_of(static_cast<scene_texture>(k / scene_shapes))) + " " + name;
    }
    data.class_names.push_back(name);
  }
  for (index i = 0; i < n; ++i) {
    data.labels.push_back(static_cast<std::int32_t>(i % options.classes));
    data.names.push_back(part + "/" + std::to_string(i));
  }
  data.pixels.resize(static_cast<std::size_t>(n * area * 3));
  data.masks.resize(static_cast<std::size_t>(n * area));
  data.source_bytes.assign(data.labels.size(), static_cast<std::uint64_t>(area * 3));
  std::vector<scene_description> described(data.labels.size());
  parallel_chunks(options.threads, n, 16, [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      described[static_cast<std::size_t>(i)] =
          make_scene(options, i % options.classes, first_stream + static_cast<std::uint64_t>(i),
                     data.pixels.data() + i * area * 3, data.masks.data() + i * area);
    }
  });
  return {std::move(data), std::move(described)};
}

}  // namespace detail

/// Pictures, masks and descriptions. `source_bytes` are raw sizes. `Error`: more classes than there are pairs of shape
/// and texture, a side outside of 16 .. 1024, no pictures, more than 8 objects, no colour left for a shape.
inline described_scenes scenes_with_descriptions(const scene_options& options = {}) {
  const index pairs = detail::scene_shapes * detail::scene_textures;
  require(options.classes >= 1 && options.classes <= pairs, "scenes: ", options.classes, " classes, expected 1 to ",
          pairs);
  require(options.image >= 16 && options.image <= 1024, "scenes: side ", options.image, ", expected 16 to 1024");
  require(options.train_per_class >= 1 && options.test_per_class >= 0 && options.objects >= 1 && options.objects <= 8,
          "scenes: ", options.train_per_class, " and ", options.test_per_class, " pictures a class, ", options.objects,
          " objects: expected at least 1 and 0, and 1 to 8");
  require(options.typical >= 0 && options.typical <= 1, "scenes: typical ", options.typical, ", expected 0 to 1");
  require(!options.legible || options.classes <= detail::scene_shapes,
          "scenes: legible ones have no classes of textures");
  require(options.without.empty() || options.typical == 0, "scenes: typical and without exclude each other");
  for (index shape = 0; shape < detail::scene_shapes; ++shape) {
    const auto forbidden = std::count_if(options.without.begin(), options.without.end(), [&](const scene_pair& pair) {
      return pair.shape == static_cast<scene_shape>(shape);
    });
    require(forbidden < detail::scene_colours, "scenes: no colour is left for the ",
            name_of(static_cast<scene_shape>(shape)));
  }
  described_scenes result;
  std::tie(result.data.train, result.train) = detail::make_scenes(options, options.train_per_class, "train", 0);
  std::tie(result.data.test, result.test) =
      detail::make_scenes(options, options.test_per_class, "test", std::uint64_t{1} << 40);
  return result;
}

/// The same without the descriptions.
inline dataset_split scenes(const scene_options& options = {}) { return scenes_with_descriptions(options).data; }

}  // namespace core_tokensets

// ==== core_tokensets/data/scene_facts.hpp ====
// What can be said of a scene so that nobody who sees it would disagree. Everything has three answers: yes, no, and
// unclear (no value); text is made only of what is clear.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

enum class scene_relation : std::uint8_t { left, right, above, below };

inline constexpr std::array<std::string_view, 4> scene_relation_names{"left of", "right of", "above", "below"};
inline constexpr std::string_view name_of(scene_relation r) {
  return scene_relation_names[static_cast<std::size_t>(r)];
}

namespace detail {

/// The words by which an object is meant; what has no value may be anything.
struct scene_words_of {
  std::optional<scene_size> size = {};
  std::optional<scene_colour> colour = {};
  std::optional<scene_texture> texture = {};
  std::optional<scene_shape> shape = {};
  bool operator==(const scene_words_of&) const = default;

  /// "large red striped star"; `noun` stands in for a shape that is not named.
  std::string text(std::string_view noun = "shape") const {
    std::string words;
    if (size) words.append(name_of(*size)).append(" ");
    if (colour) words.append(name_of(*colour)).append(" ");
    if (texture) words.append(name_of(*texture)).append(" ");
    return words.append(shape ? name_of(*shape) : noun);
  }
};

inline std::string plural(const std::string& noun) { return noun + (noun.ends_with("s") ? "es" : "s"); }

/// "an orange arrow"
inline std::string with_article(const std::string& words) {
  const bool vowel = std::string_view("aeio").find(words.front()) != std::string_view::npos;
  return (vowel || words.starts_with("hour") ? "an " : "a ") + words;
}

/// A scene and the measures by which it is judged.
class scene_facts {
 public:
  scene_facts(const scene_description& scene, const scene_options& options)
      : scene_(&scene),
        side_(static_cast<double>(options.image)),
        scale_(scene_scale(options.objects)),
        image_(options.image) {}

  const std::vector<scene_object>& objects() const { return scene_->objects; }
  std::size_t count() const { return scene_->objects.size(); }

  /// The size of an object that is not close to the next size: its reach lies in the inner part of its range.
  std::optional<scene_size> clear_size(const scene_object& o) const {
    const auto& range = scene_reach[static_cast<std::size_t>(o.size)];
    const double reach = o.radius / (side_ * scale_), third = (range[1] - range[0]) / 3;
    const bool close = (o.size != scene_size::large && reach > range[1] - third) ||
                       (o.size != scene_size::small && reach < range[0] + third);
    return close ? std::nullopt : std::optional(o.size);
  }

  /// The texture of an object that is wide enough for it (`shows_texture`).
  std::optional<scene_texture> clear_texture(const scene_object& o) const {
    return shows_texture(o.shape, o.radius, image_) ? std::optional(o.texture) : std::nullopt;
  }

  /// Whether the words mean the object.
  std::optional<bool> means(const scene_words_of& words, const scene_object& o) const {
    if ((words.shape && *words.shape != o.shape) || (words.colour && *words.colour != o.colour)) return false;
    const auto size = clear_size(o);
    const auto texture = clear_texture(o);
    if ((words.size && size && *words.size != *size) || (words.texture && texture && *words.texture != *texture)) {
      return false;
    }
    if ((words.size && !size) || (words.texture && !texture)) return std::nullopt;
    return true;
  }

  /// How many objects the words mean; no value if that is unclear of any object.
  std::optional<index> count(const scene_words_of& words) const {
    index n = 0;
    for (const auto& o : objects()) {
      const auto meant = means(words, o);
      if (!meant) return std::nullopt;
      n += *meant ? 1 : 0;
    }
    return n;
  }

  /// Whether object a stands left of (right of, above, below) object b: its centre is a seventh of the side further; it
  /// does not where it is less than a twenty-fifth.
  std::optional<bool> stands(const scene_object& a, scene_relation where, const scene_object& b) const {
    const double right = (a.column - b.column) / side_, down = (a.row - b.row) / side_;
    const double shift = where == scene_relation::left    ? -right
                         : where == scene_relation::right ? right
                         : where == scene_relation::above ? -down
                                                          : down;
    if (shift >= 1.0 / 7) return true;
    if (shift <= 1.0 / 25) return false;
    return std::nullopt;
  }

  /// The only object that stands there, if all others clearly do not.
  std::optional<std::size_t> only_one(scene_relation where, std::size_t b) const {
    std::optional<std::size_t> found;
    for (std::size_t a = 0; a < count(); ++a) {
      if (a == b) continue;
      const auto there = stands(objects()[a], where, objects()[b]);
      if (!there || (*there && found)) return std::nullopt;
      if (*there) found = a;
    }
    return found;
  }

  /// Words that mean object `o` and no other, chosen at random among combinations that `allowed` accepts.
  template <class Allowed>
  std::optional<scene_words_of> reference(std::size_t o, random_stream& random, const Allowed& allowed) const {
    const auto& object = objects()[o];
    std::vector<scene_words_of> found;
    for (unsigned choice = 0; choice < 16; ++choice) {
      scene_words_of words;
      if ((choice & 1u) != 0) words.shape = object.shape;
      if ((choice & 2u) != 0) words.colour = object.colour;
      if ((choice & 4u) != 0) words.texture = clear_texture(object);
      if ((choice & 8u) != 0) words.size = clear_size(object);
      if (std::find(found.begin(), found.end(), words) != found.end()) continue;
      if (allowed(words) && count(words) == index{1}) found.push_back(words);
    }
    if (found.empty()) return std::nullopt;
    return found[static_cast<std::size_t>(random.below(static_cast<index>(found.size())))];
  }

 private:
  const scene_description* scene_;
  double side_, scale_;
  index image_;
};

/// One of several things, all equally likely.
template <class T, std::size_t N>
const T& one_of(const std::array<T, N>& items, random_stream& random) {
  return items[static_cast<std::size_t>(random.below(static_cast<index>(N)))];
}
template <class T>
const T& one_of(const std::vector<T>& items, random_stream& random) {
  return items[static_cast<std::size_t>(random.below(static_cast<index>(items.size())))];
}

/// `pattern` with its "#1" and "#2" replaced.
inline std::string fill_in(std::string_view pattern, const std::string& first, const std::string& second = {}) {
  std::string text;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '#') {
      text += pattern[++i] == '1' ? first : second;
    } else {
      text += pattern[i];
    }
  }
  return text;
}

}  // namespace detail
}  // namespace core_tokensets

// ==== core_tokensets/data/photo_questions.hpp ====
// Questions and captions made from labelled photos with boxes, such as Tiny-ImageNet: what is this, where is it, how
// large is it, is there a ...?

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

inline constexpr std::array<std::string_view, 4> photo_question_kinds{"name", "place", "size", "existence"};

namespace detail {

/// "a goldfish", "an ox", "sunglasses"; an adjective may stand before the name.
inline std::string some(const std::string& name, const std::string& adjective = {}) {
  const std::string words = adjective.empty() ? name : adjective + " " + name;
  if (is_plural(name)) return words;
  if (words.starts_with("eu") || words.starts_with("uni")) return "a " + words;  // spoken with a y
  return words.front() == 'u' ? "an " + words : with_article(words);
}

/// The names of all classes as `photo_name` gives them. `Error`: a class without a name.
inline std::vector<std::string> photo_names(const dataset& data) {
  std::vector<std::string> names;
  for (const auto& name : data.class_names) {
    names.push_back(photo_name(name));
    require(!names.back().empty(), "photo text: class '", name, "' has no name");
  }
  return names;
}

/// Leaves out samples of a group, chosen at random, until no answer is more frequent than the second one was.
inline void balance_answers(std::vector<visual_text_sample>& samples, std::int32_t group, random_stream& random) {
  std::map<std::string, std::vector<std::size_t>> by_answer;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (samples[i].group == group) by_answer[samples[i].answers[0]].push_back(i);
  }
  std::vector<std::size_t> counts;
  for (const auto& [answer, members] : by_answer) counts.push_back(members.size());
  if (counts.size() < 2) return;
  std::nth_element(counts.begin(), counts.begin() + 1, counts.end(), std::greater<>());
  std::vector<bool> dropped(samples.size(), false);
  for (auto& [answer, members] : by_answer) {
    random.shuffle(std::span(members));
    for (std::size_t k = counts[1]; k < members.size(); ++k) dropped[members[k]] = true;
  }
  std::size_t i = 0;
  std::erase_if(samples, [&](const visual_text_sample&) { return dropped[i++]; });
}

/// One question of each kind that the picture allows, in random order.
inline std::vector<visual_text_sample> ask_about_photo(const dataset& data, index i,
                                                       const std::vector<std::string>& names, random_stream& random) {
  static constexpr std::array<std::string_view, 4> name_patterns{"what is this?", "what does the picture show?",
                                                                 "what can you see?", "what is in the picture?"};
  static constexpr std::array<std::string_view, 3> place_patterns{
      "where #2 the #1?", "in which part of the picture #2 the #1?", "in what part #2 the #1?"};
  static constexpr std::array<std::string_view, 3> size_patterns{"how large #2 the #1?", "how big #2 the #1?",
                                                                 "what size #2 the #1?"};
  static constexpr std::array<std::string_view, 4> existence_patterns{"does the picture show #1?", "can you see #1?",
                                                                      "do you see #1?", "is this a picture of #1?"};
  const auto label = [&](index k) { return static_cast<std::size_t>(data.labels[static_cast<std::size_t>(k)]); };
  const std::string &name = names[label(i)], verb = is_plural(name) ? "are" : "is";
  const auto facts = look_at_box(data, i);
  std::vector<visual_text_sample> asked;
  for (const auto kind : random.permutation(4)) {
    std::string prompt, answer;
    if (kind == 0) {
      prompt = one_of(name_patterns, random), answer = name;
    } else if (kind == 1 && facts.place) {
      prompt = fill_in(one_of(place_patterns, random), name, verb), answer = photo_places[*facts.place];
    } else if (kind == 2 && facts.size) {
      prompt = fill_in(one_of(size_patterns, random), name, verb), answer = photo_sizes[*facts.size];
    } else if (kind == 3) {
      // What is not there is what another picture shows, so that no name tells the answer.
      std::size_t other = label(i);
      const bool yes = random.below(2) == 0;
      for (int attempt = 0; !yes && names[other] == name && attempt < 20; ++attempt)
        other = label(random.below(data.n()));
      if (yes != (names[other] == name)) continue;
      prompt = fill_in(one_of(existence_patterns, random), some(names[other])), answer = yes ? "yes" : "no";
    }
    if (!prompt.empty()) asked.push_back({i, prompt, {answer}, static_cast<std::int32_t>(kind)});
  }
  return asked;
}

}  // namespace detail

/// Questions about photos; the groups are `photo_question_kinds`. Place and size need masks (`add_box_masks`), and are
/// left out where the box lies between two answers; "no" means that the label is another one. `Error`: no pictures, no
/// questions asked for, a class without a name.
inline visual_text photo_questions(const dataset& data, const photo_text_options& options = {}) {
  data.check("photo_questions");
  require(data.n() > 0 && options.per_image > 0, "photo_questions: ", data.n(), " pictures, ", options.per_image,
          " questions each, expected at least 1");
  const auto names = detail::photo_names(data);
  visual_text text;
  text.images = data;
  text.group_names.assign(photo_question_kinds.begin(), photo_question_kinds.end());
  for (index i = 0; i < data.n(); ++i) {
    random_stream random(options.seed ^ 0x70686f746f7175u, static_cast<std::uint64_t>(i));
    auto asked = detail::ask_about_photo(data, i, names, random);
    if (static_cast<index>(asked.size()) > options.per_image) {
      asked.resize(static_cast<std::size_t>(options.per_image));
    }
    text.samples.insert(text.samples.end(), asked.begin(), asked.end());
  }
  random_stream random(options.seed ^ 0x70686f746f6261u);
  if (options.balance) {
    for (const std::int32_t group : {1, 2}) detail::balance_answers(text.samples, group, random);
  }
  return text;
}

inline visual_text_split photo_questions(const dataset_split& data, const photo_text_options& options = {}) {
  return {photo_questions(data.train, options), photo_questions(data.test, options)};
}

/// One sample a photo with at most `per_image` different captions: its name, and its size and place where the box tells
/// them; the groups are the classes. `Error`: see `photo_questions`.
inline visual_text photo_captions(const dataset& data, const photo_text_options& options = {}) {
  static constexpr std::array<std::string_view, 6> patterns{
      "#1#2",       "a picture of #1#2", "a photo of #1#2", "the picture shows #1#2", "this is a picture of #1#2",
      "we see #1#2"};
  static constexpr std::array<std::string_view, 5> places{"on the left of the picture", "on the right of the picture",
                                                          "at the top of the picture", "at the bottom of the picture",
                                                          "in the middle of the picture"};
  data.check("photo_captions");
  require(data.n() > 0 && options.per_image > 0, "photo_captions: ", data.n(), " pictures, ", options.per_image,
          " captions each, expected at least 1");
  visual_text text;
  text.images = data;
  text.group_names = detail::photo_names(data);
  for (index i = 0; i < data.n(); ++i) {
    random_stream random(options.seed ^ 0x70686f746f6361u, static_cast<std::uint64_t>(i));
    const auto group = data.labels[static_cast<std::size_t>(i)];
    const auto& name = text.group_names[static_cast<std::size_t>(group)];
    const auto facts = detail::look_at_box(data, i);
    visual_text_sample sample{i, "", {}, group};
    std::set<std::string> written;
    for (index attempt = 0;
         attempt < 20 * options.per_image && sample.answers.size() < static_cast<std::size_t>(options.per_image);
         ++attempt) {
      std::string size, place;
      if (facts.size && random.uniform() < 0.5) size = photo_sizes[*facts.size];
      if (facts.place && random.uniform() < 0.5) place = places[*facts.place];
      std::string caption;
      if (!place.empty() && random.uniform() < 0.3) {
        caption = place + " " + (detail::is_plural(name) ? "are " : "is ") + detail::some(name, size);
      } else {
        caption = detail::fill_in(detail::one_of(patterns, random), detail::some(name, size),
                                  place.empty() ? "" : " " + place);
      }
      if (written.insert(caption).second) sample.answers.push_back(std::move(caption));
    }
    text.samples.push_back(std::move(sample));
  }
  return text;
}

inline visual_text_split photo_captions(const dataset_split& data, const photo_text_options& options = {}) {
  return {photo_captions(data.train, options), photo_captions(data.test, options)};
}

}  // namespace core_tokensets

// ==== core_tokensets/data/scene_text.hpp ====
// What built-in questions and built-in captions share: the scenes that they are about, and pairs of a colour and a
// shape that only the test shows, so that one can measure whether a model puts together what it knows.

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>


namespace core_tokensets {

struct scene_text_options {
  scene_options scenes{
      .classes = 12, .train_per_class = 200, .test_per_class = 50, .image = 64, .objects = 4, .legible = true};
  index per_image = 6;  ///< at most so many questions, or so many captions, a picture
  index held_out = 0;   ///< pairs of a colour and a shape that training never shows or names, 0 to 36
};

/// Pictures with text and what they show.
struct scene_text {
  visual_text_split data;
  std::vector<scene_description> train, test;  ///< of each picture
  std::vector<scene_pair> held_out;
  std::vector<index> composed;  ///< samples of the test whose text is about an object of a held-out pair
};

namespace detail {

/// `count` different pairs: each shape and each colour loses as few as possible.
inline std::vector<scene_pair> held_out_pairs(index count, std::uint64_t seed) {
  require(count >= 0 && count <= 3 * scene_shapes, "scenes: ", count, " pairs held out, expected 0 to ",
          3 * scene_shapes);
  random_stream random(seed ^ 0x68656c646f757473u);
  const auto shapes = random.permutation(scene_shapes), colours = random.permutation(scene_colours);
  std::vector<scene_pair> pairs;
  for (index k = 0; k < count; ++k) {
    // Down a shape the colours go on by 5, and 5 and 8 have no common divisor: no pair comes twice.
    const index shape = k % scene_shapes, colour = (k + k / scene_shapes) % scene_colours;
    pairs.push_back({static_cast<scene_colour>(colours[static_cast<std::size_t>(colour)]),
                     static_cast<scene_shape>(shapes[static_cast<std::size_t>(shape)])});
  }
  return pairs;
}

inline bool holds(const std::vector<scene_pair>& pairs, const scene_pair& pair) {
  return std::find(pairs.begin(), pairs.end(), pair) != pairs.end();
}

/// The scenes of both parts; those to learn from show none of the pairs that are held out.
inline scene_text scenes_for_text(const scene_text_options& options) {
  require(options.per_image > 0, "scenes: ", options.per_image, " texts a picture, expected at least 1");
  scene_text result;
  result.held_out = held_out_pairs(options.held_out, options.scenes.seed);
  scene_options train = options.scenes, test = options.scenes;
  train.test_per_class = 0;
  train.without.insert(train.without.end(), result.held_out.begin(), result.held_out.end());
  auto known = scenes_with_descriptions(train);
  result.data.train.images = std::move(known.data.train);
  result.train = std::move(known.train);
  // The part to measure on is made of streams of its own, so its pictures do not depend on what is held out.
  std::tie(result.data.test.images, result.test) =
      make_scenes(test, test.test_per_class, "test", std::uint64_t{1} << 40);
  return result;
}

}  // namespace detail
}  // namespace core_tokensets

// ==== core_tokensets/data/scene_captions.hpp ====
// Built-in captions of scenes: several a picture, which list, count or relate what it shows, in varying words and
// order. Every one of them is true, and names the object that the label of the scene means.

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Super-categories of shapes, four shapes each.
inline constexpr std::array<std::string_view, 3> scene_shape_groups{"round", "pointed", "cornered"};

/// The super-category of a shape, in `scene_shape_groups`.
constexpr std::int32_t group_of(scene_shape shape) {
  switch (shape) {
    case scene_shape::circle:
    case scene_shape::ring:
    case scene_shape::crescent:
    case scene_shape::heart:
      return 0;
    case scene_shape::triangle:
    case scene_shape::star:
    case scene_shape::diamond:
    case scene_shape::arrow:
      return 1;
    case scene_shape::square:
    case scene_shape::cross:
    case scene_shape::hexagon:
    case scene_shape::hourglass:
      return 2;
  }
  return 0;
}

namespace detail {

constexpr std::array<std::string_view, 9> number_words{"no",   "one", "two",   "three", "four",
                                                       "five", "six", "seven", "eight"};

/// Writes about one scene.
class scene_writer {
 public:
  scene_writer(const scene_facts& facts, random_stream& random) : facts_(facts), random_(random) {}

  std::string caption() {
    const index choice = facts_.count() == 1 ? random_.below(2) : random_.below(6);
    if (choice == 0) return frame(named(0));
    if (choice < 3) return frame(list(everything()));
    return choice == 3 ? counted() : related();
  }

 private:
  const scene_object& object(std::size_t i) const { return facts_.objects()[i]; }

  std::vector<std::size_t> everything() {
    std::vector<std::size_t> all;
    for (const auto i : random_.permutation(static_cast<index>(facts_.count()))) {
      all.push_back(static_cast<std::size_t>(i));
    }
    return all;
  }

  /// "a large red star", with as many of its clear properties as chance has it.
  std::string named(std::size_t i) {
    scene_words_of words{.shape = object(i).shape};
    if (random_.uniform() < 0.4) words.size = facts_.clear_size(object(i));
    if (random_.uniform() < 0.85) words.colour = object(i).colour;
    if (random_.uniform() < 0.6) words.texture = facts_.clear_texture(object(i));
    if (words.texture == scene_texture::plain) words.texture.reset();
    return with_article(words.text());
  }

  /// "a red star, two blue circles and a ring": objects of the same shape and colour are counted.
  std::string list(const std::vector<std::size_t>& which) {
    std::vector<std::string> parts;
    std::vector<bool> told(facts_.count(), false);
    for (const std::size_t i : which) {
      if (told[i]) continue;
      std::size_t same = 0;
      for (const std::size_t j : which) {
        if (object(j).shape != object(i).shape || object(j).colour != object(i).colour) continue;
        told[j] = true;
        ++same;
      }
      const scene_words_of pair{.colour = object(i).colour, .shape = object(i).shape};
      parts.push_back(same == 1 ? named(i) : std::string(number_words[same]) + " " + plural(pair.text()));
    }
    std::string words;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      words += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
    }
    return words;
  }

  /// What is said, with or without words around it.
  std::string frame(const std::string& what) {
    static constexpr std::array<std::string_view, 6> frames{
        "#1",        "a picture of #1",          "the picture shows #1", "#1 on a blurred background",
        "we see #1", "this is a picture with #1"};
    return fill_in(one_of(frames, random_), what);
  }

  /// "three shapes, among them a red star"
  std::string counted() {
    static constexpr std::array<std::string_view, 3> patterns{"#1 shapes, among them #2",
                                                              "there are #1 shapes, one is #2", "#2 and #1"};
    const auto& pattern = one_of(patterns, random_);
    const bool more = pattern == patterns[2];
    const std::size_t n = facts_.count() - (more ? 1 : 0);
    return fill_in(pattern, std::string(number_words[n]) + (more ? n == 1 ? " more shape" : " more shapes" : ""),
                   named(0));
  }

  /// "a red star left of a blue circle"; a list where nothing stands clearly anywhere.
  std::string related() {
    static constexpr std::array<std::array<std::string_view, 3>, 4> places{
        {{"#1 left of #2", "#1 to the left of #2", "#2 with #1 on its left"},
         {"#1 right of #2", "#1 to the right of #2", "#2 with #1 on its right"},
         {"#1 above #2", "#1 over #2", "#2 with #1 above it"},
         {"#1 below #2", "#1 under #2", "#2 with #1 below it"}}};
    std::vector<std::pair<std::size_t, std::array<std::size_t, 2>>> candidates;
    for (std::size_t other = 1; other < facts_.count(); ++other) {
      for (std::size_t r = 0; r < 4; ++r) {
        const auto where = static_cast<scene_relation>(r);
        if (facts_.stands(object(0), where, object(other)) == true) candidates.push_back({r, {0, other}});
        if (facts_.stands(object(other), where, object(0)) == true) candidates.push_back({r, {other, 0}});
      }
    }
    if (candidates.empty()) return frame(list(everything()));
    const auto& [r, pair] = one_of(candidates, random_);
    const auto first = named(pair[0]);
    const auto words = fill_in(one_of(places[r], random_), first, named(pair[1]));
    return random_.below(2) == 0 ? words : fill_in("there is #1", words);
  }

  const scene_facts& facts_;
  random_stream& random_;
};

/// Fills `text.samples` with one sample a picture; returns the samples about a pair of `held_out`.
inline std::vector<index> describe_scenes(visual_text& text, const std::vector<scene_description>& scenes,
                                          const scene_text_options& options, const std::vector<scene_pair>& held_out,
                                          bool train) {
  text.group_names.assign(scene_shape_groups.begin(), scene_shape_groups.end());
  std::vector<index> composed;
  for (std::size_t i = 0; i < scenes.size(); ++i) {
    random_stream random(options.scenes.seed ^ 0x63617074696f6e73u, i + (train ? 0 : std::uint64_t{1} << 40));
    const scene_facts facts(scenes[i], options.scenes);
    if (facts.count() == 0) continue;
    scene_writer writer(facts, random);
    visual_text_sample sample{static_cast<index>(i), "", {}, group_of(scenes[i].objects[0].shape)};
    std::set<std::string> written;
    for (int attempt = 0; attempt < 20 * options.per_image; ++attempt) {
      auto caption = writer.caption();
      if (!written.insert(caption).second) continue;
      sample.answers.push_back(std::move(caption));
      if (static_cast<index>(sample.answers.size()) == options.per_image) break;
    }
    const auto& main = scenes[i].objects[0];
    if (holds(held_out, {main.colour, main.shape})) composed.push_back(text.n());
    text.samples.push_back(std::move(sample));
  }
  return composed;
}

}  // namespace detail

/// Scenes with `per_image` different captions each, and what the scenes show; the groups are the super-categories of
/// the main object, the one that each caption names; `composed` are the samples whose main object is of a held-out
/// pair. The same options give the same text. `Error`: see `scene_questions`.
inline scene_text scene_captions(const scene_text_options& options = {.per_image = 5}) {
  scene_text result = detail::scenes_for_text(options);
  detail::describe_scenes(result.data.train, result.train, options, result.held_out, true);
  result.composed = detail::describe_scenes(result.data.test, result.test, options, result.held_out, false);
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/scene_questions.hpp ====
// Built-in questions about scenes: colour, shape, texture, size, number, existence and relations, each in several
// phrasings and with one answer. A question is asked only where the picture leaves no doubt.

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

inline constexpr std::array<std::string_view, 7> scene_question_kinds{"colour", "shape",     "texture", "size",
                                                                      "count",  "existence", "relation"};

namespace detail {

/// A question, its answer, and the words of the objects that both are about.
struct scene_question {
  std::string prompt, answer;
  std::vector<scene_pair> about;
};

/// Asks about one scene. `others` are the scenes of the same part: what is absent here is taken from there, so that no
/// word tells by itself whether the answer is yes. Pairs of `unnamed` are not put into words.
class scene_asker {
 public:
  scene_asker(const scene_facts& facts, const std::vector<scene_description>& others,
              const std::vector<scene_pair>& unnamed, random_stream& random)
      : facts_(facts), others_(others), unnamed_(unnamed), random_(random) {}

  /// A question of kind `kind` of `scene_question_kinds`; none where the scene, or chance, allows none.
  std::optional<scene_question> ask(std::size_t kind) {
    if (facts_.count() == 0) return std::nullopt;
    if (kind <= 3) return attribute(kind);
    return kind == 4 ? number() : kind == 5 ? existence() : relation();
  }

 private:
  using question = std::optional<scene_question>;

  const scene_object& object(std::size_t i) const { return facts_.objects()[i]; }
  std::size_t any_object() { return static_cast<std::size_t>(random_.below(static_cast<index>(facts_.count()))); }
  bool coin() { return random_.below(2) == 0; }
  static scene_pair pair_of(const scene_object& o) { return {o.colour, o.shape}; }
  bool sayable(const scene_words_of& words) const {
    return !words.colour || !words.shape || !holds(unnamed_, {*words.colour, *words.shape});
  }

  question attribute(std::size_t kind) {
    static constexpr std::array<std::array<std::string_view, 4>, 4> patterns{
        {{"what colour is the #1?", "what is the colour of the #1?", "which colour does the #1 have?",
          "what colour does the #1 have?"},
         {"what shape is the #1?", "what is the #1?", "which shape does the #1 have?", "what kind of shape is the #1?"},
         {"what texture does the #1 have?", "which pattern does the #1 have?", "what pattern is on the #1?",
          "what is the texture of the #1?"},
         {"how large is the #1?", "what size is the #1?", "how big is the #1?", "what is the size of the #1?"}}};
    const std::size_t o = any_object();
    std::string answer;
    if (kind == 0) answer = name_of(object(o).colour);
    if (kind == 1) answer = name_of(object(o).shape);
    if (const auto texture = facts_.clear_texture(object(o)); kind == 2 && texture) answer = name_of(*texture);
    if (const auto size = facts_.clear_size(object(o)); kind == 3 && size) answer = name_of(*size);
    if (answer.empty()) return std::nullopt;
    const auto words = facts_.reference(o, random_, [&](const scene_words_of& w) {
      return sayable(w) && !(kind == 0 && w.colour) && !(kind == 1 && w.shape) && !(kind == 2 && w.texture) &&
             !(kind == 3 && w.size);
    });
    if (!words) return std::nullopt;
    return scene_question{fill_in(one_of(patterns[kind], random_), words->text(kind == 1 ? "thing" : "shape")),
                          answer,
                          {pair_of(object(o))}};
  }

  question number() {
    static constexpr std::array<std::string_view, 4> patterns{"how many #1 are there?",
                                                              "how many #1 does the picture show?",
                                                              "how many #1 can you see?", "what is the number of #1?"};
    // All words that could be asked for by their count, in lists of one kind.
    std::map<index, std::vector<std::vector<scene_words_of>>> by_answer;
    const auto offer = [&](std::size_t list, const scene_words_of& words) {
      const auto n = facts_.count(words);
      if (!n || !sayable(words)) return;
      auto& lists = by_answer[*n];
      lists.resize(6);
      lists[list].push_back(words);
    };
    offer(0, {});
    for (index i = 0; i < scene_shapes; ++i) offer(1, {.shape = static_cast<scene_shape>(i)});
    for (index i = 0; i < scene_colours; ++i) offer(2, {.colour = static_cast<scene_colour>(i)});
    for (index i = 0; i < scene_textures; ++i) offer(3, {.texture = static_cast<scene_texture>(i)});
    for (index i = 0; i < 3; ++i) offer(4, {.size = static_cast<scene_size>(i)});
    for (const auto& o : facts_.objects()) offer(5, {.colour = o.colour, .shape = o.shape});
    auto chosen = by_answer.begin();
    std::advance(chosen, random_.below(static_cast<index>(by_answer.size())));
    auto lists = chosen->second;
    std::erase_if(lists, [](const auto& list) { return list.empty(); });
    const auto words = one_of(one_of(lists, random_), random_);
    std::vector<scene_pair> about;
    for (const auto& o : facts_.objects()) {
      if (facts_.means(words, o) == true) about.push_back(pair_of(o));
    }
    return scene_question{fill_in(one_of(patterns, random_), plural(words.text())), std::to_string(chosen->first),
                          std::move(about)};
  }

  /// The words of an object that a choice of 0 .. 4 asks for.
  scene_words_of described(const scene_object& o, index choice) const {
    if (choice == 0) return {.shape = o.shape};
    if (choice == 1) return {.colour = o.colour};
    if (choice == 2) return {.colour = o.colour, .shape = o.shape};
    if (choice == 3) return {.texture = facts_.clear_texture(o), .shape = o.shape};
    return {.size = facts_.clear_size(o), .shape = o.shape};
  }

  question existence() {
    static constexpr std::array<std::string_view, 4> patterns{"is there #1?", "does the picture show #1?",
                                                              "can you see #1?", "is #1 in the picture?"};
    const bool yes = coin();
    const index choice = random_.below(5);
    const scene_object& here = object(any_object());
    scene_words_of words;
    for (int attempt = 0; attempt < 20; ++attempt) {
      if (yes) {
        words = described(here, choice);
      } else {
        const auto& other = one_of(one_of(others_, random_).objects, random_);
        words = described(other, choice);
        // Half of the pairs have one word that is true of something here.
        if (choice >= 2 && coin()) {
          const auto mixed = described(here, choice);
          if (coin()) {
            words.shape = mixed.shape;
          } else {
            words.colour = mixed.colour, words.texture = mixed.texture, words.size = mixed.size;
          }
        }
      }
      const auto n = facts_.count(words);
      if (!n || !sayable(words) || (*n > 0) != yes) continue;
      std::vector<scene_pair> about;
      if (yes) about.push_back(pair_of(here));
      if (words.colour && words.shape) about.push_back({*words.colour, *words.shape});
      return scene_question{fill_in(one_of(patterns, random_), with_article(words.text())), yes ? "yes" : "no",
                            std::move(about)};
    }
    return std::nullopt;
  }

  question relation() {
    if (facts_.count() < 2) return std::nullopt;
    const index choice = random_.below(4);
    return choice < 2 ? is_it_there() : choice == 2 ? what_is_there() : which_is_larger();
  }

  std::optional<scene_words_of> any_reference(std::size_t o) {
    return facts_.reference(o, random_, [&](const scene_words_of& w) { return sayable(w) && w != scene_words_of{}; });
  }

  question is_it_there() {
    static constexpr std::array<std::string_view, 2> patterns{"is the #1 #2?", "does the #1 stand #2?"};
    const bool yes = coin();
    std::vector<std::array<std::size_t, 3>> candidates;
    for (std::size_t a = 0; a < facts_.count(); ++a) {
      for (std::size_t b = 0; b < facts_.count(); ++b) {
        for (std::size_t r = 0; r < 4 && a != b; ++r) {
          if (facts_.stands(object(a), static_cast<scene_relation>(r), object(b)) == yes)
            candidates.push_back({a, r, b});
        }
      }
    }
    if (candidates.empty()) return std::nullopt;
    const auto [a, r, b] = one_of(candidates, random_);
    const auto first = any_reference(a), second = any_reference(b);
    if (!first || !second) return std::nullopt;
    const std::string place = std::string(name_of(static_cast<scene_relation>(r))) + " the " + second->text();
    return scene_question{fill_in(one_of(patterns, random_), first->text(), place),
                          yes ? "yes" : "no",
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  question what_is_there() {
    static constexpr std::array<std::string_view, 2> shape{"what is #1 the #2?", "which shape is #1 the #2?"};
    static constexpr std::array<std::string_view, 2> colour{"what colour is the shape #1 the #2?",
                                                            "which colour has the shape #1 the #2?"};
    std::vector<std::array<std::size_t, 3>> candidates;
    for (std::size_t b = 0; b < facts_.count(); ++b) {
      for (std::size_t r = 0; r < 4; ++r) {
        if (const auto a = facts_.only_one(static_cast<scene_relation>(r), b)) candidates.push_back({*a, r, b});
      }
    }
    if (candidates.empty()) return std::nullopt;
    const auto [a, r, b] = one_of(candidates, random_);
    const auto words = any_reference(b);
    if (!words) return std::nullopt;
    const bool by_shape = coin();
    const std::string where(name_of(static_cast<scene_relation>(r)));
    return scene_question{fill_in(one_of(by_shape ? shape : colour, random_), where, words->text()),
                          std::string(by_shape ? name_of(object(a).shape) : name_of(object(a).colour)),
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  question which_is_larger() {
    const std::size_t a = any_object(), b = any_object();
    const auto first = any_reference(a), second = any_reference(b);
    // One is larger if it is so by a third; sizes must not be among the words.
    const double ratio = object(a).radius / object(b).radius;
    if (a == b || !first || !second || first->size || second->size || (ratio < 4.0 / 3 && ratio > 3.0 / 4)) {
      return std::nullopt;
    }
    const bool asks_larger = coin(), yes = (ratio > 1) == asks_larger;
    return scene_question{fill_in(asks_larger ? "is the #1 larger than the #2?" : "is the #1 smaller than the #2?",
                                  first->text(), second->text()),
                          yes ? "yes" : "no",
                          {pair_of(object(a)), pair_of(object(b))}};
  }

  const scene_facts& facts_;
  const std::vector<scene_description>& others_;
  const std::vector<scene_pair>& unnamed_;
  random_stream& random_;
};

/// Fills `text.samples`; returns which of them are about a pair of `held_out`.
inline std::vector<index> ask_about_scenes(visual_text& text, const std::vector<scene_description>& scenes,
                                           const scene_text_options& options, const std::vector<scene_pair>& held_out,
                                           bool train) {
  text.group_names.assign(scene_question_kinds.begin(), scene_question_kinds.end());
  const std::vector<scene_pair> unnamed = train ? held_out : std::vector<scene_pair>{};
  std::vector<index> composed;
  for (std::size_t i = 0; i < scenes.size(); ++i) {
    random_stream random(options.scenes.seed ^ 0x7175657374696f6eu, i + (train ? 0 : std::uint64_t{1} << 40));
    const scene_facts facts(scenes[i], options.scenes);
    scene_asker asker(facts, scenes, unnamed, random);
    std::set<std::string> asked;
    // Rounds over all kinds in a new order each, until there are enough or nothing new comes up.
    for (int round = 0; round < 8 && static_cast<index>(asked.size()) < options.per_image; ++round) {
      for (const auto kind : random.permutation(static_cast<index>(scene_question_kinds.size()))) {
        auto question = asker.ask(static_cast<std::size_t>(kind));
        if (!question || !asked.insert(question->prompt).second) continue;
        if (std::any_of(question->about.begin(), question->about.end(),
                        [&](const scene_pair& pair) { return holds(held_out, pair); })) {
          composed.push_back(text.n());
        }
        text.samples.push_back({static_cast<index>(i),
                                std::move(question->prompt),
                                {std::move(question->answer)},
                                static_cast<std::int32_t>(kind)});
        if (static_cast<index>(asked.size()) == options.per_image) break;
      }
    }
  }
  return composed;
}

}  // namespace detail

/// Questions about scenes with one answer each, and what the scenes show; the groups are `scene_question_kinds`. The
/// same options give the same text. `Error`: see `scenes_with_descriptions`; no questions asked for; more than 36 pairs
/// held out.
inline scene_text scene_questions(const scene_text_options& options = {}) {
  scene_text result = detail::scenes_for_text(options);
  detail::ask_about_scenes(result.data.train, result.train, options, result.held_out, true);
  result.composed = detail::ask_about_scenes(result.data.test, result.test, options, result.held_out, false);
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/tasks.hpp ====
// A dataset cut into tasks that arrive one after another, each with classes of its own.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// One task: its classes, numbered in order of appearance over the whole stream, and its pictures by index.
struct task {
  std::string name;
  std::vector<std::int32_t> classes;
  std::vector<index> train, test;  ///< indices into the stream's train and test pictures
};

/// Tasks in order and the pictures that they index. The classes seen up to task t are 0 .. seen_classes(t) - 1.
struct task_stream {
  dataset_split data;
  std::vector<task> tasks;

  index size() const { return static_cast<index>(tasks.size()); }
  const task& operator[](index t) const { return tasks[static_cast<std::size_t>(t)]; }
  auto begin() const { return tasks.begin(); }
  auto end() const { return tasks.end(); }
  index classes() const { return data.train.classes(); }
  index seen_classes(index t) const { return (*this)[t].classes.back() + 1; }
  /// Test pictures of the tasks 0 .. t.
  std::vector<index> seen_test(index t) const {
    std::vector<index> all;
    for (index i = 0; i <= t; ++i) all.insert(all.end(), (*this)[i].test.begin(), (*this)[i].test.end());
    return all;
  }
};

/// A number by which data and their tasks are told from others.
inline std::uint64_t checksum(const task_stream& stream) {
  std::uint64_t sum = checksum(stream.data);
  for (const task& t : stream.tasks) {
    sum = fnv1a(std::as_bytes(std::span(t.classes)), fnv1a(t.name, sum));
    for (const auto* part : {&t.train, &t.test}) sum = fnv1a(std::as_bytes(std::span(*part)), sum);
  }
  return sum;
}

struct class_incremental_options {
  index tasks = 5;
  bool shuffle = false;    ///< deal the classes out in a random order
  std::uint64_t seed = 0;  ///< of that order
};

/// Gives class k of the data the number `number[k]`; names move along.
inline void renumber_classes(dataset& data, std::span<const std::int32_t> number) {
  require(static_cast<index>(number.size()) == data.classes(), "renumber_classes: ", number.size(), " numbers for ",
          data.classes(), " classes");
  std::vector<std::string> names(data.class_names.size());
  for (std::size_t k = 0; k < number.size(); ++k) names[static_cast<std::size_t>(number[k])] = data.class_names[k];
  for (auto& label : data.labels) label = number[static_cast<std::size_t>(label)];
  data.class_names = std::move(names);
}

/// Cuts the classes into tasks of equal size, in their order or shuffled, and renumbers them in order of appearance.
/// `Error`: classes that do not divide into tasks, a class without pictures to learn from, a task without any to
/// measure on.
inline task_stream class_incremental(dataset_split split, const class_incremental_options& options = {}) {
  const index classes = split.train.classes();
  require(classes == split.test.classes(), "class_incremental: ", classes, " classes in train, ", split.test.classes(),
          " in test");
  require(options.tasks > 0 && options.tasks <= classes && classes % options.tasks == 0, "class_incremental: ", classes,
          " classes do not divide into ", options.tasks, " tasks");
  split.train.check("class_incremental: train");
  split.test.check("class_incremental: test");
  if (options.shuffle) {
    const auto order = random_stream(options.seed).permutation(classes);
    std::vector<std::int32_t> number(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      number[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    }
    renumber_classes(split.train, number);
    renumber_classes(split.test, number);
  }
  task_stream stream{std::move(split), {}};
  const index each = classes / options.tasks;
  for (index t = 0; t < options.tasks; ++t) {
    task next;
    next.name = "task " + std::to_string(t + 1);
    for (index k = t * each; k < (t + 1) * each; ++k) next.classes.push_back(static_cast<std::int32_t>(k));
    stream.tasks.push_back(std::move(next));
  }
  std::vector<index> counts(static_cast<std::size_t>(classes), 0);
  for (index i = 0; i < stream.data.train.n(); ++i) {
    const auto label = static_cast<std::size_t>(stream.data.train.labels[static_cast<std::size_t>(i)]);
    stream.tasks[label / static_cast<std::size_t>(each)].train.push_back(i);
    ++counts[label];
  }
  for (index i = 0; i < stream.data.test.n(); ++i) {
    const auto label = static_cast<std::size_t>(stream.data.test.labels[static_cast<std::size_t>(i)]);
    stream.tasks[label / static_cast<std::size_t>(each)].test.push_back(i);
  }
  for (std::size_t k = 0; k < counts.size(); ++k) {
    require(counts[k] > 0, "class_incremental: class '", stream.data.train.class_names[k], "' has no train pictures");
  }
  for (const task& t : stream.tasks) {
    require(!t.test.empty(), "class_incremental: no test pictures for ", t.name, ", whose classes begin with '",
            stream.data.test.class_names[static_cast<std::size_t>(t.classes.front())], "'");
  }
  return stream;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/text_tasks.hpp ====
// Questions or captions cut into tasks that arrive one after another: data set after data set, or group after group.

#include <numeric>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// One task: its samples by number.
struct text_task {
  std::string name;
  std::vector<index> train, test;
};

/// Tasks in order and the samples that they number.
struct text_stream {
  visual_text_split data;
  std::vector<text_task> tasks;

  index size() const { return static_cast<index>(tasks.size()); }
  const text_task& operator[](index t) const { return tasks[static_cast<std::size_t>(t)]; }
};

/// `Error` unless the data are whole, and every task has samples of them to learn from and to measure on.
inline void check(const text_stream& stream) {
  stream.data.train.check("text_stream: train");
  stream.data.test.check("text_stream: test");
  require(!stream.tasks.empty(), "text_stream: there are no tasks");
  for (const text_task& t : stream.tasks) {
    require(!t.train.empty() && !t.test.empty(), "text_stream: task '", t.name, "' has ", t.train.size(),
            " samples to learn from and ", t.test.size(), " to measure on");
    const auto known = [&](const std::vector<index>& samples, const visual_text& data) {
      for (const index i : samples)
        require(i >= 0 && i < data.n(), "text_stream: task '", t.name, "' names sample ", i, " of ", data.n());
    };
    known(t.train, stream.data.train);
    known(t.test, stream.data.test);
  }
}

/// A number by which data and their tasks are told from others.
inline std::uint64_t checksum(const text_stream& stream) {
  std::uint64_t sum = checksum(stream.data);
  for (const text_task& t : stream.tasks) {
    sum = fnv1a(t.name, sum);
    for (const auto* part : {&t.train, &t.test}) sum = fnv1a(std::as_bytes(std::span(*part)), sum);
  }
  return sum;
}

namespace detail {

/// Groups of the same name get the same number in both parts.
inline void share_groups(visual_text_split& data) {
  data.train.check("text_stream: train");
  data.test.check("text_stream: test");
  std::vector<std::string> names = data.train.group_names;
  const auto numbers = merge_names(data.test.group_names, names);
  for (auto& sample : data.test.samples) sample.group = numbers[static_cast<std::size_t>(sample.group)];
  data.train.group_names = data.test.group_names = names;
}

}  // namespace detail

/// Named sets as tasks, in that order. `Error`: pictures of different sizes, a set without samples.
inline text_stream sets_as_tasks(std::vector<std::pair<std::string, visual_text_split>> sets) {
  text_stream stream;
  std::vector<visual_text> train, test;
  for (auto& [name, split] : sets) {
    text_task task{name, {}, {}};
    const auto number = [](std::vector<index>& out, const std::vector<visual_text>& before, index n) {
      index first = 0;
      for (const auto& set : before) first += set.n();
      out.resize(static_cast<std::size_t>(n));
      std::iota(out.begin(), out.end(), first);
    };
    number(task.train, train, split.train.n());
    number(task.test, test, split.test.n());
    stream.tasks.push_back(std::move(task));
    train.push_back(std::move(split.train));
    test.push_back(std::move(split.test));
  }
  require(!train.empty(), "text_stream: there are no tasks");
  const std::vector<visual_text> both{join(train), join(test)};
  stream.data = {both[0], both[1]};
  detail::share_groups(stream.data);
  check(stream);
  return stream;
}

/// The groups of one set, in their order, dealt evenly to so many tasks; 0, or more than there are groups: a task for
/// each. `Error`: a task without samples to learn from or to measure on.
inline text_stream groups_as_tasks(visual_text_split data, index tasks = 0) {
  require(tasks >= 0, "text_stream: ", tasks, " tasks");
  detail::share_groups(data);
  text_stream stream{std::move(data), {}};
  const auto& names = stream.data.train.group_names;
  const std::size_t groups = names.size(),
                    count = tasks == 0 ? groups : std::min(static_cast<std::size_t>(tasks), groups);
  const auto task_of = [&](std::size_t group) { return group * count / groups; };
  stream.tasks.resize(count);
  for (std::size_t g = 0; g < groups; ++g) {
    std::string& name = stream.tasks[task_of(g)].name;
    name += (name.empty() ? "" : ", ") + names[g];
  }
  const auto deal = [&](const visual_text& from, std::vector<index> text_task::*part) {
    for (index i = 0; i < from.n(); ++i) {
      const auto group = static_cast<std::size_t>(from.samples[static_cast<std::size_t>(i)].group);
      (stream.tasks[task_of(group)].*part).push_back(i);
    }
  };
  deal(stream.data.train, &text_task::train);
  deal(stream.data.test, &text_task::test);
  check(stream);
  return stream;
}

/// All texts of the samples to learn from, for training a tokenizer.
inline std::vector<std::string> corpus_of(const visual_text& data) {
  std::vector<std::string> corpus;
  for (const auto& sample : data.samples) {
    if (!sample.prompt.empty()) corpus.push_back(sample.prompt);
    corpus.insert(corpus.end(), sample.answers.begin(), sample.answers.end());
  }
  return corpus;
}

}  // namespace core_tokensets

// ==== core_tokensets/data/vqa_json.hpp ====
// Visual question answering in the JSON files of VQA v2 (Goyal et al. 2017): questions, annotations with ten answers
// each, and a folder of pictures named by their ids.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>


namespace core_tokensets {

struct vqa_json_options {
  std::string pattern = "COCO_train2014_{:012}.jpg";  ///< file name of a picture: {} its id, {:0N} in N digits
  index limit = 0;                                    ///< at most so many pictures, the first asked about; 0: all
  folder_options pictures{.size = 64};
};

namespace detail {

/// `pattern` with its one pair of braces replaced by `id`. `Error`: no or another pair of braces.
inline std::string name_of_picture(std::string_view pattern, std::int64_t id) {
  const auto open = pattern.find('{'), close = pattern.find('}');
  require(open != pattern.npos && close != pattern.npos && open < close, "vqa: pattern '", pattern,
          "', expected {} or {:0N} where the id goes");
  const auto format = pattern.substr(open + 1, close - open - 1);
  std::string digits = std::to_string(id);
  if (!format.empty()) {
    const bool valid = format.size() >= 3 && format.size() <= 4 && format.substr(0, 2) == ":0" &&
                       format.find_first_not_of("0123456789", 2) == format.npos;
    require(valid, "vqa: pattern '", pattern, "', expected {} or {:0N} where the id goes");
    const auto width = static_cast<std::size_t>(std::stoi(std::string(format.substr(2))));
    if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
  }
  return std::string(pattern.substr(0, open)) + digits + std::string(pattern.substr(close + 1));
}

/// Numbers pictures by their ids in the order in which they come.
class picture_numbers {
 public:
  /// The number of picture `id`; -1 if it is new and there are `limit` already (0: no limit).
  index number(std::int64_t id, index limit = 0) {
    if (const auto found = numbers_.find(id); found != numbers_.end()) return found->second;
    if (limit > 0 && static_cast<index>(ids_.size()) >= limit) return -1;
    numbers_.emplace(id, static_cast<index>(ids_.size()));
    ids_.push_back(id);
    return static_cast<index>(ids_.size()) - 1;
  }
  const std::vector<std::int64_t>& ids() const { return ids_; }

 private:
  std::unordered_map<std::int64_t, index> numbers_;
  std::vector<std::int64_t> ids_;
};

}  // namespace detail

/// Questions {"questions": [{"question_id", "image_id", "question"}]} with annotations {"annotations": [{"question_id",
/// "image_id", "answer_type", "answers": [{"answer"}]}]}, other members are ignored, as are annotations of questions
/// that are not asked; the groups are the types of answers. `Error` naming file and id: wrong types, an id twice, a
/// question without annotation, an annotation of another picture or without answers, a missing picture.
inline visual_text load_vqa_json(const std::filesystem::path& questions, const std::filesystem::path& annotations,
                                 const std::filesystem::path& pictures, const vqa_json_options& options = {}) {
  require(options.limit >= 0, "vqa: a limit of ", options.limit, " pictures");
  visual_text text;
  detail::picture_numbers numbers;
  std::unordered_map<std::int64_t, std::size_t> places;  // of the questions among our samples
  std::vector<std::int64_t> ids;
  detail::for_each_json_record(questions, {"questions"}, [&](std::string_view, const detail::json_record& r) {
    const auto id = r.get<std::int64_t>("question_id");
    const index image = numbers.number(r.get<std::int64_t>("image_id"), options.limit);
    auto question = r.get<std::string>("question");
    if (image < 0) return;
    require(places.emplace(id, text.samples.size()).second, r.where, ": question ", id, " came before");
    ids.push_back(id);
    text.samples.push_back({image, std::move(question), {}, 0});
  });
  require(!text.samples.empty(), questions.string(), ": no questions");
  detail::for_each_json_record(annotations, {"annotations"}, [&](std::string_view, const detail::json_record& r) {
    const auto id = r.get<std::int64_t>("question_id");
    const auto place = places.find(id);
    if (place == places.end()) return;
    auto& sample = text.samples[place->second];
    const std::string where = r.where + " (question " + std::to_string(id) + ")";
    require(sample.answers.empty(), where, ": annotated before");
    const auto image = r.get<std::int64_t>("image_id"), asked = numbers.ids()[static_cast<std::size_t>(sample.image)];
    require(image == asked, where, ": is about image ", image, ", the question about image ", asked);
    sample.group = detail::merge_names({r.get<std::string>("answer_type")}, text.group_names)[0];
    const auto answers = r.get<nlohmann::json>("answers");
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const detail::json_record answer{answers[i], where + ", answers[" + std::to_string(i) + "]"};
      sample.answers.push_back(answer.get<std::string>("answer"));
    }
    require(!sample.answers.empty(), where, ": no answers");
  });
  for (std::size_t i = 0; i < ids.size(); ++i) {
    require(!text.samples[i].answers.empty(), annotations.string(), ": question ", ids[i], " of ", questions.string(),
            " has no annotation");
  }
  // Groups in the order of their names, whatever the order of the annotations.
  auto types = text.group_names;
  std::sort(types.begin(), types.end());
  const auto sorted = detail::merge_names(text.group_names, types);
  for (auto& sample : text.samples) sample.group = sorted[static_cast<std::size_t>(sample.group)];
  text.group_names = std::move(types);
  std::vector<listed_picture> list;
  for (const auto id : numbers.ids()) {
    list.push_back({detail::name_of_picture(options.pattern, id), "image " + std::to_string(id)});
  }
  text.images = load_pictures(pictures, list, options.pictures);
  return text;
}

}  // namespace core_tokensets

// ==== core_tokensets/io/atomic_folder.hpp ====
// A whole folder that appears at once: it is filled under a temporary name beside its place and then renamed.

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>


namespace core_tokensets {

namespace detail {

/// Makes the folder and those above it. `Error` with the reason that the system gives.
inline void make_folders(const std::filesystem::path& path) {
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  if (failed) fail(path.string(), ": cannot create the folder: ", failed.message());
}

/// A new folder with a name that no other has; removed with all its content unless `path` is emptied.
struct temporary_folder {
  std::filesystem::path path;

  temporary_folder(const std::filesystem::path& parent, const std::filesystem::path& target) {
    for (int attempt = 0; attempt < 10000; ++attempt) {
      path = parent / ("." + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
      if (::mkdir(path.c_str(), 0777) == 0) return;
      if (errno != EEXIST) fail_file(target, "create a temporary folder beside it");
    }
    fail(target.string(), ": cannot create a temporary folder beside it: 10000 old ones are in the way");
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace detail

/// A folder for the results of long work: made where it is missing, and tried for writing at once. `Error` with the
/// reason where that fails. It goes away with this object if it was made by it and is still empty.
class output_folder {
 public:
  explicit output_folder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored;
    made_ = !std::filesystem::exists(path_, ignored);
    detail::make_folders(path_);
    auto [descriptor, temporary] = detail::create_temporary(path_, path_ / "results");
    const detail::open_file probe(descriptor, std::move(temporary));
  }
  output_folder(const output_folder&) = delete;
  output_folder& operator=(const output_folder&) = delete;
  ~output_folder() {
    std::error_code not_empty;
    if (made_) std::filesystem::remove(path_, not_empty);
  }

 private:
  std::filesystem::path path_;
  bool made_ = false;
};

/// Makes the folder `path` of what `fill(folder)` writes into the temporary folder that it is given; folders above it
/// are made. `Error`: `path` is there and not an empty folder, or what `fill` throws; then nothing is left behind.
template <class Fill>
void write_folder(const std::filesystem::path& path, const Fill& fill) {
  namespace fs = std::filesystem;
  require(!path.empty(), "'': cannot create the folder: expected a name");
  std::error_code failed;
  fs::path target = fs::weakly_canonical(fs::absolute(path, failed), failed);
  require(!failed, path.string(), ": cannot create the folder: ", failed.message());
  if (!target.has_filename()) target = target.parent_path();
  if (fs::exists(target, failed)) {
    require(fs::is_directory(target, failed), path.string(), ": exists and is not a folder");
    require(fs::is_empty(target, failed), path.string(), ": the folder is not empty; choose another one");
  }
  detail::make_folders(target.parent_path());
  detail::temporary_folder temporary(target.parent_path(), path);
  fill(std::as_const(temporary.path));
  if (::rename(temporary.path.c_str(), target.c_str()) != 0)
    detail::fail_file(path, "rename the temporary folder to it");
  temporary.path.clear();
}

}  // namespace core_tokensets

// ==== core_tokensets/io/half.hpp ====
// The two 16-bit floating-point formats as storage types: numbers are converted on the way in and out, never computed.

#include <bit>
#include <cstdint>
#include <limits>

namespace core_tokensets {

/// IEEE 754 binary16 (1 sign, 5 exponent, 10 fraction bits): largest 65504, smallest 2^-24.
struct half {
  std::uint16_t bits = 0;

  constexpr half() = default;
  /// The nearest half, ties to even; beyond 65504 + half a step infinity; NaN stays NaN.
  explicit constexpr half(double x) : bits(round(x)) {}
  static constexpr half from_bits(std::uint16_t b) {
    half h;
    h.bits = b;
    return h;
  }

  /// Exact.
  explicit constexpr operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
      return sign ? -magnitude : magnitude;
    }
    const std::uint32_t wide = exponent == 31 ? 255u : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
  }
  explicit constexpr operator double() const { return static_cast<double>(static_cast<float>(*this)); }

  friend constexpr bool operator==(half a, half b) { return static_cast<float>(a) == static_cast<float>(b); }

 private:
  static constexpr std::uint16_t round(double x) {
    const auto all = std::bit_cast<std::uint64_t>(x);
    const auto sign = static_cast<std::uint32_t>(all >> 48) & 0x8000u;
    const std::uint64_t magnitude = all & 0x7fffffffffffffffu;
    std::uint64_t rest = 0;
    if (magnitude > std::bit_cast<std::uint64_t>(std::numeric_limits<double>::infinity())) {
      rest = 0x7e00;
    } else if (magnitude >= std::bit_cast<std::uint64_t>(65520.0)) {
      rest = 0x7c00;
    } else if (magnitude >= std::bit_cast<std::uint64_t>(0x1p-14)) {
      const std::uint64_t rebased = magnitude - (std::uint64_t{1023 - 15} << 52);
      rest = (rebased + ((std::uint64_t{1} << 41) - 1) + ((rebased >> 42) & 1)) >> 42;
    } else {  // steps of 2^-24, which are also the steps of double at 2^28
      rest = std::bit_cast<std::uint64_t>(std::bit_cast<double>(magnitude) + 0x1p28) -
             std::bit_cast<std::uint64_t>(0x1p28);
    }
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(rest));
  }
};

/// bfloat16: the upper half of a float (8 exponent, 7 fraction bits).
struct bfloat16 {
  std::uint16_t bits = 0;

  constexpr bfloat16() = default;
  /// The nearest bfloat16, ties to even; NaN stays NaN.
  explicit constexpr bfloat16(float x) {
    const auto all = std::bit_cast<std::uint32_t>(x);
    const bool nan = (all & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? (all >> 16) | 0x40u : (all + 0x7fffu + ((all >> 16) & 1u)) >> 16);
  }
  static constexpr bfloat16 from_bits(std::uint16_t b) {
    bfloat16 h;
    h.bits = b;
    return h;
  }

  /// Exact.
  explicit constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
  explicit constexpr operator double() const { return static_cast<double>(static_cast<float>(*this)); }

  friend constexpr bool operator==(bfloat16 a, bfloat16 b) { return static_cast<float>(a) == static_cast<float>(b); }
};

}  // namespace core_tokensets

// ==== core_tokensets/io/dtype.hpp ====
// The element types that arrays in files have, and conversions among them that never change a number silently.

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>


namespace core_tokensets {

/// Element type of an array; `boolean` takes one byte.
enum class dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

/// Every dtype under its name in a safetensors file.
inline constexpr std::array<std::pair<dtype, std::string_view>, 13> dtype_names{{{dtype::f64, "F64"},
                                                                                 {dtype::f32, "F32"},
                                                                                 {dtype::f16, "F16"},
                                                                                 {dtype::bf16, "BF16"},
                                                                                 {dtype::i64, "I64"},
                                                                                 {dtype::i32, "I32"},
                                                                                 {dtype::i16, "I16"},
                                                                                 {dtype::i8, "I8"},
                                                                                 {dtype::u64, "U64"},
                                                                                 {dtype::u32, "U32"},
                                                                                 {dtype::u16, "U16"},
                                                                                 {dtype::u8, "U8"},
                                                                                 {dtype::boolean, "BOOL"}}};

constexpr std::string_view dtype_name(dtype type) { return dtype_names[static_cast<std::size_t>(type)].second; }

/// The dtype of that name in a safetensors file, if it is one of ours.
constexpr std::optional<dtype> dtype_named(std::string_view name) {
  for (const auto& [type, text] : dtype_names) {
    if (text == name) return type;
  }
  return std::nullopt;
}

/// Calls `f(std::type_identity<T>{})` with the C++ type of `type`.
template <class F>
constexpr decltype(auto) visit_dtype(dtype type, F&& f) {
  switch (type) {
    case dtype::f64:
      return f(std::type_identity<double>{});
    case dtype::f32:
      return f(std::type_identity<float>{});
    case dtype::f16:
      return f(std::type_identity<half>{});
    case dtype::bf16:
      return f(std::type_identity<bfloat16>{});
    case dtype::i64:
      return f(std::type_identity<std::int64_t>{});
    case dtype::i32:
      return f(std::type_identity<std::int32_t>{});
    case dtype::i16:
      return f(std::type_identity<std::int16_t>{});
    case dtype::i8:
      return f(std::type_identity<std::int8_t>{});
    case dtype::u64:
      return f(std::type_identity<std::uint64_t>{});
    case dtype::u32:
      return f(std::type_identity<std::uint32_t>{});
    case dtype::u16:
      return f(std::type_identity<std::uint16_t>{});
    case dtype::u8:
      return f(std::type_identity<std::uint8_t>{});
    case dtype::boolean:
      break;
  }
  return f(std::type_identity<bool>{});
}

/// Bytes of one element.
constexpr index byte_size(dtype type) {
  return visit_dtype(type, []<class T>(std::type_identity<T>) { return static_cast<index>(sizeof(T)); });
}

namespace detail {
template <class T>
constexpr dtype find_dtype() {
  if constexpr (std::is_same_v<T, half>) return dtype::f16;
  if constexpr (std::is_same_v<T, bfloat16>) return dtype::bf16;
  if constexpr (std::is_same_v<T, bool>) return dtype::boolean;
  if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 8 ? dtype::f64 : dtype::f32;
  constexpr bool is_signed = std::is_signed_v<T>;
  if constexpr (sizeof(T) == 8) return is_signed ? dtype::i64 : dtype::u64;
  if constexpr (sizeof(T) == 4) return is_signed ? dtype::i32 : dtype::u32;
  if constexpr (sizeof(T) == 2) return is_signed ? dtype::i16 : dtype::u16;
  return is_signed ? dtype::i8 : dtype::u8;
}
}  // namespace detail

/// A C++ type that an array can hold.
template <class T>
concept array_element = std::same_as<T, half> || std::same_as<T, bfloat16> || std::same_as<T, float> ||
    std::same_as<T, double> ||(std::integral<T> && !std::same_as<T, char>);

/// The dtype of a C++ type.
template <array_element T>
inline constexpr dtype dtype_of = detail::find_dtype<T>();

/// `value` as a `To`. Floating-point types round to nearest; an integer or bool that cannot hold the value exactly
/// (fraction, range, NaN) is an `Error`.
template <array_element To, array_element From>
constexpr To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, half> || std::is_same_v<From, bfloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, half>) {
    return half(static_cast<double>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else {
    bool fits = false;
    if constexpr (std::is_same_v<To, bool>) {
      fits = value == From(0) || value == From(1);
    } else if constexpr (std::is_same_v<From, bool>) {
      fits = true;
    } else if constexpr (std::is_floating_point_v<From>) {
      const double x = static_cast<double>(value), end = std::ldexp(1.0, std::numeric_limits<To>::digits);
      fits = x >= (std::is_signed_v<To> ? -end : 0.0) && x < end && std::trunc(x) == x;
    } else {
      fits = std::in_range<To>(value);
    }
    require(fits, "the value ", +value, " does not fit the type ", dtype_name(dtype_of<To>));
    return static_cast<To>(value);
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/io/host_array.hpp ====
// An array of any element type in host memory: what files are read into and written from.

#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>


namespace core_tokensets {

/// "[2, 3]"
inline std::string shape_text(std::span<const index> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// Bytes of an array, or nothing where an extent is negative or the product is too large for `index`.
inline std::optional<index> checked_byte_count(dtype type, std::span<const index> shape) {
  index count = byte_size(type);
  bool empty = false;
  for (const index extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) {
      empty = true;
    } else {
      if (count > std::numeric_limits<index>::max() / extent) return std::nullopt;
      count *= extent;
    }
  }
  return empty ? 0 : count;
}

/// Elements of `type` in row-major order, `bytes` holds exactly the product of `shape` of them.
struct host_array {
  dtype type = dtype::f32;
  std::vector<index> shape;
  std::vector<std::byte> bytes;

  /// A copy of `values` with the shape `[values]`, or the given one, whose product must be the number of values.
  template <array_element T>
  static host_array of(std::span<const T> values, std::vector<index> shape) {
    const auto expected = checked_byte_count(dtype_of<T>, shape);
    require(expected && *expected == static_cast<index>(values.size_bytes()), "array of shape ", shape_text(shape),
            " from ", values.size(), " values: expected as many values as the shape has");
    host_array result{dtype_of<T>, std::move(shape), std::vector<std::byte>(values.size_bytes())};
    if (!values.empty()) std::memcpy(result.bytes.data(), values.data(), values.size_bytes());
    return result;
  }
  template <std::ranges::contiguous_range Range>
  static host_array of(const Range& values, std::vector<index> shape) {
    return of(std::span<const std::ranges::range_value_t<Range>>(values), std::move(shape));
  }
  template <std::ranges::contiguous_range Range>
  static host_array of(const Range& values) {
    return of(values, {static_cast<index>(std::ranges::size(values))});
  }

  /// Number of elements.
  index size() const { return static_cast<index>(bytes.size()) / byte_size(type); }

  /// The elements as `T`; floating-point types round, an integer that cannot hold a value exactly is an `Error`.
  template <array_element T>
  std::vector<T> as() const {
    std::vector<T> result(static_cast<std::size_t>(size()));
    if constexpr (!std::is_same_v<T, bool>) {
      if (type == dtype_of<T>) {
        if (!bytes.empty()) std::memcpy(result.data(), bytes.data(), bytes.size());
        return result;
      }
    }
    visit_dtype(type, [&]<class From>(std::type_identity<From>) {
      for (std::size_t i = 0; i < result.size(); ++i) result[i] = convert<T>(element<From>(i));
    });
    return result;
  }

  /// The same array with another element type.
  host_array to(dtype other) const {
    return visit_dtype(other, [&]<class T>(std::type_identity<T>) {
      host_array result{other, shape, std::vector<std::byte>(static_cast<std::size_t>(size()) * sizeof(T))};
      visit_dtype(type, [&]<class From>(std::type_identity<From>) {
        for (std::size_t i = 0; i < static_cast<std::size_t>(size()); ++i) {
          const T value = convert<T>(element<From>(i));
          std::memcpy(result.bytes.data() + i * sizeof(T), &value, sizeof(T));
        }
      });
      return result;
    });
  }

  bool operator==(const host_array&) const = default;

 private:
  template <class T>
  T element(std::size_t i) const {
    if constexpr (std::is_same_v<T, bool>) {
      return bytes[i] != std::byte{0};
    } else {
      T value;
      std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
      return value;
    }
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/io/safetensors.hpp ====
// Safetensors files: a JSON header with names, types, shapes and places, then the arrays' bytes. Everything that a file
// says is checked before it is believed. Format: https://huggingface.co/docs/safetensors (version of 2023).

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so is this library");

/// Headers longer than this are refused, as in the reference implementation.
inline constexpr index safetensors_header_limit = 100'000'000;

namespace detail {

/// Levenshtein distance.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace detail

/// The arrays and the metadata of one file.
struct tensor_file {
  std::map<std::string, host_array> arrays;
  std::map<std::string, std::string> metadata;
  std::string path;  ///< where it was read from, for messages

  bool contains(const std::string& name) const { return arrays.contains(name); }

  /// The array `name`; `Error` with the file and the three nearest names where there is none.
  const host_array& at(const std::string& name) const {
    if (const auto found = arrays.find(name); found != arrays.end()) return found->second;
    std::vector<std::pair<std::size_t, std::string>> near;
    for (const auto& entry : arrays) near.emplace_back(detail::edit_distance(name, entry.first), entry.first);
    std::sort(near.begin(), near.end());
    std::string names;
    for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i) names += " '" + near[i].second + "'";
    fail(path.empty() ? "tensors" : path, ": no array '", name, "'; ",
         names.empty() ? "there are none at all" : "nearest of " + std::to_string(arrays.size()) + ":" + names);
  }
};

/// An array that is about to be written; its bytes belong to someone else.
struct array_view {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index> shape;
  std::span<const std::byte> bytes;
};

/// The first bytes of a file with these arrays, in this order, up to where the data begin (a multiple of 8). Looks at
/// names, types and shapes only.
inline std::string safetensors_header(std::span<const array_view> arrays,
                                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names{"__metadata__"};
  index offset = 0;
  for (const auto& array : arrays) {
    require(names.insert(array.name).second, "safetensors: two arrays named '", array.name, "'");
    const auto bytes = checked_byte_count(array.type, array.shape);
    require(bytes && *bytes <= std::numeric_limits<index>::max() - offset, "safetensors: array '", array.name,
            "': impossible shape ", shape_text(array.shape));
    auto& entry = header[array.name];
    entry["dtype"] = dtype_name(array.type);
    entry["shape"] = array.shape;
    entry["data_offsets"] = {offset, offset + *bytes};
    offset += *bytes;
  }
  std::string text(8, '\0');
  try {
    text += header.dump();
  } catch (const nlohmann::json::exception&) {
    fail("safetensors: a name or a metadata text is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size() - 8;
  require(length <= std::uint64_t{safetensors_header_limit}, "safetensors: a header of ", length,
          " bytes, expected at most ", safetensors_header_limit);
  std::memcpy(text.data(), &length, 8);
  return text;
}

/// The order in which arrays are written: widest elements first (so that each array is aligned), then by name.
inline void sort_for_safetensors(std::vector<array_view>& arrays) {
  std::sort(arrays.begin(), arrays.end(), [](const array_view& a, const array_view& b) {
    const auto wide_a = byte_size(a.type), wide_b = byte_size(b.type);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
}

/// Writes the arrays without copying them; all or nothing.
inline void write_safetensors(const std::filesystem::path& path, std::vector<array_view> arrays,
                              const std::map<std::string, std::string>& metadata) {
  sort_for_safetensors(arrays);
  const std::string header = safetensors_header(arrays, metadata);
  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header))};
  for (const auto& array : arrays) {
    require(checked_byte_count(array.type, array.shape) == static_cast<index>(array.bytes.size()), path.string(),
            ": array '", array.name, "' of shape ", shape_text(array.shape), " and type ", dtype_name(array.type),
            " has ", array.bytes.size(), " bytes");
    pieces.push_back(array.bytes);
  }
  write_file(path, std::span<const std::span<const std::byte>>(pieces));
}

namespace detail {

/// Where an array lies in the data part of a file.
struct array_place {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index> shape;
  index begin = 0, end = 0;
};

/// What the header of a file says.
struct safetensors_layout {
  std::vector<array_place> arrays;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
};

/// JSON of an untrusted header: an object without repeated keys, not deep.
inline nlohmann::json parse_header_json(std::string_view text, const std::string& path) {
  require(!text.empty() && text.front() == '{', path, ": the header does not begin with '{'");
  require(text.find('\0') == std::string_view::npos, path, ": the header holds a zero byte");
  std::vector<std::set<std::string>> keys(8);
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    require(depth < 7, path, ": the header is nested too deeply");
    const auto level = static_cast<std::size_t>(depth);
    if (event == nlohmann::json::parse_event_t::object_start) keys[level + 1].clear();
    if (event == nlohmann::json::parse_event_t::key) {
      require(keys[level].insert(value.get<std::string>()).second, path, ": the header names '",
              value.get<std::string>(), "' twice");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::exception& e) {
    fail(path, ": the header is not valid JSON: ", e.what());
  }
}

/// A non-negative integer that fits `index`.
inline index header_number(const nlohmann::json& value, const std::string& what) {
  require(value.is_number_unsigned() &&
              value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<index>::max()),
          what, ": expected a non-negative integer");
  return static_cast<index>(value.get<std::uint64_t>());
}

inline array_place parse_place(const std::string& name, const nlohmann::json& entry, const std::string& what) {
  require(entry.is_object() && entry.size() == 3 && entry.contains("dtype") && entry.contains("shape") &&
              entry.contains("data_offsets"),
          what, ": expected dtype, shape and data_offsets and nothing else");
  array_place place;
  place.name = name;
  const auto& type_name = entry.at("dtype");
  require(type_name.is_string(), what, ": dtype is not a string");
  const auto type = dtype_named(type_name.get_ref<const std::string&>());
  require(type.has_value(), what, ": unknown dtype ", type_name.get_ref<const std::string&>());
  place.type = *type;
  require(entry.at("shape").is_array(), what, ": shape is not a list");
  for (const auto& extent : entry.at("shape")) place.shape.push_back(header_number(extent, what + ": shape"));
  const auto& offsets = entry.at("data_offsets");
  require(offsets.is_array() && offsets.size() == 2, what, ": data_offsets are not two numbers");
  place.begin = header_number(offsets[0], what + ": data_offsets");
  place.end = header_number(offsets[1], what + ": data_offsets");
  const auto bytes = checked_byte_count(place.type, place.shape);
  require(bytes.has_value(), what, ": shape ", shape_text(place.shape), " is too large");
  require(place.begin <= place.end && place.end - place.begin == *bytes, what, ": data_offsets [", place.begin, ", ",
          place.end, "] do not fit shape ", shape_text(place.shape), " of type ", dtype_name(place.type));
  return place;
}

/// Reads and checks a header for a file with `data_bytes` bytes behind it: every byte belongs to exactly one array.
inline safetensors_layout parse_safetensors_header(std::string_view text, index data_bytes, const std::string& path) {
  const auto header = parse_header_json(text, path);
  safetensors_layout layout;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      layout.arrays.push_back(parse_place(name, entry, path + ": array '" + name + "'"));
      continue;
    }
    require(entry.is_object(), path, ": __metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      require(value.is_string(), path, ": metadata '", key, "' is not a string");
      layout.metadata.emplace(key, value.get<std::string>());
    }
  }
  std::sort(layout.arrays.begin(), layout.arrays.end(), [](const array_place& a, const array_place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  index offset = 0;
  for (const auto& place : layout.arrays) {
    require(place.begin == offset, path, ": array '", place.name, "' begins at byte ", place.begin,
            " of the data, expected ", offset, " (no overlaps, no holes)");
    require(place.end <= data_bytes, path, ": array '", place.name, "' ends at byte ", place.end,
            " of the data, but the file holds ", data_bytes, " (truncated?)");
    offset = place.end;
  }
  require(offset == data_bytes, path, ": ", data_bytes - offset, " bytes behind the last array");
  return layout;
}

/// Reads a file of `size` bytes through `read(offset, out)`.
template <class Read>
tensor_file read_safetensors(index size, const std::string& path, const Read& read) {
  require(size >= 8, path, ": not a safetensors file: ", size, " bytes, expected at least 8");
  std::uint64_t length = 0;
  read(index{0}, std::as_writable_bytes(std::span(&length, 1)));
  require(length <= std::uint64_t{safetensors_header_limit}, path, ": not a safetensors file: a header of ", length,
          " bytes, expected at most ", safetensors_header_limit);
  const auto data_begin = 8 + static_cast<index>(length);
  require(data_begin <= size, path, ": the header ends at byte ", data_begin, ", but the file has ", size,
          " (truncated?)");
  std::string text(static_cast<std::size_t>(length), ' ');
  read(index{8}, std::as_writable_bytes(std::span(text)));

  auto layout = parse_safetensors_header(text, size - data_begin, path);
  tensor_file file{.arrays = {}, .metadata = std::move(layout.metadata), .path = path};
  for (auto& place : layout.arrays) {
    host_array array{place.type, std::move(place.shape),
                     std::vector<std::byte>(static_cast<std::size_t>(place.end - place.begin))};
    read(data_begin + place.begin, std::span(array.bytes));
    file.arrays.emplace(std::move(place.name), std::move(array));
  }
  return file;
}

inline std::vector<array_view> array_views(const tensor_file& file) {
  std::vector<array_view> arrays;
  for (const auto& [name, array] : file.arrays) arrays.push_back({name, array.type, array.shape, array.bytes});
  return arrays;
}

}  // namespace detail

/// Reads a whole file. `Error` with path and reason for anything that is not exactly right.
inline tensor_file load_safetensors(const std::filesystem::path& path) {
  const file_reader file(path);
  return detail::read_safetensors(file.size(), path.string(),
                                  [&](index offset, std::span<std::byte> out) { file.read(offset, out); });
}

/// The same from bytes in memory; `name` stands for the path in messages.
inline tensor_file safetensors_from_bytes(std::span<const std::byte> bytes, const std::string& name = "safetensors") {
  return detail::read_safetensors(static_cast<index>(bytes.size()), name, [&](index offset, std::span<std::byte> out) {
    std::copy_n(bytes.begin() + offset, out.size(), out.begin());
  });
}

/// Writes a whole file, all or nothing; `file.path` is not looked at.
inline void save_safetensors(const std::filesystem::path& path, const tensor_file& file) {
  write_safetensors(path, detail::array_views(file), file.metadata);
}

/// The bytes that `save_safetensors` writes.
inline std::vector<std::byte> safetensors_to_bytes(const tensor_file& file) {
  auto arrays = detail::array_views(file);
  sort_for_safetensors(arrays);
  const std::string header = safetensors_header(arrays, file.metadata);
  const auto head = std::as_bytes(std::span(header));
  std::vector<std::byte> bytes(head.begin(), head.end());
  for (const auto& array : arrays) {
    require(checked_byte_count(array.type, array.shape) == static_cast<index>(array.bytes.size()),
            "safetensors: array '", array.name, "' of shape ", shape_text(array.shape), " has ", array.bytes.size(),
            " bytes");
    bytes.insert(bytes.end(), array.bytes.begin(), array.bytes.end());
  }
  return bytes;
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/budget.hpp ====
// How large a memory may be: a number of bytes on disk, or a fraction of the data that it stands for.

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>


namespace core_tokensets {

/// A number of bytes, or a fraction in (0, 1] of the bytes of the data.
struct byte_budget {
  double amount = 1;
  bool is_fraction = true;

  /// The budget in bytes for data of `total_bytes`, rounded down.
  index resolve(index total_bytes) const {
    require(total_bytes >= 0, "budget: data of ", total_bytes, " bytes");
    return static_cast<index>(is_fraction ? amount * static_cast<double>(total_bytes) : amount);
  }

  bool operator==(const byte_budget&) const = default;
};

/// A budget of `n` bytes, n > 0.
inline byte_budget bytes(index n) {
  require(n > 0 && n <= (index{1} << 53), "budget: ", n, " bytes, expected more than 0 and at most 2^53");
  return {.amount = static_cast<double>(n), .is_fraction = false};
}

/// A budget of `f` times the bytes of the data, 0 < f <= 1.
inline byte_budget fraction(double f) {
  require(f > 0 && f <= 1, "budget: a fraction of ", f, ", expected more than 0 and at most 1");
  return {.amount = f, .is_fraction = true};
}

/// "0.01" and "1%" are fractions; "1000B", "64KiB", "2MB", "1.5 GiB" are bytes. `Error` says what is wrong with others.
inline byte_budget parse_budget(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 9> units{{{"B", 1},
                                                                      {"kB", 1e3},
                                                                      {"KB", 1e3},
                                                                      {"MB", 1e6},
                                                                      {"GB", 1e9},
                                                                      {"KiB", 0x1p10},
                                                                      {"MiB", 0x1p20},
                                                                      {"GiB", 0x1p30},
                                                                      {"TiB", 0x1p40}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  require(error == std::errc{} && std::isfinite(number), "budget '", text,
          "': expected a number with a unit, as 64KiB, 2MB or 1%, or a fraction as 0.01");
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty() || unit == "%") {
    const double f = unit.empty() ? number : number / 100;
    require(f > 0 && f <= 1, "budget '", text, "': a fraction must be more than 0 and at most 1",
            unit.empty() ? " (write a unit for bytes, as in 1000B)" : "");
    return fraction(f);
  }
  for (const auto& [name, factor] : units) {
    if (unit != name) continue;
    const double n = std::floor(number * factor);
    require(n >= 1 && n <= 0x1p53, "budget '", text, "': expected at least one byte and at most 2^53");
    return bytes(static_cast<index>(n));
  }
  fail("budget '", text, "': unknown unit '", unit, "', expected B, KB, MB, GB, KiB, MiB, GiB, TiB or %");
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/codec.hpp ====
// How the pixels of a memory are packed into bytes. A codec is a type with a name and two functions; raw is the plain
// one, and a lossless or lossy one is added by writing another type, without a change anywhere else.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// What a codec may know about the tokens that it packs or unpacks; all of it is in the file besides the pixels.
struct patch_context {
  index channels = 0, patch = 0, grid_cols = 0;
  std::span<const std::uint16_t> positions;  ///< [T]
  std::span<const std::uint64_t> offsets;    ///< [S + 1]

  index tokens() const { return static_cast<index>(positions.size()); }
  index patch_dim() const { return channels * patch * patch; }
};

/// `encode` turns pixels `[T, patch_dim]` into bytes; `decode` fills `[T, patch_dim]` from them and throws `Error`
/// where they make no sense (they come from a file). `name` is what the file says, so it must be unique and never
/// change.
template <class C>
concept patch_codec = requires(const C& codec, const patch_context& context, std::span<const std::uint8_t> in,
                               std::span<std::uint8_t> out) {
  { C::name() } -> std::convertible_to<std::string_view>;
  { codec.encode(context, in) } -> std::same_as<std::vector<std::uint8_t>>;
  { codec.decode(context, in, out) } -> std::same_as<void>;
};

/// Pixels as they are; the file then holds `patches` as a matrix `[T, patch_dim]` that any reader understands.
struct raw_codec {
  static constexpr std::string_view name() { return "raw"; }

  std::vector<std::uint8_t> encode(const patch_context&, std::span<const std::uint8_t> pixels) const {
    return {pixels.begin(), pixels.end()};
  }

  void decode(const patch_context& context, std::span<const std::uint8_t> bytes, std::span<std::uint8_t> pixels) const {
    require(bytes.size() == pixels.size(), "raw codec: ", bytes.size(), " bytes for ", context.tokens(),
            " tokens, expected ", pixels.size());
    std::copy(bytes.begin(), bytes.end(), pixels.begin());
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/memory/format.hpp ====
// What the tokens of a memory are: the picture grid that they come from, how their pixels are normalised, and the plain
// arrays that hold them (a sparse matrix in compressed rows: one row a sample, one column a grid position).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

/// How the relevance of each token is kept: not at all (a coreset of whole images needs none), or in 16 bits relative
/// to the largest magnitude of its sample (so that order survives at any scale), or as it is in 32 bits.
enum class relevance_storage { none, f16, f32 };

/// Grid and normalisation of the pictures, (x / 255 - mean) / stddev per channel; empty means 0 and 1.
struct token_memory_format {
  index image_height = 0, image_width = 0, channels = 3, patch = 0;
  std::vector<float> mean = {}, stddev = {};  ///< [channels] or empty
  relevance_storage relevance = relevance_storage::f16;
  bool texts = false;  ///< each sample comes with a prompt and an answer

  index grid_rows() const { return image_height / patch; }
  index grid_cols() const { return image_width / patch; }
  /// Tokens of a whole image.
  index grid_tokens() const { return grid_rows() * grid_cols(); }
  /// Bytes of a raw token.
  index patch_dim() const { return channels * patch * patch; }

  /// `Error` unless the patches tile the image, positions fit 16 bits and the normalisation is finite.
  void check() const {
    constexpr index limit = 1 << 16;
    require(image_height > 0 && image_width > 0 && channels > 0 && patch > 0 && image_height <= limit &&
                image_width <= limit && channels <= limit && image_height % patch == 0 && image_width % patch == 0,
            "token memory: image ", image_height, " x ", image_width, " x ", channels, " with patches of ", patch,
            ": expected positive extents up to ", limit, ", height and width divisible by the patch");
    require(grid_tokens() <= limit, "token memory: ", grid_tokens(), " tokens an image, expected at most ", limit);
    const auto size = static_cast<std::size_t>(channels);
    require((mean.empty() || mean.size() == size) && (stddev.empty() || stddev.size() == size),
            "token memory: ", mean.size(), " means and ", stddev.size(), " standard deviations for ", channels,
            " channels");
    require(std::all_of(mean.begin(), mean.end(), [](float x) { return std::isfinite(x); }) &&
                std::all_of(stddev.begin(), stddev.end(), [](float x) { return std::isfinite(x) && x > 0; }),
            "token memory: means must be finite, standard deviations finite and positive");
  }

  bool operator==(const token_memory_format&) const = default;
};

/// One sample, owned by someone else: n tokens, their target, weight and task.
struct stored_sample {
  std::span<const std::uint8_t> patches;     ///< [n, patch_dim], raw pixels in the order channel, row, column
  std::span<const std::uint16_t> positions;  ///< [n], row-major grid indices
  std::span<const float> relevance = {};     ///< [n], or empty in a memory that keeps none
  std::int32_t target = 0;
  float weight = 1;
  std::uint16_t task = 0;
  std::string_view prompt = {}, answer = {};  ///< UTF-8, empty in a memory without texts

  index tokens() const { return static_cast<index>(positions.size()); }
};

/// S samples with T tokens: sample s owns rows `offsets[s] .. offsets[s+1]` of the per-token arrays, its positions
/// rising.
struct token_arrays {
  token_memory_format format;
  std::vector<std::uint8_t> patches;          ///< [T, patch_dim]
  std::vector<std::uint16_t> positions;       ///< [T]
  std::vector<float> relevance;               ///< [T], or empty
  std::vector<std::uint64_t> offsets{0};      ///< [S + 1]
  std::vector<std::int32_t> targets;          ///< [S]
  std::vector<float> weights;                 ///< [S]
  std::vector<std::uint16_t> tasks;           ///< [S]
  std::vector<std::uint8_t> text;             ///< prompts and answers one behind the other, or empty
  std::vector<std::uint32_t> text_offsets{};  ///< [2 S + 1] where each prompt and each answer begins, or empty
  std::map<std::string, std::string> metadata;

  index samples() const { return static_cast<index>(targets.size()); }
  index tokens() const { return static_cast<index>(positions.size()); }

  stored_sample sample(index s) const {
    const auto i = static_cast<std::size_t>(s);
    const auto begin = static_cast<std::size_t>(offsets[i]), count = static_cast<std::size_t>(offsets[i + 1]) - begin;
    const auto dim = static_cast<std::size_t>(format.patch_dim());
    return {.patches = std::span(patches).subspan(begin * dim, count * dim),
            .positions = std::span(positions).subspan(begin, count),
            .relevance = relevance.empty() ? std::span<const float>() : std::span(relevance).subspan(begin, count),
            .target = targets[i],
            .weight = weights[i],
            .task = tasks[i],
            .prompt = text_of(2 * i),
            .answer = text_of(2 * i + 1)};
  }

  /// Text number i: the prompts are the even ones, the answers the odd ones.
  std::string_view text_of(std::size_t i) const {
    if (!format.texts) return {};
    return {reinterpret_cast<const char*>(text.data()) + text_offsets[i], text_offsets[i + 1] - text_offsets[i]};
  }

  /// `Error` unless all arrays fit each other and the format; `name` stands for the memory in messages.
  void check(const std::string& name) const {
    format.check();
    const auto s_count = targets.size(), t_count = positions.size();
    const auto size = [&](const char* array, std::size_t got, std::size_t want) {
      require(got == want, name, ": array '", array, "' has ", got, " elements, expected ", want);
    };
    size("offsets", offsets.size(), s_count + 1);
    size("weights", weights.size(), s_count);
    size("tasks", tasks.size(), s_count);
    size("relevance", relevance.size(), format.relevance == relevance_storage::none ? 0 : t_count);
    size("patches", patches.size(), t_count * static_cast<std::size_t>(format.patch_dim()));
    require(offsets.front() == 0 && offsets.back() == t_count, name, ": array 'offsets' runs from ", offsets.front(),
            " to ", offsets.back(), ", expected 0 to ", t_count);
    for (std::size_t s = 0; s < s_count; ++s) {
      require(offsets[s] < offsets[s + 1] && offsets[s + 1] <= t_count, name, ": array 'offsets': sample ", s,
              " has no tokens, or more than there are");
      require(std::isfinite(weights[s]), name, ": array 'weights': the weight of sample ", s, " is not finite");
      for (std::size_t t = offsets[s]; t < offsets[s + 1]; ++t) {
        require(positions[t] < format.grid_tokens() && (t == offsets[s] || positions[t - 1] < positions[t]), name,
                ": array 'positions': sample ", s, ": position ", positions[t], " is outside the grid of ",
                format.grid_tokens(), " or not above the one before");
      }
    }
    require(std::all_of(relevance.begin(), relevance.end(), [](float x) { return std::isfinite(x); }), name,
            ": array 'relevance' holds a number that is not finite");
    size("text_offsets", text_offsets.size(), format.texts ? 2 * s_count + 1 : 0);
    require(format.texts || text.empty(), name, ": array 'text' has ", text.size(), " elements, expected none");
    require(!format.texts || (text_offsets.front() == 0 && text_offsets.back() == text.size() &&
                              std::is_sorted(text_offsets.begin(), text_offsets.end())),
            name, ": array 'text_offsets' does not rise from 0 to ", text.size());
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/memory/memory_file.hpp ====
// A memory as a safetensors file: one array for each of its arrays, the format and a checksum of every array in the
// metadata. In Python: `safetensors.numpy.load_file("memory.safetensors")["patches"]`.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Metadata names that the file format uses itself; every name that begins with "checksum." is one of them, too.
inline bool is_reserved_metadata(std::string_view name) {
  constexpr std::array<std::string_view, 6> ours{"kind", "version", "codec", "grid", "mean", "stddev"};
  return name.starts_with("checksum.") || std::find(ours.begin(), ours.end(), name) != ours.end();
}

namespace detail {

/// "[0.5,0.25]" with the fewest digits that read back as the same floats.
inline std::string float_list(std::span<const float> values) {
  std::string text = "[";
  for (const float x : values) {
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), x).ptr;
    text.append(text.size() > 1 ? "," : "").append(digits.data(), end);
  }
  return text + "]";
}

/// Names, types and shapes of the arrays, as sorted as in the file; `coded` is the size of the packed pixels, -1 for
/// raw, `text` the bytes of all texts.
inline std::vector<array_view> memory_layout(const token_memory_format& format, index samples, index tokens,
                                             index coded = -1, index text = 0) {
  const auto patches = coded < 0 ? std::vector<index>{tokens, format.patch_dim()} : std::vector<index>{coded};
  std::vector<array_view> arrays{{"patches", dtype::u8, patches, {}},        {"positions", dtype::u16, {tokens}, {}},
                                 {"offsets", dtype::u64, {samples + 1}, {}}, {"targets", dtype::i32, {samples}, {}},
                                 {"weights", dtype::f32, {samples}, {}},     {"tasks", dtype::u16, {samples}, {}}};
  if (format.relevance != relevance_storage::none) {
    const auto type = format.relevance == relevance_storage::f16 ? dtype::f16 : dtype::f32;
    arrays.push_back({"relevance", type, {tokens}, {}});
  }
  if (format.texts) {
    arrays.push_back({"text", dtype::u8, {text}, {}});
    arrays.push_back({"text_offsets", dtype::u32, {2 * samples + 1}, {}});
  }
  sort_for_safetensors(arrays);
  return arrays;
}

/// One checksum over all names and texts but the checksums' own.
inline std::string metadata_checksum(const std::map<std::string, std::string>& metadata) {
  std::string all;
  for (const auto& [name, text] : metadata) {
    if (!name.starts_with("checksum."))
      all += std::to_string(name.size()) + ":" + name + std::to_string(text.size()) + ":" + text;
  }
  return checksum_text(fnv1a(std::as_bytes(std::span(all))));
}

/// What the file says about itself, with a checksum for every array (of its present bytes).
inline std::map<std::string, std::string> memory_metadata(const token_arrays& memory, std::string_view codec,
                                                          std::span<const array_view> arrays) {
  auto metadata = memory.metadata;
  for (const auto& entry : memory.metadata) {
    require(!is_reserved_metadata(entry.first), "token memory: the metadata name '", entry.first, "' is reserved");
  }
  const auto& f = memory.format;
  metadata["kind"] = "token_memory";
  metadata["version"] = "1";
  metadata["codec"] = codec;
  metadata["grid"] = nlohmann::json{f.image_height, f.image_width, f.channels, f.patch}.dump();
  metadata["mean"] = float_list(f.mean);
  metadata["stddev"] = float_list(f.stddev);
  for (const auto& array : arrays) metadata["checksum." + array.name] = checksum_text(fnv1a(array.bytes));
  metadata["checksum.metadata"] = metadata_checksum(metadata);
  return metadata;
}

inline patch_context context_of(const token_arrays& memory) {
  return {memory.format.channels, memory.format.patch, memory.format.grid_cols(), memory.positions, memory.offsets};
}

/// Size of the file with these arrays, which need not have bytes.
inline index memory_file_size(const token_arrays& memory, std::string_view codec, std::span<const array_view> arrays) {
  auto size = static_cast<index>(safetensors_header(arrays, memory_metadata(memory, codec, arrays)).size());
  for (const auto& array : arrays) size += checked_byte_count(array.type, array.shape).value();
  return size;
}

/// The metadata text `name` as a JSON list.
inline std::vector<nlohmann::json> memory_list(const tensor_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  require(found != file.metadata.end(), file.path, ": metadata '", name, "' is missing");
  const auto list = parse_json(found->second, 1);
  require(list.is_array(), file.path, ": metadata '", name, "' makes no sense: ", found->second.substr(0, 100));
  return {list.begin(), list.end()};
}

inline std::string memory_text(const tensor_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  return found == file.metadata.end() ? std::string() : found->second;
}

/// What is wrong with the arrays of a file, one line each: missing, of another type, altered, unexpected.
inline std::vector<std::string> memory_file_problems(const tensor_file& file) {
  std::vector<std::string> problems;
  if (memory_text(file, "kind") != "token_memory" || memory_text(file, "version") != "1") {
    problems.push_back(file.path + ": not a token memory of version 1");
    return problems;
  }
  if (memory_text(file, "checksum.metadata") != metadata_checksum(file.metadata))
    problems.push_back(file.path + ": the metadata was altered (its checksum does not match)");
  std::set<std::string> known;
  for (const auto& array : memory_layout({.relevance = relevance_storage::f32, .texts = true}, 0, 0)) {
    known.insert(array.name);
    const auto found = file.arrays.find(array.name);
    const bool relevance = array.name == "relevance", optional = relevance || array.name.starts_with("text");
    if (found == file.arrays.end()) {
      if (!optional || file.metadata.contains("checksum." + array.name))
        problems.push_back(file.path + ": array '" + array.name + "' is missing");
      continue;
    }
    if (found->second.type != array.type && !(relevance && found->second.type == dtype::f16)) {
      problems.push_back(file.path + ": array '" + array.name + "' has type " +
                         std::string(dtype_name(found->second.type)) + ", expected " +
                         std::string(dtype_name(array.type)));
    }
    if (memory_text(file, "checksum." + array.name) != checksum_text(fnv1a(found->second.bytes)))
      problems.push_back(file.path + ": array '" + array.name + "' was altered (its checksum does not match)");
  }
  for (const auto& entry : file.arrays) {
    if (!known.contains(entry.first)) problems.push_back(file.path + ": unexpected array '" + entry.first + "'");
  }
  return problems;
}

inline token_memory_format memory_format(const tensor_file& file) {
  token_memory_format format{.relevance = relevance_storage::none};
  const auto grid = memory_list(file, "grid");
  require(grid.size() == 4, file.path, ": metadata 'grid': expected height, width, channels and patch");
  const std::string what = file.path + ": metadata 'grid'";
  format.image_height = header_number(grid[0], what);
  format.image_width = header_number(grid[1], what);
  format.channels = header_number(grid[2], what);
  format.patch = header_number(grid[3], what);
  for (auto* values : {&format.mean, &format.stddev}) {
    const std::string name = values == &format.mean ? "mean" : "stddev";
    for (const auto& value : memory_list(file, name)) {
      require(value.is_number(), file.path, ": metadata '", name, "': expected numbers");
      values->push_back(value.get<float>());
    }
  }
  if (file.contains("relevance")) {
    format.relevance = file.at("relevance").type == dtype::f16 ? relevance_storage::f16 : relevance_storage::f32;
  }
  format.texts = file.contains("text_offsets");
  format.check();
  return format;
}

}  // namespace detail

/// Size in bytes of the file that `save_token_arrays` would write with raw pixels, if the memory had this many samples,
/// tokens and bytes of text: exact, and without the data, so that a budget can be divided before anything is chosen.
inline index token_file_size(const token_arrays& memory, index samples, index tokens, index text = 0) {
  return detail::memory_file_size(memory, raw_codec::name(),
                                  detail::memory_layout(memory.format, samples, tokens, -1, text));
}

/// Size in bytes of the file with pixels packed by `codec`.
template <patch_codec Codec>
index token_file_size(const token_arrays& memory, const Codec& codec) {
  const auto text = static_cast<index>(memory.text.size());
  if constexpr (std::is_same_v<Codec, raw_codec>)
    return token_file_size(memory, memory.samples(), memory.tokens(), text);
  const auto coded = static_cast<index>(codec.encode(detail::context_of(memory), memory.patches).size());
  const auto layout = detail::memory_layout(memory.format, memory.samples(), memory.tokens(), coded, text);
  return detail::memory_file_size(memory, Codec::name(), layout);
}

/// Writes a memory, all or nothing.
template <patch_codec Codec = raw_codec>
void save_token_arrays(const std::filesystem::path& path, const token_arrays& memory, const Codec& codec = {}) {
  memory.check("token memory");
  constexpr bool raw = std::is_same_v<Codec, raw_codec>;
  std::vector<std::uint8_t> coded;
  if constexpr (!raw) coded = codec.encode(detail::context_of(memory), memory.patches);
  std::vector<half> relevance;
  if (memory.format.relevance == relevance_storage::f16) {
    for (const float r : memory.relevance) relevance.emplace_back(static_cast<double>(r));
  }

  auto arrays =
      detail::memory_layout(memory.format, memory.samples(), memory.tokens(),
                            raw ? -1 : static_cast<index>(coded.size()), static_cast<index>(memory.text.size()));
  const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
  const std::map<std::string, std::span<const std::byte>> data{
      {"patches", raw ? bytes(memory.patches) : bytes(coded)},
      {"positions", bytes(memory.positions)},
      {"offsets", bytes(memory.offsets)},
      {"targets", bytes(memory.targets)},
      {"weights", bytes(memory.weights)},
      {"tasks", bytes(memory.tasks)},
      {"text", bytes(memory.text)},
      {"text_offsets", bytes(memory.text_offsets)},
      {"relevance", relevance.empty() ? bytes(memory.relevance) : bytes(relevance)}};
  for (auto& array : arrays) array.bytes = data.at(array.name);
  const auto metadata = detail::memory_metadata(memory, Codec::name(), arrays);
  write_safetensors(path, std::move(arrays), metadata);
}

/// Reads a memory; pixels are unpacked by that of the codecs (raw is always there) which the file names. `Error` names
/// the array that is missing, altered or does not fit the others.
template <patch_codec... Codecs>
token_arrays load_token_arrays(const std::filesystem::path& path, const Codecs&... codecs) {
  const tensor_file file = load_safetensors(path);
  const auto problems = detail::memory_file_problems(file);
  if (!problems.empty()) fail(problems.front());

  token_arrays memory;
  memory.format = detail::memory_format(file);
  memory.positions = file.at("positions").as<std::uint16_t>();
  memory.offsets = file.at("offsets").as<std::uint64_t>();
  memory.targets = file.at("targets").as<std::int32_t>();
  memory.weights = file.at("weights").as<float>();
  memory.tasks = file.at("tasks").as<std::uint16_t>();
  if (file.contains("relevance")) memory.relevance = file.at("relevance").as<float>();
  if (memory.format.texts) {
    require(file.contains("text"), file.path, ": array 'text' is missing");
    memory.text = file.at("text").as<std::uint8_t>();
    memory.text_offsets = file.at("text_offsets").as<std::uint32_t>();
  }
  for (const auto& [name, text] : file.metadata) {
    if (!is_reserved_metadata(name)) memory.metadata.emplace(name, text);
  }

  const auto pixels = checked_byte_count(dtype::u8, std::vector<index>{memory.tokens(), memory.format.patch_dim()});
  require(pixels.has_value(), file.path, ": array 'positions' has too many tokens for patches of ",
          memory.format.patch_dim(), " bytes");
  const auto coded = file.at("patches").as<std::uint8_t>();
  const std::string codec_name = detail::memory_text(file, "codec");
  require(codec_name != raw_codec::name() || static_cast<index>(coded.size()) == *pixels, file.path,
          ": array 'patches' has ", coded.size(), " bytes, expected ", *pixels);
  const bool known = codec_name == raw_codec::name() || ((codec_name == Codecs::name()) || ...);
  require(known, file.path, ": array 'patches' is packed by the codec '", codec_name, "', which was not given");
  memory.patches.resize(static_cast<std::size_t>(*pixels));
  memory.check(file.path);  // before a codec sees positions and offsets
  bool found = false;
  const auto try_codec = [&](const auto& codec) {
    if (found || std::decay_t<decltype(codec)>::name() != codec_name) return;
    found = true;
    codec.decode(detail::context_of(memory), coded, memory.patches);
  };
  try_codec(raw_codec{});
  (try_codec(codecs), ...);
  return memory;
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/token_memory.hpp ====
// The memory: the tokens that mattered of the samples that mattered. Samples are appended, evicted, cut down to their
// most relevant tokens, and kept in one flat file. A whole image is a sample with all of its tokens.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

namespace detail {

inline void append_texts(token_arrays& arrays, std::string_view prompt, std::string_view answer) {
  for (const std::string_view text : {prompt, answer}) {
    arrays.text.insert(arrays.text.end(), text.begin(), text.end());
    arrays.text_offsets.push_back(static_cast<std::uint32_t>(arrays.text.size()));
  }
}

}  // namespace detail

/// A store of samples with some of their tokens each. All numbers of samples and tokens count from 0.
class token_memory {
 public:
  explicit token_memory(token_memory_format format) {
    format.check();
    arrays_.format = std::move(format);
    if (arrays_.format.texts) arrays_.text_offsets.assign(1, 0);
  }
  /// Takes over arrays that fit each other (`Error` where they do not).
  explicit token_memory(token_arrays arrays) : arrays_(std::move(arrays)) { arrays_.check("token memory"); }

  const token_memory_format& format() const { return arrays_.format; }
  const token_arrays& arrays() const { return arrays_; }
  index samples() const { return arrays_.samples(); }
  index tokens() const { return arrays_.tokens(); }
  bool empty() const { return samples() == 0; }

  /// Free texts that travel in the file (model hash, recipe, seed); see `is_reserved_metadata` for names not to use.
  std::map<std::string, std::string>& metadata() { return arrays_.metadata; }
  const std::map<std::string, std::string>& metadata() const { return arrays_.metadata; }

  /// Sample s; valid until the memory changes.
  stored_sample sample(index s) const {
    require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
    return arrays_.sample(s);
  }

  /// Adds one sample with at least one token, no position twice; tokens are put into the order of their positions.
  void append(const stored_sample& sample);
  /// Adds all samples of a memory of the same format; metadata stay as they are.
  void append(const token_memory& other) {
    require(other.format() == format(), "token memory: cannot append a memory of another format");
    const index count = other.samples();
    for (index s = 0; s < count; ++s) append(other.sample(s));
  }

  /// Keeps exactly these samples, in this order.
  void keep(std::span<const index> chosen) {
    std::vector<bool> seen(static_cast<std::size_t>(samples()));
    for (const index s : chosen) {
      require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
      require(!seen[static_cast<std::size_t>(s)], "token memory: sample ", s, " is to be kept twice");
      seen[static_cast<std::size_t>(s)] = true;
    }
    gather(chosen, {});
  }

  /// Removes these samples; the others keep their order.
  void evict(std::span<const index> unwanted) {
    std::vector<bool> gone(static_cast<std::size_t>(samples()));
    for (const index s : unwanted) {
      require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
      gone[static_cast<std::size_t>(s)] = true;
    }
    std::vector<index> rest;
    for (index s = 0; s < samples(); ++s) {
      if (!gone[static_cast<std::size_t>(s)]) rest.push_back(s);
    }
    gather(rest, {});
  }

  /// Cuts sample s down to its `tokens_per_sample[s]` most relevant tokens (ties: the earlier position stays); a sample
  /// that has fewer stays whole.
  void shrink(std::span<const index> tokens_per_sample) {
    require(static_cast<index>(tokens_per_sample.size()) == samples(), "token memory: ", tokens_per_sample.size(),
            " token budgets for ", samples(), " samples");
    bool cuts = false;
    for (index s = 0; s < samples(); ++s) {
      const index limit = tokens_per_sample[static_cast<std::size_t>(s)];
      require(limit >= 1, "token memory: cannot shrink sample ", s, " to ", limit, " tokens, expected at least 1");
      cuts = cuts || limit < arrays_.sample(s).tokens();
    }
    if (!cuts) return;
    require(format().relevance != relevance_storage::none, "token memory: cannot shrink, it keeps no relevance");
    std::vector<index> all(static_cast<std::size_t>(samples()));
    std::iota(all.begin(), all.end(), index{0});
    gather(all, tokens_per_sample);
  }
  void shrink(index tokens_per_sample) {
    shrink(std::vector<index>(static_cast<std::size_t>(samples()), tokens_per_sample));
  }

  /// The samples of one task, in order.
  std::vector<index> samples_of_task(std::uint16_t task) const {
    std::vector<index> result;
    for (index s = 0; s < samples(); ++s) {
      if (arrays_.tasks[static_cast<std::size_t>(s)] == task) result.push_back(s);
    }
    return result;
  }

  /// Size of the file that `save` would write, to the byte.
  index bytes_on_disk() const { return token_file_size(arrays_, raw_codec{}); }
  /// The same with packed pixels, which takes packing them.
  template <patch_codec Codec>
  index bytes_on_disk(const Codec& codec) const {
    return token_file_size(arrays_, codec);
  }
  /// The size with raw pixels if the memory had that many samples, tokens and bytes of text.
  index bytes_on_disk(index samples, index tokens, index text = 0) const {
    return token_file_size(arrays_, samples, tokens, text);
  }

  /// Writes the memory, all or nothing.
  template <patch_codec Codec = raw_codec>
  void save(const std::filesystem::path& path, const Codec& codec = {}) const {
    save_token_arrays(path, arrays_, codec);
  }

 private:
  /// Makes this the memory of `samples` in that order, each with at most `limits[s]` tokens where there are limits.
  void gather(std::span<const index> samples, std::span<const index> limits);

  token_arrays arrays_;
};

/// Reads a memory that was saved; hand in the codecs besides raw that it may use.
template <patch_codec... Codecs>
token_memory load_token_memory(const std::filesystem::path& path, const Codecs&... codecs) {
  return token_memory(load_token_arrays(path, codecs...));
}

inline void token_memory::append(const stored_sample& sample) {
  const auto& f = format();
  const auto count = sample.positions.size(), dim = static_cast<std::size_t>(f.patch_dim());
  const bool relevant = f.relevance != relevance_storage::none;
  require(count > 0, "token memory: a sample without tokens");
  require(sample.patches.size() == count * dim, "token memory: ", sample.patches.size(), " pixel values for ", count,
          " tokens of ", dim);
  require(!relevant || sample.relevance.size() == count, "token memory: ", sample.relevance.size(), " relevances for ",
          count, " tokens");
  require(std::isfinite(sample.weight), "token memory: a weight that is not finite");
  require(f.texts || (sample.prompt.empty() && sample.answer.empty()),
          "token memory: a sample with texts for a memory without");
  require(arrays_.text.size() + sample.prompt.size() + sample.answer.size() < std::size_t{1} << 32,
          "token memory: more than 4 GiB of text");

  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return sample.positions[a] < sample.positions[b]; });
  // Copies first: the sample may lie in this very memory.
  const std::string prompt(sample.prompt), answer(sample.answer);
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;
  patches.reserve(count * dim);
  float largest = 0;
  for (const std::size_t t : order) {
    const auto position = sample.positions[t];
    require(position < f.grid_tokens(), "token memory: position ", position, " outside the grid of ", f.grid_tokens());
    require(positions.empty() || positions.back() != position, "token memory: position ", position, " twice");
    positions.push_back(position);
    const auto patch = sample.patches.subspan(t * dim, dim);
    patches.insert(patches.end(), patch.begin(), patch.end());
    if (!relevant) continue;
    relevance.push_back(sample.relevance[t]);
    require(std::isfinite(relevance.back()), "token memory: the relevance at position ", position, " is not finite");
    largest = std::max(largest, std::abs(relevance.back()));
  }
  if (f.relevance == relevance_storage::f16) {
    for (float& r : relevance) r = static_cast<float>(half(largest > 0 ? double{r} / double{largest} : 0.0));
  }
  arrays_.patches.insert(arrays_.patches.end(), patches.begin(), patches.end());
  arrays_.positions.insert(arrays_.positions.end(), positions.begin(), positions.end());
  arrays_.relevance.insert(arrays_.relevance.end(), relevance.begin(), relevance.end());
  arrays_.offsets.push_back(arrays_.positions.size());
  arrays_.targets.push_back(sample.target);
  arrays_.weights.push_back(sample.weight);
  arrays_.tasks.push_back(sample.task);
  if (f.texts) detail::append_texts(arrays_, prompt, answer);
}

inline void token_memory::gather(std::span<const index> samples, std::span<const index> limits) {
  token_arrays next;
  next.format = arrays_.format;
  next.metadata = arrays_.metadata;
  if (format().texts) next.text_offsets.assign(1, 0);
  const auto dim = static_cast<std::size_t>(format().patch_dim());
  std::vector<std::size_t> kept;
  for (const index s : samples) {
    const auto old = arrays_.sample(s);
    kept.resize(old.positions.size());
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    if (!limits.empty() && limits[static_cast<std::size_t>(s)] < old.tokens()) {
      std::stable_sort(kept.begin(), kept.end(),
                       [&](std::size_t a, std::size_t b) { return old.relevance[a] > old.relevance[b]; });
      kept.resize(static_cast<std::size_t>(limits[static_cast<std::size_t>(s)]));
      std::sort(kept.begin(), kept.end());
    }
    for (const std::size_t t : kept) {
      const auto patch = old.patches.subspan(t * dim, dim);
      next.patches.insert(next.patches.end(), patch.begin(), patch.end());
      next.positions.push_back(old.positions[t]);
      if (!old.relevance.empty()) next.relevance.push_back(old.relevance[t]);
    }
    next.offsets.push_back(next.positions.size());
    next.targets.push_back(old.target);
    next.weights.push_back(old.weight);
    next.tasks.push_back(old.task);
    if (format().texts) detail::append_texts(next, old.prompt, old.answer);
  }
  arrays_ = std::move(next);
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/describe.hpp ====
// What a person wants to know about a memory: what is in it, and whether its file is whole.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>


namespace core_tokensets {

/// Numbers of a memory: samples, tokens, bytes, where they go, counts by class and task, format and metadata.
inline nlohmann::json describe(const token_memory& memory) {
  const auto& arrays = memory.arrays();
  const auto& f = memory.format();
  std::map<std::string, index> tokens_per_task, samples_per_task, samples_per_class;
  index fewest = 0, most = 0, whole = 0;
  for (index s = 0; s < memory.samples(); ++s) {
    const auto sample = arrays.sample(s);
    const index n = sample.tokens();
    fewest = s == 0 ? n : std::min(fewest, n);
    most = std::max(most, n);
    whole += n == f.grid_tokens();
    ++samples_per_class[std::to_string(sample.target)];
    ++samples_per_task[std::to_string(sample.task)];
    tokens_per_task[std::to_string(sample.task)] += n;
  }
  nlohmann::json bytes_per_array = nlohmann::json::object();
  index data_bytes = 0;
  for (const auto& array :
       detail::memory_layout(f, memory.samples(), memory.tokens(), -1, static_cast<index>(arrays.text.size()))) {
    const index size = checked_byte_count(array.type, array.shape).value();
    bytes_per_array[array.name] = size;
    data_bytes += size;
  }
  const index total = memory.bytes_on_disk();
  bytes_per_array["header"] = total - data_bytes;
  const auto per = [](index a, index b) { return b == 0 ? 0.0 : static_cast<double>(a) / static_cast<double>(b); };
  return {{"samples", memory.samples()},
          {"tokens", memory.tokens()},
          {"bytes", total},
          {"bytes_per_array", bytes_per_array},
          {"bytes_of_raw_images", memory.samples() * f.image_height * f.image_width * f.channels},
          {"tokens_per_sample", {{"mean", per(memory.tokens(), memory.samples())}, {"fewest", fewest}, {"most", most}}},
          {"kept_fraction", per(memory.tokens(), memory.samples() * f.grid_tokens())},
          {"whole_images", whole},
          {"samples_per_class", samples_per_class},
          {"samples_per_task", samples_per_task},
          {"tokens_per_task", tokens_per_task},
          {"image", {f.image_height, f.image_width, f.channels}},
          {"patch", f.patch},
          {"mean", f.mean},
          {"stddev", f.stddev},
          {"relevance", f.relevance == relevance_storage::none  ? "none"
                        : f.relevance == relevance_storage::f16 ? "f16"
                                                                : "f32"},
          {"metadata", memory.metadata()}};
}

/// Everything that is wrong with a memory's file, one line each, naming the array; empty means whole. Never throws for
/// what the file holds.
template <patch_codec... Codecs>
std::vector<std::string> verify_token_memory(const std::filesystem::path& path, const Codecs&... codecs) {
  try {
    auto problems = detail::memory_file_problems(load_safetensors(path));
    if (problems.empty()) (void)load_token_memory(path, codecs...);
    return problems;
  } catch (const Error& e) {
    return {e.what()};
  } catch (const std::bad_alloc&) {
    return {path.string() + ": describes more than fits in memory"};
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/normalise.hpp ====
// Pixels of the memory to numbers for the model and back.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

/// The format's normalisation with one value for each channel; empty means 0 and 1.
inline pixel_normalisation normalisation_of(const token_memory_format& format) {
  return pixel_normalisation{format.mean.empty() ? std::vector<float>{0.0f} : format.mean,
                             format.stddev.empty() ? std::vector<float>{1.0f} : format.stddev}
      .for_channels(format.channels);
}

/// A table `[channels, 256]` of (x / 255 - mean) / stddev for every pixel value.
inline std::vector<float> normalisation_table(const token_memory_format& format) {
  return pixel_table(normalisation_of(format), format.channels);
}

/// Normalised patches `[n, patch_dim]` back to pixels: exact for what came from pixels, else rounded and clamped to
/// 0..255. This is how a batch that a model has seen enters the memory. NaN becomes 0.
inline std::vector<std::uint8_t> to_pixels(const token_memory_format& format, std::span<const float> patches) {
  const auto dim = static_cast<std::size_t>(format.patch_dim());
  const auto area = static_cast<std::size_t>(format.patch * format.patch);
  require(patches.size() % dim == 0, "to_pixels: ", patches.size(), " numbers, expected a multiple of ", dim);
  std::vector<std::uint8_t> pixels(patches.size());
  const pixel_normalisation full = normalisation_of(format);
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const std::size_t c = i % dim / area;
    pixels[i] = to_pixel(patches[i], full.mean[c], full.stddev[c]);
  }
  return pixels;
}

}  // namespace core_tokensets

// ==== core_tokensets/memory/replay.hpp ====
// Replay: which samples of the memory come next, and the batch that a model trains on.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Deals the numbers 0 .. samples-1 in random order, then again in another: every sample comes once a cycle, and a
/// draw costs O(1) on average. Small enough a state to be saved: the order of a cycle is a function of `cycle_start`.
class replay_sampler {
 public:
  /// Everything that the future depends on.
  struct state {
    index samples = 0;
    std::uint64_t seed = 0, stream = 0;
    std::uint64_t cycle_start = 0;  ///< position of the random stream before this cycle's shuffle
    index cursor = 0;               ///< samples dealt in this cycle
    bool operator==(const state&) const = default;
  };

  replay_sampler(index samples, std::uint64_t seed, std::uint64_t stream = 0)
      : replay_sampler(state{.samples = samples, .seed = seed, .stream = stream}) {}

  /// Goes on exactly where `position()` was taken.
  explicit replay_sampler(const state& from) : state_(from), random_(from.seed, from.stream, from.cycle_start) {
    require(from.samples > 0 && from.cursor >= 0 && from.cursor <= from.samples, "replay: ", from.cursor, " of ",
            from.samples, " samples dealt, expected at least one sample and no more dealt than there are");
    order_ = random_.permutation(from.samples);
  }

  const state& position() const { return state_; }

  /// Fills `out` with the next samples; a batch may run over the end of a cycle.
  void draw(std::span<index> out) {
    for (index& s : out) {
      if (state_.cursor == state_.samples) {
        state_.cycle_start = random_.position();
        state_.cursor = 0;
        order_ = random_.permutation(state_.samples);
      }
      s = order_[static_cast<std::size_t>(state_.cursor++)];
    }
  }
  std::vector<index> draw(index count) {
    require(count >= 0, "replay: a draw of ", count);
    std::vector<index> out(static_cast<std::size_t>(count));
    draw(std::span(out));
    return out;
  }

 private:
  state state_;
  random_stream random_;
  std::vector<index> order_;
};

/// Turns stored samples into a batch, normalised. `drop`: the kept tokens only. `zero` and `rescaled`: the whole grid,
/// where tokens that are not kept are 0 and have scale 0, kept ones scale 1 (the authors never rescale the memory).
/// `out` is overwritten and its storage reused.
inline void make_batch(const token_memory& memory, std::span<const index> samples, missing_tokens missing,
                       token_batch& out) {
  const auto& arrays = memory.arrays();
  const auto& format = memory.format();
  const bool whole_grid = missing != missing_tokens::drop;
  const index grid = format.grid_tokens(), dim = format.patch_dim(), area = format.patch * format.patch;

  out.patch_dim = dim;
  out.offsets.assign(1, 0);
  out.targets.clear();
  out.weights.clear();
  for (const index s : samples) {
    const auto sample = memory.sample(s);
    out.offsets.push_back(out.offsets.back() + (whole_grid ? grid : sample.tokens()));
    out.targets.push_back(sample.target);
    out.weights.push_back(sample.weight);
  }
  const auto rows = static_cast<std::size_t>(out.tokens());
  out.patches.resize(rows * static_cast<std::size_t>(dim));
  out.positions.resize(rows);
  out.scale.resize(whole_grid ? rows : 0);

  const auto table = normalisation_table(format);
  const auto write_patch = [&](const std::uint8_t* pixels, float* row) {
    for (index c = 0; c < format.channels; ++c) {
      const float* lookup = table.data() + c * 256;
      for (index i = c * area; i < (c + 1) * area; ++i) row[i] = lookup[pixels[i]];
    }
  };
  const auto write_sample = [&](index i) {
    const auto sample = arrays.sample(samples[static_cast<std::size_t>(i)]);
    const index begin = out.offsets[static_cast<std::size_t>(i)], end = out.offsets[static_cast<std::size_t>(i) + 1];
    if (whole_grid) {
      std::fill(out.patches.begin() + begin * dim, out.patches.begin() + end * dim, 0.0f);
      std::fill(out.scale.begin() + begin, out.scale.begin() + end, 0);
      for (index t = begin; t < end; ++t)
        out.positions[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(t - begin);
    }
    for (index t = 0; t < sample.tokens(); ++t) {
      const auto position = sample.positions[static_cast<std::size_t>(t)];
      const index row = begin + (whole_grid ? index{position} : t);
      write_patch(sample.patches.data() + t * dim, out.patches.data() + row * dim);
      out.positions[static_cast<std::size_t>(row)] = position;
      if (whole_grid) out.scale[static_cast<std::size_t>(row)] = 1;
    }
  };
  const bool small = out.patches.size() < 100'000;  // threads cost more than they bring
  parallel_for(small ? 1 : 0, static_cast<index>(samples.size()), write_sample);
}

inline token_batch make_batch(const token_memory& memory, std::span<const index> samples, missing_tokens missing) {
  token_batch batch;
  make_batch(memory, samples, missing, batch);
  return batch;
}

}  // namespace core_tokensets

// ==== core_tokensets/model/generate.hpp ====
// Text from a picture and a prompt, token by token: greedy or with a beam. Keys and values of earlier tokens are
// cached, those of the picture are computed once.

#include <algorithm>
#include <cmath>
#include <numeric>


namespace core_tokensets {

struct generation_options {
  index beams = 1;            ///< 1: greedy
  index length = 24;          ///< most tokens of an answer
  double length_penalty = 1;  ///< scores of finished texts are log-probabilities over length^penalty
};

/// One text that was written: its tokens without `end`, and the score that it was chosen by (`length_penalty`).
struct generated_text {
  std::vector<std::int32_t> tokens;
  double score = 0;
};

namespace detail {

/// A text being written: which prompt it answers, which row of the last step it grew from.
struct hypothesis {
  index text = 0, parent = 0;
  std::vector<std::int32_t> tokens;
  double log_probability = 0;
};

inline double score_of(const hypothesis& h, double penalty) {
  const auto length = static_cast<double>(h.tokens.size());
  return h.log_probability / std::pow(std::max(1.0, length), penalty);
}

/// log softmax of one row, in place.
inline void log_softmax(std::span<double> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const double x : row) sum += std::exp(x - top);
  for (double& x : row) x -= top + std::log(sum);
}

/// The `count` largest entries, ties to the lower number.
inline std::vector<std::int32_t> largest(std::span<const double> row, index count) {
  std::vector<std::int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(row.size()));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](std::int32_t a, std::int32_t b) {
    const double x = row[static_cast<std::size_t>(a)], y = row[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(static_cast<std::size_t>(n));
  return order;
}

}  // namespace detail

/// The decoder with its caches. Rows of a step are hypotheses; those about one picture stand together.
template <tensor_backend B>
class cached_decoder {
 public:
  using T = typename B::scalar;

  cached_decoder(B& b, const image_text_model<B>& model) : b_(b), model_(model) {
    tape_.keep = kept::logits;
    cache_.resize(model.layout().decoder.size());
    image_.resize(cache_.size());
  }

  /// Encodes pictures and reads the prompts; returns the logits `[Q, V]` of the tokens that come next.
  std::vector<double> read(const token_batch& images, const text_batch& prompts) {
    encode(b_, model_, images, tape_);
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index dim = model_.config().text.dim;
    text_batch asking = prompts;  // the last token of each text is asked, and no other
    asking.targets.assign(asking.tokens.size(), -1);
    for (index q = 0; q < prompts.texts(); ++q) {
      asking.targets[static_cast<std::size_t>(prompts.offsets[static_cast<std::size_t>(q + 1)] - 1)] = 0;
    }
    tape_.text.assign(b_, asking, tape_.plan.rows(), model_.config().text);
    for (auto& x : stream_) x.resize(b_, prompts.length(), dim);
    forward<B, T>(b_, l.text, p, tape_.text.tokens, tape_.text.positions, *stream_[0]);
    for (std::size_t i = 0; i < l.decoder.size(); ++i) {
      forward<B, T>(b_, l.decoder[i], p, tape_.text.rows, *std::as_const(stream_[i % 2]), *std::as_const(tape_.norm.y),
                    block_, attention_kept::nothing, *stream_[(i + 1) % 2]);
      cache_[i].resize(b_, prompts.length(), 2 * dim);
      b_.map(fn::copy{}, *cache_[i], (*std::as_const(block_.self.qkv)).slice_cols(dim, 2 * dim));
      std::swap(image_[i], block_.cross.kv);
    }
    rows_of_.clear();
    lengths_.clear();
    for (index q = 0; q < prompts.texts(); ++q) {
      const index begin = prompts.offsets[static_cast<std::size_t>(q)],
                  end = prompts.offsets[static_cast<std::size_t>(q + 1)];
      rows_of_.emplace_back(static_cast<std::size_t>(end - begin));
      std::iota(rows_of_.back().begin(), rows_of_.back().end(), static_cast<std::int32_t>(begin));
      lengths_.push_back(end - begin);
    }
    last_.resize(b_, prompts.texts(), dim);
    b_.gather_rows(*last_, *std::as_const(stream_[l.decoder.size() % 2]), tape_.text.asked.data());
    return logits();
  }

  /// One token more for each of n hypotheses that grew from rows `parents` of the step before, `per_picture[s]` of
  /// them about picture s; returns the logits `[n, V]` of the tokens behind.
  std::vector<double> step(std::span<const std::int32_t> tokens, std::span<const index> parents,
                           std::span<const index> per_picture) {
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    const index n = static_cast<index>(tokens.size()), dim = model_.config().text.dim,
                heads = model_.config().text.heads;
    advance(parents);
    std::vector<std::int32_t> places, all_rows;
    sequences one_each, lengths, of_picture;
    for (index i = 0; i < n; ++i) {
      places.push_back(static_cast<std::int32_t>(lengths_[static_cast<std::size_t>(i)] - 1));
      one_each.push_back(1);
      lengths.push_back(lengths_[static_cast<std::size_t>(i)]);
      const auto& mine = rows_of_[static_cast<std::size_t>(i)];
      all_rows.insert(all_rows.end(), mine.begin(), mine.end());
    }
    for (const index count : per_picture) of_picture.push_back(count);
    token_rows_.assign(b_, tokens);
    place_rows_.assign(b_, places);
    order_.assign(b_, all_rows);
    const attention_rows self(one_each, lengths), cross(of_picture, tape_.plan.rows());
    for (auto& x : stream_) x.resize(b_, n, dim);
    forward<B, T>(b_, l.text, p, token_rows_, place_rows_, *stream_[0]);
    for (std::size_t i = 0; i < l.decoder.size(); ++i) {
      const block& own = l.decoder[i].self;
      const view<const T> x = *std::as_const(stream_[i % 2]);
      block_tape<B>& t = block_.self;
      forward<B, T>(b_, own.norm1, p, x, t.norm1);
      t.qkv.resize(b_, n, 3 * dim);
      forward<B, T>(b_, own.qkv, p, *t.norm1.y, {}, *t.qkv);
      extend(cache_[i], (*std::as_const(t.qkv)).slice_cols(dim, 2 * dim));
      const view<const T> kv = *std::as_const(cache_[i]);
      for (tensor<B>* rows : {&t.context, &t.middle, &block_.attended}) rows->resize(b_, n, dim);
      ops::attention<B, T>(b_, self, (*std::as_const(t.qkv)).slice_cols(0, dim).split_cols(heads),
                           kv_part(kv, 0, heads), kv_part(kv, 1, heads), attention_scale<T>(dim / heads),
                           (*t.context).split_cols(heads), nullptr);
      forward<B, T>(b_, own.proj, p, *std::as_const(t.context), x, *block_.attended);
      forward_from_kv<B, T>(b_, l.decoder[i].cross, p, cross, *std::as_const(block_.attended),
                            *std::as_const(image_[i]), block_.cross, attention_kept::nothing, *t.middle);
      forward_mlp<B, T>(b_, own, p, t, *stream_[(i + 1) % 2]);
    }
    last_.resize(b_, n, dim);
    b_.map(fn::copy{}, *last_, *std::as_const(stream_[l.decoder.size() % 2]));
    return logits();
  }

 private:
  /// Makes room for one token behind the rows of each parent; the new tokens' rows come behind all that there are.
  void advance(std::span<const index> parents) {
    std::vector<std::vector<std::int32_t>> rows;
    index total = 0;
    for (const auto& old : rows_of_) total += static_cast<index>(old.size());
    for (std::size_t i = 0; i < parents.size(); ++i) {
      rows.push_back(rows_of_[static_cast<std::size_t>(parents[i])]);
      rows.back().push_back(static_cast<std::int32_t>(total + static_cast<index>(i)));
    }
    old_rows_ = total;
    rows_of_ = std::move(rows);
    lengths_.clear();
    for (const auto& mine : rows_of_) lengths_.push_back(static_cast<index>(mine.size()));
  }

  /// cache = the rows of each hypothesis one behind the other, from what was cached and the new rows.
  void extend(tensor<B>& cache, view<const T> fresh) {
    both_.resize(b_, old_rows_ + fresh.rows, fresh.cols);
    b_.map(fn::copy{}, (*both_).slice_rows(0, old_rows_), *std::as_const(cache));
    b_.map(fn::copy{}, (*both_).slice_rows(old_rows_, fresh.rows), fresh);
    cache.resize(b_, order_.size(), fresh.cols);
    b_.gather_rows(*cache, *std::as_const(both_), order_.data());
  }

  std::vector<double> logits() {
    renumber();
    const auto& l = model_.layout();
    const auto p = model_.view_parameters();
    forward<B, T>(b_, l.text_norm, p, *std::as_const(last_), tape_.text_norm);
    tape_.logits.resize(b_, last_.rows(), model_.config().text.vocabulary);
    forward<B, T>(b_, l.output, p, *tape_.text_norm.y, {}, *tape_.logits);
    const auto host = tape_.logits.to_host(b_);
    return {host.begin(), host.end()};
  }

  /// Behind a step the caches hold the rows of the hypotheses in order.
  void renumber() {
    std::int32_t next = 0;
    for (auto& mine : rows_of_) {
      for (auto& row : mine) row = next++;
    }
  }

  B& b_;
  const image_text_model<B>& model_;
  image_text_tape<B> tape_;
  decoder_block_tape<B> block_;
  std::vector<tensor<B>> cache_, image_;  ///< of each block: keys and values of text and of image tokens, `[rows, 2 C]`
  std::vector<std::vector<std::int32_t>> rows_of_;  ///< rows of each hypothesis in the caches
  std::vector<index> lengths_;
  index old_rows_ = 0;
  row_list<B> token_rows_, place_rows_, order_;  ///< of one step
  tensor<B> stream_[2], both_, last_;
};

namespace detail {

/// The live hypotheses of all texts, and what was finished.
class beam_search {
 public:
  /// `lengths` `[Q]`: most tokens of each text.
  beam_search(std::vector<index> lengths, const generation_options& o, std::int32_t end)
      : options_(o), end_(end), lengths_(std::move(lengths)), live_(lengths_.size()), done_(lengths_.size()) {
    for (std::size_t q = 0; q < live_.size(); ++q) {
      const auto text = static_cast<index>(q);
      live_[q] = {{text, text, {}, 0}};
    }
  }

  /// Takes log-probabilities `[n, V]` of what comes next, rows in the order of `all()`.
  void grow(std::span<double> logits, index vocabulary) {
    index row = 0;
    for (std::size_t q = 0; q < live_.size(); ++q) {
      std::vector<hypothesis> grown;
      for (const hypothesis& h : live_[q]) {
        const auto next =
            logits.subspan(static_cast<std::size_t>(row * vocabulary), static_cast<std::size_t>(vocabulary));
        log_softmax(next);
        for (const std::int32_t token : largest(next, options_.beams + 1)) {
          hypothesis more = h;
          more.parent = row;
          more.log_probability += next[static_cast<std::size_t>(token)];
          more.tokens.push_back(token);
          grown.push_back(std::move(more));
        }
        ++row;
      }
      std::stable_sort(grown.begin(), grown.end(),
                       [](const hypothesis& a, const hypothesis& b) { return a.log_probability > b.log_probability; });
      live_[q].clear();
      for (hypothesis& h : grown) {
        if (static_cast<index>(live_[q].size() + done_[q].size()) >= options_.beams) break;
        const bool ended = h.tokens.back() == end_;
        if (ended || static_cast<index>(h.tokens.size()) >= lengths_[q]) {
          done_[q].push_back(std::move(h));
        } else {
          live_[q].push_back(std::move(h));
        }
      }
    }
  }

  std::vector<hypothesis> all() const {
    std::vector<hypothesis> flat;
    for (const auto& of_text : live_) flat.insert(flat.end(), of_text.begin(), of_text.end());
    return flat;
  }

  std::vector<generated_text> best() const {
    std::vector<generated_text> result;
    for (const auto& finished : done_) {
      const auto top =
          std::max_element(finished.begin(), finished.end(), [&](const hypothesis& a, const hypothesis& b) {
            return score_of(a, options_.length_penalty) < score_of(b, options_.length_penalty);
          });
      generated_text text{top->tokens, score_of(*top, options_.length_penalty)};
      if (!text.tokens.empty() && text.tokens.back() == end_) text.tokens.pop_back();
      result.push_back(std::move(text));
    }
    return result;
  }

 private:
  generation_options options_;
  std::int32_t end_;
  std::vector<index> lengths_;
  std::vector<std::vector<hypothesis>> live_, done_;
};

}  // namespace detail

/// The most probable continuation of each of the Q prompts, found greedily or with a beam. An answer is cut where it
/// and its prompt would exceed the model's text length.
template <tensor_backend B>
std::vector<generated_text> generate(B& b, const image_text_model<B>& model, const token_batch& images,
                                     const text_batch& prompts, std::int32_t end, const generation_options& o = {}) {
  const text_config& c = model.config().text;
  require(o.beams > 0 && o.length > 0 && o.beams < c.vocabulary, "generate: ", o.beams, " beams and ", o.length,
          " tokens, expected more than 0 and fewer beams than the ", c.vocabulary, " tokens");
  std::vector<index> lengths;
  for (index q = 0; q < prompts.texts(); ++q) {
    const index used = prompts.offsets[static_cast<std::size_t>(q + 1)] - prompts.offsets[static_cast<std::size_t>(q)];
    require(used < c.length, "generate: prompt ", q, " has ", used, " tokens and leaves no room in ", c.length);
    lengths.push_back(std::min(o.length, c.length - used));
  }
  cached_decoder<B> decoder(b, model);
  detail::beam_search search(std::move(lengths), o, end);
  auto logits = decoder.read(images, prompts);
  search.grow(logits, c.vocabulary);
  std::vector<index> picture_of;
  for (index s = 0; s < prompts.pictures(); ++s) {
    picture_of.resize(static_cast<std::size_t>(prompts.images[static_cast<std::size_t>(s + 1)]), s);
  }
  for (auto live = search.all(); !live.empty(); live = search.all()) {
    std::vector<std::int32_t> tokens;
    std::vector<index> parents, per_picture(static_cast<std::size_t>(prompts.pictures()), 0);
    for (const auto& h : live) {
      tokens.push_back(h.tokens.back());
      parents.push_back(h.parent);
      ++per_picture[static_cast<std::size_t>(picture_of[static_cast<std::size_t>(h.text)])];
    }
    logits = decoder.step(tokens, parents, per_picture);
    search.grow(logits, c.vocabulary);
  }
  return search.best();
}

}  // namespace core_tokensets

// ==== core_tokensets/model/vit_weights.hpp ====
// Weights in and out as safetensors under timm's names; the configuration is read off the shapes where it can be.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>


namespace core_tokensets {

/// What shapes cannot tell. The file's metadata `config` is used where these are empty; without either, the number of
/// heads is an error and the image is taken to be square.
struct vit_hints {
  std::optional<index> heads;
  std::optional<image_shape> image;
  std::uint64_t seed = 0;  ///< of what is not in the file: rows that the head gains later
};

namespace detail {

/// The number `key` of the JSON text in the file's metadata `config`, or `fallback` where there is none. `Error`: it is
/// not from `low` to `high`.
inline double config_number(const tensor_file& file, const char* key, double fallback, double low, double high) {
  const auto found = file.metadata.find("config");
  if (found == file.metadata.end()) return fallback;
  const auto config = parse_json(found->second);
  if (!config.is_object() || !config.contains(key) || !config[key].is_number()) return fallback;
  const double value = config[key].get<double>();
  require(value >= low && value <= high, file.path, ": '", key, "' in the metadata 'config' is ", value, ", expected ",
          low, " to ", high);
  return value;
}

}  // namespace detail

/// What all models have: named parameters in one array.
template <class Model, class B>
concept model_on = requires(Model& model, const Model& constant) {
  { model.parameters() } -> std::same_as<tensor<B>&>;
  { constant.layout().parameters } -> std::convertible_to<const parameter_layout&>;
};

/// The configuration of the model stored in `file`. Throws with the name of what is missing or does not fit.
inline vit_config read_config(const tensor_file& file, const vit_hints& hints = {}) {
  const auto shape = [&](const std::string& name, std::size_t rank) {
    const auto& s = file.at(name).shape;
    require(s.size() == rank && std::all_of(s.begin(), s.end(), [](index n) { return n > 0; }), file.path, ": '", name,
            "' has shape ", shape_text(s), ", expected ", rank, " dimensions that are not 0");
    return s;
  };
  constexpr double most = 1 << 20;
  const auto whole = [&](const char* key, index fallback) {
    return static_cast<index>(detail::config_number(file, key, static_cast<double>(fallback), 1, most));
  };
  vit_config c;
  c.seed = hints.seed;
  const auto proj = shape("patch_embed.proj.weight", 4), positions = shape("pos_embed", 3),
             head = shape("head.weight", 2), fc1 = shape("blocks.0.mlp.fc1.weight", 2);
  require(proj[2] == proj[3], file.path, ": 'patch_embed.proj.weight' has patches of ", proj[2], "x", proj[3],
          ", expected square ones");
  c.dim = proj[0];
  c.patch = proj[2];
  c.classes = head[0];
  c.mlp_ratio = static_cast<double>(fc1[0]) / static_cast<double>(c.dim);
  c.qkv_bias = file.contains("blocks.0.attn.qkv.bias");
  const auto has_block = [&](index i) {
    const auto next = file.arrays.lower_bound("blocks." + std::to_string(i) + ".");
    return next != file.arrays.end() && next->first.starts_with("blocks." + std::to_string(i) + ".");
  };
  for (c.depth = 0; has_block(c.depth);) ++c.depth;

  const index patches = positions[1] - 1;
  const auto side = std::max<index>(1, std::llround(std::sqrt(static_cast<double>(patches)))) * c.patch;
  c.image = hints.image.value_or(image_shape{whole("H", side), whole("W", side), proj[1]});
  c.image.channels = proj[1];
  c.layer_norm_eps =
      detail::config_number(file, "layernorm_eps", detail::config_number(file, "layer_norm_eps", 1e-6, 0, 1), 0, 1);
  c.heads = whole("heads", 0);
  require(!hints.heads || c.heads == 0 || c.heads == *hints.heads, file.path, ": the metadata 'config' say ", c.heads,
          " heads, asked for are ", hints.heads.value_or(0));
  c.heads = hints.heads.value_or(c.heads);
  require(c.heads >= 1, file.path, ": the number of heads does not follow from the shapes; name it (--heads)");
  require(c.dim % c.heads == 0, file.path, ": ", c.dim, " channels do not divide into ", c.heads, " heads");
  require(c.patches() == patches, file.path, ": 'pos_embed' has places for ", patches, " patches, an image of ",
          c.image.height, "x", c.image.width, " has ", c.patches(), "; name the image size");
  check(c);
  return c;
}

/// Copies the arrays of `file` into a model. Every parameter must be there with its shape, and nothing else.
template <tensor_backend B, model_on<B> Model>
void load_parameters(B& b, Model& model, const tensor_file& file) {
  using T = typename B::scalar;
  const parameter_layout& layout = model.layout().parameters;
  std::vector<T> values(static_cast<std::size_t>(layout.size()), T(0));
  for (const parameter& p : layout.table()) {
    const host_array& array = file.at(p.name);
    require(array.shape == p.shape, file.path, ": '", p.name, "' has shape ", shape_text(array.shape), ", expected ",
            shape_text(p.shape));
    const auto numbers = array.template as<T>();
    for (const T x : numbers)
      require(std::isfinite(x), file.path, ": '", p.name, "' holds a number that is not finite");
    std::copy(numbers.begin(), numbers.end(), values.begin() + p.where.offset);
  }
  for (const auto& entry : file.arrays) {
    const std::string& name = entry.first;
    const bool known =
        std::any_of(layout.table().begin(), layout.table().end(), [&](auto& p) { return p.name == name; });
    require(known, file.path, ": array '", name, "' is no parameter of the model that the others make");
  }
  model.parameters().assign(b, 1, layout.size(), values.data());
}

/// The model stored in a file.
template <tensor_backend B>
vit<B> load_vit(B& b, const tensor_file& file, const vit_hints& hints = {}) {
  vit<B> model(b, read_config(file, hints));
  load_parameters(b, model, file);
  return model;
}

template <tensor_backend B>
vit<B> load_vit(B& b, const std::filesystem::path& path, const vit_hints& hints = {}) {
  return load_vit(b, load_safetensors(path), hints);
}

/// An array laid out like the parameters (they themselves, or their gradients) as named arrays; `prefix` goes before
/// each name.
template <tensor_backend B, model_on<B> Model>
void put_parameters(B& b, const Model& model, const tensor<B>& values, const std::string& prefix, tensor_file& file) {
  using T = typename B::scalar;
  const std::vector<T> host = values.to_host(b);
  for (const parameter& p : model.layout().parameters.table()) {
    const std::span<const T> part(host.data() + p.where.offset, static_cast<std::size_t>(p.where.size()));
    file.arrays[prefix + p.name] = host_array::of(part, p.shape);
  }
}

/// What shapes cannot tell, and the rest of a configuration but the classes, as the metadata `config` holds it.
inline nlohmann::json config_json(const vit_config& c) {
  return {{"H", c.image.height},
          {"W", c.image.width},
          {"chans", c.image.channels},
          {"patch", c.patch},
          {"dim", c.dim},
          {"depth", c.depth},
          {"heads", c.heads},
          {"mlp_ratio", c.mlp_ratio},
          {"qkv_bias", c.qkv_bias},
          {"layernorm_eps", c.layer_norm_eps}};
}

/// The model as a file that timm, and `load_vit`, can open.
template <tensor_backend B>
tensor_file to_file(B& b, const vit<B>& model) {
  tensor_file file;
  put_parameters(b, model, model.parameters(), "", file);
  nlohmann::json config = config_json(model.config());
  config["classes"] = model.config().classes;
  file.metadata["config"] = config.dump();
  return file;
}

}  // namespace core_tokensets

// ==== core_tokensets/model/image_text_weights.hpp ====
// Image-text models in and out as safetensors: configuration and free texts (the tokenizer) in the metadata.


namespace core_tokensets {

/// The model as a file; `texts` join its metadata (the tokenizer's JSON under "tokenizer").
template <tensor_backend B>
tensor_file to_file(B& b, const image_text_model<B>& model, const std::map<std::string, std::string>& texts = {}) {
  tensor_file file;
  put_parameters(b, model, model.parameters(), "", file);
  const text_config& t = model.config().text;
  nlohmann::json config = config_json(model.config().image);
  config.update({{"vocabulary", t.vocabulary},
                 {"text_length", t.length},
                 {"text_dim", t.dim},
                 {"text_depth", t.depth},
                 {"text_heads", t.heads},
                 {"text_mlp_ratio", t.mlp_ratio},
                 {"tied", t.tied}});
  file.metadata = texts;
  file.metadata["kind"] = "image_text";
  file.metadata["config"] = config.dump();
  return file;
}

/// The configuration in the metadata of `file`. `Error` names what is missing or out of range.
inline image_text_config read_image_text_config(const tensor_file& file) {
  const auto kind = file.metadata.find("kind");
  require(kind != file.metadata.end() && kind->second == "image_text", file.path,
          ": not an image-text model (metadata 'kind' is not 'image_text')");
  constexpr double most = 1 << 20;
  const auto number = [&](const char* key, double low, double high) {
    const double value = detail::config_number(file, key, -1, -1, high);
    require(value >= low, file.path, ": '", key, "' is missing from the metadata 'config' or below ", low);
    return value;
  };
  const auto whole = [&](const char* key) { return static_cast<index>(number(key, 1, most)); };
  image_text_config c;
  c.image = {.image = {whole("H"), whole("W"), whole("chans")},
             .patch = whole("patch"),
             .dim = whole("dim"),
             .depth = whole("depth"),
             .heads = whole("heads"),
             .mlp_ratio = number("mlp_ratio", 1e-3, 1024),
             .qkv_bias = file.contains("encoder.blocks.0.attn.qkv.bias"),
             .layer_norm_eps = number("layernorm_eps", 0, 1)};
  c.text = {.vocabulary = whole("vocabulary"),
            .length = whole("text_length"),
            .dim = whole("text_dim"),
            .depth = whole("text_depth"),
            .heads = whole("text_heads"),
            .mlp_ratio = number("text_mlp_ratio", 1e-3, 1024),
            .tied = !file.contains("decoder.output.weight")};
  check(c);
  return c;
}

/// The image-text model stored in a file.
template <tensor_backend B>
image_text_model<B> load_image_text(B& b, const tensor_file& file) {
  image_text_model<B> model(b, read_image_text_config(file));
  load_parameters(b, model, file);
  return model;
}

/// The tokenizer in the metadata of a model's file. `Error`: there is none, or it makes no sense.
inline tokenizer tokenizer_of(const tensor_file& file) {
  const auto found = file.metadata.find("tokenizer");
  require(found != file.metadata.end(), file.path, ": the metadata hold no 'tokenizer'");
  const auto json = parse_json(found->second);
  require(!json.is_discarded(), file.path, ": the metadata 'tokenizer' is not JSON");
  return tokenizer_from_json(json);
}

/// Starts the encoder from a Vision Transformer that was trained elsewhere, under timm's names; its head is left out.
/// `Error`: a parameter of the encoder that is missing or has another shape.
template <tensor_backend B>
void load_encoder(B& b, image_text_model<B>& model, const tensor_file& vit_file) {
  using T = typename B::scalar;
  constexpr std::string_view prefix = "encoder.";
  auto values = model.parameters().to_host(b);
  for (const parameter& p : model.layout().parameters.table()) {
    if (!p.name.starts_with(prefix)) continue;
    const host_array& array = vit_file.at(p.name.substr(prefix.size()));
    require(array.shape == p.shape, vit_file.path, ": '", p.name.substr(prefix.size()), "' has shape ",
            shape_text(array.shape), ", the encoder expects ", shape_text(p.shape));
    const auto numbers = array.template as<T>();
    std::copy(numbers.begin(), numbers.end(), values.begin() + p.where.offset);
  }
  model.parameters().assign(b, 1, model.parameters().size(), values.data());
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/loss.hpp ====
// Cross-entropy with weights per sample, label smoothing, and a choice of classes that compete.

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

struct cross_entropy_options {
  double label_smoothing = 0;  ///< share of the target spread evenly over the competing classes
  /// [S]: sample s competes among classes `first_class[s]` .. K-1 only (asymmetric cross-entropy, ER-ACE, Caccia 2022:
  /// new samples do not push old classes down). Empty: all classes.
  std::span<const std::int32_t> first_class = {};
};

/// The loss of one batch; its memory is reused from batch to batch.
template <tensor_backend B>
struct loss_tape {
  tensor<B> losses;   ///< [S, 1] of each sample, without its weight
  tensor<B> dlogits;  ///< [S, K] gradient of the mean over the batch of weight times loss
  row_list<B> targets, first_class;
  tensor<B> weights;                         ///< [S, 1] or empty
  std::vector<typename B::scalar> on_host_;  ///< weights, then losses, on their way
};

/// logits `[S, K]`, targets `[S]` below K, weights `[S]` or empty, to `tape.losses` and `tape.dlogits`. Throws where a
/// target is not among the competing classes.
template <tensor_backend B, class T = typename B::scalar>
void cross_entropy(B& b, const_view<T> logits, std::span<const std::int32_t> targets, loss_tape<B>& tape,
                   std::span<const float> weights = {}, const cross_entropy_options& options = {}) {
  const index samples = logits.rows, classes = logits.cols;
  const auto fits = [&](std::size_t n) { return static_cast<index>(n) == samples; };
  require(fits(targets.size()) && (weights.empty() || fits(weights.size())) &&
              (options.first_class.empty() || fits(options.first_class.size())),
          "cross_entropy: ", samples, " rows of logits, ", targets.size(), " targets, ", weights.size(), " weights, ",
          options.first_class.size(), " first classes");
  for (std::size_t s = 0; s < targets.size(); ++s) {
    const std::int32_t first = options.first_class.empty() ? 0 : options.first_class[s];
    require(first >= 0 && targets[s] >= first && targets[s] < classes, "cross_entropy: target ", targets[s],
            " of sample ", s, " is not among the classes ", first, " .. ", classes - 1);
  }
  tape.targets.assign(b, targets);
  tape.first_class.assign(b, options.first_class);
  tape.on_host_.assign(weights.begin(), weights.end());
  tape.weights.assign(b, static_cast<index>(weights.size()), 1, tape.on_host_.data());
  tape.losses.resize(b, samples, 1);
  tape.dlogits.resize(b, samples, classes);
  ops::cross_entropy<B, T>(b, logits,
                           {.targets = tape.targets.data(),
                            .first_class = options.first_class.empty() ? nullptr : tape.first_class.data(),
                            .weights = weights.empty() ? nullptr : tape.weights.data(),
                            .label_smoothing = T(options.label_smoothing)},
                           *tape.dlogits, *tape.losses);
}

/// The mean over the batch of weight times loss; waits for the backend. Throws where it is not finite.
template <tensor_backend B>
double mean_loss(B& b, loss_tape<B>& tape, std::span<const float> weights = {}) {
  const index samples = tape.losses.rows();
  tape.on_host_.resize(static_cast<std::size_t>(samples));
  b.download(tape.on_host_.data(), tape.losses.data(), samples);
  double sum = 0;
  for (std::size_t s = 0; s < tape.on_host_.size(); ++s) {
    sum += double(tape.on_host_[s]) * (weights.empty() ? 1.0 : double(weights[s]));
  }
  const double mean = sum / static_cast<double>(samples);
  require(std::isfinite(mean), "cross_entropy: the loss is ", mean,
          "; the learning rate may be too high or the input may hold NaN");
  return mean;
}

}  // namespace core_tokensets

// ==== core_tokensets/nn/optimiser.hpp ====
// AdamW and SGD with momentum over the whole parameter array, gradient clipping, and the cosine schedule.

#include <algorithm>
#include <cmath>
#include <numbers>


namespace core_tokensets {

/// AdamW (Loshchilov & Hutter 2019), decay decoupled and only on matrices. Without decay it is Adam.
struct adamw {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.05;
};

/// SGD: buffer = momentum buffer + g, then p -= lr buffer, or p -= lr (g + momentum buffer) for Nesterov.
/// `weight_decay` is decoupled and only on matrices, as in AdamW; `l2` is PyTorch's coupled decay, g += l2 p on all
/// parameters.
struct sgd {
  double learning_rate = 1e-2, momentum = 0.9, weight_decay = 0, l2 = 0;
  bool nesterov = false;
};

namespace fn {

/// Operands: parameter, moments, gradient, decay mask, factor of the gradient.
template <class T>
struct adamw_update {
  T learning_rate, beta1, beta2, eps, weight_decay, correction1, correction2;
  constexpr void operator()(T& p, T& m, T& v, const T& gradient, const T& decay, const T& factor) const {
    const T g = gradient * factor;
    m = beta1 * m + (T(1) - beta1) * g;
    v = beta2 * v + (T(1) - beta2) * g * g;
    p = p * (T(1) - learning_rate * weight_decay * decay) -
        learning_rate * (m / correction1) / (std::sqrt(v / correction2) + eps);
  }
};

template <class T>
struct sgd_update {
  T learning_rate, momentum, weight_decay, l2;
  bool nesterov;
  constexpr void operator()(T& p, T& buffer, const T& gradient, const T& decay, const T& factor) const {
    const T g = gradient * factor + l2 * p;
    buffer = momentum * buffer + g;
    p = p * (T(1) - learning_rate * weight_decay * decay) - learning_rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

/// factor = min(1, limit / sqrt(sum of squares))
template <class T>
struct clip_factor {
  T limit;
  constexpr void operator()(T& factor, const T& sum) const {
    const T norm = std::sqrt(sum);
    factor = norm > limit ? limit / norm : T(1);
  }
};

}  // namespace fn

/// Moments and step count; saved in checkpoints.
template <tensor_backend B>
struct optimiser_state {
  tensor<B> first, second, decay;
  tensor<B> factor;  ///< [1, 1] what gradients are multiplied by: 1, or less where they are clipped
  index steps = 0;

  /// Zero moments for `layout`.
  void reset(B& b, const parameter_layout& layout) {
    using T = typename B::scalar;
    std::vector<T> mask(static_cast<std::size_t>(layout.size()), T(0));
    for (const parameter& p : layout.table()) {
      if (p.decay) std::fill_n(mask.begin() + p.where.offset, p.where.size(), T(1));
    }
    decay.assign(b, 1, layout.size(), mask.data());
    first.resize(b, 1, layout.size());
    second.resize(b, 1, layout.size());
    factor.resize(b, 1, 1);
    b.fill(*first, T(0));
    b.fill(*second, T(0));
    b.fill(*factor, T(1));
    steps = 0;
  }
};

/// Makes the steps until the next call scale the gradients so that these would have at most the norm `limit`. The
/// factor stays in the backend's memory, so nothing waits for it.
template <tensor_backend B>
void clip_gradients(B& b, const tensor<B>& gradients, double limit, optimiser_state<B>& state) {
  using T = typename B::scalar;
  b.row_reduce(fn::plus{}, fn::square{}, *state.factor, *gradients);
  b.map(fn::clip_factor<T>{T(limit)}, *state.factor, *std::as_const(state.factor));
}

/// One step with the learning rate multiplied by `schedule`.
template <tensor_backend B>
void step(B& b, const adamw& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1) {
  using T = typename B::scalar;
  ++state.steps;
  const double t = static_cast<double>(state.steps);
  b.map(fn::adamw_update<T>{T(o.learning_rate * schedule), T(o.beta1), T(o.beta2), T(o.eps), T(o.weight_decay),
                            T(1 - std::pow(o.beta1, t)), T(1 - std::pow(o.beta2, t))},
        *parameters, *state.first, *state.second, *gradients, *std::as_const(state.decay),
        *std::as_const(state.factor));
}

template <tensor_backend B>
void step(B& b, const sgd& o, optimiser_state<B>& state, tensor<B>& parameters, const tensor<B>& gradients,
          double schedule = 1) {
  using T = typename B::scalar;
  ++state.steps;
  b.map(fn::sgd_update<T>{T(o.learning_rate * schedule), T(o.momentum), T(o.weight_decay), T(o.l2), o.nesterov},
        *parameters, *state.first, *gradients, *std::as_const(state.decay), *std::as_const(state.factor));
}

/// Linear warm-up over `warm_up` steps, then half a cosine down to 0 at `total`. Step 0 is the first.
inline double cosine_schedule(index step, index total, index warm_up) {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  const double done = static_cast<double>(step - warm_up) / static_cast<double>(std::max<index>(1, total - warm_up));
  return 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
}

}  // namespace core_tokensets

// ==== core_tokensets/report/heatmap.hpp ====
// Relevance as a picture: scores of patches become a smooth map over the pixels, then colours, then an overlay.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

using colour = std::array<std::uint8_t, 3>;

/// Colour scales that look evenly spaced and stay readable in grey (van der Walt & Smith, SciPy 2015).
enum class colour_scale { viridis, inferno };

/// Colour of a value in [0, 1], interpolated between samples of the scale; values beyond are clamped, NaN is 0.
inline colour colour_of(double value, colour_scale scale = colour_scale::inferno) {
  static constexpr std::array<colour, 10> viridis{{{0x44, 0x01, 0x54},
                                                   {0x48, 0x28, 0x78},
                                                   {0x3E, 0x4A, 0x89},
                                                   {0x31, 0x68, 0x8E},
                                                   {0x26, 0x82, 0x8E},
                                                   {0x1F, 0x9E, 0x89},
                                                   {0x35, 0xB7, 0x79},
                                                   {0x6D, 0xCD, 0x59},
                                                   {0xB4, 0xDE, 0x2C},
                                                   {0xFD, 0xE7, 0x25}}};
  static constexpr std::array<colour, 10> inferno{{{0x00, 0x00, 0x04},
                                                   {0x1B, 0x0C, 0x41},
                                                   {0x4A, 0x0C, 0x6B},
                                                   {0x78, 0x1C, 0x6D},
                                                   {0xA5, 0x2C, 0x60},
                                                   {0xCF, 0x44, 0x46},
                                                   {0xED, 0x69, 0x25},
                                                   {0xFB, 0x9B, 0x06},
                                                   {0xF7, 0xD1, 0x3D},
                                                   {0xFC, 0xFF, 0xA4}}};
  const auto& samples = scale == colour_scale::viridis ? viridis : inferno;
  const double place = (value > 0 ? std::min(value, 1.0) : 0.0) * 9;
  const auto left = static_cast<std::size_t>(std::min(place, 8.0));
  const double share = place - static_cast<double>(left);
  colour result{};
  for (std::size_t c = 0; c < 3; ++c)
    result[c] = static_cast<std::uint8_t>(std::lround((1 - share) * samples[left][c] + share * samples[left + 1][c]));
  return result;
}

/// Black or white, whichever is easier to read on a background.
inline colour text_colour_on(const colour& background) {
  const double light = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2];
  return light > 140 ? colour{0, 0, 0} : colour{255, 255, 255};
}

/// Values moved and scaled to 0 .. 1; all 0 where they are all equal. `Error`: a value that is not finite.
inline std::vector<double> min_max(std::span<const double> values) {
  for (const double v : values) require(std::isfinite(v), "min_max: a value is not finite (", v, ")");
  std::vector<double> result(values.size(), 0.0);
  if (values.empty()) return result;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*high > *low) {
    const double from = *low, range = *high - *low;
    std::transform(values.begin(), values.end(), result.begin(), [=](double v) { return (v - from) / range; });
  }
  return result;
}

/// Scores of a grid [rows, columns] at the pixels [height, width]: bilinear, centres at half integers, edges clamped.
inline std::vector<double> upsample(std::span<const double> scores, index rows, index columns, index height,
                                    index width) {
  require(rows > 0 && columns > 0 && height > 0 && width > 0 && static_cast<index>(scores.size()) == rows * columns,
          "upsample: ", scores.size(), " scores as a grid of ", rows, " x ", columns, " to ", height, " x ", width);
  struct place {
    index low, high;
    double share;
  };
  const auto place_of = [](index i, index from, index to) {
    const double centre = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const double inside = std::clamp(centre, 0.0, static_cast<double>(from - 1));
    const auto low = static_cast<index>(inside);
    return place{low, std::min(low + 1, from - 1), inside - static_cast<double>(low)};
  };
  std::vector<place> across;
  for (index x = 0; x < width; ++x) across.push_back(place_of(x, columns, width));
  std::vector<double> result;
  result.reserve(static_cast<std::size_t>(height * width));
  for (index y = 0; y < height; ++y) {
    const auto v = place_of(y, rows, height);
    const double *top = scores.data() + v.low * columns, *bottom = scores.data() + v.high * columns;
    for (const auto& h : across) {
      const double above = (1 - h.share) * top[h.low] + h.share * top[h.high];
      const double below = (1 - h.share) * bottom[h.low] + h.share * bottom[h.high];
      result.push_back((1 - v.share) * above + v.share * below);
    }
  }
  return result;
}

/// The relevance of patches [rows, columns] as values 0 .. 1 of the pixels [height, width]: `upsample`, then `min_max`.
inline std::vector<double> heatmap(std::span<const double> scores, index rows, index columns, index height,
                                   index width) {
  return min_max(upsample(scores, rows, columns, height, width));
}

/// Values 0 .. 1 [height, width] as colours.
inline image colour_map(std::span<const double> values, index height, index width,
                        colour_scale scale = colour_scale::inferno) {
  require(height > 0 && width > 0 && static_cast<index>(values.size()) == height * width, "colour_map: ", values.size(),
          " values, expected ", height, " x ", width);
  image result(height, width, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto rgb = colour_of(values[i], scale);
    std::copy(rgb.begin(), rgb.end(), result.pixels.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return result;
}

/// How a heat map lies on its picture: its share of the colour where relevance is 0 and where it is 1.
struct overlay_options {
  double least = 0.35, most = 0.75;
  colour_scale scale = colour_scale::inferno;
};

/// The picture (grey or colour) under the relevance of its patches [rows, columns].
inline image overlay(const image_view& picture, std::span<const double> scores, index rows, index columns,
                     const overlay_options& options = {}) {
  image result = grey_to_rgb(picture);
  const auto values = heatmap(scores, rows, columns, picture.height, picture.width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto rgb = colour_of(values[i], options.scale);
    const double share = options.least + (options.most - options.least) * values[i];
    for (std::size_t c = 0; c < 3; ++c) {
      auto& pixel = result.pixels[3 * i + c];
      pixel = static_cast<std::uint8_t>(std::lround((1 - share) * pixel + share * rgb[c]));
    }
  }
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/report/font.hpp ====
// A font of 5 x 7 dots, and one more below the line, for captions in pictures: the printable ASCII characters, drawn
// for this library.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>


namespace core_tokensets {

/// Width and height of a character's cell, an empty column included, at scale 1.
inline constexpr index glyph_width = 6, glyph_height = 8;

namespace detail {

/// Five columns a character from ' ' to '~'; bit 0 is the top dot.
inline constexpr std::array<std::array<std::uint8_t, 5>, 95> glyphs{{
    // clang-format off
    {0x00, 0x00, 0x00, 0x00, 0x00}, {0x00, 0x00, 0x5F, 0x00, 0x00}, {0x00, 0x03, 0x00, 0x03, 0x00},
    {0x14, 0x7F, 0x14, 0x7F, 0x14}, {0x24, 0x2A, 0x7F, 0x2A, 0x12}, {0x63, 0x13, 0x08, 0x64, 0x63},
    {0x36, 0x49, 0x55, 0x22, 0x50}, {0x00, 0x00, 0x03, 0x00, 0x00}, {0x00, 0x1C, 0x22, 0x41, 0x00},
    {0x00, 0x41, 0x22, 0x1C, 0x00}, {0x14, 0x08, 0x3E, 0x08, 0x14}, {0x08, 0x08, 0x3E, 0x08, 0x08},
    {0x00, 0x40, 0x20, 0x00, 0x00}, {0x08, 0x08, 0x08, 0x08, 0x08}, {0x00, 0x00, 0x60, 0x00, 0x00},
    {0x60, 0x10, 0x08, 0x04, 0x03}, {0x3E, 0x51, 0x49, 0x45, 0x3E}, {0x00, 0x42, 0x7F, 0x40, 0x00},
    {0x42, 0x61, 0x51, 0x49, 0x46}, {0x41, 0x49, 0x49, 0x49, 0x36}, {0x18, 0x14, 0x12, 0x7F, 0x10},
    {0x27, 0x45, 0x45, 0x45, 0x39}, {0x3C, 0x4A, 0x49, 0x49, 0x30}, {0x01, 0x01, 0x79, 0x05, 0x03},
    {0x36, 0x49, 0x49, 0x49, 0x36}, {0x06, 0x49, 0x49, 0x29, 0x1E}, {0x00, 0x00, 0x24, 0x00, 0x00},
    {0x00, 0x40, 0x24, 0x00, 0x00}, {0x08, 0x14, 0x22, 0x41, 0x00}, {0x14, 0x14, 0x14, 0x14, 0x14},
    {0x00, 0x41, 0x22, 0x14, 0x08}, {0x02, 0x01, 0x51, 0x09, 0x06}, {0x3E, 0x41, 0x5D, 0x55, 0x1E},
    {0x7E, 0x09, 0x09, 0x09, 0x7E}, {0x7F, 0x49, 0x49, 0x49, 0x36}, {0x3E, 0x41, 0x41, 0x41, 0x41},
    {0x7F, 0x41, 0x41, 0x41, 0x3E}, {0x7F, 0x49, 0x49, 0x49, 0x41}, {0x7F, 0x09, 0x09, 0x09, 0x01},
    {0x3E, 0x41, 0x49, 0x49, 0x79}, {0x7F, 0x08, 0x08, 0x08, 0x7F}, {0x00, 0x41, 0x7F, 0x41, 0x00},
    {0x20, 0x40, 0x41, 0x3F, 0x01}, {0x7F, 0x08, 0x14, 0x22, 0x41}, {0x7F, 0x40, 0x40, 0x40, 0x40},
    {0x7F, 0x02, 0x0C, 0x02, 0x7F}, {0x7F, 0x02, 0x0C, 0x10, 0x7F}, {0x3E, 0x41, 0x41, 0x41, 0x3E},
    {0x7F, 0x09, 0x09, 0x09, 0x06}, {0x3E, 0x41, 0x51, 0x21, 0x5E}, {0x7F, 0x09, 0x19, 0x29, 0x46},
    {0x46, 0x49, 0x49, 0x49, 0x31}, {0x01, 0x01, 0x7F, 0x01, 0x01}, {0x3F, 0x40, 0x40, 0x40, 0x3F},
    {0x0F, 0x30, 0x40, 0x30, 0x0F}, {0x7F, 0x20, 0x18, 0x20, 0x7F}, {0x63, 0x14, 0x08, 0x14, 0x63},
    {0x03, 0x04, 0x78, 0x04, 0x03}, {0x61, 0x51, 0x49, 0x45, 0x43}, {0x00, 0x7F, 0x41, 0x41, 0x00},
    {0x03, 0x04, 0x08, 0x10, 0x60}, {0x00, 0x41, 0x41, 0x7F, 0x00}, {0x04, 0x02, 0x01, 0x02, 0x04},
    {0x40, 0x40, 0x40, 0x40, 0x40}, {0x00, 0x01, 0x02, 0x00, 0x00}, {0x20, 0x54, 0x54, 0x54, 0x78},
    {0x7F, 0x44, 0x44, 0x44, 0x38}, {0x38, 0x44, 0x44, 0x44, 0x44}, {0x38, 0x44, 0x44, 0x44, 0x7F},
    {0x38, 0x54, 0x54, 0x54, 0x58}, {0x04, 0x7E, 0x05, 0x05, 0x00}, {0x10, 0xA8, 0xA8, 0xA8, 0x78},
    {0x7F, 0x04, 0x04, 0x04, 0x78}, {0x00, 0x44, 0x7D, 0x40, 0x00}, {0x40, 0x80, 0x84, 0x7D, 0x00},
    {0x7F, 0x10, 0x28, 0x44, 0x00}, {0x00, 0x41, 0x7F, 0x40, 0x00}, {0x7C, 0x04, 0x78, 0x04, 0x78},
    {0x7C, 0x04, 0x04, 0x04, 0x78}, {0x38, 0x44, 0x44, 0x44, 0x38}, {0xF8, 0x28, 0x28, 0x28, 0x10},
    {0x10, 0x28, 0x28, 0x28, 0xF8}, {0x7C, 0x08, 0x04, 0x04, 0x00}, {0x48, 0x54, 0x54, 0x54, 0x24},
    {0x04, 0x3F, 0x44, 0x44, 0x00}, {0x3C, 0x40, 0x40, 0x40, 0x7C}, {0x1C, 0x20, 0x40, 0x20, 0x1C},
    {0x3C, 0x40, 0x38, 0x40, 0x3C}, {0x44, 0x28, 0x10, 0x28, 0x44}, {0x18, 0xA0, 0xA0, 0xA0, 0x78},
    {0x44, 0x64, 0x54, 0x4C, 0x44}, {0x00, 0x08, 0x36, 0x41, 0x41}, {0x00, 0x00, 0x7F, 0x00, 0x00},
    {0x41, 0x41, 0x36, 0x08, 0x00}, {0x08, 0x04, 0x08, 0x10, 0x08}
    // clang-format on
}};

}  // namespace detail

/// Width in pixels of a line of text.
inline index text_width(std::string_view text, index scale = 1) {
  return static_cast<index>(text.size()) * glyph_width * scale;
}

/// Writes a line of text with its upper left corner at (y, x); dots outside of the picture are left out, other
/// characters than printable ASCII become '?'. `rgb`: one value a channel of the picture, at most 3.
inline void draw_text(image& picture, std::string_view text, index y, index x, const std::array<std::uint8_t, 3>& rgb,
                      index scale = 1) {
  for (const char c : text) {
    const char known = c >= ' ' && c <= '~' ? c : '?';
    const auto& glyph = detail::glyphs[static_cast<std::size_t>(known - ' ')];
    for (index dot = 0; dot < 5 * 8 * scale * scale; ++dot) {
      const index dx = dot % (5 * scale), dy = dot / (5 * scale);
      if ((glyph[static_cast<std::size_t>(dx / scale)] >> (dy / scale) & 1) == 0) continue;
      if (y + dy < 0 || y + dy >= picture.height || x + dx < 0 || x + dx >= picture.width) continue;
      auto* pixel = picture.at(y + dy, x + dx);
      for (index k = 0; k < picture.channels && k < 3; ++k) pixel[k] = rgb[static_cast<std::size_t>(k)];
    }
    x += glyph_width * scale;
  }
}

}  // namespace core_tokensets

// ==== core_tokensets/report/mosaic.hpp ====
// Contact sheets: many small pictures with captions on one, and pictures of which only the kept patches are seen.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// The picture with only the kept patches: `positions` are grid indices, row-major, of squares of `patch` pixels; what
/// is missing becomes a quiet grey, checked by patch. `Error`: a patch that does not divide the picture, a position
/// outside.
inline image kept_patches(const image_view& picture, index patch, std::span<const std::int32_t> positions) {
  require(patch > 0 && picture.height % patch == 0 && picture.width % patch == 0, "kept_patches: patches of ", patch,
          " pixels in a picture of ", picture.height, " x ", picture.width);
  const image from = grey_to_rgb(picture);
  const index columns = from.width / patch, rows = from.height / patch;
  image result(from.height, from.width, 3);
  for (index y = 0; y < from.height; ++y) {
    for (index x = 0; x < from.width; ++x)
      std::fill_n(result.at(y, x), 3, std::uint8_t((y / patch + x / patch) % 2 == 0 ? 214 : 206));
  }
  for (const auto position : positions) {
    require(position >= 0 && position < rows * columns, "kept_patches: position ", position, ", expected 0 to ",
            rows * columns - 1);
    const index top = position / columns * patch, left = position % columns * patch;
    for (index y = top; y < top + patch; ++y) std::copy_n(from.at(y, left), 3 * patch, result.at(y, left));
  }
  return result;
}

/// The picture `times` as large, every pixel a square.
inline image enlarge(const image_view& picture, index times) {
  require(times > 0, "enlarge: ", times, " times, expected 1 or more");
  image result(picture.height * times, picture.width * times, picture.channels);
  for (index y = 0; y < result.height; ++y) {
    for (index x = 0; x < result.width; ++x)
      std::copy_n(picture.at(y / times, x / times), picture.channels, result.at(y, x));
  }
  return result;
}

/// A picture of a contact sheet, its caption below it and a frame around it where a colour is given.
struct sheet_cell {
  image picture;
  std::string caption = {};
  std::optional<std::array<std::uint8_t, 3>> border = {};
};

/// How a contact sheet is laid out. `zoom` enlarges the pictures, `text` the captions; lengths in pixels.
struct sheet_options {
  index columns = 8, margin = 6, border = 2, zoom = 1, text = 1;
  std::string title = {};
  std::array<std::uint8_t, 3> background{250, 250, 248}, ink{40, 40, 44};
};

/// All cells on one picture, row by row; cells are as large as the largest. Captions are cut, with "..", to the width
/// of a cell. `Error`: no cells, lengths that are not positive, a picture that is neither grey nor colour.
inline image contact_sheet(std::span<const sheet_cell> cells, const sheet_options& options = {}) {
  require(!cells.empty(), "contact sheet: no pictures");
  require(options.columns > 0 && options.zoom > 0 && options.text > 0 && options.margin >= 0 && options.border >= 0,
          "contact sheet: ", options.columns, " columns, zoom ", options.zoom, ", text ", options.text, ", margin ",
          options.margin, ", border ", options.border, ", expected positive numbers");
  const auto count = static_cast<index>(cells.size());
  const index columns = std::min(options.columns, count), rows = (count + columns - 1) / columns;
  index height = 0, width = 0;
  bool captions = false, borders = false;
  for (const auto& cell : cells) {
    height = std::max(height, cell.picture.height * options.zoom);
    width = std::max(width, cell.picture.width * options.zoom);
    captions = captions || !cell.caption.empty();
    borders = borders || cell.border;
  }
  const index frame = borders ? options.border : 0;
  const index line = glyph_height * options.text, below = captions ? line + 2 : 0;
  const index head = options.title.empty() ? 0 : 2 * line + options.margin;
  const index cell_height = height + 2 * frame + below + options.margin,
              cell_width = width + 2 * frame + options.margin;
  const auto fit = [&](std::string text, index space, index scale) {
    if (text_width(text, scale) <= space) return text;
    const auto room = static_cast<std::size_t>(std::max<index>(space / (glyph_width * scale) - 2, 0));
    text.resize(std::min(room, text.size()));
    return text + "..";
  };

  image sheet(options.margin + head + rows * cell_height, options.margin + columns * cell_width, 3);
  for (std::size_t i = 0; i < sheet.pixels.size(); ++i) sheet.pixels[i] = options.background[i % 3];
  draw_text(sheet, fit(options.title, sheet.width - 2 * options.margin, 2 * options.text), options.margin,
            options.margin, options.ink, 2 * options.text);
  for (index i = 0; i < count; ++i) {
    const auto& cell = cells[static_cast<std::size_t>(i)];
    const image picture = enlarge(grey_to_rgb(cell.picture), options.zoom);
    const index top = options.margin + head + i / columns * cell_height;
    const index left = options.margin + i % columns * cell_width;
    const index y0 = top + frame + (height - picture.height) / 2, x0 = left + frame + (width - picture.width) / 2;
    if (cell.border) {
      for (index y = y0 - frame; y < y0 + picture.height + frame; ++y) {
        for (index x = x0 - frame; x < x0 + picture.width + frame; ++x)
          std::copy(cell.border->begin(), cell.border->end(), sheet.at(y, x));
      }
    }
    for (index y = 0; y < picture.height; ++y) std::copy_n(picture.at(y, 0), 3 * picture.width, sheet.at(y0 + y, x0));
    draw_text(sheet, fit(cell.caption, cell_width, options.text), top + 2 * frame + height + 2, left + frame,
              options.ink, options.text);
  }
  return sheet;
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/evidence.hpp ====
// What a selector knows of the samples: the two factors of each sample's last-layer gradient, and its class. The
// gradient itself, K (d + 1) numbers a sample, is never formed.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>


namespace core_tokensets {

/// Last-layer gradients of n samples, factored: the gradient of the cross-entropy of sample i with respect to the
/// head's bias is delta_i = softmax - onehot, with respect to its weight the outer product delta_i h_i^T, h_i being the
/// class-token feature before the head. So <g_i, g_j> = (delta_i . delta_j) (h_i . h_j + 1).
///
/// A sample may have several outputs (the tokens of an answer): then its gradient is the mean over its rows of `delta`
/// and `feature`, R in all.
struct evidence {
  index samples = 0, classes = 0, features = 0;
  std::vector<double> delta;         ///< [R, K]
  std::vector<float> feature;        ///< [R, d]
  std::vector<std::int32_t> labels;  ///< [n] class of each sample, or group, by which budgets are divided
  std::vector<index> rows = {};      ///< [n + 1] sample i has the rows rows[i] .. rows[i + 1]; empty: one each
  /// A gradient `[K] + [K, d]` (bias, then weight) that the chosen samples shall sum up to, as of a validation set;
  /// empty: the mean over the samples themselves.
  std::vector<double> target;

  index first_row(index i) const { return rows.empty() ? i : rows[static_cast<std::size_t>(i)]; }
  index all_rows() const { return rows.empty() ? samples : rows.back(); }
  /// Calls `visit(delta [K], feature [d], share)` for the rows of sample i; shares add up to 1.
  template <class Visit>
  void for_each_row(index i, const Visit& visit) const {
    const index begin = first_row(i), end = first_row(i + 1);
    for (index r = begin; r < end; ++r)
      visit(delta.data() + r * classes, feature.data() + r * features, 1.0 / static_cast<double>(end - begin));
  }
  /// Length of a gradient: K (d + 1).
  index gradient_size() const { return classes * (features + 1); }
};

/// Evidence from the model's outputs: logits `[R, K]`, features `[R, d]` below the head and targets `[R]`. Without
/// `rows` each row is a sample and its target is its label; with them, `labels` `[n]` are the samples' groups. `Error`
/// unless the sizes agree.
inline evidence make_evidence(std::span<const float> logits, std::span<const float> feature,
                              std::span<const std::int32_t> targets, index classes, std::vector<index> rows = {},
                              std::span<const std::int32_t> labels = {}) {
  const auto all = static_cast<index>(targets.size());
  require(all > 0 && classes > 0, "evidence: ", all, " samples of ", classes,
          " classes, expected at least one of each");
  require(static_cast<index>(logits.size()) == all * classes, "evidence: ", logits.size(), " logits, expected ", all,
          " x ", classes);
  require(!feature.empty() && static_cast<index>(feature.size()) % all == 0, "evidence: ", feature.size(),
          " feature values, expected a multiple of ", all, " samples");
  if (rows.empty()) labels = targets;
  evidence e{.samples = static_cast<index>(labels.size()),
             .classes = classes,
             .features = static_cast<index>(feature.size()) / all,
             .delta = std::vector<double>(logits.begin(), logits.end()),
             .feature = {feature.begin(), feature.end()},
             .labels = {labels.begin(), labels.end()},
             .rows = std::move(rows),
             .target = {}};
  for (index i = 0; i < all; ++i) {
    double* row = e.delta.data() + i * classes;
    const index wanted = targets[static_cast<std::size_t>(i)];
    require(wanted >= 0 && wanted < classes, "evidence: label ", wanted, " of sample ", i, ", expected 0 to ",
            classes - 1);
    const double top = *std::max_element(row, row + classes);
    double sum = 0;
    for (index c = 0; c < classes; ++c) sum += row[c] = std::exp(row[c] - top);
    for (index c = 0; c < classes; ++c) row[c] /= sum;
    row[wanted] -= 1;
  }
  return e;
}

/// `Error` that names what is wrong: no samples, sizes that disagree, labels out of range, values that are not finite.
inline void check(const evidence& e) {
  require(e.samples > 0 && e.classes > 0 && e.features > 0, "evidence: ", e.samples, " samples, ", e.classes,
          " classes, ", e.features, " features, expected at least one of each");
  const auto length = [](const char* name, std::size_t got, index want) {
    require(static_cast<index>(got) == want, "evidence: ", name, " has ", got, " values, expected ", want);
  };
  if (!e.rows.empty()) {
    length("rows", e.rows.size(), e.samples + 1);
    for (index i = 0; i < e.samples; ++i)
      require(e.first_row(i) < e.first_row(i + 1) && e.rows.front() == 0, "evidence: sample ", i, " has no rows");
  }
  length("delta", e.delta.size(), e.all_rows() * e.classes);
  length("feature", e.feature.size(), e.all_rows() * e.features);
  length("labels", e.labels.size(), e.samples);
  if (!e.target.empty()) length("target", e.target.size(), e.gradient_size());
  const auto finite = [&e](const char* name, const auto& values, index width) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      require(std::isfinite(values[i]), "evidence: ", name, e.rows.empty() ? " of sample " : " of row ",
              static_cast<index>(i) / width, " is not finite (", values[i], ")");
    }
  };
  finite("delta", e.delta, e.classes);
  finite("feature", e.feature, e.features);
  finite("target", e.target, e.gradient_size());
  for (index i = 0; i < e.samples; ++i) {
    const index label = e.labels[static_cast<std::size_t>(i)];
    require(label >= 0 && label < e.classes, "evidence: label ", label, " of sample ", i, ", expected 0 to ",
            e.classes - 1);
  }
}

namespace detail {

/// Inner product in 16 running sums: compilers make vector instructions of it without reordering anything.
template <class Sum, class A, class B>
Sum dot(const A* a, const B* b, index n) {
  constexpr index lanes = 16;
  Sum sums[lanes] = {};
  index i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (index l = 0; l < lanes; ++l) sums[l] += static_cast<Sum>(a[i + l]) * static_cast<Sum>(b[i + l]);
  }
  Sum total = 0;
  for (; i < n; ++i) total += static_cast<Sum>(a[i]) * static_cast<Sum>(b[i]);
  for (index l = 0; l < lanes; ++l) total += sums[l];
  return total;
}

}  // namespace detail

/// <g_i, g_j> = (delta_i . delta_j) (h_i . h_j + 1), in double precision.
inline double inner(const evidence& e, index i, index j) {
  double total = 0;
  e.for_each_row(i, [&](const double* delta, const float* h, double share) {
    e.for_each_row(j, [&](const double* other_delta, const float* other_h, double other_share) {
      total += share * other_share * detail::dot<double>(delta, other_delta, e.classes) *
               (detail::dot<double>(h, other_h, e.features) + 1);
    });
  });
  return total;
}

/// Inner products of all `rows` with all `columns`, [rows, columns].
inline std::vector<double> gram_block(const evidence& e, std::span<const index> rows, std::span<const index> columns) {
  std::vector<double> block(rows.size() * columns.size());
  parallel_for(0, static_cast<index>(rows.size()), [&](index r) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      block[static_cast<std::size_t>(r) * columns.size() + c] = inner(e, rows[static_cast<std::size_t>(r)], columns[c]);
    }
  });
  return block;
}

/// Sum of the gradients of `members`, `[K] + [K, d]`. Summed in the order of `members`.
inline std::vector<double> gradient_sum(const evidence& e, std::span<const index> members) {
  std::vector<double> sum(static_cast<std::size_t>(e.gradient_size()));
  parallel_for(0, e.classes, [&](index c) {
    double* row = sum.data() + e.classes + c * e.features;
    for (const index i : members) {
      e.for_each_row(i, [&](const double* delta, const float* h, double share) {
        const double factor = share * delta[c];
        sum[static_cast<std::size_t>(c)] += factor;
        for (index f = 0; f < e.features; ++f) row[f] += factor * static_cast<double>(h[f]);
      });
    }
  });
  return sum;
}

/// Mean of the gradients of `members`, at least one.
inline std::vector<double> gradient_mean(const evidence& e, std::span<const index> members) {
  require(!members.empty(), "evidence: the mean gradient of no samples");
  auto mean = gradient_sum(e, members);
  for (double& value : mean) value /= static_cast<double>(members.size());
  return mean;
}

/// <g_i, gradient> = delta_i . (gradient's bias + gradient's weight h_i) for all `members`.
inline std::vector<double> inner_with(const evidence& e, std::span<const index> members,
                                      std::span<const double> gradient) {
  require(static_cast<index>(gradient.size()) == e.gradient_size(), "gradient of ", gradient.size(),
          " values, expected ", e.gradient_size());
  std::vector<double> result(members.size());
  parallel_chunks(0, static_cast<index>(members.size()), 64, [&](index begin, index end) {
    for (index m = begin; m < end; ++m) {
      const index i = members[static_cast<std::size_t>(m)];
      double total = 0;
      e.for_each_row(i, [&](const double* delta, const float* h, double share) {
        for (index c = 0; c < e.classes; ++c) {
          const double* weight = gradient.data() + e.classes + c * e.features;
          total +=
              share * delta[c] * (gradient[static_cast<std::size_t>(c)] + detail::dot<double>(weight, h, e.features));
        }
      });
      result[static_cast<std::size_t>(m)] = total;
    }
  });
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/train/answering.hpp ====
// A trained image-text model on samples: the answers that it writes, and what selection needs to know of each sample.


namespace core_tokensets {

namespace detail {

/// Calls `body(part)` for pieces of the pictures.
template <class Body>
void for_pictures(std::span<const index> pictures, index batch_size, const Body& body) {
  for (std::size_t begin = 0; begin < pictures.size(); begin += static_cast<std::size_t>(batch_size)) {
    body(pictures.subspan(begin, std::min(static_cast<std::size_t>(batch_size), pictures.size() - begin)));
  }
}

}  // namespace detail

/// What the model writes for the samples `indices` of `data`, in their order, as tokens.
template <tensor_backend B>
std::vector<generated_text> write_tokens(B& b, const image_text_model<B>& model, const tokenizer& words,
                                         const visual_text& data, std::span<const index> indices,
                                         const pixel_normalisation& normalisation, const generation_options& o = {},
                                         index batch_size = 64) {
  const samples_by_picture by_picture(data, indices);
  std::vector<generated_text> of_sample(static_cast<std::size_t>(data.n()));
  detail::for_pictures(by_picture.pictures(), batch_size, [&](std::span<const index> part) {
    text_batch prompts;
    std::vector<index> asked;
    for (const index picture : part) {
      prompts.next_picture();
      for (const index i : by_picture.of(picture)) {
        prompts.append_prompt(words.encode(data.samples[static_cast<std::size_t>(i)].prompt), tokenizer::begin_token);
        asked.push_back(i);
      }
    }
    const auto images =
        make_batch(data.images, part, {.patch = model.config().image.patch, .normalisation = normalisation});
    auto written = generate(b, model, images, prompts, tokenizer::end_token, o);
    for (std::size_t q = 0; q < asked.size(); ++q)
      of_sample[static_cast<std::size_t>(asked[q])] = std::move(written[q]);
  });
  std::vector<generated_text> result;
  for (const index i : indices) result.push_back(of_sample[static_cast<std::size_t>(i)]);
  return result;
}

/// Tokens as text, without blanks in front.
inline std::string text_of(const tokenizer& words, const generated_text& written) {
  std::string text = words.decode(written.tokens);
  text.erase(0, text.find_first_not_of(' '));
  return text;
}

/// The same as text.
template <tensor_backend B>
std::vector<std::string> write_answers(B& b, const image_text_model<B>& model, const tokenizer& words,
                                       const visual_text& data, std::span<const index> indices,
                                       const pixel_normalisation& normalisation, const generation_options& o = {},
                                       index batch_size = 64) {
  std::vector<std::string> texts;
  for (const auto& written : write_tokens(b, model, words, data, indices, normalisation, o, batch_size))
    texts.push_back(text_of(words, written));
  return texts;
}

/// Last-layer gradients of the samples `indices`, averaged over the positions of each answer; labels are the groups.
template <tensor_backend B>
evidence answer_evidence(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                         std::span<const index> indices, const pixel_normalisation& normalisation,
                         index batch_size = 64) {
  const encoded_texts encoded(data, words, model.config().text.length);
  const samples_by_picture by_picture(data, indices);
  const index classes = model.config().text.vocabulary;
  require(data.groups() <= classes, "selection: ", data.groups(), " groups, more than the ", classes, " tokens");
  std::vector<std::vector<float>> logits(static_cast<std::size_t>(data.n())), features(logits.size());
  std::vector<std::vector<std::int32_t>> targets(logits.size());
  image_text_tape<B> tape;
  tape.keep = kept::logits;
  detail::for_pictures(by_picture.pictures(), batch_size, [&](std::span<const index> part) {
    text_batch texts;
    std::vector<index> asked;
    for (const index picture : part) {
      texts.next_picture();
      for (const index i : by_picture.of(picture)) {
        texts.append(encoded.prompt(i), encoded.answer(i), tokenizer::begin_token, tokenizer::end_token);
        asked.push_back(i);
      }
    }
    const auto images =
        make_batch(data.images, part, {.patch = model.config().image.patch, .normalisation = normalisation});
    forward(b, model, images, texts, tape);
    const auto z = tape.logits.to_host(b), h = tape.text_norm.y.to_host(b);
    const index dim = tape.text_norm.y.cols();
    for (std::size_t q = 0; q < asked.size(); ++q) {
      const auto s = static_cast<std::size_t>(asked[q]);
      for (index a = tape.text.asked_of_text.begin(static_cast<index>(q));
           a < tape.text.asked_of_text.begin(static_cast<index>(q) + 1); ++a) {
        const auto row = [&](const auto& from, index width) { return from.begin() + a * width; };
        logits[s].insert(logits[s].end(), row(z, tape.logits.cols()), row(z, tape.logits.cols()) + tape.logits.cols());
        features[s].insert(features[s].end(), row(h, dim), row(h, dim) + dim);
        targets[s].push_back(tape.text.targets[static_cast<std::size_t>(a)]);
      }
    }
  });
  std::vector<float> all_logits, all_features;
  std::vector<std::int32_t> all_targets, groups;
  std::vector<index> rows{0};
  for (const index i : indices) {
    const auto s = static_cast<std::size_t>(i);
    all_logits.insert(all_logits.end(), logits[s].begin(), logits[s].end());
    all_features.insert(all_features.end(), features[s].begin(), features[s].end());
    all_targets.insert(all_targets.end(), targets[s].begin(), targets[s].end());
    groups.push_back(data.samples[s].group);
    rows.push_back(static_cast<index>(all_targets.size()));
  }
  return make_evidence(all_logits, all_features, all_targets, classes, std::move(rows), groups);
}

}  // namespace core_tokensets

// ==== core_tokensets/report/answer_sheet.hpp ====
// Questions and captions to look at: pictures, what the model wrote, and where it looked.

#include <string>
#include <vector>


namespace core_tokensets {

/// What a model wrote about one picture, and how much each patch `[P]` mattered for it.
struct explained_answer {
  std::string text;
  std::vector<double> relevance;
};

/// Writes an answer to each of the samples `indices` (a caption where the prompt is empty) and explains it.
template <tensor_backend B>
std::vector<explained_answer> explain_written(B& b, const image_text_model<B>& model, const tokenizer& words,
                                              const visual_text& data, std::span<const index> indices,
                                              const attribution_method& method,
                                              const pixel_normalisation& normalisation,
                                              const generation_options& o = {}) {
  const auto written = write_tokens(b, model, words, data, indices, normalisation, o);
  std::vector<explained_answer> result;
  answer_workspace<B> workspace;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const visual_text_sample& sample = data.samples[static_cast<std::size_t>(indices[i])];
    text_batch texts;
    texts.next_picture();
    texts.append(words.encode(sample.prompt), written[i].tokens, tokenizer::begin_token, tokenizer::end_token);
    const auto images = make_batch(data.images, std::vector<index>{sample.image},
                                   {.patch = model.config().image.patch, .normalisation = normalisation});
    result.push_back({text_of(words, written[i]), attribute_answers(method, b, model, images, texts, workspace).image});
  }
  return result;
}

/// The samples `indices`: each picture with its question, and beside it the answer over where the model looked.
template <tensor_backend B>
image answer_sheet(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                   std::span<const index> indices, const attribution_method& method,
                   const pixel_normalisation& normalisation, const generation_options& o = {}) {
  const vit_config& c = model.config().image;
  const auto answers = explain_written(b, model, words, data, indices, method, normalisation, o);
  std::vector<sheet_cell> cells;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const visual_text_sample& sample = data.samples[static_cast<std::size_t>(indices[i])];
    const image_view picture = data.images.view_of(sample.image);
    cells.push_back({grey_to_rgb(picture), sample.prompt.empty() ? sample.answers.front() : sample.prompt});
    cells.push_back({overlay(picture, answers[i].relevance, c.grid_height(), c.grid_width()), answers[i].text});
  }
  return contact_sheet(cells, {.columns = 4,
                               .zoom = std::max<index>(1, 256 / std::max(c.image.height, c.image.width)),
                               .title = "What was asked, what the model wrote, and where it looked"});
}

}  // namespace core_tokensets

// ==== core_tokensets/report/html.hpp ====
// The small parts of a page: text made safe for HTML, bytes as base64, numbers as people write them.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

namespace core_tokensets {

/// Text with the five characters that mean something in HTML written as entities; right between tags and in attributes.
inline std::string escape_html(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

/// Base64 with padding (RFC 4648).
inline std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? std::to_integer<unsigned>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) text += i + k <= bytes.size() ? letters[word >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

/// The number with a fixed number of decimals, a point whatever the locale; "n/a" where it is not finite.
inline std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "n/a";
  char text[512];
  const int length = std::snprintf(text, sizeof text, "%.*f", decimals, value);
  std::string result(text, static_cast<std::size_t>(length));
  for (char& c : result) c = c == ',' ? '.' : c;
  // "-0.00" says nothing that "0.00" does not
  return result.find_first_not_of("-0.") == std::string::npos && result[0] == '-' ? result.substr(1) : result;
}

/// The number with four significant digits, no more decimals than it needs; very large and small ones as 1.2e+09.
inline std::string number_text(double value) {
  if (!std::isfinite(value)) return "n/a";
  char text[64];
  const int length =
      std::snprintf(text, sizeof text, std::abs(value) >= 1e4 && std::abs(value) < 1e9 ? "%.0f" : "%.4g", value);
  std::string result(text, static_cast<std::size_t>(length));
  for (char& c : result) c = c == ',' ? '.' : c;
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/report/chart.hpp ====
// Charts of a page, as SVG that takes its colours from the page: bars with errors, lines with error bands.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// One bar: a value and how far it is uncertain to both sides. `emphasis` draws it in the page's strong colour.
struct chart_bar {
  std::string name;
  double value = 0, error = 0;
  bool emphasis = false;
};

/// Bars one under the other, from 0. `unit` stands behind the values ("%").
struct bar_chart {
  std::vector<chart_bar> bars;
  std::string caption = {}, unit = {};
  int decimals = 1;
};

/// One line through points, with a band of `error` around it where that is given (as long as `y`).
struct chart_line {
  std::string name;
  std::vector<double> x, y, error = {};
};

/// Lines over common axes.
struct line_chart {
  std::vector<chart_line> lines;
  std::string caption = {}, x_label = {}, y_label = {};
};

namespace detail {

/// Ends and step of an axis: round numbers that hold [low, high].
struct axis {
  double low, high, step;
  int decimals;

  axis(double from, double to, int most_ticks = 6, bool whole_numbers = false) {
    if (!(to > from)) to = from + (from == 0 ? 1 : std::abs(from) * 0.1);
    step = std::pow(10.0, std::floor(std::log10((to - from) / most_ticks)));
    for (const double factor : {2.0, 2.5, 2.0}) {
      if ((to - from) / step > most_ticks) step *= factor;
    }
    if (whole_numbers) step = step == 2.5 ? 5.0 : std::max(step, 1.0);
    low = std::floor(from / step + 1e-9) * step;
    high = std::ceil(to / step - 1e-9) * step;
    // 2.5 and its tens need one decimal more than their size says
    const double place = std::floor(std::log10(step) + 1e-9);
    const bool half = std::abs(step / std::pow(10.0, place) - 2.5) < 1e-9;
    decimals = static_cast<int>(std::max(0.0, -place + (half ? 1 : 0)));
  }
  int ticks() const { return static_cast<int>(std::lround((high - low) / step)) + 1; }
  double tick(int i) const { return low + i * step; }
  double place(double value, double from, double to) const { return from + (value - low) / (high - low) * (to - from); }
};

inline std::string svg_text(double x, double y, const char* kind, const std::string& text) {
  return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" class=\"" + kind + "\">" + escape_html(text) +
         "</text>";
}

inline std::string svg_line(double x1, double y1, double x2, double y2, const char* kind) {
  return "<line x1=\"" + fixed(x1, 1) + "\" y1=\"" + fixed(y1, 1) + "\" x2=\"" + fixed(x2, 1) + "\" y2=\"" +
         fixed(y2, 1) + "\" class=\"" + kind + "\"/>";
}

inline std::string svg_open(double width, double height, const std::string& label) {
  const std::string w = fixed(width, 0), h = fixed(height, 0);
  return "<svg viewBox=\"0 0 " + w + " " + h + "\" width=\"" + w + "\" height=\"" + h +
         "\" role=\"img\" aria-label=\"" + escape_html(label) + "\">\n";
}

inline std::string figure_html(const std::string& content, const std::string& caption) {
  return "<figure>" + content + (caption.empty() ? "" : "<figcaption>" + escape_html(caption) + "</figcaption>") +
         "</figure>\n";
}

inline std::size_t text_length(const std::string& utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

inline std::string html_of(const bar_chart& chart) {
  require(!chart.bars.empty(), "bar chart '", chart.caption, "': no bars");
  double low = 0, high = 0;
  std::size_t longest = 0;
  for (const auto& bar : chart.bars) {
    require(std::isfinite(bar.value) && std::isfinite(bar.error) && bar.error >= 0, "bar chart: '", bar.name, "' is ",
            bar.value, " +- ", bar.error, ", expected finite numbers and an error from 0 on");
    low = std::min(low, bar.value - bar.error);
    high = std::max(high, bar.value + bar.error);
    longest = std::max(longest, text_length(bar.name));
  }
  const axis x(low, high);
  constexpr double row = 28, right = 640;
  const double left = std::clamp(7.6 * static_cast<double>(longest) + 16, 60.0, 300.0);
  const double bottom = 8 + row * static_cast<double>(chart.bars.size());
  std::string svg = svg_open(760, bottom + 26, chart.caption);
  for (int i = 0; i < x.ticks(); ++i) {
    const double at = x.place(x.tick(i), left, right);
    svg += svg_line(at, 4, at, bottom, "grid") + svg_text(at, bottom + 17, "tick mid", fixed(x.tick(i), x.decimals));
  }
  const double zero = x.place(0, left, right);
  for (std::size_t i = 0; i < chart.bars.size(); ++i) {
    const auto& bar = chart.bars[i];
    const double top = 8 + row * static_cast<double>(i), middle = top + row / 2 - 2;
    const double end = x.place(bar.value, left, right);
    svg += svg_text(left - 8, middle + 4, "name end", bar.name);
    svg += "<rect x=\"" + fixed(std::min(zero, end), 1) + "\" y=\"" + fixed(top, 1) + "\" width=\"" +
           fixed(std::abs(end - zero), 1) + "\" height=\"" + fixed(row - 6, 1) + "\" rx=\"2\" class=\"bar" +
           (bar.emphasis ? " strong" : "") + "\"/>";
    std::string value = fixed(bar.value, chart.decimals);
    double beside = std::max(end, zero);
    if (bar.error > 0) {
      const double a = x.place(bar.value - bar.error, left, right), b = x.place(bar.value + bar.error, left, right);
      svg += svg_line(a, middle, b, middle, "error") + svg_line(a, middle - 5, a, middle + 5, "error") +
             svg_line(b, middle - 5, b, middle + 5, "error");
      value += " \u00B1 " + fixed(bar.error, chart.decimals);
      beside = std::max(b, zero);
    }
    svg += svg_text(beside + 7, middle + 4, "value", value + (chart.unit.empty() ? "" : " " + chart.unit)) + "\n";
  }
  return figure_html(svg + svg_line(zero, 4, zero, bottom, "axis") + "</svg>", chart.caption);
}

inline std::string html_of(const line_chart& chart) {
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  bool whole = true;
  std::size_t longest = 0;
  for (const auto& line : chart.lines) {
    require(line.x.size() == line.y.size() && (line.error.empty() || line.error.size() == line.y.size()),
            "line chart: '", line.name, "' has ", line.x.size(), " x, ", line.y.size(), " y, ", line.error.size(),
            " errors, expected as many of each (errors may be left out)");
    longest = std::max(longest, text_length(line.name));
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      const double error = line.error.empty() ? 0 : line.error[i];
      require(std::isfinite(line.x[i]) && std::isfinite(line.y[i]) && std::isfinite(error) && error >= 0,
              "line chart: point ", i, " of '", line.name, "' is not finite, or its error is negative");
      whole = whole && line.x[i] == std::round(line.x[i]);
      x_low = std::min(x_low, line.x[i]);
      x_high = std::max(x_high, line.x[i]);
      y_low = std::min(y_low, line.y[i] - error);
      y_high = std::max(y_high, line.y[i] + error);
    }
  }
  require(x_low <= x_high, "line chart '", chart.caption, "': no points");
  const axis x(x_low, x_high, 9, whole), y(y_low, y_high);
  constexpr double left = 64, top = 24, bottom = 300;
  const double right = 740 - std::clamp(7.4 * static_cast<double>(longest) + 14, 40.0, 240.0);
  std::string svg = svg_open(760, bottom + 48, chart.caption);
  for (int i = 0; i < y.ticks(); ++i) {
    const double at = y.place(y.tick(i), bottom, top);
    svg += svg_line(left, at, right, at, "grid") + svg_text(left - 8, at + 4, "tick end", fixed(y.tick(i), y.decimals));
  }
  for (int i = 0; i < x.ticks(); ++i)
    svg += svg_text(x.place(x.tick(i), left, right), bottom + 18, "tick mid", fixed(x.tick(i), x.decimals));
  svg += svg_line(left, bottom, right, bottom, "axis") +
         svg_text((left + right) / 2, bottom + 40, "name mid", chart.x_label) + svg_text(8, 12, "name", chart.y_label) +
         "\n";

  std::vector<std::pair<double, std::size_t>> labels;  // where each line ends, for its name
  for (std::size_t k = 0; k < chart.lines.size(); ++k) {
    const auto& line = chart.lines[k];
    if (line.x.empty()) continue;
    const std::string hue = "hue" + std::to_string(k % 6);
    std::string points, band, back;
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      const double at = x.place(line.x[i], left, right), error = line.error.empty() ? 0 : line.error[i];
      points += fixed(at, 1) + "," + fixed(y.place(line.y[i], bottom, top), 1) + " ";
      band += fixed(at, 1) + "," + fixed(y.place(line.y[i] + error, bottom, top), 1) + " ";
      back = fixed(at, 1) + "," + fixed(y.place(line.y[i] - error, bottom, top), 1) + " " + back;
    }
    if (!line.error.empty()) svg += "<polygon points=\"" + band + back + "\" class=\"band " + hue + "\"/>";
    svg += "<polyline points=\"" + points + "\" class=\"line " + hue + "\"/>";
    for (std::size_t i = 0; i < line.x.size(); ++i)
      svg += "<circle cx=\"" + fixed(x.place(line.x[i], left, right), 1) + "\" cy=\"" +
             fixed(y.place(line.y[i], bottom, top), 1) + "\" r=\"3\" class=\"dot " + hue + "\"/>";
    svg += "\n";
    labels.emplace_back(y.place(line.y.back(), bottom, top), k);
  }
  std::sort(labels.begin(), labels.end());
  for (std::size_t i = 1; i < labels.size(); ++i) labels[i].first = std::max(labels[i].first, labels[i - 1].first + 15);
  const double spill = labels.back().first - bottom - 4;
  for (const auto& [at, k] : labels)
    svg += svg_text(right + 10, at + 4 - std::max(spill, 0.0), ("name hue" + std::to_string(k % 6)).c_str(),
                    chart.lines[k].name);
  return figure_html(svg + "</svg>", chart.caption);
}

}  // namespace detail

}  // namespace core_tokensets

// ==== core_tokensets/report/memory_export.hpp ====
// A memory for people and for other tools: one PNG a sample, and all its numbers as JSON.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

struct memory_export_options {
  std::vector<std::string> class_names = {};  ///< of the targets 0, 1, ..; a target beyond them has no name
  index side = 128;                           ///< small pictures are enlarged, by a whole number, up to this side
  std::string source = {};                    ///< where the memory came from, for `samples.json`
};

/// Sample s as a picture of three channels, its tokens in their places and quiet grey where there is none. `Error`:
/// pixels that are neither grey nor colour.
inline image picture_of(const token_memory& memory, index s) {
  const auto& f = memory.format();
  require(f.channels == 1 || f.channels == 3, "memory export: pictures of ", f.channels, " channels, expected 1 or 3");
  const auto sample = memory.sample(s);
  const std::vector<std::int32_t> positions(sample.positions.begin(), sample.positions.end());
  const patch_grid grid{f.image_height, f.image_width, f.channels, f.patch};
  return kept_patches(unpatchify(sample.patches, positions, grid), f.patch, positions);
}

namespace detail {

/// "sample-007.png": as many digits as the last of `count` samples has.
inline std::string sample_file_name(index s, index count) {
  const auto digits = std::to_string(std::max<index>(count - 1, 0)).size();
  const std::string number = std::to_string(s);
  return "sample-" + std::string(digits - number.size(), '0') + number + ".png";
}

/// Every number as it is stored (a float read back from the JSON is the same float).
inline nlohmann::ordered_json sample_to_json(const token_memory& memory, index s, const std::string& file,
                                             const std::vector<std::string>& names) {
  const auto sample = memory.sample(s);
  const auto target = static_cast<std::size_t>(sample.target);
  nlohmann::ordered_json json{
      {"index", s},
      {"file", file},
      {"target", sample.target},
      {"class_name", nullptr},
      {"weight", sample.weight},
      {"task", sample.task},
      {"positions", std::vector<std::uint16_t>(sample.positions.begin(), sample.positions.end())},
      {"relevance", nullptr}};
  if (sample.target >= 0 && target < names.size()) json["class_name"] = names[target];
  if (memory.format().relevance != relevance_storage::none)
    json["relevance"] = std::vector<float>(sample.relevance.begin(), sample.relevance.end());
  if (memory.format().texts) json["prompt"] = sample.prompt, json["answer"] = sample.answer;
  return json;
}

}  // namespace detail

/// Makes the folder `out` with `sample-<s>.png` for every sample, and `samples.json`: the format, the metadata, and for
/// each sample its index, file, target, class name (null if unknown), weight, task, positions (row-major in `grid`) and
/// relevance (null in a memory that keeps none), and where it keeps texts prompt and answer. All or nothing; `Error`:
/// `out` is there and not empty.
inline void export_memory(const token_memory& memory, const std::filesystem::path& out,
                          const memory_export_options& options = {}) {
  const auto& f = memory.format();
  require(options.side > 0, "memory export: pictures of side ", options.side, ", expected more than 0");
  const index zoom = std::max<index>(1, options.side / std::max(f.image_height, f.image_width));
  const nlohmann::ordered_json about{{"source", options.source},
                                     {"image", {f.image_height, f.image_width, f.channels}},
                                     {"patch", f.patch},
                                     {"grid", {f.grid_rows(), f.grid_cols()}},
                                     {"zoom", zoom},
                                     {"mean", f.mean},
                                     {"stddev", f.stddev},
                                     {"relevance", describe(memory)["relevance"]},
                                     {"metadata", memory.metadata()}};
  const auto text_of = [](const auto& json, int indent) {  // a path may be anything, JSON is UTF-8
    return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  write_folder(out, [&](const std::filesystem::path& folder) {
    std::string text = text_of(about, 1);
    text.replace(text.size() - 2, 2, ",\n \"samples\": [");  // in place of "\n}"; then one line a sample
    for (index s = 0; s < memory.samples(); ++s) {
      const std::string file = detail::sample_file_name(s, memory.samples());
      write_png(folder / file, enlarge(picture_of(memory, s), zoom));
      text += (s > 0 ? ",\n  " : "\n  ") + text_of(detail::sample_to_json(memory, s, file, options.class_names), -1);
    }
    write_file(folder / "samples.json", std::string_view(text + "\n ]\n}\n"));
  });
}

}  // namespace core_tokensets

// ==== core_tokensets/report/table.hpp ====
// Tables of a page: from JSON results, and the accuracy matrix of a sequence of tasks with a colour in each cell.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Rows of text under a header; cells that look like numbers stand at the right. Rows may be shorter than the header.
struct report_table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows = {};
  std::string caption = {};
};

/// R[t][i] = accuracy on task i after training on task t, in 0 .. 1; NaN or a missing cell: not measured. Names may be
/// left out ("after 1", "task 1", ..).
struct accuracy_table {
  std::vector<std::vector<double>> values;
  std::vector<std::string> row_names = {}, column_names = {};
  std::string caption = {};
};

/// A JSON value as the text of a cell.
template <class Json>
std::string cell_text(const Json& value) {
  if (value.is_null()) return "\u2013";
  if (value.is_boolean()) return value.template get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.template get<std::string>();
  if (value.is_number_float()) return number_text(value.template get<double>());
  return value.dump();
}

/// A table from an array of objects (a row each, columns in the order in which keys first appear) or from one object
/// (a row for each key). `Error`: other JSON.
template <class Json>
report_table table_from_json(const Json& results, std::string caption = {}) {
  report_table table{{}, {}, std::move(caption)};
  if (results.is_object()) {
    for (const auto& [key, value] : results.items()) table.rows.push_back({key, cell_text(value)});
    return table;
  }
  require(results.is_array(), "table_from_json: ", results.type_name(), ", expected an array of objects or an object");
  for (const auto& row : results) {
    require(row.is_object(), "table_from_json: a row is ", row.type_name(), ", expected an object");
    for (const auto& item : row.items()) {
      if (std::find(table.header.begin(), table.header.end(), item.key()) == table.header.end())
        table.header.push_back(item.key());
    }
  }
  for (const auto& row : results) {
    auto& cells = table.rows.emplace_back();
    for (const auto& key : table.header) cells.push_back(row.contains(key) ? cell_text(row[key]) : std::string());
  }
  return table;
}

/// An accuracy matrix from a JSON array of arrays of numbers (null: not measured). `Error`: other JSON.
template <class Json>
accuracy_table matrix_from_json(const Json& values, std::string caption = {}) {
  accuracy_table matrix{{}, {}, {}, std::move(caption)};
  require(values.is_array(), "matrix_from_json: ", values.type_name(), ", expected an array of arrays");
  for (const auto& row : values) {
    require(row.is_array(), "matrix_from_json: a row is ", row.type_name(), ", expected an array of numbers");
    auto& cells = matrix.values.emplace_back();
    for (const auto& cell : row) {
      require(cell.is_number() || cell.is_null(), "matrix_from_json: a cell is ", cell.type_name(),
              ", expected a number or null");
      cells.push_back(cell.is_null() ? std::nan("") : cell.template get<double>());
    }
  }
  return matrix;
}

namespace detail {

inline bool looks_like_a_number(const std::string& text) {
  return !text.empty() && text.find_first_of("0123456789") != std::string::npos &&
         text.find_first_not_of("0123456789+-.,eE%\u2013\u00B1 ") == std::string::npos;
}

inline std::string caption_html(const std::string& caption) {
  return caption.empty() ? "" : "<caption>" + escape_html(caption) + "</caption>";
}

inline std::string html_of(const report_table& table) {
  std::string html = "<div class=\"wide\"><table>" + caption_html(table.caption);
  std::vector<bool> numeric;  // a column is numeric if all its filled cells are
  for (const auto& row : table.rows) {
    numeric.resize(std::max(numeric.size(), row.size()), true);
    for (std::size_t c = 0; c < row.size(); ++c)
      numeric[c] =
          numeric[c] && (row[c].empty() || row[c] == "n/a" || row[c] == "\u2013" || looks_like_a_number(row[c]));
  }
  numeric.resize(std::max(numeric.size(), table.header.size()), false);
  const auto cell = [&](const char* tag, const std::string& text, std::size_t column) {
    html += std::string("<") + tag + (numeric[column] ? " class=\"n\">" : ">") + escape_html(text) + "</" + tag + ">";
  };
  if (!table.header.empty()) {
    html += "<thead><tr>";
    for (std::size_t c = 0; c < table.header.size(); ++c) cell("th", table.header[c], c);
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) cell("td", row[c], c);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

inline std::string html_of(const accuracy_table& matrix) {
  std::size_t columns = matrix.column_names.size();
  for (const auto& row : matrix.values) columns = std::max(columns, row.size());
  const auto name = [](const std::vector<std::string>& names, std::size_t i, const char* word) {
    return escape_html(i < names.size() ? names[i] : word + std::to_string(i + 1));
  };
  std::string html =
      "<div class=\"wide\"><table class=\"matrix\">" + caption_html(matrix.caption) + "<thead><tr><th></th>";
  for (std::size_t c = 0; c < columns; ++c) html += "<th>" + name(matrix.column_names, c, "task ") + "</th>";
  html += "<th>mean</th></tr></thead><tbody>";
  for (std::size_t r = 0; r < matrix.values.size(); ++r) {
    html += "<tr><th>" + name(matrix.row_names, r, "after ") + "</th>";
    double sum = 0;
    int measured = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const double value = c < matrix.values[r].size() ? matrix.values[r][c] : std::nan("");
      if (!std::isfinite(value)) {
        html += "<td></td>";
        continue;
      }
      sum += value;
      ++measured;
      html += "<td style=\"background:rgba(31,158,137," + fixed(0.05 + 0.65 * std::clamp(value, 0.0, 1.0), 3) + ")\">" +
              fixed(100 * value, 1) + "</td>";
    }
    html += "<td class=\"mean\">" + (measured > 0 ? fixed(100 * sum / measured, 1) : std::string()) + "</td></tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

}  // namespace detail

}  // namespace core_tokensets

// ==== core_tokensets/report/page.hpp ====
// A report as one HTML file that needs nothing else: text, tables, charts and pictures, for light and dark screens.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>


namespace core_tokensets {

/// Plain text.
struct report_paragraph {
  std::string text;
};

/// A picture as the bytes of a PNG file, e.g. `encode_png(contact_sheet(cells))`.
struct report_figure {
  std::vector<std::byte> png;
  std::string caption = {};
};

using report_block = std::variant<report_paragraph, report_table, accuracy_table, bar_chart, line_chart, report_figure>;

/// A heading and what stands under it, in order.
struct report_section {
  std::string heading;
  std::vector<report_block> blocks = {};
};

/// A whole report. `facts` are short pairs for the top of the page ("Samples", "500").
struct report_page {
  std::string title, subtitle = {};
  std::vector<std::pair<std::string, std::string>> facts = {};
  std::vector<report_section> sections = {};
};

namespace detail {

inline constexpr std::string_view page_style = R"css(
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #23252b; --soft: #5f6470; --line: #dfe0dc; --panel: #ffffff;
  --accent: #1a7f70; --bar: #9fb8c4; --hue0: #1a7f70; --hue1: #b5532a; --hue2: #4a5fb0; --hue3: #8b6a10; --hue4: #8a3f86; --hue5: #5d6b78; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e6e7ea; --soft: #a0a5b0; --line: #32363e; --panel: #1d2025;
  --accent: #3dbfa9; --bar: #4d6673; --hue0: #3dbfa9; --hue1: #e58b5e; --hue2: #8fa2ee; --hue3: #d9b354; --hue4: #d68fd2; --hue5: #a3b0bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; } h2 { font-size: 21px; margin: 44px 0 12px; padding-top: 14px; border-top: 1px solid var(--line); }
.subtitle { color: var(--soft); margin: 0 0 20px; } p { margin: 0 0 14px; white-space: pre-line; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 20px 0; } .facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
.facts dt { color: var(--soft); font-size: 13px; } .facts dd { margin: 0; font-size: 19px; font-weight: 600; }
.wide { overflow-x: auto; margin: 0 0 20px; } table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: var(--soft); font-size: 14px; padding: 0 0 6px; white-space: nowrap; }
th, td { padding: 5px 14px 5px 10px; text-align: left; border-bottom: 1px solid var(--line); } thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
th.n, td.n { text-align: right; } table.matrix th, table.matrix td { text-align: center; padding: 6px 12px; min-width: 62px; }
table.matrix td { border: 2px solid var(--paper); } table.matrix th { font-weight: 500; color: var(--soft); border: 0; white-space: nowrap; } table.matrix td.mean { font-weight: 600; }
figure { margin: 0 0 24px; } figure img { max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line); display: block; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 6px; } svg { max-width: 100%; height: auto; display: block; font-size: 13px; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 12px; } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); } svg .error { stroke: var(--ink); stroke-width: 1.4; } svg .bar { fill: var(--bar); } svg .bar.strong { fill: var(--accent); }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } svg .band { opacity: .16; }
)css";

inline std::string html_of(const report_paragraph& paragraph) { return "<p>" + escape_html(paragraph.text) + "</p>\n"; }

inline std::string html_of(const report_figure& figure) {
  return figure_html(
      "<img alt=\"" + escape_html(figure.caption) + "\" src=\"data:image/png;base64," + base64(figure.png) + "\">",
      figure.caption);
}

}  // namespace detail

/// The page as text; everything that comes from outside is escaped. `Error`: a chart without data or not finite.
inline std::string to_html(const report_page& page) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape_html(page.title) + "</title>\n<style>" + std::string(detail::page_style);
  for (int i = 0; i < 6; ++i) {
    const std::string n = std::to_string(i);
    html += "svg text.hue" + n + ", svg .dot.hue" + n + ", svg .band.hue" + n + " { fill: var(--hue" + n +
            "); } svg .line.hue" + n + " { stroke: var(--hue" + n + "); }\n";
  }
  html += "</style>\n</head>\n<body>\n<main>\n<h1>" + escape_html(page.title) + "</h1>\n";
  if (!page.subtitle.empty()) html += "<p class=\"subtitle\">" + escape_html(page.subtitle) + "</p>\n";
  if (!page.facts.empty()) {
    html += "<dl class=\"facts\">";
    for (const auto& [name, value] : page.facts)
      html += "<div><dt>" + escape_html(name) + "</dt><dd>" + escape_html(value) + "</dd></div>";
    html += "</dl>\n";
  }
  for (const auto& section : page.sections) {
    html += "<section>\n<h2>" + escape_html(section.heading) + "</h2>\n";
    for (const auto& block : section.blocks)
      html += std::visit([](const auto& content) { return detail::html_of(content); }, block);
    html += "</section>\n";
  }
  return html + "</main>\n</body>\n</html>\n";
}

/// Writes the page to a file, all or nothing.
inline void write_report(const std::filesystem::path& path, const report_page& page) {
  write_file(path, to_html(page));
}

}  // namespace core_tokensets

// ==== core_tokensets/report/sequence_report.hpp ====
// What a sequence of tasks leaves to look at: kept tokens beside their pictures, relevance on test pictures, and one
// page with both and all numbers.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>


namespace core_tokensets {

namespace detail {

/// `count` numbers spread evenly over 0 .. n-1.
inline std::vector<index> spread(index n, index count) {
  std::vector<index> chosen;
  for (index i = 0; i < std::min(n, count); ++i) chosen.push_back(i * n / std::min(n, count));
  return chosen;
}

/// So many times larger that a side has about 96 pixels.
inline index zoom_for(const dataset& data) { return std::max<index>(1, 96 / std::max(data.height, data.width)); }

inline std::string class_name(const dataset& data, index label) {
  return data.class_names.empty() ? std::to_string(label) : data.class_names[static_cast<std::size_t>(label)];
}

}  // namespace detail

/// Up to `count` samples of a memory, spread over it: each picture and, beside it, what the memory kept of it.
/// `pictures` `[S]` says which picture of `data` each sample came from. Captions are the classes, or what the memory
/// keeps of texts. `Error`: an empty memory.
inline image kept_tokens_sheet(const token_memory& memory, const dataset& data, std::span<const index> pictures,
                               index count = 20) {
  require(!memory.empty(), "kept_tokens_sheet: the memory is empty");
  require(static_cast<index>(pictures.size()) == memory.samples(), "kept_tokens_sheet: ", pictures.size(),
          " pictures for ", memory.samples(), " samples");
  const bool texts = memory.format().texts;
  std::vector<sheet_cell> cells;
  for (const index s : detail::spread(memory.samples(), count)) {
    const auto sample = memory.sample(s);
    const image_view picture = data.view_of(pictures[static_cast<std::size_t>(s)]);
    const std::vector<std::int32_t> positions(sample.positions.begin(), sample.positions.end());
    std::string of_picture = std::string(sample.prompt);
    std::string of_kept = std::to_string(positions.size()) + " of " + std::to_string(memory.format().grid_tokens());
    if (texts) of_kept = std::string(sample.answer) + " (" + of_kept + ")";
    if (!texts) of_picture = detail::class_name(data, sample.target);
    cells.push_back({grey_to_rgb(picture), std::move(of_picture)});
    cells.push_back({kept_patches(picture, memory.format().patch, positions), std::move(of_kept)});
  }
  // Texts need room.
  return contact_sheet(cells, {.columns = texts ? 6 : 8,
                               .zoom = detail::zoom_for(data) * (texts ? 3 : 1),
                               .title = "Pictures and what is kept of them"});
}

/// The pictures `indices` of `data` and, beside each, how much every patch mattered for its class by each method.
template <tensor_backend B>
image relevance_sheet(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                      const std::vector<std::string>& methods, const pixel_normalisation& normalisation) {
  const vit_config& c = model.config();
  const token_batch batch = make_batch(data, indices, {.patch = c.patch, .normalisation = normalisation});
  attribution_workspace<B> workspace;
  std::vector<std::vector<double>> relevance;
  for (const auto& method : methods)
    relevance.push_back(attribute(parse_attribution(method), b, model, batch, batch.targets, workspace));
  std::vector<sheet_cell> cells;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const image_view picture = data.view_of(indices[i]);
    cells.push_back({grey_to_rgb(picture), detail::class_name(data, batch.targets[i])});
    const auto patches = static_cast<std::size_t>(c.patches());
    for (std::size_t m = 0; m < methods.size(); ++m) {
      cells.push_back(
          {overlay(picture, std::span(relevance[m]).subspan(i * patches, patches), c.grid_height(), c.grid_width()),
           methods[m]});
    }
  }
  const auto columns = static_cast<index>(1 + methods.size());
  return contact_sheet(cells, {.columns = columns * std::max<index>(1, 8 / columns),
                               .zoom = detail::zoom_for(data),
                               .title = "How much each patch mattered for the class"});
}

namespace detail {

/// A matrix of the results under the names of the tasks.
inline accuracy_table task_matrix(const nlohmann::json& values, const nlohmann::json& results) {
  accuracy_table matrix = matrix_from_json(values);
  if (results.contains("task_names")) {
    matrix.column_names = results["task_names"].get<std::vector<std::string>>();
    matrix.row_names = matrix.column_names;
    for (auto& name : matrix.row_names) name = "after " + name;
  }
  return matrix;
}

}  // namespace detail

/// The page of one sequence from its results as JSON (`to_json`), with figures where there are any.
inline report_page sequence_page(const nlohmann::json& results, const std::vector<report_figure>& figures) {
  const auto percent = [&](const char* key) { return fixed(100 * results.at(key).get<double>(), 1) + " %"; };
  const bool captions = results.value("/config/task"_json_pointer, std::string("classify")) == "caption";
  const std::string what = captions ? "CIDEr-D over 10" : "accuracy";
  report_page page{.title = "Tasks one after another",
                   .subtitle = "Memory: " + results.value("/config/memory"_json_pointer, std::string("none")),
                   .facts = {{"Average " + what, percent("average_accuracy")},
                             {"Average incremental " + what, percent("average_incremental_accuracy")},
                             {"Forgetting", percent("forgetting")},
                             {"Memory", std::to_string(results.at("memory_bytes").get<index>()) + " bytes"},
                             {"Samples", std::to_string(results.at("memory_samples").get<index>())},
                             {"Tokens", std::to_string(results.at("memory_tokens").get<index>())}}};
  page.sections.push_back({captions ? what : "Accuracy", {detail::task_matrix(results.at("accuracy"), results)}});
  const nlohmann::json measures = results.value("measures", nlohmann::json::object());
  for (const auto& [name, values] : measures.items())
    page.sections.push_back({name, {detail::task_matrix(values, results)}});
  if (!figures.empty()) page.sections.push_back({"Pictures", {figures.begin(), figures.end()}});
  page.sections.push_back({"Seconds", {table_from_json(results.at("seconds"))}});
  if (results.contains("config")) page.sections.push_back({"Settings", {table_from_json(results.at("config"))}});
  return page;
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/cholesky.hpp ====
// A Cholesky factor that grows and shrinks by one row at a time, in O(p^2) instead of O(p^3) for a new one.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>


namespace core_tokensets {

/// The lower factor L of a symmetric positive definite matrix A = L L^T whose rows and columns come and go.
class growing_cholesky {
 public:
  index size() const { return static_cast<index>(rows_.size()); }

  /// Adds a last row and column of A: `row` [size + 1], its last entry the diagonal. False, with nothing changed, where
  /// A would no longer be positive definite to working precision.
  bool append(std::span<const double> row) {
    const auto p = rows_.size();
    std::vector<double> l(row.begin(), row.end());
    for (std::size_t i = 0; i < p; ++i) {
      const auto& other = rows_[i];
      l[i] = (l[i] - detail::dot<double>(l.data(), other.data(), static_cast<index>(i))) / other[i];
    }
    const double pivot = row[p] - detail::dot<double>(l.data(), l.data(), static_cast<index>(p));
    if (!(pivot > 1e-12 * row[p])) return false;
    l[p] = std::sqrt(pivot);
    rows_.push_back(std::move(l));
    return true;
  }

  /// Takes row and column i of A away: rotations push what is left of row i into the diagonal below it.
  void remove(index i) {
    rows_.erase(rows_.begin() + i);
    const auto p = rows_.size();
    for (auto k = static_cast<std::size_t>(i); k < p; ++k) {
      auto& pivot = rows_[k];
      const double r = std::hypot(pivot[k], pivot[k + 1]), c = pivot[k] / r, s = pivot[k + 1] / r;
      for (auto m = k; m < p; ++m) {
        const double a = rows_[m][k], b = rows_[m][k + 1];
        rows_[m][k] = c * a + s * b;
        rows_[m][k + 1] = c * b - s * a;
      }
      pivot.resize(k + 1);
    }
  }

  /// x with A x = b.
  std::vector<double> solve(std::span<const double> b) const {
    std::vector<double> x(b.begin(), b.end());
    for (std::size_t i = 0; i < rows_.size(); ++i)
      x[i] = (x[i] - detail::dot<double>(rows_[i].data(), x.data(), static_cast<index>(i))) / rows_[i][i];
    for (std::size_t i = rows_.size(); i-- > 0;) {
      x[i] /= rows_[i][i];
      for (std::size_t j = 0; j < i; ++j) x[j] -= rows_[i][j] * x[i];
    }
    return x;
  }

 private:
  std::vector<std::vector<double>> rows_;
};

}  // namespace core_tokensets

// ==== core_tokensets/selection/gram.hpp ====
// Inner products of atoms as pursuits and least squares need them: from a matrix, or from factored gradients.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// A Gram matrix G [n, n] that is there already.
struct dense_gram {
  std::span<const double> values;
  index n = 0;

  /// Relative accuracy of `subtract`.
  static constexpr double noise = 1e-13;
  index size() const { return n; }
  double entry(index i, index j) const { return values[static_cast<std::size_t>(i * n + j)]; }
  /// c -= G[:, chosen] x
  void subtract(std::span<const index> chosen, std::span<const double> x, std::span<double> c) {
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      const double* row = values.data() + chosen[k] * n;
      for (index i = 0; i < n; ++i) c[static_cast<std::size_t>(i)] -= x[k] * row[i];
    }
  }
};

/// The Gram matrix of the last-layer gradients of some samples. Entries are computed in double precision when asked
/// for; whole columns, of chosen atoms only, once and kept in float: [chosen, members] numbers.
class factored_gram {
 public:
  static constexpr double noise = 1e-7;

  factored_gram(const evidence& e, std::span<const index> members)
      : evidence_(e), members_(members), slot_(members.size(), -1) {}

  index size() const { return static_cast<index>(members_.size()); }
  double entry(index i, index j) const {
    return inner(evidence_, members_[static_cast<std::size_t>(i)], members_[static_cast<std::size_t>(j)]);
  }

  /// c -= G[:, chosen] x, in pieces of members that stay in cache.
  void subtract(std::span<const index> chosen, std::span<const double> x, std::span<double> c) {
    std::vector<const float*> columns;
    for (const index j : chosen) columns.push_back(column(j));
    parallel_chunks(0, size(), 512, [&](index begin, index end) {
      double* out = c.data();
      std::size_t k = 0;
      for (; k + 4 <= columns.size(); k += 4) {
        const float *a0 = columns[k], *a1 = columns[k + 1], *a2 = columns[k + 2], *a3 = columns[k + 3];
        const double x0 = x[k], x1 = x[k + 1], x2 = x[k + 2], x3 = x[k + 3];
        for (index i = begin; i < end; ++i) {
          out[i] -= (x0 * static_cast<double>(a0[i]) + x1 * static_cast<double>(a1[i])) +
                    (x2 * static_cast<double>(a2[i]) + x3 * static_cast<double>(a3[i]));
        }
      }
      for (; k < columns.size(); ++k) {
        const float* a = columns[k];
        for (index i = begin; i < end; ++i) out[i] -= x[k] * static_cast<double>(a[i]);
      }
    });
  }

 private:
  const float* column(index j) {
    auto& slot = slot_[static_cast<std::size_t>(j)];
    if (slot < 0) {
      slot = static_cast<index>(columns_.size());
      std::vector<float> values(members_.size());
      const index atom = members_[static_cast<std::size_t>(j)];
      parallel_chunks(0, size(), 256, [&](index begin, index end) {
        for (index m = begin; m < end; ++m) {
          const index i = members_[static_cast<std::size_t>(m)];
          double total = 0;
          evidence_.for_each_row(i, [&](const double* delta, const float* h, double share) {
            evidence_.for_each_row(atom, [&](const double* atom_delta, const float* atom_h, double atom_share) {
              const double d = detail::dot<double>(delta, atom_delta, evidence_.classes);
              const float f = detail::dot<float>(h, atom_h, evidence_.features);
              total += share * atom_share * d * (static_cast<double>(f) + 1);
            });
          });
          values[static_cast<std::size_t>(m)] = static_cast<float>(total);
        }
      });
      columns_.push_back(std::move(values));
    }
    return columns_[static_cast<std::size_t>(slot)].data();
  }

  const evidence& evidence_;
  std::span<const index> members_;
  std::vector<index> slot_;
  std::vector<std::vector<float>> columns_;
};

}  // namespace core_tokensets

// ==== core_tokensets/selection/nnls.hpp ====
// Least squares with weights that are not negative, by the active-set method, on inner products alone.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// Atoms with a positive weight, in the order in which they came.
struct sparse_weights {
  std::vector<index> atoms;
  std::vector<double> weights;
};

namespace detail {

/// Row of G + lambda I of a new atom against the chosen ones, its diagonal last.
template <class Gram>
std::vector<double> gram_row(const Gram& gram, std::span<const index> chosen, index atom, double lambda) {
  std::vector<double> row;
  row.reserve(chosen.size() + 1);
  for (const index j : chosen) row.push_back(gram.entry(atom, j));
  row.push_back(gram.entry(atom, atom) + lambda);
  return row;
}

}  // namespace detail

/// Minimises |A x - b|^2 + lambda |x|^2 over x >= 0 with at most `limit` atoms, given G = A^T A and `correlation` = A^T
/// b. Lawson & Hanson (1974, ch. 23): the atom most correlated with the residual comes in, atoms whose weight would
/// turn negative leave, so the error falls with every step. Stopped at `limit` it is a matching pursuit; if it ends
/// with fewer atoms, that is the exact minimum. Ties: the lower atom.
template <class Gram>
sparse_weights lawson_hanson(Gram& gram, std::span<const double> correlation, double lambda, index limit) {
  require(static_cast<index>(correlation.size()) == gram.size(), "least squares: ", correlation.size(),
          " correlations for ", gram.size(), " atoms");
  sparse_weights found;
  auto& atoms = found.atoms;
  auto& x = found.weights;
  growing_cholesky factor;
  std::vector<char> out_of_play(correlation.size(), 0);
  std::vector<index> refused;
  std::vector<double> c(correlation.begin(), correlation.end()), b;
  double scale = 0;
  for (const double value : correlation) scale = std::max(scale, std::abs(value));

  const auto drop = [&](std::size_t i) {
    factor.remove(static_cast<index>(i));
    out_of_play[static_cast<std::size_t>(atoms[i])] = 0;
    const auto at = static_cast<std::ptrdiff_t>(i);
    atoms.erase(atoms.begin() + at);
    x.erase(x.begin() + at);
    b.erase(b.begin() + at);
  };

  for (index step = 0; static_cast<index>(atoms.size()) < limit && step < 10 * gram.size(); ++step) {
    index best = -1;
    for (index j = 0; j < gram.size(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      if (!out_of_play[at] && c[at] > (best < 0 ? Gram::noise * scale : c[static_cast<std::size_t>(best)])) best = j;
    }
    if (best < 0) break;
    out_of_play[static_cast<std::size_t>(best)] = 1;
    if (!factor.append(detail::gram_row(gram, atoms, best, lambda))) {
      refused.push_back(best);
      continue;
    }
    atoms.push_back(best);
    x.push_back(0);
    b.push_back(correlation[static_cast<std::size_t>(best)]);
    auto s = factor.solve(b);
    if (!(s.back() > 0)) {  // only rounding made it look useful
      drop(atoms.size() - 1);
      out_of_play[static_cast<std::size_t>(best)] = 1;
      refused.push_back(best);
      continue;
    }
    while (!s.empty() && *std::min_element(s.begin(), s.end()) <= 0) {
      double t = 1;  // how far x can go towards s and stay >= 0
      std::size_t first = 0;
      for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] <= 0 && x[i] / (x[i] - s[i]) <= t) {
          t = x[i] / (x[i] - s[i]);
          first = i;
        }
      }
      for (std::size_t i = 0; i < s.size(); ++i) x[i] += t * (s[i] - x[i]);
      x[first] = 0;
      for (std::size_t i = s.size(); i-- > 0;) {
        if (x[i] <= 0) drop(i);
      }
      s = factor.solve(b);
    }
    x = std::move(s);
    for (const index j : refused) out_of_play[static_cast<std::size_t>(j)] = 0;
    refused.clear();
    std::copy(correlation.begin(), correlation.end(), c.begin());
    gram.subtract(atoms, x, c);
  }
  return found;
}

/// x >= 0 that minimises |M x - a|, M symmetric [p, p]. `Error`: sizes that disagree.
inline std::vector<double> nnls_symmetric(std::span<const double> m, std::span<const double> a) {
  const auto p = static_cast<index>(a.size());
  require(static_cast<index>(m.size()) == p * p, "nnls: a matrix of ", m.size(), " values, expected ", p, " x ", p);
  std::vector<double> square(m.size()), correlation(a.size());
  parallel_for(0, p, [&](index i) {
    const double* row = m.data() + i * p;
    correlation[static_cast<std::size_t>(i)] = detail::dot<double>(row, a.data(), p);
    for (index j = 0; j < p; ++j)
      square[static_cast<std::size_t>(i * p + j)] = detail::dot<double>(row, m.data() + j * p, p);
  });
  dense_gram gram{square, p};
  const auto found = lawson_hanson(gram, correlation, 0.0, p);
  std::vector<double> x(a.size(), 0.0);
  for (std::size_t i = 0; i < found.atoms.size(); ++i) x[static_cast<std::size_t>(found.atoms[i])] = found.weights[i];
  return x;
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/matching_pursuit.hpp ====
// Orthogonal matching pursuit on last-layer gradients: few samples whose weighted gradients sum up to a given one.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>


namespace core_tokensets {

/// How weights are kept from being negative. With A the gradients as columns, b the target and M = A_S^T A_S + lambda
/// I:
/// - `nonnegative`: |A x - b|^2 + lambda |x|^2 is minimal over x >= 0 at every step, and all chosen weights are
/// positive
///   (`lawson_hanson`, stopped at the budget). Fewer samples than the budget only where more would not help.
/// - `deepcore`: weights of any sign while choosing; at the end x >= 0 that minimises |M x - A_S^T b|, many of them 0.
///   What DeepCore's GradMatch does.
/// - `cords`: after each step the most negative weight leaves until none is; ends when the residual is small or a
/// chosen
///   sample would be chosen again, so often early. What CORDS' OrthogonalMP_REG and _Parallel do.
/// - `cords_nnls`: |M x - A_S^T b| minimal over x >= 0 at every step, as CORDS' NNLS variant. Slow beyond a few hundred
///   samples (a cube in the number of samples a step); kept for comparison.
enum class pursuit { nonnegative, deepcore, cords, cords_nnls };

/// Samples in the order of their choice, their weights, and the error |A w - b|.
struct pursuit_result {
  std::vector<index> order;
  std::vector<double> weights;
  double residual = 0, target_norm = 0;
};

namespace detail {

/// |A w - b| by gradients: exact where differences of squares would cancel.
inline double residual_norm(const evidence& e, std::span<const index> order, std::span<const double> weights,
                            std::span<const double> target) {
  std::vector<double> rest(target.begin(), target.end());
  for (std::size_t k = 0; k < order.size(); ++k) {
    e.for_each_row(order[k], [&](const double* delta, const float* h, double share) {
      for (index c = 0; c < e.classes; ++c) {
        const double factor = weights[k] * share * delta[c];
        rest[static_cast<std::size_t>(c)] -= factor;
        double* row = rest.data() + e.classes + c * e.features;
        for (index f = 0; f < e.features; ++f) row[f] -= factor * static_cast<double>(h[f]);
      }
    });
  }
  return std::sqrt(dot<double>(rest.data(), rest.data(), static_cast<index>(rest.size())));
}

/// G + lambda I of the chosen atoms, [p, p].
inline std::vector<double> regularised_gram(const factored_gram& gram, std::span<const index> chosen, double lambda) {
  const auto p = chosen.size();
  std::vector<double> m(p * p);
  parallel_for(0, static_cast<index>(p), [&](index row) {
    const auto i = static_cast<std::size_t>(row);
    for (std::size_t j = 0; j <= i; ++j) m[i * p + j] = gram.entry(chosen[i], chosen[j]) + (i == j ? lambda : 0);
  });
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < i; ++j) m[j * p + i] = m[i * p + j];
  }
  return m;
}

/// The pursuits of DeepCore and CORDS; atoms are numbers into the Gram matrix.
inline sparse_weights authors_pursuit(factored_gram& gram, std::span<const double> correlation, double target_square,
                                      index budget, double lambda, pursuit variant) {
  sparse_weights found;
  auto& atoms = found.atoms;
  auto& x = found.weights;
  growing_cholesky factor;
  std::vector<char> chosen(correlation.size(), 0), dependent(correlation.size(), 0);
  std::vector<double> c(correlation.begin(), correlation.end()), b;
  const auto clip = [&] {
    if (*std::min_element(x.begin(), x.end()) < 0) x = nnls_symmetric(regularised_gram(gram, atoms, lambda), b);
  };
  double error_square = target_square;
  for (index step = 0; step < budget; ++step) {
    if (variant == pursuit::cords && error_square < 1e-8 * target_square) break;
    index best = -1;
    for (index j = 0; j < gram.size(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      const bool allowed = !dependent[at] && !(variant == pursuit::deepcore && chosen[at]);
      if (allowed && (best < 0 || c[at] > c[static_cast<std::size_t>(best)])) best = j;
    }
    if (best < 0) break;
    const auto at = static_cast<std::size_t>(best);
    if (chosen[at]) break;
    if (!factor.append(gram_row(gram, atoms, best, lambda))) {
      dependent[at] = 1;  // adds no direction to those that are there
      --step;
      continue;
    }
    chosen[at] = 1;
    atoms.push_back(best);
    b.push_back(correlation[at]);
    double ridge = lambda;
    if (atoms.size() == 1) {
      const double square = gram.entry(best, best);
      x = {square > 0 ? correlation[at] / square : 0.0};
      ridge = 0;
    } else {
      x = factor.solve(b);
    }
    if (variant == pursuit::cords_nnls) clip();
    if (variant == pursuit::cords) {
      for (auto worst = std::min_element(x.begin(), x.end()); worst != x.end() && *worst < 0;
           worst = std::min_element(x.begin(), x.end())) {
        const auto i = worst - x.begin();
        factor.remove(i);
        chosen[static_cast<std::size_t>(atoms[static_cast<std::size_t>(i)])] = 0;
        atoms.erase(atoms.begin() + i);
        b.erase(b.begin() + i);
        x = factor.solve(b);
      }
      // A_S^T (b - A_S x) = ridge x, hence |b - A_S x|^2 = b.b - x.(A_S^T b) - ridge x.x
      error_square = target_square;
      for (std::size_t i = 0; i < x.size(); ++i) error_square -= x[i] * (b[i] + ridge * x[i]);
    }
    std::copy(correlation.begin(), correlation.end(), c.begin());
    gram.subtract(atoms, x, c);
  }
  if (variant == pursuit::deepcore && atoms.size() > 1) clip();
  if (variant == pursuit::deepcore && atoms.size() == 1) x = {1.0};
  return found;
}

}  // namespace detail

/// Chooses at most `budget` of `members` and weights them so that the sum of their gradients comes near `target`,
/// `[K] + [K, d]`. Weights are as large as the target asks for: a mean gives a sum near 1, a sum one near n. The
/// evidence is taken as checked. Cost: a Gram column and one pass over the kept columns a step, O(members (d + K +
/// budget)).
inline pursuit_result match_gradient(const evidence& e, std::span<const index> members, std::span<const double> target,
                                     index budget, double lambda, pursuit variant = pursuit::nonnegative) {
  require(budget > 0 && budget <= static_cast<index>(members.size()), "matching pursuit: a budget of ", budget,
          ", expected 1 to ", members.size());
  require(lambda >= 0 && std::isfinite(lambda), "matching pursuit: lambda ", lambda, ", expected 0 or more");
  factored_gram gram(e, members);
  const auto correlation = inner_with(e, members, target);
  const double square = detail::dot<double>(target.data(), target.data(), static_cast<index>(target.size()));
  auto found = variant == pursuit::nonnegative
                   ? lawson_hanson(gram, correlation, lambda, budget)
                   : detail::authors_pursuit(gram, correlation, square, budget, lambda, variant);
  for (index& atom : found.atoms) atom = members[static_cast<std::size_t>(atom)];
  const double residual = detail::residual_norm(e, found.atoms, found.weights, target);
  return {std::move(found.atoms), std::move(found.weights), residual, std::sqrt(square)};
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/selection.hpp ====
// What a selector is and what it returns; budgets divided among classes; weights scaled for the replay loss.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>


namespace core_tokensets {

/// The samples that were chosen, each once, and what each counts in the replay loss. Every selector of the library
/// returns weights that are not negative and have mean 1, so that the loss keeps its scale whatever the budget.
struct selection_result {
  std::vector<index> indices;
  std::vector<float> weights;
};

/// A selector: `select(method, evidence, k)` returns k samples (fewer only where its documentation says so).
template <class M>
concept selector = requires(const M& method, const evidence& e, index k) {
  { select(method, e, k) } -> std::same_as<selection_result>;
};

/// `Error` unless the evidence is sound and 0 < k <= n.
inline void check_budget(const evidence& e, index k) {
  check(e);
  require(k > 0 && k <= e.samples, "selection: a budget of ", k, " samples, expected 1 to ", e.samples);
}

/// Weights with mean 1. All zero (nothing to scale): all 1. `Error`: a weight that is negative or not finite.
inline std::vector<float> normalise_weights(std::span<const double> weights) {
  double sum = 0;
  for (const double w : weights) {
    require(std::isfinite(w) && w >= 0, "weights: ", w, ", expected finite numbers from 0 on");
    sum += w;
  }
  std::vector<float> result(weights.size(), 1.0f);
  if (sum > 0) {
    const double scale = static_cast<double>(weights.size()) / sum;
    for (std::size_t i = 0; i < weights.size(); ++i) result[i] = static_cast<float>(weights[i] * scale);
  }
  return result;
}

/// The samples of each class, rising: K lists. `Error`: a label that is no class.
inline std::vector<std::vector<index>> members_by_class(std::span<const std::int32_t> labels, index classes) {
  std::vector<std::vector<index>> members(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    require(labels[i] >= 0 && labels[i] < classes, "selection: label ", labels[i], " of sample ", i, ", expected 0 to ",
            classes - 1);
    members[static_cast<std::size_t>(labels[i])].push_back(static_cast<index>(i));
  }
  return members;
}
inline std::vector<std::vector<index>> members_by_class(const evidence& e) {
  return members_by_class(e.labels, e.classes);
}

/// The sizes of lists.
inline std::vector<index> sizes_of(const std::vector<std::vector<index>>& lists) {
  std::vector<index> sizes;
  for (const auto& list : lists) sizes.push_back(static_cast<index>(list.size()));
  return sizes;
}

namespace detail {

inline index check_quota(std::span<const index> counts, index k) {
  index total = 0;
  for (const index c : counts) {
    require(c >= 0, "quotas: a class of ", c, " samples");
    total += c;
  }
  require(k >= 0 && k <= total, "quotas: a budget of ", k, ", expected 0 to the ", total, " samples there are");
  return total;
}

}  // namespace detail

/// Budget k in proportion to the classes' sizes, by largest remainders (ties: the lower class); sums to k exactly.
inline std::vector<index> proportional_quotas(std::span<const index> counts, index k) {
  const index total = detail::check_quota(counts, k);
  std::vector<index> quotas(counts.size()), order(counts.size());
  if (total == 0) return quotas;
  std::iota(order.begin(), order.end(), index{0});
  index left = k;
  for (std::size_t c = 0; c < counts.size(); ++c) left -= quotas[c] = counts[c] * k / total;
  const auto remainder = [&](index c) { return counts[static_cast<std::size_t>(c)] * k % total; };
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return remainder(a) > remainder(b); });
  for (index i = 0; i < left; ++i) ++quotas[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
  return quotas;
}

/// Budget k in equal parts; what a small class cannot fill goes to the others; sums to k exactly, and the quotas of
/// classes that are not exhausted differ by at most 1 (the lower class gets more).
inline std::vector<index> balanced_quotas(std::span<const index> counts, index k) {
  detail::check_quota(counts, k);
  std::vector<index> quotas(counts.size());
  for (index left = k; left > 0;) {
    index open = 0;
    for (std::size_t c = 0; c < counts.size(); ++c) open += quotas[c] < counts[c];
    const index share = std::max<index>(left / open, 1);
    for (std::size_t c = 0; c < counts.size() && left > 0; ++c) {
      const index more = std::min({share, counts[c] - quotas[c], left});
      quotas[c] += more;
      left -= more;
    }
  }
  return quotas;
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/grad_match.hpp ====
// GradMatch (Killamsetty et al., ICML 2021): the samples whose weighted gradients replace the gradient of all of them.

#include <cstddef>
#include <numeric>
#include <span>
#include <vector>


namespace core_tokensets {

/// Matching pursuit on the evidence. `lambda` is relative to the mean squared length of the gradients unless
/// `absolute_lambda` (as DeepCore and CORDS have it). `per_class`: each class alone, its share of the budget in
/// proportion to its size, its own mean as the target; otherwise all at once against `evidence.target` or the mean.
struct grad_match {
  double lambda = 0.1;
  bool per_class = true;
  pursuit variant = pursuit::nonnegative;
  bool absolute_lambda = false;
};

/// At most k samples, class by class, and weights with mean 1; see `pursuit` for when there are fewer than k or
/// weights of 0. `Error`: a budget outside 1 to n, evidence that is not sound, a target with `per_class`.
inline selection_result select(const grad_match& method, const evidence& e, index k) {
  check_budget(e, k);
  require(!method.per_class || e.target.empty(),
          "grad_match: a target gradient with per_class, expected one of the two");
  double lambda = method.lambda;
  if (!method.absolute_lambda) {
    double trace = 0;
    for (index i = 0; i < e.samples; ++i) trace += inner(e, i, i);
    lambda *= trace / static_cast<double>(e.samples);
  }
  selection_result result;
  std::vector<double> weights;
  // The target is a mean, so that weights come near a sum of 1; `mass` says how many samples it stands for.
  const auto pursue = [&](std::span<const index> members, std::span<const double> target, double mass, index budget) {
    if (budget == 0) return;
    const auto found = match_gradient(e, members, target, budget, lambda, method.variant);
    result.indices.insert(result.indices.end(), found.order.begin(), found.order.end());
    for (const double w : found.weights) weights.push_back(w * mass);
  };
  if (method.per_class) {
    const auto members = members_by_class(e);
    const auto quotas = proportional_quotas(sizes_of(members), k);
    for (std::size_t c = 0; c < members.size(); ++c) {
      if (!members[c].empty())
        pursue(members[c], gradient_mean(e, members[c]), static_cast<double>(members[c].size()), quotas[c]);
    }
  } else {
    std::vector<index> all(static_cast<std::size_t>(e.samples));
    std::iota(all.begin(), all.end(), index{0});
    pursue(all, e.target.empty() ? gradient_mean(e, all) : e.target, 1.0, k);
  }
  result.weights = normalise_weights(weights);
  return result;
}

}  // namespace core_tokensets

// ==== core_tokensets/selection/random.hpp ====
// The control that every selector must beat: samples at random.

#include <cstdint>
#include <numeric>
#include <vector>


namespace core_tokensets {

/// k samples at random, all of weight 1; `balanced`: the same number from every class, as far as it has them.
struct random_selection {
  std::uint64_t seed = 0;
  bool balanced = true;
};

/// The same samples for the same seed, labels `[n]` of `classes` and budget, ordered by class if balanced.
inline selection_result select_at_random(const random_selection& method, std::span<const std::int32_t> labels,
                                         index classes, index k) {
  const auto n = static_cast<index>(labels.size());
  require(k > 0 && k <= n, "selection: a budget of ", k, " samples, expected 1 to ", n);
  selection_result result;
  const auto draw = [&](std::vector<index> members, index count, std::uint64_t stream) {
    random_stream random(method.seed ^ 0x73656c656374, stream);  // a seed of its own: others count streams from 0, too
    random.shuffle(std::span(members));
    result.indices.insert(result.indices.end(), members.begin(), members.begin() + count);
  };
  if (method.balanced) {
    const auto members = members_by_class(labels, classes);
    const auto quotas = balanced_quotas(sizes_of(members), k);
    for (std::size_t c = 0; c < members.size(); ++c) draw(members[c], quotas[c], c);
  } else {
    std::vector<index> all(labels.size());
    std::iota(all.begin(), all.end(), index{0});
    draw(std::move(all), k, 0);
  }
  result.weights.assign(result.indices.size(), 1.0f);
  return result;
}

/// The same by the contract of a selector; looks at the labels of the evidence only.
inline selection_result select(const random_selection& method, const evidence& e, index k) {
  check_budget(e, k);
  return select_at_random(method, e.labels, e.classes, k);
}

}  // namespace core_tokensets

// ==== core_tokensets/tensor/host_buffer.hpp ====
// Owner of aligned memory on the host: the buffer of the CPU backends.

#include <cstddef>
#include <memory>
#include <new>


namespace core_tokensets {

/// `n` uninitialised elements on a 64-byte boundary.
template <class T>
class host_buffer {
 public:
  host_buffer() = default;
  explicit host_buffer(index n)
      : memory_(n > 0 ? static_cast<T*>(::operator new(static_cast<std::size_t>(n) * sizeof(T), alignment)) : nullptr) {
  }
  T* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<T, release> memory_;
};

}  // namespace core_tokensets

// ==== core_tokensets/tensor/workspace.hpp ====
// A stack of reusable host memory: taking and releasing costs nothing once it has grown to its working size.

#include <algorithm>
#include <cstddef>
#include <vector>


namespace core_tokensets {

/// Memory is released in the opposite order of taking (scopes). A full block is followed by a larger one; blocks stay
/// for the next round.
class stack_workspace {
 public:
  template <class T>
  T* take(index count) {
    const index bytes = (count * static_cast<index>(sizeof(T)) + 63) / 64 * 64;
    marks_.push_back({current_, top_});
    while (current_ < blocks_.size() && top_ + bytes > blocks_[current_].size) {
      ++current_;
      top_ = 0;
    }
    if (current_ == blocks_.size()) {
      const index size = std::max({bytes, index{1} << 20, blocks_.empty() ? 0 : 2 * blocks_.back().size});
      blocks_.push_back({host_buffer<std::byte>(size), size});
    }
    std::byte* memory = blocks_[current_].memory.data() + top_;
    top_ += bytes;
    return reinterpret_cast<T*>(memory);
  }

  void release() {
    current_ = marks_.back().block;
    top_ = marks_.back().top;
    marks_.pop_back();
  }

 private:
  struct block {
    host_buffer<std::byte> memory;
    index size;
  };
  struct mark {
    std::size_t block;
    index top;
  };
  std::vector<block> blocks_;
  std::vector<mark> marks_;
  std::size_t current_ = 0;
  index top_ = 0;
};

}  // namespace core_tokensets

// ==== core_tokensets/tensor/eigen.hpp ====
// The default backend: Eigen's matrix product on pieces that depend on the shapes only, OpenMP over the pieces, and
// fused versions of the operations that benchmarks justify. Results are the same to the bit for any number of threads.

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>


namespace core_tokensets {

namespace eigen_detail {

template <class T>
using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using map_of = Eigen::Map<matrix<T>, 0, Eigen::OuterStride<>>;
template <class T>
using const_map_of = Eigen::Map<const matrix<T>, 0, Eigen::OuterStride<>>;

template <class T>
map_of<T> mutable_map(const view<T>& v) {
  return {v.data, v.rows, v.cols, Eigen::OuterStride<>(v.ld)};
}
template <class T>
const_map_of<T> const_map(const view<const T>& v) {
  return {v.data, v.rows, v.cols, Eigen::OuterStride<>(v.ld)};
}

/// c (+)= alpha op(a) op(b) on the calling thread. Not inlined: one instance of each product a program.
template <class T>
[[gnu::noinline]] void product(bool ta, bool tb, T alpha, T beta, view<const T> av, view<const T> bv, view<T> cv) {
  if (cv.rows == 0 || cv.cols == 0) return;
  const auto a = const_map<T>(av), b = const_map<T>(bv);
  auto c = mutable_map<T>(cv);
  if (beta == T(0)) {
    c.setZero();
  } else if (beta != T(1)) {
    c *= beta;
  }
  if (ta && tb) {
    c.noalias() += alpha * a.transpose() * b.transpose();
  } else if (ta) {
    c.noalias() += alpha * a.transpose() * b;
  } else if (tb) {
    c.noalias() += alpha * a * b.transpose();
  } else {
    c.noalias() += alpha * a * b;
  }
}

/// While it lives, Eigen's own threading is off for the calling thread (it would make results depend on their number).
class serial_eigen {
 public:
#ifdef _OPENMP
  serial_eigen() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~serial_eigen() { omp_set_num_threads(threads_); }

 private:
  int threads_;
#endif
};

/// Softmax of one row of n numbers, scaled by `scale` before the exponential.
template <class T>
void softmax_row(T* x, index n, T scale) {
  const T top = host::fold<T>(n, fn::maximum{}, [x](index c) { return x[c]; });
#pragma omp simd
  for (index c = 0; c < n; ++c) x[c] = fn::exp((x[c] - top) * scale);
  const T factor = T(1) / host::fold<T>(n, fn::plus{}, [x](index c) { return x[c]; });
#pragma omp simd
  for (index c = 0; c < n; ++c) x[c] *= factor;
}

}  // namespace eigen_detail

/// Tensors in host memory, computed with Eigen. A copy has a workspace of its own; one value serves one caller at a
/// time.
template <std::floating_point T>
class eigen_backend {
 public:
  using scalar = T;

  /// `threads`: how many may work at once, 0 for OpenMP's default.
  explicit eigen_backend(int threads = 0) : threads_(threads > 0 ? threads : default_threads()) { make_workspaces(); }
  eigen_backend(const eigen_backend& other) : threads_(other.threads_) { make_workspaces(); }
  eigen_backend& operator=(const eigen_backend& other) {
    threads_ = other.threads_;
    make_workspaces();
    return *this;
  }

  int threads() const { return threads_; }
  stack_workspace& workspace() {
    const auto i = static_cast<std::size_t>(in_parallel() ? thread_index() : 0);
    return *workspaces_[std::min(i, workspaces_.size() - 1)];
  }

  template <class U>
  host_buffer<U> allocate(index n) {
    return host_buffer<U>(n);
  }
  template <class U>
  void upload(U* device, const U* from, index n) {
    std::copy_n(from, n, device);
  }
  template <class U>
  void download(U* to, const U* device, index n) {
    std::copy_n(device, n, to);
  }
  void fill(view<T> out, T value) {
    map([value](T& x) { x = value; }, out);
  }

  /// `body(i)` for i in [0, n) on the backend's threads; inside, operations run serially.
  template <class Body>
  void parallel(index n, const Body& body) {
    parallel_for(threads_, n, [&](index i) {
      [[maybe_unused]] const eigen_detail::serial_eigen guard;
      body(i);
    });
  }

  void gemm(const_view<T> a, const_view<T> b, view<T> c, gemm_options o = {}) {
    host::check_gemm<T>(a, b, c, o.transpose_a, o.transpose_b);
    if (c.empty()) return;
    const index row_tiles = tiles(c.rows), col_tiles = c.rows >= c.cols ? 1 : tiles(c.cols);
    const index per_matrix = row_tiles * col_tiles;
    parallel(c.n0 * c.n1 * per_matrix, [&](index piece) {
      const index batch = piece / per_matrix, tile = piece % per_matrix;
      const index i = batch / c.n1, j = batch % c.n1;
      const auto [r0, r1] = cut(c.rows, row_tiles, tile / col_tiles);
      const auto [c0, c1] = cut(c.cols, col_tiles, tile % col_tiles);
      const auto am = a.matrix(a.n0 == 1 ? 0 : i, a.n1 == 1 ? 0 : j),
                 bm = b.matrix(b.n0 == 1 ? 0 : i, b.n1 == 1 ? 0 : j);
      eigen_detail::product<T>(o.transpose_a, o.transpose_b, T(o.alpha), T(o.beta),
                               o.transpose_a ? am.slice_cols(r0, r1 - r0) : am.slice_rows(r0, r1 - r0),
                               o.transpose_b ? bm.slice_rows(c0, c1 - c0) : bm.slice_cols(c0, c1 - c0),
                               c.matrix(i, j).slice_rows(r0, r1 - r0).slice_cols(c0, c1 - c0));
    });
  }

  template <class F, class... V>
  void map(const F& f, const V&... operands) {
    host::map(threads_, f, operands...);
  }
  template <class Op, class F, class... V>
  void row_reduce(const Op& op, const F& term, view<T> out, const V&... in) {
    host::row_reduce(threads_, op, term, out, in...);
  }
  template <class Op, class F, class... V>
  void col_reduce(const Op& op, const F& term, T beta, view<T> out, const V&... in) {
    host::col_reduce(threads_, op, term, beta, out, in...);
  }
  void gather_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    host::gather_rows<T>(threads_, out, in, rows);
  }
  void scatter_add_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    host::scatter_add_rows<T>(threads_, out, in, rows);
  }

  // ---- overrides ------------------------------------------------------------------------------------------------

  void softmax(view<T> x) {
    const index rows = x.n0 * x.n1 * x.rows;
    parallel_chunks(threads_, rows, host::grain_elements / (x.cols + 1) + 1, [&](index begin, index end) {
      for (index n = begin; n < end; ++n) {
        const index r = n % x.rows, batch = n / x.rows;
        eigen_detail::softmax_row(host::row_begin(x, batch / x.n1, batch % x.n1, r), x.cols, T(1));
      }
    });
  }

  void layer_norm(const_view<T> x, const_view<T> gamma, const_view<T> beta, view<T> y, view<T> mean, view<T> rstd,
                  T eps) {
    parallel_chunks(threads_, x.rows, row_grain, [&](index begin, index end) {
      for (index r = begin; r < end; ++r) {
        const T *in = x.row(r), *g = gamma.data, *o = beta.data;
        const T n = static_cast<T>(x.cols);
        const T m = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return in[c]; }) / n;
        const T var = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return (in[c] - m) * (in[c] - m); }) / n;
        const T s = T(1) / std::sqrt(var + eps);
        T* out = y.row(r);
#pragma omp simd
        for (index c = 0; c < x.cols; ++c) out[c] = (in[c] - m) * s * g[c] + o[c];
        mean(r, 0) = m;
        rstd(r, 0) = s;
      }
    });
  }

  void layer_norm_backward(const_view<T> x, const_view<T> gamma, const_view<T> mean, const_view<T> rstd,
                           const_view<T> dy, view<T> dx) {
    parallel_chunks(threads_, x.rows, row_grain, [&](index begin, index end) {
      for (index r = begin; r < end; ++r) {
        const T *px = x.row(r), *pg = gamma.data, *pd = dy.row(r);
        const T m = mean(r, 0), s = rstd(r, 0), n = static_cast<T>(x.cols);
        const T s1 = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return pd[c] * pg[c]; }) / n;
        const T s2 = host::fold<T>(x.cols, fn::plus{}, [&](index c) { return pd[c] * pg[c] * (px[c] - m); }) * s / n;
        T* out = dx.row(r);
#pragma omp simd
        for (index c = 0; c < x.cols; ++c) out[c] = s * (pd[c] * pg[c] - (s1 + (px[c] - m) * s * s2));
      }
    });
  }

  void linear(const_view<T> x, const_view<T> weight, const_view<T> bias, const_view<T> residual, view<T> y) {
    const bool start = !bias.empty() || !residual.empty();
    row_tiles_of(y.rows, [&](index r, index n) {
      const auto out = y.slice_rows(r, n);
      if (!residual.empty() && !bias.empty()) {
        host::map(1, fn::sum{}, out, residual.slice_rows(r, n), bias);
      } else if (start) {
        host::map(1, fn::copy{}, out, residual.empty() ? bias : residual.slice_rows(r, n));
      }
      eigen_detail::product<T>(false, true, T(1), start ? T(1) : T(0), x.slice_rows(r, n), weight, out);
    });
  }

  void linear_gelu(const_view<T> x, const_view<T> weight, const_view<T> bias, view<T> pre, view<T> y) {
    row_tiles_of(y.rows, [&](index r, index n) {
      const auto out = pre.slice_rows(r, n);
      if (!bias.empty()) host::map(1, fn::copy{}, out, bias);
      eigen_detail::product<T>(false, true, T(1), bias.empty() ? T(0) : T(1), x.slice_rows(r, n), weight, out);
      host::map(1, fn::apply_gelu{}, y.slice_rows(r, n), view<const T>(out));
    });
  }

  void linear_gelu_backward_input(const_view<T> dy, const_view<T> weight, const_view<T> pre, view<T> dpre) {
    row_tiles_of(dy.rows, [&](index r, index n) {
      const auto out = dpre.slice_rows(r, n);
      eigen_detail::product<T>(false, false, T(1), T(0), dy.slice_rows(r, n), weight, out);
      host::map(1, fn::multiply_gelu_derivative{}, out, pre.slice_rows(r, n));
    });
  }

  void cross_entropy(const_view<T> logits, const cross_entropy_operands<T>& o, view<T> dlogits, view<T> losses) {
    parallel_chunks(threads_, logits.rows, row_grain, [&](index begin, index end) {
      for (index s = begin; s < end; ++s) {
        losses(s, 0) = host::cross_entropy_row(
            logits.row(s), logits.cols, o.targets[s], o.first_class ? o.first_class[s] : 0,
            (o.weights ? o.weights[s] : T(1)) / static_cast<T>(logits.rows), o.label_smoothing, dlogits.row(s));
      }
    });
  }

  void attention(const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale, view<T> out,
                 T* probabilities) {
    parallel(rows.count() * q.n1, [&](index piece) {
      const index s = piece / q.n1, h = piece % q.n1, nq = rows.queries().length(s), nk = rows.keys().length(s);
      if (nq == 0) return;
      stack_workspace& ws = workspace();
      T* memory =
          probabilities ? rows.matrices(probabilities, s, q.n1).matrix(0, h).data : ws.template take<T>(nq * nk);
      const view<T> a(memory, nq, nk);
      const auto of_query = [&](auto x) { return x.matrix(0, h).slice_rows(rows.queries().begin(s), nq); };
      const auto of_key = [&](auto x) { return x.matrix(0, h).slice_rows(rows.keys().begin(s), nk); };
      eigen_detail::product<T>(false, true, T(1), T(0), of_query(q), of_key(k), a);
      for (index r = 0; r < nq; ++r) {
        const index seen = rows.visible(s, r);
        eigen_detail::softmax_row(a.row(r), seen, scale);
        std::fill(a.row(r) + seen, a.row(r) + nk, T(0));
      }
      eigen_detail::product<T>(false, false, T(1), T(0), a, of_key(v), of_query(out));
      if (!probabilities) ws.release();
    });
  }

  void attention_backward(const attention_rows& rows, const_view<T> q, const_view<T> k, const_view<T> v, T scale,
                          const T* probabilities, const_view<T> dout, view<T> dq, view<T> dk, view<T> dv,
                          T* dprobabilities) {
    parallel(rows.count() * q.n1, [&](index piece) {
      const index s = piece / q.n1, h = piece % q.n1, nq = rows.queries().length(s), nk = rows.keys().length(s);
      stack_workspace& ws = workspace();
      const auto of_query = [&](auto x) { return x.matrix(0, h).slice_rows(rows.queries().begin(s), nq); };
      const auto of_key = [&](auto x) { return x.matrix(0, h).slice_rows(rows.keys().begin(s), nk); };
      const view<const T> a = rows.matrices(probabilities, s, q.n1).matrix(0, h);
      const view<T> ds(ws.template take<T>(nq * nk), nq, nk);
      eigen_detail::product<T>(true, false, T(1), T(0), a, of_query(dout), of_key(dv));
      eigen_detail::product<T>(false, true, T(1), T(0), of_query(dout), of_key(v), ds);
      if (dprobabilities)
        host::map(1, fn::copy{}, rows.matrices(dprobabilities, s, q.n1).matrix(0, h), view<const T>(ds));
      for (index r = 0; r < nq; ++r) {
        const T* pa = a.row(r);
        T* pd = ds.row(r);
        const T inner = host::fold<T>(nk, fn::plus{}, [&](index c) { return pa[c] * pd[c]; });
#pragma omp simd
        for (index c = 0; c < nk; ++c) pd[c] = pa[c] * (pd[c] - inner) * scale;
      }
      eigen_detail::product<T>(false, false, T(1), T(0), ds, of_key(k), of_query(dq));
      eigen_detail::product<T>(true, false, T(1), T(0), ds, of_query(q), of_key(dk));
      ws.release();
    });
  }

 private:
  static constexpr index row_tile = 256, row_grain = 64;

  void make_workspaces() {
    workspaces_.clear();
    for (int i = 0; i < threads_; ++i) workspaces_.push_back(std::make_unique<stack_workspace>());
  }
  /// An even number of pieces of at most `row_tile` rows, so that they divide well among threads; small extents stay
  /// whole.
  static index tiles(index extent) { return extent < 64 ? 1 : 2 * ((extent + 2 * row_tile - 1) / (2 * row_tile)); }
  /// Piece `i` of `pieces` equal ones, cut at multiples of 16 where possible.
  static std::pair<index, index> cut(index extent, index pieces, index i) {
    const index step = ((extent + pieces - 1) / pieces + 15) / 16 * 16;
    return {std::min(extent, i * step), std::min(extent, (i + 1) * step)};
  }
  template <class Body>
  void row_tiles_of(index rows, const Body& body) {
    const index pieces = tiles(rows);
    parallel(pieces, [&](index i) {
      const auto [begin, end] = cut(rows, pieces, i);
      if (end > begin) body(begin, end - begin);
    });
  }

  int threads_;
  std::vector<std::unique_ptr<stack_workspace>> workspaces_;
};

}  // namespace core_tokensets

// ==== core_tokensets/tensor/reference.hpp ====
// The specification: a backend of plain loops on one thread, without any dependency. Slow, short, and the oracle
// that the others are tested against.

#include <algorithm>
#include <cstdint>


namespace core_tokensets {

/// Only the ten required functions; every other operation takes its default from ops.hpp.
template <std::floating_point T>
struct reference_backend {
  using scalar = T;

  template <class U>
  host_buffer<U> allocate(index n) {
    return host_buffer<U>(n);
  }
  template <class U>
  void upload(U* device, const U* from, index n) {
    std::copy_n(from, n, device);
  }
  template <class U>
  void download(U* to, const U* device, index n) {
    std::copy_n(device, n, to);
  }
  void fill(view<T> out, T value) {
    map([value](T& x) { x = value; }, out);
  }

  void gemm(const_view<T> a, const_view<T> b, view<T> c, gemm_options o = {}) {
    host::check_gemm<T>(a, b, c, o.transpose_a, o.transpose_b);
    const index k_extent = o.transpose_a ? a.rows : a.cols;
    for (index i = 0; i < c.n0; ++i) {
      for (index j = 0; j < c.n1; ++j) {
        const auto am = a.matrix(a.n0 == 1 ? 0 : i, a.n1 == 1 ? 0 : j),
                   bm = b.matrix(b.n0 == 1 ? 0 : i, b.n1 == 1 ? 0 : j);
        const auto cm = c.matrix(i, j);
        for (index row = 0; row < c.rows; ++row) {
          for (index col = 0; col < c.cols; ++col) {
            T sum = 0;
            for (index k = 0; k < k_extent; ++k) {
              sum += (o.transpose_a ? am(k, row) : am(row, k)) * (o.transpose_b ? bm(col, k) : bm(k, col));
            }
            cm(row, col) = T(o.alpha) * sum + (o.beta == 0 ? T(0) : T(o.beta) * cm(row, col));
          }
        }
      }
    }
  }

  template <class F, class First, class... Rest>
  void map(const F& f, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "map"), ...);
    for_each_row(first, [&](index i, index j, index r) {
      for (index c = 0; c < first.cols; ++c) f(at(first, i, j, r, c), at(rest, i, j, r, c)...);
    });
  }
  template <class Op, class F, class First, class... Rest>
  void row_reduce(const Op& op, const F& term, view<T> out, const view<First>& first, const view<Rest>&... rest) {
    (host::check_operand(first, rest, "row_reduce"), ...);
    require(out.rows == first.rows && out.n0 == first.n0 && out.n1 == first.n1, "row_reduce: the result has ", out.rows,
            " rows, the operand ", first.rows);
    for_each_row(first, [&](index i, index j, index r) {
      T result = Op::template identity<T>();
      for (index c = 0; c < first.cols; ++c) {
        result = op(result, T(term(at(first, i, j, r, c), at(rest, i, j, r, c)...)));
      }
      at(out, i, j, r, 0) = result;
    });
  }
  template <class Op, class F, class First, class... Rest>
  void col_reduce(const Op& op, const F& term, T beta, view<T> out, const view<First>& first,
                  const view<Rest>&... rest) {
    (host::check_operand(first, rest, "col_reduce"), ...);
    require(out.cols == first.cols && first.n0 * first.n1 == 1, "col_reduce: the result has ", out.cols,
            " columns, the operand ", first.cols);
    for (index c = 0; c < first.cols; ++c) {
      T result = Op::template identity<T>();
      for (index r = 0; r < first.rows; ++r)
        result = op(result, T(term(at(first, 0, 0, r, c), at(rest, 0, 0, r, c)...)));
      out.data[c] = beta == T(0) ? result : op(beta * out.data[c], result);
    }
  }

  void gather_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    require(out.cols == in.cols, "gather_rows: rows of ", in.cols, " numbers into rows of ", out.cols);
    for (index i = 0; i < out.rows; ++i) {
      for (index c = 0; c < out.cols; ++c) out(i, c) = in(rows[i], c);
    }
  }
  void scatter_add_rows(view<T> out, const_view<T> in, const std::int32_t* rows) {
    require(out.cols == in.cols, "scatter_add_rows: rows of ", in.cols, " numbers onto rows of ", out.cols);
    for (index i = 0; i < in.rows; ++i) {
      for (index c = 0; c < in.cols; ++c) out(rows[i], c) += in(i, c);
    }
  }

 private:
  /// The element of `v` at a place, or the one that repeats there.
  template <class U>
  static U& at(const view<U>& v, index i, index j, index r, index c) {
    return v.data[(v.n0 == 1 ? 0 : i * v.s0) + (v.n1 == 1 ? 0 : j * v.s1) + (v.rows == 1 ? 0 : r * v.ld) +
                  (v.cols == 1 ? 0 : c)];
  }
  template <class U, class Body>
  static void for_each_row(const view<U>& v, const Body& body) {
    for (index i = 0; i < v.n0; ++i) {
      for (index j = 0; j < v.n1; ++j) {
        for (index r = 0; r < v.rows; ++r) body(i, j, r);
      }
    }
  }
};

}  // namespace core_tokensets

// ==== core_tokensets/train/answer_text.hpp ====
// When two short answers are the same: the normalisation of the VQA evaluation (Antol et al. 2015).

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace core_tokensets {

namespace detail {

/// The marks that the evaluation takes out; an apostrophe, a colon and a period are not among them.
constexpr std::string_view answer_marks = ";/[]\"{}()=+\\_-><@`,?!";

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Contractions without their apostrophes, and with them; none that is a word of its own ("its", "were", "well").
inline const std::map<std::string, std::string, std::less<>>& contractions() {
  static const auto table = [] {
    std::map<std::string, std::string, std::less<>> t;
    for (const char* verb : {"ai",    "are",  "ca",   "could", "did", "does",   "do",  "had",  "has", "have", "is",
                             "might", "must", "need", "ought", "sha", "should", "was", "were", "wo",  "would"}) {
      t[std::string(verb) + "nt"] = std::string(verb) + "n't";
    }
    for (const char* verb : {"could", "might", "must", "should", "would"})
      t[std::string(verb) + "ve"] = std::string(verb) + "'ve";
    for (const char* word : {"he", "how", "it", "there", "they", "that", "what", "where", "who", "why", "you",
                             "someone", "somebody", "something"}) {
      const std::string w = word;
      t[w + "d"] = w + "'d";
      if (w != "he") t[w + "ll"] = w + "'ll";
      if (w != "it") t[w + "s"] = w + "'s";
    }
    for (const char* word : {"i", "they", "we", "what", "where", "who", "you"})
      t[std::string(word) + "ve"] = std::string(word) + "'ve";
    for (const char* word : {"there", "they", "what", "why", "you"})
      t[std::string(word) + "re"] = std::string(word) + "'re";
    t.insert({{"im", "i'm"},
              {"maam", "ma'am"},
              {"oclock", "o'clock"},
              {"yall", "y'all"},
              {"twas", "'twas"},
              {"shes", "she's"},
              {"whens", "when's"}});
    return t;
  }();
  return table;
}

/// Lower case, number words up to ten as digits ("none" is 0), articles left out, contractions with their apostrophes,
/// one blank between words.
inline std::string plain_words(std::string text) {
  static constexpr std::array<std::string_view, 11> numbers{"zero", "one",   "two",   "three", "four", "five",
                                                            "six",  "seven", "eight", "nine",  "ten"};
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::istringstream words(text);
  std::string result;
  for (std::string word; words >> word;) {
    if (word == "none") word = "zero";
    const auto number = std::find(numbers.begin(), numbers.end(), word);
    if (number != numbers.end()) word = std::to_string(number - numbers.begin());
    if (word == "a" || word == "an" || word == "the") continue;
    if (const auto found = contractions().find(word); found != contractions().end()) word = found->second;
    result += (result.empty() ? "" : " ") + word;
  }
  return result;
}

/// Without the periods that no digit follows.
inline std::string without_periods(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '.' || (i + 1 < text.size() && is_digit(text[i + 1]))) result += text[i];
  }
  return result;
}

/// Punctuation as the published evaluator treats it: a mark vanishes everywhere if it stands beside a blank anywhere,
/// or if a comma stands between digits anywhere; otherwise it becomes a blank everywhere.
inline std::string published_punctuation(const std::string& text) {
  bool thousands = false;
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    thousands = thousands || (text[i] == ',' && is_digit(text[i - 1]) && is_digit(text[i + 1]));
  }
  std::string result = text;
  for (const char mark : answer_marks) {
    const bool beside_blank = text.find({mark, ' '}) != text.npos || text.find({' ', mark}) != text.npos;
    if (thousands || beside_blank) {
      std::erase(result, mark);
    } else {
      std::replace(result.begin(), result.end(), mark, ' ');
    }
  }
  return without_periods(result);
}

/// Tabs and line feeds as blanks, none at the ends.
inline std::string trimmed(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c == '\n' || c == '\t' ? ' ' : c;
  const auto first = result.find_first_not_of(' '), last = result.find_last_not_of(' ');
  return first == result.npos ? std::string() : result.substr(first, last - first + 1);
}

}  // namespace detail

/// The answer in lower case, without punctuation (a mark separates words, but for a comma between digits; a period
/// stays before a digit), articles and blanks too many; number words up to ten are digits, contractions have
/// apostrophes.
inline std::string normalise_answer(std::string_view answer) {
  std::string text;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    const char c = answer[i];
    const bool between =
        i > 0 && i + 1 < answer.size() && detail::is_digit(answer[i - 1]) && detail::is_digit(answer[i + 1]);
    if (c == ',' && between) continue;
    text += detail::answer_marks.find(c) == detail::answer_marks.npos ? c : ' ';
  }
  return detail::plain_words(detail::without_periods(text));
}

}  // namespace core_tokensets

// ==== core_tokensets/train/caption_metrics.hpp ====
// How good captions are against captions that people wrote: BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D
// (Vedantam et al. 2015), as the evaluation of COCO captions defines them, all on the words of `caption_words`.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>


namespace core_tokensets {

/// The words of a caption in lower case: runs of letters, digits and bytes beyond ASCII; an apostrophe between two of
/// these belongs to the word; everything else separates words and is dropped.
inline std::vector<std::string> caption_words(std::string_view caption) {
  std::vector<std::string> words;
  const auto lettered = [&](std::size_t i) {
    if (i >= caption.size()) return false;
    const char c = caption[i];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (static_cast<unsigned char>(c) & 0x80u) != 0;
  };
  bool inside = false;
  for (std::size_t i = 0; i < caption.size(); ++i) {
    const bool joins = caption[i] == '\'' && inside && lettered(i + 1);
    if (!lettered(i) && !joins) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    const char c = caption[i];
    words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return words;
}

namespace detail {

constexpr std::size_t longest_ngram = 4;

/// How often each run of 1 .. 4 words occurs, by the length of the run.
using ngram_counts = std::array<std::map<std::vector<std::string>, double>, longest_ngram>;

inline ngram_counts count_ngrams(const std::vector<std::string>& words) {
  ngram_counts counts;
  for (std::size_t n = 1; n <= longest_ngram; ++n) {
    for (std::size_t i = 0; i + n <= words.size(); ++i) {
      const auto first = words.begin() + static_cast<std::ptrdiff_t>(i);
      counts[n - 1][{first, first + static_cast<std::ptrdiff_t>(n)}] += 1;
    }
  }
  return counts;
}

/// A caption with the captions that it is compared with, as words.
struct caption_case {
  std::vector<std::string> words;
  std::vector<std::vector<std::string>> references;
};

/// `Error`: no captions, another number of lists of references, a list without references.
inline std::vector<caption_case> caption_cases(std::span<const std::string> captions,
                                               std::span<const std::vector<std::string>> references) {
  require(!captions.empty() && captions.size() == references.size(), "captions: ", captions.size(), " captions with ",
          references.size(), " lists of references, expected the same number of both and at least one");
  std::vector<caption_case> cases;
  for (std::size_t i = 0; i < captions.size(); ++i) {
    require(!references[i].empty(), "captions: caption ", i, " has no references");
    cases.push_back({caption_words(captions[i]), {}});
    for (const auto& r : references[i]) cases.back().references.push_back(caption_words(r));
  }
  return cases;
}

/// Length of the longest common subsequence.
inline index common_subsequence(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<index> row(b.size() + 1, 0);
  for (const auto& word : a) {
    index diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const index above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

inline double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace detail

/// BLEU-1 .. BLEU-4 of a corpus in [0, 1]: brevity penalty times the geometric mean of the precisions of runs of 1 .. n
/// words, counts clipped to the largest in any one reference; the length of reference is the closest one (of two the
/// shorter). No smoothing: 0 where no run of a length is right. `Error`: a caption without references.
inline std::array<double, 4> bleu(std::span<const std::string> captions,
                                  std::span<const std::vector<std::string>> references) {
  std::array<double, 4> right{}, all{};
  double length = 0, closest = 0;
  for (const auto& c : detail::caption_cases(captions, references)) {
    const auto written = static_cast<double>(c.words.size());
    length += written;
    double best = -1;
    detail::ngram_counts most;
    for (const auto& r : c.references) {
      const auto l = static_cast<double>(r.size());
      const double off = std::abs(l - written), least = std::abs(best - written);
      if (best < 0 || off < least || (off == least && l < best)) best = l;
      const auto counts = detail::count_ngrams(r);
      for (std::size_t n = 0; n < 4; ++n) {
        for (const auto& [ngram, count] : counts[n]) most[n][ngram] = std::max(most[n][ngram], count);
      }
    }
    closest += best;
    const auto counts = detail::count_ngrams(c.words);
    for (std::size_t n = 0; n < 4; ++n) {
      for (const auto& [ngram, count] : counts[n]) {
        all[n] += count;
        if (const auto found = most[n].find(ngram); found != most[n].end()) right[n] += std::min(count, found->second);
      }
    }
  }
  std::array<double, 4> scores{};
  const double brevity = length > 0 ? std::exp(std::min(0.0, 1 - closest / length)) : 0;
  double logarithms = 0;
  for (std::size_t n = 0; n < 4 && right[n] > 0; ++n) {
    logarithms += std::log(right[n] / all[n]);
    scores[n] = brevity * std::exp(logarithms / static_cast<double>(n + 1));
  }
  return scores;
}

/// ROUGE-L of each caption in [0, 1], [S]: with P and R the best precision and recall of the longest common subsequence
/// over the references, (1 + b^2) P R / (R + b^2 P), b = 1.2. `Error`: a caption without references.
inline std::vector<double> rouge_l_scores(std::span<const std::string> captions,
                                          std::span<const std::vector<std::string>> references) {
  constexpr double b2 = 1.2 * 1.2;
  std::vector<double> scores;
  for (const auto& c : detail::caption_cases(captions, references)) {
    double precision = 0, recall = 0;
    for (const auto& r : c.references) {
      const auto common = static_cast<double>(detail::common_subsequence(c.words, r));
      if (common == 0) continue;
      precision = std::max(precision, common / static_cast<double>(c.words.size()));
      recall = std::max(recall, common / static_cast<double>(r.size()));
    }
    scores.push_back(precision > 0 ? (1 + b2) * precision * recall / (recall + b2 * precision) : 0);
  }
  return scores;
}

/// CIDEr-D of each caption in [0, 10], [S]: 10 times the mean over runs of 1 .. 4 words and over references of the
/// cosine of tf-idf vectors, the caption's entries clipped to the reference's, times exp(-(difference of lengths)^2 /
/// 72). The inverse document frequency is log(S / captions whose references hold the run). A caption of fewer than 4
/// words cannot reach 10. `Error`: fewer than two captions (all weights would be 0), a caption without references.
inline std::vector<double> cider_d_scores(std::span<const std::string> captions,
                                          std::span<const std::vector<std::string>> references) {
  constexpr double sigma = 6;
  const auto cases = detail::caption_cases(captions, references);
  require(cases.size() > 1, "cider_d: one caption, expected at least two, or no word tells one picture from another");
  std::map<std::vector<std::string>, double> documents;
  std::vector<std::vector<detail::ngram_counts>> vectors(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    std::set<std::vector<std::string>> seen;
    for (const auto& r : cases[i].references) {
      vectors[i].push_back(detail::count_ngrams(r));
      for (const auto& counts : vectors[i].back()) {
        for (const auto& [ngram, count] : counts) seen.insert(ngram);
      }
    }
    for (const auto& ngram : seen) documents[ngram] += 1;
  }
  const auto weigh = [&](detail::ngram_counts& counts) {
    std::array<double, 4> norms{};
    for (std::size_t n = 0; n < 4; ++n) {
      for (auto& [ngram, value] : counts[n]) {
        const auto found = documents.find(ngram);
        value *= std::log(static_cast<double>(cases.size()) / (found == documents.end() ? 1.0 : found->second));
        norms[n] += value * value;
      }
      norms[n] = std::sqrt(norms[n]);
    }
    return norms;
  };
  std::vector<double> scores;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    auto own = detail::count_ngrams(cases[i].words);
    const auto own_norms = weigh(own);
    double sum = 0;
    for (std::size_t k = 0; k < vectors[i].size(); ++k) {
      auto& other = vectors[i][k];
      const auto norms = weigh(other);
      const double off =
          static_cast<double>(cases[i].words.size()) - static_cast<double>(cases[i].references[k].size());
      const double penalty = std::exp(-off * off / (2 * sigma * sigma));
      for (std::size_t n = 0; n < 4; ++n) {
        double product = 0;
        for (const auto& [ngram, value] : own[n]) {
          if (const auto found = other[n].find(ngram); found != other[n].end()) {
            product += std::min(value, found->second) * found->second;
          }
        }
        if (product > 0) sum += penalty * product / (own_norms[n] * norms[n]);
      }
    }
    scores.push_back(10 * sum / 4 / static_cast<double>(vectors[i].size()));
  }
  return scores;
}

/// Everything at once, over all captions.
struct caption_scores {
  std::array<double, 4> bleu{};  ///< BLEU-1 .. BLEU-4
  double rouge_l = 0, cider_d = 0;
};

/// `captions` [S] against `references` [S]. `Error`: see `bleu` and `cider_d_scores`.
inline caption_scores measure_captions(std::span<const std::string> captions,
                                       std::span<const std::vector<std::string>> references) {
  return {bleu(captions, references), detail::mean_of(rouge_l_scores(captions, references)),
          detail::mean_of(cider_d_scores(captions, references))};
}

}  // namespace core_tokensets

// ==== core_tokensets/train/evaluate.hpp ====
// A trained model on pictures: logits and features in batches, and accuracy.

#include <algorithm>
#include <vector>


namespace core_tokensets {

/// Outputs of a model for n pictures: logits `[n, K]` and the normalised class tokens `[n, D]` below the head.
struct model_outputs {
  std::vector<float> logits, features;
  std::vector<std::int32_t> labels;
};

/// Runs the model on whole pictures.
template <tensor_backend B>
model_outputs run_model(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                        const pixel_normalisation& normalisation, index batch_size = 128) {
  model_outputs out;
  vit_tape<B> tape;
  tape.keep = kept::logits;
  token_batch batch;
  for (std::size_t begin = 0; begin < indices.size(); begin += static_cast<std::size_t>(batch_size)) {
    const auto part = indices.subspan(begin, std::min(static_cast<std::size_t>(batch_size), indices.size() - begin));
    make_batch(data, part, {.patch = model.config().patch, .normalisation = normalisation}, batch);
    forward(b, model, batch, tape);
    const auto logits = tape.logits.to_host(b), features = tape.norm.y.to_host(b);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    out.features.insert(out.features.end(), features.begin(), features.end());
    out.labels.insert(out.labels.end(), batch.targets.begin(), batch.targets.end());
  }
  return out;
}

/// Share of rows `[n, K]` whose largest entry is at the label.
template <class T>
double accuracy(std::span<const T> scores, std::span<const std::int32_t> labels) {
  require(!labels.empty() && scores.size() % labels.size() == 0, "accuracy: ", scores.size(), " scores for ",
          labels.size(), " labels");
  const auto classes = static_cast<std::ptrdiff_t>(scores.size() / labels.size());
  double right = 0;
  auto row = scores.begin();
  for (const std::int32_t label : labels) {
    right += std::max_element(row, row + classes) - row == label ? 1 : 0;
    row += classes;
  }
  return right / static_cast<double>(labels.size());
}

/// Class means of features `[n, D]`, and the negative squared distances of other features to them: a classifier without
/// training (nearest class mean; Mensink et al. 2013).
class nearest_class_mean {
 public:
  nearest_class_mean(std::span<const float> features, std::span<const std::int32_t> labels, index classes)
      : dim_(static_cast<index>(features.size() / labels.size())),
        means_(static_cast<std::size_t>(classes * dim_), 0.0) {
    std::vector<double> counts(static_cast<std::size_t>(classes), 0.0);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      counts[static_cast<std::size_t>(labels[i])] += 1;
      for (index d = 0; d < dim_; ++d)
        mean(labels[i])[d] += double(features[i * static_cast<std::size_t>(dim_) + static_cast<std::size_t>(d)]);
    }
    for (index c = 0; c < classes; ++c) {
      const double count = std::max(1.0, counts[static_cast<std::size_t>(c)]);
      for (index d = 0; d < dim_; ++d) mean(c)[d] /= count;
    }
  }
  /// `[n, K]` for features `[n, D]`.
  std::vector<double> scores(std::span<const float> features) const {
    std::vector<double> result;
    const index classes = static_cast<index>(means_.size()) / dim_;
    for (std::size_t i = 0; i < features.size(); i += static_cast<std::size_t>(dim_)) {
      for (index c = 0; c < classes; ++c) {
        double distance = 0;
        for (index d = 0; d < dim_; ++d) {
          const double difference =
              double(features[i + static_cast<std::size_t>(d)]) - means_[static_cast<std::size_t>(c * dim_ + d)];
          distance += difference * difference;
        }
        result.push_back(-distance);
      }
    }
    return result;
  }

 private:
  double* mean(index c) { return means_.data() + c * dim_; }
  index dim_;
  std::vector<double> means_;
};

}  // namespace core_tokensets

// ==== core_tokensets/train/fit.hpp ====
// Training on new pictures together with a memory: one ragged batch holds both, one pass serves both.

#include <functional>
#include <string>
#include <vector>


namespace core_tokensets {

/// How new and replayed samples meet in the loss. `sum` (the paper): all classes compete for both. `ace` (ER-ACE,
/// Caccia et al. 2022): new samples compete among the classes of their own task only, so that they do not push the old
/// ones down. There the memory holds samples of the current task too, for which all classes compete; here it does not
/// yet, so some of the new samples take their place: as many for each new class as are replayed for each old one.
enum class replay_loss { sum, ace };

struct fit_options {
  index epochs = 3, batch = 64;
  index replay_batch = 64;  ///< samples of the memory in each step
  adamw optimiser = {.learning_rate = 1e-3};
  double warm_up = 0.05;  ///< share of the steps
  double clip = 1.0;      ///< largest norm of the gradient
  double label_smoothing = 0;
  replay_loss loss = replay_loss::ace;
  missing_tokens missing = missing_tokens::drop;
  double token_drop = 0;        ///< share of the tokens that is left out of new pictures ...
  double token_drop_often = 1;  ///< ... in this share of the batches; the others stay whole
  /// Relevance `[T]` of the tokens of whole new pictures, the least relevant of which are left out; empty: random ones
  /// are (see `token_drop_rule`).
  std::function<std::vector<double>(const token_batch&)> token_relevance = {};
  pixel_normalisation normalisation = {};
  augmentation augment = {};
  std::uint64_t seed = 0;
  progress_callback on_progress = {};
};

/// Everything that a training step writes to; kept from step to step.
template <tensor_backend B>
struct training_state {
  vit_tape<B> tape;
  loss_tape<B> loss;
  tensor<B> gradients, dtokens;
  optimiser_state<B> optimiser;
};

/// One optimiser step on a batch; its loss is left in `state.loss`. Allocates nothing once `state` is warm.
template <tensor_backend B>
void training_step(B& b, vit<B>& model, const token_batch& batch, const cross_entropy_options& loss_options,
                   const fit_options& o, double schedule, training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, batch, state.tape);
  cross_entropy(b, *state.tape.logits, batch.targets, state.loss, batch.weights, loss_options);
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward(b, model, state.tape, *state.loss.dlogits, state.gradients.data(), state.dtokens);
  if (o.clip > 0) clip_gradients(b, state.gradients, o.clip, state.optimiser);
  step(b, o.optimiser, state.optimiser, model.parameters(), state.gradients, schedule);
}

namespace detail {

/// Gives new samples, followed by replayed ones, weights that make their mean loss the mean over the new ones plus the
/// weighted mean over the replayed ones.
inline void balance_weights(std::vector<float>& weights, index samples, index fresh) {
  weights.resize(static_cast<std::size_t>(samples), 1.0f);
  const auto spread = [&](index begin, index end) {
    double total = 0;
    for (index s = begin; s < end; ++s) total += double(weights[static_cast<std::size_t>(s)]);
    if (!(total > 0)) return;
    const auto factor = static_cast<float>(static_cast<double>(samples) / total);
    for (index s = begin; s < end; ++s) weights[static_cast<std::size_t>(s)] *= factor;
  };
  spread(0, fresh);
  spread(fresh, samples);
}

/// The same for a batch, and which classes compete (`first` `[S]`).
inline void balance(token_batch& batch, index fresh, replay_loss loss, std::int32_t first_class, index classes,
                    std::vector<std::int32_t>& first) {
  const index samples = batch.samples();
  balance_weights(batch.weights, samples, fresh);
  first.assign(static_cast<std::size_t>(samples), 0);
  if (loss == replay_loss::sum) return;
  index open = 0;  // new samples for which all classes compete
  if (samples > fresh && first_class > 0) open = (samples - fresh) * (classes - first_class) / first_class;
  std::fill(first.begin() + std::min(open, fresh), first.begin() + fresh, first_class);
}

}  // namespace detail

/// The stream of random numbers that deals out the memory; those of epochs and steps begin at 1000.
inline constexpr std::uint64_t replay_stream = 0x7265706c6179;

/// Where training stands.
struct epoch_position {
  index epoch = 0, step = 0;
  double schedule = 1;  ///< what the learning rate is multiplied by
};

/// The loop that all training shares: epochs of shuffled samples in batches, the learning rate's schedule, progress.
/// `step(part, position)` trains on samples; `loss()` waits for the last step's loss and throws where it is not finite.
template <class Step, class Loss>
void run_epochs(std::span<const index> samples, const fit_options& o, const std::string& what, const Step& step,
                const Loss& loss) {
  require(!samples.empty() && o.epochs > 0 && o.batch > 0, "fit: ", samples.size(), " samples, ", o.epochs,
          " epochs, batches of ", o.batch, ", expected more than 0 of each");
  const auto n = static_cast<index>(samples.size());
  const index steps = (n + o.batch - 1) / o.batch * o.epochs;
  const auto warm_up = static_cast<index>(o.warm_up * static_cast<double>(steps));
  constexpr index look_every = 8;  // steps between two looks at the loss, for which a device must be waited for
  progress_meter meter(o.on_progress, what, steps);
  std::string note;
  std::vector<index> order(samples.begin(), samples.end());
  for (index epoch = 0, done = 0; epoch < o.epochs; ++epoch) {
    random_stream(o.seed, 1000 + static_cast<std::uint64_t>(epoch)).shuffle(std::span(order));
    for (index begin = 0; begin < n; begin += o.batch, ++done) {
      step(std::span<const index>(order).subspan(static_cast<std::size_t>(begin),
                                                 static_cast<std::size_t>(std::min(o.batch, n - begin))),
           epoch_position{epoch, done, cosine_schedule(done, steps, warm_up)});
      if (done % look_every == 0 || done + 1 == steps) {
        char text[32];
        std::snprintf(text, sizeof text, "loss %.3f", loss());
        note = text;
      }
      meter.step(note);
    }
  }
}

/// A batch of new pictures as training sees it: whole, or for some of the steps with tokens left out.
class new_pictures {
 public:
  /// The batch of the pictures `part` at that position; valid until the next call.
  token_batch& take(const dataset& data, std::span<const index> part, index patch, const fit_options& o,
                    const epoch_position& at) {
    make_batch(data, part,
               {.patch = patch,
                .normalisation = o.normalisation,
                .augment = o.augment,
                .seed = o.seed,
                .epoch = static_cast<std::uint64_t>(at.epoch)},
               whole_);
    random_stream random = stream_of(o, at);
    if (!chance(o, random)) return whole_;
    if (o.token_relevance) {
      drop_irrelevant_tokens(whole_, o.token_drop, o.token_relevance(whole_), o.missing, thinned_);
    } else {
      drop_tokens(whole_, o.token_drop, random, o.missing, thinned_);
    }
    return thinned_;
  }

  /// True where the batch of that position loses tokens.
  static bool thins(const fit_options& o, const epoch_position& at) {
    random_stream random = stream_of(o, at);
    return chance(o, random);
  }

 private:
  static random_stream stream_of(const fit_options& o, const epoch_position& at) {
    return random_stream(o.seed, 1'000'000 + static_cast<std::uint64_t>(at.step));
  }
  static bool chance(const fit_options& o, random_stream& random) {
    return o.token_drop > 0 && random.uniform() < o.token_drop_often;
  }

  token_batch whole_, thinned_;
};

/// Trains on the pictures `indices` of `data`, whose classes start at `first_class`, with replay from `memory` (may be
/// null or empty). The loss is the mean over the new samples plus the weighted mean over the replayed ones. Every
/// random choice is a function of `options.seed`. Throws where the loss is not finite.
template <tensor_backend B>
void fit(B& b, vit<B>& model, const dataset& data, std::span<const index> indices, const token_memory* memory,
         std::int32_t first_class, const fit_options& o, const std::string& what = "fit") {
  training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  const bool replay = memory != nullptr && !memory->empty();
  replay_sampler sampler(replay ? memory->samples() : 1, o.seed, replay_stream);
  new_pictures pictures;
  token_batch replayed;
  std::vector<std::int32_t> first;
  std::span<const float> weights;
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    token_batch& batch = pictures.take(data, part, model.config().patch, o, at);
    const index fresh = batch.samples();
    if (replay) {
      make_batch(*memory, sampler.draw(std::min(o.replay_batch, memory->samples())), o.missing, replayed);
      append(batch, replayed);
    }
    detail::balance(batch, fresh, o.loss, first_class, model.config().classes, first);
    ops::repeat(b, (batch.tokens() << 20) + batch.samples(), [&] {
      training_step(b, model, batch, {.label_smoothing = o.label_smoothing, .first_class = first}, o, at.schedule,
                    state);
    });
    weights = batch.weights;
  };
  run_epochs(indices, o, what, train, [&] { return mean_loss(b, state.loss, weights); });
}

}  // namespace core_tokensets

// ==== core_tokensets/train/metrics.hpp ====
// What continual learning is judged by: the accuracy matrix and the numbers that are read off it.

#include <algorithm>
#include <vector>


namespace core_tokensets {

/// R[t][i]: accuracy on the test pictures of task i after learning task t, for i <= t, in [0, 1].
using accuracy_matrix = std::vector<std::vector<double>>;

/// Numbers of an accuracy matrix of T tasks (Lopez-Paz & Ranzato 2017; Chaudhry et al. 2018).
struct continual_metrics {
  double average_accuracy = 0;              ///< mean over i of R[T-1][i]
  double average_incremental_accuracy = 0;  ///< mean over t of the mean over i <= t of R[t][i]
  double forgetting = 0;                    ///< mean over i < T-1 of max_t<T-1 R[t][i] - R[T-1][i]
  double backward_transfer = 0;             ///< mean over i < T-1 of R[T-1][i] - R[i][i]
};

inline continual_metrics measure(const accuracy_matrix& r) {
  require(!r.empty(), "metrics: the accuracy matrix is empty");
  continual_metrics m;
  const std::size_t tasks = r.size();
  for (std::size_t t = 0; t < tasks; ++t) {
    require(r[t].size() == t + 1, "metrics: row ", t, " of the accuracy matrix has ", r[t].size(),
            " entries, expected ", t + 1);
    double sum = 0;
    for (const double a : r[t]) sum += a;
    m.average_accuracy = sum / static_cast<double>(t + 1);
    m.average_incremental_accuracy += m.average_accuracy / static_cast<double>(tasks);
  }
  for (std::size_t i = 0; i + 1 < tasks; ++i) {
    double best = 0;
    for (std::size_t t = i; t + 1 < tasks; ++t) best = std::max(best, r[t][i]);
    m.forgetting += (best - r.back()[i]) / static_cast<double>(tasks - 1);
    m.backward_transfer += (r.back()[i] - r[i][i]) / static_cast<double>(tasks - 1);
  }
  return m;
}

}  // namespace core_tokensets

// ==== core_tokensets/train/task_loop.hpp ====
// The loop over tasks that arrive one after another: learn, remember, judge, checkpoint. What learns (classes, answers,
// captions) is a `learner`.

#include <chrono>
#include <concepts>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>


namespace core_tokensets {

/// What is kept of old tasks. `core_tokens`: random samples, relevant tokens; `random_tokens`: both random; `joint`:
/// all data (upper bound); `ncm`: no training after the first task, nearest class mean on its features (no training at
/// all with given weights).
enum class memory_kind { none, coreset, core_tokens, random_tokens, core_tokenset, joint, ncm };

inline constexpr const char* memory_kind_names[] = {"none",          "coreset", "core-tokens", "random-tokens",
                                                    "core-tokenset", "joint",   "ncm"};

inline memory_kind parse_memory_kind(const std::string& name) {
  std::string all;
  for (int i = 0; i < 7; ++i) {
    if (name == memory_kind_names[i]) return static_cast<memory_kind>(i);
    all += (i ? ", " : "") + std::string(memory_kind_names[i]);
  }
  fail("memory: no kind is named '", name, "'; there are ", all);
}

/// True where a memory of that kind holds samples.
inline bool stores_samples(memory_kind kind) {
  return kind == memory_kind::coreset || kind == memory_kind::core_tokens || kind == memory_kind::random_tokens ||
         kind == memory_kind::core_tokenset;
}

/// Which samples a consolidation stored, in the order of the memory, and the seconds that its two halves took.
struct consolidation {
  std::vector<index> pictures;
  double select_seconds = 0, attribute_seconds = 0;
};

/// How good a learner is on the test data of each task so far; `others` holds further measures by name.
struct task_scores {
  std::vector<double> accuracy;
  std::map<std::string, std::vector<double>> others = {};
};

/// What the loop needs of a learner. Tasks are numbered from 0; every random choice is a function of the task.
template <class L>
concept learner = requires(L& l, const L& constant, index t, token_memory& memory, const token_memory& known,
                           const std::vector<index>& stored, const tensor_file& file) {
  { constant.tasks() } -> std::same_as<index>;
  { constant.data_bytes() } -> std::same_as<index>;             ///< what a budget that is a fraction refers to
  { constant.data_checksum() } -> std::same_as<std::uint64_t>;  ///< what a checkpoint recognises the data by
  { constant.format() } -> std::same_as<token_memory_format>;
  { constant.stores() } -> std::same_as<bool>;
  l.learn(t, known);                                                          ///< task t with replay
  { l.remember(t, index{}, stored, memory) } -> std::same_as<consolidation>;  ///< within so many bytes
  { l.judge(t) } -> std::same_as<task_scores>;
  { constant.memory_bytes(known, stored) } -> std::same_as<index>;  ///< what is kept of old tasks, 0 for nothing
  { l.save() } -> std::same_as<tensor_file>;
  l.load(file);
};

struct task_loop_options {
  byte_budget budget = fraction(0.01);  ///< for the memory after the last task
  std::filesystem::path out = {};       ///< folder of checkpoints; empty: none
  bool resume = false;                  ///< go on from the last checkpoint in `out`, to the same bits
};

struct sequence_result {
  accuracy_matrix accuracy;
  std::map<std::string, accuracy_matrix> others;  ///< further measures by name
  index memory_bytes = 0, memory_tokens = 0, memory_samples = 0, budget_bytes = 0;
  double train_seconds = 0, select_seconds = 0, attribute_seconds = 0, evaluate_seconds = 0;
};

namespace detail {

/// Checksum of a checkpoint's state, its own entry left out.
inline std::string state_checksum(nlohmann::json state) {
  state.erase("checksum");
  const std::string text = state.dump();
  return checksum_text(fnv1a(std::as_bytes(std::span(text))));
}

inline std::string file_checksum(const std::filesystem::path& path) { return checksum_text(fnv1a(read_file(path))); }

inline nlohmann::json to_json(const sequence_result& r) {
  nlohmann::json json{{"accuracy", r.accuracy},
                      {"memory_bytes", r.memory_bytes},
                      {"memory_tokens", r.memory_tokens},
                      {"memory_samples", r.memory_samples},
                      {"budget_bytes", r.budget_bytes},
                      {"seconds",
                       {{"train", r.train_seconds},
                        {"select", r.select_seconds},
                        {"attribute", r.attribute_seconds},
                        {"evaluate", r.evaluate_seconds}}}};
  if (!r.others.empty()) json["measures"] = r.others;
  return json;
}

}  // namespace detail

/// Results as JSON: the accuracy matrix, its metrics, bytes and seconds.
inline nlohmann::json to_json(const sequence_result& r) {
  auto json = detail::to_json(r);
  const continual_metrics m = measure(r.accuracy);
  json["average_accuracy"] = m.average_accuracy;
  json["average_incremental_accuracy"] = m.average_incremental_accuracy;
  json["forgetting"] = m.forgetting;
  json["backward_transfer"] = m.backward_transfer;
  return json;
}

/// Runs all tasks through a learner and fills a memory. `fingerprint` describes everything that the results depend on
/// but the data, which have their checksum; a checkpoint of other settings or data is refused.
template <learner L>
class task_loop {
 public:
  task_loop(L& l, task_loop_options options, std::string fingerprint)
      : learner_(l), o_(std::move(options)), fingerprint_(std::move(fingerprint)), memory_(l.format()) {
    require(l.tasks() > 0, "sequence: there are no tasks");
    result_.budget_bytes = o_.budget.resolve(l.data_bytes());
    if (!o_.out.empty()) data_ = checksum_text(l.data_checksum());
  }

  sequence_result run() {
    index first = 0;
    if (o_.resume && !o_.out.empty() && std::filesystem::exists(o_.out / "checkpoint.json")) first = restore();
    for (index t = first; t < learner_.tasks(); ++t) {
      timed(result_.train_seconds, [&] { learner_.learn(t, memory_); });
      if (learner_.stores()) remember(t);
      judge(t);
      if (!o_.out.empty()) checkpoint(t);
    }
    return result_;
  }

  const token_memory& memory() const { return memory_; }
  /// For each sample of the memory the training sample that it came from.
  const std::vector<index>& pictures() const { return pictures_; }

 private:
  template <class Work>
  static void timed(double& seconds, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void remember(index t) {
    const index bytes = result_.budget_bytes * (t + 1) / learner_.tasks();
    const consolidation stored = learner_.remember(t, bytes, pictures_, memory_);
    pictures_.insert(pictures_.end(), stored.pictures.begin(), stored.pictures.end());
    result_.select_seconds += stored.select_seconds;
    result_.attribute_seconds += stored.attribute_seconds;
  }

  void judge(index t) {
    timed(result_.evaluate_seconds, [&] {
      task_scores row = learner_.judge(t);
      result_.accuracy.push_back(std::move(row.accuracy));
      for (auto& [name, values] : row.others) result_.others[name].push_back(std::move(values));
    });
    result_.memory_bytes = learner_.memory_bytes(memory_, pictures_);
    result_.memory_tokens = memory_.tokens();
    result_.memory_samples = memory_.samples();
  }

  /// Model and memory first, the file that names them last: whenever the program dies, a whole checkpoint is there.
  void checkpoint(index t) {
    detail::make_folders(o_.out);
    const std::string tag = std::to_string(t);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    save_safetensors(model_path, learner_.save());
    memory_.save(memory_path);
    nlohmann::json state = detail::to_json(result_);
    state["tasks_done"] = t + 1;
    state["pictures"] = pictures_;
    state["fingerprint"] = fingerprint_;
    state["data"] = data_;
    state["model"] = detail::file_checksum(model_path);
    state["memory"] = detail::file_checksum(memory_path);
    state["checksum"] = detail::state_checksum(state);
    write_file(o_.out / "checkpoint.json", std::string_view(state.dump(1)));
    if (t > 0) {
      const std::string old = std::to_string(t - 1);
      std::error_code ignored;  // they only take space
      std::filesystem::remove(o_.out / ("checkpoint-model-" + old + ".safetensors"), ignored);
      std::filesystem::remove(o_.out / ("checkpoint-memory-" + old + ".safetensors"), ignored);
    }
  }

  index restore() {
    const auto path = o_.out / "checkpoint.json";
    const auto state = parse_json(read_text(path));
    require(state.is_object() && state.contains("tasks_done") && state.contains("fingerprint"), path.string(),
            ": not a checkpoint");
    require(state.contains("checksum") && state["checksum"] == detail::state_checksum(state), path.string(),
            ": the checkpoint was altered (its checksum does not match)");
    require(state["fingerprint"] == fingerprint_, path.string(),
            ": the checkpoint belongs to a run with other settings; choose another folder or leave --resume out");
    require(state.contains("data") && state["data"] == data_, path.string(),
            ": the checkpoint belongs to a run on other data; choose another folder or leave --resume out");
    const auto done = state["tasks_done"].get<index>();
    const std::string tag = std::to_string(done - 1);
    const auto model_path = o_.out / ("checkpoint-model-" + tag + ".safetensors"),
               memory_path = o_.out / ("checkpoint-memory-" + tag + ".safetensors");
    for (const auto& [name, file_path] : {std::pair("model", model_path), std::pair("memory", memory_path)}) {
      require(state[name] == detail::file_checksum(file_path), file_path.string(),
              ": the checkpoint was altered (its checksum does not match)");
    }
    learner_.load(load_safetensors(model_path));
    memory_ = load_token_memory(memory_path);
    result_.accuracy = state["accuracy"].get<accuracy_matrix>();
    if (state.contains("measures")) result_.others = state["measures"].get<std::map<std::string, accuracy_matrix>>();
    pictures_ = state["pictures"].get<std::vector<index>>();
    const auto& seconds = state["seconds"];
    result_.train_seconds = seconds["train"];
    result_.select_seconds = seconds["select"];
    result_.attribute_seconds = seconds["attribute"];
    result_.evaluate_seconds = seconds["evaluate"];
    result_.memory_bytes = state["memory_bytes"];
    result_.memory_tokens = state["memory_tokens"];
    result_.memory_samples = state["memory_samples"];
    return done;
  }

  L& learner_;
  task_loop_options o_;
  std::string fingerprint_, data_;  ///< what a checkpoint is recognised by
  token_memory memory_;
  sequence_result result_;
  std::vector<index> pictures_;  ///< [S] training sample of each sample of the memory
};

}  // namespace core_tokensets

// ==== core_tokensets/train/recipe.hpp ====
// How a task enters the memory: which samples, which of their tokens, how many bytes.

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <string>
#include <variant>
#include <vector>


namespace core_tokensets {

using selection_method = std::variant<random_selection, grad_match>;

/// "random" or "grad_match"; anything else is an error that lists them.
inline selection_method parse_selection(const std::string& name, std::uint64_t seed = 0) {
  if (name == "random") return random_selection{.seed = seed};
  if (name == "grad_match") return grad_match{};
  fail("selection: no method is named '", name, "'; there are random, grad_match");
}

/// Samples by `select`, ranked tokens by `attribute`, of which the share `keep` is stored. The share 1 is a coreset.
struct core_tokenset {
  selection_method select = grad_match{};
  attribution_method attribute = grad_lrp{};
  double keep = 0.1;
};

/// `Error` unless the share of tokens is one.
inline void check(const core_tokenset& recipe) {
  require(recipe.keep > 0 && recipe.keep <= 1, "core tokenset: keep ", recipe.keep,
          ", expected more than 0 and at most 1");
}

/// The seed of everything random in task t.
inline std::uint64_t seed_of_task(std::uint64_t seed, index t) { return seed * 1000 + static_cast<std::uint64_t>(t); }

/// Which tokens new pictures lose in the steps that leave some out: random ones, or those that a memory of relevant
/// tokens would leave out. With the second new and old pictures lose the same, so a model cannot tell by what is
/// missing which is old; it explains every such batch, and whether it helps depends on the method (docs/results.md).
enum class token_drop_rule { random, memory };

/// True where new pictures lose the tokens that a memory of that kind and recipe would not keep.
inline bool drops_like_memory(token_drop_rule rule, memory_kind kind, const core_tokenset& recipe) {
  return rule == token_drop_rule::memory && recipe.keep < 1 &&
         (kind == memory_kind::core_tokens || kind == memory_kind::core_tokenset);
}

/// The recipe of a kind of memory: the controls replace selection, attribution or both by chance.
inline core_tokenset recipe_of(core_tokenset r, memory_kind kind, std::uint64_t seed) {
  if (kind == memory_kind::coreset) r.keep = 1;
  if (kind == memory_kind::core_tokens || kind == memory_kind::random_tokens) r.select = random_selection{.seed = seed};
  if (kind == memory_kind::random_tokens) r.attribute = random_relevance{seed};
  if (auto* chance = std::get_if<random_selection>(&r.select)) chance->seed = seed;
  return r;
}

/// The format of a memory of that kind for a model's pictures.
inline token_memory_format memory_format(const vit_config& c, const pixel_normalisation& normalisation,
                                         memory_kind kind) {
  const auto n = normalisation.for_channels(c.image.channels);
  return {.image_height = c.image.height,
          .image_width = c.image.width,
          .channels = c.image.channels,
          .patch = c.patch,
          .mean = n.mean,
          .stddev = n.stddev,
          .relevance = kind == memory_kind::coreset ? relevance_storage::none : relevance_storage::f16};
}

/// `Error` unless a memory holds patches as the model cuts them.
inline void check_format(const token_memory_format& f, const vit_config& c) {
  require(f.image_height == c.image.height && f.image_width == c.image.width && f.channels == c.image.channels &&
              f.patch == c.patch,
          "memory: images of ", f.image_height, "x", f.image_width, "x", f.channels, " in patches of ", f.patch,
          ", the model sees ", c.image.height, "x", c.image.width, "x", c.image.channels, " in patches of ", c.patch);
}

/// What a whole picture costs in the budget: the file that it came as (JPEG, PNG), which is what a sensible user would
/// store, or its raw pixels.
enum class picture_price { source, raw };

/// Bytes of label and weight beside a stored picture file.
inline constexpr index picture_overhead = 8;

namespace detail {

/// The largest k of 0 .. available for which `fits(k)` holds, if it holds for all smaller ones.
template <class Fits>
index most_that_fit(index available, const Fits& fits) {
  index low = 0, high = available;
  while (low < high) {
    const index middle = (low + high + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace detail

/// How many of `available` samples with `tokens` each may join the memory before its file exceeds `bytes`. Throws where
/// not even one fits an empty memory.
inline index affordable_samples(const token_memory& memory, index tokens, index available, index bytes) {
  const index k = detail::most_that_fit(available, [&](index more) {
    return memory.bytes_on_disk(memory.samples() + more, memory.tokens() + more * tokens) <= bytes;
  });
  require(k > 0 || !memory.empty(), "memory: a budget of ", bytes, " bytes is too small for one sample with ", tokens,
          " tokens, which takes ", memory.bytes_on_disk(1, tokens));
  return k;
}

/// What a picture costs as a file.
inline index file_price(const dataset& data, index picture) {
  return static_cast<index>(data.source_bytes[static_cast<std::size_t>(picture)]) + picture_overhead;
}

/// The samples that cost no more than `bytes` on their own, by `price(sample)`. Where there are none: nothing if the
/// memory holds something, or else an `Error` that names the least price.
template <class Price>
std::vector<index> affordable_alone(std::span<const index> samples, index bytes, bool memory_empty,
                                    const Price& price) {
  std::vector<index> found;
  index least = std::numeric_limits<index>::max();
  for (const index i : samples) {
    least = std::min(least, price(i));
    if (price(i) <= bytes) found.push_back(i);
  }
  require(!found.empty() || !memory_empty, "memory: a budget of ", bytes,
          " bytes is too small for one picture: the smallest takes ", least);
  return found;
}

/// How many pictures of `indices` on average fit `bytes` when each costs its source file.
inline index affordable_pictures(const dataset& data, std::span<const index> indices, index bytes) {
  double total = 0;
  for (const index i : indices) total += double(file_price(data, i));
  const double mean = total / static_cast<double>(indices.size());
  return std::min(static_cast<index>(indices.size()), static_cast<index>(static_cast<double>(bytes) / mean));
}

/// Leaves out the dearest of what was chosen until the rest costs no more than `bytes`; weights have mean 1 again.
/// `alone(i)` is the price of sample i, `together(indices)` that of all of them, which may share something.
template <class Alone, class Together>
void fit_price(selection_result& chosen, index bytes, const Alone& alone, const Together& together) {
  while (!chosen.indices.empty() && together(chosen.indices) > bytes) {
    const auto dearest = std::max_element(chosen.indices.begin(), chosen.indices.end(),
                                          [&](index a, index c) { return alone(a) < alone(c); });
    chosen.weights.erase(chosen.weights.begin() + (dearest - chosen.indices.begin()));
    chosen.indices.erase(dearest);
  }
  chosen.weights = normalise_weights(std::vector<double>(chosen.weights.begin(), chosen.weights.end()));
}

/// k of the samples with these labels `[n]`; `gather()` makes the evidence, which chance does without.
template <class Gather>
selection_result choose(const selection_method& method, std::span<const std::int32_t> labels, index classes, index k,
                        const Gather& gather) {
  if (const auto* chance = std::get_if<random_selection>(&method)) return select_at_random(*chance, labels, classes, k);
  const evidence known = gather();
  return std::visit([&](const auto& m) { return select(m, known, k); }, method);
}

/// The most relevant tokens of one picture as the memory stores them.
struct kept_tokens {
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;  ///< empty where the memory keeps none
};

/// The `count` tokens of a picture with the largest of `relevance` `[P]`.
inline kept_tokens cut_tokens(const image_view& picture, std::span<const double> relevance, index count,
                              const token_memory_format& format) {
  require(static_cast<index>(relevance.size()) == format.grid_tokens() && count > 0 && count <= format.grid_tokens(),
          "memory: ", count, " of ", relevance.size(), " tokens, its pictures have ", format.grid_tokens());
  kept_tokens kept;
  kept.positions = most_relevant(relevance, count);
  const auto pixels = patchify(picture, format.patch);
  for (const std::uint16_t p : kept.positions) {
    const auto from = pixels.begin() + p * format.patch_dim();
    kept.patches.insert(kept.patches.end(), from, from + format.patch_dim());
    if (format.relevance != relevance_storage::none) kept.relevance.push_back(static_cast<float>(relevance[p]));
  }
  return kept;
}

/// Chooses `k` of the pictures `indices`, or fewer if their files may weigh no more than `file_bytes`, and appends
/// their most relevant tokens to the memory, as of task `task_number`.
template <tensor_backend B>
consolidation consolidate(B& b, const vit<B>& model, const dataset& data, std::span<const index> indices,
                          const core_tokenset& recipe, index k, const pixel_normalisation& normalisation,
                          std::uint16_t task_number, token_memory& memory,
                          index file_bytes = std::numeric_limits<index>::max()) {
  using clock = std::chrono::steady_clock;
  const auto seconds = [](clock::time_point from) {
    return std::chrono::duration<double>(clock::now() - from).count();
  };
  check(recipe);
  check_pictures(data, model.config());
  check_format(memory.format(), model.config());
  for (const index i : indices) require(i >= 0 && i < data.n(), "consolidate: picture ", i, " of ", data.n());
  const auto start = clock::now();
  std::vector<std::int32_t> labels;
  for (const index i : indices) labels.push_back(data.labels[static_cast<std::size_t>(i)]);
  selection_result chosen = choose(recipe.select, labels, model.config().classes, k, [&] {
    const model_outputs outputs = run_model(b, model, data, indices, normalisation);
    return make_evidence(outputs.logits, outputs.features, outputs.labels, model.config().classes);
  });
  if (file_bytes != std::numeric_limits<index>::max()) {
    const auto price = [&](index i) { return file_price(data, indices[static_cast<std::size_t>(i)]); };
    fit_price(chosen, file_bytes, price, [&](const std::vector<index>& all) {
      return std::accumulate(all.begin(), all.end(), index{0}, [&](index sum, index i) { return sum + price(i); });
    });
  }
  consolidation done;
  done.select_seconds = seconds(start);

  const auto attribution_start = clock::now();
  const index patches = model.config().patches();
  const auto count = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
  attribution_workspace<B> workspace;
  token_batch batch;
  constexpr std::size_t batch_size = 32;
  for (std::size_t begin = 0; begin < chosen.indices.size(); begin += batch_size) {
    std::vector<index> part;
    for (std::size_t i = begin; i < std::min(begin + batch_size, chosen.indices.size()); ++i) {
      part.push_back(indices[static_cast<std::size_t>(chosen.indices[i])]);
    }
    done.pictures.insert(done.pictures.end(), part.begin(), part.end());
    make_batch(data, part, {.patch = model.config().patch, .normalisation = normalisation}, batch);
    const std::vector<double> relevance = count == patches
                                              ? std::vector<double>(static_cast<std::size_t>(batch.tokens()), 0.0)
                                              : attribute(recipe.attribute, b, model, batch, batch.targets, workspace);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto of_sample =
          std::span(relevance).subspan(i * static_cast<std::size_t>(patches), static_cast<std::size_t>(patches));
      const kept_tokens kept = cut_tokens(data.view_of(part[i]), of_sample, count, memory.format());
      memory.append({.patches = kept.patches,
                     .positions = kept.positions,
                     .relevance = kept.relevance,
                     .target = data.labels[static_cast<std::size_t>(part[i])],
                     .weight = chosen.weights[begin + i],
                     .task = task_number});
    }
  }
  done.attribute_seconds = seconds(attribution_start);
  return done;
}

}  // namespace core_tokensets

// ==== core_tokensets/train/sequence.hpp ====
// Classes that arrive task after task: what the sequential loop learns, remembers and judges for image classification.

#include <limits>
#include <optional>
#include <string>


namespace core_tokensets {

struct sequence_options {
  memory_kind memory = memory_kind::core_tokenset;
  core_tokenset recipe = {};
  byte_budget budget = fraction(0.01);  ///< of the training data as they came, for the memory after the last task
  picture_price price = picture_price::source;
  fit_options fit = {};
  token_drop_rule token_drop = token_drop_rule::random;
  bool frozen_start = false;       ///< the model comes with trained weights (for `ncm`)
  std::filesystem::path out = {};  ///< folder of checkpoints; empty: none
  bool resume = false;             ///< go on from the last checkpoint in `out`, to the same bits
};

/// A Vision Transformer that learns the classes of a stream of tasks.
template <tensor_backend B>
class class_learner {
 public:
  class_learner(B& b, vit<B>& model, const task_stream& stream, sequence_options options)
      : b_(b), model_(model), stream_(stream), o_(std::move(options)) {
    check(o_.recipe);
    check_pictures(stream.data.train, model.config());
    check_pictures(stream.data.test, model.config());
    if (stream.data.train.source_bytes.empty()) o_.price = picture_price::raw;
  }

  index tasks() const { return stream_.size(); }
  bool stores() const { return stores_samples(o_.memory); }
  index data_bytes() const {
    const dataset& train = stream_.data.train;
    if (train.source_bytes.empty()) return static_cast<index>(train.pixels.size());
    return static_cast<index>(train.total_source_bytes()) + picture_overhead * train.n();
  }

  std::uint64_t data_checksum() const { return checksum(stream_); }

  token_memory_format format() const { return memory_format(model_.config(), o_.fit.normalisation, o_.memory); }

  void learn(index t, const token_memory& memory) {
    const task& now = stream_[t];
    const index classes = stream_.seen_classes(t);
    if (t == 0) {
      if (model_.config().classes != classes || o_.frozen_start) model_.replace_head(b_, classes);
    } else {
      model_.grow_head(b_, classes);
    }
    if (o_.memory == memory_kind::ncm && (t > 0 || o_.frozen_start)) return;
    std::vector<index> pictures = now.train;
    std::int32_t first_class = now.classes.front();
    if (o_.memory == memory_kind::joint) {
      for (index i = 0; i < t; ++i) pictures.insert(pictures.end(), stream_[i].train.begin(), stream_[i].train.end());
      first_class = 0;
    }
    fit_options f = o_.fit;
    f.seed = seed_of_task(o_.fit.seed, t);
    if (drops_like_memory(o_.token_drop, o_.memory, o_.recipe)) {
      f.token_relevance = [&](const token_batch& whole) {
        return attribute(o_.recipe.attribute, b_, model_, whole, whole.targets, explained_);
      };
    }
    fit(b_, model_, stream_.data.train, pictures, &memory, first_class, f,
        "task " + std::to_string(t + 1) + "/" + std::to_string(stream_.size()));
  }

  consolidation remember(index t, index bytes, const std::vector<index>& stored, token_memory& memory) {
    const task& now = stream_[t];
    const core_tokenset recipe = recipe_of(o_.recipe, o_.memory, seed_of_task(o_.fit.seed, t));
    const index patches = model_.config().patches();
    const dataset& train = stream_.data.train;
    index k = 0, file_bytes = std::numeric_limits<index>::max();
    std::vector<index> pictures = now.train;
    if (as_files()) {
      file_bytes = bytes - price_of_files(stored);
      pictures = affordable_alone(now.train, file_bytes, memory.empty(), [&](index i) { return file_price(train, i); });
      k = pictures.empty() ? 0 : affordable_pictures(train, pictures, file_bytes);
    } else {
      const index tokens = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
      k = affordable_samples(memory, tokens, static_cast<index>(now.train.size()), bytes);
    }
    if (k == 0) return {};
    return consolidate(b_, model_, train, pictures, recipe, k, o_.fit.normalisation, static_cast<std::uint16_t>(t),
                       memory, file_bytes);
  }

  task_scores judge(index t) {
    std::optional<nearest_class_mean> means;
    if (o_.memory == memory_kind::ncm) {
      std::vector<index> seen;
      for (index i = 0; i <= t; ++i) seen.insert(seen.end(), stream_[i].train.begin(), stream_[i].train.end());
      const auto known = run_model(b_, model_, stream_.data.train, seen, o_.fit.normalisation);
      means.emplace(known.features, known.labels, stream_.seen_classes(t));
    }
    task_scores row;
    for (index i = 0; i <= t; ++i) {
      const auto got = run_model(b_, model_, stream_.data.test, stream_[i].test, o_.fit.normalisation);
      row.accuracy.push_back(means ? accuracy<double>(means->scores(got.features), got.labels)
                                   : accuracy<float>(got.logits, got.labels));
    }
    return row;
  }

  index memory_bytes(const token_memory& memory, const std::vector<index>& stored) const {
    if (o_.memory == memory_kind::ncm)  // the means, in single precision
      return model_.config().classes * model_.config().dim * static_cast<index>(sizeof(float));
    return memory.empty() ? 0 : as_files() ? price_of_files(stored) : memory.bytes_on_disk();
  }

  tensor_file save() { return to_file(b_, model_); }
  void load(const tensor_file& file) {
    model_.replace_head(b_, read_config(file).classes);
    load_parameters(b_, model_, file);
  }

 private:
  /// True where the memory is priced as the files that its pictures came as.
  bool as_files() const { return o_.memory == memory_kind::coreset && o_.price == picture_price::source; }
  index price_of_files(const std::vector<index>& stored) const {
    index total = 0;
    for (const index i : stored) total += file_price(stream_.data.train, i);
    return total;
  }

  B& b_;
  vit<B>& model_;
  const task_stream& stream_;
  sequence_options o_;
  attribution_workspace<B> explained_;
};

/// Runs the whole sequence on `model` and fills `memory`. `fingerprint` describes everything that the results depend
/// on; a checkpoint with another one is refused.
template <tensor_backend B>
class sequence_runner {
 public:
  sequence_runner(B& b, vit<B>& model, const task_stream& stream, const sequence_options& options,
                  std::string fingerprint)
      : learner_(b, model, stream, options),
        loop_(learner_, {.budget = options.budget, .out = options.out, .resume = options.resume},
              std::move(fingerprint)) {}
  sequence_runner(const sequence_runner&) = delete;
  sequence_runner& operator=(const sequence_runner&) = delete;

  sequence_result run() { return loop_.run(); }
  const token_memory& memory() const { return loop_.memory(); }
  /// For each sample of the memory the training picture that it came from.
  const std::vector<index>& pictures() const { return loop_.pictures(); }

 private:
  class_learner<B> learner_;
  task_loop<class_learner<B>> loop_;
};

}  // namespace core_tokensets

// ==== core_tokensets/train/text_fit.hpp ====
// Teaching an image-text model questions or captions together with a memory of earlier ones.


namespace core_tokensets {

/// Everything that a training step of an image-text model writes to; kept from step to step.
template <tensor_backend B>
struct text_training_state {
  image_text_tape<B> tape;
  loss_tape<B> loss;
  tensor<B> gradients;
  stream_gradients<B> streams;
  optimiser_state<B> optimiser;
};

/// One optimiser step: the loss is the mean over the texts of weight times the mean over the answer's tokens.
template <tensor_backend B>
void training_step(B& b, image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                   const fit_options& o, double schedule, text_training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, images, texts, state.tape);
  cross_entropy(b, *std::as_const(state.tape.logits), state.tape.text.targets, state.loss, state.tape.text.weights,
                {.label_smoothing = o.label_smoothing});
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward<B, T>(b, model, state.tape, *std::as_const(state.loss.dlogits), state.gradients.data(), state.streams);
  if (o.clip > 0) clip_gradients(b, state.gradients, o.clip, state.optimiser);
  step(b, o.optimiser, state.optimiser, model.parameters(), state.gradients, schedule);
}

/// Appends the stored texts of `samples` to a batch, one to each picture behind those that are there.
inline void append_stored_texts(const token_memory& memory, std::span<const index> samples, const tokenizer& words,
                                text_batch& out) {
  require(memory.format().texts, "texts: the memory keeps no texts");
  out.weights.resize(static_cast<std::size_t>(out.texts()), 1.0f);
  for (const index s : samples) {
    const stored_sample sample = memory.sample(s);
    out.next_picture();
    out.append(words.encode(sample.prompt), words.encode(sample.answer), tokenizer::begin_token, tokenizer::end_token);
    out.weights.push_back(sample.weight);
  }
}

/// Relevance `[T]` of the tokens of whole pictures for one text about each.
using answer_token_relevance = std::function<std::vector<double>(const token_batch&, const text_batch&)>;

/// Trains on the samples `indices` of `data` with replay from `memory` (may be null or empty). A step holds
/// `options.batch` pictures with at most `texts_per_picture` of their texts each, and `replay_batch` stored samples;
/// its loss is the mean over the new texts plus the weighted mean over the stored ones. With `relevance` the pictures
/// of a step that leaves out tokens lose the least relevant ones, and have one text each, as stored samples do.
/// `options.loss` and `options.token_relevance` mean nothing here. Every random choice is a function of `options.seed`.
/// Throws where the loss is not finite or a text is too long.
template <tensor_backend B>
void fit(B& b, image_text_model<B>& model, const tokenizer& words, const visual_text& data,
         std::span<const index> indices, const token_memory* memory, const fit_options& options,
         index texts_per_picture = 4, const std::string& what = "fit", const answer_token_relevance& relevance = {}) {
  fit_options o = options;
  text_training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  const encoded_texts encoded(data, words, model.config().text.length);
  const samples_by_picture by_picture(data, indices);
  const bool replay = memory != nullptr && !memory->empty();
  replay_sampler sampler(replay ? memory->samples() : 1, o.seed, replay_stream);
  new_pictures pictures;
  token_batch replayed;
  text_batch texts;
  o.token_relevance = {};
  if (relevance) o.token_relevance = [&](const token_batch& whole) { return relevance(whole, texts); };
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    const index most_texts = relevance && new_pictures::thins(o, at) ? 1 : texts_per_picture;
    random_stream random(o.seed, 2'000'000 + static_cast<std::uint64_t>(at.step));
    texts.clear();
    for (const index picture : part) {
      texts.next_picture();
      for (const index i : by_picture.some_of(picture, most_texts, random)) {
        texts.append(encoded.prompt(i), encoded.answer(i, random.below(1 << 20)), tokenizer::begin_token,
                     tokenizer::end_token);
      }
    }
    const index fresh = texts.texts();
    token_batch& batch = pictures.take(data.images, part, model.config().image.patch, o, at);
    if (replay) {
      const auto drawn = sampler.draw(std::min(o.replay_batch, memory->samples()));
      make_batch(*memory, drawn, o.missing, replayed);
      append(batch, replayed);
      append_stored_texts(*memory, drawn, words, texts);
    }
    detail::balance_weights(texts.weights, texts.texts(), fresh);
    training_step(b, model, batch, texts, o, at.schedule, state);
  };
  run_epochs(by_picture.pictures(), o, what, train, [&] { return mean_loss(b, state.loss, state.tape.text.weights); });
}

}  // namespace core_tokensets

// ==== core_tokensets/train/text_prices.hpp ====
// What samples with text cost a memory, and how many of them a budget buys.

#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>


namespace core_tokensets {

/// The answer that a memory keeps: what most people said, or the first caption.
inline const std::string& stored_answer(const visual_text_sample& sample) {
  return sample.prompt.empty() ? sample.answers.front() : consensus(sample);
}

/// Bytes of a sample's prompt and of the one answer that a memory keeps.
inline index text_bytes(const visual_text_sample& sample) {
  return static_cast<index>(sample.prompt.size() + stored_answer(sample).size());
}

/// What the samples cost as the files that their pictures came as, and their texts. A picture with several texts is
/// paid for once.
inline index price_of_files(const visual_text& data, std::span<const index> samples) {
  std::set<index> paid;
  index total = 0;
  for (const index i : samples) {
    const auto& sample = data.samples[static_cast<std::size_t>(i)];
    if (paid.insert(sample.image).second) total += file_price(data.images, sample.image);
    total += text_bytes(sample);
  }
  return total;
}

/// The price of one sample alone, as a function: its text, and its picture's file unless a stored sample has paid that.
inline auto price_after(const visual_text& data, std::span<const index> stored) {
  std::set<index> paid;
  for (const index i : stored) paid.insert(data.samples[static_cast<std::size_t>(i)].image);
  return [&data, paid = std::move(paid)](index i) {
    const auto& sample = data.samples[static_cast<std::size_t>(i)];
    return text_bytes(sample) + (paid.contains(sample.image) ? 0 : file_price(data.images, sample.image));
  };
}

/// How many of `samples`, each of which is affordable alone, cost no more than `bytes` as files together with those
/// that are `stored`, if they are drawn at random, as far as one can expect: k of n samples miss the m about a picture
/// with probability C(n - m, k) / C(n, k).
inline index affordable_files(const visual_text& data, std::span<const index> samples, std::span<const index> stored,
                              index bytes) {
  const auto sample = [&](index i) -> const visual_text_sample& { return data.samples[static_cast<std::size_t>(i)]; };
  const auto n = static_cast<double>(samples.size());
  std::map<index, double> about;
  double text = 0;
  for (const index i : samples) about[sample(i).image] += 1, text += double(text_bytes(sample(i)));
  for (const index i : stored) about.erase(sample(i).image);  // paid for
  const auto missed = [&](double m, double k) {
    if (k > n - m) return 0.0;
    return std::exp(std::lgamma(n - m + 1) - std::lgamma(n - m - k + 1) + std::lgamma(n - k + 1) - std::lgamma(n + 1));
  };
  const auto price = [&](index k) {
    double total = text / n * double(k);
    for (const auto& [picture, m] : about)
      total += double(file_price(data.images, picture)) * (1 - missed(m, double(k)));
    return total;
  };
  const auto left = static_cast<double>(bytes - price_of_files(data, stored));
  const auto fits = [&](index k) { return price(k) <= left; };
  return std::max<index>(1, detail::most_that_fit(static_cast<index>(samples.size()), fits));
}

/// Leaves out the dearest of the chosen samples until what is `stored` and the rest cost no more than `bytes`.
inline void fit_files(const visual_text& data, std::span<const index> samples, std::span<const index> stored,
                      index bytes, selection_result& chosen) {
  const auto number = [&](index i) { return samples[static_cast<std::size_t>(i)]; };
  const auto price = price_after(data, stored);
  const auto together = [&](const std::vector<index>& some) {
    std::vector<index> all(stored.begin(), stored.end());
    for (const index i : some) all.push_back(number(i));
    return price_of_files(data, all);
  };
  fit_price(
      chosen, bytes, [&](index i) { return price(number(i)); }, together);
}

/// How many of `samples` with `tokens` tokens and a text of mean length each may join the memory before its file
/// exceeds `bytes`. `Error`: not even one fits an empty memory.
inline index affordable_texts(const visual_text& data, std::span<const index> samples, index tokens, index bytes,
                              const token_memory& memory) {
  double text = 0;
  for (const index i : samples) text += double(text_bytes(data.samples[static_cast<std::size_t>(i)]));
  text /= static_cast<double>(samples.size());
  const auto size = [&](index more) {
    const auto all = static_cast<index>(memory.arrays().text.size()) + static_cast<index>(text * double(more));
    return memory.bytes_on_disk(memory.samples() + more, memory.tokens() + more * tokens, all);
  };
  const index k =
      detail::most_that_fit(static_cast<index>(samples.size()), [&](index more) { return size(more) <= bytes; });
  require(k > 0 || !memory.empty(), "memory: a budget of ", bytes, " bytes is too small for one sample with ", tokens,
          " tokens, which takes ", size(1));
  return k;
}

}  // namespace core_tokensets

// ==== core_tokensets/train/vqa_accuracy.hpp ====
// How right an answer is where several people answered (Antol et al. 2015; Goyal et al. 2017): fully if three of them
// gave it.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>


namespace core_tokensets {

struct vqa_options {
  bool leave_one_out = true;  ///< the official rule; otherwise min(1, matches / 3) over all answers at once
  /// As the published evaluator computes: its punctuation (`detail::published_punctuation`), and human answers are only
  /// freed from punctuation, and not even that where all of them are the same.
  bool quirks = false;
};

/// In [0, 1]: over all people, the mean of min(1, matches among the others / 3). With fewer than four answers there are
/// not three others, and all others there are suffice; a single answer must be met. `Error`: no human answers.
inline double vqa_accuracy(std::string_view answer, std::span<const std::string> humans,
                           const vqa_options& options = {}) {
  require(!humans.empty(), "vqa_accuracy: no human answers");
  const bool all_same = std::all_of(humans.begin(), humans.end(), [&](const auto& h) { return h == humans[0]; });
  const auto given = options.quirks ? detail::plain_words(detail::published_punctuation(detail::trimmed(answer)))
                                    : normalise_answer(answer);
  const auto matches = std::count_if(humans.begin(), humans.end(), [&](const std::string& human) {
    if (options.quirks) return given == (all_same ? human : detail::published_punctuation(human));
    return given == normalise_answer(human);
  });
  const auto n = static_cast<double>(humans.size()), met = static_cast<double>(matches);
  if (!options.leave_one_out || humans.size() == 1) return std::min(1.0, met / std::min(3.0, n));
  const double needed = std::min(3.0, n - 1);
  // Who gave the answer is left out `met` times, and someone else n - met times.
  return (met * std::min(1.0, (met - 1) / needed) + (n - met) * std::min(1.0, met / needed)) / n;
}

/// 1 if the answer is, normalised, what most people said (`consensus`), otherwise 0.
inline double exact_match(std::string_view answer, const visual_text_sample& sample) {
  return normalise_answer(answer) == normalise_answer(consensus(sample)) ? 1.0 : 0.0;
}

namespace detail {

inline void check_answers(std::span<const std::string> answers, const visual_text& text, std::string_view what) {
  require(static_cast<index>(answers.size()) == text.n(), what, ": ", answers.size(), " answers for ", text.n(),
          " samples");
  require(!answers.empty(), what, ": no samples");
}

}  // namespace detail

/// The accuracy of each answer, [S]. `Error`: another number of answers than of samples, a sample without answers.
inline std::vector<double> vqa_scores(std::span<const std::string> answers, const visual_text& text,
                                      const vqa_options& options = {}) {
  detail::check_answers(answers, text, "vqa_scores");
  std::vector<double> scores;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    scores.push_back(vqa_accuracy(answers[i], text.samples[i].answers, options));
  }
  return scores;
}

/// Whether each answer is what most people said, [S]. `Error`: see `vqa_scores`.
inline std::vector<double> exact_matches(std::span<const std::string> answers, const visual_text& text) {
  detail::check_answers(answers, text, "exact_matches");
  std::vector<double> scores;
  for (std::size_t i = 0; i < answers.size(); ++i) scores.push_back(exact_match(answers[i], text.samples[i]));
  return scores;
}

/// A mean over all samples, and over those of each group; 0 for a group without samples.
struct grouped_score {
  double all = 0;
  std::vector<double> groups;  ///< [groups]
  std::vector<index> counts;   ///< [groups] samples of each
};

/// Means of `scores` [S]. `Error`: another number of scores than of samples, no samples.
inline grouped_score mean_by_group(std::span<const double> scores, const visual_text& text) {
  require(!scores.empty() && static_cast<index>(scores.size()) == text.n(), "mean_by_group: ", scores.size(),
          " scores for ", text.n(), " samples");
  grouped_score mean;
  mean.groups.assign(text.group_names.size(), 0);
  mean.counts.assign(text.group_names.size(), 0);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto group = static_cast<std::size_t>(text.samples[i].group);
    mean.all += scores[i] / static_cast<double>(scores.size());
    mean.groups.at(group) += scores[i];
    ++mean.counts[group];
  }
  for (std::size_t g = 0; g < mean.groups.size(); ++g) {
    if (mean.counts[g] > 0) mean.groups[g] /= static_cast<double>(mean.counts[g]);
  }
  return mean;
}

}  // namespace core_tokensets

// ==== core_tokensets/train/text_sequence.hpp ====
// Questions or captions that arrive task after task: what the sequential loop learns, remembers and judges for visual
// question answering and captioning.

#include <limits>


namespace core_tokensets {

/// What counts as good: VQA accuracy (exact match beside it), or CIDEr-D over its maximum of 10 (BLEU-4 and ROUGE-L
/// beside it).
enum class text_measure { vqa, captions };

struct text_sequence_options {
  memory_kind memory = memory_kind::core_tokenset;  ///< all but `ncm`
  core_tokenset recipe = {};
  byte_budget budget = fraction(0.01);
  picture_price price = picture_price::source;
  fit_options fit = {};
  token_drop_rule token_drop = token_drop_rule::random;
  index texts_per_picture = 4;  ///< of a new picture in one step
  text_measure measure = text_measure::vqa;
  generation_options generate = {};
  std::filesystem::path out = {};
  bool resume = false;
};

/// Appends the most relevant image tokens of the samples `chosen` of `data`, with their texts, to the memory, as far as
/// `bytes` last. Returns the samples that were stored.
template <tensor_backend B>
std::vector<index> store_texts(B& b, const image_text_model<B>& model, const tokenizer& words, const visual_text& data,
                               std::span<const index> chosen, std::span<const float> weights,
                               const core_tokenset& recipe, const pixel_normalisation& normalisation,
                               std::uint16_t task_number, index bytes, token_memory& memory) {
  check(recipe);
  check_pictures(data.images, model.config().image);
  check_format(memory.format(), model.config().image);
  require(weights.size() == chosen.size(), "store_texts: ", weights.size(), " weights for ", chosen.size(), " samples");
  const index patches = model.config().image.patches();
  const auto count = std::max<index>(1, std::lround(recipe.keep * static_cast<double>(patches)));
  const encoded_texts encoded(data, words, model.config().text.length);
  answer_workspace<B> workspace;
  std::vector<index> stored;
  constexpr std::size_t batch_size = 32;
  for (std::size_t begin = 0; begin < chosen.size(); begin += batch_size) {
    const auto part = chosen.subspan(begin, std::min(batch_size, chosen.size() - begin));
    std::vector<index> pictures;
    text_batch texts;
    for (const index i : part) {
      require(i >= 0 && i < data.n(), "store_texts: sample ", i, " of ", data.n());
      pictures.push_back(data.samples[static_cast<std::size_t>(i)].image);
      texts.next_picture();
      texts.append(encoded.prompt(i), encoded.answer(i), tokenizer::begin_token, tokenizer::end_token);
    }
    std::vector<double> relevance(part.size() * static_cast<std::size_t>(patches), 0.0);
    if (count < patches) {
      const auto images =
          make_batch(data.images, pictures, {.patch = model.config().image.patch, .normalisation = normalisation});
      relevance = attribute_answers(recipe.attribute, b, model, images, texts, workspace).image;
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto& sample = data.samples[static_cast<std::size_t>(part[i])];
      const std::string& answer = stored_answer(sample);
      const auto text = static_cast<index>(memory.arrays().text.size() + sample.prompt.size() + answer.size());
      if (memory.bytes_on_disk(memory.samples() + 1, memory.tokens() + count, text) > bytes) continue;
      const auto of_sample =
          std::span(relevance).subspan(i * static_cast<std::size_t>(patches), static_cast<std::size_t>(patches));
      const kept_tokens kept = cut_tokens(data.images.view_of(sample.image), of_sample, count, memory.format());
      memory.append({.patches = kept.patches,
                     .positions = kept.positions,
                     .relevance = kept.relevance,
                     .target = sample.group,
                     .weight = weights[begin + i],
                     .task = task_number,
                     .prompt = sample.prompt,
                     .answer = answer});
      stored.push_back(part[i]);
    }
  }
  return stored;
}

/// An image-text model that learns a stream of tasks.
template <tensor_backend B>
class text_learner {
 public:
  text_learner(B& b, image_text_model<B>& model, const tokenizer& words, const text_stream& stream,
               text_sequence_options options)
      : b_(b), model_(model), words_(words), stream_(stream), o_(std::move(options)) {
    check(stream);
    check(o_.recipe);
    check_pictures(stream.data.train.images, model.config().image);
    check_pictures(stream.data.test.images, model.config().image);
    require(o_.memory != memory_kind::ncm, "sequence: nearest class mean has no meaning for text");
    check_answers_method<B>(o_.recipe.attribute);
    require(words.size() <= model.config().text.vocabulary, "sequence: a tokenizer of ", words.size(),
            " tokens for a model of ", model.config().text.vocabulary);
    for (const text_task& t : stream.tasks) {
      require(
          o_.measure != text_measure::captions || t.test.size() > 1, "sequence: task '", t.name,
          "' has one sample to measure on, captions need at least two: CIDEr-D weighs words by what tells them apart");
    }
    if (stream.data.train.images.source_bytes.empty()) o_.price = picture_price::raw;
  }

  index tasks() const { return stream_.size(); }
  bool stores() const { return stores_samples(o_.memory); }
  /// Pictures as they came, and all texts with all of their answers.
  index data_bytes() const {
    const visual_text& train = stream_.data.train;
    index total = 0;
    for (const auto& sample : train.samples) {
      total += static_cast<index>(sample.prompt.size());
      for (const auto& answer : sample.answers) total += static_cast<index>(answer.size());
    }
    const dataset& pictures = train.images;
    return total + (pictures.source_bytes.empty()
                        ? static_cast<index>(pictures.pixels.size())
                        : static_cast<index>(pictures.total_source_bytes()) + picture_overhead * pictures.n());
  }

  std::uint64_t data_checksum() const { return checksum(stream_); }

  token_memory_format format() const {
    auto format = memory_format(model_.config().image, o_.fit.normalisation, o_.memory);
    format.texts = true;
    return format;
  }

  void learn(index t, const token_memory& memory) {
    std::vector<index> samples = stream_[t].train;
    if (o_.memory == memory_kind::joint) {
      for (index i = 0; i < t; ++i) samples.insert(samples.end(), stream_[i].train.begin(), stream_[i].train.end());
    }
    fit_options f = o_.fit;
    f.seed = seed_of_task(o_.fit.seed, t);
    answer_token_relevance relevance;
    if (drops_like_memory(o_.token_drop, o_.memory, o_.recipe)) {
      relevance = [&](const token_batch& whole, const text_batch& texts) {
        return attribute_answers(o_.recipe.attribute, b_, model_, whole, texts, explained_).image;
      };
    }
    fit(b_, model_, words_, stream_.data.train, samples, &memory, f, o_.texts_per_picture,
        "task " + std::to_string(t + 1) + "/" + std::to_string(stream_.size()), relevance);
  }

  consolidation remember(index t, index bytes, const std::vector<index>& stored, token_memory& memory) {
    using clock = std::chrono::steady_clock;
    const visual_text& train = stream_.data.train;
    std::vector<index> now = stream_[t].train;
    const core_tokenset recipe = recipe_of(o_.recipe, o_.memory, seed_of_task(o_.fit.seed, t));
    const auto tokens =
        std::max<index>(1, std::lround(recipe.keep * static_cast<double>(model_.config().image.patches())));
    if (as_files()) {
      const index left = bytes - price_of_files(train, stored);
      now = affordable_alone(now, left, memory.empty(), price_after(train, stored));
      if (now.empty()) return {};
    }
    const index k =
        as_files() ? affordable_files(train, now, stored, bytes) : affordable_texts(train, now, tokens, bytes, memory);
    if (k == 0) return {};
    consolidation done;
    const auto start = clock::now();
    std::vector<std::int32_t> groups;
    for (const index i : now) groups.push_back(train.samples[static_cast<std::size_t>(i)].group);
    selection_result chosen = choose(recipe.select, groups, train.groups(), k, [&] {
      return answer_evidence(b_, model_, words_, train, now, o_.fit.normalisation);
    });
    if (as_files()) fit_files(train, now, stored, bytes, chosen);
    done.select_seconds = std::chrono::duration<double>(clock::now() - start).count();
    const auto attribution_start = clock::now();
    std::vector<index> samples;
    for (const index i : chosen.indices) samples.push_back(now[static_cast<std::size_t>(i)]);
    done.pictures =
        store_texts(b_, model_, words_, train, samples, chosen.weights, recipe, o_.fit.normalisation,
                    static_cast<std::uint16_t>(t), as_files() ? std::numeric_limits<index>::max() : bytes, memory);
    done.attribute_seconds = std::chrono::duration<double>(clock::now() - attribution_start).count();
    return done;
  }

  task_scores judge(index t) {
    task_scores row;
    for (index i = 0; i <= t; ++i) {
      const std::vector<index>& test = stream_[i].test;
      const auto written =
          write_answers(b_, model_, words_, stream_.data.test, test, o_.fit.normalisation, o_.generate);
      o_.measure == text_measure::vqa ? score_answers(written, test, row) : score_captions(written, test, row);
    }
    return row;
  }

  index memory_bytes(const token_memory& memory, const std::vector<index>& stored) const {
    return memory.empty() ? 0 : as_files() ? price_of_files(stream_.data.train, stored) : memory.bytes_on_disk();
  }

  tensor_file save() { return to_file(b_, model_, {{"tokenizer", to_json(words_).dump()}}); }
  /// `Error`: another model, or one with another tokenizer.
  void load(const tensor_file& file) {
    require(tokenizer_of(file) == words_, "sequence: the checkpoint's model reads another tokenizer");
    load_parameters(b_, model_, file);
  }

 private:
  bool as_files() const { return o_.memory == memory_kind::coreset && o_.price == picture_price::source; }
  void score_answers(const std::vector<std::string>& written, const std::vector<index>& test, task_scores& row) const {
    double accuracy = 0, exact = 0;
    for (std::size_t i = 0; i < test.size(); ++i) {
      const auto& of = stream_.data.test.samples[static_cast<std::size_t>(test[i])];
      accuracy += vqa_accuracy(written[i], of.answers);
      exact += exact_match(written[i], of);
    }
    row.accuracy.push_back(accuracy / static_cast<double>(test.size()));
    row.others["exact_match"].push_back(exact / static_cast<double>(test.size()));
  }
  void score_captions(const std::vector<std::string>& written, const std::vector<index>& test, task_scores& row) const {
    std::vector<std::vector<std::string>> references;
    for (const index i : test) references.push_back(stream_.data.test.samples[static_cast<std::size_t>(i)].answers);
    const caption_scores s = measure_captions(written, references);
    row.accuracy.push_back(s.cider_d / 10);
    row.others["bleu_4"].push_back(s.bleu[3]);
    row.others["rouge_l"].push_back(s.rouge_l);
  }

  B& b_;
  image_text_model<B>& model_;
  const tokenizer& words_;
  const text_stream& stream_;
  text_sequence_options o_;
  answer_workspace<B> explained_;
};

}  // namespace core_tokensets

// ==== core_tokensets/core_tokensets.hpp ====
// The whole library. Optional backends have headers of their own.

