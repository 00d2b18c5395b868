#include "core_tokensets/memory/replay.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core_tokensets/data/patches.hpp"
#include "support/catch.hpp"

namespace memory_replay_tests {

namespace cts = core_tokensets;
using cts::missing_tokens;

namespace {

/// Grid 2 x 2 of patches 2 x 1 channels 2: eight numbers a patch; two samples, one of them whole.
cts::token_memory example() {
  cts::token_memory memory(cts::patch_grid{4, 4, 2, 2});
  std::vector<std::uint8_t> pixels(32);
  std::iota(pixels.begin(), pixels.end(), std::uint8_t{100});
  memory.append({.patches = std::span(pixels).first(16),
                 .positions = std::vector<std::uint16_t>{1, 3},
                 .relevance = std::vector<float>{1, 2},
                 .target = 5,
                 .weight = 0.5f});
  memory.append({.patches = pixels,
                 .positions = std::vector<std::uint16_t>{0, 1, 2, 3},
                 .relevance = std::vector<float>{1, 2, 3, 4},
                 .target = 6,
                 .weight = 3});
  return memory;
}

const cts::pixel_normalisation seen{{0.5f, 0.25f}, {0.5f, 2}};

/// Pixel value and channel to what the model sees.
float normalised(int x, int channel) {
  return channel == 0 ? (static_cast<float>(x) / 255.0f - 0.5f) / 0.5f
                      : (static_cast<float>(x) / 255.0f - 0.25f) / 2.0f;
}

}  // namespace

TEST_CASE("a cycle deals every sample once, and the next one in another order") {
  cts::replay_sampler sampler(100, 42);
  std::vector<cts::index> first, second;
  for (int i = 0; i < 10; ++i) {
    for (const auto s : sampler.draw(10)) first.push_back(s);
  }
  second = sampler.draw(100);
  CHECK(first != second);
  CHECK(std::set(first.begin(), first.end()).size() == 100);
  CHECK(std::set(second.begin(), second.end()).size() == 100);
  CHECK(*std::min_element(first.begin(), first.end()) == 0);
  CHECK(*std::max_element(first.begin(), first.end()) == 99);
  CHECK(cts::replay_sampler(100, 42).draw(100) == first);
  CHECK(cts::replay_sampler(100, 43).draw(100) != first);
  CHECK(cts::replay_sampler(100, 42, 1).draw(100) != first);
}

TEST_CASE("a draw may be larger than the memory and counts stay even") {
  cts::replay_sampler sampler(3, 1);
  std::vector<int> counts(3);
  for (const auto s : sampler.draw(3000)) ++counts[static_cast<std::size_t>(s)];
  CHECK(counts == std::vector<int>{1000, 1000, 1000});
  CHECK(sampler.draw(0).empty());
}

TEST_CASE("a sampler goes on to the same numbers from any saved position") {
  for (const cts::index before : {0, 1, 6, 7, 8, 14, 20}) {
    cts::replay_sampler sampler(7, 9, 2);
    sampler.draw(before);
    const auto saved = sampler.position();
    const auto expected = sampler.draw(30);
    cts::replay_sampler resumed(saved);
    CHECK(resumed.draw(30) == expected);
    CHECK(resumed.position() == sampler.position());
  }
  CHECK_THROWS_AS(cts::replay_sampler(0, 1), cts::Error);
  CHECK_THROWS_AS(cts::replay_sampler(cts::replay_sampler::state{.samples = 3, .cursor = 4}), cts::Error);
}

TEST_CASE("drop: the batch holds the kept tokens, normalised by channel") {
  const auto memory = example();
  const auto batch = cts::make_batch(memory, std::vector<cts::index>{1, 0, 0}, seen, {.missing = missing_tokens::drop});
  CHECK(batch.patch_dim == 8);
  CHECK(batch.offsets == std::vector<cts::index>{0, 4, 6, 8});
  CHECK(batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 1, 3, 1, 3});
  CHECK(batch.targets == std::vector<std::int32_t>{6, 5, 5});
  CHECK(batch.weights == std::vector<float>{3, 0.5f, 0.5f});
  CHECK(batch.scale.empty());
  REQUIRE(batch.patches.size() == 64);
  for (int i = 0; i < 64; ++i) {
    const int x = 100 + (i < 32 ? i : (i - 32) % 16);
    CHECK(batch.patches[static_cast<std::size_t>(i)] == normalised(x, i % 8 / 4));
  }
}

TEST_CASE("zero and rescaled: the whole grid, missing tokens have no numbers and no scale") {
  const auto memory = example();
  const std::vector<cts::index> both{0, 1};
  for (const auto missing : {missing_tokens::zero, missing_tokens::rescaled}) {
    const auto batch = cts::make_batch(memory, both, seen, {.missing = missing});
    CHECK(batch.offsets == std::vector<cts::index>{0, 4, 8});
    CHECK(batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2, 3});
    CHECK(batch.scale == decltype(batch.scale){0, 1, 0, 1, 1, 1, 1, 1});
    const auto kept = cts::make_batch(memory, both, seen, {.missing = missing_tokens::drop});
    std::vector<float> rows;
    for (std::size_t t = 0; t < 8; ++t) {
      const auto row = batch.patches.begin() + static_cast<std::ptrdiff_t>(t) * 8;
      if (batch.scale[t] == 0) {
        CHECK(std::all_of(row, row + 8, [](float x) { return x == 0; }));
      } else {
        rows.insert(rows.end(), row, row + 8);
      }
    }
    CHECK(rows == kept.patches);
  }
}

