#pragma once
// An adaptive binary range coder (Martin 1979, in the form of LZMA): bits of known probability to bytes and back, in
// integers only. Encoder and decoder have the same calls, so that a model is written once and cannot disagree with
// itself: `code(bit)` takes the bit that is to be written and returns it, or ignores what it is given and returns the
// one that was read.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets::detail {

/// The probability of a 0 in 1/65536, and how slowly it follows the bits that were seen.
struct adaptive_bit {
  std::uint16_t zero = 1 << 15;
  std::uint16_t shift = 5;

  /// Stays within 1 .. 65535 for every shift of 1 to 15.
  void learn(bool bit) {
    const auto p = static_cast<std::uint32_t>(zero);
    zero = static_cast<std::uint16_t>(bit ? p - (p >> shift) : p + ((65536 - p) >> shift));
  }
};

/// A model whose bits start from a table: for each a probability of 0 in 1/4096 above a shift of 4 bits.
template <class Model>
constexpr Model started(std::span<const std::uint16_t, Model::count> table) {
  Model model{};
  for (std::size_t i = 0; i < Model::count; ++i)
    model.bits[i] = {static_cast<std::uint16_t>(table[i] | 15u), static_cast<std::uint16_t>(table[i] & 15u)};
  return model;
}

class range_encoder {
 public:
  bool code(adaptive_bit& state, bool bit) {
    const std::uint32_t bound = (range_ >> 16) * state.zero;
    state.learn(bit);
    if (bit) {
      add(bound);
      range_ -= bound;
    } else {
      range_ = bound;
    }
    shift_out();
    return bit;
  }
  /// A bit that is 0 or 1 equally often.
  bool code(bool bit) {
    range_ >>= 1;
    if (bit) add(range_);
    shift_out();
    return bit;
  }

  /// The bytes, as few as name a number within the last interval.
  std::vector<std::uint8_t> finish() {
    // The interval is at least 2^24 wide, so one more byte suffices; none where it begins with the number written.
    if (low_ != 0) {
      add(0xffffff);
      bytes_.push_back(static_cast<std::uint8_t>(low_ >> 24));
    }
    return std::move(bytes_);
  }

 private:
  void add(std::uint32_t n) {
    const std::uint32_t before = low_;
    low_ += n;
    // A carry ends at a byte below 255, because all that was written is a number below 1.
    for (std::size_t i = bytes_.size(); low_ < before && i > 0 && ++bytes_[--i] == 0;) {
    }
  }
  void shift_out() {
    while (range_ < (1u << 24)) {
      bytes_.push_back(static_cast<std::uint8_t>(low_ >> 24));
      low_ <<= 8;
      range_ <<= 8;
    }
  }

  std::vector<std::uint8_t> bytes_;
  std::uint32_t low_ = 0, range_ = 0xffffffff;
};

/// Reads what `range_encoder` wrote. Any bytes give some bits; `Error`, which names the codec, as soon as more are
/// asked for than the bytes can hold, so that short bytes never keep it busy.
class range_decoder {
 public:
  range_decoder(std::span<const std::uint8_t> bytes, const char* codec) : bytes_(bytes), codec_(codec) {
    for (int i = 0; i < 4; ++i) shift_in();
  }

  bool code(adaptive_bit& state, bool = false) {
    const std::uint32_t bound = (range_ >> 16) * state.zero;
    const bool bit = code_ >= bound;
    state.learn(bit);
    if (bit) {
      code_ -= bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    fill();
    return bit;
  }
  bool code(bool = false) {
    range_ >>= 1;
    const bool bit = code_ >= range_;
    if (bit) code_ -= range_;
    fill();
    return bit;
  }

  /// `Error` unless exactly the bytes were used that an encoder would have written.
  void finish() const {
    require(at_ == bytes_.size() + 4 || at_ == bytes_.size() + 3, codec_, " codec: ", bytes_.size(),
            " bytes, of which ", at_ - 4, " make up the tokens");
  }

 private:
  void fill() {
    while (range_ < (1u << 24)) {
      shift_in();
      range_ <<= 8;
    }
  }
  void shift_in() {
    if (at_ < bytes_.size()) {
      code_ = code_ << 8 | bytes_[at_];
    } else {
      require(at_ < bytes_.size() + 4, codec_, " codec: the ", bytes_.size(), " bytes end before the tokens do");
      code_ <<= 8;
    }
    ++at_;
  }

  std::span<const std::uint8_t> bytes_;
  const char* codec_;
  std::size_t at_ = 0;
  std::uint32_t code_ = 0, range_ = 0xffffffff;
};

/// A whole number of 0 or more: its length in bits (of the number plus 1), one adaptive bit at a time from `lengths`
/// (the last one serves all longer ones), then the bit behind the leading one from `next`, the others as they are.
/// `most` bounds the length, so that every stream of bits ends.
template <class Coder>
int code_number(Coder& coder, int value, std::span<adaptive_bit> lengths, std::span<adaptive_bit> next, int most) {
  const auto rest = static_cast<unsigned>(value) + 1;
  const int length = static_cast<int>(std::bit_width(rest)) - 1;
  int n = 0;
  while (n < most) {
    const auto place = static_cast<std::size_t>(n) < lengths.size() ? static_cast<std::size_t>(n) : lengths.size() - 1;
    if (!coder.code(lengths[place], n < length)) break;
    ++n;
  }
  unsigned number = 1;
  for (int i = n - 1; i >= 0; --i) {
    const bool bit = (rest >> i & 1u) != 0;
    const auto place =
        static_cast<std::size_t>(n - 1) < next.size() ? static_cast<std::size_t>(n - 1) : next.size() - 1;
    number = number << 1 | static_cast<unsigned>(i == n - 1 ? coder.code(next[place], bit) : coder.code(bit));
  }
  return static_cast<int>(number - 1);
}

}  // namespace core_tokensets::detail
