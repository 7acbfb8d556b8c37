"""The tensors of a repeated call: are they as those of the first one, and where are their elements?"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.cpu.windows.repeated.eager import guard_of, is_plain

Tensors = tuple[Tensor | None, ...]
"""All of a call, in the order of ``contract.signature``."""


class Kind(NamedTuple):
    """What the rules and the steps read of a tensor besides its elements."""

    shape: torch.Size
    dtype: torch.dtype
    contiguous: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Kind:
        return cls(tensor.shape, tensor.dtype, tensor.is_contiguous())


class Expectation:
    """Of the tensors of one kind of call, asked of torch one by one; ``native/tensors.h`` asks for all at once."""

    def __init__(self, tensors: Tensors, words: Sequence[int], call: memoryview) -> None:
        """What the steps need to know of the tensors.

        tensors: of the first call
        words: for each tensor, which word of ``call`` (the structure of the steps) takes its address; -1: none
        """
        self.kinds = [None if tensor is None else Kind.of(tensor) for tensor in tensors]
        self.words = words
        self._call = call
        self.strided = not all(kind is None or kind.contiguous for kind in self.kinds)
        self._given = [(index, kind) for index, kind in enumerate(self.kinds) if kind is not None]
        self._absent = [index for index, kind in enumerate(self.kinds) if kind is None]
        self._addressed = [(i, words[i]) for i, _ in self._given if words[i] >= 0]
        self._copies: Tensors = ()
        self._pick = itemgetter(*(index for index, _ in self._given))
        """At least two: both operators require more than one."""
        self._guard: Any = None
        """Says of tensors like those of the last call at once that they are."""

    def met_by(self, tensors: Tensors) -> bool:
        """Whether these tensors are of this kind; then `take` has taken them."""
        for index in self._absent:
            if tensors[index] is not None:
                return False
        guard = self._guard
        if guard is None or not guard.check(*self._pick(tensors)):
            if not self._one_by_one(tensors):
                return False
            self._guard = guard_of(self._pick(tensors))
        self.take(tensors)
        return True

    def _one_by_one(self, tensors: Tensors) -> bool:
        for index, kind in self._given:
            tensor: Any = tensors[index]
            if not (
                is_plain(tensor)
                and tensor.shape == kind.shape
                and tensor.dtype == kind.dtype
                and tensor.is_contiguous() == kind.contiguous
                and not tensor.requires_grad
            ):
                return False
        return True

    def take(self, tensors: Tensors) -> None:
        """Fills in the addresses; they are good as long as the tensors live, until the next call."""
        if not self._addressed:
            return
        found = tensors
        if self.strided:
            found = tuple(one if one is None else one.contiguous() for one in tensors)
        self._copies = found if self.strided else ()  # nobody else's tensors are kept
        for index, word in self._addressed:
            tensor: Any = found[index]
            self._call[word] = tensor.data_ptr()
