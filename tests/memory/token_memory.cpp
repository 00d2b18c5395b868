#include "core_tokensets/memory/token_memory.hpp"

#include <cstring>
#include <limits>
#include <string>

#include "core_tokensets/core/random.hpp"
#include "core_tokensets/memory/describe.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

namespace memory_token_memory_tests {

namespace cts = core_tokensets;
namespace fs = std::filesystem;
using support::has;
using support::message_of;

namespace {

/// A grid of 3 x 4 patches of 2 x 2 x 3.
const cts::token_memory_format grid{.grid = {6, 8, 3, 2}, .relevance = cts::relevance_storage::f16};

/// A sample that owns its tokens, filled from its number.
struct owned_sample {
  std::vector<std::uint8_t> patches;
  std::vector<std::uint16_t> positions;
  std::vector<float> relevance;
  cts::stored_sample view(std::int32_t target = 0, float weight = 1, std::uint32_t task = 0) const {
    return {patches, positions, relevance, target, weight, task};
  }
};

owned_sample sample_of(std::vector<std::uint16_t> positions, std::vector<float> relevance, int seed) {
  owned_sample s{{}, std::move(positions), std::move(relevance)};
  for (const auto p : s.positions) {
    for (int i = 0; i < 12; ++i) s.patches.push_back(static_cast<std::uint8_t>(seed * 40 + p * 12 + i));
  }
  return s;
}

/// Three samples of two tasks with 3, 1 and 12 tokens.
cts::token_memory example(cts::relevance_storage relevance = cts::relevance_storage::f32) {
  auto format = grid;
  format.relevance = relevance;
  cts::token_memory memory(format);
  memory.append(sample_of({7, 2, 11}, {0.5f, -1, 2}, 1).view(4, 0.25f, 0));
  memory.append(sample_of({0}, {3}, 2).view(-1, 1, 0));
  memory.append(
      sample_of({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {1, 9, 3, 3, 8, 3, 3, 0, 0, 0, 0, 7}, 3).view(4, 2, 1));
  memory.metadata() = {{"recipe", "GradLRP \"10 %\""}, {"seed", "7"}};
  return memory;
}

bool same(const cts::token_memory& a, const cts::token_memory& b) {
  const auto &x = a.arrays(), &y = b.arrays();
  return x.format == y.format && a.codec() == b.codec() && x.pixels == y.pixels && x.pixel_offsets == y.pixel_offsets &&
         x.positions == y.positions && x.relevance == y.relevance && x.relevance_scale == y.relevance_scale &&
         x.offsets == y.offsets && x.targets == y.targets && x.weights == y.weights && x.tasks == y.tasks &&
         x.text == y.text && x.text_offsets == y.text_offsets && x.columns == y.columns && x.metadata == y.metadata;
}

template <class T>
std::vector<T> copy(std::span<const T> values) {
  return {values.begin(), values.end()};
}
std::vector<std::uint8_t> copy(const std::vector<std::uint8_t>& values) { return values; }

/// The path of a file that goes away with its object.
struct scratch_file {
  support::scratch_folder folder;
  fs::path path = folder.path / "memory.safetensors";
};

/// Packs runs of equal bytes: (count, value) pairs.
struct run_codec {
  static constexpr const char* name = "run";
  std::vector<std::uint8_t> encode(const cts::patch_context&, std::span<const std::uint8_t> in) const {
    std::vector<std::uint8_t> out;
    for (std::size_t i = 0; i < in.size();) {
      std::uint8_t n = 1;
      while (n < 255 && i + n < in.size() && in[i + n] == in[i]) ++n;
      out.insert(out.end(), {n, in[i]});
      i += n;
    }
    return out;
  }
  void decode(const cts::patch_context&, std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const {
    std::size_t to = 0;
    for (std::size_t i = 0; i + 1 < in.size(); i += 2) {
      cts::require(to + in[i] <= out.size(), "run codec: too long");
      for (int n = 0; n < in[i]; ++n) out[to++] = in[i + 1];
    }
    cts::require(to == out.size(), "run codec: wrong length");
  }
};

/// Loses something: pixels are rounded down to multiples of `step`.
struct coarse_codec {
  static constexpr const char* name = "coarse";
  int step = 4;
  template <class Self, class V>
  static void options(Self& self, const V& visit) {
    visit("step", self.step);
  }
  std::vector<std::uint8_t> encode(const cts::patch_context&, std::span<const std::uint8_t> in) const {
    std::vector<std::uint8_t> out;
    for (const auto x : in) out.push_back(static_cast<std::uint8_t>(x / step));
    return out;
  }
  void decode(const cts::patch_context& context, std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const {
    cts::require(static_cast<cts::index>(in.size()) == context.bytes(), "coarse codec: wrong length");
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = static_cast<std::uint8_t>(in[i] * step);
  }
};
static_assert(cts::patch_codec<cts::raw_codec> && cts::patch_codec<run_codec> && cts::patch_codec<coarse_codec> &&
              !cts::patch_codec<int>);

}  // namespace

TEST_CASE("a sample comes back as it was appended, in the order of positions") {
  const auto memory = example();
  CHECK(memory.samples() == 3);
  CHECK(memory.tokens() == 16);
  const auto s = memory.sample(0);
  CHECK(copy(s.positions) == std::vector<std::uint16_t>{2, 7, 11});
  CHECK(copy(s.relevance) == std::vector<float>{-1, 0.5f, 2});
  CHECK(copy(s.patches) == sample_of({2, 7, 11}, {}, 1).patches);
  CHECK(s.target == 4);
  CHECK(s.weight == 0.25f);
  CHECK(memory.sample(2).task == 1);
  CHECK(memory.sample(2).tokens() == memory.format().grid.tokens());
  CHECK_THROWS_AS(memory.sample(3), cts::Error);
  CHECK_THROWS_AS(memory.sample(-1), cts::Error);
}

TEST_CASE("a memory can be appended to another and to itself") {
  auto memory = example(cts::relevance_storage::f16);
  memory.append(memory);
  CHECK(memory.samples() == 6);
  for (cts::index i = 0; i < 3; ++i) {
    const auto a = memory.sample(i), b = memory.sample(i + 3);
    CHECK(copy(a.patches) == copy(b.patches));
    CHECK(copy(a.relevance) == copy(b.relevance));
    CHECK(copy(a.positions) == copy(b.positions));
    CHECK(a.target == b.target);
  }
  CHECK_THROWS_AS(memory.append(example(cts::relevance_storage::f32)), cts::Error);
}

TEST_CASE("f16 relevance keeps the order of a sample at any scale, and samples can be compared") {
  cts::token_memory memory(grid);
  memory.append(sample_of({0, 1, 2}, {1e-20f, 3e-20f, -2e-20f}, 0).view());
  memory.append(sample_of({0, 1}, {0, 0}, 0).view());
  memory.append(sample_of({0, 1}, {5, 10}, 0).view());
  const auto near = [](float got, double want) { return std::abs(double(got) / want - 1) < 1e-3; };
  CHECK(near(memory.sample(0).relevance[0], 1e-20));
  CHECK(memory.sample(0).relevance[1] == 3e-20f);
  CHECK(near(memory.sample(0).relevance[2], -2e-20));
  CHECK(memory.sample(1).relevance[0] == 0);
  CHECK(memory.sample(2).relevance[1] == 10);
}

TEST_CASE("what does not fit is refused and changes nothing") {
  auto memory = example();
  const auto before = example();
  const auto refused = [&](const owned_sample& s, float weight = 1) {
    return message_of([&] { memory.append(s.view(0, weight)); });
  };
  CHECK(has(refused(sample_of({12}, {1}, 0)), "position 12 outside the grid of 12"));
  CHECK(has(refused(sample_of({3, 1, 3}, {1, 1, 1}, 0)), "position 3 twice"));
  CHECK(has(refused(sample_of({3, 1}, {1}, 0)), "1 relevances for 2 tokens"));
  CHECK(has(refused(sample_of({3}, {NAN}, 0)), "not finite"));
  CHECK(has(refused(sample_of({}, {}, 0)), "without tokens"));
  CHECK(has(refused(sample_of({3}, {1}, 0), INFINITY), "not finite"));
  auto thin = sample_of({3}, {1}, 0);
  thin.patches.pop_back();
  CHECK(has(refused(thin), "11 pixel values for 1 tokens of 12"));
  CHECK(same(memory, before));

  CHECK(has(refused(sample_of({3}, {1}, 0), 1e6f), "not finite in 16 bits"));
  auto format = grid;
  format.grid.patch = 4;
  CHECK_THROWS_AS(cts::token_memory(format), cts::Error);
  format.grid.patch = 0;
  CHECK_THROWS_AS(cts::token_memory(format), cts::Error);
  CHECK_THROWS_AS(cts::token_memory(cts::patch_grid{512, 512, 1, 1}), cts::Error);
  CHECK_NOTHROW(cts::token_memory(cts::patch_grid{256, 256, 1, 1}));
}

TEST_CASE("a memory that has no room for a sample stays as it is, and a budget is kept to the byte") {
  const auto before = example();
  const auto next = sample_of({1, 5, 6}, {1, 2, 3}, 4);
  const auto with = before.bytes_with(next.view(70'000, 1, 300));  // wider targets and tasks for all samples
  auto memory = example();
  CHECK_FALSE(memory.append_within(next.view(70'000, 1, 300), with - 1));
  CHECK(same(memory, before));
  CHECK(memory.append_within(next.view(70'000, 1, 300), with));
  CHECK(memory.bytes_on_disk() == with);
  const scratch_file file;
  memory.save(file.path);
  CHECK(static_cast<cts::index>(fs::file_size(file.path)) == with);
  CHECK(same(cts::load_token_memory(file.path), memory));
}

TEST_CASE("beside its pixels a sample of 16 tokens of 64 takes at most 14 bytes") {
  cts::token_memory memory(cts::patch_grid{64, 64, 3, 8});
  std::vector<std::uint8_t> pixels(16 * 192, 1);
  std::vector<std::uint16_t> places;
  for (int i = 0; i < 16; ++i) places.push_back(static_cast<std::uint16_t>(4 * i));
  for (int i = 0; i < 1000; ++i) {
    memory.append({.patches = pixels, .positions = places, .target = i % 100, .weight = 0.7f, .task = 4});
  }
  const auto beside = memory.bytes_on_disk() - memory.tokens() * 192;
  CHECK(beside <= 14 * memory.samples());
}

TEST_CASE("keep and evict choose samples") {
  auto memory = example();
  memory.keep(std::vector<cts::index>{2, 0});
  CHECK(memory.samples() == 2);
  CHECK(memory.tokens() == 15);
  CHECK(memory.sample(0).weight == 2);
  CHECK(copy(memory.sample(1).patches) == copy(example().sample(0).patches));
  CHECK(memory.metadata() == example().metadata());

  auto other = example();
  other.evict(std::vector<cts::index>{1});
  other.keep(std::vector<cts::index>{1, 0});
  CHECK(same(memory, other));
  CHECK_THROWS_AS(memory.keep(std::vector<cts::index>{0, 0}), cts::Error);
  CHECK_THROWS_AS(memory.keep(std::vector<cts::index>{2}), cts::Error);
  CHECK_THROWS_AS(memory.evict(std::vector<cts::index>{-1}), cts::Error);
  memory.evict(std::vector<cts::index>{0, 1});
  CHECK(memory.empty());
  CHECK(memory.tokens() == 0);
}

TEST_CASE("shrink keeps the most relevant tokens, earlier ones first where equal") {
  auto memory = example();
  memory.shrink(5);
  CHECK(copy(memory.sample(0).positions) == std::vector<std::uint16_t>{2, 7, 11});
  CHECK(copy(memory.sample(2).positions) == std::vector<std::uint16_t>{1, 2, 3, 4, 11});
  CHECK(copy(memory.sample(2).relevance) == std::vector<float>{9, 3, 3, 8, 7});
  CHECK(copy(memory.sample(2).patches) == sample_of({1, 2, 3, 4, 11}, {}, 3).patches);
  memory.shrink(std::vector<cts::index>{1, 9, 2});
  CHECK(copy(memory.sample(0).positions) == std::vector<std::uint16_t>{11});
  CHECK(copy(memory.sample(1).positions) == std::vector<std::uint16_t>{0});
  CHECK(copy(memory.sample(2).positions) == std::vector<std::uint16_t>{1, 4});
  CHECK_THROWS_AS(memory.shrink(0), cts::Error);
  CHECK_THROWS_AS(memory.shrink(std::vector<cts::index>{1}), cts::Error);

  auto coreset = example(cts::relevance_storage::none);
  CHECK(coreset.sample(0).relevance.empty());
  CHECK_NOTHROW(coreset.shrink(12));
  CHECK(has(message_of([&] { coreset.shrink(3); }), "keeps no relevance"));
}

TEST_CASE("tokens of a memory may be sharper than others, also in its file, when moved and when shrunk") {
  auto format = grid;
  format.relevance = cts::relevance_storage::f32;
  cts::token_memory memory(format, cts::dct_codec{20});
  const auto pixels = sample_of({7, 2, 11, 5}, {1, 4, 3, 2}, 1);
  const std::vector<std::uint8_t> each{90, 5, 20, 60}, one{70};  // of the tokens as they are handed in
  auto sample = pixels.view();
  memory.append(sample);
  sample.qualities = each;
  memory.append(sample);
  sample.qualities = one;
  memory.append(sample);
  using qualities = std::vector<std::uint8_t>;
  CHECK(memory.qualities(0) == qualities(4, 20));
  CHECK(memory.qualities(1) == qualities{5, 60, 90, 20});  // in the order of their positions
  CHECK(memory.qualities(2) == qualities(4, 70));
  CHECK(copy(memory.sample(2).patches) != copy(memory.sample(0).patches));

  const scratch_file file;
  memory.save(file.path);
  const auto again = cts::load_token_memory(file.path);
  CHECK(same(again, memory));
  CHECK(again.qualities(1) == qualities{5, 60, 90, 20});
  memory.keep(std::vector<cts::index>{1, 0});
  CHECK(memory.qualities(0) == qualities{5, 60, 90, 20});
  memory.shrink(2);  // tokens 2 and 11
  CHECK(copy(memory.sample(0).positions) == std::vector<std::uint16_t>{2, 11});
  CHECK(memory.qualities(0) == qualities{5, 20});

  sample.qualities = std::span(each).first(3);
  CHECK(has(message_of([&] { memory.append(sample); }), "3 qualities for 4 tokens"));
  sample.qualities = one;
  cts::token_memory raw(format);
  CHECK(has(message_of([&] { raw.append(sample); }), "codec 'raw'"));
  CHECK(raw.empty());
}

TEST_CASE("a memory survives its file to the bit, and its size is known before") {
  const scratch_file file;
  for (const auto relevance :
       {cts::relevance_storage::none, cts::relevance_storage::f16, cts::relevance_storage::f32}) {
    auto memory = example(relevance);
    memory.save(file.path);
    CHECK(static_cast<cts::index>(fs::file_size(file.path)) == memory.bytes_on_disk());
    CHECK(same(cts::load_token_memory(file.path), memory));
    CHECK(cts::verify_token_memory(file.path).empty());

    memory.metadata()["model_hash"] = "0123 \x01 \\ ü";
    for (int i = 0; i < 9; ++i) memory.append(example(relevance));
    memory.save(file.path);
    CHECK(static_cast<cts::index>(fs::file_size(file.path)) == memory.bytes_on_disk());
    CHECK(same(cts::load_token_memory(file.path), memory));
  }
  const cts::token_memory nothing(cts::patch_grid{4, 4, 1, 2});
  nothing.save(file.path);
  CHECK(static_cast<cts::index>(fs::file_size(file.path)) == nothing.bytes_on_disk());
  CHECK(same(cts::load_token_memory(file.path), nothing));
}

TEST_CASE("prompts and answers stay with their samples") {
  const scratch_file file;
  auto format = grid;
  format.texts = true;
  cts::token_memory memory(format);
  const auto tokens = sample_of({1, 4}, {1, 2}, 3);
  const auto with = [&](std::string_view prompt, std::string_view answer) {
    auto view = tokens.view();
    view.prompt = prompt, view.answer = answer;
    return view;
  };
  memory.append(with("what colour?", "red"));
  memory.append(with("", "ein grünes Haus \xff"));
  memory.append(with("how many?", ""));
  memory.append(memory);
  CHECK(memory.sample(1).answer == "ein grünes Haus \xff");
  CHECK(memory.sample(5).prompt == "how many?");
  memory.save(file.path);
  CHECK(static_cast<cts::index>(fs::file_size(file.path)) == memory.bytes_on_disk());
  auto again = cts::load_token_memory(file.path);
  again.evict(std::vector<cts::index>{0, 3, 4, 5});
  again.shrink(1);
  REQUIRE(again.samples() == 2);
  CHECK(again.sample(0).prompt.empty());
  CHECK(again.sample(0).answer == "ein grünes Haus \xff");
  CHECK(again.sample(1).prompt == "how many?");
  CHECK(again.sample(1).answer.empty());
  CHECK(cts::verify_token_memory(file.path).empty());

  cts::token_memory plain(grid);
  CHECK(has(message_of([&] { plain.append(with("a", "b")); }), "without"));
  auto broken = memory.arrays();
  broken.text_offsets[2] = broken.text_offsets[3] + 1;
  CHECK(has(message_of([&] { cts::token_memory{broken}; }), "text_sizes"));
}

TEST_CASE("the file is plain safetensors under the documented names") {
  const scratch_file file;
  example(cts::relevance_storage::f16).save(file.path);
  const auto plain = cts::load_safetensors(file.path);
  CHECK(plain.at("patches").shape == std::vector<cts::index>{16, 12});
  const auto kept = plain.at("kept").as<int>();
  CHECK(plain.at("kept").shape == std::vector<cts::index>{3, 2});
  CHECK(kept == std::vector<int>{(1 << 2) + (1 << 7), 1 << 3, 1, 0, 255, 15});
  CHECK(plain.at("targets").as<int>() == std::vector<int>{4, -1, 4});
  CHECK(plain.at("targets").type == cts::dtype::i32);  // one of them is negative
  CHECK(plain.at("weights").as<float>() == std::vector<float>{0.25f, 1, 2});
  CHECK(plain.at("weights").type == cts::dtype::f16);
  CHECK(plain.at("tasks").as<int>() == std::vector<int>{0, 0, 1});
  CHECK(plain.at("tasks").type == cts::dtype::u8);
  CHECK(plain.at("relevance").type == cts::dtype::f16);
  CHECK(plain.at("relevance_scale").as<float>() == std::vector<float>{2, 3, 9});
  CHECK(plain.metadata.at("recipe") == "GradLRP \"10 %\"");
  CHECK(plain.metadata.at("grid") == "[6,8,3,2]");
  CHECK(plain.metadata.at("codec") == "raw");

  auto reserved = example();
  reserved.metadata()["checksum.patches"] = "x";
  CHECK(has(message_of([&] { reserved.save(file.path); }), "reserved"));
}

TEST_CASE("a codec of one's own packs when a sample is appended, and the file says which one it needs") {
  const scratch_file file;
  cts::token_memory memory(cts::patch_grid{8, 8, 1, 4}, coarse_codec{.step = 10});
  std::vector<std::uint8_t> pixels(32);
  for (std::size_t i = 0; i < 32; ++i) pixels[i] = static_cast<std::uint8_t>(8 * i);
  memory.append({.patches = pixels, .positions = std::vector<std::uint16_t>{3, 0}});
  const auto now = memory.sample(0).patches;
  CHECK(now[0] == 16 * 8 / 10 * 10);  // position 0 came second, and its pixels are coarse already
  memory.save(file.path);
  CHECK(static_cast<cts::index>(fs::file_size(file.path)) == memory.bytes_on_disk());
  const auto again = cts::load_token_memory(file.path, coarse_codec{}, run_codec{});
  CHECK(same(again, memory));
  CHECK(again.codec().text() == "coarse:step=10");
  CHECK(again.sample(0).patches == now);  // what is replayed live and after a restart are the same pixels
  CHECK(cts::load_safetensors(file.path).metadata.at("codec") == "coarse:step=10");
  CHECK(
      has(message_of([&] { cts::load_token_memory(file.path); }), "packed by the codec 'coarse', which was not given"));
  CHECK(has(message_of([&] { cts::load_token_memory(file.path, cts::any_codec(coarse_codec{.step = 9})); }),
            "expected 'coarse:step=9'"));

  // Sizes differ from sample to sample, evicting and joining copies what is packed, and nothing is packed twice.
  cts::token_memory runs(cts::patch_grid{8, 8, 1, 4}, run_codec{});
  const std::vector<std::uint8_t> flat(32, 9);
  runs.append({.patches = flat, .positions = std::vector<std::uint16_t>{0, 3}});
  runs.append({.patches = pixels, .positions = std::vector<std::uint16_t>{0, 3}, .target = 1});
  CHECK(runs.arrays().pixel_offsets == std::vector<std::uint64_t>{0, 2, 66});
  runs.append(runs);
  runs.evict(std::vector<cts::index>{0, 1});
  CHECK(runs.arrays().pixel_offsets == std::vector<std::uint64_t>{0, 2, 66});
  CHECK(runs.sample(0).patches == flat);
  CHECK(runs.sample(1).patches == pixels);
  runs.save(file.path);
  CHECK(same(cts::load_token_memory(file.path, run_codec{}), runs));
  auto broken = runs.arrays();
  broken.pixels[0] = std::byte{31};
  CHECK(has(message_of([&] { cts::token_memory(broken, run_codec{}); }), "run codec"));
}

TEST_CASE("columns travel with their samples, and readers that do not know them carry them along") {
  const scratch_file file;
  auto memory = example();
  memory.add_column({"age", cts::dtype::u16, 2, false});
  memory.add_column({"age", cts::dtype::u8, 1, true});
  CHECK(has(message_of([&] { memory.add_column({"age", cts::dtype::f32, 1, false}); }), "two columns named"));
  auto columns = example();
  columns.add_column({"age", cts::dtype::u8, 1, true});
  const auto write = [&](cts::index s, std::uint8_t value) {
    for (auto& x : columns.column("age", s)) x = std::byte{value++};
  };
  write(0, 10), write(1, 20), write(2, 30);
  CHECK(columns.column("age", 2).size() == 12);
  columns.evict(std::vector<cts::index>{1});
  CHECK(columns.column("age", 1)[11] == std::byte{41});
  columns.shrink(2);  // positions 1 and 4
  CHECK(columns.column("age", 1)[0] == std::byte{31});
  CHECK(columns.column("age", 1)[1] == std::byte{34});
  columns.append(sample_of({5}, {1}, 0).view());
  CHECK(columns.column("age", 2)[0] == std::byte{0});
  columns.save(file.path);
  CHECK(static_cast<cts::index>(fs::file_size(file.path)) == columns.bytes_on_disk());
  CHECK(same(cts::load_token_memory(file.path), columns));
  CHECK(cts::load_safetensors(file.path).at("token.age").shape == std::vector<cts::index>{5, 1});
  auto tensors = cts::load_safetensors(file.path);
  tensors.arrays["token.age"].bytes[0] ^= std::byte{1};
  cts::save_safetensors(file.path, tensors);
  CHECK(has(message_of([&] { cts::load_token_memory(file.path); }), "'token.age' was altered"));
  CHECK(has(message_of([&] { columns.column("weight", 0); }), "no column 'weight'"));
}

TEST_CASE("an altered array is named") {
  const scratch_file file;
  example(cts::relevance_storage::f16).save(file.path);
  const auto good = cts::load_safetensors(file.path);
  for (const auto& entry : good.arrays) {
    INFO(entry.first);
    auto broken = good;
    broken.arrays[entry.first].bytes.back() ^= std::byte{1};
    cts::save_safetensors(file.path, broken);
    const auto message = message_of([&] { cts::load_token_memory(file.path); });
    CHECK(has(message, "'" + entry.first + "' was altered"));
    CHECK(has(message, file.path.string()));
    CHECK(cts::verify_token_memory(file.path).size() == 1);

    broken = good;
    broken.arrays.erase(entry.first);
    cts::save_safetensors(file.path, broken);
    CHECK(has(message_of([&] { cts::load_token_memory(file.path); }), "'" + entry.first + "' is missing"));
  }
  auto broken = good;
  broken.arrays["targets"].bytes[0] ^= std::byte{1};
  broken.arrays["weights"].bytes[0] ^= std::byte{1};
  broken.metadata["seed"] = "8";
  broken.arrays["extra"] = good.at("tasks");
  cts::save_safetensors(file.path, broken);
  CHECK(cts::verify_token_memory(file.path).size() == 4);

  const auto bytes = cts::safetensors_to_bytes(good);
  cts::write_file(file.path, std::span(bytes).first(bytes.size() - 1));
  CHECK(has(message_of([&] { cts::load_token_memory(file.path); }), "ends at byte"));
  cts::save_safetensors(file.path, cts::tensor_file{});
  CHECK(has(message_of([&] { cts::load_token_memory(file.path); }), "not a token memory"));
  CHECK(cts::verify_token_memory(file.path.string() + ".none").size() == 1);
}

TEST_CASE("any single bit that turns is found") {
  const scratch_file file;
  cts::token_memory memory({.grid = {4, 4, 1, 2}, .relevance = cts::relevance_storage::f16});
  memory.append({.patches = std::vector<std::uint8_t>(8, 77),
                 .positions = std::vector<std::uint16_t>{1, 2},
                 .relevance = std::vector<float>{1, 0.5f}});
  memory.metadata()["seed"] = "3";
  memory.save(file.path);
  const auto good = cts::read_file(file.path);
  std::string missed;
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    auto bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    try {  // the checks of load, without 10000 files
      const auto problems = cts::detail::memory_file_problems(cts::safetensors_from_bytes(bytes));
      if (problems.empty()) missed += " " + std::to_string(bit);
    } catch (const cts::Error&) {
    }
  }
  CHECK(missed == "");
}

TEST_CASE("arrays with right checksums that do not fit each other are refused") {
  const scratch_file file;
  const auto forged = [&](auto&& change) {
    auto arrays = example().arrays();
    change(arrays);
    return message_of([&] { cts::token_memory{arrays}; });
  };
  CHECK(forged([](auto&) {}).empty());
  CHECK(has(forged([](auto& a) { a.positions[1] = 12; }), "'positions'"));
  CHECK(has(forged([](auto& a) { a.positions[1] = a.positions[0]; }), "'positions'"));
  CHECK(has(forged([](auto& a) { a.offsets[2] = 3; }), "'offsets'"));
  CHECK(has(forged([](auto& a) { a.offsets[1] = ~std::uint64_t{0}; }), "'offsets'"));
  CHECK(has(forged([](auto& a) { a.offsets.back() = 17; }), "'offsets'"));
  CHECK(has(forged([](auto& a) { a.pixels.pop_back(); }), "'patches'"));
  CHECK(has(forged([](auto& a) { a.weights[0] = NAN; }), "'weights'"));
  CHECK(has(forged([](auto& a) { a.tasks.pop_back(); }), "'tasks'"));
  CHECK(has(forged([](auto& a) { a.relevance[0] = NAN; }), "'relevance'"));

  // The same through a file: shapes, types and settings with matching checksums.
  const auto rewritten = [&](auto&& change) {
    example().save(file.path);
    auto tensors = cts::load_safetensors(file.path);
    change(tensors);
    for (const auto& [name, array] : tensors.arrays)
      tensors.metadata["checksum." + name] = cts::checksum_text(cts::fnv1a(array.bytes));
    tensors.metadata["checksum.metadata"] = cts::detail::metadata_checksum(tensors.metadata);
    cts::save_safetensors(file.path, tensors);
    return message_of([&] { cts::load_token_memory(file.path); });
  };
  CHECK(rewritten([](auto&) {}).empty());
  CHECK(has(rewritten([](auto& t) { t.arrays["kept"].bytes[0] = t.arrays["kept"].bytes[1] = std::byte{0}; }),
            "sample 0 keeps no token"));
  CHECK(has(rewritten([](auto& t) { t.arrays["kept"].bytes[1] = std::byte{16}; }), "keeps position 12 of 12"));
  CHECK(has(rewritten([](auto& t) { t.arrays["kept"].bytes[0] |= std::byte{1}; }), "'patches' has 192 bytes"));
  CHECK(has(rewritten([](auto& t) { t.arrays["kept"].shape = {6, 1}; }), "expected 2 bytes a sample"));
  CHECK(has(rewritten([](auto& t) { t.arrays["targets"] = t.arrays["targets"].to(cts::dtype::i64); }), "has type I64"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "[6,8,3,1]"; }), "expected 6 bytes a sample"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "[6,8,3,0]"; }), "patches of 0"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "[6e30,8,3,2]"; }), "makes no sense"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "6"; }), "makes no sense"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "[6,8,3,2"; }), "makes no sense"));
  CHECK(has(rewritten([](auto& t) { t.metadata["grid"] = "[6,8,3,[2]]"; }), "makes no sense"));
  const std::string deep(1'000'000, '[');
  CHECK(has(rewritten([&](auto& t) { t.metadata["grid"] = deep + std::string(deep.size(), ']'); }), "makes no sense"));
  CHECK(has(rewritten([](auto& t) {  // 16 GiB, if anything were unpacked before the codec is known
              t.metadata["grid"] = "[65536,65536,4,65536]", t.metadata["codec"] = "x";
            }),
            "packed by the codec 'x'"));
  CHECK(has(rewritten([](auto& t) { t.metadata.erase("grid"); }), "'grid' is missing"));
  CHECK(has(rewritten([](auto& t) { t.metadata["version"] = "1"; }), "version 2"));
}

TEST_CASE("describe counts what is there") {
  const auto d = cts::describe(example());
  CHECK(d["samples"] == 3);
  CHECK(d["tokens"] == 16);
  CHECK(d["bytes"] == example().bytes_on_disk());
  CHECK(d["samples_per_class"] == cts::json{{"4", 2}, {"-1", 1}});
  CHECK(d["samples_per_task"] == cts::json{{"0", 2}, {"1", 1}});
  CHECK(d["tokens_per_task"] == cts::json{{"0", 4}, {"1", 12}});
  CHECK(d["tokens_per_sample"]["fewest"] == 1);
  CHECK(d["tokens_per_sample"]["most"] == 12);
  CHECK(d["tokens_per_sample"]["mean"].get<double>() == Approx(16.0 / 3));
  CHECK(d["kept_fraction"].get<double>() == Approx(16.0 / 36));
  CHECK(d["whole_images"] == 1);
  CHECK(d["bytes_of_raw_images"] == 3 * 6 * 8 * 3);
  CHECK(d["metadata"]["seed"] == "7");
  cts::index sum = 0;
  for (const auto& [name, size] : d["bytes_per_array"].items()) sum += size.get<cts::index>();
  CHECK(sum == example().bytes_on_disk());
  CHECK(cts::describe(cts::token_memory(grid))["kept_fraction"] == 0.0);
}

}  // namespace memory_token_memory_tests
