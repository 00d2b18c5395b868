# Defines core_tokensets::mpi, which programs that include core_tokensets/core/mpi.hpp link in addition, where an MPI is
# installed. Used here and by the installed package.
if(TARGET core_tokensets::mpi)
  return()
endif()
set(MPI_CXX_SKIP_MPICXX ON)  # the interface of C
find_package(MPI QUIET COMPONENTS CXX)
unset(MPI_CXX_SKIP_MPICXX)
if(MPI_CXX_FOUND)
  add_library(core_tokensets_mpi INTERFACE IMPORTED GLOBAL)
  add_library(core_tokensets::mpi ALIAS core_tokensets_mpi)
  target_link_libraries(core_tokensets_mpi INTERFACE core_tokensets::core_tokensets MPI::MPI_CXX)
endif()
