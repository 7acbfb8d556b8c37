"""pytest plugin: a project's tests on the virtual NPU (docs/testing.md).

pytest loads this module in every project of an environment that has ascend-moe, so it stands outside the package and
imports nothing that is not loaded anyway; the rest comes when a test asks for it.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from ascend_moe.vnpu.world import Outcome, World

OPTION = "--virtual-npu"
NOT_HERE = f"needs the virtual NPU: pytest {OPTION}"
RESTARTED = "ASCEND_MOE_PYTEST_RESTARTED"  # the process that was: exec keeps its number


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ascend-moe").addoption(
        OPTION,
        nargs="?",
        const="",
        metavar="PRODUCT[:DEVICES[:SERVERS]]",
        help="run under the virtual NPU, as 'ascend-moe run' does. The value only by =, for example "
        f"{OPTION}=A3:16 or {OPTION}=A2:16:2; without one as there.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "virtual_npu(product=None, devices=None, servers=None): needs the virtual NPU, playing this product and "
        "showing at least so many devices; with servers exactly so many, on so many servers. Worlds of npu_world are "
        "started so; a test without one is skipped where the run is another.",
    )


def pytest_report_header() -> str | None:
    if not _is_active():
        return None
    from ascend_moe.vnpu.environment import machine

    return f"virtual NPU: {machine(*_played())}; nothing here runs on an Ascend device"


# ---- getting there ----


@pytest.hookimpl(
    hookwrapper=True, tryfirst=True
)  # before output is captured and conftests are loaded
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Iterator[None]:
    """Restarts pytest, once, with the stand-in in its environment; processes that it starts then have it too."""
    known = early_config.known_args_namespace
    if OPTION in args:
        _take_no_path_for_a_value(args)
        again = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
        known.virtual_npu, known.file_or_dir = again.virtual_npu, again.file_or_dir
    if known.virtual_npu is not None and not (known.help or known.version):
        _restart(early_config, _Run.of(known.virtual_npu))
    yield


def _take_no_path_for_a_value(args: list[str]) -> None:
    """In ``--virtual-npu tests`` the second word is a path, but argparse would take it."""
    end = args.index("--") if "--" in args else len(args)
    args[:end] = [f"{OPTION}=" if word == OPTION else word for word in args[:end]]


class _Run(NamedTuple):
    """What is played, or what somebody wants to be played; None: anything."""

    product: str | None = None
    devices: int | None = None
    servers: int | None = None

    @classmethod
    def of(cls, value: str) -> _Run:
        product, *numbers = value.split(":")
        if len(numbers) > 2 or not all(one.isascii() and one.isdecimal() for one in numbers):
            raise pytest.UsageError(
                f"{OPTION}={value}: not PRODUCT, PRODUCT:DEVICES or PRODUCT:DEVICES:SERVERS, as A3:16 or A2:16:2"
            )
        return cls(product or None, *map(int, numbers))

    def lacks(self, wanted: _Run) -> bool:
        """Whether a test that wants this cannot run here: a split is of exactly so many devices."""
        if wanted.servers is not None:
            devices = self.devices if wanted.devices is None else wanted.devices
            if (devices, wanted.servers) != (self.devices, self.servers):
                return True
        return wanted.product not in (None, self.product) or (wanted.devices or 0) > (
            self.devices or 0
        )


def _is_active() -> bool:
    from ascend_moe.vnpu import is_active

    return is_active()


def _played() -> _Run:
    """What the environment of this process says."""
    from ascend_moe.vnpu.environment import DEVICES
    from ascend_moe.vnpu.servers import SERVERS

    servers = os.environ.get(SERVERS)
    return _Run(
        os.environ.get("ASCEND_MOE_PRODUCT") or "A3",
        int(os.environ.get(DEVICES) or 16),
        int(servers) if servers else None,
    )


def _restart(config: pytest.Config, wanted: _Run) -> None:
    """Become the same command with the stand-in; return if that is what this process is."""
    from ascend_moe.vnpu import VirtualNpuError
    from ascend_moe.vnpu.activation import environment_of_run

    if _is_active() and all(
        want in (None, have) for want, have in zip(wanted, _played(), strict=True)
    ):
        return
    if list(config.invocation_params.args) != sys.argv[1:]:
        raise pytest.UsageError(
            f"{OPTION} restarts pytest, but here a program called it: ascend-moe run PROGRAM"
        )
    if os.environ.get(RESTARTED) == str(os.getpid()):
        raise pytest.UsageError(
            f"{OPTION}: pytest was restarted, and something took its variables away"
        )
    try:
        changes = environment_of_run(*wanted)
    except VirtualNpuError as error:
        raise pytest.UsageError(f"{OPTION}: {error}") from None
    changes[RESTARTED] = str(os.getpid())
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **changes})


# ---- what tests use ----


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marked test without a world is one for this process: it runs where this process's devices will do."""
    needs = _needs(item)
    if needs is None:
        return
    if not _is_active():
        pytest.skip(NOT_HERE)
    here = _played()
    if "npu_world" in getattr(item, "fixturenames", ()):
        return
    if here.lacks(needs):
        asked = f"{needs.product or here.product}:{needs.devices or here.devices}"
        if needs.servers is not None:
            asked += f":{needs.servers}"
        this = ":".join(str(one) for one in here if one is not None)
        pytest.skip(f"needs pytest {OPTION}={asked}, this is {this}")


