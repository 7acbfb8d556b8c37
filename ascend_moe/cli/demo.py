"""``ascend-moe demo``: one MoE layer over CPU ranks, compared with the reference.

The parent makes every rank's tokens from the seed and computes the reference of the whole world. Then it forks the
ranks (torch is imported once), which inherit both: each runs dispatch, its experts and combine through the public
functions, compares what it got bit for bit, and reports one row of the table.
"""

from __future__ import annotations

import argparse
import sys
import time

from ascend_moe.available import require_available
from ascend_moe.cli.demo_layer import Layer, RankReport
from ascend_moe.contract.errors import ConstraintError

NUMBER_MAX = 2**31 - 1

PROLOGUE = """Defaults are the sizes of the operators' documented example: 16 ranks, 2 of them shared-expert
ranks, BS 8, H 7168, K 8, 14 MoE experts, int8 rows with smooth scales."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description}. {PROLOGUE}"
    parser.add_argument(
        "--ranks", type=_count, default=16, metavar="N", help="EP ranks, one process each"
    )
    parser.add_argument("--bs", type=_count, default=8, help="tokens per rank (BS)")
    parser.add_argument("--hidden", type=_count, default=7168, help="elements per token (H)")
    parser.add_argument("--topk", type=_count, default=8, help="experts per token (K)")
    parser.add_argument(
        "--experts", type=_count, help="MoE experts in all; default: one per MoE rank"
    )
    parser.add_argument(
        "--shared-ranks",
        type=_number,
        help="ranks of the one shared expert; default: 2 on A3, 0 on A2",
    )
    parser.add_argument(
        "--quant",
        choices=("0", "2", "none", "int8"),
        default="2",
        help="quant_mode: 0 or none, 2 or int8 (default, with smooth scales)",
    )
    parser.add_argument(
        "--product", choices=("A2", "A3"), help="default: ASCEND_MOE_PRODUCT, else A3"
    )
    parser.add_argument("--seed", type=_number, default=0, help="of tokens, experts and weights")


def _count(text: str) -> int:
    return _number(text, 1)


def _number(text: str, least: int = 0) -> int:
    digits = text.lstrip("0") or "0"
    if not (text.isascii() and text.isdecimal() and len(digits) <= 10):
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text[:40]!a}")
    if not least <= int(digits) <= NUMBER_MAX:
        raise argparse.ArgumentTypeError(f"must be from {least} to {NUMBER_MAX}, got {digits}")
    return int(digits)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: all ranks equal the reference; 1: a mismatch or a failed rank; 2: an illegal or too large layer."""
    started = time.monotonic()
    layer = _layer_of(arguments)
    try:
        layer.refuse_illegal()
        require_available(layer.bytes_at_least)
    except (ConstraintError, OSError) as error:
        print(f"ascend-moe demo: {error}", file=sys.stderr)
        return 2
    _progress("importing torch")
    from ascend_moe.bootstrap import import_torch

    try:
        import_torch()
        import torch
    except ImportError as error:
        reason = " ".join(str(error).split())
        print(f"ascend-moe demo: torch cannot be imported: {reason}", file=sys.stderr)
        return 2

    torch.set_num_threads(1)  # ranks are forked: no pool of threads may exist before
    from ascend_moe.cli.demo_world import RankFailed, run_ranks

    _progress("computing the reference of all ranks in one process")
    expected = layer.reference()
    _progress(f"starting {layer.ranks} ranks")
    try:
        reports = run_ranks(layer, expected, _progress)
    except RankFailed as error:
        print(f"ascend-moe demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ascend-moe demo: interrupted, all ranks are stopped", file=sys.stderr)
        return 130
    print(_table(layer, reports))
    wrong = [report.rank for report in reports if not report.equal]
    seconds = time.monotonic() - started
    if wrong:
        print(
            f"MISMATCH: ranks {', '.join(map(str, wrong))} differ from the reference ({seconds:.1f} s)"
        )
        return 1
    print(f"OK: {layer.ranks} CPU ranks equal the reference bit for bit ({seconds:.1f} s)")
    return 0


def _layer_of(arguments: argparse.Namespace) -> Layer:
    from ascend_moe.contract.resolve import resolve_product

    product = resolve_product(arguments.product).name
    shared_ranks = arguments.shared_ranks
    if shared_ranks is None:
        shared_ranks = 2 if product == "A3" and arguments.ranks > 2 else 0
    experts = arguments.experts
    if experts is None:
        experts = max(arguments.ranks - shared_ranks, 1)
    return Layer(
        ranks=arguments.ranks,
        bs=arguments.bs,
        hidden=arguments.hidden,
        topk=arguments.topk,
        experts=experts,
        shared_ranks=shared_ranks,
        quant_mode=2 if arguments.quant in ("2", "int8") else 0,
        product=product,
        seed=arguments.seed,
    )


def _table(layer: Layer, reports: list[RankReport]) -> str:
    lines = [
        f"{layer}",
        f"{'rank':>4}  {'holds':<16}{'rows':>6}{'MB moved':>10}{'max error':>11}{'dispatch ms':>13}{'combine ms':>12}",
    ]
    lines += [
        f"{one.rank:>4}  {one.holds:<16}{one.rows:>6}{one.bytes_moved / 1e6:>10.2f}{one.max_error:>11.3g}"
        f"{one.dispatch_ms:>13.1f}{one.combine_ms:>12.1f}"
        for one in reports
    ]
    total = sum(one.bytes_moved for one in reports) / 1e6
    rows = sum(one.rows for one in reports)
    lines.append(
        f"{'all':>4}  {'':<16}{rows:>6}{total:>10.2f}{max(one.max_error for one in reports):>11.3g}"
    )
    return "\n".join(lines)


def _progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)
