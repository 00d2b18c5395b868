#pragma once
// What the tokens of a memory are: the picture grid that they come from, what is kept beside their pixels, and the
// plain arrays that hold them (a sparse matrix in compressed rows: one row a sample, one column a grid position).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/core/options.hpp"
#include "core_tokensets/data/patch_grid.hpp"
#include "core_tokensets/io/dtype.hpp"
#include "core_tokensets/memory/token_weights.hpp"

namespace core_tokensets {

/// How the relevance of each token is kept: not at all; in 16 bits relative to the largest magnitude of its sample,
/// whose scale is kept too (so that order survives at any scale, and samples can be compared); or as it is in 32 bits.
enum class relevance_storage { none, f16, f32 };

template <>
inline constexpr std::array words<relevance_storage>{"none", "f16", "f32"};

/// A named column of a memory, for what else shall be remembered: `width` numbers of `type` for each sample or for each
/// token. Its bytes count; readers that do not know the name carry it along.
struct memory_column {
  std::string name;
  dtype type = dtype::f32;
  index width = 1;
  bool per_token = false;

  index bytes() const { return width * byte_size(type); }
  bool operator==(const memory_column&) const = default;
};

/// The columns in which a memory keeps the weights of tokens: `token_weighting::drawn` with room for so many tokens a
/// sample, or `each`. Their names are taken.
inline memory_column drawn_column(index most_tokens) {
  return {"weights.drawn", dtype::u8, detail::weight_bytes(token_weighting::drawn, most_tokens), false};
}
inline const memory_column each_column{"weights.each", dtype::u8, 1, true};

/// How pictures are cut, and what is kept beside the pixels.
struct token_memory_format {
  patch_grid grid = {};
  relevance_storage relevance = relevance_storage::none;
  bool texts = false;  ///< each sample comes with a prompt and an answer
  std::vector<memory_column> columns = {};

  /// `Error` unless the patches tile the picture, positions fit 16 bits and columns have names and numbers.
  void check() const {
    grid.check("token memory");
    constexpr index limit = 1 << 16;
    require(grid.tokens() <= limit, "token memory: ", grid.tokens(), " tokens an image, expected at most ", limit);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const auto& c = columns[i];
      require(!c.name.empty() && c.width > 0 && c.width <= limit, "token memory: column '", c.name, "' of width ",
              c.width, ", expected a name and a width of 1 to ", limit);
      require(!c.name.starts_with("weights.") || c == each_column || c == drawn_column(8 * c.width),
              "token memory: column '", c.name, "' is none in which token weights are kept");
      for (std::size_t j = 0; j < i; ++j) {
        require(columns[j].name != c.name || columns[j].per_token != c.per_token, "token memory: two columns named '",
                c.name, "'");
      }
    }
  }

  /// Makes room for the weights of at most so many tokens a sample; a larger sample has none (all are 1).
  void add_weighting(token_weighting how, index most_tokens) {
    if (how == token_weighting::drawn) columns.push_back(drawn_column(most_tokens));
    if (how == token_weighting::each) columns.push_back(each_column);
  }
  /// Bytes of that column for a sample of n tokens; 0 without one.
  index weight_bytes(index n) const {
    for (const auto& c : columns) {
      if (c == each_column) return n;
      if (c.name == "weights.drawn") return c.width;
    }
    return 0;
  }
  token_weighting weighting() const {
    for (const auto& c : columns) {
      if (c == each_column) return token_weighting::each;
      if (c.name == "weights.drawn") return token_weighting::drawn;
    }
    return token_weighting::none;
  }

  bool operator==(const token_memory_format&) const = default;
};

/// One sample to be appended, owned by someone else: n tokens, their target, weight and task.
struct stored_sample {
  std::span<const std::uint8_t> patches;     ///< [n, patch_dim], raw pixels in the order channel, row, column
  std::span<const std::uint16_t> positions;  ///< [n], row-major grid indices
  std::span<const float> relevance = {};     ///< [n]; looked at only where the memory keeps it
  std::int32_t target = 0;
  float weight = 1;  ///< kept in 16 bits
  std::uint32_t task = 0;
  std::string_view prompt = {}, answer = {};     ///< UTF-8, empty in a memory without texts
  std::span<const float> token_weights = {};     ///< [n], or empty: all 1; kept as the format says
  std::span<const std::uint8_t> qualities = {};  ///< [n], one for all, or empty: how sharp; the codec must have them

  index tokens() const { return static_cast<index>(positions.size()); }
};

/// One sample of a memory, its pixels unpacked; the views are valid until the memory changes.
struct recalled_sample {
  std::vector<std::uint8_t> patches;         ///< [n, patch_dim]
  std::span<const std::uint16_t> positions;  ///< [n], rising
  std::span<const float> relevance;          ///< [n], or empty where the memory keeps none
  std::int32_t target = 0;
  float weight = 1;
  std::uint32_t task = 0;
  std::string_view prompt, answer;
  std::vector<float> token_weights = {};  ///< [n], or empty where the memory keeps none

  index tokens() const { return static_cast<index>(positions.size()); }
  operator stored_sample() const {
    return {patches, positions, relevance, target, weight, task, prompt, answer, token_weights, {}};
  }
};

