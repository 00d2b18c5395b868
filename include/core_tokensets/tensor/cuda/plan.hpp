#pragma once
// What attention needs to know of a ragged batch, in device memory. All layers of a model ask for the same batch, so
// the last few tables are kept and found by what they say.

#include <array>
#include <vector>

#include "core_tokensets/tensor/cuda/attention.hpp"
#include "core_tokensets/tensor/cuda/queue.hpp"
#include "core_tokensets/tensor/sequences.hpp"

namespace core_tokensets::cuda {

/// Samples, and the tiles of their queries and keys.
struct attention_tables {
  const attention_sample* samples = nullptr;
  const attention_tile *query_tiles = nullptr, *key_tiles = nullptr;
  index queries = 0, keys = 0;  ///< how many tiles
};

template <class Device>
class attention_plans {
 public:
  explicit attention_plans(Device& device) : device_(device) {}
  ~attention_plans() {
    for (const entry& e : entries_) {
      if (e.memory != nullptr) device_.release(e.memory);
    }
  }
  attention_plans(const attention_plans&) = delete;
  attention_plans& operator=(const attention_plans&) = delete;

  /// The tables of `rows`; uploaded unless they are among the last ones asked for.
  attention_tables find(queue<Device>& commands, const attention_rows& rows) {
    entry* oldest = &entries_[0];
    for (entry& e : entries_) {
      if (e.last_use > 0 && e.queries == rows.queries().offsets && e.keys == rows.keys().offsets) {
        e.last_use = ++uses_;
        return e.tables;
      }
      if (e.last_use < oldest->last_use) oldest = &e;
    }
    fill(commands, rows, *oldest);
    oldest->last_use = ++uses_;
    return oldest->tables;
  }

 private:
  struct entry {
    std::vector<index> queries, keys;
    std::byte* memory = nullptr;
    index capacity = 0, last_use = 0;
    attention_tables tables;
  };

  static void add_tiles(index sample, index length, std::vector<attention_tile>& tiles) {
    for (index first = 0; first < length; first += tile_rows) {
      tiles.push_back({static_cast<std::int32_t>(sample), static_cast<std::int32_t>(first)});
    }
  }

  void fill(queue<Device>& commands, const attention_rows& rows, entry& e) {
    samples_.clear();
    tiles_.clear();
    const auto small = [](index x) { return static_cast<std::int32_t>(x); };
    index place = 0;
    for (index s = 0; s < rows.count(); ++s) {
      samples_.push_back({.place = place,
                          .query = small(rows.queries().begin(s)),
                          .queries = small(rows.queries().length(s)),
                          .key = small(rows.keys().begin(s)),
                          .keys = small(rows.keys().length(s))});
      add_tiles(s, rows.queries().length(s), tiles_);
      place += rows.queries().length(s) * rows.keys().length(s);
    }
    const auto queries = static_cast<index>(tiles_.size());
    for (index s = 0; s < rows.count(); ++s) add_tiles(s, rows.keys().length(s), tiles_);
    const auto sample_bytes = static_cast<index>(samples_.size() * sizeof(attention_sample));
    const auto tile_bytes = static_cast<index>(tiles_.size() * sizeof(attention_tile));
    e.last_use = 0;  // whatever fails from here on, nobody finds half an entry
    if (sample_bytes + tile_bytes > e.capacity) {
      void* larger = device_.allocate(sample_bytes + tile_bytes);
      if (e.memory != nullptr) commands.release(e.memory);
      e.memory = static_cast<std::byte*>(larger);
      e.capacity = sample_bytes + tile_bytes;
    }
    commands.upload(e.memory, samples_.data(), sample_bytes);
    commands.upload(e.memory + sample_bytes, tiles_.data(), tile_bytes);
    e.queries = rows.queries().offsets;
    e.keys = rows.keys().offsets;
    const auto* tiles = reinterpret_cast<const attention_tile*>(e.memory + sample_bytes);
    e.tables = {.samples = reinterpret_cast<const attention_sample*>(e.memory),
                .query_tiles = tiles,
                .key_tiles = tiles + queries,
                .queries = queries,
                .keys = static_cast<index>(tiles_.size()) - queries};
  }

  Device& device_;
  std::array<entry, 4> entries_;
  std::vector<attention_sample> samples_;
  std::vector<attention_tile> tiles_;
  index uses_ = 0;
};

}  // namespace core_tokensets::cuda
