#pragma once
// Programs that work together as ranks 0 .. size-1: what a communicator is, one that is alone, and one of any type
// behind one value.

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/core/parallel.hpp"

namespace core_tokensets {

/// A communicator. Every rank makes the same calls in the same order, with as many values:
///   `rank()`, `size()`;
///   `all_reduce(values)`      values become the sum over the ranks by `add_in_tree`: the same bits everywhere;
///   `broadcast(bytes, root)`  bytes become those of rank `root`;
///   `all_gather(own)`         the bytes of each rank, in their order; ranks may have different numbers of them.
/// It may have `leave(reason)`: this rank makes no further call, and the others are told. `Error`, within seconds,
/// where another rank has left or its process has ended; never because it takes long.
template <class C>
concept communicator = std::movable<C> && requires(C& c, std::span<double> wide, std::span<float> narrow,
                                                   std::span<std::byte> bytes, std::span<const std::byte> own) {
  { c.rank() } -> std::same_as<int>;
  { c.size() } -> std::same_as<int>;
  c.all_reduce(wide);
  c.all_reduce(narrow);
  c.broadcast(bytes, 0);
  { c.all_gather(own) } -> std::same_as<std::vector<std::vector<std::byte>>>;
};

/// Adds up n values of each part in pairs of neighbours, then pairs of pairs, into the first part: (0 + 1) + (2 + 3).
/// The others are used up.
template <class T>
void add_in_tree(std::span<T* const> parts, std::ptrdiff_t n) {
  for (std::size_t stride = 1; stride < parts.size(); stride *= 2) {
    for (std::size_t i = 0; i + stride < parts.size(); i += 2 * stride) {
      T* const to = parts[i];
      const T* const from = parts[i + stride];
      simd_for(0, n, [&](std::ptrdiff_t k) { to[k] += from[k]; });
    }
  }
}

/// A program that is alone.
struct self {
  int rank() const { return 0; }
  int size() const { return 1; }
  template <class T>
  void all_reduce(std::span<T>) const {}
  void broadcast(std::span<std::byte>, int) const {}
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> own) const {
    return {{own.begin(), own.end()}};
  }
};

/// One communicator of any type; copies share it. By default `self`. Messages of errors begin with the rank and end
/// with what was being `doing`.
class team {
 public:
  team() = default;
  template <class C>
  requires(!std::same_as<C, team> && communicator<C>) team(C with)
      : calls_(std::make_shared<const calls>(std::move(with))) {}

  int rank() const { return calls_ ? calls_->rank : 0; }
  int size() const { return calls_ ? calls_->size : 1; }
  bool alone() const { return size() == 1; }
  /// True for the one that prints and writes files.
  bool leads() const { return rank() == 0; }

  template <class T>
  requires std::same_as<T, float> || std::same_as<T, double>
  void all_reduce(std::span<T> values, const char* doing) const {
    if (alone()) return;
    telling(doing, [&] {
      if constexpr (std::same_as<T, float>) {
        calls_->reduce_floats(values);
      } else {
        calls_->reduce_doubles(values);
      }
    });
  }
  void broadcast(std::span<std::byte> bytes, int root, const char* doing) const {
    require(root >= 0 && root < size(), "broadcast: rank ", root, " of ", size());
    if (!alone()) telling(doing, [&] { calls_->broadcast(bytes, root); });
  }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> own, const char* doing) const {
    if (alone()) return self().all_gather(own);
    std::vector<std::vector<std::byte>> all;
    telling(doing, [&] { all = calls_->gather(own); });
    return all;
  }
  /// Returns when all ranks are here.
  void wait(const char* doing) const {
    if (!alone()) (void)all_gather({}, doing);
  }
  /// True on all ranks where it is on one of them.
  bool any(bool here, const char* doing) const {
    double found = here ? 1 : 0;
    all_reduce(std::span(&found, 1), doing);
    return found > 0;
  }
  /// Tells the others that this rank makes no further call, and why.
  void leave(const std::string& reason) const {
    if (!alone() && calls_->leave) calls_->leave(reason);
  }

 private:
  struct calls {
    int rank, size;
    std::function<void(std::span<double>)> reduce_doubles;
    std::function<void(std::span<float>)> reduce_floats;
    std::function<void(std::span<std::byte>, int)> broadcast;
    std::function<std::vector<std::vector<std::byte>>(std::span<const std::byte>)> gather;
    std::function<void(const std::string&)> leave;

    template <class C>
    explicit calls(C with) : rank(with.rank()), size(with.size()) {
      const auto c = std::make_shared<C>(std::move(with));
      reduce_doubles = [c](std::span<double> values) { c->all_reduce(values); };
      reduce_floats = [c](std::span<float> values) { c->all_reduce(values); };
      broadcast = [c](std::span<std::byte> bytes, int root) { c->broadcast(bytes, root); };
      gather = [c](std::span<const std::byte> own) { return c->all_gather(own); };
      if constexpr (requires { c->leave(std::string()); }) leave = [c](const std::string& why) { c->leave(why); };
    }
  };

  /// `Error` unless all ranks make the same call, since each would take what another one sends for its own.
  void agree(const char* doing) const {
    const std::string_view own = doing;
    const auto all = calls_->gather(std::as_bytes(std::span(own)));
    for (std::size_t r = 0; r < all.size(); ++r) {
      const std::string_view other(reinterpret_cast<const char*>(all[r].data()), all[r].size());
      require(!other.empty(), "rank ", r, " has ended");
      require(other == own, "rank ", r, " is ", other, ": all ranks must make the same calls in the same order");
    }
  }
  template <class Call>
  void telling(const char* doing, const Call& call) const {
    try {
      agree(doing);
      call();
    } catch (const Error& e) {
      if (calls_->leave) calls_->leave(e.what());
      fail("rank ", rank(), " of ", size(), ": ", e.what(), ", noticed while ", doing);
    }
  }

  std::shared_ptr<const calls> calls_;
};

}  // namespace core_tokensets
