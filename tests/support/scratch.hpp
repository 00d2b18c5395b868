#pragma once
// Folders that go away again, and what an error says.

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "core_tokensets/core/error.hpp"

namespace support {

/// An empty folder of its own that goes away with its object.
struct scratch_folder {
  std::filesystem::path path = new_path();

  scratch_folder() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  std::ptrdiff_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator());
  }

 private:
  static std::filesystem::path new_path() {
    static std::atomic<int> made = 0;
    return std::filesystem::temp_directory_path() /
           ("cts-test-" + std::to_string(::getpid()) + "-" + std::to_string(made++));
  }
};

/// What the `core_tokensets::Error` thrown by `f()` says; empty where none is thrown.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const core_tokensets::Error& e) {
    return e.what();
  }
  return {};
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace support
