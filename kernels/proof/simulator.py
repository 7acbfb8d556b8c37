"""hostsim from Python: builds the proof library once and wraps its C interface (``kernels/hostsim/hostsim.h``)."""

from __future__ import annotations

import ctypes
import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .machine import Machine

SOURCE = Path(__file__).parent
BUILD = SOURCE.parents[1] / "build" / "proof"


@cache
def library() -> ctypes.CDLL:
    """The proof library, built with CMake into ``build/proof`` (a no-op when nothing has changed)."""
    for command in (
        ["cmake", "-S", str(SOURCE), "-B", str(BUILD)],
        ["cmake", "--build", str(BUILD), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
    return load(BUILD / "libmoe_proof.so")


def load(path: Path) -> ctypes.CDLL:
    """A library with the interface of the proof library, typed."""
    lib = ctypes.CDLL(str(path))
    pointer, text, u64, u32, i32 = (
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int32
    )  # fmt: skip
    for name, result, arguments in (
        ("hostsim_new", pointer, [pointer]),
        ("hostsim_delete", None, [pointer]),
        ("hostsim_alloc", u64, [pointer, i32, u64, text, u64]),
        ("hostsim_map", None, [pointer, u64, u64, i32, text, pointer]),
        ("hostsim_write", None, [pointer, u64, pointer, u64, i32]),
        ("hostsim_read", i32, [pointer, u64, pointer, u64, pointer]),
        ("hostsim_server", None, [pointer, i32, i32]),
        ("hostsim_add_region", None, [pointer, pointer]),
        ("hostsim_add_queue", None, [pointer, pointer]),
        ("hostsim_launch", u32, [pointer, i32, i32, u32, text, pointer, u32]),
        ("hostsim_time", None, [pointer, pointer]),
        ("hostsim_trace", None, [pointer, i32]),
        ("hostsim_write_trace", None, [pointer, text]),
        ("hostsim_run", i32, [pointer]),
        ("hostsim_run_kernels", i32, [pointer, u64]),
        ("hostsim_findings", text, [pointer]),
        ("hostsim_deadlock", text, [pointer]),
        ("hostsim_counters", text, [pointer, u32]),
        ("hostsim_timing", text, [pointer, u32]),
        ("hostsim_sites", text, [pointer]),
        ("hostsim_steps", u64, [pointer]),
        ("hostsim_let_die", None, [pointer, i32, u64]),
        ("hostsim_death", text, [pointer]),
        ("hostsim_mutate", None, [pointer, text]),
        ("moe_parameter_bytes", u32, []),
        ("moe_context_bytes", u32, []),
        ("moe_dispatch_bytes", u64, [pointer, u32]),
        ("moe_counts_bytes", u64, [pointer, u32]),
        ("moe_combine_bytes", u64, [pointer]),
        ("moe_window_bytes", u64, [u64, u64]),
        ("moe_tp_window_bytes", u64, [u32, u32]),
        ("moe_dispatch_workspace", u64, [pointer]),
        ("moe_combine_workspace", u64, [pointer]),
        ("moe_hierarchy_context_bytes", u32, []),
        ("moe_hierarchy_dispatch_bytes", u64, [pointer, u32, u32]),
        ("moe_hierarchy_combine_bytes", u64, [pointer, u32, u32]),
        ("moe_hierarchy_output_bytes", u64, [pointer, u32, u32]),
        ("moe_hierarchy_window_bytes", u64, [u64, u64]),
        ("moe_hierarchy_workspace", u64, [pointer]),
        ("moe_hierarchy_handle_words", u32, [pointer, u32, u32]),
        ("moe_mesh_dispatch_bytes", u64, [pointer, u32, u32]),
        ("moe_mesh_combine_bytes", u64, [pointer, u32, u32]),
        ("moe_mesh_window_bytes", u64, [u64, u64]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@dataclass(frozen=True)
class Schedule:
    """Who runs when, and when copies land: see docs/hostsim.md."""

    seed: int = 1
    landing_percent: int = 30
    stalled_rank: int = -1
    stall_from: int = 0
    stall_steps: int = 0
    uneven: bool = False
    max_steps: int = 50_000_000
    patience: int = 0
    alone: bool = False
    """One rank per process: the others write into memory that is mapped, not simulated."""
    unchecked: bool = False
    """Copies take effect at once, and hardly a rule is checked."""


class _CSchedule(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("landing_percent", ctypes.c_uint32),
        ("stalled_rank", ctypes.c_int32),
        ("stall_from", ctypes.c_uint64),
        ("stall_steps", ctypes.c_uint64),
        ("uneven", ctypes.c_uint32),
        ("alone", ctypes.c_uint32),
        ("max_steps", ctypes.c_uint64),
        ("patience", ctypes.c_uint32),
        ("unchecked", ctypes.c_uint32),
    ]


class _CRegion(ctypes.Structure):
    _fields_ = [
        ("rank", ctypes.c_int32),
        ("local_key", ctypes.c_uint32),
        ("remote_key", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("host", ctypes.c_void_p),
    ]


class _CQueue(ctypes.Structure):
    _fields_ = [
        ("rank", ctypes.c_int32),
        ("peer", ctypes.c_int32),
        ("number", ctypes.c_uint32),
        ("element_bytes", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("head", ctypes.c_uint64),
        ("tail", ctypes.c_uint64),
        ("doorbell", ctypes.c_uint64),
        ("delivers", ctypes.c_int64),
    ]


class Simulator:
    """One simulated world. Use as a context manager: one at a time per process."""

    def __init__(self, schedule: Schedule | None = None, mutate: str = "") -> None:
        schedule = schedule or Schedule()
        self._lib = library()
        given = _CSchedule(
            schedule.seed,
            schedule.landing_percent,
            schedule.stalled_rank,
            schedule.stall_from,
            schedule.stall_steps,
            schedule.uneven,
            schedule.alone,
            schedule.max_steps,
            schedule.patience,
            schedule.unchecked,
        )
        self._world = self._lib.hostsim_new(ctypes.byref(given))
        if mutate:
            self._lib.hostsim_mutate(self._world, mutate.encode())

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.hostsim_delete(self._world)

    def alloc(self, rank: int, size: int, name: str, offset: int = 0) -> int:
        return self._lib.hostsim_alloc(self._world, rank, size, name.encode(), offset)

    def map(self, rank: int, base: int, host: int, size: int, name: str) -> int:
        """Makes memory of this process visible to kernels at ``base``; it is bounds-checked only."""
        self._lib.hostsim_map(self._world, base, size, rank, name.encode(), host)
        return base

    def put(self, rank: int, data: Tensor | bytes, name: str, offset: int = 0) -> int:
        """A new allocation with this content; 0, the null address, for an empty one."""
        raw = data if isinstance(data, bytes) else _bytes(data)
        if not raw:
            return 0
        address = self.alloc(rank, len(raw), name, offset)
        self.write(address, raw)
        return address

    def write(self, address: int, raw: bytes, written: bool = True) -> None:
        """``written=False``: old data of somebody else, that no kernel may read except in a poll."""
        self._lib.hostsim_write(self._world, address, raw, len(raw), written)

    def get(self, address: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The content as a tensor of that shape and dtype, and for every element whether a kernel wrote it."""
        size = like.numel() * like.element_size()
        raw, written = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
        if size and not self._lib.hostsim_read(self._world, address, raw, size, written):
            raise ValueError(f"{size} bytes at {address:#x} are not inside one allocation")
        content = torch.frombuffer(bytearray(raw.raw), dtype=like.dtype) if size else like
        flags = (
            torch.frombuffer(bytearray(written.raw), dtype=torch.uint8) if size else torch.ones(0)
        )
        return content.view(like.shape), flags.view(*like.shape, like.element_size()).bool().all(-1)

    def server(self, rank: int, server: int) -> None:
        """Ranks are in server 0 until told otherwise; kernels reach memory of their own server."""
        self._lib.hostsim_server(self._world, rank, server)

    def add_region(
        self,
        rank: int,
        local_key: int,
        remote_key: int,
        address: int,
        size: int,
        host: int | None = None,
    ) -> None:
        """Registers memory with the cards of the rank and its peers; ``host``: of this process, not of the world."""
        region = _CRegion(rank, local_key, remote_key, address, size, host)
        self._lib.hostsim_add_region(self._world, ctypes.byref(region))

    def add_queue(
        self,
        rank: int,
        peer: int,
        number: int,
        element_bytes: int,
        depth: int,
        ring: int,
        head: int,
        tail: int,
        doorbell: int,
        delivers: int = -1,
    ) -> None:
        """A queue pair; ``delivers``: dead after so many messages."""
        queue = _CQueue(
            rank, peer, number, element_bytes, depth, ring, head, tail, doorbell, delivers
        )
        self._lib.hostsim_add_queue(self._world, ctypes.byref(queue))

    def launch(
        self, rank: int, kernel: str, arguments: list[int], blocks: int, stream: int = 0
    ) -> int:
        array = (ctypes.c_uint64 * max(len(arguments), 1))(*arguments)
        launch = self._lib.hostsim_launch(
            self._world, rank, stream, blocks, kernel.encode(), array, len(arguments)
        )
        if not launch:
            raise ValueError(
                f"no kernel {kernel} with {len(arguments)} arguments and {blocks} blocks"
            )
        return launch

    def time(self, machine: Machine) -> None:
        """From here on everything takes its time on this machine; before the first launch."""
        self._lib.hostsim_time(self._world, ctypes.byref(machine.as_struct()))

    def trace(self, ranks: int) -> None:
        """Records what the cores of the first ranks do, for `write_trace`."""
        self._lib.hostsim_trace(self._world, ranks)

    def write_trace(self, path: Path) -> None:
        self._lib.hostsim_write_trace(self._world, str(path).encode())

    def timing(self, launch: int) -> dict[str, float]:
        """When a launch began, its own cost behind it, and when its last core ended, in us of simulated time."""
        return json.loads(self._lib.hostsim_timing(self._world, launch))

    def run(self) -> bool:
        """Runs all launches to their end; False on a deadlock."""
        return bool(self._lib.hostsim_run(self._world))

    def run_kernels(self, cards_stop: int) -> bool:
        """The same, but after so many steps network cards stand still until the next run."""
        return bool(self._lib.hostsim_run_kernels(self._world, cards_stop))

    @property
    def findings(self) -> list[dict[str, Any]]:
        return json.loads(self._lib.hostsim_findings(self._world))

    @property
    def deadlock(self) -> str:
        """Who waits for what, one line per core; empty if there is no deadlock."""
        return self._lib.hostsim_deadlock(self._world).decode()

    @property
    def sites(self) -> dict[str, int]:
        """Synchronisation calls reached, ``file:line kind`` to how often."""
        return json.loads(self._lib.hostsim_sites(self._world))

    def let_die(self, rank: int, step: int) -> None:
        """After so many more steps the rank is gone, with some of its copies under way."""
        self._lib.hostsim_let_die(self._world, rank, self.steps + step)

    @property
    def death(self) -> str:
        """In which kernel and where that rank died; empty: it has not yet."""
        return self._lib.hostsim_death(self._world).decode()

    @property
    def steps(self) -> int:
        return self._lib.hostsim_steps(self._world)

    def counters(self, launch: int) -> dict[str, Any]:
        return json.loads(self._lib.hostsim_counters(self._world, launch))


def _bytes(data: Tensor) -> bytes:
    return data.contiguous().view(torch.uint8).numpy().tobytes() if data.numel() else b""
