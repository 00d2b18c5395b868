#include <algorithm>
#include <chrono>
#include <thread>

#include "core_tokensets/data/readers/cifar.hpp"
#include "core_tokensets/data/readers/folder.hpp"
#include "core_tokensets/data/readers/idx.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_files_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

/// DIR with two classes, three pictures to learn from and two to measure on, of mixed formats.
void write_tree(const fs::path& dir, const std::string& test = "test") {
  for (const char* part : {"train/zebra", "train/ant"}) fs::create_directories(dir / part);
  for (const char* part : {"zebra", "ant"}) fs::create_directories(dir / test / part);
  cts::write_png(dir / "train/zebra/b.PNG", waves(8, 8, 3, 1));
  cts::write_file(dir / "train/zebra/a.JPEG", cts::encode_jpeg(waves(8, 8, 3, 2)));
  cts::write_png(dir / "train/ant/x.png", waves(8, 8, 1, 3));
  cts::write_file(dir / "train/ant/notes.txt", std::string_view("not a picture"));
  cts::write_png(dir / test / "zebra/t.png", waves(8, 8, 3, 4));
  cts::write_png(dir / test / "ant/u.png", waves(8, 8, 3, 5));
}

fs::path only_file(const fs::path& folder, const std::string& ending = ".bin") {
  fs::path found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ending) found = entry.path();
  }
  return found;
}

}  // namespace

TEST_CASE("folders: classes by name, formats mixed, grey made colour", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path);
  const auto split = cts::load_folder(dir.path, {});
  split.train.check();
  split.test.check();
  CHECK(split.train.class_names == std::vector<std::string>{"ant", "zebra"});
  CHECK(split.train.labels == std::vector<std::int32_t>{0, 1, 1});
  CHECK(split.train.names == std::vector<std::string>{"ant/x.png", "zebra/a.JPEG", "zebra/b.PNG"});
  CHECK(split.train.channels == 3);
  CHECK(cts::image(split.train.view_of(0)) == cts::grey_to_rgb(waves(8, 8, 1, 3)));
  CHECK(cts::image(split.train.view_of(2)) == waves(8, 8, 3, 1));
  CHECK(split.train.source_bytes[1] == fs::file_size(dir.path / "train/zebra/a.JPEG"));
  CHECK(split.test.labels == std::vector<std::int32_t>{0, 1});

  const auto small = cts::load_folder(dir.path, {.size = 4});
  CHECK(small.train.height == 4);
  CHECK(cts::image(small.train.view_of(2)) == cts::resize(waves(8, 8, 3, 1), 4, 4));
  CHECK(cts::load_folder(dir.path, {.channels = 1}).train.image_size() == 64);

  cts::write_file(dir.path / "classes.tsv", std::string_view("zebra\tstriped horse\r\nant\tsmall worker\n"));
  CHECK(cts::load_folder(dir.path, {}).test.class_names == std::vector<std::string>{"small worker", "striped horse"});
}

TEST_CASE("folders: val stands in for test; classes may lie deeper", "[data]") {
  const scratch_folder dir;
  write_tree(dir.path, "val");
  fs::create_directories(dir.path / "train/ant/images");
  fs::rename(dir.path / "train/ant/x.png", dir.path / "train/ant/images/x.png");
  const auto split = cts::load_folder(dir.path, {});
  CHECK(split.test.n() == 2);
  CHECK(split.train.names[0] == "ant/images/x.png");
}

TEST_CASE("folders: the part to measure on is numbered by the part to learn from", "[data]") {
  const support::scratch_folder dir;
  for (const char* name : {"train/a/1.png", "train/b/1.png", "train/c/1.png", "train/d/1.png", "test/a/1.png",
                           "test/c/1.png", "test/d/1.png"}) {
    fs::create_directories((dir.path / name).parent_path());
    cts::write_png(dir.path / name, waves(8, 8, 3, 1));
  }
  const auto alone = cts::load_test_folder(dir.path);
  CHECK(alone.labels == std::vector<std::int32_t>{0, 2, 3});
  CHECK(alone.class_names == std::vector<std::string>{"a", "b", "c", "d"});
  CHECK(alone.labels == cts::load_folder(dir.path).test.labels);
}

