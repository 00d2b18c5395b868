// Bytes and distortion of the codecs of tokens on pictures of one's own, one JSON line for each codec and quality:
// bytes of a whole picture and of some random tokens of it, PSNR (mean over pictures), microseconds a token on one core
// (the fastest of some rounds). With --rivals the same pictures as files of libjpeg, WebP and JPEG XL, by whichever of
// their command-line tools (cjpeg, cwebp, cjxl and those that read) are there.
//   bench_codec DIR --every 10 --patch 8 --keep 16 --rivals
// Measure on pictures that the tables were not trained on: Tiny-ImageNet's `val`, where `train` made them.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/data/image_io.hpp"
#include "core_tokensets/data/patches.hpp"
#include "core_tokensets/memory/codecs/token_codecs.hpp"

namespace cts = core_tokensets;
namespace fs = std::filesystem;

namespace {

struct settings {
  std::string folder;
  std::size_t every = 10, most = 500;
  cts::index patch = 8, size = 0, keep = 16;
  int rounds = 3;
  bool rivals = false;
};

std::vector<cts::image> read_pictures(const settings& s) {
  std::vector<fs::path> names;
  for (const auto& entry : fs::recursive_directory_iterator(s.folder)) {
    if (entry.is_regular_file()) names.push_back(entry.path());
  }
  std::sort(names.begin(), names.end());
  std::vector<cts::image> pictures;
  for (std::size_t i = 0; i < names.size() && pictures.size() < s.most; i += s.every) {
    auto picture = cts::read_image(names[i], 3);
    pictures.push_back(s.size > 0 ? cts::resize(picture, s.size, s.size) : std::move(picture));
  }
  return pictures;
}

double psnr(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(double(a[i]) - double(b[i]), 2);
  return sum == 0 ? 99 : 10 * std::log10(255 * 255 * static_cast<double>(a.size()) / sum);
}

/// A picture as all of its tokens, and as some of them.
struct sample {
  cts::patch_grid grid;
  std::vector<std::uint16_t> all, some;
  std::vector<std::uint8_t> all_pixels, some_pixels;
};

sample sample_of(const cts::image& picture, const settings& s, std::uint64_t number) {
  sample made{{picture.height, picture.width, 3, s.patch}, {}, {}, cts::patchify(picture, s.patch), {}};
  auto order = cts::random_stream(1, number).permutation(made.grid.tokens());
  for (cts::index k = 0; k < made.grid.tokens(); ++k) made.all.push_back(static_cast<std::uint16_t>(k));
  order.resize(static_cast<std::size_t>(std::min(s.keep, made.grid.tokens())));
  std::sort(order.begin(), order.end());
  for (const auto k : order) {
    const auto* from = made.all_pixels.data() + k * made.grid.patch_dim();
    made.some.push_back(static_cast<std::uint16_t>(k));
    made.some_pixels.insert(made.some_pixels.end(), from, from + made.grid.patch_dim());
  }
  return made;
}

/// Processor time of `work()` in microseconds: other programs do not count.
template <class Work>
double time_of(const Work& work) {
  const std::clock_t begin = std::clock();
  work();
  return 1e6 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

void measure(const cts::any_codec& codec, const std::vector<sample>& samples, int rounds) {
  double whole = 0, some = 0, closeness = 0, tokens = 0, encode = 1e99, decode = 1e99;
  std::vector<std::vector<std::uint8_t>> coded(samples.size());
  std::vector<std::uint8_t> again;
  for (int round = 0; round < rounds; ++round) {
    encode = std::min(encode, time_of([&] {
                        for (std::size_t i = 0; i < samples.size(); ++i)
                          coded[i] = codec.encode({samples[i].grid, samples[i].some}, samples[i].some_pixels);
                      }));
    decode = std::min(decode, time_of([&] {
                        for (std::size_t i = 0; i < samples.size(); ++i) {
                          again.resize(samples[i].some_pixels.size());
                          codec.decode({samples[i].grid, samples[i].some}, coded[i], again);
                        }
                      }));
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto& s = samples[i];
    tokens += static_cast<double>(s.some.size()), some += static_cast<double>(coded[i].size());
    const auto bytes = codec.encode({s.grid, s.all}, s.all_pixels);
    again.resize(s.all_pixels.size());
    codec.decode({s.grid, s.all}, bytes, again);
    whole += static_cast<double>(bytes.size()), closeness += psnr(again, s.all_pixels);
  }
  const auto n = static_cast<double>(samples.size());
  std::printf(
      "{\"codec\": \"%s\", \"whole\": %.1f, \"some\": %.1f, \"psnr\": %.2f, \"encode_us\": %.2f, "
      "\"decode_us\": %.2f}\n",
      codec.text().c_str(), whole / n, some / n, closeness / n, encode / tokens, decode / tokens);
  std::fflush(stdout);
}

/// Tools that write and read a file: {in}, {file}, {out} and {q} stand for what they work on.
struct rival {
  std::string name, tool, write, read;
  std::vector<int> qualities;
};

const std::vector<rival> rivals{
    {"libjpeg",
     "cjpeg",
     "cjpeg -optimize -quality {q} -outfile {file} {in}",
     "djpeg -pnm -outfile {out} {file}",
     {5, 10, 20, 50, 75, 90}},
    {"webp",
     "cwebp",
     "cwebp -quiet -m 6 -q {q} {in} -o {file}",
     "dwebp -quiet -ppm {file} -o {out}",
     {5, 20, 50, 75, 90}},
    {"webp lossless",
     "cwebp",
     "cwebp -quiet -lossless -m 6 {in} -o {file}",
     "dwebp -quiet -ppm {file} -o {out}",
     {100}},
    {"jxl", "cjxl", "cjxl --quiet -q {q} {in} {file}", "djxl --quiet {file} {out}", {5, 20, 50, 75, 90}},
    {"jxl lossless", "cjxl", "cjxl --quiet -q 100 {in} {file}", "djxl --quiet {file} {out}", {100}},
};

void write_ppm(const fs::path& path, const cts::image& picture) {
  std::ofstream out(path, std::ios::binary);
  out << "P6\n" << picture.width << " " << picture.height << "\n255\n";
  out.write(reinterpret_cast<const char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
}

/// The pixels of a PPM file as these tools write it: the last bytes.
std::vector<std::uint8_t> read_ppm(const fs::path& path, std::size_t bytes) {
  std::ifstream in(path, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  if (all.size() < bytes || all.substr(0, 2) != "P6") cts::fail(path.string(), ": not a colour picture of that size");
  return {all.end() - static_cast<std::ptrdiff_t>(bytes), all.end()};
}

bool run(std::string command, const fs::path& folder, const std::string& extension, int quality) {
  const std::pair<std::string, std::string> names[] = {{"{in}", (folder / "in.ppm").string()},
                                                       {"{file}", (folder / ("file." + extension)).string()},
                                                       {"{out}", (folder / "out.ppm").string()},
                                                       {"{q}", std::to_string(quality)}};
  for (const auto& [from, to] : names) {
    if (const auto at = command.find(from); at != command.npos) command.replace(at, from.size(), to);
  }
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

void measure(const rival& r, const std::vector<cts::image>& pictures) {
  if (std::system(("command -v " + r.tool + " >/dev/null 2>&1").c_str()) != 0) {
    std::fprintf(stderr, "%s: there is no %s here\n", r.name.c_str(), r.tool.c_str());
    return;
  }
  const fs::path folder = fs::temp_directory_path() / ("bench-codec-" + std::to_string(std::rand()));
  fs::create_directories(folder);
  const std::string extension = r.tool.substr(1);
  for (const int quality : r.qualities) {
    double whole = 0, closeness = 0, n = 0;
    for (const auto& picture : pictures) {
      write_ppm(folder / "in.ppm", picture);
      if (!run(r.write, folder, extension, quality) || !run(r.read, folder, extension, quality)) continue;
      whole += static_cast<double>(fs::file_size(folder / ("file." + extension)));
      closeness += psnr(picture.pixels, read_ppm(folder / "out.ppm", picture.pixels.size()));
      n += 1;
    }
    if (n == 0) continue;
    std::printf("{\"codec\": \"%s:quality=%d\", \"whole\": %.1f, \"psnr\": %.2f, \"pictures\": %.0f}\n", r.name.c_str(),
                quality, whole / n, closeness / n, n);
    std::fflush(stdout);
  }
  fs::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Bytes and distortion of the codecs of tokens");
  settings s;
  app.add_option("folder", s.folder, "pictures, in folders of any depth")->required();
  app.add_option("--every", s.every, "take each n-th picture")->check(CLI::PositiveNumber);
  app.add_option("--most", s.most, "at most that many");
  app.add_option("--patch", s.patch, "side of a patch");
  app.add_option("--size", s.size, "make pictures that large first (0: leave them)");
  app.add_option("--keep", s.keep, "tokens of a part of a picture");
  app.add_option("--rounds", s.rounds, "rounds of which the fastest counts")->check(CLI::PositiveNumber);
  app.add_flag("--rivals", s.rivals, "measure files of libjpeg, WebP and JPEG XL, too");
  CLI11_PARSE(app, argc, argv);
  const auto pictures = read_pictures(s);
  std::vector<sample> samples;
  for (std::size_t i = 0; i < pictures.size(); ++i) samples.push_back(sample_of(pictures[i], s, i));
  cts::require(!samples.empty(), s.folder, ": no pictures");
  std::fprintf(stderr, "%zu pictures, the first %s\n", samples.size(), to_text(samples[0].grid).c_str());
  for (const int quality : {2, 5, 10, 20, 35, 50, 75, 90, 100}) measure(cts::dct_codec{quality}, samples, s.rounds);
  measure(cts::lossless_codec{}, samples, s.rounds);
  if (s.rivals) {
    for (const auto& r : rivals) measure(r, pictures);
  }
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
