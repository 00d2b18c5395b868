#include "interruption.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "ranks.hpp"

namespace cts_command {

namespace {

volatile sig_atomic_t asked_by = 0;

/// Only what is allowed within a signal handler. The second signal finds the system's own answer to it again.
void note(int signal) {
  asked_by = signal;
  constexpr std::string_view said = "\ncts: ends as soon as what was done is saved; again: at once\n";
  if (::write(STDERR_FILENO, said.data(), said.size()) < 0) return;
  struct sigaction at_once {};
  at_once.sa_handler = SIG_DFL;
  ::sigaction(SIGINT, &at_once, nullptr);
  ::sigaction(SIGTERM, &at_once, nullptr);
}

std::string quoted(std::string_view word) {
  constexpr std::string_view harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";
  if (!word.empty() && word.find_first_not_of(harmless) == word.npos) return std::string(word);
  std::string all = "'";
  for (const char c : word) all += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return all + "'";
}

}  // namespace

interruption::interruption() {
  struct sigaction noted {};
  noted.sa_handler = note;
  noted.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &noted, &before_int_);
  ::sigaction(SIGTERM, &noted, &before_term_);
  // Whoever starts a program in the background may have it ignore SIGINT.
  if (before_int_.sa_handler == SIG_IGN) ::sigaction(SIGINT, &before_int_, nullptr);
}

interruption::~interruption() {
  ::sigaction(SIGINT, &before_int_, nullptr);
  ::sigaction(SIGTERM, &before_term_, nullptr);
}

int interruption::asked() { return asked_by; }

std::string command_that_goes_on(int argc, const char* const* argv) {
  std::string all;
  bool resumes = false, pieces = false;
  const bool sequence = argc > 1 && std::string_view(argv[1]) == "sequence";
  for (int i = 0; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (sequence && word == "--overwrite") continue;
    resumes = resumes || word == "--resume";
    pieces = pieces || word.starts_with("--pieces");
    all += (all.empty() ? "" : " ") + quoted(word);
  }
  if (!sequence) return all;
  const std::string ranks = std::to_string(started_ranks());
  if (started_ranks() > 1) all = "mpirun -n " + ranks + " " + all + (pieces ? "" : " --pieces " + ranks);
  return resumes ? all : all + " --resume";
}

void end_by(int signal) {
  std::fflush(nullptr);
  struct sigaction at_once {};
  at_once.sa_handler = SIG_DFL;
  ::sigaction(signal, &at_once, nullptr);
  ::raise(signal);
  std::_Exit(128 + signal);
}

}  // namespace cts_command
