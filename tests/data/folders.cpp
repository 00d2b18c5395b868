// Folders of pictures as people have them: files that are not read, hidden folders, damaged files, uneven classes.

#include <chrono>

#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/picture_list.hpp"
#include "core_tokensets/data/tasks.hpp"
#include "data/picture_bytes.hpp"
#include "support/catch.hpp"

namespace data_folders_tests {

namespace cts = core_tokensets;
using namespace data_test;
using counts = std::map<std::string, cts::index>;

namespace {

void put(const fs::path& path, const std::string& content) {
  fs::create_directories(path.parent_path());
  cts::write_file(path, std::string_view(content));
}
void put_picture(const fs::path& path, double phase = 0) {
  fs::create_directories(path.parent_path());
  cts::write_png(path, waves(8, 8, 3, phase));
}

/// DIR with two classes, two pictures to learn from and one to measure on in each.
void write_tree(const fs::path& dir) {
  for (const char* kind : {"ant", "bee"}) {
    put_picture(dir / "train" / kind / "a.png", 1);
    put_picture(dir / "train" / kind / "b.png", 2);
    put_picture(dir / "val" / kind / "c.png", 3);
  }
}

}  // namespace

TEST_CASE("folders: GIF and BMP are read, pictures of other kinds are counted", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path);
  const auto ant = dir.path / "train/ant";
  cts::write_file(ant / "c.BMP", as_bytes(bmp_file(waves(8, 8, 3, 7))));
  cts::write_file(ant / "d.gif", as_bytes(gif_file(8, 8, octets(64, 10), octets(64, 20))));
  put(ant / "e.webp", "x"), put(ant / "f.WEBP", "x"), put(ant / "g.tif", "x"), put(ant / "deeper/h.heic", "x");
  put(ant / "notes.txt", "not a picture"), put(ant / "table", "not a picture either");
  fs::copy_file(ant / "a.png", ant / "a.png.bak");
  fs::copy_file(ant / "a.png", dir.path / "train/stray.png");
  put(dir.path / "val/bee/i.tiff", "x");

  const auto split = cts::load_folder(dir.path);
  CHECK(split.train.names ==
        std::vector<std::string>{"ant/a.png", "ant/b.png", "ant/c.BMP", "ant/d.gif", "bee/a.png", "bee/b.png"});
  CHECK(cts::image(split.train.view_of(2)) == waves(8, 8, 3, 7));
  CHECK(split.train.view_of(3).at(7, 7)[2] == 245);
  CHECK(split.train.reading ==
        cts::picture_reading{
            6,
            counts{{"webp", 2}, {"tiff", 1}, {"heic", 1}, {"png of another ending", 1}, {"in no class folder", 1}},
            0,
            {}});
  auto both = split.train.reading;
  both += split.test.reading;
  CHECK(cts::text_of(both) ==
        "read 8 pictures, left out 7 (tiff 2, webp 2, heic 1, in no class folder 1, png of another "
        "ending 1)");
  CHECK(cts::picture_reading_from_json(cts::to_json(both)) == both);
  CHECK(cts::subset(split.train, std::vector<cts::index>{1}).reading == split.train.reading);

  for (const char* file : {"a.png", "b.png", "c.BMP", "d.gif", "a.png.bak"}) fs::remove(ant / file);
  const auto told = message_of([&] { cts::load_folder(dir.path); });
  CHECK(has(told, ant.generic_string() + ": no jpg"));
  CHECK(has(told, "webp 2"));
}

TEST_CASE("folders: hidden and tool-made files and folders are nobody's pictures", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path);
  const auto names = cts::load_folder(dir.path).train.names;
  const std::vector<std::string> strange{".thumbnails", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"};
  for (const auto& name : strange) {
    put_picture(dir.path / "train/ant" / name / "x.png");  // within a class
    put_picture(dir.path / "train" / name / "x.png");      // beside the classes
    put_picture(dir.path / "val" / name / "x.png");
  }
  put(dir.path / "train/ant/Thumbs.db", "x"), put(dir.path / "train/ant/desktop.ini", "x");
  put_picture(dir.path / "train/bee/._a.png"), put(dir.path / "train/bee/.DS_Store", "x");
  put_picture(dir.path / "train/bee/inner/.hidden/x.png"), put(dir.path / "train/.x.webp", "x");
  const auto split = cts::load_folder(dir.path);
  CHECK(split.train.class_names == std::vector<std::string>{"ant", "bee"});
  CHECK(split.train.names == names);
  CHECK(split.train.reading == cts::picture_reading{4, {}, 2 * 6 + 6, {}});
  CHECK(split.test.reading == cts::picture_reading{2, {}, 6, {}});
  CHECK(cts::text_of(split.test.reading) == "read 2 pictures, ignored 6 hidden or tool-made");
}

