// Makes the tables from which the codecs of tokens start (memory/codecs/*_tables.hpp): for every context the
// probability and the speed of learning with which pictures of a folder would have been coded in the fewest bits.
// Prints the header. It reads pictures and writes numbers; measure on others (bench/codec.cpp).

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/memory/codecs/dct_codec.hpp"
#include "core_tokensets/memory/codecs/lossless_codec.hpp"

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using cts::detail::adaptive_bit;

namespace {

/// Takes the place of the coder and remembers the bits of each context, one text of '0' and '1' a sample.
class listener {
 public:
  listener(std::span<adaptive_bit> states, std::vector<std::string>& heard) : states_(states), heard_(heard) {}
  bool code(adaptive_bit& state, bool bit) {
    const auto i = static_cast<std::size_t>(&state - states_.data());
    if (i < states_.size()) heard_[i] += bit ? '1' : '0';
    return bit;
  }
  bool code(bool bit) { return bit; }

 private:
  std::span<adaptive_bit> states_;
  std::vector<std::string>& heard_;
};

/// Bits that the samples in `heard`, parted by blanks, take from that start on.
double price(const std::string& heard, adaptive_bit start, const std::vector<double>& cost) {
  double bits = 0;
  adaptive_bit state = start;
  for (const char c : heard) {
    if (c == ' ') {
      state = start;
      continue;
    }
    bits += cost[static_cast<std::size_t>((c == '0' ? state.zero : 65536 - state.zero) >> 4)];
    state.learn(c == '1');
  }
  return bits;
}

/// The cheapest start, as it is written in the table: a probability of 12 bits and a shift of 4.
std::uint16_t best_start(const std::string& heard) {
  static const std::vector<double> cost = [] {
    std::vector<double> all(4096);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = -std::log2((static_cast<double>(i) + 0.5) / 4096);
    return all;
  }();
  const auto zeros = static_cast<double>(std::count(heard.begin(), heard.end(), '0'));
  const auto ones = static_cast<double>(std::count(heard.begin(), heard.end(), '1'));
  const double odds = std::log((zeros + 0.5) / (ones + 0.5));
  std::uint16_t best = (2048 << 4) | 5;
  double least = 1e300;
  const auto attempt = [&](double logit, int shift) {
    const auto p = static_cast<unsigned>(std::clamp(std::lround(4096 / (1 + std::exp(-logit))), 8l, 4088l));
    const adaptive_bit start{static_cast<std::uint16_t>(p << 4 | 8u), static_cast<std::uint16_t>(shift)};
    const double bits = price(heard, start, cost);
    if (bits < least) least = bits, best = static_cast<std::uint16_t>(p << 4 | static_cast<unsigned>(shift));
    return bits;
  };
  for (int shift = 4; shift <= 9; ++shift) attempt(odds, shift);
  const int shift = best & 15;
  for (double by = -1.2; by <= 1.2; by += 0.2) attempt(odds + by, shift);
  const double found = std::log((best >> 4) / (4096.0 - (best >> 4)));
  for (int other = 4; other <= 9; ++other) attempt(found, other);
  return best;
}

/// Pictures below `where`, every `every`-th by name.
std::vector<cts::image> read_pictures(const fs::path& where, std::size_t every) {
  std::vector<fs::path> names;
  for (const auto& entry : fs::recursive_directory_iterator(where)) {
    if (entry.is_regular_file()) names.push_back(entry.path());
  }
  std::sort(names.begin(), names.end());
  std::vector<cts::image> pictures;
  for (std::size_t i = 0; i < names.size(); i += every) pictures.push_back(cts::read_image(names[i], 3));
  return pictures;
}

/// Calls `use(context, pixels)` for `count` tokens at random of a picture cut into patches (its rest is left out).
template <class Use>
void some_tokens(const cts::image& from, cts::index patch, double share, cts::random_stream& random, const Use& use) {
  const cts::patch_grid grid{from.height / patch * patch, from.width / patch * patch, 3, patch};
  cts::image cropped(grid.height, grid.width, 3);
  for (cts::index y = 0; y < grid.height; ++y) std::copy_n(from.at(y, 0), grid.width * 3, cropped.at(y, 0));
  const auto all = cts::patchify(cropped, patch);
  auto order = random.permutation(grid.tokens());
  order.resize(static_cast<std::size_t>(std::max(1.0, share * static_cast<double>(grid.tokens()))));
  std::sort(order.begin(), order.end());
  std::vector<std::uint16_t> positions;
  std::vector<std::uint8_t> pixels;
  for (const auto k : order) {
    positions.push_back(static_cast<std::uint16_t>(k));
    pixels.insert(pixels.end(), all.begin() + k * grid.patch_dim(), all.begin() + (k + 1) * grid.patch_dim());
  }
  use(cts::patch_context{grid, positions}, std::span<const std::uint8_t>(pixels));
}

/// Every kind of sample that is to be coded well, those that matter most more often. `encode(context, pixels,
/// quality)`.
template <class Encode>
void listen_to(const std::vector<cts::image>& pictures, std::vector<std::string>& heard, const Encode& encode) {
  constexpr int qualities[] = {50, 20, 5, 35, 10, 75, 20, 50, 2, 90, 30, 65, 20, 98, 50, 15, 80, 5};
  constexpr cts::index patches[] = {8, 8, 16, 8, 8, 14, 8, 4, 8, 16, 8};
  constexpr double shares[] = {1, 0.25, 0.25, 0.5, 0.25, 1, 0.125};
  cts::random_stream random(1);
  std::size_t n = 0;
  for (const auto& picture : pictures) {
    for (int i = 0; i < 6; ++i, ++n) {
      some_tokens(picture, patches[n % std::size(patches)], shares[n % std::size(shares)], random,
                  [&](const cts::patch_context& context, std::span<const std::uint8_t> pixels) {
                    encode(context, pixels, qualities[n % std::size(qualities)]);
                    for (auto& one : heard) {
                      if (!one.empty() && one.back() != ' ') one += ' ';
                    }
                  });
    }
  }
}

/// The header with the table of one codec, `about` saying which.
void print_header(const std::string& name, const char* about, const std::vector<std::string>& heard) {
  std::printf("#pragma once\n// What the contexts of the %s codec start from, trained on photographs.\n", about);
  std::printf("// Written by bench/train_codec_tables.cpp.\n\n#include <cstdint>\n#include <iterator>\n\n");
  std::printf("#include \"core_tokensets/memory/codecs/%s_model.hpp\"\n\n", name.c_str());
  std::printf("namespace core_tokensets::detail {\n\n");
  std::printf("/// Each a probability of 0 in 1/4096 (12 bits) above a shift (4 bits).\n// clang-format off\n");
  std::printf("inline constexpr std::uint16_t %s_starts[] = {", name.c_str());
  std::size_t silent = 0;
  for (std::size_t i = 0; i < heard.size(); ++i) {
    silent += heard[i].empty();
    std::printf("%s%u%s", i % 18 == 0 ? "\n    " : " ", best_start(heard[i]), i + 1 < heard.size() ? "," : "");
  }
  std::printf("};\n// clang-format on\n");
  std::printf("static_assert(std::size(%s_starts) == %s_model::count);\n\n", name.c_str(), name.c_str());
  std::printf("inline %s_model trained_%s_model() {\n", name.c_str(), name.c_str());
  std::printf("  static constexpr auto model = started<%s_model>(%s_starts);\n", name.c_str(), name.c_str());
  std::printf("  return model;\n}\n\n}  // namespace core_tokensets::detail\n");
  std::fprintf(stderr, "%s: %zu contexts, %zu of them never heard\n", name.c_str(), heard.size(), silent);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes the table of a codec of tokens from the pictures below a folder");
  std::string codec, folder;
  std::size_t every = 50;
  app.add_option("codec", codec, "dct or lossless")->required()->check(CLI::IsMember({"dct", "lossless"}));
  app.add_option("folder", folder, "pictures, in folders of any depth")->required();
  app.add_option("--every", every, "take each n-th picture");
  CLI11_PARSE(app, argc, argv);
  const auto pictures = read_pictures(folder, every);
  std::fprintf(stderr, "%zu pictures\n", pictures.size());
  if (codec == "dct") {
    std::vector<std::string> heard(cts::detail::dct_model::count);
    listen_to(pictures, heard, [&](const auto& context, std::span<const std::uint8_t> pixels, int quality) {
      cts::detail::dct_model model;
      listener coder(model.bits, heard);
      cts::detail::encode_dct(coder, model, context, quality, pixels, {});
    });
    print_header("dct", "lossy", heard);
  } else {
    std::vector<std::string> heard(cts::detail::lossless_model::count);
    listen_to(pictures, heard, [&](const auto& context, std::span<const std::uint8_t> pixels, int) {
      cts::detail::lossless_model model;
      listener coder(model.bits, heard);
      std::vector<std::uint8_t> values(pixels.begin(), pixels.end());
      cts::detail::to_differences(context.grid, values);
      cts::detail::lossless_sample(coder, context, model).code(values);
    });
    print_header("lossless", "lossless", heard);
  }
}
