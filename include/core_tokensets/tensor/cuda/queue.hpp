#pragma once
// The way of all work to the device, and the replay of work that repeats. Within `repeat(key, body)` the commands that
// `body` gives are written down the first time. When the same key comes again, each command is compared with the one
// written down and kept back; at the end the whole list is launched as one graph, in which the kernels and copies whose
// arguments changed (a learning rate, the place of a batch) were updated. Where a command differs in kind, or a product
// in any way, the commands kept back are issued one by one and the rest is written down anew: results never depend on
// what was recorded.

#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core_tokensets/core/parallel.hpp"
#include "core_tokensets/tensor/cuda/product.hpp"
#include "core_tokensets/tensor/cuda/staging.hpp"

namespace core_tokensets::cuda {

template <class K>
struct kernel_command {
  static constexpr bool can_change = true;
  K kernel;
  launch_shape shape;
  template <class Device>
  void issue(Device& d) const {
    d.launch(kernel, shape);
  }
  template <class Device>
  bool update(Device& d, typename Device::graph& g, typename Device::node n) const {
    return d.update(g, n, kernel, shape);
  }
};

struct product_command {
  static constexpr bool can_change = false;
  product p;
  template <class Device>
  void issue(Device& d) const {
    d.multiply(p);
  }
  bool operator==(const product_command&) const = default;
};

struct copy_command {
  static constexpr bool can_change = true;
  void* to;
  const void* from;
  index bytes;
  template <class Device>
  void issue(Device& d) const {
    d.copy_to_device(to, from, bytes);
  }
  template <class Device>
  bool update(Device& d, typename Device::graph& g, typename Device::node n) const {
    return d.update_copy(g, n, to, from, bytes);
  }
};

template <class Device>
class queue {
 public:
  explicit queue(Device& device) : device_(device), staging_(device) {}

  template <kernel K>
  void run(const K& k, const launch_shape& shape) {
    if (shape.blocks > 0 && shape.blocks_y > 0) submit(kernel_command<K>{k, shape});
  }
  void multiply(const product& p) { submit(product_command{p}); }

  /// `from` may be changed as soon as this returns.
  void upload(void* to, const void* from, index bytes) {
    for (index at = 0; at < bytes; at += staging<Device>::piece) {
      const index n = std::min(staging<Device>::piece, bytes - at);
      std::byte* staged = staging_.place(n, mode_ == mode::replaying);
      copy(staged, static_cast<const std::byte*>(from) + at, n);
      submit(copy_command{static_cast<std::byte*>(to) + at, staged, n});
    }
  }
  /// Waits for all work before. Within `repeat`, this ends the recording: such work is never replayed.
  void download(void* to, const void* from, index bytes) {
    synchronise();
    if (bytes > 0) device_.copy_to_host(to, from, bytes);
  }
  void synchronise() {
    if (mode_ == mode::replaying) diverge();
    if (mode_ == mode::recording) script_->repeats = false;
    device_.synchronise();
  }
  /// Frees memory once all work given before has been done.
  void release(void* p) {
    if (mode_ == mode::replaying) {
      released_.push_back(p);
    } else {
      device_.release(p);
    }
  }

  template <class Body>
  void repeat(index key, const Body& body) {
    if (mode_ != mode::direct) return body();  // within another one
    script_ = &find(key);
    if (!script_->repeats) return body();
    position_ = 0;
    changed_.clear();
    mode_ = script_->entries.empty() ? mode::recording : mode::replaying;
    try {
      body();
      finish();
    } catch (...) {
      try {
        if (mode_ == mode::replaying) diverge();
      } catch (...) {  // the first error is the one to report
      }
      mode_ = mode::direct;
      scripts_.erase(key);
      throw;
    }
  }

  /// How many graphs were launched so far.
  index replays() const { return replays_; }

 private:
  enum class mode { direct, recording, replaying };
  static constexpr std::size_t most_scripts = 16;

  /// What can be done with a command of some type, whose bytes lie at the pointer.
  struct command_type {
    void (*issue)(Device&, const std::byte*);
    bool (*update)(Device&, typename Device::graph&, typename Device::node, const std::byte*);
  };
  template <class C>
  static const C& as(const std::byte* p) {
    return *reinterpret_cast<const C*>(p);
  }
  template <class C>
  static constexpr command_type type_of{
      [](Device& d, const std::byte* p) { as<C>(p).issue(d); },
      [](Device& d, typename Device::graph& g, typename Device::node n, const std::byte* p) {
        if constexpr (C::can_change) return as<C>(p).update(d, g, n);
        return false;
      }};

