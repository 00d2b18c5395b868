// cts: the library on the command line. Exit code 0 is success, 2 is bad input (one line on standard error says what).

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>

#include "busy_machine.hpp"
#include "commands.hpp"
#include "core_tokensets/train/fit_options.hpp"
#include "interruption.hpp"
#include "ranks.hpp"

namespace {

/// Throws, with the choices, where a word stands for a command that there is not.
void check_commands(const CLI::App& app, int argc, char** argv) {
  const CLI::App* at = &app;
  for (int i = 1; i < argc && at->get_require_subcommand_min() > 0 && argv[i][0] != '-'; ++i) {
    const auto known = at->get_subcommands([](const CLI::App*) { return true; });
    const auto found = std::find_if(known.begin(), known.end(), [&](auto* c) { return c->check_name(argv[i]); });
    std::string names;
    for (const auto* command : known) names += (names.empty() ? "" : ", ") + command->get_name();
    core_tokensets::require(found != known.end(), "no command is named '", argv[i], "'; there are ", names);
    at = *found;
  }
}

/// As long as ranks do not work together what is wrong is the same for all of them, and one says it.
int complain(const char* what, int code) {
  if (!cts_command::ranks_joined() && cts_command::started_rank() > 0) return code;
  std::string line = what;
  if (cts_command::ranks_joined() && !line.starts_with("rank "))
    line = "rank " + std::to_string(cts_command::started_rank()) + ": " + line;
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fprintf(stderr, "cts: %s\n", line.c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  cts_command::let_threads_sleep(argv);
  CLI::App app{"core tokensets: Vision Transformers, attribution and a sparse token memory"};
  app.require_subcommand(1);
  cts_command::add_predict(app);
  cts_command::add_backward(app);
  cts_command::add_attribute(app);
  cts_command::add_judge(app);
  cts_command::add_sequence(app);
  cts_command::add_memory(app);
  cts_command::add_study(app);
  cts_command::add_demo(app);
  cts_command::add_classify(app);
  cts_command::add_ask(app);
  cts_command::add_convert(app);
  cts_command::add_info(app);
  try {
    check_commands(app, argc, argv);
    const int ranks = cts_command::started_ranks();
    core_tokensets::require(ranks <= 1 || (argc > 1 && argv[1] == std::string("sequence")), "started as ", ranks,
                            " processes, which is for cts sequence; start other commands as one");
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : complain(error.what(), 2);
  } catch (const core_tokensets::stopped& reason) {
    const std::string words = cts_command::command_that_goes_on(argc, argv);
    if (cts_command::started_rank() == 0)
      std::fprintf(stderr, "cts: %s; go on with\n%s\n", reason.what(), words.c_str());
    const int signal = cts_command::interruption::asked();
    cts_command::end_by(signal != 0 ? signal : SIGINT);  // another rank's
  } catch (const core_tokensets::Error& error) {
    return complain(error.what(), 2);
  } catch (const std::filesystem::filesystem_error& error) {
    return complain((error.path1().string() + ": " + error.code().message()).c_str(), 2);
  } catch (const std::bad_alloc&) {
    return complain("out of memory: the sizes that were asked for are too large for this machine", 2);
  } catch (const std::length_error&) {
    return complain("out of memory: the sizes that were asked for are too large for any machine", 2);
  } catch (const std::exception& error) {
    return complain((std::string("internal error: ") + error.what()).c_str(), 1);
  }
}
