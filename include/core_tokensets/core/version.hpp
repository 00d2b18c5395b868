#pragma once
// The version of the library; the build system reads it from here.

namespace core_tokensets {

inline constexpr const char* library_version = "0.1.0";

}  // namespace core_tokensets
