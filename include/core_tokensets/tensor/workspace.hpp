#pragma once
// A stack of reusable memory: taking and releasing costs nothing once it has grown to its working size.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

#include "core_tokensets/tensor/host_buffer.hpp"

namespace core_tokensets {

/// Where a stack has its blocks from: owners of memory with `data()`, of at least `least` bytes each, in which every
/// piece begins at a multiple of `alignment`. This one gives memory of the host.
struct host_blocks {
  static constexpr index alignment = 64, least = index{1} << 20;
  host_buffer<std::byte> allocate(index bytes) const { return host_buffer<std::byte>(bytes); }
};

/// Memory is released in the opposite order of taking (`scratch` sees to that). A full block is followed by a larger
/// one; blocks stay for the next round. Where there is no memory, `take` passes on what its source throws and leaves
/// nothing to release. A source may `poison(memory, bytes)` what is taken.
template <class Source = host_blocks>
class block_stack {
 public:
  block_stack() = default;
  explicit block_stack(Source source) : source_(std::move(source)) {}

  template <class T>
  T* take(index count) {
    assert(count >= 0);
    const index bytes =
        (count * static_cast<index>(sizeof(T)) + Source::alignment - 1) / Source::alignment * Source::alignment;
    place to = at_;
    while (to.block < blocks_.size() && to.top + bytes > blocks_[to.block].size) to = {to.block + 1, 0};
    if (to.block == blocks_.size()) {
      const index size = std::max({bytes, Source::least, blocks_.empty() ? 0 : 2 * blocks_.back().size});
      blocks_.reserve(blocks_.size() + 1);
      blocks_.push_back({source_.allocate(size), size});
    }
    marks_.push_back(at_);  // from here on nothing throws
    at_ = {to.block, to.top + bytes};
    std::byte* memory = blocks_[to.block].memory.data() + to.top;
    if constexpr (requires { source_.poison(memory, bytes); }) source_.poison(memory, bytes);
    return reinterpret_cast<T*>(memory);
  }

  void release() {
    assert(!marks_.empty());
    at_ = marks_.back();
    marks_.pop_back();
  }

 private:
  struct block {
    decltype(std::declval<Source&>().allocate(index{})) memory;
    index size;
  };
  struct place {
    std::size_t block = 0;
    index top = 0;
  };
  Source source_;
  std::vector<block> blocks_;
  std::vector<place> marks_;
  place at_;
};

}  // namespace core_tokensets
