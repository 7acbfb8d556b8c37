"""The ranks of a :class:`~ascend_moe.vnpu.world.World`: ``python -m ascend_moe.vnpu.rank STORE LEASH PIPE..``.

This process imports torch_npu once and forks a rank per pipe; no device is open yet, so a fork costs little. When the
other end of the leash is closed, by whatever end the caller has found, the ranks are killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ascend_moe.bootstrap import import_torch_npu
from ascend_moe.vnpu.by_value import dumps

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(store: str, *descriptors: str) -> None:
    """Fork the ranks and wait for the end of the leash."""
    import_torch_npu()
    leash, *pipes = (Connection(int(descriptor)) for descriptor in descriptors)
    ranks = []
    for rank in range(len(pipes)):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            _live(rank, store, leash, pipes)
    for pipe in pipes:
        pipe.close()
    with contextlib.suppress(EOFError):
        leash.recv_bytes()
    for process in ranks:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _live(rank: int, store: str, leash: Connection, pipes: list[Connection]) -> None:
    """A forked rank, until its pipe is closed. Never returns."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for other in (leash, *pipes[:rank], *pipes[rank + 1 :]):
        other.close()
    pipe = pipes[rank]
    try:
        _answer(pipe, _join, (rank, len(pipes), store))
        while True:
            path, name, file, call = pickle.loads(pipe.recv_bytes())
            sys.path[:] = path
            _answer(pipe, _call, (rank, name, file, call))
    except (EOFError, OSError):
        os._exit(0)
    finally:
        os._exit(1)


def _join(rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    torch.get_device_module("npu").set_device(rank)
    dist.init_process_group("hccl", init_method=f"file://{store}", rank=rank, world_size=size)


def _call(rank: int, name: str, file: str, call: bytes) -> Any:
    _import(name, Path(file))
    function, args = pickle.loads(call)
    return function(rank, *args)


def _import(name: str, file: Path) -> None:
    """Import the module of that name, if need be from its file: pytest's import modes give names of their own."""
    try:
        module = importlib.import_module(name)
        if Path(module.__file__ or "").resolve() == file.resolve():
            return
    except ImportError:
        pass
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be imported from {file}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _answer(pipe: Connection, function: Any, args: tuple[Any, ...]) -> None:
    """Send (value, error, traceback); whatever goes wrong is the answer."""
    try:
        answer = dumps((function(*args), None, ""))
    except BaseException as error:
        answer = dumps((None, _sendable(error), traceback.format_exc()))
    pipe.send_bytes(answer)


def _sendable(error: BaseException) -> BaseException:
    """The error, or its text where it cannot travel: not every exception class survives pickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main(*sys.argv[1:])
