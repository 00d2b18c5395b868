#pragma once
// The memory: the tokens that mattered of the samples that mattered. Samples are appended, evicted, cut down to their
// most relevant tokens, and kept in one flat file. A whole image is a sample with all of its tokens.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core_tokensets/memory/codecs/token_codecs.hpp"
#include "core_tokensets/memory/memory_file.hpp"

namespace core_tokensets {

/// A store of samples with some of their tokens each. All numbers of samples and tokens count from 0.
class token_memory {
 public:
  /// An empty memory that packs pixels by `codec`.
  explicit token_memory(token_memory_format format, any_codec codec = {}) : codec_(std::move(codec)) {
    format.check();
    arrays_.format = std::move(format);
    arrays_.columns.resize(arrays_.format.columns.size());
    if (arrays_.format.texts) arrays_.text_offsets.assign(1, 0);
  }
  explicit token_memory(const patch_grid& grid, any_codec codec = {})
      : token_memory(token_memory_format{.grid = grid}, std::move(codec)) {}
  /// Takes over arrays that fit each other (`Error` where they do not), packed by `codec`.
  explicit token_memory(token_arrays arrays, any_codec codec = {})
      : arrays_(std::move(arrays)), codec_(std::move(codec)) {
    arrays_.check("token memory");
    const auto& grid = arrays_.format.grid;
    std::vector<std::uint8_t> pixels;
    for (index s = 0; s < samples(); ++s) {
      const patch_context context{grid, arrays_.positions_of(s)};
      pixels.resize(static_cast<std::size_t>(context.bytes()));
      codec_.decode(context, arrays_.pixels_of(s),
                    pixels);  // so that damage is told now, not in the middle of training
      count(s);
    }
  }

  const token_memory_format& format() const { return arrays_.format; }
  const any_codec& codec() const { return codec_; }
  const token_arrays& arrays() const { return arrays_; }
  index samples() const { return arrays_.samples(); }
  index tokens() const { return arrays_.tokens(); }
  bool empty() const { return samples() == 0; }

  /// Free texts that travel in the file (model hash, recipe, seed); see `is_reserved_metadata` for names not to use.
  std::map<std::string, std::string>& metadata() { return arrays_.metadata; }
  const std::map<std::string, std::string>& metadata() const { return arrays_.metadata; }

  /// Sample s with its pixels unpacked; its views are valid until the memory changes.
  recalled_sample sample(index s) const {
    check_sample(s);
    const auto i = static_cast<std::size_t>(s);
    const auto begin = static_cast<std::size_t>(arrays_.offsets[i]), n = static_cast<std::size_t>(arrays_.tokens_of(s));
    recalled_sample found{.patches = std::vector<std::uint8_t>(n * static_cast<std::size_t>(format().grid.patch_dim())),
                          .positions = arrays_.positions_of(s),
                          .relevance = arrays_.relevance.empty() ? std::span<const float>()
                                                                 : std::span(arrays_.relevance).subspan(begin, n),
                          .target = arrays_.targets[i],
                          .weight = arrays_.weights[i],
                          .task = arrays_.tasks[i],
                          .prompt = arrays_.text_of(2 * i),
                          .answer = arrays_.text_of(2 * i + 1),
                          .token_weights = token_weights(s)};
    unpack(s, found.patches);
    return found;
  }
  /// The pixels `[n, patch_dim]` of sample s, into memory that is reused.
  void unpack(index s, std::span<std::uint8_t> pixels) const {
    codec_.decode({format().grid, arrays_.positions_of(s)}, arrays_.pixels_of(s), pixels);
  }

  /// How sharp each of its tokens is `[n]`; empty where the codec knows no qualities.
  std::vector<std::uint8_t> qualities(index s) const {
    check_sample(s);
    return codec_.qualities({format().grid, arrays_.positions_of(s)}, arrays_.pixels_of(s));
  }

