// Learning questions and captions: fitting, writing, the memory, and the sequential loop.

#include "core_tokensets/data/scenes/scene_captions.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "train/bright.hpp"

namespace train_text_tests {

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;
using model_type = cts::image_text_model<backend>;
using support::has;
using support::message_of;

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

model_type model_for(backend& b, const cts::visual_text& data) {
  auto words = cts::tokenizer::train(cts::corpus_of(data), {.vocabulary = 300});
  const auto vocabulary = words.size();
  return {b,
          {.image = {.grid = {16, 16, 3, 8}, .dim = 16, .depth = 1, .heads = 2},
           .text = {.vocabulary = vocabulary, .length = 40, .dim = 16, .depth = 1, .heads = 2}},
          std::move(words)};
}

cts::text_stream two_tasks() { return cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)}); }

/// One task of all samples.
cts::text_task all_of(const cts::visual_text& data) { return cts::groups_as_tasks({data, data}, 1)[0]; }

cts::learner_options quick() {
  return {.budget = cts::bytes(6000), .fit = {.epochs = 2, .batch = 8, .replay_batch = 8, .token_drop = 0, .shift = 0}};
}

struct outcome {
  cts::sequence_result result;
  std::vector<float> parameters;
  std::vector<std::byte> pixels;
  std::vector<std::uint8_t> text;
};

template <class Strategy>
outcome run(const cts::text_stream& stream, Strategy how, const cts::learner_options& o,
            const cts::sequence_options& where = {}, int threads = 2) {
  backend b(threads);
  cts::continual_learner learner(b, model_for(b, stream.data().train), o, how);
  const auto result = cts::run_sequence(learner, stream, where);
  return {result, learner.model().parameters().to_host(b), learner.memory().arrays().pixels,
          learner.memory().arrays().text};
}

using half_tokens = cts::core_tokenset<cts::grad_match, cts::grad_lrp, cts::top_tokens, cts::raw_codec>;
const half_tokens half{.keep = 0.5};

}  // namespace

TEST_CASE("the memory keeps the most relevant tokens of a question's picture, with its question and answer",
          "[claim]") {
  const auto stream = two_tasks();
  backend b(1);
  const auto model = model_for(b, stream.data().train);
  cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
  const support::bright_tokens recipe{.select = {}, .attribute = {}, .keep = 0.5};
  for (const auto& t : stream) {
    const cts::index before = memory.samples();
    const auto done = cts::consolidate(b, recipe, model, t, memory, cts::index{5000} * (t.number + 1));
    REQUIRE(done.samples.size() > 5);
    for (std::size_t i = 0; i < done.samples.size(); ++i) {
      const cts::index source = t.train_indices[t.train_indices.size() - 1 - i],
                       s = before + static_cast<cts::index>(i);
      CHECK(done.samples[i] == source);
      const auto& wanted = stream.data().train.sample(source);
      support::check_sample(memory, s, stream.data().train.images.view_of(wanted.image), 2);
      CHECK(memory.sample(s).prompt == wanted.prompt);
      CHECK(memory.sample(s).answer == wanted.answers.front());
      CHECK(memory.sample(s).target == wanted.group);
      CHECK(memory.sample(s).weight == 0.5f + 0.25f * static_cast<float>(i));
    }
    CHECK(memory.bytes_on_disk() <= 5000 * (t.number + 1));
  }
}

TEST_CASE("of several answers a memory keeps the one that most people gave", "[claim]") {
  auto data = coloured(4, 9);
  for (auto& sample : data.samples) sample.answers = {"perhaps", sample.answers.front(), sample.answers.front()};
  backend b(1);
  const auto model = model_for(b, data);
  cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
  const support::bright_tokens recipe{.select = {}, .attribute = {}, .keep = 0.5};
  const auto done = cts::consolidate(b, recipe, model, all_of(data), memory, cts::index{5000});
  REQUIRE(done.samples.size() > 2);
  for (std::size_t i = 0; i < done.samples.size(); ++i)
    CHECK(memory.sample(static_cast<cts::index>(i)).answer == data.sample(done.samples[i]).answers.back());
}

