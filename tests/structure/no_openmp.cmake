# Without OpenMP the library compiles without a warning, and computes the same bits as with it. Arguments: PROGRAM (built
# with OpenMP) and its SOURCE, COMPILERS and INCLUDES with | between them, FLAGS, OUT.
file(MAKE_DIRECTORY ${OUT})
string(REPLACE "|" ";" COMPILERS "${COMPILERS}")
string(REPLACE "|" ";" INCLUDES "${INCLUDES}")
list(REMOVE_ITEM INCLUDES /usr/include)  # named again, it would hide the compiler's own
list(TRANSFORM INCLUDES PREPEND -isystem OUTPUT_VARIABLE includes)
separate_arguments(flags UNIX_COMMAND "${FLAGS}")
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE expected COMMAND_ERROR_IS_FATAL ANY)
if(NOT expected MATCHES "^([0-9a-f]+)\n([0-9a-f]+)\n$" OR NOT CMAKE_MATCH_1 STREQUAL CMAKE_MATCH_2)
  message(FATAL_ERROR "one thread and three do not compute the same bits: ${expected}")
endif()
foreach(compiler IN LISTS COMPILERS)
  get_filename_component(name ${compiler} NAME)
  execute_process(COMMAND ${compiler} -std=c++20 -O2 ${flags} -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
                          -Wno-unknown-warning-option -Wno-maybe-uninitialized -Wno-restrict  # false alarms of GCC 12
                          -I${ROOT}/include ${includes} ${SOURCE} -pthread -o ${OUT}/${name} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${OUT}/${name} OUTPUT_VARIABLE found COMMAND_ERROR_IS_FATAL ANY)
  if(NOT found STREQUAL expected)
    message(FATAL_ERROR "${name}: without OpenMP ${found}, with it ${expected}")
  endif()
endforeach()
