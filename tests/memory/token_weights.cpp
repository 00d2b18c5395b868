// The weights of tokens in a memory: what they cost, what comes back, and how they are replayed.

#include "core_tokensets/memory/token_weights.hpp"

#include "core_tokensets/memory/describe.hpp"
#include "core_tokensets/memory/replay.hpp"
#include "core_tokensets/memory/token_rules.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace memory_token_weights_tests {

namespace {

namespace cts = core_tokensets;
using cts::token_weighting;
using support::has;
using support::message_of;

/// A grid of 8 x 8 patches.
cts::token_memory_format format_of(token_weighting how, cts::index most = 16) {
  cts::token_memory_format format{.grid = {64, 64, 3, 8}};
  format.add_weighting(how, most);
  return format;
}

struct owned {
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> weights, relevance;
  cts::stored_sample view() const {
    return {.patches = patches, .positions = positions, .relevance = relevance, .token_weights = weights};
  }
};

owned sample_of(const cts::kept_tokens& kept) {
  owned s{{}, kept.positions, kept.weights, {}};
  for (const auto p : s.positions) {
    s.patches.insert(s.patches.end(), 192, static_cast<std::uint8_t>(p));
    s.relevance.push_back(float(p));
  }
  return s;
}

std::vector<double> some_relevance(std::uint64_t seed) {
  cts::random_stream random(seed);
  std::vector<double> r;
  for (int p = 0; p < 64; ++p) r.push_back(random.uniform() * random.uniform());
  return r;
}

/// 40 samples of 16 tokens by a rule.
template <class Rule>
cts::token_memory filled(const Rule& rule, std::vector<std::vector<float>>* weights = nullptr) {
  cts::token_memory memory(format_of(weighting_of(rule)));
  for (std::uint64_t s = 0; s < 40; ++s) {
    const auto r = some_relevance(s);
    const owned sample = sample_of(keep(rule, {r, 16, s}));
    memory.append(sample.view());
    if (weights) weights->push_back(sample.weights);
  }
  return memory;
}

struct scratch_file {
  support::scratch_folder folder;
  std::filesystem::path path = folder.path / "memory.safetensors";
};

}  // namespace

TEST_CASE("tokens kept surely and tokens drawn come back to the bit, in 2 bytes for 16 of them", "[memory][weights]") {
  for (const double sure : {0.0, 0.5, 0.8, 1.0}) {
    std::vector<std::vector<float>> want;
    const cts::surely_tokens rule{.sure = sure};
    const auto memory = filled(rule, &want);
    auto unweighted = rule;
    unweighted.weighted = false;
    const auto plain = filled(unweighted);
    CHECK(memory.arrays().columns.at(0).size() == 80);
    CHECK(memory.bytes_on_disk() - plain.bytes_on_disk() <= 2 * 40 + 256);  // and a line of the header
    const scratch_file file;
    memory.save(file.path);
    CHECK(static_cast<cts::index>(std::filesystem::file_size(file.path)) == memory.bytes_on_disk());
    const auto again = cts::load_token_memory(file.path);
    CHECK(cts::verify_token_memory(file.path).empty());
    for (cts::index s = 0; s < 40; ++s) {
      CHECK(memory.token_weights(s) == want[static_cast<std::size_t>(s)]);
      CHECK(again.sample(s).token_weights == want[static_cast<std::size_t>(s)]);
    }
  }
}

TEST_CASE("any weights are kept to within 2.2 % in a byte a token", "[memory][weights]") {
  std::vector<std::vector<float>> want;
  const auto memory = filled(cts::proportional_tokens{}, &want);
  CHECK(memory.arrays().columns.at(0).size() == 40 * 16);
  double worst = 0;
  for (cts::index s = 0; s < 40; ++s) {
    const auto got = memory.token_weights(s);
    for (std::size_t t = 0; t < 16; ++t) {
      const double w = double(want[static_cast<std::size_t>(s)][t]);
      worst = std::max(worst, std::abs(double(got[t]) / w - 1));
    }
  }
  CHECK(worst > 0.01);
  CHECK(worst <= std::exp2(1.0 / 32) - 1 + 1e-6);
  // What came back goes in again unchanged.
  cts::token_memory copy(memory.format());
  for (cts::index s = 0; s < 40; ++s) copy.append(memory.sample(s));
  CHECK(copy.arrays().columns == memory.arrays().columns);
}

