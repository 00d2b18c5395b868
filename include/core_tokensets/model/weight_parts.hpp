#pragma once
// Parts of Vision Transformers that our network does not have as they are: what they are called, which models have
// them, and what becomes of them when weights are loaded.

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core_tokensets/model/weight_config.hpp"
#include "core_tokensets/model/weight_names.hpp"

namespace core_tokensets {

/// `computed`: the network has it. `folded`: changed into parameters that the network has, with the same result.
/// `left_out`: nothing that is computed reads it. `refused`: the network cannot compute it. `of_head`: refused, but
/// left out where the model gets a new head.
enum class part_fate { computed, folded, left_out, refused, of_head };

/// An unusual part of a file.
struct weight_part {
  std::string name;   ///< "register tokens"
  std::string about;  ///< which models have it, and what is done with it or instead
  part_fate fate = part_fate::refused;
  std::string array;  ///< the first of its arrays, under timm's name; empty: it is something that is missing
  index arrays = 0;   ///< how many
};

namespace detail {

/// A part by the names of its arrays: `N` stands for the number of a block, `*` at the end for anything.
struct known_part {
  std::string_view pattern, name;
  part_fate fate;
  std::string_view about;
};

inline constexpr std::string_view about_gated = "of DINOv2 giant and EVA; models of the smaller sizes have none";
inline constexpr std::string_view about_relative =
    "of BEiT and SAM, which add a bias to the attention for every pair of places; models with 'pos_embed' alone work";
inline constexpr std::string_view about_mean =
    "of models that read the mean of their patches; models that read a class token work";
inline constexpr std::string_view about_distilled =
    "of DeiT's distilled models: a second token with a second head; with a new head it is a register, else take the "
    "same "
    "model without distillation";

inline constexpr std::array known_parts{
    known_part{"blocks.N.ls1.gamma", "LayerScale", part_fate::folded,
               "of DeiT III and DINOv2; multiplied into the layer before it"},
    known_part{"blocks.N.ls2.gamma", "LayerScale", part_fate::folded,
               "of DeiT III and DINOv2; multiplied into the layer before it"},
    known_part{"mask_token", "mask token", part_fate::left_out, "for training with masks; complete pictures have none"},
    known_part{"decoder*", "decoder", part_fate::left_out, "of MAE, for its training"},
    known_part{"pooler.*", "pooler", part_fate::left_out, "of Hugging Face's ViT; the classifier does not read it"},
    known_part{"pre_logits.*", "layer before the head (pre_logits)", part_fate::of_head,
               "of old ImageNet-21k weights: a layer with tanh; weights that were tuned on ImageNet-1k have none"},
    known_part{"dist_token", "distillation token", part_fate::of_head, about_distilled},
    known_part{"head_dist.*", "distillation token", part_fate::of_head, about_distilled},
    known_part{"reg_token", "register tokens", part_fate::computed,
               "of DINOv2 with registers; tokens beside class token and patches"},
    known_part{"norm_pre.*", "norm before the first block (norm_pre)", part_fate::computed, "of CLIP's picture half"},
    known_part{"fc_norm.*", "mean of the patches with a norm (fc_norm)", part_fate::refused, about_mean},
    known_part{"attn_pool.*", "attention pooling (attn_pool)", part_fate::refused,
               "of SigLIP; models that read a class token work"},
    known_part{"blocks.N.attn.q_norm.*", "norms of queries and keys (q_norm, k_norm)", part_fate::computed,
               "of ViT-22B and some of timm's models"},
    known_part{"blocks.N.attn.k_norm.*", "norms of queries and keys (q_norm, k_norm)", part_fate::computed,
               "of ViT-22B and some of timm's models"},
    known_part{"blocks.N.attn.norm.*", "norm inside of the attention", part_fate::refused,
               "of EVA-02; models without it work"},
    known_part{"blocks.N.mlp.norm.*", "norm inside of the MLP", part_fate::refused,
               "of EVA-02; models without it work"},
    known_part{"blocks.N.mlp.w1*", "gated MLP (SwiGLU)", part_fate::refused, about_gated},
    known_part{"blocks.N.mlp.w2*", "gated MLP (SwiGLU)", part_fate::refused, about_gated},
    known_part{"blocks.N.mlp.w3*", "gated MLP (SwiGLU)", part_fate::refused, about_gated},
    known_part{"blocks.N.mlp.fc1_*", "gated MLP (SwiGLU)", part_fate::refused, about_gated},
    known_part{"blocks.N.mlp.weights_*", "gated MLP (SwiGLU)", part_fate::refused, about_gated},
    known_part{"blocks.N.attn.relative_position*", "relative positions", part_fate::refused, about_relative},
    known_part{"blocks.N.attention.attention.relative_position*", "relative positions", part_fate::refused,
               about_relative},
    known_part{"blocks.N.attn.rel_pos_*", "relative positions", part_fate::refused, about_relative},
    known_part{"rel_pos_bias*", "relative positions", part_fate::refused, about_relative},
    known_part{"rope*", "rotary positions (rope)", part_fate::refused,
               "of EVA-02 and DINOv3; models with 'pos_embed' alone work"},
    known_part{"blocks.N.attn.rope*", "rotary positions (rope)", part_fate::refused,
               "of EVA-02 and DINOv3; models with 'pos_embed' alone work"},
    known_part{"blocks_token_only.*", "class attention", part_fate::refused, "of CaiT; models of ViT and DeiT work"},
    known_part{"patch_embed.norm.*", "norm of the patches (patch_embed.norm)", part_fate::refused,
               "of some of timm's models; models without it work"},
    known_part{"patch_embed.backbone.*", "convolutions before the patches (patch_embed.backbone)", part_fate::refused,
               "of hybrids of ResNet and ViT; models that cut patches from pixels work"}};

/// "blocks.N.ls1.gamma" of "blocks.11.ls1.gamma".
inline std::string without_number(std::string_view name) {
  const auto found = numbered(name, "blocks.");
  return found ? "blocks.N." + std::string(found->second) : std::string(name);
}

inline bool fits(std::string_view name, std::string_view pattern) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1)) : name == pattern;
}

