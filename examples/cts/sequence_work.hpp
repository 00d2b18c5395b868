#pragma once
// What cts sequence does on a backend: for classes, and for questions and captions.

#include <filesystem>
#include <optional>

#include "any_parts.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/report/answer_sheet.hpp"
#include "core_tokensets/report/kept_tokens.hpp"
#include "core_tokensets/report/relevance_sheet.hpp"
#include "core_tokensets/train/auto_tokenset.hpp"
#include "core_tokensets/train/diagnose.hpp"
#include "core_tokensets/train/frozen_features.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "interruption.hpp"
#include "methods.hpp"
#include "run_folder.hpp"
#include "run_progress.hpp"
#include "sequence.hpp"

namespace cts_command {

namespace cts = core_tokensets;

/// The parts that the command line names, on backend B; bad names are told before any work is done.
template <class B, class Model>
struct named_parts {
  using data_type = typename cts::detail::model_kind<Model>::data_type;
  cts::any_attribution<B> attribute;
  any_strategy<B, Model> strategy;
  any_objective<B> objective;
  any_optimiser<B> optimiser;
  cts::learner_options options;

  explicit named_parts(const sequence_arguments& a)
      : attribute(
            method_named<B>(a.attribute.empty() ? cts::text_of(cts::usual_attribute<cts::grad_lrp>()) : a.attribute)),
        strategy(strategy_of(a, attribute)),
        options(learner_options_of(a)) {
    check(a);
    cts::require(a.fit.drop_rule != cts::token_drop_rule::memory || strategy.form, "a memory of the kind '", a.memory,
                 "' keeps pictures as they are; --drop-rule memory is for those that keep some tokens");
    if (!a.objective.empty()) {
      cts::choose_by_name(cts::objectives{}, a.objective, "--objective",
                          [&](const auto& o) { objective = any_objective<B>(o); });
    }
    if (!a.optimiser.empty()) {
      cts::choose_by_name(cts::optimisers{}, a.optimiser, "--optimiser",
                          [&](const auto& o) { optimiser = any_optimiser<B>(o); });
    }
  }

 private:
  using named_tokenset = cts::core_tokenset<cts::any_selector, cts::any_attribution<B>, any_rule, cts::any_codec>;

