"""max_bs from the flags of a serving engine: the largest batch of one rank that takes these operators.

As vLLM on Ascend sizes them (vllm-ascend 182b75ea84, vllm_ascend/ascend_forward_context.py:176): the tokens of a decode
step, or with enable_prefill_mc2 those of any step; over the tensor-parallel ranks, rounded up; at most 512 per rank,
beyond which the engine takes another path.
"""

from __future__ import annotations

from typing import NamedTuple

ENGINE_CAP = 512  # _MC2_TOKENS_PER_RANK_LIMIT


class Derived(NamedTuple):
    """The number, how it came about, and what it covers."""

    max_bs: int
    derivation: str
    covers: str


def derive_max_bs(
    *,
    max_num_seqs: int | None,
    spec_tokens: int,
    max_capture_size: int | None,
    serving_tp: int,
    cap: int | None,
    max_num_batched_tokens: int | None = None,
) -> Derived | None:
    """None if no flag says how many tokens there are.

    max_num_batched_tokens: given where prefill takes these operators too (enable_prefill_mc2); it wins. Else the
    largest captured graph where graphs are captured, else sequences times the tokens that each decodes per step.
    cap: instead of the engine's own.
    """
    covers = "decode only: prefill takes another path unless enable_prefill_mc2 is set"
    if max_num_batched_tokens is not None:
        tokens, text = max_num_batched_tokens, f"max-num-batched-tokens {max_num_batched_tokens}"
        covers = "prefill through MC2 (enable_prefill_mc2), and decode"
    elif max_capture_size is not None:
        tokens, text = max_capture_size, f"max-capture-size {max_capture_size}"
    elif max_num_seqs is not None:
        tokens = max_num_seqs * (1 + spec_tokens)
        text = f"max-num-seqs {max_num_seqs} * (1 + spec-tokens {spec_tokens}) = {tokens}"
    else:
        return None
    per_rank = -(-tokens // serving_tp)
    if serving_tp > 1:
        text += f", over serving-tp {serving_tp} ranks = {per_rank}"
    limit = ENGINE_CAP if cap is None else cap
    if per_rank > limit:
        whose = "the engine's limit per rank" if cap is None else "--cap"
        per_rank, text = limit, f"{text}, capped at {limit} ({whose})"
    return Derived(per_rank, text, covers)
