#pragma once
// Image-text models in and out as safetensors: configuration and free texts (the tokenizer) in the metadata.

#include "core_tokensets/data/text/tokenizer.hpp"
#include "core_tokensets/io/parse_json.hpp"
#include "core_tokensets/model/image_text.hpp"
#include "core_tokensets/model/vit_weights.hpp"

namespace core_tokensets {

/// The model as a file, its tokenizer as JSON in the metadata `tokenizer`.
template <tensor_backend B>
tensor_file to_file(B& b, const image_text_model<B>& model) {
  tensor_file file;
  put_parameters(b, model, model.parameters(), "", file);
  const text_config& t = model.config().text;
  json config = config_json(model.config().image);
  config.update({{"vocabulary", t.vocabulary},
                 {"text_length", t.length},
                 {"text_dim", t.dim},
                 {"text_depth", t.depth},
                 {"text_heads", t.heads},
                 {"text_mlp_ratio", t.mlp_ratio},
                 {"tied", t.tied}});
  file.metadata["kind"] = "image_text";
  if (model.has_words()) file.metadata["tokenizer"] = to_json(model.words()).dump();
  file.metadata["config"] = config.dump();
  return file;
}

/// The configuration in the metadata of `file`. `Error` names what is missing or out of range.
inline image_text_config read_image_text_config(const tensor_file& file) {
  const auto kind = file.metadata.find("kind");
  require(kind != file.metadata.end() && kind->second == "image_text", file.path,
          ": not an image-text model (metadata 'kind' is not 'image_text')");
  constexpr double most = 1 << 20;
  const auto number = [&](const char* key, double low, double high) {
    const double value = detail::config_number(file, key, -1, -1, high);
    require(value >= low, file.path, ": '", key, "' is missing from the metadata 'config' or below ", low);
    return value;
  };
  const auto whole = [&](const char* key) { return static_cast<index>(number(key, 1, most)); };
  image_text_config c;
  c.image = {.grid = {whole("H"), whole("W"), whole("chans"), whole("patch")},
             .dim = whole("dim"),
             .depth = whole("depth"),
             .heads = whole("heads"),
             .mlp_ratio = number("mlp_ratio", 1e-3, 1024),
             .qkv_bias = file.contains("encoder.blocks.0.attn.qkv.bias"),
             .qk_norm = file.contains("encoder.blocks.0.attn.q_norm.weight"),
             .layer_norm_eps = number("layernorm_eps", 0, 1)};
  c.text = {.vocabulary = whole("vocabulary"),
            .length = whole("text_length"),
            .dim = whole("text_dim"),
            .depth = whole("text_depth"),
            .heads = whole("text_heads"),
            .mlp_ratio = number("text_mlp_ratio", 1e-3, 1024),
            .tied = !file.contains("decoder.output.weight")};
  c.image.normalisation = detail::read_normalisation(file, c.image.grid.channels);
  check(c);
  return c;
}

/// The tokenizer in the metadata of a model's file. `Error`: there is none, or it makes no sense.
inline tokenizer tokenizer_of(const tensor_file& file) {
  const auto found = file.metadata.find("tokenizer");
  require(found != file.metadata.end(), file.path, ": the metadata hold no 'tokenizer'");
  return tokenizer_from_json(parse_json(found->second, file.path + ": the metadata 'tokenizer'"));
}

/// The image-text model stored in a file, with its tokenizer where the file holds one.
template <tensor_backend B>
image_text_model<B> load_image_text(B& b, const tensor_file& file) {
  image_text_model<B> model(b, read_image_text_config(file));
  load_parameters(b, model, file);
  if (file.metadata.contains("tokenizer")) model.set_words(tokenizer_of(file));
  return model;
}
template <tensor_backend B>
image_text_model<B> load_image_text(B& b, const std::filesystem::path& path) {
  return load_image_text(b, load_weights(path));
}

/// Starts the encoder from a Vision Transformer that was trained elsewhere; its head is left out. `Error`: a parameter
/// of the encoder that is missing or has another shape.
template <tensor_backend B>
void load_encoder(B& b, image_text_model<B>& model, const vit_weights& weights) {
  constexpr std::string_view prefix = "encoder.";
  auto values = model.parameters().to_host(b);
  for (const parameter& p : model.layout().parameters.table()) {
    if (p.name.starts_with(prefix)) detail::copy_parameter(weights.file, p.name.substr(prefix.size()), p, values);
  }
  model.parameters().assign(b, 1, model.parameters().size(), values.data());
}

}  // namespace core_tokensets
