"""A CANN toolkit as far as the preset npu-a3 sees it: a CMake package for the language ASC and a compiler.

Headers of the runtime are those in the torch_npu wheel; the libraries that the preset links to are empty.

The layout is that of the version that is asked for. The compiler is g++ over hostsim's headers, without the mark of
hostsim, so that the toolkit's half of kernels/device/shim.h is what it compiles. It refuses flags that neither bisheng
nor g++ has, and writes down how it was called. Nothing here says anything about bisheng itself.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
import subprocess
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"
PLAIN_CALL = (
    "MOE_LAUNCH(kernel,blocks,stream,...)=((void)(blocks),(void)(stream),kernel(__VA_ARGS__))"
)
KERNEL_OPERATOR = f"""#pragma once
#include "{KERNELS}/hostsim/kernel_operator.h"
#undef ASCEND_MOE_HOSTSIM
#define __mix__(cube, vector)
"""
FROM_9_1 = """
#define __schedmode__(mode)
namespace AscendC {
enum class ReduceType { MAX };
template <ReduceType, typename T>
void ReduceDataBlock(const LocalTensor<T>& to, const LocalTensor<T>& from, int32_t mask, int32_t repeat,
                     int32_t to_step, int32_t block_step, int32_t from_step) {
    BlockReduceMax<T>(to, from, repeat, mask, to_step, block_step, from_step);
}
}  // namespace AscendC
"""
VERSION_HEADER = "#define ASC_DEVKIT_MAJOR {0}\n#define ASC_DEVKIT_MINOR {1}\n"

CONFIG = """
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}/modules")
set(CMAKE_CXX_FLAGS_RELEASE "")
"""
DETERMINE = """
set(home $ENV{ASCEND_HOME_PATH}/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux)
find_program(CMAKE_ASC_COMPILER bisheng PATHS ${home}/ccec_compiler/bin NO_DEFAULT_PATH REQUIRED)
set(CMAKE_ASC_COMPILER_ENV_VAR ASC)
set(CMAKE_ASC_SOURCE_FILE_EXTENSIONS asc)
configure_file(${CMAKE_CURRENT_LIST_DIR}/CMakeASCCompiler.cmake.in
  ${CMAKE_PLATFORM_INFO_DIR}/CMakeASCCompiler.cmake @ONLY)
"""
COMPILER = """
set(CMAKE_ASC_COMPILER "@CMAKE_ASC_COMPILER@")
set(CMAKE_ASC_COMPILER_LOADED 1)
set(CMAKE_ASC_SOURCE_FILE_EXTENSIONS asc)
set(CMAKE_ASC_OUTPUT_EXTENSION .o)
set(CMAKE_ASC_COMPILER_ENV_VAR ASC)
"""
INFORMATION = """
set(CMAKE_INCLUDE_FLAG_ASC -I)
set(CMAKE_SHARED_LIBRARY_CREATE_ASC_FLAGS -shared)
set(CMAKE_SHARED_LIBRARY_SONAME_ASC_FLAG -Wl,-soname,)
set(CMAKE_ASC_COMPILE_OBJECT
  "<CMAKE_ASC_COMPILER> <DEFINES> <INCLUDES> <FLAGS> -o <OBJECT> -c LANGUAGE_FLAG <SOURCE>")
set(CMAKE_ASC_CREATE_SHARED_LIBRARY
  "<CMAKE_ASC_COMPILER> <LINK_FLAGS> -shared <SONAME_FLAG><TARGET_SONAME> -o <TARGET> <OBJECTS> <LINK_LIBRARIES>")
"""
BISHENG = """#!/bin/sh
echo "$*" >> {log}
language=
arch=
for argument; do
    shift
    case $argument in
    --npu-arch=dav-2201) arch=here ;;
    --npu-arch=*) echo "bisheng: unknown $argument" >&2; exit 1 ;;
    {language}) language="-x c++ -w -I{home}/include" ;;
    *) set -- "$@" "$argument" ;;
    esac
done
if [ -n "$language" ]; then
    [ -n "$arch" ] || {{ echo "bisheng: --npu-arch is missing" >&2; exit 1; }}
    exec g++ -std=c++17 -D'{plain}' $language "$@"
fi
exec g++ "$@"
"""


def make(home: Path, *, version: str = "9.0.0") -> Path:
    """Write the toolkit; returns the file in which the compiler writes down its calls."""
    package = home / "compiler/tikcpp/ascendc_kernel_cmake"
    compilers = home / f"{platform.machine()}-linux/ccec_compiler/bin"
    log = home / "bisheng.log"
    major, minor = map(int, version.split(".")[:2])
    old = major < 9
    language = "-xasc" if old else "--asc-aicore-lang"
    includes = (
        home / f"{platform.machine()}-linux/include"
        if (major, minor) > (9, 0)
        else home / "include"
    )
    header = includes / ("ascendc" if old else "version") / "asc_devkit_version.h"
    files = {
        home / "compiler/version.info": f"Version={version}\n",
        header: VERSION_HEADER.format(major, minor),
        home / "include/kernel_operator.h": KERNEL_OPERATOR
        + (FROM_9_1 if (major, minor) >= (9, 1) else ""),
        package / ("ASCConfig.cmake" if old else "asc-config.cmake"): CONFIG,
        package / "modules/CMakeDetermineASCCompiler.cmake": DETERMINE,
        package / "modules/CMakeASCCompiler.cmake.in": COMPILER,
        package / "modules/CMakeASCInformation.cmake": INFORMATION.replace(
            "LANGUAGE_FLAG", language
        ),
        package / "modules/CMakeTestASCCompiler.cmake": "set(CMAKE_ASC_COMPILER_WORKS 1)\n",
        compilers / "bisheng": BISHENG.format(
            log=log, home=home, language=language, plain=PLAIN_CALL
        ),
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (compilers / "bisheng").chmod(stat.S_IRWXU)
    return log


def add_runtime(home: Path, acl: str = "ascendcl") -> None:
    """What the library is compiled and linked against besides AscendC; ``acl`` is what has acl_rt.h's functions."""
    (home / "include/acl").symlink_to(acl_headers())
    (home / "lib64").mkdir()
    for name in (acl, "nnopbase"):
        library = home / f"lib64/lib{name}.so"
        subprocess.run(["g++", "-shared", "-x", "c++", "/dev/null", "-o", library], check=True)


def acl_headers() -> Path | None:
    """``acl/`` of the torch_npu wheel, or None without it."""
    spec = importlib.util.find_spec("torch_npu")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "include/third_party/acl/inc/acl"


def environment(home: Path) -> dict[str, str]:
    """As set_env.sh would make it."""
    return os.environ | {"ASCEND_HOME_PATH": str(home)}
