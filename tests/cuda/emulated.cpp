// The CUDA backend's own kernels on an emulated device: what they compute, and what the host does on the way.

#include "cuda/conformance.hpp"
#include "cuda/vit_cases.hpp"
#include "model/token_weight_checks.hpp"
#include "support/cuda_emulation.hpp"
#include "support/ragged.hpp"
#include "support/steps.hpp"

namespace cuda_emulated_tests {

namespace {

namespace cts = core_tokensets;
using backend = cuda_emulation::backend;
using cuda_emulation::device;

/// Puts the emulated devices back to what they were.
struct usual_behaviour {
  ~usual_behaviour() { device::settings = {}; }
};

backend exact() { return backend({.arithmetic = cts::cuda::arithmetic::f32}); }

const cts::vit_config small{.grid = {12, 12, 1, 4}, .dim = 24, .depth = 2, .heads = 2, .classes = 5};

/// Gradients of a ragged batch, token by token in the same order.
std::vector<float> gradients_of(backend& b, const cts::token_batch& batch) {
  const auto model = ragged::lively_model(b, small);
  vit_cases::pass<backend> run;
  run.run(b, model, batch);
  return run.gradients.to_host(b);
}

}  // namespace

TEST_CASE("the CUDA kernels conform", "[cuda]") {
  backend b = exact();
  conformance::suite<backend>{b, 1e-4}.all();
}

TEST_CASE("products of rounded numbers conform", "[cuda]") {
  for (const auto how : {cts::cuda::arithmetic::tf32, cts::cuda::arithmetic::bf16}) {
    backend b({.arithmetic = how});
    conformance::suite<backend>{b, 1e-4, how}.products();
  }
}

TEST_CASE("the CUDA backend reproduces the golden ViT", "[cuda][golden]") {
  backend b = exact();
  vit_cases::check_all(b, "vit_c");
}

TEST_CASE("the CUDA backend sees a token of weight w as w equal tokens", "[cuda][weights]") {
  token_weight_checks::check_repeats(exact(), 1e-4);
  token_weight_checks::check_ones(exact());
}

TEST_CASE("TF32 and bfloat16 round what is multiplied and nothing else", "[cuda]") {
  const usual_behaviour after;
  const auto batch = ragged::noise(small, {9, 4, 0, 7});
  backend plain = exact();
  const auto want = gradients_of(plain, batch);
  for (const auto& [how, least, most] :
       {std::tuple{cts::cuda::arithmetic::tf32, 1e-5, 2e-3}, {cts::cuda::arithmetic::bf16, 1e-4, 2e-2}}) {
    backend b({.arithmetic = how});
    const double error = golden::distance(gradients_of(b, batch), want);
    CHECK(error > least);
    CHECK(error < most);
  }
}

TEST_CASE("numbers are rounded to the nearest that TF32 and bfloat16 have", "[cuda]") {
  using namespace cts::cuda;
  CHECK(round_to_tf32(1 + 0x1p-11f) == 1 + 0x1p-10f);  // a tie goes away from zero
  CHECK(round_to_tf32(-1 - 0x1p-11f) == -1 - 0x1p-10f);
  CHECK(round_to_tf32(1 + 0x1p-12f) == 1);
  CHECK(round_to_bf16(1 + 0x1p-8f) == 1);  // a tie goes to even
  CHECK(round_to_bf16(1 + 0x1.8p-7f) == 1 + 0x1p-6f);
  CHECK(round_to_bf16(1 + 0x1.1p-8f) == 1 + 0x1p-7f);
  for (const float x : {HUGE_VALF, -HUGE_VALF, 0.0f}) {
    CHECK(round_to_tf32(x) == x);
    CHECK(round_to_bf16(x) == x);
  }
  CHECK(std::isnan(round_to_tf32(std::nanf(""))));
  CHECK(static_cast<std::uint16_t>(to_bfloat(std::bit_cast<float>(0x7f800001u))) == 0x7fff);
}

TEST_CASE("results do not depend on the order of threads and blocks", "[cuda]") {
  const usual_behaviour after;
  const auto batch = ragged::noise(small, {9, 4, 0, 7});
  backend b = exact();
  const auto want = gradients_of(b, batch);
  device::settings.backwards = true;
  CHECK(gradients_of(b, batch) == want);
  conformance::suite<backend>{b, 1e-4}.fused_rows();
}

TEST_CASE("a step whose shapes repeat is replayed as one graph, with the numbers of the day", "[cuda][graph]") {
  const usual_behaviour after;
  const auto train = [&](bool graphs) {
    backend b = exact();
    auto model = ragged::lively_model(b, small);
    cts::training_state<backend> state;
    state.optimiser.reset(b, model.layout().parameters);
    for (int i = 0; i < 12; ++i) {
      // Two shapes in turn; other pictures, weights and learning rate in every step; once another batch of the same
      // size.
      auto batch = ragged::noise(small,
                                 i % 2    ? std::vector{9, 4, 7}
                                 : i == 6 ? std::vector{5, 5}
                                          : std::vector{3, 7},
                                 static_cast<std::uint64_t>(i));
      for (cts::index s = 0; s < batch.samples(); ++s) batch.weights.push_back(static_cast<float>(s + i));
      const auto step = [&] { steps::train(b, model, batch, state, 1.0 / (1 + i), 0.1); };
      graphs ? b.repeat(batch.tokens() * 100 + batch.samples(), step) : step();
    }
    return model.parameters().to_host(b);
  };
  const auto want = train(false);
  CHECK(device::settings.graph_launches == 0);
  CHECK(train(true) == want);
  CHECK(device::settings.graph_launches == 6);  // not: a first step, its tables found again, other lengths
  CHECK(device::settings.captures <= 4);
  CHECK(device::settings.updates < 200);
  device::settings.lagging = true;
  CHECK(train(true) == want);
}

TEST_CASE("within a repeated step, errors, downloads and freed memory behave as without", "[cuda][graph]") {
  const usual_behaviour after;
  backend b = exact();
  cts::tensor<backend> x(b, 1, 100);
  b.fill(*x, 1);
  const cts::fn::scale<float> twice{2};
  for (int i = 0; i < 4; ++i) b.repeat(1, [&] { b.map(twice, *x); });
  CHECK(x.to_host(b)[99] == 16);
  CHECK(b.commands().replays() == 3);
  for (int i = 0; i < 4; ++i) {
    b.repeat(1, [&] {
      b.map(twice, *x);
      if (i == 2) b.map(twice, *x);
    });
  }
  CHECK(x.to_host(b)[0] == 16 * 32);
  CHECK_THROWS_AS(b.repeat(1,
                           [&] {
                             b.map(twice, *x);
                             cts::fail("stop");
                           }),
                  cts::Error);
  CHECK(x.to_host(b)[0] == 16 * 64);
  for (int i = 0; i < 3; ++i) {
    b.repeat(2, [&] {
      b.map(twice, *x);
      CHECK(x.to_host(b)[5] == static_cast<float>(16 * (128 << i)));
    });
  }
  b.fill(*x, 1);
  for (int i = 0; i < 4; ++i) {
    cts::tensor<backend> other(b, 1, 100);
    b.fill(*other, 5);
    b.repeat(3, [&] {
      b.map(cts::fn::add{}, *x, *std::as_const(other));
      other = {};  // may still have to be read
      b.fill(*cts::tensor<backend>(b, 1, 100), -1);
    });
  }
  CHECK(x.to_host(b)[0] == 21);
}

TEST_CASE("a warm training step allocates nothing, waits for nothing and uploads its tables once", "[cuda]") {
  const usual_behaviour after;
  backend b = exact();
  auto model = ragged::lively_model(b, small);
  cts::training_state<backend> state;
  state.optimiser.reset(b, model.layout().parameters);
  const auto batch = ragged::noise(small, {9, 4, 0, 7});
  const auto step = [&] { steps::train(b, model, batch, state); };
  step();
  const int first = device::settings.copies;
  device::settings = {};
  step();
  CHECK(device::settings.allocations == 0);
  CHECK(device::settings.waits == 0);
  CHECK(device::settings.copies < 8);  // patches, four lists of rows, targets
  CHECK(first > device::settings.copies);
  CHECK(state.tape.blocks[0].a.empty());
}

TEST_CASE("memory may outlive its backend and goes back to the device", "[cuda]") {
  cts::tensor<backend> x;
  std::vector<float> numbers(3'000'000, 1.5f);  // more than goes through the staging memory at once
  {
    backend b = exact();
    x.assign(b, 1000, 3000, numbers.data());
    backend copy = b;
    CHECK(x.to_host(copy) == numbers);
  }
  x = {};
}

TEST_CASE("attention asks for its tables again where there was no memory for others", "[cuda][memory]") {
  const usual_behaviour after;
  backend b = exact();
  cts::tensor<backend> x(b, 600, 8), out(b, 600, 8);
  std::vector<float> numbers(600 * 8);
  cts::random_stream random(1);
  for (float& n : numbers) n = static_cast<float>(random.normal());
  x.assign(b, 600, 8, numbers.data());
  const auto attend = [&](const std::vector<cts::index>& offsets) {
    const cts::attention_rows rows(cts::sequences{offsets});
    const auto heads = [&](auto v) { return v.slice_rows(0, offsets.back()).split_cols(2); };
    const cts::view<const float> in = heads(*std::as_const(x));
    b.fill(*out, 0);
    b.attention(rows, in, in, in, 0.5f, heads(*out), nullptr, nullptr);
    return out.to_host(b);
  };
  const std::vector<cts::index> first{0, 3, 7}, large{0, 100, 200, 300, 400, 500, 600};
  const auto want = attend(first), want_large = attend(large);
  for (const cts::index last : {8, 9, 10, 11}) attend({0, last});  // all tables are in use, none is the first
  attend(first);
  for (const cts::index last : {8, 9, 10}) attend({0, last});
  const auto in_use = b.device().in_use();
  device::settings.requests = 0;
  CHECK_THROWS_AS(attend(large), std::bad_alloc);
  CHECK(b.device().in_use() == in_use);
  CHECK(attend(first) == want);
  CHECK(attend(large) == want_large);
}

TEST_CASE("whichever request for memory fails, the next attempt succeeds and nothing is lost", "[cuda][memory]") {
  const usual_behaviour after;
  const cts::vit_config least{.grid = {8, 8, 1, 4}, .dim = 8, .depth = 1, .heads = 1, .classes = 2};
  const auto batch = ragged::noise(least, {3, 2});
  const auto work = [&](backend& b) {  // two steps, the second as a graph
    cts::vit<backend> model(b, least);
    cts::training_state<backend> state;
    state.optimiser.reset(b, model.layout().parameters);
    for (int i = 0; i < 2; ++i) b.repeat(1, [&] { steps::train(b, model, batch, state); });
    return model.parameters().to_host(b);
  };
  const cts::cuda_options how{.arithmetic = cts::cuda::arithmetic::bf16};
  backend undisturbed(how);
  const auto want = work(undisturbed);
  const auto in_use = undisturbed.device().in_use();
  int requests = 0;
  for (bool failed = true; failed; ++requests) {
    backend b(how);
    device::settings.requests = requests;
    failed = false;
    std::vector<float> got;
    try {
      got = work(b);
    } catch (const std::bad_alloc&) {
      failed = true;
      got = work(b);
    }
    INFO("after " << requests << " requests");
    CHECK(got == want);
    CHECK(b.device().in_use() == in_use);
  }
  CHECK(requests > 20);
}

TEST_CASE("uploads go on where there was no pinned memory for a moment", "[cuda][memory]") {
  const usual_behaviour after;
  const std::vector<float> numbers(5 << 20, 1.5f);  // more than a block of pinned memory holds
  for (int requests = 0; requests < 5; ++requests) {
    backend b = exact();
    device::settings = {.lagging = true, .requests = requests};
    cts::tensor<backend> x;
    CHECK_THROWS_AS(x.assign(b, 1, 5 << 20, numbers.data()), std::bad_alloc);
    x.assign(b, 1, 5 << 20, numbers.data());
    CHECK(b.device().pinned_in_use() <= 3);
    CHECK(x.to_host(b) == numbers);
  }
}

TEST_CASE("a repeated step whose work cannot be issued is forgotten", "[cuda][graph]") {
  const usual_behaviour after;
  backend b = exact();
  cts::tensor<backend> x(b, 1, 100);
  b.fill(*x, 1);
  const auto twice = [&] { b.map(cts::fn::scale<float>{2}, *x); };
  for (int i = 0; i < 3; ++i) b.repeat(1, twice);
  device::settings.failing = 1;
  const auto stops = [&] {
    twice();
    cts::fail("stop");
  };
  CHECK_THROWS_WITH(b.repeat(1, stops), "stop");
  CHECK(b.commands().replays() == 2);
  for (int i = 0; i < 3; ++i) b.repeat(1, twice);
  CHECK(b.commands().replays() == 4);
  CHECK(x.to_host(b)[99] == 64);
}

}  // namespace cuda_emulated_tests
