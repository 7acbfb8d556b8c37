"""Sizes out of a Hugging Face config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ascend_moe.inputs import open_input

# The names that models give to the same size, the first that is there counts. Experts in a latent space get narrower
# rows than the layers around them, and dispatch carries those rows: their keys stand before hidden_size.
# n_shared_experts is not among them: it counts experts of the model, which the operators only know when shared-expert
# ranks are deployed.
LATENT = ("routed_expert_hidden_size", "moe_latent_size")
ALIASES = {
    "hidden": ("hidden_size", "d_model", "n_embd"),
    "experts": (
        "n_routed_experts",
        "num_experts",
        "num_local_experts",
        "moe_num_experts",
        "num_moe_experts",
    ),
    "topk": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_top_k",
        "moe_topk",
        "moe_k",
        "top_k_experts",
        "moe_router_topk",
    ),
}
TEXT_MODELS = ("text_config", "language_config", "llm_config", "thinker_config")
FEED_FORWARD = ("ffn_config", "moe_config")  # parts of a model that describe its experts
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
        with open_input(path) as stream:  # of a device, too, no more than that
            data = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise ValueError(f"{path} is too large for a config.json")
    try:
        config = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object")
    sections = _sections(config)
    keys: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for size, aliases in ALIASES.items():
        if size == "experts" and not _values(sections, (*aliases, *ALIASES["topk"])):
            raise ValueError(
                f"{path} names no experts: a dense model? These operators move tokens to experts"
            )
        found = _values(sections, LATENT) if size == "hidden" else {}
        keys[size], sizes[size] = _one(size, found or _values(sections, aliases), aliases, path)
    return ModelSizes(sizes["hidden"], sizes["experts"], sizes["topk"], keys)


def _values(
    sections: list[tuple[str, dict[str, object]]], aliases: tuple[str, ...]
) -> dict[str, object]:
    """What the sections say under these keys; a list of one value per layer counts as that value."""
    return {
        f"{prefix}{alias}": _of_layers(section[alias])
        for prefix, section in sections
        for alias in aliases
        if section.get(alias) is not None
    }


def _of_layers(value: object) -> object:
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        return value[0]
    return value


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
    chosen = deeper or nested or [("", config)]
    return chosen + [
        (f"{prefix}{name}.", inner)
        for prefix, section in chosen
        for name in FEED_FORWARD
        if isinstance(inner := section.get(name), dict)
    ]


def _one(
    size: str, found: dict[str, object], aliases: tuple[str, ...], path: Path
) -> tuple[str, int]:
    if not found:
        raise ValueError(f"{path} names no {size}: none of {', '.join(aliases)}")
    shown = ", ".join(f"{key} = {str(value)[:40]}" for key, value in found.items())
    values = list(found.values())
    if any(isinstance(value, list) for value in values):
        raise ValueError(f"{path}: {size} differs between layers: {shown}; give --{size}")
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{path}: {size} is not an integer: {shown}")
    if len(set(values)) > 1:
        raise ValueError(f"{path} is ambiguous about {size}: {shown}; give --{size}")
    value = values[0]
    assert isinstance(value, int)
    return next(iter(found)), value
