#pragma once
// Device memory: the owner that a backend hands out, and the blocks of its scratch memory.

#include <cstddef>
#include <memory>
#include <utility>

#include "core_tokensets/tensor/cuda/queue.hpp"
#include "core_tokensets/tensor/workspace.hpp"

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

/// Blocks of device memory for a `block_stack`. What is released there may be taken again at once, since work on the
/// stream is done in order.
template <class Device>
struct device_blocks {
  static constexpr index alignment = 256, least = Device::stack_bytes;
  Device* device;

  class block {
   public:
    block(Device& device, index bytes) : device_(&device), data_(static_cast<std::byte*>(device.allocate(bytes))) {}
    ~block() {
      if (data_ != nullptr) device_->release(data_);
    }
    block(block&& other) noexcept : device_(other.device_), data_(std::exchange(other.data_, nullptr)) {}
    block& operator=(block&&) = delete;
    std::byte* data() const { return data_; }

   private:
    Device* device_;
    std::byte* data_;
  };

  block allocate(index bytes) { return {*device, bytes}; }
  void poison(void* p, index bytes) requires requires(Device& d) { d.poison(p, bytes); }
  { device->poison(p, bytes); }
};

}  // namespace core_tokensets::cuda
