#include "core_tokensets/io/safetensors.hpp"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace io_safetensors_tests {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using cts::dtype;
using cts::host_array;
using support::has;
using support::message_of;

namespace {

/// A file from header text and a number of zero data bytes.
std::vector<std::byte> file_of(const std::string& header, std::size_t data) {
  std::vector<std::byte> bytes(8 + header.size() + data);
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::string reason(const std::string& header, std::size_t data) {
  return message_of([&] { cts::safetensors_from_bytes(file_of(header, data), "x"); });
}

cts::tensor_file example() {
  cts::tensor_file file;
  file.arrays["w"] = host_array::of(std::vector<float>{1, -2.5f, 3, 4, 5, 6}, {2, 3});
  file.arrays["a/double"] = host_array::of(std::vector<double>{0.1});
  file.arrays["mask"] = host_array{dtype::boolean, {3}, {std::byte{1}, std::byte{0}, std::byte{1}}};
  file.arrays["empty"] = host_array::of(std::vector<std::int64_t>{}, {0, 7});
  file.arrays["scalar"] = host_array::of(std::vector<std::uint16_t>{65535}, {});
  file.arrays["h"] = host_array::of(std::vector<cts::half>{cts::half(0.5), cts::half(-2)}, {2});
  file.metadata = {{"format", "pt"}, {"näme", "line\n\"quoted\" \\ \x01"}};
  return file;
}

}  // namespace

TEST_CASE("tensors survive a file and bytes alike") {
  const auto file = example();
  const support::scratch_folder folder;
  const auto path = folder.path / "x.safetensors";
  cts::save_safetensors(path, file);
  const auto loaded = cts::load_safetensors(path);
  CHECK(loaded.arrays == file.arrays);
  CHECK(loaded.metadata == file.metadata);
  CHECK(loaded.path == path.string());
  const auto bytes = cts::safetensors_to_bytes(file);
  CHECK(bytes == cts::read_file(path));
  CHECK(cts::safetensors_from_bytes(bytes).arrays == file.arrays);

  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  CHECK(loaded.at("scalar").size() == 1);
  CHECK(loaded.at("empty").size() == 0);
  CHECK(cts::safetensors_from_bytes(file_of("{}", 0)).arrays.empty());
  CHECK(cts::safetensors_from_bytes(file_of("{ } \n", 0)).arrays.empty());
}

TEST_CASE("arrays are aligned to their element size in the file") {
  cts::tensor_file file;
  file.arrays["a"] = host_array::of(std::vector<std::uint8_t>(3));
  file.arrays["b"] = host_array::of(std::vector<double>(2));
  file.arrays["c"] = host_array::of(std::vector<std::uint16_t>(3));
  const auto bytes = cts::safetensors_to_bytes(file);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const auto header = nlohmann::json::parse(std::string(reinterpret_cast<const char*>(bytes.data()) + 8, length));
  CHECK(header["b"]["data_offsets"] == nlohmann::json{0, 16});
  CHECK(header["c"]["data_offsets"] == nlohmann::json{16, 22});
  CHECK(header["a"]["data_offsets"] == nlohmann::json{22, 25});
}

TEST_CASE("numbers convert among types, and refuse where they do not fit") {
  const auto ints = host_array::of(std::vector<std::int64_t>{-1, 0, 255});
  CHECK(ints.as<float>() == std::vector<float>{-1, 0, 255});
  CHECK(ints.as<std::int16_t>() == std::vector<std::int16_t>{-1, 0, 255});
  CHECK_THROWS_AS(ints.as<std::uint8_t>(), cts::Error);
  CHECK_THROWS_AS(ints.as<std::int8_t>(), cts::Error);
  CHECK_THROWS_AS(ints.as<std::uint64_t>(), cts::Error);
  CHECK_THROWS_AS(ints.as<bool>(), cts::Error);
  CHECK(host_array::of(std::vector<double>{2, -3}).as<std::int32_t>() == std::vector<std::int32_t>{2, -3});
  CHECK_THROWS_AS(host_array::of(std::vector<double>{2.5}).as<std::int32_t>(), cts::Error);
  CHECK_THROWS_AS(host_array::of(std::vector<double>{NAN}).as<std::int32_t>(), cts::Error);
  CHECK_THROWS_AS(host_array::of(std::vector<double>{0x1p63}).as<std::int64_t>(), cts::Error);
  CHECK(host_array::of(std::vector<double>{-0x1p63}).as<std::int64_t>()[0] == std::numeric_limits<std::int64_t>::min());
  CHECK_THROWS_AS(host_array::of(std::vector<float>{256}).as<std::uint8_t>(), cts::Error);
  const auto largest = host_array::of(std::vector<std::uint64_t>{7, 18446744073709551615u});
  CHECK(largest.as<double>() == std::vector<double>{7, 0x1p64});
  CHECK(largest.to(cts::dtype::u64) == largest);
  CHECK_THROWS_AS(largest.as<std::int64_t>(), cts::Error);
  CHECK(host_array::of(std::vector<std::int64_t>{9007199254740993}).as<std::uint64_t>()[0] == 9007199254740993u);
  // More numbers than are converted at a time, each in its place.
  std::vector<std::int32_t> many(1000);
  std::iota(many.begin(), many.end(), -500);
  const auto reals = host_array::of(many).as<double>();
  CHECK(std::equal(many.begin(), many.end(), reals.begin(), reals.end()));
  CHECK_THROWS_AS(host_array::of(std::vector<float>{-1}).as<std::uint64_t>(), cts::Error);
  CHECK(host_array::of(std::vector<double>{0.1}).as<float>()[0] == 0.1f);
  CHECK(host_array::of(std::vector<float>{1, 0}).as<bool>() == std::vector<bool>{true, false});

  const auto halves = host_array::of(std::vector<float>{0.1f, -65504, 7}).to(dtype::f16);
  CHECK(halves.type == dtype::f16);
  CHECK(halves.bytes.size() == 6);
  CHECK(halves.as<double>()[0] == 0.0999755859375);
  CHECK(halves.as<float>()[1] == -65504);
  CHECK_THROWS_AS(halves.as<int>(), cts::Error);
  const host_array brain{dtype::bf16, {2}, {std::byte{0x80}, std::byte{0x3f}, std::byte{0x49}, std::byte{0xc0}}};
  CHECK(brain.as<double>() == std::vector<double>{1, -3.140625});

  CHECK_THROWS_AS(host_array::of(std::vector<float>(6), {2, 4}), cts::Error);
  CHECK_THROWS_AS(host_array::of(std::vector<float>(6), {-2, -3}), cts::Error);
  const cts::index huge = cts::index{1} << 62;
  CHECK_THROWS_AS(host_array::of(std::vector<float>{}, {huge, huge}), cts::Error);
}

TEST_CASE("every dtype round-trips through every wide enough type") {
  for (const auto& [type, name] : cts::dtype_names) {
    CHECK(cts::dtype_named(name) == type);
    const auto array = host_array::of(std::vector<std::uint8_t>{0, 1, 1}).to(type);
    CHECK(array.type == type);
    CHECK(array.size() == 3);
    CHECK(array.as<double>() == std::vector<double>{0, 1, 1});
    CHECK(array.as<std::uint8_t>() == std::vector<std::uint8_t>{0, 1, 1});
  }
  CHECK_FALSE(cts::dtype_named("F8_E4M3").has_value());
}

TEST_CASE("a missing array is reported with its neighbours") {
  cts::tensor_file file;
  file.path = "model.safetensors";
  for (const char* name : {"blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.bias"})
    file.arrays[name] = host_array::of(std::vector<float>{1});
  CHECK(file.contains("head.bias"));
  CHECK_FALSE(file.contains("head"));
  const auto text = message_of([&] { (void)file.at("blocks.1.atn.qkv.weight"); });
  CHECK(has(text, "model.safetensors: no array 'blocks.1.atn.qkv.weight'"));
  CHECK(text.find("'blocks.1.attn.qkv.weight'") < text.find("'blocks.0.attn.qkv.weight'"));
  CHECK(has(message_of([&] { (void)cts::tensor_file{}.at("x"); }), "none at all"));
}

TEST_CASE("a header that lies is refused with the reason") {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(reason(good, 8).empty());
  CHECK(has(reason(good, 7), "array 'a' ends at byte 8"));
  CHECK(has(reason(good, 9), "1 bytes behind the last array"));
  CHECK(has(reason(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "do not fit shape [3]"));
  CHECK(has(reason(R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})", 2), "unknown dtype F8_E4M3"));
  CHECK(has(reason(R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,2]}})", 2), "dtype is not a string"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}})", 2), "non-negative integer"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[2.0],"data_offsets":[0,2]}})", 2), "non-negative integer"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":2,"data_offsets":[0,2]}})", 2), "shape is not a list"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}})", 2), "do not fit shape"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}})", 2), "not two numbers"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[2]}})", 2), "expected dtype, shape and data_offsets"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"x":1}})", 2), "nothing else"));
  CHECK(has(reason(R"({"a":3})", 2), "expected dtype"));
  CHECK(has(reason(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0), "too large"));
  CHECK(has(reason(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})", 0), "too large"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,2]}})", 2), "non-negative"));
  const std::string a = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  CHECK(reason("{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})", 6).empty());
  CHECK(has(reason("{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})", 5), "no overlaps, no holes"));
  CHECK(has(reason("{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})", 7), "no overlaps, no holes"));
  CHECK(has(reason("{" + a + "," + a + "}", 4), "names 'a' twice"));
  CHECK(has(reason(R"({"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4), "names 'dtype' twice"));
  CHECK(has(reason(R"({"__metadata__":{"k":1}})", 0), "metadata 'k' is not a string"));
  CHECK(has(reason(R"({"__metadata__":"k"})", 0), "__metadata__ is not an object"));
  CHECK(has(reason("[]", 0), "does not begin with '{'"));
  CHECK(has(reason("", 0), "does not begin with '{'"));
  CHECK(has(reason(" {}", 0), "does not begin with '{'"));
  CHECK(has(reason("{} x", 0), "not valid JSON"));
  CHECK(has(reason(std::string("{}\0}", 4), 0), "zero byte"));
  CHECK(has(reason("{\"\xff\":1}", 0), "not valid JSON"));
  CHECK(has(reason("{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}", 0), "nested too deeply"));
  CHECK_THROWS_AS(cts::safetensors_from_bytes(std::vector<std::byte>(7)), cts::Error);
  CHECK(has(message_of([&] { (void)cts::safetensors_from_bytes(std::vector<std::byte>(100, std::byte{0xff})); }),
            "expected at most"));
}

