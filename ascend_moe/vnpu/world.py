"""Ranks on the virtual NPU that wait for work: a function is called on all of them, and each answers.

A world is one process that imports torch_npu once and forks the ranks (``rank.py``); the caller holds a pipe to
each. So the caller needs neither torch nor torch_npu, may use devices of its own, and cannot be taken down by a rank.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ascend_moe.vnpu.by_value import dumps

START_S = 180.0  # imports of torch_npu by several worlds at once, on few cores
END_S = 10.0


class RankDied(Exception):
    """The process of a rank ended without an answer."""


class RankTraceback(Exception):
    """Where on its rank an error was raised: the cause of that error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class Outcome:
    """What a rank answered: a value, or the error it raised."""

    _value: Any = None
    _error: BaseException | None = None
    looked_at: bool = field(default=False, compare=False)

    @property
    def value(self) -> Any:
        """What the function returned. Raises the rank's error if there is one."""
        __tracebackhide__ = (
            True  # in pytest the test is the place, and the rank's traceback the cause
        )
        if self._error is not None:
            self.looked_at = True
            raise self._error
        return self._value

    @property
    def error(self) -> BaseException | None:
        """What the function raised, or None; RankDied or TimeoutError where there was no answer."""
        self.looked_at = True
        return self._error

    @property
    def failed(self) -> bool:
        """Whether there is an error; asking does not count as looking at it."""
        return self._error is not None


class World:
    """``size`` ranks with an open device and an HCCL group each. Call it; close it at the end.

    In a rank the device of its number is set and ``torch.distributed`` is initialised with "hccl".
    """

    def __init__(self, size: int, environment: Mapping[str, str] | None = None) -> None:
        """environment: what the ranks' variables differ in from this process's.

        Raises RankDied or TimeoutError when the ranks do not start; why is on their stderr.
        """
        self.size = size
        self._folder = tempfile.TemporaryDirectory(prefix="ascend-moe-world-")
        self._leash, held = Pipe()  # its end ends the ranks, however this process ends
        pairs = [Pipe() for _ in range(size)]
        self._pipes = [ours for ours, _ in pairs]
        theirs = [held, *(end for _, end in pairs)]
        descriptors = [end.fileno() for end in theirs]
        store = Path(self._folder.name) / "store"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ascend_moe.vnpu.rank", str(store), *map(str, descriptors)],
            env=_environment(environment or {}),
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the caller, which then closes the world
        )
        for end in theirs:
            end.close()
        try:
            for outcome in self._answers(START_S):
                outcome.value  # noqa: B018 - raises
        except BaseException:
            self.close()
            raise

    def __call__(
        self, function: Callable[..., Any], *args: Any, timeout: float = 120.0
    ) -> list[Outcome]:
        """Call ``function(rank, *args)`` on every rank; what each answered, by rank.

        Tensors arrive by their values, on the CPU. A rank that does not answer within ``timeout`` seconds, or dies, has
        TimeoutError or RankDied as its error, and the world is closed.

        Raises TypeError when the function or an argument cannot be sent: a function must stand at the top of a module;
        RuntimeError when the world is closed.
        """
        if self.closed:
            raise RuntimeError("this world is closed")
        task = _task(function, args)
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):  # a rank that is gone has no answer
                pipe.send_bytes(task)
        return self._answers(timeout)

    @property
    def closed(self) -> bool:
        return not self._pipes

    def close(self) -> None:
        """End the ranks. What they hold is gone with them."""
        for pipe in (*self._pipes, self._leash):
            pipe.close()
        self._pipes = []
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _answers(self, timeout: float) -> list[Outcome]:
        """One answer of each rank."""
        deadline = time.monotonic() + timeout
        found: dict[int, Outcome] = {}
        ranks: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(self._pipes)}
        while len(found) < self.size:
            waiting = [pipe for pipe, rank in ranks.items() if rank not in found]
            ready: Sequence[Any] = wait(waiting, max(0.0, deadline - time.monotonic()))
            for pipe in ready:
                found[ranks[pipe]] = _answer(ranks[pipe], pipe)
            if not ready:
                for rank in set(ranks.values()) - set(found):
                    text = f"rank {rank} did not answer within {timeout:g} s"
                    found[rank] = Outcome(None, TimeoutError(text))
        outcomes = [found[rank] for rank in range(self.size)]
        if any(isinstance(outcome._error, (RankDied, TimeoutError)) for outcome in outcomes):
            self.close()
        return outcomes


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's variables and import path, which a test runner may have made on the way."""
    variables = {**os.environ, **changes}
    path = [variables.get("PYTHONPATH", ""), *sys.path]
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _task(function: Callable[..., Any], args: Sequence[Any]) -> bytes:
    """The call, and where the function's module can be found: a test file need not be importable by its name."""
    try:
        call = dumps((function, args))
        file = inspect.getfile(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"a world calls functions that stand at the top of a module, with arguments that pickle takes: {error}"
        ) from error
    return pickle.dumps((sys.path, function.__module__, file, call))


def _answer(rank: int, pipe: Connection) -> Outcome:
    try:
        answer = pipe.recv_bytes()
    except (EOFError, OSError):
        return Outcome(None, RankDied(f"rank {rank} ended without an answer"))
    try:
        value, error, traceback = pickle.loads(answer)
    except Exception as unreadable:
        return Outcome(None, unreadable)
    if error is not None:
        error.__cause__ = RankTraceback(f"rank {rank}:\n{traceback}")
    return Outcome(value, error)