  struct entry {
    const command_type* type;
    std::vector<std::byte> bytes;
    typename Device::node node{};
  };
  struct script {
    std::vector<entry> entries;
    std::optional<typename Device::graph> graph;
    bool repeats = true;
    index last_use = 0;
  };

  /// A copy on several threads where it is large: one processor copies a fraction of what the bus to the card takes.
  static void copy(std::byte* to, const std::byte* from, index bytes) {
    constexpr index part = index{1} << 18;
    const index parts = (bytes + part - 1) / part;
    parallel_for(parts > 2 ? 0 : 1, parts, [&](index i) {
      std::memcpy(to + i * part, from + i * part, static_cast<std::size_t>(std::min(part, bytes - i * part)));
    });
  }

  template <class C>
  static bool same(const C& a, const C& b) {
    if constexpr (C::can_change) {
      return std::memcmp(&a, &b, sizeof(C)) == 0;  // padding may differ: then it is updated for nothing
    } else {
      return a == b;
    }
  }

  template <class C>
  void submit(const C& command) {
    static_assert(std::is_trivially_copyable_v<C>);
    if (mode_ == mode::replaying) {
      if (follows(command)) return;
      diverge();
    }
    if (mode_ == mode::recording) {
      const auto* bytes = reinterpret_cast<const std::byte*>(&command);
      script_->entries.push_back({&type_of<C>, {bytes, bytes + sizeof(C)}});
    }
    command.issue(device_);
  }

  /// True where the command is the next one of the script, or was made so.
  template <class C>
  bool follows(const C& command) {
    if (position_ == script_->entries.size()) return false;
    entry& e = script_->entries[position_];
    if (e.type != &type_of<C>) return false;
    if (!same(as<C>(e.bytes.data()), command)) {
      if (!C::can_change) return false;
      std::memcpy(e.bytes.data(), static_cast<const void*>(&command), sizeof(C));
      changed_.push_back(position_);
    }
    ++position_;
    return true;
  }

  /// Issues what was kept back and records from here on.
  void diverge() {
    script_->graph.reset();
    script_->entries.resize(position_);
    mode_ = mode::recording;
    for (const entry& e : script_->entries) e.type->issue(device_, e.bytes.data());
    settle();
  }

  void finish() {
    if (mode_ == mode::replaying) {
      if (position_ < script_->entries.size()) {
        diverge();
      } else {
        play();
        settle();
      }
    }
    mode_ = mode::direct;
    if (!script_->repeats) script_->entries.clear();
  }

  void play() {
    bool ready = script_->graph.has_value();
    for (const std::size_t i : changed_) {
      entry& e = script_->entries[i];
      ready = ready && e.type->update(device_, *script_->graph, e.node, e.bytes.data());
    }
    if (!ready) {
      capture();
    }
    device_.launch(*script_->graph);
    ++replays_;
  }

  void capture() {
    device_.begin_capture();
    try {
      for (entry& e : script_->entries) {
        e.type->issue(device_, e.bytes.data());
        e.node = device_.last_node();
      }
    } catch (...) {
      device_.cancel_capture();
      throw;
    }
    script_->graph.reset();
    script_->graph.emplace(device_.end_capture());
  }

  void settle() {
    staging_.settle();
    for (void* p : released_) device_.release(p);
    released_.clear();
  }

  script& find(index key) {
    script& found = scripts_[key];
    found.last_use = ++uses_;
    if (scripts_.size() > most_scripts) {
      const auto oldest = std::min_element(scripts_.begin(), scripts_.end(), [](const auto& a, const auto& b) {
        return a.second.last_use < b.second.last_use;
      });
      scripts_.erase(oldest);
    }
    return found;
  }

  Device& device_;
  staging<Device> staging_;
  std::map<index, script> scripts_;
  script* script_ = nullptr;
  mode mode_ = mode::direct;
  std::size_t position_ = 0;
  std::vector<std::size_t> changed_;
  std::vector<void*> released_;
  index uses_ = 0, replays_ = 0;
};

}  // namespace core_tokensets::cuda
