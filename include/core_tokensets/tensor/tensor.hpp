#pragma once
// Owning arrays of a backend, and scratch memory for the inside of an operation.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/tensor/backend.hpp"

namespace core_tokensets {

/// A matrix `[rows, cols]` in a backend's memory. Resizing keeps the memory while it is large enough, so that a
/// training step allocates nothing once it is warm; contents are not kept.
template <tensor_backend B>
class tensor {
 public:
  using scalar = typename B::scalar;

  tensor() = default;
  tensor(B& b, index rows, index cols) { resize(b, rows, cols); }

  void resize(B& b, index rows, index cols) {
    if (rows * cols > capacity_) {
      buffer_ = b.template allocate<scalar>(rows * cols);
      capacity_ = rows * cols;
    }
    rows_ = rows;
    cols_ = cols;
  }
  /// Takes the shape and the numbers of a host array.
  void assign(B& b, index rows, index cols, const scalar* host) {
    resize(b, rows, cols);
    b.upload(buffer_.data(), host, rows * cols);
  }
  std::vector<scalar> to_host(B& b) const {
    std::vector<scalar> host(static_cast<std::size_t>(size()));
    b.download(host.data(), buffer_.data(), size());
    return host;
  }

  index rows() const { return rows_; }
  index cols() const { return cols_; }
  index size() const { return rows_ * cols_; }
  bool empty() const { return size() == 0; }
  scalar* data() const { return buffer_.data(); }
  view<scalar> operator*() { return {buffer_.data(), rows_, cols_}; }
  view<const scalar> operator*() const { return {buffer_.data(), rows_, cols_}; }

 private:
  buffer_of<B, scalar> buffer_;
  index rows_ = 0, cols_ = 0, capacity_ = 0;
};

/// Row numbers (or classes) in a backend's memory.
template <tensor_backend B>
class row_list {
 public:
  void assign(B& b, std::span<const std::int32_t> rows) {
    const auto n = static_cast<index>(rows.size());
    if (n > capacity_) {
      buffer_ = b.template allocate<std::int32_t>(n);
      capacity_ = n;
    }
    size_ = n;
    b.upload(buffer_.data(), rows.data(), n);
  }
  index size() const { return size_; }
  const std::int32_t* data() const { return buffer_.data(); }

 private:
  buffer_of<B, std::int32_t> buffer_;
  index size_ = 0, capacity_ = 0;
};

/// Memory that lives as long as this object: from the backend's workspace where it has one (`take`, `release`), freshly
/// allocated elsewhere.
template <tensor_backend B, class U = typename B::scalar>
class scratch {
 public:
  static constexpr bool pooled = requires(B & b) { b.workspace(); };

  scratch(B& b, index rows, index cols) : backend_(b), rows_(rows), cols_(cols) {
    if constexpr (pooled) {
      data_ = b.workspace().template take<U>(rows * cols);
    } else {
      own_ = b.template allocate<U>(rows * cols);
      data_ = own_.data();
    }
  }
  ~scratch() {
    if constexpr (pooled) backend_.workspace().release();
  }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;

  U* data() const { return data_; }
  view<U> operator*() const { return {data_, rows_, cols_}; }

 private:
  B& backend_;
  buffer_of<B, U> own_;
  U* data_ = nullptr;
  index rows_, cols_;
};

/// dst = src, of any shapes that `map` can repeat.
template <tensor_backend B>
void assign(B& b, view<typename B::scalar> dst, const_view<typename B::scalar> src) {
  b.map(fn::copy{}, dst, src);
}

}  // namespace core_tokensets
