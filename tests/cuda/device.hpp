#pragma once
// What the tests on a device share: the backend, and what they say where there is no device.

#include "core_tokensets/tensor/cuda.hpp"
#include "support/catch.hpp"

namespace cuda_device {

namespace cts = core_tokensets;
using backend = cts::cuda_backend<float>;
using cts::cuda::arithmetic;

/// CTest counts the program as skipped when it reads this.
inline bool no_device() {
  if (cts::cuda::device_count() > 0) return false;
  WARN("skipped: " << cts::cuda::describe());
  return true;
}

}  // namespace cuda_device
