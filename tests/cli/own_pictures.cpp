// cts on folders as people have them: what is read, what is left out and what cannot be measured is said in the output,
// in results.json and in the report.

#include "cli/support.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "data/picture_bytes.hpp"

namespace cli_own_pictures_tests {

using namespace cli_test;
using data_test::as_bytes;
using data_test::as_octets;
using data_test::has;
using data_test::waves;

namespace {

void put(const fs::path& path, std::string_view content) {
  fs::create_directories(path.parent_path());
  cts::write_file(path, content);
}
void put_picture(const fs::path& path, double phase) {
  fs::create_directories(path.parent_path());
  cts::write_png(path, waves(16, 16, 3, phase));
}

/// DIR with these classes of two pictures to learn from and one to measure on.
void write_pictures(const fs::path& dir, const std::vector<std::string>& classes = {"ant", "bee", "cow", "dog"}) {
  for (const auto& kind : classes) {
    put_picture(dir / "train" / kind / "a.png", 1);
    put_picture(dir / "train" / kind / "b.png", 2);
    put_picture(dir / "val" / kind / "c.png", 3);
  }
}

arguments learn_from(const sandbox& box, const fs::path& data, const std::map<std::string, std::string>& more = {}) {
  auto options = small_sequence(box / "out");
  for (const char* name : {"--classes", "--per-class", "--image"}) options.erase(name);
  options["--budget"] = "6KB";
  options["--data"] = "folder:" + data.string();
  fs::remove_all(box.path / "out");
  return with("sequence", options, more);
}

/// What a run says of its pictures, in its three places.
struct told {
  std::string printed, report;
  cts::json results;

