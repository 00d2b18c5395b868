#pragma once
// Boxes around objects, from a table beside the pictures, as masks of a dataset.

#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/image_io.hpp"

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
