#pragma once
// GreeDi (Mirzasoleiman et al., NeurIPS 2013): a selector in two rounds, the first over shards of the samples, which
// ranks share.

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/choices.hpp"
#include "core_tokensets/core/communicator.hpp"
#include "core_tokensets/selection/grad_match.hpp"
#include "core_tokensets/selection/selection.hpp"

namespace core_tokensets {

/// `select` chooses k of each shard of the samples, and then k of all that were chosen. Shards have the same share of
/// every class. Where the selector has `select_among` both rounds match the gradient of all samples; others see their
/// shard only, and then the chosen ones only. The choice depends on `shards`, and not on how many ranks share them.
template <class Select = grad_match>
struct greedi {
  static constexpr const char* name = "greedi";
  static constexpr const char* about =
      "grad_match in two rounds: of each of some shards of the samples, then of those that were chosen (GreeDi)";
  Select select = {};
  index shards = 4;
  team ranks = {};

  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("shards", self.shards);
    if constexpr (requires { Select::options(self.select, visit); }) Select::options(self.select, visit);
  }
  greedi with_seed(std::uint64_t seed) const {
    greedi other = *this;
    if constexpr (requires { other.select.seed += seed; }) other.select.seed += seed;
    return other;
  }
};

/// `Error`: no shard.
template <class Select>
void check(const greedi<Select>& method) {
  require(method.shards > 0, "greedi: shards ", method.shards, ", expected at least 1");
}

namespace detail {

/// Samples of each shard, rising: those of a class are dealt to the shards in turn, and no shard begins with all
/// classes.
inline std::vector<std::vector<index>> shards_of(const evidence& e, index shards) {
  std::vector<std::vector<index>> found(static_cast<std::size_t>(shards));
  index next = 0;
  for (const auto& members : members_by_class(e)) {
    for (const index i : members) found[static_cast<std::size_t>(next++ % shards)].push_back(i);
  }
  for (auto& shard : found) std::sort(shard.begin(), shard.end());
  return found;
}

/// k of `among` by any selector, as numbers of the whole evidence.
template <class Select>
selection_result choose_among(const Select& select_by, const evidence& e, index k, std::span<const index> among) {
  if constexpr (requires { select_among(select_by, e, k, among); }) {
    return select_among(select_by, e, k, among);
  } else {
    selection_result found = select(select_by, evidence_of_some(e, among), k);
    for (index& i : found.indices) i = among[static_cast<std::size_t>(i)];
    return found;
  }
}

}  // namespace detail

/// k samples; on several ranks all of them ask, with the same evidence. `Error`: a budget outside 1 to n, no shard,
/// what the selector finds wrong.
template <class Select>
selection_result select(const greedi<Select>& method, const evidence& e, index k) {
  check_budget(e, k);
  check(method);
  const index count = std::min(method.shards, e.samples);  // more would be empty
  const auto shards = detail::shards_of(e, count);
  const index ranks = method.ranks.size(), rank = method.ranks.rank();
  std::vector<index> own, all;
  for (index s = count * rank / ranks; s < count * (rank + 1) / ranks; ++s) {
    const auto& shard = shards[static_cast<std::size_t>(s)];
    if (shard.empty()) continue;
    const auto some =
        detail::choose_among(method.select, e, std::min(k, static_cast<index>(shard.size())), std::span(shard));
    own.insert(own.end(), some.indices.begin(), some.indices.end());
  }
  for (const auto& part : method.ranks.all_gather(std::as_bytes(std::span(own)), "gathering chosen samples")) {
    const auto begin = all.size();
    all.resize(begin + part.size() / sizeof(index));
    if (!part.empty()) std::memcpy(all.data() + begin, part.data(), part.size());
  }
  std::sort(all.begin(), all.end());
  return detail::choose_among(method.select, e, std::min(k, static_cast<index>(all.size())), std::span(all));
}

}  // namespace core_tokensets
