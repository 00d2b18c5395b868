#pragma once
// Progress of long work: how far, how fast, how long it will still take.

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>

namespace core_tokensets {

/// One report of a running job: `done` of `total` steps of `what`, `seconds` since its start.
struct progress {
  std::string what;
  std::ptrdiff_t done = 0, total = 0;
  double seconds = 0;
  std::string note;

  /// Seconds that the rest will take at the pace so far.
  double seconds_left() const {
    return done > 0 ? seconds / static_cast<double>(done) * static_cast<double>(total - done) : 0.0;
  }
};

/// Receives reports; an empty one means silence. It may throw to interrupt the work.
using progress_callback = std::function<void(const progress&)>;

/// Counts the steps of one job and reports each of them to a callback.
class progress_meter {
 public:
  /// `done` of the steps were done before, in `seconds`.
  progress_meter(const progress_callback& callback, std::string what, std::ptrdiff_t total, std::ptrdiff_t done = 0,
                 double seconds = 0)
      : callback_(callback), start_(std::chrono::steady_clock::now()), before_(seconds) {
    state_.what = std::move(what);
    state_.done = done, state_.total = total;
  }

  /// Seconds that all steps so far took.
  double seconds() const {
    return before_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  void step(const std::string& note = {}) {
    ++state_.done;
    if (!callback_) return;
    state_.seconds = seconds();
    state_.note = note;
    callback_(state_);
  }

 private:
  const progress_callback& callback_;
  std::chrono::steady_clock::time_point start_;
  double before_;
  progress state_;
};

/// A callback that keeps one line on standard error up to date, at most ten times a second.
inline progress_callback console_progress() {
  return [last = std::chrono::steady_clock::time_point{}](const progress& p) mutable {
    const auto now = std::chrono::steady_clock::now();
    const bool finished = p.done == p.total;
    if (!finished && now - last < std::chrono::milliseconds(100)) return;
    last = now;
    const int left = static_cast<int>(p.seconds_left() + 0.5);
    std::fprintf(stderr, "\r%s %td/%td  %d:%02d left  %s\033[K%s", p.what.c_str(), p.done, p.total, left / 60,
                 left % 60, p.note.c_str(), finished ? "\n" : "");
    std::fflush(stderr);
  };
}

}  // namespace core_tokensets
