#pragma once
// Training on new pictures together with a memory: one ragged batch holds both, one pass serves both.

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/nn/optimiser.hpp"
#include "core_tokensets/train/checkpoint.hpp"
#include "core_tokensets/train/fit_options.hpp"
#include "core_tokensets/train/head.hpp"
#include "core_tokensets/train/objectives/cross_entropy.hpp"
#include "core_tokensets/train/pieces.hpp"
#include "core_tokensets/train/stored_logits.hpp"

namespace core_tokensets {

/// What happens to the gradients of a step between their sum and clipping: nothing. Another type with the same call may
/// look at them or change them.
struct local_gradients {
  template <tensor_backend B>
  void operator()(B&, tensor<B>&) const {}
};

/// Everything that a training step writes to; kept from step to step.
template <tensor_backend B>
struct training_state {
  vit_tape<B> tape;
  loss_tape<B> loss;
  tensor<B> gradients, dtokens;
  optimiser_state<B> optimiser;
  std::vector<parameter_group> groups;
};

/// How far a step goes.
struct step_options {
  double clip = 1;      ///< largest norm of the gradient; 0: any
  double schedule = 1;  ///< what the learning rate is multiplied by
};

/// Clips what is in `state.gradients` and moves the parameters.
template <tensor_backend B, class Model, class State, optimiser<B> Optimiser, class Reduce>
void update_parameters(B& b, Model& model, const Optimiser& o, const Reduce& reduce, const step_options& how,
                       State& state) {
  reduce(b, state.gradients);
  if (how.clip > 0) clip_gradients(b, state.gradients, how.clip, state.optimiser);
  step(b, o, state.optimiser, model.parameters(), state.gradients, how.schedule, state.groups);
}

/// The gradient of the loss of a batch to `state.gradients` (=); the loss is left in `state.loss`.
template <tensor_backend B, objective<B> Objective>
void batch_gradient(B& b, const vit<B>& model, const token_batch& batch,
                    const objective_batch<typename B::scalar>& facts, const Objective& what, training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, batch, state.tape);
  loss(what, b, *std::as_const(state.tape.logits), facts, state.loss);
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward(b, model, state.tape, *state.loss.dlogits, state.gradients.data(), state.dtokens);
}

/// One optimiser step on a batch; its loss is left in `state.loss`. Allocates nothing once `state` is warm.
template <tensor_backend B, objective<B> Objective, optimiser<B> Optimiser, class Reduce = local_gradients>
void training_step(B& b, vit<B>& model, const token_batch& batch, const objective_batch<typename B::scalar>& facts,
                   const Objective& what, const Optimiser& o, const step_options& how, training_state<B>& state,
                   const Reduce& reduce = {}) {
  batch_gradient(b, model, batch, facts, what, state);
  update_parameters(b, model, o, reduce, how, state);
}

/// What share of the new and of the replayed samples of a step a piece of it has.
struct step_share {
  double fresh = 1, replayed = 1;
};

namespace detail {

/// Gives new samples, followed by replayed ones, weights that make their mean loss the mean over the new ones plus the
/// weighted mean over the replayed ones; of a piece of a step its share of both.
inline void balance_weights(std::vector<float>& weights, index samples, index fresh, const step_share& share = {}) {
  weights.resize(static_cast<std::size_t>(samples), 1.0f);
  const auto spread = [&](index begin, index end, double of_step) {
    double total = 0;
    for (index s = begin; s < end; ++s) total += double(weights[static_cast<std::size_t>(s)]);
    if (!(total > 0)) return;
    const auto factor = static_cast<float>(of_step * static_cast<double>(samples) / total);
    for (index s = begin; s < end; ++s) weights[static_cast<std::size_t>(s)] *= factor;
  };
  spread(0, fresh, share.fresh);
  spread(fresh, samples, share.replayed);
}

}  // namespace detail

/// The stream of random numbers that deals out the memory; those of epochs begin at 1000.
inline constexpr std::uint64_t replay_stream = 0x7265706c6179;

/// Where training stands.
struct epoch_position {
  index epoch = 0, step = 0;
  double schedule = 1;  ///< what the learning rate is multiplied by
  index piece = 0;      ///< of the step
  step_share share = {};
};

/// What training did.
struct fit_report {
  index steps = 0;
  double loss = 0;             ///< of the last step
  double earlier_seconds = 0;  ///< of the steps that were done before an interruption
};

