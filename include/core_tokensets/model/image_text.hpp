#pragma once
// One model for questions and captions: a Vision Transformer encodes the picture, a causal decoder writes text while it
// looks at the picture. A caption is what follows an empty prompt, an answer what follows the question.

#include "core_tokensets/data/text/text_batch.hpp"
#include "core_tokensets/data/text/tokenizer.hpp"
#include "core_tokensets/model/vit.hpp"
#include "core_tokensets/nn/decoder_block.hpp"
#include "core_tokensets/nn/text_embedding.hpp"

namespace core_tokensets {

struct text_config {
  index vocabulary = 1024, length = 48;  ///< tokens that there are, and that a text has at most
  index dim = 128, depth = 2, heads = 4;
  double mlp_ratio = 4;
  bool tied = true;  ///< the output layer is the token embedding (Press & Wolf 2017), with a bias of its own

  index hidden() const { return static_cast<index>(std::llround(mlp_ratio * static_cast<double>(dim))); }
};

/// `image.classes` means nothing here: the encoder has no head.
struct image_text_config {
  vit_config image = {};
  text_config text = {};
  std::uint64_t seed = 0;  ///< of the initial weights
};

/// Throws where the sizes do not fit together.
inline void check(const image_text_config& c) {
  check(c.image);
  require(c.image.registers == 0, "image_text: ", c.image.registers, " registers, an encoder here has none");
  require(!c.image.norm_pre, "image_text: a norm before the first block (norm_pre), an encoder here has none");
  const text_config& t = c.text;
  require(t.vocabulary > 2 && t.length > 1 && t.dim > 0 && t.depth > 0 && t.heads > 0,
          "image_text: vocabulary, length, dim, depth and heads must be positive (vocabulary 3, length 2 or more)");
  require(t.mlp_ratio > 0 && t.mlp_ratio <= 1024 && t.hidden() > 0, "image_text: mlp_ratio ", t.mlp_ratio,
          ", expected more than 0 and at most 1024, with at least one hidden channel");
  require(t.dim % t.heads == 0, "image_text: ", t.dim, " channels do not divide into ", t.heads, " heads");
}

/// The places of all parameters: the encoder's under timm's names behind "encoder.", the decoder's behind "decoder.".
struct image_text_layout {
  parameter_layout parameters;
  patch_embedding embedding;
  std::vector<block> blocks;
  layer_norm norm;
  text_embedding text;
  std::vector<decoder_block> decoder;
  layer_norm text_norm;
  linear output;
};

inline image_text_layout make_layout(const image_text_config& c) {
  check(c);
  image_text_layout l;
  const text_config& t = c.text;
  const double eps = c.image.layer_norm_eps;
  add_encoder(l, l.parameters, c.image, "encoder.");
  l.text = add_text_embedding(l.parameters, "decoder", t.vocabulary, t.length, t.dim);
  for (index i = 0; i < t.depth; ++i) {
    l.decoder.push_back(add_decoder_block(l.parameters, "decoder.blocks." + std::to_string(i), t.dim, c.image.dim,
                                          t.heads, t.hidden(), eps));
  }
  l.text_norm = add_layer_norm(l.parameters, "decoder.norm", t.dim, eps);
  if (t.tied) {
    l.output.weight = l.text.tokens;
    l.output.bias = l.parameters.add("decoder.output.bias", {t.vocabulary}, false);
  } else {
    l.output = add_linear(l.parameters, "decoder.output", t.dim, t.vocabulary);
  }
  return l;
}

/// The model: its configuration, the places of its parameters, the parameters themselves, and the tokenizer by which it
/// reads and writes.
template <tensor_backend B>
class image_text_model {
 public:
  using scalar = typename B::scalar;

  image_text_model(B& b, const image_text_config& c, tokenizer words = tokenizer())
      : config_(c), layout_(make_layout(c)), words_(std::move(words)) {
    const auto values = initial_parameters<scalar>(c.seed, layout_.parameters);
    parameters_.assign(b, 1, layout_.parameters.size(), values.data());
  }

  const image_text_config& config() const { return config_; }
  const image_text_layout& layout() const { return layout_; }
  tensor<B>& parameters() { return parameters_; }
  const tensor<B>& parameters() const { return parameters_; }
  parameter_view<const scalar> view_parameters() const { return {parameters_.data()}; }