TEST_CASE("stored texts are replayed: prompt, answer and weight of each drawn sample", "[claim]") {
  const auto data = coloured(4, 9);
  backend b(1);
  const auto model = model_for(b, data);
  cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
  const std::vector<std::uint8_t> pixels(192);
  const std::vector<std::uint16_t> place{1};
  memory.append(
      {.patches = pixels, .positions = place, .weight = 2, .prompt = "what colour is this?", .answer = "red"});
  memory.append({.patches = pixels, .positions = place, .weight = 3, .prompt = "is this blue?", .answer = "no"});
  cts::text_batch texts;
  const std::vector<cts::index> drawn{1, 0};
  cts::detail::append_stored_texts(memory, drawn, model.words(), texts);
  CHECK(texts.pictures() == 2);
  CHECK(texts.weights == std::vector<float>{3, 2});
  const auto first = std::span(texts.tokens).first(static_cast<std::size_t>(texts.offsets[1]));
  CHECK(model.words().decode(first) == "is this blue?no");
  cts::token_memory without(model.config().image.grid);
  CHECK(has(message_of([&] { cts::detail::append_stored_texts(without, drawn, model.words(), texts); }), "no texts"));
}

TEST_CASE("a task with replay teaches what only the memory says", "[claim]") {
  const auto data = coloured(16, 9);
  backend b(2);
  const auto learnt_with = [&](const std::string& answer) {  // the memory's answer to a question that the task has not
    auto model = model_for(b, data);
    cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
    const std::vector<std::uint8_t> pixels(std::size_t{4 * 192}, 200);
    const std::vector<std::uint16_t> places{0, 1, 2, 3};
    for (int i = 0; i < 8; ++i)
      memory.append({.patches = pixels, .positions = places, .prompt = "is this not?", .answer = answer});
    cts::fit(b, model, all_of(data), memory, {.epochs = 8, .batch = 8, .replay_batch = 8, .token_drop = 0, .shift = 0},
             cts::ace{}, cts::adamw{.learning_rate = 5e-3});
    return cts::answer(b, model, cts::image(16, 16, 3, 200), "is this not?");
  };
  CHECK(learnt_with("green") == "green");
  CHECK(learnt_with("no") == "no");
}

TEST_CASE("a small model learns to answer questions about colours", "[text]") {
  const auto train = coloured(64, 1), test = coloured(24, 2);
  backend b;
  auto model = model_for(b, train);
  cts::fit(b, model, all_of(train), cts::token_memory({.grid = model.config().image.grid, .texts = true}),
           {.epochs = 80, .batch = 8, .token_drop = 0, .shift = 0}, cts::ace{}, cts::adamw{.learning_rate = 3e-3});
  const auto written = cts::write_answers(b, model, test);
  double right = 0;
  for (std::size_t i = 0; i < written.size(); ++i) right += cts::exact_match(written[i], test.samples[i]);
  CHECK(right / static_cast<double>(written.size()) > 0.9);
  CHECK(cts::evaluate(b, model, test).others.at("exact_match") == Approx(right / static_cast<double>(written.size())));
  CHECK(cts::answer(b, model, test.images.view_of(0), "what colour is this?") == "red");
  CHECK(cts::answer(b, model, cts::resize(test.images.view_of(2), 50, 70), "what colour is this?") == "blue");
  const auto explained =
      cts::answer(b, model, test.images.view_of(1), "what colour is this?", cts::generic_attention{}, {});
  CHECK(explained.text == "green");
  CHECK(explained.relevance.size() == 4);

  // The tokenizer travels in the model's file.
  const support::scratch_folder folder;
  cts::save(b, model, folder.path / "m.safetensors");
  const auto again = cts::load_image_text(b, folder.path / "m.safetensors");
  CHECK(again.words() == model.words());
  CHECK(cts::write_answers(b, again, test) == written);
}

TEST_CASE("answers come in the order that was asked for", "[text]") {
  const auto data = coloured(8, 3);
  backend b;
  const auto model = model_for(b, data);
  const std::vector<cts::index> mixed{5, 0, 14, 3};
  const auto together = cts::write_answers(b, model, {data, mixed});
  for (std::size_t i = 0; i < mixed.size(); ++i)
    CHECK(cts::write_answers(b, model, {data, {mixed[i]}}).front() == together[i]);
  CHECK_THROWS_AS(cts::write_answers(b, model, data, {}, 0), cts::Error);
}

