#include "ranks.hpp"

#include <cstdlib>

#ifdef CTS_HAS_MPI
#include "core_tokensets/core/mpi.hpp"
#endif

namespace cts_command {

namespace cts = core_tokensets;

namespace {

bool joined = false;

/// A number that Open MPI's launcher, or that of MPICH and its like, leaves for the programs that it starts.
int number_of(const char* open_mpi, const char* others, int otherwise) {
  for (const char* name : {open_mpi, others}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return otherwise;
}

}  // namespace

int started_ranks() { return number_of("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", 1); }
int started_rank() { return number_of("OMPI_COMM_WORLD_RANK", "PMI_RANK", 0); }

cts::team join_ranks() {
  const int ranks = started_ranks();
  if (ranks <= 1) return {};
#ifdef CTS_HAS_MPI
  cts::team all{cts::mpi()};
  joined = true;
  return all;
#else
  cts::fail("started as ", ranks,
            " processes, and this program was built without MPI (Debian: libopenmpi-dev); start it ", "as one");
#endif
}

bool ranks_joined() { return joined; }

}  // namespace cts_command
