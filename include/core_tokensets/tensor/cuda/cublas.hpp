#pragma once
// Matrix products by cuBLASLt. It thinks in columns: the row-major c = a b is asked for as c^T = b^T a^T, in which
// every matrix is read as it lies. What suits a shape is asked for once and remembered.

#ifdef __CUDACC__

#include <array>
#include <map>
#include <optional>

#include "core_tokensets/tensor/cuda/cublas_library.hpp"
#include "core_tokensets/tensor/cuda/product.hpp"

namespace core_tokensets::cuda {

inline void check(cublasStatus_t result, const char* call, const product& p) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  fail("cuda: ", call, ": ", cublas_library::get().status_string(result), " for [", p.m, ", ", p.k, "] times [", p.k,
       ", ", p.n, "], ", p.batch, " of them");
}

class product_library {
 public:
  static constexpr index workspace_bytes = index{1} << 25;

  /// `workspace`: device memory of that size for products on one stream.
  explicit product_library(void* workspace) : workspace_(workspace) {
    check(library_.create(&handle_), "cublasLtCreate", {});
  }
  ~product_library() { library_.destroy(handle_); }
  product_library(const product_library&) = delete;
  product_library& operator=(const product_library&) = delete;

  void* workspace() const { return workspace_; }

  void multiply(const product& p, cudaStream_t stream) {
    plan& known = find(p);
    cublasLtMatmulDescOpaque_t operation = known.operation;
    if (p.bias != nullptr) set(&operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias, p);
    check(library_.matmul(handle_, &operation, &p.alpha, p.b.data, &known.b, p.a.data, &known.a, &p.beta, p.addend,
                          &known.addend, p.c, &known.c, &known.algorithm, workspace_,
                          static_cast<std::size_t>(workspace_bytes), stream),
          "cublasLtMatmul", p);
  }

 private:
  /// How products of one shape are computed; `b` and `a` are the first and second factor in columns.
  struct plan {
    cublasLtMatmulDescOpaque_t operation{};
    cublasLtMatrixLayoutOpaque_t a{}, b{}, addend{}, c{};
    cublasLtMatmulAlgo_t algorithm{};
  };
  using key = std::array<index, 21>;

  /// Largest power of two, at most 256, that divides an address.
  static std::uint32_t alignment(const void* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p) | 256;
    return static_cast<std::uint32_t>(address & (~address + 1));
  }
  static key key_of(const product& p) {
    return {p.m,
            p.n,
            p.k,
            p.batch,
            p.a.ld,
            p.a.stride,
            p.a.transpose,
            p.b.ld,
            p.b.stride,
            p.b.transpose,
            p.ldc,
            p.stride_c,
            p.ld_addend,
            p.stride_addend,
            static_cast<index>(p.how),
            p.bias != nullptr,
            p.beta == 0,
            alignment(p.a.data),
            alignment(p.b.data),
            alignment(p.addend),
            alignment(p.c)};
  }

  plan& find(const product& p) {
    const auto [at, is_new] = plans_.try_emplace(key_of(p));
    if (is_new) {
      try {
        make(p, at->second);
      } catch (...) {
        plans_.erase(at);
        throw;
      }
    }
    return at->second;
  }

  template <class Value>
  static void set(cublasLtMatmulDescOpaque_t* d, cublasLtMatmulDescAttributes_t what, const Value& value,
                  const product& p) {
    check(cublas_library::get().set_operation(d, what, &value, sizeof value), "cublasLtMatmulDescSetAttribute", p);
  }
  template <class Value>
  static void set(cublasLtMatrixLayoutOpaque_t* l, cublasLtMatrixLayoutAttribute_t what, const Value& value,
                  const product& p) {
    check(cublas_library::get().set_layout(l, what, &value, sizeof value), "cublasLtMatrixLayoutSetAttribute", p);
  }
  template <class Value>
  static void set(cublasLtMatmulPreferenceOpaque_t* f, cublasLtMatmulPreferenceAttributes_t what, const Value& value,
                  const product& p) {
    check(cublas_library::get().set_preference(f, what, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute",
          p);
  }

  /// A row-major matrix `[rows, cols]`, which in columns is `[cols, rows]`.
  static void lay(cublasLtMatrixLayoutOpaque_t& l, cudaDataType_t type, index rows, index cols, index ld, index stride,
                  const product& p) {
    check(cublas_library::get().init_layout(&l, sizeof l, type, static_cast<std::uint64_t>(cols),
                                            static_cast<std::uint64_t>(rows), ld),
          "cublasLtMatrixLayoutInit", p);
    if (p.batch == 1) return;
    set(&l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(p.batch), p);
    set(&l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, static_cast<std::int64_t>(stride), p);
  }

  void make(const product& p, plan& made) const {
    const auto compute = p.how == arithmetic::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cudaDataType_t type = p.narrow ? CUDA_R_16BF : CUDA_R_32F;
    check(library_.init_operation(&made.operation, sizeof made.operation, compute, CUDA_R_32F),
          "cublasLtMatmulDescInit", p);
    set(&made.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.b.transpose ? CUBLAS_OP_T : CUBLAS_OP_N, p);
    set(&made.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.a.transpose ? CUBLAS_OP_T : CUBLAS_OP_N, p);
    if (p.bias != nullptr) {
      set(&made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS, p);
      set(&made.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias, p);
    }
    lay(made.a, type, p.a.transpose ? p.k : p.m, p.a.transpose ? p.m : p.k, p.a.ld, p.a.stride, p);
    lay(made.b, type, p.b.transpose ? p.n : p.k, p.b.transpose ? p.k : p.n, p.b.ld, p.b.stride, p);
    lay(made.addend, CUDA_R_32F, p.m, p.n, p.ld_addend, p.stride_addend, p);
    lay(made.c, CUDA_R_32F, p.m, p.n, p.ldc, p.stride_c, p);

    cublasLtMatmulPreferenceOpaque_t wish{};
    check(library_.init_preference(&wish, sizeof wish), "cublasLtMatmulPreferenceInit", p);
    set(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes), p);
    set(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.b.data), p);
    set(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.a.data), p);
    set(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.addend), p);
    set(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.c), p);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    check(
        library_.heuristic(handle_, &made.operation, &made.b, &made.a, &made.addend, &made.c, &wish, 1, &found, &count),
        "cublasLtMatmulAlgoGetHeuristic", p);
    if (count == 0) check(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic", p);
    made.algorithm = found.algo;
  }

  const cublas_library& library_ = cublas_library::get();
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_;
  std::map<key, plan> plans_;
};

}  // namespace core_tokensets::cuda

#endif
