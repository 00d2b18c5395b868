#pragma once
// The folder of a run of cts sequence: its own as long as it runs, and no earlier run's that nobody gave up.

#include <cstddef>
#include <filesystem>

#include "core_tokensets/io/atomic_folder.hpp"
#include "sequence.hpp"

namespace cts_command {

class run_folder {
 public:
  /// `Error`, before any work is done: there is a run already and nothing was said about it, another process writes
  /// there, or nobody can.
  explicit run_folder(const sequence_arguments& a);
  /// Called when all was checked but this: `Error` where the disk has no room for a model of so many bytes with its
  /// moments and such a memory. Removes the run that is to be replaced.
  void begin(std::ptrdiff_t model_bytes, std::ptrdiff_t memory_bytes) const;
  /// Called when all tasks are learnt: removes what is left of processes that were killed while they wrote here.
  void tidy() const;

 private:
  std::filesystem::path path_;
  bool overwrite_;
  core_tokensets::output_folder folder_;
};

/// Bytes that the memory may take at most, of these data cut into parts.
template <class Data>
std::ptrdiff_t most_memory_bytes(const sequence_arguments& a, const Data& train, std::ptrdiff_t parts) {
  if (!keeps_samples(a.memory)) return 0;
  const auto budget = core_tokensets::parse_budget(a.budget);
  const auto data = core_tokensets::bytes_of_data(train);
  const auto bytes = budget.resolve(data) * (budget.each == core_tokensets::budget_of::all ? 1 : parts);
  return std::min(bytes, 2 * data + (1 << 20));  // a budget may be larger than all that there is
}

}  // namespace cts_command
