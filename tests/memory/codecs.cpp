#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/io/checksum.hpp"
#include "core_tokensets/memory/codecs/token_codecs.hpp"
#include "core_tokensets/memory/describe.hpp"
#include "core_tokensets/memory/token_memory.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace memory_codecs_tests {

namespace cts = core_tokensets;
using support::has;
using support::message_of;

namespace {

/// Tokens of a made-up picture: slopes, a disc with a sharp edge, some noise; whole numbers only.
struct tokens {
  cts::patch_grid grid;
  std::vector<std::uint16_t> positions;
  std::vector<std::uint8_t> pixels;
  cts::patch_context context() const { return {grid, positions}; }
};

tokens some_tokens(cts::patch_grid grid, cts::index count, std::uint64_t seed = 1) {
  tokens made{grid, {}, {}};
  cts::random_stream random(seed);
  auto order = random.permutation(grid.tokens());
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  for (const auto k : order) {
    made.positions.push_back(static_cast<std::uint16_t>(k));
    for (cts::index c = 0; c < grid.channels; ++c) {
      for (cts::index y = grid.top(k); y < grid.top(k) + grid.patch; ++y) {
        for (cts::index x = grid.left(k); x < grid.left(k) + grid.patch; ++x) {
          const cts::index dy = y - grid.height / 2, dx = x - grid.width / 3;
          const bool inside = 9 * (dy * dy + dx * dx) < grid.height * grid.width;
          const cts::index value =
              (inside ? 180 - 30 * c : 40 + 20 * c) + (60 * y + 40 * x * (c + 1)) / grid.height + random.below(12);
          made.pixels.push_back(static_cast<std::uint8_t>(std::clamp<cts::index>(value, 0, 255)));
        }
      }
    }
  }
  return made;
}

template <class Codec>
std::vector<std::uint8_t> there_and_back(const Codec& codec, const tokens& t) {
  std::vector<std::uint8_t> again(t.pixels.size(), 77);
  codec.decode(t.context(), codec.encode(t.context(), t.pixels), again);
  return again;
}

double mean_square(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return sum / static_cast<double>(a.size());
}

std::string sum_of(const std::vector<std::uint8_t>& bytes) {
  return cts::checksum_text(cts::fnv1a(std::as_bytes(std::span(bytes))));
}

/// Every shape that is asked of a codec: patches of 1 to 40 pixels, one to four channels, grids that are not square.
std::vector<cts::patch_grid> grids() {
  std::vector<cts::patch_grid> all;
  for (const cts::index patch : {1, 2, 5, 8, 14, 16, 17, 40}) {
    for (const cts::index channels : {1, 2, 3, 4}) all.push_back({3 * patch, 4 * patch, channels, patch});
  }
  all.push_back({64, 64, 3, 8});
  all.push_back({8, 8, 3, 8});
  return all;
}

static_assert(cts::patch_codec<cts::dct_codec> && cts::patch_codec<cts::lossless_codec>);

}  // namespace

TEST_CASE("lossless gives back every pixel, whatever the patch, the channels and the tokens", "[codecs]") {
  for (const auto& grid : grids()) {
    for (const cts::index count : {cts::index{1}, grid.tokens() / 2, grid.tokens()}) {
      if (count < 1) continue;
      INFO(to_text(grid) << ", " << count << " tokens");
      const auto t = some_tokens(grid, count);
      CHECK(there_and_back(cts::lossless_codec{}, t) == t.pixels);
      // Noise, and the extremes.
      auto wild = t;
      cts::random_stream random(5);
      for (auto& x : wild.pixels)
        x = static_cast<std::uint8_t>(random.below(4) == 0 ? 255 * random.below(2) : random.below(256));
      CHECK(there_and_back(cts::lossless_codec{}, wild) == wild.pixels);
      CHECK(cts::lossless_codec{}.encode(wild.context(), wild.pixels).size() < wild.pixels.size() * 3 / 2 + 16);
    }
  }
}

