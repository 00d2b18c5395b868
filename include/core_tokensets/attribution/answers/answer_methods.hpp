#pragma once
// The attribution methods for answers. Options are those of the methods for classes, as far as they have a meaning.

#include "core_tokensets/attribution/answers/answer_atman.hpp"
#include "core_tokensets/attribution/answers/answers.hpp"
#include "core_tokensets/attribution/attention.hpp"
#include "core_tokensets/attribution/generic_attention.hpp"
#include "core_tokensets/attribution/grad_lrp.hpp"
#include "core_tokensets/attribution/gradient_x_input.hpp"
#include "core_tokensets/attribution/random.hpp"
#include "core_tokensets/nn/lrp/decoder_block.hpp"

namespace core_tokensets {

namespace detail {

/// Matrices of one sample as doubles on the host.
template <tensor_backend B>
std::vector<double> sample_matrices(B& b, const attention_rows& rows, index heads, const tensor<B>& all, index s) {
  using T = typename B::scalar;
  const view<const T> m = rows.matrices(std::as_const(all).data(), s, heads);
  std::vector<T> host(static_cast<std::size_t>(m.n1 * m.rows * m.cols));
  b.download(host.data(), m.data, static_cast<index>(host.size()));
  return {host.begin(), host.end()};
}

/// Divides the rows of sample s by the weights of its image tokens, so many times.
template <class T>
void divide_rows(token_map& map, std::span<const T> weights, index times) {
  for (index r = 0; r < map.rows && !weights.empty(); ++r) {
    const double by = std::pow(double(weights[static_cast<std::size_t>(r)]), static_cast<double>(times));
    for (index c = 0; c < map.cols; ++c) map(r, c) /= by;
  }
}

/// C = mean_h max(0, g a) of sample s.
template <tensor_backend B>
token_map positive_map(B& b, const attention_rows& rows, index heads, const tensor<B>& a, const tensor<B>& g, index s) {
  return positive_mean(sample_matrices(b, rows, heads, a, s), sample_matrices(b, rows, heads, g, s), heads,
                       rows.queries().length(s), rows.keys().length(s));
}

/// From all attentions, or their relevance, to relevance of tokens: image tokens among themselves, then text among
/// itself and on the picture, block by block (Chefer, Gur & Wolf 2021, section 3.3), with C = mean_h max(0, gradient of
/// the attention times what is given); the mean over the explained rows is read. `of_encoder(i)`, `of_self(i)`,
/// `of_cross(i)` give those of block i; needs a backward pass that kept the gradients of attention. `sums` as in
/// `class_row_product`.
template <tensor_backend B, class Encoder, class Self, class Cross>
answer_relevance relevance_of_maps(B& b, const image_text_model<B>& model, const text_batch& texts,
                                   const answer_workspace<B>& ws, index start_layer, index sums,
                                   const Encoder& of_encoder, const Self& of_self, const Cross& of_cross) {
  answer_relevance result;
  const auto& t = ws.tape;
  const auto& rows = t.text.rows;
  const index heads = model.config().image.heads, text_heads = model.config().text.heads;
  const auto weights = t.plan.key_weights.to_host(b);
  for (index s = 0; s < texts.texts(); ++s) {
    const std::span<const typename B::scalar> of_sample =
        weights.empty() ? std::span<const typename B::scalar>()
                        : std::span(weights).subspan(static_cast<std::size_t>(t.plan.rows().begin(s)),
                                                     static_cast<std::size_t>(t.plan.rows().length(s)));
    encoder_decoder_relevance r(t.plan.rows().length(s), rows.self.queries().length(s));
    for (auto i = static_cast<std::size_t>(start_layer); i < t.blocks.size(); ++i) {
      token_map map = positive_map(b, t.plan.all, heads, of_encoder(i), t.blocks[i].da, s);
      divide_rows(map, of_sample, sums);
      r.encoder_self(map);
    }
    for (std::size_t i = 0; i < t.decoder.size(); ++i) {
      r.decoder_self(positive_map(b, rows.self, text_heads, of_self(i), t.decoder[i].self.da, s));
      r.cross(positive_map(b, rows.cross, text_heads, of_cross(i), t.decoder[i].cross.da, s));
    }
    const auto places = explained_places(ws, texts, s);
    const auto of_image = mean_of_rows(r.query_image, places), of_text = mean_of_rows(r.query_query, places);
    result.image.insert(result.image.end(), of_image.begin() + 1, of_image.end());  // without the class token
    result.text.insert(result.text.end(), of_text.begin(), of_text.end());
  }
  return result;
}

inline void check_start_layer(const char* method, index start, const image_text_config& c) {
  check_start_layer(method, start, c.image.depth);
}

}  // namespace detail

/// Uniform numbers that follow from the seed, the picture and the text about it.
template <tensor_backend B>
answer_relevance attribute(const random_relevance& method, B&, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>&) {
  detail::check_batch(images, model.config().image);
  check_one_text_each(images, texts);
  answer_relevance result;
  for (std::size_t s = 0; s < static_cast<std::size_t>(images.samples()); ++s) {
    const auto begin = static_cast<std::size_t>(texts.offsets[s]), end = static_cast<std::size_t>(texts.offsets[s + 1]);
    const auto read = std::as_bytes(std::span(texts.tokens).subspan(begin, end - begin));
    random_stream random(method.seed, fnv1a(read, detail::fingerprint_of(images, static_cast<index>(s))));
    while (static_cast<index>(result.image.size()) < images.offsets[s + 1]) result.image.push_back(random.uniform());
    while (result.text.size() < end) result.text.push_back(random.uniform());
  }
  return result;
}

/// The last decoder block's attention on the picture and on the text, mean over heads and explained rows.
template <tensor_backend B>
answer_relevance attribute(const last_attention&, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  explain_answers(b, model, images, texts, ws);
  const auto& last = ws.tape.decoder.back();
  const index heads = model.config().text.heads;
  answer_relevance result;
  for (index s = 0; s < texts.texts(); ++s) {
    const auto places = explained_places(ws, texts, s);
    const auto mean = [&](const attention_rows& rows, const tensor<B>& a) {
      const index nq = rows.queries().length(s), nk = rows.keys().length(s);
      token_map m = token_map::zeros(nq, nk);
      const auto values = detail::sample_matrices(b, rows, heads, a, s);
      for (std::size_t i = 0; i < values.size(); ++i)
        m.values[i % m.values.size()] += values[i] / static_cast<double>(heads);
      return mean_of_rows(m, places);
    };
    const auto of_image = mean(ws.tape.text.rows.cross, last.cross.a),
               of_text = mean(ws.tape.text.rows.self, last.self.a);
    result.image.insert(result.image.end(), of_image.begin() + 1, of_image.end());
    result.text.insert(result.text.end(), of_text.begin(), of_text.end());
  }
  return result;
}

/// Sum over channels of embedding times gradient: patch embeddings without position, and token embeddings with it.
template <tensor_backend B>
answer_relevance attribute(const gradient_x_input& method, B& b, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams);
  tensor<B> at_patches(b, images.tokens(), ws.streams.image.cols());
  b.gather_rows(*at_patches, *std::as_const(ws.streams.image), ws.tape.plan.patch_rows.data());
  const auto sums = [&](const tensor<B>& gradient, const tensor<B>& value) {
    tensor<B> sum(b, gradient.rows(), 1);
    if (method.magnitude) {
      b.row_reduce(fn::plus{}, fn::square{}, *sum, *gradient);
    } else {
      b.row_reduce(fn::plus{}, fn::times{}, *sum, *gradient, *value);
    }
    const auto host = sum.to_host(b);
    std::vector<double> relevance(host.begin(), host.end());
    if (method.magnitude) {
      for (double& r : relevance) r = std::sqrt(r);
    }
    return relevance;
  };
  return {sums(at_patches, ws.tape.embedding.patches), sums(ws.streams.text, ws.tape.text_stream.front())};
}