  explicit told(const sandbox& box, const arguments& args)
      : printed(run_well(box, args).out), report(cts::read_text(box.path / "out/report.html")) {
    const std::string text = cts::read_text(box.path / "out/results.json");
    CHECK(cts::detail::is_utf8(text));
    CHECK(cts::detail::is_utf8(report));
    results = cts::parse_json(text, "results.json");
  }
};

}  // namespace

TEST_CASE("what a folder holds beside pictures to read is counted and named", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  write_pictures(data);
  const told plain(box, learn_from(box, data));
  CHECK(plain.printed.starts_with("read 12 pictures\n"));
  CHECK(plain.results.at("pictures").at("left_out").empty());
  CHECK(plain.results.at("classes_without_test_pictures").empty());

  cts::write_file(data / "train/ant/c.bmp", as_bytes(data_test::bmp_file(waves(16, 16, 3, 4))));
  cts::write_file(data / "train/ant/d.gif",
                  as_bytes(data_test::gif_file(16, 16, data_test::octets(256, 9), data_test::octets(256, 8))));
  put(data / "train/bee/e.webp", "x"), put(data / "val/bee/f.webp", "x"), put(data / "train/cow/g.tif", "x");
  put_picture(data / "train/ant/.thumbnails/a.png", 1), put_picture(data / "val/@eaDir/a.png", 1);
  const told some(box, learn_from(box, data));
  CHECK(some.printed.starts_with("read 14 pictures, left out 3 (webp 2, tiff 1), ignored 2 hidden or tool-made\n"));
  CHECK(has(some.report, "read 14 pictures, left out 3 (webp 2, tiff 1), ignored 2 hidden or tool-made"));
  const auto& found = some.results.at("pictures");
  CHECK(found.at("read") == cts::json(14));
  CHECK(found.at("left_out") == cts::json{{"webp", 2}, {"tiff", 1}});
  CHECK(found.at("ignored") == cts::json(2));
  CHECK(some.results.at("class_names") == cts::json{"ant", "bee", "cow", "dog"});
}

TEST_CASE("all damaged pictures are named at once, and --skip-damaged goes on without them", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  write_pictures(data);
  put(data / "train/ant/x.jpg", "nothing"), put(data / "train/dog/y.png", ""), put(data / "val/cow/z.gif", "GIF89a");
  check_refused(box, learn_from(box, data),
                {"3 pictures cannot be read", (data / "train/ant/x.jpg").string(), (data / "train/dog/y.png").string(),
                 (data / "val/cow/z.gif").string(), "--skip-damaged"});
  const told some(box, learn_from(box, data, {{"--skip-damaged", ""}}));
  CHECK(some.printed.starts_with("read 12 pictures, left out 3 (damaged 3)\n"));
  CHECK(has(some.report, (data / "train/dog/y.png").string()));
  CHECK(some.results.at("pictures").at("damaged").size() == 3);
  check_refused(box, learn_from(box, data, {{"--skip-damaged", ""}, {"--data", "scenes"}}), {"--skip-damaged"});
  check_refused(box, learn_from(box, data, {{"--skip-damaged", ""}, {"--data", "scenes"}, {"--task", "vqa"}}),
                {"--skip-damaged"});
}

TEST_CASE("photographs are turned before their size is looked at", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  write_pictures(data);
  const auto jpeg = as_octets(cts::encode_jpeg(waves(24, 16, 3), 95));
  const auto turned = data_test::with_segment(jpeg, data_test::exif_segment(6, true));
  cts::write_file(data / "train/ant/x.jpg", as_bytes(turned));
  check_refused(box, learn_from(box, data), {"x.jpg: 16 x 24 pixels, others have 16 x 16"});
}

TEST_CASE("classes without test pictures are named, and accuracy says how many it is over", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  write_pictures(data);
  fs::remove_all(data / "val/cow");
  const told some(box, learn_from(box, data));
  CHECK(has(some.printed, "no test pictures of cow\n"));
  CHECK(has(some.printed, "\naccuracy over 3 of 4 classes\n"));
  CHECK(some.results.at("classes_without_test_pictures") == cts::json{"cow"});
  CHECK(has(some.report, "Average accuracy over 3 of 4 classes"));
  CHECK(has(some.report, "No test pictures of cow."));
  fs::remove_all(data / "val/dog");
  check_refused(box, learn_from(box, data), {"no test pictures", "'cow'"});
}

TEST_CASE("classes of one picture are learnt and kept", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  write_pictures(data);
  fs::remove(data / "train/bee/b.png");
  for (int i = 0; i < 40; ++i) put_picture(data / "train/ant" / (std::to_string(i) + ".png"), i);
  run_well(box, learn_from(box, data));
  const auto memory = cts::load_safetensors(box.path / "out/memory.safetensors").at("targets").as<std::int32_t>();
  for (const int k : {0, 1, 2, 3}) CHECK(std::count(memory.begin(), memory.end(), k) >= 1);
}

TEST_CASE("names beyond ASCII are told as they are", "[cli]") {
  const sandbox box;
  const fs::path data = box.path / "data";
  const std::string composed = "Gr\xc3\xbcn", decomposed = "a\xcc\x8angstro\xcc\x88m", cat = "\xe7\x8c\xab",
                    broken = "b\xe9";
  write_pictures(data, {composed, decomposed, cat, broken});
  fs::remove_all(data / "val" / cat);
  put(data / "train" / broken / (broken + ".png"), "x");
  const told some(box, learn_from(box, data, {{"--skip-damaged", ""}}));
  // By bytes: G, a, b, and the cat's.
  CHECK(some.results.at("class_names") == cts::json{composed, decomposed, "b\xef\xbf\xbd", cat});
  CHECK(has(some.report,
            "class 0: " + composed + ", class 1: " + decomposed + ", class 2: b\xef\xbf\xbd, class 3: " + cat));
  CHECK(has(some.report, "No test pictures of " + cat));
  CHECK(has(some.printed, "no test pictures of " + cat));
}

TEST_CASE("several folders are a task each, and their classes are told by name", "[cli]") {
  const sandbox box;
  write_pictures(box.path / "photos, old");
  write_pictures(box.path / "sketches", {"cow", "dog", "eel"});
  auto options = small_sequence(box / "out");
  for (const char* name : {"--classes", "--per-class", "--image", "--tasks"}) options.erase(name);
  options["--budget"] = "6KB";
  options["--data"] = "folder:" + (box / "photos, old") + ",folder:" + (box / "sketches");
  const told said(box, with("sequence", options));
  CHECK(said.results.at("class_names").size() == 5);
  CHECK(said.results.at("task_names").get<std::vector<std::string>>() ==
        std::vector<std::string>{"photos, old", "sketches"});
  CHECK(said.results.at("accuracy").size() == 2);
  CHECK_FALSE(said.results.contains("classes_not_measured_in"));
  check_refused(
      box, {"judge", "--weights", box / "out/model.safetensors", "--data", options["--data"], "--out", box / "judged"},
      {"2 sets, expected one"});
  fs::remove_all(box.path / "out");
  check_refused(box, with("sequence", options, {{"--order", "random"}}), {"each of the sets is a task", "--order"});
  check_refused(box, with("sequence", options, {{"--data", "folder:" + (box / "sketches") + ",fodler:x"}}),
                {"there is no folder", "sketches,fodler:x", "behind a comma another set begins with scenes"});

  // Cows are measured among the photos and not among the sketches, eels nowhere.
  fs::remove_all(box.path / "sketches/val/cow"), fs::remove_all(box.path / "sketches/val/eel");
  const told some(box, with("sequence", options));
  CHECK(has(some.printed, "no test pictures of eel\n"));
  CHECK(has(some.printed, "no test pictures of cow in sketches\n"));
  CHECK(has(some.report, "No test pictures of cow in sketches."));
  CHECK(some.results.at("classes_not_measured_in").at("sketches") == cts::json{"cow"});
}

}  // namespace cli_own_pictures_tests
