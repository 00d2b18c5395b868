#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>

#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/report/heatmap.hpp"
#include "core_tokensets/report/mosaic.hpp"
#include "core_tokensets/report/page.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace report_tests {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using support::has;

namespace {

/// A picture in which every pixel is different enough to be recognised.
cts::image gradient_picture(cts::index height, cts::index width) {
  cts::image picture(height, width, 3);
  for (cts::index y = 0; y < height; ++y) {
    for (cts::index x = 0; x < width; ++x) {
      picture.at(y, x)[0] = static_cast<std::uint8_t>(255 * y / height);
      picture.at(y, x)[1] = static_cast<std::uint8_t>(255 * x / width);
      picture.at(y, x)[2] = static_cast<std::uint8_t>((y + x) % 2 * 60 + 60);
    }
  }
  return picture;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

std::string one_block(cts::report_block block) {
  return cts::to_html({.title = "t", .subtitle = "", .facts = {}, .sections = {{"s", {std::move(block)}}}});
}

}  // namespace

TEST_CASE("a heat map of patches equals the reference's") {
#ifdef CTS_TEST_DIR
  auto folder = fs::path(CTS_TEST_DIR) / "goldens";
#else
  fs::path folder;
#endif
  if (!fs::exists(folder / "vit_c")) {
    const char* shared = std::getenv("CTS_SHARED");
    folder = fs::path(shared ? shared : "../shared") / "goldens";
  }
  if (!fs::exists(folder / "vit_c")) {
    WARN("golden case vit_c is missing (set CTS_SHARED): skipped");
    return;
  }
  const auto file = cts::load_safetensors(folder / "vit_c" / "attribution.safetensors");
  const auto& want = file.at("heatmap.argmax");
  const auto maps = want.as<double>(), scores = file.at("transformer_attribution_s0.argmax").as<double>();
  const auto height = want.shape[1], width = want.shape[2];
  for (std::ptrdiff_t s = 0; s < want.shape[0]; ++s) {
    const auto got = cts::heatmap(std::span(scores).subspan(static_cast<std::size_t>(s * 9), 9), 3, 3, height, width);
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, std::abs(got[i] - maps[static_cast<std::size_t>(s * height * width) + i]));
    CHECK(worst < 1e-6);
  }
}

TEST_CASE("upsampling keeps centres at half integers and clamps edges; scaling maps to 0 .. 1") {
  const std::vector<double> scores{0, 1};
  CHECK(cts::upsample(scores, 1, 2, 1, 4) == std::vector<double>{0, 0.25, 0.75, 1});
  CHECK(cts::upsample(scores, 2, 1, 2, 2) == std::vector<double>{0, 0, 1, 1});
  CHECK(cts::upsample(std::vector<double>{3}, 1, 1, 2, 2) == std::vector<double>(4, 3.0));
  CHECK(cts::min_max(std::vector<double>{-1, 3, 1}) == std::vector<double>{0, 1, 0.5});
  CHECK(cts::min_max(std::vector<double>{2, 2}) == std::vector<double>{0, 0});
  CHECK_THROWS_AS(cts::min_max(std::vector<double>{1, std::nan("")}), cts::Error);
  CHECK_THROWS_AS(cts::upsample(scores, 2, 2, 4, 4), cts::Error);
}

TEST_CASE("colour scales grow lighter from end to end and clamp what lies beyond") {
  for (const auto scale : {cts::colour_scale::viridis, cts::colour_scale::inferno}) {
    double before = -1;
    for (int i = 0; i <= 50; ++i) {
      const auto c = cts::colour_of(i / 50.0, scale);
      const double light = 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
      CHECK(light > before);
      before = light;
    }
    CHECK(cts::colour_of(-3, scale) == cts::colour_of(0, scale));
    CHECK(cts::colour_of(7, scale) == cts::colour_of(1, scale));
    CHECK(cts::colour_of(std::nan(""), scale) == cts::colour_of(0, scale));
  }
  CHECK(cts::colour_of(1, cts::colour_scale::viridis) == cts::colour{0xFD, 0xE7, 0x25});
  CHECK(cts::text_colour_on(cts::colour_of(1)) == cts::colour{0, 0, 0});
  CHECK(cts::text_colour_on(cts::colour_of(0)) == cts::colour{255, 255, 255});
}