TEST_CASE("evidence of an answer has a row for each of its tokens and for the end", "[text]") {
  const auto data = coloured(6, 4);
  backend b;
  const auto model = model_for(b, data);
  const std::vector<cts::index> some{7, 2, 3};
  const auto e = cts::detail::evidence_of(b, model, cts::sample_view<cts::visual_text>(data, some));
  cts::check(e);
  CHECK(e.samples == 3);
  CHECK(e.labels == std::vector<std::int32_t>{1, 0, 1});
  CHECK(e.label_count() == 2);
  for (cts::index i = 0; i < 3; ++i) {
    const auto& answer = cts::consensus(data.sample(some[static_cast<std::size_t>(i)]));
    CHECK(e.first_row(i + 1) - e.first_row(i) == static_cast<cts::index>(model.words().encode(answer).size()) + 1);
  }
  const auto alone = cts::detail::evidence_of(b, model, cts::sample_view<cts::visual_text>(data, {2}));
  CHECK(cts::inner(alone, 0, 0) == Approx(cts::inner(e, 1, 1)).epsilon(1e-4));
}

TEST_CASE("questions go through the loop with every memory and keep the budget", "[text][sequence]") {
  const auto stream = two_tasks();
  const auto check = [&](const auto& how, cts::index tokens) {
    INFO(cts::text_of(how));
    const auto got = run(stream, how, quick());
    REQUIRE(got.result.accuracy.size() == 2);
    CHECK(got.result.others.at("exact_match").size() == 2);
    CHECK(got.result.memory_bytes <= 6000);
    CHECK(got.result.memory_tokens == tokens * got.result.memory_samples);
    CHECK((got.result.memory_bytes > 4000) == (tokens > 0));
    CHECK(got.text.empty() == (tokens == 0));
  };
  check(cts::none{}, 0);
  check(cts::joint<cts::visual_text>{}, 0);
  check(cts::coreset<>{.select = {}, .price = cts::picture_price::raw}, 4);
  check(half, 2);
  auto tiny = quick();
  tiny.budget = cts::bytes(100);
  CHECK_THROWS_AS(run(stream, half, tiny), cts::Error);
}

TEST_CASE("pictures lose what the memory would, and have one text then", "[text]") {
  const auto data = coloured(8, 1);
  backend b;
  auto model = model_for(b, data);
  int asked = 0;
  cts::fit_options o{.epochs = 4,
                     .batch = 4,
                     .texts_per_picture = 2,
                     .token_drop = 0.5,
                     .token_drop_often = 0.5,
                     .drop_rule = cts::token_drop_rule::memory,
                     .shift = 0};
  o.as_remembered = [&](const cts::token_batch& whole, const cts::text_batch* texts, cts::token_batch& out) {
    ++asked;
    CHECK(whole.samples() == 4);
    CHECK(whole.tokens() == 16);
    REQUIRE(texts != nullptr);
    CHECK(texts->pictures() == 4);
    CHECK(texts->texts() == 4);
    cts::remembered(b, cts::core_tokenset<cts::random_selection, support::brightness>{.keep = 0.25}, model, whole,
                    texts, cts::missing_tokens::drop, out);
    CHECK(out.tokens() == 4);
  };
  cts::fit(b, model, all_of(data), cts::token_memory({.grid = model.config().image.grid, .texts = true}), o);
  CHECK(asked > 0);
  CHECK(asked < 8);  // steps in all
}

