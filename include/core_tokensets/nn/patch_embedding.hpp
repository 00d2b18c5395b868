#pragma once
// Patches become tokens: a linear map of each patch, a class token in front of each sample, register tokens behind it,
// a learned position each, and in some models a norm of the sum.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core_tokensets/nn/layer_norm.hpp"
#include "core_tokensets/nn/linear.hpp"

namespace core_tokensets {

/// The table of positions `[1 + R + N, D]` has those of the class token, of the R registers and of the N patches.
struct patch_embedding {
  linear proj;
  slot class_token, positions;
  slot registers;                  ///< [R, D], or empty
  std::optional<layer_norm> norm;  ///< of the tokens with their positions (CLIP's `ln_pre`, timm's `norm_pre`)

  /// The position of patch 0.
  index first_patch() const { return 1 + registers.rows; }
};

/// What an embedding leaves behind besides the tokens.
template <tensor_backend B>
struct embedding_tape {
  tensor<B> patches;           ///< [P, D] embeddings of the patches, before positions
  tensor<B> sums, mean, rstd;  ///< [T, D] tokens before the norm, and its numbers; empty without a norm

  /// The tokens as sums, of which the first block reads `tokens`.
  const tensor<B>& sums_of(const tensor<B>& tokens) const { return sums.empty() ? tokens : sums; }
};

/// Where everything of one batch goes: patches of S samples and the tokens of the model, for each sample its class
/// token, its patches and the registers (Darcet et al., ICLR 2024), whose order attention does not know. Its memory is
/// reused from batch to batch.
template <tensor_backend B>
struct embedding_plan {
  attention_rows all;             ///< every token looks at its sample, class token first
  attention_rows classes;         ///< only the class token does
  row_list<B> class_rows;         ///< [S] row of each class token
  row_list<B> patch_rows;         ///< [P] row of each patch's token
  row_list<B> register_rows;      ///< [R S] rows of the first register of every sample, then of the second, ...
  index registers = 0;            ///< R
  row_list<B> position_of_token;  ///< [T] row of the position table
  tensor<B> scale;                ///< [P, 1] factor of each patch embedding, or empty
  tensor<B> key_weights;  ///< [T, 1] weights of the tokens as keys (class tokens and registers: 1), or empty: all 1

  const sequences& rows() const { return all.queries(); }
  index tokens() const { return rows().tokens(); }

  /// `offsets [S+1]` and `positions [P]` of the patches, `scale [P]` or empty, `token_weights [P]` or empty.
  void assign(B& b, const patch_embedding& l, const std::vector<index>& offsets,
              const std::vector<std::int32_t>& positions, const std::vector<double>& scales,
              const std::vector<float>& token_weights) {
    registers = l.registers.rows;
    for (auto* list : {&host_.classes, &host_.patches, &host_.positions}) list->clear();
    host_.registers.assign((offsets.size() - 1) * static_cast<std::size_t>(registers), 0);
    host_.tokens.offsets.assign(1, 0);
    host_.one_each.offsets.assign(1, 0);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      host_.classes.push_back(static_cast<std::int32_t>(host_.positions.size()));
      host_.positions.push_back(0);
      for (index i = offsets[s]; i < offsets[s + 1]; ++i) {
        host_.patches.push_back(static_cast<std::int32_t>(host_.positions.size()));
        host_.positions.push_back(positions[static_cast<std::size_t>(i)] + static_cast<std::int32_t>(l.first_patch()));
      }
      for (index r = 0; r < registers; ++r) {
        host_.registers[static_cast<std::size_t>(r) * (offsets.size() - 1) + s] =
            static_cast<std::int32_t>(host_.positions.size());
        host_.positions.push_back(static_cast<std::int32_t>(r) + 1);
      }
      host_.tokens.push_back(offsets[s + 1] - offsets[s] + l.first_patch());
      host_.one_each.push_back(1);
    }
    all.assign(host_.tokens, host_.tokens);
    classes.assign(host_.one_each, host_.tokens);
    class_rows.assign(b, host_.classes);
    patch_rows.assign(b, host_.patches);
    register_rows.assign(b, host_.registers);
    position_of_token.assign(b, host_.positions);
    host_.factors.assign(scales.begin(), scales.end());
    scale.assign(b, static_cast<index>(scales.size()), 1, host_.factors.data());
    weigh(b, offsets, token_weights);
  }

