#include <algorithm>
#include <numeric>
#include <set>

#include "core_tokensets/data/augment.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/data/token_drop.hpp"
#include "data/support.hpp"
#include "support/catch.hpp"

namespace data_tokens_tests {

namespace cts = core_tokensets;
using namespace data_test;

namespace {

cts::dataset some_pictures(cts::index n, cts::index height, cts::index width, cts::index channels) {
  cts::dataset d;
  d.height = height, d.width = width, d.channels = channels;
  d.class_names = {"a", "b"};
  for (cts::index i = 0; i < n; ++i) {
    const auto picture = waves(height, width, channels, double(i));
    d.pixels.insert(d.pixels.end(), picture.pixels.begin(), picture.pixels.end());
    d.labels.push_back(static_cast<std::int32_t>(i % 2));
  }
  return d;
}

std::vector<cts::index> first(cts::index n) {
  std::vector<cts::index> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), cts::index{0});
  return all;
}

}  // namespace

TEST_CASE("patches: order channel, row, column; the grid row by row", "[data]") {
  cts::image picture(4, 6, 2);
  std::iota(picture.pixels.begin(), picture.pixels.end(), std::uint8_t{0});
  const auto patches = cts::patchify(picture, 2);
  // Patch 4 = grid row 1, column 1: pixels (2, 2) (2, 3) (3, 2) (3, 3), channel 0 then 1.
  const std::vector<std::uint8_t> expected{28, 30, 40, 42, 29, 31, 41, 43};
  CHECK(std::vector<std::uint8_t>(patches.begin() + 4 * 8, patches.begin() + 5 * 8) == expected);
  const cts::patch_grid grid{4, 6, 2, 2};
  CHECK(grid.tokens() == 6);
  CHECK(cts::unpatchify(patches, grid) == picture);

  const std::vector<std::int32_t> only{4};
  const auto partial = cts::unpatchify(expected, only, grid, 9);
  CHECK(partial.at(3, 3)[1] == 43);
  CHECK(partial.at(0, 0)[0] == 9);
  const std::vector<std::int32_t> outside{6};
  CHECK_THROWS_AS(cts::unpatchify(expected, outside, grid), cts::Error);
  CHECK_THROWS_AS(cts::patchify(picture, 4), cts::Error);

  const auto normal = cts::patchify(picture, 2, cts::pixel_normalisation{{0.25f, 0.5f}, {0.5f, 2.0f}});
  CHECK(normal[4 * 8] == Approx((28 / 255.0 - 0.25) / 0.5));
  CHECK(normal[4 * 8 + 4] == Approx((29 / 255.0 - 0.5) / 2.0));
}

TEST_CASE("patches of numbers [B, C, H, W] and back", "[data]") {
  const cts::patch_grid grid{4, 6, 3, 2};
  std::vector<float> images(2 * 3 * 4 * 6);
  std::iota(images.begin(), images.end(), 0.0f);
  const auto batch = cts::patchify(images, grid);
  CHECK(batch.samples() == 2);
  CHECK(batch.tokens() == 12);
  // Sample 1, patch 5 (row 1, column 2), channel 2, inner row 1, column 0: [1, 2, 3, 4].
  CHECK(batch.patches[static_cast<std::size_t>((6 + 5) * 12 + 2 * 4 + 2)] == float(((1 * 3 + 2) * 4 + 3) * 6 + 4));
  CHECK(cts::unpatchify(batch, grid) == images);
  images.pop_back();
  CHECK_THROWS_AS(cts::patchify(images, grid), cts::Error);
}

TEST_CASE("make_batch: what patchify gives, with labels; memory is reused", "[data]") {
  const auto data = some_pictures(5, 8, 12, 3);
  const std::vector<cts::index> which{4, 1};
  cts::token_batch batch;
  cts::make_batch(data, first(5), {.patch = 4}, batch);
  const float* before = batch.patches.data();
  cts::make_batch(data, which, {.patch = 4}, batch);
  CHECK(batch.patches.data() == before);
  CHECK(batch.samples() == 2);
  CHECK(batch.targets == std::vector<std::int32_t>{0, 1});
  CHECK(batch.positions[7] == 1);
  auto expected = cts::patchify(data.view_of(4), 4, {});
  const auto second = cts::patchify(data.view_of(1), 4, {});
  expected.insert(expected.end(), second.begin(), second.end());
  CHECK(batch.patches == expected);
  CHECK(cts::unpatchify(batch, 1, {8, 12, 3, 4}, {}) == cts::image(data.view_of(1)));
  const std::vector<cts::index> bad{5};
  CHECK_THROWS_AS(cts::make_batch(data, bad, {.patch = 4}), cts::Error);
  CHECK_THROWS_AS(cts::make_batch(data, which, {.patch = 5}), cts::Error);
}

