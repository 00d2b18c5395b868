#pragma once
// The CUDA driver behind the backend: stream, memory, launches, graphs. Only for the CUDA compiler; empty for others.

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "core_tokensets/tensor/cuda/backend.hpp"
#include "core_tokensets/tensor/cuda/cublas.hpp"

namespace core_tokensets::cuda {

/// Throws with the name of the call and what the driver says, unless it succeeded. The driver forgets the error, which
/// would else be that of the next launch too.
inline void check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  cudaGetLastError();
  fail("cuda: ", call, ": ", cudaGetErrorString(result));
}

/// What a kernel sees of a thread on the device.
struct device_thread {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int warp() const { return static_cast<int>(threadIdx.x) / warp_size; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % warp_size; }
  __device__ index block() const { return static_cast<index>(blockIdx.x); }
  __device__ index block_y() const { return static_cast<index>(blockIdx.y); }
  __device__ void* shared() const {
    extern __shared__ quad memory[];
    return memory;
  }
  __device__ void sync() const { __syncthreads(); }
  __device__ float shuffle_xor(float x, int mask) const { return __shfl_xor_sync(0xffffffffu, x, mask); }
  __device__ std::uint32_t ballot(bool yes) const { return __ballot_sync(0xffffffffu, yes); }
  __device__ int lowest(std::uint32_t bits) const { return __ffs(static_cast<int>(bits)) - 1; }
  __device__ void atomic_max(std::int32_t* p, std::int32_t value) const { atomicMax(p, value); }
  /// c += a b for 16 x 8 x 8 numbers of a warp, TF32 inputs.
  __device__ void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) const {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
  }
};

template <class K>
__global__ void __launch_bounds__(K::threads) run_kernel(const __grid_constant__ K k) {
  k(device_thread{});
}

/// Owner of something that the driver made and `Destroy` gives back.
template <auto Destroy>
struct give_back {
  template <class T>
  void operator()(T* p) const {
    Destroy(p);
  }
};
template <class Handle, auto Destroy>
using owner = std::unique_ptr<std::remove_pointer_t<Handle>, give_back<Destroy>>;

/// What `make(&handle)` made, with an owner.
template <class Handle, auto Destroy, class Make>
owner<Handle, Destroy> own(const Make& make, const char* call) {
  Handle handle = nullptr;
  check(make(&handle), call);
  return owner<Handle, Destroy>(handle);
}

/// A mark in the stream that the host can ask about.
using device_event = owner<cudaEvent_t, cudaEventDestroy>;

/// Captured work, ready to be launched as often as one likes.
class device_graph {
 public:
  explicit device_graph(owner<cudaGraph_t, cudaGraphDestroy> graph)
      : graph_(std::move(graph)),
        executable_(own<cudaGraphExec_t, cudaGraphExecDestroy>(
            [&](cudaGraphExec_t* e) { return cudaGraphInstantiate(e, graph_.get(), 0); }, "cudaGraphInstantiate")) {}
  cudaGraphExec_t get() const { return executable_.get(); }

 private:
  owner<cudaGraph_t, cudaGraphDestroy> graph_;
  owner<cudaGraphExec_t, cudaGraphExecDestroy> executable_;
};

/// One stream of one device, with its own pool of memory. The device must stay current for the thread that uses it.
class device {
 public:
  using event = device_event;
  using graph = device_graph;
  using node = cudaGraphNode_t;
  static constexpr index stack_bytes = index{1} << 26;