  /// For how many tokens each of sample s stands `[n]`; empty where the memory keeps no weights.
  std::vector<float> token_weights(index s) const {
    const token_weighting how = format().weighting();
    if (how == token_weighting::none) return {};
    const std::span<const std::byte> bytes = column(weight_column(how), s);
    return detail::read_weights(how, format().grid.tokens(), arrays_.tokens_of(s),
                                {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  }

  /// Adds one sample with at least one token, no position twice; tokens are put into the order of their positions.
  /// Either it is added whole, or an exception leaves the memory as it was.
  void append(const stored_sample& sample) { (void)append_within(sample, std::numeric_limits<index>::max()); }
  /// The same if the file is then not larger than `bytes`; false where it would be.
  bool append_within(const stored_sample& sample, index bytes);
  /// Adds all samples of a memory of the same format and codec as they are packed; metadata stay as they are.
  void append(const token_memory& other);

  /// Keeps exactly these samples, in this order.
  void keep(std::span<const index> chosen) {
    std::vector<bool> seen(static_cast<std::size_t>(samples()));
    for (const index s : chosen) {
      check_sample(s);
      require(!seen[static_cast<std::size_t>(s)], "token memory: sample ", s, " is to be kept twice");
      seen[static_cast<std::size_t>(s)] = true;
    }
    gather(chosen);
  }

  /// Removes these samples; the others keep their order.
  void evict(std::span<const index> unwanted) {
    std::vector<bool> gone(static_cast<std::size_t>(samples()));
    for (const index s : unwanted) {
      check_sample(s);
      gone[static_cast<std::size_t>(s)] = true;
    }
    std::vector<index> rest;
    for (index s = 0; s < samples(); ++s) {
      if (!gone[static_cast<std::size_t>(s)]) rest.push_back(s);
    }
    gather(rest);
  }

  /// Cuts sample s down to its `tokens_per_sample[s]` most relevant tokens (ties: the earlier position stays); a sample
  /// that has fewer stays whole. With a codec that loses something, cut samples are packed a second time.
  void shrink(std::span<const index> tokens_per_sample);
  void shrink(index tokens_per_sample) {
    shrink(std::vector<index>(static_cast<std::size_t>(samples()), tokens_per_sample));
  }

  /// Adds a column, zero for the samples that are there. `Error`: there is one of that name.
  void add_column(const memory_column& column) {
    auto format = arrays_.format;
    format.columns.push_back(column);
    format.check();
    arrays_.columns.emplace_back(static_cast<std::size_t>((column.per_token ? tokens() : samples()) * column.bytes()));
    arrays_.format = std::move(format);
  }
  bool has_column(std::string_view name) const {
    return std::any_of(format().columns.begin(), format().columns.end(), [&](auto& c) { return c.name == name; });
  }
  /// The bytes of column `name` for sample s: one row, or a row for each of its tokens. `Error`: there is no such
  /// column.
  std::span<std::byte> column(std::string_view name, index s) {
    const auto [c, begin, bytes] = column_place(name, s);
    return std::span(arrays_.columns[c]).subspan(begin, bytes);
  }
  std::span<const std::byte> column(std::string_view name, index s) const {
    const auto [c, begin, bytes] = column_place(name, s);
    return std::span(arrays_.columns[c]).subspan(begin, bytes);
  }

  /// Names, types and shapes of the arrays of its file.
  std::vector<array_view> layout() const { return detail::memory_layout(format(), codec_.raw(), counts_); }
  /// Size of the file that `save` would write, to the byte.
  index bytes_on_disk() const { return memory_file_size(arrays_, codec_, counts_); }
  /// The same if the sample were appended, too.
  index bytes_with(const stored_sample& sample) const {
    memory_counts more = counts_;
    more.add(sample, packed(sample).size());
    return memory_file_size(arrays_, codec_, more);
  }

  /// Writes the memory, all or nothing.
  void save(const std::filesystem::path& path) const { save_token_arrays(path, arrays_, codec_, counts_); }

 private:
  static const char* weight_column(token_weighting how) {
    return how == token_weighting::drawn ? "weights.drawn" : "weights.each";
  }
  void check_sample(index s) const {
    require(s >= 0 && s < samples(), "token memory: no sample ", s, ", there are ", samples());
  }
  void check_new(const stored_sample& sample) const;
  void count(index s) {
    const auto i = static_cast<std::size_t>(s);
    counts_.add({.patches = {},
                 .positions = arrays_.positions_of(s),
                 .target = arrays_.targets[i],
                 .task = arrays_.tasks[i],
                 .prompt = arrays_.text_of(2 * i),
                 .answer = arrays_.text_of(2 * i + 1)},
                arrays_.pixels_of(s).size());
  }
  /// The packed pixels of a sample whose positions rise.
  std::vector<std::uint8_t> packed(const stored_sample& sample) const {
    return codec_.encode({format().grid, sample.positions}, sample.patches, sample.qualities);
  }
  /// Number of a column, and where the bytes of sample s lie in it.
  std::array<std::size_t, 3> column_place(std::string_view name, index s) const {
    check_sample(s);
    for (std::size_t c = 0; c < format().columns.size(); ++c) {
      const auto& found = format().columns[c];
      if (found.name != name) continue;
      const auto row = static_cast<std::size_t>(found.bytes()), i = static_cast<std::size_t>(s);
      const std::size_t begin = found.per_token ? static_cast<std::size_t>(arrays_.offsets[i]) : i;
      const std::size_t rows = found.per_token ? static_cast<std::size_t>(arrays_.tokens_of(s)) : 1;
      return {c, begin * row, rows * row};
    }
    fail("token memory: there is no column '", name, "'");
  }
  /// Appends sample s of `from`, or its `tokens` (numbers within the sample), as it is packed there or anew.
  void take(const token_memory& from, index s, std::span<const std::size_t> tokens);
  /// Makes this the memory of `samples` in that order.
  void gather(std::span<const index> samples);
  void add(const stored_sample& sample, std::span<const std::uint8_t> pixels);

  token_arrays arrays_;
  any_codec codec_;
  memory_counts counts_;
};

namespace detail {

/// Reads a memory; `pick(text, path)` gives the codec that the file names.
template <class Pick>
token_memory load_memory(const std::filesystem::path& path, const Pick& pick) {
  tensor_file file = load_safetensors(path);
  const auto problems = memory_file_problems(file);
  if (!problems.empty()) fail(problems.front());
  const any_codec codec = pick(memory_text(file, "codec"), file.path);
  require(codec.raw() != file.contains("sizes"), file.path, ": array 'sizes' is ", codec.raw() ? "there" : "missing",
          " although the codec is '", codec.text(), "'");
  return token_memory(take_token_arrays(file), codec);
}

}  // namespace detail

/// Reads a memory that was saved; hand in values of the codecs besides the library's that it may use (their options are
/// read from the file). `Error` names the array that is missing, altered or does not fit the others.
template <patch_codec... Codecs>
token_memory load_token_memory(const std::filesystem::path& path, const Codecs&... codecs) {
  return detail::load_memory(
      path, [&](const std::string& text, const std::string& where) { return codec_named(text, where, codecs...); });
}
/// The same, packed by exactly this codec.
inline token_memory load_token_memory(const std::filesystem::path& path, const any_codec& codec) {
  return detail::load_memory(path, [&](const std::string& text, const std::string& where) {
    require(text == codec.text(), where, ": its pixels are packed by the codec '", text, "', expected '", codec.text(),
            "'");
    return codec;
  });
}

inline void token_memory::check_new(const stored_sample& sample) const {
  const auto& f = format();
  const auto n = sample.positions.size(), dim = static_cast<std::size_t>(f.grid.patch_dim());
  require(n > 0, "token memory: a sample without tokens");
  require(sample.patches.size() == n * dim, "token memory: ", sample.patches.size(), " pixel values for ", n,
          " tokens of ", dim);
  require(f.relevance == relevance_storage::none || sample.relevance.size() == n,
          "token memory: ", sample.relevance.size(), " relevances for ", n, " tokens");
  require(std::isfinite(static_cast<float>(half(static_cast<double>(sample.weight)))), "token memory: a weight of ",
          sample.weight, " is not finite in 16 bits");
  require(f.texts || (sample.prompt.empty() && sample.answer.empty()),
          "token memory: a sample with texts for a memory without");
  require(sample.token_weights.empty() || sample.token_weights.size() == n,
          "token memory: ", sample.token_weights.size(), " token weights for ", n, " tokens");
  require(sample.qualities.size() <= 1 || sample.qualities.size() == n, "token memory: ", sample.qualities.size(),
          " qualities for ", n, " tokens");
  const auto one = [](float w) { return w == 1; };
  require(f.weighting() != token_weighting::none ||
              std::all_of(sample.token_weights.begin(), sample.token_weights.end(), one),
          "token memory: tokens with weights for a memory without; make it by empty_memory(strategy, format), or by "
          "token_memory_format::add_weighting");
}

inline bool token_memory::append_within(const stored_sample& sample, index bytes) {
  check_new(sample);
  const auto n = sample.positions.size(), dim = static_cast<std::size_t>(format().grid.patch_dim());
  const bool relevant = format().relevance != relevance_storage::none;
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return sample.positions[a] < sample.positions[b]; });
  std::vector<std::uint8_t> patches;  // copies: the sample may lie in this very memory
  std::vector<std::uint16_t> positions;
  std::vector<std::uint8_t> qualities;
  std::vector<float> relevance, weights;
  const std::string prompt(sample.prompt), answer(sample.answer);
  patches.reserve(n * dim);
  for (const std::size_t t : order) {
    const auto position = sample.positions[t];
    require(position < format().grid.tokens(), "token memory: position ", position, " outside the grid of ",
            format().grid.tokens());
    require(positions.empty() || positions.back() != position, "token memory: position ", position, " twice");
    positions.push_back(position);
    const auto patch = sample.patches.subspan(t * dim, dim);
    patches.insert(patches.end(), patch.begin(), patch.end());
    if (!sample.token_weights.empty()) weights.push_back(sample.token_weights[t]);
    if (!sample.qualities.empty()) qualities.push_back(sample.qualities[sample.qualities.size() == 1 ? 0 : t]);
    if (!relevant) continue;
    relevance.push_back(sample.relevance[t]);
    require(std::isfinite(relevance.back()), "token memory: the relevance at position ", position, " is not finite");
  }
  const stored_sample sorted{patches,     positions, relevance, sample.target, sample.weight,
                             sample.task, prompt,    answer,    weights,       qualities};
  const token_weighting how = format().weighting();
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(format().weight_bytes(static_cast<index>(n))));
  if (how != token_weighting::none)
    detail::write_weights(how, format().grid.tokens(), static_cast<index>(n), weights, codes);
  const auto pixels = packed(sorted);
  if (bytes != std::numeric_limits<index>::max()) {
    memory_counts more = counts_;
    more.add(sorted, pixels.size());
    if (memory_file_size(arrays_, codec_, more) > bytes) return false;
  }
  add(sorted, pixels);
  if (!codes.empty()) std::memcpy(column(weight_column(how), samples() - 1).data(), codes.data(), codes.size());
  return true;
}

