# The target moe_launch: what a library that launches the kernels has to compile and link on an NPU.

# Which AscendC this is, for device/shim.h: 9.x, then 8.5.
find_file(ASC_DEVKIT_VERSION_HEADER asc_devkit_version.h NO_DEFAULT_PATH
  PATHS $ENV{ASCEND_HOME_PATH}/include/version $ENV{ASCEND_HOME_PATH}/include/ascendc)
if(NOT ASC_DEVKIT_VERSION_HEADER)
  message(FATAL_ERROR "no asc_devkit_version.h below $ENV{ASCEND_HOME_PATH}/include: is this CANN 8.5 or later?")
endif()

add_library(moe_launch INTERFACE)
target_sources(moe_launch INTERFACE ${CMAKE_CURRENT_LIST_DIR}/launch.asc)
target_include_directories(moe_launch INTERFACE ${CMAKE_CURRENT_LIST_DIR}/..)
# The package empties CMAKE_CXX_FLAGS_RELEASE; 8.5 adds no --npu-arch of its own.
target_compile_options(moe_launch INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-O2>
  "$<$<COMPILE_LANGUAGE:ASC>:SHELL:--npu-arch=${CMAKE_ASC_ARCHITECTURES} -O3 -fPIC -include ${ASC_DEVKIT_VERSION_HEADER}>")
