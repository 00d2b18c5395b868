#include "core_tokensets/io/atomic_folder.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <string>

#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace io_atomic_folder_tests {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using support::has;
using support::message_of;
using support::scratch_folder;

TEST_CASE("a folder appears whole, with those above it, also in place of an empty one") {
  const scratch_folder scratch;
  const auto fill = [](const fs::path& folder) {
    cts::write_file(folder / "a", "one");
    fs::create_directory(folder / "sub");
  };
  const auto new_one = scratch.path / "x" / "y";
  cts::write_folder(new_one, [&](const fs::path& folder) {
    CHECK(folder != new_one);
    CHECK(!fs::exists(new_one));
    fill(folder);
  });
  CHECK(cts::read_text(new_one / "a") == "one");
  CHECK(fs::is_directory(new_one / "sub"));
  fs::create_directory(scratch.path / "empty");
  cts::write_folder(scratch.path / "empty/", fill);
  CHECK(cts::read_text(scratch.path / "empty" / "a") == "one");
  CHECK(scratch.entries() == 2);
}

TEST_CASE("a folder that cannot be filled or has no place leaves nothing") {
  const scratch_folder scratch;
  const auto fill = [](const fs::path& folder) { cts::write_file(folder / "a", "one"); };
  const auto failing = [&](const fs::path& folder) {
    fill(folder);
    cts::fail("half way");
  };
  CHECK(message_of([&] { cts::write_folder(scratch.path / "x", failing); }) == "half way");
  CHECK(scratch.entries() == 0);
  cts::write_file(scratch.path / "file", "x");
  CHECK(has(message_of([&] { cts::write_folder(scratch.path / "file", fill); }), "is not a folder"));
  CHECK(has(message_of([&] { cts::write_folder(scratch.path / "file/below", fill); }), "Not a directory"));
  CHECK(has(message_of([&] { cts::write_folder(scratch.path, fill); }), "not empty"));
  CHECK(has(message_of([&] { cts::write_folder("", fill); }), "expected a name"));
  CHECK(scratch.entries() == 1);
}

TEST_CASE("a folder of results is tried before the work, and stays only if something is in it") {
  const scratch_folder scratch;
  const auto path = scratch.path / "x" / "y";
  {
    const cts::output_folder folder(path);
    CHECK(fs::is_empty(path));
  }
  CHECK(!fs::exists(path));
  {
    const cts::output_folder folder(path);
    cts::write_file(path / "a", "one");
  }
  CHECK(fs::exists(path / "a"));
  fs::remove(path / "a");
  { const cts::output_folder there_before(path); }
  CHECK(fs::exists(path));
  CHECK(has(message_of([] { cts::output_folder("/proc"); }), "/proc"));
  CHECK(message_of([&] { cts::output_folder(scratch.path / "x/y/../y/a/"); }).empty());
}

TEST_CASE("a folder of results belongs to one at a time, who is named, and to nobody once that has ended") {
  const scratch_folder scratch;
  int ready[2], end[2];
  REQUIRE(::pipe(ready) == 0);
  REQUIRE(::pipe(end) == 0);
  const pid_t child = ::fork();
  char byte = 0;
  if (child == 0) {
    const cts::output_folder folder(scratch.path);
    if (::write(ready[1], "x", 1) == 1) (void)!::read(end[0], &byte, 1);
    ::_exit(0);
  }
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  const auto said = message_of([&] { const cts::output_folder folder(scratch.path); });
  CHECK(has(said, scratch.path.string() + ": process " + std::to_string(child) + " ("));
  CHECK(has(said, "writes into this folder"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(message_of([&] { const cts::output_folder folder(scratch.path); }).empty());
  for (const int descriptor : {ready[0], ready[1], end[0], end[1]}) ::close(descriptor);
}

TEST_CASE("what a disk has no room for is told") {
  const scratch_folder scratch;
  cts::check_space(scratch.path, 1, "a byte");
  const auto said = message_of([&] { cts::check_space(scratch.path, std::uintmax_t{1} << 60, "everything"); });
  CHECK(has(said, scratch.path.string() + ": the disk has room for"));
  CHECK(has(said, "everything may take 1099511627776 MiB"));
  cts::check_space("/nowhere/at/all", 1, "nothing");
}

}  // namespace io_atomic_folder_tests
