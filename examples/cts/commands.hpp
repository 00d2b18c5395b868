#pragma once
// The subcommands: each adds its options to the program and runs when it is named.

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <string>

#include "core_tokensets/core/error.hpp"

namespace cts_command {

/// The option --seed, a whole number of 64 bits.
inline void add_seed(CLI::App& command, std::uint64_t& seed, const char* about = "of all random choices") {
  const CLI::Validator whole(
      [](const std::string& text) {
        std::uint64_t value = 0;
        const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (bad == std::errc() && end == text.data() + text.size()) return std::string();
        return "'" + text + "', expected a whole number from 0 to 18446744073709551615";
      },
      "");
  command.add_option("--seed", seed, about)->check(whole);
}

/// What every command on a stored model takes.
struct model_options {
  std::string weights, inputs, out, dtype = "f32", backend = "eigen";
  std::ptrdiff_t heads = 0;
  int threads = 0;

  void add_to(CLI::App& command) {
    command
        .add_option("--weights", weights,
                    "model as safetensors or its folder, timm's or Hugging Face's; cts info --weights says what it is")
        ->required();
    command
        .add_option("--inputs", inputs,
                    "safetensors with images [B,C,H,W] (F32 as normalised, or U8 0-255) and, where needed, labels [B]")
        ->required();
    command.add_option("--out", out, "result as safetensors")->required();
    command.add_option("--heads", heads, "attention heads, where the file does not say");
    command.add_option("--dtype", dtype, "arithmetic: f32 or f64")->check(CLI::IsMember({"f32", "f64"}));
    command.add_option("--backend", backend, "what computes; cts info lists what there is");
    command.add_option("--threads", threads, "0: as many as there are");
  }
};

void add_predict(CLI::App& app);
void add_backward(CLI::App& app);
void add_attribute(CLI::App& app);
void add_judge(CLI::App& app);
void add_sequence(CLI::App& app);
void add_demo(CLI::App& app);
void add_study(CLI::App& app);
void add_memory(CLI::App& app);
void add_classify(CLI::App& app);
void add_convert(CLI::App& app);
void add_ask(CLI::App& app);
void add_info(CLI::App& app);

}  // namespace cts_command
