#pragma once
// Owner of aligned memory on the host: the buffer of the CPU backends.

#include <cstddef>
#include <memory>
#include <new>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// `n` uninitialised elements on a 64-byte boundary.
template <class T>
class host_buffer {
 public:
  host_buffer() = default;
  explicit host_buffer(index n)
      : memory_(n > 0 ? static_cast<T*>(::operator new(static_cast<std::size_t>(n) * sizeof(T), alignment)) : nullptr) {
  }
  T* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<T, release> memory_;
};

}  // namespace core_tokensets
