# Installed packages first; sources from the network where they are missing.
include(FetchContent)

# Fetches a project that has a CMakeLists.txt, without its tests; TARGET is what it defines.
function(cts_fetch name target url tag)
  message(STATUS "${name} is not installed: fetching ${url} ${tag}")
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
  set(BUILD_TESTING OFF)
  set(EIGEN_BUILD_DOC OFF)
  set(EIGEN_BUILD_PKGCONFIG OFF)
  FetchContent_Declare(${name} GIT_REPOSITORY ${url} GIT_TAG ${tag} GIT_SHALLOW ON)
  FetchContent_MakeAvailable(${name})
  # Its headers are not ours to warn about.
  get_target_property(real ${target} ALIASED_TARGET)
  if(NOT real)
    set(real ${target})
  endif()
  get_target_property(folders ${real} INTERFACE_INCLUDE_DIRECTORIES)
  if(folders)
    set_target_properties(${real} PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${folders}")
  endif()
endfunction()

find_package(Threads REQUIRED)
find_package(OpenMP QUIET COMPONENTS CXX)

# The package can only be installed where every dependency is: what was fetched cannot be exported.
set(CTS_CAN_INSTALL ON)

find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT TARGET Eigen3::Eigen)
  set(CTS_CAN_INSTALL OFF)
  cts_fetch(eigen Eigen3::Eigen https://gitlab.com/libeigen/eigen.git 3.4.0)
endif()

include(cmake/stb.cmake)
if(NOT TARGET core_tokensets::stb)
  set(CTS_CAN_INSTALL OFF)
  message(STATUS "stb is not installed: fetching it")
  FetchContent_Declare(stb GIT_REPOSITORY https://github.com/nothings/stb.git
                       GIT_TAG 8b5f1f37b5b75829fc72d38e7b5d4bcbf8a26d55)
  FetchContent_MakeAvailable(stb)
  add_library(core_tokensets::stb INTERFACE IMPORTED GLOBAL)
  target_include_directories(core_tokensets::stb INTERFACE ${stb_SOURCE_DIR})
endif()

if(CTS_EXAMPLES OR CTS_BENCH)
  find_package(CLI11 2.1 QUIET)
  if(NOT TARGET CLI11::CLI11)
    cts_fetch(cli11 CLI11::CLI11 https://github.com/CLIUtils/CLI11.git v2.4.2)
  endif()
endif()

if(CTS_TESTS)
  find_package(nlohmann_json 3.9 QUIET)  # a second reader of JSON, to compare ours with
  if(NOT TARGET nlohmann_json::nlohmann_json)
    cts_fetch(json nlohmann_json::nlohmann_json https://github.com/nlohmann/json.git v3.11.3)
  endif()
  find_package(Catch2 QUIET)
  if(NOT TARGET Catch2::Catch2)
    cts_fetch(catch2 Catch2::Catch2 https://github.com/catchorg/Catch2.git v3.7.1)
  endif()
endif()
