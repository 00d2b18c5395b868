#pragma once
// The memory: the tokens that mattered of the samples that mattered. Samples are appended, evicted, cut down to their
// most relevant tokens, and kept in one flat file. A whole image is a sample with all of its tokens.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/core/error.hpp"
#include "core_tokensets/io/half.hpp"
#include "core_tokensets/memory/memory_file.hpp"

namespace core_tokensets {

namespace detail {

inline void append_texts(token_arrays& arrays, std::string_view prompt, std::string_view answer) {
  for (const std::string_view text : {prompt, answer}) {
    arrays.text.insert(arrays.text.end(), text.begin(), text.end());
    arrays.text_offsets.push_back(static_cast<std::uint32_t>(arrays.text.size()));
  }
}

}  // namespace detail

/// A store of samples with some of their tokens each. All numbers of samples and tokens count from 0.
class token_memory {
 public:
  explicit token_memory(token_memory_format format) {
    format.check();
    arrays_.format = std::move(format);
    if (arrays_.format.texts) arrays_.text_offsets.assign(1, 0);
  }
  /// Takes over arrays that fit each other (`Error` where they do not).
  explicit token_memory(token_arrays arrays) : arrays_(std::move(arrays)) { arrays_.check("token memory"); }

  const token_memory_format& format() const { return arrays_.format; }
  const token_arrays& arrays() const { return arrays_; }
  index samples() const { return arrays_.samples(); }
  index tokens() const { return arrays_.tokens(); }
  bool empty() const { return samples() == 0; }

  /// Free texts that travel in the file (model hash, recipe, seed); see `is_reserved_metadata` for names not to use.
  std::map<std::string, std::string>& metadata() { return arrays_.metadata; }
  const std::map<std::string, std::string>& metadata() const { return arrays_.metadata; }

  /// Sample s; valid until the memory changes.
  stored_sample sample(index s) const {
    require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
    return arrays_.sample(s);
  }

  /// Adds one sample with at least one token, no position twice; tokens are put into the order of their positions.
  void append(const stored_sample& sample);
  /// Adds all samples of a memory of the same format; metadata stay as they are.
  void append(const token_memory& other) {
    require(other.format() == format(), "token memory: cannot append a memory of another format");
    const index count = other.samples();
    for (index s = 0; s < count; ++s) append(other.sample(s));
  }

  /// Keeps exactly these samples, in this order.
  void keep(std::span<const index> chosen) {
    std::vector<bool> seen(static_cast<std::size_t>(samples()));
    for (const index s : chosen) {
      require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
      require(!seen[static_cast<std::size_t>(s)], "token memory: sample ", s, " is to be kept twice");
      seen[static_cast<std::size_t>(s)] = true;
    }
    gather(chosen, {});
  }

  /// Removes these samples; the others keep their order.
  void evict(std::span<const index> unwanted) {
    std::vector<bool> gone(static_cast<std::size_t>(samples()));
    for (const index s : unwanted) {
      require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
      gone[static_cast<std::size_t>(s)] = true;
    }
    std::vector<index> rest;
    for (index s = 0; s < samples(); ++s) {
      if (!gone[static_cast<std::size_t>(s)]) rest.push_back(s);
    }
    gather(rest, {});
  }

  /// Cuts sample s down to its `tokens_per_sample[s]` most relevant tokens (ties: the earlier position stays); a sample
  /// that has fewer stays whole.
  void shrink(std::span<const index> tokens_per_sample) {
    require(static_cast<index>(tokens_per_sample.size()) == samples(), "token memory: ", tokens_per_sample.size(),
            " token budgets for ", samples(), " samples");
    bool cuts = false;
    for (index s = 0; s < samples(); ++s) {
      const index limit = tokens_per_sample[static_cast<std::size_t>(s)];
      require(limit >= 1, "token memory: cannot shrink sample ", s, " to ", limit, " tokens, expected at least 1");
      cuts = cuts || limit < arrays_.sample(s).tokens();
    }
    if (!cuts) return;
    require(format().relevance != relevance_storage::none, "token memory: cannot shrink, it keeps no relevance");
    std::vector<index> all(static_cast<std::size_t>(samples()));
    std::iota(all.begin(), all.end(), index{0});
    gather(all, tokens_per_sample);
  }
  void shrink(index tokens_per_sample) {
    shrink(std::vector<index>(static_cast<std::size_t>(samples()), tokens_per_sample));
  }

  /// The samples of one task, in order.
  std::vector<index> samples_of_task(std::uint16_t task) const {
    std::vector<index> result;
    for (index s = 0; s < samples(); ++s) {
      if (arrays_.tasks[static_cast<std::size_t>(s)] == task) result.push_back(s);
    }
    return result;
  }

  /// Size of the file that `save` would write, to the byte.
  index bytes_on_disk() const { return token_file_size(arrays_, raw_codec{}); }
  /// The same with packed pixels, which takes packing them.
  template <patch_codec Codec>
  index bytes_on_disk(const Codec& codec) const {
    return token_file_size(arrays_, codec);
  }
  /// The size with raw pixels if the memory had that many samples, tokens and bytes of text.
  index bytes_on_disk(index samples, index tokens, index text = 0) const {
    return token_file_size(arrays_, samples, tokens, text);
  }

