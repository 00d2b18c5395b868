#include "core_tokensets/data/image.hpp"

#include <algorithm>
#include <numeric>

#include "core_tokensets/data/image_io.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_image_tests {

namespace cts = core_tokensets;
using namespace data_test;

TEST_CASE("resize: exact where the answer is known", "[data]") {
  cts::image ramp(1, 4, 1);
  ramp.pixels = {0, 40, 80, 120};
  // Area: the mean of pairs. Growing: half way between pixel centres, borders repeat.
  CHECK(cts::resize(ramp, 1, 2).pixels == std::vector<std::uint8_t>{20, 100});
  CHECK(cts::resize(ramp, 1, 8).pixels == std::vector<std::uint8_t>{0, 10, 30, 50, 70, 90, 110, 120});
  CHECK(cts::resize(ramp, 1, 2, cts::resampling::bilinear).pixels == std::vector<std::uint8_t>{20, 100});
  // 4 to 3 by area: (0 + 40/3) / (4/3) and so on.
  CHECK(cts::resize(ramp, 1, 3).pixels == std::vector<std::uint8_t>{10, 60, 110});
  CHECK(cts::resize(ramp, 1, 4) == ramp);

  const auto flat = cts::resize(cts::image(7, 5, 3, 201), 13, 3);
  CHECK(flat == cts::image(13, 3, 3, 201));
  CHECK(cts::resize(cts::image(1, 1, 2, 9), 3, 3) == cts::image(3, 3, 2, 9));

  // Channels stay apart and both axes are resampled: area down keeps the mean of each channel.
  const auto big = waves(24, 36, 3);
  const auto small = cts::resize(big, 4, 6);
  for (cts::index c = 0; c < 3; ++c) {
    double before = 0, after = 0;
    for (cts::index i = 0; i < 24 * 36; ++i) before += big.pixels.data()[i * 3 + c] / (24.0 * 36);
    for (cts::index i = 0; i < 24; ++i) after += small.pixels.data()[i * 3 + c] / 24.0;
    CHECK(after == Approx(before).margin(0.5));
  }
  CHECK_THROWS_AS(cts::resize(big, 0, 3), cts::Error);
}

TEST_CASE("crop, mirror and grey to colour", "[data]") {
  const auto picture = waves(5, 7, 3);
  const auto window = cts::crop(picture, 1, 2, 3, 4);
  for (cts::index y = 0; y < 3; ++y) {
    for (cts::index x = 0; x < 4; ++x) CHECK(window.at(y, x)[1] == picture.at(y + 1, x + 2)[1]);
  }
  CHECK_THROWS_AS(cts::crop(picture, 3, 0, 3, 1), cts::Error);
  CHECK_THROWS_AS(cts::crop(picture, 0, -1, 3, 1), cts::Error);

  const auto mirror = cts::flip_horizontally(picture);
  CHECK(mirror.at(2, 0)[2] == picture.at(2, 6)[2]);
  CHECK_FALSE(mirror == picture);
  CHECK(cts::flip_horizontally(mirror) == picture);

  cts::image grey(1, 2, 1);
  grey.pixels = {3, 250};
  CHECK(cts::grey_to_rgb(grey).pixels == std::vector<std::uint8_t>{3, 3, 3, 250, 250, 250});
  CHECK(cts::grey_to_rgb(picture) == picture);
  CHECK_THROWS_AS(cts::grey_to_rgb(cts::image(1, 1, 2)), cts::Error);
}

TEST_CASE("PNG: out and in again without loss", "[data]") {
  const scratch_folder folder;
  for (const cts::index channels : {1, 3, 4}) {
    const auto picture = waves(9, 13, channels);
    cts::write_png(folder.path / "a.png", picture);
    CHECK(cts::read_image(folder.path / "a.png") == picture);
  }
  const auto grey = waves(6, 4, 1);
  cts::write_png(folder.path / "grey.png", grey);
  CHECK(cts::read_image(folder.path / "grey.png", 3) == cts::grey_to_rgb(grey));
  // Nothing but the pictures lies there: no temporary file.
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator{}) == 2);
  CHECK_THROWS_AS(cts::encode_png(cts::image()), cts::Error);
}

TEST_CASE("JPEG: decoded near to what was encoded", "[data]") {
  const auto picture = waves(32, 40, 3);
  const auto decoded = cts::decode_image(cts::encode_jpeg(picture, 95));
  REQUIRE(decoded.height == 32);
  REQUIRE(decoded.width == 40);
  double error = 0;
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) error += std::abs(picture.pixels[i] - decoded.pixels[i]);
  CHECK(error / double(picture.pixels.size()) < 3);
}

TEST_CASE("the check of a JPEG's markers finds every cut, and tables that are too large", "[data]") {
  const auto encoded = cts::encode_jpeg(waves(16, 16, 3), 70);
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(encoded.data()), encoded.size());
  CHECK(cts::detail::jpeg_is_whole(bytes));
  for (std::size_t length = 2; length < bytes.size(); ++length) {
    REQUIRE_FALSE(cts::detail::jpeg_is_whole(bytes.first(length)));
  }
  auto damaged = encoded;
  const auto table = std::adjacent_find(damaged.begin(), damaged.end(),
                                        [](auto a, auto b) { return a == std::byte{0xff} && b == std::byte{0xc4}; });
  REQUIRE(table != damaged.end());
  std::fill_n(table + 5, 16, std::byte{0x20});
  CHECK(has(message_of([&] { cts::decode_image(damaged, 3, "d.jpg"); }), "d.jpg"));
}

TEST_CASE("a JPEG or PNG that is cut off anywhere is an Error that names the file", "[data]") {
  const scratch_folder folder;
  const auto picture = waves(32, 32, 3);
  for (const auto& bytes : {cts::encode_jpeg(picture, 60), cts::encode_png(picture)}) {
    REQUIRE_NOTHROW(cts::decode_image(bytes));
    for (std::size_t length = 0; length + 1 < bytes.size(); length += length + 80 < bytes.size() ? 17 : 1) {
      const auto part = std::span(bytes).first(length);
      INFO("cut to " << length << " of " << bytes.size());
      CHECK(has(message_of([&] { cts::decode_image(part, 3, "photo.jpg"); }), "photo.jpg"));
    }
    const auto path = folder.path / "half";
    cts::write_file(path, std::span(bytes).first(bytes.size() / 2));
    CHECK(has(message_of([&] { cts::read_image(path); }), path.string()));
    // Bytes after the end do no harm.
    auto longer = bytes;
    longer.insert(longer.end(), 5, std::byte{7});
    CHECK_NOTHROW(cts::decode_image(longer));
  }
  auto damaged = cts::encode_png(picture);
  damaged[damaged.size() / 2] ^= std::byte{4};
  CHECK(has(message_of([&] { cts::decode_image(damaged, 3, "b.png"); }), "b.png"));
  CHECK(has(message_of([&] { cts::decode_image(bytes_of({1, 2, 3, 4}), 3, "c.gif"); }), "c.gif"));
  CHECK(has(message_of([&] { cts::read_image(folder.path / "none.png"); }), "none.png"));
}

}  // namespace data_image_tests
