// cts convert: a model, whoever wrote it, as one file of ours, in any type of numbers.

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "commands.hpp"
#include "core_tokensets/model/image_text_weights.hpp"
#include "core_tokensets/model/vit_weights.hpp"
#include "core_tokensets/tensor/eigen.hpp"

namespace cts_command {

namespace {

namespace cts = core_tokensets;

struct convert_arguments {
  std::string weights, out, type = "F32";
  std::ptrdiff_t heads = 0;
};

cts::dtype type_named(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const auto found = cts::dtype_named(text);
  cts::require(found && cts::is_floating(*found), "--type ", text, ": expected F32, F16, BF16 or F64");
  return *found;
}

/// The model as our own file. It is read in double, so that nothing but the type that is asked for rounds its numbers.
cts::tensor_file our_file(cts::tensor_file file, const convert_arguments& a) {
  cts::eigen_backend<double> b(1);
  if (file.metadata.contains("kind")) {
    const auto model = cts::load_image_text(b, file);
    const auto have = model.config().image.heads;
    cts::require(a.heads == 0 || a.heads == have, "--heads ", a.heads, ": the model has ", have);
    return to_file(b, model);
  }
  cts::vit_hints hints;
  if (a.heads > 0) hints.heads = a.heads;
  const auto weights = cts::read_vit(std::move(file), hints);
  for (const std::string& note : weights.notes) std::printf("%s\n", note.c_str());
  return to_file(b, cts::load_vit(b, weights));
}

void convert(const convert_arguments& a) {
  namespace fs = std::filesystem;
  const cts::dtype type = type_named(a.type);
  cts::require(a.heads >= 0, "--heads ", a.heads, ": expected 1 or more, or 0 for what the file says");
  const fs::path from = cts::weights_file(a.weights);
  std::error_code other;
  cts::require(!fs::equivalent(from, a.out, other), "--out ", a.out, ": is the file that is read");
  cts::save_safetensors(a.out, cts::stored_as(type, our_file(cts::load_weights(a.weights), a)));
  std::printf("%s: %ju bytes, %s (%s: %ju bytes)\n", a.out.c_str(), static_cast<std::uintmax_t>(fs::file_size(a.out)),
              std::string(cts::dtype_name(type)).c_str(), from.string().c_str(),
              static_cast<std::uintmax_t>(fs::file_size(from)));
}

}  // namespace

void add_convert(CLI::App& app) {
  auto a = std::make_shared<convert_arguments>();
  auto* command =
      app.add_subcommand("convert", "a model of anyone's, with its head, as one file of ours, in any type of numbers");
  command->option_defaults()->always_capture_default();
  command->add_option("--weights", a->weights, "model as safetensors, or its folder as it was downloaded")->required();
  command->add_option("--out", a->out, "file that is written; it tells heads, normalisation and classes")->required();
  command->add_option("--type", a->type, "F32, F16 or BF16 (half the bytes), F64");
  command->add_option("--heads", a->heads, "attention heads, where the file does not say");
  command->final_callback([a] { convert(*a); });
}

}  // namespace cts_command