inline void token_memory::add(const stored_sample& sample, std::span<const std::uint8_t> pixels) {
  token_arrays& a = arrays_;
  // Room first, so that running out of memory changes nothing.
  const auto room = [](auto& values, std::size_t more) {
    if (values.capacity() - values.size() < more) values.reserve(std::max(2 * values.size(), values.size() + more));
  };
  const std::size_t n = sample.positions.size(), text = sample.prompt.size() + sample.answer.size();
  const bool f16 = format().relevance == relevance_storage::f16;
  room(a.pixels, pixels.size()), room(a.pixel_offsets, 1), room(a.positions, n), room(a.offsets, 1);
  room(a.relevance, sample.relevance.size()), room(a.relevance_scale, f16 ? 1 : 0);
  room(a.targets, 1), room(a.weights, 1), room(a.tasks, 1), room(a.text, text), room(a.text_offsets, 2);
  for (std::size_t c = 0; c < a.columns.size(); ++c)
    room(a.columns[c], static_cast<std::size_t>(format().columns[c].bytes()) * (format().columns[c].per_token ? n : 1));

  const auto bytes = std::as_bytes(pixels);
  a.pixels.insert(a.pixels.end(), bytes.begin(), bytes.end());
  a.pixel_offsets.push_back(a.pixels.size());
  a.positions.insert(a.positions.end(), sample.positions.begin(), sample.positions.end());
  a.offsets.push_back(a.positions.size());
  a.targets.push_back(sample.target);
  a.weights.push_back(static_cast<float>(half(static_cast<double>(sample.weight))));
  a.tasks.push_back(sample.task);
  float largest = 0;
  for (const float r : sample.relevance) largest = std::max(largest, std::abs(r));
  if (f16) a.relevance_scale.push_back(largest);
  for (const float r : sample.relevance) {
    const double share = largest > 0 ? static_cast<double>(r) / static_cast<double>(largest) : 0.0;
    a.relevance.push_back(f16 ? static_cast<float>(static_cast<double>(half(share)) * static_cast<double>(largest))
                              : r);
  }
  if (format().texts) {
    for (const std::string_view part : {sample.prompt, sample.answer}) {
      a.text.insert(a.text.end(), part.begin(), part.end());
      a.text_offsets.push_back(a.text.size());
    }
  }
  for (std::size_t c = 0; c < a.columns.size(); ++c) {
    const auto& column = format().columns[c];
    a.columns[c].resize(a.columns[c].size() + static_cast<std::size_t>(column.bytes()) * (column.per_token ? n : 1));
  }
  counts_.add(sample, pixels.size());
}

