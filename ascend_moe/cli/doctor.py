"""ascend-moe doctor: what is here, and which known problems wait. Opens no device, imports no torch.

What concerns kernels is in doctor_kernels.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ascend_moe.cli import doctor_kernels
from ascend_moe.cli.table import pairs, paragraph
from ascend_moe.contract.limits import BETWEEN, PRODUCTS, RANKS_PER_SERVER
from ascend_moe.contract.path import PCIE, ROCE, environment_selects_hierarchy
from ascend_moe.contract.resolve import contract_of_cann, resolve_contract, resolve_product
from ascend_moe.contract.signature import CANN_8_2
from ascend_moe.contract.window import VARIABLE, read_hccl_buffsize
from ascend_moe.hardware import error_record
from ascend_moe.hardware.cann import (
    cann_home,
    cann_version,
    cann_version_text,
    is_stand_in,
    numbers,
    operators_version_text,
)
from ascend_moe.hardware.driver import driver_version
from ascend_moe.hardware.kernel_library import KERNELS_VARIABLE, OPP_VARIABLE
from ascend_moe.hardware.process import look_at
from ascend_moe.inputs import open_input

VARIABLES = (
    "ASCEND_MOE_PRODUCT",
    "ASCEND_MOE_CONTRACT",
    "ASCEND_MOE_CHECK",
    "ASCEND_MOE_TIMEOUT_S",
    "ASCEND_MOE_TUNING",
    "ASCEND_MOE_DUMP",
    KERNELS_VARIABLE,
    "ASCEND_HOME_PATH",
    OPP_VARIABLE,
    VARIABLE,
    "HCCL_BUFFSIZE_EP",
    "DEEPEP_HCCL_BUFFSIZE",
    "HCCL_OP_EXPANSION_MODE",
    PCIE,
    ROCE,
    "HCCL_LOGIC_SUPERPOD_ID",
)
# What must be equal on all nodes of a deployment.
FILE_MAX_BYTES = 2**24
COMPARED = ("product", "cann", "driver", "torch_npu", "hccl_buffsize_mb", "hierarchy")


class Problem(NamedTuple):
    """Something that is known to go wrong; rule is its id, or empty."""

    rule: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit code: 0 nothing known is wrong, 1 problems, 2 usage"
    parser.add_argument("--product", choices=PRODUCTS, help="default: the NPU here, else A3")
    parser.add_argument("--ep", type=int, metavar="N", help="ranks of the EP group that will run")
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="also look at a running process that uses torch_npu"
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="delete what kernels left behind when a rank did not come",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="a block for an issue tracker")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="instead: compare what doctor --json wrote on several nodes",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.compare:
            facts, problems = {}, compare(arguments.compare)
        else:
            if arguments.forget:
                error_record.forget()
            facts = gather(os.environ, arguments.product)
            problems = known_problems(facts, os.environ, arguments.ep)
            problems += _of_process(arguments.pid)
    except ValueError as error:
        print(f"ascend-moe doctor: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({**facts, "problems": [problem._asdict() for problem in problems]}))
    elif arguments.markdown:
        print(markdown(_rows(facts) if facts else [], problems))
    else:
        if facts:
            print(pairs(_rows(facts)))
        for problem in problems:
            rule = f" [{problem.rule}]" if problem.rule else ""
            print(paragraph(f"problem{rule}: {problem.text}"))
        if not problems:
            print("no known problem")
    return 1 if problems else 0


def gather(env: Mapping[str, str], product: str | None = None) -> dict[str, Any]:
    """What is installed here and what the environment says, as --json prints it."""
    resolved = resolve_product(product, env)
    contract = resolve_contract("dispatch", {}, None, env)
    home = cann_home(env)
    virtual = is_stand_in(home, env)
    kernels = doctor_kernels.look(env)
    configured = read_hccl_buffsize(env)
    return {
        "product": resolved.name,
        "product_from": resolved.how,
        "contract": contract.name,
        "contract_from": contract.how,
        "torch": _installed("torch"),
        "torch_npu": _installed("torch_npu"),
        "virtual_npu": virtual,
        "cann": None if home is None or virtual else cann_version_text(home),
        "cann_home": None if home is None or virtual else str(home),
        "operators": None if home is None or virtual else operators_version_text(home),
        "driver": driver_version(),
        "kernels": kernels.facts(),
        "hccl_buffsize_mb": configured.mb,
        "hccl_buffsize_from": configured.source,
        "hierarchy": environment_selects_hierarchy(env),
        "variables": {name: env[name] for name in VARIABLES if name in env},
    }


def known_problems(
    facts: Mapping[str, Any], env: Mapping[str, str], ep: int | None
) -> list[Problem]:
    """What is known to hang, fail or surprise with these facts."""
    found: list[Problem] = []
    surprise = read_hccl_buffsize(env).surprise
    if surprise:
        found.append(Problem("E-01", f"{surprise}."))
    if "HCCL_BUFFSIZE_EP" in env:
        text = f"HCCL_BUFFSIZE_EP is a name in messages that nothing reads: set {VARIABLE}."
        found.append(Problem("E-01", text))
    other = env.get("DEEPEP_HCCL_BUFFSIZE")
    if other is not None and other != env.get(VARIABLE):
        found.append(
            Problem(
                "X-40",
                f"DEEPEP_HCCL_BUFFSIZE={other!a} differs from {VARIABLE} "
                f"({facts['hccl_buffsize_mb']} MB): processes that read only one of them get "
                "another buffer, and unequal buffers hang.",
            )
        )
    if env.get("HCCL_OP_EXPANSION_MODE", "").upper() == "AIV":
        found.append(
            Problem(
                "E-13", "HCCL_OP_EXPANSION_MODE=AIV was seen to hang these operators: unset it."
            )
        )
    found += _driver(facts)
    version = facts["operators"] or facts["cann"] or ""
    if facts["product"] == "A2" and re.match(r"9\.1\.0[-.]?beta\.?[12]", version, re.IGNORECASE):
        text = f"CANN {version} can lose tokens in A2 hierarchy: install the release."
        found.append(Problem("S-05", text))
    if facts["product"] == "A3" and facts["hierarchy"]:
        found.append(Problem("E-02", f"{PCIE}=1 with {ROCE}=0 has no effect on A3."))
    found += _single_server(facts, ep)
    kernels = doctor_kernels.look(env)
    texts = doctor_kernels.problems(kernels, env, facts["cann"]) + doctor_kernels.of_records()
    found += [Problem("", text) for text in texts]
    return found


def _of_process(pid: int | None) -> list[Problem]:
    """What is wrong in a running process; without a number in this one, where torch_npu may be imported already.

    Raises ValueError when there is no such process.
    """
    process = look_at(os.getpid() if pid is None else pid)
    texts = doctor_kernels.of_process(process, os.environ if pid is None else None)
    return [Problem("", text) for text in texts]


def _driver(facts: Mapping[str, Any]) -> list[Problem]:
    """E-04: a driver that hangs, or that is too old for this CANN."""
    driver, cann = numbers(facts["driver"]), numbers(facts["cann"])
    if driver is None:
        return []
    if cann is not None and cann >= (9, 1) and driver < (25, 2):
        text = f"CANN {facts['cann']} needs driver 25.2 or later, here is {facts['driver']}."
        return [Problem("E-04", text)]
    if driver == (24, 1):
        text = f"driver {facts['driver']} hangs: install 25.0.RC1.1 or later on all nodes."
        return [Problem("E-04", text)]
    return []


def markdown(rows: list[tuple[str, object]], problems: list[Problem]) -> str:
    """What doctor prints, as a block for an issue: no name of this user's home."""
    lines = ["### ascend-moe doctor", "", "| what | value |", "|---|---|"]
    versions = [("ascend-moe", _installed("ascend-moe")), ("Python", platform.python_version())]
    for name, value in (*versions, *rows):
        text = _without_home(str(value)).replace("|", "\\|")
        lines.append(f"| {name} | {' '.join(text.split())} |")
    lines += ["", "**Problems**", ""]
    for problem in problems:
        rule = f"{problem.rule}: " if problem.rule else ""
        lines.append(f"- {rule}{_without_home(problem.text)}")
    return "\n".join(lines if problems else [*lines, "none known"])


