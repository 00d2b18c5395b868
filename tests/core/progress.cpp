// Progress on a terminal is one line that is written over, elsewhere plain lines without control characters.

#include "core_tokensets/core/progress.hpp"

#include <fcntl.h>
#include <stdlib.h>

#include "support/catch.hpp"

namespace core_progress_tests {

namespace {

namespace cts = core_tokensets;

void report(const cts::progress_callback& tell, std::ptrdiff_t total) {
  cts::progress_meter meter(tell, "task 1/2", total);
  for (std::ptrdiff_t i = 0; i < total; ++i) meter.step("loss 0.5");
}

std::string written(std::FILE* file) {
  std::string text(4096, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  return text;
}

}  // namespace

TEST_CASE("progress into a file is plain lines: now and then, and at the end") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  report(cts::console_progress(file, 1e6), 1000);
  CHECK(written(file) == "task 1/2 1000/1000  0:00 left  loss 0.5\n");
  std::fclose(file);

  file = std::tmpfile();
  report(cts::console_progress(file, 0), 3);
  const std::string all = written(file);
  CHECK(std::count(all.begin(), all.end(), '\n') == 3);
  CHECK(all.find_first_of("\r\033") == all.npos);
  std::fclose(file);
}

TEST_CASE("progress on a terminal is one line that fits it") {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0) return;  // no terminals here
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0);
  winsize narrow{};
  narrow.ws_col = 20, narrow.ws_row = 5;
  REQUIRE(::ioctl(slave, TIOCSWINSZ, &narrow) == 0);
  std::FILE* terminal = ::fdopen(slave, "w");
  report(cts::console_progress(terminal), 1000);
  std::string all;
  char byte = 0;
  while (all.find('\n') == all.npos && ::read(master, &byte, 1) == 1) all += byte;
  CHECK(all.find("\rtask 1/2 1000/1000 \033[K\r\n") != all.npos);  // the terminal makes \r\n of \n
  std::fclose(terminal);
  ::close(master);
}

TEST_CASE("time left counts what was done before, and is hours where it takes hours") {
  cts::progress last;
  const cts::progress_callback keep = [&](const cts::progress& p) { last = p; };
  cts::progress_meter meter(keep, "x", 100, 49, 5000);
  meter.step();
  CHECK(last.done == 50);
  CHECK(last.seconds >= 5000);
  CHECK(cts::to_text(last) == "x 50/100  1:23:20 left");
}

}  // namespace core_progress_tests
