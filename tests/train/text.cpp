// Learning questions and captions: fitting, writing, the memory, and the sequential loop.

#include "core_tokensets/data/scene_captions.hpp"
#include "core_tokensets/data/scene_questions.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/text_sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

/// Pictures of one colour each, and questions that it answers.
cts::visual_text coloured(int pictures, std::uint64_t seed) {
  static const std::vector<std::pair<std::string, std::array<int, 3>>> colours{
      {"red", {220, 30, 30}}, {"green", {30, 200, 30}}, {"blue", {40, 40, 220}}, {"white", {240, 240, 240}}};
  cts::random_stream random(seed);
  cts::visual_text text;
  text.images.height = text.images.width = 16, text.images.channels = 3;
  text.images.class_names = {"picture"};
  text.group_names = {"colour", "yes/no"};
  for (int i = 0; i < pictures; ++i) {
    const auto& [name, rgb] = colours[static_cast<std::size_t>(i) % 4];
    for (int p = 0; p < 256; ++p) {
      for (const int c : rgb) text.images.pixels.push_back(static_cast<std::uint8_t>(c - 15 + random.below(31)));
    }
    text.images.labels.push_back(0);
    text.images.source_bytes.push_back(120);
    const auto& other = colours[static_cast<std::size_t>(random.below(4))].first;
    text.samples.push_back({i, "what colour is this?", {name}, 0});
    text.samples.push_back({i, "is this " + other + "?", {other == name ? "yes" : "no"}, 1});
  }
  return text;
}

struct learnt {
  cts::tokenizer words;
  backend b;
  cts::image_text_model<backend> model;

  explicit learnt(const cts::visual_text& data, int threads = 2)
      : words(cts::tokenizer::train(cts::corpus_of(data), {.vocabulary = 300})),
        b(threads),
        model(b, {.image = {.image = {16, 16, 3}, .patch = 8, .dim = 16, .depth = 1, .heads = 2},
                  .text = {.vocabulary = words.size(), .length = 40, .dim = 16, .depth = 1, .heads = 2}}) {}
};

std::vector<cts::index> all_of(const cts::visual_text& data) {
  std::vector<cts::index> all(data.samples.size());
  std::iota(all.begin(), all.end(), cts::index{0});
  return all;
}

cts::text_sequence_options quick(cts::memory_kind kind) {
  cts::text_sequence_options o;
  o.memory = kind;
  o.recipe.keep = 0.5;
  o.budget = cts::bytes(6000);
  o.price = cts::picture_price::raw;
  o.fit.epochs = 2;
  o.fit.batch = o.fit.replay_batch = 8;
  return o;
}

struct outcome {
  cts::sequence_result result;
  std::vector<float> parameters;
  std::vector<std::uint8_t> patches, text;
};

outcome run(const cts::text_stream& stream, const cts::text_sequence_options& o, int threads = 2) {
  learnt it(stream.data.train, threads);
  cts::text_learner<backend> learner(it.b, it.model, it.words, stream, o);
  cts::task_loop<cts::text_learner<backend>> loop(learner, {.budget = o.budget, .out = o.out, .resume = o.resume},
                                                  "test");
  const auto result = loop.run();
  return {result, it.model.parameters().to_host(it.b), loop.memory().arrays().patches, loop.memory().arrays().text};
}

}  // namespace

TEST_CASE("a small model learns to answer questions about colours", "[text]") {
  const auto train = coloured(64, 1), test = coloured(24, 2);
  learnt it(train);
  cts::fit_options o;
  o.epochs = 80;
  o.batch = 8;
  o.optimiser.learning_rate = 3e-3;
  cts::fit(it.b, it.model, it.words, train, all_of(train), nullptr, o);
  const auto written = cts::write_answers(it.b, it.model, it.words, test, all_of(test), {});
  double right = 0;
  for (std::size_t i = 0; i < written.size(); ++i) right += cts::exact_match(written[i], test.samples[i]);
  CHECK(right / static_cast<double>(written.size()) > 0.9);
}

TEST_CASE("answers come in the order that was asked for", "[text]") {
  const auto data = coloured(8, 3);
  learnt it(data);
  const std::vector<cts::index> mixed{5, 0, 14, 3};
  const auto together = cts::write_answers(it.b, it.model, it.words, data, mixed, {});
  for (std::size_t i = 0; i < mixed.size(); ++i) {
    CHECK(cts::write_answers(it.b, it.model, it.words, data, std::vector{mixed[i]}, {}).front() == together[i]);
  }
}

