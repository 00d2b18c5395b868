// cts: the library on the command line. Exit code 0 is success, 2 is bad input (one line on standard error says what).

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "commands.hpp"

int main(int argc, char** argv) {
  CLI::App app{"core tokensets: Vision Transformers, attribution and a sparse token memory"};
  app.require_subcommand(1);
  cts_command::add_predict(app);
  cts_command::add_backward(app);
  cts_command::add_attribute(app);
  cts_command::add_sequence(app);
  cts_command::add_memory(app);
  cts_command::add_demo(app);
  cts_command::add_info(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const core_tokensets::Error& error) {
    std::fprintf(stderr, "cts: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cts: internal error: %s\n", error.what());
    return 1;
  }
}
