"""The tensors of a repeated call: are they as those of the first one, and where are their elements?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ascend_moe.cpu.eager import are_plain

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
        self._copies: list[Tensor] = []

    def met_by(self, tensors: Tensors) -> bool:
        """Whether these tensors are of this kind; then `take` has taken them."""
        if not are_plain(tensors):
            return False
        for tensor, kind in zip(tensors, self.kinds, strict=True):
            if (tensor is None) != (kind is None):
                return False
            if tensor is not None and (tensor.requires_grad or Kind.of(tensor) != kind):
                return False
        self.take(tensors)
        return True

    def take(self, tensors: Tensors) -> None:
        """Fills in the addresses; they are good as long as the tensors live, until the next call."""
        self._copies.clear()
        for tensor, word in zip(tensors, self.words, strict=True):
            if tensor is not None and word >= 0:
                if self.strided:
                    tensor = tensor.contiguous()
                    self._copies.append(tensor)
                self._call[word] = tensor.data_ptr()


def addresses_of(names: Sequence[str], where: Mapping[str, int]) -> list[int]:
    """For each tensor, the word that takes its address."""
    return [where.get(name, -1) for name in names]
