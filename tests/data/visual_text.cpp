// Pictures with text: parts, joins and answers of the many, and the readers on small files of our own and on real ones.

#include "core_tokensets/data/text/visual_text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core_tokensets/data/readers/coco_captions.hpp"
#include "core_tokensets/data/readers/easy_vqa.hpp"
#include "core_tokensets/data/readers/vqa_json.hpp"
#include "core_tokensets/data/text/encoded_texts.hpp"
#include "core_tokensets/data/text/text_tasks.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_visual_text_tests {

namespace cts = core_tokensets;
using namespace data_test;
using nlohmann::json;

namespace {

/// Four pictures of one pixel, whose value is their number times ten, and five samples; picture 2 has none.
cts::visual_text small_text() {
  cts::visual_text text;
  text.images.height = text.images.width = text.images.channels = 1;
  text.images.pixels = {0, 10, 20, 30};
  text.images.labels = {0, 0, 0, 0};
  text.images.class_names = {"picture"};
  text.images.names = {"a", "b", "c", "d"};
  text.group_names = {"colour", "shape"};
  text.samples = {{3, "q0", {"red"}, 0},
                  {0, "q1", {"star"}, 1},
                  {1, "q2", {"red", "blue", "blue"}, 0},
                  {0, "q3", {"blue"}, 0},
                  {3, "q4", {"ring"}, 1}};
  return text;
}

/// The pixel that each sample is about.
std::vector<int> pixels_of(const cts::visual_text& text) {
  std::vector<int> pixels;
  for (const auto& s : text.samples) pixels.push_back(*text.images.view_of(s.image).pixels);
  return pixels;
}

std::vector<std::string> prompts_of(const cts::visual_text& text) {
  std::vector<std::string> prompts;
  for (const auto& s : text.samples) prompts.push_back(s.prompt);
  return prompts;
}

void write_json(const fs::path& path, const json& value) { cts::write_file(path, std::string_view(value.dump())); }

json vqa_annotation(int question, int image, const char* type, const std::vector<std::string>& answers) {
  json list = json::array();
  for (std::size_t i = 0; i < answers.size(); ++i) {
    list.push_back({{"answer", answers[i]}, {"answer_confidence", "yes"}, {"answer_id", i + 1}});
  }
  return {{"question_id", question},       {"image_id", image}, {"question_type", "what"}, {"answer_type", type},
          {"multiple_choice_answer", "x"}, {"answers", list}};
}

}  // namespace

TEST_CASE("visual text: the consensus is the most frequent answer, the first of several", "[text]") {
  CHECK(cts::consensus({0, "", {"red", "blue", "blue"}, 0}) == "blue");
  CHECK(cts::consensus({0, "", {"red", "blue", "blue", "red", "green"}, 0}) == "red");
  CHECK(cts::consensus({0, "", {"b", "a"}, 0}) == "b");
  CHECK_THROWS_AS(cts::consensus({}), cts::Error);
}