TEST_CASE("evidence of an answer has a row for each of its tokens and for the end", "[text]") {
  const auto data = coloured(6, 4);
  learnt it(data);
  const std::vector<cts::index> some{7, 2, 3};
  const auto e = cts::answer_evidence(it.b, it.model, it.words, data, some, {});
  cts::check(e);
  CHECK(e.samples == 3);
  CHECK(e.labels == std::vector<std::int32_t>{1, 0, 1});
  for (cts::index i = 0; i < 3; ++i) {
    const auto& answer = cts::consensus(data.samples[static_cast<std::size_t>(some[static_cast<std::size_t>(i)])]);
    CHECK(e.first_row(i + 1) - e.first_row(i) == static_cast<cts::index>(it.words.encode(answer).size()) + 1);
  }
  const auto alone = cts::answer_evidence(it.b, it.model, it.words, data, std::vector<cts::index>{2}, {});
  CHECK(cts::inner(alone, 0, 0) == Approx(cts::inner(e, 1, 1)).epsilon(1e-4));
}

TEST_CASE("questions go through the loop with every memory and keep the budget", "[text][sequence]") {
  const auto stream = cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)});
  for (int kind = 0; kind < 6; ++kind) {
    INFO(cts::memory_kind_names[kind]);
    const auto got = run(stream, quick(static_cast<cts::memory_kind>(kind)));
    REQUIRE(got.result.accuracy.size() == 2);
    CHECK(got.result.others.at("exact_match").size() == 2);
    const bool stores = cts::stores_samples(static_cast<cts::memory_kind>(kind));
    CHECK((got.result.memory_samples > 0) == stores);
    CHECK(got.result.memory_bytes <= 6000);
    if (stores) CHECK(got.result.memory_bytes > 4000);
    if (kind >= 2 && kind <= 4) CHECK(got.result.memory_tokens == 2 * got.result.memory_samples);  // half of 4
    if (stores) CHECK_FALSE(got.text.empty());
  }
  CHECK_THROWS_AS(run(stream, quick(cts::memory_kind::ncm)), cts::Error);
  auto tiny = quick(cts::memory_kind::core_tokens);
  tiny.budget = cts::bytes(100);
  CHECK_THROWS_AS(run(stream, tiny), cts::Error);
}

TEST_CASE("pictures lose the tokens that say little about the one text that they then have", "[text]") {
  const auto data = coloured(8, 1);
  learnt it(data);
  cts::fit_options o;
  o.epochs = 4, o.batch = 4, o.token_drop = 0.5, o.token_drop_often = 0.5;
  int ranked = 0;
  cts::fit(it.b, it.model, it.words, data, all_of(data), nullptr, o, 2, "fit",
           [&](const cts::token_batch& pictures, const cts::text_batch& texts) {
             ++ranked;
             CHECK(pictures.samples() == 4);
             CHECK(pictures.tokens() == 16);
             CHECK(texts.pictures() == 4);
             CHECK(texts.texts() == 4);
             return std::vector<double>(16, 0.0);
           });
  CHECK(ranked > 0);
  CHECK(ranked < 8);  // steps in all
}

TEST_CASE("a coreset of files pays a picture once and each of its texts", "[text][sequence]") {
  const auto stream = cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)});
  auto o = quick(cts::memory_kind::coreset);
  o.price = cts::picture_price::source;
  o.budget = cts::bytes(1200);
  const auto got = run(stream, o);
  CHECK(got.result.memory_bytes <= 1200);
  CHECK(got.result.memory_bytes > 1000);  // a further picture costs 128 and its text
  CHECK(got.result.memory_samples >= 6);
  // Many questions about few pictures: 2400 bytes are 16 of them one by one, and more where they share pictures.
  o.budget = cts::bytes(2400);
  const auto many = run(cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)}, 1), o);
  CHECK(many.result.memory_bytes <= 2400);
  CHECK(many.result.memory_bytes > 2200);
  CHECK(many.result.memory_samples > 18);
}