TEST_CASE("folders: each mistake is an Error that names it", "[data]") {
  const scratch_folder dir;
  const auto load = [&] { cts::load_folder(dir.path, {}); };
  CHECK(has(message_of([&] { cts::load_folder(dir.path / "nowhere"); }), "nowhere"));
  CHECK(has(message_of(load), "train"));
  write_tree(dir.path);
  CHECK(message_of(load).empty());

  cts::write_png(dir.path / "train/ant/y.png", waves(9, 8, 3));
  CHECK(has(message_of(load), "size"));
  CHECK_NOTHROW(cts::load_folder(dir.path, {.size = 8}));
  fs::remove(dir.path / "train/ant/y.png");

  const auto jpeg = cts::encode_jpeg(waves(8, 8, 3));
  cts::write_file(dir.path / "train/ant/cut.jpg", std::span(jpeg).first(jpeg.size() - 20));
  CHECK(has(message_of(load), "cut.jpg"));
  fs::remove(dir.path / "train/ant/cut.jpg");

  fs::create_directories(dir.path / "test/bee");
  cts::write_png(dir.path / "test/bee/y.png", waves(8, 8, 3));
  CHECK(has(message_of(load), "bee"));
  fs::remove_all(dir.path / "test/bee");
  fs::create_directories(dir.path / "train/empty");
  CHECK(has(message_of(load), "empty"));
}

TEST_CASE("cache: same pictures, rebuilt when a file or the cache changed", "[data]") {
  const scratch_folder dir, store;
  write_tree(dir.path);
  const cts::folder_options options{.cache_folder = store.path};
  const auto where = dir.path / "train";
  const auto fresh = cts::load_class_folders(where, options);
  const auto file = only_file(store.path);
  REQUIRE_FALSE(file.empty());

  // Proof that the second time comes from the cache: its pictures are what the file holds.
  std::string listing;
  const auto again = cts::load_class_folders(where, options);
  CHECK(again.pixels == fresh.pixels);
  CHECK(again.names == fresh.names);
  const auto pristine = cts::read_file(file);
  int decoded = 0;
  auto counting = options;
  counting.on_progress = [&](const cts::progress&) { ++decoded; };
  cts::load_class_folders(where, counting);
  CHECK(decoded == 0);

  // One flipped bit anywhere, or a part only: decoded again, and the cache is whole afterwards.
  for (const std::size_t at : {std::size_t{0}, std::size_t{9}, std::size_t{44}, std::size_t{50}, std::size_t{70},
                               pristine.size() / 2, pristine.size() - 1}) {
    auto damaged = pristine;
    damaged[at] ^= std::byte{1};
    cts::write_file(file, damaged);
    decoded = 0;
    CHECK(cts::load_class_folders(where, counting).pixels == fresh.pixels);
    CHECK(decoded > 0);
    CHECK(cts::read_file(file) == pristine);
  }
  for (const std::size_t length : {std::size_t{0}, std::size_t{30}, std::size_t{64}, pristine.size() - 1}) {
    cts::write_file(file, std::span(pristine).first(length));
    CHECK(cts::load_class_folders(where, counting).pixels == fresh.pixels);
    CHECK(cts::read_file(file) == pristine);
  }

  // Other options and other files do not meet the old cache.
  CHECK(cts::load_class_folders(where, {.size = 4, .cache_folder = store.path}).height == 4);
  CHECK(cts::load_class_folders(where, options).height == 8);
  cts::write_png(where / "zebra/b.PNG", waves(8, 8, 3, 9));
  CHECK(cts::image(cts::load_class_folders(where, options).view_of(2)) == waves(8, 8, 3, 9));
  const auto time = fs::last_write_time(where / "zebra/b.PNG");
  cts::write_png(where / "zebra/b.PNG", waves(8, 8, 3, 1));
  fs::last_write_time(where / "zebra/b.PNG", time + std::chrono::seconds(1));
  CHECK(cts::load_class_folders(where, options).pixels == fresh.pixels);

  // A place that cannot be written is no mistake.
  cts::write_file(store.path / "file", std::string_view("x"));
  CHECK(cts::load_class_folders(where, {.cache_folder = store.path / "file" / "below"}).pixels == fresh.pixels);
}

