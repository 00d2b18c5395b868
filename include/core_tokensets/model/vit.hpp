#pragma once
// The Vision Transformer: configuration, parameters, forward and backward over packed, ragged batches.

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/dataset.hpp"
#include "core_tokensets/data/normalise.hpp"
#include "core_tokensets/data/patch_grid.hpp"
#include "core_tokensets/data/token_batch.hpp"
#include "core_tokensets/nn/class_block.hpp"
#include "core_tokensets/nn/patch_embedding.hpp"

namespace core_tokensets {

/// Sizes of a Vision Transformer, and what belongs to its inputs and outputs: how pictures are cut and normalised, and
/// what its classes are called. All of it is kept in its file.
struct vit_config {
  patch_grid grid = {32, 32, 3, 4};
  index dim = 192, depth = 6, heads = 3, classes = 10;
  index registers = 0;  ///< tokens beside class token and patches that all others may use
  double mlp_ratio = 4;
  bool qkv_bias = true;
  bool qk_norm = false;   ///< norms of each head's queries and keys
  bool norm_pre = false;  ///< a norm of the tokens before the first block, as CLIP's picture half has
  double layer_norm_eps = 1e-6;
  std::uint64_t seed = 0;                     ///< of the initial weights
  pixel_normalisation normalisation = {};     ///< of the pictures that it sees
  std::vector<std::string> class_names = {};  ///< [classes], or empty: not known

  index hidden() const { return static_cast<index>(std::llround(mlp_ratio * static_cast<double>(dim))); }
};

/// Throws where the sizes do not fit together.
inline void check(const vit_config& c) {
  require(c.dim > 0 && c.depth > 0 && c.heads > 0 && c.classes > 0,
          "vit: dim, depth, heads and classes must be positive");
  c.grid.check("vit");
  require(c.registers >= 0 && c.registers <= 1024, "vit: ", c.registers, " registers, expected 0 to 1024");
  require(c.dim % c.heads == 0, "vit: ", c.dim, " channels do not divide into ", c.heads, " heads");
  require(c.mlp_ratio > 0 && c.mlp_ratio <= 1024 && c.hidden() > 0, "vit: mlp_ratio ", c.mlp_ratio,
          ", expected more than 0 and at most 1024, with at least one hidden channel");
  require(c.layer_norm_eps >= 0 && c.layer_norm_eps <= 1, "vit: layer_norm_eps ", c.layer_norm_eps,
          ", expected 0 to 1");
  require(c.class_names.empty() || static_cast<index>(c.class_names.size()) == c.classes, "vit: ", c.class_names.size(),
          " class names for ", c.classes, " classes");
  (void)c.normalisation.for_channels(c.grid.channels);
}

/// `Error` unless the pictures are of the size that a model of this configuration sees.
inline void check_pictures(const dataset& data, const vit_config& c) {
  require(data.height == c.grid.height && data.width == c.grid.width && data.channels == c.grid.channels,
          "the model sees images of ", c.grid.height, " x ", c.grid.width, " x ", c.grid.channels, ", the data have ",
          data.height, " x ", data.width, " x ", data.channels);
}

/// The places of all parameters, under timm's names.
struct vit_layout {
  parameter_layout parameters;
  patch_embedding embedding;
  std::vector<block> blocks;
  layer_norm norm;
  linear head;
};

/// Places for the encoder of `c`, everything but the head, under timm's names behind `prefix`.
template <class Layers>
void add_encoder(Layers& l, parameter_layout& parameters, const vit_config& c, const std::string& prefix = "") {
  l.embedding.class_token = parameters.add(prefix + "cls_token", {1, 1, c.dim}, false);
  const auto add_table = [&](const char* name, index rows) {
    slot table = parameters.add(prefix + name, {1, rows, c.dim}, false);
    table.rows = rows, table.cols = c.dim;
    return table;
  };
  if (c.registers > 0) l.embedding.registers = add_table("reg_token", c.registers);
  l.embedding.positions = add_table("pos_embed", 1 + c.registers + c.grid.tokens());
  l.embedding.proj.weight =
      parameters.add(prefix + "patch_embed.proj.weight", {c.dim, c.grid.channels, c.grid.patch, c.grid.patch}, true);
  l.embedding.proj.bias = parameters.add(prefix + "patch_embed.proj.bias", {c.dim}, false);
  if (c.norm_pre) l.embedding.norm = add_layer_norm(parameters, prefix + "norm_pre", c.dim, c.layer_norm_eps);
  for (index i = 0; i < c.depth; ++i) {
    l.blocks.push_back(add_block(parameters, prefix + "blocks." + std::to_string(i), c.dim, c.heads, c.hidden(),
                                 c.qkv_bias, c.layer_norm_eps, c.qk_norm));
  }
  l.norm = add_layer_norm(parameters, prefix + "norm", c.dim, c.layer_norm_eps);
}

inline vit_layout make_layout(const vit_config& c) {
  check(c);
  vit_layout l;
  add_encoder(l, l.parameters, c);
  l.head = add_linear(l.parameters, "head", c.dim, c.classes);
  return l;
}

/// Normal numbers of standard deviation 0.02 for matrices, positions, class token and registers; 1 for norm gains; 0
/// for the rest.
template <class T>
std::vector<T> initial_parameters(std::uint64_t seed, const parameter_layout& layout) {
  std::vector<T> values(static_cast<std::size_t>(layout.size()), T(0));
  std::uint64_t stream = 0;
  for (const parameter& p : layout.table()) {
    random_stream random(seed, ++stream);
    const bool gain = p.name.find("norm") != std::string::npos && p.name.ends_with("weight");
    const bool bias = p.shape.size() == 1 && !gain;
    for (index i = 0; i < p.where.size(); ++i) {
      values[static_cast<std::size_t>(p.where.offset + i)] = gain ? T(1) : bias ? T(0) : T(0.02 * random.normal());
    }
  }
  return values;
}

/// A model: its configuration, the places of its parameters and the parameters themselves.
template <tensor_backend B>
class vit {
 public:
  using scalar = typename B::scalar;

