# Small trees with one fault each: floors.cmake must name it.
cmake_minimum_required(VERSION 3.22)

# Writes include/core_tokensets/FILE with the remaining arguments as its includes.
function(header tree file)
  list(TRANSFORM ARGN REPLACE "(.+)" "#include \"core_tokensets/\\1\"\n")
  string(JOIN "" includes ${ARGN})
  file(WRITE ${OUT}/${tree}/include/core_tokensets/${file} "#pragma once\n${includes}")
endfunction()

# Runs floors.cmake on a tree; `complaint` is a regular expression, empty where the tree is sound.
function(check tree complaint)
  execute_process(COMMAND ${CMAKE_COMMAND} -D ROOT=${OUT}/${tree} -P ${CMAKE_CURRENT_LIST_DIR}/floors.cmake
                  RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
  string(REGEX REPLACE "[ \n]+" " " err "${err}")
  if(complaint STREQUAL "" AND NOT code EQUAL 0)
    message(FATAL_ERROR "${tree}: a sound tree was refused: ${err}")
  elseif(NOT complaint STREQUAL "" AND (code EQUAL 0 OR NOT err MATCHES "${complaint}"))
    message(FATAL_ERROR "${tree}: expected a complaint about '${complaint}', got: ${err}")
  endif()
endfunction()

file(REMOVE_RECURSE ${OUT})
foreach(tree sound upward sideways circle stranger missing forgotten more)
  header(${tree} core/a.hpp)
  header(${tree} io/b.hpp core/a.hpp)
  header(${tree} nn/c.hpp io/b.hpp core/a.hpp)
  header(${tree} core_tokensets.hpp core/a.hpp io/b.hpp nn/c.hpp)
endforeach()
check(sound "")

header(upward core/a.hpp nn/c.hpp)
check(upward "core/a.hpp .floor 0. includes core_tokensets/nn/c.hpp .floor 2.")

header(sideways io/b.hpp tensor/d.hpp)
header(sideways tensor/d.hpp)
header(sideways core_tokensets.hpp core/a.hpp io/b.hpp nn/c.hpp tensor/d.hpp)
check(sideways "io/b.hpp .floor 1. includes core_tokensets/tensor/d.hpp .floor 1.")

header(circle core/a.hpp core/d.hpp)
header(circle core/d.hpp core/a.hpp)
header(circle core_tokensets.hpp core/a.hpp core/d.hpp io/b.hpp nn/c.hpp)
check(circle "in a circle: core_tokensets/core/a.hpp.*core/d.hpp")

header(stranger cellar/d.hpp)
check(stranger "the room 'cellar' is on no floor")

header(missing nn/c.hpp nn/gone.hpp)
check(missing "no header of the project")

header(forgotten core/d.hpp)
header(forgotten tensor/cuda.hpp core/a.hpp)
check(forgotten "does not include core_tokensets/core/d.hpp")

file(APPEND ${OUT}/more/include/core_tokensets/core_tokensets.hpp "int x = 0\;\n")
check(more "holds more than includes: int x")