  explicit device(int number) : number_(number) {
    check(cudaSetDevice(number), "cudaSetDevice");
    stream_ = own<cudaStream_t, cudaStreamDestroy>(
        [](cudaStream_t* s) { return cudaStreamCreateWithFlags(s, cudaStreamNonBlocking); },
        "cudaStreamCreateWithFlags");
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = number;
    pool_ = own<cudaMemPool_t, cudaMemPoolDestroy>([&](cudaMemPool_t* p) { return cudaMemPoolCreate(p, &properties); },
                                                   "cudaMemPoolCreate");
    std::uint64_t keep_all = ~std::uint64_t{0};
    check(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrReleaseThreshold, &keep_all), "cudaMemPoolSetAttribute");
    void* workspace = allocate(product_library::workspace_bytes);
    try {
      products_.emplace(workspace);
    } catch (...) {
      release(workspace);
      throw;
    }
  }
  ~device() {
    release(products_->workspace());
    cudaStreamSynchronize(stream());
  }
  device(const device&) = delete;
  device& operator=(const device&) = delete;

  cudaStream_t stream() const { return stream_.get(); }
  int number() const { return number_; }

  void* allocate(index bytes) {
    void* p = nullptr;
    check(cudaMallocFromPoolAsync(&p, static_cast<std::size_t>(bytes), pool_.get(), stream()),
          "cudaMallocFromPoolAsync");
    return p;
  }
  /// Called from destructors: an error shows at the next call.
  void release(void* p) noexcept { cudaFreeAsync(p, stream()); }
  std::byte* allocate_pinned(index bytes) {
    void* p = nullptr;
    check(cudaMallocHost(&p, static_cast<std::size_t>(bytes)), "cudaMallocHost");
    return static_cast<std::byte*>(p);
  }
  void free_pinned(std::byte* p) noexcept { cudaFreeHost(p); }

  event make_event() {
    return own<cudaEvent_t, cudaEventDestroy>(
        [](cudaEvent_t* e) { return cudaEventCreateWithFlags(e, cudaEventDisableTiming); }, "cudaEventCreateWithFlags");
  }
  void record(event& e) { check(cudaEventRecord(e.get(), stream()), "cudaEventRecord"); }
  bool ready(const event& e) {
    const cudaError_t result = cudaEventQuery(e.get());
    if (result == cudaErrorNotReady) return false;
    check(result, "cudaEventQuery");
    return true;
  }
  void wait(event& e) { check(cudaEventSynchronize(e.get()), "cudaEventSynchronize"); }
  void synchronise() { check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }

  void copy_to_device(void* to, const void* from, index bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream()),
          "cudaMemcpyAsync");
  }
  void copy_to_host(void* to, const void* from, index bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream()),
          "cudaMemcpyAsync");
    synchronise();
  }

  template <class K>
  void launch(const K& k, const launch_shape& shape) {
    // Above 48 KiB shared memory has to be asked for.
    if (shape.shared_bytes > 48 * 1024) {
      check(cudaFuncSetAttribute(run_kernel<K>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shape.shared_bytes)),
            "cudaFuncSetAttribute");
    }
    run_kernel<K><<<grid(shape), K::threads, static_cast<std::size_t>(shape.shared_bytes), stream()>>>(k);
    check(cudaGetLastError(), "kernel launch");
  }
  void multiply(const product& p) { products_->multiply(p, stream()); }

  // ---- graphs ---------------------------------------------------------------------------------------------------

  void begin_capture() {
    check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  }
  /// The node that the last command was captured as: what the next one would wait for.
  node last_node() {
    cudaStreamCaptureStatus status{};
    const cudaGraphNode_t* last = nullptr;
    std::size_t count = 0;
#if CUDART_VERSION >= 13000
    check(cudaStreamGetCaptureInfo(stream(), &status, nullptr, nullptr, &last, nullptr, &count),
          "cudaStreamGetCaptureInfo");
#else
    check(cudaStreamGetCaptureInfo_v2(stream(), &status, nullptr, nullptr, &last, &count), "cudaStreamGetCaptureInfo");
#endif
    require(status == cudaStreamCaptureStatusActive && count == 1, "cuda: the capture of a step was lost");
    return *last;
  }
  graph end_capture() {
    return graph(own<cudaGraph_t, cudaGraphDestroy>(
        [this](cudaGraph_t* g) { return cudaStreamEndCapture(stream(), g); }, "cudaStreamEndCapture"));
  }
  void cancel_capture() noexcept {
    cudaGraph_t captured = nullptr;
    cudaStreamEndCapture(stream(), &captured);
    if (captured != nullptr) cudaGraphDestroy(captured);
    cudaGetLastError();
  }
  /// False where the driver does not take the change.
  template <class K>
  bool update(graph& g, node n, const K& k, const launch_shape& shape) {
    void* arguments[1] = {const_cast<K*>(&k)};
    cudaKernelNodeParams parameters{};
    parameters.func = reinterpret_cast<void*>(run_kernel<K>);
    parameters.gridDim = grid(shape);
    parameters.blockDim = dim3(K::threads);
    parameters.sharedMemBytes = static_cast<unsigned>(shape.shared_bytes);
    parameters.kernelParams = arguments;
    return succeeded(cudaGraphExecKernelNodeSetParams(g.get(), n, &parameters));
  }
  bool update_copy(graph& g, node n, void* to, const void* from, index bytes) {
    return succeeded(cudaGraphExecMemcpyNodeSetParams1D(g.get(), n, to, from, static_cast<std::size_t>(bytes),
                                                        cudaMemcpyHostToDevice));
  }
  void launch(graph& g) { check(cudaGraphLaunch(g.get(), stream()), "cudaGraphLaunch"); }

 private:
  static dim3 grid(const launch_shape& shape) {
    require(shape.blocks < (index{1} << 31) && shape.blocks_y < (index{1} << 16), "cuda: a grid of ", shape.blocks,
            " x ", shape.blocks_y, " blocks");
    return dim3(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y));
  }
  static bool succeeded(cudaError_t result) {
    if (result != cudaSuccess) cudaGetLastError();
    return result == cudaSuccess;
  }

  int number_;
  owner<cudaStream_t, cudaStreamDestroy> stream_;
  owner<cudaMemPool_t, cudaMemPoolDestroy> pool_;
  std::optional<product_library> products_;
};

}  // namespace core_tokensets::cuda

#endif
