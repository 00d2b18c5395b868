#pragma once
// What a memory does to a model: whether stored pictures still look like pictures to it, or are told by their form.

#include <cmath>
#include <string>
#include <vector>

#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/selection/cholesky.hpp"
#include "core_tokensets/train/evaluate.hpp"
#include "core_tokensets/train/fit.hpp"
#include "core_tokensets/train/learner_parts.hpp"

namespace core_tokensets {

namespace detail {

/// How well the form alone tells pictures `whole` from the same ones `remembered`, features `[n, D]` below the head:
/// the share of right answers on a random half of the pictures by the linear discriminant (Fisher) of the other half.
/// 0.5: not at all.
inline double told_by_form(std::span<const float> whole, std::span<const float> remembered, index n) {
  const index dim = static_cast<index>(whole.size()) / n, known = (n + 1) / 2;
  const std::vector<index> order = random_stream(0x666f726d).permutation(n);
  const auto number = [&](bool stored, index i, index d) {
    return double(
        (stored ? remembered : whole)[static_cast<std::size_t>(order[static_cast<std::size_t>(i)] * dim + d)]);
  };
  std::vector<double> middle(static_cast<std::size_t>(dim)), apart = middle, off = middle;
  for (index i = 0; i < known; ++i) {
    for (index d = 0; d < dim; ++d) {
      const double x = number(false, i, d), y = number(true, i, d);
      middle[static_cast<std::size_t>(d)] += (x + y) / 2 / double(known);
      apart[static_cast<std::size_t>(d)] += (y - x) / double(known);
    }
  }
  // The spread of both kinds about their own means, and a trifle where few pictures do not tell.
  std::vector<double> spread(static_cast<std::size_t>(dim * dim));
  for (index i = 0; i < 2 * known; ++i) {
    for (index d = 0; d < dim; ++d) {
      const auto at = static_cast<std::size_t>(d);
      off[at] = number(i % 2 == 1, i / 2, d) - middle[at] - (double(i % 2) - 0.5) * apart[at];
    }
    for (index r = 0; r < dim; ++r) {
      for (index c = 0; c <= r; ++c)
        spread[static_cast<std::size_t>(r * dim + c)] +=
            off[static_cast<std::size_t>(r)] * off[static_cast<std::size_t>(c)];
    }
  }
  double trace = 0;
  for (index d = 0; d < dim; ++d) trace += spread[static_cast<std::size_t>(d * dim + d)];
  growing_cholesky factor;
  for (index r = 0; r < dim; ++r) {
    const auto row = spread.begin() + r * dim;
    std::vector<double> with(row, row + r + 1);
    with.back() += 1e-4 * trace / double(dim) + 1e-12;
    if (!factor.append(with)) return 0.5;  // features that are all the same
  }
  const std::vector<double> direction = factor.solve(apart);
  double right = 0;
  for (index i = 2 * known; i < 2 * n; ++i) {
    double side = 0;
    for (index d = 0; d < dim; ++d)
      side +=
          direction[static_cast<std::size_t>(d)] * (number(i % 2 == 1, i / 2, d) - middle[static_cast<std::size_t>(d)]);
    right += side == 0 ? 0.5 : (side > 0) == (i % 2 == 1) ? 1 : 0;
  }
  return right / static_cast<double>(2 * (n - known));
}

/// What samples of a memory have left to teach: their mean cross-entropy over all classes, and the norm of its gradient
/// by all parameters.
struct teaching {
  double loss = 0, gradient_norm = 0;
};
template <tensor_backend B>
teaching left_to_teach(B& b, const vit<B>& model, const token_memory& memory, std::span<const index> samples,
                       missing_tokens missing, index batch_size = 128) {
  using T = typename B::scalar;
  training_state<B> state;
  state.gradients.resize(b, 1, model.parameters().size());
  b.fill(*state.gradients, T(0));
  teaching found;
  token_batch batch;
  for_batches(samples, batch_size, [&](std::span<const index> part) {
    make_batch(memory, part, model.config().normalisation, {.missing = missing}, batch);
    // The loss is a mean over its batch, and the batches need not be equal.
    const auto share = static_cast<double>(part.size()) / static_cast<double>(samples.size());
    batch.weights.assign(part.size(), static_cast<float>(share));
    forward(b, model, batch, state.tape);
    cross_entropy(b, *std::as_const(state.tape.logits), batch.targets, state.loss, batch.weights);
    for (const T loss : state.loss.losses.to_host(b)) found.loss += double(loss) / static_cast<double>(samples.size());
    backward(b, model, state.tape, *state.loss.dlogits, state.gradients.data(), state.dtokens);
  });
  double squares = 0;
  for (const T g : state.gradients.to_host(b)) squares += double(g) * double(g);
  found.gradient_norm = std::sqrt(squares);
  return found;
}

}  // namespace detail

/// The accuracy on a task's test pictures, and what tells why it is as it is. Shares in [0, 1]: "test as remembered",
/// the accuracy on the test pictures as the memory would keep them; "told by form", how well the features tell these
/// from whole ones (0.5: not at all); and of the task's samples in the memory "memory as stored" and "memory whole",
/// the accuracy on them, and on the pictures that they were cut from. A model that knows what it stored and not the
/// same pictures whole has learnt the form of its memory, not what it shows. Amounts: "memory loss", the
/// mean cross-entropy of these samples as stored, and "memory gradient", the norm of its gradient. Where both are next
/// to nothing when a task begins, replay has nothing to hold the model by. For classes.
template <tensor_backend B, class Learner>
evaluation diagnose(B& b, const Learner& learner, const task& t) {
  const vit<B>& model = learner.model();
  const vit_config& c = model.config();
  const missing_tokens missing = learner.options().fit.missing;
  const sample_view<dataset> test = t.test();
  evaluation found = learner.evaluate(test);
  require(test.n() > 1, "diagnose: task '", t.name, "' has ", test.n(), " test pictures, expected at least 2");
  const model_outputs whole = run_model(b, model, test);
  const model_outputs remembered = run_batches(b, model, test.indices, [&](std::span<const index> part, auto& out) {
    token_batch pictures;
    make_batch(*test.data, part, c, pictures);
    detail::as_remembered(b, learner.how(), model, pictures, nullptr, missing, out);
  });
  found.others["test as remembered"] = accuracy<float>(remembered.logits, remembered.labels);
  found.others["told by form"] = detail::told_by_form(whole.features, remembered.features, test.n());

  std::vector<index> stored, sources;
  const token_memory& memory = learner.memory();
  for (index s = 0; s < memory.samples(); ++s) {
    const index source = learner.sources()[static_cast<std::size_t>(s)];
    if (memory.arrays().tasks[static_cast<std::size_t>(s)] != static_cast<std::uint32_t>(t.number) || source < 0)
      continue;
    stored.push_back(s), sources.push_back(source);
  }
  if (stored.empty()) return found;
  const model_outputs kept = run_batches(b, model, stored, [&](std::span<const index> part, auto& out) {
    make_batch(memory, part, c.normalisation, {.missing = missing}, out);
  });
  found.others["memory as stored"] = accuracy<float>(kept.logits, kept.labels);
  found.others["memory whole"] = evaluate(b, model, {t.data->train, sources}).accuracy;
  const detail::teaching left = detail::left_to_teach(b, model, memory, stored, missing);
  found.amounts["memory loss"] = left.loss;
  found.amounts["memory gradient"] = left.gradient_norm;
  return found;
}

}  // namespace core_tokensets