  static any_strategy<B, Model> strategy_of(const sequence_arguments& a, const cts::any_attribution<B>& attribute) {
    named_tokenset tokens{.select = cts::any_selector(),
                          .attribute = attribute,
                          .keep = a.recipe.keep,
                          .rule = any_rule(),
                          .codec = cts::any_codec(cts::core_tokenset<>{}.codec),
                          .relevance = a.recipe.relevance};
    if (!a.select.empty()) tokens.select = cts::named_selector(a.select, a.fit.ranks);
    if (!a.codec.empty()) tokens.codec = cts::named_codec(a.codec, "--codec");
    if (!a.rule.empty())
      cts::choose_by_name(cts::token_rules{}, a.rule, "--rule", [&](const auto& r) { tokens.rule = any_rule(r); });
    if (cts::detail::model_kind<Model>::texts && (a.memory == "core-tokens" || a.memory == "core-tokenset"))
      attribute.check_answers();
    if (a.memory == "none") return any_strategy<B, Model>(cts::none{});
    if (a.memory == "coreset") {
      const auto price = a.coreset_price == "raw" ? cts::picture_price::raw : cts::picture_price::source;
      return any_strategy<B, Model>(cts::coreset<cts::any_selector>{.select = tokens.select, .price = price});
    }
    if (a.memory == "joint") return any_strategy<B, Model>(cts::joint<data_type>{});
    if constexpr (!cts::detail::model_kind<Model>::texts) {
      if (a.memory == "auto-tokenset") {
        cts::require(a.codec.empty(), "--codec: auto-tokenset packs by dct and chooses the quality itself");
        return any_strategy<B, Model>(cts::auto_tokenset<cts::any_selector, cts::any_attribution<B>, any_rule>{
            .select = tokens.select, .attribute = attribute, .rule = tokens.rule});
      }
      if (a.memory == "ncm") return any_strategy<B, Model>(cts::class_means{.frozen = !a.weights.empty()});
      if (a.memory == "ridge") return any_strategy<B, Model>(cts::ridge_head{.frozen = !a.weights.empty()});
    }
    if (a.memory == "coded-coreset") {
      tokens.rule = any_rule(cts::chance_tokens{}), tokens.keep = 1;
      return any_strategy<B, Model>(tokens);
    }
    if (a.memory != "core-tokenset") tokens.select = cts::any_selector(cts::random_selection{});
    if (a.memory == "random-tokens") tokens.rule = any_rule(cts::chance_tokens{});
    return any_strategy<B, Model>(tokens);
  }
};

/// Kept tokens and relevance as PNG files in memory, for the report and as files of their own.
template <class B>
std::vector<cts::report_figure> draw(B& b, const cts::vit<B>& model, const cts::task_stream& stream,
                                     const cts::token_memory& memory, const std::vector<cts::index>& sources,
                                     const cts::any_attribution<B>& method) {
  std::vector<cts::report_figure> figures;
  const cts::dataset& test = stream.data().test;
  std::vector<cts::index> shown;
  const cts::index classes = test.classes(), count = std::min<cts::index>(12, classes);
  for (cts::index k = 0; k < count; ++k) {
    const auto found = std::find(test.labels.begin(), test.labels.end(), k * classes / count);
    if (found != test.labels.end()) shown.push_back(found - test.labels.begin());
  }
  const std::string legend = cts::class_legend(test.class_names), names = legend.empty() ? "" : " " + legend + ".";
  figures.push_back({cts::encode_png(cts::relevance_sheet(b, model, {test, shown}, method_named<B>("rollout"), method)),
                     "Test pictures and how much each patch mattered for their class." + names});
  if (!memory.empty()) {
    figures.push_back({cts::encode_png(cts::kept_tokens_sheet(memory, stream.data().train, sources)),
                       "Pictures of the memory, and the tokens that it keeps of them." + names});
  }
  return figures;
}

/// The Vision Transformer of --weights for pictures of this size, and what was done for that.
inline cts::vit_weights read_weights(const sequence_arguments& a, cts::tensor_file file, const cts::dataset& pictures,
                                     cts::index classes) {
  cts::vit_hints hints{.height = pictures.height, .width = pictures.width, .new_head = classes, .seed = a.fit.seed};
  if (a.heads > 0) hints.heads = a.heads;
  auto weights = cts::read_vit(std::move(file), hints);
  cts::check_pictures(pictures, weights.config);
  for (const auto& note : weights.notes) {
    if (a.tells) std::printf("weights: %s\n", note.c_str());
  }
  return weights;
}

/// The model that learning starts from: a fresh one, or that of --weights. `notes`: what was done to the weights.
template <class B>
cts::vit<B> first_model(B& b, const sequence_arguments& a, const cts::dataset& train, cts::index classes,
                        std::vector<std::string>& notes) {
  if (a.weights.empty()) {
    return cts::vit<B>(b, {.grid = {train.height, train.width, train.channels, a.patch},
                           .dim = a.dim,
                           .depth = a.depth,
                           .heads = heads_of(a),
                           .classes = classes,
                           .seed = a.fit.seed});
  }
  const auto weights = read_weights(a, cts::load_weights(a.weights), train, classes);
  notes = weights.notes;
  return cts::load_vit(b, weights);
}

/// What training tells, and when it stops.
inline void prepare(cts::fit_options& fit, const sequence_arguments& a, const run_progress& progress,
                    const cts::json& config) {
  fit.on_progress = progress.steps();
  fit.checkpoint.about = config;
  fit.checkpoint.about.erase("backend");  // the files are the same for all
  if (!a.out.empty()) fit.checkpoint.stop = [] { return interruption::asked() != 0; };
}

template <class Model>
cts::index bytes_of(const Model& model) {
  return model.parameters().size() * static_cast<cts::index>(sizeof(*model.parameters().data()));
}

/// Learns the classes of a stream of tasks.
struct sequence_work {
  const sequence_arguments& a;
  sequence_outcome& outcome;
  bool only_check = false;  ///< names are looked up, and nothing is done