inline void token_memory::take(const token_memory& from, index s, std::span<const std::size_t> tokens) {
  const recalled_sample old = from.sample(s);
  const auto dim = static_cast<std::size_t>(format().grid.patch_dim());
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;
  for (const std::size_t t : tokens) {
    patches.insert(patches.end(), old.patches.begin() + static_cast<std::ptrdiff_t>(t * dim),
                   old.patches.begin() + static_cast<std::ptrdiff_t>((t + 1) * dim));
    positions.push_back(old.positions[t]);
    if (!old.relevance.empty()) relevance.push_back(old.relevance[t]);
  }
  stored_sample next = old;
  next.patches = patches, next.positions = positions, next.relevance = relevance;
  const bool whole = tokens.size() == old.positions.size();
  std::vector<std::uint8_t> sharp = whole ? std::vector<std::uint8_t>() : from.qualities(s);
  if (!sharp.empty()) {
    for (std::size_t i = 0; i < tokens.size(); ++i) sharp[i] = sharp[tokens[i]];  // tokens rise
    sharp.resize(tokens.size());
    next.qualities = sharp;
  }
  const auto anew = whole ? std::vector<std::uint8_t>() : packed(next);
  add(next, whole ? from.arrays_.pixels_of(s) : std::span<const std::uint8_t>(anew));
  for (std::size_t c = 0; c < arrays_.columns.size(); ++c) {
    const auto& column = format().columns[c];
    const auto row = static_cast<std::size_t>(column.bytes());
    const std::span<const std::byte> source = from.column(column.name, s);
    const std::span<std::byte> target = this->column(column.name, samples() - 1);
    if (!column.per_token) {
      std::copy(source.begin(), source.end(), target.begin());
      continue;
    }
    for (std::size_t i = 0; i < tokens.size(); ++i)
      std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(tokens[i] * row), row,
                  target.begin() + static_cast<std::ptrdiff_t>(i * row));
  }
}

