#pragma once
// Runs the program cts as a user would: with arguments, its output caught, in folders that go away.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/safetensors.hpp"
#include "support/catch.hpp"

extern char** environ;

namespace cli_test {

namespace cts = core_tokensets;
namespace fs = std::filesystem;

/// An empty folder that is removed at the end, with a place for what a program prints and caches beside it.
struct sandbox {
  fs::path root = fs::temp_directory_path() / ("cts-cli-" + std::to_string(::getpid()));
  fs::path path = root / "work", printed = root / "printed";

  sandbox() {
    fs::remove_all(root);
    fs::create_directories(path);
    ::setenv("XDG_CACHE_HOME", (root / "cache").c_str(), 1);  // not the user's own
    ::setenv("OMP_NUM_THREADS", "1", 1);                      // small work, and other tests run beside
  }
  sandbox(const sandbox&) = delete;
  sandbox& operator=(const sandbox&) = delete;
  ~sandbox() {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }

  std::string operator/(const std::string& name) const { return (path / name).string(); }

  /// Every name below `path`, with the content of files.
  std::map<std::string, std::string> listing() const {
    std::map<std::string, std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(path))
      names[entry.path().string()] = entry.is_regular_file() ? cts::read_text(entry.path()) : "folder";
    return names;
  }
};

using arguments = std::vector<std::string>;

/// Starts a program, the first of the words, with its two outputs going into files.
inline pid_t launch(const sandbox& box, arguments words) {
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  for (const auto& [descriptor, ending] : {std::pair(1, ".out"), std::pair(2, ".err")}) {
    posix_spawn_file_actions_addopen(&files, descriptor, (box.printed.string() + ending).c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0666);
  }
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  REQUIRE(failed == 0);
  return child;
}

inline pid_t start(const sandbox& box, const arguments& args) {
  arguments words{CTS_PROGRAM};
  words.insert(words.end(), args.begin(), args.end());
  return launch(box, std::move(words));
}

/// What a program that has ended left behind. The code of one that was killed is minus the signal.
struct outcome {
  int code = 0;
  std::string out, err;
};

inline outcome wait_for(const sandbox& box, pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), cts::read_text(box.printed.string() + ".out"),
          cts::read_text(box.printed.string() + ".err")};
}

inline outcome run(const sandbox& box, const arguments& args) { return wait_for(box, start(box, args)); }

inline std::string joined(const arguments& args) {
  std::string all = "cts";
  for (const auto& word : args) all += " " + word;
  return all;
}

/// Runs `cts`, which must succeed in silence on standard error.
inline outcome run_well(const sandbox& box, const arguments& args) {
  const outcome got = run(box, args);
  INFO(joined(args));
  CHECK(got.err == "");
  REQUIRE(got.code == 0);
  return got;
}

/// Runs `cts` on bad input: code 2, one line on standard error that begins with "cts: " and holds all of `parts`,
/// nothing on standard output (unless the command lists several problems there), and every file and folder as it was.
inline void check_refused(const sandbox& box, const arguments& args, const std::vector<std::string>& parts,
                          bool lists_problems = false) {
  const auto before = box.listing();
  const outcome got = run(box, args);
  INFO(joined(args) << "\nprinted: " << got.err);
  CHECK(got.code == 2);
  CHECK((got.out == "" || (lists_problems && got.err.find(" problems, the first: ") != std::string::npos)));
  CHECK(got.err.rfind("cts: ", 0) == 0);
  CHECK(std::count(got.err.begin(), got.err.end(), '\n') == 1);
  CHECK(!got.err.empty());
  for (const auto& part : parts) {
    INFO("expected in it: " << part);
    CHECK(got.err.find(part) != std::string::npos);
  }
  CHECK(box.listing() == before);
}

/// Options by name over a base of others, as the words of a command line.
inline arguments with(std::string command, std::map<std::string, std::string> options,
                      const std::map<std::string, std::string>& changes = {}) {
  for (const auto& [name, value] : changes) options[name] = value;
  arguments args{std::move(command)};
  for (const auto& [name, value] : options) args.push_back(name + (value.empty() ? "" : "=" + value));
  return args;
}

/// A run of `cts sequence` that takes moments.
inline std::map<std::string, std::string> small_sequence(const std::string& out) {
  return {{"--data", "scenes"}, {"--image", "16"},   {"--per-class", "6"}, {"--classes", "0-3"}, {"--tasks", "2"},
          {"--patch", "4"},     {"--dim", "16"},     {"--depth", "1"},     {"--heads", "2"},     {"--epochs", "1"},
          {"--batch", "8"},     {"--budget", "0.3"}, {"--quiet", ""},      {"--out", out}};
}

}  // namespace cli_test
