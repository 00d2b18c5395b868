#pragma once
// What cts sequence --task vqa|caption does on a backend.

#include <filesystem>
#include <optional>

#include "core_tokensets/core_tokensets.hpp"
#include "sequence.hpp"
#include "text_data.hpp"

namespace cts_command {

namespace cts = core_tokensets;

inline cts::text_sequence_options options_for_texts(const sequence_arguments& a) {
  auto o = common_options_of<cts::text_sequence_options>(a);
  o.texts_per_picture = a.texts_per_picture;
  o.measure = a.task == "vqa" ? cts::text_measure::vqa : cts::text_measure::captions;
  o.generate = {.beams = a.beams, .length = a.task == "vqa" ? 12 : 40};
  return o;
}

/// Tokens of the longest text, and some room.
inline cts::index longest_text(const cts::visual_text& data, const cts::tokenizer& words) {
  std::size_t longest = 0;
  for (const auto& sample : data.samples) {
    const std::size_t prompt = words.encode(sample.prompt).size();
    for (const auto& answer : sample.answers) longest = std::max(longest, prompt + words.encode(answer).size());
  }
  return static_cast<cts::index>(longest) + 8;
}

/// A fresh model for the data, one that goes on from an image-text model, or one whose encoder starts from a Vision
/// Transformer.
template <class B>
cts::image_text_model<B> make_model(B& b, const sequence_arguments& a, const cts::text_stream& stream,
                                    cts::tokenizer& words) {
  const cts::dataset& pictures = stream.data.train.images;
  std::optional<cts::tensor_file> file;
  if (!a.weights.empty()) file = cts::load_safetensors(a.weights);
  if (file && file->metadata.contains("kind")) {
    words = cts::tokenizer_of(*file);
    auto model = cts::load_image_text(b, *file);
    cts::require(a.heads == 0 || a.heads == model.config().image.heads, a.weights, ": the model has ",
                 model.config().image.heads, " heads, --heads asks for ", a.heads);
    return model;
  }
  words = cts::tokenizer::train(cts::corpus_of(stream.data.train), {.vocabulary = a.vocabulary});
  const auto length = std::max(longest_text(stream.data.train, words), longest_text(stream.data.test, words));
  cts::image_text_config c;
  c.image = file ? cts::read_config(*file, hints_of(a))
                 : cts::vit_config{.image = {pictures.height, pictures.width, pictures.channels},
                                   .patch = a.patch,
                                   .dim = a.dim,
                                   .depth = a.depth,
                                   .heads = heads_of(a)};
  c.text = {.vocabulary = words.size(), .length = length, .dim = a.dim, .depth = a.text_depth, .heads = heads_of(a)};
  c.seed = a.seed;
  cts::image_text_model<B> model(b, c);
  if (file) cts::load_encoder(b, model, *file);
  return model;
}

/// A few test samples of each task: the picture with what was asked, and where the model looked for its answer.
template <class B>
cts::report_figure draw_answers(B& b, const cts::image_text_model<B>& model, const cts::tokenizer& words,
                                const cts::text_stream& stream, const cts::text_sequence_options& o) {
  const cts::visual_text& test = stream.data.test;
  std::vector<cts::index> shown;
  for (const auto& task : stream.tasks) {
    for (std::size_t i = 0; i < 4 && i < task.test.size(); ++i) shown.push_back(task.test[i * task.test.size() / 4]);
  }
  return {cts::encode_png(
              cts::answer_sheet(b, model, words, test, shown, o.recipe.attribute, o.fit.normalisation, o.generate)),
          "Test pictures, what the model wrote about them and where it looked for it."};
}

/// Learns the tasks; writes results, model, memory and report to `a.out` unless it is empty.
struct text_sequence_work {
  const sequence_arguments& a;
  sequence_outcome& outcome;

  template <class B>
  void operator()(B& b) const {
    const auto options = options_for_texts(a);  // bad names are told before any work is done
    std::optional<cts::output_folder> folder;
    if (!a.out.empty()) folder.emplace(a.out);
    const auto stream = read_text_tasks({.sets = a.data,
                                         .captions = a.task == "caption",
                                         .image = image_of(a),
                                         .pictures = a.pictures,
                                         .test_pictures = a.test_pictures,
                                         .seed = a.seed,
                                         .threads = a.threads},
                                        a.tasks);
    cts::tokenizer words;
    auto model = make_model(b, a, stream, words);
    cts::text_learner<B> learner(b, model, words, stream, options);
    const auto config = config_of(a, model.config().image);
    cts::task_loop<cts::text_learner<B>> loop(
        learner, {.budget = options.budget, .out = options.out, .resume = options.resume}, text_of(config));
    outcome = {cts::to_json(loop.run()), {}};
    outcome.results["config"] = config;
    std::vector<std::string> names;
    for (const auto& task : stream.tasks) names.push_back(task.name);
    outcome.results["task_names"] = names;
    outcome.figures.push_back(draw_answers(b, model, words, stream, options));
    if (!loop.memory().empty()) {
      std::vector<cts::index> pictures;
      for (const auto i : loop.pictures())
        pictures.push_back(stream.data.train.samples[static_cast<std::size_t>(i)].image);
      outcome.figures.push_back(
          {cts::encode_png(cts::kept_tokens_sheet(loop.memory(), stream.data.train.images, pictures)),
           "Pictures of the memory, and the tokens that it keeps of them."});
    }
    if (!a.out.empty()) write_results(a.out, learner.save(), loop.memory(), outcome);
  }
};

}  // namespace cts_command