TEST_CASE("metadata that are null are none") {
  const auto file = cts::safetensors_from_bytes(file_of(R"({"__metadata__":null})", 0));
  CHECK(file.metadata.empty());
  CHECK(file.arrays.empty());
}

TEST_CASE("what is often taken for a file of arrays is called what it is") {
  const auto told = [](const std::string& begin, std::size_t size = 4096) {
    std::string bytes = begin;
    bytes.resize(std::max(size, begin.size()), 'x');
    return message_of([&] { (void)cts::safetensors_from_bytes(std::as_bytes(std::span(bytes)), "x"); });
  };
  CHECK(has(told("<!DOCTYPE html>\n<html>"), "x: not a safetensors file, but a web page"));
  CHECK(has(told("<html lang=\"en\">"), "a web page"));
  CHECK(has(told("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", 0), "git lfs pull"));
  CHECK(has(told(std::string("PK\3\4\0\0\x08\x08\0\0\0\0", 12)), "a zip archive"));
  CHECK(has(told(std::string("PK\3\4\0\0\0\0\0\0\0\0", 12), 70'000'000), "a zip archive"));  // a length that could be
  CHECK(has(told("\x80\x02\x8a\x0al\xfc\x9c"), "a Python pickle"));
  CHECK_FALSE(has(told("hello, world"), "but"));

  // A header of 60 ('<') or 640 (a pickle's first bytes) bytes is one all the same.
  for (const std::size_t length : {60, 640}) {
    std::string header = "{}";
    header.resize(length, ' ');
    CHECK(reason(header, 0).empty());
  }
}