inline void token_memory::append(const token_memory& other) {
  require(other.format() == format() && other.codec() == codec(),
          "token memory: cannot append a memory of another format or codec");
  const token_memory from = other;  // it may be this one
  std::vector<std::size_t> all;
  for (index s = 0; s < from.samples(); ++s) {
    all.resize(static_cast<std::size_t>(from.arrays_.tokens_of(s)));
    std::iota(all.begin(), all.end(), std::size_t{0});
    take(from, s, all);
  }
}

inline void token_memory::gather(std::span<const index> samples) {
  token_memory next(format(), codec_);
  next.metadata() = metadata();
  std::vector<std::size_t> all;
  for (const index s : samples) {
    all.resize(static_cast<std::size_t>(arrays_.tokens_of(s)));
    std::iota(all.begin(), all.end(), std::size_t{0});
    next.take(*this, s, all);
  }
  *this = std::move(next);
}

inline void token_memory::shrink(std::span<const index> tokens_per_sample) {
  require(static_cast<index>(tokens_per_sample.size()) == samples(), "token memory: ", tokens_per_sample.size(),
          " token budgets for ", samples(), " samples");
  bool cuts = false;
  for (index s = 0; s < samples(); ++s) {
    const index limit = tokens_per_sample[static_cast<std::size_t>(s)];
    require(limit >= 1, "token memory: cannot shrink sample ", s, " to ", limit, " tokens, expected at least 1");
    cuts = cuts || limit < arrays_.tokens_of(s);
  }
  if (!cuts) return;
  require(format().relevance != relevance_storage::none, "token memory: cannot shrink, it keeps no relevance");
  require(format().weighting() == token_weighting::none,
          "token memory: cannot shrink, its tokens have weights, which hold for all of them together");
  token_memory next(format(), codec_);
  next.metadata() = metadata();
  std::vector<std::size_t> kept;
  for (index s = 0; s < samples(); ++s) {
    const auto begin = static_cast<std::size_t>(arrays_.offsets[static_cast<std::size_t>(s)]);
    kept.resize(static_cast<std::size_t>(arrays_.tokens_of(s)));
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    if (tokens_per_sample[static_cast<std::size_t>(s)] < static_cast<index>(kept.size())) {
      std::stable_sort(kept.begin(), kept.end(), [&](std::size_t a, std::size_t b) {
        return arrays_.relevance[begin + a] > arrays_.relevance[begin + b];
      });
      kept.resize(static_cast<std::size_t>(tokens_per_sample[static_cast<std::size_t>(s)]));
      std::sort(kept.begin(), kept.end());
    }
    next.take(*this, s, kept);
  }
  *this = std::move(next);
}

}  // namespace core_tokensets