def _without_home(text: str) -> str:
    with contextlib.suppress(RuntimeError):  # no HOME, and no such user
        home = Path.home()
        return text.replace(str(home), "~") if home.is_absolute() and home.name else text
    return text


def _single_server(facts: Mapping[str, Any], ep: int | None) -> list[Problem]:
    """E-12: one A2 server, which CANN's own kernels serve from 9.1 on."""
    if facts["product"] != "A2" or ep is None or ep > RANKS_PER_SERVER:
        return []
    home = facts["cann_home"]
    version = None if home is None else cann_version(Path(home))
    contract = facts["contract"] if version is None else contract_of_cann(version)
    if contract not in (CANN_8_2, BETWEEN):
        return []
    text = (
        f"ep_world_size {ep} on A2 (one server) hangs or is refused before CANN 9.1; our kernels serve it from 8.5 on "
        "(scripts/build_kernels npu-a2)."
    )
    return [Problem("E-12", text)]


def compare(files: list[Path]) -> list[Problem]:
    """Differences between nodes that these operators do not survive.

    Raises ValueError for a file that doctor --json did not write.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            with open_input(path) as stream:
                node = json.loads(stream.read(FILE_MAX_BYTES))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise ValueError(f"{path} is not JSON") from None
        if not isinstance(node, dict) or not set(COMPARED) <= set(node):
            raise ValueError(f"{path} was not written by `ascend-moe doctor --json`")
        nodes[str(path)] = node
    problems = []
    for name in COMPARED:
        values = {file: str(node[name]) for file, node in nodes.items()}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{value} in {file}" for file, value in values.items())
            problems.append(Problem("X-40", f"{name} differs: {shown}."))
    return problems


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    missing = "not here"
    rows: list[tuple[str, object]] = [
        ("product", f"{facts['product']} ({facts['product_from']})"),
        ("contract", f"{facts['contract']} ({facts['contract_from']})"),
        ("torch", facts["torch"] or missing),
        ("torch_npu", facts["torch_npu"] or missing),
        ("CANN", _cann(facts)),
        *([("ops package", facts["operators"])] if facts["operators"] else []),
        ("driver", facts["driver"] or missing),
        ("kernels", doctor_kernels.row(facts["kernels"])),
        ("HCCL buffer", f"{facts['hccl_buffsize_mb']} MB ({facts['hccl_buffsize_from']})"),
        ("A2 hierarchy", "selected by variables" if facts["hierarchy"] else "not by variables"),
    ]
    rows += [(name, value) for name, value in facts["variables"].items()]
    return rows


def _cann(facts: Mapping[str, Any]) -> str:
    if facts["virtual_npu"]:
        return "none: this is the virtual NPU, over stand-in libraries"
    if facts["cann_home"]:
        return f"{facts['cann'] or 'version unknown'}, {facts['cann_home']}"
    return "not here: torch_npu loads only on the virtual NPU"
