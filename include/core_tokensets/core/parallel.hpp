#pragma once
// Parallel loops over OpenMP where it is switched on, plain loops elsewhere. The pieces of work are fixed by the
// caller's data and never by the number of threads, so results are the same to the bit for any number of them.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace core_tokensets {

/// Threads that a loop may use when it is asked for 0 ("as many as there are").
inline int default_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Changes that number for this thread and the loops that it starts (0: leaves it), as OMP_NUM_THREADS does for a
/// whole program.
inline void set_default_threads([[maybe_unused]] int threads) {
#ifdef _OPENMP
  if (threads > 0) omp_set_num_threads(threads);
#endif
}

/// Number of the calling thread inside the current parallel loop, 0 outside of one.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// True inside a parallel loop that runs on more than one thread.
inline bool in_parallel() {
#ifdef _OPENMP
  return omp_in_parallel() != 0;
#else
  return false;
#endif
}

namespace detail {

/// A call `body(i)` whose type the loop need not know, so that there is one parallel loop and not one for each body.
struct loop_body {
  const void* body;
  void (*call)(const void* body, std::ptrdiff_t i);
};

inline void run_loop(int threads, std::ptrdiff_t n, loop_body body) {
#ifdef _OPENMP
  std::atomic<std::ptrdiff_t> failed{n};  // the smallest so far
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    if (i > failed.load(std::memory_order_relaxed)) continue;
    try {
      body.call(body.body, i);
    } catch (...) {
#pragma omp critical(core_tokensets_parallel_for)
      if (i < failed.load(std::memory_order_relaxed)) {
        error = std::current_exception();
        failed.store(i, std::memory_order_relaxed);
      }
    }
  }
  if (error) std::rethrow_exception(error);
#else
  (void)threads;
  for (std::ptrdiff_t i = 0; i < n; ++i) body.call(body.body, i);
#endif
}

}  // namespace detail

/// Calls `body(i)` for i in [0, n), at most `threads` at a time (0: default). Nested loops run serially. Where bodies
/// throw, the exception of the smallest i is rethrown once the loop has ended, as a serial loop would; bodies of larger
/// i may have run or not.
template <class Body>
void parallel_for(int threads, std::ptrdiff_t n, const Body& body) {
  const detail::loop_body erased{&body,
                                 [](const void* self, std::ptrdiff_t i) { (*static_cast<const Body*>(self))(i); }};
  if (threads <= 0) threads = default_threads();
  if (threads == 1 || n <= 1 || in_parallel()) {
    for (std::ptrdiff_t i = 0; i < n; ++i) erased.call(erased.body, i);
    return;
  }
  detail::run_loop(threads, n, erased);
}

#ifdef __clang__  // warns of loops that stay scalar, as those with a square root that sets errno do
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif
/// `body(i)` for i in [begin, end) with vector instructions: bodies may run side by side, and what they read and write
/// is the same memory or apart. Always inlined, so that the loop is as good as one that is written out.
template <class Body>
[[gnu::always_inline]] inline void simd_for(std::ptrdiff_t begin, std::ptrdiff_t end, const Body& body) {
#if defined(_OPENMP)
#pragma omp simd
#elif defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
  for (std::ptrdiff_t i = begin; i < end; ++i) body(i);
}
#ifdef __clang__
#pragma clang diagnostic pop
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__AVX2__)
namespace detail {
/// Compiled for AVX2 with all that can be inlined into it. Without fused multiplications and additions, so that the
/// bits are those of any x86-64.
template <class Body>
[[gnu::flatten, gnu::noinline, gnu::target("avx2")]] void run_for_avx2(Body body) {
  body();
}
}  // namespace detail
#endif

/// Runs a loop that computes much for each element with AVX2 where the processor has it and the program is compiled for
/// any x86-64; elsewhere as it is.
template <class Body>
[[gnu::always_inline]] inline void run_widely(const Body& body) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__AVX2__)
  if (__builtin_cpu_supports("avx2")) {
    detail::run_for_avx2(body);
    return;
  }
#endif
  body();
}

/// Cuts [0, n) into pieces of `grain` (the last may be shorter) and calls `body(begin, end)` for each.
template <class Body>
void parallel_chunks(int threads, std::ptrdiff_t n, std::ptrdiff_t grain, const Body& body) {
  grain = std::max<std::ptrdiff_t>(grain, 1);
  parallel_for(threads, (n + grain - 1) / grain,
               [&](std::ptrdiff_t piece) { body(piece * grain, std::min(n, (piece + 1) * grain)); });
}

}  // namespace core_tokensets