TEST_CASE("folders: all damaged files of both parts are told at once, or left out and counted", "[data]") {
  const scratch_folder dir, store;
  write_tree(dir.path);
  put(dir.path / "train/ant/0.jpg", "not a picture");
  put(dir.path / "train/bee/z.png", "");
  fs::create_symlink(dir.path / "nowhere", dir.path / "train/bee/link.png");
  put(dir.path / "val/ant/c.jpg", "RIFF1234WEBPVP8 0000000000000000000");
  const std::vector<std::string> damaged{"train/ant/0.jpg", "train/bee/link.png", "train/bee/z.png", "val/ant/c.jpg"};
  for (const cts::index size : {cts::index{0}, cts::index{4}}) {
    const auto told = message_of([&] { cts::load_folder(dir.path, {.size = size}); });
    CHECK(has(told, "4 pictures cannot be read: "));
    for (const auto& file : damaged) CHECK(has(told, (dir.path / file).generic_string() + ": "));
    CHECK(has(told, "WebP"));
    CHECK(has(told, "skip_damaged"));
  }
  for (int time = 0; time < 2; ++time) {  // decoded, then recalled
    int decoded = 0;
    cts::folder_options options{.cache_folder = store.path, .skip_damaged = true};
    options.on_progress = [&](const cts::progress&) { ++decoded; };
    const auto split = cts::load_folder(dir.path, options);
    CHECK((decoded > 0) == (time == 0));
    CHECK(split.train.names == std::vector<std::string>{"ant/a.png", "ant/b.png", "bee/a.png", "bee/b.png"});
    CHECK(split.train.labels == std::vector<std::int32_t>{0, 0, 1, 1});
    split.train.check(), split.test.check();
    for (cts::index i = 0; i < 4; ++i) CHECK(cts::image(split.train.view_of(i)) == waves(8, 8, 3, i % 2 == 0 ? 1 : 2));
    CHECK(split.train.reading.left_out == counts{{"damaged", 3}});
    CHECK(split.test.reading.damaged == std::vector<std::string>{(dir.path / damaged[3]).generic_string()});
  }
  // What kept a file from being read may be over without a change of its name, size and time: it is tried again.
  const auto late = dir.path / "train/ant/late.png";
  auto bytes = cts::encode_png(waves(8, 8, 3, 5));
  bytes[bytes.size() / 2] ^= std::byte{4};
  const auto read_late = [&](cts::index expected) {
    cts::write_file(late, bytes);
    fs::last_write_time(late, fs::file_time_type(std::chrono::hours(1)));
    const auto data = cts::load_folder(dir.path, {.cache_folder = store.path, .skip_damaged = true}).train;
    CHECK(data.n() == expected);
    data.check();
  };
  read_late(4), read_late(4);
  bytes[bytes.size() / 2] ^= std::byte{4};
  read_late(5);
  fs::remove(late);

  for (int i = 0; i < 30; ++i) put(dir.path / "train/ant" / ("y" + std::to_string(i) + ".png"), "x");
  const auto told = message_of([&] { cts::load_folder(dir.path); });
  CHECK(has(told, "34 pictures cannot be read"));
  CHECK(has(told, "and 14 more"));
  CHECK(std::count(told.begin(), told.end(), ';') == 20);
}

