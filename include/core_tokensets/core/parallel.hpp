#pragma once
// Parallel loops over OpenMP where it is switched on, plain loops elsewhere. The pieces of work are fixed by the
// caller's data and never by the number of threads, so results are the same to the bit for any number of them.

#include <algorithm>
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

/// Calls `body(i)` for i in [0, n), at most `threads` at a time (0: default). Nested loops run serially. The first
/// exception thrown by a body is rethrown to the caller once the loop has ended.
template <class Body>
void parallel_for(int threads, std::ptrdiff_t n, const Body& body) {
  if (threads <= 0) threads = default_threads();
  if (threads == 1 || n <= 1 || in_parallel()) {
    for (std::ptrdiff_t i = 0; i < n; ++i) body(i);
    return;
  }
#ifdef _OPENMP
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical(core_tokensets_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
#else
  for (std::ptrdiff_t i = 0; i < n; ++i) body(i);
#endif
}

/// Cuts [0, n) into pieces of `grain` (the last may be shorter) and calls `body(begin, end)` for each.
template <class Body>
void parallel_chunks(int threads, std::ptrdiff_t n, std::ptrdiff_t grain, const Body& body) {
  grain = std::max<std::ptrdiff_t>(grain, 1);
  parallel_for(threads, (n + grain - 1) / grain,
               [&](std::ptrdiff_t piece) { body(piece * grain, std::min(n, (piece + 1) * grain)); });
}

}  // namespace core_tokensets