/// The loop that all training shares: epochs of shuffled samples in batches, the learning rate's schedule, progress. It
/// goes on behind the steps of `from`. `step(part, position)` trains on samples; `loss()` waits for the last step's
/// loss and throws where it is not finite; `after_step(done)` is told where training stands then.
template <class Step, class Loss, class After>
fit_report run_epochs(std::span<const index> samples, const fit_options& o, const std::string& what,
                      const fit_position& from, const Step& step, const Loss& loss, const After& after_step) {
  require(!samples.empty(), what, ": there are no samples to learn from");
  const auto n = static_cast<index>(samples.size());
  const index each = (n + o.batch - 1) / o.batch, steps = each * o.epochs;
  const auto warm_up = static_cast<index>(o.warm_up * static_cast<double>(steps));
  constexpr index look_every = 8;  // steps between two looks at the loss, for which a device must be waited for
  progress_meter meter(o.on_progress, what, steps, from.steps, from.seconds);
  fit_position at = from;
  std::vector<index> order(samples.begin(), samples.end());
  for (index epoch = 0; epoch < o.epochs; ++epoch) {
    random_stream(o.seed, 1000 + static_cast<std::uint64_t>(epoch)).shuffle(std::span(order));
    for (index done = std::max(at.steps, epoch * each); done < (epoch + 1) * each; ++done) {
      const index begin = (done - epoch * each) * o.batch;
      step(std::span<const index>(order).subspan(static_cast<std::size_t>(begin),
                                                 static_cast<std::size_t>(std::min(o.batch, n - begin))),
           epoch_position{epoch, done, cosine_schedule(done, steps, warm_up)});
      if (done % look_every == 0 || done + 1 == steps) at.loss = loss();
      at.steps = done + 1, at.seconds = meter.seconds();
      char note[32];
      std::snprintf(note, sizeof note, "loss %.3f", at.loss);
      meter.step(note);
      after_step(at);
    }
  }
  return {.steps = steps, .loss = at.loss, .earlier_seconds = from.seconds};
}

/// A batch of new pictures as training sees it: whole, or for some of the steps with tokens left out; or with its first
/// ones as the memory would keep them and all others whole.
class new_pictures {
 public:
  /// The batch of the pictures `part` at that position, of which the first `remembered` look as the memory's do, with
  /// the `texts` about those that change their look if there are any; valid until the next call.
  token_batch& take(const dataset& data, std::span<const index> part, const vit_config& c, const fit_options& o,
                    const epoch_position& at, const text_batch* texts = nullptr, index remembered = 0) {
    check_pictures(data, c);
    make_batch(data, part,
               {.patch = c.grid.patch,
                .normalisation = c.normalisation,
                .augment = {.shift = o.shift, .flip = texts != nullptr ? 0.0 : o.flip},
                .seed = o.seed,
                .epoch = static_cast<std::uint64_t>(at.epoch)},
               whole_);
    if (part.empty()) return whole_;
    if (remembered > 0 && o.as_remembered) {
      o.as_remembered(samples_of(whole_, 0, remembered), texts, thinned_);
      append(thinned_, samples_of(whole_, remembered, whole_.samples()));
      return thinned_;
    }
    random_stream random = stream_of(o, at);
    if (!chance(o, random)) return whole_;  // for all pieces of a step alike, so that ranks wait less for each other
    if (at.piece > 0) random = stream_of(o, at, at.piece);
    if (o.drop_rule == token_drop_rule::memory && o.as_remembered) {
      o.as_remembered(whole_, texts, thinned_);
    } else {
      drop_tokens(whole_, o.token_drop, random, o.missing, thinned_);
    }
    return thinned_;
  }

  /// True where the batch of that position loses tokens.
  static bool thins(const fit_options& o, const epoch_position& at) {
    random_stream random = stream_of(o, at);
    return chance(o, random);
  }

 private:
  static random_stream stream_of(const fit_options& o, const epoch_position& at, index piece = 0) {
    return random_stream(detail::seed_of_piece(o.seed ^ 0x7468696e, piece), static_cast<std::uint64_t>(at.step));
  }
  static bool chance(const fit_options& o, random_stream& random) {
    return o.token_drop > 0 && random.uniform() < o.token_drop_often;
  }

  token_batch whole_, thinned_;
};

namespace detail {

/// Samples of the memory, drawn step after step; none where there is no memory.
class replay_batches {
 public:
  replay_batches(const token_memory* memory, const vit_config& c, const fit_options& o, const fit_position& from)
      : memory_(memory != nullptr && !memory->empty() ? memory : nullptr),
        config_(c),
        options_(o),
        sampler_(replay_sampler::state{.samples = memory_ != nullptr ? memory_->samples() : 1,
                                       .seed = o.seed,
                                       .stream = replay_stream,
                                       .cycle_start = from.replay_cycle,
                                       .cursor = from.replay_cursor}) {
    if (memory_ == nullptr) return;
    require(memory_->format().grid == c.grid, "fit: the memory holds images of ", memory_->format().grid,
            ", the model sees images of ", c.grid);
  }
  explicit operator bool() const { return memory_ != nullptr; }
  /// How many join each batch.
  index count() const { return memory_ != nullptr ? std::min(options_.replay_batch, memory_->samples()) : 0; }

