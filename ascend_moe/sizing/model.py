"""Sizes out of a Hugging Face config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

# The names that models give to the same size. n_shared_experts is not among them: it counts experts of
# the model, which the operators only know when shared-expert ranks are deployed.
ALIASES = {
    "hidden": ("hidden_size",),
    "experts": ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"),
    "topk": (
        "num_experts_per_tok",
        "moe_top_k",
        "moe_topk",
        "top_k_experts",
        "num_experts_per_token",
    ),
}
TEXT_MODELS = ("text_config", "language_config", "llm_config", "thinker_config")
FILE_MAX_BYTES = 2**24


class ModelSizes(NamedTuple):
    """What the config says, and under which key."""

    hidden: int
    experts: int
    topk: int
    keys: dict[str, str]


def read_model(path: Path) -> ModelSizes:
    """The sizes in a config.json, or in the directory that holds one.

    Raises ValueError with one sentence if the file cannot be read, lacks a size, or names two
    different values for one.
    """
    if path.is_dir():
        path = path / "config.json"
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise ValueError(f"{path} is too large for a config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object")
    sections = _sections(config)
    sizes: dict[str, int] = {}
    keys: dict[str, str] = {}
    for size, aliases in ALIASES.items():
        found = {
            f"{prefix}{alias}": section[alias]
            for prefix, section in sections
            for alias in aliases
            if section.get(alias) is not None
        }
        keys[size], sizes[size] = _one(size, found, aliases, path)
    return ModelSizes(sizes["hidden"], sizes["experts"], sizes["topk"], keys)


def _sections(config: dict[str, object]) -> list[tuple[str, dict[str, object]]]:
    """The part that describes the language model: a nested one wins over the top level."""
    nested = [
        (f"{name}.", inner) for name in TEXT_MODELS if isinstance(inner := config.get(name), dict)
    ]
    deeper = [
        (f"{prefix}{name}.", inner)
        for prefix, section in nested
        for name in TEXT_MODELS
        if isinstance(inner := section.get(name), dict)
    ]
    return deeper or nested or [("", config)]


def _one(
    size: str, found: dict[str, object], aliases: tuple[str, ...], path: Path
) -> tuple[str, int]:
    if not found:
        raise ValueError(f"{path} names no {size}: none of {', '.join(aliases)}")
    shown = ", ".join(f"{key} = {str(value)[:40]}" for key, value in found.items())
    values = list(found.values())
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{path}: {size} is not an integer: {shown}")
    if len(set(values)) > 1:
        raise ValueError(f"{path} is ambiguous about {size}: {shown}; give --{size}")
    value = values[0]
    assert isinstance(value, int)
    return next(iter(found)), value