TEST_CASE("visual text: parts keep the pictures that they use, and each sample its own", "[text]") {
  const auto text = small_text();
  text.check();
  const auto part = cts::subset(text, std::vector<cts::index>{4, 2});
  part.check();
  CHECK(prompts_of(part) == std::vector<std::string>{"q4", "q2"});
  CHECK(pixels_of(part) == std::vector<int>{30, 10});
  CHECK(part.images.names == std::vector<std::string>{"b", "d"});
  CHECK(part.group_names == text.group_names);
  CHECK_THROWS_AS(cts::subset(text, std::vector<cts::index>{5}), cts::Error);
  CHECK(cts::subset(text, std::vector<cts::index>{}).images.n() == 0);

  const auto colours = cts::select_groups(text, std::vector<std::int32_t>{0});
  colours.check();
  CHECK(prompts_of(colours) == std::vector<std::string>{"q0", "q2", "q3"});
  CHECK(pixels_of(colours) == std::vector<int>{30, 10, 0});
  CHECK(cts::select_groups(text, std::vector<std::int32_t>{0, 1}).n() == 5);
  CHECK_THROWS_AS(cts::select_groups(text, std::vector<std::int32_t>{2}), cts::Error);

  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto three = cts::limit_samples(text, 3, seed);
    three.check();
    CHECK(three.n() == 3);
    CHECK(std::is_sorted(three.samples.begin(), three.samples.end(),
                         [](const auto& a, const auto& b) { return a.prompt < b.prompt; }));
    for (const auto& p : prompts_of(three)) seen.insert(p);
    CHECK(prompts_of(three) == prompts_of(cts::limit_samples(text, 3, seed)));
    const auto two = cts::limit_images(text, 2, seed);
    two.check();
    CHECK(two.images.n() == 2);
    for (const auto& s : two.samples) CHECK(two.images.names[static_cast<std::size_t>(s.image)] != "c");
    // All samples of a picture stay with it.
    for (const auto& name : two.images.names) {
      const auto whole = pixels_of(text), part_of_it = pixels_of(two);
      const int pixel = 10 * (name[0] - 'a');
      CHECK(std::count(whole.begin(), whole.end(), pixel) == std::count(part_of_it.begin(), part_of_it.end(), pixel));
    }
  }
  CHECK(seen.size() == 5);
  CHECK(cts::limit_samples(text, 100).n() == 5);
  CHECK(cts::limit_images(text, 100).images.n() == 3);
  CHECK_THROWS_AS(cts::limit_samples(text, 0), cts::Error);
  CHECK_THROWS_AS(cts::limit_images(text, 0), cts::Error);
}

TEST_CASE("visual text: joined sets share groups and classes by name", "[text]") {
  const auto one = small_text();
  auto two = small_text();
  two.group_names = {"shape", "count"};
  two.images.class_names = {"photo", "picture"};
  two.images.labels = {0, 1, 0, 1};
  for (auto& p : two.images.pixels) p = static_cast<std::uint8_t>(p + 1);
  const auto all = cts::join(std::vector<cts::visual_text>{one, two});
  all.check();
  CHECK(all.n() == 10);
  CHECK(all.images.n() == 8);
  CHECK(all.group_names == std::vector<std::string>{"colour", "shape", "count"});
  CHECK(all.images.class_names == std::vector<std::string>{"picture", "photo"});
  CHECK(all.images.labels == std::vector<std::int32_t>{0, 0, 0, 0, 1, 0, 1, 0});
  CHECK(pixels_of(all) == std::vector<int>{30, 0, 10, 0, 30, 31, 1, 11, 1, 31});
  CHECK(all.samples[5].group == 1);
  CHECK(all.samples[6].group == 2);
  CHECK(all.images.names.size() == 8);
  two.images.names.clear();
  CHECK(cts::join(std::vector<cts::visual_text>{one, two}).images.names.empty());
  two.images.channels = 2;
  two.images.pixels.resize(8);
  CHECK(has(message_of([&] { cts::join(std::vector<cts::visual_text>{one, two}); }), "set 1"));
  CHECK_THROWS_AS(cts::join({}), cts::Error);
}

TEST_CASE("visual text: what does not fit together is an Error", "[text]") {
  const auto broken = [](auto change) {
    auto text = small_text();
    change(text.samples[1]);
    return message_of([&] { text.check("mine"); });
  };
  CHECK(has(broken([](auto& s) { s.image = 4; }), "mine: sample 1"));
  CHECK(has(broken([](auto& s) { s.group = -1; }), "group -1"));
  CHECK(has(broken([](auto& s) { s.answers.clear(); }), "no answers"));
}

