"""Programs on the virtual NPU, without the seconds that torch and torch_npu take to be imported: forks of this process.

usage: ascend-moe run prepared.py DESCRIPTOR

The descriptor is a socket of messages. A request is a program as JSON, with the descriptor of its output: program,
arguments, and the variables that its environment has besides ours. The answers are the number of its process, which
leads a group of processes of its own, and its exit code. This process opens no device; a program's own ranks are
forked the same way (programs/ranks.py).
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = ("torch", "torch_npu", "torch._dynamo", "hypothesis", "ascend_moe.reference")


def next_program(connection: socket.socket) -> dict[str, Any]:
    """In a child of this process: what it is to run. In this process the requests end with SystemExit."""
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1 << 20, 1)
        if not message:
            sys.exit()
        child = os.fork()
        if child == 0:
            os.setsid()
            connection.close()
            for standard in (1, 2):
                os.dup2(descriptors[0], standard)
            os.close(descriptors[0])
            return json.loads(message)
        os.close(descriptors[0])
        connection.send(str(child).encode())
        connection.send(str(_exit_code(child, connection)).encode())


def _exit_code(child: int, connection: socket.socket) -> int:
    """Waits; should those who asked go away meanwhile, the program goes too."""
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.killpg(child, signal.SIGKILL)
    os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def become(program: Path, arguments: list[str]) -> int:
    """Run it as Python would have, ``__main__`` with its folder first on the path; its exit code."""
    sys.argv, sys.path[0] = [str(program), *arguments], str(program.parent)
    main = types.ModuleType("__main__")
    main.__file__ = str(program)
    sys.modules["__main__"] = main
    try:
        exec(compile(program.read_bytes(), program, "exec"), main.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """All that Python does at its end but taking the modules apart, 1.2 s of a core with those of torch."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    request = next_program(socket.socket(fileno=int(sys.argv[1])))
    os.environ.update(request["environment"])
    leave(become(Path(request["program"]), request["arguments"]))
