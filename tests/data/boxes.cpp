// Boxes from a table: read, scaled to the size of the pictures, refused where they are none.

#include "core_tokensets/data/readers/boxes.hpp"

#include <fstream>

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace data_boxes_tests {

namespace {

namespace cts = core_tokensets;

void write_table(const std::filesystem::path& folder, const std::string& text) {
  std::ofstream(folder / "boxes.csv") << text;
}

}  // namespace

TEST_CASE("boxes become masks", "[boxes]") {
  const support::scratch_folder dir;
  write_table(dir.path, "file,x0,y0,x1,y1\nval/a/1.png,1,0,2,1\r\nval/a/2.png,3,3,3,3\nval/a/2.png,0,2,3,2\n");
  cts::dataset data;
  data.height = data.width = 4;
  data.channels = 1;
  data.class_names = {"a"};
  data.names = {"a/2.png", "a/1.png", "a/3.png"};
  data.labels = {0, 0, 0};
  data.pixels.assign(48, 0);
  REQUIRE(cts::add_box_masks(data, dir.path, "val", false));
  data.check();
  const std::vector<std::uint8_t> want{0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0,
                                       0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  CHECK(data.masks == want);
  CHECK_FALSE(cts::add_box_masks(data, dir.path / "elsewhere", "val", false));
  write_table(dir.path, "file,x0,y0,x1,y1\nval/a/1.png,1,0,4,1\n");
  CHECK(support::has(support::message_of([&] { cts::add_box_masks(data, dir.path, "val", false); }),
                     "val/a/1.png reaches to (4, 1), the picture has 4 x 4"));
}

TEST_CASE("a box is scaled with its picture", "[boxes]") {
  const auto scaled = [](const cts::pixel_box& box) {
    std::vector<std::uint8_t> mask(4, 0);
    cts::mark_box(box, 8, 8, 2, 2, mask.data());
    return mask;
  };
  CHECK(scaled({0, 0, 7, 7}) == std::vector<std::uint8_t>{1, 1, 1, 1});
  CHECK(scaled({0, 0, 3, 3}) == std::vector<std::uint8_t>{1, 0, 0, 0});
  CHECK(scaled({5, 2, 6, 3}) == std::vector<std::uint8_t>{0, 1, 0, 0});
}

TEST_CASE("tables that hold no boxes are errors", "[boxes]") {
  for (const char* text :
       {"name,x,y\n", "file,x0,y0,x1,y1\na,1,2,3\n", "file,x0,y0,x1,y1\na,1,2,3,x\n", "file,x0,y0,x1,y1\na,3,0,2,5\n",
        "file,x0,y0,x1,y1\na,1,2,3,4,5\n", "file,x0,y0,x1,y1\na,288230376151711744,0,288230376151711744,0\n"}) {
    const support::scratch_folder dir;
    write_table(dir.path, text);
    CHECK_THROWS_AS(cts::read_boxes(dir.path / "boxes.csv"), cts::Error);
  }
  CHECK_THROWS_AS(cts::read_boxes("no/such/boxes.csv"), cts::Error);
}

}  // namespace data_boxes_tests
