#pragma once
// Ranks that are threads of one program: a communicator for tests.

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core_tokensets/core/communicator.hpp"

namespace support {

namespace cts = core_tokensets;

class thread_ranks {
 public:
  thread_ranks(int rank, int size) : rank_(rank), shared_(std::make_shared<meeting>(size)) {}
  /// Another rank of the same meeting.
  thread_ranks as(int rank) const {
    thread_ranks other = *this;
    other.rank_ = rank;
    return other;
  }

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(shared_->parts.size()); }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> own) {
    std::unique_lock hold(shared_->mutex);
    shared_->parts[static_cast<std::size_t>(rank_)].assign(own.begin(), own.end());
    arrive(hold);
    auto all = shared_->parts;
    arrive(hold);
    return all;
  }
  template <class T>
  void all_reduce(std::span<T> values) {
    auto all = all_gather(std::as_bytes(values));
    std::vector<T*> parts;
    for (auto& bytes : all) {
      cts::require(bytes.size() == values.size_bytes(), "all_reduce: another rank has another number of values");
      parts.push_back(reinterpret_cast<T*>(bytes.data()));
    }
    cts::add_in_tree<T>(parts, static_cast<std::ptrdiff_t>(values.size()));
    std::copy_n(parts[0], values.size(), values.begin());
  }
  void broadcast(std::span<std::byte> bytes, int root) {
    const auto all = all_gather(rank_ == root ? std::span<const std::byte>(bytes) : std::span<const std::byte>());
    std::copy(all[static_cast<std::size_t>(root)].begin(), all[static_cast<std::size_t>(root)].end(), bytes.begin());
  }
  void leave(const std::string& reason) {
    const std::lock_guard hold(shared_->mutex);
    if (shared_->gone.empty()) shared_->gone = "rank " + std::to_string(rank_) + " has ended: " + reason;
    shared_->changed.notify_all();
  }

 private:
  struct meeting {
    explicit meeting(int size) : parts(static_cast<std::size_t>(size)) {}
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::vector<std::byte>> parts;
    std::size_t here = 0;
    long round = 0;
    std::string gone;
  };

  void arrive(std::unique_lock<std::mutex>& hold) {
    const long round = shared_->round;
    if (++shared_->here == shared_->parts.size()) {
      shared_->here = 0;
      ++shared_->round;
      shared_->changed.notify_all();
      return;
    }
    shared_->changed.wait(hold, [&] { return shared_->round != round || !shared_->gone.empty(); });
    if (shared_->round == round) cts::fail(shared_->gone);
  }

  int rank_;
  std::shared_ptr<meeting> shared_;
};

/// Calls `body(team)` on so many ranks at a time, each with one thread; rethrows what the lowest rank threw. A rank
/// that throws leaves.
inline void on_ranks(int size, const std::function<void(const cts::team&)>& body) {
  const thread_ranks first(0, size);
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      cts::set_default_threads(1);
      const cts::team ranks(first.as(r));
      try {
        body(ranks);
      } catch (const std::exception& e) {
        thrown[static_cast<std::size_t>(r)] = std::current_exception();
        ranks.leave(e.what());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& error : thrown) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace support
