#pragma once
// Weights of other Vision Transformers changed into ones of ours that compute the same: LayerScale, layers without a
// bias, positions without one for the class token or of another grid. In double, so that nothing is lost.

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core_tokensets/io/safetensors.hpp"
#include "core_tokensets/model/position_grid.hpp"

namespace core_tokensets {

namespace detail {

/// gamma * (W x + b) = (gamma W) x + gamma b: the rows of a layer `[Out, ...]` times gamma `[Out]`.
inline void scale_rows(host_array& layer, const std::vector<double>& gamma, const std::string& what) {
  require(!layer.shape.empty() && layer.shape.front() == static_cast<index>(gamma.size()), what, " has ", gamma.size(),
          " numbers, the layer before it has the shape ", shape_text(layer.shape));
  auto numbers = layer.as<double>();
  const std::size_t columns = gamma.empty() ? 0 : numbers.size() / gamma.size();
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] *= gamma[i / columns];
  layer = host_array::of(numbers, layer.shape);
}

inline std::string block_name(index i) { return "blocks." + std::to_string(i) + "."; }

}  // namespace detail

/// How many blocks there are: block i is one if any array is named `blocks.i.`.
inline index count_blocks(const tensor_file& file) {
  index depth = 0;
  for (;; ++depth) {
    const std::string name = detail::block_name(depth);
    const auto next = file.arrays.lower_bound(name);
    if (next == file.arrays.end() || !next->first.starts_with(name)) return depth;
  }
}

/// Multiplies the factors of LayerScale (Touvron et al., ICCV 2021, eq. 4) into the layers before them and takes them
/// away. `Error`: another number of factors than the layer has outputs.
inline void fold_layer_scale(tensor_file& file) {
  const index depth = count_blocks(file);
  for (index i = 0; i < depth; ++i) {
    for (const auto& [scale, layer] : {std::pair("ls1.gamma", "attn.proj"), std::pair("ls2.gamma", "mlp.fc2")}) {
      const std::string block = detail::block_name(i);
      const auto found = file.arrays.find(block + scale);
      if (found == file.arrays.end()) continue;
      const auto gamma = found->second.as<double>();
      for (const char* end : {".weight", ".bias"}) {
        const auto array = file.arrays.find(block + layer + end);
        if (array != file.arrays.end())
          detail::scale_rows(array->second, gamma, file.path + ": '" + found->first + "'");
      }
      file.arrays.erase(found);
    }
  }
}

/// Zeros for biases that no layer of their kind has; returns the kinds. One that is missing in some blocks stays
/// missing.
inline std::vector<std::string> fill_biases(tensor_file& file) {
  std::vector<std::string> filled;
  const auto fill = [&](const std::string& layer) {
    const auto weight = file.arrays.find(layer + ".weight");
    if (weight == file.arrays.end() || weight->second.shape.empty()) return false;
    const index n = weight->second.shape.front();
    if (n < 0 || n > (index{1} << 20)) return false;
    file.arrays[layer + ".bias"] = host_array::of(std::vector<float>(static_cast<std::size_t>(n), 0.0f));
    return true;
  };
  for (const std::string layer : {"patch_embed.proj", "head"}) {
    if (!file.contains(layer + ".bias") && fill(layer)) filled.push_back(layer);
  }
  const index depth = count_blocks(file);
  for (const std::string layer : {"attn.proj", "mlp.fc1", "mlp.fc2"}) {
    bool none = depth > 0;
    for (index i = 0; i < depth; ++i) none = none && !file.contains(detail::block_name(i) + layer + ".bias");
    for (index i = 0; none && i < depth; ++i) none = fill(detail::block_name(i) + layer);
    if (none) filled.push_back(layer);
  }
  return filled;
}

/// What a file's positions are for.
struct stored_positions {
  grid_extent grid;  ///< of the patches
  index before = 1;  ///< rows before theirs: none, that of the class token, or those of class token and registers
  bool operator==(const stored_positions&) const = default;
};

namespace detail {

/// The square grid of so many patches, if there is one.
inline std::optional<grid_extent> square_of(index patches) {
  const auto side = static_cast<index>(std::llround(std::sqrt(static_cast<double>(std::max<index>(patches, 0)))));
  if (patches < 1 || side * side != patches) return std::nullopt;
  return grid_extent{side, side};
}

}  // namespace detail

/// What `pos_embed` of this shape is for, `[1, rows, D]` with rows for class token and registers, for the class token,
/// or for patches alone, or `[1, grid rows, grid columns, D]`. A grid that is `known` must fit; else that which is
/// `wanted` is taken where it does, else a square one. Nothing: it can be none of these.
inline std::optional<stored_positions> positions_of(const std::vector<index>& shape, index registers,
                                                    const std::optional<grid_extent>& known,
                                                    const std::optional<grid_extent>& wanted) {
  if (shape.size() == 4) return stored_positions{{shape[1], shape[2]}, 0};
  if (shape.size() != 3) return std::nullopt;
  for (const index before : {1 + registers, index{1}, index{0}}) {
    const index patches = shape[1] - before;
    const auto square = detail::square_of(patches);
    if (known && known->patches() == patches) return stored_positions{*known, before};
    if (!known && wanted && wanted->patches() == patches) return stored_positions{*wanted, before};
    if (!known && square) return stored_positions{*square, before};
  }
  return std::nullopt;
}

/// Brings `pos_embed` to `[1, 1 + registers + patches, D]` for the grid `to`. A class token or register without a
/// position gets one of zeros.
inline void fit_positions(tensor_file& file, const stored_positions& from, index registers, const grid_extent& to) {
  const host_array& stored = file.at("pos_embed");
  const index dim = stored.shape.back(), before = 1 + registers;
  if (from == stored_positions{to, before} && stored.shape.size() == 3) return;
  const auto numbers = stored.as<double>();
  const auto first = static_cast<std::size_t>(from.before * dim);
  std::vector<double> fresh(static_cast<std::size_t>(before * dim), 0.0);
  std::copy_n(numbers.begin(), first, fresh.begin());
  const auto patches = resample_positions(std::span(numbers).subspan(first), from.grid, to, dim);
  fresh.insert(fresh.end(), patches.begin(), patches.end());
  file.arrays["pos_embed"] = host_array::of(fresh, {1, before + to.patches(), dim});
}

}  // namespace core_tokensets
