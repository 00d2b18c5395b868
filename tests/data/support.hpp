#pragma once
// Small pictures and real ones for the tests of the data room.

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <numbers>
#include <string>
#include <vector>

#include "core_tokensets/data/image.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "support/scratch.hpp"

namespace data_test {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using support::has;
using support::message_of;
using support::scratch_folder;

/// A picture with different values everywhere, smooth enough for JPEG.
inline cts::image waves(cts::index height, cts::index width, cts::index channels, double phase = 0) {
  cts::image picture(height, width, channels);
  for (cts::index y = 0; y < height; ++y) {
    for (cts::index x = 0; x < width; ++x) {
      for (cts::index c = 0; c < channels; ++c) {
        const double v = std::sin(0.2 * double(y) + phase + double(c)) * std::cos(0.15 * double(x) - phase);
        picture.at(y, x)[c] = static_cast<std::uint8_t>(std::lround(127.5 + 100 * v));
      }
    }
  }
  return picture;
}

inline std::vector<std::byte> bytes_of(const std::vector<int>& values) {
  std::vector<std::byte> bytes;
  for (const int v : values) bytes.push_back(static_cast<std::byte>(v));
  return bytes;
}

/// Where unpacked real data lie: the folder that CTS_DATA names; empty if it is not there.
inline fs::path real_data(const std::string& name) {
  const char* root = std::getenv("CTS_DATA");
  const fs::path where = root == nullptr ? fs::path() : fs::path(root) / name;
  return !where.empty() && fs::is_directory(where / "train") ? where : fs::path();
}

}  // namespace data_test
