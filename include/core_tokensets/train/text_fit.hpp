#pragma once
// Teaching an image-text model questions or captions together with a memory of earlier ones.

#include "core_tokensets/data/text/encoded_texts.hpp"
#include "core_tokensets/data/text/text_tasks.hpp"
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
  std::vector<parameter_group> groups;
};

/// The gradient of the loss of a batch to `state.gradients` (=); the loss is left in `state.loss`, the mean over the
/// texts of weight times the mean over the answer's tokens. The first `fresh` texts are new.
template <tensor_backend B, objective<B> Objective>
void batch_gradient(B& b, const image_text_model<B>& model, const token_batch& images, const text_batch& texts,
                    index fresh, const_view<typename B::scalar> start_logits, const Objective& what,
                    text_training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, images, texts, state.tape);
  const text_plan<B>& plan = state.tape.text;
  loss(what, b, *std::as_const(state.tape.logits),
       objective_batch<T>{.targets = plan.targets,
                          .weights = plan.weights,
                          .fresh = plan.asked_of_text.begin(fresh),
                          .start_logits = start_logits},
       state.loss);
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward<B, T>(b, model, state.tape, *std::as_const(state.loss.dlogits), state.gradients.data(), state.streams);
}

/// One optimiser step on a batch.
template <tensor_backend B, objective<B> Objective, optimiser<B> Optimiser, class Reduce = local_gradients>
void training_step(B& b, image_text_model<B>& model, const token_batch& images, const text_batch& texts, index fresh,
                   const_view<typename B::scalar> start_logits, const Objective& what, const Optimiser& o,
                   const step_options& how, text_training_state<B>& state, const Reduce& reduce = {}) {
  batch_gradient(b, model, images, texts, fresh, start_logits, what, state);
  update_parameters(b, model, o, reduce, how, state);
}

namespace detail {

/// Appends the stored texts of `samples` to a batch, one to each picture behind those that are there.
inline void append_stored_texts(const token_memory& memory, std::span<const index> samples, const tokenizer& words,
                                text_batch& out) {
  require(memory.format().texts, "fit: the memory keeps no texts");
  out.weights.resize(static_cast<std::size_t>(out.texts()), 1.0f);
  const token_arrays& arrays = memory.arrays();
  for (const index s : samples) {
    const auto i = static_cast<std::size_t>(s);
    out.next_picture();
    out.append(words.encode(arrays.text_of(2 * i)), words.encode(arrays.text_of(2 * i + 1)), tokenizer::begin_token,
               tokenizer::end_token);
    out.weights.push_back(arrays.weights[i]);
  }
}

}  // namespace detail

/// Trains an image-text model on a task with replay from `memory`. A step holds `options.batch` pictures with at most
/// `texts_per_picture` of their texts each, and `replay_batch` stored samples; its loss is the mean over the new texts
/// plus the weighted mean over the stored ones. Where pictures look as the memory would keep them, they have one
/// text each, as stored samples do. Pictures are not mirrored. `Error` and `stopped`: as for classes, and a text that
/// is too long.
template <tensor_backend B, objective<B> Objective = ace, optimiser<B> Optimiser = adamw,
          class Reduce = local_gradients>