/// Adds a part, or one array more to it.
inline void add_part(std::vector<weight_part>& parts, weight_part part) {
  const auto same = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.name == part.name; });
  if (same == parts.end()) {
    parts.push_back(std::move(part));
  } else {
    same->arrays += part.arrays;
  }
}

/// The length of dimension k of an array; 0 where there is no such array or dimension.
inline index extent(const tensor_file& file, const std::string& name, std::size_t k) {
  const auto found = file.arrays.find(name);
  return found != file.arrays.end() && k < found->second.shape.size() ? found->second.shape[k] : 0;
}

/// Parts that no name tells, but a shape or something that is missing.
inline void add_parts_without_names(const tensor_file& file, std::vector<weight_part>& parts) {
  const auto add = [&](const char* name, const std::string& about, part_fate fate, const char* array) {
    add_part(parts, {name, about, fate, array, *array == '\0' ? 0 : 1});
  };
  const index hidden = extent(file, "blocks.0.mlp.fc1.weight", 0), back = extent(file, "blocks.0.mlp.fc2.weight", 1);
  if (hidden > 0 && hidden == 2 * back)
    add("gated MLP (SwiGLU)", std::string(about_gated), part_fate::refused, "blocks.0.mlp.fc1.weight");
  const index tall = extent(file, "patch_embed.proj.weight", 2), wide = extent(file, "patch_embed.proj.weight", 3);
  if (tall > 0 && wide > 0 && tall != wide)
    add("oblong patches", std::to_string(tall) + "x" + std::to_string(wide) + ", expected square ones",
        part_fate::refused, "patch_embed.proj.weight");
  if (const std::string q = "blocks.0.attn.q_norm.", k = "blocks.0.attn.k_norm.";
      file.contains(q + "weight") != file.contains(k + "weight") ||
      (file.contains(q + "weight") && !(file.contains(q + "bias") && file.contains(k + "bias"))))
    add("norms of queries and keys of another kind", "RMS norms, or of one of the two", part_fate::refused,
        file.contains(q + "weight") ? "blocks.0.attn.q_norm.weight" : "blocks.0.attn.k_norm.weight");
  if (!file.contains("cls_token") && file.contains("pos_embed"))
    add("no class token", std::string(about_mean), part_fate::refused, "");
  const index read = extent(file, "head.weight", 1), dim = extent(file, "patch_embed.proj.weight", 0);
  if (read > 0 && read == 2 * dim)
    add("head on class token and mean", "of DINOv2's classifiers; heads that read the class token work",
        part_fate::of_head, "head.weight");
}

