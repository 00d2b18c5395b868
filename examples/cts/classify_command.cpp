// cts classify: what a model says of pictures.

#include <memory>

#include "backends.hpp"
#include "classify_work.hpp"
#include "commands.hpp"

namespace cts_command {

void add_classify(CLI::App& app) {
  auto a = std::make_shared<classify_arguments>();
  auto* command = app.add_subcommand("classify", "says what pictures of any size show");
  command->option_defaults()->always_capture_default();
  command->add_option("--model", a->model, "folder of cts sequence, a downloaded one, or a model as safetensors")
      ->required();
  command->add_option("pictures", a->pictures, "PNG, JPEG, ...; they are scaled to the size that the model sees")
      ->required();
  command->add_option("--top", a->top, "so many classes of each picture");
  command->add_flag("--json", a->as_json, "prints JSON: picture, classes with name, number and probability");
  command->add_option("--explain", a->explain,
                      "folder for N-NAME.png: the picture, where the model looked, what a memory would keep");
  command->add_option("--method", a->method, "of the heat map; cts attribute --help lists them");
  command->add_option("--keep", a->keep, "share of the tokens that is shown as kept");
  command->add_option("--heads", a->heads, "attention heads, where the file does not say");
  command->add_option("--image", a->image,
                      "size that pictures are scaled to, SIDE or HEIGHTxWIDTH; without: that of the model");
  command->add_option("--backend", a->backend, "what computes; cts info lists what there is");
  command->add_option("--threads", a->threads, "0: as many as there are");
  command->final_callback([a] {
    cts::require(a->threads >= 0 && a->threads <= 1024, "--threads ", a->threads, ": expected 0 to 1024");
    cts::require(a->heads >= 0, "--heads ", a->heads, ": expected 1 or more, or 0 for what the file says");
    cts::require(a->top >= 1, "--top ", a->top, ": expected at least 1");
    cts::require(a->keep > 0 && a->keep <= 1, "--keep ", a->keep, ": expected more than 0 and at most 1");
    cts::check_attribution_name(a->method);
    with_backend_of<float>(a->backend, a->threads, classify_work{*a});
  });
}

}  // namespace cts_command
