"""The part of doctor about kernels: which library torch_npu will take, and what keeps it from taking ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ascend_moe.hardware import error_record, kernel_library, lookup
from ascend_moe.hardware.kernel_library import KERNELS_VARIABLE, LIBRARY, OPP_VARIABLE
from ascend_moe.hardware.loading import load_failure
from ascend_moe.hardware.process import Process
from ascend_moe.native import BuildError

EVAL = 'eval "$(ascend-moe env)" before Python starts'


class Kernels(NamedTuple):
    """What was found."""

    installed: str | None  # our vendor directory
    refused: str  # why what is installed must not be used
    candidates: list[lookup.Candidate]
    choices: list[lookup.Choice]

    @property
    def used(self) -> bool:
        """Whether torch_npu takes both operators from us."""
        ours = [choice.operator for choice in self.choices if choice.library.ours]
        return ours == list(lookup.OPERATORS)

    def facts(self) -> dict[str, Any]:
        """As ``doctor --json`` prints it; an operator that is found nowhere is left out."""
        chosen = {choice.operator: str(choice) for choice in self.choices}
        return {"installed": self.installed, "ours": self.used, **chosen}


def look(env: Mapping[str, str]) -> Kernels:
    installed, refused = None, ""
    try:
        vendor = kernel_library.installed_vendor()
        installed = None if vendor is None else str(vendor)
    except BuildError as error:
        refused = str(error)
    return Kernels(installed, refused, lookup.candidates(env), lookup.choices(env))


def row(facts: Mapping[str, Any]) -> str:
    """One line for the table, or two."""
    if facts["ours"]:
        return "; ".join(facts[operator] for operator in lookup.OPERATORS)
    if facts["installed"]:
        return f"CANN's own; ours are installed but not on {OPP_VARIABLE}: {EVAL}"
    return f"CANN's own (ours are not on {OPP_VARIABLE})"


def problems(kernels: Kernels, env: Mapping[str, str], cann: str | None) -> list[str]:
    """Why ours are not taken, or should not be."""
    found = [*_of_path(kernels, env), *_of_choice(kernels), *_of_loading(kernels, env)]
    found += _of_build(kernels, cann)
    if env.get(KERNELS_VARIABLE) == "require" and not kernels.used:
        found.append(
            f"{KERNELS_VARIABLE}=require, but torch_npu will not take our kernels: {EVAL}."
        )
    return found


def of_process(process: Process, env: Mapping[str, str] | None) -> list[str]:
    """Why a process that has torch_npu loaded does not run our kernels.

    ``env`` is its environment now, which only the process itself knows.
    """
    if not process.torch_npu or process.ours_loaded:
        return []
    if env is None:
        if process.names_ours:
            return []
        return [f"process {process.pid} was started without our kernels on {OPP_VARIABLE}: {EVAL}."]
    if env.get(OPP_VARIABLE, "") == process.started_with:
        return []
    return [
        f"{OPP_VARIABLE} has changed since this process started, and torch_npu is loaded: it reads the variable once, "
        f"when it is imported, so a value set after that has no effect. {EVAL}."
    ]


def of_records() -> list[str]:
    """What kernels left behind in the last day."""
    return [str(record) for record in error_record.recent_records()]


def _build_script() -> str:
    return f"scripts/build_kernels {kernel_library.preset()}"


def _of_path(kernels: Kernels, env: Mapping[str, str]) -> list[str]:
    found = []
    entries = [entry for entry in env.get(OPP_VARIABLE, "").split(":") if entry]
    having = [bool((Path(entry) / LIBRARY).is_file()) for entry in entries]
    if entries and not any(having):
        found.append(f"no {LIBRARY} below {OPP_VARIABLE}={env[OPP_VARIABLE]!a}.")
    elif entries and not having[0]:
        found.append(
            f"{entries[0]} has no {LIBRARY}, and older torch_npu stop searching there: put it behind ours."
        )
    found += [
        f"{library.path} is skipped by torch_npu: {library.skipped}. Build it as that user, or as root for all."
        for library in kernels.candidates
        if library.skipped
    ]
    return found


def _of_choice(kernels: Kernels) -> list[str]:
    ours = [library for library in kernels.candidates if library.ours and not library.skipped]
    if not ours:
        return []
    found = []
    for choice in kernels.choices:
        if choice.library.ours:
            continue
        newest = max(ours[0].generations(choice.operator), default=0)
        why = (
            f"torch_npu asks for V{choice.generation} first and ours ends at V{newest}: update ascend-moe"
            if choice.generation > newest
            else f"it comes before ours: {EVAL}"
        )
        found.append(f"{choice.operator} runs {choice.library.path}, not ours; {why}.")
    if len({choice.library.path for choice in kernels.choices}) > 1:
        found.append(
            "dispatch and combine come from different libraries, whose windows do not fit."
        )
    return found


def _of_loading(kernels: Kernels, env: Mapping[str, str]) -> list[str]:
    """Ours, wherever they are: on the path, or installed and soon to be put there."""
    ours = [library for library in kernels.candidates if library.ours and not library.skipped]
    paths = {library.path for library in ours}
    if kernels.installed is not None:
        paths.add((Path(kernels.installed) / LIBRARY).resolve())
    failures = {path: load_failure(path, env) for path in sorted(paths)}
    return [
        f"{path} cannot be loaded, and torch_npu then takes CANN's own in silence: {text}. "
        f"Source CANN's set_env.sh; after an update of CANN build it again: {_build_script()}."
        for path, text in failures.items()
        if text
    ]


def _of_build(kernels: Kernels, cann: str | None) -> list[str]:
    if kernels.installed is None:
        return [f"our installed kernels: {kernels.refused}."] if kernels.refused else []
    record = kernel_library.built_from()
    found = []
    try:
        current = kernel_library.source_key()
    except BuildError:
        current = record.get("sources", "")
    if record.get("sources") != current:
        found.append(f"our installed kernels were built from other sources: {_build_script()}.")
    if cann is not None and record.get("cann") not in (None, cann):
        found.append(
            f"our installed kernels were built with CANN {record['cann']}, here is {cann}."
        )
    return found
