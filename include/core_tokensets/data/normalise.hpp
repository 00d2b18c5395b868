#pragma once
// Pixels to the numbers that a model sees, (x / 255 - mean) / stddev per channel, and back.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/dataset.hpp"

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
