# The CUDA backend where nvcc is found: a program that runs where there is a device and says so where there is none, and
# a look at its assembly.
if(TARGET core_tokensets::cuda)
  add_executable(cts_tests_cuda cuda/device.cu)
  target_link_libraries(cts_tests_cuda PRIVATE core_tokensets::dev core_tokensets::cuda cts_test_main)
  add_test(NAME cts_tests_cuda COMMAND cts_tests_cuda)
  set_tests_properties(cts_tests_cuda PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: no CUDA device")

  # nvcc turns a kernel that calls what the device does not have into one that ends the program, without a word.
  add_library(cts_cuda_assembly OBJECT EXCLUDE_FROM_ALL cuda/kernels.cu)
  set_target_properties(cts_cuda_assembly PROPERTIES CUDA_PTX_COMPILATION ON CUDA_ARCHITECTURES 90-virtual)
  target_include_directories(cts_cuda_assembly PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(cts_cuda_assembly PRIVATE core_tokensets::dev core_tokensets::cuda)
  add_test(NAME cuda_kernels_have_code
           COMMAND ${CMAKE_COMMAND} -D ROOT=${PROJECT_SOURCE_DIR} -D BUILD=${PROJECT_BINARY_DIR} -D "FILES=$<TARGET_OBJECTS:cts_cuda_assembly>"
                   -P ${CMAKE_CURRENT_SOURCE_DIR}/cuda/kernels_have_code.cmake)
  set_tests_properties(cuda_kernels_have_code PROPERTIES RUN_SERIAL ON)
else()
  cts_skip_test(cts_tests_cuda "nvcc is missing, or CTS_CUDA is OFF")
  cts_skip_test(cuda_kernels_have_code "nvcc is missing, or CTS_CUDA is OFF")
endif()
