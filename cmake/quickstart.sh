#!/bin/sh
# Installs what is missing on a Debian system, builds, and runs the tests ("test") or the small tour ("demo").
set -eu
cd "$(dirname "$0")/.."
goal=${1:-}
case "$goal" in
  demo | test) ;;
  *) echo "usage: sh cmake/quickstart.sh demo|test" >&2; exit 2 ;;
esac

packages="g++ cmake ninja-build libeigen3-dev nlohmann-json3-dev libcli11-dev libstb-dev"
if [ "$goal" = test ]; then packages="$packages catch2 clang-format-14 ccache"; fi
missing=""
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "Installing:$missing"
  as_root=""
  if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
  $as_root apt-get update -q
  # shellcheck disable=SC2086 -- a list of words
  DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing
fi

cmake --preset "$goal"
cmake --build --preset "$goal"
if [ "$goal" = test ]; then
  ctest --preset test
else
  build/demo/examples/cts demo
fi