TEST_CASE("text tasks: groups are dealt evenly, by their names", "[text]") {
  // Seven groups that each part lists in another order, a sample of each.
  cts::visual_text_split split{small_text(), small_text()};
  for (auto* part : {&split.train, &split.test}) {
    part->group_names.clear(), part->samples.clear();
    for (int g = 0; g < 7; ++g) {
      part->group_names.emplace_back(1, static_cast<char>('a' + (part == &split.train ? g : 6 - g)));
      part->samples.push_back({0, part->group_names.back(), {"yes"}, g});
    }
  }
  const auto shape = [&](cts::index tasks) {
    const auto stream = cts::groups_as_tasks(split, tasks);
    std::vector<std::string> names;
    for (const auto& task : stream.tasks) {
      names.push_back(task.name);
      std::string train, test;
      for (const auto i : task.train_indices) train += stream.data().train.samples[static_cast<std::size_t>(i)].prompt;
      for (const auto i : task.test_indices)
        test.insert(0, stream.data().test.samples[static_cast<std::size_t>(i)].prompt);
      CHECK(train == test);
      CHECK(task.name.find(train.front()) != std::string::npos);
    }
    return names;
  };
  CHECK(shape(3) == std::vector<std::string>{"a, b, c", "d, e", "f, g"});
  CHECK(shape(5).size() == 5);
  CHECK(shape(7).size() == 7);
  CHECK(shape(0) == shape(100));
  CHECK(shape(1) == std::vector<std::string>{"a, b, c, d, e, f, g"});
  CHECK(has(message_of([&] { shape(-1); }), "-1 tasks"));

  split.test.samples.pop_back();  // of group a
  CHECK(has(message_of([&] { shape(7); }), "'a' has 1 samples to learn from and 0 to measure on"));
  split.train.group_names.emplace_back("z"), split.train.samples.push_back({0, "z", {"yes"}, 7});
  CHECK(cts::groups_as_tasks(split, 2).size() == 2);  // one part lacks "z", the other has no "a"
}

TEST_CASE("text tasks: samples and data that are not there are an Error", "[text]") {
  const auto good = cts::groups_as_tasks({small_text(), small_text()});
  auto far = good;
  far.tasks[1].test_indices.push_back(5);
  CHECK(has(message_of([&] { cts::check(far); }), "task 'shape' names sample 5 of 5"));
  auto bad = small_text();
  bad.samples[1].image = 4;
  auto broken = good;
  broken.split = std::make_shared<const cts::visual_text_split>(small_text(), bad);
  CHECK(has(message_of([&] { cts::check(broken); }), "test: sample 1 is about picture 4 of 4"));
  CHECK_THROWS_AS(cts::groups_as_tasks({bad, small_text()}), cts::Error);
  CHECK_THROWS_AS(cts::encoded_texts(bad, cts::tokenizer(), 100), cts::Error);
  CHECK_THROWS_AS(cts::samples_by_picture(bad, std::vector<cts::index>{1}), cts::Error);
}

TEST_CASE("checksums tell data from others", "[text]") {
  const auto base = small_text();
  const auto changed = [&](auto change) {
    auto other = base;
    change(other);
    return cts::checksum(other) != cts::checksum(base);
  };
  CHECK_FALSE(changed([](auto&) {}));
  CHECK(changed([](auto& t) { t.images.pixels[3] ^= 1; }));
  CHECK(changed([](auto& t) { t.images.class_names[0] = "photo"; }));
  CHECK(changed([](auto& t) { t.samples[2].prompt = "q3"; }));
  CHECK(changed([](auto& t) { t.samples[2].answers = {"red", "blueblue", ""}; }));
  CHECK(changed([](auto& t) { t.samples[2].group = 1; }));
  CHECK(changed([](auto& t) { std::swap(t.samples[0], t.samples[1]); }));
  CHECK(changed([](auto& t) { t.group_names = {"colou", "rshape"}; }));
  CHECK(cts::checksum(cts::visual_text_split{base, small_text()}) ==
        cts::checksum(cts::visual_text_split{small_text(), base}));
}