  /// The tokenizer. `Error`: it knows more tokens than the model.
  const tokenizer& words() const {
    require(words_.size() <= config_.text.vocabulary, "image_text: a tokenizer of ", words_.size(),
            " tokens for a model of ", config_.text.vocabulary);
    return words_;
  }
  bool has_words() const { return words_.size() <= config_.text.vocabulary; }
  void set_words(tokenizer words) { words_ = std::move(words); }
  void set_normalisation(pixel_normalisation n) {
    config_.image.normalisation = n.for_channels(config_.image.grid.channels);
  }

  /// The same model again, with parameters of its own.
  image_text_model copy(B& b) const {
    image_text_model other;
    other.config_ = config_, other.layout_ = layout_, other.words_ = words_;
    other.parameters_.resize(b, 1, parameters_.size());
    b.map(fn::copy{}, *other.parameters_, *parameters_);
    return other;
  }

 private:
  image_text_model() = default;

  image_text_config config_;
  image_text_layout layout_;
  tensor<B> parameters_;
  tokenizer words_;
};

template <tensor_backend B>
const vit_config& image_config(const image_text_model<B>& model) {
  return model.config().image;
}

/// Where the texts of one batch go. Its memory is reused from batch to batch.
template <tensor_backend B>
struct text_plan {
  decoder_rows rows;
  row_list<B> tokens, positions;      ///< [L]
  row_list<B> asked;                  ///< [A] rows whose next token is asked for
  std::vector<std::int32_t> targets;  ///< [A] that token
  std::vector<float> weights;  ///< [A] make the mean over A of weight times loss the mean over texts of their mean loss
  sequences asked_of_text;     ///< which of the A belong to which text

  index length() const { return tokens.size(); }

  /// `pictures` says which image tokens belong to which picture, and their weights as keys. Throws where the batch does
  /// not fit `c`.
  void assign(B& b, const text_batch& batch, const attention_rows& pictures, const text_config& c) {
    check(batch, pictures.keys(), c);
    std::vector<std::int32_t> places, wanted;
    sequences texts{batch.offsets}, of_picture;
    targets.clear(), weights.clear(), asked_of_text.offsets.assign(1, 0);
    for (index s = 0; s < batch.pictures(); ++s) {
      const auto first = static_cast<std::size_t>(batch.images[static_cast<std::size_t>(s)]),
                 last = static_cast<std::size_t>(batch.images[static_cast<std::size_t>(s + 1)]);
      of_picture.push_back(batch.offsets[last] - batch.offsets[first]);
    }
    for (index q = 0; q < batch.texts(); ++q) {
      const index begin = texts.begin(q), before = static_cast<index>(wanted.size());
      for (index t = begin; t < texts.begin(q + 1); ++t) {
        places.push_back(static_cast<std::int32_t>(t - begin));
        if (batch.targets[static_cast<std::size_t>(t)] < 0) continue;
        wanted.push_back(static_cast<std::int32_t>(t));
        targets.push_back(batch.targets[static_cast<std::size_t>(t)]);
      }
      asked_of_text.push_back(static_cast<index>(wanted.size()) - before);
    }
    weigh(batch);
    rows.self.assign(texts, texts, true);
    rows.cross.assign(of_picture, pictures.keys());
    rows.cross.weigh_keys_like(pictures);
    tokens.assign(b, batch.tokens);
    positions.assign(b, places);
    asked.assign(b, wanted);
  }

 private:
  void weigh(const text_batch& batch) {
    const auto all = static_cast<float>(targets.size()), texts = static_cast<float>(batch.texts());
    for (index q = 0; q < batch.texts(); ++q) {
      const index n = asked_of_text.length(q);
      const float weight = batch.weights.empty() ? 1.0f : batch.weights[static_cast<std::size_t>(q)];
      weights.insert(weights.end(), static_cast<std::size_t>(n), weight * all / (texts * static_cast<float>(n)));
    }
  }

