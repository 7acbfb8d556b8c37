"""The device compile without a toolkit: what can be known of ``kernels/device`` without bisheng.

clang compiles the sources in the device mode of HIP, where a device function may call device functions only and a
pointer keeps its address space, over a ``kernel_operator.h`` of declarations. Then the syntax tree is searched for what
clang allows and bisheng refuses, and the text for what neither shows. docs/device-check.md says what a pass means.
"""