/// Parts that no array tells, but the configuration.
inline void add_parts_of_config(const tensor_file& file, std::vector<weight_part>& parts) {
  const json config = config_of(file);
  const auto text = [&](const char* key) {
    const json* found = config.find(key);
    return found != nullptr && found->is_string() ? found->text() : std::string();
  };
  const std::string activation = text("activation"), pooling = text("pooling");
  // The second is Hugging Face's name for the same function written in Python.
  if (!activation.empty() && activation != "gelu" && activation != "gelu_python")
    add_part(parts, {"activation '" + activation + "' (" + told_by(file, "activation") + ")",
                     "another function than GELU, x Phi(x), which is computed", part_fate::refused, "", 0});
  if (!pooling.empty() && pooling != "token")
    add_part(parts, {"head on '" + pooling + "' of the tokens (" + told_by(file, "pooling") + ")",
                     std::string(about_mean), part_fate::of_head, "", 0});
}

}  // namespace detail

/// The unusual parts of a file under timm's names, each once.
inline std::vector<weight_part> unusual_parts(const tensor_file& file) {
  std::vector<weight_part> parts;
  for (const auto& entry : file.arrays) {
    const std::string name = detail::without_number(entry.first);
    for (const auto& known : detail::known_parts) {
      if (!detail::fits(name, known.pattern)) continue;
      detail::add_part(parts, {std::string(known.name), std::string(known.about), known.fate, entry.first, 1});
      break;
    }
  }
  detail::add_parts_without_names(file, parts);
  detail::add_parts_of_config(file, parts);
  return parts;
}

/// "register tokens ('reg_token'), of DINOv2 ..."
inline std::string to_text(const weight_part& part) {
  return part.name + (part.array.empty() ? "" : " ('" + part.array + "')") + ", " + part.about;
}

/// `Error` that names every part of which the fate is `refused`, or `of_head` too unless the model gets a `new_head`.
inline void refuse_parts(const std::vector<weight_part>& parts, bool new_head, const std::string& path) {
  std::string first, others;
  for (const weight_part& part : parts) {
    if (part.fate != part_fate::refused && (part.fate != part_fate::of_head || new_head)) continue;
    if (first.empty()) {
      first = to_text(part);
    } else {
      others += (others.empty() ? "" : ", ") + part.name;
    }
  }
  require(first.empty(), path, ": has a part that is not computed: ", first,
          others.empty() ? "" : "; it also has: ", others);
}

/// Whether a part of the head is not computed.
inline bool has_foreign_head(const std::vector<weight_part>& parts) {
  return std::any_of(parts.begin(), parts.end(), [](const auto& p) { return p.fate == part_fate::of_head; });
}

/// Takes the arrays of parts away that are left out, with a new head those of the old one too.
inline void drop_parts(tensor_file& file, bool new_head) {
  std::erase_if(file.arrays, [&](const auto& entry) {
    const std::string name = detail::without_number(entry.first);
    return std::any_of(detail::known_parts.begin(), detail::known_parts.end(), [&](const auto& known) {
      return (known.fate == part_fate::left_out || (new_head && known.fate == part_fate::of_head)) &&
             detail::fits(name, known.pattern);
    });
  });
}

}  // namespace core_tokensets