/// Attention times its gradient through self- and cross-attention (Chefer, Gur & Wolf, ICCV 2021).
template <tensor_backend B>
answer_relevance attribute(const generic_attention& method, B& b, const image_text_model<B>& model,
                           const token_batch& images, const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  detail::check_start_layer(generic_attention::name, method.start_layer, model.config());
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams, true);
  const auto& t = ws.tape;
  return detail::relevance_of_maps(
      b, model, texts, ws, method.start_layer, 1, [&](std::size_t i) -> const tensor<B>& { return t.blocks[i].a; },
      [&](std::size_t i) -> const tensor<B>& { return t.decoder[i].self.a; },
      [&](std::size_t i) -> const tensor<B>& { return t.decoder[i].cross.a; });
}

/// Relevance of all attentions of an answer by the rules of a composite: of the encoder's blocks, of the decoder's
/// self-attentions and of its looks at the picture; and what arrives at both streams.
template <tensor_backend B>
struct answer_lrp {
  std::vector<tensor<B>> encoder, self, cross;
  tensor<B> text, image;  ///< [L, C] and [T, D]
};

/// From the explained logits down to both streams; needs `explain_answers` before.
template <tensor_backend B>
void propagate(const lrp::composite& c, B& b, const image_text_model<B>& model, answer_workspace<B>& ws,
               answer_lrp<B>& out) {
  using T = typename B::scalar;
  const auto& l = model.layout();
  const auto p = model.view_parameters();
  auto& tape = ws.tape;
  const index asked = ws.dlogits.rows(), length = tape.text.length();
  lrp::sample_rows<B> text_rows, image_rows;
  text_rows.assign(b, tape.text.rows.self.queries());
  image_rows.assign(b, tape.plan.rows());
  scratch<B> start(b, asked, ws.dlogits.cols()), at_asked(b, asked, model.config().text.dim);
  b.map(fn::copy{}, *start, *std::as_const(ws.dlogits));
  if (c.start == lrp::start_value::logit) b.map(fn::multiply{}, *start, *std::as_const(tape.logits));
  lrp::relevance<B, T>(c.head, b, l.output, p, *tape.text_norm.y, *std::as_const(tape.logits), *start, *at_asked);
  lrp::relevance<B, T>(c.norm, b, l.text_norm, p, *std::as_const(tape.asked), tape.text_norm, *at_asked);
  out.text.resize(b, length, model.config().text.dim);
  out.image.resize(b, tape.plan.tokens(), model.config().image.dim);
  b.fill(*out.text, T(0));
  b.fill(*out.image, T(0));
  b.scatter_add_rows(*out.text, *at_asked, tape.text.asked.data());
  out.self.resize(l.decoder.size()), out.cross.resize(l.decoder.size()), out.encoder.resize(l.blocks.size());
  for (std::size_t i = l.decoder.size(); i-- > 0;) {
    out.self[i].resize(b, 1, tape.decoder[i].self.a.size());
    out.cross[i].resize(b, 1, tape.decoder[i].cross.a.size());
    lrp::relevance<B, T>(c, b, l.decoder[i], p, tape.text.rows, text_rows, *std::as_const(tape.text_stream[i]),
                         *std::as_const(tape.text_stream[i + 1]), *std::as_const(tape.norm.y), tape.decoder[i],
                         {out.self[i].data(), out.cross[i].data()}, *out.text, *out.image);
  }
  lrp::relevance<B, T>(c.norm, b, l.norm, p, *std::as_const(tape.stream[l.blocks.size()]), tape.norm, *out.image);
  for (std::size_t i = l.blocks.size(); i-- > 0;) {
    out.encoder[i].resize(b, 1, tape.blocks[i].a.size());
    lrp::relevance<B, lrp::no_observer, T>(c, b, l.blocks[i], p, tape.plan.all, image_rows,
                                           *std::as_const(tape.stream[i]), *std::as_const(tape.stream[i + 1]),
                                           tape.blocks[i], out.encoder[i].data(), *out.image);
  }
}

/// GradLRP for two kinds of tokens: the relevance of attention (Chefer, Gur & Wolf, CVPR 2021) takes the place of
/// attention itself in the rules of their ICCV paper.
template <tensor_backend B>
answer_relevance attribute(const grad_lrp& method, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  detail::check_start_layer(grad_lrp::name, method.start_layer, model.config());
  explain_answers(b, model, images, texts, ws);
  backward<B, T>(b, model, ws.tape, *std::as_const(ws.dlogits), nullptr, ws.streams, true);
  answer_lrp<B> r;
  propagate(lrp::make(method.rules, method.stabiliser), b, model, ws, r);
  return detail::relevance_of_maps(
      b, model, texts, ws, method.start_layer, 2, [&](std::size_t i) -> const tensor<B>& { return r.encoder[i]; },
      [&](std::size_t i) -> const tensor<B>& { return r.self[i]; },
      [&](std::size_t i) -> const tensor<B>& { return r.cross[i]; });
}

}  // namespace core_tokensets
