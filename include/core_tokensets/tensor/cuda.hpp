#pragma once
// The backend for CUDA devices, in float32, TF32 or bfloat16 arithmetic (docs/cuda.md). Include it in a source that the
// CUDA compiler compiles, and link core_tokensets::cuda; for other compilers this header is empty.

#ifdef __CUDACC__

#include <cstdio>
#include <string>

#include "core_tokensets/tensor/cuda/device.hpp"

namespace core_tokensets {

/// Tensors in the memory of a CUDA device.
template <std::floating_point T>
requires std::same_as<T, float>
using cuda_backend = device_backend<cuda::device>;

namespace cuda {

/// How many devices this program can use; 0 also where there is no driver.
inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

/// One line about a device ("NVIDIA H100, sm_90, 132 multiprocessors, 79.1 GiB; CUDA 13.0"), or why there is none.
inline std::string describe(int number = 0) {
  int count = 0, runtime = 0;
  if (const cudaError_t result = cudaGetDeviceCount(&count); result != cudaSuccess || number >= count) {
    cudaGetLastError();
    return std::string("no CUDA device: ") + (result == cudaSuccess ? "there are fewer" : cudaGetErrorString(result));
  }
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, number), "cudaGetDeviceProperties");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  char text[400];
  std::snprintf(text, sizeof text, "%s, sm_%d%d, %d multiprocessors, %.1f GiB; CUDA %d.%d", p.name, p.major, p.minor,
                p.multiProcessorCount, static_cast<double>(p.totalGlobalMem) / 1073741824.0, runtime / 1000,
                runtime % 1000 / 10);
  return text;
}

}  // namespace cuda
}  // namespace core_tokensets

#endif
