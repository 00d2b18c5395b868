# Defines core_tokensets::cuda, which programs with CUDA sources link, where the toolkit is. The language CUDA is enabled
# before. Used here and by the installed package.
get_property(cts_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(NOT TARGET core_tokensets::cuda AND "CUDA" IN_LIST cts_languages)
  find_package(CUDAToolkit 12 QUIET)
  if(CUDAToolkit_FOUND)
    add_library(core_tokensets::cuda INTERFACE IMPORTED GLOBAL)
    # The standard by its flag, since CMake 3.25 does not know the feature for nvcc 13. Kernels call the library's
    # constexpr functions on the device.
    target_compile_options(core_tokensets::cuda INTERFACE
                           "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr>")
    if(OpenMP_CXX_FOUND AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # nvcc's host compiler
      string(REPLACE " " "," cts_openmp_flags "${OpenMP_CXX_FLAGS}")
      target_compile_options(core_tokensets::cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${cts_openmp_flags}>)
    endif()
    # cuBLASLt is opened when it is needed: tensor/cuda/cublas_library.hpp.
    target_link_libraries(core_tokensets::cuda INTERFACE core_tokensets::core_tokensets CUDA::cudart ${CMAKE_DL_LIBS})
  endif()
endif()
