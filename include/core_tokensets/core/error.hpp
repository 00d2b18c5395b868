#pragma once
// One exception type for everything that a caller can get wrong, and the two helpers that throw it.

#include <sstream>
#include <stdexcept>
#include <string>

namespace core_tokensets {

/// Bad input at an edge of the library (file, argument, shape, budget): says what, where and what was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws `Error` with all parts written one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

/// Throws `Error` with the parts as its message unless `ok`.
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) fail(parts...);
}

}  // namespace core_tokensets