TEST_CASE("easy-VQA: small files in its layout", "[text]") {
  const scratch_folder dir;
  for (const char* part : {"train", "test"}) {
    fs::create_directories(dir.path / part / "images");
    for (const int i : {2, 7, 9}) {
      cts::write_png(dir.path / part / "images" / (std::to_string(i) + ".png"), waves(8, 8, 3, i));
    }
  }
  const json good = {{"what shape?", "circle", 7}, {"what colour?", "teal", 2}, {"is it red?", "no", 7}};
  write_json(dir.path / "train/questions.json", good);
  write_json(dir.path / "test/questions.json", {{"is it red?", "yes", 9}});
  const auto load = [&] { return cts::load_easy_vqa(dir.path, {}); };
  const auto split = load();
  split.train.check();
  split.test.check();
  REQUIRE(split.train.n() == 3);
  CHECK(split.train.images.n() == 2);
  CHECK(split.train.group_names == std::vector<std::string>{"shape", "colour", "yes/no"});
  const auto& s = split.train.samples;
  CHECK(s[0] == cts::visual_text_sample{1, "what shape?", {"circle"}, 0});
  CHECK(s[1] == cts::visual_text_sample{0, "what colour?", {"teal"}, 1});
  CHECK(s[2] == cts::visual_text_sample{1, "is it red?", {"no"}, 2});
  CHECK(cts::image(split.train.images.view_of(1)) == waves(8, 8, 3, 7));
  CHECK(split.train.images.names == std::vector<std::string>{"2.png", "7.png"});
  CHECK(cts::load_easy_vqa(dir.path, {.size = 4}).test.images.height == 4);

  // The cache gives the same pictures, and notices another choice of them.
  const scratch_folder store;
  const auto stored = [&] { return cts::load_easy_vqa(dir.path, {.cache_folder = store.path}); };
  CHECK(stored().train.images.pixels == split.train.images.pixels);
  CHECK(stored().train.images.pixels == split.train.images.pixels);
  CHECK(!fs::is_empty(store.path));
  write_json(dir.path / "train/questions.json", {{"what shape?", "circle", 7}, {"is it red?", "no", 9}});
  CHECK(cts::image(stored().train.images.view_of(1)) == waves(8, 8, 3, 9));

  const auto refused = [&](const json& value) {
    write_json(dir.path / "train/questions.json", value);
    return message_of(load);
  };
  CHECK(has(refused({{"q", "circle", 3}}), "3.png"));
  CHECK(has(refused({{"q", "circle", 2}, {"q", "hexagon", 2}}), "question 1"));
  CHECK(has(refused({{"q", "circle", "2"}}), "question 0"));
  CHECK(has(refused({{"q", "circle", -2}}), "question 0"));
  CHECK(has(refused({{"q", "circle", 2}, {"q"}}), "question 1"));
  CHECK(has(refused(json::object()), "questions.json"));
  CHECK(has(refused(json::array()), "questions.json"));
  cts::write_file(dir.path / "train/questions.json", std::string_view("[[\"q\", \"circle\""));
  CHECK(has(message_of(load), "questions.json"));
  fs::remove(dir.path / "train/questions.json");
  CHECK(has(message_of(load), "questions.json"));
}

