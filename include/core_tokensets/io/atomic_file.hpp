#pragma once
// Whole files in and out. A file is written under a temporary name in its own folder, flushed to the disk and renamed,
// so that at any moment the name holds either the old content or the new one, never a part.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

namespace detail {

/// Throws `Error` with the path, what was tried and the reason that the system gives.
[[noreturn]] inline void fail_file(const std::filesystem::path& path, std::string_view tried, int reason = errno) {
  fail(path.string(), ": cannot ", tried, ": ", std::generic_category().message(reason));
}

/// A file descriptor that closes itself, and removes `doomed` unless it was told that all went well.
struct open_file {
  int descriptor = -1;
  std::filesystem::path doomed;

  open_file(int d, std::filesystem::path remove_on_failure) : descriptor(d), doomed(std::move(remove_on_failure)) {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (descriptor >= 0) ::close(descriptor);
    if (!doomed.empty()) ::unlink(doomed.c_str());
  }
};

/// A new file with a name that no other has, in `folder`.
inline std::pair<int, std::filesystem::path> create_temporary(const std::filesystem::path& folder,
                                                              const std::filesystem::path& target) {
  for (int attempt = 0; attempt < 10000; ++attempt) {
    const auto name = folder / ("." + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
    const int descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return {descriptor, name};
    if (errno != EEXIST) fail_file(target, "create a temporary file beside it");
  }
  fail(target.string(), ": cannot create a temporary file beside it: 10000 old ones are in the way");
}

inline void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& target) {
  while (!bytes.empty()) {
    const auto written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_file(target, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

/// Where a file is written to: links are followed. `Error`: no name, or something that is no regular file.
struct write_place {
  std::filesystem::path target, folder;
  bool replaces = false;
  mode_t permissions = 0;  ///< of the file that is replaced
};

inline write_place place_of(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  write_place place;
  place.target = fs::is_symlink(path, ignored) ? fs::weakly_canonical(path, ignored) : path;
  if (place.target.empty() || !place.target.has_filename())
    fail("'", path.string(), "': cannot write: expected a file name");
  struct stat old {};
  place.replaces = ::stat(place.target.c_str(), &old) == 0;
  if (!place.replaces && errno != ENOENT) fail_file(path, "write");
  place.permissions = old.st_mode & 07777;
  require(!place.replaces || S_ISREG(old.st_mode), path.string(), ": cannot write: exists and is not a regular file");
  place.folder = place.target.has_parent_path() ? place.target.parent_path() : fs::path(".");
  return place;
}

}  // namespace detail

/// What `work()` returns; an error of the file system becomes an `Error` with the path and the reason.
template <class Work>
auto with_file_errors(const Work& work) {
  try {
    return work();
  } catch (const std::filesystem::filesystem_error& e) {
    fail(e.path1().string(), ": ", e.code().message());
  }
}

/// `Error` with the reason where `write_file` could not write there: to be told before long work, not behind it.
inline void check_writable(const std::filesystem::path& path) {
  auto [descriptor, temporary] = detail::create_temporary(detail::place_of(path).folder, path);
  const detail::open_file probe(descriptor, std::move(temporary));
}

/// Replaces the file at `path` by the pieces, one after the other; a link is followed, the old file's permissions stay.
/// On `Error` the old file is untouched and no temporary file is left.
inline void write_file(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces) {
  const detail::write_place place = detail::place_of(path);
  auto [descriptor, temporary] = detail::create_temporary(place.folder, path);
  detail::open_file file(descriptor, std::move(temporary));
  for (const auto piece : pieces) detail::write_all(file.descriptor, piece, path);
  if (place.replaces && ::fchmod(file.descriptor, place.permissions) != 0)
    detail::fail_file(path, "set its permissions");
  if (::fsync(file.descriptor) != 0) detail::fail_file(path, "flush");
  if (::close(std::exchange(file.descriptor, -1)) != 0) detail::fail_file(path, "close");
  if (::rename(file.doomed.c_str(), place.target.c_str()) != 0)
    detail::fail_file(path, "rename the temporary file to it");
  file.doomed.clear();

  // Some file systems cannot flush a folder and say EINVAL; the rename itself has happened.
  const detail::open_file parent(::open(place.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), {});
  if (parent.descriptor >= 0 && ::fsync(parent.descriptor) != 0 && errno != EINVAL)
    detail::fail_file(path, "flush its folder");
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  write_file(path, std::span<const std::span<const std::byte>>(&bytes, 1));
}

inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}

/// An open regular file of known size, read at any offset. `Error`: missing, not a regular file, shorter than asked.
class file_reader {
 public:
  explicit file_reader(const std::filesystem::path& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), {}) {
    if (file_.descriptor < 0) detail::fail_file(path_, "open");
    struct stat info {};
    if (::fstat(file_.descriptor, &info) != 0) detail::fail_file(path_, "read its size");
    require(S_ISREG(info.st_mode), path_.string(), ": cannot read: not a regular file");
    size_ = static_cast<index>(info.st_size);
  }

  index size() const { return size_; }

  /// Fills `out` with the bytes from `offset` on.
  void read(index offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const auto got = ::pread(file_.descriptor, out.data(), out.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) detail::fail_file(path_, "read");
      require(got > 0, path_.string(), ": ends at byte ", offset, ", expected ", out.size(), " more");
      out = out.subspan(static_cast<std::size_t>(got));
      offset += static_cast<index>(got);
    }
  }

 private:
  std::filesystem::path path_;
  detail::open_file file_;
  index size_ = 0;
};

/// All bytes of a file.
inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const file_reader file(path);
  std::vector<std::byte> bytes(static_cast<std::size_t>(file.size()));
  file.read(0, bytes);
  return bytes;
}

/// All bytes of a file as a string.
inline std::string read_text(const std::filesystem::path& path) {
  const file_reader file(path);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace core_tokensets