TEST_CASE("augmentation: shifts, mirrors and borders", "[data]") {
  const auto picture = waves(6, 8, 3);
  CHECK(cts::augment(picture, {}) == picture);
  CHECK(cts::augment(picture, {.flip = true}) == cts::flip_horizontally(picture));
  const auto moved = cts::augment(picture, {.dy = 2, .dx = -1});
  CHECK(moved.at(1, 3)[1] == picture.at(3, 2)[1]);
  CHECK(moved.at(5, 0)[0] == picture.at(5, 0)[0]);  // the border again
  const auto black = cts::augment(picture, {.dy = 2, .dx = -1, .border = cts::padding::zero});
  CHECK(black.at(5, 4)[0] == 0);
  CHECK(black.at(2, 0)[0] == 0);
  CHECK(black.at(1, 3)[1] == picture.at(3, 2)[1]);

  std::vector<float> numbers(picture.pixels.size());
  const cts::augmentation_draw draw{.dy = 1, .dx = 2, .flip = true};
  const auto table = cts::pixel_table({}, 3);
  cts::augment_into(picture, draw, table.data(), numbers.data());
  const auto bytes = cts::augment(picture, draw);
  for (std::size_t i = 0; i < numbers.size(); ++i) REQUIRE(cts::to_pixel(numbers[i], 0.5f, 0.5f) == bytes.pixels[i]);
}

TEST_CASE("augmentation: draws depend on seed, epoch and sample only", "[data]") {
  const cts::augmentation options{.shift = 2, .flip = 0.3};
  int flips = 0;
  std::set<std::pair<cts::index, cts::index>> seen;
  for (int i = 0; i < 2000; ++i) {
    const auto draw = cts::draw_augmentation(options, 1, 2, i);
    flips += draw.flip ? 1 : 0;
    seen.insert({draw.dy, draw.dx});
    REQUIRE(std::abs(draw.dy) <= 2);
    REQUIRE(std::abs(draw.dx) <= 2);
  }
  CHECK(seen.size() == 25);
  CHECK(flips == Approx(600).margin(80));
  CHECK_THROWS_AS(cts::draw_augmentation({.flip = 1.5}, 1, 1, 1), cts::Error);

  const auto data = some_pictures(33, 8, 8, 3);
  cts::batch_options o{.patch = 4, .augment = options, .seed = 5, .epoch = 1, .threads = 1};
  const auto one = cts::make_batch(data, first(33), o);
  o.threads = 4;
  CHECK(cts::make_batch(data, first(33), o).patches == one.patches);
  // The same picture in another batch of the same epoch looks the same; in another epoch it does not.
  const std::vector<cts::index> alone{20};
  const auto single = cts::make_batch(data, alone, o);
  CHECK(std::equal(single.patches.begin(), single.patches.end(), one.patches.begin() + 20 * 8 * 8 * 3));
  o.epoch = 2;
  CHECK(cts::make_batch(data, first(33), o).patches != one.patches);
  const auto draw = cts::draw_augmentation(options, 5, 1, 20);
  CHECK(single.patches == cts::patchify(cts::augment(data.view_of(20), draw), 4, {}));
}