TEST_CASE("VQA: small files in its format", "[text]") {
  const scratch_folder dir;
  for (const int i : {5, 42}) {
    cts::write_png(
        dir.path / ("COCO_train2014_0000000000" + std::string(i < 10 ? "0" : "") + std::to_string(i) + ".jpg"),
        waves(8, 12, 3, i));
  }
  const json questions = {{"info", {{"version", "2.0"}, {"more", {1, 2}}}},
                          {"questions",
                           {{{"image_id", 42}, {"question", "how many?"}, {"question_id", 1}},
                            {{"image_id", 5}, {"question", "is it?"}, {"question_id", 2}},
                            {{"image_id", 42}, {"question", "is it not?"}, {"question_id", 3}}}}};
  const json annotations = {
      {"annotations",
       {vqa_annotation(3, 42, "yes/no", {"no", "yes"}), vqa_annotation(9, 1, "other", {"x"}),
        vqa_annotation(1, 42, "number", {"2", "2", "3"}), vqa_annotation(2, 5, "yes/no", {"yes"})}}};
  const auto q = dir.path / "q.json", a = dir.path / "a.json";
  const auto load = [&](const json& asked, const json& answered, cts::index limit = 0,
                        const std::string& pattern = "COCO_train2014_{:012}.jpg") {
    write_json(q, asked);
    write_json(a, answered);
    return cts::load_vqa_json(q, a, dir.path, {.pattern = pattern, .limit = limit, .pictures = {.size = 8}});
  };
  const auto text = load(questions, annotations);
  text.check();
  REQUIRE(text.n() == 3);
  CHECK(text.group_names == std::vector<std::string>{"number", "yes/no"});
  CHECK(text.samples[0] == cts::visual_text_sample{0, "how many?", {"2", "2", "3"}, 0});
  CHECK(text.samples[1] == cts::visual_text_sample{1, "is it?", {"yes"}, 1});
  CHECK(text.samples[2] == cts::visual_text_sample{0, "is it not?", {"no", "yes"}, 1});
  CHECK(text.images.n() == 2);
  CHECK(cts::image(text.images.view_of(0)) == cts::resize(waves(8, 12, 3, 42), 8, 8));
  const auto first = load(questions, annotations, 1);
  CHECK(prompts_of(first) == std::vector<std::string>{"how many?", "is it not?"});
  CHECK(first.images.n() == 1);

  const auto refused = [&](const char* where, const json& value) {
    json asked = questions, answered = annotations;
    const json::json_pointer pointer(where);
    (asked.contains(pointer) ? asked : answered)[pointer] = value;
    return message_of([&] { load(asked, answered); });
  };
  CHECK(has(refused("/questions/1/image_id", 77), "image 77"));
  CHECK(has(refused("/questions/1/image_id", "77"), "questions[1]: 'image_id' is string"));
  CHECK(has(refused("/questions/1/question_id", 1), "question 1 came before"));
  CHECK(has(refused("/questions/1/question_id", 4), "question 4"));
  CHECK(has(refused("/questions/1/question", 4), "'question' is number"));
  CHECK(has(refused("/questions/1", 4), "questions[1] is no record"));
  CHECK(has(refused("/questions", 4), "no list"));
  CHECK(has(refused("/questions", json::array()), "no questions"));
  CHECK(has(refused("/annotations/2/image_id", 5), "question 1"));
  CHECK(has(refused("/annotations/2/question_id", 3), "question 3"));
  CHECK(has(refused("/annotations/2/answers", "2"), "'answers' is string"));
  CHECK(has(refused("/annotations/2/answers", json::array()), "no answers"));
  CHECK(has(refused("/annotations/2/answers/1", json::object()), "answers[1]: 'answer' is missing"));
  CHECK(has(refused("/annotations/2/answers/1/answer", 2), "answers[1]: 'answer' is number"));
  CHECK(has(refused("/annotations/2/answer_type", nullptr), "answer_type"));
  CHECK(has(message_of([&] { load(questions, questions); }), "'annotations' is missing"));
  CHECK(has(message_of([&] { load(json::array(), annotations); }), "no object"));
  for (const char* pattern : {"plain.jpg", "{", "{:12}.jpg", "{:0}.jpg", "{x}", "}{"}) {
    CHECK(has(message_of([&] { load(questions, annotations, 0, pattern); }), "pattern"));
  }
  CHECK(has(message_of([&] { load(questions, annotations, 0, "{}.png"); }), "42.png"));
  cts::write_file(q, std::string_view("{\"questions\": [{\"question_id\": 1,"));
  CHECK(has(message_of([&] { cts::load_vqa_json(q, a, dir.path); }), "q.json is not valid JSON"));
  CHECK(has(message_of([&] { cts::load_vqa_json(dir.path / "none.json", a, dir.path); }), "none.json"));
}

