#pragma once
// Long work that is asked to end: the first SIGINT or SIGTERM is noted, so that what was done so far is saved; the
// second ends the program at once.

#include <signal.h>

#include <string>

namespace cts_command {

/// Notes signals as long as it lives.
class interruption {
 public:
  interruption();
  interruption(const interruption&) = delete;
  interruption& operator=(const interruption&) = delete;
  ~interruption();

  /// The signal that asked this program to end; 0: none did.
  static int asked();

 private:
  struct sigaction before_int_ {
  }, before_term_{};
};

/// The words of a command as one types them into a shell, so that what was interrupted goes on: `cts sequence` with
/// --resume and without --overwrite, other commands as they were given.
std::string command_that_goes_on(int argc, const char* const* argv);

/// Ends the program by the signal, as whoever started it expects of a program that was told to end.
[[noreturn]] void end_by(int signal);

}  // namespace cts_command
