#pragma once
// How a photograph is to be turned: the orientation that cameras write into a JPEG file beside pixels that lie as the
// sensor saw them (Exif 2.3, tag 0x0112 of the first directory). Bytes that make no sense turn nothing.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core_tokensets/data/image.hpp"

namespace core_tokensets {

namespace detail {

/// Calls `visit(marker, payload)` for each segment of a JPEG file before its pixels, in order, as long as they lie
/// within the bytes; ends early where it gives true.
template <class Visit>
void visit_jpeg_segments(std::span<const std::uint8_t> b, const Visit& visit) {
  for (std::size_t i = 2; i + 1 < b.size() && b[i] == 0xFF;) {
    const unsigned marker = b[i + 1];
    if (marker == 0xFF) {  // a fill byte
      ++i;
      continue;
    }
    i += 2;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue;  // alone, without a length
    if (marker == 0xD9 || marker == 0xDA || i + 1 >= b.size()) return;
    const auto length = static_cast<std::size_t>(b[i] << 8 | b[i + 1]);
    if (length < 2 || length > b.size() - i || visit(marker, b.subspan(i + 2, length - 2))) return;
    i += length;
  }
}

/// Numbers in a block of TIFF, whose first two bytes say in which order its bytes are; none beyond the end.
struct tiff_reader {
  std::span<const std::uint8_t> bytes;
  bool little = false;

  std::optional<std::uint32_t> number(std::size_t at, std::size_t size) const {
    if (at > bytes.size() || size > bytes.size() - at) return std::nullopt;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8 | bytes[at + (little ? size - 1 - i : i)];
    return value;
  }
};

/// The orientation in a block of TIFF, 1 to 8; none where there is none that makes sense.
inline std::optional<int> tiff_orientation(std::span<const std::uint8_t> bytes) {
  constexpr std::size_t entry_size = 12;  // tag, type, count, value
  if (bytes.size() < 8 || bytes[0] != bytes[1] || (bytes[0] != 'I' && bytes[0] != 'M')) return std::nullopt;
  const tiff_reader tiff{bytes, bytes[0] == 'I'};
  if (tiff.number(2, 2) != 42u) return std::nullopt;
  const std::size_t directory = *tiff.number(4, 4);
  const auto entries = tiff.number(directory, 2);
  for (std::size_t i = 0; entries && i < *entries; ++i) {
    const std::size_t at = directory + 2 + i * entry_size;
    const auto tag = tiff.number(at, 2), type = tiff.number(at + 2, 2), count = tiff.number(at + 4, 4);
    if (!tag || !type || !count) return std::nullopt;
    if (*tag != 0x0112) continue;
    const bool is_short = *type == 3, is_long = *type == 4;
    if (*count != 1 || (!is_short && !is_long)) return std::nullopt;
    const auto value = tiff.number(at + 8, is_short ? 2 : 4);
    return value && *value >= 1 && *value <= 8 ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace detail

/// The orientation that the bytes of a JPEG file say, 1 (upright) to 8; 1 where they say none, or nonsense.
inline int exif_orientation(std::span<const std::uint8_t> jpeg) {
  using std::string_view_literals::operator""sv;
  constexpr std::string_view name = "Exif\0\0"sv;
  std::optional<int> found;
  detail::visit_jpeg_segments(jpeg, [&](unsigned marker, std::span<const std::uint8_t> payload) {
    const bool is_exif = marker == 0xE1 && payload.size() >= name.size() &&
                         std::equal(name.begin(), name.end(), payload.begin(),
                                    [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; });
    if (is_exif) found = detail::tiff_orientation(payload.subspan(name.size()));
    return found.has_value();
  });
  return found.value_or(1);
}

/// The picture as it is to be seen, from pixels that lie as `orientation` says: 2 mirrored, 3 upside down, 4 both, 5 to
/// 8 on a side, so that height and width change places. `Error`: another number.
inline image turn_upright(const image_view& from, int orientation) {
  require(orientation >= 1 && orientation <= 8, "turn_upright: orientation ", orientation, ", expected 1 to 8");
  const bool swapped = orientation >= 5;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  image to(swapped ? from.width : from.height, swapped ? from.height : from.width, from.channels);
  for (index y = 0; y < to.height; ++y) {
    for (index x = 0; x < to.width; ++x) {
      const index row = swapped ? x : y, column = swapped ? y : x;
      std::copy_n(from.at(from_below ? from.height - 1 - row : row, from_right ? from.width - 1 - column : column),
                  from.channels, to.at(y, x));
    }
  }
  return to;
}

}  // namespace core_tokensets
