// Picture files as people have them: turned photographs, four inks, GIF and BMP, hostile bytes.

#include <sys/mman.h>

#include "core_tokensets/core/random.hpp"
#include "data/picture_bytes.hpp"
#include "support/catch.hpp"

namespace data_picture_files_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

/// Where Exif 2.3 says that row 0 and column 0 of the file are seen: "1 top left, 2 top right, ...".
const std::array<const char*, 9> seen{"",         "top left",  "top right",    "bottom right", "bottom left",
                                      "left top", "right top", "right bottom", "left bottom"};

/// The picture as it is seen, after those words: each row of the file goes to the place that they name.
cts::image by_words(const cts::image& stored, const std::string& words) {
  const std::string row = words.substr(0, words.find(' ')), column = words.substr(words.find(' ') + 1);
  const bool upright = row == "top" || row == "bottom";
  cts::image to(upright ? stored.height : stored.width, upright ? stored.width : stored.height, stored.channels);
  const auto place = [&](const std::string& side, cts::index k, cts::index& y, cts::index& x) {
    if (side == "top") y = k;
    if (side == "bottom") y = to.height - 1 - k;
    if (side == "left") x = k;
    if (side == "right") x = to.width - 1 - k;
  };
  for (cts::index r = 0; r < stored.height; ++r) {
    for (cts::index c = 0; c < stored.width; ++c) {
      cts::index y = 0, x = 0;
      place(row, r, y, x), place(column, c, y, x);
      std::copy_n(stored.at(r, c), stored.channels, to.at(y, x));
    }
  }
  return to;
}

/// A copy of the bytes, at most a page of them, that ends where memory ends: one byte further is a crash.
template <class Check>
void at_the_end_of_memory(const octets& bytes, const Check& check) {
  constexpr std::size_t page = 65536;
  static std::uint8_t* const memory = [] {
    void* const pages = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE((pages != MAP_FAILED && mprotect(static_cast<std::uint8_t*>(pages) + page, page, PROT_NONE) == 0));
    return static_cast<std::uint8_t*>(pages);
  }();
  REQUIRE(bytes.size() <= page);
  std::uint8_t* const begin = memory + (page - bytes.size());
  std::copy(bytes.begin(), bytes.end(), begin);
  check(std::span<const std::uint8_t>(begin, bytes.size()));
}

}  // namespace

TEST_CASE("photographs are turned as their Exif says, in both byte orders", "[data]") {
  const scratch_folder folder;
  const auto jpeg = as_octets(cts::encode_jpeg(waves(16, 24, 3), 95));
  const cts::image stored = cts::decode_image(as_bytes(jpeg));
  for (std::uint32_t orientation = 1; orientation <= 8; ++orientation) {
    for (const bool little : {false, true}) {
      for (const std::uint32_t type : {3u, 4u}) {
        const auto turned = with_segment(jpeg, exif_segment(orientation, little, type));
        INFO("orientation " << orientation << ", " << (little ? "II" : "MM") << ", type " << type);
        CHECK(cts::exif_orientation(turned) == static_cast<int>(orientation));
        const auto expected = by_words(stored, seen[orientation]);
        CHECK(expected.height == (orientation < 5 ? 16 : 24));
        CHECK(cts::decode_image(as_bytes(turned)) == expected);
        cts::write_file(folder.path / "photo.jpg", as_bytes(turned));
        CHECK(cts::read_image(folder.path / "photo.jpg", 1).height == expected.height);
      }
    }
  }
  for (const std::uint32_t nonsense : {0u, 9u, 65535u})
    CHECK(cts::decode_image(as_bytes(with_segment(jpeg, exif_segment(nonsense, true)))) == stored);
  // A segment that is no Exif, and one without an orientation, leave the word to the next.
  const octets other{0xFF, 0xE1, 0, 8, 'h', 't', 't', 'p', ':', 0};
  CHECK(cts::exif_orientation(with_segment(with_segment(jpeg, exif_segment(6, true)), other)) == 6);
  CHECK(cts::exif_orientation(with_segment(with_segment(jpeg, exif_segment(6, true)), exif_segment(0, true))) == 6);
  CHECK_THROWS_AS(cts::turn_upright(stored, 9), cts::Error);
}