  /// Writes down where the dealing of samples stands.
  void mark(fit_position& at) const {
    at.replay_cycle = sampler_.position().cycle_start, at.replay_cursor = sampler_.position().cursor;
  }

  /// The numbers of the next step's samples in the memory, valid until the next call.
  std::span<const index> draw() {
    if (memory_ != nullptr) drawn_ = sampler_.draw(count());
    return drawn_;
  }

  /// Samples of the memory join the batch of a step, or of one of its pieces.
  void append_to(token_batch& batch, std::span<const index> samples, const epoch_position& at) {
    if (samples.empty()) return;
    make_batch(*memory_, samples, config_.normalisation,
               {.missing = options_.missing,
                .flip = options_.augment_replay ? options_.flip : 0.0,
                .seed = seed_of_piece(options_.seed, at.piece),
                .step = static_cast<std::uint64_t>(at.step)},
               replayed_);
    append(batch, replayed_);
  }

 private:
  const token_memory* memory_;
  const vit_config& config_;
  const fit_options& options_;
  replay_sampler sampler_;
  std::vector<index> drawn_;
  token_batch replayed_;
};

/// The gradient of a step in pieces to `gradient` `[1, size]`. `piece(new, replayed, position)` leaves that of one
/// piece there, of the loss that has its share of the step's, and returns that loss.
template <tensor_backend B, class Piece>
void sum_pieces(B& b, piece_sum<B>& sum, std::span<const index> part, std::span<const index> drawn, epoch_position at,
                tensor<B>& gradient, index size, const Piece& piece) {
  const auto share_of = [](std::span<const index> some, std::span<const index> all) {
    return all.empty() ? 0.0 : static_cast<double>(some.size()) / static_cast<double>(all.size());
  };
  for (at.piece = sum.first(); at.piece < sum.last(); ++at.piece) {
    const auto some = piece_of(part, at.piece, sum.pieces()), replayed = piece_of(drawn, at.piece, sum.pieces());
    at.share = {share_of(some, part), share_of(replayed, drawn)};
    double loss = 0;
    if (some.empty() && replayed.empty()) {
      gradient.resize(b, 1, size);
      b.fill(*gradient, typename B::scalar(0));
    } else {
      loss = piece(some, replayed, at);
    }
    sum.add(b, gradient, loss);
  }
  sum.finish(b, gradient);
}

template <tensor_backend B, objective<B> Objective, optimiser<B> Optimiser, class Reduce>
fit_report fit_samples(B& b, vit<B>& model, const sample_view<dataset>& samples, const token_memory* memory,
                       index first_class, const fit_options& o, const Objective& what, const Optimiser& optimiser,
                       const Reduce& reduce, std::optional<vit<B>> start, fit_checkpoint& checkpoint,
                       const std::string& name) {
  using T = typename B::scalar;
  training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  if (o.backbone_rate != 1) {
    state.groups = parameter_groups(model.layout().parameters, o.backbone_rate,
                                    [](const std::string& p) { return !p.starts_with("head."); });
  }
  checkpoint.restore(b, model.parameters(), state.optimiser);
  replay_batches replay(memory, model.config(), o, checkpoint.position());
  const bool keeps_logits = stored_logits(what) > 0 && replay;
  if (keeps_logits) check_stored_logits(*memory);
  new_pictures pictures;
  recalled_logits recalled;
  vit_tape<B> start_tape;
  start_tape.keep = kept::logits;
  piece_sum<B> sum(o);
  objective_batch<T> facts;
  std::span<const float> weights;
  const auto fill = [&](std::span<const index> part, std::span<const index> drawn, const epoch_position& at) -> auto& {
    const auto fresh = static_cast<index>(part.size());
    const index alike =
        on_equal_footing(what, fresh, static_cast<index>(drawn.size()), first_class, model.config().classes);
    token_batch& batch = pictures.take(*samples.data, part, model.config(), o, at, nullptr, alike);
    replay.append_to(batch, drawn, at);
    if (keeps_logits) recalled.read(*memory, drawn);
    balance_weights(batch.weights, batch.samples(), fresh, at.share);
    facts = objective_batch<T>{.targets = batch.targets,
                               .weights = batch.weights,
                               .fresh = fresh,
                               .first_class = first_class,
                               .stored_logits = recalled.values,
                               .stored_classes = recalled.classes};
    return batch;
  };
  const auto ask_start = [&](const token_batch& batch) {
    if (!start) return;
    forward(b, *start, batch, start_tape);
    facts.start_logits = (*std::as_const(start_tape.logits)).slice_cols(0, first_class);
  };
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    const auto drawn = replay.draw();
    if (sum.whole()) {
      const token_batch& batch = fill(part, drawn, at);
      ops::repeat(b, (batch.tokens() << 20) + batch.samples(), [&] {
        ask_start(batch);
        training_step(b, model, batch, facts, what, optimiser, {o.clip, at.schedule}, state, reduce);
      });
      weights = batch.weights;
      return;
    }
    sum_pieces(b, sum, part, drawn, at, state.gradients, model.parameters().size(),
               [&](std::span<const index> some, std::span<const index> some_drawn, const epoch_position& here) {
                 const token_batch& batch = fill(some, some_drawn, here);
                 ask_start(batch);
                 batch_gradient(b, model, batch, facts, what, state);
                 return mean_loss(b, state.loss, batch.weights);
               });
    update_parameters(b, model, optimiser, reduce, {o.clip, at.schedule}, state);
  };
  return or_leave(o.ranks, [&] {
    const fit_report report = run_epochs(
        samples.indices, o, name, checkpoint.position(), train,
        [&] { return sum.whole() ? mean_loss(b, state.loss, weights) : sum.loss(); },
        [&](fit_position at) {
          replay.mark(at);
          checkpoint.after_step(b, model.parameters(), state.optimiser, at);
        });
    check_same_model(b, o.ranks, model.parameters());
    return report;
  });
}

}  // namespace detail

