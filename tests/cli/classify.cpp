// cts classify: pictures of any size and a run's folder are enough.

#include <nlohmann/json.hpp>

#include "cli/support.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/evaluate.hpp"

namespace cli_classify_tests {

using namespace cli_test;

namespace {

arguments learn(const std::string& memory, const std::string& out) {
  return {"sequence", "--data",  "scenes",   "--classes", "0-3",     "--per-class", "30",       "--tasks", "2",
          "--patch",  "8",       "--dim",    "16",        "--depth", "1",           "--heads",  "2",       "--epochs",
          "2",        "--quiet", "--memory", memory,      "--out",   out,           "--budget", "20KiB"};
}

nlohmann::json classes_of(const sandbox& box, const arguments& args) {
  arguments as_json = args;
  as_json.push_back("--json");
  return nlohmann::json::parse(run_well(box, as_json).out);
}

}  // namespace

TEST_CASE("pictures are classified by a run's folder as the library does it", "[cli]") {
  const sandbox box;
  run_well(box, learn("core-tokenset", box / "run"));
  const auto scenes = cts::scenes({.classes = 4, .train_per_class = 1, .test_per_class = 2});
  const cts::image wide = cts::resize(cts::image(scenes.test.view_of(0)), 40, 70);
  cts::write_png(box.path / "wide.png", wide);
  cts::write_png(box.path / "small.png", cts::image(scenes.test.view_of(5)));
  const arguments classify{"classify", "--model", box / "run", box / "wide.png", box / "small.png"};

  const auto said = classes_of(box, classify);
  cts::eigen_backend<float> b(1);
  const auto model = cts::load_vit(b, (box.path / "run" / "model.safetensors").string());
  REQUIRE(said.size() == 2);
  CHECK(said[0]["picture"] == box / "wide.png");
  CHECK(said[0]["classes"].size() == 4);  // of 5 that are asked for
  double sum = 0;
  const std::vector<cts::image> pictures{wide, cts::image(scenes.test.view_of(5))};
  for (std::size_t p = 0; p < pictures.size(); ++p) {
    const auto expected = cts::predict(b, model, pictures[p]);
    const auto best = said[p]["classes"][0];
    CHECK(best["name"] == expected.name);
    CHECK(best["number"] == expected.label);
    CHECK(best["probability"].get<double>() == Approx(expected.probability).epsilon(1e-4));
  }
  for (const auto& one : said[0]["classes"]) sum += one["probability"].get<double>();
  CHECK(sum == Approx(1));
  CHECK(model.config().class_names == scenes.test.class_names);

  arguments explained = classify;
  explained.insert(explained.end(), {"--top", "2", "--explain", box / "why"});
  const auto text = run_well(box, explained);
  CHECK(std::count(text.out.begin(), text.out.end(), '\n') == 6);  // two names, two classes each
  CHECK(text.out.find(said[0]["classes"][0]["name"].get<std::string>()) != std::string::npos);
  CHECK(cts::read_image(box.path / "why" / "1-wide.png").width > 3 * 200);
  CHECK(fs::exists(box.path / "why" / "2-small.png"));
  CHECK(classes_of(box, {"classify", "--model", box / "run/model.safetensors", box / "wide.png"})[0] == said[0]);
}

TEST_CASE("classify looks at pictures in another size where it is asked to", "[cli]") {
  const sandbox box;
  run_well(box, learn("none", box / "run"));
  const cts::image picture(40, 70, 3, 90);
  cts::write_png(box.path / "wide.png", picture);
  const arguments as_asked{"classify", "--model", box / "run", "--image", "16x32", box / "wide.png"};
  const auto text = run_well(box, as_asked).out;
  CHECK(text.find("weights: positions of 4 x 4 patches interpolated to 2 x 4") == 0);
  cts::eigen_backend<float> b(1);
  const auto model = cts::load_vit(b, box.path / "run" / "model.safetensors", {.height = 16, .width = 32});
  const auto expected = cts::predict(b, model, picture);
  const auto best = classes_of(box, as_asked)[0]["classes"][0];
  CHECK(best["name"] == expected.name);
  CHECK(best["probability"].get<double>() == Approx(expected.probability).epsilon(1e-4));
  for (const char* size : {"16x", "x16", "0", "16x32x3", "16.5", "99999"})
    check_refused(box, {"classify", "--model", box / "run", "--image", size, box / "wide.png"},
                  {std::string("--image ") + size, "HEIGHTxWIDTH"});
  check_refused(box, {"classify", "--model", box / "run", "--image", "12", box / "wide.png"},
                {"model.safetensors", "patches of 8 do not tile pictures of 12 x 12"});
}

TEST_CASE("a run by class means or ridge regression classifies by them", "[cli]") {
  const sandbox box;
  const std::string memory = GENERATE("ncm", "ridge");
  CAPTURE(memory);
  run_well(box, learn(memory, box / "run"));
  const auto scenes = cts::scenes({.classes = 4, .train_per_class = 1, .test_per_class = 3});
  cts::write_png(box.path / "a.png", cts::image(scenes.test.view_of(10)));
  const auto by_features = classes_of(box, {"classify", "--model", box / "run", box / "a.png"});
  const auto by_head = classes_of(box, {"classify", "--model", box / "run/model.safetensors", box / "a.png"});
  CHECK(by_features[0]["classes"][0]["probability"] != by_head[0]["classes"][0]["probability"]);
}

TEST_CASE("classify names what it cannot read, all of it", "[cli]") {
  const sandbox box;
  run_well(box, learn("none", box / "run"));
  cts::write_png(box.path / "good.png", cts::image(32, 32, 3, 90));
  cts::write_file(box.path / "bad.png", std::string_view("not a picture"));
  check_refused(box, {"classify", "--model", box / "run", box / "good.png", box / "bad.png", box / "no.png"},
                {"bad.png", "no.png"});
  check_refused(box, {"classify", "--model", box / "nowhere", box / "good.png"}, {"nowhere"});
  fs::create_directory(box.path / "empty");
  check_refused(box, {"classify", "--model", box / "empty", box / "good.png"}, {"without model.safetensors"});
  check_refused(box, {"classify", "--model", box / "run"}, {"pictures"});
  check_refused(box, {"classify", "--model", box / "run", box / "good.png", "--top", "0"}, {"--top 0"});
  check_refused(box, {"classify", "--model", box / "run", box / "good.png", "--keep", "2"}, {"--keep 2"});
  check_refused(box, {"classify", "--model", box / "run", box / "good.png", "--method", "magic"}, {"magic"});
}

}  // namespace cli_classify_tests