TEST_CASE("token drop: exact counts, rising positions, three meanings", "[data]") {
  const auto data = some_pictures(3, 16, 16, 3);
  auto whole = cts::make_batch(data, first(3), {.patch = 4});
  whole.weights = {1, 2, 3};
  cts::random_stream random(7);
  cts::token_batch out;
  const std::vector<double> rates{0.75, 0.0, 0.99};
  cts::drop_tokens(whole, rates, random, cts::missing_tokens::drop, out);
  CHECK(out.offsets == std::vector<cts::index>{0, 4, 20, 21});
  CHECK(out.targets == whole.targets);
  CHECK(out.weights == whole.weights);
  CHECK(out.scale.empty());
  for (cts::index s = 0; s < 3; ++s) {
    for (cts::index t = out.offsets.data()[s]; t < out.offsets.data()[s + 1]; ++t) {
      if (t > out.offsets.data()[s]) CHECK(out.positions.data()[t - 1] < out.positions.data()[t]);
      const float* row = whole.patches.data() + (s * 16 + out.positions.data()[t]) * 48;
      CHECK(std::equal(row, row + 48, out.patches.data() + t * 48));
    }
  }

  // The same stream gives the same choice under every meaning.
  cts::token_batch zero, rescaled;
  random = cts::random_stream(7);
  cts::drop_tokens(whole, rates, random, cts::missing_tokens::zero, zero);
  random = cts::random_stream(7);
  cts::drop_tokens(whole, rates, random, cts::missing_tokens::rescaled, rescaled);
  CHECK(zero.patches == whole.patches);
  CHECK(zero.offsets == whole.offsets);
  std::vector<std::int32_t> kept;
  for (std::size_t t = 0; t < 48; ++t) {
    CHECK((zero.scale[t] == 0 || zero.scale[t] == 1));
    if (zero.scale[t] == 1) kept.push_back(whole.positions[t]);
    const double factor = t < 16 ? 4.0 : t < 32 ? 1.0 : 100.0;
    CHECK(rescaled.scale[t] == Approx(zero.scale[t] * factor));
  }
  CHECK(kept == out.positions);

  std::vector<std::uint8_t> mask(48, 0);
  mask[3] = mask[5] = mask[20] = mask[47] = 1;
  cts::apply_token_mask(whole, mask, cts::missing_tokens::drop, out);
  CHECK(out.positions == std::vector<std::int32_t>{3, 5, 4, 15});
  cts::apply_token_mask(whole, mask, cts::missing_tokens::rescaled, out);
  CHECK(out.scale[3] == Approx(8));
  CHECK(out.scale[47] == Approx(16));
  CHECK(out.scale[4] == 0);
  // A batch that already has scales keeps them.
  cts::token_batch twice;
  cts::apply_token_mask(rescaled, std::vector<std::uint8_t>(48, 1), cts::missing_tokens::drop, twice);
  CHECK(twice.scale == rescaled.scale);

  mask[47] = 0;
  CHECK_THROWS_AS(cts::apply_token_mask(whole, mask, cts::missing_tokens::drop, out), cts::Error);
  CHECK_THROWS_AS(cts::apply_token_mask(whole, std::vector<std::uint8_t>(47, 1), cts::missing_tokens::drop, out),
                  cts::Error);
  CHECK_THROWS_AS(cts::drop_tokens(whole, 1.0, random, cts::missing_tokens::drop, out), cts::Error);
  CHECK_THROWS_AS(cts::drop_tokens(whole, -0.1, random, cts::missing_tokens::drop, out), cts::Error);
}

TEST_CASE("token drop: every token has the same chance", "[data]") {
  const auto data = some_pictures(1, 16, 16, 1);
  const auto whole = cts::make_batch(data, first(1), {.patch = 4});
  cts::random_stream random(11);
  std::vector<int> counts(16, 0);
  cts::token_batch out;
  for (int i = 0; i < 4000; ++i) {
    cts::drop_tokens(whole, 0.75, random, cts::missing_tokens::drop, out);
    for (const auto p : out.positions) ++counts[static_cast<std::size_t>(p)];
  }
  for (const int c : counts) CHECK(c == Approx(1000).margin(130));
  CHECK(cts::tokens_kept(16, 0.9) == 2);
  CHECK(cts::tokens_kept(16, 0.999) == 1);
  CHECK(cts::tokens_kept(16, 0.0) == 16);
}