TEST_CASE("prices of files, worked out by hand", "[text][sequence]") {
  cts::visual_text data;  // two samples of ten bytes about each of two pictures of 92 and 192 bytes
  data.images.source_bytes = {92, 192};
  for (const cts::index picture : {0, 0, 1, 1}) data.samples.push_back({picture, "12345678", {"no"}, 0});
  const std::vector<cts::index> all{0, 1, 2, 3}, none, first{0};
  CHECK(cts::price_of_files(data, all) == 100 + 200 + 40);
  CHECK(cts::price_of_files(data, first) == 110);
  // Two of four miss a picture with probability 1/6: (1 - 1/6) 300 + 20 = 270; one misses it with 1/2: 160.
  CHECK(cts::affordable_files(data, all, none, 340) == 4);
  CHECK(cts::affordable_files(data, all, none, 339) == 3);
  CHECK(cts::affordable_files(data, all, none, 330) == 3);
  CHECK(cts::affordable_files(data, all, none, 271) == 2);
  CHECK(cts::affordable_files(data, all, none, 269) == 1);
  CHECK(cts::affordable_files(data, all, none, 110) == 1);  // that it is affordable alone was seen to before
  CHECK(cts::affordable_alone(all, 209, true, cts::price_after(data, none)) == std::vector<cts::index>{0, 1});
  CHECK(cts::affordable_alone(all, 210, true, cts::price_after(data, none)) == all);
  CHECK(cts::affordable_alone(all, 109, false, cts::price_after(data, none)).empty());
  CHECK(support::has(support::message_of([&] { cts::affordable_alone(all, 109, true, cts::price_after(data, none)); }),
                     "the smallest takes 110"));
  // The first picture is paid for: what is about it comes for its text.
  CHECK(cts::affordable_alone(all, 10, false, cts::price_after(data, first)) == std::vector<cts::index>{0, 1});
  CHECK(cts::affordable_files(data, std::vector<cts::index>{1, 2}, first, 330) == 2);

  cts::selection_result chosen{{3, 1, 0}, {0.5f, 1, 1}};
  cts::fit_files(data, all, none, 330, chosen);
  CHECK(chosen.indices.size() == 3);
  cts::fit_files(data, all, none, 329, chosen);
  CHECK(chosen.indices == std::vector<cts::index>{1, 0});
  CHECK(chosen.weights == std::vector<float>{1, 1});
  cts::fit_files(data, all, none, 100, chosen);
  CHECK(chosen.indices.empty());
  chosen = {{1, 3, 2}, {3, 1, 1}};  // the one about the stored picture stays
  cts::fit_files(data, all, first, 329, chosen);
  CHECK(chosen.indices == std::vector<cts::index>{1});
  CHECK(chosen.weights == std::vector<float>{1});
}

TEST_CASE("files that are too large for the budget are passed over", "[text][sequence]") {
  auto data = coloured(16, 5);
  for (std::size_t i = 0; i < 16; ++i) data.images.source_bytes[i] = i % 2 ? 5000 : 120;  // their mean does not fit
  const auto stream = cts::groups_as_tasks({data, coloured(6, 6)});
  auto o = quick(cts::memory_kind::coreset);
  o.price = cts::picture_price::source;
  o.budget = cts::bytes(1000);
  const auto got = run(stream, o);
  CHECK(got.result.memory_bytes <= 1000);
  CHECK(got.result.memory_samples >= 5);
  o.budget = cts::bytes(200);
  CHECK(support::has(support::message_of([&] { run(stream, o); }), "the smallest takes"));
}

TEST_CASE("what a learner of text cannot do is told before any work", "[text][sequence]") {
  const cts::visual_text_split data{coloured(16, 5), coloured(6, 6)};
  const auto stream = cts::groups_as_tasks(data);
  learnt it(data.train);
  const auto refused = [&](const cts::text_stream& of, const cts::text_sequence_options& o) {
    return support::message_of([&] { cts::text_learner<backend>(it.b, it.model, it.words, of, o); });
  };
  CHECK(refused(stream, quick(cts::memory_kind::none)).empty());
  for (const double keep : {0.0, -1.0, 1.5}) {
    auto o = quick(cts::memory_kind::core_tokens);
    o.recipe.keep = keep;
    CHECK(support::has(refused(stream, o), "keep"));
  }
  auto small = stream;
  small.data.test.images.height = 8;
  small.data.test.images.pixels.resize(6 * 8 * 16 * 3);
  CHECK(support::has(refused(small, quick(cts::memory_kind::none)), "16x16x3, the data have 8x16x3"));
  auto captions = quick(cts::memory_kind::none);
  captions.measure = cts::text_measure::captions;
  auto single = stream;
  single.tasks[1].test.resize(1);
  CHECK(support::has(refused(single, captions), "'yes/no' has one sample"));
  CHECK(refused(single, quick(cts::memory_kind::none)).empty());
}