  template <class B>
  void operator()(B& b) const {
    named_parts<B, cts::vit<B>> parts(a);
    if (only_check) return;
    const cts::team& ranks = a.fit.ranks;
    std::optional<run_folder> folder;
    if (!a.out.empty() && ranks.leads()) folder.emplace(a);
    const auto stream = read_tasks(request_of(a), task_options_of(a));
    const cts::dataset& train = stream.data().train;
    if (a.tells) tell_pictures(train, stream.data().test);
    const cts::json not_measured = not_measured_in_tasks(stream);
    if (a.tells) tell_not_measured(not_measured);
    std::vector<std::string> notes;
    auto model = first_model(b, a, train, cts::seen_classes(stream[0]), notes);
    auto config = config_of(a, model.config());
    config["tasks"] = stream.size();
    const run_progress progress(a.quiet);
    prepare(parts.options.fit, a, progress, config);
    cts::continual_learner learner(b, std::move(model), parts.options, parts.strategy, parts.objective,
                                   parts.optimiser);
    std::optional<interruption> noted;
    if (folder)
      folder->begin(bytes_of(learner.model()), most_memory_bytes(a, train, std::max(train.classes(), stream.size())));
    ranks.wait("preparing the folder of the results");
    if (!a.out.empty()) noted.emplace();
    const auto result = cts::run_sequence(
        learner, stream, {.out = a.out, .resume = a.resume, .after_task = progress.after_task()},
        [&](const auto& l, const cts::task& t) { return a.diagnose ? cts::diagnose(b, l, t) : l.evaluate(t.test()); });
    noted.reset();  // all is saved but the report
    if (!ranks.leads()) return;
    if (folder) folder->tidy();
    outcome = {cts::to_json(result), {}};
    outcome.results["config"] = config;
    outcome.results["settings"] = learner.settings();
    outcome.results["class_names"] = train.class_names;
    std::vector<std::string> names;
    bool own = false;  // tasks that one set is cut into have none
    for (const cts::task& t : stream) {
      own = own || t.name != "task " + std::to_string(t.number + 1);
      names.push_back(t.name);
    }
    if (own) outcome.results["task_names"] = names;
    if (!notes.empty()) outcome.results["weights_notes"] = notes;
    add_pictures(outcome.results, train, stream.data().test);
    if (not_measured.size() > 0) outcome.results["classes_not_measured_in"] = not_measured;
    outcome.figures = draw(b, learner.model(), stream, learner.memory(), learner.sources(), parts.attribute);
    if (!a.out.empty()) write_results(a.out, cts::to_file(b, learner.model()), learner.memory(), outcome);
  }
};

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
cts::image_text_model<B> make_model(B& b, const sequence_arguments& a, const cts::text_stream& stream) {
  const cts::dataset& pictures = stream.data().train.images;
  std::optional<cts::tensor_file> file;
  if (!a.weights.empty()) file = cts::load_weights(a.weights);
  if (file && file->metadata.contains("kind")) {
    auto model = cts::load_image_text(b, *file);
    cts::require(a.heads == 0 || a.heads == model.config().image.heads, a.weights, ": the model has ",
                 model.config().image.heads, " heads, --heads asks for ", a.heads);
    return model;
  }
  auto words = cts::tokenizer::train(cts::corpus_of(stream.data().train), {.vocabulary = a.vocabulary});
  const auto length = std::max(longest_text(stream.data().train, words), longest_text(stream.data().test, words));
  cts::image_text_config c;
  std::optional<cts::vit_weights> encoder;
  if (file) encoder = read_weights(a, std::move(*file), pictures, 1);  // without its head
  c.image = encoder ? encoder->config
                    : cts::vit_config{.grid = {pictures.height, pictures.width, pictures.channels, a.patch},
                                      .dim = a.dim,
                                      .depth = a.depth,
                                      .heads = heads_of(a)};
  c.text = {.vocabulary = words.size(), .length = length, .dim = a.dim, .depth = a.text_depth, .heads = heads_of(a)};
  c.seed = a.fit.seed;
  cts::image_text_model<B> model(b, c, std::move(words));
  if (encoder) cts::load_encoder(b, model, *encoder);
  return model;
}

/// A few test samples of each task: the picture with what was asked, and where the model looked for its answer.
template <class B>
cts::report_figure draw_answers(B& b, const cts::image_text_model<B>& model, const cts::text_stream& stream,
                                const cts::any_attribution<B>& method, const cts::generation_options& o) {
  std::vector<cts::index> shown;
  for (const auto& task : stream.tasks) {
    const auto& test = task.test_indices;
    for (std::size_t i = 0; i < 4 && i < test.size(); ++i) shown.push_back(test[i * test.size() / 4]);
  }
  return {cts::encode_png(cts::answer_sheet(b, model, {stream.data().test, shown}, method, o)),
          "Test pictures, what the model wrote about them and where it looked for it."};
}

/// Learns a stream of questions or captions.
struct text_sequence_work {
  const sequence_arguments& a;
  sequence_outcome& outcome;
  bool only_check = false;

