#pragma once
// Device memory: the owner that a backend hands out, and the stack of scratch memory.

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "core_tokensets/tensor/cuda/queue.hpp"

namespace core_tokensets::cuda {

/// Owner of `n` elements. It keeps the device's state alive, so it may outlive the backend that it came from; memory is
/// given back in stream order.
template <class State, class U>
class device_buffer {
 public:
  device_buffer() = default;
  device_buffer(std::shared_ptr<State> state, index n)
      : state_(std::move(state)),
        data_(n > 0 ? static_cast<U*>(state_->device.allocate(n * index(sizeof(U)))) : nullptr) {}
  ~device_buffer() {
    if (data_ != nullptr) state_->commands.release(data_);
  }
  device_buffer(device_buffer&& other) noexcept { swap(other); }
  device_buffer& operator=(device_buffer&& other) noexcept {
    device_buffer(std::move(other)).swap(*this);
    return *this;
  }
  U* data() const { return data_; }

 private:
  void swap(device_buffer& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(data_, other.data_);
  }
  std::shared_ptr<State> state_;
  U* data_ = nullptr;
};

/// Scratch memory, released in the opposite order of taking. What is released may be taken again at once, since work on
/// the stream is done in order. A full block is followed by a larger one; blocks stay, so a warm step allocates
/// nothing.
template <class Device>
class device_stack {
 public:
  explicit device_stack(Device& device) : device_(device) {}
  ~device_stack() {
    for (const block& b : blocks_) device_.release(b.memory);
  }
  device_stack(const device_stack&) = delete;
  device_stack& operator=(const device_stack&) = delete;

  template <class T>
  T* take(index count) {
    const index bytes = (count * static_cast<index>(sizeof(T)) + 255) / 256 * 256;
    marks_.push_back({current_, top_});
    while (current_ < blocks_.size() && top_ + bytes > blocks_[current_].size) {
      ++current_;
      top_ = 0;
    }
    if (current_ == blocks_.size()) {
      const index size = std::max({bytes, Device::stack_bytes, blocks_.empty() ? 0 : 2 * blocks_.back().size});
      blocks_.push_back({static_cast<std::byte*>(device_.allocate(size)), size});
    }
    std::byte* memory = blocks_[current_].memory + top_;
    top_ += bytes;
    if constexpr (requires { device_.poison(memory, bytes); }) device_.poison(memory, bytes);
    return reinterpret_cast<T*>(memory);
  }

  void release() {
    current_ = marks_.back().block;
    top_ = marks_.back().top;
    marks_.pop_back();
  }

 private:
  struct block {
    std::byte* memory;
    index size;
  };
  struct mark {
    std::size_t block;
    index top;
  };
  Device& device_;
  std::vector<block> blocks_;
  std::vector<mark> marks_;
  std::size_t current_ = 0;
  index top_ = 0;
};

}  // namespace core_tokensets::cuda
