# Tests of the shape of the project: its includes, its headers, its format, and how users build with it.
cts_add_script(floors ${structure}/floors.cmake)
cts_add_script(floors_notices ${structure}/floors_notices.cmake -D OUT=${CMAKE_CURRENT_BINARY_DIR}/floors_notices)
cts_add_script(readme ${structure}/readme.cmake)
cts_add_script(device_script ${structure}/device_script.cmake -D OUT=${CMAKE_CURRENT_BINARY_DIR}/device_script)

# The public header in two translation units of one program.
add_executable(cts_tests_two_units ${structure}/unit_a.cpp ${structure}/unit_b.cpp)
target_link_libraries(cts_tests_two_units PRIVATE core_tokensets::dev)
set_target_properties(cts_tests_two_units PROPERTIES UNITY_BUILD OFF)
add_test(NAME two_units COMMAND cts_tests_two_units)

# The library as one file: the committed one is current, and a program builds with it and nothing else of ours.
cts_add_script(single_include ${PROJECT_SOURCE_DIR}/cmake/amalgamate.cmake -D CHECK=ON)
add_executable(cts_tests_single_include ${CMAKE_CURRENT_SOURCE_DIR}/consumer/readme.cpp)
get_target_property(dependencies core_tokensets INTERFACE_LINK_LIBRARIES)
target_compile_features(cts_tests_single_include PRIVATE cxx_std_20)
target_include_directories(cts_tests_single_include PRIVATE ${PROJECT_SOURCE_DIR}/single_include)
target_link_libraries(cts_tests_single_include PRIVATE ${dependencies})
target_compile_options(cts_tests_single_include PRIVATE -O1)  # what it prints is the README's; other bits learn otherwise
cts_add_script(single_include_program ${structure}/expected_output.cmake
               -D PROGRAM=$<TARGET_FILE:cts_tests_single_include> -D OUT=${CMAKE_CURRENT_BINARY_DIR}/readme
               -D EXPECTED=${CMAKE_CURRENT_SOURCE_DIR}/consumer/readme.expected)

# What the processor has and the program is not compiled for.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  add_executable(cts_tests_plain_x86 ${CMAKE_CURRENT_SOURCE_DIR}/structure/plain_x86.cpp
                                     ${CMAKE_CURRENT_SOURCE_DIR}/tensor/products.cpp)
  target_link_libraries(cts_tests_plain_x86 PRIVATE core_tokensets::core_tokensets cts_test_main)
  target_compile_options(cts_tests_plain_x86 PRIVATE -O2 -march=x86-64 -fno-trapping-math)
  add_test(NAME cts_tests_plain_x86 COMMAND cts_tests_plain_x86)
endif()

# Users' projects, configured, built and run as a user would.
function(cts_add_project name source)
  add_test(NAME ${name} COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${source} ${CMAKE_CURRENT_BINARY_DIR}/${name}
           --build-generator ${CMAKE_GENERATOR} --build-options -DCMAKE_BUILD_TYPE=Debug
           -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER} ${ARGN})
endfunction()
cts_add_project(consumer_add_subdirectory ${CMAKE_CURRENT_SOURCE_DIR}/consumer/add_subdirectory
                -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} --test-command consumer)
if(CTS_CAN_INSTALL)
  set(prefix ${CMAKE_CURRENT_BINARY_DIR}/installed)
  add_test(NAME install COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${prefix})
  cts_add_project(consumer_find_package ${CMAKE_CURRENT_SOURCE_DIR}/consumer/find_package
                  -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_PREFIX_PATH=${prefix} --test-command consumer)
  set_tests_properties(install PROPERTIES FIXTURES_SETUP installed)
  set_tests_properties(consumer_find_package PROPERTIES FIXTURES_REQUIRED installed)
else()
  cts_skip_test(consumer_find_package "dependencies were fetched, so nothing can be installed")
endif()

# Each header as if it were alone, and every program, read by the other compiler with warnings as errors.
# Without one this compiler reads the headers; it has built the programs.
find_program(CTS_CLANG NAMES clang++-14 clang++)
if(CTS_CLANG AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  cts_add_project(clang ${PROJECT_SOURCE_DIR} -DCMAKE_CXX_COMPILER=${CTS_CLANG} -DCTS_TESTS=OFF -DCTS_CUDA=OFF
                  -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=4 -DCTS_CHECK_ONLY=ON)
else()
  include(${PROJECT_SOURCE_DIR}/cmake/headers_alone.cmake)
  set_target_properties(cts_headers_alone PROPERTIES EXCLUDE_FROM_ALL ON)  # so that a broken header fails its test
  add_test(NAME headers_alone COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target cts_headers_alone)
  set_tests_properties(headers_alone PROPERTIES RUN_SERIAL ON)
  cts_skip_test(clang "clang++ is missing, or already the compiler")
endif()

# Counts what the C library hands out, so it needs one whose functions have second names.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT CMAKE_CXX_FLAGS MATCHES "sanitize")
  add_executable(cts_tests_warm_step ${structure}/warm_step.cpp)
  target_link_libraries(cts_tests_warm_step PRIVATE core_tokensets)
  add_test(NAME warm_step COMMAND cts_tests_warm_step)
else()
  cts_skip_test(warm_step "malloc is counted by the names that the C library of Linux has")
endif()

# A build without OpenMP, by both compilers.
add_executable(cts_tests_plain_step ${structure}/plain_step.cpp)
target_link_libraries(cts_tests_plain_step PRIVATE core_tokensets)
target_compile_options(cts_tests_plain_step PRIVATE -O2)
set(compilers ${CMAKE_CXX_COMPILER})
if(CTS_CLANG)
  string(APPEND compilers "|${CTS_CLANG}")
endif()
cts_add_script(no_openmp ${structure}/no_openmp.cmake -D PROGRAM=$<TARGET_FILE:cts_tests_plain_step>
               -D SOURCE=${structure}/plain_step.cpp "-DCOMPILERS=${compilers}" "-DFLAGS=${CMAKE_CXX_FLAGS}"
               "-DINCLUDES=$<JOIN:$<TARGET_PROPERTY:cts_tests_plain_step,INCLUDE_DIRECTORIES>,|>"
               -D OUT=${CMAKE_CURRENT_BINARY_DIR}/no_openmp)

find_program(CTS_CLANG_FORMAT NAMES clang-format-14)
if(CTS_CLANG_FORMAT)
  file(GLOB_RECURSE formatted CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/*.hpp ${PROJECT_SOURCE_DIR}/tests/*.?pp
       ${PROJECT_SOURCE_DIR}/tests/*.cu ${PROJECT_SOURCE_DIR}/bench/*.cu
       ${PROJECT_SOURCE_DIR}/examples/*.?pp ${PROJECT_SOURCE_DIR}/bench/*.?pp)
  add_test(NAME format COMMAND ${CTS_CLANG_FORMAT} --style=file --dry-run -Werror ${formatted})
else()
  cts_skip_test(format "clang-format-14 is missing; other versions format differently")
endif()
