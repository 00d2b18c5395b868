// cts memory info, verify and export: what a memory holds comes out as it is stored, and a damaged file is refused.

#include <nlohmann/json.hpp>

#include "cli/support.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "support/golden.hpp"

namespace cli_memory_tests {

using namespace cli_test;

namespace {

/// Five samples of two tasks on pictures of 16 x 16 with patches of 4, with one to sixteen tokens.
cts::token_memory example(cts::relevance_storage relevance = cts::relevance_storage::f16, cts::index channels = 3) {
  cts::token_memory memory({.grid = {16, 16, channels, 4}, .relevance = relevance});
  for (int s = 0; s < 5; ++s) {
    std::vector<std::uint16_t> positions;
    std::vector<float> scores;
    for (int p = s == 4 ? 0 : s; p < 16; p += s == 4 ? 1 : 5) {
      positions.push_back(static_cast<std::uint16_t>(p));
      scores.push_back(1.0f / static_cast<float>(p + 3));
    }
    std::vector<std::uint8_t> patches(positions.size() * 16 * static_cast<std::size_t>(channels));
    for (std::size_t i = 0; i < patches.size(); ++i)
      patches[i] = static_cast<std::uint8_t>(7 * i + 50 * std::size_t(s));
    if (relevance == cts::relevance_storage::none) scores.clear();
    memory.append({.patches = patches,
                   .positions = positions,
                   .relevance = scores,
                   .target = s % 3 - (s == 3 ? 1 : 0),
                   .weight = 0.1f + static_cast<float>(s) / 3,
                   .task = static_cast<std::uint32_t>(s / 3)});
  }
  memory.metadata()["seed"] = "7";
  return memory;
}

nlohmann::json json_of(const fs::path& path) { return nlohmann::json::parse(cts::read_text(path)); }

template <class T>
std::vector<T> copy(std::span<const T> values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("export writes every number as it is stored, and every token in its place", "[cli]") {
  const sandbox box;
  for (const auto relevance :
       {cts::relevance_storage::f16, cts::relevance_storage::f32, cts::relevance_storage::none}) {
    const auto memory = example(relevance);
    memory.save(box.path / "memory");
    const fs::path out = box.path / "out";
    run_well(box, {"memory", "export", box / "memory", "--out", out.string()});
    const auto json = json_of(out / "samples.json");
    CHECK(json["image"] == nlohmann::json{16, 16, 3});
    CHECK(json["grid"] == nlohmann::json{4, 4});
    CHECK(json["zoom"] == 8);
    CHECK(json["metadata"]["seed"] == "7");
    REQUIRE(json["samples"].size() == 5);
    CHECK(std::distance(fs::directory_iterator(out), fs::directory_iterator()) == 6);
    for (cts::index s = 0; s < 5; ++s) {
      INFO(s);
      const auto& got = json["samples"][static_cast<std::size_t>(s)];
      const auto want = memory.sample(s);
      CHECK(got["index"] == s);
      CHECK(got["target"] == want.target);
      CHECK(got["class_name"].is_null());
      CHECK(got["weight"].get<float>() == want.weight);
      CHECK(got["task"] == want.task);
      CHECK(got["positions"].get<std::vector<std::uint16_t>>() == copy(want.positions));
      if (relevance == cts::relevance_storage::none) {
        CHECK(got["relevance"].is_null());
      } else {
        CHECK(got["relevance"].get<std::vector<float>>() == copy(want.relevance));
      }
      const auto picture = cts::read_image(out / got["file"].get<std::string>());
      REQUIRE(picture.height == 128);
      REQUIRE(picture.width == 128);
      REQUIRE(picture.channels == 3);
      int wrong = 0;
      for (cts::index y = 0; y < 128; ++y) {
        for (cts::index x = 0; x < 128; ++x) {
          const auto position = static_cast<std::uint16_t>(y / 32 * 4 + x / 32);
          const auto found = std::find(want.positions.begin(), want.positions.end(), position);
          const auto* pixel = picture.at(y, x);
          for (cts::index c = 0; c < 3; ++c) {
            if (found == want.positions.end()) {
              wrong += pixel[c] != 206 && pixel[c] != 214;
            } else {
              const auto t = found - want.positions.begin();
              wrong += pixel[c] != want.patches[static_cast<std::size_t>(t * 48 + c * 16 + y / 8 % 4 * 4 + x / 8 % 4)];
            }
          }
        }
      }
      CHECK(wrong == 0);
    }
    fs::remove_all(out);
  }
}

TEST_CASE("export knows the class names that lie beside the memory or in it", "[cli]") {
  const sandbox box;
  auto memory = example();
  memory.save(box.path / "memory");
  cts::write_file(box.path / "results.json", std::string_view(R"({"class_names": ["ant", "bee"]})"));
  const auto names_in = [&](const char* out) {
    run_well(box, {"memory", "export", box / "memory", "--out", box / out});
    nlohmann::json names;
    const auto json = json_of(box.path / out / "samples.json");
    for (const auto& sample : json["samples"]) names.push_back(sample["class_name"]);
    return names;
  };
  CHECK(names_in("one") == nlohmann::json{"ant", "bee", nullptr, nullptr, "bee"});
  memory.metadata()["class_names"] = R"(["x", "y", "z"])";
  memory.save(box.path / "memory");
  CHECK(names_in("two") == nlohmann::json{"x", "y", "z", nullptr, "y"});
  memory.metadata().clear();
  memory.save(box.path / "memory");
  cts::write_file(box.path / "results.json", std::string_view("[1, 2"));
  CHECK(names_in("three") == nlohmann::json{nullptr, nullptr, nullptr, nullptr, nullptr});
}

TEST_CASE("export of grey pictures, of large ones, and of an empty memory", "[cli]") {
  const sandbox box;
  example(cts::relevance_storage::f16, 1).save(box.path / "grey");
  run_well(box, {"memory", "export", box / "grey", "--out", box / "a/new/folder"});
  CHECK(cts::read_image(box.path / "a/new/folder/sample-4.png").channels == 3);

  cts::token_memory large(cts::patch_grid{64, 96, 1, 32});
  large.save(box.path / "empty");
  fs::create_directory(box.path / "there");
  run_well(box, {"memory", "export", box / "empty", "--out", box / "there/"});
  CHECK(json_of(box.path / "there/samples.json")["samples"] == nlohmann::json::array());
  for (int s = 0; s < 12; ++s)
    large.append({.patches = std::vector<std::uint8_t>(1024, 9),
                  .positions = std::vector<std::uint16_t>{5},
                  .relevance = std::vector<float>{1}});
  large.save(box.path / "large");
  run_well(box, {"memory", "export", box / "large", "--out", box / "many"});
  const auto picture = cts::read_image(box.path / "many/sample-07.png");
  CHECK(picture.width == 96);
  CHECK(picture.at(63, 95)[1] == 9);
}

TEST_CASE("export that cannot be done leaves nothing", "[cli]") {
  const sandbox box;
  example().save(box.path / "memory");
  example(cts::relevance_storage::f16, 2).save(box.path / "two-channels");
  cts::write_file(box.path / "file", std::string_view("in the way"));
  const auto refuse = [&](const char* memory, const std::string& out, const std::vector<std::string>& told) {
    check_refused(box, {"memory", "export", box / memory, "--out", out}, told);
  };
  refuse("memory", box.path.string(), {box.path.string(), "not empty"});
  refuse("memory", box / "file", {box / "file", "not a folder"});
  refuse("memory", box / "file/below", {box / "file", "Not a directory"});
  refuse("memory", "/proc/none", {"/proc/none", "cannot"});
  refuse("memory", "", {"cannot create the folder"});
  refuse("two-channels", box / "out", {"2 channels", "1 or 3"});
  refuse("nowhere", box / "out", {box / "nowhere", "No such file"});
  check_refused(box, {"memory", "export", box / "memory"}, {"--out"});
  check_refused(box, {"memory", "info"}, {"file"});
}

TEST_CASE("a memory that is cut off or altered anywhere is refused by all three", "[cli]") {
  const sandbox box;
  example().save(box.path / "good");
  const auto good = cts::read_file(box.path / "good");
  CHECK(run_well(box, {"memory", "verify", box / "good"}).out == (box / "good") + " is whole\n");
  CHECK(nlohmann::json::parse(run_well(box, {"memory", "info", box / "good"}).out)["samples"] == 5);
  const std::string bad = box / "bad";
  const auto refuse = [&](std::span<const std::byte> bytes, const std::vector<std::string>& told = {}) {
    cts::write_file(bad, bytes);
    auto parts = told;
    parts.push_back(bad);
    check_refused(box, {"memory", "info", bad}, parts);
    check_refused(box, {"memory", "verify", bad}, parts, true);
    check_refused(box, {"memory", "export", bad, "--out", box / "out"}, parts);
  };
  for (const std::size_t count : {std::size_t{0}, std::size_t{6}, std::size_t{100}, good.size() / 2, good.size() - 1})
    refuse(std::span(good).first(count));
  const auto place = [&](const std::string& text) {
    const auto* begin = reinterpret_cast<const char*>(good.data());
    const std::string_view all(begin, good.size());
    REQUIRE(all.find(text) != std::string_view::npos);
    return all.find(text) + text.size() - 1;
  };
  const std::size_t header = 8 + std::to_integer<std::size_t>(good[0]) + 256 * std::to_integer<std::size_t>(good[1]);
  for (const std::size_t at : {std::size_t{0}, std::size_t{6}, std::size_t{8}, std::size_t{30}, header - 1, header,
                               header + 60, (header + good.size()) / 2, good.size() - 1, place("checksum.patches"),
                               place("\"seed\":\"7"), place("grid\":\"[16")}) {
    auto flipped = good;
    flipped[at] ^= std::byte{4};
    INFO("byte " << at);
    refuse(flipped);
  }
  auto flipped = good;
  flipped[header] ^= std::byte{1};
  refuse(flipped, {"'relevance_scale' was altered"});
  refuse(cts::read_file(golden::folder("vit_c") / "weights.safetensors"), {"not a token memory"});
  fs::remove(bad);
  fs::create_directory(bad);
  for (const char* command : {"info", "verify"})
    check_refused(box, {"memory", command, bad}, {bad, "not a regular file"});
}

}  // namespace cli_memory_tests
