#pragma once
// Memory whose addresses nobody may touch: each has a twin, a fixed distance away, that holds the data.

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "core_tokensets/core/error.hpp"

namespace support {

/// Hands out addresses in pages without any access rights: the hardware stops whoever reads or writes there. `real`
/// leads to the data. Fresh and released memory holds NaN (or -1).
class guarded_memory {
 public:
  guarded_memory()
      : base_(static_cast<std::byte*>(
            mmap(nullptr, 2 * span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    core_tokensets::require(base_ != MAP_FAILED && mprotect(base_ + span, span, PROT_READ | PROT_WRITE) == 0,
                            "guarded memory: the system gave none");
  }
  ~guarded_memory() { munmap(base_, 2 * span); }
  guarded_memory(const guarded_memory&) = delete;
  guarded_memory& operator=(const guarded_memory&) = delete;

  /// At least one byte, on a 64-byte boundary.
  std::byte* take(std::size_t bytes) {
    bytes = (bytes + 64) / 64 * 64;
    auto& free = free_[bytes];
    std::byte* p = base_ + used_;
    if (free.empty()) {
      core_tokensets::require(used_ + bytes <= span, "guarded memory: more than ", span, " bytes are in use");
      used_ += bytes;
    } else {
      p = free.back();
      free.pop_back();
    }
    sizes_[p] = bytes;
    std::memset(p + span, 0xff, bytes);
    return p;
  }
  void release(std::byte* p) {
    const auto found = sizes_.find(p);
    std::memset(p + span, 0xff, found->second);
    free_[found->second].push_back(p);
    sizes_.erase(found);
  }

  bool holds(const void* p) const { return p >= base_ && p < base_ + span; }
  /// Where the data of address `p` lies. Throws where `p` was not handed out from here.
  template <class T>
  T* real(T* p) const {
    if (p == nullptr) return p;
    core_tokensets::require(holds(p), "guarded memory: a host address was passed for one of the backend");
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + span);
  }

 private:
  static constexpr std::size_t span = std::size_t{1} << 29;
  std::byte* base_;
  std::size_t used_ = 0;
  std::map<std::size_t, std::vector<std::byte*>> free_;
  std::map<std::byte*, std::size_t> sizes_;
};

}  // namespace support