TEST_CASE("token drop by relevance: the most relevant tokens of each sample stay", "[data]") {
  const auto data = some_pictures(2, 16, 16, 1);
  const auto whole = cts::make_batch(data, first(2), {.patch = 4});
  std::vector<double> relevance(32, 0.0);
  relevance[3] = 2, relevance[9] = 1, relevance[16 + 15] = -1, relevance[16 + 2] = 1;
  CHECK(cts::relevant_token_mask(whole, std::vector<cts::index>{2, 1}, relevance) == [] {
    std::vector<std::uint8_t> keep(32, 0);
    keep[3] = keep[9] = keep[18] = 1;
    return keep;
  }());
  cts::token_batch out;
  cts::drop_irrelevant_tokens(whole, 0.75, relevance, cts::missing_tokens::drop, out);
  CHECK(out.positions == std::vector<std::int32_t>{0, 1, 3, 9, 0, 1, 2, 3});  // of equal ones the first
  cts::drop_irrelevant_tokens(whole, 1.0 / 16, relevance, cts::missing_tokens::rescaled, out);
  CHECK(out.scale[15] == 0);
  CHECK(out.scale[31] == 0);
  CHECK(out.scale[0] == Approx(16.0 / 15));
  CHECK_THROWS_AS(cts::relevant_token_mask(whole, std::vector<cts::index>{2, 17}, relevance), cts::Error);
  CHECK_THROWS_AS(cts::relevant_token_mask(whole, std::vector<cts::index>{2}, relevance), cts::Error);
  relevance.pop_back();
  CHECK_THROWS_AS(cts::relevant_token_mask(whole, std::vector<cts::index>{2, 1}, relevance), cts::Error);
}

TEST_CASE("token drop by relevance: samples of more tokens than 16 bits count", "[data]") {
  constexpr cts::index tokens = 70000;
  cts::token_batch whole;
  whole.patch_dim = 1;
  for (const cts::index n : {cts::index{3}, tokens}) {
    for (cts::index t = 0; t < n; ++t) whole.positions.push_back(static_cast<std::int32_t>(t));
    whole.offsets.push_back(static_cast<cts::index>(whole.positions.size()));
  }
  whole.patches.assign(whole.positions.size(), 0.0f);
  std::vector<double> relevance(whole.positions.size(), 0.0);
  const std::vector<cts::index> relevant{5, 4464, 65535, 65536, 65537, tokens - 1};
  for (const cts::index p : relevant) relevance.data()[3 + p] = 1 + static_cast<double>(p);
  const auto of_sample = std::span(relevance).subspan(3);
  CHECK(cts::most_relevant(of_sample, 6) == relevant);
  CHECK(cts::most_relevant(of_sample, 2) == std::vector<cts::index>{65537, tokens - 1});
  CHECK(cts::most_relevant(of_sample, tokens).size() == tokens);
  CHECK_THROWS_AS(cts::most_relevant(of_sample, tokens + 1), cts::Error);
  const auto mask = cts::relevant_token_mask(whole, std::vector<cts::index>{1, 6}, relevance);
  CHECK(std::count(mask.begin(), mask.end(), 1) == 7);
  for (const cts::index p : relevant) CHECK(mask.data()[3 + p] == 1);
  cts::token_batch out;
  cts::drop_irrelevant_tokens(whole, 0.5, relevance, cts::missing_tokens::drop, out);
  CHECK(out.offsets == std::vector<cts::index>{0, 2, 2 + tokens / 2});
  CHECK(std::is_sorted(out.positions.begin() + 2, out.positions.end(), std::less_equal<>()));
  CHECK(out.positions.back() == tokens - 1);
}

TEST_CASE("batches are cut and joined without a change, but never to themselves", "[tokens]") {
  cts::token_batch all{.patch_dim = 2,
                       .patches = {1, 2, 3, 4, 5, 6},
                       .positions = {4, 7, 9},
                       .offsets = {0, 2, 2, 3},
                       .scale = {1, 0.5, 0},
                       .targets = {5, 6, 7},
                       .weights = {1, 2, 3},
                       .token_weights = {1, 4, 2}};
  auto joined = cts::samples_of(all, 0, 1);
  CHECK(joined.positions == std::vector<std::int32_t>{4, 7});
  CHECK(joined.token_weights == std::vector<float>{1, 4});
  cts::append(joined, cts::samples_of(all, 1, 3));
  CHECK_NOTHROW(joined.check());
  CHECK(joined.patches == all.patches);
  CHECK(joined.positions == all.positions);
  CHECK(joined.offsets == all.offsets);
  CHECK(joined.scale == all.scale);
  CHECK(joined.targets == all.targets);
  CHECK(joined.weights == all.weights);
  CHECK(joined.token_weights == all.token_weights);
  CHECK_THROWS_AS(cts::samples_of(all, 2, 4), cts::Error);
  CHECK_THROWS_AS(cts::append(joined, joined), cts::Error);
}

}  // namespace data_tokens_tests
