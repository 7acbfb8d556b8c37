"""kernels/op_api/core_table.h: on how many cores the host library launches, from kernels/op_api/cores/*.json."""

from __future__ import annotations

from pathlib import Path

from kernels.proof.tuning import MOST, OPERATORS, CoreChoice, checked_in

PRODUCTS = ("A2", "A3")
HEAD = """// On how many cores a launch is fastest in the timed simulator. Made by scripts/generate from
// cores/*.json, which scripts/bench kernels --search makes; see tuning.h. Host code includes
// <cstdint> before.
#pragma once

namespace ascend_moe {

"""


def files(root: Path) -> dict[str, str]:
    return {"kernels/op_api/core_table.h": document()}


def document() -> str:
    names = [f'    "{name}",' for name in OPERATORS]
    members = [f"    {_enumerator(name)}," for name in OPERATORS]
    lines = [
        "// The operators of a table, and their names in files.",
        "enum class TunedOperator : uint32_t {",
        *members,
        "};",
        "// clang-format off",
        "constexpr const char* kTunedNames[] = {",
        *names,
        "};",
        "// clang-format on",
        f"constexpr uint32_t kTunedRowsMax = {MOST['rows']};",
        "",
        "struct CoreChoice {",
        "    TunedOperator op;",
        "    uint32_t ranks, rows, cores;",
        "};",
    ]
    for product in PRODUCTS:
        rows = [_row(choice) for choice in sorted(checked_in(product).cores)]
        head = f"constexpr CoreChoice kCoresOn{product}[] = {{"
        lines += ["", "// clang-format off", head, *rows, "};", "// clang-format on"]
    return HEAD + "\n".join(lines) + "\n\n}  // namespace ascend_moe\n"


def _enumerator(operator: str) -> str:
    return "k" + "".join(word.capitalize() for word in operator.split("_"))


def _row(choice: CoreChoice) -> str:
    return f"    {{TunedOperator::{_enumerator(choice.operator)}, {choice.ep}, {choice.rows}, {choice.cores}}},"
