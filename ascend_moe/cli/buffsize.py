"""ascend-moe buffsize: the HCCL_BUFFSIZE that a deployment needs, against the one it has."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ascend_moe.cli.table import pairs, paragraph
from ascend_moe.contract.buffsize import IMPLEMENTATIONS, STOCK
from ascend_moe.contract.errors import ConstraintError, plain
from ascend_moe.contract.limits import BETWEEN, CONTRACTS, PATHS, PRODUCTS
from ascend_moe.contract.window import Configured, read_hccl_buffsize, read_size
from ascend_moe.sizing.answer import Answer, Verdict, of_deployment, of_fused
from ascend_moe.sizing.deployment import Deployment
from ascend_moe.sizing.described import OPS
from ascend_moe.sizing.fused import FUSED_OPS, fused_deployment
from ascend_moe.sizing.launch_scripts import settings
from ascend_moe.sizing.model import read_model
from ascend_moe.sizing.serving import derive_max_bs

SIZES = {"max_bs": "max-bs", "hidden": "hidden", "topk": "topk", "ep": "ep", "experts": "experts"}

# What the sum of a fused operator needs.
FUSED_SIZES = {
    "dispatch_ffn_combine": ("max_bs", "hidden", "topk"),
    "mega_moe": ("max_bs", "hidden", "topk", "ep", "experts"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit code: 0 it fits, 1 it is too small or refused, 2 usage"
    add = parser.add_argument
    add("--product", choices=PRODUCTS, help="default: ASCEND_MOE_PRODUCT, the NPU here, else A3")
    add("--max-bs", type=_count, metavar="N", help="largest number of tokens of any rank")
    add("--hidden", type=_count, metavar="N", help="hidden size")
    add("--topk", type=_count, metavar="N", help="experts per token")
    add("--ep", type=_count, metavar="N", help="ranks of the EP group")
    add("--experts", type=_count, metavar="N", help="MoE experts of all ranks")
    add("--redundant-experts", type=_number, default=0, metavar="N", help="added to the experts")
    add("--shared-experts", type=_number, default=1, metavar="N", help="shared_expert_num")
    add("--shared-ranks", type=_number, default=0, metavar="N", help="shared_expert_rank_num")
    add("--algorithm", choices=PATHS, help="default: full mesh, on A2 as two variables say")
    add("--op", choices=(*OPS, *FUSED_OPS), default="both", help="default: both")
    add("--contract", choices=(*CONTRACTS, BETWEEN, "auto"), help="default: as for the calls")
    add("--implementation", choices=IMPLEMENTATIONS, default=STOCK, help="default: stock")
    add("--model", type=Path, metavar="PATH", help="config.json of a Hugging Face model")
    add("--have", metavar="MB", help="compare with this instead of HCCL_BUFFSIZE")
    add("--json", action="store_true", help="one JSON object")
    add(
        "scripts",
        nargs="*",
        type=Path,
        metavar="SCRIPT",
        help="launch scripts: one line for each HCCL_BUFFSIZE in them that is wrong; without sizes only whether HCCL "
        "reads it as meant",
    )
    serving = parser.add_argument_group("max-bs from the flags of a serving engine")
    serving.add_argument("--max-num-seqs", type=_count, metavar="N")
    serving.add_argument("--spec-tokens", type=_number, default=0, metavar="N")
    serving.add_argument("--max-capture-size", type=_count, metavar="N")
    serving.add_argument(
        "--max-num-batched-tokens",
        type=_count,
        metavar="N",
        help="where prefill takes these operators too (enable_prefill_mc2)",
    )
    serving.add_argument("--serving-tp", type=_count, default=1, metavar="N")
    serving.add_argument(
        "--cap", type=_count, metavar="N", help="largest max-bs per rank (default 512)"
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to {2**31 - 1}")
    return int(text)


def _count(text: str) -> int:
    if _number(text) == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    notes: list[tuple[str, str]] = []
    try:
        if arguments.scripts:
            return _judge_scripts(arguments)
        answer = _answer(arguments, notes)
    except ConstraintError as error:
        print("; ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"ascend-moe buffsize: {error}", file=sys.stderr)
        return 2
    if arguments.have is not None:
        configured = read_size(arguments.have, "--have")
    else:
        configured = read_hccl_buffsize(os.environ)
    verdict = Verdict.of(answer, configured)
    if arguments.json:
        print(json.dumps(_report(answer, configured, verdict)))
    else:
        _print(answer, configured, verdict, notes)
    return 0 if verdict.fits else 1


def _answer(arguments: argparse.Namespace, notes: list[tuple[str, str]]) -> Answer:
    sizes = _sizes(arguments, notes)
    if arguments.op in FUSED_OPS:
        return of_fused(fused_deployment(arguments.op, arguments.product, sizes, os.environ))
    return of_deployment(_deployment(arguments, sizes))


def _judge_scripts(arguments: argparse.Namespace) -> int:
    """One line for each setting that HCCL refuses, that cannot be meant, or that is too small for the sizes given."""
    sized = arguments.model is not None or any(getattr(arguments, name) for name in SIZES)
    answer = _answer(arguments, []) if sized else None
    wrong = 0
    for path in arguments.scripts:
        for line, text in settings(path):
            configured = read_size(text, f"{path}:{line}")
            said = configured.surprise
            if not said and answer is not None:
                verdict = Verdict.of(answer, configured)
                said = "" if verdict.fits else f"{verdict.words}; needed: {answer.required.mb} MB"
            if said:
                wrong += 1
                print(f"{path}:{line}: HCCL_BUFFSIZE={text!a}: {said}")
    return 1 if wrong else 0


def _sizes(arguments: argparse.Namespace, notes: list[tuple[str, str]]) -> dict[str, int]:
    """The five sizes, from flags, the model and the serving flags; flags win."""
    sizes = {name: getattr(arguments, name) for name in SIZES}
    if arguments.model is not None:
        model = read_model(arguments.model)
        for name in ("hidden", "topk", "experts"):
            if sizes[name] is None:
                sizes[name] = getattr(model, name)
                notes.append(("model", f"{name} = {sizes[name]} ({model.keys[name]})"))
    derived = derive_max_bs(
        max_num_seqs=arguments.max_num_seqs,
        spec_tokens=arguments.spec_tokens,
        max_capture_size=arguments.max_capture_size,
        serving_tp=arguments.serving_tp,
        cap=arguments.cap,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
    )
    if sizes["max_bs"] is None and derived is not None:
        sizes["max_bs"] = derived.max_bs
        notes.append(("max-bs", f"{derived.max_bs}: {derived.derivation}"))
        notes.append(("covers", derived.covers))
    asked = SIZES if arguments.op not in FUSED_OPS else FUSED_SIZES[arguments.op]
    missing = [f"--{SIZES[name]}" for name in asked if sizes[name] is None]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if arguments.redundant_experts and sizes["experts"] is not None:
        total = sizes["experts"] + arguments.redundant_experts
        notes.append(("experts", f"{sizes['experts']} + {arguments.redundant_experts} redundant"))
        sizes["experts"] = total
    return sizes


def _deployment(arguments: argparse.Namespace, sizes: dict[str, int]) -> Deployment:
    algorithm = arguments.algorithm
    return Deployment.of(
        product=arguments.product,
        max_bs=sizes["max_bs"],
        hidden=sizes["hidden"],
        topk=sizes["topk"],
        ep_world_size=sizes["ep"],
        moe_expert_num=sizes["experts"],
        shared_expert_num=arguments.shared_experts,
        shared_expert_rank_num=arguments.shared_ranks,
        op=arguments.op,
        comm_alg="" if algorithm in (None, "fullmesh") else algorithm,
        contract=arguments.contract,
        implementation=arguments.implementation,
        # An algorithm that is named is not overruled by the environment.
        env={name: value for name, value in os.environ.items() if _matters(name, algorithm)},
    )


def _matters(name: str, algorithm: str | None) -> bool:
    return algorithm is None or not name.startswith("HCCL_INTRA_")


def _report(answer: Answer, configured: Configured, verdict: Verdict) -> dict[str, object]:
    required = answer.required
    return {
        "product": answer.product,
        "contract": answer.contract,
        "algorithm": required.algorithm,
        "required_bytes": required.bytes,
        "required_mb": required.mb,
        "configured_mb": configured.mb,
        "configured_from": configured.source,
        "fits": verdict.fits,
        "largest_max_bs": answer.largest_max_bs(configured.mb),
        "formula": required.formula,
        "export": f"export HCCL_BUFFSIZE={required.mb}",
        "violations": [
            {
                "rule": violation.rule,
                "level": violation.level,
                "param": violation.param,
                "message": violation.message,
                "value": plain(violation.value),
                "limit": plain(violation.limit),
            }
            for violation in verdict.violations
        ],
    }


def _print(
    answer: Answer, configured: Configured, verdict: Verdict, notes: list[tuple[str, str]]
) -> None:
    required = answer.required
    has = "refused by HCCL" if configured.refused else f"{configured.mb} MB"
    rows: list[tuple[str, object]] = [
        ("product", f"{answer.product} ({answer.how[0]})"),
        ("contract", f"{answer.contract} ({answer.how[1]})"),
        ("algorithm", answer.kernels),
        *notes,
        ("required", f"{required.mb} MB ({required.bytes} bytes)"),
        ("formula", required.formula),
        ("configured", f"{has} ({configured.source})"),
        ("verdict", verdict.words),
        ("largest max-bs", answer.largest_max_bs(configured.mb)),
        ("device memory", f"{required.memory_mb} MB per EP group: HCCL allocates two buffers"),
        ("set", f"export HCCL_BUFFSIZE={required.mb}  (the same on every rank)"),
    ]
    print(pairs(rows))
    for remark in answer.remarks:
        print(paragraph(remark))
    for violation in verdict.violations:
        about = "" if violation.rule[0] in "SE" else "a call of these sizes breaks "
        print(paragraph(f"{violation.level}: {about}{violation}"))
