#pragma once
// Pinned host memory on the way to the device. The caller's memory is free again when `place` and the copy into it are
// done; the device fetches it later. Blocks are taken in turn, so the host fills one while the device reads another.

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "core_tokensets/core/view.hpp"

namespace core_tokensets::cuda {

template <class Device>
class staging {
 public:
  static constexpr index piece = index{1} << 22;  ///< bytes that travel at once, at most

  explicit staging(Device& device) : device_(device) {}
  ~staging() {
    for (block& b : blocks_) device_.free_pinned(b.memory);
  }
  staging(const staging&) = delete;
  staging& operator=(const staging&) = delete;

  /// Room for at most `piece` bytes. `deferred`: the copy will not be issued before `settle`. Waits only where the
  /// device is behind by all the memory that staging may take.
  std::byte* place(index bytes, bool deferred) {
    bytes = (bytes + 63) / 64 * 64;
    if (blocks_.empty()) add_block(0);
    if (blocks_[current_].used + bytes > block_bytes) next_block();
    block& b = blocks_[current_];
    std::byte* memory = b.memory + b.used;
    b.used += bytes;
    b.deferred = b.deferred || deferred;
    return memory;
  }

  /// All copies that were deferred have been issued.
  void settle() {
    for (block& b : blocks_) {
      if (b.deferred && b.closed) device_.record(b.done);
      b.deferred = false;
    }
  }

 private:
  static constexpr index block_bytes = 4 * piece, most_blocks = 32;
  struct block {
    std::byte* memory = nullptr;
    typename Device::event done{};
    index used = 0;
    bool closed = false;    ///< full: `done` is recorded once its copies have been issued
    bool deferred = false;  ///< holds copies that have not been issued
  };

  /// The memory comes last, so that it has an owner as soon as it is there.
  void add_block(std::size_t at) {
    blocks_.reserve(blocks_.size() + 1);
    block b{nullptr, device_.make_event()};
    b.memory = device_.allocate_pinned(block_bytes);
    blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(at), std::move(b));
  }

  void next_block() {
    block& full = blocks_[current_];
    full.closed = true;
    if (!full.deferred) device_.record(full.done);
    const std::size_t next = (current_ + 1) % blocks_.size();
    const block& candidate = blocks_[next];
    const bool busy = candidate.closed && (candidate.deferred || !device_.ready(candidate.done));
    if (busy && (candidate.deferred || blocks_.size() < most_blocks)) {
      add_block(current_ + 1);
      ++current_;
      return;
    }
    current_ = next;
    if (blocks_[current_].closed) device_.wait(blocks_[current_].done);
    blocks_[current_].used = 0;
    blocks_[current_].closed = false;
  }

  Device& device_;
  std::vector<block> blocks_;
  std::size_t current_ = 0;
};

}  // namespace core_tokensets::cuda