  static void check(const text_batch& batch, const sequences& pictures, const text_config& c) {
    require(batch.pictures() == pictures.count() && batch.images.back() == batch.texts(), "image_text: texts about ",
            batch.pictures(), " pictures, there are ", pictures.count());
    require(batch.tokens.size() == batch.targets.size() && batch.length() == static_cast<index>(batch.tokens.size()),
            "image_text: ", batch.tokens.size(), " tokens, ", batch.targets.size(), " targets, offsets end at ",
            batch.length());
    for (index q = 0; q < batch.texts(); ++q) {
      const index n = batch.offsets[static_cast<std::size_t>(q + 1)] - batch.offsets[static_cast<std::size_t>(q)];
      require(n > 0 && n <= c.length, "image_text: text ", q, " has ", n, " tokens, expected 1 to ", c.length);
    }
    for (std::size_t t = 0; t < batch.tokens.size(); ++t) {
      require(batch.tokens[t] >= 0 && batch.tokens[t] < c.vocabulary && batch.targets[t] >= -1 &&
                  batch.targets[t] < c.vocabulary,
              "image_text: token ", batch.tokens[t], " with target ", batch.targets[t], ", the vocabulary has ",
              c.vocabulary);
    }
  }
};

/// Everything that one forward pass leaves behind, reused from step to step. `keep` is `logits` or `gradients`;
/// `keep_matrices` keeps attention matrices too where the backend can do without.
template <tensor_backend B>
struct image_text_tape {
  kept keep = kept::gradients;
  bool keep_matrices = false;
  embedding_plan<B> plan;
  tensor<B> patches;
  embedding_tape<B> embedding;
  std::vector<tensor<B>> stream;      ///< [T, D] input of each encoder block, then the last output
  std::vector<block_tape<B>> blocks;  ///< one for all blocks where only logits are kept
  layer_norm_tape<B> norm;            ///< its y `[T, D]` are the image tokens that the decoder looks at
  text_plan<B> text;
  std::vector<tensor<B>> text_stream;  ///< [L, C] input of each decoder block, then the last output
  std::vector<decoder_block_tape<B>> decoder;
  tensor<B> asked;  ///< [A, C] last outputs of the rows that are asked
  layer_norm_tape<B> text_norm;
  tensor<B> logits;  ///< [A, V]

