// cts sequence on damaged or incomplete data sets: the file is named, and nothing is left behind.

#include "cli/support.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "data/support.hpp"

namespace cli_bad_pictures_tests {

using namespace cli_test;
using data_test::waves;

namespace {

/// DIR with two classes of two pictures to learn from and one to measure on.
void write_pictures(const fs::path& dir) {
  for (const char* kind : {"ant", "bee"}) {
    fs::create_directories(dir / "train" / kind);
    fs::create_directories(dir / "test" / kind);
    cts::write_png(dir / "train" / kind / "a.png", waves(16, 16, 3, 1));
    cts::write_file(dir / "train" / kind / "b.jpg", cts::encode_jpeg(waves(16, 16, 3, 2)));
    cts::write_png(dir / "test" / kind / "c.png", waves(16, 16, 3, 3));
  }
}

arguments learn_from(const sandbox& box, const std::string& data) {
  auto options = small_sequence(box / "out");
  for (const char* name : {"--classes", "--per-class", "--image"}) options.erase(name);
  options["--budget"] = "3KB";
  options["--data"] = data;
  return with("sequence", options);
}

/// The first `count` bytes of the file stay.
void cut(const fs::path& path, std::size_t count) {
  const auto bytes = cts::read_file(path);
  REQUIRE(count < bytes.size());
  cts::write_file(path, std::span(bytes).first(count));
}

}  // namespace

TEST_CASE("pictures that are cut off or damaged are named", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  const auto refuse = [&](const std::string& file, const std::vector<std::string>& told) {
    auto parts = told;
    parts.push_back((data / file).string());
    check_refused(box, learn_from(box, "folder:" + data.string()), parts);
    write_pictures(data);
  };
  write_pictures(data);
  run_well(box, learn_from(box, "folder:" + data.string()));
  fs::remove_all(box.path / "out");

  const std::string png = "train/ant/a.png", jpeg = "train/bee/b.jpg";
  for (const std::size_t count : {std::size_t{0}, std::size_t{7}, std::size_t{40}, fs::file_size(data / png) - 4}) {
    cut(data / png, count);
    refuse(png, {});
  }
  for (const std::size_t count : {std::size_t{0}, std::size_t{2}, std::size_t{200}, fs::file_size(data / jpeg) - 2}) {
    cut(data / jpeg, count);
    refuse(jpeg, {});
  }
  auto bytes = cts::read_file(data / png);
  bytes[bytes.size() / 2] ^= std::byte{4};
  cts::write_file(data / png, bytes);
  refuse(png, {"PNG", "damaged"});
  cts::write_file(data / "test/bee/c.png", std::string_view("GIF89a"));
  refuse("test/bee/c.png", {"GIF", "cut off"});
  cts::write_png(data / "train/bee/wide.png", waves(16, 20, 3));
  refuse("train/bee/wide.png", {"16 x 20", "16 x 16"});
}

TEST_CASE("folders of classes that are incomplete are named", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  const auto refuse = [&](const std::vector<std::string>& told) {
    check_refused(box, learn_from(box, "folder:" + data.string()), told);
    fs::remove_all(data);
    write_pictures(data);
  };
  refuse({data.string(), "no such folder"});
  fs::create_directories(data / "train/empty");
  refuse({(data / "train/empty").string(), "no jpg"});
  fs::remove_all(data / "train");
  refuse({data.string(), "train"});
  fs::remove_all(data / "test");
  refuse({data.string(), "test (or val)"});
  fs::remove_all(data / "train");
  fs::create_directories(data / "train");
  refuse({(data / "train").string(), "one folder a class"});
  fs::rename(data / "test/bee", data / "test/cow");
  refuse({(data / "test/cow").string(), "no such class"});
  fs::remove_all(data);
  cts::write_file(data, std::string_view("not a folder"));
  refuse({data.string(), "no such folder"});
  fs::remove_all(data / "test/bee");
  refuse({"bee", "test"});
}

TEST_CASE("names that are not UTF-8 are no mistake", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "caf\xe9";
  write_pictures(data);
  fs::rename(data / "train/bee", data / "train/b\xe9");
  fs::rename(data / "test/bee", data / "test/b\xe9");
  run_well(box, learn_from(box, "folder:" + data.string()));
  run_well(box, {"memory", "export", box / "out/memory.safetensors", "--out", box / "caf\xe9 2"});
}

TEST_CASE("CIFAR and IDX files that are cut off are named", "[cli]") {
  const sandbox box;
  const fs::path cifar = box.path / "cifar", idx = box.path / "idx";
  fs::create_directories(cifar);
  fs::create_directories(idx);
  check_refused(box, learn_from(box, "cifar:" + (box / "nowhere")), {box / "nowhere", "no such folder"});
  check_refused(box, learn_from(box, "idx:" + (box / "nowhere")), {box / "nowhere", "no such folder"});
  check_refused(box, learn_from(box, "cifar:" + cifar.string()), {(cifar / "train.bin").string(), "cannot open"});

  std::string records(2 * 3073, '\1');
  cts::write_file(cifar / "data_batch_1.bin", std::string_view(records));
  cts::write_file(cifar / "test_batch.bin", std::string_view(records).substr(1));
  check_refused(box, learn_from(box, "cifar:" + cifar.string()),
                {(cifar / "test_batch.bin").string(), "6145 bytes", "multiple of 3073"});
  cts::write_file(cifar / "test_batch.bin", std::string_view(""));
  check_refused(box, learn_from(box, "cifar:" + cifar.string()), {(cifar / "test_batch.bin").string(), "0 bytes"});
  records[3073] = '\12';
  cts::write_file(cifar / "data_batch_1.bin", std::string_view(records));
  check_refused(box, learn_from(box, "cifar:" + cifar.string()), {"data_batch_1.bin", "record 1", "label 10"});

  const auto write_idx = [&] {
    for (const std::string part : {"train", "t10k"}) {
      std::string images("\0\0\10\3\0\0\0\2\0\0\0\20\0\0\0\20", 16), labels("\0\0\10\1\0\0\0\2\0\1", 10);
      cts::write_file(idx / (part + "-images-idx3-ubyte"), std::string_view(images + std::string(512, 'x')));
      cts::write_file(idx / (part + "-labels-idx1-ubyte"), std::string_view(labels));
    }
  };
  for (const auto& [file, count] : std::map<std::string, std::size_t>{{"train-images-idx3-ubyte", 527},
                                                                      {"t10k-images-idx3-ubyte", 15},
                                                                      {"train-labels-idx1-ubyte", 9},
                                                                      {"t10k-labels-idx1-ubyte", 3}}) {
    write_idx();
    cut(idx / file, count);
    check_refused(box, learn_from(box, "idx:" + idx.string()), {(idx / file).string()});
  }
  write_idx();
  run_well(box, learn_from(box, "idx:" + idx.string()));
}

}  // namespace cli_bad_pictures_tests
