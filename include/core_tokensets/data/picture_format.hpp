#pragma once
// Which kind of picture some bytes are, by how they begin and not by a file's name.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace core_tokensets {

/// Kinds of picture files. The first four are read; the others are known by name, to say what was not read.
enum class picture_format : std::uint8_t { jpeg, png, gif, bmp, webp, tiff, heic, avif, jxl, jp2, psd, ico, none };

inline constexpr std::string_view picture_format_names[] = {
    "JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "HEIC", "AVIF", "JPEG XL", "JPEG 2000", "Photoshop", "icon", ""};

inline std::string_view name_of(picture_format format) {
  return picture_format_names[static_cast<std::size_t>(format)];
}

/// True for what `decode_image` reads.
inline bool is_read(picture_format format) { return format <= picture_format::bmp; }

/// The kind that the bytes begin as; the first 32 of a file are enough. `none` for anything else.
inline picture_format format_of(std::span<const std::uint8_t> bytes) {
  const auto has = [&](std::size_t at, std::string_view text) {
    if (at + text.size() > bytes.size()) return false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (bytes[at + i] != static_cast<std::uint8_t>(text[i])) return false;
    }
    return true;
  };
  using std::string_view_literals::operator""sv;
  if (has(0, "\xFF\xD8\xFF"sv)) return picture_format::jpeg;
  if (has(0, "\x89PNG\r\n\x1A\n"sv)) return picture_format::png;
  if (has(0, "GIF87a"sv) || has(0, "GIF89a"sv)) return picture_format::gif;
  // Two letters are little; the size of the header that follows is below 256, and never 0.
  if (has(0, "BM"sv) && bytes.size() > 17 && bytes[14] >= 12 && has(15, "\0\0\0"sv)) return picture_format::bmp;
  if (has(0, "RIFF"sv) && has(8, "WEBP"sv)) return picture_format::webp;
  if (has(0, "II*\0"sv) || has(0, "MM\0*"sv) || has(0, "II+\0"sv) || has(0, "MM\0+"sv)) return picture_format::tiff;
  if (has(4, "ftyphei"sv) || has(4, "ftyphev"sv) || has(4, "ftypmif1"sv)) return picture_format::heic;
  if (has(4, "ftypavi"sv)) return picture_format::avif;
  if (has(0, "\xFF\x0A"sv) || has(4, "JXL \r\n"sv)) return picture_format::jxl;
  if (has(4, "jP  \r\n"sv)) return picture_format::jp2;
  if (has(0, "8BPS"sv)) return picture_format::psd;
  if (has(0, "\0\0\1\0"sv) && bytes.size() > 9 && bytes[4] > 0 && bytes[9] == 0) return picture_format::ico;
  return picture_format::none;
}

}  // namespace core_tokensets
