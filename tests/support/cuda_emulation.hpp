#pragma once
// A CUDA device that is not there: kernels run on the host, block after block, the threads of a block as fibers. It
// shows what the real one would hide: new memory is NaN, host code that touches device memory ends the program, numbers
// behind an allocation are guarded, the order of threads and blocks can be turned round, a barrier that not all threads
// reach is an error, and so are tensor-core operands that were not rounded.

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <vector>

#include "core_tokensets/tensor/cuda/backend.hpp"
#include "core_tokensets/tensor/eigen.hpp"
#include "support/fibers.hpp"

namespace cuda_emulation {

namespace cts = core_tokensets;
using cts::index;

[[noreturn]] inline void complain(const char* what) {
  std::fprintf(stderr, "cuda emulation: %s\n", what);
  std::abort();
}

/// What the threads of a running block share. `exchange` is where a lane leaves its operands for its warp; its two
/// halves take turns, so that one barrier an operation is enough.
struct block_memory {
  fiber_block fibers;
  std::vector<cts::cuda::quad> shared;
  std::vector<std::array<std::array<float, 6>, 2>> exchange;
  std::vector<unsigned char> turn;
};

/// What a kernel sees of a thread.
class host_thread {
 public:
  host_thread(block_memory& memory, int number, index block, index block_y)
      : memory_(memory), number_(number), block_(block), block_y_(block_y) {}

  int thread() const { return number_; }
  int warp() const { return number_ / 32; }
  int lane() const { return number_ % 32; }
  index block() const { return block_; }
  index block_y() const { return block_y_; }
  void* shared() const { return memory_.shared.data(); }
  void sync() const { memory_.fibers.wait_block(); }

  float shuffle_xor(float x, int mask) const {
    const auto half = show({x});
    return seen(lane() ^ mask, half)[0];
  }
  std::uint32_t ballot(bool yes) const {
    const auto half = show({yes ? 1.0f : 0.0f});
    std::uint32_t bits = 0;
    for (int l = 0; l < 32; ++l) bits |= seen(l, half)[0] != 0 ? std::uint32_t{1} << l : 0;
    return bits;
  }
  /// mma.sync.m16n8k8 of TF32 numbers, with the places of the fragments as the PTX manual has them.
  void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) const {
    for (const float x : {a[0], a[1], a[2], a[3], b[0], b[1]}) {
      if (std::isfinite(x) && (std::bit_cast<std::uint32_t>(x) & 0x1fffu) != 0) complain("mma of an unrounded number");
    }
    const auto half = show({a[0], a[1], a[2], a[3], b[0], b[1]});
    for (int e = 0; e < 4; ++e) {
      const int row = lane() / 4 + 8 * (e / 2), column = 2 * (lane() % 4) + e % 2;
      for (int k = 0; k < 8; ++k) {
        const auto& of_a = seen(row % 8 * 4 + k % 4, half);
        const auto& of_b = seen(column * 4 + k % 4, half);
        c[e] += of_a[static_cast<std::size_t>(row / 8 + 2 * (k / 4))] * of_b[static_cast<std::size_t>(4 + k / 4)];
      }
    }
  }
  int lowest(std::uint32_t bits) const { return std::countr_zero(bits); }
  void atomic_max(std::int32_t* p, std::int32_t value) const { *p = std::max(*p, value); }

 private:
  std::size_t show(const std::array<float, 6>& x) const {
    const auto me = static_cast<std::size_t>(number_);
    const std::size_t half = memory_.turn[me] ^= 1;
    memory_.exchange[me][half] = x;
    memory_.fibers.wait_warp();
    return half;
  }
  const std::array<float, 6>& seen(int lane, std::size_t half) const {
    return memory_.exchange[static_cast<std::size_t>(number_ / 32 * 32 + lane)][half];
  }

  block_memory& memory_;
  int number_;
  index block_, block_y_;
};