TEST_CASE("lossy pixels are as near as the steps say, for every patch and number of channels", "[codecs]") {
  using cts::detail::step_of, cts::detail::plane_kind;
  for (const auto& grid : grids()) {
    for (const cts::index count : {cts::index{1}, (grid.tokens() + 1) / 2, grid.tokens()}) {
      INFO(to_text(grid) << ", " << count << " tokens");
      auto t = some_tokens(grid, count);
      double before = 1e9;
      std::size_t bytes = 0;
      for (const int quality : {1, 2, 5, 20, 50, 75, 90, 100}) {
        const cts::dct_codec codec{quality};
        const auto now = codec.encode(t.context(), t.pixels).size();
        CHECK(now + 4 >= bytes);
        bytes = now;
        const double error = mean_square(there_and_back(codec, t), t.pixels);
        if (count > 4 && grid.patch > 1) CHECK(error <= before * 1.05 + 0.1);  // a single token may be lucky
        before = error;
      }
      if (grid.patch > 16) continue;
      if (grid.channels == 3) {  // no colour, so that nothing is lost with it
        const auto area = grid.patch * grid.patch;
        for (std::size_t i = 0; i < t.pixels.size(); ++i) {
          const auto c = static_cast<cts::index>(i) / area % 3;
          t.pixels[i] = t.pixels[i - static_cast<std::size_t>(c * area)];
        }
      }
      for (const int quality : {2, 20, 50, 75, 100}) {
        INFO("quality " << quality);
        // The transform keeps lengths: a coefficient is wrong by half a step, or up to 0.64 in the dead zone.
        double bound = 0;
        const int side = static_cast<int>(grid.patch);
        for (int u = 0; u < side; ++u) {
          for (int v = 0; v < side; ++v) {
            const double step = step_of(plane_kind::luma, quality, u, v, side, side);
            const double off = (quality > 50 || u + v == 0 ? 0.5 : 0.64) * step + 0.1;
            bound += off * off / (side * side);
          }
        }
        const double error = std::sqrt(mean_square(there_and_back(cts::dct_codec{quality}, t), t.pixels));
        CHECK(error <= std::sqrt(bound) + 0.6);  // pixels are rounded, too
      }
    }
  }
}

TEST_CASE("a flat token costs next to nothing and comes back flat", "[codecs]") {
  for (const cts::index channels : {1, 3}) {
    for (const int value : {0, 3, 128, 200, 255}) {
      tokens t = some_tokens({64, 64, channels, 8}, 64);
      std::fill(t.pixels.begin(), t.pixels.end(), static_cast<std::uint8_t>(value));
      INFO(value << ", " << channels << " channels");
      const cts::dct_codec codec{75};
      CHECK(codec.encode(t.context(), t.pixels).size() < 40);
      const auto again = there_and_back(codec, t);
      CHECK(std::all_of(again.begin(), again.end(),
                        [&](int x) { return std::abs(x - again[0]) <= 1 && std::abs(x - value) <= 1; }));
      CHECK(there_and_back(cts::lossless_codec{}, t) == t.pixels);
      CHECK(cts::lossless_codec{}.encode(t.context(), t.pixels).size() < 300);
    }
  }
}

