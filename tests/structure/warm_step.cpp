// A warm training step takes no memory from the system: every way to malloc is counted, from wherever it is called.
// Prints what it counted; fails unless steps on one thread, and on two once all scratch memory has grown, took none.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core_tokensets/tensor/eigen.hpp"
#include "core_tokensets/train/fit.hpp"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// The C library's own functions, in place of which those below are found.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  ++allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t size) {
  ++allocations;
  return __libc_realloc(p, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
  *p = memalign(alignment, size);
  return *p == nullptr ? 12 : 0;
}
}

namespace {

namespace cts = core_tokensets;
using backend = cts::eigen_backend<float>;

/// All patches of so many pictures of noise.
cts::token_batch noise(const cts::vit_config& c, int samples) {
  cts::random_stream random(1);
  cts::token_batch batch;
  batch.patch_dim = c.grid.patch_dim();
  for (int s = 0; s < samples; ++s) {
    for (cts::index k = 0; k < c.grid.tokens(); ++k) batch.positions.push_back(static_cast<std::int32_t>(k));
    batch.offsets.push_back(static_cast<cts::index>(batch.positions.size()));
    batch.targets.push_back(static_cast<std::int32_t>(s) % 10);
  }
  for (cts::index i = 0; i < batch.tokens() * batch.patch_dim; ++i)
    batch.patches.push_back(static_cast<float>(random.normal()));
  return batch;
}

/// Allocations of one step behind so many others.
long count(int threads, int warm) {
  backend b(threads);
  const cts::vit_config c{.grid = {32, 32, 3, 4}, .dim = 192, .depth = 6, .heads = 3};
  cts::vit<backend> model(b, c);
  cts::training_state<backend> state;
  state.optimiser.reset(b, model.layout().parameters);
  const auto batch = noise(c, 64);
  cts::objective_batch<float> facts;
  facts.targets = batch.targets, facts.fresh = 64;
  const auto step = [&] { cts::training_step(b, model, batch, facts, cts::ace{}, cts::adamw{}, {}, state); };
  for (int i = 0; i < warm; ++i) step();
  const long before = allocations;
  step();
  return allocations - before;
}

}  // namespace

int main() {
  const long cold = count(1, 0), one = count(1, 1), two = count(2, 4);
  std::printf("%ld allocations in a first step, %ld in a second, %ld in a fifth on two threads\n", cold, one, two);
  return cold > 100 && one == 0 ? 0 : 1;
}