TEST_CASE("weights follow their tokens and samples", "[memory][weights]") {
  cts::token_memory memory(format_of(token_weighting::drawn));
  owned s = sample_of({{9, 2, 50, 7}, {31, 1, 31, 1}});  // not in order: 2 sure, (64 - 2) / (4 - 2)
  memory.append(s.view());
  CHECK(memory.token_weights(0) == std::vector<float>{1, 1, 31, 31});  // of 2, 7, 9, 50
  s = sample_of({{3}});
  memory.append(s.view());  // no weights: all 1
  CHECK(memory.token_weights(1) == std::vector<float>{1});
  auto more = memory;
  more.append(memory);
  more.evict(std::vector<cts::index>{0, 1});
  more.keep(std::vector<cts::index>{1, 0});
  CHECK(more.token_weights(1) == memory.token_weights(0));
  CHECK(more.token_weights(0) == memory.token_weights(1));

  const auto batch = make_batch(memory, std::vector<cts::index>{1, 0}, cts::pixel_normalisation{});
  CHECK(batch.token_weights == std::vector<float>{1, 1, 1, 31, 31});
  CHECK_NOTHROW(batch.check());
  const auto mirrored = make_batch(memory, std::vector<cts::index>{0}, cts::pixel_normalisation{}, {.flip = 1});
  CHECK(mirrored.token_weights == std::vector<float>{1, 1, 31, 31});
  CHECK(mirrored.positions == std::vector<std::int32_t>{5, 0, 14, 53});
  const auto zero = make_batch(memory, std::vector<cts::index>{0}, cts::pixel_normalisation{},
                               {.missing = cts::missing_tokens::zero});
  CHECK(zero.token_weights.size() == 64);
  CHECK(zero.token_weights[9] == 31);
  CHECK(zero.token_weights[2] == 1);
  CHECK(zero.token_weights[10] == 1);
}

TEST_CASE("a memory without weights is what it was", "[memory][weights]") {
  const auto memory = filled(cts::top_tokens{});
  CHECK(memory.format().weighting() == token_weighting::none);
  CHECK(memory.token_weights(3).empty());
  CHECK(memory.sample(3).token_weights.empty());
  CHECK(make_batch(memory, std::vector<cts::index>{0}, cts::pixel_normalisation{}).token_weights.empty());
  for (const auto& array : memory.layout()) CHECK_FALSE(has(array.name, "weights."));
  owned s = sample_of({{1, 2}, {1, 1}});
  cts::token_memory ones = memory, none = memory;
  ones.append(s.view());
  s.weights.clear();
  none.append(s.view());
  const scratch_file a, b;
  ones.save(a.path);
  none.save(b.path);
  CHECK(cts::read_file(a.path) == cts::read_file(b.path));
}

TEST_CASE("weights that a memory cannot keep are an error and change nothing", "[memory][weights]") {
  const auto refuses = [](token_weighting how, const cts::kept_tokens& kept, const char* why, cts::index most = 16) {
    cts::token_memory memory(format_of(how, most));
    const owned good = sample_of({{5}}), bad = sample_of(kept);
    memory.append(good.view());
    const auto before = memory.arrays().columns;
    CHECK(has(message_of([&] { memory.append(bad.view()); }), why));
    CHECK(memory.samples() == 1);
    CHECK(memory.arrays().columns == before);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refuses(token_weighting::none, {{1, 2}, {1, 2}}, "for a memory without");
  refuses(token_weighting::drawn, {{1, 2}, {1, 2}}, "expected 1 or");  // 63
  refuses(token_weighting::drawn, {{1, 2}, {1, nan}}, "expected 1 or");
  refuses(token_weighting::drawn, {{1, 2}, {1}}, "1 token weights for 2 tokens");
  refuses(token_weighting::drawn, {{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 1, 1, 1, 12, 12, 12, 12, 12}},
          "room for the weights of 8", 8);
  refuses(token_weighting::each, {{1, 2}, {1, 0.5f}}, "expected 1 to 62757");
  for (const float w : {0.0f, -1.0f, nan, HUGE_VALF, 1e6f}) refuses(token_weighting::each, {{1}, {w}}, "token weight");
  auto memory = filled(cts::surely_tokens{});
  CHECK(has(message_of([&] { memory.shrink(3); }), "keeps no relevance"));
  auto format = format_of(token_weighting::drawn);
  format.relevance = cts::relevance_storage::f32;
  cts::token_memory relevant(format);
  relevant.append(sample_of({{9, 2, 50, 7}, {31, 1, 31, 1}}).view());
  CHECK(has(message_of([&] { relevant.shrink(3); }), "its tokens have weights"));
  CHECK_NOTHROW(relevant.shrink(4));

  cts::token_memory_format wrong{.grid = {64, 64, 3, 8}};
  wrong.columns = {{"weights.drawn", cts::dtype::f32, 1, false}};
  CHECK_THROWS_AS(wrong.check(), cts::Error);
  wrong.columns = {{"weights.each", cts::dtype::u8, 1, false}};
  CHECK_THROWS_AS(wrong.check(), cts::Error);
  wrong.columns = {{"weights.other", cts::dtype::u8, 1, false}};
  CHECK_THROWS_AS(wrong.check(), cts::Error);
  {  // more tokens than bits are kept as long as none has a weight
    cts::token_memory narrow(format_of(token_weighting::drawn, 8));
    narrow.append(sample_of({{1, 2, 3, 4, 5, 6, 7, 8, 9}}).view());
    narrow.append(sample_of({{1, 2}, {1, 63}}).view());
    CHECK(narrow.token_weights(0) == std::vector<float>(9, 1.0f));
    CHECK(narrow.token_weights(1) == std::vector<float>{1, 63});
    CHECK_NOTHROW(cts::token_memory(narrow.arrays()));
  }
  auto arrays = filled(cts::surely_tokens{}).arrays();  // a file with more tokens than bits
  arrays.format.columns[0].width = 1;
  arrays.columns[0].resize(40);
  CHECK(has(message_of([&] { cts::token_memory broken(arrays); }), "there is room for 8"));
}

}  // namespace memory_token_weights_tests
