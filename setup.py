"""What pyproject.toml cannot say: the kernel sources of kernels/ travel as ascend_moe/_kernels.

A wheel without them could not build the virtual NPU. In a clone, and so in an editable install,
nothing is copied: they are read from kernels/ beside the package.
"""

from setuptools import find_namespace_packages, find_packages, setup

SOURCES = ["*.cpp", "*.h", "*.asc", "*.cmake", "CMakeLists.txt", "*.py", "*.sh", "*.json", "*.md"]

kernels = {
    f"ascend_moe._{folder}": folder.replace(".", "/")
    for folder in find_namespace_packages(
        include=["kernels", "kernels.*"], exclude=["*.build", "*.build.*"]
    )
}

setup(
    packages=[*find_packages(include=["ascend_moe", "ascend_moe.*"]), *kernels],
    package_dir=kernels,
    package_data={
        "": ["py.typed", *SOURCES],
        "ascend_moe.cpu.windows": ["native/*"],  # C++, built on first use
        "ascend_moe.vnpu": ["child/*.py"],  # a folder for PYTHONPATH, not a package
    },
)
