"""ascend-moe check FILE: a call described in JSON, against the rules of a product and contract."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ascend_moe.cli.streams import standard_input
from ascend_moe.cli.table import paragraph
from ascend_moe.contract.buffsize import CPU, IMPLEMENTATIONS, STOCK
from ascend_moe.contract.call import STOCK_NAME
from ascend_moe.contract.check import constraint_error, violations
from ascend_moe.contract.description import DescribedCall, read_call
from ascend_moe.contract.errors import Violation, plain
from ascend_moe.contract.limits import BETWEEN, CONTRACTS, PRODUCTS
from ascend_moe.contract.resolve import Resolved, resolve_contract, resolve_product
from ascend_moe.inputs import open_input

FILE_MAX_BYTES = 2**24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit code: 0 legal (warnings may be printed), 1 it breaks a rule, 2 usage"
    parser.add_argument("file", metavar="FILE", help='JSON, "-" for standard input')
    parser.add_argument("--product", choices=PRODUCTS, help="instead of the one in the file")
    parser.add_argument(
        "--contract",
        choices=(*CONTRACTS, BETWEEN, "auto"),
        help="instead of the one in the file",
    )
    parser.add_argument(
        "--implementation",
        choices=(*IMPLEMENTATIONS, CPU),
        default=STOCK,
        help="who will run it (default stock: CANN's kernels)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    try:
        call = read_call(_document(arguments.file))
        # With "env" the answer depends on the file alone, but for ASCEND_MOE_PRODUCT and _CONTRACT.
        env = os.environ if call.env is None else call.env
        choice = {**os.environ, **env}
        product = resolve_product(arguments.product or call.product, choice)
        contract = resolve_contract(call.op, call.args, arguments.contract or call.contract, choice)
        found = violations(
            call.op,
            call.args,
            product=product.name,
            contract=contract.name,
            env=env,
            implementation=arguments.implementation,
            defects=True,
        )
        report = constraint_error(
            call.op,
            call.args,
            found,
            product,
            contract,
            env=env,
            implementation=arguments.implementation,
        )
    except (ValueError, TypeError) as error:
        print(f"ascend-moe check: {arguments.file}: {plain(error)}", file=sys.stderr)
        return 2
    refused = any(violation.level == "error" for violation in found)
    if arguments.json:
        print(json.dumps(_json(call, product, contract, refused, report.hint, found)))
    elif found:
        print(report)
    else:
        print(
            paragraph(
                f"{STOCK_NAME[call.op]}: legal under contract {contract.name} ({contract.how}) on "
                f"product {product.name} ({product.how})"
            )
        )
    return 1 if refused else 0


def _document(file: str) -> object:
    try:
        if file == "-":
            data = standard_input().read(FILE_MAX_BYTES + 1)
        else:
            with open_input(Path(file)) as stream:
                data = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror) from None
    if len(data) > FILE_MAX_BYTES:
        raise ValueError(f"is longer than {FILE_MAX_BYTES} bytes")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise ValueError(f"is not JSON: {error}") from None


def _json(
    call: DescribedCall,
    product: Resolved,
    contract: Resolved,
    refused: bool,
    hint: str,
    found: list[Violation],
) -> dict[str, object]:
    return {
        "operator": STOCK_NAME[call.op],
        "product": product.name,
        "contract": contract.name,
        "legal": not refused,
        "hint": hint if refused else "",
        "violations": [
            {
                "rule": violation.rule,
                "level": violation.level,
                "param": violation.param,
                "message": violation.message,
                "value": plain(violation.value),
                "limit": plain(violation.limit),
            }
            for violation in found
        ],
    }
