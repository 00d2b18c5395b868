// A user's program of several processes; prints the sum of their numbers.

#include <core_tokensets/core/mpi.hpp>
#include <cstdio>

int main() {
  const core_tokensets::team ranks{core_tokensets::mpi()};
  double x = ranks.rank() + 1;
  ranks.all_reduce(std::span(&x, 1), "adding");
  if (ranks.leads()) std::printf("%g over %d\n", x, ranks.size());
}
