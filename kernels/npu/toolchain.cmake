# The target moe_launch: what a library that launches the kernels has to compile and link on an NPU.

# Which AscendC this is, for device/shim.h. Packages of 9.x put the header in version/, 8.5 links it into ascendc/.
set(include_folders $ENV{ASCEND_HOME_PATH}/include $ENV{ASCEND_HOME_PATH}/${CMAKE_SYSTEM_PROCESSOR}-linux/include)
find_file(ASC_DEVKIT_VERSION_HEADER asc_devkit_version.h NO_DEFAULT_PATH
  PATHS ${include_folders} PATH_SUFFIXES version ascendc)
if(NOT ASC_DEVKIT_VERSION_HEADER)
  message(FATAL_ERROR "no asc_devkit_version.h in ${include_folders}: is this CANN 8.5 or later?")
endif()

add_library(moe_launch INTERFACE)
target_sources(moe_launch INTERFACE ${CMAKE_CURRENT_LIST_DIR}/launch.asc)
target_include_directories(moe_launch INTERFACE ${CMAKE_CURRENT_LIST_DIR}/..)
# The package empties CMAKE_CXX_FLAGS_RELEASE; 8.5 adds no --npu-arch of its own.
target_compile_options(moe_launch INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-O2>
  "$<$<COMPILE_LANGUAGE:ASC>:SHELL:--npu-arch=${CMAKE_ASC_ARCHITECTURES} -O3 -fPIC -include ${ASC_DEVKIT_VERSION_HEADER}>")