def _needs(item: pytest.Item) -> _Run | None:
    """What the marker nearest to the test says."""
    mark = item.get_closest_marker("virtual_npu")
    if mark is None:
        return None
    needs = _Run(*mark.args, **mark.kwargs)
    if needs.product not in (None, "A2", "A3"):
        raise pytest.UsageError(f"{item.nodeid}: virtual_npu(product={needs.product!r}): A2 or A3")
    return needs


@pytest.fixture
def npu_world(
    request: pytest.FixtureRequest, _npu_worlds: _Worlds
) -> Iterator[Callable[[int], Callable[..., list[Outcome]]]]:
    """``npu_world(n)(function, *args)`` calls ``function(rank, *args)`` on n ranks and gives their outcomes, by rank.

    ``outcome.value`` is what the function returned, tensors on the CPU; it raises the rank's error if there is one.
    ``outcome.error`` is what it raised, or None. In a rank its device is set and torch.distributed is initialised with
    "hccl". The ranks stay for the next test that asks for as many, unless one of them had an error. A call with errors
    of which the test looked at none is an error of the test.

    ``timeout=`` of the inner call: seconds until a rank that does not answer has a TimeoutError (default 120).
    """
    if not _is_active():
        pytest.skip(NOT_HERE)
    needs = _needs(request.node) or _Run()
    calls: list[list[Outcome]] = []

    def world(size: int) -> Callable[..., list[Outcome]]:
        def call(function: Callable[..., Any], *args: Any, **options: Any) -> list[Outcome]:
            calls.append(_npu_worlds.of(size, needs)(function, *args, **options))
            return calls[-1]

        return call

    yield world
    for outcomes in calls:
        failed = [(rank, outcome) for rank, outcome in enumerate(outcomes) if outcome.failed]
        if failed and not any(outcome.looked_at for _, outcome in failed):
            rank, outcome = failed[0]
            raise AssertionError(
                f"the test did not look at the error of rank {rank}"
            ) from outcome.error


@pytest.fixture(scope="session")
def _npu_worlds() -> Iterator[_Worlds]:
    worlds = _Worlds()
    yield worlds
    worlds.close()


class _Worlds:
    """The ranks that wait for the next test, by what they are."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, _Run], World] = {}

    def of(self, size: int, needs: _Run) -> Callable[..., list[Outcome]]:
        """A world whose ranks have had no error so far."""
        from ascend_moe.vnpu.environment import DEVICES
        from ascend_moe.vnpu.servers import SERVERS, server_count
        from ascend_moe.vnpu.world import World

        here = _played()
        run = _Run(needs.product or here.product, max(needs.devices or 0, here.devices or 0))
        if needs.servers is not None:
            run = _Run(run.product, needs.devices or here.devices, needs.servers)
        elif run[:2] == here[:2]:
            run = here
        if not 1 <= size <= (run.devices or 0):
            raise ValueError(f"npu_world({size}): there are {run.devices} devices")
        key = (size, run)
        if key not in self._open:
            server_count(run.servers, None, product=str(run.product), devices=run.devices or 0)
            variables = {
                "ASCEND_MOE_PRODUCT": str(run.product),
                DEVICES: str(run.devices),
                SERVERS: "" if run.servers is None else str(run.servers),
            }
            self._open[key] = World(size, variables)

        def call(function: Callable[..., Any], *args: Any, **options: Any) -> list[Outcome]:
            outcomes = self._open[key](function, *args, **options)
            if any(outcome.failed for outcome in outcomes):
                self._open.pop(key).close()
            return outcomes

        return call

    def close(self) -> None:
        for world in self._open.values():
            world.close()
