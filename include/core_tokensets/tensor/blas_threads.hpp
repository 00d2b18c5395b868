#pragma once
// Keeps a BLAS to the thread that calls it: threads come from the pieces of the work, so that results do not depend on
// their number.

#include <string>

#include "core_tokensets/core/parallel.hpp"

namespace core_tokensets {

namespace blas_detail {

// Null unless the program is linked to OpenBLAS.
extern "C" {
[[gnu::weak]] char* openblas_get_config();
[[gnu::weak]] int openblas_get_parallel();
[[gnu::weak]] int openblas_get_num_threads();
[[gnu::weak]] void openblas_set_num_threads(int);
}

/// Switches an OpenBLAS with threads of its own to one, for the whole program. Of an OpenBLAS that is linked statically
/// it is not known whose they are; then they count as its own.
inline void use_one_thread() {
  if (openblas_get_num_threads == nullptr || openblas_set_num_threads == nullptr) return;
#ifdef _OPENMP
  constexpr int of_openmp = 2;  // what openblas_get_parallel() says; these are held by `one_openmp_thread`
  if (openblas_get_parallel != nullptr && openblas_get_parallel() == of_openmp) return;
#endif
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
}

/// While it lives, a BLAS that takes its threads from OpenMP has one on the calling thread.
class one_openmp_thread {
 public:
#ifdef _OPENMP
  one_openmp_thread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~one_openmp_thread() { omp_set_num_threads(threads_); }
  one_openmp_thread(const one_openmp_thread&) = delete;
  one_openmp_thread& operator=(const one_openmp_thread&) = delete;

 private:
  int threads_;
#endif
};

}  // namespace blas_detail

/// The library that the program's matrix products come from, as it describes itself.
inline std::string blas_description() {
  using blas_detail::openblas_get_config;
  return openblas_get_config == nullptr ? "a BLAS other than OpenBLAS" : openblas_get_config();
}

}  // namespace core_tokensets