 private:
  /// Weights that are all 1 are none, and cost nothing.
  void weigh(B& b, const std::vector<index>& offsets, const std::vector<float>& of_patches) {
    host_.weights.clear();
    if (std::any_of(of_patches.begin(), of_patches.end(), [](float w) { return w != 1; })) {
      for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        host_.weights.push_back(1);
        host_.weights.insert(host_.weights.end(), of_patches.begin() + offsets[s], of_patches.begin() + offsets[s + 1]);
        host_.weights.insert(host_.weights.end(), static_cast<std::size_t>(registers), 1);
      }
    }
    key_weights.assign(b, static_cast<index>(host_.weights.size()), 1, host_.weights.data());
    if (key_weights.empty()) return;
    all.weigh_keys(key_weights.data());
    classes.weigh_keys(key_weights.data());
  }

  struct {
    sequences tokens, one_each;
    std::vector<std::int32_t> classes, patches, registers, positions;
    std::vector<typename B::scalar> factors, weights;
  } host_;
};

/// Adds every register to its row in each sample; positions not counted.
template <tensor_backend B, class T = typename B::scalar>
void add_registers(B& b, const patch_embedding& l, parameter_view<const T> p, const embedding_plan<B>& plan,
                   view<T> tokens) {
  const index samples = plan.class_rows.size();
  for (index r = 0; r < plan.registers; ++r) {
    const view<const T> one = p[l.registers].slice_rows(r, 1);
    b.scatter_add_rows(tokens, view<const T>(one.data, samples, one.cols, 0), plan.register_rows.data() + r * samples);
  }
}

/// patches `[P, C p p]` to tokens `[T, D]`, and what is left behind.
template <tensor_backend B, class T = typename B::scalar>
void forward(B& b, const patch_embedding& l, parameter_view<const T> p, const embedding_plan<B>& plan,
             const_view<T> patches, embedding_tape<B>& tape, view<T> tokens) {
  const index rows = l.norm ? tokens.rows : 0;
  tape.patches.resize(b, patches.rows, tokens.cols);
  tape.sums.resize(b, rows, tokens.cols), tape.mean.resize(b, rows, 1), tape.rstd.resize(b, rows, 1);
  const view<T> sums = l.norm ? *tape.sums : tokens;
  forward<B, T>(b, l.proj, p, patches, {}, *tape.patches);
  if (!plan.scale.empty()) b.map(fn::multiply{}, *tape.patches, *plan.scale);
  b.gather_rows(sums, p[l.positions], plan.position_of_token.data());
  b.scatter_add_rows(sums, *std::as_const(tape.patches), plan.patch_rows.data());
  const view<const T> cls = p[l.class_token];
  b.scatter_add_rows(sums, view<const T>(cls.data, plan.class_rows.size(), cls.cols, 0), plan.class_rows.data());
  add_registers<B, T>(b, l, p, plan, sums);
  if (l.norm) normalise<B, T>(b, *l.norm, p, sums, *tape.mean, *tape.rstd, tokens);
}

/// From d loss / d tokens in `dtokens`, where there is a norm: d loss / d their sums takes its place, and the norm's
/// parameters get their gradients (+=) where `grads` is given.
template <tensor_backend B, class T = typename B::scalar>
void backward_norm(B& b, const patch_embedding& l, parameter_view<const T> p, parameter_view<T> grads,
                   const embedding_tape<B>& tape, view<T> dtokens) {
  if (!l.norm) return;
  scratch<B> dsums(b, dtokens.rows, dtokens.cols);
  ops::layer_norm_backward<B, T>(b, *tape.sums, p[l.norm->gamma], *tape.mean, *tape.rstd, dtokens, *dsums,
                                 grads[l.norm->gamma], grads[l.norm->beta]);
  b.map(fn::copy{}, dtokens, *std::as_const(dsums));
}

/// From d loss / d the tokens' sums: parameter gradients (+=), and d loss / d patches unless it is empty.
template <tensor_backend B, class T = typename B::scalar>
void backward(B& b, const patch_embedding& l, parameter_view<const T> p, parameter_view<T> grads,
              const embedding_plan<B>& plan, const_view<T> patches, const_view<T> dtokens, view<T> dpatches) {
  scratch<B> dembedding(b, patches.rows, dtokens.cols);
  b.gather_rows(*dembedding, dtokens, plan.patch_rows.data());
  if (!plan.scale.empty()) b.map(fn::multiply{}, *dembedding, *plan.scale);
  backward<B, T>(b, l.proj, p, grads, patches, *dembedding, dpatches);
  if (!grads) return;
  b.scatter_add_rows(grads[l.positions], dtokens, plan.position_of_token.data());
  scratch<B> dclass(b, plan.class_rows.size(), dtokens.cols);
  b.gather_rows(*dclass, dtokens, plan.class_rows.data());
  b.col_reduce(fn::plus{}, fn::value{}, T(1), grads[l.class_token], *dclass);
  for (index r = 0; r < plan.registers; ++r) {
    b.gather_rows(*dclass, dtokens, plan.register_rows.data() + r * plan.class_rows.size());
    b.col_reduce(fn::plus{}, fn::value{}, T(1), grads[l.registers].slice_rows(r, 1), *dclass);
  }
}

}  // namespace core_tokensets
