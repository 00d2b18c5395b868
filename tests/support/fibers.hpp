#pragma once
// Threads of a block on one thread of the host: each runs on a stack of its own until it waits at a barrier, then the
// next one goes on. The order is fixed, forwards or backwards; results that depend on it show a missing barrier.

#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {

class fiber_block {
 public:
  static constexpr int warp = 32;

  /// Runs body(i) for i in [0, n); bodies may call `wait_block` and `wait_warp`.
  void run(int n, bool backwards, const std::function<void(int)>& body) {
    while (static_cast<int>(fibers_.size()) < n) add_fiber();
    count_ = left_ = n;
    backwards_ = backwards;
    body_ = &body;
    block_waiting_ = 0;
    warp_waiting_.assign(static_cast<std::size_t>((n + warp - 1) / warp), 0);
    for (int i = 0; i < n; ++i) fibers_[static_cast<std::size_t>(i)]->state = ready;
    current_ = -1;
    if (_setjmp(host_) == 0) resume_next();
  }

  /// Barrier of all threads. All of them must come: a thread that has ended already is an error.
  void wait_block() {
    if (++block_waiting_ == count_) {
      block_waiting_ = 0;
      wake(0, count_);
    } else {
      wait(at_block);
    }
  }
  /// Barrier of the 32 threads of a warp.
  void wait_warp() {
    const int w = current_ / warp;
    if (++warp_waiting_[static_cast<std::size_t>(w)] == warp) {
      warp_waiting_[static_cast<std::size_t>(w)] = 0;
      wake(w * warp, (w + 1) * warp);
    } else {
      wait(at_warp);
    }
  }

 private:
  enum state_of_fiber { ready, at_block, at_warp, done };
  static constexpr std::size_t stack_bytes = std::size_t{1} << 17;
  struct fiber {
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    std::jmp_buf place;
    state_of_fiber state = done;
  };

  void wake(int from, int to) {
    for (int i = from; i < to; ++i) {
      if (i != current_) fibers_[static_cast<std::size_t>(i)]->state = ready;
    }
  }
  void wait(state_of_fiber why) {
    fiber& f = *fibers_[static_cast<std::size_t>(current_)];
    f.state = why;
    if (_setjmp(f.place) == 0) resume_next();
    arrived();
  }

  /// Goes on with the next thread that can, or with the host when all are done.
  [[noreturn]] void resume_next() {
    if (left_ == 0) jump(host_, nullptr);
    for (int step = 1; step <= count_; ++step) {
      const int i =
          backwards_ ? ((current_ < 0 ? count_ : current_) - step + 2 * count_) % count_ : (current_ + step) % count_;
      if (fibers_[static_cast<std::size_t>(i)]->state != ready) continue;
      current_ = i;
      jump(fibers_[static_cast<std::size_t>(i)]->place, fibers_[static_cast<std::size_t>(i)].get());
    }
    std::fprintf(stderr, "cuda emulation: some threads wait at a barrier that the others have left behind\n");
    std::abort();
  }

  [[noreturn]] void jump(std::jmp_buf& to, [[maybe_unused]] fiber* f) {
#if defined(__SANITIZE_ADDRESS__)
    if (f != nullptr) {
      __sanitizer_start_switch_fiber(nullptr, f->stack.get(), stack_bytes);
    } else {
      __sanitizer_start_switch_fiber(nullptr, host_stack_, host_stack_bytes_);
    }
#endif
    _longjmp(to, 1);
  }
  void arrived() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  }

  void add_fiber() {
    fibers_.push_back(std::make_unique<fiber>());
    fiber& f = *fibers_.back();
    ucontext_t context, back;
    getcontext(&context);
    context.uc_stack.ss_sp = f.stack.get();
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = nullptr;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&context, reinterpret_cast<void (*)()>(&fiber_block::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self & 0xffffffffu));
    back_ = &back;
    starting_ = &f;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, f.stack.get(), stack_bytes);
#endif
    swapcontext(&back, &context);
    arrived();
  }
  /// The first thing on every stack: waits to be run, again and again.
  static void enter(unsigned high, unsigned low) {
    auto& self = *reinterpret_cast<fiber_block*>((static_cast<std::uintptr_t>(high) << 32) | low);
    self.live(*self.starting_);
  }
  [[noreturn]] void live(fiber& f) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &host_stack_, &host_stack_bytes_);
#endif
    if (_setjmp(f.place) == 0) {
#if defined(__SANITIZE_ADDRESS__)
      __sanitizer_start_switch_fiber(nullptr, host_stack_, host_stack_bytes_);
#endif
      setcontext(back_);
    }
    for (;;) {
      arrived();
      (*body_)(current_);
      end(f);
    }
  }
  /// Ends a thread's work; returns when there is more for its stack.
  [[gnu::noinline]] void end(fiber& f) {
    f.state = done;
    --left_;
    if (_setjmp(f.place) == 0) resume_next();
  }

  std::vector<std::unique_ptr<fiber>> fibers_;
  std::vector<int> warp_waiting_;
  const std::function<void(int)>* body_ = nullptr;
  std::jmp_buf host_;
  ucontext_t* back_ = nullptr;
  fiber* starting_ = nullptr;
  int count_ = 0, left_ = 0, current_ = -1, block_waiting_ = 0;
  bool backwards_ = false;
  [[maybe_unused]] const void* host_stack_ = nullptr;
  [[maybe_unused]] std::size_t host_stack_bytes_ = 0;
};

}  // namespace cuda_emulation