  vit(B& b, const vit_config& c) : config_(c), layout_(make_layout(c)) {
    const auto values = initial_parameters<scalar>(c.seed, layout_.parameters);
    parameters_.assign(b, 1, layout_.parameters.size(), values.data());
  }

  const vit_config& config() const { return config_; }
  const vit_layout& layout() const { return layout_; }
  tensor<B>& parameters() { return parameters_; }
  const tensor<B>& parameters() const { return parameters_; }
  parameter_view<const scalar> view_parameters() const { return {parameters_.data()}; }

  /// The same model again, with parameters of its own.
  vit copy(B& b) const {
    vit other;
    other.config_ = config_, other.layout_ = layout_;
    other.parameters_.resize(b, 1, parameters_.size());
    b.map(fn::copy{}, *other.parameters_, *parameters_);
    return other;
  }

  void set_normalisation(pixel_normalisation n) { config_.normalisation = n.for_channels(config_.grid.channels); }
  /// What the classes are called; none: not known. `Error`: another number of names.
  void set_class_names(std::vector<std::string> names) {
    require(names.empty() || static_cast<index>(names.size()) == config_.classes, "vit: ", names.size(),
            " class names for ", config_.classes, " classes");
    config_.class_names = std::move(names);
  }

  /// Gives the head room for `classes`; rows of old classes are kept, new ones start at small random numbers. `names`
  /// are those of all classes, or none.
  void grow_head(B& b, index classes, std::vector<std::string> names = {}) {
    require(classes >= config_.classes, "vit: the head has ", config_.classes, " classes and cannot shrink to ",
            classes);
    if (classes != config_.classes) rebuild(b, classes, [](const parameter&) { return true; });
    set_class_names(std::move(names));
  }

  /// Gives the model a fresh head of `classes`; everything below it is kept.
  void replace_head(B& b, index classes, std::vector<std::string> names = {}) {
    rebuild(b, classes, [](const parameter& p) { return !p.name.starts_with("head."); });
    set_class_names(std::move(names));
  }

 private:
  vit() = default;

