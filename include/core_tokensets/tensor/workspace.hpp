#pragma once
// A stack of reusable host memory: taking and releasing costs nothing once it has grown to its working size.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core_tokensets/tensor/host_buffer.hpp"

namespace core_tokensets {

/// Memory is released in the opposite order of taking (scopes). A full block is followed by a larger one; blocks stay
/// for the next round.
class stack_workspace {
 public:
  template <class T>
  T* take(index count) {
    const index bytes = (count * static_cast<index>(sizeof(T)) + 63) / 64 * 64;
    marks_.push_back({current_, top_});
    while (current_ < blocks_.size() && top_ + bytes > blocks_[current_].size) {
      ++current_;
      top_ = 0;
    }
    if (current_ == blocks_.size()) {
      const index size = std::max({bytes, index{1} << 20, blocks_.empty() ? 0 : 2 * blocks_.back().size});
      blocks_.push_back({host_buffer<std::byte>(size), size});
    }
    std::byte* memory = blocks_[current_].memory.data() + top_;
    top_ += bytes;
    return reinterpret_cast<T*>(memory);
  }

  void release() {
    current_ = marks_.back().block;
    top_ = marks_.back().top;
    marks_.pop_back();
  }

 private:
  struct block {
    host_buffer<std::byte> memory;
    index size;
  };
  struct mark {
    std::size_t block;
    index top;
  };
  std::vector<block> blocks_;
  std::vector<mark> marks_;
  std::size_t current_ = 0;
  index top_ = 0;
};

}  // namespace core_tokensets