  template <class B>
  void operator()(B& b) const {
    named_parts<B, cts::image_text_model<B>> parts(a);
    if (only_check) return;
    const cts::team& ranks = a.fit.ranks;
    std::optional<run_folder> folder;
    if (!a.out.empty() && ranks.leads()) folder.emplace(a);
    const auto stream = read_texts(request_of(a), a.tasks);
    const cts::dataset& pictures = stream.data().train.images;
    if (a.tells) tell_pictures(pictures, stream.data().test.images);
    auto model = make_model(b, a, stream);
    auto config = config_of(a, model.config().image);
    config["tasks"] = stream.size();
    const run_progress progress(a.quiet);
    prepare(parts.options.fit, a, progress, config);
    const cts::generation_options writing{.beams = a.beams, .length = a.task == "vqa" ? 12 : 40};
    cts::continual_learner learner(b, std::move(model), parts.options, parts.strategy, parts.objective,
                                   parts.optimiser);
    std::optional<interruption> noted;
    if (folder) folder->begin(bytes_of(learner.model()), most_memory_bytes(a, stream.data().train, stream.size()));
    ranks.wait("preparing the folder of the results");
    if (!a.out.empty()) noted.emplace();
    const auto result =
        cts::run_sequence(learner, stream, {.out = a.out, .resume = a.resume, .after_task = progress.after_task()},
                          [&](const auto& l, const cts::text_task& t) { return l.evaluate(t.test(), writing); });
    noted.reset();  // all is saved but the report
    if (!ranks.leads()) return;
    if (folder) folder->tidy();
    outcome = {cts::to_json(result), {}};
    outcome.results["config"] = config;
    outcome.results["settings"] = learner.settings();
    std::vector<std::string> names;
    for (const auto& task : stream) names.push_back(task.name);
    outcome.results["task_names"] = names;
    add_pictures(outcome.results, pictures, stream.data().test.images);
    if (parts.attribute.works_on_answers())
      outcome.figures.push_back(draw_answers(b, learner.model(), stream, parts.attribute, writing));
    if (!learner.memory().empty()) {
      std::vector<cts::index> shown;
      for (const auto i : learner.sources()) shown.push_back(i < 0 ? -1 : stream.data().train.sample(i).image);
      outcome.figures.push_back({cts::encode_png(cts::kept_tokens_sheet(learner.memory(), pictures, shown)),
                                 "Pictures of the memory, and the tokens that it keeps of them."});
    }
    if (!a.out.empty()) write_results(a.out, cts::to_file(b, learner.model()), learner.memory(), outcome);
  }
};

}  // namespace cts_command
