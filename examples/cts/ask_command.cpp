// cts ask and cts caption: text about one picture, and where the model looked for it.

#include <memory>

#include "ask_work.hpp"
#include "backends.hpp"
#include "commands.hpp"

namespace cts_command {

namespace {

void ask(const ask_arguments& a) {
  cts::require(a.threads >= 0 && a.threads <= 1024, "--threads ", a.threads, ": expected 0 to 1024");
  cts::require(a.beams >= 1 && a.beams <= 64 && a.length >= 1 && a.length <= 4096, "--beams ", a.beams, " --length ",
               a.length, ": expected 1 to 64, and 1 to 4096");
  cts::check_attribution_name(a.method);
  cts::tensor_file file = cts::load_weights(a.model);
  with_backend_of<float>(a.backend, a.threads, ask_work{a, std::move(file)});
}

CLI::App* add_command(CLI::App& app, const char* name, const char* what, const std::shared_ptr<ask_arguments>& a) {
  auto* command = app.add_subcommand(name, what);
  command->add_option("--model", a->model, "folder of cts sequence --task vqa or caption, or its model.safetensors")
      ->required();
  command->add_option("--image", a->image, "a picture (PNG or JPEG); it is scaled to the size that the model sees")
      ->required();
  command->add_option("--out", a->out, "PNG of the picture beside a heat map of where the model looked");
  command->add_option("--method", a->method, "of the heat map; see below");
  command->footer(answer_methods_help());
  command->add_option("--beams", a->beams, "texts that are followed at a time");
  command->add_option("--length", a->length, "most tokens of the answer");
  command->add_option("--backend", a->backend, "what computes; cts info lists what there is");
  command->add_option("--threads", a->threads, "0: as many as there are");
  command->final_callback([a] { ask(*a); });
  return command;
}

}  // namespace

void add_ask(CLI::App& app) {
  auto a = std::make_shared<ask_arguments>();
  auto* command = add_command(app, "ask", "answers a question about a picture", a);
  command->add_option("question", a->question, "in the words that the model was taught")->required();
  add_command(app, "caption", "describes a picture", std::make_shared<ask_arguments>());
}

}  // namespace cts_command
