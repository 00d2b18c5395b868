// cts sequence --task vqa|caption: questions or captions that arrive task after task.

#include "backends.hpp"
#include "text_sequence_work.hpp"

namespace cts_command {

sequence_outcome run_text_sequence(const sequence_arguments& a) {
  sequence_outcome outcome;
  with_backend_of<float>(a.backend, a.threads, text_sequence_work{a, outcome});
  return outcome;
}

}  // namespace cts_command
