#!/bin/sh
# Builds, tests and times the CUDA backend on a machine with an NVIDIA card and no network; docs/cuda.md says how.
# Each stage has a time limit and device.json is written again after each, so that a kill loses the running stage alone.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}

usage() {
  cat <<'TEXT'
usage: bench/device.sh prepare FOLDER [INCLUDE_FOLDER...]
       bench/device.sh [--headers FOLDER] [--build FOLDER] [--programs FOLDER] [--minutes N]

prepare     copies Eigen, stb, CLI11, Catch2 2, nlohmann/json where it is installed, and the golden ViTs of
            CTS_SHARED to FOLDER, from the include folders named, /usr/include or /usr/local/include
otherwise   builds for the card there is, runs the CUDA tests and compares bench_cuda_vit with PyTorch
--headers   what prepare filled (default device-headers)
--build     where to build (default build/device)
--programs  a folder with bench_cuda_vit and cts_tests_cuda, built elsewhere for this card: nothing is built
--minutes   all stages together; the limit of each changes with it (default 8)
OUT         folder of device.json and the logs (default device-out)
PYTHON      the Python that has PyTorch (default python3)
JOBS        compilers at a time (default: one a processor)

Exit status 0: all that could run passed. 1: something failed or was not reached in time. 2: cannot start.
TEXT
}

note() { printf 'device.sh: %s\n' "$*"; }
die() {
  note "$*" >&2
  exit 2
}

now() { date +%s; }
left() { echo $((start + 60 * minutes - $(now))); }

# One line of facts on a stage or a test.
fact() { printf '%s\t%s\t%s\t%s\n' "$2" "$3" "$4" "$(printf '%s' "$5" | tr '\t\n' '  ' | cut -c 1-300)" >>"$facts/$1.tsv"; }
setting() { printf '%s\t%s\n' "$1" "$2" >>"$facts/machine.tsv"; }

report() { "$python" "$root/bench/device_report.py" "$facts" "$out" || note "device.json could not be written"; }

# Starts the stage $1 of at most $2 seconds out of 8 minutes; false where no time is left.
begin() {
  stage=$1 from=$(now) limit=$(($2 * minutes / 8))
  [ "$(left)" -ge "$limit" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    end not_reached "no time was left"
    return 1
  fi
}

# The stage is over: status and reason.
end() {
  fact stages "$stage" "$1" $(($(now) - from)) "$2"
  note "$stage: $1, $(($(now) - from)) s${2:+: $2}"
  case $1 in
    failed | not_reached) verdict=1 ;;
  esac
  report
}

# A stage that cannot run, and why.
skip() {
  stage=$1 from=$(now)
  end skipped "$2"
}

# Says in `status` and `reason` how a command with exit status $1, limit $2 and log $3 did; 77 is for a skip.
judge() {
  status=failed
  case $1 in
    0) status=passed reason= ;;
    77) status=skipped reason=$(tail -n 1 "$3") ;;
    124 | 137) reason="ran past its $2 s" ;;
    *) reason="exit status $1: $(grep -E 'rror|FAILED' "$3" | head -n 1)" ;;
  esac
}

# Runs a command as the stage $1 of at most $2 seconds; what it prints goes behind the log $3, and its JSON lines are facts.
run() {
  begin "$1" "$2" || return 1
  log=$3
  shift 3
  code=0
  printf '== %s: %s\n' "$stage" "$*" >>"$log"
  # PyTorch's script reads its limit, to end before it: a slow compilation costs later measurements, not the stage.
  STAGE_SECONDS=$limit timeout -k 5 "$limit" "$@" >"$facts/last.log" 2>&1 || code=$?
  cat "$facts/last.log" >>"$log"
  grep '^{' "$facts/last.log" >>"$facts/rows.jsonl" || true
  judge "$code" "$limit" "$facts/last.log"
  [ $status != failed ] || tail -n 20 "$facts/last.log"
  end $status "$reason"
  [ $status = passed ]
}

