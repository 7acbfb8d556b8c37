"""Files that say how fast a machine is, and on how many cores a launch is fastest there.

``scripts/npu_check --tune`` writes one, ``ASCEND_MOE_TUNING`` names one for the host library, which reads the cores,
and ``scripts/bench kernels --tuning`` one for the model, which reads both::

    {"format": 1, "product": "A3", "virtual": false,
     "machine": {"server_rate": 151.2},
     "cores": [{"operator": "combine", "ep": 16, "rows": 512, "cores": 32}]}

``cores``: a call takes the row of its operator with the smallest ``ep`` that is not smaller than its group, or else the
largest, and of these by ``rows`` (batch times K) alike. ``kernels/op_api/cores/*.json`` are such files, made by
``scripts/bench kernels --search``; an operator that a file does not have is taken from there. Not from a file: cores of
calls with TP, whose pairs have to come to the same number. Whatever else is in a file is for its reader. The host
library checks the same in C++ (``kernels/op_api/tuning.cpp``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .machine import FIGURES, Machine, machine

FORMAT = 1
OPERATORS = (
    "dispatch_int8",
    "dispatch_bf16",
    "combine",
    "hierarchy_dispatch_int8",
    "hierarchy_dispatch_bf16",
    "hierarchy_combine",
    "mesh_dispatch_int8",
    "mesh_dispatch_bf16",
    "mesh_combine",
)
"""Whose cores a file may have; ``int8``: dispatch with quant_mode 2, ``bf16``: any other."""
MOST = {"ep": 768, "rows": 1 << 20, "cores": 48}
SLACK = 0.01
"""What fewer cores may cost."""
CHECKED_IN = Path(__file__).parents[1] / "op_api" / "cores"


class TuningError(ValueError):
    """What is wrong with a file: file, key, value, limit."""


@dataclass(frozen=True, order=True)
class CoreChoice:
    """On how many cores an operator is fastest, for a group and a number of rows."""

    operator: str
    ep: int
    rows: int
    cores: int


@dataclass(frozen=True)
class Tuning:
    """A file's content."""

    path: Path
    product: str
    virtual: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    cores: Sequence[CoreChoice] = ()

    @property
    def machine(self) -> Machine:
        """The figures that are believed, but for those of the file."""
        return machine(self.product).with_values(**self.figures)

    def choose(self, operator: str, ep: int, rows: int) -> int | None:
        """The cores of a call, as the host library chooses them; None: it has a rule for those."""
        mine = [choice for choice in self.cores if choice.operator == operator]
        if not mine:
            return None
        group = _next({choice.ep for choice in mine}, ep)
        wanted = _next({choice.rows for choice in mine if choice.ep == group}, rows)
        return next(choice.cores for choice in mine if (choice.ep, choice.rows) == (group, wanted))


def _next(listed: Iterable[int], wanted: int) -> int:
    """The smallest that is not smaller, else the largest."""
    ordered = sorted(listed)
    return next((value for value in ordered if value >= wanted), ordered[-1])


def load(path: Path, product: str | None = None) -> Tuning:
    """Raises TuningError; also when the file is of another product than this one."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise TuningError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # also bytes that are no text
        raise TuningError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise TuningError(f"{path}: must be an object, is {_said(content)}")
    _must(path, "format", content.get("format", FORMAT), FORMAT)
    given = content.get("product")
    if not isinstance(given, str) or given not in FIGURES:
        raise TuningError(f"{path}: product is {_said(given)}, must be {' or '.join(FIGURES)}")
    if product is not None and given != product:
        raise TuningError(f"{path}: product is {_said(given)}, this is {product}")
    virtual = content.get("virtual", False)
    if not isinstance(virtual, bool):
        raise TuningError(f"{path}: virtual is {_said(virtual)}, must be true or false")
    figures = _figures(path, given, content.get("machine", {}))
    return Tuning(path, given, virtual, figures, tuple(_choices(path, content.get("cores", []))))


def checked_in(product: str) -> Tuning:
    """What the host library has without a file."""
    return load(CHECKED_IN / f"{product}.json", product)


def over(tuning: Tuning | None, product: str) -> Tuning:
    """What the host library has with this file: an operator that the file has is all the file's."""
    base = checked_in(product)
    if tuning is None:
        return base
    named = {choice.operator for choice in tuning.cores}
    rest = [choice for choice in base.cores if choice.operator not in named]
    return Tuning(tuning.path, product, tuning.virtual, tuning.figures, (*tuning.cores, *rest))


def best(times: Mapping[int, float]) -> int:
    """The fewest cores that are as good as any."""
    limit = min(times.values()) * (1 + SLACK)
    return min(cores for cores, us in times.items() if us <= limit)


def text(content: Mapping[str, Any], cores: Iterable[CoreChoice]) -> str:
    """A file with this content and a line for each choice."""
    head = json.dumps({"format": FORMAT, **content}, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(asdict(choice))}" for choice in sorted(cores))
    return f'{head},\n "cores": [\n{lines}\n ]\n}}\n' if lines else f'{head},\n "cores": []\n}}\n'


def _figures(path: Path, product: str, given: Any) -> dict[str, float]:
    if not isinstance(given, dict):
        raise TuningError(f"{path}: machine is {_said(given)}, must be an object")
    for name, value in given.items():
        if name not in FIGURES[product]:
            raise TuningError(f"{path}: machine.{name} is no figure of the model")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TuningError(f"{path}: machine.{name} is {_said(value)}, must be a number")
        least = 0 if FIGURES[product][name].value == 0 or name == "pairwise" else 1e-3
        if not least <= value <= 1e9:
            raise TuningError(f"{path}: machine.{name} is {value}, must be {least:g} to 1e9")
    return given


def _choices(path: Path, given: Any) -> Iterable[CoreChoice]:
    if not isinstance(given, list):
        raise TuningError(f"{path}: cores is {_said(given)}, must be a list")
    seen = set()
    for number, row in enumerate(given):
        at = f"{path}: cores[{number}]"
        if not isinstance(row, dict):
            raise TuningError(f"{at} is {_said(row)}, must be an object")
        operator = row.get("operator")
        if operator not in OPERATORS:
            raise TuningError(
                f"{at}.operator is {_said(operator)}, must be one of {', '.join(OPERATORS)}"
            )
        for key, most in MOST.items():
            value = row.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise TuningError(f"{at}.{key} is {_said(value)}, must be 1 to {most}")
        choice = CoreChoice(operator, row["ep"], row["rows"], row["cores"])
        place = (choice.operator, choice.ep, choice.rows)
        if place in seen:
            raise TuningError(
                f"{at} says again what {choice.operator} takes for ep {choice.ep} and rows {choice.rows}"
            )
        seen.add(place)
        yield choice


def _must(path: Path, key: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise TuningError(f"{path}: {key} is {_said(value)}, must be {wanted}")


def _said(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)[:60]
