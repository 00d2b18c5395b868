# Runs PROGRAM and compares what it prints with the file EXPECTED.
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE got RESULT_VARIABLE code)
file(READ ${EXPECTED} want)
if(NOT code EQUAL 0 OR NOT got STREQUAL want)
  message(FATAL_ERROR "exit code ${code}; printed:\n${got}\nexpected:\n${want}")
endif()
