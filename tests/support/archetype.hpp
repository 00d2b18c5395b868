#pragma once
// The least that a backend can be: the ten required functions, and memory that only they can reach. Whatever runs on it
// goes through the interface.

#include <memory>
#include <type_traits>
#include <utility>

#include "core_tokensets/tensor/reference.hpp"
#include "support/guarded_memory.hpp"

namespace support {

namespace cts = core_tokensets;

/// Owner of guarded memory.
template <class U>
class guarded_buffer {
 public:
  guarded_buffer() = default;
  guarded_buffer(std::shared_ptr<guarded_memory> memory, cts::index n)
      : memory_(std::move(memory)), data_(memory_->take(static_cast<std::size_t>(n) * sizeof(U))) {}
  guarded_buffer(guarded_buffer&& other) noexcept
      : memory_(std::move(other.memory_)), data_(std::exchange(other.data_, nullptr)) {}
  guarded_buffer& operator=(guarded_buffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~guarded_buffer() {
    if (data_ != nullptr) memory_->release(data_);
  }
  U* data() const { return reinterpret_cast<U*>(data_); }

 private:
  std::shared_ptr<guarded_memory> memory_;
  std::byte* data_ = nullptr;
};

/// The reference backend behind guarded memory. A copy shares the memory.
template <std::floating_point T>
class archetype_backend {
 public:
  using scalar = T;

  template <class U>
  guarded_buffer<U> allocate(cts::index n) {
    return {memory_, n};
  }
  template <class U>
  void upload(U* device, const U* host, cts::index n) {
    cts::require(!memory_->holds(host), "archetype: upload from the backend's own memory");
    plain_.upload(memory_->real(device), host, n);
  }
  template <class U>
  void download(U* host, const U* device, cts::index n) {
    cts::require(!memory_->holds(host), "archetype: download to the backend's own memory");
    plain_.download(host, memory_->real(device), n);
  }
  void fill(cts::view<T> out, T value) { plain_.fill(real(out), value); }

  void gemm(cts::const_view<T> a, cts::const_view<T> b, cts::view<T> c, cts::gemm_options o = {}) {
    plain_.gemm(real(a), real(b), real(c), o);
  }
  template <class F, class... V>
  void map(const F& f, const V&... operands) {
    static_assert(std::is_trivially_copyable_v<F>, "a function object is copied to the device as bytes");
    plain_.map(f, real(operands)...);
  }
  template <class Op, class F, class... V>
  void row_reduce(const Op& op, const F& term, cts::view<T> out, const V&... in) {
    static_assert(std::is_trivially_copyable_v<Op> && std::is_trivially_copyable_v<F>);
    plain_.row_reduce(op, term, real(out), real(in)...);
  }
  template <class Op, class F, class... V>
  void col_reduce(const Op& op, const F& term, T beta, cts::view<T> out, const V&... in) {
    static_assert(std::is_trivially_copyable_v<Op> && std::is_trivially_copyable_v<F>);
    plain_.col_reduce(op, term, beta, real(out), real(in)...);
  }
  void gather_rows(cts::view<T> out, cts::const_view<T> in, const std::int32_t* rows) {
    plain_.gather_rows(real(out), real(in), memory_->real(rows));
  }
  void scatter_add_rows(cts::view<T> out, cts::const_view<T> in, const std::int32_t* rows) {
    plain_.scatter_add_rows(real(out), real(in), memory_->real(rows));
  }

 private:
  template <class U>
  cts::view<U> real(cts::view<U> v) const {
    if (!v.empty()) v.data = memory_->real(v.data);
    return v;
  }

  cts::reference_backend<T> plain_;
  std::shared_ptr<guarded_memory> memory_ = std::make_shared<guarded_memory>();
};

}  // namespace support
