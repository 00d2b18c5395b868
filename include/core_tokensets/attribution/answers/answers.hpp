#pragma once
// Which image tokens and which text tokens mattered for an answer: what is explained, and the state that the methods
// share. Batches hold one text a picture.

#include <cmath>

#include "core_tokensets/attribution/answers/cross_attention.hpp"
#include "core_tokensets/model/image_text.hpp"

namespace core_tokensets {

/// Relevance of image patches `[P]` and of text tokens `[L]` (prompt, `begin` and answer).
struct answer_relevance {
  std::vector<double> image, text;
};

/// The state that methods reuse from batch to batch.
template <tensor_backend B>
struct answer_workspace {
  image_text_tape<B> tape;
  tensor<B> dlogits;                          ///< [A, V] gradient of what is explained
  stream_gradients<B> streams;                ///< its gradients at both streams
  std::vector<std::vector<index>> explained;  ///< of each text the rows of the A that are explained
};

/// A type M whose values explain answers on backend B: `attribute(m, b, model, images, texts, workspace)`, found beside
/// M, for batches of one text a picture. A method may be this and an `attribution_method` too.
template <class M, class B>
concept answers_method = tensor_backend<B> &&
    requires(const M& m, B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
             answer_workspace<B>& ws) {
  { attribute(m, b, model, images, texts, ws) } -> std::same_as<answer_relevance>;
};

/// `Error` where a method finds out only when it runs that it does not work on answers (`any_attribution`). Types that
/// never do are refused when they are compiled.
template <tensor_backend B, answers_method<B> M>
void check_answers_method(const M& method) {
  if constexpr (requires { method.check_answers(); }) method.check_answers();
}

/// The same with a workspace of its own, for one batch.
template <tensor_backend B, answers_method<B> M>
answer_relevance attribute(const M& m, B& b, const image_text_model<B>& model, const token_batch& images,
                           const text_batch& texts) {
  answer_workspace<B> ws;
  return attribute(m, b, model, images, texts, ws);
}

/// What is explained of each text: the sum of the logits of its answer's tokens. The token `end` behind them says
/// little about the picture and is left out, unless the answer is empty.
template <tensor_backend B>
void settle_answers(const text_plan<B>& plan, std::vector<std::vector<index>>& explained) {
  explained.clear();
  for (index q = 0; q < plan.asked_of_text.count(); ++q) {
    const index begin = plan.asked_of_text.begin(q), all = plan.asked_of_text.length(q);
    require(all > 0, "attribution: text ", q, " asks for nothing");
    explained.emplace_back();
    for (index a = 0; a < std::max<index>(1, all - 1); ++a) explained.back().push_back(begin + a);
  }
}

/// `Error` unless there is one text about each picture.
inline void check_one_text_each(const token_batch& images, const text_batch& texts) {
  require(texts.texts() == texts.pictures() && texts.pictures() == images.samples(), "attribution: ", texts.texts(),
          " texts about ", texts.pictures(), " of ", images.samples(), " pictures, expected one each");
  for (index s = 0; s < texts.pictures(); ++s) {
    const auto at = static_cast<std::size_t>(s);
    require(texts.images[at + 1] - texts.images[at] == 1, "attribution: ", texts.images[at + 1] - texts.images[at],
            " texts about picture ", s, ", expected one each");
  }
}

/// Runs the forward pass with everything that gradients and relevance need, and settles what is explained.
template <tensor_backend B>
void explain_answers(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                     answer_workspace<B>& ws) {
  using T = typename B::scalar;
  check_one_text_each(images, texts);
  ws.tape.keep = kept::gradients;
  ws.tape.keep_matrices = true;
  forward(b, model, images, texts, ws.tape);
  settle_answers(ws.tape.text, ws.explained);
  const auto v = static_cast<std::size_t>(model.config().text.vocabulary);
  std::vector<T> gradient(ws.tape.text.targets.size() * v, T(0));
  for (const auto& rows : ws.explained) {
    for (const index a : rows) {
      const auto row = static_cast<std::size_t>(a);
      gradient[row * v + static_cast<std::size_t>(ws.tape.text.targets[row])] = T(1);
    }
  }
  ws.dlogits.assign(b, static_cast<index>(ws.tape.text.targets.size()), model.config().text.vocabulary,
                    gradient.data());
}

namespace detail {

/// Text s of a batch appended to another, about a picture of its own.
inline void append_sample(const text_batch& from, index s, text_batch& to) {
  const auto begin = from.offsets[static_cast<std::size_t>(s)], end = from.offsets[static_cast<std::size_t>(s + 1)];
  to.next_picture();
  to.tokens.insert(to.tokens.end(), from.tokens.begin() + begin, from.tokens.begin() + end);
  to.targets.insert(to.targets.end(), from.targets.begin() + begin, from.targets.begin() + end);
  to.offsets.push_back(static_cast<index>(to.tokens.size()));
  ++to.images.back();
}

}  // namespace detail

/// Rows of text s, counted from its first, whose outputs are explained.
template <tensor_backend B>
std::vector<index> explained_places(const answer_workspace<B>& ws, const text_batch& texts, index s) {
  std::vector<index> places;
  const auto& wanted = ws.explained[static_cast<std::size_t>(s)];
  index asked = ws.tape.text.asked_of_text.begin(s);
  for (index t = texts.offsets[static_cast<std::size_t>(s)]; t < texts.offsets[static_cast<std::size_t>(s + 1)]; ++t) {
    if (texts.targets[static_cast<std::size_t>(t)] < 0) continue;
    if (std::find(wanted.begin(), wanted.end(), asked) != wanted.end())
      places.push_back(t - texts.offsets[static_cast<std::size_t>(s)]);
    ++asked;
  }
  return places;
}

/// mean over `rows` of the rows of a map.
inline std::vector<double> mean_of_rows(const token_map& map, std::span<const index> rows) {
  std::vector<double> mean(static_cast<std::size_t>(map.cols), 0.0);
  for (const index r : rows) {
    for (index c = 0; c < map.cols; ++c) {
      mean[static_cast<std::size_t>(c)] += map(r, c) / static_cast<double>(rows.size());
    }
  }
  return mean;
}

}  // namespace core_tokensets
