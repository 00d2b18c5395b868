// cts sequence for classes, on the backends of this program.

#include "backends.hpp"
#include "sequence_work.hpp"

namespace cts_command {

void run_classes(const sequence_arguments& a, sequence_outcome& outcome, bool only_check) {
  with_backend_of<float>(a.backend, a.threads, sequence_work{a, outcome, only_check});
}

}  // namespace cts_command