TEST_CASE("the same bytes and the same pixels on every machine", "[codecs]") {
  struct golden {
    cts::patch_grid grid;
    cts::index count;
    std::string codec, bytes, pixels;
  };
  const std::vector<golden> all{
      {{64, 64, 3, 8}, 64, "dct:quality=50", "cd50135942e23920", "fd7d96f3e3e1ff91"},
      {{64, 64, 3, 8}, 16, "dct:quality=20", "34054f8119dad931", "798ddf17eba07a95"},
      {{64, 64, 3, 8}, 16, "dct:quality=2", "abbb5f2a3a3f606b", "73c9c05fb8f5764d"},
      {{64, 64, 3, 16}, 9, "dct:quality=90", "fda28a5682284bff", "fbe2a217c1e4e3e9"},
      {{42, 56, 1, 14}, 12, "dct:quality=35", "fe051555d118f1f0", "dc7cdec5ecedf246"},
      {{15, 20, 4, 5}, 7, "dct:quality=100", "862e97c97308d356", "45390c074ec614f1"},
      {{51, 34, 2, 17}, 4, "dct:quality=60", "d0db81fb0b86a5e7", "15f95f3ba93735c8"},
      {{64, 64, 3, 8}, 16, "lossless", "e49358efd5b36456", "d90bbba4feffa29c"},
      {{15, 20, 4, 5}, 7, "lossless", "2cf83286fd4b3a39", "ee009aff585218cb"},
  };
  for (const auto& g : all) {
    INFO(to_text(g.grid) << ", " << g.count << " tokens, " << g.codec);
    const auto t = some_tokens(g.grid, g.count);
    const auto codec = cts::named_codec(g.codec);
    CHECK(sum_of(codec.encode(t.context(), t.pixels)) == g.bytes);
    CHECK(sum_of(there_and_back(codec, t)) == g.pixels);
  }
  // The matrices that it rests on.
  CHECK(cts::detail::cosines.of[1][0] == 8192);
  CHECK(cts::detail::cosines.of[8][0] == 2896);
  for (int n = 1; n <= cts::detail::longest_block; ++n) {
    for (int u = 0; u < n; ++u) {
      for (int x = 0; x < n; ++x) {
        const double exact =
            std::sqrt((u == 0 ? 1.0 : 2.0) / n) * std::cos((2 * x + 1) * u * 3.14159265358979 / (2 * n));
        CHECK(std::abs(cts::detail::cosines.of[static_cast<std::size_t>(n)][static_cast<std::size_t>(u * n + x)] -
                       8192 * exact) < 0.51);
      }
    }
  }
}

TEST_CASE("quality is libjpeg's, and what is near helps", "[codecs]") {
  using cts::detail::plane_kind;
  CHECK(cts::detail::step_of(plane_kind::luma, 50, 0, 0, 8, 8) == 16);
  CHECK(cts::detail::step_of(plane_kind::luma, 50, 1, 4, 8, 8) == 26);
  CHECK(cts::detail::step_of(plane_kind::luma, 20, 0, 1, 8, 8) == 28);  // 11 * 2.5, rounded
  CHECK(cts::detail::step_of(plane_kind::luma, 75, 0, 0, 8, 8) == 8);
  CHECK(cts::detail::step_of(plane_kind::luma, 100, 7, 7, 8, 8) == 1);
  CHECK(cts::detail::step_of(plane_kind::luma, 50, 2, 8, 16, 16) == 26);  // the same frequency of a larger block
  CHECK(cts::detail::step_of(plane_kind::luma, 50, 1, 0, 16, 16) == 14);  // between 16 and 12
  CHECK(cts::detail::step_of(plane_kind::chroma, 50, 1, 1, 16, 16) == 2 * 21);
  CHECK(cts::detail::step_of(plane_kind::chroma, 50, 1, 1, 8, 8) == 2 * 56);

  // Neighbours foretell the mean of a token, and in the lossless codec its edges: tokens in wrong places cost more.
  const auto t = some_tokens({64, 64, 3, 8}, 64);
  auto shuffled = t;
  const auto order = cts::random_stream(2).permutation(64);
  for (std::size_t i = 0; i < 64; ++i)
    std::copy_n(t.pixels.begin() + order[i] * 192, 192, shuffled.pixels.begin() + static_cast<cts::index>(i) * 192);
  const auto bytes = [](const auto& codec, const tokens& some) {
    return codec.encode(some.context(), some.pixels).size();
  };
  CHECK(bytes(cts::dct_codec{20}, t) + 10 < bytes(cts::dct_codec{20}, shuffled));
  CHECK(bytes(cts::lossless_codec{}, t) + 10 < bytes(cts::lossless_codec{}, shuffled));
}

