// The model and all attributions on a backend that has the ten required functions and nothing else, in memory that only
// they can reach: proof that nothing goes around the interface.

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "model/vit_checks.hpp"
#include "support/archetype.hpp"

namespace cts = core_tokensets;

TEST_CASE("the archetype reproduces the golden ViT", "[vit][golden][archetype]") {
  vit_checks::check_all(support::archetype_backend<double>(), "vit_c");
}

TEST_CASE("the archetype agrees with the reference on batches of every shape", "[vit][ragged][archetype]") {
  vit_checks::check_agreement(support::archetype_backend<double>());
}

TEST_CASE("every attribution runs on the archetype", "[attribution][archetype]") {
  using B = support::archetype_backend<float>;
  B b;
  const cts::vit_config c{.image = {8, 8, 1}, .patch = 2, .dim = 8, .depth = 2, .heads = 2, .classes = 3};
  const auto model = ragged::lively_model(b, c);
  const auto batch = ragged::noise(c, {16, 3, 0, 7});
  cts::attribution_workspace<B> ws;
  cts::reference_backend<float> plain;
  const auto same_model = ragged::lively_model(plain, c);
  cts::attribution_workspace<cts::reference_backend<float>> plain_ws;
  const auto each = [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto check = [&](const cts::attribution_method& method) {
      CHECK(cts::attribute(method, b, model, batch, {}, ws) ==
            cts::attribute(method, plain, same_model, batch, {}, plain_ws));
    };
    (check(std::variant_alternative_t<I, cts::attribution_method>{}), ...);
  };
  each(std::make_index_sequence<std::variant_size_v<cts::attribution_method>>());
}

TEST_CASE("the archetype's memory cannot be touched from outside", "[archetype]") {
  support::archetype_backend<float> b;
  cts::tensor<support::archetype_backend<float>> x(b, 2, 3);
  float host[6] = {};
  CHECK_THROWS_AS(b.fill(cts::view<float>(host, 2, 3), 1.0f), cts::Error);
  CHECK_THROWS_AS(b.upload(host, host, 6), cts::Error);
  CHECK_THROWS_AS(b.upload(x.data(), x.data(), 6), cts::Error);
  for (const bool write : {false, true}) {
    const pid_t child = fork();
    if (child == 0) {
      std::signal(SIGSEGV, SIG_DFL);
      volatile float* p = x.data();
      if (write) *p = 1;
      static_cast<void>(*p);
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_FALSE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  b.fill(*x, 2.0f);
  CHECK(x.to_host(b) == std::vector<float>(6, 2.0f));
}
