"""The floor: the world's row copies and sums alone, split evenly over the cores, into warm buffers.

dispatch: every row copied once from its token (int8: as int8). combine: every row copied once ("published") and the
rows of each token added up by weight. round trip: both. No routing, no order, no waiting, no quantisation, no Python;
the best of a few samples.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scripts.benchmarks.cpu.cases import Case

SOURCE = Path(__file__).with_name("floor.c")
REPEAT, SAMPLES = 5, 5


class Floor:
    """Measures the floor of a case; `available` is False without a C compiler."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
        if compiler is None:
            return
        with tempfile.TemporaryDirectory(prefix="ascend-moe-bench-") as folder:
            library = Path(folder) / "floor.so"
            command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, SOURCE]
            if subprocess.run(command, capture_output=True).returncode == 0:
                self._library = ctypes.CDLL(str(library))
                self._library.gather.restype = ctypes.c_double
                self._library.publish_and_sum.restype = ctypes.c_double

    @property
    def available(self) -> bool:
        return self._library is not None

    def milliseconds(self, case: Case, world: int) -> dict[str, float | None]:
        """By op; None where there is no compiler."""
        ops = ("dispatch", "dispatch int8", "combine", "round trip")
        if self._library is None:
            return dict.fromkeys(ops)
        cores = len(os.sched_getaffinity(0))
        tokens = -(-case.bs * world // cores)
        shares = [_Share(self._library, case, tokens, case.bs * world) for _ in range(cores)]
        with ThreadPoolExecutor(cores) as pool:

            def slowest(op: str) -> float:
                """A foreign call holds no interpreter lock: the shares run side by side."""
                times = [
                    max(pool.map(lambda share: getattr(share, op)(), shares))
                    for _ in range(SAMPLES + 1)
                ]
                return min(times[1:]) * 1e3

            copy, copy_int8, combine = map(slowest, ("copy", "copy_int8", "combine"))
        return dict(zip(ops, (copy, copy_int8, combine, copy + combine), strict=True))


class _Share:
    """One core's rows: those of ``tokens`` tokens, drawn from the whole world's."""

    def __init__(self, library: ctypes.CDLL, case: Case, tokens: int, world_tokens: int) -> None:
        self._library, self._case, self._tokens = library, case, tokens
        rows = tokens * case.topk
        generator = np.random.default_rng(0)
        self._x = np.ones((world_tokens, case.hidden), np.uint16)
        self._index = generator.integers(0, world_tokens, rows)
        self._rows = np.ones((rows, case.hidden), np.uint16)
        self._window = np.ones((rows, case.hidden), np.uint16)
        self._out = np.ones((tokens, case.hidden), np.uint16)
        self._weights = np.ones(rows, np.float32)
        self._sum = np.ones(case.hidden, np.float32)

    def copy(self) -> float:
        return self._gather(2 * self._case.hidden)

    def copy_int8(self) -> float:
        return self._gather(self._case.hidden)

    def combine(self) -> float:
        buffers = (self._out, self._window, self._rows, self._weights)
        sizes = (self._tokens, self._case.topk, self._case.hidden)
        return float(
            self._library.publish_and_sum(
                *(buffer.ctypes.data_as(ctypes.c_void_p) for buffer in buffers),
                *map(ctypes.c_int64, sizes),
                self._sum.ctypes.data_as(ctypes.c_void_p),
                REPEAT,
            )
        )

    def _gather(self, row_bytes: int) -> float:
        buffers = (self._window, self._x, self._index)
        return float(
            self._library.gather(
                *(buffer.ctypes.data_as(ctypes.c_void_p) for buffer in buffers),
                ctypes.c_int64(len(self._index)),
                ctypes.c_int64(row_bytes),
                REPEAT,
            )
        )
