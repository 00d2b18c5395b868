# bench/device.sh: what it takes along, and, with stand-ins for the card, the compiler and PyTorch, what it makes of
# programs that work, fail and hang.
cmake_minimum_required(VERSION 3.22)
set(script ${ROOT}/bench/device.sh)
file(REMOVE_RECURSE ${OUT})
file(MAKE_DIRECTORY ${OUT}/tools ${OUT}/headers)

# Both shells read the scripts; help is help, and a wrong word is refused.
find_program(BASH bash)
foreach(shell sh ${BASH})
  foreach(file ${script} ${ROOT}/bench/device_headers.sh)
    execute_process(COMMAND ${shell} -n ${file} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endforeach()
execute_process(COMMAND ${script} --help OUTPUT_VARIABLE help COMMAND_ERROR_IS_FATAL ANY)
if(NOT help MATCHES "^usage: bench/device.sh prepare FOLDER")
  message(SEND_ERROR "--help printed: ${help}")
endif()
foreach(wrong "--minuets;3" "--minutes;two" "--minutes" "run" "prepare" "--headers;${OUT}/none" "--programs;${OUT}/none")
  execute_process(COMMAND ${script} ${wrong} RESULT_VARIABLE code OUTPUT_QUIET ERROR_QUIET)
  if(NOT code EQUAL 2)
    message(SEND_ERROR "'${wrong}' ended with ${code}, not 2")
  endif()
endforeach()

# What prepare copied is what CMake then finds.
set(installed ON)
foreach(header eigen3/Eigen/Core CLI/CLI.hpp catch2/catch.hpp stb/stb_image_write.h)
  if(NOT EXISTS /usr/include/${header})
    message(STATUS "no ${header} in /usr/include: prepare is not tried")
    set(installed OFF)
  endif()
endforeach()
if(installed)
  execute_process(COMMAND ${script} prepare ${OUT}/prepared OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  file(WRITE ${OUT}/project/CMakeLists.txt [[
cmake_minimum_required(VERSION 3.22)
project(prepared NONE)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(CLI11 2.1 REQUIRED)
find_package(Catch2 REQUIRED)
foreach(target Eigen3::Eigen CLI11::CLI11 Catch2::Catch2)
  get_target_property(folder ${target} INTERFACE_INCLUDE_DIRECTORIES)
  get_filename_component(folder ${folder} REALPATH)
  message(STATUS "${target} in ${folder}")
endforeach()
find_package(Eigen3 99 QUIET NO_MODULE)
message(STATUS "Eigen 99: ${Eigen3_FOUND}")
]])
  execute_process(COMMAND ${CMAKE_COMMAND} -C ${OUT}/prepared/headers.cmake -S ${OUT}/project -B ${OUT}/project/build
                  OUTPUT_VARIABLE found COMMAND_ERROR_IS_FATAL ANY)
  get_filename_component(prepared ${OUT}/prepared REALPATH)
  foreach(wanted "Eigen3::Eigen in ${prepared}/include" "CLI11::CLI11 in ${prepared}/include"
                 "Catch2::Catch2 in ${prepared}/include" "Eigen 99: 0")
    string(FIND "${found}" "${wanted}\n" place)
    if(place LESS 0)
      message(SEND_ERROR "expected '${wanted}' in: ${found}")
    endif()
  endforeach()
  foreach(header Eigen/Core CLI/CLI.hpp catch2/catch.hpp stb/stb_image.h stb/stb_image_write.h)
    if(NOT EXISTS ${OUT}/prepared/include/${header})
      message(SEND_ERROR "prepare did not copy ${header}")
    endif()
  endforeach()
endif()

find_program(PYTHON NAMES python3)
if(NOT PYTHON)
  message(STATUS "no python3: the run with stand-ins is left out")
  return()
endif()
# The program itself: version managers put a slow script in front of it.
execute_process(COMMAND ${PYTHON} -c "import sys; print(sys.executable)" OUTPUT_VARIABLE PYTHON
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
file(WRITE ${OUT}/pycheck.py "import sys\nfor f in sys.argv[1:]: compile(open(f).read(), f, 'exec')\n")
execute_process(COMMAND ${PYTHON} ${OUT}/pycheck.py ${ROOT}/bench/cuda_torch.py ${ROOT}/bench/device_report.py
                COMMAND_ERROR_IS_FATAL ANY)

function(tool name text)
  file(WRITE ${OUT}/tools/${name} "#!/bin/sh\n${text}")
  file(CHMOD ${OUT}/tools/${name} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endfunction()
file(WRITE ${OUT}/headers/headers.cmake "")
tool(nvidia-smi "echo 'Card of Cards, 9.0, 580.1, 80000 MiB'\n")
tool(nvcc "echo 'Cuda compilation tools, release 13.0, V13.0.88'\n")
tool(compute-sanitizer "shift 4\nexec \"$@\"\n")
tool(cmake "
[ \"$1\" = --build ] || { echo \"$*\" >$OUT/configured; exit 0; }
mkdir -p $2/bench $2/tests
cp ${OUT}/tools/stand_in_bench $2/bench/bench_cuda_vit
cp ${OUT}/tools/stand_in_tests $2/tests/cts_tests_cuda\n")
tool(stand_in_bench "
case \"$1 $3\" in
  'c32,b16 bf16')
    echo '{\"case\": \"b16\", \"work\": \"train\", \"dtype\": \"bf16\", \"batch\": 4, \"images_per_s\": 9}'
    printf '{\"case\": \"b16\", \"wo'
    sleep 100
    ;;
esac
echo '{\"device\": \"a card\", \"dtype\": \"'$3'\", \"matrix_tflops\": 300}'
for work in train forward replay grad_lrp; do
  echo '{\"case\": \"c32\", \"work\": \"'$work'\", \"dtype\": \"'$3'\", \"batch\": 64, \"images_per_s\": 1000}'
done\n")
tool(stand_in_tests "
case \"$*\" in
  *--list-test-names-only) printf 'works, with a comma\\nfails\\nlacks a file\\n'; exit 3 ;;
  'works\\, with a comma') echo 'All tests passed (1 assertion in 1 test case)' ;;
  fails) echo 'device.cu:1: FAILED: it is wrong'; exit 1 ;;
  'lacks a file') printf '  golden case is missing; skipped\\ntest cases: 1 | 1 passed\\n' ;;
  *) echo 'No test cases matched' ;;
esac\n")
tool(python3 "
case \"$1\" in
  *cuda_torch.py) ;;
  *) exec ${PYTHON} \"$@\" ;;
esac
[ \"$2\" != --version ] || { echo 2.11.0; exit 0; }
[ -f ${OUT}/midway.json ] || cp ${OUT}/out/device.json ${OUT}/midway.json
for mode in eager graph; do
  for work in train forward replay replay_kept; do
    rate=250
    [ $mode != graph ] || rate=500
    echo '{\"case\": \"c32\", \"work\": \"'$work'\", \"dtype\": \"tf32\", \"mode\": \"'$mode'\", \"batch\": 64, \"images_per_s\": '$rate'}'
  done
done
echo '{\"case\": \"c32\", \"work\": \"train\", \"dtype\": \"tf32\", \"mode\": \"compile\", \"error\": \"no compiler\"}'\n")

# Four minutes: the stages' limits are half the usual ones.
set(ENV{PATH} "${OUT}/tools:$ENV{PATH}")
set(ENV{OUT} ${OUT}/out)
unset(ENV{PYTHON})
execute_process(COMMAND ${script} --headers ${OUT}/headers --build ${OUT}/build --minutes 4 RESULT_VARIABLE code
                OUTPUT_VARIABLE said ERROR_VARIABLE said)
file(READ ${OUT}/out/device.json json)
if(NOT code EQUAL 1)
  message(SEND_ERROR "a run with failing tests ended with ${code}")
endif()

# Compares what the JSON has at a path of keys.
function(holds wanted)
  string(JSON got ERROR_VARIABLE error GET "${json}" ${ARGN})
  if(NOT got STREQUAL wanted)
    message(SEND_ERROR "${ARGN}: '${got}', not '${wanted}'")
  endif()
endfunction()
# The element of an array whose members are as wanted: holds_for(ARRAY "key=value;..." wanted member...)
function(holds_for array which wanted)
  string(JSON count LENGTH "${json}" ${array})
  math(EXPR last "${count} - 1")
  foreach(i RANGE ${last})
    set(same ON)
    foreach(pair IN LISTS which)
      string(REGEX MATCH "^([^=]+)=(.*)$" unused "${pair}")
      string(JSON value GET "${json}" ${array} ${i} ${CMAKE_MATCH_1})
      if(NOT value STREQUAL CMAKE_MATCH_2)
        set(same OFF)
      endif()
    endforeach()
    if(same)
      holds("${wanted}" ${array} ${i} ${ARGN})
      return()
    endif()
  endforeach()
  message(SEND_ERROR "nothing in ${array} has ${which}")
endfunction()
holds("Card of Cards" machine card)
holds("580.1" machine driver)
holds("13.0.88" machine toolkit)
holds("2.11.0" machine torch)
holds(OFF passed)
holds_for(stages "name=configure" passed status)
holds_for(stages "name=build bench" passed status)
holds_for(stages "name=bench first tf32" passed status)
holds_for(stages "name=bench first bf16" "ran past its 12 s" reason)
holds_for(stages "name=bench first bf16" failed status)
holds_for(stages "name=tests" "fails: exit status 1: device.cu:1: FAILED: it is wrong" reason)
holds_for(stages "name=memcheck" failed status)
holds_for(stages "name=bench exact f32" passed status)
holds(3 tests passed)
holds(3 tests failed)
holds(3 tests skipped)
holds_for(tests\;cases "name=racecheck: works, with a comma" passed status)
holds_for(tests\;cases "name=tests: lacks a file" "golden case is missing; skipped" reason)
holds_for(rows "case=c32;dtype=tf32;work=train" 2.0 ratio)
holds_for(rows "case=c32;dtype=tf32;work=replay_kept" 1000 ours)
holds_for(rows "case=c32;dtype=tf32;work=replay" 500 torch)
holds_for(rows "case=c32;dtype=tf32;work=grad_lrp" 1.0 in_training_steps)
holds_for(rows "case=b16;dtype=bf16;work=train" 9 ours)
holds(300 matrix_tflops f32)
holds("no compiler" torch_problems 0 error)
if(NOT said MATCHES "\\| c32 \\| tf32 \\| 64 \\| train \\| 1000 \\| 500 \\| graph \\| 2.0 \\|")
  message(SEND_ERROR "no table was printed")
endif()
message(STATUS "${said}")
file(READ ${OUT}/out/configured configured)
if(NOT configured MATCHES "-C ${OUT}/headers/headers.cmake .*-D CMAKE_CUDA_ARCHITECTURES=90-real")
  message(SEND_ERROR "configured as: ${configured}")
endif()

# What a kill at the first line of PyTorch would have left: all that was measured before.
file(READ ${OUT}/midway.json json)
holds(OFF complete)
holds(OFF passed)
holds_for(stages "name=bench first bf16" failed status)
holds_for(rows "case=b16;dtype=bf16;work=train" 9 ours)

# Without a card everything that can run does, and the rest says why.
tool(nvidia-smi "echo 'No devices were found'\nexit 6\n")
execute_process(COMMAND ${script} --headers ${OUT}/headers --build ${OUT}/build --minutes 4 RESULT_VARIABLE code
                OUTPUT_VARIABLE said ERROR_VARIABLE said)
file(READ ${OUT}/out/device.json json)
if(NOT code EQUAL 0)
  message(SEND_ERROR "a run without a card ended with ${code}: ${said}")
endif()
holds(ON passed)
holds_for(stages "name=build tests" passed status)
holds_for(stages "name=tests" skipped status)
holds_for(stages "name=torch exact" "no card: No devices were found" reason)
