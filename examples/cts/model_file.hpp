#pragma once
// --model RUN|FILE: the folder that a run wrote, or a model's file.

#include <filesystem>
#include <string>

#include "core_tokensets/core/error.hpp"

namespace cts_command {

/// The model's file in a run's folder, or the file itself. `Error`: neither is there.
inline std::string model_file(const std::string& run_or_file) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (!fs::is_directory(run_or_file, ignored)) return run_or_file;
  const fs::path file = fs::path(run_or_file) / "model.safetensors";
  core_tokensets::require(fs::exists(file, ignored), "--model ", run_or_file,
                          ": a folder without model.safetensors, expected one that cts sequence wrote");
  return file.string();
}

}  // namespace cts_command
