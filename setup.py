"""What pyproject.toml cannot say: what is compiled, and where the kernel sources travel.

The library of the CPU operators (``ascend_moe/cpu/windows``) is plain C++ that ctypes loads: it knows neither Python's
nor torch's headers, so a wheel is good for a platform, not for a version of either. Without a compiler the package is
installed without it.

The kernel sources of kernels/ travel as ascend_moe/_kernels. A wheel without them could not build the virtual NPU. In
a clone, and so in an editable install, nothing is copied: they are read from kernels/ beside the package.
"""

import runpy
import subprocess
from pathlib import Path

from setuptools import Extension, find_namespace_packages, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = ["*.cpp", "*.h", "*.asc", "*.cmake", "*.txt", "*.py", "*.sh", "*.json", "*.md"]

kernels = {
    f"ascend_moe._{folder}": folder.replace(".", "/")
    for folder in find_namespace_packages(
        include=["kernels", "kernels.*"], exclude=["*.build", "*.build.*"]
    )
}

ROOM = Path("ascend_moe/cpu/windows")
engine = runpy.run_path(str(ROOM / "build.py"))


class BuildLibrary(build_ext):
    """One command instead of Python's idea of how its extensions are compiled."""

    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + engine["LIBRARY"].suffix

    def build_extension(self, ext):
        compiler = engine["compiler"]()
        if compiler is None:
            raise CompileError("no C++ compiler (CXX or g++): without the CPU operators' library")
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(engine["command"](compiler, target), check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(str(error)) from None
        if not target.is_file():
            raise CompileError(f"{' '.join(compiler)} ended well and made no library")


class WheelOfAPlatform(bdist_wheel):
    """For any Python 3."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    py_modules=["ascend_moe_pytest"],
    packages=[*find_packages(include=["ascend_moe", "ascend_moe.*"]), *kernels],
    package_dir=kernels,
    include_package_data=False,  # what the build reads is not what the package holds
    package_data={
        "": ["py.typed", *SOURCES],
        "ascend_moe.vnpu": ["child/*.py"],  # a folder for PYTHONPATH, not a package
    },
    ext_modules=[
        Extension(
            f"ascend_moe.cpu.windows.{engine['LIBRARY'].stem}",
            sources=[str(ROOM / "native/windows.cpp")],
            depends=[str(path) for path in sorted((ROOM / "native").glob("*.h"))],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": WheelOfAPlatform},
)
