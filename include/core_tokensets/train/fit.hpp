#pragma once
// Training on new pictures together with a memory: one ragged batch holds both, one pass serves both.

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

/// Appends the samples of `more` to `batch`.
inline void append(token_batch& batch, const token_batch& more) {
  require(batch.patch_dim == more.patch_dim, "append: patches of ", more.patch_dim,
          " numbers to a batch with patches of ", batch.patch_dim);
  if (!batch.scale.empty() || !more.scale.empty()) {
    batch.scale.resize(static_cast<std::size_t>(batch.tokens()), 1.0);
    batch.scale.insert(batch.scale.end(), more.scale.begin(), more.scale.end());
    batch.scale.resize(static_cast<std::size_t>(batch.tokens() + more.tokens()), 1.0);
  }
  if (!batch.weights.empty() || !more.weights.empty()) {
    batch.weights.resize(static_cast<std::size_t>(batch.samples()), 1.0f);
    batch.weights.insert(batch.weights.end(), more.weights.begin(), more.weights.end());
    batch.weights.resize(static_cast<std::size_t>(batch.samples() + more.samples()), 1.0f);
  }
  const index shift = batch.tokens();
  for (std::size_t s = 1; s < more.offsets.size(); ++s) batch.offsets.push_back(shift + more.offsets[s]);
  batch.patches.insert(batch.patches.end(), more.patches.begin(), more.patches.end());
  batch.positions.insert(batch.positions.end(), more.positions.begin(), more.positions.end());
  batch.targets.insert(batch.targets.end(), more.targets.begin(), more.targets.end());
}

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

/// Gives a batch of new samples, followed by replayed ones, weights that make its mean loss the mean over the new ones
/// plus the weighted mean over the replayed ones, and says which classes compete (`first_class` `[S]`).
inline void balance(token_batch& batch, index fresh, replay_loss loss, std::int32_t first_class, index classes,
                    std::vector<std::int32_t>& first) {
  const index samples = batch.samples();
  batch.weights.resize(static_cast<std::size_t>(samples), 1.0f);
  const auto spread = [&](index begin, index end) {
    double total = 0;
    for (index s = begin; s < end; ++s) total += double(batch.weights[static_cast<std::size_t>(s)]);
    if (!(total > 0)) return;
    const auto factor = static_cast<float>(static_cast<double>(samples) / total);
    for (index s = begin; s < end; ++s) batch.weights[static_cast<std::size_t>(s)] *= factor;
  };
  spread(0, fresh);
  spread(fresh, samples);
  first.assign(static_cast<std::size_t>(samples), 0);
  if (loss == replay_loss::sum) return;
  index open = 0;  // new samples for which all classes compete
  if (samples > fresh && first_class > 0) open = (samples - fresh) * (classes - first_class) / first_class;
  std::fill(first.begin() + std::min(open, fresh), first.begin() + fresh, first_class);
}

}  // namespace detail

/// Trains on the pictures `indices` of `data`, whose classes start at `first_class`, with replay from `memory` (may be
/// null or empty). The loss is the mean over the new samples plus the weighted mean over the replayed ones. Every
/// random choice is a function of `options.seed`. Throws where the loss is not finite.
template <tensor_backend B>
void fit(B& b, vit<B>& model, const dataset& data, std::span<const index> indices, const token_memory* memory,
         std::int32_t first_class, const fit_options& o, const std::string& what = "fit") {
  require(!indices.empty() && o.epochs > 0 && o.batch > 0, "fit: ", indices.size(), " pictures, ", o.epochs,
          " epochs, batches of ", o.batch, ", expected more than 0 of each");
  training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  const bool replay = memory != nullptr && !memory->empty();
  replay_sampler sampler(replay ? memory->samples() : 1, o.seed, 2);
  const auto n = static_cast<index>(indices.size());
  const index steps_per_epoch = (n + o.batch - 1) / o.batch, steps = steps_per_epoch * o.epochs;
  const auto warm_up = static_cast<index>(o.warm_up * static_cast<double>(steps));
  constexpr index look_every = 8;  // steps between two looks at the loss, for which a device must be waited for
  progress_meter meter(o.on_progress, what, steps);
  std::string note;
  token_batch whole, thinned, replayed;
  std::vector<std::int32_t> first;
  std::vector<index> order(indices.begin(), indices.end());
  for (index epoch = 0, done = 0; epoch < o.epochs; ++epoch) {
    random_stream(o.seed, 1000 + static_cast<std::uint64_t>(epoch)).shuffle(std::span(order));
    for (index begin = 0; begin < n; begin += o.batch, ++done) {
      const auto part = std::span(order).subspan(static_cast<std::size_t>(begin),
                                                 static_cast<std::size_t>(std::min(o.batch, n - begin)));
      make_batch(data, part,
                 {.patch = model.config().patch,
                  .normalisation = o.normalisation,
                  .augment = o.augment,
                  .seed = o.seed,
                  .epoch = static_cast<std::uint64_t>(epoch)},
                 whole);
      random_stream random(o.seed, 1'000'000 + static_cast<std::uint64_t>(done));
      const bool thin = o.token_drop > 0 && random.uniform() < o.token_drop_often;
      if (thin) drop_tokens(whole, o.token_drop, random, o.missing, thinned);
      token_batch& batch = thin ? thinned : whole;
      const index fresh = batch.samples();
      if (replay) {
        make_batch(*memory, sampler.draw(std::min(o.replay_batch, memory->samples())), o.missing, replayed);
        append(batch, replayed);
      }
      detail::balance(batch, fresh, o.loss, first_class, model.config().classes, first);
      ops::repeat(b, (batch.tokens() << 20) + batch.samples(), [&] {
        training_step(b, model, batch, {.label_smoothing = o.label_smoothing, .first_class = first}, o,
                      cosine_schedule(done, steps, warm_up), state);
      });
      if (done % look_every == 0 || done + 1 == steps) {
        char text[32];
        std::snprintf(text, sizeof text, "loss %.3f", mean_loss(b, state.loss, batch.weights));
        note = text;
      }
      meter.step(note);
    }
  }
}

}  // namespace core_tokensets
