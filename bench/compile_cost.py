#!/usr/bin/env python3
"""What the headers cost to include: seconds of one core and peak memory of the compiler, one JSON line a program.

usage: bench/compile_cost.py [--headers] [COMPILER]   (g++ by default; Eigen and stb where Debian puts them, or in CPATH)

--headers: instead, an empty program with each of the headers that docs/headers.md names.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EMPTY = "int main() {}\n"
PROGRAMS = {
    "nothing": EMPTY,
    "eigen": "#include <Eigen/Core>\n" + EMPTY,
    "core_tokensets.hpp": "#include <core_tokensets/core_tokensets.hpp>\n" + EMPTY,
    "single_include": '#include "' + ROOT + '/single_include/core_tokensets/core_tokensets.hpp"\n' + EMPTY,
    "README's program": open(ROOT + "/tests/consumer/readme.cpp").read(),
}


def headers():
    """Those that docs/headers.md names, in its order, each once."""
    text = open(ROOT + "/docs/headers.md").read()
    found = re.findall(r"\| `([a-z_/]+\.hpp)` \|", text)
    return {h: f"#include <core_tokensets/{h}>\n" + EMPTY for h in dict.fromkeys(found)}


def measure(compiler, name, program):
    flags = ["-std=c++20", "-O2", "-fopenmp", "-I" + ROOT + "/include", "-isystem", "/usr/include/eigen3"]
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "program.cpp")
        with open(source, "w") as file:
            file.write(program)
        command = [compiler, *flags, "-c", source, "-o", os.path.join(folder, "program.o")]
        start = time.monotonic()
        child = subprocess.Popen(command)
        _, status, used = os.wait4(child.pid, 0)  # the compiler's driver and all that it started
        wall = time.monotonic() - start
    if status:
        sys.exit(f"{name}: does not compile")
    print(json.dumps({"program": name, "wall_s": round(wall, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
                      "peak_mb": used.ru_maxrss // 1024}), flush=True)


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--headers"]
    for name, program in (headers() if "--headers" in sys.argv else PROGRAMS).items():
        measure(arguments[0] if arguments else "g++", name, program)