TEST_CASE("files of very many arrays are written and read in proportion to their number") {
  cts::tensor_file file;
  for (int i = 0; i < 40'000; ++i) {
    file.arrays["blocks." + std::to_string(i) + ".weight"] = host_array::of(std::vector<float>{float(i)});
  }
  const auto start = std::chrono::steady_clock::now();
  const auto again = cts::safetensors_from_bytes(cts::safetensors_to_bytes(file));
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(again.arrays == file.arrays);
  CHECK(seconds < 5);  // 0.2 s here; comparing each name with all others took a minute
}

TEST_CASE("what cannot be written is refused before anything is touched") {
  cts::tensor_file file;
  file.arrays["x"] = host_array{dtype::f32, {2}, std::vector<std::byte>(4)};
  const support::scratch_folder folder;
  const auto path = folder.path / "x.safetensors";
  CHECK(has(message_of([&] { cts::save_safetensors(path, file); }), "'x' of shape [2]"));
  CHECK(folder.entries() == 0);
  file.arrays.clear();
  file.arrays["__metadata__"] = host_array::of(std::vector<float>{1});
  CHECK_THROWS_AS(cts::safetensors_to_bytes(file), cts::Error);
  file.arrays.clear();
  file.metadata["k"] = "\xc3";
  CHECK(has(message_of([&] { (void)cts::safetensors_to_bytes(file); }), "UTF-8"));
}

