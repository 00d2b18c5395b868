#pragma once
// Picture files: JPEG, PNG, GIF and BMP in, PNG and JPEG out. The work is done by the stb headers, which stay inside a
// namespace of ours; what they are lenient about (cut-off or damaged files) is checked here first.

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
#include "core_tokensets/data/exif.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/data/picture_checks.hpp"
#include "core_tokensets/data/picture_format.hpp"
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

/// The picture in the bytes of a JPEG, PNG, GIF (its first frame) or BMP file as it is to be seen, with 1, 3 or 4
/// channels, or as many as it has (0). Grey becomes colour and back, alpha is left out, the orientation of a photograph
/// (`exif_orientation`) is applied. `Error` naming `name`: another format, cut off, damaged, four inks of unknown
/// sense.
inline image decode_image(std::span<const std::byte> bytes, index channels = 0, const std::string& name = "image") {
  const std::span b(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  const picture_format format = format_of(b);
  require(format != picture_format::none, name, ": no JPEG, PNG, GIF or BMP file (", b.size(), " bytes)");
  require(is_read(format), name, ": is ", name_of(format), ", expected JPEG, PNG, GIF or BMP");
  require(b.size() < INT_MAX, name, ": ", b.size(), " bytes, expected fewer than 2 GiB");
  require(channels == 0 || channels == 1 || channels == 3 || channels == 4, name, ": asked for ", channels,
          " channels, expected 0, 1, 3 or 4");
  if (const char* why = detail::why_damaged(b, format))
    fail(name, ": ", name_of(format), " file is cut off or damaged: ", why);
  require(
      format != picture_format::jpeg || detail::jpeg_colours_are_known(b), name,
      ": JPEG file of four inks (CMYK) without the marker that says whether they are stored inverted: save it as RGB");
  int width = 0, height = 0, found = 0;
  const std::unique_ptr<std::uint8_t, decltype(&std::free)> pixels(
      detail::stb::stbi_load_from_memory(b.data(), static_cast<int>(b.size()), &width, &height, &found,
                                         static_cast<int>(channels)),
      &std::free);
  if (!pixels) fail(name, ": damaged ", name_of(format), " file: ", detail::stb::stbi_failure_reason());
  const image_view decoded{height, width, channels == 0 ? found : channels, pixels.get()};
  const int orientation = format == picture_format::jpeg ? exif_orientation(b) : 1;
  return orientation == 1 ? image(decoded) : turn_upright(decoded, orientation);
}

/// The picture in a file; see `decode_image`.
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
