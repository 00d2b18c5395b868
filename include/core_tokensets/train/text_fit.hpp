#pragma once
// Teaching an image-text model questions or captions together with a memory of earlier ones.

#include "core_tokensets/data/encoded_texts.hpp"
#include "core_tokensets/model/image_text.hpp"
#include "core_tokensets/train/fit.hpp"

namespace core_tokensets {

/// Everything that a training step of an image-text model writes to; kept from step to step.
template <tensor_backend B>
struct text_training_state {
  image_text_tape<B> tape;
  loss_tape<B> loss;
  tensor<B> gradients;
  stream_gradients<B> streams;
  optimiser_state<B> optimiser;
};

/// One optimiser step: the loss is the mean over the texts of weight times the mean over the answer's tokens.
template <tensor_backend B>
void training_step(B& b, image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                   const fit_options& o, double schedule, text_training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, images, texts, state.tape);
  cross_entropy(b, *std::as_const(state.tape.logits), state.tape.text.targets, state.loss, state.tape.text.weights,
                {.label_smoothing = o.label_smoothing});
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward<B, T>(b, model, state.tape, *std::as_const(state.loss.dlogits), state.gradients.data(), state.streams);
  if (o.clip > 0) clip_gradients(b, state.gradients, o.clip, state.optimiser);
  step(b, o.optimiser, state.optimiser, model.parameters(), state.gradients, schedule);
}

/// Appends the stored texts of `samples` to a batch, one to each picture behind those that are there.
inline void append_stored_texts(const token_memory& memory, std::span<const index> samples, const tokenizer& words,
                                text_batch& out) {
  require(memory.format().texts, "texts: the memory keeps no texts");
  out.weights.resize(static_cast<std::size_t>(out.texts()), 1.0f);
  for (const index s : samples) {
    const stored_sample sample = memory.sample(s);
    out.next_picture();
    out.append(words.encode(sample.prompt), words.encode(sample.answer), tokenizer::begin_token, tokenizer::end_token);
    out.weights.push_back(sample.weight);
  }
}

/// Relevance `[T]` of the tokens of whole pictures for one text about each.
using answer_token_relevance = std::function<std::vector<double>(const token_batch&, const text_batch&)>;

/// Trains on the samples `indices` of `data` with replay from `memory` (may be null or empty). A step holds
/// `options.batch` pictures with at most `texts_per_picture` of their texts each, and `replay_batch` stored samples;
/// its loss is the mean over the new texts plus the weighted mean over the stored ones. With `relevance` the pictures
/// of a step that leaves out tokens lose the least relevant ones, and have one text each, as stored samples do.
/// `options.loss` and `options.token_relevance` mean nothing here. Every random choice is a function of `options.seed`.
/// Throws where the loss is not finite or a text is too long.
template <tensor_backend B>
void fit(B& b, image_text_model<B>& model, const tokenizer& words, const visual_text& data,
         std::span<const index> indices, const token_memory* memory, const fit_options& options,
         index texts_per_picture = 4, const std::string& what = "fit", const answer_token_relevance& relevance = {}) {
  fit_options o = options;
  text_training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  const encoded_texts encoded(data, words, model.config().text.length);
  const samples_by_picture by_picture(data, indices);
  const bool replay = memory != nullptr && !memory->empty();
  replay_sampler sampler(replay ? memory->samples() : 1, o.seed, replay_stream);
  new_pictures pictures;
  token_batch replayed;
  text_batch texts;
  o.token_relevance = {};
  if (relevance) o.token_relevance = [&](const token_batch& whole) { return relevance(whole, texts); };
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    const index most_texts = relevance && new_pictures::thins(o, at) ? 1 : texts_per_picture;
    random_stream random(o.seed, 2'000'000 + static_cast<std::uint64_t>(at.step));
    texts.clear();
    for (const index picture : part) {
      texts.next_picture();
      for (const index i : by_picture.some_of(picture, most_texts, random)) {
        texts.append(encoded.prompt(i), encoded.answer(i, random.below(1 << 20)), tokenizer::begin_token,
                     tokenizer::end_token);
      }
    }
    const index fresh = texts.texts();
    token_batch& batch = pictures.take(data.images, part, model.config().image.patch, o, at);
    if (replay) {
      const auto drawn = sampler.draw(std::min(o.replay_batch, memory->samples()));
      make_batch(*memory, drawn, o.missing, replayed);
      append(batch, replayed);
      append_stored_texts(*memory, drawn, words, texts);
    }
    detail::balance_weights(texts.weights, texts.texts(), fresh);
    training_step(b, model, batch, texts, o, at.schedule, state);
  };
  run_epochs(by_picture.pictures(), o, what, train, [&] { return mean_loss(b, state.loss, state.tape.text.weights); });
}

}  // namespace core_tokensets