  /// A fresh model of so many classes, into which the parameters that `keep` names are copied.
  template <class Keep>
  void rebuild(B& b, index classes, const Keep& keep) {
    vit_config c = config_;
    c.classes = classes;
    c.class_names.clear();
    vit other(b, c);
    auto values = other.parameters_.to_host(b);
    const auto old = parameters_.to_host(b);
    for (const parameter& p : layout_.parameters.table()) {
      if (!keep(p)) continue;
      std::copy_n(old.begin() + p.where.offset, p.where.size(),
                  values.begin() + other.layout_.parameters.at(p.name).where.offset);
    }
    other.parameters_.assign(b, 1, other.layout_.parameters.size(), values.data());
    *this = std::move(other);
  }

  vit_config config_;
  vit_layout layout_;
  tensor<B> parameters_;
};

/// What of a model sees pictures: its grid, its normalisation.
template <tensor_backend B>
const vit_config& image_config(const vit<B>& model) {
  return model.config();
}

/// What a forward pass keeps: `logits` only; the `attention` of all blocks; what `gradients` of the parameters need; or
/// `everything`: all activations, those of the last block for all tokens too. All but the last compute the last block
/// for the class tokens only, with the same results.
enum class kept { logits, attention, gradients, everything };

/// Everything that one forward pass leaves behind, reused from step to step. The caller owns it.
template <tensor_backend B>
struct vit_tape {
  kept keep = kept::gradients;
  bool keep_matrices = false;  ///< with `gradients`: attention matrices too where the backend can do without
  embedding_plan<B> plan;
  tensor<B> patches;
  embedding_tape<B> embedding;
  std::vector<tensor<B>> stream;      ///< input of each block, and for `everything` the last output, each [T, D]
  std::vector<block_tape<B>> blocks;  ///< [depth], or without the last one; shared by all (`attention`: but for `a`)
  class_block_tape<B> last;           ///< the last block unless `everything` is kept
  tensor<B> class_out;                ///< [S, D] class tokens of the last output
  layer_norm_tape<B> norm;
  tensor<B> logits;  ///< [S, K]
};

namespace detail {

inline void check_batch(const token_batch& batch, const vit_config& c) {
  batch.check("vit");
  require(batch.patch_dim == c.grid.patch_dim(), "vit: patches of ", batch.patch_dim, " numbers, the model expects ",
          c.grid.patch_dim());
  for (const std::int32_t position : batch.positions) {
    require(position >= 0 && position < c.grid.tokens(), "vit: position ", position, " is outside of the grid of ",
            c.grid.tokens(), " patches");
  }
}

/// The patches of a batch in the backend's memory.
template <tensor_backend B>
void upload_patches(B& b, const token_batch& batch, tensor<B>& patches) {
  using T = typename B::scalar;
  if constexpr (std::is_same_v<T, float>) {
    patches.assign(b, batch.tokens(), batch.patch_dim, batch.patches.data());
  } else {
    const std::vector<T> wide(batch.patches.begin(), batch.patches.end());
    patches.assign(b, batch.tokens(), batch.patch_dim, wide.data());
  }
}

/// From tokens in `tape.stream[0]` to `tape.class_out`.
template <tensor_backend B, class T = typename B::scalar>
void forward_blocks(B& b, const vit<B>& model, vit_tape<B>& tape) {
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  const std::size_t depth = l.blocks.size();
  const bool shared = tape.keep <= kept::attention;
  const auto keep = tape.keep == kept::logits                             ? attention_kept::nothing
                    : tape.keep == kept::gradients && !tape.keep_matrices ? attention_kept::gradients
                                                                          : attention_kept::matrices;
  for (std::size_t i = 0; i < depth; ++i) {
    const auto& in = tape.stream[shared ? i % 2 : i];
    if (i + 1 == depth && tape.keep != kept::everything) {
      forward<B, T>(b, l.blocks[i], p, tape.plan.classes, tape.plan.class_rows, *in, tape.last, keep, *tape.class_out);
      return;
    }
    const bool own_attention = shared && tape.keep == kept::attention && i > 0;
    if (own_attention) std::swap(tape.blocks[0].a, tape.blocks[i].a);
    forward<B, T>(b, l.blocks[i], p, tape.plan.all, *in, tape.blocks[shared ? 0 : i], keep,
                  *tape.stream[shared ? (i + 1) % 2 : i + 1]);
    if (own_attention) std::swap(tape.blocks[0].a, tape.blocks[i].a);
  }
  b.gather_rows(*tape.class_out, *tape.stream[depth], tape.plan.class_rows.data());
}

}  // namespace detail

/// Computes `tape.logits` `[S, K]`.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const vit<B>& model, const token_batch& batch, vit_tape<B>& tape) {
  const vit_config& c = model.config();
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  detail::check_batch(batch, c);
  tape.plan.assign(b, l.embedding, batch.offsets, batch.positions, batch.scale, batch.token_weights);
  detail::upload_patches(b, batch, tape.patches);
  const auto depth = static_cast<std::size_t>(c.depth);
  tape.stream.resize(tape.keep == kept::everything ? depth + 1 : tape.keep == kept::gradients ? depth : 2);
  tape.blocks.resize(tape.keep == kept::everything ? depth : tape.keep == kept::logits ? 1 : depth - 1);
  for (auto& x : tape.stream) x.resize(b, tape.plan.tokens(), c.dim);
  tape.class_out.resize(b, batch.samples(), c.dim);
  forward<B, T>(b, l.embedding, p, tape.plan, *tape.patches, tape.embedding, *tape.stream[0]);
  detail::forward_blocks(b, model, tape);
  forward<B, T>(b, l.norm, p, *tape.class_out, tape.norm);
  tape.logits.resize(b, batch.samples(), c.classes);
  forward<B, T>(b, l.head, p, *tape.norm.y, {}, *tape.logits);
}

