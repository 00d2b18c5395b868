#pragma once
// The processes that this program was started as by mpirun.

#include "core_tokensets/core/communicator.hpp"

namespace cts_command {

/// How many there are, as the launcher says; 1 where there is none.
int started_ranks();
/// Which of them this is.
int started_rank();

/// All of them together; alone where there is one. `Error`: there are several, and this program was built without MPI.
core_tokensets::team join_ranks();
/// True after `join_ranks` where there are several: from then on they may end by different errors.
bool ranks_joined();

}  // namespace cts_command
