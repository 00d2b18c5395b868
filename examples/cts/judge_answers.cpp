// cts judge for answers and captions: methods measured by what the answer loses with parts of the picture.

#include <cstdio>

#include "core_tokensets/attribution/measures/measured_answers.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/answering.hpp"
#include "core_tokensets/train/consolidate.hpp"
#include "data.hpp"
#include "judge.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

using backend = judge_backend;

/// Some test samples, drawn at random.
std::vector<cts::index> draw(const cts::visual_text& data, const judge_arguments& a) {
  auto order = cts::random_stream(a.seed, 0x6a75646765).permutation(data.n());
  order.resize(std::min<std::size_t>(order.size(), static_cast<std::size_t>(a.samples)));
  return order;
}

}  // namespace

cts::json judge_answers(const judge_arguments& a, const cts::tensor_file& file) {
  const auto methods = read_methods(a, "attention,gradient_x_input,generic_attention,grad_lrp,atman");
  for (const auto& m : methods) m.method.check_answers();
  cts::require(a.target == "argmax" || a.target == "label", "--target '", a.target,
               "': expected argmax (what the model writes) or label (the answer that the data give)");
  cts::require(a.classes.empty(), "--classes: a model of answers has no classes");
  cts::set_default_threads(a.threads);
  backend b(a.threads);
  const auto model = cts::load_image_text(b, file);
  const cts::tokenizer& words = model.words();
  const auto& c = model.config();
  const auto stream = read_texts({.sets = a.data,
                                  .task = a.task == "caption" ? task_kind::caption : task_kind::vqa,
                                  .image = c.image.grid.height,
                                  .pictures = 1,
                                  .seed = a.seed,
                                  .threads = a.threads,
                                  .skip_damaged = a.skip_damaged},
                                 1);
  const cts::visual_text& data = stream.data().test;
  cts::check_pictures(data.images, c.image);
  const auto order = draw(data, a);
  cts::judge_options o{.steps = a.steps, .sets = a.sets, .seed = a.seed};
  o.missing = a.missing == "zero" ? cts::missing_tokens::zero : cts::missing_tokens::drop;
  std::vector<cts::judgement> judged(methods.size());
  cts::answer_workspace<backend> ws;
  double right = 0;
  for (std::size_t begin = 0; begin < order.size(); begin += static_cast<std::size_t>(a.batch)) {
    const auto part =
        std::span(order).subspan(begin, std::min(order.size() - begin, static_cast<std::size_t>(a.batch)));
    // As tokens: other tokens may read the same, and those that the model wrote are what it finds most probable.
    const auto written = cts::write_tokens(b, model, {data, {part.begin(), part.end()}}, {.length = 40});
    std::vector<cts::index> pictures;
    cts::text_batch texts;
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto& sample = data.samples[static_cast<std::size_t>(part[i])];
      pictures.push_back(sample.image);
      texts.next_picture();
      texts.append(words.encode(sample.prompt),
                   a.target == "label" ? words.encode(cts::detail::texts_of(data, part[i]).second) : written[i].tokens,
                   cts::tokenizer::begin_token, cts::tokenizer::end_token);
    }
    cts::token_batch images;
    cts::make_batch(data.images, pictures, c.image, images);
    cts::measured_answers<backend> measured(b, model, images, texts);
    for (const auto& whole : measured.whole) right += whole.right ? 1 : 0;
    for (std::size_t m = 0; m < methods.size(); ++m) {
      cts::judge(methods[m].method, measured, o, ws, judged[m]);
      if (!a.quiet)
        std::fprintf(stderr, "\r%zu of %zu samples, %zu of %zu methods ", begin + part.size(), order.size(), m + 1,
                     methods.size());
    }
  }
  if (!a.quiet) std::fprintf(stderr, "\n");
  return judged_json(a, methods, judged, order.size(), right);
}

}  // namespace cts_command
