#pragma once
// Progress of long work: how far, how fast, how long it will still take.

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
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

namespace detail {

/// "0:05", "12:30", "1:02:03"
inline std::string clock_text(double seconds) {
  const long s = seconds < 3e9 ? static_cast<long>(seconds + 0.5) : 0;
  char text[40];
  if (s < 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  }
  return text;
}

}  // namespace detail

/// "task 1/5 30/50  0:07 left  loss 0.626"
inline std::string to_text(const progress& p) {
  return p.what + " " + std::to_string(p.done) + "/" + std::to_string(p.total) + "  " +
         detail::clock_text(p.seconds_left()) + " left" + (p.note.empty() ? "" : "  " + p.note);
}

/// A callback that keeps one line on a terminal up to date, at most ten times a second. Where `to` is no terminal, as a
/// file or a pipe, it writes plain lines, at most one each `seconds`, and one at the end of each job.
inline progress_callback console_progress(std::FILE* to = stderr, double seconds = 30) {
  using clock = std::chrono::steady_clock;
  const bool terminal = ::isatty(::fileno(to)) != 0;
  const auto pause =
      std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(terminal ? 0.1 : seconds));
  return [to, terminal, pause, last = clock::time_point{}](const progress& p) mutable {
    const auto now = clock::now();
    const bool finished = p.done == p.total;
    if (!terminal && last == clock::time_point{}) last = now;  // the first line says nothing yet
    if (!finished && now - last < pause) return;
    last = now;
    std::string line = to_text(p);
    if (terminal) {
      winsize size{};  // a line that is wrapped could not be written over
      if (::ioctl(::fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        line.resize(std::min<std::size_t>(line.size(), size.ws_col - 1));
    }
    std::fprintf(to, terminal ? "\r%s\033[K%s" : "%s%s", line.c_str(), finished || !terminal ? "\n" : "");
    std::fflush(to);
  };
}

}  // namespace core_tokensets