TEST_CASE("a sample or a token may have a quality of its own, which the bytes say", "[codecs]") {
  const auto t = some_tokens({64, 64, 3, 8}, 16);
  const cts::dct_codec codec{20};
  std::vector<std::uint8_t> again(t.pixels.size()), coarse(t.pixels.size());
  const std::vector<std::uint8_t> one{90}, same{20};
  codec.decode(t.context(), codec.encode(t.context(), t.pixels, one), again);
  CHECK(again == there_and_back(cts::dct_codec{90}, t));
  CHECK(codec.encode(t.context(), t.pixels, same) == codec.encode(t.context(), t.pixels));

  std::vector<std::uint8_t> each(16, 2);
  each[3] = each[4] = 95;
  const auto mixed = codec.encode(t.context(), t.pixels, each);
  codec.decode(t.context(), mixed, again);
  codec.decode(t.context(), codec.encode(t.context(), t.pixels, std::vector<std::uint8_t>{2}), coarse);
  const auto finest = there_and_back(cts::dct_codec{95}, t);
  for (std::size_t i = 0; i < again.size(); ++i) {
    const bool is_fine = i / 192 == 3 || i / 192 == 4;
    if (again[i] != (is_fine ? finest : coarse)[i]) FAIL("pixel " << i);
  }
  CHECK(mixed.size() < codec.encode(t.context(), t.pixels, std::vector<std::uint8_t>{95}).size() / 2);

  CHECK(has(message_of([&] { codec.encode(t.context(), t.pixels, std::vector<std::uint8_t>(3, 9)); }), "3 qualities"));
  CHECK(has(message_of([&] { codec.encode(t.context(), t.pixels, std::vector<std::uint8_t>{0}); }), "1 to 100"));
}

TEST_CASE("codecs by name, and what is wrong with options", "[codecs]") {
  CHECK(cts::named_codec("dct:quality=20").text() == "dct:quality=20");
  CHECK(cts::named_codec("dct").text() == "dct:quality=20");
  CHECK(cts::named_codec("lossless").text() == "lossless");
  CHECK(cts::named_codec("raw").raw());
  CHECK(cts::codec_named("dct:quality=7", "here").text() == "dct:quality=7");
  CHECK(has(message_of([] { cts::named_codec("jpeg"); }), "dct, lossless, raw"));
  CHECK(has(message_of([] { cts::codec_named("jpeg", "there"); }), "there: its pixels are packed by the codec 'jpeg'"));
  CHECK(has(message_of([] { cts::named_codec("dct:quality=0"); }), "1 to 100"));
  CHECK(has(message_of([] { cts::named_codec("dct:quality=101"); }), "1 to 100"));
  CHECK(has(message_of([] { cts::named_codec("dct:colour=1"); }), "quality"));
  CHECK(has(message_of([] { cts::named_codec("lossless:quality=1"); }), "quality"));
  const auto t = some_tokens({16, 16, 3, 8}, 2);
  CHECK(has(message_of([&] { cts::dct_codec{0}.encode(t.context(), t.pixels); }), "1 to 100"));
  auto few = t.pixels;
  few.pop_back();
  CHECK(has(message_of([&] { cts::dct_codec{}.encode(t.context(), few); }), "383"));
  CHECK(has(message_of([&] { cts::dct_codec{}.decode(t.context(), few, few); }), "383"));
  CHECK(has(message_of([&] { cts::lossless_codec{}.encode(t.context(), few); }), "383"));
  CHECK(has(message_of([&] { cts::lossless_codec{}.decode(t.context(), few, few); }), "383"));
}

