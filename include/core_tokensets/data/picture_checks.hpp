#pragma once
// Whether picture files are whole: what decoders forgive (files that are cut off, colours that nobody can know) is
// found here, before they see it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "core_tokensets/data/exif.hpp"
#include "core_tokensets/data/picture_format.hpp"

namespace core_tokensets::detail {

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

/// False for a JPEG file of four components whose sense is not known: decoders take it for other colours than it holds.
/// Adobe's marker says that they are inverted inks (0) or a transform of them (2).
inline bool jpeg_colours_are_known(std::span<const std::uint8_t> b) {
  using std::string_view_literals::operator""sv;
  constexpr std::string_view adobe = "Adobe\0"sv;
  int components = 0, transform = -1;
  visit_jpeg_segments(b, [&](unsigned marker, std::span<const std::uint8_t> payload) {
    const bool is_frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (is_frame && payload.size() > 5) components = payload[5];
    if (marker == 0xEE && payload.size() >= 12 && std::equal(adobe.begin(), adobe.end(), payload.begin()))
      transform = payload[11];
    return false;
  });
  return components != 4 || transform == 0 || transform == 2;
}

/// True if the blocks of a GIF file lead to the end of its first picture.
inline bool gif_is_whole(std::span<const std::uint8_t> b) {
  const auto colours = [&](std::size_t flags) { return (b[flags] & 0x80) != 0 ? std::size_t{6} << (b[flags] & 7) : 0; };
  if (b.size() < 13) return false;
  std::size_t i = 13 + colours(10);
  while (i < b.size()) {
    const unsigned kind = b[i];
    if (kind == 0x2C) {
      if (b.size() - i < 11) return false;
      i += 11 + colours(i + 9);  // the place of the picture, its own colours, the size of its first codes
    } else if (kind == 0x21) {
      i += 2;
    } else {
      return false;
    }
    while (i < b.size() && b[i] != 0) i += 1 + std::size_t{b[i]};
    if (i >= b.size()) return false;
    if (kind == 0x2C) return true;
    ++i;
  }
  return false;
}

/// What the head of a BMP file says. Numbers are little-endian; a file that is too short for them has none.
struct bmp_facts {
  std::size_t offset = 0, head = 0, width = 0, height = 0, bits = 0, packing = 0;

  explicit bmp_facts(std::span<const std::uint8_t> b) {
    const auto number = [&](std::size_t at, std::size_t size) {
      std::uint32_t value = 0;
      for (std::size_t k = size; k-- > 0;) value = value << 8 | (at + k < b.size() ? b[at + k] : 0u);
      return value;
    };
    offset = number(10, 4), head = number(14, 4);
    const bool old = head == 12;
    width = number(18, old ? 2 : 4), bits = number(old ? 24 : 28, 2), packing = old ? 0 : number(30, 4);
    const std::uint32_t rows = number(old ? 20 : 22, old ? 2 : 4);  // negative: from top to bottom
    height = !old && rows > 0x7FFFFFFFu ? 0u - rows : rows;
  }
  std::size_t row_bytes() const { return (width * bits + 7) / 8; }
  std::size_t row_stride() const { return (row_bytes() + 3) / 4 * 4; }
  /// Colours that lie between head and pixels, as decoders count them.
  std::size_t colours() const {
    return head == 12 ? (offset < 38 ? 0 : (offset - 38) / 3) : (offset < 14 + head ? 0 : (offset - 14 - head) / 4);
  }
};

/// True if all pixels of a BMP file are there and none has a colour that is not.
inline bool bmp_is_whole(std::span<const std::uint8_t> b) {
  const bmp_facts f(b);
  constexpr std::size_t most = 1 << 24;
  if (b.size() < 14 + f.head || f.offset < 14 + f.head || f.offset > b.size()) return false;
  if (f.width == 0 || f.height == 0 || f.width > most || f.height > most || f.bits == 0 || f.bits > 32) return false;
  if (f.packing != 0 && f.packing != 3) return true;  // not read at all, and the decoder says so
  if (f.row_stride() * (f.height - 1) + f.row_bytes() > b.size() - f.offset) return false;
  if (f.bits != 1 && f.bits != 4 && f.bits != 8) return true;
  std::size_t largest = 0;
  for (std::size_t y = 0; y < f.height; ++y) {
    const auto row = b.subspan(f.offset + y * f.row_stride(), f.row_bytes());
    for (std::size_t x = 0; x < f.width; ++x) {
      const std::size_t bit = x * f.bits, shift = 8 - f.bits - bit % 8;
      largest = std::max(largest, (std::size_t{row[bit / 8]} >> shift) & ((std::size_t{1} << f.bits) - 1));
    }
  }
  return largest < f.colours();
}

/// Why a file of this format is not to be decoded, or nothing.
inline const char* why_damaged(std::span<const std::uint8_t> b, picture_format format) {
  if (format == picture_format::jpeg && !jpeg_is_whole(b)) return "its markers do not lead to an end";
  if (format == picture_format::png && !png_is_whole(b)) return "missing or wrong chunks";
  if (format == picture_format::gif && !gif_is_whole(b)) return "its blocks do not lead to the end of a picture";
  if (format == picture_format::bmp && !bmp_is_whole(b)) return "its head does not fit its pixels";
  return nullptr;
}

}  // namespace core_tokensets::detail
