#pragma once
// A whole folder that appears at once: it is filled under a temporary name beside its place and then renamed.

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
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

/// A folder for the results of long work: made where it is missing, and tried for writing at once. `Error` with the
/// reason where that fails. It goes away with this object if it was made by it and is still empty.
class output_folder {
 public:
  explicit output_folder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored;
    made_ = !std::filesystem::exists(path_, ignored);
    detail::make_folders(path_);
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
