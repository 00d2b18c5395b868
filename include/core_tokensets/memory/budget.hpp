#pragma once
// How large a memory may be: a number of bytes on disk, in all or for each task or class, or a fraction of the data.

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/options.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// A budget that holds nothing: an error that a caller may want to tell from others.
class budget_error : public Error {
 public:
  using Error::Error;
};

/// Throws `budget_error` with the parts as its message unless `ok`.
template <class... Parts>
void require_room(bool ok, const Parts&... parts) {
  try {
    require(ok, parts...);
  } catch (const Error& error) {
    throw budget_error(error.what());
  }
}

/// What a budget is of: the whole memory, or each task or class that was learnt, so that the memory grows with them.
enum class budget_of { all, every_task, every_class };

template <>
inline constexpr std::array words<budget_of>{"all", "task", "class"};

/// A number of bytes, or a fraction in (0, 1] of the bytes of the data.
struct byte_budget {
  double amount = 1;
  bool is_fraction = true;
  budget_of each = budget_of::all;

  /// The budget in bytes for data of `total_bytes`, rounded down.
  index resolve(index total_bytes) const {
    require(total_bytes >= 0, "budget: data of ", total_bytes, " bytes");
    return static_cast<index>(is_fraction ? amount * static_cast<double>(total_bytes) : amount);
  }

  bool operator==(const byte_budget&) const = default;
};

/// A budget of `n` bytes, n > 0.
inline byte_budget bytes(index n) {
  require(n > 0 && n <= (index{1} << 53), "budget: ", n, " bytes, expected more than 0 and at most 2^53");
  return {.amount = static_cast<double>(n), .is_fraction = false};
}

/// A budget of bytes for each task, or each class, that is learnt. `Error`: a fraction.
inline byte_budget per(budget_of each, byte_budget budget) {
  require(each == budget_of::all || !budget.is_fraction, "budget: a fraction for each ", detail::option_text(each),
          ", expected bytes");
  budget.each = each;
  return budget;
}

inline byte_budget kibibytes(index n) { return bytes(n << 10); }
inline byte_budget mebibytes(index n) { return bytes(n << 20); }

/// A budget of `f` times the bytes of the data, 0 < f <= 1.
inline byte_budget fraction(double f) {
  require(f > 0 && f <= 1, "budget: a fraction of ", f, ", expected more than 0 and at most 1");
  return {.amount = f, .is_fraction = true};
}

/// "0.01" and "1%" are fractions; "1000B", "64KiB", "2MB", "1.5 GiB" are bytes, "2KiB/class" and "16KiB/task" bytes for
/// each. `Error` says what is wrong with others.
inline byte_budget parse_budget(std::string_view text) {
  if (const auto slash = text.find('/'); slash != std::string_view::npos) {
    const auto each = detail::parse_option<budget_of>(std::string(text.substr(slash + 1)), "budget, for each");
    return per(each, parse_budget(text.substr(0, slash)));
  }
  constexpr std::array<std::pair<std::string_view, double>, 9> units{{{"B", 1},
                                                                      {"kB", 1e3},
                                                                      {"KB", 1e3},
                                                                      {"MB", 1e6},
                                                                      {"GB", 1e9},
                                                                      {"KiB", 0x1p10},
                                                                      {"MiB", 0x1p20},
                                                                      {"GiB", 0x1p30},
                                                                      {"TiB", 0x1p40}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  require(error == std::errc{} && std::isfinite(number), "budget '", text,
          "': expected a number with a unit, as 64KiB, 2MB or 1%, or a fraction as 0.01");
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty() || unit == "%") {
    const double f = unit.empty() ? number : number / 100;
    require(f > 0 && f <= 1, "budget '", text, "': a fraction must be more than 0 and at most 1",
            unit.empty() ? " (write a unit for bytes, as in 1000B)" : "");
    return fraction(f);
  }
  for (const auto& [name, factor] : units) {
    if (unit != name) continue;
    const double n = std::floor(number * factor);
    require(n >= 1 && n <= 0x1p53, "budget '", text, "': expected at least one byte and at most 2^53");
    return bytes(static_cast<index>(n));
  }
  fail("budget '", text, "': unknown unit '", unit, "', expected B, KB, MB, GB, KiB, MiB, GiB, TiB or %");
}

}  // namespace core_tokensets