  bool shared() const { return keep == kept::logits; }
  attention_kept attention() const {
    return keep == kept::logits ? attention_kept::nothing
           : keep_matrices      ? attention_kept::matrices
                                : attention_kept::gradients;
  }
};

/// Pictures to image tokens, `tape.norm.y` `[T, D]`. `factors` weigh them as keys, for perturbations only.
template <tensor_backend B, class T = typename B::scalar>
void encode(B& b, const image_text_model<B>& model, const token_batch& batch, image_text_tape<B>& tape,
            const key_factors<T>& factors = {}) {
  const vit_config& c = model.config().image;
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  detail::check_batch(batch, c);
  tape.plan.assign(b, l.embedding, batch.offsets, batch.positions, batch.scale, batch.token_weights);
  detail::upload_patches(b, batch, tape.patches);
  const std::size_t depth = l.blocks.size();
  const bool shared = tape.shared();
  tape.stream.resize(shared ? 2 : depth + 1);
  tape.blocks.resize(shared ? 1 : depth);
  for (auto& x : tape.stream) x.resize(b, tape.plan.tokens(), c.dim);
  forward<B, T>(b, l.embedding, p, tape.plan, *tape.patches, tape.embedding, *tape.stream[0]);
  for (std::size_t i = 0; i < depth; ++i) {
    forward<B, T>(b, l.blocks[i], p, tape.plan.all, *std::as_const(tape.stream[shared ? i % 2 : i]),
                  tape.blocks[shared ? 0 : i], tape.attention(), *tape.stream[shared ? (i + 1) % 2 : i + 1], factors);
  }
  forward<B, T>(b, l.norm, p, *std::as_const(tape.stream[shared ? depth % 2 : depth]), tape.norm);
}

/// Texts about pictures that were encoded into the same tape, to `tape.logits` `[A, V]` of the tokens that are asked.
template <tensor_backend B, class T = typename B::scalar>
void decode(B& b, const image_text_model<B>& model, const text_batch& batch, image_text_tape<B>& tape,
            const decoder_factors<T>& factors = {}) {
  const text_config& c = model.config().text;
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  tape.text.assign(b, batch, tape.plan.all, c);
  const std::size_t depth = l.decoder.size();
  const bool shared = tape.shared();
  tape.text_stream.resize(shared ? 2 : depth + 1);
  tape.decoder.resize(shared ? 1 : depth);
  for (auto& x : tape.text_stream) x.resize(b, batch.length(), c.dim);
  forward<B, T>(b, l.text, p, tape.text.tokens, tape.text.positions, *tape.text_stream[0]);
  for (std::size_t i = 0; i < depth; ++i) {
    forward<B, T>(b, l.decoder[i], p, tape.text.rows, *std::as_const(tape.text_stream[shared ? i % 2 : i]),
                  *std::as_const(tape.norm.y), tape.decoder[shared ? 0 : i], tape.attention(),
                  *tape.text_stream[shared ? (i + 1) % 2 : i + 1], factors);
  }
  const index asked = tape.text.asked.size();
  tape.asked.resize(b, asked, c.dim);
  tape.logits.resize(b, asked, c.vocabulary);
  b.gather_rows(*tape.asked, *std::as_const(tape.text_stream[shared ? depth % 2 : depth]), tape.text.asked.data());
  forward<B, T>(b, l.text_norm, p, *std::as_const(tape.asked), tape.text_norm);
  forward<B, T>(b, l.output, p, *tape.text_norm.y, {}, *tape.logits);
}

template <tensor_backend B>
void forward(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
             image_text_tape<B>& tape) {
  encode(b, model, images, tape);
  decode(b, model, texts, tape);
}

/// Gradients at the inputs of the two streams: d loss / d image tokens `[T, D]` below the encoder's blocks, and d loss
/// / d text tokens `[L, C]` below the decoder's.
template <tensor_backend B>
struct stream_gradients {
  tensor<B> image, text;
};

/// From `dlogits` `[A, V]`: adds to `gradients` (an array like the parameters; may be null) and writes `streams`.
/// `keep_attention_gradients` leaves d loss / d attention in the tapes of all blocks.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const image_text_model<B>& model, image_text_tape<B>& tape, const_view<T> dlogits, T* gradients,
              stream_gradients<B>& streams, bool keep_attention_gradients = false) {
  require(tape.keep == kept::gradients, "image_text: backward needs a tape that kept what gradients need");
  const image_text_layout& l = model.layout();
  const auto p = model.view_parameters();
  const parameter_view<T> g{gradients};
  const index asked = dlogits.rows, length = tape.text.length(), dim = model.config().text.dim;
  const view<const T> image = *std::as_const(tape.norm.y);
  scratch<B> dnorm(b, asked, dim), dasked(b, asked, dim), dimage(b, image.rows, image.cols);
  backward<B, T>(b, l.output, p, g, *tape.text_norm.y, dlogits, *dnorm);
  backward<B, T>(b, l.text_norm, p, g, *std::as_const(tape.asked), tape.text_norm, *dnorm, *dasked);
  const view<T> dtext = (streams.text.resize(b, length, dim), *streams.text);
  const view<T> dtokens = (streams.image.resize(b, image.rows, image.cols), *streams.image);
  b.fill(dtext, T(0));
  b.fill(*dimage, T(0));
  b.scatter_add_rows(dtext, *dasked, tape.text.asked.data());
  for (std::size_t i = l.decoder.size(); i-- > 0;) {
    backward<B, T>(b, l.decoder[i], p, g, tape.text.rows, *std::as_const(tape.text_stream[i]), image, tape.decoder[i],
                   keep_attention_gradients, dtext, *dimage);
  }
  if (g) backward<B, T>(b, l.text, g, tape.text.tokens, tape.text.positions, dtext);
  backward<B, T>(b, l.norm, p, g, *std::as_const(tape.stream[l.blocks.size()]), tape.norm, *dimage, dtokens);
  for (std::size_t i = l.blocks.size(); i-- > 0;) {
    backward<B, T>(b, l.blocks[i], p, g, tape.plan.all, *std::as_const(tape.stream[i]), tape.blocks[i],
                   keep_attention_gradients, dtokens);
  }
  if (g) backward<B, T>(b, l.embedding, p, g, tape.plan, *tape.patches, dtokens, {});
}

}  // namespace core_tokensets