TEST_CASE("Exif that is cut off, points elsewhere or is random turns nothing and reads nothing beyond", "[data]") {
  const auto jpeg = as_octets(cts::encode_jpeg(waves(8, 8, 3), 95));
  const auto check_any = [](std::span<const std::uint8_t> b) {
    const int found = cts::exif_orientation(b);
    CHECK((found >= 1 && found <= 8));
  };
  for (const bool little : {false, true}) {
    const auto segment = exif_segment(6, little);
    const auto whole = with_segment(jpeg, segment);
    for (std::size_t n = 0; n <= segment.size() + 2; ++n) {
      const octets part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
      at_the_end_of_memory(part, check_any);
      if (n < segment.size() + 2) CHECK(cts::exif_orientation(part) == 1);
    }
    // The block itself without its segment around it.
    const octets tiff(segment.begin() + 10, segment.end());
    CHECK(cts::detail::tiff_orientation(tiff) == 6);
    for (std::size_t n = 0; n <= tiff.size(); ++n) {
      at_the_end_of_memory({tiff.begin(), tiff.begin() + static_cast<std::ptrdiff_t>(n)},
                           [&](auto b) { CHECK(cts::detail::tiff_orientation(b).value_or(1) == (n < 44 ? 1 : 6)); });
    }
    for (const std::uint32_t offset : {0u, 7u, 43u, 44u, 49u, 62u, 0x7FFFFFFFu, 0xFFFFFFF0u, 0xFFFFFFFFu}) {
      octets bad(tiff.begin(), tiff.begin() + 4);
      append_number(bad, offset, 4, little);
      bad.insert(bad.end(), tiff.begin() + 8, tiff.end());
      at_the_end_of_memory(bad, [](auto b) { CHECK(cts::detail::tiff_orientation(b).value_or(1) == 1); });
    }
    cts::random_stream random(7, little);
    for (int attempt = 0; attempt < 3000; ++attempt) {
      octets bad = whole;
      bad.resize(segment.size() + 2);
      for (int k = 0; k < 3; ++k)
        bad[static_cast<std::size_t>(random.below(static_cast<cts::index>(bad.size())))] =
            static_cast<std::uint8_t>(random.below(256));
      at_the_end_of_memory(bad, check_any);
    }
  }
}

TEST_CASE("JPEG of four inks: Adobe's are right, others are refused by name", "[data]") {
  // Inverted inks: light is what the inks let through, C K / 255.
  const auto inks = cts::decode_image(as_bytes(four_component_jpeg({200, 100, 50, 255}, 0)), 3, "inks.jpg");
  REQUIRE(inks.channels == 3);
  CHECK((inks.at(3, 3)[0] == 200 && inks.at(3, 3)[1] == 100 && inks.at(3, 3)[2] == 50));
  const auto dark = cts::decode_image(as_bytes(four_component_jpeg({200, 100, 50, 128}, 0)), 3);
  CHECK(std::abs(dark.at(0, 0)[0] - 100) <= 1);
  CHECK(std::abs(dark.at(0, 0)[2] - 25) <= 1);
  // Luma and two colours of what is to be inverted: without colour all three are 255 - Y.
  const auto transformed = cts::decode_image(as_bytes(four_component_jpeg({55, 128, 128, 255}, 2)), 3);
  for (int c = 0; c < 3; ++c) CHECK(std::abs(transformed.at(5, 2)[c] - 200) <= 1);
  CHECK(cts::decode_image(as_bytes(four_component_jpeg({200, 100, 50, 255}, 0))).channels == 3);

  for (const int transform : {-1, 1, 3}) {
    const auto file = as_bytes(four_component_jpeg({200, 100, 50, 255}, transform));
    const auto told = message_of([&] { cts::decode_image(file, 3, "inks.jpg"); });
    CHECK(has(told, "inks.jpg"));
    CHECK(has(told, "CMYK"));
  }
}

TEST_CASE("GIF: the first picture is read, every cut within it is found", "[data]") {
  octets first, second(12 * 20, 5);
  for (int i = 0; i < 12 * 20; ++i) first.push_back(static_cast<std::uint8_t>(i % 120));
  const auto file = gif_file(12, 20, first, second);
  const auto picture = cts::decode_image(as_bytes(file), 3);
  REQUIRE((picture.height == 12 && picture.width == 20));
  for (cts::index i = 0; i < 12 * 20; ++i) {
    const int k = static_cast<int>(i % 120);
    const auto* pixel = picture.pixels.data() + 3 * i;
    REQUIRE((pixel[0] == k && pixel[1] == 2 * k && pixel[2] == 255 - k));
  }
  const std::size_t end = file.size() - 1 - (second.size() + 4 + 2 + 11) - 8;
  for (std::size_t n = 6; n < end; ++n) {
    const octets part(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n));
    INFO("cut to " << n << " of " << file.size());
    REQUIRE(has(message_of([&] { cts::decode_image(as_bytes(part), 3, "a.gif"); }), "a.gif: GIF file is cut off"));
  }
  const octets part(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(end));
  CHECK(cts::decode_image(as_bytes(part), 3) == picture);
}

