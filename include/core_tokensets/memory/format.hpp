#pragma once
// What the tokens of a memory are: the picture grid that they come from, how their pixels are normalised, and the plain
// arrays that hold them (a sparse matrix in compressed rows: one row a sample, one column a grid position).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/view.hpp"

namespace core_tokensets {

/// How the relevance of each token is kept: not at all (a coreset of whole images needs none), or in 16 bits relative
/// to the largest magnitude of its sample (so that order survives at any scale), or as it is in 32 bits.
enum class relevance_storage { none, f16, f32 };

/// Grid and normalisation of the pictures, (x / 255 - mean) / stddev per channel; empty means 0 and 1.
struct token_memory_format {
  index image_height = 0, image_width = 0, channels = 3, patch = 0;
  std::vector<float> mean = {}, stddev = {};  ///< [channels] or empty
  relevance_storage relevance = relevance_storage::f16;
  bool texts = false;  ///< each sample comes with a prompt and an answer

  index grid_rows() const { return image_height / patch; }
  index grid_cols() const { return image_width / patch; }
  /// Tokens of a whole image.
  index grid_tokens() const { return grid_rows() * grid_cols(); }
  /// Bytes of a raw token.
  index patch_dim() const { return channels * patch * patch; }

  /// `Error` unless the patches tile the image, positions fit 16 bits and the normalisation is finite.
  void check() const {
    constexpr index limit = 1 << 16;
    require(image_height > 0 && image_width > 0 && channels > 0 && patch > 0 && image_height <= limit &&
                image_width <= limit && channels <= limit && image_height % patch == 0 && image_width % patch == 0,
            "token memory: image ", image_height, " x ", image_width, " x ", channels, " with patches of ", patch,
            ": expected positive extents up to ", limit, ", height and width divisible by the patch");
    require(grid_tokens() <= limit, "token memory: ", grid_tokens(), " tokens an image, expected at most ", limit);
    const auto size = static_cast<std::size_t>(channels);
    require((mean.empty() || mean.size() == size) && (stddev.empty() || stddev.size() == size),
            "token memory: ", mean.size(), " means and ", stddev.size(), " standard deviations for ", channels,
            " channels");
    require(std::all_of(mean.begin(), mean.end(), [](float x) { return std::isfinite(x); }) &&
                std::all_of(stddev.begin(), stddev.end(), [](float x) { return std::isfinite(x) && x > 0; }),
            "token memory: means must be finite, standard deviations finite and positive");
  }

  bool operator==(const token_memory_format&) const = default;
};

/// One sample, owned by someone else: n tokens, their target, weight and task.
struct stored_sample {
  std::span<const std::uint8_t> patches;     ///< [n, patch_dim], raw pixels in the order channel, row, column
  std::span<const std::uint16_t> positions;  ///< [n], row-major grid indices
  std::span<const float> relevance = {};     ///< [n], or empty in a memory that keeps none
  std::int32_t target = 0;
  float weight = 1;
  std::uint16_t task = 0;
  std::string_view prompt = {}, answer = {};  ///< UTF-8, empty in a memory without texts

  index tokens() const { return static_cast<index>(positions.size()); }
};

/// S samples with T tokens: sample s owns rows `offsets[s] .. offsets[s+1]` of the per-token arrays, its positions
/// rising.
struct token_arrays {
  token_memory_format format;
  std::vector<std::uint8_t> patches;          ///< [T, patch_dim]
  std::vector<std::uint16_t> positions;       ///< [T]
  std::vector<float> relevance;               ///< [T], or empty
  std::vector<std::uint64_t> offsets{0};      ///< [S + 1]
  std::vector<std::int32_t> targets;          ///< [S]
  std::vector<float> weights;                 ///< [S]
  std::vector<std::uint16_t> tasks;           ///< [S]
  std::vector<std::uint8_t> text;             ///< prompts and answers one behind the other, or empty
  std::vector<std::uint32_t> text_offsets{};  ///< [2 S + 1] where each prompt and each answer begins, or empty
  std::map<std::string, std::string> metadata;

  index samples() const { return static_cast<index>(targets.size()); }
  index tokens() const { return static_cast<index>(positions.size()); }

  stored_sample sample(index s) const {
    const auto i = static_cast<std::size_t>(s);
    const auto begin = static_cast<std::size_t>(offsets[i]), count = static_cast<std::size_t>(offsets[i + 1]) - begin;
    const auto dim = static_cast<std::size_t>(format.patch_dim());
    return {.patches = std::span(patches).subspan(begin * dim, count * dim),
            .positions = std::span(positions).subspan(begin, count),
            .relevance = relevance.empty() ? std::span<const float>() : std::span(relevance).subspan(begin, count),
            .target = targets[i],
            .weight = weights[i],
            .task = tasks[i],
            .prompt = text_of(2 * i),
            .answer = text_of(2 * i + 1)};
  }

  /// Text number i: the prompts are the even ones, the answers the odd ones.
  std::string_view text_of(std::size_t i) const {
    if (!format.texts) return {};
    return {reinterpret_cast<const char*>(text.data()) + text_offsets[i], text_offsets[i + 1] - text_offsets[i]};
  }

  /// `Error` unless all arrays fit each other and the format; `name` stands for the memory in messages.
  void check(const std::string& name) const {
    format.check();
    const auto s_count = targets.size(), t_count = positions.size();
    const auto size = [&](const char* array, std::size_t got, std::size_t want) {
      require(got == want, name, ": array '", array, "' has ", got, " elements, expected ", want);
    };
    size("offsets", offsets.size(), s_count + 1);
    size("weights", weights.size(), s_count);
    size("tasks", tasks.size(), s_count);
    size("relevance", relevance.size(), format.relevance == relevance_storage::none ? 0 : t_count);
    size("patches", patches.size(), t_count * static_cast<std::size_t>(format.patch_dim()));
    require(offsets.front() == 0 && offsets.back() == t_count, name, ": array 'offsets' runs from ", offsets.front(),
            " to ", offsets.back(), ", expected 0 to ", t_count);
    for (std::size_t s = 0; s < s_count; ++s) {
      require(offsets[s] < offsets[s + 1] && offsets[s + 1] <= t_count, name, ": array 'offsets': sample ", s,
              " has no tokens, or more than there are");
      require(std::isfinite(weights[s]), name, ": array 'weights': the weight of sample ", s, " is not finite");
      for (std::size_t t = offsets[s]; t < offsets[s + 1]; ++t) {
        require(positions[t] < format.grid_tokens() && (t == offsets[s] || positions[t - 1] < positions[t]), name,
                ": array 'positions': sample ", s, ": position ", positions[t], " is outside the grid of ",
                format.grid_tokens(), " or not above the one before");
      }
    }
    require(std::all_of(relevance.begin(), relevance.end(), [](float x) { return std::isfinite(x); }), name,
            ": array 'relevance' holds a number that is not finite");
    size("text_offsets", text_offsets.size(), format.texts ? 2 * s_count + 1 : 0);
    require(format.texts || text.empty(), name, ": array 'text' has ", text.size(), " elements, expected none");
    require(!format.texts || (text_offsets.front() == 0 && text_offsets.back() == text.size() &&
                              std::is_sorted(text_offsets.begin(), text_offsets.end())),
            name, ": array 'text_offsets' does not rise from 0 to ", text.size());
  }
};

}  // namespace core_tokensets
