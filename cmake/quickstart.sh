#!/bin/sh
# Installs what is missing on a Debian system, builds, and runs the tests ("test") or the small tour ("demo").
# Touches nothing but missing packages and the folder build/.
set -eu
cd "$(dirname "$0")/.."
goal=${1:-}
case "$goal" in
  demo | test) ;;
  *)
    echo "usage: sh cmake/quickstart.sh demo|test" >&2
    exit 2
    ;;
esac

packages="g++ cmake ninja-build libeigen3-dev libcli11-dev libstb-dev"
if [ "$goal" = test ]; then
  packages="$packages catch2 nlohmann-json3-dev clang-format-14 ccache libxtensor-dev libxtensor-blas-dev libxsimd-dev libopenblas-dev libopenmpi-dev openmpi-bin"
fi

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  missing=""
  for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" != 0 ]; then
      as_root=sudo
      command -v sudo >/dev/null || {
        echo "quickstart: as root, please run: apt-get install$missing" >&2
        exit 1
      }
    fi
    echo "quickstart: installing$missing"
    # Lists of words, on purpose without quotes.
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
  fi
else
  echo "quickstart: not a Debian system, so nothing is installed; on Debian these would be: $packages"
fi

echo "quickstart: building in build/$goal"
cmake --preset "$goal"
if [ "$goal" = test ]; then
  cmake --build --preset test
  ctest --preset test --output-on-failure
else
  cmake --build --preset demo --target cts
  build/demo/examples/cts demo
fi
