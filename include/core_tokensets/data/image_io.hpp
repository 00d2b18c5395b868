#pragma once
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

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/io/atomic_file.hpp"

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