TEST_CASE("an overlay changes the picture most where relevance is high") {
  const cts::image grey(8, 8, 1, 128);
  const auto result = cts::overlay(grey, std::vector<double>{0, 0, 0, 5}, 2, 2, {.least = 0, .most = 1});
  REQUIRE(result.channels == 3);
  CHECK(result.at(0, 0)[0] == 128);
  const auto hot = cts::colour_of(1);
  CHECK(std::equal(hot.begin(), hot.end(), result.at(7, 7)));
  CHECK_THROWS_AS(cts::overlay(grey, std::vector<double>{1}, 2, 2), cts::Error);
  CHECK(cts::colour_map(std::vector<double>{0, 1}, 1, 2).at(0, 1)[0] == hot[0]);
  CHECK_THROWS_AS(cts::colour_map(std::vector<double>{0, 1}, 2, 2), cts::Error);
}

TEST_CASE("kept patches stand where they were, the others are grey") {
  const auto picture = gradient_picture(8, 12);
  const std::vector<std::int32_t> kept{0, 5};
  const auto seen = cts::kept_patches(picture, 4, kept);
  for (cts::index y = 0; y < 8; ++y) {
    for (cts::index x = 0; x < 12; ++x) {
      const auto position = y / 4 * 3 + x / 4;
      if (position == 0 || position == 5) {
        CHECK(std::equal(seen.at(y, x), seen.at(y, x) + 3, picture.at(y, x)));
      } else {
        CHECK((seen.at(y, x)[0] > 200 && seen.at(y, x)[0] == seen.at(y, x)[2]));
      }
    }
  }
  CHECK_THROWS_AS(cts::kept_patches(picture, 5, kept), cts::Error);
  CHECK_THROWS_AS(cts::kept_patches(picture, 4, std::vector<std::int32_t>{6}), cts::Error);
}

TEST_CASE("text is drawn in its cells, every character different, and cut at the edges") {
  cts::image line(8, 6 * 95, 1);
  std::string all;
  for (char c = ' '; c <= '~'; ++c) all += c;
  cts::draw_text(line, all, 0, 0, {255, 255, 255});
  std::vector<std::vector<std::uint8_t>> glyphs;
  for (cts::index i = 0; i < 95; ++i) {
    const auto glyph = cts::crop(line, 0, 6 * i, 8, 6).pixels;
    for (const auto& other : glyphs) CHECK(glyph != other);
    for (cts::index y = 0; y < 8; ++y) CHECK(glyph[static_cast<std::size_t>(6 * y + 5)] == 0);
    glyphs.push_back(glyph);
  }
  cts::image one(8, 6, 1), large(16, 12, 1), off(8, 6, 1);
  cts::draw_text(one, "R", 0, 0, {255, 255, 255});
  cts::draw_text(large, "R", 0, 0, {255, 255, 255}, 2);
  CHECK(large == cts::enlarge(one, 2));
  CHECK(one.pixels[0] == 255);
  cts::draw_text(off, "R", -100, 3, {255, 255, 255});
  cts::draw_text(off, "W", 6, 4, {255, 255, 255});
  CHECK(off.pixels[6 * 7 + 4] == 255);
  cts::image question(8, 6, 1), other(8, 6, 1);
  cts::draw_text(question, "?", 0, 0, {255, 255, 255});
  cts::draw_text(other, "\xC3", 0, 0, {255, 255, 255});
  CHECK(question == other);
  CHECK(cts::text_width("abc", 2) == 36);
}

TEST_CASE("a contact sheet holds each picture in its cell, with frame and caption") {
  const auto picture = gradient_picture(10, 10);
  const std::vector<cts::sheet_cell> cells{{picture, "one", std::array<std::uint8_t, 3>{200, 0, 0}},
                                           {cts::image(6, 10, 1, 77), "a caption that is far too long", std::nullopt},
                                           {picture, "", std::nullopt}};
  const cts::sheet_options options{.columns = 2, .margin = 5, .border = 2, .zoom = 3};
  const auto sheet = cts::contact_sheet(cells, options);
  CHECK(sheet.width == 5 + 2 * (30 + 4 + 5));
  CHECK(sheet.height == 5 + 2 * (30 + 4 + 10 + 5));
  CHECK(cts::crop(sheet, 7, 7, 30, 30) == cts::enlarge(picture, 3));
  CHECK(sheet.at(5, 5)[0] == 200);
  CHECK(sheet.at(7 + 15, 7 + 39 + 15)[0] == 77);  // the second one, lower than the cell, in its middle
  CHECK(sheet.at(7 + 2, 7 + 39 + 15)[0] == 250);
  CHECK(cts::crop(sheet, 7 + 49, 7, 30, 30) == cts::enlarge(picture, 3));
  bool ink = false;
  for (cts::index x = 7; x < 25; ++x) ink = ink || sheet.at(5 + 34 + 4, x)[0] == 40;
  CHECK(ink);
  CHECK(cts::decode_image(cts::encode_png(sheet)) == sheet);
  auto titled = options;
  titled.title = "Title";
  CHECK(cts::contact_sheet(cells, titled).height == sheet.height + 16 + 5);
  CHECK_THROWS_AS(cts::contact_sheet({}), cts::Error);
  CHECK_THROWS_AS(cts::contact_sheet(cells, {.columns = 0}), cts::Error);
}

