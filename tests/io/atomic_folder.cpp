#include "core_tokensets/io/atomic_folder.hpp"

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

}  // namespace io_atomic_folder_tests
