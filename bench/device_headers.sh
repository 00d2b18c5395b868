#!/bin/sh
# Fills a folder with the headers that bench/device.sh needs where there is no network, each as a CMake package, and
# with the golden ViTs where they are. Searches the include folders named, then the usual ones.
#   bench/device_headers.sh FOLDER [INCLUDE_FOLDER...]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

die() {
  printf 'device.sh: %s\n' "$*" >&2
  exit 2
}

[ $# -ge 1 ] || die "prepare needs the folder to fill"
mkdir -p "$1"
to=$(CDPATH='' cd -- "$1" && pwd)
shift
set -- "$@" /usr/include /usr/include/eigen3 /usr/local/include /usr/local/include/eigen3

# The first of the folders behind it that has the file $1.
found() {
  file=$1
  shift
  for folder in "$@"; do
    if [ -f "$folder/$file" ]; then
      printf '%s\n' "$folder"
      return 0
    fi
  done
  return 1
}

# The numbers that macros of headers in the folder $1 are defined as, joined by dots.
version() {
  headers=$1 numbers=
  shift
  for macro in "$@"; do
    number=$(grep -rhoE "define +$macro +\"?[0-9.]+" "$headers" | grep -oE '[0-9.]+$' | head -n 1)
    numbers=$numbers${numbers:+.}$number
  done
  printf '%s\n' "$numbers"
}

# Copies the folder $1 and makes it the package $2 with the target $3; the macros behind it say its version.
package() {
  headers=$to/include/$1 name=$2 target=$3
  shift 3
  mkdir -p "$headers" "$to/cmake/$name"
  cp -R "$from/${headers##*/}/." "$headers/"
  number=$(version "$headers" "$@")
  cat >"$to/cmake/$name/${name}Config.cmake" <<TEXT
if(NOT TARGET $target)
  add_library($target INTERFACE IMPORTED)
  set_target_properties($target PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "\${CMAKE_CURRENT_LIST_DIR}/../../include")
endif()
TEXT
  cat >"$to/cmake/$name/${name}ConfigVersion.cmake" <<TEXT
set(PACKAGE_VERSION "$number")
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
TEXT
  # shellcheck disable=SC2016
  printf 'set(%s_DIR "${CMAKE_CURRENT_LIST_DIR}/cmake/%s" CACHE PATH "" FORCE)\n' "$name" "$name" >>"$to/headers.cmake"
  echo "$name $number from $from"
}

cat >"$to/headers.cmake" <<'TEXT'
# cmake -C headers.cmake: dependencies from this folder, and none from the network.
set(FETCHCONTENT_FULLY_DISCONNECTED ON CACHE BOOL "" FORCE)
set(CTS_STB_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/include" CACHE PATH "" FORCE)
TEXT
missing="was not found; name the include folder that has it behind the folder to fill"
from=$(found Eigen/Core "$@") || die "Eigen/Core $missing"
package Eigen Eigen3 Eigen3::Eigen EIGEN_WORLD_VERSION EIGEN_MAJOR_VERSION EIGEN_MINOR_VERSION
from=$(found CLI/CLI.hpp "$@") || die "CLI/CLI.hpp (CLI11) $missing"
package CLI CLI11 CLI11::CLI11 CLI11_VERSION
from=$(found catch2/catch.hpp "$@") || die "catch2/catch.hpp (Catch2 2, one header) $missing"
package catch2 Catch2 Catch2::Catch2 CATCH_VERSION_MAJOR CATCH_VERSION_MINOR CATCH_VERSION_PATCH
if from=$(found nlohmann/json.hpp "$@"); then
  package nlohmann nlohmann_json nlohmann_json::nlohmann_json NLOHMANN_JSON_VERSION_MAJOR NLOHMANN_JSON_VERSION_MINOR \
    NLOHMANN_JSON_VERSION_PATCH
fi
from=$(found stb/stb_image_write.h "$@") || die "stb/stb_image_write.h $missing"
mkdir -p "$to/include/stb"
cp "$from/stb/stb_image.h" "$from/stb/stb_image_write.h" "$to/include/stb/"
echo "stb from $from"
for name in vit_a vit_b; do
  if [ -d "${CTS_SHARED:-$root/../shared}/goldens/$name" ]; then
    mkdir -p "$to/goldens/$name"
    cp -R "${CTS_SHARED:-$root/../shared}/goldens/$name/." "$to/goldens/$name/"
    echo "golden $name"
  fi
done