# Runs each test case of tag $3 in a process of its own, as a fault of the device ends all work of a process; the rest
# of the arguments is what runs the program.
run_tests() {
  begin "$1" "$2" || return 0
  tag=$3
  shift 3
  failed='' skipped='' passed=0 until=$(($(now) + limit))
  "$tests" "$tag" --list-test-names-only >"$facts/names" || true
  while IFS= read -r name; do
    case_from=$(now) case_limit=$((until - $(now))) code=0
    if [ "$case_limit" -lt 2 ]; then
      fact tests "$stage: $name" not_reached 0 "no time was left"
      failed="$failed; $name: no time was left"
      continue
    fi
    printf '== %s: %s\n' "$stage" "$name" >>"$out/tests.log"
    timeout -k 5 "$case_limit" "$@" "$tests" "$(printf '%s' "$name" | sed 's/[][,"\\]/\\&/g')" >"$facts/last.log" 2>&1 \
      </dev/null || code=$?
    cat "$facts/last.log" >>"$out/tests.log"
    judge "$code" "$case_limit" "$facts/last.log"
    if [ $status = passed ] && grep -q 'skipped' "$facts/last.log"; then
      status=skipped reason=$(grep 'skipped' "$facts/last.log" | head -n 1 | sed 's/^ *//')
    elif [ $status = passed ] && ! grep -qE '^All tests passed|^test cases: 1 \| 1 passed' "$facts/last.log"; then
      status=failed reason="no test of this name ran"
    fi
    fact tests "$stage: $name" $status $(($(now) - case_from)) "$reason"
    case $status in
      passed) passed=$((passed + 1)) ;;
      skipped) skipped="$skipped; $name: $reason" ;;
      *)
        tail -n 20 "$facts/last.log"
        failed="$failed; $name: $reason"
        ;;
    esac
    report
  done <"$facts/names"
  if [ -n "$failed" ] || [ "$passed$skipped" = 0 ]; then
    end failed "${failed#; }"
  else
    end passed "$passed passed${skipped:+; skipped: ${skipped#; }}"
  fi
}

# Times this library, then PyTorch: stage, cases, arithmetics, batch (0: the case's own), seconds for an arithmetic of
# this library, PyTorch's modes and seconds.
compare() {
  group=$1 cases=$2 arithmetics=$3 batch=$4 ours=$5 modes=$6 theirs=$7
  if [ -n "$no_card" ]; then
    skip "bench $group" "$no_card"
    skip "torch $group" "$no_card"
    return 0
  elif [ ! -x "$bench" ]; then
    skip "bench $group" "bench_cuda_vit was not built"
  else
    for arithmetic in $arithmetics; do
      run "bench $group $arithmetic" "$ours" "$out/bench.log" "$bench" "$cases" 15 "$arithmetic" "$batch" || true
    done
  fi
  if [ -n "$no_torch" ]; then
    skip "torch $group" "$no_torch"
    return 0
  fi
  run "torch $group" "$theirs" "$out/torch.log" "$python" "$root/bench/cuda_torch.py" --cases "$cases" \
    --arithmetic "$(echo "$arithmetics" | tr ' ' ,)" --batch "$batch" --modes "$modes" || true
}

# ---- the stages, the most telling first ----------------------------------------------------------------------------

headers=$root/device-headers build=$root/build/device programs='' minutes=8
case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  prepare)
    shift
    exec sh "$root/bench/device_headers.sh" "$@"
    ;;
esac
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || die "'$1' is no option, or lacks its value; see bench/device.sh --help"
  case $1 in
    --headers) headers=$2 ;;
    --build) build=$2 ;;
    --programs) programs=$2 ;;
    --minutes)
      minutes=$2
      case $minutes in
        '' | *[!0-9]*) die "--minutes needs a whole number, not '$minutes'" ;;
      esac
      ;;
    *) die "there is no option '$1'; see bench/device.sh --help" ;;
  esac
  shift 2
done
if [ -n "$programs" ]; then
  for program in bench_cuda_vit cts_tests_cuda; do
    [ -x "$programs/$program" ] || die "no program $program in $programs"
  done
else
  [ -f "$headers/headers.cmake" ] || die "no headers in $headers; fill it with: bench/device.sh prepare $headers"
fi
command -v "$python" >/dev/null || die "$python was not found; device.json is written with it"

start=$(now) verdict=0 out=${OUT:-device-out} jobs=${JOBS:-$(nproc)}
mkdir -p "$out" "$build"
out=$(CDPATH='' cd -- "$out" && pwd) build=$(CDPATH='' cd -- "$build" && pwd)
facts=$build/facts bench=$build/bench/bench_cuda_vit tests=$build/tests/cts_tests_cuda
[ -z "$programs" ] || bench=$programs/bench_cuda_vit tests=$programs/cts_tests_cuda
rm -rf "$facts" "$out/device.json" "$out/build.log" "$out/bench.log" "$out/tests.log" "$out/torch.log"
mkdir "$facts"
PATH=$PATH:${CUDA_PATH:-/usr/local/cuda}/bin:${CUDA_PATH:-/usr/local/cuda}/compute-sanitizer
# Threads that spin while they wait take the processor from the one that feeds the card.
export PATH OMP_WAIT_POLICY=passive
if [ -d "$headers/goldens" ]; then
  CTS_SHARED=$(CDPATH='' cd -- "$headers" && pwd)
  export CTS_SHARED
fi

no_card='' architecture=90 stage=card from=$start
if ! command -v nvidia-smi >/dev/null; then
  no_card="no card: nvidia-smi was not found"
