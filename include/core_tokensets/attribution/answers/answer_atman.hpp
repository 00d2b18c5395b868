#pragma once
// AtMan for answers: one image or text token is suppressed in every attention that looks at it, and the change of the
// answer is measured (Deiseroth et al. 2023).

#include "core_tokensets/attribution/answers/answers.hpp"
#include "core_tokensets/attribution/atman.hpp"

namespace core_tokensets {

namespace detail {

/// One changed version of text s: the factors of its image tokens (class token first) and of its text tokens.
struct answer_variation {
  index sample = 0;
  std::vector<double> image, text;
};

/// What `watch` names of each text: the sum over its explained rows of log-probabilities, or of logits.
template <tensor_backend B>
std::vector<double> watched_values(B& b, const answer_workspace<B>& ws, watched what) {
  const auto logits = ws.tape.logits.to_host(b);
  const auto v = static_cast<std::size_t>(ws.tape.logits.cols());
  std::vector<double> values;
  for (const auto& rows : ws.explained) {
    double sum = 0;
    for (const index a : rows) {
      const auto row = static_cast<std::size_t>(a);
      const settled_target answer{what == watched::target ? explained_score::logit : explained_score::log_probability,
                                  {ws.tape.text.targets[row]},
                                  {}};
      sum += answer.value(0, std::span<const typename B::scalar>(logits.data() + row * v, v));
    }
    values.push_back(sum);
  }
  return values;
}

/// Runs changed versions in batches of at most so many tokens and returns what is watched of each.
template <tensor_backend B>
std::vector<double> run_variations(const atman& method, B& b, const image_text_model<B>& model,
                                   const token_batch& images, const text_batch& texts,
                                   std::span<const answer_variation> variations) {
  using T = typename B::scalar;
  check(method);
  constexpr index most_tokens = 4096;
  answer_workspace<B> ws;
  ws.tape.keep = kept::logits;
  std::vector<double> result;
  for (std::size_t next = 0; next < variations.size();) {
    token_batch many;
    text_batch many_texts;
    std::vector<T> image_host, text_host;
    while (next < variations.size() && (many.samples() == 0 || many.tokens() < most_tokens)) {
      const answer_variation& v = variations[next++];
      append_sample(images, v.sample, many);
      append_sample(texts, v.sample, many_texts);
      image_host.insert(image_host.end(), v.image.begin(), v.image.end());
      text_host.insert(text_host.end(), v.text.begin(), v.text.end());
    }
    tensor<B> of_image, of_text;
    of_image.assign(b, 1, static_cast<index>(image_host.size()), image_host.data());
    of_text.assign(b, 1, static_cast<index>(text_host.size()), text_host.data());
    const key_factors<T> image{of_image.data(), method.shift}, text{of_text.data(), method.shift};
    encode(b, model, many, ws.tape, image);
    decode(b, model, many_texts, ws.tape, {.text = text, .image = image});
    settle_answers(ws.tape.text, ws.explained);
    const auto values = watched_values(b, ws, method.watch);
    result.insert(result.end(), values.begin(), values.end());
  }
  return result;
}

}  // namespace detail

/// What is watched without the change minus with it: positive where a token speaks for the answer. Conceptual
/// neighbours are those among the image tokens.
template <tensor_backend B>
answer_relevance attribute(const atman& method, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts, answer_workspace<B>& ws) {
  using T = typename B::scalar;
  explain_answers(b, model, images, texts, ws);
  const auto unchanged = detail::watched_values(b, ws, method.watch);
  const bool with_position = method.neighbours == neighbourhood::patchpos;
  const auto embedded = (with_position ? ws.tape.stream.front() : ws.tape.embedding.patches).to_host(b);
  const index dim = model.config().image.dim;
  std::vector<detail::answer_variation> variations;
  std::vector<std::size_t> of_image, of_text;
  for (index s = 0; s < images.samples(); ++s) {
    const index begin = images.offsets[static_cast<std::size_t>(s)],
                n = images.offsets[static_cast<std::size_t>(s + 1)] - begin;
    const index length = ws.tape.text.rows.self.queries().length(s);
    std::vector<double> cosine;
    if (method.neighbours != neighbourhood::none) {
      const index first = with_position ? ws.tape.plan.rows().begin(s) + 1 : begin;
      cosine = cosines<T>(
          std::span(embedded).subspan(static_cast<std::size_t>(first * dim), static_cast<std::size_t>(n * dim)), n,
          dim);
    }
    const detail::answer_variation none{s, std::vector<double>(static_cast<std::size_t>(n + 1), 1.0),
                                        std::vector<double>(static_cast<std::size_t>(length), 1.0)};
    for (index i = 0; i < n; ++i) {
      of_image.push_back(variations.size());
      variations.push_back(none);
      for (index j = 0; j < n; ++j)
        variations.back().image[static_cast<std::size_t>(j + 1)] = suppression(method, cosine, n, i, j);
    }
    for (index i = 0; i < length; ++i) {
      of_text.push_back(variations.size());
      variations.push_back(none);
      variations.back().text[static_cast<std::size_t>(i)] = 1 - method.factor;
    }
  }
  const auto changed = detail::run_variations(method, b, model, images, texts, variations);
  const auto falls = [&](const std::vector<std::size_t>& which) {
    std::vector<double> relevance;
    for (const std::size_t v : which)
      relevance.push_back(unchanged[static_cast<std::size_t>(variations[v].sample)] - changed[v]);
    return relevance;
  };
  return {falls(of_image), falls(of_text)};
}

}  // namespace core_tokensets
