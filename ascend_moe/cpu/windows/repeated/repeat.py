"""A repeated call made by one foreign function, from torch's tensors to torch's tensors (``native/repeat.h``).

It looks at the tensors and makes the outputs through torch's DLPack exchange table. Without that table, and for what
the function does not know (tensors with gaps, or that autograd or others want to see), `calls` does the same in Python.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

import torch
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec
from ascend_moe.cpu.windows.engine import Native
from ascend_moe.cpu.windows.fields import (
    TENSOR_DIMS,
    ExpectedFields,
    OutputFields,
    RepeatFields,
)
from ascend_moe.cpu.windows.repeated.tensors import Expectation, Kind, Tensors

_DLPACK_MAJOR: Final = 1
_TYPES: Final = {
    torch.int8: (0, 8),
    torch.int32: (0, 32),
    torch.int64: (0, 64),
    torch.float16: (2, 16),
    torch.float32: (2, 32),
    torch.bfloat16: (4, 16),
    torch.bool: (6, 8),
}
"""As DLPack has them: code and bits."""

_shelves: dict[tuple[tuple[TensorSpec, ...], object], int] = {}


class Repeat:
    """``Repeat`` of ``native/repeat.h`` for one kind of call."""

    def __init__(
        self,
        native: Native,
        expectation: Expectation,
        call: int,
        *,
        is_combine: bool,
        specs: tuple[TensorSpec, ...],
        filled_in_full: object,
        first_output: int,
        rows_before: int,
    ) -> None:
        """What the structure needs.

        call: address of the structure of the steps
        specs, filled_in_full: of the outputs, see `warm`
        first_output: the word of ``call`` that takes the address of the first output
        rows_before: the word that takes how many rows of the outputs are not zero; -1: none does
        """
        self._floating = [
            index
            for index, kind in enumerate(expectation.kinds)
            if kind is not None and kind.dtype.is_floating_point
        ]
        shelf = _shelves.get((specs, filled_in_full))
        if shelf is None:
            shapes = (OutputFields * len(specs))(*map(_output, specs))
            shelf = native.new_shelf(ctypes.addressof(shapes), len(specs))
            _shelves[specs, filled_in_full] = shelf
        expected = list(map(_expected, expectation.kinds, expectation.words))
        self._fields = fields = _fields_for(len(expected))()
        fields.expected[:] = expected
        fields.none, fields.tensor_type, fields.count = id(None), id(Tensor), len(expected)
        fields.torch, fields.shelf = exchange_table(), shelf
        fields.is_combine, fields.call, fields.first_output = is_combine, call, first_output
        fields.rows_before, fields.rows_limit = rows_before, specs[0].shape[0]
        self._address = ctypes.addressof(fields)
        self._call, self._finished = native.repeat, native.finished

    def run(self, tensors: Tensors) -> tuple[Tensor, ...] | None:
        """The outputs, perhaps without their contents yet: see `code`.

        None when the tensors are not of this kind or hold something illegal; the peers were told nothing then.
        """
        for index in self._floating:
            tensor: Any = tensors[index]
            if type(tensor) is not Tensor or tensor.requires_grad or tensor.is_neg():
                return None
        return self._call(tensors, self._address)

    @property
    def code(self) -> int:
        """Why the step returned."""
        code: int = self._fields.code
        return code

    def finished(self) -> None:
        """To be called when what the step left to Python is done."""
        self._finished(self._address)


def exchange_table() -> int:
    """The address of torch's DLPack exchange table; 0 where this torch has none that is known here."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return 0
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    pointer: Any = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
    address: int = pointer(capsule, b"dlpack_exchange_api")
    major = ctypes.c_uint32.from_address(address).value
    return address if major == _DLPACK_MAJOR else 0


@functools.cache
def _fields_for(count: int) -> Any:
    expected = [("expected", ExpectedFields * count)]
    return type("RepeatFieldsOf", (RepeatFields,), {"_fields_": expected})


def _output(spec: TensorSpec) -> OutputFields:
    code, bits = _TYPES[getattr(torch, spec.dtype)]
    rows, columns = (*spec.shape, 1)[:2]
    return OutputFields(code, bits, len(spec.shape), (rows, columns), (columns, 1))


def _expected(kind: Kind | None, word: int) -> ExpectedFields:
    if kind is None:
        return ExpectedFields()
    dims = len(kind.shape)
    known = kind.dtype in _TYPES and dims <= TENSOR_DIMS
    code, bits = _TYPES[kind.dtype] if known else (-1, 0)  # -1: no tensor is
    return ExpectedFields(True, word, code, bits, dims, tuple(kind.shape[:TENSOR_DIMS]))
