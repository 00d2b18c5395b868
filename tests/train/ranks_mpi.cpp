// The communicator of MPI, and training on it. The program is run alone and as 2 and 4 ranks, all of which make every
// check.

#include "core_tokensets/core/mpi.hpp"
#include "core_tokensets/train/sequence.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"
#include "train/support.hpp"

namespace train_ranks_mpi_tests {

namespace {

namespace cts = core_tokensets;

static_assert(cts::communicator<cts::mpi>);

/// Begins MPI with the first test and ends it with the program.
const cts::mpi& world() {
  static const cts::mpi all;
  return all;
}

template <class T>
std::vector<T> values_of(int rank, std::size_t n) {
  std::vector<T> values(n);
  std::uint64_t bits = static_cast<std::uint64_t>(rank) + 1;
  for (T& v : values) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<T>(static_cast<std::int64_t>(bits)) / static_cast<T>(std::uint64_t{1} << (bits >> 58));
  }
  return values;
}

}  // namespace

TEMPLATE_TEST_CASE("sums over ranks are those of the tree to the bit", "[mpi]", double, float) {
  cts::mpi ranks = world();
  for (const std::size_t n : {0u, 1u, 3u, 1000u, 4'200'000u}) {  // the last in two blocks
    std::vector<std::vector<TestType>> all;
    std::vector<TestType*> parts;
    for (int r = 0; r < ranks.size(); ++r) parts.push_back(all.emplace_back(values_of<TestType>(r, n)).data());
    auto own = all[static_cast<std::size_t>(ranks.rank())];
    cts::add_in_tree<TestType>(parts, static_cast<std::ptrdiff_t>(n));
    ranks.all_reduce(std::span(own));
    CHECK((own == all[0]));
  }
}

TEST_CASE("bytes are gathered from all ranks and given to all", "[mpi]") {
  cts::mpi ranks = world();
  for (int round = 0; round < 50; ++round) {
    const std::vector<std::byte> own(static_cast<std::size_t>(ranks.rank() * round), std::byte(ranks.rank() + 1));
    const auto all = ranks.all_gather(own);
    REQUIRE(static_cast<int>(all.size()) == ranks.size());
    for (int r = 0; r < ranks.size(); ++r)
      CHECK((all[static_cast<std::size_t>(r)] ==
             std::vector<std::byte>(static_cast<std::size_t>(r * round), std::byte(r + 1))));
    const int root = round % ranks.size();
    std::vector<std::byte> some(100'000, std::byte(ranks.rank()));
    ranks.broadcast(some, root);
    CHECK((some == std::vector<std::byte>(some.size(), std::byte(root))));
  }
}

TEST_CASE("a rank that takes long is waited for", "[mpi]") {
  cts::mpi ranks = world();
  if (ranks.rank() == ranks.size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  CHECK(static_cast<int>(ranks.all_gather({}).size()) == ranks.size());
}

TEMPLATE_TEST_CASE("training on ranks of MPI gives the bits of one process", "[mpi]", double, float) {
  const auto parameters = [](const cts::team& ranks) {
    cts::eigen_backend<TestType> b(1);
    cts::learner_options o{.budget = cts::fraction(0.3),
                           .fit = {.epochs = 2, .batch = 7, .replay_batch = 6, .augment_replay = true, .pieces = 4}};
    o.fit.ranks = ranks;
    cts::continual_learner learner(b, support::small_model(b), o);
    for (const auto& t : support::small_stream()) learner.learn(t);
    return learner.model().parameters().to_host(b);
  };
  CHECK((parameters(world()) == parameters({})));
}

TEST_CASE("where a rank leaves the others are told, and none of them can go on", "[mpi]") {
  const cts::team ranks{cts::mpi()};  // of its own, on the processes of all
  if (ranks.alone()) return;
  if (ranks.rank() == 1) {
    ranks.leave("no more power");
  } else {
    CHECK(support::has(support::message_of([&] { ranks.wait("counting"); }), "no more power, noticed while counting"));
  }
  double x = 0;
  CHECK(
      support::has(support::message_of([&] { ranks.all_reduce(std::span(&x, 1), "adding"); }), "has left the others"));
}

}  // namespace train_ranks_mpi_tests