/// Memory that only the device may touch: closed to the host but for the time of an `opened`.
class device_memory {
 public:
  device_memory() {
    void* p = mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) complain("no memory");
    base_ = static_cast<std::byte*>(p);
  }
  ~device_memory() { munmap(base_, arena_bytes); }
  device_memory(const device_memory&) = delete;
  device_memory& operator=(const device_memory&) = delete;

  class opened {
   public:
    explicit opened(device_memory& m) : memory_(m) {
      if (memory_.depth_++ == 0) memory_.protect(PROT_READ | PROT_WRITE);
    }
    ~opened() {
      if (--memory_.depth_ == 0) memory_.protect(PROT_NONE);
    }
    opened(const opened&) = delete;
    opened& operator=(const opened&) = delete;

   private:
    device_memory& memory_;
  };

  void* take(index bytes) {
    const index whole = (bytes + guard_bytes + 4095) / 4096 * 4096;
    auto& same_size = free_[whole];
    std::byte* p = nullptr;
    if (same_size.empty()) {
      p = base_ + top_;
      top_ += whole;
      if (top_ > arena_bytes) complain("out of device memory");
    } else {
      p = same_size.back();
      same_size.pop_back();
    }
    taken_[p] = {bytes, whole};
    const opened access(*this);
    std::memset(p, 0xff, static_cast<std::size_t>(bytes + guard_bytes));
    return p;
  }
  void give_back(void* p) {
    const auto at = taken_.find(static_cast<std::byte*>(p));
    if (at == taken_.end()) complain("memory is freed that was not allocated");
    const opened access(*this);
    const std::byte* guard = at->first + at->second.first;
    if (std::any_of(guard, guard + guard_bytes, [](std::byte b) { return b != std::byte{0xff}; })) {
      complain("a write behind the end of an allocation");
    }
    std::memset(at->first, 0xff, static_cast<std::size_t>(at->second.first));
    free_[at->second.second].push_back(at->first);
    taken_.erase(at);
  }
  std::size_t in_use() const { return taken_.size(); }

 private:
  static constexpr index arena_bytes = index{1} << 30, guard_bytes = 256;
  void protect(int how) {
    if (top_ > 0 && mprotect(base_, static_cast<std::size_t>(top_), how) != 0) complain("mprotect failed");
  }

  std::byte* base_ = nullptr;
  index top_ = 0;
  int depth_ = 0;
  std::map<std::byte*, std::pair<index, index>> taken_;
  std::map<index, std::vector<std::byte*>> free_;
};

/// How all emulated devices behave, and what they count.
struct behaviour {
  bool backwards = false;  ///< blocks and threads from the last to the first
  bool lagging = false;    ///< no copy to the device is ever done when it is asked for
  int requests = -1;       ///< for memory that still succeed before one throws `std::bad_alloc`; -1: all
  int failing = 0;         ///< so many launches throw `std::bad_alloc`
  int allocations = 0, launches = 0, copies = 0, waits = 0, graph_launches = 0, captures = 0, updates = 0;
};

class device {
 public:
  struct event {};
  using node = std::size_t;
  using graph = std::vector<std::function<void()>>;
  static constexpr index stack_bytes = index{1} << 18;
  inline static behaviour settings;

  explicit device(int) {}

  void* allocate(index bytes) {
    may_fail();
    ++settings.allocations;
    return memory_.take(bytes);
  }
  void release(void* p) { memory_.give_back(p); }
  void poison(void* p, index bytes) {
    const device_memory::opened access(memory_);
    std::memset(p, 0xff, static_cast<std::size_t>(bytes));
  }
  std::byte* allocate_pinned(index bytes) {
    may_fail();
    ++settings.allocations;
    ++pinned_;
    return new std::byte[static_cast<std::size_t>(bytes)];
  }
  void free_pinned(std::byte* p) {
    --pinned_;
    delete[] p;
  }
  /// Allocations that live.
  std::size_t in_use() const { return memory_.in_use(); }
  int pinned_in_use() const { return pinned_; }

  event make_event() {
    may_fail();
    return {};
  }
  void record(event&) {}
  bool ready(const event&) { return !settings.lagging; }
  void wait(event&) { ++settings.waits; }
  void synchronise() { ++settings.waits; }

  void copy_to_device(void* to, const void* from, index bytes) {
    ++settings.copies;
    give([=] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
  }
  void copy_to_host(void* to, const void* from, index bytes) {
    const device_memory::opened access(memory_);
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  template <class K>
  void launch(const K& k, const cts::cuda::launch_shape& shape) {
    ++settings.launches;
    if (settings.failing > 0) {
      --settings.failing;
      throw std::bad_alloc();
    }
    give([this, k, shape] { run(k, shape); });
  }
  void multiply(const cts::cuda::product& p) {
    give([this, p] {
      for (index i = 0; i < p.batch; ++i) multiply_one(p, i);
    });
  }

  void begin_capture() {
    ++settings.captures;
    capturing_ = true;
    captured_.clear();
  }
  node last_node() const { return captured_.size() - 1; }
  void cancel_capture() { capturing_ = false; }
  graph end_capture() {
    capturing_ = false;
    return std::move(captured_);
  }
  template <class K>
  bool update(graph& g, node n, const K& k, const cts::cuda::launch_shape& shape) {
    ++settings.updates;
    g[n] = [this, k, shape] { run(k, shape); };
    return true;
  }
  bool update_copy(graph& g, node n, void* to, const void* from, index bytes) {
    ++settings.updates;
    g[n] = [=] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); };
    return true;
  }
  void launch(graph& g) {
    ++settings.graph_launches;
    const device_memory::opened access(memory_);
    for (const auto& work : g) work();
  }