TEST_CASE("html is escaped, bytes become base64, numbers are written without a locale's help") {
  CHECK(cts::escape_html("a<b> & \"c\" 'd'") == "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
  const auto encoded = [](std::string_view text) { return cts::base64(std::as_bytes(std::span(text))); };
  CHECK(encoded("") == "");
  CHECK(encoded("f") == "Zg==");
  CHECK(encoded("fo") == "Zm8=");
  CHECK(encoded("foobar") == "Zm9vYmFy");
  CHECK(encoded("\xFF\xFE\xFD") == "//79");
  CHECK(cts::fixed(-0.001, 2) == "0.00");
  CHECK(cts::fixed(-1.25, 1) == "-1.2");
  CHECK(cts::fixed(HUGE_VAL, 1) == "n/a");
  CHECK(cts::number_text(0.123456) == "0.1235");
  CHECK(cts::number_text(123456.7) == "123457");
  CHECK(cts::number_text(3) == "3");
}

TEST_CASE("tables come from json, in the order of its keys, escaped") {
  const auto rows = cts::parse_json(
      R"([{"name": "z<1>", "accuracy": 0.51239, "n": 3}, {"name": "b", "n": null, "ok": true, "list": [1, 2]}])");
  const auto table = cts::table_from_json(rows);
  CHECK(table.header == std::vector<std::string>{"name", "accuracy", "n", "ok", "list"});
  CHECK(table.rows[0] == std::vector<std::string>{"z<1>", "0.5124", "3", "", ""});
  CHECK(table.rows[1] == std::vector<std::string>{"b", "", "\u2013", "yes", "[1,2]"});
  const auto html = one_block(table);
  CHECK(has(html, "<td>z&lt;1&gt;</td><td class=\"n\">0.5124</td>"));
  CHECK_FALSE(has(html, "z<1>"));
  CHECK(cts::table_from_json(cts::json{{"k", 1}}).rows[0] == std::vector<std::string>{"k", "1"});
  CHECK_THROWS_AS(cts::table_from_json(cts::json(3)), cts::Error);
  CHECK_THROWS_AS(cts::table_from_json(cts::json::array({1})), cts::Error);

  const auto matrix = cts::matrix_from_json(cts::parse_json("[[0.9], [0.5, 0.8], [null, 0.25, 1]]"));
  const auto text = one_block(matrix);
  CHECK(has(text, ">90.0</td>"));
  CHECK(has(text, "<td class=\"mean\">65.0</td>"));
  CHECK(has(text, "<td class=\"mean\">62.5</td>"));  // what was not measured does not count
  CHECK(has(text, "after 3"));
  CHECK(count(text, "background:rgba") == 5);
  CHECK_THROWS_AS(cts::matrix_from_json(cts::parse_json("[[\"x\"]]")), cts::Error);
}

TEST_CASE("charts draw every bar and point, and refuse what cannot be drawn") {
  const auto bars = one_block(
      cts::bar_chart{.bars = {{"a & b", 50, 10}, {"c", -20, 0, true}}, .caption = "cap", .unit = "%", .decimals = 1});
  CHECK(count(bars, "<rect ") == 2);
  CHECK(count(bars, "class=\"error\"") == 3);
  CHECK(has(bars, "a &amp; b"));
  CHECK(has(bars, "50.0 \u00B1 10.0 %"));
  CHECK(has(bars, "bar strong"));
  CHECK_THROWS_AS(one_block(cts::bar_chart{}), cts::Error);
  CHECK_THROWS_AS(one_block(cts::bar_chart{.bars = {{"x", std::nan("")}}, .caption = "", .unit = ""}), cts::Error);
  const auto lines =
      one_block(cts::line_chart{.lines = {{"up", {1, 2, 3}, {1, 2, 3}, {0.1, 0.1, 0.2}}, {"flat", {1, 3}, {2, 2}, {}}},
                                .caption = "",
                                .x_label = "task",
                                .y_label = ""});
  CHECK(count(lines, "<circle ") == 5);
  CHECK(count(lines, "<polygon ") == 1);
  CHECK(count(lines, "<polyline ") == 2);
  CHECK(has(lines, ">2</text>"));  // whole numbers stay whole
  CHECK_THROWS_AS(one_block(cts::line_chart{}), cts::Error);
  CHECK_THROWS_AS(
      one_block(cts::line_chart{.lines = {{"x", {1}, {}, {}}}, .caption = "", .x_label = "", .y_label = ""}),
      cts::Error);
  for (const double top : {1e-6, 0.3, 1.0, 7.0, 99.0, 12345.0}) {
    const cts::detail::axis axis(0, top);
    CHECK(axis.low == 0);
    CHECK(axis.high >= top * (1 - 1e-9));
    CHECK(axis.high <= 1.6 * top);
    CHECK((axis.ticks() >= 3 && axis.ticks() <= 8));
  }
}

TEST_CASE("a chart over bytes has a logarithmic axis, error bars and a legend") {
  const auto html =
      one_block(cts::bytes_chart{.lines = {{"ours & more", {1024, 4096, 16384}, {30, 40, 50}, {2, 0, 1}, true},
                                           {"rival", {1024, 16384}, {20, 30}},
                                           {"joint <b>", {}, {70}}},
                                 .caption = "cap",
                                 .x_label = "budget",
                                 .y_label = "%"});
  CHECK(count(html, "<circle ") == 5);
  CHECK(count(html, "class=\"whisker hue0\"") == 6);  // an error of 0 has no bar
  CHECK(count(html, "<polyline ") == 2);
  CHECK(count(html, "class=\"line level hue2\"") == 2);  // across the chart, and in the legend
  CHECK(count(html, "</li>") == 3);
  CHECK(has(html, "ours &amp; more"));
  CHECK(has(html, "joint &lt;b&gt;"));
  CHECK(has(html, ">4 KiB</text>"));
  const auto refused = [](cts::bytes_chart chart) { CHECK_THROWS_AS(one_block(chart), cts::Error); };
  refused({});
  refused({.lines = {{"only a level", {}, {70}}}});
  refused({.lines = {{"no bytes", {0}, {1}}}});
  refused({.lines = {{"not finite", {1}, {std::nan("")}}}});
  refused({.lines = {{"negative", {1}, {1}, {-1}}}});
  refused({.lines = {{"lengths", {1, 2}, {1}}}});
  refused({.lines = {{"two levels", {}, {1, 2}}}});

  // Equal steps are equal factors, whatever the ends; from 2 to 7 ticks stand within them.
  for (const auto& [low, high] : {std::pair(1000.0, 1000.0), std::pair(5000.0, 7000.0), std::pair(1.0, 1e12)}) {
    const cts::detail::bytes_axis axis(low, high);
    CHECK(axis.place(low, 0, 1) >= 0);
    CHECK(axis.place(high, 0, 1) <= 1);
    const int ticks = (axis.last - axis.first) / axis.step + 1;
    CHECK((ticks >= 2 && ticks <= 7));
    const double once = axis.place(2 * low, 0, 1) - axis.place(low, 0, 1);
    CHECK(axis.place(4 * low, 0, 1) - axis.place(2 * low, 0, 1) == Approx(once));
  }
  CHECK(cts::detail::bytes_text(512) == "512 B");
  CHECK(cts::detail::bytes_text(16384) == "16 KiB");
  CHECK(cts::detail::bytes_text(1536 * 1024) == "1.5 MiB");
  CHECK(cts::detail::bytes_text(100 * 1024) == "100 KiB");
}

TEST_CASE("lines to be copied keep their breaks and are escaped") {
  const auto html = one_block(cts::report_lines{"a --b 'c'\nd > e", "how"});
  CHECK(has(html, "<figcaption>how</figcaption><pre>a --b &#39;c&#39;\nd &gt; e</pre>"));
}

TEST_CASE("a report is one file that holds everything") {
  const auto picture = gradient_picture(8, 8);
  const auto png = cts::encode_png(picture);
  const cts::report_page page{
      .title = "A <report>",
      .subtitle = "sub & title",
      .facts = {{"Samples", "5"}},
      .sections = {{"First", {cts::report_paragraph{"1 < 2"}, cts::report_figure{png, "fig"}}}}};
  const support::scratch_folder folder;
  const auto path = folder.path / "report.html";
  cts::write_report(path, page);
  const auto html = cts::read_text(path);
  CHECK(html == cts::to_html(page));
  CHECK(has(html, "<title>A &lt;report&gt;</title>"));
  CHECK(has(html, "<p>1 &lt; 2</p>"));
  CHECK(has(html, "data:image/png;base64," + cts::base64(png)));
  CHECK(has(html, "prefers-color-scheme: dark"));
  for (const std::string outside : {"http://", "https://", "<script", "url("}) CHECK_FALSE(has(html, outside));
  CHECK(count(html, "<section>") == count(html, "</section>"));
}

}  // namespace report_tests
