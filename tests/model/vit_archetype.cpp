// The model and all attributions on a backend that has the ten required functions and nothing else, in memory that only
// they can reach: proof that nothing goes around the interface.

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "model/vit_checks.hpp"
#include "support/archetype.hpp"
#include "support/methods.hpp"

namespace model_vit_archetype_tests {

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
  const cts::vit_config c{.grid = {8, 8, 1, 2}, .dim = 8, .depth = 2, .heads = 2, .classes = 3};
  const auto model = ragged::lively_model(b, c);
  const auto batch = ragged::noise(c, {16, 3, 0, 7});
  cts::reference_backend<float> plain;
  const auto same_model = ragged::lively_model(plain, c);
  for (const auto& name : names_of(cts::attribution_methods{})) {
    INFO(name);
    CHECK(attribute(support::method_named<B>(name), b, model, batch) ==
          attribute(support::method_named<cts::reference_backend<float>>(name), plain, same_model, batch));
  }
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

}  // namespace model_vit_archetype_tests
