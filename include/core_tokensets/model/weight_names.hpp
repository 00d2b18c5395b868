#pragma once
// Weights under other people's names: what the arrays of Hugging Face's ViT, DeiT and DINOv2, and of timm's models
// inside of another one, are called here, which is as timm calls them.

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/io/safetensors.hpp"

namespace core_tokensets {

/// Arrays under timm's names, and whose names they had.
struct renamed_weights {
  tensor_file file;
  std::string names = "timm";    ///< for messages: "timm", "Hugging Face's ViT", ...
  double layer_norm_eps = 1e-6;  ///< what models of that origin have unless they say otherwise
  bool packed = false;           ///< queries, keys and values were apart
};

namespace detail {

using name_pair = std::pair<std::string_view, std::string_view>;

/// Beginnings of names outside of the blocks: Hugging Face's, and those of the published DINOv2.
inline constexpr std::array other_beginnings{name_pair{"embeddings.cls_token", "cls_token"},
                                             name_pair{"embeddings.position_embeddings", "pos_embed"},
                                             name_pair{"embeddings.mask_token", "mask_token"},
                                             name_pair{"embeddings.distillation_token", "dist_token"},
                                             name_pair{"embeddings.register_tokens", "reg_token"},
                                             name_pair{"embeddings.patch_embeddings.projection.", "patch_embed.proj."},
                                             name_pair{"layernorm.", "norm."},
                                             name_pair{"classifier.", "head."},
                                             name_pair{"cls_classifier.", "head."},
                                             name_pair{"distillation_classifier.", "head_dist."},
                                             name_pair{"pooler.dense.", "pooler."},
                                             name_pair{"register_tokens", "reg_token"}};

/// Beginnings of names inside of a block.
inline constexpr std::array other_beginnings_in_block{name_pair{"attention.attention.query.", "attn.q."},
                                                      name_pair{"attention.attention.key.", "attn.k."},
                                                      name_pair{"attention.attention.value.", "attn.v."},
                                                      name_pair{"attention.output.dense.", "attn.proj."},
                                                      name_pair{"intermediate.dense.", "mlp.fc1."},
                                                      name_pair{"output.dense.", "mlp.fc2."},
                                                      name_pair{"layernorm_before.", "norm1."},
                                                      name_pair{"layernorm_after.", "norm2."},
                                                      name_pair{"layer_scale1.lambda1", "ls1.gamma"},
                                                      name_pair{"layer_scale2.lambda1", "ls2.gamma"},
                                                      name_pair{"gamma_1", "ls1.gamma"},
                                                      name_pair{"gamma_2", "ls2.gamma"}};

/// `name` with its beginning exchanged by the first row of a table that fits.
template <class Table>
std::string exchange_beginning(std::string_view name, const Table& table) {
  for (const auto& [theirs, ours] : table) {
    if (name.starts_with(theirs)) return std::string(ours) + std::string(name.substr(theirs.size()));
  }
  return std::string(name);
}

/// The number behind `beginning` and what follows its point; nothing where a name has another form.
inline std::optional<std::pair<std::string, std::string_view>> numbered(std::string_view name,
                                                                        std::string_view beginning) {
  if (!name.starts_with(beginning)) return std::nullopt;
  name.remove_prefix(beginning.size());
  std::size_t digits = 0;
  while (digits < name.size() && std::isdigit(static_cast<unsigned char>(name[digits])) != 0) ++digits;
  if (digits == 0 || digits > 6 || digits + 1 >= name.size() || name[digits] != '.') return std::nullopt;
  return std::pair{std::string(name.substr(0, digits)), name.substr(digits + 1)};
}

/// timm's name of an array.
inline std::string timm_name(std::string_view name) {
  for (const std::string_view blocks : {"encoder.layer.", "blocks."}) {
    const std::size_t inside = blocks == "blocks." ? 0 : std::min(name.find(blocks), name.size());
    if (const auto found = numbered(name.substr(inside), blocks))
      return "blocks." + found->first + "." + exchange_beginning(found->second, other_beginnings_in_block);
  }
  return exchange_beginning(name, other_beginnings);
}

/// What stands before every name of the encoder ("", "vit.", "module.", ...): before the weight that cuts patches.
inline std::string common_beginning(const tensor_file& file) {
  for (const std::string_view end : {"patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"}) {
    for (const auto& entry : file.arrays) {
      const std::string_view name = entry.first;
      if (!name.ends_with(end)) continue;
      const std::string_view before = name.substr(0, name.size() - end.size());
      if (before.empty() || before.back() == '.') return std::string(before);
    }
  }
  return "";
}

/// Whose names these are, by what only they have.
inline void recognise(const tensor_file& file, const std::string& before, renamed_weights& to) {
  if (!file.contains(before + "embeddings.patch_embeddings.projection.weight")) return;
  const bool dino = file.contains(before + "encoder.layer.0.norm1.weight");
  to.names = dino ? "Hugging Face's DINOv2" : "Hugging Face's ViT";
  if (!dino) to.layer_norm_eps = 1e-12;
}

/// Three arrays below one another, of the widest type among them; a missing one (of biases) is zeros.
inline host_array stacked(const std::array<const host_array*, 3>& parts, const std::string& what) {
  const host_array* some = nullptr;
  for (const host_array* part : parts) some = some == nullptr ? part : some;
  host_array all{dtype::f64, some->shape, {}};
  bool same = true;
  for (const host_array* part : parts) {
    require(part == nullptr || part->shape == some->shape, what, ": queries, keys and values have the shapes ",
            shape_text(some->shape), " and ", shape_text(part == nullptr ? some->shape : part->shape),
            ", expected the same");
    same = same && part != nullptr && part->type == some->type;
  }
  if (same) all.type = some->type;
  for (const host_array* part : parts) {
    const auto bytes = part != nullptr
                           ? part->to(all.type).bytes
                           : std::vector<std::byte>(static_cast<std::size_t>(some->size() * byte_size(all.type)));
    all.bytes.insert(all.bytes.end(), bytes.begin(), bytes.end());
  }
  if (!all.shape.empty()) all.shape.front() *= 3;
  return all;
}

/// `attn.q`, `attn.k` and `attn.v` of every block as one `attn.qkv`. `Error`: one of three weights is missing.
inline bool pack_queries_keys_values(tensor_file& file) {
  bool any = false;
  for (index i = 0; file.contains("blocks." + std::to_string(i) + ".attn.q.weight"); ++i) {
    any = true;
    const std::string layer = "blocks." + std::to_string(i) + ".attn.";
    for (const std::string end : {".weight", ".bias"}) {
      std::array<const host_array*, 3> parts{};
      bool none = true;
      for (std::size_t k = 0; k < 3; ++k) {
        const std::string name = layer + "qkv"[k] + end;
        if (end == ".weight" || file.contains(name)) parts[k] = &file.at(name), none = false;
      }
      if (none) continue;
      file.arrays[layer + "qkv" + end] = stacked(parts, file.path + ": '" + layer + "q" + end + "'");
      for (const char k : {'q', 'k', 'v'}) file.arrays.erase(layer + k + end);
    }
  }
  return any;
}

}  // namespace detail

/// The arrays of `file` under timm's names, with queries, keys and values packed; a file of timm's as it is. `Error`:
/// two arrays of one name, or an incomplete triple.
inline renamed_weights with_timm_names(tensor_file file) {
  renamed_weights to;
  const std::string before = detail::common_beginning(file);
  detail::recognise(file, before, to);
  if (!before.empty() && to.names == "timm") to.names = "timm behind '" + before + "'";
  tensor_file& own = to.file;
  own.metadata = std::move(file.metadata), own.path = file.path;
  for (auto& [name, array] : file.arrays) {
    const bool inside = name.starts_with(before);
    std::string ours = detail::timm_name(std::string_view(name).substr(inside ? before.size() : 0));
    const auto [place, fresh] = own.arrays.emplace(std::move(ours), std::move(array));
    require(fresh, file.path, ": '", name, "' and another array both stand for '", place->first, "'");
  }
  if (to.names != "timm") own.path += " (by timm's names)";
  to.packed = detail::pack_queries_keys_values(own);
  return to;
}

}  // namespace core_tokensets
