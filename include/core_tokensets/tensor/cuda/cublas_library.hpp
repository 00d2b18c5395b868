#pragma once
// cuBLASLt, opened by the first backend and not by the system's loader: its half gigabyte takes a third of a second to
// load, for which a program that computes on the host, or prints its help, should not wait. Only for the CUDA compiler.

#ifdef __CUDACC__

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <type_traits>

#include "core_tokensets/core/error.hpp"

namespace core_tokensets::cuda {

/// The functions of cuBLASLt that are used here. They stay for the rest of the program.
struct cublas_library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) init_operation = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;

  /// `Error`: the library is not found, or lacks a function.
  static const cublas_library& get() {
    static const cublas_library opened = [] {
      void* const library = open();
      cublas_library l;
      const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
        require(function != nullptr, "cuda: cuBLASLt has no function ", name, "; expected that of CUDA ", major);
      };
      find(l.create, "cublasLtCreate");
      find(l.destroy, "cublasLtDestroy");
      find(l.status_string, "cublasLtGetStatusString");
      find(l.matmul, "cublasLtMatmul");
      find(l.heuristic, "cublasLtMatmulAlgoGetHeuristic");
      find(l.init_operation, "cublasLtMatmulDescInit_internal");
      find(l.set_operation, "cublasLtMatmulDescSetAttribute");
      find(l.init_layout, "cublasLtMatrixLayoutInit_internal");
      find(l.set_layout, "cublasLtMatrixLayoutSetAttribute");
      find(l.init_preference, "cublasLtMatmulPreferenceInit_internal");
      find(l.set_preference, "cublasLtMatmulPreferenceSetAttribute");
      return l;
    }();
    return opened;
  }

 private:
  static constexpr int major = CUDART_VERSION / 1000;

  /// By its name alone, else beside the CUDA runtime, else in the toolkit's folder.
  static void* open() {
    const std::string name = "libcublasLt.so." + std::to_string(major);
    if (void* const found = dlopen(name.c_str(), RTLD_NOW)) return found;
    const std::string first = dlerror();
    Dl_info runtime{};
    if (dladdr(reinterpret_cast<void*>(&cudaRuntimeGetVersion), &runtime) != 0 && runtime.dli_fname != nullptr) {
      const std::string file = runtime.dli_fname;
      if (void* const found = dlopen((file.substr(0, file.rfind('/') + 1) + name).c_str(), RTLD_NOW)) return found;
    }
    const char* const toolkit = std::getenv("CUDA_PATH");
    const std::string folder = (toolkit != nullptr ? toolkit : "/usr/local/cuda") + std::string("/lib64/");
    if (void* const found = dlopen((folder + name).c_str(), RTLD_NOW)) return found;
    fail("cuda: ", name, " cannot be opened (", first, "); expected it where the loader looks, or in ", folder);
  }
};

}  // namespace core_tokensets::cuda

#endif