TEST_CASE("COCO captions: small files in its format, with super-categories", "[text]") {
  const scratch_folder dir;
  for (const int i : {1, 2, 3}) cts::write_png(dir.path / (std::to_string(i) + ".png"), waves(8, 8, 3, i));
  const json captions = {{"images",
                          {{{"id", 30}, {"file_name", "3.png"}, {"width", 8}},
                           {{"id", 10}, {"file_name", "1.png"}},
                           {{"id", 40}, {"file_name", "4.png"}},
                           {{"id", 20}, {"file_name", "2.png"}}}},
                         {"annotations",
                          {{{"id", 1}, {"image_id", 10}, {"caption", "a cat."}},
                           {{"id", 2}, {"image_id", 30}, {"caption", "a bus"}},
                           {{"id", 3}, {"image_id", 10}, {"caption", "A cat on a mat"}},
                           {{"id", 4}, {"image_id", 20}, {"caption", "nothing"}}}}};
  const auto instance = [](int image, int category) { return json{{"image_id", image}, {"category_id", category}}; };
  const json instances = {{"annotations",
                           {instance(10, 7), instance(10, 9), instance(10, 7), instance(30, 9), instance(30, 8),
                            instance(30, 7), instance(99, 7)}},
                          {"categories",
                           {{{"id", 9}, {"name", "bus"}, {"supercategory", "vehicle"}},
                            {{"id", 7}, {"name", "cat"}, {"supercategory", "animal"}},
                            {{"id", 8}, {"name", "dog"}, {"supercategory", "animal"}}}}};
  const auto c = dir.path / "c.json", i = dir.path / "i.json";
  const auto load = [&](const json& written, const json& shown, bool with = true, cts::index limit = 0) {
    write_json(c, written);
    write_json(i, shown);
    return cts::load_coco_captions(c, dir.path,
                                   {.instances = with ? i : fs::path(), .limit = limit, .pictures = {.size = 8}});
  };
  const auto text = load(captions, instances);
  text.check();
  REQUIRE(text.n() == 3);
  CHECK(text.group_names == std::vector<std::string>{"animal", "vehicle", "none"});
  CHECK(text.samples[0] == cts::visual_text_sample{0, "", {"a bus"}, 0});  // one of each: the smallest id, a cat
  CHECK(text.samples[1] == cts::visual_text_sample{1, "", {"a cat.", "A cat on a mat"}, 0});
  CHECK(text.samples[2] == cts::visual_text_sample{2, "", {"nothing"}, 2});
  CHECK(cts::image(text.images.view_of(0)) == waves(8, 8, 3, 3));
  auto more = instances;
  more["annotations"].push_back(instance(30, 9));
  CHECK(load(captions, more).samples[0].group == 1);
  const auto plain = load(captions, instances, false, 2);
  CHECK(plain.n() == 2);
  CHECK(plain.group_names == std::vector<std::string>{"picture"});

  const auto refused = [&](const char* where, const json& value, bool in_instances = false) {
    json written = captions, shown = instances;
    (in_instances ? shown : written)[json::json_pointer(where)] = value;
    return message_of([&] { load(written, shown); });
  };
  CHECK(has(refused("/annotations/0/image_id", 11), "image 11"));
  CHECK(has(refused("/annotations/0/caption", 11), "annotations[0]: 'caption' is number"));
  CHECK(has(refused("/images/1/id", 30), "image 30"));
  CHECK(has(refused("/images/1/file_name", "5.png"), "5.png: no such picture (image 10)"));
  CHECK(has(refused("/images/1/file_name", json::array()), "'file_name' is array"));
  CHECK(has(refused("/images", 1), "'images' is no list"));
  cts::write_file(c, std::string_view(R"({"images": [{"id": 1e999}]})"));
  CHECK(has(message_of([&] { cts::load_coco_captions(c, dir.path); }), "c.json is not valid JSON"));
  CHECK(has(refused("/annotations", json::array()), "no pictures with captions"));
  CHECK(has(refused("/annotations/0/category_id", 3, true), "category 3"));
  CHECK(has(refused("/categories/0/id", 7, true), "category 7"));
  CHECK(has(refused("/categories/0/supercategory", 7, true), "'supercategory' is number"));
  CHECK(has(refused("/categories", nullptr, true), "'categories' is no list"));
}

TEST_CASE("easy-VQA from its folder", "[text][real]") {
  const auto where = real_data("easy-vqa");
  if (where.empty()) {
    WARN("skipped: set CTS_DATA to the folder that holds easy-vqa");
    return;
  }
  const auto split = cts::load_easy_vqa(where, {});
  split.train.check();
  split.test.check();
  CHECK(split.train.images.n() == 4000);
  CHECK(split.test.images.n() == 1000);
  CHECK(split.train.n() == 38575);
  CHECK(split.test.n() == 9673);
  std::vector<cts::index> counts(3);
  for (const auto& s : split.train.samples) ++counts[static_cast<std::size_t>(s.group)];
  CHECK(counts[2] == 28407);
  CHECK(split.train.samples[0] == cts::visual_text_sample{0, "what is the blue shape?", {"rectangle"}, 0});
}

}  // namespace data_visual_text_tests
