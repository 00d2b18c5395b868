#pragma once
// Room in a memory of fixed size: what older tasks give up when a new one comes.

#include <algorithm>
#include <map>
#include <vector>

#include "core_tokensets/memory/token_memory.hpp"

namespace core_tokensets {

/// Evicts samples until the memory costs at most `bytes` by `price(memory)`: one after the other of the class that has
/// most, the one of least weight, of several the latest. `sources` `[S]` move along. The last sample of a class goes
/// last.
template <class Price>
void make_room(token_memory& memory, std::vector<index>& sources, index bytes, const Price& price) {
  while (!memory.empty()) {
    const index cost = price(memory);
    if (cost <= bytes) return;
    std::map<std::int32_t, std::vector<index>> of_class;  // in the order in which they go, the first to go last
    const token_arrays& a = memory.arrays();
    for (index s = 0; s < memory.samples(); ++s) of_class[a.targets[static_cast<std::size_t>(s)]].push_back(s);
    for (auto& [target, samples] : of_class) {
      std::stable_sort(samples.begin(), samples.end(), [&](index x, index y) {
        return a.weights[static_cast<std::size_t>(x)] > a.weights[static_cast<std::size_t>(y)];
      });
    }
    const index each = std::max<index>(1, cost / memory.samples());
    std::vector<index> unwanted;
    for (index left = std::max<index>(1, (cost - bytes) / each); left > 0; --left) {
      const auto largest = std::max_element(of_class.begin(), of_class.end(), [](const auto& x, const auto& y) {
        return x.second.size() < y.second.size();
      });
      if (largest->second.empty()) break;
      unwanted.push_back(largest->second.back());
      largest->second.pop_back();
    }
    std::vector<bool> gone(static_cast<std::size_t>(memory.samples()));
    for (const index s : unwanted) gone[static_cast<std::size_t>(s)] = true;
    memory.evict(unwanted);
    std::vector<index> rest;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      if (!gone[s]) rest.push_back(sources[s]);
    }
    sources = std::move(rest);
  }
}

}  // namespace core_tokensets