fit_report fit(B& b, image_text_model<B>& model, const text_task& t, const token_memory& memory,
               const fit_options& options = {}, const Objective& what = {}, const Optimiser& optimiser = {},
               const Reduce& reduce = {}) {
  using T = typename B::scalar;
  const fit_options given = settled(options);
  require(stored_logits(what) == 0, "fit: texts have logits for each token, which a memory does not keep");
  fit_options o = given;
  o.seed = seed_of_task(given.seed, t.number);
  o.augment_replay = false;
  const visual_text& data = t.data->train;
  detail::fit_checkpoint checkpoint(
      o, [&] { return detail::training_facts(b, model, t.train(), &memory, t.number, given, what, optimiser); });
  text_training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  if (o.backbone_rate != 1) {
    state.groups = parameter_groups(model.layout().parameters, o.backbone_rate,
                                    [](const std::string& p) { return p.starts_with("encoder."); });
  }
  const tokenizer& words = model.words();
  const encoded_texts encoded(data, words, model.config().text.length);
  const samples_by_picture by_picture(data, t.train_indices);
  std::optional<image_text_model<B>> start;
  if (uses_start_model(what) && t.number > 0) start = model.copy(b);
  checkpoint.restore(b, model.parameters(), state.optimiser);
  detail::replay_batches replay(&memory, model.config().image, o, checkpoint.position());
  image_text_tape<B> start_tape;
  start_tape.keep = kept::logits;
  new_pictures pictures;
  text_batch texts, texts_of_alike;
  const bool as_remembered = o.drop_rule == token_drop_rule::memory && o.as_remembered;
  detail::piece_sum<B> sum(o);
  index fresh = 0;
  view<const T> start_logits;
  const auto fill = [&](std::span<const index> part, std::span<const index> drawn, const epoch_position& at) -> auto& {
    const index most_texts = as_remembered && new_pictures::thins(o, at) ? 1 : o.texts_per_picture;
    random_stream random(detail::seed_of_piece(o.seed ^ 0x7465787473, at.piece), static_cast<std::uint64_t>(at.step));
    // On equal footing as many new pictures look as remembered as are replayed of each earlier task.
    const index alike = o.as_remembered ? on_equal_footing(what, static_cast<index>(part.size()),
                                                           static_cast<index>(drawn.size()), t.number, t.number + 1)
                                        : 0;
    texts.clear();
    for (const index picture : part) {
      texts.next_picture();
      const bool one = texts.pictures() <= alike;
      for (const index i : by_picture.some_of(picture, one ? 1 : most_texts, random)) {
        texts.append(encoded.prompt(i), encoded.answer(i, random.below(1 << 20)), tokenizer::begin_token,
                     tokenizer::end_token);
      }
    }
    fresh = texts.texts();
    if (alike > 0) texts_of_alike = texts_of_first(texts, alike);
    token_batch& batch =
        pictures.take(data.images, part, model.config().image, o, at, alike > 0 ? &texts_of_alike : &texts, alike);
    replay.append_to(batch, drawn, at);
    if (replay) detail::append_stored_texts(memory, drawn, words, texts);
    detail::balance_weights(texts.weights, texts.texts(), fresh, at.share);
    if (start) {
      forward(b, *start, batch, texts, start_tape);
      start_logits = *std::as_const(start_tape.logits);
    }
    return batch;
  };
  const auto loss_of_batch = [&] { return mean_loss(b, state.loss, state.tape.text.weights); };
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    const auto drawn = replay.draw();
    if (sum.whole()) {
      const token_batch& batch = fill(part, drawn, at);
      training_step(b, model, batch, texts, fresh, start_logits, what, optimiser, {o.clip, at.schedule}, state, reduce);
      return;
    }
    detail::sum_pieces(b, sum, part, drawn, at, state.gradients, model.parameters().size(),
                       [&](std::span<const index> some, std::span<const index> replayed, const epoch_position& here) {
                         const token_batch& batch = fill(some, replayed, here);
                         batch_gradient(b, model, batch, texts, fresh, start_logits, what, state);
                         return loss_of_batch();
                       });
    update_parameters(b, model, optimiser, reduce, {o.clip, at.schedule}, state);
  };
  const std::string name = t.of > 1 ? "task " + std::to_string(t.number + 1) + "/" + std::to_string(t.of) : t.name;
  return detail::or_leave(o.ranks, [&] {
    const fit_report report = run_epochs(
        by_picture.pictures(), o, name, checkpoint.position(), train,
        [&] { return sum.whole() ? loss_of_batch() : sum.loss(); },
        [&](fit_position at) {
          replay.mark(at);
          checkpoint.after_step(b, model.parameters(), state.optimiser, at);
        });
    detail::check_same_model(b, o.ranks, model.parameters());
    return report;
  });
}

}  // namespace core_tokensets