  /// Writes the memory, all or nothing.
  template <patch_codec Codec = raw_codec>
  void save(const std::filesystem::path& path, const Codec& codec = {}) const {
    save_token_arrays(path, arrays_, codec);
  }

 private:
  /// Makes this the memory of `samples` in that order, each with at most `limits[s]` tokens where there are limits.
  void gather(std::span<const index> samples, std::span<const index> limits);

  token_arrays arrays_;
};

/// Reads a memory that was saved; hand in the codecs besides raw that it may use.
template <patch_codec... Codecs>
token_memory load_token_memory(const std::filesystem::path& path, const Codecs&... codecs) {
  return token_memory(load_token_arrays(path, codecs...));
}

inline void token_memory::append(const stored_sample& sample) {
  const auto& f = format();
  const auto count = sample.positions.size(), dim = static_cast<std::size_t>(f.patch_dim());
  const bool relevant = f.relevance != relevance_storage::none;
  require(count > 0, "token memory: a sample without tokens");
  require(sample.patches.size() == count * dim, "token memory: ", sample.patches.size(), " pixel values for ", count,
          " tokens of ", dim);
  require(!relevant || sample.relevance.size() == count, "token memory: ", sample.relevance.size(), " relevances for ",
          count, " tokens");
  require(std::isfinite(sample.weight), "token memory: a weight that is not finite");
  require(f.texts || (sample.prompt.empty() && sample.answer.empty()),
          "token memory: a sample with texts for a memory without");
  require(arrays_.text.size() + sample.prompt.size() + sample.answer.size() < std::size_t{1} << 32,
          "token memory: more than 4 GiB of text");

  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return sample.positions[a] < sample.positions[b]; });
  // Copies first: the sample may lie in this very memory.
  const std::string prompt(sample.prompt), answer(sample.answer);
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;
  patches.reserve(count * dim);
  float largest = 0;
  for (const std::size_t t : order) {
    const auto position = sample.positions[t];
    require(position < f.grid_tokens(), "token memory: position ", position, " outside the grid of ", f.grid_tokens());
    require(positions.empty() || positions.back() != position, "token memory: position ", position, " twice");
    positions.push_back(position);
    const auto patch = sample.patches.subspan(t * dim, dim);
    patches.insert(patches.end(), patch.begin(), patch.end());
    if (!relevant) continue;
    relevance.push_back(sample.relevance[t]);
    require(std::isfinite(relevance.back()), "token memory: the relevance at position ", position, " is not finite");
    largest = std::max(largest, std::abs(relevance.back()));
  }
  if (f.relevance == relevance_storage::f16) {
    for (float& r : relevance) r = static_cast<float>(half(largest > 0 ? double{r} / double{largest} : 0.0));
  }
  arrays_.patches.insert(arrays_.patches.end(), patches.begin(), patches.end());
  arrays_.positions.insert(arrays_.positions.end(), positions.begin(), positions.end());
  arrays_.relevance.insert(arrays_.relevance.end(), relevance.begin(), relevance.end());
  arrays_.offsets.push_back(arrays_.positions.size());
  arrays_.targets.push_back(sample.target);
  arrays_.weights.push_back(sample.weight);
  arrays_.tasks.push_back(sample.task);
  if (f.texts) detail::append_texts(arrays_, prompt, answer);
}

inline void token_memory::gather(std::span<const index> samples, std::span<const index> limits) {
  token_arrays next;
  next.format = arrays_.format;
  next.metadata = arrays_.metadata;
  if (format().texts) next.text_offsets.assign(1, 0);
  const auto dim = static_cast<std::size_t>(format().patch_dim());
  std::vector<std::size_t> kept;
  for (const index s : samples) {
    const auto old = arrays_.sample(s);
    kept.resize(old.positions.size());
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    if (!limits.empty() && limits[static_cast<std::size_t>(s)] < old.tokens()) {
      std::stable_sort(kept.begin(), kept.end(),
                       [&](std::size_t a, std::size_t b) { return old.relevance[a] > old.relevance[b]; });
      kept.resize(static_cast<std::size_t>(limits[static_cast<std::size_t>(s)]));
      std::sort(kept.begin(), kept.end());
    }
    for (const std::size_t t : kept) {
      const auto patch = old.patches.subspan(t * dim, dim);
      next.patches.insert(next.patches.end(), patch.begin(), patch.end());
      next.positions.push_back(old.positions[t]);
      if (!old.relevance.empty()) next.relevance.push_back(old.relevance[t]);
    }
    next.offsets.push_back(next.positions.size());
    next.targets.push_back(old.target);
    next.weights.push_back(old.weight);
    next.tasks.push_back(old.task);
    if (format().texts) detail::append_texts(next, old.prompt, old.answer);
  }
  arrays_ = std::move(next);
}

}  // namespace core_tokensets
