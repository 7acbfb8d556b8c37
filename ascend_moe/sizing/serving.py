"""max_bs from the flags of a serving engine: tokens of one rank in one decode step."""

from __future__ import annotations

from typing import NamedTuple


class Derived(NamedTuple):
    """The number, and how it came about."""

    max_bs: int
    derivation: str


def derive_max_bs(
    *,
    max_num_seqs: int | None,
    spec_tokens: int,
    max_capture_size: int | None,
    serving_tp: int,
    cap: int | None,
) -> Derived | None:
    """As vLLM on Ascend sizes its MC2 buffers; None if neither sequences nor a capture size is given.

    The largest captured graph where graphs are captured, else sequences times the tokens that each
    decodes per step; split over the tensor-parallel ranks, rounded up; at most `cap`.
    """
    if max_capture_size is not None:
        tokens, text = max_capture_size, f"max-capture-size {max_capture_size}"
    elif max_num_seqs is not None:
        tokens = max_num_seqs * (1 + spec_tokens)
        text = f"max-num-seqs {max_num_seqs} * (1 + spec-tokens {spec_tokens}) = {tokens}"
    else:
        return None
    per_rank = -(-tokens // serving_tp)
    if serving_tp > 1:
        text += f", over serving-tp {serving_tp} ranks = {per_rank}"
    if cap is not None and per_rank > cap:
        per_rank, text = cap, f"{text}, capped at {cap}"
    return Derived(per_rank, text)