TEST_CASE("on equal footing new pictures with one text each look as the memory's do", "[text]") {
  const auto stream = two_tasks();
  backend b;
  auto model = model_for(b, stream[0].data->train);
  cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
  (void)cts::consolidate(b, cts::core_tokenset<cts::random_selection, support::brightness>{.keep = 0.25}, model,
                         stream[0], memory, cts::bytes(2000));
  REQUIRE(memory.samples() >= 2);
  cts::fit_options o{.epochs = 1, .batch = 4, .replay_batch = 2, .texts_per_picture = 2, .token_drop = 0, .shift = 0};
  int asked = 0;
  o.as_remembered = [&](const cts::token_batch& some, const cts::text_batch* texts, cts::token_batch& out) {
    ++asked;
    CHECK(some.samples() == 2);  // one earlier task: as many as are replayed
    REQUIRE(texts != nullptr);
    CHECK(texts->pictures() == 2);
    CHECK(texts->texts() == 2);
    CHECK(texts->offsets.back() == static_cast<cts::index>(texts->tokens.size()));
    cts::remembered(b, cts::core_tokenset<cts::random_selection, support::brightness>{.keep = 0.25}, model, some, texts,
                    cts::missing_tokens::drop, out);
  };
  cts::fit(b, model, stream[1], memory, o, cts::ace{.equal_footing = true});
  CHECK(asked > 0);
}

TEST_CASE("a coreset of files pays a picture once and each of its texts", "[text][sequence]") {
  auto o = quick();
  o.budget = cts::bytes(1200);
  const auto got = run(two_tasks(), cts::coreset<>{}, o);
  CHECK(got.result.memory_bytes <= 1200);
  CHECK(got.result.memory_bytes > 1000);  // a further picture costs 128 and its text
  CHECK(got.result.memory_samples >= 6);
  // Many questions about few pictures: 2400 bytes are 16 of them one by one, and more where they share pictures.
  o.budget = cts::bytes(2400);
  const auto many = run(cts::groups_as_tasks({coloured(16, 5), coloured(6, 6)}, 1), cts::coreset<>{}, o);
  CHECK(many.result.memory_bytes <= 2400);
  CHECK(many.result.memory_bytes > 2200);
  CHECK(many.result.memory_samples > 18);
}

TEST_CASE("files that are too large for the budget are passed over", "[text][sequence]") {
  auto data = coloured(16, 5);
  for (std::size_t i = 0; i < 16; ++i) data.images.source_bytes[i] = i % 2 ? 5000 : 120;  // their mean does not fit
  const auto stream = cts::groups_as_tasks({data, coloured(6, 6)});
  auto o = quick();
  o.budget = cts::bytes(1000);
  const auto got = run(stream, cts::coreset<>{}, o);
  CHECK(got.result.memory_bytes <= 1000);
  CHECK(got.result.memory_samples >= 5);
  o.budget = cts::bytes(200);
  const std::string told = message_of([&] { run(stream, cts::coreset<>{}, o); });
  CHECK(
      has(told, "200 bytes hold nothing: after task 1 of 2 the memory may cost 100 bytes, with one sample it costs 1"));
}

TEST_CASE("what a learner of text cannot do is told before any work", "[text][sequence]") {
  const auto stream = two_tasks();
  for (const double keep : {0.0, -1.0, 1.5})
    CHECK(has(message_of([&] { run(stream, half_tokens{.keep = keep}, quick()); }), "keep"));
  auto small = coloured(6, 6);
  small.images.height = 8;
  small.images.pixels.resize(6 * 8 * 16 * 3);
  CHECK(has(message_of([&] {
              run(cts::groups_as_tasks({coloured(16, 5), small}), cts::none{}, quick());
            }),
            "16 x 16 x 3, the data have 8 x 16 x 3"));
  cts::scene_text_options scenes;
  scenes.scenes = {.classes = 4, .train_per_class = 2, .test_per_class = 1, .image = 16};
  scenes.per_image = 1;
  auto captions = cts::scene_captions(scenes).data;
  captions.test.samples.resize(1);
  CHECK(has(message_of([&] {
              run(cts::sets_as_tasks({{"scenes", captions}}), cts::none{}, quick());
            }),
            "'scenes' has 1 sample to measure on, captions need at least two"));
}