TEST_CASE("a checkpoint of other data or of another tokenizer is refused", "[text][sequence]") {
  const auto stream = cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)});
  const support::scratch_folder folder;
  auto o = quick(cts::memory_kind::core_tokens);
  o.out = folder.path;
  run(stream, o);
  o.resume = true;
  run(stream, o);
  auto other = stream;
  other.data.test.images.pixels[0] ^= 1;
  CHECK(support::has(support::message_of([&] { run(other, o); }), "other data"));
  CHECK(support::has(support::message_of([&] { run(cts::groups_as_tasks(stream.data, 1), o); }), "other data"));
  auto dealt = stream;  // the same data and names
  std::swap(dealt.tasks[0].train, dealt.tasks[1].train);
  CHECK(support::has(support::message_of([&] { run(dealt, o); }), "other data"));

  learnt it(stream.data.train);
  cts::text_learner<backend> learner(it.b, it.model, it.words, stream, o);
  const auto file = learner.save();
  learner.load(file);
  const auto words = cts::tokenizer::train(std::vector<std::string>{"other words", "other words"}, {.vocabulary = 300});
  cts::text_learner<backend> stranger(it.b, it.model, words, stream, o);
  CHECK(support::has(support::message_of([&] { stranger.load(file); }), "another tokenizer"));
}

TEST_CASE("a run on text is the same to the bit for any number of threads, and after a resume", "[text][sequence]") {
  const auto stream = cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)});
  auto o = quick(cts::memory_kind::core_tokenset);
  const auto want = run(stream, o, 1);
  CHECK((run(stream, o, 3).parameters == want.parameters));
  const support::scratch_folder folder;
  o.out = folder.path;
  o.fit.on_progress = [](const cts::progress& p) {
    if (p.what == "task 2/2") throw std::runtime_error("cut off");
  };
  CHECK_THROWS_AS(run(stream, o), std::runtime_error);
  o.fit.on_progress = {};
  o.resume = true;
  const auto got = run(stream, o);
  CHECK((got.parameters == want.parameters));
  CHECK((got.patches == want.patches));
  CHECK((got.text == want.text));
  CHECK(got.result.accuracy == want.result.accuracy);
  CHECK(got.result.others == want.result.others);
}

TEST_CASE("captions are measured by CIDEr-D, BLEU-4 and ROUGE-L", "[text][sequence]") {
  cts::scene_text_options scenes;
  scenes.scenes.classes = 4, scenes.scenes.train_per_class = 6, scenes.scenes.test_per_class = 3;
  scenes.scenes.image = 32;
  scenes.per_image = 2;
  auto data = cts::scene_captions(scenes).data;
  const auto stream = cts::sets_as_tasks({{"scenes", data}});
  const auto words = cts::tokenizer::train(cts::corpus_of(stream.data.train), {.vocabulary = 400});
  backend b;
  cts::image_text_model<backend> model(
      b, {.image = {.image = {32, 32, 3}, .patch = 16, .dim = 16, .depth = 1, .heads = 2},
          .text = {.vocabulary = words.size(), .length = 80, .dim = 16, .depth = 1, .heads = 2}});
  auto o = quick(cts::memory_kind::none);
  o.measure = cts::text_measure::captions;
  cts::text_learner<backend> learner(b, model, words, stream, o);
  cts::task_loop<cts::text_learner<backend>> loop(learner, {.budget = o.budget}, "test");
  const auto result = loop.run();
  CHECK(result.others.contains("bleu_4"));
  CHECK(result.others.contains("rouge_l"));
  CHECK(result.accuracy.front().size() == 1);
}

TEST_CASE("texts that the decoder cannot hold are refused", "[text]") {
  auto data = coloured(4, 7);
  learnt it(data);
  for (int i = 0; i < 60; ++i) data.samples[3].prompt += static_cast<char>('!' + i);
  CHECK_THROWS_AS(cts::fit(it.b, it.model, it.words, data, all_of(data), nullptr, {}), cts::Error);
}