TEST_CASE("a used batch is overwritten without a trace and without new storage") {
  const auto memory = example();
  const std::vector<cts::index> large{1, 1, 0}, small{0};
  cts::token_batch batch;
  cts::make_batch(memory, large, seen, {.missing = missing_tokens::zero}, batch);
  const auto* storage = batch.patches.data();
  std::fill(batch.patches.begin(), batch.patches.end(), 9.0f);
  std::fill(batch.scale.begin(), batch.scale.end(), 9);
  for (const auto missing : {missing_tokens::drop, missing_tokens::zero}) {
    cts::make_batch(memory, small, seen, {.missing = missing}, batch);
    const auto fresh = cts::make_batch(memory, small, seen, {.missing = missing});
    CHECK(batch.patches == fresh.patches);
    CHECK(batch.positions == fresh.positions);
    CHECK(batch.offsets == fresh.offsets);
    CHECK(batch.scale == fresh.scale);
    CHECK(batch.targets == fresh.targets);
    CHECK(batch.weights == fresh.weights);
    CHECK(batch.patches.data() == storage);
  }
  CHECK_THROWS_AS(cts::make_batch(memory, std::vector<cts::index>{2}, seen, {.missing = missing_tokens::drop}),
                  cts::Error);
  CHECK(cts::make_batch(memory, std::span<const cts::index>(), seen, {.missing = missing_tokens::drop}).samples() == 0);
}

TEST_CASE("a large batch on threads equals its samples one by one") {
  const auto memory = example();
  cts::replay_sampler sampler(2, 3);
  const auto samples = sampler.draw(8000);
  const auto batch = cts::make_batch(memory, samples, seen, {.missing = missing_tokens::drop});
  REQUIRE(batch.patches.size() > 100'000);
  std::vector<float> expected;
  for (const auto s : samples) {
    const auto one = cts::make_batch(memory, std::span(&s, 1), seen, {.missing = missing_tokens::drop});
    expected.insert(expected.end(), one.patches.begin(), one.patches.end());
  }
  CHECK(batch.patches == expected);
}

TEST_CASE("a mirrored sample is the mirrored picture, cut as the sample is") {
  // A picture of three columns of patches: mirroring it and cutting the mirrored tokens is the same as replaying the
  // stored tokens mirrored.
  const cts::patch_grid grid{4, 6, 2, 2};
  cts::image picture(4, 6, 2);
  std::iota(picture.pixels.begin(), picture.pixels.end(), std::uint8_t{1});
  cts::image mirrored(4, 6, 2);
  for (cts::index y = 0; y < 4; ++y) {
    for (cts::index x = 0; x < 6; ++x) std::copy_n(picture.at(y, 5 - x), 2, mirrored.at(y, x));
  }
  const auto cut = [&](const cts::image& from, std::vector<std::uint16_t> places) {
    const auto all = cts::patchify(from, grid.patch);
    cts::token_memory memory(grid);
    std::vector<std::uint8_t> pixels;
    for (const auto p : places) pixels.insert(pixels.end(), all.begin() + p * 8, all.begin() + (p + 1) * 8);
    memory.append({.patches = pixels, .positions = places});
    return memory;
  };
  const auto stored = cut(picture, {0, 2, 4}), other = cut(mirrored, {0, 2, 4});  // columns 0, 2; and 1 of row 1
  const std::vector<cts::index> one{0};
  const auto got = cts::make_batch(stored, one, seen, {.missing = missing_tokens::zero, .flip = 1});
  const auto want = cts::make_batch(other, one, seen, {.missing = missing_tokens::zero});
  CHECK(got.patches == want.patches);
  CHECK(got.scale == want.scale);
  const auto kept = cts::make_batch(stored, one, seen, {.flip = 1});
  CHECK(kept.positions == std::vector<std::int32_t>{2, 0, 4});
  CHECK(cts::make_batch(stored, one, seen, {.flip = 0}).positions == std::vector<std::int32_t>{0, 2, 4});
  CHECK_THROWS_AS(cts::make_batch(stored, one, seen, {.flip = NAN}), cts::Error);

  // Which samples are mirrored follows from the seed and the step, not from threads.
  const auto memory = example();
  std::vector<cts::index> many(400);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<cts::index>(i % 2);
  const cts::replay_options half{.flip = 0.5, .seed = 3, .step = 7};
  CHECK(cts::make_batch(memory, many, seen, half).positions == cts::make_batch(memory, many, seen, half).positions);
  CHECK(cts::make_batch(memory, many, seen, half).positions !=
        cts::make_batch(memory, many, seen, {.flip = 0.5, .seed = 3, .step = 8}).positions);
}

}  // namespace memory_replay_tests
