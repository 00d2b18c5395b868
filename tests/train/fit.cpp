// A training step on its own: how new and replayed samples share the loss, and that a warm step allocates nothing.

#include "core_tokensets/train/fit.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

#include "core_tokensets/tensor/eigen.hpp"
#include "support/catch.hpp"
#include "support/ragged.hpp"

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

// Not inlined: GCC takes one half of a pair that was for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

namespace cts = core_tokensets;

/// Four new and two replayed samples; the memory gave its samples the weights 1 and 3.
cts::token_batch mixed() {
  const cts::vit_config c{.image = {8, 8, 1}, .patch = 4, .classes = 6};
  auto batch = ragged::noise(c, {4, 4, 4, 4, 1, 1});
  batch.weights = {1, 1, 1, 1, 1, 3};
  return batch;
}

}  // namespace

TEST_CASE("the loss is the mean over the new samples plus the weighted mean over the replayed ones", "[fit]") {
  auto batch = mixed();
  std::vector<std::int32_t> first;
  cts::detail::balance(batch, 4, cts::replay_loss::sum, 4, 6, first);
  // cross_entropy divides by all six samples.
  for (std::size_t s = 0; s < 4; ++s) CHECK(batch.weights[s] / 6 == Approx(1.0 / 4));
  CHECK(batch.weights[4] / 6 == Approx(1.0 / 4));
  CHECK(batch.weights[5] / 6 == Approx(3.0 / 4));
  CHECK(first == std::vector<std::int32_t>(6, 0));
}

TEST_CASE("asymmetric loss: new samples compete among new classes, but for their share of the balanced part", "[fit]") {
  auto batch = mixed();
  std::vector<std::int32_t> first;
  // Two replayed samples for four old classes: one new sample for two new classes keeps the balance.
  cts::detail::balance(batch, 4, cts::replay_loss::ace, 4, 6, first);
  CHECK(first == std::vector<std::int32_t>{0, 4, 4, 4, 0, 0});
  // Without replay all of them compete among the new classes only.
  auto alone = mixed();
  cts::detail::balance(alone, 6, cts::replay_loss::ace, 4, 6, first);
  CHECK(first == std::vector<std::int32_t>(6, 4));
  // In the first task all classes are new.
  cts::detail::balance(alone, 6, cts::replay_loss::ace, 0, 6, first);
  CHECK(first == std::vector<std::int32_t>(6, 0));
}

TEST_CASE("a warm training step allocates nothing", "[fit]") {
  using B = cts::eigen_backend<float>;
  B b(1);  // with more, the scratch memory of each thread grows when it first meets its largest piece
  const cts::vit_config c{.image = {32, 32, 3}, .patch = 4, .dim = 48, .depth = 3, .heads = 3};
  cts::vit<B> model(b, c);
  cts::training_state<B> state;
  state.optimiser.reset(b, model.layout().parameters);
  auto batch = ragged::noise(c, {64, 17, 1, 40});
  batch.weights.assign(4, 1.0f);
  const std::vector<std::int32_t> first(4, 0);
  const cts::fit_options options;
  const cts::cross_entropy_options loss{.label_smoothing = 0.1, .first_class = first};
  for (int i = 0; i < 3; ++i) cts::training_step(b, model, batch, loss, options, 1, state);
  const long before = allocations;
  for (int i = 0; i < 3; ++i) cts::training_step(b, model, batch, loss, options, 1, state);
  CHECK(allocations == before);
  cts::training_state<B> cold;
  cold.optimiser.reset(b, model.layout().parameters);
  cts::training_step(b, model, batch, loss, options, 1, cold);
  CHECK(allocations > before);  // the counter counts
}
