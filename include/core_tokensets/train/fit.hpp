#pragma once
// Training on new pictures together with a memory: one ragged batch holds both, one pass serves both.

#include <functional>
#include <string>
#include <vector>

#include "core_tokensets/core/progress.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/model/vit.hpp"
#include "core_tokensets/nn/loss.hpp"
#include "core_tokensets/nn/optimiser.hpp"

namespace core_tokensets {

/// How new and replayed samples meet in the loss. `sum` (the paper): all classes compete for both. `ace` (ER-ACE,
/// Caccia et al. 2022): new samples compete among the classes of their own task only, so that they do not push the old
/// ones down. There the memory holds samples of the current task too, for which all classes compete; here it does not
/// yet, so some of the new samples take their place: as many for each new class as are replayed for each old one.
enum class replay_loss { sum, ace };

struct fit_options {
  index epochs = 3, batch = 64;
  index replay_batch = 64;  ///< samples of the memory in each step
  adamw optimiser = {.learning_rate = 1e-3};
  double warm_up = 0.05;  ///< share of the steps
  double clip = 1.0;      ///< largest norm of the gradient
  double label_smoothing = 0;
  replay_loss loss = replay_loss::ace;
  missing_tokens missing = missing_tokens::drop;
  double token_drop = 0;        ///< share of the tokens that is left out of new pictures ...
  double token_drop_often = 1;  ///< ... in this share of the batches; the others stay whole
  /// Relevance `[T]` of the tokens of whole new pictures, the least relevant of which are left out; empty: random ones
  /// are (see `token_drop_rule`).
  std::function<std::vector<double>(const token_batch&)> token_relevance = {};
  pixel_normalisation normalisation = {};
  augmentation augment = {};
  std::uint64_t seed = 0;
  progress_callback on_progress = {};
};

/// Everything that a training step writes to; kept from step to step.
template <tensor_backend B>
struct training_state {
  vit_tape<B> tape;
  loss_tape<B> loss;
  tensor<B> gradients, dtokens;
  optimiser_state<B> optimiser;
};

/// One optimiser step on a batch; its loss is left in `state.loss`. Allocates nothing once `state` is warm.
template <tensor_backend B>
void training_step(B& b, vit<B>& model, const token_batch& batch, const cross_entropy_options& loss_options,
                   const fit_options& o, double schedule, training_state<B>& state) {
  using T = typename B::scalar;
  forward(b, model, batch, state.tape);
  cross_entropy(b, *state.tape.logits, batch.targets, state.loss, batch.weights, loss_options);
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  backward(b, model, state.tape, *state.loss.dlogits, state.gradients.data(), state.dtokens);
  if (o.clip > 0) clip_gradients(b, state.gradients, o.clip, state.optimiser);
  step(b, o.optimiser, state.optimiser, model.parameters(), state.gradients, schedule);
}

namespace detail {

/// Gives new samples, followed by replayed ones, weights that make their mean loss the mean over the new ones plus the
/// weighted mean over the replayed ones.
inline void balance_weights(std::vector<float>& weights, index samples, index fresh) {
  weights.resize(static_cast<std::size_t>(samples), 1.0f);
  const auto spread = [&](index begin, index end) {
    double total = 0;
    for (index s = begin; s < end; ++s) total += double(weights[static_cast<std::size_t>(s)]);
    if (!(total > 0)) return;
    const auto factor = static_cast<float>(static_cast<double>(samples) / total);
    for (index s = begin; s < end; ++s) weights[static_cast<std::size_t>(s)] *= factor;
  };
  spread(0, fresh);
  spread(fresh, samples);
}

/// The same for a batch, and which classes compete (`first` `[S]`).
inline void balance(token_batch& batch, index fresh, replay_loss loss, std::int32_t first_class, index classes,
                    std::vector<std::int32_t>& first) {
  const index samples = batch.samples();
  balance_weights(batch.weights, samples, fresh);
  first.assign(static_cast<std::size_t>(samples), 0);
  if (loss == replay_loss::sum) return;
  index open = 0;  // new samples for which all classes compete
  if (samples > fresh && first_class > 0) open = (samples - fresh) * (classes - first_class) / first_class;
  std::fill(first.begin() + std::min(open, fresh), first.begin() + fresh, first_class);
}

}  // namespace detail

/// The stream of random numbers that deals out the memory; those of epochs and steps begin at 1000.
inline constexpr std::uint64_t replay_stream = 0x7265706c6179;

/// Where training stands.
struct epoch_position {
  index epoch = 0, step = 0;
  double schedule = 1;  ///< what the learning rate is multiplied by
};

/// The loop that all training shares: epochs of shuffled samples in batches, the learning rate's schedule, progress.
/// `step(part, position)` trains on samples; `loss()` waits for the last step's loss and throws where it is not finite.
template <class Step, class Loss>
void run_epochs(std::span<const index> samples, const fit_options& o, const std::string& what, const Step& step,
                const Loss& loss) {
  require(!samples.empty() && o.epochs > 0 && o.batch > 0, "fit: ", samples.size(), " samples, ", o.epochs,
          " epochs, batches of ", o.batch, ", expected more than 0 of each");
  const auto n = static_cast<index>(samples.size());
  const index steps = (n + o.batch - 1) / o.batch * o.epochs;
  const auto warm_up = static_cast<index>(o.warm_up * static_cast<double>(steps));
  constexpr index look_every = 8;  // steps between two looks at the loss, for which a device must be waited for
  progress_meter meter(o.on_progress, what, steps);
  std::string note;
  std::vector<index> order(samples.begin(), samples.end());
  for (index epoch = 0, done = 0; epoch < o.epochs; ++epoch) {
    random_stream(o.seed, 1000 + static_cast<std::uint64_t>(epoch)).shuffle(std::span(order));
    for (index begin = 0; begin < n; begin += o.batch, ++done) {
      step(std::span<const index>(order).subspan(static_cast<std::size_t>(begin),
                                                 static_cast<std::size_t>(std::min(o.batch, n - begin))),
           epoch_position{epoch, done, cosine_schedule(done, steps, warm_up)});
      if (done % look_every == 0 || done + 1 == steps) {
        char text[32];
        std::snprintf(text, sizeof text, "loss %.3f", loss());
        note = text;
      }
      meter.step(note);
    }
  }
}

/// A batch of new pictures as training sees it: whole, or for some of the steps with tokens left out.
class new_pictures {
 public:
  /// The batch of the pictures `part` at that position; valid until the next call.
  token_batch& take(const dataset& data, std::span<const index> part, index patch, const fit_options& o,
                    const epoch_position& at) {
    make_batch(data, part,
               {.patch = patch,
                .normalisation = o.normalisation,
                .augment = o.augment,
                .seed = o.seed,
                .epoch = static_cast<std::uint64_t>(at.epoch)},
               whole_);
    random_stream random = stream_of(o, at);
    if (!chance(o, random)) return whole_;
    if (o.token_relevance) {
      drop_irrelevant_tokens(whole_, o.token_drop, o.token_relevance(whole_), o.missing, thinned_);
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
  static random_stream stream_of(const fit_options& o, const epoch_position& at) {
    return random_stream(o.seed, 1'000'000 + static_cast<std::uint64_t>(at.step));
  }
  static bool chance(const fit_options& o, random_stream& random) {
    return o.token_drop > 0 && random.uniform() < o.token_drop_often;
  }

  token_batch whole_, thinned_;
};

/// Trains on the pictures `indices` of `data`, whose classes start at `first_class`, with replay from `memory` (may be
/// null or empty). The loss is the mean over the new samples plus the weighted mean over the replayed ones. Every
/// random choice is a function of `options.seed`. Throws where the loss is not finite.
template <tensor_backend B>
void fit(B& b, vit<B>& model, const dataset& data, std::span<const index> indices, const token_memory* memory,
         std::int32_t first_class, const fit_options& o, const std::string& what = "fit") {
  training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  const bool replay = memory != nullptr && !memory->empty();
  replay_sampler sampler(replay ? memory->samples() : 1, o.seed, replay_stream);
  new_pictures pictures;
  token_batch replayed;
  std::vector<std::int32_t> first;
  std::span<const float> weights;
  const auto train = [&](std::span<const index> part, const epoch_position& at) {
    token_batch& batch = pictures.take(data, part, model.config().patch, o, at);
    const index fresh = batch.samples();
    if (replay) {
      make_batch(*memory, sampler.draw(std::min(o.replay_batch, memory->samples())), o.missing, replayed);
      append(batch, replayed);
    }
    detail::balance(batch, fresh, o.loss, first_class, model.config().classes, first);
    ops::repeat(b, (batch.tokens() << 20) + batch.samples(), [&] {
      training_step(b, model, batch, {.label_smoothing = o.label_smoothing, .first_class = first}, o, at.schedule,
                    state);
    });
    weights = batch.weights;
  };
  run_epochs(indices, o, what, train, [&] { return mean_loss(b, state.loss, weights); });
}

}  // namespace core_tokensets