/// What a backward pass should leave behind besides the parameter gradients.
struct vit_backward_options {
  bool attention_gradients = false;  ///< in `tape.blocks[i].da`; needs a tape that kept everything
};

/// From `dlogits` `[S, K]`: adds to `gradients` (an array like the parameters; may be null), writes d loss / d tokens
/// `[T, D]` (before `norm_pre`) to `dtokens`, and d loss / d patches to `dpatches` unless that is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const vit<B>& model, vit_tape<B>& tape, const_view<T> dlogits, T* gradients, tensor<B>& dtokens,
              view<T> dpatches = {}, const vit_backward_options& options = {}) {
  require(tape.keep >= kept::gradients, "vit: backward needs a tape that kept what gradients need");
  require(tape.keep == kept::everything || !options.attention_gradients,
          "vit: gradients of attention need a tape that kept everything");
  const vit_layout& l = model.layout();
  const auto p = model.view_parameters();
  const parameter_view<T> g{gradients};
  const index samples = dlogits.rows, dim = model.config().dim;
  std::size_t blocks = l.blocks.size();
  dtokens.resize(b, tape.plan.tokens(), dim);
  scratch<B> dnorm(b, samples, dim), dclass(b, samples, dim);
  backward<B, T>(b, l.head, p, g, *tape.norm.y, dlogits, *dnorm);
  backward<B, T>(b, l.norm, p, g, *tape.class_out, tape.norm, *dnorm, *dclass);
  if (tape.keep == kept::everything) {
    b.fill(*dtokens, T(0));
    b.scatter_add_rows(*dtokens, *dclass, tape.plan.class_rows.data());
  } else {
    --blocks;
    backward<B, T>(b, l.blocks[blocks], p, g, tape.plan.classes, tape.plan.class_rows, *tape.stream[blocks], tape.last,
                   *dclass, *dtokens);
  }
  while (blocks-- > 0) {
    backward<B, T>(b, l.blocks[blocks], p, g, tape.plan.all, *tape.stream[blocks], tape.blocks[blocks],
                   options.attention_gradients, *dtokens);
  }
  backward_norm<B, T>(b, l.embedding, p, g, tape.embedding, *dtokens);
  if (g || !dpatches.empty()) {
    backward<B, T>(b, l.embedding, p, g, tape.plan, *tape.patches, *dtokens, dpatches);
  }
}

}  // namespace core_tokensets
