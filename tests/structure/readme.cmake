# The program that the README shows is the one that the tests build.
file(READ ${ROOT}/README.md readme)
file(READ ${ROOT}/tests/consumer/readme.cpp program)
string(FIND "${readme}" "```cpp\n${program}```" at)
if(at EQUAL -1)
  message(FATAL_ERROR "README.md does not show tests/consumer/readme.cpp word for word")
endif()