TEST_CASE("BMP: 24 bits and palettes, every cut and every colour that is not there is found", "[data]") {
  const auto colours = waves(5, 7, 3);
  CHECK(cts::decode_image(as_bytes(bmp_file(colours)), 3) == colours);
  auto from_top = bmp_file(colours);
  octets rows(from_top.begin() + 54, from_top.end()), flipped;
  for (std::size_t y = 5; y-- > 0;)
    flipped.insert(flipped.end(), rows.begin() + static_cast<std::ptrdiff_t>(24 * y),
                   rows.begin() + static_cast<std::ptrdiff_t>(24 * y + 24));
  std::copy(flipped.begin(), flipped.end(), from_top.begin() + 54);
  for (std::size_t i = 0; i < 4; ++i) from_top[22 + i] = static_cast<std::uint8_t>(-5 >> (8 * i));
  CHECK(cts::decode_image(as_bytes(from_top), 3) == colours);

  const auto grey = waves(6, 9, 1);
  CHECK(cts::decode_image(as_bytes(bmp_file(grey, 256)), 3) == cts::grey_to_rgb(grey));
  const auto largest = *std::max_element(grey.pixels.begin(), grey.pixels.end());
  CHECK_NOTHROW(cts::decode_image(as_bytes(bmp_file(grey, largest + 1)), 3));
  CHECK(has(message_of([&] { cts::decode_image(as_bytes(bmp_file(grey, largest)), 3, "a.bmp"); }), "a.bmp"));

  for (const auto& file : {bmp_file(colours), bmp_file(grey, 256)}) {
    for (std::size_t n = 18; n + 3 < file.size(); ++n) {
      const octets part(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n));
      INFO("cut to " << n << " of " << file.size());
      REQUIRE(has(message_of([&] { cts::decode_image(as_bytes(part), 3, "a.bmp"); }), "a.bmp: BMP file is cut off"));
    }
  }
  auto packed = bmp_file(grey, 256);
  packed[30] = 1;
  CHECK(has(message_of([&] { cts::decode_image(as_bytes(packed), 3, "a.bmp"); }), "RLE"));
}

TEST_CASE("random changes to a file give a picture or an Error", "[data]") {
  octets colours(20 * 20);
  for (std::size_t i = 0; i < colours.size(); ++i) colours[i] = static_cast<std::uint8_t>(i % 128);
  const auto jpeg = as_octets(cts::encode_jpeg(waves(16, 16, 3)));
  cts::random_stream random(3);
  const auto any = [&](std::size_t n) { return static_cast<std::size_t>(random.below(static_cast<cts::index>(n))); };
  for (const auto& file : {gif_file(20, 20, colours, colours), bmp_file(waves(9, 9, 3)), bmp_file(waves(9, 9, 1), 256),
                           with_segment(jpeg, exif_segment(6, true)), four_component_jpeg({9, 99, 199, 250}, 2)}) {
    for (int attempt = 0; attempt < 400; ++attempt) {
      octets changed = file;
      for (std::size_t k = 0; k <= any(4); ++k) {
        // Sizes stay small: a picture of 65535 x 65535 is no fault of the file.
        const std::size_t at = any(std::min<std::size_t>(changed.size(), 400));
        if (at != 7 && at != 9) changed[at] = static_cast<std::uint8_t>(any(256));
      }
      changed.resize(any(3) == 0 ? any(changed.size()) : changed.size());
      try {
        const auto picture = cts::decode_image(as_bytes(changed), 3, "x");
        CHECK(picture.pixels.size() == static_cast<std::size_t>(picture.height * picture.width * 3));
      } catch (const cts::Error& error) {
        CHECK(has(error.what(), "x: "));
      }
    }
  }
}

TEST_CASE("pictures of other kinds are told by their names", "[data]") {
  const auto told = [](std::string text) {
    text.resize(40, '\1');
    std::vector<std::byte> bytes;
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    return message_of([&] { cts::decode_image(bytes, 3, "x.jpg"); });
  };
  CHECK(has(told("RIFF1234WEBPVP8 "), "is WebP, expected"));
  CHECK(has(told(std::string("II*\0", 4)), "is TIFF, expected"));
  CHECK(has(told(std::string("MM\0*", 4)), "is TIFF, expected"));
  CHECK(has(told(std::string("\0\0\0\30ftypheic", 12)), "is HEIC, expected"));
  CHECK(has(told(std::string("\0\0\0\30ftypavif", 12)), "is AVIF, expected"));
  CHECK(has(told("<!doctype html>"), "no JPEG, PNG, GIF or BMP"));
  CHECK(has(message_of([] { cts::decode_image({}, 3, "x.jpg"); }), "0 bytes"));
}

}  // namespace data_picture_files_tests
