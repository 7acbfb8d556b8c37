"""What must be equal across the layers of a model, from what this process has seen (rules E-06, E-09, X-40).

The first call on a group is remembered; a later one that differs is a warning, once per parameter, because nothing in
the operators stops it: on hardware it shows as a hang or as rows of another layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ascend_moe.contract.errors import Violation

EQUAL_ACROSS_LAYERS: Final = (
    "ep_world_size",
    "expert_shard_type",
    "global_bs",
    "group_tp",
    "tp_world_size",
)
"""Besides group_ep. The last two count only with TP."""


class Layers:
    """The calls of one process so far."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, ...]] = {}
        self._warned: set[tuple[str, str]] = set()

    def warnings(self, call: Mapping[str, Any]) -> list[Violation]:
        """What differs from the earlier calls, each difference once. Costs one look-up when nothing does."""
        group = call["group_ep"]
        now = tuple(call[name] for name in EQUAL_ACROSS_LAYERS)
        first = self._first.setdefault(group, now)
        if first == now and (len(self._first) == 1 or ("E-06", group) in self._warned):
            return []
        found = []
        if len(self._first) > 1 and group != next(iter(self._first)):
            known = next(iter(self._first))
            message = (
                f"is {group!a}, this process used {known!a} before; "
                "one EP group per model serves all dispatch and combine calls"
            )
            found.append(self._once("E-06", "group_ep", group, message, group, known))
        with_tp = call["tp_world_size"] == 2
        for name, before, value in zip(EQUAL_ACROSS_LAYERS, first, now, strict=True):
            if before == value or (name == "group_tp" and not with_tp):
                continue
            message = f"is {value!a}, an earlier call on group {group!a} had {before!a}; it must be equal across layers"
            found.append(self._once("E-09", name, f"{group} {name}", message, value, before))
        return [violation for violation in found if violation is not None]

    def _once(
        self, rule: str, param: str, key: str, message: str, value: object, limit: object
    ) -> Violation | None:
        if (rule, key) in self._warned:
            return None
        self._warned.add((rule, key))
        return Violation(rule, "warning", param, message, value, limit)


SEEN: Final = Layers()
"""This process's own."""