TEST_CASE("folders: a class of which nothing can be read, different sizes and lists are refused by name", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path);
  put(dir.path / "train/bee/a.png", "x"), put(dir.path / "train/bee/b.png", "x");
  const auto skip = [&] { cts::load_folder(dir.path, {.skip_damaged = true}); };
  CHECK(has(message_of(skip), (dir.path / "train/bee").generic_string() + ": none of the pictures"));
  put_picture(dir.path / "train/bee/a.png", 1);
  CHECK(message_of(skip).empty());
  cts::write_png(dir.path / "train/bee/c.png", waves(9, 8, 3));
  CHECK(has(message_of(skip), "c.png: 9 x 8 pixels, others have 8 x 8"));
  // What is damaged is told before what is of another size.
  CHECK(has(message_of([&] { cts::load_folder(dir.path); }), "b.png: no JPEG"));
  put(dir.path / "val/ant/c.png", "x"), put(dir.path / "val/bee/c.png", "x"), fs::remove(dir.path / "train/bee/c.png");
  CHECK(has(message_of(skip), (dir.path / "val").generic_string() + ": none of its pictures"));

  const std::vector<cts::listed_picture> list{{"a.png", "picture 0"}, {"b.png", "picture 1"}};
  CHECK(has(message_of([&] { cts::load_pictures(dir.path / "train/bee", list); }), "b.png: no JPEG"));
  CHECK(has(message_of([&] { cts::load_pictures(dir.path / "train/ant", list, {.skip_damaged = true}); }),
            "skip_damaged"));
}

TEST_CASE("folders and lists: photographs are turned, and their sizes with them", "[data]") {
  const scratch_folder dir;
  const auto jpeg = as_octets(cts::encode_jpeg(waves(8, 12, 3), 95));
  const auto upright = cts::turn_upright(cts::decode_image(as_bytes(jpeg)), 6);
  for (const char* name : {"train/ant/a.jpg", "val/ant/b.jpg"}) {
    put(dir.path / name, "");
    cts::write_file(dir.path / name, as_bytes(with_segment(jpeg, exif_segment(6, false))));
  }
  const auto split = cts::load_folder(dir.path);
  REQUIRE((split.train.height == 12 && split.train.width == 8));
  CHECK(cts::image(split.train.view_of(0)) == upright);
  const std::vector<cts::listed_picture> list{{"a.jpg", "picture 0"}};
  CHECK(cts::image(cts::load_pictures(dir.path / "train/ant", list).view_of(0)) == upright);
  CHECK(cts::load_folder(dir.path, {.size = 6}).train.view_of(0).height == 6);
}

TEST_CASE("folders: names beyond ASCII, and such that are no UTF-8, stay as they are", "[data]") {
  const scratch_folder dir;
  const std::string composed = "Gr\xc3\xbcn", decomposed = "Gru\xcc\x88n", broken = "b\xe9";
  for (const auto& name : {composed, decomposed, broken}) {
    put_picture(dir.path / "train" / name / (name + " \xe7\x8c\xab.png"));
    put_picture(dir.path / "val" / name / "x.png");
  }
  put(dir.path / "train" / broken / (broken + ".png"), "x");
  const auto split = cts::load_folder(dir.path, {.skip_damaged = true});
  CHECK(split.train.class_names == std::vector<std::string>{decomposed, composed, broken});
  CHECK(split.train.names[0] == decomposed + "/" + decomposed + " \xe7\x8c\xab.png");
  const auto text = cts::to_json(split.train.reading).dump();
  CHECK(cts::detail::is_utf8(text));
  CHECK(has(text, "b\xef\xbf\xbd.png"));
}

TEST_CASE("folders: uneven classes, of one picture, of none to measure on", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path);
  for (int i = 0; i < 20; ++i) put_picture(dir.path / "train/ant" / (std::to_string(i) + ".png"));
  fs::remove(dir.path / "train/bee/b.png");
  put_picture(dir.path / "train/cow/a.png");
  fs::create_directories(dir.path / "train/dog");
  CHECK(has(message_of([&] { cts::load_folder(dir.path); }), "train/dog: no jpg"));
  put_picture(dir.path / "train/dog/a.png");
  fs::create_symlink(dir.path / "drive", dir.path / "train/elk");
  CHECK(has(message_of([&] { cts::load_folder(dir.path); }), "train/elk: a link that leads nowhere"));
  fs::remove(dir.path / "train/elk");
  fs::create_directories(dir.path / "val/dog");  // empty, as if it were not there
  const auto split = cts::load_folder(dir.path);
  CHECK(split.train.labels.size() == 22 + 3);
  CHECK(cts::classes_without_pictures(split.train).empty());
  CHECK(cts::classes_without_pictures(split.test) == std::vector<cts::index>{2, 3});
  const auto stream = cts::class_incremental(split, {.tasks = 1});
  CHECK(stream[0].test_indices.size() == 2);
  CHECK(has(message_of([&] { cts::class_incremental(split, {.tasks = 2}); }), "'cow'"));
  CHECK(cts::limit_per_class(split.train, 1).n() == 4);
}

}  // namespace data_folders_tests
