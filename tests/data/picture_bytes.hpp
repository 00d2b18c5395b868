#pragma once
// Files of pictures that no encoder of ours writes, made byte by byte.

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core_tokensets/data/image_io.hpp"
#include "data/support.hpp"

namespace data_test {

using octets = std::vector<std::uint8_t>;

inline void append(octets& to, std::initializer_list<int> values) {
  for (const int v : values) to.push_back(static_cast<std::uint8_t>(v));
}
inline void append_number(octets& to, std::uint32_t value, std::size_t size, bool little) {
  for (std::size_t i = 0; i < size; ++i)
    to.push_back(static_cast<std::uint8_t>(value >> (8 * (little ? i : size - 1 - i))));
}
inline std::vector<std::byte> as_bytes(const octets& from) {
  std::vector<std::byte> to;
  for (const auto v : from) to.push_back(std::byte{v});
  return to;
}
inline octets as_octets(const std::vector<std::byte>& from) {
  octets to;
  for (const auto v : from) to.push_back(std::to_integer<std::uint8_t>(v));
  return to;
}

/// A segment of Exif that says an orientation, behind two other entries.
inline octets exif_segment(std::uint32_t orientation, bool little, std::uint32_t type = 3) {
  octets tiff;
  append(tiff, little ? std::initializer_list<int>{'I', 'I'} : std::initializer_list<int>{'M', 'M'});
  const auto put = [&](std::uint32_t value, std::size_t size) { append_number(tiff, value, size, little); };
  put(42, 2), put(8, 4), put(3, 2);
  put(0x0100, 2), put(4, 2), put(1, 4), put(77, 4);
  put(0x010F, 2), put(2, 2), put(4, 4), put(0x414243, 4);
  put(0x0112, 2), put(type, 2), put(1, 4), put(orientation, type == 3 ? 2 : 4);
  if (type == 3) put(0, 2);
  put(0, 4);
  octets segment{0xFF, 0xE1};
  append_number(segment, static_cast<std::uint32_t>(8 + tiff.size()), 2, false);
  append(segment, {'E', 'x', 'i', 'f', 0, 0});
  segment.insert(segment.end(), tiff.begin(), tiff.end());
  return segment;
}

/// A JPEG file with a segment behind its first marker.
inline octets with_segment(octets jpeg, const octets& segment) {
  jpeg.insert(jpeg.begin() + 2, segment.begin(), segment.end());
  return jpeg;
}

/// A JPEG file of four components, one block of 8 x 8 pixels of one value each; `transform` is that of Adobe's marker,
/// -1: no marker.
inline octets four_component_jpeg(const std::array<int, 4>& values, int transform) {
  octets b{0xFF, 0xD8};
  if (transform >= 0) append(b, {0xFF, 0xEE, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, transform});
  append(b, {0xFF, 0xDB, 0, 67, 0});
  b.insert(b.end(), 64, 8);  // a step of 8 in the mean of a block is a step of 1 in its pixels
  append(b, {0xFF, 0xC0, 0, 20, 8, 0, 8, 0, 8, 4});
  for (const int id : {1, 2, 3, 4}) append(b, {id, 0x11, 0});
  append(b, {0xFF, 0xC4, 0, 28, 0x00, 0, 0, 0, 9});  // means: the sizes 0 to 8 have codes of 4 bits
  b.insert(b.end(), 12, 0);
  append(b, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  append(b, {0xFF, 0xC4, 0, 20, 0x10, 1});  // the rest: one code of one bit for "no more"
  b.insert(b.end(), 15, 0);
  append(b, {0});
  append(b, {0xFF, 0xDA, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0});
  std::vector<bool> bits;
  const auto put = [&](int value, int count) {
    for (int i = count - 1; i >= 0; --i) bits.push_back((value >> i & 1) != 0);
  };
  for (const int value : values) {
    const int mean = value - 128;
    int size = 0;
    while (std::abs(mean) >> size != 0) ++size;
    put(size, 4), put(mean < 0 ? mean + (1 << size) - 1 : mean, size), put(0, 1);
  }
  while (bits.size() % 8 != 0) bits.push_back(true);
  for (std::size_t i = 0; i < bits.size(); i += 8) {
    int value = 0;
    for (std::size_t k = 0; k < 8; ++k) value = 2 * value + (bits[i + k] ? 1 : 0);
    append(b, {value});
    if (value == 0xFF) append(b, {0});
  }
  append(b, {0xFF, 0xD9});
  return b;
}

/// One picture of a GIF file from numbers of colours below 128: its codes start again before they grow beyond 8 bits.
inline void append_gif_frame(octets& b, int height, int width, const octets& colours) {
  append(b, {0x2C, 0, 0, 0, 0, width, 0, height, 0, 0, 7});
  octets codes;
  for (std::size_t i = 0; i < colours.size(); ++i) {
    if (i % 100 == 0) codes.push_back(128);
    codes.push_back(colours[i]);
  }
  codes.push_back(129);
  for (std::size_t i = 0; i < codes.size(); i += 255) {
    const std::size_t n = std::min<std::size_t>(255, codes.size() - i);
    append(b, {static_cast<int>(n)});
    b.insert(b.end(), codes.begin() + static_cast<std::ptrdiff_t>(i),
             codes.begin() + static_cast<std::ptrdiff_t>(i + n));
  }
  append(b, {0});
}

/// A GIF file of two pictures; colour k is (k, 2 k, 255 - k).
inline octets gif_file(int height, int width, const octets& first, const octets& second) {
  octets b;
  append(b, {'G', 'I', 'F', '8', '9', 'a', width, 0, height, 0, 0x80 | 6, 0, 0});
  for (int k = 0; k < 128; ++k) append(b, {k, 2 * k, 255 - k});
  append(b, {0x21, 0xFE, 3, 'a', 'b', 'c', 0});
  append_gif_frame(b, height, width, first);
  append(b, {0x21, 0xF9, 4, 0, 10, 0, 0, 0});
  append_gif_frame(b, height, width, second);
  append(b, {0x3B});
  return b;
}

/// A BMP file of 24 bits a pixel, or of 8 with a palette of 4 bytes for each of its greys. Rows lie from bottom to top.
inline octets bmp_file(const cts::image_view& from, int colours = 0) {
  const auto row = static_cast<std::uint32_t>(from.width * (colours > 0 ? 1 : 3)), stride = (row + 3) / 4 * 4;
  const std::uint32_t offset = 54 + 4 * static_cast<std::uint32_t>(colours);
  const auto height = static_cast<std::uint32_t>(from.height);
  octets b{'B', 'M'};
  const auto put = [&](std::uint32_t value, std::size_t size = 4) { append_number(b, value, size, true); };
  put(offset + stride * height), put(0), put(offset), put(40), put(static_cast<std::uint32_t>(from.width)), put(height);
  put(1, 2), put(colours > 0 ? 8 : 24, 2), put(0), put(0), put(0), put(0), put(0), put(0);
  for (int k = 0; k < colours; ++k) append(b, {k, k, k, 0});
  for (cts::index y = from.height - 1; y >= 0; --y) {
    for (cts::index x = 0; x < from.width; ++x) {
      for (cts::index c = from.channels - 1; c >= 0; --c) b.push_back(from.at(y, x)[c]);
    }
    b.insert(b.end(), stride - row, 0);
  }
  return b;
}

}  // namespace data_test