TEST_CASE("what was saved with other data or another tokenizer is refused", "[text][sequence]") {
  const auto stream = two_tasks();
  const support::scratch_folder folder;
  const cts::sequence_options again{.out = folder.path, .resume = true};
  run(stream, half, quick(), {.out = folder.path});
  run(stream, half, quick(), again);
  auto split = stream.data();
  split.test.images.pixels[0] ^= 1;
  CHECK(has(message_of([&] { run(cts::groups_as_tasks(split), half, quick(), again); }), "other data"));
  CHECK(has(message_of([&] { run(cts::groups_as_tasks(stream.data(), 1), half, quick(), again); }), "other data"));
  auto dealt = stream;  // the same data and names
  std::swap(dealt.tasks[0].train_indices, dealt.tasks[1].train_indices);
  CHECK(has(message_of([&] { run(dealt, half, quick(), again); }), "other data"));
}

TEST_CASE("a run on text is the same to the bit for any number of threads, and after a stop", "[text][sequence]") {
  const auto stream = two_tasks();
  auto o = quick();
  const auto want = run(stream, half, o, {}, 1);
  CHECK((run(stream, half, o, {}, 3).parameters == want.parameters));
  const support::scratch_folder folder, within;
  for (const int after : {3, 2, 2}) {  // steps of both tasks: 4 each
    auto stops = o;
    int steps = 0;
    stops.fit.checkpoint.stop = [&] { return ++steps == after; };
    CHECK_THROWS_AS(run(stream, half, stops, {.out = within.path, .resume = true}), cts::stopped);
  }
  CHECK(std::filesystem::exists(within.path / cts::half_learnt_file));
  const auto gone_on = run(stream, half, o, {.out = within.path, .resume = true});
  CHECK((gone_on.parameters == want.parameters));
  CHECK((gone_on.pixels == want.pixels));
  CHECK((gone_on.text == want.text));
  auto cut_off = o;
  cut_off.fit.on_progress = [](const cts::progress& p) {
    if (p.what == "task 2/2") throw std::runtime_error("cut off");
  };
  CHECK_THROWS_AS(run(stream, half, cut_off, {.out = folder.path}), std::runtime_error);
  const auto got = run(stream, half, o, {.out = folder.path, .resume = true});
  CHECK((got.parameters == want.parameters));
  CHECK((got.pixels == want.pixels));
  CHECK((got.text == want.text));
  CHECK(got.result.accuracy == want.result.accuracy);
  CHECK(got.result.others == want.result.others);
}

TEST_CASE("captions are measured by CIDEr-D, BLEU-4 and ROUGE-L", "[text][sequence]") {
  cts::scene_text_options scenes;
  scenes.scenes.classes = 4, scenes.scenes.train_per_class = 6, scenes.scenes.test_per_class = 3;
  scenes.scenes.image = 16;
  scenes.per_image = 2;
  const auto stream = cts::sets_as_tasks({{"scenes", cts::scene_captions(scenes).data}});
  backend b;
  auto words = cts::tokenizer::train(cts::corpus_of(stream.data().train), {.vocabulary = 400});
  const auto vocabulary = words.size();
  model_type model(b,
                   {.image = {.grid = {16, 16, 3, 8}, .dim = 16, .depth = 1, .heads = 2},
                    .text = {.vocabulary = vocabulary, .length = 80, .dim = 16, .depth = 1, .heads = 2}},
                   std::move(words));
  cts::continual_learner learner(b, std::move(model), quick(), half);
  const auto result = cts::run_sequence(learner, stream);
  CHECK(result.others.contains("bleu_4"));
  CHECK(result.others.contains("rouge_l"));
  CHECK(result.accuracy.front().size() == 1);
}

TEST_CASE("texts that the decoder cannot hold, and words that the model does not know, are refused", "[text]") {
  auto data = coloured(4, 7);
  backend b;
  auto model = model_for(b, data);
  for (int i = 0; i < 60; ++i) data.samples[3].prompt += static_cast<char>('!' + i);
  const cts::token_memory memory({.grid = model.config().image.grid, .texts = true});
  CHECK_THROWS_AS(cts::fit(b, model, all_of(data), memory, {}), cts::Error);
  std::vector<std::string> many;
  for (int i = 0; i < 400; ++i) many.push_back("word" + std::to_string(i / 2));
  model.set_words(cts::tokenizer::train(many, {.vocabulary = 500, .kind = cts::tokenizer_kind::words}));
  CHECK(has(message_of([&] { cts::write_answers(b, model, data); }), "a tokenizer of"));
}

}  // namespace train_text_tests
