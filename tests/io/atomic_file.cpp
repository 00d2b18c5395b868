#include "core_tokensets/io/atomic_file.hpp"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <string>

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace io_atomic_file_tests {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using support::message_of;
using support::scratch_folder;

TEST_CASE("a file written is the file read, pieces joined in order") {
  const scratch_folder folder;
  const auto path = folder.path / "a file.bin";
  cts::write_file(path, "first");
  CHECK(cts::read_text(path) == "first");
  const std::string a = "one,", b = "", c = "two";
  const std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(a)), std::as_bytes(std::span(b)),
                                                       std::as_bytes(std::span(c))};
  cts::write_file(path, pieces);
  CHECK(cts::read_text(path) == "one,two");
  CHECK(cts::read_file(path).size() == 7);
  cts::write_file(path, std::vector<std::byte>{});
  CHECK(cts::read_file(path).empty());
  CHECK(folder.entries() == 1);
}

TEST_CASE("writing keeps permissions, follows links and works in the current folder") {
  const scratch_folder folder;
  const auto path = folder.path / "target", link = folder.path / "link";
  cts::write_file(path, "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("target", link);
  cts::write_file(link, "new");
  CHECK(fs::is_symlink(link));
  CHECK(cts::read_text(path) == "new");
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));

  const auto before = fs::current_path();
  fs::current_path(folder.path);
  cts::write_file("plain", "here");
  fs::current_path(before);
  CHECK(cts::read_text(folder.path / "plain") == "here");
}

TEST_CASE("a write that fails half way leaves the old file and nothing else") {
  const scratch_folder folder;
  const auto path = folder.path / "kept";
  cts::write_file(path, "precious");
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  rlimit small = old;
  small.rlim_cur = 4096;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = message_of([&] { cts::write_file(path, std::string(100000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(message.find(path.string()) != std::string::npos);
  CHECK(message.find("cannot write") != std::string::npos);
  CHECK(cts::read_text(path) == "precious");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file errors name the path and the reason") {
  const scratch_folder folder;
  const auto missing = folder.path / "no" / "such";
  CHECK(message_of([&] { cts::read_file(missing); }) == missing.string() + ": cannot open: No such file or directory");
  CHECK(message_of([&] { cts::write_file(missing, "x"); }).find("No such file or directory") != std::string::npos);
  CHECK(message_of([&] { cts::read_file(folder.path); }).find("not a regular file") != std::string::npos);
  CHECK(message_of([&] { cts::write_file(folder.path, "x"); }).find("not a regular file") != std::string::npos);
  CHECK(message_of([&] { cts::write_file("", "x"); }).find("expected a file name") != std::string::npos);
  // The same is known before there is anything to write.
  for (const fs::path& path : {missing, folder.path, fs::path(""), folder.path / std::string(300, 'x')}) {
    const auto told = message_of([&] { cts::check_writable(path); });
    CHECK(!told.empty());
    CHECK(told == message_of([&] { cts::write_file(path, "x"); }));
  }
  cts::check_writable(folder.path / "fine");
  CHECK(folder.entries() == 0);

  cts::write_file(folder.path / "short", "abc");
  const cts::file_reader reader(folder.path / "short");
  std::vector<std::byte> out(3);
  CHECK_THROWS_AS(reader.read(1, out), cts::Error);
}

TEST_CASE("a temporary file that a crash left behind is stepped over") {
  const scratch_folder folder;
  const auto stale = folder.path / ("." + std::to_string(::getpid()) + "-0.tmp");
  std::ofstream(stale) << "stale";
  cts::write_file(folder.path / "x", "fresh");
  CHECK(cts::read_text(folder.path / "x") == "fresh");
  CHECK(cts::read_text(stale) == "stale");
}

}  // namespace io_atomic_file_tests