elif ! card=$(timeout 20 nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader 2>&1); then
  no_card="no card: $(printf '%s' "$card" | head -n 1)"
fi
if [ -n "$no_card" ]; then
  end skipped "$no_card"
else
  card=$(printf '%s\n' "$card" | head -n 1)
  setting card "$(echo "$card" | cut -d , -f 1)"
  setting compute_capability "$(echo "$card" | cut -d , -f 2 | tr -d ' ')"
  setting driver "$(echo "$card" | cut -d , -f 3 | tr -d ' ')"
  setting memory "$(echo "$card" | cut -d , -f 4 | sed 's/^ //')"
  architecture=$(echo "$card" | cut -d , -f 2 | tr -d ' .')
  end passed "$card"
fi
setting processors "$(nproc)"
setting commit "$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"

# PyTorch takes seconds to be read from a cold disk, so it is asked while the compiler works.
{
  code=0
  timeout -k 5 120 "$python" "$root/bench/cuda_torch.py" --version >"$facts/torch.log" 2>&1 || code=$?
  echo "$code" >"$facts/torch.code"
} &
asking=$!

missing=${programs:+"the programs of $programs are used"}
for tool in cmake nvcc; do
  [ -n "$programs" ] || command -v $tool >/dev/null || missing="$tool was not found"
done
if [ -n "$programs" ]; then
  skip configure "$missing"
elif [ -n "$missing" ]; then
  stage=configure from=$(now)
  end failed "$missing"
else
  setting toolkit "$(nvcc --version | sed -n 's/.*release .*, V//p')"
  generator=Ninja
  command -v ninja >/dev/null || generator="Unix Makefiles"
  # -w: warnings are what a usual build is for, and another compiler has others.
  run configure 60 "$out/build.log" cmake -C "$headers/headers.cmake" -S "$root" -B "$build" -G "$generator" \
    -D CMAKE_BUILD_TYPE=RelWithDebInfo -D CMAKE_CUDA_ARCHITECTURES="$architecture-real" \
    -D CMAKE_CUDA_FLAGS_RELWITHDEBINFO='-O2 -DNDEBUG -lineinfo -w' -D CMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -w' \
    -D CTS_CUDA=ON -D CTS_BENCH=ON -D CTS_TESTS=ON -D CTS_EXAMPLES=OFF -D CTS_XTENSOR=OFF || missing="configuring failed"
fi
if [ -n "$missing" ]; then
  skip "build bench" "$missing"
else
  rm -f "$bench" "$tests"
  # With processors enough the tests cost no time beside the benchmark, and none of it must fail for the other.
  all='cts_tests_cuda' keep='-k'
  [ "$generator" != Ninja ] || keep='-k 0'
  [ "$jobs" -ge 4 ] || all=
  # shellcheck disable=SC2016
  run "build bench" 200 "$out/build.log" sh -c \
    'cmake --build "$1" --target bench_cuda_vit $2 -j "$3" -- $4; test -x "$5"' sh "$build" "$all" "$jobs" "$keep" "$bench" || true
fi
wait $asking || true

no_torch=''
if [ "$(cat "$facts/torch.code")" = 0 ]; then
  setting torch "$(tail -n 1 "$facts/torch.log")"
else
  no_torch=$(tail -n 1 "$facts/torch.log")
fi

compare first c32,b16 "tf32 bf16" 0 25 eager,graph,compile 80

if [ -n "$missing" ]; then
  skip "build tests" "$missing"
else
  # shellcheck disable=SC2016
  run "build tests" 200 "$out/build.log" sh -c 'test -x "$3" || cmake --build "$1" --target cts_tests_cuda -j "$2"' sh \
    "$build" "$jobs" "$tests" || true
fi
no_tests=$no_card
[ -x "$tests" ] || no_tests="cts_tests_cuda was not built"
no_sanitizer=$no_tests
command -v compute-sanitizer >/dev/null || no_sanitizer=${no_tests:-"compute-sanitizer was not found"}
if [ -n "$no_tests" ]; then skip tests "$no_tests"; else run_tests tests 60 '[cuda]' env; fi
for tool in memcheck racecheck; do
  if [ -n "$no_sanitizer" ]; then
    skip $tool "$no_sanitizer"
  else
    run_tests $tool 60 '[short]' compute-sanitizer --tool $tool --error-exitcode 9
  fi
done

compare large s16,b16 "tf32 bf16" 64 20 eager,graph,compile 55
compare small ti16,s16 "tf32 bf16" 0 20 eager,graph 45
compare exact c32,ti16,s16,b16 f32 0 40 eager,graph 45
"$python" "$root/bench/device_report.py" "$facts" "$out" --table
exit $verdict
