// cts predict, backward, attribute: a stored model on stored images.

#include <memory>

#include "backends.hpp"
#include "model_works.hpp"

namespace cts_command {

namespace {

/// Runs a work on the backend and in the arithmetic that were asked for.
template <class Work>
void run(const model_options& o, const Work& work) {
  cts::require(o.threads >= 0 && o.threads <= 1024, "--threads ", o.threads, ": expected 0 to 1024");
  cts::require(o.heads >= 0, "--heads ", o.heads, ": expected 1 or more, or 0 for what the file says");
  with_backend(o.backend, o.dtype, o.threads, work);
}

}  // namespace

void add_predict(CLI::App& app) {
  auto o = std::make_shared<model_options>();
  auto* command = app.add_subcommand("predict", "logits [B,K] and probabilities [B,K]");
  o->add_to(*command);
  command->final_callback([o] { run(*o, predict_work{*o}); });
}

void add_backward(CLI::App& app) {
  auto o = std::make_shared<model_options>();
  auto* command = app.add_subcommand("backward", "loss, and grad.NAME for every parameter");
  o->add_to(*command);
  command->final_callback([o] { run(*o, backward_work{*o}); });
}

void add_attribute(CLI::App& app) {
  auto o = std::make_shared<attribute_options>();
  auto* command = app.add_subcommand("attribute", "relevance [B,N] of every patch");
  o->add_to(*command);
  command->add_option("--method", o->method, "NAME or NAME:OPTION=VALUE:...; see below")->required();
  command->footer(methods_help());
  command->add_option("--target", o->target, "argmax, label, class:K, loss, margin or margin:A,B");
  command->add_option("--start-layer", o->start_layer, "first block, for methods that have one");
  add_seed(*command, o->seed, "for methods that have one");
  command->add_option("--pictures", o->pictures, "folder for the images under their relevance, N.png");
  command->final_callback([o] {
    const auto method = cts::attribution_text(o->method, {.start_layer = o->start_layer, .seed = o->seed});
    run(*o, attribute_work{*o, method, cts::parse_target(o->target)});
  });
}

}  // namespace cts_command