TEST_CASE("a memory of coded tokens: live and loaded pixels are the same, 14 bytes a sample beside them", "[codecs]") {
  const support::scratch_folder folder;
  const auto path = folder.path / "memory.safetensors";
  for (const std::string name : {"dct:quality=20", "dct:quality=50", "lossless"}) {
    INFO(name);
    cts::token_memory memory(cts::patch_grid{64, 64, 3, 8}, cts::named_codec(name));
    std::size_t before = 0, coded = 0;
    for (int s = 0; s < 200; ++s) {
      const auto t = some_tokens({64, 64, 3, 8}, 16, static_cast<std::uint64_t>(s));
      memory.append({.patches = t.pixels, .positions = t.positions, .target = s % 100, .weight = 0.5f, .task = 3});
      if (s == 99) before = static_cast<std::size_t>(memory.bytes_on_disk()), coded = memory.arrays().pixels.size();
    }
    const auto beside =
        static_cast<std::size_t>(memory.bytes_on_disk()) - before - (memory.arrays().pixels.size() - coded);
    CHECK(beside <= 100 * 14 + 16);  // the header is padded to eights and has longer numbers
    memory.save(path);
    CHECK(static_cast<cts::index>(std::filesystem::file_size(path)) == memory.bytes_on_disk());
    const auto again = cts::load_token_memory(path);  // knows the library's codecs
    CHECK(again.codec().text() == memory.codec().text());
    REQUIRE(again.samples() == 200);
    for (cts::index s = 0; s < 200; ++s) CHECK(again.sample(s).patches == memory.sample(s).patches);
    CHECK(cts::verify_token_memory(path).empty());
    if (name == "lossless") CHECK(memory.sample(7).patches == some_tokens({64, 64, 3, 8}, 16, 7).pixels);
  }
  CHECK(has(message_of([&] { cts::load_token_memory(path, cts::any_codec(cts::dct_codec{})); }),
            "expected 'dct:quality=20'"));
}

TEST_CASE("hostile bytes end in pixels or in an error, soon", "[codecs]") {
  cts::random_stream random(11);
  const auto attempt = [&](const cts::any_codec& codec, const tokens& t, const std::vector<std::uint8_t>& bytes) {
    std::vector<std::uint8_t> out(t.pixels.size());
    try {
      codec.decode(t.context(), bytes, out);
      return true;
    } catch (const cts::Error& e) {
      CHECK(std::string(e.what()).size() > 10);
      return false;
    }
  };
  int refused = 0;
  for (const std::string name : {"dct:quality=1", "dct:quality=50", "dct:quality=100", "lossless"}) {
    const auto codec = cts::named_codec(name);
    for (const auto& grid : grids()) {
      INFO(name << ", " << to_text(grid));
      const auto t = some_tokens(grid, (grid.tokens() + 1) / 2);
      const auto good = codec.encode(t.context(), t.pixels);
      REQUIRE(attempt(codec, t, good));
      for (int i = 0; i < 40; ++i) {
        auto bytes = good;
        const auto n = static_cast<cts::index>(bytes.size());
        if (i % 4 == 0) bytes.resize(static_cast<std::size_t>(random.below(n + 1)));
        if (i % 4 == 1 && n > 0)
          bytes[static_cast<std::size_t>(random.below(n))] ^= static_cast<std::uint8_t>(1 << random.below(8));
        if (i % 4 == 2) {
          bytes.resize(static_cast<std::size_t>(random.below(2 * n + 8)));
          for (auto& x : bytes) x = static_cast<std::uint8_t>(i % 8 == 2 ? random.below(256) : 255 * random.below(2));
        }
        if (i % 4 == 3)
          bytes.resize(bytes.size() + static_cast<std::size_t>(2 + random.below(40)), static_cast<std::uint8_t>(i));
        refused += !attempt(codec, t, bytes);
      }
      // Many bytes too many cannot go unnoticed, and neither can nothing at all where there was much.
      auto longer = good;
      longer.resize(good.size() + 40, 7);
      CHECK(!attempt(codec, t, longer));
      if (good.size() > 40) CHECK(!attempt(codec, t, {}));
    }
  }
  CHECK(refused > 100);
  // A large picture from few bytes: refused before it is filled, and nothing is allocated for it but the caller's
  // pixels.
  const auto large = some_tokens({640, 640, 3, 8}, 1);
  tokens whole{large.grid, {}, {}};
  for (int k = 0; k < 6400; ++k) whole.positions.push_back(static_cast<std::uint16_t>(k));
  whole.pixels.resize(std::size_t{640} * 640 * 3);
  for (const std::string name : {"dct:quality=50", "lossless"}) {
    CHECK(has(message_of([&] {
                cts::named_codec(name).decode(whole.context(), std::vector<std::uint8_t>{1, 2, 3}, whole.pixels);
              }),
              "the 3 bytes end before the tokens do"));
  }
}

}  // namespace memory_codecs_tests
