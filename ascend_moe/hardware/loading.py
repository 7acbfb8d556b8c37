"""Whether a kernel library can be loaded: tried in a process of its own, as torch_npu would do it.

What it needs may have gone with an update of CANN (libascendcl.so will), and then torch_npu takes CANN's own operators
without a word: ``GetOpApiLibHandler`` in Ascend/op-plugin, ``op_plugin/utils/op_api_common.h``, logs a warning. Its
symbols, which lookup.py reads from the file, show nothing of that.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

LIMIT_S = 60
# RTLD_LAZY, as op-plugin has it; ctypes itself would bind every function at once.
PROGRAM = """
import ctypes, os, sys
process = ctypes.CDLL(None)
process.dlopen.restype, process.dlerror.restype = ctypes.c_void_p, ctypes.c_char_p
if not process.dlopen(os.fsencode(sys.argv[1]), os.RTLD_LAZY):
    sys.exit((process.dlerror() or b"dlopen fails").decode(errors="replace"))
"""


def load_failure(library: Path, env: Mapping[str, str]) -> str:
    """What keeps a process with this environment from loading a library; empty when nothing does.

    Never raises for what is wrong with the library: a crash or a hang while it loads is said in the text.
    """
    command = [sys.executable, "-c", PROGRAM, str(library)]
    try:
        done = subprocess.run(
            command, env=dict(env), capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it was not loaded after {LIMIT_S} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        number = -done.returncode
        return f"signal {number} ({signal.strsignal(number)}) ends the process while it loads"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ends with {done.returncode} while it loads"
