// cts memory info|verify: what a memory file holds, and whether it is whole.

#include <cstdio>
#include <memory>

#include "commands.hpp"
#include "core_tokensets/memory/describe.hpp"

namespace cts_command {

namespace cts = core_tokensets;

void add_memory(CLI::App& app) {
  auto* command = app.add_subcommand("memory", "look into a memory file");
  command->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  auto* info = command->add_subcommand("info", "samples, tokens, bytes and settings, as JSON");
  info->add_option("file", *path)->required();
  info->final_callback([path] { std::printf("%s\n", cts::describe(cts::load_token_memory(*path)).dump(1).c_str()); });
  auto* verify = command->add_subcommand("verify", "check the checksums of all arrays");
  verify->add_option("file", *path)->required();
  verify->final_callback([path] {
    const auto problems = cts::verify_token_memory(*path);
    for (const auto& problem : problems) std::fprintf(stderr, "%s\n", problem.c_str());
    cts::require(problems.empty(), *path, ": ", problems.size(), " problems");
    std::printf("%s is whole\n", path->c_str());
  });
}

}  // namespace cts_command
