#pragma once
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

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/data/image.hpp"
#include "core_tokensets/report/font.hpp"

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