/// S samples with T tokens: sample s owns rows `offsets[s] .. offsets[s+1]` of the per-token arrays, its positions
/// rising, and the bytes `pixel_offsets[s] .. pixel_offsets[s+1]` of the packed pixels.
struct token_arrays {
  token_memory_format format;
  std::vector<std::byte> pixels;                ///< packed by the memory's codec, one sample behind the other
  std::vector<std::uint64_t> pixel_offsets{0};  ///< [S + 1]
  std::vector<std::uint16_t> positions;         ///< [T]
  std::vector<float> relevance;                 ///< [T], or empty
  std::vector<float> relevance_scale;           ///< [S] where relevance is kept in 16 bits, or empty
  std::vector<std::uint64_t> offsets{0};        ///< [S + 1]
  std::vector<std::int32_t> targets;            ///< [S]
  std::vector<float> weights;                   ///< [S], each of them a half
  std::vector<std::uint32_t> tasks;             ///< [S]
  std::vector<std::uint8_t> text;               ///< prompts and answers one behind the other, or empty
  std::vector<std::uint64_t> text_offsets{};    ///< [2 S + 1] where each prompt and each answer begins, or empty
  std::vector<std::vector<std::byte>> columns;  ///< of the format's columns, [S or T, width]
  std::map<std::string, std::string> metadata;

  index samples() const { return static_cast<index>(targets.size()); }
  index tokens() const { return static_cast<index>(positions.size()); }
  index tokens_of(index s) const {
    return static_cast<index>(offsets[static_cast<std::size_t>(s) + 1] - offsets[static_cast<std::size_t>(s)]);
  }
  std::span<const std::uint16_t> positions_of(index s) const {
    return std::span(positions).subspan(static_cast<std::size_t>(offsets[static_cast<std::size_t>(s)]),
                                        static_cast<std::size_t>(tokens_of(s)));
  }
  /// The packed pixels of sample s.
  std::span<const std::uint8_t> pixels_of(index s) const {
    const auto begin = pixel_offsets[static_cast<std::size_t>(s)], end = pixel_offsets[static_cast<std::size_t>(s) + 1];
    return {reinterpret_cast<const std::uint8_t*>(pixels.data()) + begin, static_cast<std::size_t>(end - begin)};
  }
  /// Text number i: the prompts are the even ones, the answers the odd ones.
  std::string_view text_of(std::size_t i) const {
    if (!format.texts) return {};
    return {reinterpret_cast<const char*>(text.data()) + text_offsets[i],
            static_cast<std::size_t>(text_offsets[i + 1] - text_offsets[i])};
  }

  /// `Error` unless all arrays fit each other and the format; `name` stands for the memory in messages.
  void check(const std::string& name) const;
};

namespace detail {

/// `Error` unless `offsets` rises from 0 to `end`.
inline void check_offsets(const std::string& name, const char* array, const std::vector<std::uint64_t>& offsets,
                          std::size_t end) {
  require(!offsets.empty() && offsets.front() == 0 && offsets.back() == end &&
              std::is_sorted(offsets.begin(), offsets.end()),
          name, ": array '", array, "' does not rise from 0 to ", end);
}

}  // namespace detail

inline void token_arrays::check(const std::string& name) const {
  format.check();
  const auto s_count = targets.size(), t_count = positions.size();
  const auto size = [&](const std::string& array, std::size_t got, std::size_t want) {
    require(got == want, name, ": array '", array, "' has ", got, " elements, expected ", want);
  };
  size("offsets", offsets.size(), s_count + 1);
  size("pixel_offsets", pixel_offsets.size(), s_count + 1);
  size("weights", weights.size(), s_count);
  size("tasks", tasks.size(), s_count);
  size("relevance", relevance.size(), format.relevance == relevance_storage::none ? 0 : t_count);
  size("relevance_scale", relevance_scale.size(), format.relevance == relevance_storage::f16 ? s_count : 0);
  size("text_offsets", text_offsets.size(), format.texts ? 2 * s_count + 1 : 0);
  size("columns", columns.size(), format.columns.size());
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const auto& column = format.columns[c];
    size(column.name, columns[c].size(),
         (column.per_token ? t_count : s_count) * static_cast<std::size_t>(column.bytes()));
    for (index s = 0; column.name == "weights.drawn" && s < samples(); ++s) {
      const auto codes =
          std::span(columns[c])
              .subspan(static_cast<std::size_t>(s * column.width), static_cast<std::size_t>(column.width));
      const bool none = std::all_of(codes.begin(), codes.end(), [](std::byte code) { return code == std::byte{0}; });
      require(none || tokens_of(s) <= 8 * column.width, name, ": array 'weights.drawn': sample ", s, " has ",
              tokens_of(s), " tokens with weights, there is room for ", 8 * column.width);
    }
  }
  detail::check_offsets(name, "offsets", offsets, t_count);
  detail::check_offsets(name, "patches", pixel_offsets, pixels.size());
  for (std::size_t s = 0; s < s_count; ++s) {
    require(offsets[s] < offsets[s + 1], name, ": array 'offsets': sample ", s, " has no tokens");
    require(std::isfinite(weights[s]), name, ": array 'weights': the weight of sample ", s, " is not finite");
    for (std::size_t t = offsets[s]; t < offsets[s + 1]; ++t) {
      require(positions[t] < format.grid.tokens() && (t == offsets[s] || positions[t - 1] < positions[t]), name,
              ": array 'positions': sample ", s, ": position ", positions[t], " is outside the grid of ",
              format.grid.tokens(), " or not above the one before");
    }
  }
  const auto finite = [&](const char* array, const std::vector<float>& values) {
    require(std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }), name, ": array '",
            array, "' holds a number that is not finite");
  };
  finite("relevance", relevance);
  finite("relevance_scale", relevance_scale);
  require(format.texts || text.empty(), name, ": array 'text' has ", text.size(), " elements, expected none");
  if (format.texts) detail::check_offsets(name, "text_sizes", text_offsets, text.size());
}

}  // namespace core_tokensets