 private:
  static void may_fail() {
    if (settings.requests >= 0 && settings.requests-- == 0) throw std::bad_alloc();
  }

  template <class Work>
  void give(const Work& work) {
    if (capturing_) {
      captured_.emplace_back(work);
    } else {
      const device_memory::opened access(memory_);
      work();
    }
  }

  template <class K>
  void run(const K& k, const cts::cuda::launch_shape& shape) {
    const index blocks = shape.blocks * shape.blocks_y;
    block_.shared.resize(static_cast<std::size_t>(shape.shared_bytes + 15) / 16);
    block_.exchange.resize(K::threads);
    block_.turn.assign(K::threads, 0);
    for (index n = 0; n < blocks; ++n) {
      const index place = settings.backwards ? blocks - 1 - n : n;
      const index x = place % shape.blocks, y = place / shape.blocks;
      if (!block_.shared.empty()) std::memset(block_.shared.data(), 0xff, block_.shared.size() * 16);
      if constexpr (K::cooperative) {
        block_.fibers.run(K::threads, settings.backwards, [&](int i) { k(host_thread(block_, i, x, y)); });
      } else {
        for (int i = 0; i < K::threads; ++i) {
          k(host_thread(block_, settings.backwards ? K::threads - 1 - i : i, x, y));
        }
      }
    }
  }

  /// A factor of a product as the library would read it.
  static std::vector<float> numbers(const cts::cuda::product& p, const cts::cuda::factor& f, index rows, index cols,
                                    index i) {
    std::vector<float> out;
    for (index r = 0; r < rows; ++r) {
      for (index c = 0; c < cols; ++c) {
        const index at = i * f.stride + r * f.ld + c;
        if (p.narrow) {
          const auto bits = static_cast<std::uint32_t>(static_cast<const cts::cuda::bfloat*>(f.data)[at]);
          out.push_back(std::bit_cast<float>(bits << 16));
        } else {
          const float x = static_cast<const float*>(f.data)[at];
          out.push_back(p.how == cts::cuda::arithmetic::tf32 ? cts::cuda::round_to_tf32(x) : x);
        }
      }
    }
    return out;
  }
  void multiply_one(const cts::cuda::product& p, index i) {
    const index ar = p.a.transpose ? p.k : p.m, ac = p.a.transpose ? p.m : p.k;
    const index br = p.b.transpose ? p.n : p.k, bc = p.b.transpose ? p.k : p.n;
    const auto a = numbers(p, p.a, ar, ac, i), b = numbers(p, p.b, br, bc, i);
    const cts::view<float> c(p.c + i * p.stride_c, p.m, p.n, p.ldc);
    const float* addend = p.addend + i * p.stride_addend;
    if (p.beta != 0 && addend != c.data) {
      for (index r = 0; r < p.m; ++r) std::copy_n(addend + r * p.ld_addend, p.n, c.row(r));
    }
    for (index r = 0; p.beta != 0 && r < p.m; ++r) {
      for (index j = 0; j < p.n; ++j) c(r, j) *= p.beta;
    }
    cts::packed_product::multiply<float>(
        products_, p.a.transpose, p.b.transpose, p.alpha, cts::view<const float>(a.data(), ar, ac),
        cts::view<const float>(b.data(), br, bc), p.beta == 0 ? cts::view<const float>() : c, c);
    for (index r = 0; p.bias != nullptr && r < p.m; ++r) {
      for (index j = 0; j < p.n; ++j) c(r, j) += p.bias[j];
    }
  }

  device_memory memory_;
  block_memory block_;
  cts::block_stack<> products_;
  int pinned_ = 0;
  bool capturing_ = false;
  graph captured_;
};

using backend = cts::device_backend<device>;

}  // namespace cuda_emulation
