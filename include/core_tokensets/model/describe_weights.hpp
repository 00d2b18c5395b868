#pragma once
// What a file of weights is, in plain lines: sizes, names, head, normalisation, and what is unusual about it.

#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/model/read_vit.hpp"

namespace core_tokensets {

/// Lines of a description: what, and the text.
using described_weights = std::vector<std::pair<std::string, std::string>>;

namespace detail {

/// "1234567 numbers in 30 arrays, F32"
inline std::string stored_text(const tensor_file& file) {
  std::map<std::string_view, index> types;
  index numbers = 0;
  for (const auto& entry : file.arrays) {
    ++types[dtype_name(entry.second.type)];
    numbers += entry.second.size();
  }
  std::string text = std::to_string(numbers) + " numbers in " + std::to_string(file.arrays.size()) + " arrays";
  for (const auto& [type, count] : types)
    text += ", " + std::string(type) + (types.size() > 1 ? " (" + std::to_string(count) + " arrays)" : "");
  return text;
}

inline std::string pictures_text(const vit_survey& s) {
  const std::string patches = std::to_string(s.channels) + " in patches of " + std::to_string(s.patch);
  const auto positions = positions_of(s);
  const auto stored = positions ? ", positions of " + to_text(positions->grid) + " patches" : std::string();
  if (s.height && s.width)
    return std::to_string(*s.height) + " x " + std::to_string(*s.width) + " x " + patches + stored;
  if (!positions) return "height x width x " + patches + ", a size that the file does not tell";
  return std::to_string(positions->grid.rows * s.patch) + " x " + std::to_string(positions->grid.cols * s.patch) +
         " x " + patches + stored + "; other sizes by interpolating these";
}

inline std::string network_text(const vit_survey& s) {
  return std::to_string(s.depth) + " blocks of " + std::to_string(s.dim) + " channels, " + std::to_string(s.hidden) +
         " in the MLP";
}

/// ", of config.json" where that file said it.
inline std::string origin_text(const tensor_file& file, std::string_view key) {
  const std::string beside = origin_of(file, key).file;
  return beside.empty() ? "" : ", of " + beside;
}

inline std::string heads_text(const vit_survey& s) {
  if (s.heads > 0) return std::to_string(s.heads) + origin_text(s.weights.file, "heads");
  std::string text = "not in the file, name them (--heads)";
  if (s.dim % 64 == 0) text += "; most models have 64 channels a head, here " + std::to_string(s.dim / 64) + " heads";
  return text;
}

inline std::string normalisation_text(const vit_survey& s) {
  const tensor_file& own = s.weights.file;
  const auto n = read_normalisation(own, s.channels);
  const auto list = [](const std::vector<float>& values) {
    std::string text;
    for (const float x : values) {
      char digits[32];
      std::snprintf(digits, sizeof digits, text.empty() ? "%g" : " %g", static_cast<double>(x));
      text += digits;
    }
    return text;
  };
  return "mean " + list(n.mean) + ", standard deviation " + list(n.stddev) +
         (says_normalisation(own) ? origin_text(own, "mean") : "; the file does not say it, this is what is taken");
}

/// What becomes of an unusual part.
inline const char* fate_text(part_fate fate) {
  switch (fate) {
    case part_fate::computed:
      return "computed: ";
    case part_fate::folded:
      return "folded: ";
    case part_fate::left_out:
      return "left out: ";
    case part_fate::of_head:
      return "refused, left out where the model gets a new head: ";
    case part_fate::refused:
      break;
  }
  return "refused: ";
}

/// Why the file makes no model, or nothing.
inline std::string refusal_of(vit_survey s) {
  vit_hints hints{.new_head = 1};
  if (s.heads == 0) hints.heads = 1;
  try {
    const auto weights = read_vit(std::move(s), hints);
    check_all_known(weights.file, make_layout(weights.config).parameters);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

inline std::string verdict_of(vit_survey s) {
  const std::string needs = s.heads > 0 ? "" : " with --heads";
  const bool head = s.classes > 0 && !has_foreign_head(s.parts);
  const std::string refused = refusal_of(std::move(s));
  if (!refused.empty()) return "no: " + refused;
  return head ? "yes" + needs : "yes" + needs + ", to start a sequence from, which gives it a head";
}

}  // namespace detail

/// Describes a Vision Transformer; a file that holds something else is an `Error` that says what is missing.
inline described_weights describe_weights(const tensor_file& file) {
  const std::string stored = detail::stored_text(file);
  const vit_survey s = survey_vit(file);
  const tensor_file& own = s.weights.file;
  described_weights lines{{"stored", stored},
                          {"kind", "Vision Transformer under the names of " + s.weights.names},
                          {"pictures", detail::pictures_text(s)},
                          {"network", detail::network_text(s)},
                          {"heads", detail::heads_text(s)},
                          {"head", s.classes > 0 ? std::to_string(s.classes) + " classes" : "none"},
                          {"normalised", detail::normalisation_text(s)}};
  const json beside = detail::beside_of(own);
  if (const json* files = beside.find("files"); files != nullptr && files->is_array()) {
    for (const json& file_beside : *files) {
      if (file_beside.is_string()) lines.emplace_back("beside", file_beside.text());
    }
  }
  if (s.weights.packed) lines.emplace_back("unusual", "folded: queries, keys and values apart; packed into one layer");
  if (const auto positions = positions_of(s); positions && positions->before == 0)
    lines.emplace_back("unusual", "folded: positions of patches alone; that of the class token is 0");
  for (const weight_part& part : s.parts) {
    const std::string more = part.arrays > 1 ? " (" + std::to_string(part.arrays) + " arrays)" : "";
    lines.emplace_back("unusual", detail::fate_text(part.fate) + to_text(part) + more);
  }
  if (const auto names = detail::read_class_names(own, s.classes); !names.empty())
    lines.emplace_back("classes", names.front() + (names.size() > 1 ? " ... " + names.back() : "") +
                                      detail::origin_text(own, "class_names"));
  lines.emplace_back("loads", detail::verdict_of(s));
  return lines;
}

}  // namespace core_tokensets
