"""What both functions do first: check the call, then raise, warn, or remember that it is legal.

A decode step makes the same two calls for every layer, so a legal call is remembered by everything
that the rules read: keywords, shapes, dtypes and RULE_VARIABLES. A repeated call costs one look-up.
Rules that read tensor contents cannot be remembered; they run every time, on CPU tensors or under
ASCEND_MOE_CHECK=full.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ascend_moe.contract.buffsize import CPU, OWN, STOCK
from ascend_moe.contract.check import constraint_error, on_cpu, violations
from ascend_moe.contract.description import describe_call
from ascend_moe.contract.errors import ConstraintWarning, Violation
from ascend_moe.contract.executable import CHECK_LEVELS, CHECK_VARIABLE
from ascend_moe.contract.layers import SEEN
from ascend_moe.contract.limits import HIERARCHY
from ascend_moe.contract.path import PCIE, ROCE, path_of
from ascend_moe.contract.resolve import (
    CONTRACT_VARIABLE,
    PRODUCT_VARIABLE,
    Resolved,
    resolve_contract,
    resolve_product,
)
from ascend_moe.contract.signature import TENSOR_NAMES, attributes_of
from ascend_moe.contract.window import VARIABLE as WINDOW_VARIABLE
from ascend_moe.hardware.cann import STAND_IN
from ascend_moe.hardware.kernel_library import KERNELS_VARIABLE
from ascend_moe.hardware.lookup import takes_ours

DUMP_VARIABLE = "ASCEND_MOE_DUMP"
RULE_VARIABLES = (
    CHECK_VARIABLE,
    PRODUCT_VARIABLE,
    CONTRACT_VARIABLE,
    WINDOW_VARIABLE,
    KERNELS_VARIABLE,
    PCIE,
    ROCE,
)
_RULE_VARIABLES_ENCODED = tuple(name.encode() for name in RULE_VARIABLES)
REMEMBERED_MAX = 4096


def require_legal(op: str, args: Mapping[str, object], *, window_mb: int | None = None) -> None:
    """Raise ConstraintError unless the call is legal; issue a ConstraintWarning where it should know.

    ASCEND_MOE_CHECK decides what is checked: full (the default on CPU) also reads contents, fast
    (the default on NPU) does not, off skips everything. With ASCEND_MOE_DUMP=DIR a refused call
    leaves a file there that `ascend-moe check` reads.

    Args:
        op: "dispatch" or "combine".
        args: every keyword of the operator.
        window_mb: the group's own HCCL buffer size, where it has one.
    """
    key = _key(op, args, window_mb)
    try:
        judged = _legal.get(key)
    except TypeError:  # symbolic sizes have no hash
        _Judgement.of(args, op).require(op, args, window_mb)
        return
    if judged is None:
        judged = _Judgement.of(args, op)
        judged.require(op, args, window_mb)
        if judged.level != "off":
            for violation in SEEN.warnings(args):
                warnings.warn(str(violation), ConstraintWarning, stacklevel=4)
        if len(_legal) >= REMEMBERED_MAX:
            _legal.clear()
        _legal[key] = judged
    elif judged.level == "full":
        judged.require(op, args, window_mb)


def forget() -> None:
    """Check every kind of call again when it comes next."""
    _legal.clear()


def _key(op: str, args: Mapping[str, object], window_mb: int | None) -> tuple[object, ...]:
    parts: list[object] = [op, window_mb, attributes_of[op](args)]
    for name in TENSOR_NAMES[op]:
        tensor: Any = args[name]
        if tensor is None:
            parts.append(None)
        else:
            parts += (tensor.shape, tensor.dtype, tensor.requires_grad)
    scales: Any = args.get("scales")
    if scales is not None:
        parts.append(scales.is_contiguous())
    parts += values_of(_RULE_VARIABLES_ENCODED)
    return tuple(parts)


def values_of(variables: Sequence[bytes]) -> Iterable[object]:
    """What the environment says about them, None where nothing, in a form to compare."""
    # os.environ.get takes 0.9 us for an unset variable, its dictionary 0.04 us.
    raw = getattr(os.environ, "_data", None)
    if isinstance(raw, dict):
        return map(raw.get, variables)
    return map(os.environ.get, map(os.fsdecode, variables))


class _Judgement(NamedTuple):
    """By what a call is judged; product and contract are None when checks are off."""

    level: str
    env: Mapping[str, str]
    product: Resolved | None
    contract: Resolved | None

    @classmethod
    def of(cls, args: Mapping[str, object], op: str) -> _Judgement:
        env = {
            name: os.environ[name]
            for name, value in zip(RULE_VARIABLES, values_of(_RULE_VARIABLES_ENCODED), strict=True)
            if value is not None
        }
        level = env.get(CHECK_VARIABLE) or ("full" if on_cpu(args) else "fast")
        if level not in CHECK_LEVELS:
            allowed = ", ".join(CHECK_LEVELS)
            raise ValueError(f"{CHECK_VARIABLE} is {level!a}, allowed: {allowed}")
        if level == "off":
            return cls(level, env, None, None)
        return cls(level, env, resolve_product(env=env), resolve_contract(op, args, env=env))

    def implementation(self, args: Mapping[str, object]) -> str:
        """Who will run it: on an NPU our kernels when torch_npu finds them and they serve the call.

        In hierarchy it is judged as CANN's, which may have to take it.
        """
        assert self.product is not None
        assert self.contract is not None
        if on_cpu(args):
            return CPU
        names = {"product": self.product.name, "contract": self.contract.name}
        served = isinstance(args["ep_world_size"], int) and path_of(args, **names) != HIERARCHY
        if not served or self.env.get(KERNELS_VARIABLE) == "off":
            return STOCK
        return OWN if takes_ours() else STOCK

    def require(self, op: str, args: Mapping[str, object], window_mb: int | None) -> None:
        if self.product is None or self.contract is None:
            return
        found = violations(
            op,
            args,
            product=self.product.name,
            contract=self.contract.name,
            values=self.level == "full",
            window_mb=window_mb,
            env=self.env,
            implementation=self.implementation(args),
            # Neither CPU tensors nor the virtual NPU run CANN's own kernels.
            defects=not on_cpu(args) and STAND_IN not in os.environ,
        )
        if found:
            self._report(op, args, found, window_mb)

    def _report(
        self,
        op: str,
        args: Mapping[str, object],
        found: list[Violation],
        window_mb: int | None,
    ) -> None:
        assert self.product is not None
        assert self.contract is not None
        if any(violation.level == "error" for violation in found):
            directory = os.environ.get(DUMP_VARIABLE)
            if directory:
                described = describe_call(
                    op, args, product=self.product.name, contract=self.contract.name, env=self.env
                )
                dump(Path(directory), op, described)
            raise constraint_error(
                op,
                args,
                found,
                self.product,
                self.contract,
                values=self.level == "full",
                window_mb=window_mb,
                env=self.env,
                implementation=self.implementation(args),
            )
        for violation in found:
            warnings.warn(str(violation), ConstraintWarning, stacklevel=5)


def dump(directory: Path, op: str, described: Mapping[str, object]) -> Path:
    """Write a described call for `ascend-moe check`; the name holds the process and a number."""
    directory.mkdir(parents=True, exist_ok=True)
    number = len(list(directory.glob(f"{op}-{os.getpid()}-*.json")))
    path = directory / f"{op}-{os.getpid()}-{number}.json"
    path.write_text(json.dumps(described, indent=2) + "\n")
    return path


# Calls that broke no rule, and by what they were judged.
_legal: dict[tuple[object, ...], _Judgement] = {}
