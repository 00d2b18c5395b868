#pragma once
// A file of weights, whatever its names and its picture size, as a configuration and arrays of our network.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/model/vit.hpp"
#include "core_tokensets/model/weight_config.hpp"
#include "core_tokensets/model/weight_folding.hpp"
#include "core_tokensets/model/weight_parts.hpp"

namespace core_tokensets {

/// What shapes cannot tell, and what is wanted. Where these are empty the file's metadata `config` are used, which
/// `load_weights` completes by what lies beside the file; without either, the number of heads is an error and the
/// picture is that of the positions, a square one.
struct vit_hints {
  std::optional<index> heads = {};
  std::optional<index> height = {}, width = {};  ///< of the pictures; positions of another grid are interpolated
  std::optional<index> new_head = {};  ///< classes of a head for a file that has none, or one that cannot be computed
  std::uint64_t seed = 0;              ///< of what is not in the file: a new head, rows that the head gains later
};

/// A Vision Transformer as a file has it, brought into the form of ours, and what was done for that.
struct vit_weights {
  vit_config config;
  tensor_file file;                ///< arrays under timm's names with the shapes of the network's parameters
  bool has_normalisation = true;   ///< otherwise the file does not say how pictures are normalised
  bool has_head = true;            ///< otherwise the head is not in the file, and starts at random
  std::vector<std::string> notes;  ///< a line each: "positions of 14 x 14 patches interpolated ..."
};

/// What is found in a file, before anything is decided.
struct vit_survey {
  renamed_weights weights;
  std::vector<weight_part> parts;
  index dim = 0, depth = 0, hidden = 0, patch = 0, channels = 0;
  index heads = 0;                     ///< 0: the file does not say
  index classes = 0;                   ///< 0: there is no head
  index registers = 0;                 ///< a distillation token is one
  std::optional<index> height, width;  ///< of the pictures, as the metadata say
};

namespace detail {

/// The file's own word for a number from 1 on.
inline std::optional<index> stated(const tensor_file& file, const char* key) {
  const auto value = static_cast<index>(config_number(file, key, 0, 1, 1 << 20));
  return value > 0 ? std::optional(value) : std::nullopt;
}

/// The shape of an array with so many dimensions, none of them 0.
inline std::vector<index> whole_shape(const tensor_file& file, const std::string& name, std::size_t rank) {
  const auto& s = file.at(name).shape;
  require(s.size() == rank && std::all_of(s.begin(), s.end(), [](index n) { return n > 0; }), file.path, ": '", name,
          "' has shape ", shape_text(s), ", expected ", rank, " dimensions that are not 0");
  return s;
}

/// Files that hold something else than one Vision Transformer under names that are known.
inline void check_kind(const tensor_file& file) {
  const auto kind = file.metadata.find("kind");
  require(kind == file.metadata.end(), file.path, ": holds '", kind == file.metadata.end() ? "" : kind->second,
          "', not a Vision Transformer alone");
  for (const auto& entry : file.arrays) {
    require(!entry.first.ends_with("vision_model.embeddings.class_embedding") && entry.first != "visual.conv1.weight",
            file.path, ": holds CLIP ('", entry.first, "') under its own names, which cts does not know; its picture ",
            "half as timm stores it works, and so do ViT, DeiT, DINO and MAE");
  }
}

/// The grid of pictures of this size; nothing where patches do not tile them.
inline std::optional<grid_extent> grid_of(std::optional<index> height, std::optional<index> width, index patch) {
  if (!height || !width || *height % patch != 0 || *width % patch != 0) return std::nullopt;
  return grid_extent{*height / patch, *width / patch};
}

}  // namespace detail

/// Looks at a file without judging its unusual parts. `Error`: it is no Vision Transformer, by the name of the array
/// that is missing.
inline vit_survey survey_vit(tensor_file file) {
  detail::check_kind(file);
  vit_survey s;
  s.weights = with_timm_names(std::move(file));
  const tensor_file& own = s.weights.file;
  s.parts = unusual_parts(own);
  const auto proj = detail::whole_shape(own, "patch_embed.proj.weight", 4);
  s.dim = proj[0], s.channels = proj[1], s.patch = proj[2];
  s.depth = count_blocks(own);
  if (own.contains("blocks.0.mlp.fc1.weight")) s.hidden = detail::whole_shape(own, "blocks.0.mlp.fc1.weight", 2)[0];
  s.heads = detail::stated(own, "heads").value_or(0);
  if (own.contains("head.weight")) s.classes = detail::whole_shape(own, "head.weight", 2)[0];
  s.registers = detail::extent(own, "reg_token", 1) + detail::extent(own, "dist_token", 1);
  s.height = detail::stated(own, "H"), s.width = detail::stated(own, "W");
  return s;
}

/// What the positions of a file are for; the size that pictures shall have tells it where nothing else does. Nothing:
/// it is not known, or there are none.
inline std::optional<stored_positions> positions_of(const vit_survey& s, const vit_hints& hints = {}) {
  const tensor_file& own = s.weights.file;
  if (!own.contains("pos_embed")) return std::nullopt;
  return positions_of(own.at("pos_embed").shape, s.registers, detail::grid_of(s.height, s.width, s.patch),
                      detail::grid_of(hints.height, hints.width, s.patch));
}

namespace detail {

/// What the positions of a file are for. `Error`: they do not fit the patches, or their grid is not known.
inline stored_positions settled_positions(const vit_survey& s, const vit_hints& hints) {
  const tensor_file& own = s.weights.file;
  const auto& shape = own.at("pos_embed").shape;
  require((shape.size() == 3 || shape.size() == 4) &&
              std::all_of(shape.begin(), shape.end(), [](index n) { return n > 0; }),
          own.path, ": 'pos_embed' has shape ", shape_text(shape),
          ", expected [1, positions, channels] or [1, rows, columns, channels]");
  const auto found = positions_of(s, hints);
  const index patches = shape.size() == 3 ? shape[1] - 1 - s.registers : shape[1] * shape[2];
  require(found || !s.height || !s.width, own.path, ": 'pos_embed' has places for ", patches, " patches, pictures of ",
          s.height.value_or(0), "x", s.width.value_or(0), " (", told_by(own, "H"), ") in patches of ", s.patch,
          " have another number");
  require(found.has_value(), own.path, ": 'pos_embed' has places for ", patches, " patches, which is no square; ",
          "what tells the grid is 'H' and 'W' in the metadata 'config', or pictures of the size that it is for");
  require(shape.front() == 1 && shape.back() == s.dim, own.path, ": 'pos_embed' has shape ", shape_text(shape),
          ", expected 1 at the beginning and at the end the ", s.dim, " channels of the patches");
  return *found;
}

/// How pictures are cut: in the size that is wanted, that the file says, or that the positions have.
inline patch_grid picture_grid(const vit_survey& s, const grid_extent& stored, const vit_hints& hints) {
  const patch_grid grid{hints.height.value_or(s.height.value_or(stored.rows * s.patch)),
                        hints.width.value_or(s.width.value_or(stored.cols * s.patch)), s.channels, s.patch};
  require(grid.height > 0 && grid.width > 0 && grid.height % s.patch == 0 && grid.width % s.patch == 0,
          s.weights.file.path, ": its patches of ", s.patch, " do not tile pictures of ", grid.height, " x ",
          grid.width);
  return grid;
}

inline index heads_of(const vit_survey& s, const vit_hints& hints) {
  const std::string& path = s.weights.file.path;
  const config_origin beside = origin_of(s.weights.file, "heads");
  const std::string who = beside.file.empty() ? "the metadata 'config'" : beside.file + " and its '" + beside.key + "'";
  require(!hints.heads || s.heads == 0 || s.heads == *hints.heads, path, ": ", who, " say ", s.heads,
          " heads, asked for are ", hints.heads.value_or(0));
  const index heads = hints.heads.value_or(s.heads);
  require(heads >= 1, path, ": the number of heads does not follow from the shapes; name it (--heads)");
  require(s.dim % heads == 0, path, ": ", s.dim, " channels do not divide into ", heads, " heads",
          beside.file.empty() ? "" : " (" + told_by(s.weights.file, "heads") + ")");
  return heads;
}

/// `Error`: a file beside the weights says another shape than the arrays have.
inline void check_neighbours(const vit_survey& s) {
  const tensor_file& own = s.weights.file;
  const auto check = [&](const char* key, index have, const char* what) {
    if (origin_of(own, key).file.empty()) return;
    const index said = stated(own, key).value_or(0);
    require(said == have, own.path, ": ", told_by(own, key), " is ", said, ", its arrays have ", have, " ", what);
  };
  check("dim", s.dim, "channels");
  check("depth", s.depth, "blocks");
  check("hidden", s.hidden, "channels in the MLP");
  check("chans", s.channels, "channels of pictures");
  check("patch", s.patch, "pixels along a patch");
  check("patch_width", extent(own, "patch_embed.proj.weight", 3), "pixels along a patch");
  check("registers", s.registers, "registers");
  if (s.classes == 0 || has_foreign_head(s.parts)) return;
  check("classes", s.classes, "classes");
  if (origin_of(own, "class_names").file.empty()) return;
  const json config = config_of(own);
  const auto names = static_cast<index>(config.at("class_names").size());
  require(names == s.classes, own.path, ": ", told_by(own, "class_names"), " has ", names, " names, its arrays have ",
          s.classes, " classes");
}

/// What has been done to the weights, for people.
inline std::vector<std::string> notes_of(const vit_survey& s, const std::vector<std::string>& filled,
                                         const stored_positions& from, const grid_extent& to) {
  std::vector<std::string> notes;
  if (s.weights.names != "timm")
    notes.push_back("names of " + s.weights.names + (s.weights.packed ? ", queries, keys and values packed" : ""));
  for (const weight_part& part : s.parts) {
    if (part.fate != part_fate::computed) notes.push_back(to_text(part));
  }
  if (!filled.empty()) {
    std::string layers;
    for (const auto& layer : filled) layers += (layers.empty() ? "" : ", ") + layer;
    notes.push_back("no biases in " + layers + ": taken to be 0");
  }
  if (from.before == 0) notes.push_back("positions of patches alone: that of the class token is 0");
  if (from.grid != to) {
    notes.push_back("positions of " + to_text(from.grid) + " patches interpolated to " + to_text(to) +
                    " (bicubic, antialiased, as timm does)");
  }
  return notes;
}

}  // namespace detail

namespace detail {

/// A distillation token of which the head is not read is a register. `Error`: there are registers already.
inline void distillation_as_register(tensor_file& own) {
  const auto found = own.arrays.find("dist_token");
  if (found == own.arrays.end()) return;
  require(!own.contains("reg_token"), own.path, ": 'dist_token' and 'reg_token', expected one of them");
  own.arrays["reg_token"] = std::move(found->second);
  own.arrays.erase("dist_token");
}

/// `Error`: an array of a file that is none of the parameters.
inline void check_all_known(const tensor_file& file, const parameter_layout& layout) {
  for (const auto& entry : file.arrays) {
    const std::string& name = entry.first;
    const bool known =
        std::any_of(layout.table().begin(), layout.table().end(), [&](auto& p) { return p.name == name; });
    require(known, file.path, ": array '", name, "' is no parameter of the model that the others make");
  }
}

/// The classes of the head in the file; 0: it has none, or one that cannot be computed. `Error`: that, and no new head
/// is wanted.
inline index classes_of(const vit_survey& s, bool new_head) {
  const tensor_file& own = s.weights.file;
  const bool fits = extent(own, "head.weight", 1) == s.dim && !has_foreign_head(s.parts);
  require(s.classes > 0 || new_head, own.path, ": no array 'head.weight': a model without a head, as DINO and MAE are ",
          "published; it tells no classes until 'cts sequence --weights' has taught it some");
  return fits || !new_head ? s.classes : 0;
}

inline vit_config config_of(const vit_survey& s, const grid_extent& stored, const vit_hints& hints) {
  const tensor_file& own = s.weights.file;
  vit_config c;
  c.grid = picture_grid(s, stored, hints);
  c.dim = s.dim, c.depth = s.depth, c.registers = s.registers, c.heads = heads_of(s, hints), c.seed = hints.seed;
  c.mlp_ratio = static_cast<double>(s.hidden) / static_cast<double>(s.dim);
  c.qkv_bias = own.contains("blocks.0.attn.qkv.bias"), c.norm_pre = own.contains("norm_pre.weight");
  c.qk_norm = own.contains("blocks.0.attn.q_norm.weight");
  const double usual = c.norm_pre ? 1e-5 : s.weights.layer_norm_eps;  // as CLIP has it
  c.layer_norm_eps = config_number(own, "layernorm_eps", config_number(own, "layer_norm_eps", usual, 0, 1), 0, 1);
  c.normalisation = read_normalisation(own, s.channels);
  const index classes = classes_of(s, hints.new_head.has_value());
  c.classes = classes > 0 ? classes : *hints.new_head;
  if (classes > 0) c.class_names = read_class_names(own, classes);
  check(c);
  return c;
}

}  // namespace detail

/// The Vision Transformer of a file that was looked at. `Error` with the name of what is missing, does not fit or
/// cannot be computed.
inline vit_weights read_vit(vit_survey s, const vit_hints& hints = {}) {
  tensor_file& own = s.weights.file;
  refuse_parts(s.parts, hints.new_head.has_value(), own.path);
  detail::check_neighbours(s);
  detail::distillation_as_register(own);
  (void)detail::whole_shape(own, "blocks.0.mlp.fc1.weight", 2);
  const stored_positions positions = detail::settled_positions(s, hints);
  vit_weights result;
  result.config = detail::config_of(s, positions.grid, hints);
  result.has_normalisation = detail::says_normalisation(own);
  result.has_head = detail::classes_of(s, hints.new_head.has_value()) > 0;

  drop_parts(own, hints.new_head.has_value());
  if (!result.has_head) std::erase_if(own.arrays, [](const auto& entry) { return entry.first.starts_with("head."); });
  const auto filled = fill_biases(own);
  fold_layer_scale(own);
  const grid_extent grid{result.config.grid.rows(), result.config.grid.cols()};
  fit_positions(own, positions, s.registers, grid);
  result.notes = detail::notes_of(s, filled, positions, grid);
  if (!result.has_head) result.notes.push_back("without a head of its own");
  result.file = std::move(own);
  return result;
}

/// The Vision Transformer stored in `file`.
inline vit_weights read_vit(tensor_file file, const vit_hints& hints = {}) {
  return read_vit(survey_vit(std::move(file)), hints);
}

}  // namespace core_tokensets
