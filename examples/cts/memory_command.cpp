// cts memory info|verify|export: what a memory file holds, whether it is whole, and its samples as pictures and JSON.

#include <cstdio>
#include <memory>

#include "commands.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/memory/describe.hpp"
#include "core_tokensets/report/memory_export.hpp"

namespace cts_command {

namespace cts = core_tokensets;

namespace {

/// Names of the classes: the `class_names` of the memory's own metadata, or else of the results.json beside the memory,
/// where `cts sequence` leaves it. Empty where neither says.
std::vector<std::string> find_class_names(const std::filesystem::path& path, const cts::token_memory& memory) {
  const auto names_of = [](const cts::json& names) {
    const bool texts =
        names.is_array() && std::all_of(names.begin(), names.end(), [](auto& n) { return n.is_string(); });
    return texts ? names.get<std::vector<std::string>>() : std::vector<std::string>{};
  };
  const auto own = memory.metadata().find("class_names");
  if (own != memory.metadata().end()) return names_of(cts::parse_json_or_null(own->second));
  const auto results = path.parent_path() / "results.json";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(results, ignored)) return {};
  const cts::json told = cts::parse_json_or_null(cts::read_text(results));
  return told.contains("class_names") ? names_of(told["class_names"]) : std::vector<std::string>{};
}

void info(const std::string& path) { std::printf("%s\n", cts::describe(cts::load_token_memory(path)).dump(1).c_str()); }

void verify(const std::string& path) {
  const auto problems = cts::verify_token_memory(path);
  if (problems.size() == 1) cts::fail(problems.front());
  for (const auto& problem : problems) std::printf("%s\n", problem.c_str());
  cts::require(problems.empty(), path, ": ", problems.size(),
               " problems, the first: ", problems.empty() ? std::string() : problems.front());
  std::printf("%s is whole\n", path.c_str());
}

void export_to(const std::string& path, const std::string& out) {
  const auto memory = cts::load_token_memory(path);
  cts::export_memory(memory, out, {.class_names = find_class_names(path, memory), .source = path});
  std::printf("%td samples with %td tokens in %s\n", memory.samples(), memory.tokens(), out.c_str());
}

}  // namespace

void add_memory(CLI::App& app) {
  auto* command = app.add_subcommand("memory", "look into a memory file");
  command->require_subcommand(1);
  auto path = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  const auto add = [&](const char* name, const char* what) {
    auto* sub = command->add_subcommand(name, what);
    sub->add_option("file", *path, "memory as safetensors")->required();
    return sub;
  };
  add("info", "samples, tokens, bytes and settings, as JSON")->final_callback([path] { info(*path); });
  add("verify", "check the checksums of all arrays")->final_callback([path] { verify(*path); });
  auto* exporting = add("export", "one PNG a sample, and samples.json with all numbers");
  exporting->add_option("--out", *out, "new folder for them")->required();
  exporting->final_callback([path, out] { export_to(*path, *out); });
}

}  // namespace cts_command
