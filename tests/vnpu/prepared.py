"""Programs on the virtual NPU, without the seconds that torch and torch_npu take to be imported: forks of this process.

usage: ascend-moe run prepared.py DESCRIPTOR

The descriptor is a socket of messages. A request is a program as JSON, with the descriptor of its output: program, arguments,
and the variables that its environment has besides ours. The answers are the number of its process (which leads a
group of processes of its own), and its exit code. This process opens no device; a program's own ranks are forked the
same way (programs/ranks.py).
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

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


def become(program: Path, arguments: list[str]) -> None:
    """Run it as Python would have: ``__main__``, its folder first on the path."""
    sys.argv, sys.path[0] = [str(program), *arguments], str(program.parent)
    main = types.ModuleType("__main__")
    main.__file__ = str(program)
    sys.modules["__main__"] = main
    exec(compile(program.read_bytes(), program, "exec"), main.__dict__)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    request = next_program(socket.socket(fileno=int(sys.argv[1])))
    os.environ.update(request["environment"])
    become(Path(request["program"]), request["arguments"])
