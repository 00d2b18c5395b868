#pragma once
// How threads wait for each other. OpenMP's own choice is to spin for a while, which costs a busy machine whole slices
// of its processors' time: there all threads were several times slower than one. Threads that sleep are never much
// slower.

#include <stdlib.h>
#include <unistd.h>

#include <string>

namespace cts_command {

/// Starts this program again with sleeping threads unless something was said about that; OpenMP reads it when a program
/// is loaded, so it cannot be changed later. Goes on as it is where that is not possible.
inline void let_threads_sleep([[maybe_unused]] char** argv) {
#ifdef _OPENMP
  for (const char* said : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}) {
    if (::getenv(said) != nullptr) return;
  }
  std::string program(4096, '\0');  // by its path, so that it keeps its name
  const auto length = ::readlink("/proc/self/exe", program.data(), program.size() - 1);
  if (length <= 0 || ::setenv("OMP_WAIT_POLICY", "passive", 1) != 0) return;
  program.resize(static_cast<std::size_t>(length));
  ::execv(program.c_str(), argv);
#endif
}

}  // namespace cts_command
