#pragma once
// An array for a test in a backend's memory: random numbers, rows further apart than they are long, and a mark before,
// between and behind the rows that nobody may read (it is NaN) or write (its bits are known).

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "core_tokensets/tensor/tensor.hpp"

namespace conformance {

namespace cts = core_tokensets;
using cts::index;

/// Extents of an operand, as a view has them.
struct shape {
  index n0 = 1, n1 = 1, rows = 1, cols = 1;
  index size() const { return n0 * n1 * rows * cols; }
};
inline std::string text(const shape& s) {
  std::ostringstream out;
  out << "[" << s.n0 << ", " << s.n1 << ", " << s.rows << ", " << s.cols << "]";
  return out.str();
}

/// What an operand holds at first: numbers of about size 1, or NaN where an output must not be read.
enum class start { random, nan };

template <class B>
class operand {
 public:
  using T = typename B::scalar;

  operand(B& b, const shape& s, std::uint64_t seed, start how = start::random)
      : shape_(s),
        ld_(s.cols + gap),
        s1_(s.rows * ld_ + gap),
        s0_(s.n1 * s1_ + gap),
        host_(static_cast<std::size_t>(s.n0 * s0_ + 2 * margin), mark()),
        buffer_(b.template allocate<T>(static_cast<index>(host_.size()))) {
    std::uint64_t state = seed * 0x9e3779b97f4a7c15u;
    for (const index i : places()) {
      host_[static_cast<std::size_t>(i)] = how == start::nan ? std::numeric_limits<T>::quiet_NaN() : T(next(state));
    }
    b.upload(buffer_.data(), host_.data(), static_cast<index>(host_.size()));
  }

  cts::view<T> mut() {
    return {buffer_.data() + margin, shape_.n0, shape_.n1, shape_.rows, shape_.cols, s0_, s1_, ld_};
  }
  cts::view<const T> get() const {
    return {buffer_.data() + margin, shape_.n0, shape_.n1, shape_.rows, shape_.cols, s0_, s1_, ld_};
  }
  const shape& extents() const { return shape_; }

  /// The numbers as they are now, without gaps; `marks_kept` is set to false where a mark was written over.
  std::vector<T> numbers(B& b, bool& marks_kept) const {
    std::vector<T> now(host_.size());
    b.download(now.data(), buffer_.data(), static_cast<index>(now.size()));
    std::vector<T> found;
    for (const index i : places()) {
      found.push_back(std::exchange(now[static_cast<std::size_t>(i)], mark()));
    }
    marks_kept = marks_kept && std::all_of(now.begin(), now.end(), [](T x) { return bits(x) == bits(mark()); });
    return found;
  }

 private:
  using word = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  static constexpr index gap = 3, margin = 16;

  /// Even numbers in (-1.75, 1.75), of variance about 1, the same for every scalar (splitmix64).
  static float next(std::uint64_t& state) {
    std::uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return static_cast<float>(static_cast<std::int64_t>(x ^ (x >> 31))) * 0x1.cp-63f;
  }
  static word bits(T x) { return std::bit_cast<word>(x); }
  static T mark() { return std::bit_cast<T>(bits(std::numeric_limits<T>::quiet_NaN()) | word{0x5eed}); }

  std::vector<index> places() const {
    std::vector<index> all;
    all.reserve(static_cast<std::size_t>(shape_.size()));
    for (index i = 0; i < shape_.n0; ++i)
      for (index j = 0; j < shape_.n1; ++j)
        for (index r = 0; r < shape_.rows; ++r)
          for (index c = 0; c < shape_.cols; ++c) all.push_back(margin + i * s0_ + j * s1_ + r * ld_ + c);
    return all;
  }

  shape shape_;
  index ld_, s1_, s0_;
  std::vector<T> host_;
  cts::buffer_of<B, T> buffer_;
};

}  // namespace conformance
