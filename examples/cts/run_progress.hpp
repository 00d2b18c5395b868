#pragma once
// What is said while a run of cts sequence goes on: how far a task is, and how well the tasks so far are known.

#include <cstdio>
#include <memory>
#include <string>

#include "core_tokensets/train/sequence.hpp"

namespace cts_command {

class run_progress {
 public:
  explicit run_progress(bool quiet) : quiet_(quiet) {}

  /// For the steps of training: the loss, and the accuracy over the tasks that were learnt.
  core_tokensets::progress_callback steps() const {
    if (quiet_) return {};
    return [known = known_, line = core_tokensets::console_progress()](core_tokensets::progress p) {
      p.note += *known;
      line(p);
    };
  }
  /// For the end of each task.
  auto after_task() const {
    return [quiet = quiet_, known = known_](const core_tokensets::learnt_task& task,
                                            const core_tokensets::sequence_result& result) {
      double sum = 0;
      for (const double accuracy : result.accuracy.back()) sum += accuracy;
      const auto tasks = result.accuracy.size();
      char text[80];
      std::snprintf(text, sizeof text, "accuracy %.1f %% over %zu %s", 100 * sum / static_cast<double>(tasks), tasks,
                    tasks == 1 ? "task" : "tasks");
      *known = std::string("  ") + text;
      if (!quiet) std::fprintf(stderr, "%s learnt: %s\n", task.name.c_str(), text);
    };
  }

 private:
  bool quiet_;
  std::shared_ptr<std::string> known_ = std::make_shared<std::string>();
};

}  // namespace cts_command