/// Trains a classifier on a task with replay from `memory`. The head gets room for the task's classes (`prepare_head`);
/// the loss is the mean over the new samples plus the weighted mean over the replayed ones. Every random choice is a
/// function of `options.seed` and the task's number. `Error`: pictures or a memory that do not fit the model, options
/// that make no sense, a loss that is not finite, a checkpoint of another training. `stopped`: see
/// `checkpoint_options`; the model is to be made anew then, as it was before.
template <tensor_backend B, objective<B> Objective = ace, optimiser<B> Optimiser = adamw,
          class Reduce = local_gradients>
fit_report fit(B& b, vit<B>& model, const task& t, const token_memory& memory, const fit_options& options = {},
               const Objective& what = {}, const Optimiser& optimiser = {}, const Reduce& reduce = {}) {
  const fit_options given = settled(options);
  fit_options o = given;
  o.seed = seed_of_task(given.seed, t.number);
  const sample_view<dataset> samples = t.train();
  check_pictures(*samples.data, model.config());
  detail::fit_checkpoint checkpoint(
      o, [&] { return detail::training_facts(b, model, samples, &memory, t.number, given, what, optimiser); });
  const auto known = static_cast<index>(model.config().class_names.size());  // rows of these have learnt something
  const index first = first_new_class(t, known, memory);
  std::optional<vit<B>> start;
  if (uses_start_model(what) && first > 0 && model.config().classes >= first) start = model.copy(b);
  prepare_head(b, model, t);
  if (o.imprint && known < model.config().classes && !checkpoint.found())
    imprint_head(b, model, samples, std::max(first, known));
  const fit_report report =
      detail::fit_samples(b, model, samples, &memory, first, o, what, optimiser, reduce, std::move(start), checkpoint,
                          t.of > 1 ? "task " + std::to_string(t.number + 1) + "/" + std::to_string(t.of) : t.name);
  if (o.align) align_head(b, model, first);
  return report;
}

/// Trains a classifier on some samples of a data set, or on all of it, without a memory. The head must have room for
/// their labels, or has as many classes as the data after this.
template <tensor_backend B, objective<B> Objective = ace, optimiser<B> Optimiser = adamw,
          class Reduce = local_gradients>
fit_report fit(B& b, vit<B>& model, const sample_view<dataset>& samples, const fit_options& options = {},
               const Objective& what = {}, const Optimiser& optimiser = {}, const Reduce& reduce = {}) {
  const fit_options o = settled(options);
  const dataset& data = *samples.data;
  data.check("fit");
  check_pictures(data, model.config());
  detail::fit_checkpoint checkpoint(
      o, [&] { return detail::training_facts(b, model, samples, nullptr, 0, o, what, optimiser); });
  if (model.config().classes < data.classes() || model.config().class_names.empty()) {
    if (model.config().classes != data.classes()) model.replace_head(b, data.classes());
    model.set_class_names(data.class_names);
  }
  return detail::fit_samples(b, model, samples, nullptr, 0, o, what, optimiser, reduce, {}, checkpoint, "fit");
}

}  // namespace core_tokensets
