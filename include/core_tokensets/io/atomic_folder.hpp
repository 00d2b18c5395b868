#pragma once
// A whole folder that appears at once: it is filled under a temporary name beside its place and then renamed. A folder
// for long work: its own as long as it runs.

#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/atomic_file.hpp"

namespace core_tokensets {

namespace detail {

/// Makes the folder and those above it. `Error` with the reason that the system gives.
inline void make_folders(const std::filesystem::path& path) {
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  if (failed) fail(path.string(), ": cannot create the folder: ", failed.message());
}

/// A new folder with a name that no other has; removed with all its content unless `path` is emptied.
struct temporary_folder {
  std::filesystem::path path;

  temporary_folder(const std::filesystem::path& parent, const std::filesystem::path& target) {
    for (int attempt = 0; attempt < 10000; ++attempt) {
      path = parent / ("." + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
      if (::mkdir(path.c_str(), 0777) == 0) return;
      if (errno != EEXIST) fail_file(target, "create a temporary folder beside it");
    }
    fail(target.string(), ": cannot create a temporary folder beside it: 10000 old ones are in the way");
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace detail

namespace detail {

/// "process 123 (cts sequence ...)": who holds the lock of a folder, as far as the system tells.
inline std::string holder_of(int folder) {
  struct stat info {};
  std::ifstream locks("/proc/locks");
  std::string line;
  if (::fstat(folder, &info) != 0) return "another process";
  while (std::getline(locks, line)) {  // "1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF"
    long pid = 0;
    unsigned major = 0, minor = 0;
    unsigned long long inode = 0;
    if (std::sscanf(line.c_str(), "%*s FLOCK %*s %*s %ld %x:%x:%llu", &pid, &major, &minor, &inode) != 4 || pid <= 0 ||
        inode != info.st_ino)
      continue;
    std::ifstream words("/proc/" + std::to_string(pid) + "/cmdline");
    std::string command, word;
    while (std::getline(words, word, '\0') && command.size() < 200) command += (command.empty() ? "" : " ") + word;
    return "process " + std::to_string(pid) + (command.empty() ? "" : " (" + command + ")");
  }
  return "another process";
}

/// The right to write into a folder, which one process has at a time; the system takes it back when a process ends,
/// however it does. `Error` that names the process that has it.
class folder_lock {
 public:
  explicit folder_lock(const std::filesystem::path& path)
      : folder_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), {}) {
    if (folder_.descriptor < 0) fail_file(path, "open the folder");
    if (::flock(folder_.descriptor, LOCK_EX | LOCK_NB) == 0) return;
    // Some file systems over a network have no locks of folders; results can be written there all the same.
    require(errno != EWOULDBLOCK, path.string(), ": ", holder_of(folder_.descriptor),
            " writes into this folder; wait until it ends, or choose another folder");
  }

 private:
  open_file folder_;
};

}  // namespace detail

/// `Error` where the disk of a folder has no room for `bytes` more, of which `what` says what they are for.
inline void check_space(const std::filesystem::path& folder, std::uintmax_t bytes, const std::string& what) {
  std::error_code unknown;
  const auto space = std::filesystem::space(folder, unknown);
  if (unknown) return;  // the system does not say
  const auto in_mib = [](std::uintmax_t n) { return std::to_string((n + (1 << 20) - 1) >> 20) + " MiB"; };
  require(space.available >= bytes, folder.string(), ": the disk has room for ", space.available >> 20, " MiB, ", what,
          " may take ", in_mib(bytes));
}

/// A folder for the results of long work: made where it is missing, tried for writing at once, and kept from all other
/// processes as long as this object lives. `Error` with the reason where that fails; it names the process that has the
/// folder. The folder goes away with this object if it was made by it and is still empty.
class output_folder {
 public:
  explicit output_folder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored;
    made_ = !std::filesystem::exists(path_, ignored);
    detail::make_folders(path_);
    lock_.emplace(path_);
    auto [descriptor, temporary] = detail::create_temporary(path_, path_ / "results");
    const detail::open_file probe(descriptor, std::move(temporary));
  }
  output_folder(const output_folder&) = delete;
  output_folder& operator=(const output_folder&) = delete;
  ~output_folder() {
    std::error_code not_empty;
    if (made_) std::filesystem::remove(path_, not_empty);
  }

 private:
  std::filesystem::path path_;
  std::optional<detail::folder_lock> lock_;
  bool made_ = false;
};

/// Makes the folder `path` of what `fill(folder)` writes into the temporary folder that it is given; folders above it
/// are made. `Error`: `path` is there and not an empty folder, or what `fill` throws; then nothing is left behind.
template <class Fill>
void write_folder(const std::filesystem::path& path, const Fill& fill) {
  namespace fs = std::filesystem;
  require(!path.empty(), "'': cannot create the folder: expected a name");
  std::error_code failed;
  fs::path target = fs::weakly_canonical(fs::absolute(path, failed), failed);
  require(!failed, path.string(), ": cannot create the folder: ", failed.message());
  if (!target.has_filename()) target = target.parent_path();
  if (fs::exists(target, failed)) {
    require(fs::is_directory(target, failed), path.string(), ": exists and is not a folder");
    require(fs::is_empty(target, failed), path.string(), ": the folder is not empty; choose another one");
  }
  detail::make_folders(target.parent_path());
  detail::temporary_folder temporary(target.parent_path(), path);
  fill(std::as_const(temporary.path));
  if (::rename(temporary.path.c_str(), target.c_str()) != 0)
    detail::fail_file(path, "rename the temporary folder to it");
  temporary.path.clear();
}

}  // namespace core_tokensets
