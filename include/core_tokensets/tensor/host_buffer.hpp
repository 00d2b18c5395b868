#pragma once
// Owner of aligned memory on the host: the buffer of the CPU backends.

#include <cstddef>
#include <limits>
#include <memory>
#include <new>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// `n` uninitialised elements on a 64-byte boundary.
template <class T>
class host_buffer {
 public:
  host_buffer() = default;
  explicit host_buffer(index n) : memory_(n > 0 ? new_memory(n) : nullptr) {}
  T* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  static T* new_memory(index n) {
    if (n > std::numeric_limits<index>::max() / static_cast<index>(sizeof(T))) throw std::bad_array_new_length();
    return static_cast<T*>(::operator new(static_cast<std::size_t>(n) * sizeof(T), alignment));
  }
  struct release {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<T, release> memory_;
};

}  // namespace core_tokensets
