#pragma once
// The backends that this program was compiled with: which there are, and a command's work on the one that was asked
// for.

#include <string>
#include <type_traits>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#if defined(CTS_HAS_XTENSOR) && !defined(__CUDACC__)
#include "core_tokensets/tensor/xtensor.hpp"
#endif

namespace cts_command {

/// Names for --backend, the default first.
inline std::vector<std::string> backend_names() {
  return {
      "eigen",
#ifdef CTS_HAS_XTENSOR
      "xtensor",
#endif
#ifdef CTS_HAS_CUDA
      "cuda",
#endif
  };
}

/// "eigen, xtensor": for messages and help.
inline std::string backend_list() {
  std::string all;
  for (const auto& name : backend_names()) all += (all.empty() ? "" : ", ") + name;
  return all;
}

/// Throws where no backend of that name was compiled in; a command calls this before any work is done.
inline void check_backend(const std::string& name) {
  for (const auto& known : backend_names()) {
    if (name == known) return;
  }
  core_tokensets::fail("--backend '", name, "' is not in this program; there are ", backend_list());
}

#ifdef CTS_HAS_CUDA
/// `work(backend)` on the first CUDA device; instantiated in cuda_works.cu for every kind of work.
template <class Work>
void on_cuda(const Work& work);
/// One line about that device, or why there is none.
std::string cuda_device();
#endif

/// `body(backend)` on a backend of scalar T for what trains and answers: Eigen, or a CUDA device.
template <class T, class Body>
void with_backend_of(const std::string& name, int threads, const Body& body) {
  check_backend(name);
  core_tokensets::require(name != "xtensor", "--backend xtensor runs predict, backward and attribute only");
  core_tokensets::set_default_threads(threads);
#ifdef CTS_HAS_CUDA
  if (name == "cuda") {
    core_tokensets::require(std::is_same_v<T, float>, "--backend cuda computes in f32, not in f64");
    on_cuda(body);
    return;
  }
#endif
  core_tokensets::eigen_backend<T> b(threads);
  body(b);
}

/// The same for what a model computes, which is compared between all backends: on xtensor, too.
template <class T, class Body>
void with_any_backend_of(const std::string& name, int threads, const Body& body) {
#if defined(CTS_HAS_XTENSOR) && !defined(__CUDACC__)
  if (name == "xtensor") {
    core_tokensets::set_default_threads(threads);
    core_tokensets::xtensor_backend<T> b(threads);
    body(b);
    return;
  }
#endif
  with_backend_of<T>(name, threads, body);
}

/// The same in the arithmetic "f32" or "f64".
template <class Body>
void with_backend(const std::string& name, const std::string& dtype, int threads, const Body& body) {
  if (dtype == "f64") {
    with_any_backend_of<double>(name, threads, body);
  } else {
    with_any_backend_of<float>(name, threads, body);
  }
}

}  // namespace cts_command
