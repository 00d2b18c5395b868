#include "core_tokensets/report/sequence_report.hpp"

#include <numeric>

#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/rollout.hpp"
#include "core_tokensets/data/scenes/scenes.hpp"
#include "core_tokensets/report/kept_tokens.hpp"
#include "core_tokensets/report/relevance_sheet.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"

namespace report_sequence_report_tests {

namespace cts = core_tokensets;

TEST_CASE("sequence report: the sheet shows pictures of the memory and what is kept of them", "[report]") {
  const auto scenes = cts::scenes({.classes = 2, .train_per_class = 2, .test_per_class = 1, .image = 16});
  cts::token_memory memory(cts::patch_grid{16, 16, 3, 8});
  const std::vector<cts::index> pictures{3, 0};
  for (const auto picture : pictures) {
    const auto all = cts::patchify(scenes.train.view_of(picture), 8);
    const std::vector<std::uint8_t> one(all.begin() + 192, all.begin() + 384);
    const std::vector<std::uint16_t> position{1};
    memory.append({.patches = one, .positions = position, .target = 1});
  }
  const cts::image sheet = cts::kept_tokens_sheet(memory, scenes.train, pictures);
  CHECK(sheet.channels == 3);
  CHECK(sheet.width >= 4 * 96);
  // Another picture of the memory, another sheet.
  CHECK(sheet.pixels != cts::kept_tokens_sheet(memory, scenes.train, std::vector<cts::index>{2, 0}).pixels);
  CHECK_THROWS_AS(cts::kept_tokens_sheet(memory, scenes.train, std::vector<cts::index>{3}), cts::Error);
  CHECK_THROWS_AS(cts::kept_tokens_sheet(cts::token_memory(memory.format()), scenes.train, {}), cts::Error);

  cts::eigen_backend<float> b(1);
  const cts::vit<cts::eigen_backend<float>> model(
      b, {.grid = {16, 16, 3, 8}, .dim = 12, .depth = 1, .heads = 2, .classes = 2});
  const auto relevance = cts::relevance_sheet(b, model, scenes.test, cts::rollout{}, cts::grad_lrp{});
  CHECK(relevance.width >= 3 * 96);
  // A sample whose picture nobody knows any more shows what was kept of it.
  CHECK_NOTHROW(cts::kept_tokens_sheet(memory, scenes.train, std::vector<cts::index>{-1, 0}));
}

TEST_CASE("sequence report: the page carries numbers, settings and pictures, escaped", "[report]") {
  const cts::json results{{"average_accuracy", 0.5},
                          {"average_incremental_accuracy", 0.625},
                          {"forgetting", 0.25},
                          {"memory_bytes", 1234},
                          {"memory_samples", 7},
                          {"memory_tokens", 21},
                          {"accuracy", {{0.75}, {0.5, 0.5}}},
                          {"seconds", {{"train", 1.5}}},
                          {"config", {{"memory", "core-tokens"}, {"data", "<folder>"}}}};
  const std::string html = cts::to_html(cts::sequence_page(results, {{{std::byte{1}}, "a figure"}}));
  for (const char* wanted : {"core-tokens", "62.5 %", "1234 bytes", "a figure", "&lt;folder&gt;", "data:image/png"}) {
    INFO(wanted);
    CHECK(html.find(wanted) != std::string::npos);
  }
  CHECK(html.find("<folder>") == std::string::npos);
}

TEST_CASE("sequence report: what was left out, and what cannot be measured", "[report]") {
  cts::json results{{"average_accuracy", 0.5},
                    {"average_incremental_accuracy", 0.625},
                    {"forgetting", 0.25},
                    {"memory_bytes", 0},
                    {"memory_samples", 0},
                    {"memory_tokens", 0},
                    {"accuracy", {{0.75}, {0.5, 0.5}}},
                    {"seconds", {{"train", 1.5}}},
                    {"class_names", {"ant", "bee", "cow"}}};
  const auto page = [&] { return cts::to_html(cts::sequence_page(results, {})); };
  CHECK(page().find("<h2>Data") == std::string::npos);
  CHECK(cts::measured_classes(results).empty());
  const cts::picture_reading found{9, {{"damaged", 25}, {"webp", 1}}, 3, std::vector<std::string>(25, "b\xe9.png")};
  results["pictures"] = cts::to_json(found);
  results["classes_without_test_pictures"] = std::vector<std::string>{"b\xc3\xa9<e>"};
  CHECK(cts::measured_classes(results) == " over 2 of 3 classes");
  const auto html = page();
  for (const char* wanted : {"read 9 pictures, left out 26 (damaged 25, webp 1), ignored 3 hidden or tool-made.",
                             "b\xef\xbf\xbd.png and 5 more", "No test pictures of b\xc3\xa9&lt;e&gt;.",
                             "Average accuracy over 2 of 3 classes"}) {
    INFO(wanted);
    CHECK(html.find(wanted) != std::string::npos);
  }
  CHECK(cts::detail::is_utf8(html));
  results.erase("class_names");  // questions are measured on all pictures
  CHECK(cts::measured_classes(results).empty());
  CHECK(page().find("No test pictures of b") != std::string::npos);
}

TEST_CASE("sequence report: names that sheets cannot show are written beside them", "[report]") {
  CHECK(cts::class_legend({"ant", "b e~e"}).empty());
  const std::vector<std::string> names{"ant", "Gr\xc3\xbcn", "bee", "\xe7\x8c\xab"};
  CHECK(cts::class_legend(names) == "class 1: Gr\xc3\xbcn, class 3: \xe7\x8c\xab");
  CHECK(cts::detail::class_label(names, 3) == "class 3");
  CHECK(cts::detail::class_label(names, 2) == "bee");
  CHECK(cts::detail::class_label(names, 9) == "9");
}

TEST_CASE("sequence report: texts are told by what they say, tasks by their names", "[report]") {
  const auto scenes = cts::scenes({.classes = 2, .train_per_class = 1, .test_per_class = 1, .image = 16});
  cts::token_memory memory({.grid = {16, 16, 3, 8}, .texts = true});
  const auto sheet_of = [&](const std::string& prompt, const std::string& answer) {
    cts::token_memory one(memory.format());
    const auto patches = cts::patchify(scenes.train.view_of(0), 8);
    const std::vector<std::uint16_t> positions{0, 1, 2, 3};
    // The target is a group of texts and no class: of these there are only two.
    one.append({.patches = patches, .positions = positions, .target = 7, .prompt = prompt, .answer = answer});
    return cts::kept_tokens_sheet(one, scenes.train, std::vector<cts::index>{0}).pixels;
  };
  CHECK(sheet_of("is it red?", "yes") != sheet_of("is it red?", "no"));
  CHECK(sheet_of("is it red?", "yes") != sheet_of("is it big?", "yes"));

  cts::json results{{"average_accuracy", 0.05},
                    {"average_incremental_accuracy", 0.0625},
                    {"forgetting", 0.25},
                    {"memory_bytes", 0},
                    {"memory_samples", 0},
                    {"memory_tokens", 0},
                    {"accuracy", {{0.75}, {0.5, 0.5}}},
                    {"measures", {{"bleu_4", {{0.7511}, {0.5, 0.5}}}}},
                    {"amounts", {{"memory loss", {{2.25}, {nullptr, 0.75}}}}},
                    {"task_names", {"round", "pointed"}},
                    {"seconds", {{"train", 1.5}}},
                    {"config", {{"task", "caption"}}}};
  const std::string html = cts::to_html(cts::sequence_page(results, {}));
  for (const char* wanted : {"bleu_4", "75.1", "<th>round", "after pointed", "Average CIDEr-D over 10", "memory loss",
                             "<td></td><td>0.75</td>", "<td>2.25</td>"}) {
    INFO(wanted);
    CHECK(html.find(wanted) != std::string::npos);
  }
}

}  // namespace report_sequence_report_tests