TEST_CASE("CIFAR: planes become pixels, sizes and labels are checked", "[data]") {
  const scratch_folder dir;
  const auto record = [](std::vector<int> labels, int red, int green, int blue) {
    std::vector<int> values = std::move(labels);
    for (const int v : {red, green, blue}) {
      values.push_back(v);
      values.insert(values.end(), 1023, v + 1);
    }
    return bytes_of(values);
  };
  const auto ten = record({7}, 10, 20, 30);
  cts::write_file(dir.path / "data_batch_1.bin", ten);
  cts::write_file(dir.path / "data_batch_2.bin", record({3}, 1, 2, 3));
  cts::write_file(dir.path / "test_batch.bin", ten);
  const auto split = cts::load_cifar10(dir.path);
  split.train.check();
  CHECK(split.train.labels == std::vector<std::int32_t>{7, 3});
  CHECK(split.train.pixels[0] == 10);
  CHECK(split.train.pixels[1] == 20);
  CHECK(split.train.pixels[2] == 30);
  CHECK(split.train.pixels[3] == 11);
  CHECK(split.train.source_bytes[0] == 3072);
  CHECK(split.test.n() == 1);

  fs::rename(dir.path / "data_batch_2.bin", dir.path / "data_batch_3.bin");
  CHECK(has(message_of([&] { cts::load_cifar10(dir.path); }), "no data_batch_2.bin"));
  fs::rename(dir.path / "data_batch_3.bin", dir.path / "data_batch_2.bin");
  cts::write_file(dir.path / "data_batch_1 copy.bin", ten);
  CHECK(has(message_of([&] { cts::load_cifar10(dir.path); }), "3 files"));
  fs::remove(dir.path / "data_batch_1 copy.bin");

  cts::write_file(dir.path / "batches.meta.txt", std::string_view("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"));
  CHECK(cts::load_cifar10(dir.path).train.class_names[7] == "h");
  cts::write_file(dir.path / "test_batch.bin", std::span(ten).first(3000));
  CHECK(has(message_of([&] { cts::load_cifar10(dir.path); }), "test_batch.bin"));
  cts::write_file(dir.path / "test_batch.bin", record({10}, 1, 2, 3));
  CHECK(has(message_of([&] { cts::load_cifar10(dir.path); }), "label 10"));

  cts::write_file(dir.path / "train.bin", record({19, 99}, 1, 2, 3));
  cts::write_file(dir.path / "test.bin", record({4, 50}, 1, 2, 3));
  CHECK(cts::load_cifar100(dir.path).train.labels[0] == 99);
  CHECK(cts::load_cifar100(dir.path, true).train.labels[0] == 19);
}

TEST_CASE("IDX: pictures and labels, every wrong size is an Error", "[data]") {
  const scratch_folder dir;
  const auto images = bytes_of({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6});
  const auto labels = bytes_of({0, 0, 8, 1, 0, 0, 0, 2, 4, 9});
  for (const char* part : {"train", "t10k"}) {
    cts::write_file(dir.path / (std::string(part) + "-images-idx3-ubyte"), images);
    cts::write_file(dir.path / (std::string(part) + "-labels.idx1-ubyte"), labels);
  }
  const auto split = cts::load_idx(dir.path);
  split.train.check();
  CHECK(split.train.n() == 2);
  CHECK(split.train.width == 3);
  CHECK(split.train.channels == 1);
  CHECK(split.train.pixels == std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6});
  CHECK(split.test.labels == std::vector<std::int32_t>{4, 9});
  CHECK(split.test.classes() == 10);

  const auto path = dir.path / "train-images-idx3-ubyte";
  const auto refused = [&](std::vector<std::byte> bytes) {
    cts::write_file(path, bytes);
    return has(message_of([&] { cts::load_idx(dir.path); }), path.string());
  };
  for (std::size_t length = 0; length < images.size(); ++length) {
    CHECK(refused({images.begin(), images.begin() + static_cast<std::ptrdiff_t>(length)}));
  }
  auto longer = images, floats = images, huge = images;
  longer.push_back(std::byte{0});
  floats[2] = std::byte{0x0d};
  std::fill_n(huge.begin() + 4, 12, std::byte{0xff});
  CHECK(refused(longer));
  CHECK(refused(floats));
  CHECK(refused(huge));
  CHECK(has(message_of([&] {
              cts::write_file(path, bytes_of({0x1f, 0x8b, 8, 0}));
              cts::read_idx(path);
            }),
            "gunzip"));
}

TEST_CASE("Tiny-ImageNet from its folder, twice", "[data][real]") {
  const auto where = real_data("tiny-imagenet-100");
  if (where.empty()) {
    WARN("skipped: set CTS_DATA to the folder that holds tiny-imagenet-100");
    return;
  }
  const scratch_folder store;
  const auto first = cts::load_folder(where, {.cache_folder = store.path});
  CHECK(first.train.classes() == 100);
  CHECK(first.train.n() == 50000);
  CHECK(first.test.n() == 5000);
  CHECK(first.train.height == 64);
  CHECK(first.train.class_names[1] == "bullfrog, Rana catesbeiana");
  first.train.check();
  CHECK(cts::load_folder(where, {.cache_folder = store.path}).train.pixels == first.train.pixels);
}

}  // namespace data_files_tests
