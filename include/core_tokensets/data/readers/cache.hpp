#pragma once
// A cache of decoded pictures: one file per folder and options, which holds the exact list of the picture files that it
// was made from. Whatever does not match (a changed file, a damaged cache) counts as absent and is made anew.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/core/view.hpp"
#include "core_tokensets/io/atomic_file.hpp"
#include "core_tokensets/io/checksum.hpp"

namespace core_tokensets {

/// $XDG_CACHE_HOME/core_tokensets, or ~/.cache/core_tokensets; empty (no cache) where neither is set.
inline std::filesystem::path default_cache_folder() {
  namespace fs = std::filesystem;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return fs::path(cache) / "core_tokensets";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return fs::path(home) / ".cache" / "core_tokensets";
  }
  return {};
}

/// Decoded pictures of one size: `[n, height, width, channels]`.
struct decoded_pixels {
  index n = 0, height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels = {};
};

namespace detail {

// "ctsdpc02" in the file; pictures of 01 were not turned as their Exif says.
constexpr std::uint64_t cache_magic = 0x3230637064737463u;

/// FNV-1a over the FNV-1a sums of pieces of 1 MiB, which are computed in parallel.
inline std::uint64_t checksum_in_pieces(std::span<const std::byte> bytes, int threads) {
  constexpr index grain = index{1} << 20;
  const auto size = static_cast<index>(bytes.size());
  std::vector<std::uint64_t> sums(static_cast<std::size_t>((size + grain - 1) / grain));
  parallel_chunks(threads, size, grain, [&](index begin, index end) {
    sums[static_cast<std::size_t>(begin / grain)] =
        fnv1a(bytes.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  });
  return fnv1a(std::as_bytes(std::span<const std::uint64_t>(sums)));
}

inline std::filesystem::path cache_path(const std::filesystem::path& folder, std::string_view key) {
  return folder / ("pixels-" + checksum_text(fnv1a(std::as_bytes(std::span(key)))) + ".bin");
}

}  // namespace detail

/// The pictures stored under `key` if they were made from exactly this `listing`, otherwise nothing. Never throws.
inline std::optional<decoded_pixels> load_decoded(const std::filesystem::path& folder, std::string_view key,
                                                  std::string_view listing, int threads = 0) {
  if (folder.empty()) return std::nullopt;
  const auto path = detail::cache_path(folder, key);
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  try {
    const file_reader file(path);
    std::array<std::uint64_t, 8> header{};  // magic, n, height, width, channels, listing size, two checksums
    constexpr index header_size = sizeof header;
    if (file.size() < header_size) return std::nullopt;
    file.read(0, std::as_writable_bytes(std::span(header)));
    if (header[0] != detail::cache_magic || header[5] != listing.size()) return std::nullopt;
    std::uint64_t expected = 1;
    for (std::size_t i = 1; i <= 4; ++i) {
      if (header[i] == 0 || header[i] > static_cast<std::uint64_t>(file.size()) / expected) return std::nullopt;
      expected *= header[i];
    }
    const auto listed = static_cast<index>(listing.size());
    if (header_size + listed + static_cast<index>(expected) != file.size()) return std::nullopt;
    std::string found(listing.size(), '\0');
    file.read(header_size, std::as_writable_bytes(std::span(found)));
    if (found != listing || header[6] != fnv1a(std::as_bytes(std::span(header).first(6)))) return std::nullopt;
    decoded_pixels result{static_cast<index>(header[1]), static_cast<index>(header[2]), static_cast<index>(header[3]),
                          static_cast<index>(header[4])};
    result.pixels.resize(expected);
    const auto bytes = std::as_writable_bytes(std::span(result.pixels));
    file.read(header_size + listed, bytes);
    if (detail::checksum_in_pieces(bytes, threads) != header[7]) return std::nullopt;
    return result;
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// Stores pictures for the next time; false where that is not possible (read-only, full). Never throws.
inline bool store_decoded(const std::filesystem::path& folder, std::string_view key, std::string_view listing, index n,
                          index height, index width, index channels, std::span<const std::uint8_t> pixels,
                          int threads = 0) {
  if (folder.empty()) return false;
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return false;
  const auto word = [](auto x) { return static_cast<std::uint64_t>(x); };
  std::array<std::uint64_t, 8> header{
      detail::cache_magic, word(n), word(height), word(width), word(channels), word(listing.size()), 0, 0};
  header[6] = fnv1a(std::as_bytes(std::span(header).first(6)));
  header[7] = detail::checksum_in_pieces(std::as_bytes(pixels), threads);
  const std::array<std::span<const std::byte>, 3> pieces{std::as_bytes(std::span(header)),
                                                         std::as_bytes(std::span(listing)), std::as_bytes(pixels)};
  try {
    write_file(detail::cache_path(folder, key), std::span<const std::span<const std::byte>>(pieces));
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace core_tokensets
