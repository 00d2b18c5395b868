#pragma once
// What a memory keeps, to look at: its tokens in their places, beside the pictures that they came from.

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "core_tokensets/report/mosaic.hpp"

namespace core_tokensets {

namespace detail {

/// `count` numbers spread evenly over 0 .. n-1.
inline std::vector<index> spread(index n, index count) {
  std::vector<index> chosen;
  for (index i = 0; i < std::min(n, count); ++i) chosen.push_back(i * n / std::min(n, count));
  return chosen;
}

/// So many times larger that a side has about 96 pixels.
inline index zoom_for(index height, index width) { return std::max<index>(1, 96 / std::max(height, width)); }

inline std::string class_name(const std::vector<std::string>& names, index label) {
  return label < 0 || label >= static_cast<index>(names.size()) ? std::to_string(label)
                                                                : names[static_cast<std::size_t>(label)];
}

/// What stands below a picture of a class: its name, or "class 3" where the letters of pictures are too few for it.
inline std::string class_label(const std::vector<std::string>& names, index label) {
  const std::string name = class_name(names, label);
  const bool can_be_drawn = std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
  return can_be_drawn ? name : "class " + std::to_string(label);
}

}  // namespace detail

/// "class 3: Grün, class 5: 猫" of the classes whose names sheets cannot show, to be written beside them; empty: none.
inline std::string class_legend(const std::vector<std::string>& names) {
  std::string legend;
  for (index k = 0; k < static_cast<index>(names.size()); ++k) {
    const auto& name = names[static_cast<std::size_t>(k)];
    const std::string label = detail::class_label(names, k);
    if (label != name) legend += (legend.empty() ? "" : ", ") + label + ": " + name;
  }
  return legend;
}

/// Sample s as a picture of three channels, its tokens in their places as the memory's codec gives them back, and quiet
/// grey where there is none. `Error`: pixels that are neither grey nor colour.
inline image picture_of(const token_memory& memory, index s) {
  const patch_grid& grid = memory.format().grid;
  require(grid.channels == 1 || grid.channels == 3, "memory: pictures of ", grid.channels,
          " channels, expected 1 or 3");
  const auto sample = memory.sample(s);
  const std::vector<std::int32_t> positions(sample.positions.begin(), sample.positions.end());
  return kept_patches(unpatchify(sample.patches, positions, grid), grid.patch, positions);
}

/// Up to `count` samples of a memory, spread over it: each picture and, beside it, what the memory kept of it.
/// `pictures` `[S]` says which picture of `data` each sample came from; -1: nobody knows, and only what was kept is
/// shown. Captions are the classes (`class_legend`), or what the memory keeps of texts. `Error`: an empty memory.
inline image kept_tokens_sheet(const token_memory& memory, const dataset& data, std::span<const index> pictures,
                               index count = 20) {
  require(!memory.empty(), "kept_tokens_sheet: the memory is empty");
  require(static_cast<index>(pictures.size()) == memory.samples(), "kept_tokens_sheet: ", pictures.size(),
          " pictures for ", memory.samples(), " samples");
  const bool texts = memory.format().texts;
  const patch_grid& grid = memory.format().grid;
  std::vector<sheet_cell> cells;
  for (const index s : detail::spread(memory.samples(), count)) {
    const auto sample = memory.sample(s);
    const index source = pictures[static_cast<std::size_t>(s)];
    const image blank(grid.height, grid.width, 3, 230);
    std::string of_kept = std::to_string(sample.tokens()) + " of " + std::to_string(grid.tokens());
    if (texts) of_kept = std::string(sample.answer) + " (" + of_kept + ")";
    cells.push_back({source < 0 ? blank : grey_to_rgb(data.view_of(source)),
                     texts ? std::string(sample.prompt) : detail::class_label(data.class_names, sample.target)});
    cells.push_back({picture_of(memory, s), std::move(of_kept)});
  }
  // Texts need room.
  return contact_sheet(cells, {.columns = texts ? 6 : 8,
                               .zoom = detail::zoom_for(grid.height, grid.width) * (texts ? 3 : 1),
                               .title = "Pictures and what is kept of them"});
}

}  // namespace core_tokensets