TEST_CASE("broken files only ever throw Error") {
  const auto good = cts::safetensors_to_bytes(example());
  cts::random_stream random(11);
  for (std::size_t n = 0; n < good.size(); ++n) {
    CHECK_THROWS_AS(cts::safetensors_from_bytes(std::span(good).first(n)), cts::Error);
  }
  int accepted = 0;
  for (int trial = 0; trial < 30000; ++trial) {
    auto bytes = good;
    const auto flips = 1 + random.below(4);
    for (cts::index i = 0; i < flips; ++i) {
      // Mostly in the header; sometimes a whole digit or quote moved in, which keeps the JSON valid more often.
      auto& b = bytes[static_cast<std::size_t>(random.below(static_cast<cts::index>(bytes.size())))];
      b = random.below(2) ? b ^ static_cast<std::byte>(1 << random.below(8))
                          : static_cast<std::byte>("0123456789\"{}[],:UIF-e. "[random.below(24)]);
    }
    if (random.below(4) == 0)
      bytes.resize(static_cast<std::size_t>(random.below(static_cast<cts::index>(bytes.size()))));
    try {
      const auto file = cts::safetensors_from_bytes(bytes);
      for (const auto& [name, array] : file.arrays) (void)array.as<double>();
      ++accepted;
    } catch (const cts::Error&) {
    }
  }
  CHECK(accepted < 30000);
}

TEST_CASE("the golden files load") {
  std::vector<fs::path> roots{fs::path(CTS_TEST_DIR) / "goldens"};
  if (const char* shared = std::getenv("CTS_SHARED")) {
    roots.push_back(fs::path(shared) / "goldens");
  } else {
    WARN("only the committed golden files: CTS_SHARED does not name the folder of the others");
  }
  int files = 0;
  for (const auto& root : roots) {
    if (!fs::is_directory(root)) {
      WARN("skipped: no golden files at " << root);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (entry.path().extension() != ".safetensors") continue;
      INFO(entry.path());
      const auto file = cts::load_safetensors(entry.path());
      CHECK_FALSE(file.arrays.empty());
      const auto again = cts::safetensors_from_bytes(cts::safetensors_to_bytes(file));
      CHECK(again.arrays == file.arrays);
      CHECK(again.metadata == file.metadata);
      ++files;
    }
    const auto inputs = cts::load_safetensors(root / "vit_c" / "inputs.safetensors");
    CHECK(inputs.at("images").shape == std::vector<cts::index>{2, 1, 12, 12});
    CHECK(inputs.at("images").type == cts::dtype::f32);
    CHECK(inputs.at("labels").as<int>().size() == 2);
    CHECK(files > 0);
  }
}

TEST_CASE("FNV-1a has its published values") {
  const auto sum = [](const std::string& text) { return cts::fnv1a(std::as_bytes(std::span(text))); };
  CHECK(cts::checksum_text(sum("")) == "cbf29ce484222325");
  CHECK(cts::checksum_text(sum("a")) == "af63dc4c8601ec8c");
  CHECK(cts::checksum_text(sum("foobar")) == "85944171f73967e8");
  const std::string b = "bar";
  CHECK(cts::fnv1a(std::as_bytes(std::span(b)), sum("foo")) == sum("foobar"));
}

}  // namespace io_safetensors_tests
